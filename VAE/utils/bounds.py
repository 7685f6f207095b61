"""Lower bounds of log p(x), and what each model minimises.

N images, k codes z of each, J latent numbers.
"""

import math

import torch
from torch import Tensor

from VAE.model import Terms


def kl_to_prior(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, σ²) ‖ N(0, 1)) = ½ (mu² + σ² − 1 − log σ²) of every latent number: (N, J).

    Kingma & Welling (2013), appendix B. Its gradient: ∂/∂mu = mu, ∂/∂logvar = ½ (σ² − 1).
    """
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


def log_weights(terms: Terms) -> Tensor:
    """log w = log p(x | z) + log p(z) − log q(z | x): (N, k).

    Both densities of z are normal and their constants cancel; with z = mu + σ ε,
    log p(z) − log q(z | x) = ½ Σ (ε² + log σ² − z²).
    """
    mu, logvar = terms.mu[:, None], terms.logvar[:, None]
    noise = (terms.z - mu) * (-0.5 * logvar).exp()
    return terms.log_p_x + 0.5 * (noise.square() + logvar - terms.z.square()).sum(-1)


def importance_bound(log_w: Tensor) -> Tensor:
    """log (1/k Σ w), which is at most log p(x) in the mean, and closer to it the larger k is
    (Burda et al., 2015, theorem 1): (N, k) -> (N,)"""
    return log_w.logsumexp(1) - math.log(log_w.shape[1])


def reconstruction_loss(terms: Terms, beta: float) -> Tensor:
    """Of the plain autoencoder: −log p(x | z), and nothing that keeps the codes together: (N,)"""
    return -terms.log_p_x.mean(1)


def elbo_loss(terms: Terms, beta: float) -> Tensor:
    """−E_q[log p(x | z)] + β KL(q ‖ p): (N,). With β = 1 it is −ELBO (Kingma & Welling, 2013,
    equation 10); other values of β: Higgins et al. (2017), equation 4."""
    return -terms.log_p_x.mean(1) + beta * kl_to_prior(terms.mu, terms.logvar).sum(1)


def importance_loss(terms: Terms, beta: float) -> Tensor:
    """−L_k. β weighs log q(z | x) − log p(z) within each weight; L_k itself has β = 1: (N,)"""
    log_w = log_weights(terms)
    return -importance_bound(terms.log_p_x + beta * (log_w - terms.log_p_x))


def doubly_reparameterised_loss(terms: Terms, beta: float) -> Tensor:
    """−L_k once more, with another gradient of the same mean for the encoder: the normalised
    weights w̃ of the k codes enter it squared, and q's density does not (Tucker et al., 2018,
    equation 8). Its noise does not drown the signal when k is large.

    With β, the hook multiplies the path by 1 − β + β w̃ instead of w̃: README, step 4.
    """
    mu, logvar = terms.mu.detach(), terms.logvar.detach()
    log_w = log_weights(Terms(terms.log_p_x, terms.z, mu, logvar))
    log_w = terms.log_p_x + beta * (log_w - terms.log_p_x)
    weights = log_w.detach().softmax(1)
    terms.z.register_hook(lambda gradient: (1 - beta + beta * weights)[..., None] * gradient)
    surrogate = (weights * log_w).sum(1)
    return surrogate.detach() - surrogate - importance_bound(log_w.detach())


OBJECTIVES = {
    "ae": reconstruction_loss, "vae": elbo_loss, "iwae": importance_loss, "cvae": elbo_loss,
}  # fmt: skip


def active_units(mu: Tensor, threshold: float = 0.01) -> Tensor:
    """Which latent numbers say something about x: Cov_x(E_q[z_u]) > 0.01 over all images.

    Burda et al. (2015), section 5.2: (N, J) -> (J,) bool
    """
    return mu.var(0, correction=0) > threshold if len(mu) > 1 else torch.zeros_like(mu[0]).bool()
