"""From flags to networks."""

from argparse import Namespace

import torch

from common.errors import UserError
from GAN.model import GAN, ConvDiscriminator, ConvGenerator, DenseDiscriminator, DenseGenerator
from GAN.utils.kind import Kind


def check_flags(args: Namespace) -> None:
    """Raises UserError for flags that do not go together, before anything is loaded."""
    if args.penalty and args.norm == "batch":
        raise UserError("--penalty is of each example alone: it needs --norm none or spectral")
    if args.clusters and args.model == "cgan":
        raise UserError("--clusters is of a GAN without classes; cgan has those of the labels")


def build_model(args: Namespace, data: Kind) -> GAN:
    """The players that the flags describe, for data of this kind."""
    model = build_players(args, data)
    if data.sizes:
        model.generator.shares = torch.tensor(data.sizes) / sum(data.sizes)
    return model


def build_players(args: Namespace, data: Kind) -> GAN:
    K = len(data.classes) if args.model == "cgan" or args.clusters else 0
    if args.model == "dcgan" and len(data.shape) == 1:
        raise UserError("--model dcgan is of images: the ring has points")
    if args.model == "gan" or len(data.shape) == 1:  # points have no neighbours to convolve with
        return GAN(
            DenseGenerator(data.shape, args.latent_dim, args.hidden_sizes, K),
            DenseDiscriminator(data.shape, args.hidden_sizes[::-1], args.norm, K, args.slope),
        )
    try:
        return GAN(
            ConvGenerator(data.shape, args.latent_dim, args.channels, K),
            ConvDiscriminator(data.shape, args.channels, args.norm, K, args.slope),
        )
    except ValueError as error:
        raise UserError(f"--image-size: {error}") from None
