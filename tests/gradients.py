"""Checks a hand-written layer's backward twice: against autograd and against finite differences.

Both in float64, with the same random numbers (dropout) at every evaluation.
"""

import contextlib
import copy
import itertools
import random

import torch
from torch import Tensor, nn

STEP = 1e-6  # of the central differences; their error is about STEP² + 1e-16 / STEP
MAX_PERTURBED = 200  # a larger tensor is perturbed at so many random places
FLOOR = 1e-2  # a gradient that is zero but for rounding has no relative error


def check_layer(layer, reference, x: Tensor, needs_grad_input: bool | None = None) -> None:
    """Assert that `layer`'s forward and backward are right at `x`.

    `reference` is the same function in PyTorch: an nn.Module whose state dict has the layer's
    names, or a function called as `reference(x, **layer.parameters())`. The layer is checked in the
    mode (train or eval) that it is in, on a copy. Where `needs_grad_input` is False (by default, as
    the layer's attribute of that name says, or for an `x` of integers), backward must return None.
    """
    layer = copy.deepcopy(layer).to(dtype=torch.float64)
    x = x.double() if x.is_floating_point() else x
    if needs_grad_input is None:
        needs_grad_input = x.is_floating_point() and getattr(layer, "needs_grad_input", True)

    output = evaluate(layer, x)
    assert output.dtype == torch.float64
    grad_output = torch.randn(output.shape, generator=seeded(1), dtype=torch.float64)
    gradients = layer_gradients(layer, x, grad_output, needs_grad_input)
    for name, gradient in layer_gradients(layer, x, grad_output, needs_grad_input).items():
        assert_close(gradient, gradients[name], 1e-8, f"gradient of {name} in a second call")
    expected_output, expected = autograd_gradients(layer, reference, x, grad_output)
    assert_close(output, expected_output, 1e-8, "forward")
    for name, gradient in gradients.items():
        assert_close(gradient, expected[name], 1e-8, f"gradient of {name} against autograd")

    moved = x.clone()
    for name, tensor in {"x": moved, **layer.parameters()}.items():
        if name in gradients:
            places, numeric = finite_differences(layer, moved, tensor, grad_output)
            analytic = torch.stack([gradients[name][place] for place in places])
            assert_close(analytic, numeric, 1e-6, f"gradient of {name} against differences")


def layer_gradients(layer, x: Tensor, grad_output: Tensor, needs_grad_input: bool) -> dict:
    """What backward returns ("x") and leaves in the layer, by name; neither argument changes."""
    before = x.clone(), grad_output.clone()  # clones alone: a view's would lie otherwise in memory
    evaluate(layer, x)
    grad_input = layer.backward(grad_output)
    assert torch.equal(x, before[0]), "the layer changes its input"
    assert torch.equal(grad_output, before[1]), "backward changes the gradient it is given"
    gradients = {name: gradient.clone() for name, gradient in layer.gradients().items()}
    assert gradients.keys() == layer.parameters().keys()
    assert (grad_input is not None) == needs_grad_input, f"backward returns {grad_input}"
    if needs_grad_input:
        gradients["x"] = grad_input.clone()
    return gradients


def autograd_gradients(layer, reference, x: Tensor, grad_output: Tensor) -> tuple[Tensor, dict]:
    """The reference's output, and its gradients under the layer's names."""
    inputs = x.clone().requires_grad_(x.is_floating_point())
    if isinstance(reference, nn.Module):
        reference = copy.deepcopy(reference).double().train(layer.training)
        reference.load_state_dict(layer.state_dict())
        leaves = dict(reference.named_parameters())
        with fixed_seed():
            output = reference(inputs)
    else:
        leaves = {name: p.clone().requires_grad_() for name, p in layer.parameters().items()}
        with fixed_seed():
            output = reference(inputs, **leaves)
    assert leaves.keys() == layer.parameters().keys()
    if inputs.requires_grad:
        leaves["x"] = inputs
    if not leaves:
        return output, {}
    gradients = torch.autograd.grad(output, list(leaves.values()), grad_output)
    return output.detach(), dict(zip(leaves, gradients, strict=True))


def finite_differences(
    layer, x: Tensor, tensor: Tensor, grad_output: Tensor
) -> tuple[list[tuple[int, ...]], Tensor]:
    """Some places of `tensor` (x or a parameter), and d sum(forward(x) · grad_output) / d each."""
    places = list(itertools.product(*map(range, tensor.shape)))
    if len(places) > MAX_PERTURBED:
        places = random.Random(0).sample(places, MAX_PERTURBED)
    slopes = []
    for place in places:
        value = tensor[place].item()
        tensor[place] = value + STEP
        above = evaluate(layer, x)
        tensor[place] = value - STEP
        below = evaluate(layer, x)
        tensor[place] = value
        slopes.append(((above - below) * grad_output).sum() / (2 * STEP))
    return places, torch.stack(slopes)


def evaluate(layer, x: Tensor) -> Tensor:
    """forward(x) with fixed random numbers; running statistics are put back as they were."""
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with fixed_seed():
        output = layer.forward(x).clone()  # of its own: a layer may return x or keep its output
    layer.load_state_dict(before)
    return output


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """The largest difference, relative to the largest value expected, is at most `tolerance`."""
    assert actual.shape == expected.shape, f"{what}: {actual.shape} instead of {expected.shape}"
    if expected.numel():
        difference = (actual - expected).abs().max().item()
        error = difference / max(expected.abs().max().item(), FLOOR)
        assert error <= tolerance, f"{what}: relative error {error:.1e}"  # also when it is NaN


@contextlib.contextmanager
def fixed_seed():
    """The same random numbers each time; those of the test go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # of the CPU alone: each time all would take longer
        yield


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
