"""What the two players minimise: logits of real and of generated data, (N,) each, to a number."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def discriminator_bce(real: Tensor, fake: Tensor) -> Tensor:
    """-E log D(x) - E log(1 - D(G(z))), D = σ(logit) (Goodfellow et al., 2014, equation 1).

    -log σ(a) = softplus(-a) and -log(1 - σ(a)) = softplus(a): no logarithm of a rounded 0.
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_saturating(fake: Tensor) -> Tensor:
    """E log(1 - D(G(z))), the other side of the same game; its gradient is -σ(a)."""
    return -F.softplus(fake).mean()


def generator_non_saturating(fake: Tensor) -> Tensor:
    """-E log D(G(z)) (section 3 of the same); its gradient is σ(a) - 1, which is
    largest where D is sure of a fake."""
    return F.softplus(-fake).mean()


def discriminator_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """E max(0, 1 - f(x)) + E max(0, 1 + f(G(z))), f the logit (Lim & Ye, 2017,
    arXiv:1705.02894)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def discriminator_wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    """E f(G(z)) - E f(x) (Arjovsky et al., 2017, arXiv:1701.07875, equation 2, negated)."""
    return fake.mean() - real.mean()


def generator_critic(fake: Tensor) -> Tensor:
    """-E f(G(z)): of the hinge and the Wasserstein game alike."""
    return -fake.mean()


LOSSES: dict[str, tuple[Callable, Callable]] = {  # of the discriminator, of the generator
    "non-saturating": (discriminator_bce, generator_non_saturating),
    "saturating": (discriminator_bce, generator_saturating),
    "hinge": (discriminator_hinge, generator_critic),
    "wasserstein": (discriminator_wasserstein, generator_critic),
}


def gradient_penalty(
    discriminator: Callable, real: Tensor, fake: Tensor, labels: Tensor | None = None
) -> Tensor:
    """E (‖∇f(x̂)‖ - 1)² at x̂ = t x + (1 - t) G(z), t uniform on [0, 1] for each pair
    (Gulrajani et al., 2017, arXiv:1704.00028, equation 3); can be differentiated again."""
    t = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device, dtype=real.dtype)
    between = (t * real + (1 - t) * fake).detach().requires_grad_()
    logits = discriminator(between, labels)  # (N,), each of its own x̂ alone, so that
    (gradient,) = torch.autograd.grad(logits.sum(), between, create_graph=True)  # the sum will do
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
