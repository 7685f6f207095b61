"""Which pixels an answer depends on (Simonyan, Vedaldi & Zisserman, 2013, arXiv:1312.6034)."""

import torch
from torch import Tensor

from MLP_Manual.model import MLP


def sensitivity(model: MLP, inputs: Tensor, classes: Tensor) -> Tensor:
    """How much each input moves the logit of a class: inputs (N, D), classes (N,) -> (N, D).

    |∂zₖ/∂x|, with zₖ the logit of the class (section 3: the absolute value of w). backward
    multiplies the gradient of the logits by ∂z/∂x; a one-hot row in its place leaves ∂zₖ/∂x.

    Raises ValueError in training mode, where dropout is on and batch normalisation lets every
    example of the batch have an effect on the others.
    """
    if model.training:
        raise ValueError("call model.eval() first: sensitivity is of a network in evaluation mode")
    first_layer = model.layers.layers[0]
    logits = model.forward(inputs)
    one_hot = torch.zeros_like(logits)  # (N, K)
    one_hot[torch.arange(len(classes), device=classes.device), classes] = 1
    before, first_layer.needs_grad_input = first_layer.needs_grad_input, True
    try:
        return model.backward(one_hot).abs()  # (N, D)
    finally:
        first_layer.needs_grad_input = before
