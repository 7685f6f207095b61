"""An autoencoder, and the variational autoencoder (Kingma & Welling, 2013, arXiv:1312.6114).

N images of D = C·H·W pixels, J latent numbers, k codes of each image, K classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from VAE.utils.likelihoods import LIKELIHOODS, normal
from VAE.utils.networks import MLP, ConvDecoder, ConvEncoder

MAX_LOGVAR = 10.0  # σ of 150: what an untrained encoder may say about a strange image


class Terms(NamedTuple):
    """What every bound is made of. For the plain autoencoder, mu is the code and logvar is None."""

    log_p_x: Tensor  # (N, k), nats
    z: Tensor  # (N, k, J)
    mu: Tensor  # (N, J)
    logvar: Tensor | None  # (N, J)


class Autoencoder(nn.Module):
    """x -> encoder -> code z (N, J) -> decoder -> x (Hinton & Salakhutdinov, 2006).

    With `num_classes`, both halves are told the class (Sohn, Lee & Yan, 2015).
    Without arguments, the network of the README's MNIST results.
    """

    statistics = 1  # numbers that the encoder gives for each of the code's

    def __init__(
        self,
        shape: tuple[int, int, int] = (1, 28, 28),
        latent_dim: int = 50,
        network: str = "mlp",
        hidden_sizes: Sequence[int] = (512, 512),
        channels: Sequence[int] = (32, 64),
        activation: str = "leaky-relu",
        batch_norm: bool = True,
        likelihood: str = "bernoulli",
        num_classes: int = 0,
    ):
        super().__init__()
        self.shape, self.latent_dim, self.num_classes = shape, latent_dim, num_classes
        D, K, out = shape[0] * shape[1] * shape[2], num_classes, self.statistics * latent_dim
        style = (activation, batch_norm)
        if network == "mlp":
            self.encoder = MLP(D + K, hidden_sizes, out, *style)
            self.decoder = MLP(latent_dim + K, hidden_sizes[::-1], D, *style)
        else:  # the convolutions, and one hidden layer
            self.encoder = ConvEncoder(shape, K, channels, hidden_sizes[0], out, *style)
            self.decoder = ConvDecoder(latent_dim + K, channels, hidden_sizes[0], shape, *style)
        self.likelihood = LIKELIHOODS[likelihood]()

    def context(self, labels: Tensor | None) -> Tensor | None:
        """Labels (N,), or shares of each class (N, K), as what the networks are told: (N, K)."""
        if not self.num_classes:
            return None
        return F.one_hot(labels, self.num_classes).float() if labels.dim() == 1 else labels

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(N, D) -> code (N, J), and None"""
        return self.encoder(x, self.context(labels)).to(x.dtype), None

    def sample(self, mu: Tensor, logvar: Tensor | None, k: int, generator=None) -> Tensor:
        """k codes of each image: (N, J) -> (N, k, J). Here they are all the same."""
        return mu[:, None].expand(-1, k, -1)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """The outputs that the likelihood reads: (N, k, J) -> (N, k, D)"""
        N, k, _ = z.shape
        context = self.context(labels)
        if context is not None:
            context = context.repeat_interleave(k, 0)
        return self.decoder(z.flatten(0, 1), context).view(N, k, -1)

    def forward(
        self, x: Tensor, labels: Tensor | None = None, samples: int = 1, generator=None
    ) -> Terms:
        """Observed images (N, D) and, of a conditional model, labels (N,)."""
        mu, logvar = self.encode(x, labels)
        z = self.sample(mu, logvar, samples, generator)
        return Terms(self.likelihood.log_prob(self.decode(z, labels), x), z, mu, logvar)

    def pictures(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """What codes look like: (N, J) -> (N, C, H, W) in [0, 1]"""
        return self.likelihood.mean(self.decode(z[:, None], labels)).view(-1, *self.shape)


class VAE(Autoencoder):
    """The encoder gives q(z | x) = N(mu, σ²), the decoder p(x | z); the prior is p(z) = N(0, 1)."""

    statistics = 2

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(N, D) -> mu and log σ² (N, J)"""
        mu, logvar = self.encoder(x, self.context(labels)).to(x.dtype).chunk(2, dim=1)
        return mu, logvar.clamp(max=MAX_LOGVAR)

    def sample(self, mu: Tensor, logvar: Tensor, k: int, generator=None) -> Tensor:
        """z = mu + σ ε with ε from N(0, 1), so that gradients reach mu and σ (section 2.4)."""
        noise = normal((len(mu), k, self.latent_dim), mu.device, generator).to(mu.dtype)
        return mu[:, None] + (0.5 * logvar[:, None]).exp() * noise
