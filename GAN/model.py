"""The two players: generators and discriminators, of dense layers or of convolutions.

N batch, Z latent numbers, K classes, D features, C channels, H W height and width. A conditional
network (`num_classes` above 0) takes labels as well: the generator beside z, as Mirza & Osindero
(2014, arXiv:1411.1784, section 3.2), the discriminator as Miyato & Koyama (2018, arXiv:1802.05637).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

SMALLEST_IMAGE, LARGEST_START = 8, 4  # sides of images, and of the maps they start as
NORMS = ("batch", "spectral", "none")


class Generator(nn.Module):
    """z (N, Z), labels (N,) -> made-up data (N, *shape); images are in [-1, 1].

    Classes that are clusters have `shares` (K,): how often to draw each.
    """

    def __init__(self, shape: tuple[int, ...], latent_dim: int, num_classes: int):
        super().__init__()
        self.shape, self.latent_dim, self.num_classes = shape, latent_dim, num_classes
        self.register_buffer("shares", None, persistent=False)  # the kind of data tells them

    @property
    def labelled(self) -> bool:
        """Whether its classes are those of the labels."""
        return self.num_classes > 0 and self.shares is None

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.num_classes:
            one_hot = F.one_hot(labels, self.num_classes).to(z.dtype)
            z = torch.cat([z, one_hot], dim=1)  # (N, Z) -> (N, Z + K)
        return self.layers(z)


class Discriminator(nn.Module):
    """Data (N, *shape), labels (N,) -> logits (N,): large for what looks real.

    With φ = `layers` and the head's w and b, the logit is wᵀφ(x) + b, plus v_cᵀφ(x) of a
    conditional one, v_c a learned vector of class c: log p(x)/q(x) + log p(c|x)/q(c|x) has this
    form where both class posteriors are softmaxes of φ (Miyato & Koyama, section 3).

    `slope` multiplies the logit. Where spectral norm bounds how fast it changes with x, the bound
    is then `slope` times as high.
    """

    def __init__(self, num_features: int, num_classes: int, wrap: Callable, slope: float):
        super().__init__()
        self.slope = slope
        self.head = wrap(nn.Linear(num_features, 1))
        self.classes = wrap(nn.Embedding(num_classes, num_features)) if num_classes else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        features = self.layers(x)  # (N, D)
        logits = self.head(features).squeeze(1)
        if self.classes is not None:
            logits = logits + (self.classes(labels) * features).sum(1)
        return self.slope * logits


def wrapper(norm: str) -> Callable:
    """What a discriminator's layers are wrapped in: spectral norm divides a weight by its largest
    singular value, estimated by one power iteration in each forward pass (Miyato et al., 2018,
    arXiv:1802.05957)
    """
    return spectral_norm if norm == "spectral" else lambda layer: layer


# ---- dense: the first GAN (Goodfellow et al., 2014, arXiv:1406.2661) ----


class DenseGenerator(Generator):
    def __init__(
        self, shape: tuple[int, ...], latent_dim: int, hidden_sizes: list[int], num_classes: int = 0
    ):
        super().__init__(shape, latent_dim, num_classes)
        sizes = [latent_dim + num_classes, *hidden_sizes]
        layers = []
        for before, size in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(before, size), nn.ReLU()]
        layers += [nn.Linear(sizes[-1], torch.Size(shape).numel()), nn.Unflatten(1, shape)]
        if len(shape) == 3:  # pixels end where tanh does; points go where they like
            layers.append(nn.Tanh())
        self.layers = nn.Sequential(*layers)


class DenseDiscriminator(Discriminator):
    def __init__(
        self, shape: tuple[int, ...], hidden_sizes: list[int], norm: str = "none",
        num_classes: int = 0, slope: float = 1.0,
    ):  # fmt: skip
        wrap = wrapper(norm)
        super().__init__(hidden_sizes[-1], num_classes, wrap, slope)
        sizes = [torch.Size(shape).numel(), *hidden_sizes]
        layers = [nn.Flatten()]
        for number, (before, size) in enumerate(zip(sizes, sizes[1:], strict=False)):
            layers.append(wrap(nn.Linear(before, size)))
            if norm == "batch" and number:
                layers.append(nn.BatchNorm1d(size))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers)


# ---- convolutions: DCGAN (Radford et al., 2015, arXiv:1511.06434, section 3) ----


def sides(size: int) -> list[int]:
    """Of the maps of each stage, the smallest first: 64 -> [4, 8, 16, 32, 64], as in the paper, and
    28 -> [3, 7, 14, 28]. Raises ValueError for tiny images.

    So small the last maps have to be: a discriminator that stops at 7 × 7 sees strokes, not digits.
    """
    if size < SMALLEST_IMAGE:
        raise ValueError(f"{size} pixels are too few for convolutions; {SMALLEST_IMAGE} will do")
    halved = [size]
    while halved[-1] > LARGEST_START:
        halved.append(halved[-1] // 2)
    return halved[::-1]


def initialise(module: nn.Module) -> None:
    """Small normal weights (section 4 of the paper)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


class ConvGenerator(Generator):
    """z -> s × s maps, doubled by transposed convolutions up to H × W; channels halve each time.

    `output_padding` gives a side its odd pixel back: 3 -> 7.
    """

    def __init__(
        self, shape: tuple[int, int, int], latent_dim: int, channels: int, num_classes: int = 0
    ):
        super().__init__(shape, latent_dim, num_classes)
        start, *larger = sides(shape[1])
        widths = [channels * 2**k for k in reversed(range(len(larger)))]
        layers = [
            nn.Linear(latent_dim + num_classes, widths[0] * start**2),
            nn.Unflatten(1, (widths[0], start, start)),
        ]
        for width, after, side in zip(widths, [*widths[1:], shape[0]], larger, strict=True):
            layers += [
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.ConvTranspose2d(
                    width, after, kernel_size=4, stride=2, padding=1, output_padding=side % 2
                ),
            ]
        self.layers = nn.Sequential(*layers, nn.Tanh())
        self.apply(initialise)


class ConvDiscriminator(Discriminator):
    """Strided convolutions from H × W down to s × s, channels doubling; then one dense layer."""

    def __init__(
        self, shape: tuple[int, int, int], channels: int, norm: str = "batch",
        num_classes: int = 0, slope: float = 1.0,
    ):  # fmt: skip
        start, *larger = sides(shape[1])
        widths = [channels * 2**k for k in range(len(larger))]
        wrap = wrapper(norm)
        super().__init__(widths[-1] * start**2, num_classes, lambda layer: layer, slope)
        layers = []
        for number, (before, width) in enumerate(zip([shape[0], *widths], widths, strict=False)):
            layers.append(nn.Conv2d(before, width, kernel_size=4, stride=2, padding=1))
            if norm == "batch" and number:  # not next to the pixels, as in the paper
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.apply(initialise)
        for module in [self.head, self.classes, *self.layers]:  # after their weights were drawn
            if isinstance(module, (nn.Conv2d, nn.Linear, nn.Embedding)):
                wrap(module)


class GAN(nn.Module):
    """Both players, as one thing to save, to load and to count."""

    def __init__(self, generator: Generator, discriminator: Discriminator):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
