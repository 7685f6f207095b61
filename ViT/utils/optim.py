"""Optimisers under the names of the flags."""

from functools import partial

from torch import nn, optim

OPTIMIZERS = {"adamw": optim.AdamW, "nesterov": partial(optim.SGD, momentum=0.9, nesterov=True)}
EMBEDDINGS = ("class_token", "position_embedding")


def make_optimizer(name: str, model: nn.Module, lr: float, weight_decay: float) -> optim.Optimizer:
    """Weight decay pulls on matrices and kernels alone, as in DeiT (Touvron et al., 2020,
    arXiv:2012.12877): norms, biases, the class token and the positions are not decayed."""
    decayed, others = [], []
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_weight = parameter.dim() > 1 and parameter_name not in EMBEDDINGS
            (decayed if is_weight else others).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return OPTIMIZERS[name]([group for group in groups if group["params"]], lr=lr)
