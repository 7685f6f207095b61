"""log p(x) of a trained model by importance sampling (Burda et al., 2015, section 2.2)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from common.data import Split
from VAE.model import VAE, Terms
from VAE.utils.bounds import log_weights

ROWS = 2_000  # codes that are decoded at once: so many images' pixels are in memory


class Estimate(NamedTuple):
    """Nats of each image (N,), of the same samples: the mean of log w, the log of the mean of w."""

    elbo: Tensor
    log_likelihood: Tensor


@torch.no_grad()
def estimate(
    model: VAE, x: Tensor, labels: Tensor | None, samples: int, generator=None, rows: int = ROWS
) -> Estimate:
    """log p(x) ≈ log 1/k Σ_i p(x | z_i) p(z_i) / q(z_i | x) with k = `samples` codes z_i from q, of
    observed images (N, D).

    At most `rows` codes are in memory, whatever `samples` is: the sums go on from chunk to chunk.
    """
    mu, logvar = model.encode(x, labels)
    total = torch.zeros(len(x), dtype=torch.float64)  # on the CPU: not every device has these
    log_sum = torch.full_like(total, -math.inf)
    for start in range(0, samples, rows):
        count = min(rows, samples - start)
        for images in torch.arange(len(x)).split(max(1, rows // count)):
            own = None if labels is None else labels[images]
            z = model.sample(mu[images], logvar[images], count, generator)
            log_p_x = model.likelihood.log_prob(model.decode(z, own), x[images])
            log_w = log_weights(Terms(log_p_x, z, mu[images], logvar[images]))
            log_w = log_w.cpu().double()
            total[images] += log_w.sum(1)
            log_sum[images] = torch.logaddexp(log_sum[images], log_w.logsumexp(1))
    return Estimate(total / samples, log_sum - math.log(samples))


def estimate_split(model: VAE, data: Split, samples: int) -> tuple[float, float]:
    """The means over a whole split, pixels and codes drawn with fixed seeds: ELBO, log p(x)."""
    pixels, codes = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    sums = [0.0, 0.0]
    for images, labels in tqdm(list(data.in_order(100)), leave=False, disable=None):
        x = model.likelihood.observe(images, pixels)
        for n, values in enumerate(estimate(model, x, labels, samples, codes)):
            sums[n] += values.sum().item()
    return sums[0] / len(data), sums[1] / len(data)
