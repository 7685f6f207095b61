"""Nine checks for a network that does not learn; docs/does_not_learn.md explains them.

Each measures one number, and HEALTHY says where it should lie. They need nothing but PyTorch: copy
the one that you need.
"""

import math

import torch
import torch.nn.functional as F


def loss_after_over_before(model, optimizer, images, labels):
    first = F.cross_entropy(model(images), labels).item()
    for _ in range(20):  # always the same batch
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    return loss.item() / first


def size_of_a_step(weight_before, weight_after):
    step = weight_after - weight_before
    return (step.norm() / weight_before.norm()).item()


def share_of_dead_units(hidden):  # (N, units): after the ReLU, for all N validation images
    dead = (hidden <= 0).all(dim=0)
    return dead.float().mean().item()


def equal_neighbours_over_chance(labels):  # of a whole epoch, in the order of training
    equal = (labels[1:] == labels[:-1]).float().mean()
    by_chance = (labels.bincount() / len(labels)).square().sum()
    return (equal / by_chance).item()


def nearest_image_has_the_same_label(images, labels):  # (N, pixels), (N,): N is some hundreds
    distances = torch.cdist(images, images).fill_diagonal_(math.inf)
    return (labels[distances.argmin(dim=1)] == labels).float().mean().item()


def what_the_future_changes(model, tokens, vocabulary):  # (N, T)
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % vocabulary  # another last token
    return (model(tokens) - model(changed))[:, :-1].abs().max().item()


def what_the_neighbours_change(model, images):
    alone = torch.cat([model(half) for half in images.chunk(2)])
    return (model(images) - alone).abs().max().item()


def growth_of_the_gradient(loss, states):  # states: h₁, …, h_T, as the network computed them
    gradients = torch.autograd.grad(loss, states, retain_graph=True)
    return (gradients[0].norm() / gradients[-1].norm()).item()


def share_of_real_data_covered(real, fake, k=5):  # coverage: Naeem et al., 2020
    reach = torch.cdist(real, real).kthvalue(k + 1, dim=1).values  # the nearest is itself
    return (torch.cdist(real, fake).min(dim=1).values <= reach).float().mean().item()


HEALTHY = {  # symptom: its check, and the smallest and largest number that is healthy
    "rate_too_high": (loss_after_over_before, 0, 0.9),
    "rate_too_low": (size_of_a_step, 1e-4, 1e-1),
    "dead_units": (share_of_dead_units, 0, 0.2),
    "no_shuffling": (equal_neighbours_over_chance, 0, 2),
    "labels_off_by_one": (nearest_image_has_the_same_label, 0.5, 1),
    "leaking_mask": (what_the_future_changes, 0, 1e-4),
    "forgotten_eval": (what_the_neighbours_change, 0, 1e-4),
    "exploding_recurrence": (growth_of_the_gradient, 1e-3, 1e3),
    "collapsed_gan": (share_of_real_data_covered, 0.4, 1),
}


def fires(symptom: str, measured: float) -> bool:
    _, smallest, largest = HEALTHY[symptom]
    return not smallest <= measured <= largest  # NaN fires
