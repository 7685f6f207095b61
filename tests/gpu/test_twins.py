"""Networks and layers by hand beside PyTorch's, on a GPU: the same loss, outputs and gradients."""

import re

import pytest
import torch

from common.results import compare
from common.results.compare_steps import LAYERS
from tests.running import call

pytestmark = pytest.mark.gpu

# Relative, in float32. Sums of products differ by the order of addition, about 1e-6 of a value. A
# number that is nearly 0 before a ReLU, or nearly its neighbour in a pooling, may then fall on the
# other side, and a few gradients change by more: by 3e-4 of their tensor on a CPU, where both
# twins round alike, as in TF32 they would not (1e-3 of each product; it is off here).
LOSS, GRADIENT, SMOOTH_GRADIENT = 1e-5, 5e-3, 1e-4


def distances(ours: dict, theirs: dict) -> dict[str, float]:
    """|a - b| / |b| of each tensor, by name; of those that are but rounding, |a - b| / |all|.

    With the norm of the whole tensor: of its largest value, one changed ReLU would be too much.
    """
    everything = torch.stack([value.norm() for value in theirs.values()]).norm()
    found = {}
    for name, value in theirs.items():
        small = value.norm() < 1e-5 * everything  # the bias before batch norm, whose gradient is 0
        scale = everything if small else value.norm()
        found[name] = ((ours[name] - value).norm() / scale).item()
    return found


@pytest.mark.parametrize("name", compare.TWINS)
def test_twins_agree_in_float32(name, device):
    """In one step: over several, AdamW makes much of rounding where a gradient is nearly 0."""
    torch.manual_seed(0)
    manual, native = compare.make_pair(name, torch.float32, device, **compare.no_dropout(name))
    size = compare.TWINS[name].batch_size
    batch = compare.TWINS[name].make_batch(size, native.model, torch.float32, device)
    ours, theirs = manual(*batch).item(), native(*batch).item()
    assert ours == pytest.approx(theirs, rel=LOSS)
    assert max(distances(manual.gradients(), native.gradients()).values()) <= GRADIENT


@pytest.mark.parametrize("name", compare.TWINS)
def test_twins_agree_step_by_step_in_float64(name, device):
    torch.manual_seed(0)
    found = compare.differences(name, device, batch_size=4)
    assert found["loss"] <= 1e-8 and found["gradient"] <= 1e-8


@pytest.mark.parametrize("dtype, most", [(torch.float32, SMOOTH_GRADIENT), (torch.float64, 1e-8)])
@pytest.mark.parametrize("name", LAYERS)
def test_recurrent_layers_agree_with_those_of_cudnn(name, dtype, most, device):
    torch.manual_seed(0)
    manual, native = compare.make_pair(name, dtype, device, input_size=16, hidden_size=32)
    inputs = LAYERS[name].make_batch((20, 8), native.model, dtype, device)
    outputs = {"output": manual(*inputs)}, {"output": native(*inputs)}
    ours, theirs = outputs[0] | manual.gradients(), outputs[1] | native.gradients()
    assert max(distances(ours, theirs).values()) <= most


@pytest.mark.parametrize("name", compare.TWINS)
def test_comparison_of_twins_runs(name, device, capsys):
    flags = ["--steps", 2, "--batch-size", 4, "--device", device]
    result = call(capsys, compare.main, name, *flags)
    assert result.code == 0, result.err
    numbers = re.findall(r"\d\.\de[-+]\d\d", result.out)
    assert len(numbers) == 2 and all(float(number) <= 1e-8 for number in numbers)


def test_comparison_of_layers_runs(device, capsys):
    flags = ["--steps", 2, "--batch-size", 4, "--window", 6, "--hidden-size", 8]
    result = call(capsys, compare.main, *LAYERS, *flags, "--device", device)
    assert result.code == 0, result.err
    numbers = re.findall(r"\d\.\de[-+]\d\d", result.out)
    assert len(numbers) == 6 and all(float(number) <= 1e-8 for number in numbers)
