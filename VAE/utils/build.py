"""The network that the flags describe."""

from argparse import Namespace

from common.data import Split
from common.errors import UserError
from VAE.model import VAE, Autoencoder


def build_model(args: Namespace, data: Split) -> Autoencoder:
    """The network that the flags describe, for images like those of `data`."""
    if args.network == "conv" and any(side % 2 ** len(args.channels) for side in data.shape[1:]):
        raise UserError(
            f"--channels {' '.join(map(str, args.channels))} would halve images of {data.shape[1]} "
            f"x {data.shape[2]} pixels {len(args.channels)} times: name fewer, or, of a folder of "
            f"images, an --image-size that is a multiple of {2 ** len(args.channels)}"
        )
    num_classes = len(data.classes) if args.model == "cvae" else 0
    return (Autoencoder if args.model == "ae" else VAE)(
        data.shape, args.latent_dim, args.network, args.hidden_sizes, args.channels,
        args.activation, args.batch_norm, args.likelihood, num_classes,
    )  # fmt: skip
