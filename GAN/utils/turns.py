"""One step of each player. Each changes its own weights alone."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from common.device import autocast
from GAN.model import GAN
from GAN.utils.losses import LOSSES, gradient_penalty


@contextmanager
def spectator(player: nn.Module) -> Iterator[nn.Module]:
    """The other one's turn: gradients flow through `player`, but nothing of it changes.

    Its parameters collect no gradient, and its buffers (running statistics of batch norm, vectors
    of spectral norm), which a forward pass in training mode moves, are put back.
    """
    before = [buffer.clone() for buffer in player.buffers()]
    player.requires_grad_(False)
    try:
        yield player
    finally:
        player.requires_grad_(True)
        with torch.no_grad():
            for buffer, value in zip(player.buffers(), before, strict=True):
                buffer.copy_(value)


def gradient_norm(player: nn.Module) -> Tensor:
    """The norm of all its gradients together."""
    norms = [p.grad.norm() for p in player.parameters() if p.grad is not None]
    return torch.stack(norms).norm()


def discriminator_step(
    model: GAN, optimizer, real: Tensor, labels: Tensor, args: Namespace, augment: Callable
) -> tuple[Tensor, Tensor]:
    """The discriminator learns to tell real from generated; returns its loss and gradient norm."""
    z = torch.randn(len(real), args.latent_dim, device=real.device)
    with autocast(real.device, args.precision):
        with torch.no_grad(), spectator(model.generator) as generator:
            fake = augment(generator(z, labels).to(z.dtype))
        real = augment(real)
        logits = model.discriminator(real, labels), model.discriminator(fake, labels)
        loss = LOSSES[args.loss][0](*(some.to(z.dtype) for some in logits))
    if args.penalty:  # in float32: it is differentiated twice
        loss = loss + args.penalty * gradient_penalty(model.discriminator, real, fake, labels)
    optimizer.zero_grad()
    loss.backward()
    norm = gradient_norm(model.discriminator)
    optimizer.step()
    return loss, norm


def generator_step(
    model: GAN, optimizer, labels: Tensor, args: Namespace, augment: Callable
) -> tuple[Tensor, Tensor]:
    """The generator learns to be taken for real; returns its loss and gradient norm."""
    z = torch.randn(len(labels), args.latent_dim, device=labels.device)
    with spectator(model.discriminator) as discriminator:
        with autocast(labels.device, args.precision):
            fake = augment(model.generator(z, labels).to(z.dtype))
            loss = LOSSES[args.loss][1](discriminator(fake, labels).to(z.dtype))
        optimizer.zero_grad()
        loss.backward()
    norm = gradient_norm(model.generator)
    optimizer.step()
    return loss, norm
