"""p(x | z): what is taken to be seen of an image, and how likely a decoder makes it.

Every likelihood has `observe` (bytes -> x), `log_prob` (nats of x, given the decoder's outputs) and
`mean` (the outputs as a picture). N images, k codes of each, D = C·H·W pixels.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def uniform(shape: torch.Size, device: torch.device, generator=None) -> Tensor:
    """On [0, 1). A generator is a CPU's, so that every device draws the same."""
    if generator is None:
        return torch.rand(shape, device=device)
    return torch.rand(shape, generator=generator).to(device)


def normal(shape: torch.Size, device: torch.device, generator=None) -> Tensor:
    """From N(0, 1), likewise."""
    if generator is None:
        return torch.randn(shape, device=device)
    return torch.randn(shape, generator=generator).to(device)


def grey_levels(images: Tensor) -> Tensor:
    """Bytes (N, C, H, W) -> (N, D) in [0, 1], of PyTorch's default dtype."""
    return images.flatten(1).to(torch.get_default_dtype()) / 255


class BernoulliLogProb(torch.autograd.Function):
    """log p(x | z) = Σ_d x_d log σ(l_d) + (1 − x_d) log(1 − σ(l_d)) = Σ_d x_d l_d − softplus(l_d)

    for x in [0, 1], by the logits l. And as softplus′ = σ, ∂/∂l_d = x_d − σ(l_d).

    As F.binary_cross_entropy_with_logits, with fewer passes over the (N, k, D) logits, which are
    by far the largest tensor of a training step.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, x: Tensor) -> Tensor:  # (N, k, D), (N, D) -> (N, k)
        x = x[:, None].to(logits.dtype)
        ctx.save_for_backward(logits, x)
        positive = (logits * x).sum(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        return positive - F.softplus(logits).sum(-1, dtype=positive.dtype)

    @staticmethod
    def backward(ctx, grad_output: Tensor):
        logits, x = ctx.saved_tensors
        return (x - logits.sigmoid()).mul_(grad_output[..., None].to(logits.dtype)), None


class Bernoulli(nn.Module):
    """Black or white pixels. Each is drawn anew every time, white with its grey level as the
    probability (dynamic binarisation: Salakhutdinov & Murray, 2008; Burda et al., 2015, section 5).
    """

    is_likelihood = True

    def observe(self, images: Tensor, generator=None) -> Tensor:  # (N, C, H, W) -> (N, D)
        levels = grey_levels(images)
        return (uniform(levels.shape, levels.device, generator) < levels).to(levels.dtype)

    def log_prob(self, outputs: Tensor, x: Tensor) -> Tensor:  # (N, k, D), (N, D) -> (N, k)
        return BernoulliLogProb.apply(outputs, x)

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs.float().sigmoid()


class GreyLevels(Bernoulli):
    """The same formula, with the grey levels themselves in the place of x, as in pytorch/examples.

    No likelihood: nothing says that it adds up to 1 over x. Its nats do not compare with others'.
    """

    is_likelihood = False

    def observe(self, images: Tensor, generator=None) -> Tensor:
        return grey_levels(images)


class Gaussian(nn.Module):
    """Pixels in [0, 1] with normal noise, whose σ is learned: one for all (Rybkin et al., 2020).

    A density: more than 1 is possible, and log-likelihoods above 0 are.
    """

    is_likelihood = True

    def __init__(self):
        super().__init__()
        self.log_sigma = nn.Parameter(torch.tensor(-2.0))

    def observe(self, images: Tensor, generator=None) -> Tensor:
        return grey_levels(images)

    def log_prob(self, outputs: Tensor, x: Tensor) -> Tensor:
        squares = (outputs.to(x.dtype) - x[:, None]).square().sum(-1)  # (N, k)
        constant = x.shape[1] * (self.log_sigma + 0.5 * math.log(2 * math.pi))
        return -0.5 * squares * (-2 * self.log_sigma).exp() - constant

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs.float().clamp(0, 1)


LIKELIHOODS = {"bernoulli": Bernoulli, "grey": GreyLevels, "gaussian": Gaussian}
