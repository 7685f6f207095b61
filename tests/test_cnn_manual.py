"""CNN_Manual against PyTorch: layers, the network, the shapes, augmentation, and learning."""

import itertools
import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from CNN_Manual import profile_step
from CNN_Manual.dataset import load_test, load_training, shapes
from CNN_Manual.model import CNN
from CNN_Manual.utils import augment
from CNN_Manual.utils.layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
)
from CNN_Manual.utils.losses import CrossEntropy
from CNN_Manual.utils.optim import AdamW, make_schedule
from CNN_Torch.model import CNN as TorchCNN
from tests.gradients import (
    assert_close,
    autograd_gradients,
    check_layer,
    evaluate,
    layer_gradients,
    seeded,
)
from tests.running import readme_function


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def equal_states(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def check_against_autograd(layer, reference, x, grad_output=None) -> None:
    """`check_layer` without finite differences, for a sweep over many shapes."""
    layer, x = layer.to(dtype=torch.float64), x.double()
    output = evaluate(layer, x)
    if grad_output is None:
        grad_output = torch.randn(output.shape, dtype=torch.float64)
    needs_grad_input = getattr(layer, "needs_grad_input", True)
    gradients = layer_gradients(layer, x, grad_output, needs_grad_input)
    expected_output, expected = autograd_gradients(layer, reference, x, grad_output)
    assert_close(output, expected_output, 1e-8, "forward")
    for name, gradient in gradients.items():
        assert_close(gradient, expected[name], 1e-8, f"gradient of {name}")


# ---- convolution ----


@pytest.fixture(params=["copied", "shifted"])
def way(request, monkeypatch):
    """Both ways to convolve, whatever the number of channels."""
    monkeypatch.setattr(Conv2d, "few_channels", {"copied": 10**9, "shifted": 0}[request.param])


SIZES = [  # kernel, stride, padding, dilation, (N, C, H, W), output channels
    (1, 1, 0, 1, (1, 1, 1, 1), 1),
    (1, 2, 1, 1, (2, 3, 4, 3), 2),
    (2, 1, 0, 1, (1, 2, 3, 5), 3),
    (2, 2, 1, 2, (2, 1, 5, 4), 2),
    (2, 3, 0, 1, (3, 2, 7, 2), 1),
    (3, 1, 1, 1, (2, 3, 4, 5), 2),
    (3, 2, 1, 1, (2, 2, 5, 6), 3),
    (3, 3, 4, 1, (1, 2, 4, 3), 2),
    (3, 1, 0, 2, (1, 1, 5, 6), 2),
    (3, 2, 3, 3, (2, 2, 6, 4), 1),
    (5, 1, 2, 1, (1, 2, 3, 4), 2),
    (5, 2, 0, 1, (2, 1, 5, 8), 2),
    (5, 3, 9, 2, (1, 1, 4, 2), 1),
]


def random_images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.smoke
@pytest.mark.parametrize("k, s, p, d, shape, O", SIZES)
def test_convolution_has_the_right_gradient(way, k, s, p, d, shape, O):
    layer = Conv2d(shape[1], O, k, s, p, d)
    check_layer(layer, nn.Conv2d(shape[1], O, k, s, p, d), random_images(*shape))


@pytest.mark.parametrize("k, s, p, d, shape, O", SIZES)
def test_convolution_writes_over_nothing_that_it_is_given(way, k, s, p, d, shape, O):
    """One image of one output pixel has no more values than the bias."""
    layer, x = Conv2d(shape[1], O, k, s, p, d), torch.randn(shape)
    g = torch.randn_like(layer.forward(x))
    given = x, g, layer.weight, layer.bias
    before = [tensor.clone() for tensor in given]
    y = layer.forward(x)
    first = y.clone()
    layer.backward(g)
    assert all(map(torch.equal, given, before)) and torch.equal(y, first)


@pytest.mark.parametrize("k, s, p, d, shape, O", SIZES)
def test_convolution_is_the_plain_one_of_the_readme(way, k, s, p, d, shape, O):
    """Its ten lines and autograd, beside the layer's forward and backward."""
    convolve = readme_function("CNN_Manual", "convolve")
    layer = Conv2d(shape[1], O, k, s, p, d).to(dtype=torch.float64)
    x, weight, bias = random_images(*shape), layer.weight.clone(), layer.bias.clone()
    plain = convolve(*(t.requires_grad_() for t in (x, weight, bias)), s, p, d)
    with torch.no_grad():
        assert_close(layer(x), plain, 1e-12, "forward")
        grad_output = torch.randn_like(plain)
        grad_x = layer.backward(grad_output)
    plain.backward(grad_output)
    for own, expected in ((grad_x, x), (layer.grad_weight, weight), (layer.grad_bias, bias)):
        assert_close(own, expected.grad, 1e-12, "gradient")


@pytest.mark.parametrize("shape, O", [((3, 5, 8, 6), 4), ((1, 1, 2, 2), 1), ((2, 16, 14, 14), 8)])
def test_winograds_convolution_of_the_readme_is_that_of_torch(shape, O):
    """And so are the gradients that autograd finds through its lines."""
    x, weight = random_images(*shape), torch.randn(O, shape[1], 3, 3, dtype=torch.float64)
    x.requires_grad_(), weight.requires_grad_()
    y = readme_function("CNN_Manual", "winograd")(x, weight)
    expected = F.conv2d(x, weight, padding=1)
    grad_output = torch.randn_like(expected)
    assert_close(y, expected, 1e-12, "forward")
    found, wanted = (torch.autograd.grad(out, (x, weight), grad_output) for out in (y, expected))
    for own, torchs in zip(found, wanted, strict=True):
        assert_close(own, torchs, 1e-12, "gradient")


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("s", [1, 2, 3])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_convolution_is_that_of_torch_for_every_padding_and_image(way, k, s, d):
    reach = d * (k - 1)
    paddings = {0, 1, reach // 2, reach, reach + 1, reach + 2}  # the last two see zeros alone
    for p, (H, W) in itertools.product(sorted(paddings), [(1, 1), (7, 4), (4, 9), (13, 14)]):
        if min(H, W) + 2 * p > reach:
            layer, twin = Conv2d(2, 3, k, s, p, d), nn.Conv2d(2, 3, k, s, p, d)
            check_against_autograd(layer, twin, random_images(2, 2, H, W))


@pytest.mark.parametrize("stride", [1, 2])
def test_first_convolution_leaves_the_gradient_of_the_images_out(way, stride):
    layer = Conv2d(2, 3, 3, stride, 1, needs_grad_input=False)
    check_layer(layer, nn.Conv2d(2, 3, 3, stride, 1), random_images(2, 2, 5, 4))


LAYOUTS = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3),
    "part of a larger one": lambda x: x[:, 1:, 1:, :-1],
    "one image for all": lambda x: x[:1].expand(3, -1, -1, -1),
    "the same pixel everywhere": lambda x: x[:, :, :1, :1].expand(-1, -1, 4, 5),
}
LAYERS = {
    "convolution": (Conv2d, nn.Conv2d, (2, 3, 3, 2, 1)),
    "batch norm": (BatchNorm2d, nn.BatchNorm2d, (2,)),
    "max pooling": (MaxPool2d, nn.MaxPool2d, (3, 2, 1)),
    "average pooling": (AvgPool2d, nn.AvgPool2d, (3, 2, 1)),
    "flatten": (Flatten, nn.Flatten, ()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", LAYERS)
def test_layer_takes_any_memory_layout(way, kind, layout):
    make, make_twin, arguments = LAYERS[kind]
    x = LAYOUTS[layout](random_images(3, 3 if layout.startswith("part") else 2, 6, 7))
    assert not x.is_contiguous()
    check_against_autograd(make(*arguments), make_twin(*arguments), x)


@pytest.mark.parametrize("layout", ["channels last", "one image for all"])
@pytest.mark.parametrize("kind", LAYERS)
def test_backward_takes_any_memory_layout(way, kind, layout):
    make, make_twin, arguments = LAYERS[kind]
    x = random_images(3, 2, 6, 7)
    grad_output = random_images(*make_twin(*arguments).double()(x).shape)
    if layout == "one image for all":
        grad_output = grad_output[:1].expand(grad_output.shape)
    elif grad_output.dim() == 4:
        grad_output = LAYOUTS[layout](grad_output)
    check_against_autograd(make(*arguments), make_twin(*arguments), x, grad_output)


@pytest.mark.parametrize(
    "H, W, k, padding, dilation",
    [(2, 9, 3, 0, 1), (9, 2, 3, 0, 1), (4, 4, 5, 0, 1), (6, 6, 3, 1, 4)],
)
def test_image_too_small_for_the_convolution_is_refused(way, H, W, k, padding, dilation):
    with pytest.raises(ValueError, match=f"{H} x {W} image is too small"):
        Conv2d(1, 1, k, 1, padding, dilation).forward(torch.zeros(1, 1, H, W))


@pytest.mark.smoke
@pytest.mark.parametrize("C, O, k", [(1, 1, 1), (3, 5, 2), (1, 32, 3), (64, 7, 3), (2, 3, 5)])
def test_convolution_starts_as_nn_conv2d_does(C, O, k):
    torch.manual_seed(3)
    layer = Conv2d(C, O, k)
    torch.manual_seed(3)
    assert equal_states(layer.state_dict(), nn.Conv2d(C, O, k).state_dict())


# ---- pooling ----

POOLS = {"max": (MaxPool2d, nn.MaxPool2d), "average": (AvgPool2d, nn.AvgPool2d)}


@pytest.mark.smoke
@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize(
    "k, s, p, shape",
    [
        (1, None, 0, (1, 1, 1, 1)), (1, 2, 0, (2, 1, 3, 4)), (2, None, 0, (2, 3, 4, 5)),
        (2, 1, 1, (1, 2, 3, 4)), (2, 3, 0, (2, 2, 5, 7)), (3, 1, 0, (1, 1, 5, 4)),
        (3, 2, 1, (2, 2, 5, 6)), (3, None, 1, (1, 3, 4, 7)), (3, 5, 1, (1, 1, 8, 9)),
        (4, 3, 2, (1, 2, 5, 3)),
    ],
)  # fmt: skip
def test_pooling_has_the_right_gradient(kind, k, s, p, shape):
    layer, twin = (make(k, s, p) for make in POOLS[kind])
    values = torch.randperm(math.prod(shape), generator=seeded(2))  # all different: no ties
    check_layer(layer, twin, values.view(shape) / 7 - 1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("k, s, p", [(2, 2, 0), (2, 1, 1), (3, 1, 0), (3, 2, 1), (5, 2, 2)])
def test_max_pooling_gives_the_gradient_of_a_tie_to_the_first(k, s, p, layout):
    x = torch.randint(-2, 2, (4, 3, 9, 8)).double()
    layer = MaxPool2d(k, s, p)
    check_against_autograd(layer, nn.MaxPool2d(k, s, p), x.contiguous(memory_format=layout))
    check_against_autograd(layer, nn.MaxPool2d(k, s, p), torch.full_like(x, -3.0))


def test_max_pooling_of_minus_infinity_alone_is_minus_infinity():
    """The padding is no larger."""
    x = torch.full((1, 1, 4, 4), -torch.inf)
    x[..., 3] = 2.0
    y = MaxPool2d(3, 2, 1).forward(x)
    assert torch.equal(y, F.max_pool2d(x, 3, 2, 1)) and y[0, 0, 0, 0] == -torch.inf


def test_max_pooling_of_equals_in_words():
    layer = MaxPool2d(2)
    layer.forward(torch.ones(1, 1, 2, 2))
    assert layer.backward(torch.full((1, 1, 1, 1), 5.0)).flatten().tolist() == [5, 0, 0, 0]


@pytest.mark.parametrize("kind", POOLS)
def test_pooling_refuses_what_torch_refuses(kind):
    make, make_twin = POOLS[kind]
    with pytest.raises(RuntimeError):
        make_twin(3, 1, 2)(torch.zeros(1, 1, 9, 9))
    with pytest.raises(ValueError, match="padding 2"):
        make(3, 1, 2)
    with pytest.raises(ValueError, match="padding -1"):
        make(3, 1, -1)
    for H, W in ((2, 9), (9, 2)):
        with pytest.raises(ValueError, match=f"{H} x {W} image is too small"):
            make(3).forward(torch.zeros(1, 1, H, W))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 5), (3, 2, 4, 3)])
def test_global_average_and_flatten_have_the_right_gradient(shape):
    check_layer(GlobalAvgPool2d(), lambda x: x.mean((2, 3)), random_images(*shape))
    check_layer(Flatten(), nn.Flatten(), random_images(*shape))


def test_layers_in_a_row_have_the_right_gradient(way):
    layers = Sequential(
        Conv2d(2, 3, 3, stride=2, padding=1), BatchNorm2d(3), ReLU(), AvgPool2d(2, 1),
        Conv2d(3, 2, 2, dilation=2), MaxPool2d(2), GlobalAvgPool2d(), Linear(2, 3),
    )  # fmt: skip
    reference = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2, 1),
        nn.Conv2d(3, 2, 2, dilation=2), nn.MaxPool2d(2),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(2, 3),
    )  # fmt: skip
    check_layer(layers, reference, random_images(2, 2, 11, 13))


# ---- batch normalisation ----


def random_batch_norm(C: int) -> BatchNorm2d:
    """One whose parameters and statistics are all in use."""
    layer = BatchNorm2d(C)
    for tensor in (layer.weight, layer.bias, layer.running_mean):
        tensor.normal_()
    layer.running_var.uniform_(0.5, 2)
    return layer


@pytest.mark.smoke
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 2, 1, 2), (1, 1, 3, 5), (4, 3, 2, 3)])
def test_batch_norm_has_the_right_gradient(shape, training):
    layer = random_batch_norm(shape[1]).train(training)
    check_layer(layer, nn.BatchNorm2d(shape[1]), 2 * random_images(*shape) + 1)


def test_batch_norm_keeps_the_statistics_of_nn_batch_norm():
    layer, twin = BatchNorm2d(3).to(dtype=torch.float64), nn.BatchNorm2d(3).double()
    for N, H, W in ((2, 1, 1), (1, 4, 3), (9, 2, 2), (1, 1, 2), (5, 7, 6)):
        x = 3 * random_images(N, 3, H, W) - 2
        torch.testing.assert_close(layer.forward(x), twin(x).detach(), rtol=0, atol=1e-12)
        for name, buffer in twin.named_buffers():
            torch.testing.assert_close(layer.state_dict()[name], buffer, rtol=0, atol=1e-12)
    assert layer.num_batches_tracked == 5

    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    layer.eval()
    twin.eval()
    for shape in ((1, 3, 1, 1), (2, 3, 3, 2)):
        x = random_images(*shape)
        torch.testing.assert_close(layer.forward(x), twin(x).detach(), rtol=0, atol=1e-12)
    assert equal_states(layer.state_dict(), before), "evaluation moved the statistics"


def test_batch_norm_refuses_to_train_on_one_value_per_channel():
    layer = BatchNorm2d(3)
    with pytest.raises(ValueError, match="at least 2"):
        layer.forward(torch.randn(1, 3, 1, 1))
    assert equal_states(layer.state_dict(), BatchNorm2d(3).state_dict())


# ---- the network ----

NETWORKS = {  # in_channels, image_size, num_classes, channels, dropout, hidden_size; batch
    "default": ((1, 28, 10, (32, 64, 128), 0.3), 3),
    "odd sizes": ((3, 15, 4, (5, 1, 7), 0.5), 4),
    "one block": ((2, 2, 3, (4,), 0.2), 5),
    "one pixel": ((1, 1, 3, (), 0.0), 2),
    "colour": ((3, 32, 10, (8, 8), 0.0), 2),
    "hidden layer": ((1, 9, 4, (3, 2), 0.3, 6), 3),
}


@pytest.mark.smoke
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_cnn_has_the_gradients_of_its_twin(way, name, training):
    arguments, N = NETWORKS[name]
    in_channels, size = arguments[:2]
    model = CNN(*arguments).train(training).to(dtype=torch.float64)
    x = random_images(N, in_channels, size, size)
    grad_output = random_images(N, arguments[2])
    gradients = layer_gradients(model, x, grad_output, needs_grad_input=False)
    expected_logits, expected = autograd_gradients(model, TorchCNN(*arguments), x, grad_output)
    assert_close(evaluate(model, x), expected_logits, 1e-8, "logits")
    assert gradients.keys() == expected.keys() - {"x"}
    for key, gradient in gradients.items():
        assert_close(gradient, expected[key], 1e-8, f"gradient of {key}")


def test_products_of_half_the_bits_are_as_exact_as_those_of_the_twin(way):
    """Pooling may choose another of two nearly equal pixels, so both differ much from float32."""
    model, twin, x, grad_output = CNN(), TorchCNN(), torch.randn(64, 1, 28, 28), torch.randn(64, 10)
    twin.load_state_dict(model.state_dict())
    gradients = {}
    for precision in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)  # of dropout
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            logits = model.forward(x)
            model.backward(grad_output)
        assert logits.dtype == torch.float32
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            theirs = twin(x)
        parameters = dict(twin.named_parameters())
        grads = torch.autograd.grad(theirs, list(parameters.values()), grad_output.to(theirs.dtype))
        gradients[precision] = model.gradients(), dict(zip(parameters, grads, strict=True))
    for key in parameters:
        ours, theirs = (
            (half[key] - full[key]).norm() / full[key].norm()
            for half, full in zip(gradients[torch.bfloat16], gradients[torch.float32], strict=True)
        )
        assert gradients[torch.bfloat16][0][key].dtype == torch.float32
        if "features" not in key or not key.endswith("bias"):  # before BatchNorm it is 0
            assert ours < 1.5 * theirs + 0.01, f"{key}: {ours:.3f} against {theirs:.3f}"


@pytest.mark.parametrize("training", [True, False])
def test_cnn_has_the_gradients_of_finite_differences(training):
    arguments = (2, 7, 3, (3, 2), 0.3, 4)
    model = CNN(*arguments).train(training)
    check_layer(model, TorchCNN(*arguments), random_images(3, 2, 7, 7), needs_grad_input=False)


@pytest.mark.parametrize("name", NETWORKS)
def test_state_dict_is_that_of_the_twin_both_ways(name):
    arguments, _ = NETWORKS[name]
    torch.manual_seed(1)
    model = CNN(*arguments)
    torch.manual_seed(1)
    twin = TorchCNN(*arguments)
    assert list(model.parameters()) == [key for key, _ in twin.named_parameters()]
    assert equal_states(model.state_dict(), twin.state_dict()), "other initial weights"

    twin.load_state_dict(CNN(*arguments).state_dict())
    assert not equal_states(model.state_dict(), twin.state_dict())
    model.load_state_dict(twin.state_dict())
    assert equal_states(model.state_dict(), twin.state_dict())


def test_cnn_without_arguments_takes_mnist():
    model = CNN()
    assert model.forward(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    count = sum(p.numel() for p in model.parameters().values())
    assert count == sum(p.numel() for p in TorchCNN().parameters())


def test_images_of_another_size_are_refused():
    with pytest.raises(RuntimeError):
        CNN().forward(torch.zeros(2, 1, 32, 32))


# ---- the shapes ----


@pytest.mark.smoke
def test_shapes_are_balanced_standardised_and_the_same_every_time():
    splits = [*load_training("shapes"), load_test("shapes")]
    for split, size in zip(splits, (4_000, 1_000, 1_000), strict=True):
        assert split.inputs.shape == (size, 1, 28, 28) and split.inputs.dtype == torch.float32
        assert split.labels.bincount().tolist() == [size // 4] * 4
        assert split.classes == ["disc", "square", "triangle", "cross"]
        assert split.inputs.mean().abs() < 0.2 and 0.7 < split.inputs.std() < 1.3
    for first, second in itertools.combinations(splits, 2):
        assert not torch.equal(first.inputs[:1_000], second.inputs[:1_000])

    torch.manual_seed(9)
    before = torch.get_rng_state()
    again = [*load_training("shapes"), load_test("shapes")]
    assert torch.equal(torch.get_rng_state(), before), "making them moves the global generator"
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(splits, again, strict=True))


def test_shapes_look_like_their_names():
    axis = ((torch.arange(60) - 29.5) / 20).expand(
        4, 60, 60
    )  # from -1.5 to 1.5, no point on an edge
    disc, square, triangle, cross = shapes.draw(torch.arange(4), axis.transpose(1, 2), axis)
    assert disc.sum() / 20**2 == pytest.approx(math.pi, rel=0.02)
    assert square.sum(0).tolist() == square.sum(1).tolist() == [0] * 13 + [34] * 34 + [0] * 13
    assert triangle.sum(1).tolist() == [0] * 10 + [2 * (n // 2) for n in range(1, 37)] + [0] * 14
    assert torch.equal(triangle, triangle.flip(1))
    assert cross.sum(0).tolist() == [0] * 10 + [10] * 15 + [40] * 10 + [10] * 15 + [0] * 10
    assert torch.equal(cross, cross.T)


# ---- augmentation ----


def warp(images, angle, zoom, down, right, background):
    """`augment.affine` by affine_grid and grid_sample, whose coordinates go from -1 to 1."""
    H, W = images.shape[2:]
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    half_y, half_x = (H - 1) / 2, (W - 1) / 2
    rows = [
        [cos, sin * half_y / half_x, -(cos * right + sin * down) / half_x],
        [-sin * half_x / half_y, cos, (sin * right - cos * down) / half_y],
    ]
    theta = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)  # (N, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=True)
    moved = F.grid_sample(images - background, grid, align_corners=True)  # zeros outside
    return moved + background


def uniform(N: int, low: float, high: float, dtype=torch.float64) -> torch.Tensor:
    return low + (high - low) * torch.rand(N, dtype=dtype)


@pytest.mark.smoke
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("shape", [(40, 1, 28, 28), (40, 3, 9, 14), (40, 2, 5, 2)])
def test_affine_is_grid_sample(shape, dtype, tolerance):
    images, N = torch.randn(shape, dtype=dtype), shape[0]
    amounts = (
        uniform(N, -math.pi, math.pi, dtype), uniform(N, 0.5, 2, dtype),
        uniform(N, -6, 6, dtype), uniform(N, -6, 6, dtype),
    )  # fmt: skip
    moved = augment.affine(images, *amounts, background=-0.7)
    expected = warp(images, *amounts, background=-0.7)
    torch.testing.assert_close(moved, expected, rtol=0, atol=tolerance)
    assert moved.dtype == dtype


def amounts(N: int, angle=0.0, zoom=1.0, down=0.0, right=0.0) -> list[torch.Tensor]:
    return [torch.full((N,), float(amount)) for amount in (angle, zoom, down, right)]


@pytest.mark.parametrize("H, W", [(28, 28), (5, 8), (1, 1)])
def test_affine_that_changes_nothing_gives_the_image_exactly(H, W):
    images = torch.randn(3, 2, H, W)
    assert torch.equal(augment.affine(images, *amounts(3), background=9.0), images)


@pytest.mark.parametrize("down, right", [(1, 0), (0, -2), (-3, 4), (28, 0), (100, -100)])
def test_affine_by_whole_pixels_moves_them_exactly(down, right):
    images = torch.randn(2, 1, 28, 28)
    around = F.pad(images, (100, 100, 100, 100), value=-0.5)
    expected = around[:, :, 100 - down : 128 - down, 100 - right : 128 - right]
    moved = augment.affine(images, *amounts(2, down=down, right=right), background=-0.5)
    assert torch.equal(moved, expected)


def test_affine_turns_clockwise_and_zooms_in():
    images = torch.randn(2, 1, 8, 8)
    turned = augment.affine(images, *amounts(2, angle=math.pi / 2), background=0.0)
    torch.testing.assert_close(turned, images.rot90(-1, (2, 3)), rtol=0, atol=1e-5)
    block = torch.zeros(1, 1, 9, 9)
    block[:, :, 3:6, 3:6] = 1
    large, small = (augment.affine(block, *amounts(1, zoom=z), 0.0).sum() for z in (2, 0.5))
    assert large > 2 * block.sum() and small < block.sum() / 2


def test_affine_moves_each_image_by_its_own_amounts():
    images = torch.randn(1, 1, 6, 6).expand(3, -1, -1, -1)
    moved = augment.affine(images, *amounts(3)[:3], torch.tensor([0.0, 1.0, -1.0]), 0.0)
    assert torch.equal(moved[0], images[0])
    assert torch.equal(moved[1, :, :, 1:], images[0, :, :, :-1])
    assert torch.equal(moved[2, :, :, :-1], images[0, :, :, 1:])


def test_random_affine_draws_uniformly_within_its_limits(monkeypatch):
    drawn = []
    monkeypatch.setattr(augment, "affine", lambda images, *amounts: drawn.append(amounts))
    augment.random_affine(torch.zeros(20_000, 1, 1, 1), 1.5, 8.0, 0.1, background=-0.4)
    angle, zoom, down, right, background = drawn[0]
    assert background == -0.4
    for amount, middle, limit in (
        (angle, 0, math.radians(8)), (zoom, 1, 0.1), (down, 0, 1.5), (right, 0, 1.5),
    ):  # fmt: skip
        share = (amount - middle) / limit
        assert share.abs().max() <= 1 + 1e-5 and share.abs().max() > 0.99
        # a uniform share has mean 0 and variance 1/3: five standard deviations each
        assert share.mean().abs() < 5 * (1 / 3 / 20_000) ** 0.5
        assert abs((share**2).mean() - 1 / 3) < 5 * (4 / 45 / 20_000) ** 0.5
    correlations = torch.stack([angle, zoom, down, right]).corrcoef() - torch.eye(4)
    assert correlations.abs().max() < 0.05


def test_random_affine_within_no_limits_changes_nothing_and_repeats_under_a_seed():
    images = torch.randn(4, 1, 6, 6)
    assert torch.equal(augment.random_affine(images, 0.0, 0.0, 0.0, 1.0), images)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(augment.random_affine(images, 2.0, 20.0, 0.2, 0.0))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_random_flip_mirrors_half_of_the_images():
    images = torch.randn(20_000, 1, 2, 2)
    before = images.clone()
    flipped = augment.random_flip(images)
    assert torch.equal(images, before)
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert torch.equal(mirrored, ~kept)
    assert abs(mirrored.sum() - 10_000) < 5 * (20_000 / 4) ** 0.5  # five standard deviations
    others = (augment.random_flip(images) != images).flatten(1).any(1)  # each image by itself
    assert abs((mirrored == others).sum() - 10_000) < 5 * (20_000 / 4) ** 0.5
    counts = [(augment.random_flip(images) != images).flatten(1).any(1).sum() for _ in range(5)]
    assert len(set(map(int, counts))) > 1


# ---- learning ----


def fit(model: CNN, batches: list, lr: float) -> float:
    """The last training loss."""
    criterion, optimizer = CrossEntropy(), AdamW(model, lr)
    schedule, loss = make_schedule("one-cycle", lr, len(batches)), None
    for step, (images, labels) in enumerate(batches):
        optimizer.lr = schedule(step)
        loss = criterion.forward(model.forward(images), labels)
        model.backward(criterion.backward())
        optimizer.step()
    return loss.item()


def test_overfits_32_images():
    train, _ = load_training("shapes")
    model = CNN(1, 28, 4, (8, 8), dropout=0.0)
    assert fit(model, [(train.inputs[:32], train.labels[:32])] * 60, lr=0.01) < 0.01


def test_learns_the_shapes():
    train, validation = load_training("shapes")
    model = CNN(1, 28, 4, (8, 16, 16), dropout=0.0)
    fit(model, [b for epoch in range(2) for b in train.batches(64, epoch=epoch)], lr=0.01)
    predictions = model.eval().forward(validation.inputs).argmax(1)
    assert (predictions == validation.labels).float().mean() >= 0.97


# ---- where the time goes ----


def test_parts_of_a_step_are_recorded_and_shown(tmp_path, monkeypatch, capsys):
    path = tmp_path / "compare_profile.json"
    monkeypatch.setattr(profile_step, "RECORD", path)
    assert profile_step.table(path) == "Nothing recorded yet."
    profile_step.main(["--steps", "2", "--record"])
    record = json.loads(path.read_text())
    assert record["steps"] == 2
    kinds = {type(layer).__name__ for _, layer in CNN().modules() if not layer.children()}
    for parts in record["step_parts"].values():
        assert {part.split(",")[0] for part in parts} == {
            *kinds, "augmentation", "CrossEntropy", "AdamW",
        }  # fmt: skip
        assert sum(parts.values()) > 0
    printed, shown = capsys.readouterr().out, profile_step.table(path)
    assert "Conv2d, backward" in printed and "| Conv2d, backward | " in shown
    total = sum(record["step_parts"]["bfloat16"].values())
    assert f"| {total:.1f} | 100% |" in shown
