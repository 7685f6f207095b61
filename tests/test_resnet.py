"""ResNet/: networks against torchvision and their equations, whitening, Grad-CAM, runs."""

import copy
import importlib
import json
import math
from argparse import Namespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.nn import functional as F

from common import checkpoint, data
from common.data import Split
from common.run import Run
from ResNet import model as networks
from ResNet import profile_step
from ResNet import train as script
from ResNet.dataset import coloured_shapes
from ResNet.model import PRESETS, Conv3x3, FastResNet, ResNet, conv3x3
from ResNet.test import main as evaluate
from ResNet.utils.gradcam import grad_cam
from ResNet.utils.optim import make_optimizer
from tests.running import (
    Stop,
    assert_ended_alike,
    assert_one_line,
    call,
    crash,
    history,
    interrupt,
    make_digits,
    small,
)
from ViT.model import ViT

pytestmark = pytest.mark.usefixtures("seeded")

TINY = dict(widths=(4, 6), num_classes=5)
SMALL = PRESETS["resnet9-small"]


@pytest.fixture
def no_pictures(monkeypatch):
    """Of test.py, where its numbers are what counts."""
    for name in ("draw_confusion_matrix", "draw_filters", "draw_overlays", "draw_worst_mistakes"):
        monkeypatch.setattr(f"ResNet.test.{name}", lambda *args: None)


def randomised(model):
    """The model with norms that do something: random scales, biases and statistics."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


# ---- the networks, against torchvision and the papers ----


THEIRS = {
    "resnet18": torchvision.models.resnet18,
    "resnet34": torchvision.models.resnet34,
    "resnet50": torchvision.models.resnet50,
}


def parameter_count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.smoke
@pytest.mark.parametrize("name", THEIRS)
def test_names_and_shapes_are_torchvisions(name):
    with torch.device("meta"):
        ours, theirs = PRESETS[name](num_classes=1000), THEIRS[name]()
    shapes = [{n: w.shape for n, w in model.state_dict().items()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1] and list(shapes[0]) == list(shapes[1])
    assert parameter_count(ours) == parameter_count(theirs)


@pytest.mark.parametrize("name", THEIRS)
def test_logits_and_statistics_are_torchvisions(name):
    ours = PRESETS[name](num_classes=7)
    theirs = randomised(THEIRS[name](num_classes=7)).double()
    ours.load_state_dict(theirs.state_dict())
    ours.double()
    images = torch.randn(2, 3, 33, 48, dtype=torch.float64)
    for training in (False, True):
        logits = [model.train(training)(images) for model in (ours, theirs)]
        torch.testing.assert_close(*logits, rtol=1e-10, atol=1e-10)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-10, atol=1e-10)


PAPER = {"resnet20": (20, 0.27), "resnet32": (32, 0.46), "resnet56": (56, 0.85)}  # 2015, table 6


@pytest.mark.smoke
@pytest.mark.parametrize("name", PAPER)
def test_layers_and_parameters_are_the_papers(name):
    with torch.device("meta"):
        model = PRESETS[name](num_classes=10)
    layers, millions = PAPER[name]
    weighted = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(weighted) == layers
    assert round(parameter_count(model) / 1e6, 2) == millions


@pytest.mark.parametrize("C, size", [(3, 32), (1, 28), (3, 64)])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_a_logit_per_class(name, C, size):
    with torch.device("meta"):
        model, images = PRESETS[name](num_classes=7, in_channels=C), torch.zeros(2, C, size, size)
    for training in (True, False):
        assert model.train(training)(images).shape == (2, 7)
    features = model.features(images)
    assert features.shape[:2] == (2, model.fc.in_features) and features.dim() == 4


@pytest.mark.parametrize("name, side", [("resnet18", 7), ("resnet18-cifar", 28), ("resnet50", 7)])
def test_the_stem_decides_how_fine_the_last_maps_of_224_pixels_are(name, side):
    with torch.device("meta"):
        model, images = PRESETS[name](), torch.zeros(1, 3, 224, 224)
    assert model.features(images).shape[2:] == (side, side)


@pytest.mark.parametrize("name", ["resnet20", "resnet18-cifar", "preact-resnet20"])
def test_convolutions_start_with_the_variance_of_the_paper(name):
    """Std sqrt(2 / (k² O)), with O output channels: He et al., arXiv:1502.01852, equation 14."""
    for module in PRESETS[name]().modules():
        if isinstance(module, nn.Conv2d):
            k, weight = module.kernel_size[0], module.weight
            expected = math.sqrt(2 / (k * k * module.out_channels))
            assert weight.std().item() == pytest.approx(expected, rel=4 / math.sqrt(weight.numel()))


# ---- blocks, against their equations ----


@pytest.mark.parametrize("C, O, stride", [(4, 8, 2), (3, 8, 2), (2, 5, 1), (4, 4, 3)])
@pytest.mark.parametrize("H, W", [(6, 6), (7, 5), (1, 1)])
def test_padded_shortcut_is_every_nth_pixel_and_zeros(C, O, stride, H, W):
    x = torch.randn(2, C, H, W)
    before = (O - C) // 2
    expected = torch.zeros(2, O, -(-H // stride), -(-W // stride))
    for n, c, i, j in np.ndindex(2, C, *expected.shape[2:]):
        expected[n, before + c, i, j] = x[n, c, stride * i, stride * j]
    assert torch.equal(networks.PaddedShortcut(C, O, stride)(x), expected)


def norm(x, module, training):
    """(x - μ) / sqrt(σ² + ε) · γ + β, with the batch's statistics or the kept ones."""
    mean, var = module.running_mean, module.running_var
    if training:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    per_channel = [v.view(1, -1, 1, 1) for v in (mean, var, module.weight, module.bias)]
    return (x - per_channel[0]) / (per_channel[1] + 1e-5).sqrt() * per_channel[2] + per_channel[3]


def relu(x):
    return x * (x > 0)


def convolve(x, module, stride=1):
    return F.conv2d(x, module.weight, None, stride, padding=module.weight.shape[-1] // 2)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("C, O, stride", [(6, 6, 1), (4, 6, 1), (3, 6, 2)])
def test_pre_activation_block_is_its_equation(C, O, stride, training):
    """x + W₂ relu(n₂(W₁ relu(n₁(x)))); where the shape changes, Wₛ relu(n₁(x)) stands for x."""
    downsample = networks.conv1x1(C, O, stride) if (C, stride) != (O, 1) else None
    block = randomised(networks.PreActivationBlock(C, O, stride, downsample)).double()
    x = torch.randn(4, C, 7, 8, dtype=torch.float64)
    activated = relu(norm(x, block.bn1, training))
    y = convolve(activated, block.conv1, stride)
    y = convolve(relu(norm(y, block.bn2, training)), block.conv2)
    expected = y + (x if downsample is None else convolve(activated, downsample, stride))
    torch.testing.assert_close(block.train(training)(x), expected, rtol=1e-10, atol=1e-10)


def test_pre_activation_network_ends_with_a_norm_and_starts_without():
    model = randomised(ResNet(networks.PreActivationBlock, (1, 1), (4, 8))).double().eval()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    x = model.layer2(model.layer1(convolve(images, model.conv1)))
    features = relu(norm(x, model.last_block[0], False))
    torch.testing.assert_close(model.features(images), features)
    torch.testing.assert_close(model(images), model.fc(features.mean((2, 3))))


@pytest.mark.parametrize("depth", [1, 2])
def test_fast_network_is_its_description(depth):
    """Stem -> GELU; blocks of conv -> pool -> norm -> GELU -> x + F(x); the largest; a ninth."""
    model = randomised(FastResNet(**TINY, depth=depth)).double().eval()
    images = torch.randn(3, 3, 12, 13, dtype=torch.float64)
    x = F.gelu(F.conv2d(images, model.conv1.weight, model.conv1.bias))
    for block in model.blocks:
        x = F.max_pool2d(convolve(x, block.conv), 2)
        y = x = F.gelu(norm(x, block.norm, False))
        for conv, batch_norm in zip(block.residual[::3], block.residual[1::3], strict=True):
            y = F.gelu(norm(convolve(y, conv), batch_norm, False))
        x = x + y
    expected = x.flatten(2).max(2).values @ model.fc.weight.T / 9
    torch.testing.assert_close(model(images), expected, rtol=1e-10, atol=1e-10)


def test_fast_blocks_start_as_the_identity_as_far_as_they_can():
    model = FastResNet()
    x = torch.randn(1, 64, 6, 6)
    for conv in (model.blocks[0].residual[0], model.blocks[1].conv):
        y = conv(x)
        assert torch.equal(y[:, :64], x)
        assert y.shape[1] == 64 or y[:, 64:].std() > 0.01, "the others start at random"


def test_the_stem_s_kernels_are_not_learned():
    model = FastResNet(**TINY)
    assert not model.conv1.weight.requires_grad and model.conv1.bias.requires_grad
    optimizer = make_optimizer("nesterov", model, 0.1, 0.1)
    assert not any(p is model.conv1.weight for g in optimizer.param_groups for p in g["params"])


# ---- whitening ----


@pytest.mark.smoke
@pytest.mark.parametrize("C", [1, 3])
def test_whitened_responses_are_uncorrelated_with_unit_variance(C):
    """On images whose neighbouring pixels and channels go together, as those of photographs do."""
    noise = torch.randn(200, C, 12, 12)
    images = F.avg_pool2d(noise, 3, 1) * 2 + noise.mean(1, keepdim=True)[:, :, 1:-1, 1:-1]
    model = FastResNet(**TINY, in_channels=C)
    model.whiten(images)
    responses = model.conv1(images).detach()  # (N, 8 C, H, W)
    positive, negative = responses.transpose(0, 1).flatten(1).double().chunk(2)
    assert torch.equal(negative, -positive)
    covariance = positive @ positive.T / positive.shape[1]
    torch.testing.assert_close(covariance, torch.eye(4 * C).double(), rtol=0, atol=0.02)
    assert not model.conv1.weight.requires_grad


def test_a_direction_that_holds_little_but_noise_is_not_blown_up():
    """The README's variances: λ / (λ + 5e-4), here for colours that all but go together."""
    grey = F.avg_pool2d(torch.randn(100, 1, 12, 12), 3, 1)
    images = grey + 0.02 * torch.randn(100, 3, 10, 10)
    model = FastResNet(**TINY)
    model.whiten(images)
    patches = F.unfold(images, 2).transpose(1, 2).flatten(0, 1).double()
    values = torch.linalg.eigvalsh(patches.T @ patches / len(patches))
    assert values[0] < 5e-4 < values[-1] / 100
    responses = model.conv1(images).detach().transpose(0, 1).flatten(1).double()[:12]
    covariance = responses @ responses.T / responses.shape[1]
    expected = torch.diag(values / (values + 5e-4))
    torch.testing.assert_close(covariance, expected, rtol=0, atol=1e-4)


def test_directions_in_which_nothing_varies_stay_finite():
    model = FastResNet(**TINY)
    model.whiten(torch.full((10, 3, 8, 8), 0.7))
    assert model.conv1.weight.isfinite().all()
    assert model.conv1.weight.abs().max() <= 5e-4**-0.5


def test_large_images_are_not_whitened_all_at_once(monkeypatch, tmp_path):
    """5,000 images of 224 x 224 pixels and their patches would not fit into memory. Those that are
    looked at are of all classes, which lie one after the other."""
    asked = []

    class Large(Split):
        def images(self, rows):
            asked.append(rows)
            raise Stop

    pixels, labels = torch.zeros(1, 3, 224, 224, dtype=torch.uint8), torch.arange(6_000) // 3_000
    split = Large(pixels.expand(6_000, 3, 224, 224), labels, ["a", "b"], {})
    split.to = lambda device: split
    monkeypatch.setattr(script, "load_training", lambda args: (split, split))
    argv = ["--dataset", "folder", "--model", "resnet9-small", "--run-dir", str(tmp_path / "run")]
    with pytest.raises(Stop):
        script.main(argv)
    assert len(asked[0]) > 1 and len(asked[0]) * 224**2 <= 5_000 * 32**2
    shares = labels[asked[0]].bincount(minlength=2) / len(asked[0])
    torch.testing.assert_close(shares, torch.full((2,), 0.5), rtol=0, atol=0.02)


# ---- learning ----


def small_shapes(N=16):
    """Half as wide as the shapes are, one of each class."""
    shapes = coloured_shapes.make("test")
    return shapes.inputs[:N, :, ::2, ::2] / 128 - 1, shapes.labels[:N]


LEARNERS = {
    "resnet20": lambda: PRESETS["resnet20"](num_classes=16),
    "preact": lambda: PRESETS["preact-resnet20"](num_classes=16),
    "bottleneck": lambda: ResNet(networks.Bottleneck, (1, 1), (8, 16), num_classes=16),
    "fast": lambda: FastResNet((16, 32), num_classes=16),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_network_learns_one_batch_by_heart(name):
    model, (images, labels) = LEARNERS[name](), small_shapes()
    if name == "fast":
        model.whiten(images)
    optimizer = make_optimizer("adamw", model, 0.01, 0.0)
    for _ in range(60 if name == "fast" else 30):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    assert loss < 0.05 and torch.equal(model(images).argmax(1), labels)


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["nesterov", "adamw"])
def test_weight_decay_is_on_matrices_and_kernels_alone(name):
    model = PRESETS["resnet20"]()
    decays = {}
    for group in make_optimizer(name, model, 0.1, 0.03).param_groups:
        for parameter in group["params"]:
            assert id(parameter) not in decays
            decays[id(parameter)] = group["weight_decay"]
    for module in model.modules():
        for kind, parameter in module.named_parameters(recurse=False):
            is_matrix = isinstance(module, (nn.Conv2d, nn.Linear)) and kind == "weight"
            assert decays.pop(id(parameter)) == (0.03 if is_matrix else 0.0)
    assert decays == {}


# ---- predicting ----


def args_of(**changes):
    usual = dict(dataset="shapes", precision="float32", flip_test=True, shift_test=False)
    return Namespace(**{**usual, **changes})


def test_predictions_are_those_of_the_network_in_evaluation_mode():
    model = randomised(FastResNet(**TINY)).train()
    split = Split(torch.randint(256, (30, 3, 10, 10), dtype=torch.uint8), torch.arange(30) % 5,
                  list("abcde"), {})  # fmt: skip
    before = copy.deepcopy(model.state_dict())
    logits, labels = script.predict_all(model, split, args_of(flip_test=False))
    expected = model.eval()((split.inputs / 255 - 0.45) / 0.2)
    torch.testing.assert_close(logits, expected.detach())
    assert torch.equal(labels, split.labels) and not logits.requires_grad
    assert all(torch.equal(w, before[n]) for n, w in model.state_dict().items())
    metrics = script.metrics_of(logits, labels)
    assert metrics["loss"] == pytest.approx(F.cross_entropy(expected, labels).item())
    assert metrics["accuracy"] == pytest.approx((expected.argmax(1) == labels).double().mean())


def test_mirroring_does_not_change_predictions_when_evaluated_with_mirrored_images():
    model = randomised(FastResNet(**TINY))
    images = torch.randint(256, (20, 3, 10, 10), dtype=torch.uint8)
    for flip, differs in ((True, False), (False, True)):
        logits = []
        for pixels in (images, images.flip(3)):
            split = Split(pixels, torch.zeros(20, dtype=torch.long), list("abcde"), {})
            logits.append(script.predict_all(model, split, args_of(flip_test=flip))[0])
        assert ((logits[0] - logits[1]).abs().max() > 1e-4) == differs


VIEWERS = {
    "ResNet": lambda: randomised(FastResNet(**TINY)),
    "ViT": lambda: randomised(ViT(10, 5, embed_dim=8, depth=1, num_heads=2)),
}


@pytest.mark.parametrize("folder", VIEWERS)
def test_images_are_moved_where_the_network_is_unsure_and_nowhere_else(folder, monkeypatch):
    module, model = importlib.import_module(f"{folder}.utils.predict"), VIEWERS[folder]().eval()
    nn.init.normal_(list(model.children())[-1].weight)  # ViT's begins as zeros
    classes = [str(n) for n in range(model(torch.zeros(1, 3, 10, 10)).shape[1])]
    images, labels = torch.randint(256, (60, 3, 10, 10), dtype=torch.uint8), torch.zeros(60).long()
    split, pixels = Split(images, labels, classes, {}), (images / 255 - 0.45) / 0.2

    @torch.no_grad()
    def mirrored_too(images):
        return (model(images) + model(images.flip(3))) / 2

    plain, padded = mirrored_too(pixels), F.pad(pixels, (1, 1, 1, 1), mode="reflect")
    moved = mirrored_too(padded[:, :, :10, :10]) + mirrored_too(padded[:, :, 2:, 2:])
    best, second = plain.softmax(1).topk(2).values.unbind(1)
    gap = (best - second).sort().values[29:31].mean()  # half of them are below
    unsure = (best - second < gap)[:, None]
    assert unsure.sum() == 30 and (moved / 2 - plain).abs().max() > 1e-3
    views = importlib.import_module(f"{folder}.utils.views")
    monkeypatch.setattr(views, "UNSURE", float(gap))
    logits, _ = module.predict_all(model, split, args_of(shift_test=True))
    torch.testing.assert_close(logits, torch.where(unsure, plain / 2 + moved / 4, plain))

    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    sizes = []
    monkeypatch.setattr(views, "UNSURE", 0.0)  # never: and not even an empty batch is asked
    logits, _ = module.predict_all(model, split, args_of(shift_test=True))
    torch.testing.assert_close(logits, plain)
    assert sizes == [60, 60]


@pytest.mark.parametrize("side, K", [(1, 3), (4, 1)])
def test_one_pixel_cannot_move_and_one_class_leaves_no_doubt(side, K):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * side**2, K))
    images = torch.randint(256, (9, 3, side, side), dtype=torch.uint8)
    split = Split(images, torch.zeros(9).long(), list("abc")[:K], {})
    logits, _ = script.predict_all(model, split, args_of(shift_test=True))
    assert torch.equal(logits, script.predict_all(model, split, args_of())[0])


# ---- Grad-CAM ----


def cam_by_hand(alpha, maps, size):
    """relu(Σ α_k A_k), enlarged bilinearly, and divided by its largest value."""
    cam = relu((alpha[:, :, None, None] * maps).sum(1))
    cam = F.interpolate(cam[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    return cam / cam.flatten(1).amax(1)[:, None, None].clamp(min=1e-12)


@pytest.mark.parametrize("block", [networks.BasicBlock, networks.PreActivationBlock])
def test_grad_cam_after_an_average_weighs_maps_as_the_last_layer_does(block):
    """y = w · mean_ij(A) + b, so that the mean gradient of a map is w_k / (H' W')."""
    model = randomised(ResNet(block, (1, 1), (4, 8), num_classes=5)).eval()
    images, classes = torch.randn(6, 3, 12, 10), torch.tensor([0, 1, 2, 3, 4, 0])
    maps = model.features(images).detach()
    assert maps.shape[2:] == (6, 5)
    alpha = model.fc.weight.detach()[classes] / 30
    cams = grad_cam(model, images, classes)
    torch.testing.assert_close(cams, cam_by_hand(alpha, maps, (12, 10)), rtol=1e-4, atol=1e-5)


def test_grad_cam_after_a_maximum_weighs_maps_alike():
    """y = w · max_ij(A) / 9: all of the gradient is where the largest value is."""
    model = randomised(FastResNet(**TINY)).eval()
    images, classes = torch.randn(6, 3, 21, 17), torch.tensor([0, 1, 2, 3, 4, 0])
    maps = model.features(images).detach()
    alpha = model.fc.weight.detach()[classes] / 9 / (maps.shape[2] * maps.shape[3])
    cams = grad_cam(model, images, classes)
    torch.testing.assert_close(cams, cam_by_hand(alpha, maps, (21, 17)), rtol=1e-4, atol=1e-5)


@pytest.mark.smoke
def test_grad_cam_is_between_0_and_1_and_leaves_the_network_alone():
    model = randomised(PRESETS["resnet20"](num_classes=5)).eval()
    with torch.no_grad():  # as in test.py
        cams = grad_cam(model, torch.randn(3, 3, 16, 16), torch.tensor([0, 1, 2]))
    assert cams.shape == (3, 16, 16) and cams.min() >= 0 and not cams.requires_grad
    assert all(cam.max() == 0 or abs(cam.max() - 1) < 1e-6 for cam in cams)
    assert all(p.grad is None for p in model.parameters())
    assert not model.last_block._forward_hooks


def test_grad_cam_of_a_class_for_which_nothing_speaks_is_dark():
    model = ResNet(depths=(1,), widths=(4,), num_classes=2).eval()  # its last maps are relu's
    nn.init.constant_(model.fc.weight, -1)
    cams = grad_cam(model, torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))
    assert torch.equal(cams, torch.zeros(2, 8, 8))


# ---- runs ----


def train(run_dir, *argv):
    script.main([*small("ResNet"), "--run-dir", str(run_dir), *map(str, argv)])


EVERYTHING = ["--ema", 0.9, "--precision", "bfloat16", "--mixup", 0.3, "--cutmix", 0.3, "--crop", 2]
EVERYTHING += ["--accumulate", 2, "--colour", 0.1, "--cutout", 4, "--clip", 1, "--epochs", 2]
EVERYTHING += ["--hardest", 0.5]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A function: a run with everything, never stopped, trained once per network."""
    runs = {}

    def run(model):
        if model not in runs:
            runs[model] = tmp_path_factory.mktemp(model) / "run"
            train(runs[model], *EVERYTHING, "--model", model)
        return runs[model]

    return run


@pytest.mark.parametrize(
    "model, how, step",
    [("resnet9-small", crash, 1), ("resnet9-small", interrupt, 3), ("resnet9-small", crash, 4),
     ("resnet9-small", interrupt, 5), ("resnet20", crash, 6)],
)  # fmt: skip
def test_stopped_anywhere_and_resumed_is_as_never_stopped(
    model, how, step, quick, whole, tmp_path, monkeypatch
):
    expected = whole(model)
    with monkeypatch.context() as patch, pytest.raises((Stop, KeyboardInterrupt)):
        how(patch, step)
        train(tmp_path / "run", *EVERYTHING, "--model", model)
    assert checkpoint.load(tmp_path / "run" / "last.safetensors")["step"] == step
    script.main(["--resume", "--run-dir", str(tmp_path / "run")])
    assert_ended_alike(tmp_path / "run", expected)


def test_the_average_of_the_weights_follows_its_closed_form(quick, tmp_path, monkeypatch):
    """a₁ = w₁ and aₜ = d aₜ₋₁ + (1 - d) wₜ, so a_T = d^(T-1) w₁ + (1 - d) Σₜ₌₂ d^(T-t) wₜ."""
    steps, log_step = [], Run.log_step

    def log(self, *args, **kwargs):
        log_step(self, *args, **kwargs)
        steps.append({n: w.double().clone() for n, w in self.model.state_dict().items()})

    monkeypatch.setattr(Run, "log_step", log)
    train(tmp_path / "run", "--ema", 0.8, "--epochs", 2, "--schedule", "constant")
    state, T = checkpoint.load(tmp_path / "run" / "last.safetensors"), len(steps)
    assert T == 8 and state["average"]["n_averaged"] == T
    shares = [0.8 ** (T - 1)] + [0.2 * 0.8 ** (T - t) for t in range(2, T + 1)]
    assert sum(shares) == pytest.approx(1)
    for name in ("fc.weight", "blocks.1.conv.weight", "blocks.0.norm.running_var", "conv1.weight"):
        expected = sum(share * w[name] for share, w in zip(shares, steps, strict=True))
        average = state["average"][f"module.{name}"].double()
        torch.testing.assert_close(average, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.pictures
def test_the_average_is_what_is_validated_and_tested(quick, no_pictures, tmp_path, capsys):
    train(tmp_path / "run", "--ema", 0.8, "--epochs", 1)
    state = checkpoint.load(tmp_path / "run" / "best.safetensors")
    model, losses = PRESETS["resnet9-small"](num_classes=16), []
    average = {n[7:]: w for n, w in state["average"].items() if n.startswith("module.")}
    for weights in (average, state["model"]):
        model.load_state_dict(weights)
        split = coloured_shapes.make("validation")
        losses.append(script.metrics_of(*script.predict_all(model, split, args_of()))["loss"])
    reached = float(history(tmp_path / "run")[0]["validation_loss"])
    assert reached == pytest.approx(losses[0], rel=1e-5) != pytest.approx(losses[1], rel=1e-3)

    model.load_state_dict(average)
    logits, labels = script.predict_all(model, coloured_shapes.make("test"), args_of())
    result = call(capsys, evaluate, "--run-dir", tmp_path / "run")
    assert f"loss {F.cross_entropy(logits, labels):.4f}" in result.out


def test_parts_of_a_batch_add_up_to_the_batch(quick, tmp_path):
    """With the network in evaluation mode: batch norm sees the parts one by one."""
    flags = ["--freeze", "--crop", 0, "--no-flip", "--epochs", 2]
    for parts in (1, 2, 4):
        train(tmp_path / str(parts), *flags, "--accumulate", parts)
    for name in ("train_loss", "validation_loss"):
        whole, halves, quarters = (
            [float(row[name]) for row in history(tmp_path / parts)] for parts in "124"
        )
        assert halves == pytest.approx(whole, rel=1e-5) and len(whole) == 2
        assert quarters == pytest.approx(whole, rel=1e-5)


# ---- transfer, image folders, pictures ----

GOODS = ("green", "red", "yellow")


def make_goods(root, size=20, number=8):
    """A folder of plain colours with some noise: three classes."""
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in GOODS:
            (root / split / name).mkdir(parents=True)
            for n in range(number):
                colour = 255 * np.array(coloured_shapes.COLOURS[name])
                pixels = colour + random.normal(0, 20, (size, size, 3))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(root / split / name / f"{n}.png")
    return root


PICTURES = ["confusion.png", "filters.png", "grad_cam.png", "mistakes.png"]


@pytest.fixture(scope="module")
def learned_shapes(tmp_path_factory):
    """A function: a run on the shapes, trained once, whose weights are there to go on from."""
    runs = []

    def run():
        if not runs:
            runs.append(tmp_path_factory.mktemp("shapes") / "run")
            train(runs[0], "--epochs", 4)
        return runs[0]

    return run


@pytest.mark.pictures
def test_what_was_learned_on_shapes_serves_on_a_folder_of_other_classes(
    quick, learned_shapes, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(PRESETS, "resnet9-small", SMALL)  # features of a whole network
    place, path = make_goods(tmp_path / "goods"), tmp_path / "run"
    weights = learned_shapes() / "best.safetensors"
    flags = ["--dataset", "folder", "--data-dir", place, "--model", "resnet9-small", "--epochs", 6]
    flags += ["--pretrained", weights, "--freeze", "--batch-size", 8, "--run-dir", path]
    assert call(capsys, script.main, *flags).code == 0
    before = checkpoint.load(weights)["model"]
    after = checkpoint.load(path / "best.safetensors")["model"]
    assert after.pop("fc.weight").shape == (3, 128) and before["fc.weight"].shape == (16, 128)
    assert all(torch.equal(w, before[name]) for name, w in after.items())
    rows = history(path)
    assert {row["dataset"] for row in rows} == {"goods"}
    assert max(float(row["validation_accuracy"]) for row in rows) > 0.8

    result = call(capsys, evaluate, "--run-dir", path)
    assert (result.code, result.err) == (0, "") and "goods, 24 examples" in result.out
    assert sorted(file.name for file in path.glob("*.png")) == PICTURES


def test_a_run_goes_on_without_the_weights_it_started_from(
    quick, learned_shapes, tmp_path, monkeypatch
):
    monkeypatch.setitem(PRESETS, "resnet9-small", SMALL)  # that of the learned shapes
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes((learned_shapes() / "best.safetensors").read_bytes())
    flags = ["--pretrained", weights, "--epochs", 2]
    train(tmp_path / "whole", *flags)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash(patch, 5)
        train(tmp_path / "run", *flags)
    weights.unlink()
    script.main(["--resume", "--run-dir", str(tmp_path / "run")])
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")


def test_torchvisions_weights_are_a_start(quick, tmp_path):
    theirs = randomised(torchvision.models.resnet18(num_classes=9)).state_dict()
    torch.save(theirs, tmp_path / "resnet18.pth")
    flags = ["--model", "resnet18", "--pretrained", tmp_path / "resnet18.pth", "--freeze"]
    train(tmp_path / "run", *flags, "--subset", 16, "--epochs", 1)
    state = checkpoint.load(tmp_path / "run" / "best.safetensors")["model"]
    assert state["fc.weight"].shape == (16, 512)
    for name in theirs.keys() - {"fc.weight", "fc.bias"}:
        assert torch.equal(state[name], theirs[name])


@pytest.mark.pictures
def test_evaluation_of_grey_images_draws_every_picture(tmp_path, capsys, quick):
    place, path = make_digits(tmp_path / "data", sizes=(60, 40)), tmp_path / "run"
    flags = ["--dataset", "mnist", "--data-dir", place, "--epochs", 1, "--batch-size", 16]
    assert call(capsys, script.main, *flags, "--run-dir", path).code == 0
    result = call(capsys, evaluate, "--run-dir", path, "--data-dir", place)
    assert (result.code, result.err) == (0, "") and "mnist, 40 examples" in result.out
    assert sorted(file.name for file in path.glob("*.png")) == PICTURES
    assert all((path / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)


def test_streamed_images_give_the_results_of_those_in_memory(
    tmp_path, capsys, quick, no_pictures, monkeypatch
):
    """The validation and test splits, that is: for training, streamed images are cropped anew."""
    place, path = make_goods(tmp_path / "goods"), tmp_path / "run"
    flags = ["--dataset", "folder", "--data-dir", place, "--model", "resnet9-small", "--epochs", 1]
    assert call(capsys, script.main, *flags, "--batch-size", 8, "--run-dir", path).code == 0
    said = []
    for limit in (2**30, 0):
        monkeypatch.setattr("ResNet.dataset.image_folder.IN_MEMORY_BYTES", limit)
        result = call(capsys, evaluate, "--run-dir", path)
        assert (result.code, result.err) == (0, "")
        said.append(result.out)
    assert said[0] == said[1] and "accuracy" in said[0]


def test_a_streamed_run_goes_on_exactly(tmp_path, quick, monkeypatch):
    place = make_goods(tmp_path / "goods")
    monkeypatch.setattr("ResNet.dataset.image_folder.IN_MEMORY_BYTES", 0)
    flags = ["--dataset", "folder", "--data-dir", str(place), "--model", "resnet9-small"]
    flags += ["--epochs", "2", "--batch-size", "8"]
    script.main([*flags, "--run-dir", str(tmp_path / "whole")])
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash(patch, 2)
        script.main([*flags, "--run-dir", str(tmp_path / "run")])
    script.main(["--resume", "--run-dir", str(tmp_path / "run")])
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")


# ---- what a user may get wrong ----


@pytest.mark.smoke
@pytest.mark.parametrize(
    "flags, parts",
    [
        ("--model resnet1001", ["--model", "resnet1001", "resnet9"]),
        ("--ema 1", ["--ema"]),
        ("--mixup 1.5", ["--mixup"]),
        ("--mixup 0.6 --cutmix 0.6", ["--mixup", "--cutmix", "at most 1"]),
        ("--crop -1", ["--crop"]),
        ("--crop 32", ["--crop 32"]),
        ("--batch-size 15 --accumulate 2", ["--batch-size 15"]),
        ("--batch-size 64 --subset 33 --accumulate 2", ["33"]),
        ("--batch-size 2 --accumulate 4", ["--batch-size 2"]),
        ("--precision float8", ["--precision", "float8"]),
        ("--pretrained absent.pth", ["--pretrained absent.pth"]),
        ("--image-size 0", ["--image-size"]),
        ("--image-size 64", ["--image-size", "shapes"]),
        ("--dataset folder", ["--data-dir"]),
        ("--dataset folder --data-dir absent", ["absent"]),
        ("--model resnet18 --batch-size 1", ["batch"]),
    ],
)
def test_bad_flag_is_one_line_and_leaves_nothing(flags, parts, quick, tmp_path, capsys):
    argv = [*small("ResNet"), "--run-dir", tmp_path / "run", *flags.split()]
    assert_one_line(call(capsys, script.main, *argv), *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [1, 4, 8])
def test_images_too_small_for_the_network_are_one_line(size, quick, tmp_path, capsys):
    place = make_goods(tmp_path / "goods", number=2)
    flags = ["--dataset", "folder", "--data-dir", place, "--model", "resnet9-small"]
    flags += ["--image-size", size, "--batch-size", 6, "--run-dir", tmp_path / "run"]
    assert_one_line(call(capsys, script.main, *flags), "resnet9-small", "pixels")
    assert not (tmp_path / "run").exists()


def test_without_data_the_default_run_learns_shapes_and_says_so(
    quick, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(data, "ROOT", tmp_path / "repository")
    monkeypatch.setattr(script, "FOLDER", tmp_path / "repository" / "ResNet")
    monkeypatch.setattr("ResNet.dataset.FOLDER", tmp_path / "repository" / "ResNet")
    monkeypatch.setattr("torchvision.datasets.CIFAR10.url", "http://127.0.0.1:1/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "repository" / "ResNet").mkdir(parents=True)
    result = call(capsys, script.main, "--epochs", 1, "--subset", 64, "--batch-size", 16)
    assert result.code == 0 and "MADE-UP" in result.err
    assert "shapes: 64 to train on" in result.out
    (path,) = (tmp_path / "repository" / "ResNet" / "runs").iterdir()
    assert path.name == "0001-shapes"
    config = json.loads((path / "config.json").read_text())
    assert (config["dataset"], config["model"]) == ("shapes", "resnet9-small")
    script.main(["--resume", "--epochs", "2"])  # in silence: it is a run on shapes
    assert capsys.readouterr().err == "" and len(history(path)) == 2

    argv = ["--dataset", "cifar10", "--run-dir", tmp_path / "run"]
    assert_one_line(call(capsys, script.main, *argv), "cifar10 is not in", "--data-dir")


@pytest.mark.parametrize("H, W", [(1, 1), (2, 1), (3, 3), (4, 4), (5, 4)])
@pytest.mark.parametrize("N, C, O", [(1, 1, 1), (3, 2, 5)])
def test_small_convolution_is_that_of_torch(N, C, O, H, W):
    torch.manual_seed(0)
    layer, twin = Conv3x3(C, O).double(), conv3x3(C, O).double()
    twin.load_state_dict(layer.state_dict())
    x, grad_output = torch.randn(N, C, H, W).double(), torch.randn(N, O, H, W).double()
    results = []
    for module in (layer, twin):
        inputs = x.clone().requires_grad_()
        output = module(inputs)
        results.append((output, *torch.autograd.grad(output, [inputs, module.weight], grad_output)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_parts_of_a_step_are_recorded_and_shown(tmp_path, monkeypatch, capsys):
    path = tmp_path / "compare_profile.json"
    monkeypatch.setattr(profile_step, "RECORD", path)
    flags = ["--model", "resnet9-small", "--batch-size", "4", "--steps", "1"]
    profile_step.main([*flags, "--record"])
    record = json.loads(path.read_text())
    assert (record["batch_size"], record["steps"]) == (4, 1)
    assert record["command"].endswith("--model resnet9-small --batch-size 4")
    for parts in record["step_parts"].values():
        assert list(parts) == [*profile_step.PARTS, profile_step.REST]
        assert all(parts[p] > 0 for p in parts if p.startswith(("conv", "Batch", "GELU", "pool")))
    assert "| convolutions, backward | " in profile_step.table(path)
    assert "convolutions, backward" in capsys.readouterr().out
