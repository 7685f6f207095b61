"""Encoders and decoders: perceptrons, and convolutions with strides.

Images go in and come out as rows of D = C·H·W numbers. `context` numbers more, the one-hot class of
a conditional model, go in beside the image or the code.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

ACTIVATIONS = {"relu": nn.ReLU, "leaky-relu": nn.LeakyReLU, "tanh": nn.Tanh, "silu": nn.SiLU}


def with_context(x: Tensor, context: Tensor | None) -> Tensor:
    """(N, F), (N, K) or None -> (N, F + K)"""
    return x if context is None else torch.cat([x, context.to(x.dtype)], dim=1)


class MLP(nn.Module):
    """[Linear -> BatchNorm -> activation] for each hidden layer, then Linear: either half."""

    def __init__(
        self, in_features: int, hidden_sizes: Sequence[int], out_features: int,
        activation: str = "tanh", batch_norm: bool = False,
    ):  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        for size in hidden_sizes:
            layers.append(nn.Linear(in_features, size))
            if batch_norm:
                layers.append(nn.BatchNorm1d(size))
            layers.append(ACTIVATIONS[activation]())
            in_features = size
        self.layers = nn.Sequential(*layers, nn.Linear(in_features, out_features))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (N, in) -> (N, out)
        return self.layers(with_context(x, context))


class ConvEncoder(nn.Module):
    """Each convolution halves height and width; then one hidden layer. (N, C·H·W) -> (N, out).

    The class is a plane of ones among K - 1 planes of zeros, beside the colours.
    """

    def __init__(
        self, shape: tuple[int, int, int], context: int, channels: Sequence[int], hidden_size: int,
        out_features: int, activation: str, batch_norm: bool,
    ):  # fmt: skip
        super().__init__()
        self.shape, layers = shape, []
        width, H, W = shape[0] + context, *shape[1:]
        for size in channels:
            layers.append(nn.Conv2d(width, size, 3, stride=2, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(size))
            layers.append(ACTIVATIONS[activation]())
            width, H, W = size, (H + 1) // 2, (W + 1) // 2
        self.convolutions = nn.Sequential(*layers)
        self.head = MLP(width * H * W, [hidden_size], out_features, activation, batch_norm)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = x.view(-1, *self.shape)
        if context is not None:
            planes = context.to(x.dtype)[:, :, None, None].expand(-1, -1, *self.shape[1:])
            x = torch.cat([x, planes], dim=1)  # (N, C + K, H, W)
        return self.head(self.convolutions(x).flatten(1))


class ConvDecoder(nn.Module):
    """The encoder backwards: each transposed convolution doubles height and width.

    (N, J) -> (N, C·H·W), H and W multiples of 2 to the power of the number of convolutions.
    """

    def __init__(
        self, in_features: int, channels: Sequence[int], hidden_size: int,
        shape: tuple[int, int, int], activation: str, batch_norm: bool,
    ):  # fmt: skip
        super().__init__()
        C, H, W = shape
        halvings = 2 ** len(channels)
        self.small = (channels[-1], H // halvings, W // halvings)
        size = self.small[0] * self.small[1] * self.small[2]
        self.head = MLP(in_features, [hidden_size], size, activation, batch_norm)
        layers: list[nn.Module] = []
        for width, out in zip(channels[::-1], [*channels[-2::-1], C], strict=True):
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(ACTIVATIONS[activation]())
            layers.append(nn.ConvTranspose2d(width, out, 4, stride=2, padding=1))
        self.convolutions = nn.Sequential(*layers)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.head(with_context(z, context)).view(-1, *self.small)
        return self.convolutions(x).flatten(1)
