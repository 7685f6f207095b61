"""Which pixels an answer depends on (Simonyan, Vedaldi & Zisserman, 2013, arXiv:1312.6034)."""

import torch
from torch import Tensor

from MLP_Torch.model import MLP


def sensitivity(model: MLP, inputs: Tensor, classes: Tensor) -> Tensor:
    """How much each input moves the logit of a class: inputs (N, D), classes (N,) -> (N, D).

    |∂zₖ/∂x|, with zₖ the logit of the class (section 3: the absolute value of w). Autograd starts
    from one number. The sum over the batch will do: no example moves the logits of another.

    Raises ValueError in training mode, where dropout is on and batch normalisation lets every
    example of the batch have an effect on the others.
    """
    if model.training:
        raise ValueError("call model.eval() first: sensitivity is of a network in evaluation mode")
    with torch.enable_grad():  # predict.py has switched it off
        inputs = inputs.detach().requires_grad_()
        logits = model(inputs)
        score = logits.gather(1, classes[:, None]).sum()
    (grad_inputs,) = torch.autograd.grad(score, inputs)  # (N, D)
    return grad_inputs.abs()
