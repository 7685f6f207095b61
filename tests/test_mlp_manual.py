"""MLP_Manual against PyTorch: layers, losses, optimisers, schedules, the network, and learning."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler

from common import checkpoint
from MLP_Manual.dataset import load_training
from MLP_Manual.model import ACTIVATIONS, MLP
from MLP_Manual.utils.layers import (
    GELU,
    BatchNorm1d,
    Dropout,
    Layer,
    Linear,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
)
from MLP_Manual.utils.losses import CrossEntropy, MeanSquaredError
from MLP_Manual.utils.optim import (
    OPTIMIZERS,
    SCHEDULES,
    SGD,
    Adam,
    AdamW,
    Momentum,
    clip_gradients,
    make_schedule,
)
from tests.gradients import check_layer, seeded

SHAPES = [(1, 1), (1, 5), (7, 1), (5, 3), (2, 33)]
ELEMENTWISE = {ReLU: F.relu, Tanh: torch.tanh, Sigmoid: torch.sigmoid, GELU: F.gelu}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def equal_states(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- layers ----


@pytest.mark.parametrize("layer, reference", ELEMENTWISE.items())
@pytest.mark.parametrize("shape", [*SHAPES, (), (3,), (2, 3, 4)])
def test_activation_has_the_right_gradient(layer, reference, shape):
    check_layer(layer(), reference, torch.randn(shape))


@pytest.mark.smoke
@pytest.mark.parametrize("N, in_features", SHAPES)
@pytest.mark.parametrize("needs_grad_input", [True, False])
def test_linear_has_the_right_gradient(N, in_features, needs_grad_input):
    check_layer(Linear(in_features, 4, needs_grad_input), F.linear, torch.randn(N, in_features))


def test_linear_takes_any_memory_layout():
    check_layer(Linear(6, 3), F.linear, torch.randn(6, 5).T)


def random_batch_norm(D: int) -> BatchNorm1d:
    """One whose parameters and statistics are all in use."""
    layer = BatchNorm1d(D)
    for tensor in (layer.weight, layer.bias, layer.running_mean):
        tensor.normal_()
    layer.running_var.uniform_(0.5, 2)
    return layer


@pytest.mark.smoke
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("N, D", SHAPES)
def test_batch_norm_has_the_right_gradient(N, D, training):
    if training and N == 1:
        N = 2  # the smallest batch that has a variance
    layer = random_batch_norm(D).train(training)
    check_layer(layer, nn.BatchNorm1d(D), 2 * torch.randn(N, D) + 1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("p", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 7), (2, 3, 4)])
def test_dropout_has_the_right_gradient(shape, p, training):
    check_layer(Dropout(p).train(training), lambda x: F.dropout(x, p, training), torch.randn(shape))


@pytest.mark.parametrize("N", [1, 6])
def test_sequential_has_the_right_gradient(N):
    layers = Sequential(Linear(4, 5), Tanh(), Dropout(0.5), Linear(5, 2))
    reference = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 2))
    check_layer(layers, reference, torch.randn(N, 4))


class WrongBias(Linear):
    def backward(self, grad_output):
        grad_input = super().backward(grad_output)
        self.grad_bias = grad_output.mean(0)
        return grad_input


class WrongInput(Tanh):
    def backward(self, grad_output):
        return grad_output * (1 - self.y)


class WrongForward(Sigmoid):
    def forward(self, x):
        return super().forward(x) + 1e-6


class ChangesGradient(Tanh):
    def backward(self, grad_output):
        return grad_output.mul_(1 - self.y**2)


class ForgetsInput(Tanh):
    def backward(self, grad_output):
        return None


@pytest.mark.parametrize(
    "layer, reference",
    [
        (WrongBias(3, 3), F.linear), (WrongInput(), torch.tanh), (WrongForward(), torch.sigmoid),
        (ChangesGradient(), torch.tanh), (ForgetsInput(), torch.tanh),
    ],
)  # fmt: skip
def test_gradient_check_finds_a_wrong_layer(layer, reference):
    with pytest.raises(AssertionError):
        check_layer(layer, reference, torch.randn(4, 3))


def test_finite_differences_find_a_wrong_gradient_on_their_own():
    class WrongTogether(torch.autograd.Function):  # as wrong as the layer
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x.tanh())
            return x.tanh()

        @staticmethod
        def backward(ctx, grad_output):
            return grad_output * (1 - ctx.saved_tensors[0])

    with pytest.raises(AssertionError, match="differences"):
        check_layer(WrongInput(), WrongTogether.apply, torch.randn(4, 3))


def test_gradient_check_leaves_the_layer_as_it_was():
    layer = random_batch_norm(3)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    check_layer(layer, nn.BatchNorm1d(3), torch.randn(4, 3))
    assert equal_states(layer.state_dict(), before)


EXTREMES = {
    "zeros": torch.zeros(6, 4),
    "large": torch.full((6, 4), 1e4),
    "very negative": torch.full((6, 4), -1e4),
    "mixed": torch.tensor([1e4, -1e4, 0.0, -0.0, 1e-30, 30.0]).unsqueeze(1).repeat(1, 4),
}
PAIRS = {
    "linear": (lambda: Linear(4, 3), lambda: nn.Linear(4, 3)),
    "batch norm": (lambda: BatchNorm1d(4), lambda: nn.BatchNorm1d(4)),
    "relu": (ReLU, nn.ReLU),
    "tanh": (Tanh, nn.Tanh),
    "sigmoid": (Sigmoid, nn.Sigmoid),
    "gelu": (GELU, nn.GELU),
    "dropout": (lambda: Dropout(0.0), lambda: nn.Dropout(0.0)),
}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extreme_inputs_give_what_pytorch_gives(kind, extreme):
    layer, twin = (make() for make in PAIRS[kind])
    twin.load_state_dict(layer.state_dict())
    x = EXTREMES[extreme].clone().requires_grad_()
    expected = twin(x)
    expected.backward(torch.ones_like(expected))

    output = layer.forward(EXTREMES[extreme])
    grad_input = layer.backward(torch.ones_like(output))
    assert torch.isfinite(output).all() and torch.isfinite(grad_input).all()
    if kind != "batch norm" or extreme == "mixed":  # of a constant batch only rounding is left
        torch.testing.assert_close(output, expected.detach(), rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(grad_input, x.grad, rtol=1e-4, atol=1e-4)


def test_relu_has_gradient_zero_at_the_kink():
    layer = ReLU()
    layer.forward(torch.tensor([-1.0, 0.0, -0.0, 1.0]))
    assert layer.backward(torch.ones(4)).tolist() == [0, 0, 0, 1]


@pytest.mark.smoke
@pytest.mark.parametrize("in_features", [1, 2, 3, 7, 100, 784, 1024])
def test_linear_starts_as_nn_linear_does(in_features):
    torch.manual_seed(3)
    layer = Linear(in_features, 5)
    torch.manual_seed(3)
    assert equal_states(layer.state_dict(), nn.Linear(in_features, 5).state_dict())


def test_batch_norm_keeps_the_statistics_of_nn_batch_norm():
    layer, twin = BatchNorm1d(3).to(dtype=torch.float64), nn.BatchNorm1d(3).double()
    for N in (2, 9, 33, 2, 5):
        x = 3 * torch.randn(N, 3, dtype=torch.float64) - 2
        torch.testing.assert_close(layer.forward(x), twin(x).detach(), rtol=0, atol=1e-12)
        for name, buffer in twin.named_buffers():
            torch.testing.assert_close(layer.state_dict()[name], buffer, rtol=0, atol=1e-12)
    assert layer.num_batches_tracked == 5

    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    layer.eval()
    twin.eval()
    for N in (1, 4):
        x = torch.randn(N, 3, dtype=torch.float64)
        torch.testing.assert_close(layer.forward(x), twin(x).detach(), rtol=0, atol=1e-12)
    assert equal_states(layer.state_dict(), before), "evaluation moved the statistics"


def test_batch_norm_refuses_to_train_on_one_example():
    layer = BatchNorm1d(3)
    with pytest.raises(ValueError, match="at least 2"):
        layer.forward(torch.randn(1, 3))
    assert equal_states(layer.state_dict(), BatchNorm1d(3).state_dict())


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_drops_what_torch_drops(p):
    x = torch.randn(50, 40)
    torch.manual_seed(5)
    output = Dropout(p).forward(x)
    torch.manual_seed(5)
    assert torch.equal(output, F.dropout(x, p, training=True))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_keeps_the_mean(p):
    N = 200_000
    output = Dropout(p).forward(torch.ones(N))
    # each value is 0 or 1/(1−p): variance p/(1−p), so this is five standard deviations of the mean
    assert abs(output.mean().item() - 1) < 5 * math.sqrt(p / (1 - p) / N)
    assert abs((output == 0).float().mean().item() - p) < 5 * math.sqrt(p * (1 - p) / N)


def test_dropout_does_nothing_in_evaluation():
    layer, x = Dropout(0.5).eval(), torch.randn(5, 4)
    assert torch.equal(layer.forward(x), x) and torch.equal(layer.backward(x), x)


# ---- losses ----


def random_logits(N: int, K: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(N, K, dtype=torch.float64) * 3, torch.randint(K, (N,))


def check_loss(criterion, reference, prediction, target) -> None:
    expected_input = prediction.clone().requires_grad_()
    expected = reference(expected_input, target)
    (expected_grad,) = torch.autograd.grad(expected, expected_input)
    loss = criterion.forward(prediction, target)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(criterion.backward(), expected_grad, rtol=1e-10, atol=1e-14)


@pytest.mark.smoke
@pytest.mark.parametrize("N, K", [(1, 1), (1, 2), (1, 10), (6, 3), (9, 17)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_is_that_of_torch(N, K, smoothing):
    def reference(logits, labels):
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    check_loss(CrossEntropy(smoothing), reference, *random_logits(N, K))


@pytest.mark.parametrize("N, K", [(1, 1), (1, 4), (6, 3)])
def test_mean_squared_error_is_that_of_torch(N, K):
    logits, labels = random_logits(N, K)
    check_loss(MeanSquaredError(), F.mse_loss, logits, torch.randn(N, K, dtype=torch.float64))

    def against_one_hot(logits, labels):
        return F.mse_loss(logits, F.one_hot(labels, K).double())

    check_loss(MeanSquaredError(), against_one_hot, logits, labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_huge_logits_is_finite(smoothing):
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4], [0.0, 0.0, -1e4]])
    labels = torch.tensor([1, 0, 2, 2])

    def reference(logits, labels):
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    criterion = CrossEntropy(smoothing)
    assert torch.isfinite(criterion.forward(logits, labels))
    assert torch.isfinite(criterion.backward()).all()
    check_loss(criterion, reference, logits.double(), labels)


@pytest.mark.parametrize("criterion", [CrossEntropy(), CrossEntropy(0.1), MeanSquaredError()])
def test_copies_of_the_batch_leave_the_gradient_unchanged(criterion):
    model = MLP(4, (8,), 3, batch_norm=True, dropout=0.0, input_dropout=0.0).to(dtype=torch.float64)
    x, labels = torch.randn(6, 4, dtype=torch.float64), torch.randint(3, (6,))

    def gradients(copies: int) -> dict:
        criterion.forward(model.forward(x.repeat(copies, 1)), labels.repeat(copies))
        model.backward(criterion.backward())
        return dict(model.gradients())

    once, thrice = gradients(1), gradients(3)
    for name, gradient in once.items():
        torch.testing.assert_close(thrice[name], gradient, rtol=1e-9, atol=1e-12)


# ---- optimisers ----

SCALAR_TO_KERNEL = {"s": (), "one": (1,), "bias": (3,), "weight": (2, 3), "kernel": (2, 1, 3, 3)}
TWINS = {
    "sgd": torch.optim.SGD,
    "momentum": lambda p, **kw: torch.optim.SGD(p, momentum=0.9, **kw),
    "nesterov": lambda p, **kw: torch.optim.SGD(p, momentum=0.9, nesterov=True, **kw),
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
STEPS = 20
LEARNING_RATES = [0.05 * (1 + math.cos(step)) + 1e-3 for step in range(STEPS)]  # up and down


class Parameters(Layer):
    """A model that is nothing but parameters; its gradients are random, and now and then zero."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]):
        self.parameter_names = tuple(shapes)
        for name, shape in shapes.items():
            setattr(self, name, torch.randn(shape, generator=seeded(7), dtype=torch.float64))

    def draw_gradients(self, step: int) -> None:
        generator = seeded(step)
        for name, parameter in self.parameters().items():
            gradient = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            setattr(self, "grad_" + name, gradient * (step % 5 != 0))


def advance(model: Parameters, optimizer, steps: range) -> None:
    for step in steps:
        model.draw_gradients(step)
        optimizer.lr = LEARNING_RATES[step]
        optimizer.step()


@pytest.mark.smoke
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if n != "muon"])  # muon: test_muon.py
def test_optimizer_steps_as_its_torch_counterpart(name, weight_decay):
    model = Parameters(SCALAR_TO_KERNEL)
    leaves = {n: p.clone().requires_grad_() for n, p in model.parameters().items()}
    optimizer = OPTIMIZERS[name](model, 0.1, weight_decay)
    twin = TWINS[name](list(leaves.values()), lr=0.1, weight_decay=weight_decay)
    for step, lr in enumerate(LEARNING_RATES):
        advance(model, optimizer, range(step, step + 1))
        twin.param_groups[0]["lr"] = lr
        for n, leaf in leaves.items():
            leaf.grad = model.gradients()[n].clone()
        twin.step()
        for n, leaf in leaves.items():
            parameter = model.parameters()[n]
            torch.testing.assert_close(parameter, leaf.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_optimizer_steps_with_other_averages_and_epsilon(name):
    model = Parameters(SCALAR_TO_KERNEL)
    leaves = {n: p.clone().requires_grad_() for n, p in model.parameters().items()}
    settings = dict(betas=(0.5, 0.8), eps=0.1)
    optimizer = OPTIMIZERS[name](model, LEARNING_RATES[0], 0.1, **settings)
    twin = TWINS[name](leaves.values(), lr=LEARNING_RATES[0], weight_decay=0.1, **settings)
    for step in range(3):
        twin.param_groups[0]["lr"] = LEARNING_RATES[step]
        advance(model, optimizer, range(step, step + 1))
        for n, leaf in leaves.items():
            leaf.grad = model.gradients()[n].clone()
        twin.step()
    for n, leaf in leaves.items():
        torch.testing.assert_close(model.parameters()[n], leaf.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_goes_on_exactly_from_a_checkpoint(name, weight_decay, tmp_path):
    def build():
        model = Parameters(SCALAR_TO_KERNEL)
        return model, OPTIMIZERS[name](model, 0.1, weight_decay)

    whole, optimizer = build()
    advance(whole, optimizer, range(STEPS))

    first, optimizer = build()
    advance(first, optimizer, range(9))
    state = {"model": first.state_dict(), "optimizer": optimizer.state_dict()}
    checkpoint.save(tmp_path / "half.safetensors", state)

    second, optimizer = build()
    state = checkpoint.load(tmp_path / "half.safetensors")
    second.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    assert (optimizer.lr, optimizer.t) == (LEARNING_RATES[8], 9)
    advance(second, optimizer, range(9, STEPS))
    assert equal_states(second.state_dict(), whole.state_dict())


@pytest.mark.parametrize("own, other", [(Adam, Momentum), (SGD, AdamW), (Momentum, SGD)])
def test_optimizer_refuses_the_state_of_another_one(own, other):
    model = Parameters(SCALAR_TO_KERNEL)
    with pytest.raises((KeyError, ValueError, RuntimeError)):
        own(model, 0.1).load_state_dict(other(model, 0.1).state_dict())


@pytest.mark.parametrize(
    "shapes",
    [
        {"weight": (2, 3)}, {"weight": (2, 3), "bias": (3,), "more": (3,)},
        {"weight": (2, 3), "other": (3,)}, {"weight": (2, 4), "bias": (3,)},
        {"weight": (3,), "bias": (3,)}, {"weight": (2, 3), "bias": (1,)},
    ],
    ids=["missing", "more", "other name", "other shape", "fewer dimensions", "broadcasts"],
)  # fmt: skip
def test_optimizer_refuses_the_state_of_another_network(shapes):
    optimizer = Adam(Parameters({"weight": (2, 3), "bias": (3,)}), 0.1)
    with pytest.raises((KeyError, ValueError, RuntimeError)):
        optimizer.load_state_dict(Adam(Parameters(shapes), 0.1).state_dict())


@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("step", [5, 6], ids=["zero gradients", "random gradients"])
def test_clipping_is_that_of_torch(max_norm, step):
    model = Parameters(SCALAR_TO_KERNEL)
    model.draw_gradients(step)
    leaves = [torch.zeros_like(p).requires_grad_() for p in model.parameters().values()]
    for leaf, gradient in zip(leaves, model.gradients().values(), strict=True):
        leaf.grad = gradient.clone()
    expected = nn.utils.clip_grad_norm_(leaves, max_norm)

    norm = clip_gradients(model, max_norm)
    torch.testing.assert_close(norm, expected, rtol=1e-12, atol=0)
    for leaf, gradient in zip(leaves, model.gradients().values(), strict=True):
        torch.testing.assert_close(gradient, leaf.grad, rtol=1e-12, atol=0)


# ---- schedules ----


def torch_schedule(name: str, lr: float, total: int, warmup: int) -> list[float]:
    """The learning rate of every step, as PyTorch's schedulers have it."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    T = total - warmup
    scheduler = {
        "constant": lambda: lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        "step": lambda: lr_scheduler.StepLR(optimizer, math.ceil(T / 3), gamma=0.1),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, T),
        "one-cycle": lambda: lr_scheduler.OneCycleLR(optimizer, lr, T, cycle_momentum=False),
    }[name]()
    if warmup:
        rise = lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup)
        scheduler = lr_scheduler.SequentialLR(optimizer, [rise, scheduler], [warmup])
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(total - 1):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.smoke
@pytest.mark.filterwarnings("ignore:The epoch parameter")  # SequentialLR's own use of it
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    "total, warmup",
    [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (10, 0), (11, 0), (100, 0), (1000, 0),
     (5, 1), (6, 2), (11, 1), (12, 8), (100, 10), (1000, 99)],
)  # fmt: skip
def test_schedule_is_that_of_torch(name, total, warmup):
    schedule = make_schedule(name, 0.3, total, warmup)
    rates = [schedule(step) for step in range(total)]
    assert rates == pytest.approx(torch_schedule(name, 0.3, total, warmup), rel=1e-12, abs=0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total, warmup", [(2, 1), (3, 1), (3, 2), (8, 5), (50, 10)])
def test_warmup_is_a_straight_line_up_to_the_schedule(name, total, warmup):
    # also for so few steps that one-cycle's peak lies before them, where torch's line misses it
    schedule = make_schedule(name, 0.3, total, warmup)
    alone = make_schedule(name, 0.3, total - warmup)
    rates = [schedule(step) for step in range(total)]
    line = [alone(0) * (step + 1) / (warmup + 1) for step in range(warmup)]
    assert rates == pytest.approx(line + [alone(step) for step in range(total - warmup)], rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total, warmup", [(1, 1), (5, 5), (5, 6)])
def test_warmup_that_leaves_no_steps_is_refused(name, total, warmup):
    with pytest.raises(ValueError, match="warm-up"):
        make_schedule(name, 0.1, total, warmup)


# ---- the network ----

TORCH_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}
NETWORKS = [(), (5,), (6, 1, 4)]  # hidden sizes


class Twin(nn.Module):
    """The MLP of built-in layers."""

    def __init__(
        self, in_features, hidden_sizes, num_classes, activation, batch_norm, dropout, input_dropout
    ):
        super().__init__()
        self.input_dropout = nn.Dropout(input_dropout)
        layers, size = [], in_features
        for hidden_size in hidden_sizes:
            layers += [nn.Linear(size, hidden_size)]
            layers += [nn.BatchNorm1d(hidden_size)] if batch_norm else []
            layers += [TORCH_ACTIVATIONS[activation](), nn.Dropout(dropout)]
            size = hidden_size
        self.layers = nn.Sequential(*layers, nn.Linear(size, num_classes))

    def forward(self, x):
        return self.layers(self.input_dropout(x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden_sizes", NETWORKS, ids=str)
def test_mlp_has_the_right_gradient(hidden_sizes, activation, batch_norm, training):
    arguments = (3, hidden_sizes, 4, activation, batch_norm, 0.2, 0.1)
    model = MLP(*arguments).train(training)
    check_layer(model, Twin(*arguments), torch.randn(5, 3), needs_grad_input=False)


@pytest.mark.smoke
def test_mlp_without_arguments_is_its_twin():
    torch.manual_seed(1)
    model = MLP()
    torch.manual_seed(1)
    twin = Twin(784, (1024, 1024), 10, "relu", True, 0.4, 0.2)
    assert equal_states(model.state_dict(), twin.state_dict())
    assert sum(p.numel() for p in model.parameters().values()) == 1_867_786


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("hidden_sizes", NETWORKS, ids=str)
def test_state_dict_is_that_of_the_twin_both_ways(hidden_sizes, batch_norm):
    arguments = (3, hidden_sizes, 4, "relu", batch_norm, 0.2, 0.1)
    model, twin = MLP(*arguments), Twin(*arguments)
    assert list(model.parameters()) == [name for name, _ in twin.named_parameters()]
    twin.load_state_dict(model.state_dict())
    assert equal_states(twin.state_dict(), model.state_dict())
    other = Twin(*arguments)
    model.load_state_dict(other.state_dict())
    assert equal_states(model.state_dict(), other.state_dict())


def test_loading_copies():
    model, other = MLP(3, (4,), 2), MLP(3, (4,), 2)
    model.load_state_dict(other.state_dict())
    other.parameters()["layers.0.weight"].zero_()
    assert model.parameters()["layers.0.weight"].abs().min() > 0


@pytest.mark.parametrize(
    "other, message",
    [
        (MLP(3, (4, 4), 2), r"names differ: .*layers\.8\.weight"),
        (MLP(3, (), 2), "names differ"),
        (MLP(3, (4,), 2, batch_norm=False), "names differ"),
        (MLP(3, (4,), 5), r"layers\.4\.weight has shape \(5, 4\) instead of \(2, 4\)"),
        (MLP(1, (4,), 2), r"layers\.0\.weight has shape \(4, 1\) instead of \(4, 3\)"),
    ],
)
def test_state_of_another_network_is_refused(other, message):
    with pytest.raises(ValueError, match=message):
        MLP(3, (4,), 2).load_state_dict(other.state_dict())


def test_to_changes_floating_point_tensors_alone():
    model = MLP(3, (4, 4), 2).to(dtype=torch.float64)
    types = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    integers = {name for name, dtype in types.items() if dtype == torch.int64}
    assert integers == {"layers.1.num_batches_tracked", "layers.5.num_batches_tracked"}
    assert {types[name] for name in types.keys() - integers} == {torch.float64}
    assert model.forward(torch.randn(2, 3, dtype=torch.float64)).dtype == torch.float64


def test_train_and_eval_reach_every_layer():
    model = MLP(3, (4, 4), 2)
    layers = [module for _, module in model.modules()]
    # the network, its input's dropout, its Sequential, two blocks, the last layer
    assert len(layers) == 3 + 4 * 2 + 1
    for mode in (False, True):
        assert model.train(mode) is model
        assert [layer.training for layer in layers] == [mode] * len(layers)
    assert not any(module.training for _, module in model.eval().modules())


# ---- learning ----


@pytest.mark.parametrize("training", [True, False])
def test_loss_starts_at_that_of_a_guess(training):
    model = MLP().train(training)
    logits = model.forward(torch.randn(256, 784))
    loss = CrossEntropy().forward(logits, torch.randint(10, (256,)))
    assert loss.item() == pytest.approx(math.log(10), abs=0.3)


def fit(model: MLP, optimizer, batches, schedule=None) -> float:
    """The last training loss."""
    criterion, loss = CrossEntropy(), None
    for step, (inputs, labels) in enumerate(batches):
        if schedule:
            optimizer.lr = schedule(step)
        loss = criterion.forward(model.forward(inputs), labels)
        model.backward(criterion.backward())
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_overfits_32_random_examples(name):
    lr = {"sgd": 0.5, "momentum": 0.1, "nesterov": 0.1, "adagrad": 0.1}.get(name, 0.01)
    hidden_sizes = (64, 64) if name == "muon" else (64,)  # it is for what is between two of them
    model = MLP(20, hidden_sizes, 10, dropout=0.0, input_dropout=0.0)
    inputs, labels = torch.randn(32, 20), torch.randint(10, (32,))
    assert fit(model, OPTIMIZERS[name](model, lr), [(inputs, labels)] * 300) < 0.01


@pytest.mark.smoke
def test_learns_two_spirals():
    train, validation = load_training("spirals")
    model = MLP(2, (64, 64), 2, "tanh", dropout=0.0, input_dropout=0.0)
    epochs, batch_size = 40, 64
    batches = [b for epoch in range(epochs) for b in train.batches(batch_size, epoch=epoch)]
    fit(model, AdamW(model, 0.01), batches, make_schedule("one-cycle", 0.01, len(batches)))
    predictions = model.eval().forward(validation.inputs).argmax(1)
    assert (predictions == validation.labels).float().mean() >= 0.99
