"""From flags to networks."""

from argparse import Namespace

import torch

from common.data import Split
from common.errors import UserError
from GAN.model import GAN, ConvDiscriminator, ConvGenerator, DenseDiscriminator, DenseGenerator


def build_model(args: Namespace, data) -> GAN:
    """The players that the flags describe, for a split or `Kind` of data: its shape and classes.

    Of clusters, a split tells their shares; without one, a checkpoint will.
    """
    if args.penalty and args.norm == "batch":
        raise UserError("--penalty is of each example alone: it needs --norm none or spectral")
    K = len(data.classes) if args.model == "cgan" or args.clusters else 0
    if args.model == "dcgan" and len(data.shape) == 1:
        raise UserError("--model dcgan is of images: the ring has points")
    if args.model == "gan" or len(data.shape) == 1:  # points have no neighbours to convolve with
        model = GAN(
            DenseGenerator(data.shape, args.latent_dim, args.hidden_sizes, K),
            DenseDiscriminator(data.shape, args.hidden_sizes[::-1], args.norm, K, args.slope),
        )
    else:
        try:
            model = GAN(
                ConvGenerator(data.shape, args.latent_dim, args.channels, K),
                ConvDiscriminator(data.shape, args.channels, args.norm, K, args.slope),
            )
        except ValueError as error:
            raise UserError(f"--image-size: {error}") from None
    if args.clusters:
        labels = data.labels.cpu() if isinstance(data, Split) else torch.arange(K)
        model.generator.shares = torch.bincount(labels, minlength=K) / len(labels)
    return model
