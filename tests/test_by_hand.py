"""The layers that are written by hand, at PyTorch's edge cases: backward called twice, a mode that
changes between forward and backward, everything dropped, infinities and NaN."""

import importlib
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common import schedules
from Transformer_Torch.utils.optim import learning_rates

INF, NAN = math.inf, math.nan
FOLDERS = ["MLP_Manual", "CNN_Manual", "RNN_Manual", "Transformer_Manual"]


def layers(name: str) -> list:
    """The classes of this name, one of each folder that has it."""
    modules = [importlib.import_module(f"{folder}.utils.layers") for folder in FOLDERS]
    return [
        pytest.param(getattr(module, name), id=module.__name__.split(".")[0])
        for module in modules
        if hasattr(module, name)
    ]


def part(folder: str, module: str, name: str, *args):
    return getattr(importlib.import_module(f"{folder}.{module}"), name)(*args)


# folder, module, class, arguments, shape of the input
EVERY_LAYER = [
    ("MLP_Manual", "utils.layers", "Linear", (4, 3), (5, 4)),
    ("MLP_Manual", "utils.layers", "ReLU", (), (5, 4)),
    ("MLP_Manual", "utils.layers", "Tanh", (), (5, 4)),
    ("MLP_Manual", "utils.layers", "Sigmoid", (), (5, 4)),
    ("MLP_Manual", "utils.layers", "GELU", (), (5, 4)),
    ("MLP_Manual", "utils.layers", "Dropout", (0.5,), (5, 4)),
    ("MLP_Manual", "utils.layers", "BatchNorm1d", (4,), (5, 4)),
    ("CNN_Manual", "utils.layers", "Conv2d", (2, 3, 3, 1, 1), (2, 2, 5, 6)),
    ("CNN_Manual", "utils.layers", "BatchNorm2d", (2,), (2, 2, 5, 6)),
    ("CNN_Manual", "utils.layers", "MaxPool2d", (2,), (2, 2, 5, 6)),
    ("CNN_Manual", "utils.layers", "AvgPool2d", (2,), (2, 2, 5, 6)),
    ("CNN_Manual", "utils.layers", "GlobalAvgPool2d", (), (2, 2, 5, 6)),
    ("CNN_Manual", "utils.layers", "Flatten", (), (2, 2, 5, 6)),
    ("RNN_Manual", "utils.layers", "RNN", (4, 3, 2), (6, 5, 4)),
    ("RNN_Manual", "utils.layers", "GRU", (4, 3, 2), (6, 5, 4)),
    ("RNN_Manual", "utils.layers", "LSTM", (4, 3, 2), (6, 5, 4)),
    ("Transformer_Manual", "utils.layers", "LayerNorm", (4,), (2, 3, 4)),
]


def first_tensor(result):
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.smoke
@pytest.mark.parametrize(
    "folder, module, name, args, shape", EVERY_LAYER, ids=[layer[2] for layer in EVERY_LAYER]
)
def test_a_second_backward_gives_the_same_or_is_refused(folder, module, name, args, shape):
    torch.manual_seed(0)
    layer = part(folder, module, name, *args)
    output = first_tensor(layer.forward(torch.randn(shape)))
    grad_output = torch.randn(output.shape)
    once = first_tensor(layer.backward(grad_output.clone())).clone()
    gradients = {name: gradient.clone() for name, gradient in layer.gradients().items()}
    try:
        twice = first_tensor(layer.backward(grad_output.clone()))
    except RuntimeError as error:
        assert "call forward again first" in str(error)
        assert name in ("RNN", "GRU", "LSTM")
        return
    assert torch.equal(once, twice)
    assert all(torch.equal(gradients[k], value) for k, value in layer.gradients().items())


def test_a_second_backward_of_the_tokens_loss_is_refused():
    criterion = part("Transformer_Manual", "utils.losses", "TokenCrossEntropy")
    with pytest.raises(RuntimeError, match="call forward again first"):
        criterion.backward()
    for _ in range(2):  # forward makes it possible again
        criterion.forward(torch.randn(2, 3, 5), torch.randint(5, (2, 3)))
        criterion.backward()
        with pytest.raises(RuntimeError, match="call forward again first"):
            criterion.backward()


@pytest.mark.parametrize(
    "folder, name, shape",
    [("MLP_Manual", "BatchNorm1d", (6, 3)), ("CNN_Manual", "BatchNorm2d", (2, 3, 4, 5))],
)
@pytest.mark.parametrize("trained", [True, False])
def test_batch_norm_goes_back_as_it_went_forward(folder, name, shape, trained):
    """Whatever mode it is in by then, as autograd does."""
    torch.manual_seed(0)
    ours = part(folder, "utils.layers", name, 3).train(trained)
    theirs = getattr(nn, name)(3).train(trained)
    x = torch.randn(shape, requires_grad=True)
    grad_output = torch.randn(shape)
    ours.forward(x.detach())
    expected = theirs(x)
    ours.train(not trained)
    theirs.train(not trained)
    expected.backward(grad_output)
    torch.testing.assert_close(ours.backward(grad_output), x.grad)
    torch.testing.assert_close(ours.grad_weight, theirs.weight.grad)


@pytest.mark.parametrize("kind", layers("Dropout"))
def test_everything_dropped_is_zero(kind):
    x = torch.randn(3, 4)
    layer = kind(1.0)
    assert torch.equal(layer.forward(x), F.dropout(x, 1.0)), "not NaN"
    assert torch.equal(layer.backward(torch.ones(3, 4)), torch.zeros(3, 4))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("folder", ["MLP_Manual", "CNN_Manual", "RNN_Manual"])
def test_a_class_of_probability_zero(folder, smoothing):
    """Such a logit is -inf. The loss is infinite only where the class has a share of the target."""
    logits = torch.tensor([[1.0, -INF, 0.5], [0.2, 0.1, -INF]], requires_grad=True)
    labels = torch.tensor([0, 1])
    criterion = part(folder, "utils.losses", "CrossEntropy", smoothing)
    loss = criterion.forward(logits.detach(), labels)
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected.detach())
    assert loss.isfinite() == (smoothing == 0)
    if not smoothing:
        expected.backward()
        torch.testing.assert_close(criterion.backward(), logits.grad)
        wrong = criterion.forward(logits.detach(), torch.tensor([1, 1]))
        assert wrong == F.cross_entropy(logits, torch.tensor([1, 1])) == INF


@pytest.mark.parametrize("kind", layers("ReLU"))
def test_nan_goes_through_relu_both_ways(kind):
    x = torch.tensor([NAN, -1.0, 0.0, 2.0, INF, -INF], requires_grad=True)
    grad_output = torch.tensor([3.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    expected = F.relu(x)
    expected.backward(grad_output)
    layer = kind()
    torch.testing.assert_close(layer.forward(x.detach()), expected.detach(), equal_nan=True)
    torch.testing.assert_close(layer.backward(grad_output), x.grad, equal_nan=True)


@pytest.mark.parametrize("where", [(), (0,), (3,), (1, 2), (0, 1, 2, 3)])
@pytest.mark.parametrize("rest", [None, -INF, INF])
def test_nan_and_infinity_go_through_max_pooling_both_ways(where, rest):
    torch.manual_seed(0)
    x = torch.randn(1, 2, 2, 2)
    if rest is not None:
        x[:] = rest
    for place in where:
        x[0, 0].view(-1)[place] = NAN
    x.requires_grad_()
    expected = F.max_pool2d(x, 2)
    grad_output = torch.randn(1, 2, 1, 1)
    expected.backward(grad_output)
    layer = part("CNN_Manual", "utils.layers", "MaxPool2d", 2)
    torch.testing.assert_close(layer.forward(x.detach()), expected.detach(), equal_nan=True)
    torch.testing.assert_close(layer.backward(grad_output), x.grad)


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_short_schedules_are_those_of_pytorch(folder, warmup):
    """Also where the warm-up leaves one-cycle no step to rise in."""
    optim = importlib.import_module(f"{folder}.utils.optim")
    for name in schedules.SCHEDULES:
        for total in range(1, 8):
            ours = optim.make_schedule(name, 0.1, warmup + total, warmup)
            theirs = learning_rates(name, 0.1, warmup + total, warmup)
            rates = [ours(step) for step in range(warmup + total)]
            assert rates == pytest.approx(theirs, rel=1e-6, abs=1e-9), (name, total)


# ---- in a Python shell: called, and shown ----

NETWORKS = {
    "MLP": ("MLP_Manual.model", {"hidden_sizes": (6, 5), "in_features": 4}, [(3, 4)]),
    "CNN": ("CNN_Manual.model", {"channels": (2, 3), "hidden_size": 4}, [(2, 1, 28, 28)]),
    "LSTM": ("RNN_Manual.model", {"hidden_size": 5, "vocab_size": 7}, [(4, 3)]),
    "GPT": ("Transformer_Manual.model", {"embed_dim": 8, "positions": "learned"}, [(3, 4)]),
    "Transformer": ("Transformer_Manual.model", {"embed_dim": 8, "num_layers": 2}, [(3, 4)] * 2),
}


def network(name: str):
    """A small network in evaluation mode, and inputs for it."""
    module, sizes, shapes = NETWORKS[name]
    torch.manual_seed(0)
    kind = {"LSTM": "LanguageModel", "GPT": "LanguageModel"}.get(name, name)
    model = getattr(importlib.import_module(module), kind)(**sizes).eval()
    numbers = name in ("MLP", "CNN")
    return model, [torch.randn(s) if numbers else torch.randint(7, s) for s in shapes]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_can_be_called_as_a_module_of_nn(name):
    model, inputs = network(name)
    logits = model(*inputs)
    assert torch.equal(logits, model.forward(*inputs))
    model.backward(torch.ones_like(logits))
    assert all(gradient.isfinite().all() for gradient in model.gradients().values())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_printed_network_lists_every_layer_with_the_shapes_of_its_parameters(name):
    model, inputs = network(name)
    printed = str(model)
    found, path = {"": type(model).__name__}, []  # layer -> class
    shapes = {}  # parameter -> shape
    for line in printed.splitlines()[1:]:
        text, depth = line.strip(), (len(line) - len(line.lstrip())) // 2
        path = path[: depth - 1]
        below = re.match(r"\((?P<layer>.+?)\): (?P<kind>\w+)", text)
        if below:
            path.append(below["layer"])
            found[".".join(path)] = below["kind"]
        for parameter, shape in re.findall(r"(\w+) \(([\d, ]+)\)", text):
            shapes[".".join([*path, parameter])] = [int(n) for n in re.findall(r"\d+", shape)]
    assert found == {p.rstrip("."): type(layer).__name__ for p, layer in model.modules()}
    assert shapes == {n: list(tensor.shape) for n, tensor in model.parameters().items()}
    model(*inputs)
    assert str(model) == printed  # what forward keeps is no part of it
    assert max(map(len, printed.splitlines())) <= 100


def test_a_printed_layer_has_its_settings():
    linear, pool = layers("Linear")[1].values[0], layers("MaxPool2d")[0].values[0]
    dropout, lstm = layers("Dropout")[0].values[0], layers("LSTM")[0].values[0]
    assert str(linear(4, 3)) == "Linear(weight (3, 4), bias (3,))"
    assert str(pool(3, 2, 1)) == "MaxPool2d(kernel_size=3, stride=2, padding=1)"
    assert str(dropout(0.3)) == "Dropout(p=0.3)"
    assert "\n  hidden_size=5\n  num_layers=2\n" in str(lstm(3, 5, 2))


@pytest.mark.parametrize(
    "folder, name, shape",
    [
        ("MLP_Manual", "CrossEntropy", (4,)),
        ("MLP_Manual", "MeanSquaredError", (4,)),
        ("CNN_Manual", "CrossEntropy", (4,)),
        ("RNN_Manual", "SequenceCrossEntropy", (4, 3)),
        ("Transformer_Manual", "TokenCrossEntropy", (4, 3)),
    ],
)
def test_a_loss_can_be_called(folder, name, shape):
    prediction, target = torch.randn(*shape, 5), torch.randint(5, shape)
    loss, again = part(folder, "utils.losses", name), part(folder, "utils.losses", name)
    assert loss(prediction, target) == again.forward(prediction, target)
    assert torch.equal(loss.backward(), again.backward())
