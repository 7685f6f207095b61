"""common/device.py: choosing a device, repeating and continuing draws, precision, compiling."""

import random
import re
import subprocess

import numpy
import pytest
import torch
from torch import nn

from common import checkpoint, device
from common.device import (
    autocast,
    compiled,
    grad_scaler,
    random_state,
    seed_everything,
    select_device,
    set_random_state,
)
from common.errors import UserError
from MLP_Torch import signals
from ResNet.model import PRESETS
from tests.conftest import user_error
from tests.running import assert_one_line, call, script, small
from VAE.model import VAE, Autoencoder
from VAE.utils import plots as vae_plots
from ViT.model import ViT
from ViT.utils.rollout import relevance

has_cuda = torch.cuda.is_available()
without_cuda = pytest.mark.skipif(has_cuda, reason="this machine has a CUDA device that works")


@pytest.fixture
def only_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def broken_cuda(only_cpu, monkeypatch):
    """A CUDA device that torch sees, and on which nothing runs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def cuda_without_kernels(broken_cuda, monkeypatch):
    """As `broken_cuda`, in CUDA's own words for a GPU newer than the wheel."""

    def fail(*size, device):
        raise RuntimeError(
            "CUDA error: no kernel image is available for execution on the device\n"
            "CUDA kernel errors might be asynchronously reported at some other API call, so ...\n"
            "For debugging consider passing CUDA_LAUNCH_BLOCKING=1"
        )

    monkeypatch.setattr(torch, "ones", fail)


@pytest.fixture
def cuda_not_compiled(broken_cuda, monkeypatch):
    """As `broken_cuda`, with a wheel that was built without CUDA."""
    monkeypatch.delattr(torch._C, "_cuda_getDeviceCount", raising=False)


broken = pytest.mark.parametrize(
    "way",
    [
        pytest.param("broken_cuda", marks=without_cuda),
        pytest.param("cuda_not_compiled", marks=without_cuda),
        "cuda_without_kernels",
    ],
)


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_a_machine_without_accelerator_computes_on_the_cpu(only_cpu, name):
    assert select_device(name) == torch.device("cpu")


def test_auto_is_the_default_and_finds_a_device_that_computes():
    device = select_device()
    assert device == select_device("auto")
    assert torch.ones(2, device=device).sum().item() == 2


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_a_user_error(only_cpu, name):
    with user_error(f"--device {name}", name.upper(), "auto"):
        select_device(name)


@pytest.mark.parametrize("name", ["gpu", "CPU", "cuda:99", "meta", ""])
def test_an_unknown_device_is_a_user_error_that_lists_the_known(name):
    with user_error(repr(name), "auto, cpu, cuda, mps"):
        select_device(name)


@broken
def test_auto_steps_over_a_cuda_device_that_computes_nothing(request, way):
    request.getfixturevalue(way)
    with pytest.warns(UserWarning) as caught:
        assert select_device("auto") == torch.device("cpu")
    said = [str(warning.message) for warning in caught]
    (ours,) = (text for text in said if text.startswith("CUDA is there, but"))
    assert len(ours.splitlines()) == 1


@broken
def test_a_named_cuda_device_that_computes_nothing_is_a_user_error(request, way):
    request.getfixturevalue(way)
    with user_error("--device cuda", torch.__version__, "--device auto"):
        select_device("cuda")


def test_a_device_that_loses_what_is_added_to_a_view_is_stepped_over(only_cpu, monkeypatch):
    """As MPS before torch 2.4 (pytorch/pytorch#118115). The CPU stands for it here."""
    ones, add = torch.ones, torch.Tensor.addcmul_
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *size, device: ones(*size))
    assert select_device("auto") == select_device("mps") == torch.device("mps")

    def losing(self, *factors):
        return add(self, *factors) if self.is_contiguous() else self

    monkeypatch.setattr(torch.Tensor, "addcmul_", losing)
    with user_error("--device mps", "what is added to a view is lost", "--device auto"):
        select_device("mps")
    with pytest.warns(UserWarning, match="MPS is there, but .* a view is lost"):
        assert select_device("auto") == torch.device("cpu")


class OnMPS(torch.Tensor):
    """What a computation on MPS meets: it has no float64 (pytorch/pytorch#122602)."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.cpu:
            return args[0].as_subclass(torch.Tensor)
        found = super().__torch_function__(function, types, args, kwargs)
        if isinstance(found, cls) and found.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return found


def test_float64_is_asked_of_the_cpu_alone():
    images, model = torch.randn(20, 3, 6, 6), PRESETS["resnet9-small"]()
    with pytest.raises(TypeError, match="float64"):
        images.as_subclass(OnMPS).unfold(2, 2, 1).double()
    model.whiten(images)
    expected = model.conv1.weight.clone()
    model.conv1.weight.zero_()
    model.whiten(images.as_subclass(OnMPS))
    assert torch.equal(model.conv1.weight, expected)
    expected = signals.root_mean_square(images)
    assert signals.root_mean_square(images.as_subclass(OnMPS)) == expected


class LackingOperators(OnMPS):
    """MPS has neither of these (`relevance` and `draw_latent_grid` use them)."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        blurs = function is nn.functional.interpolate and (kwargs or {}).get("antialias")
        if blurs or function is torch.special.ndtri:
            raise NotImplementedError(f"{function.__name__} is not implemented for the MPS device")
        return super().__torch_function__(function, types, args, kwargs)


def test_antialiasing_is_asked_of_the_cpu_alone(seeded):
    images, model = torch.randn(2, 3, 8, 8), ViT(8, patch_size=4, embed_dim=12, depth=2)
    there = images.as_subclass(LackingOperators)
    with pytest.raises(NotImplementedError, match="MPS"):
        nn.functional.interpolate(there, size=(16, 16), mode="bicubic", antialias=True)
    found = relevance(model.eval(), there)
    assert found.shape == (2, 8, 8) and torch.equal(found, relevance(model, images))


@pytest.mark.parametrize("kind", [VAE, Autoencoder])
def test_quantiles_of_the_prior_are_asked_of_the_cpu_alone(kind, seeded, tmp_path, monkeypatch):
    """Whatever is made on the codes' device stands for a tensor of MPS here."""
    model, mu, drawn = kind((1, 4, 4), 2).eval(), torch.randn(9, 2), []
    with pytest.raises(NotImplementedError, match="MPS"):
        torch.special.ndtri(mu.as_subclass(LackingOperators))
    monkeypatch.setattr(model, "pictures", lambda z, labels: drawn.append(z) or z)
    monkeypatch.setattr(vae_plots, "draw_sheet", lambda *what, **how: None)
    vae_plots.draw_latent_grid(tmp_path / "grid.png", model, mu, "codes")
    linspace = torch.linspace

    def on_its_device(*ends, device=None):
        made = linspace(*ends)
        return made if device is None else made.as_subclass(LackingOperators)

    monkeypatch.setattr(torch, "linspace", on_its_device)
    there = mu.as_subclass(LackingOperators)
    vae_plots.draw_latent_grid(tmp_path / "grid.png", model, there, "codes")
    assert drawn[0].shape == (400, 2) and torch.equal(*drawn)
    if kind is VAE:  # a tenth of a standard normal's values is below its first decile
        assert (drawn[0][:, 0] < -1.2816).float().mean().item() == pytest.approx(0.1)


def draws():
    """A few of every generator's numbers; single Gaussians leave half of a pair in its cache."""
    return [
        random.random(),
        random.gauss(0, 1),
        numpy.random.rand(3).tolist(),
        numpy.random.randn(),
        torch.rand(3).tolist(),
        torch.randn(1).item(),
        torch.randperm(5).tolist(),
    ]


@pytest.mark.smoke
def test_a_seed_repeats_every_generator():
    seed_everything(7)
    first = draws()
    seed_everything(7)
    assert draws() == first
    seed_everything(8)
    assert all(a != b for a, b in zip(draws()[:6], first[:6], strict=True))


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_the_smallest_and_the_largest_seed_work(seed):
    seed_everything(seed)
    first = draws()
    seed_everything(seed)
    assert draws() == first


@pytest.mark.smoke
@pytest.mark.parametrize("drawn_before", [0, 1, 2])
def test_random_state_continues_every_generator_through_a_checkpoint(tmp_path, drawn_before):
    path = tmp_path / "last.safetensors"
    seed_everything(3)
    for _ in range(drawn_before):
        draws()
    checkpoint.save(path, {"random": random_state()})
    expected = [draws() for _ in range(3)]
    seed_everything(4)
    draws()
    set_random_state(checkpoint.load(path)["random"])
    assert [draws() for _ in range(3)] == expected


def test_taking_the_random_state_draws_nothing():
    seed_everything(5)
    expected = draws()
    seed_everything(5)
    random_state()
    assert draws() == expected


def test_the_state_of_a_device_that_is_absent_here_is_left_out(only_cpu):
    seed_everything(6)
    state = random_state() | {"cuda": [torch.zeros(16, dtype=torch.uint8)], "mps": torch.zeros(44)}
    expected = draws()
    set_random_state(state)
    assert draws() == expected


@pytest.mark.skipif(not has_cuda, reason="needs a CUDA device")
def test_random_state_continues_the_cuda_generator(tmp_path):
    seed_everything(3)
    checkpoint.save(tmp_path / "last.safetensors", {"random": random_state()})
    expected = torch.randn(5, device="cuda").tolist()
    seed_everything(4)
    set_random_state(checkpoint.load(tmp_path / "last.safetensors")["random"])
    assert torch.randn(5, device="cuda").tolist() == expected


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_autocast_multiplies_in_its_precision_and_stops_afterwards(precision):
    x = torch.full((2, 2), 1 / 3)
    with autocast(torch.device("cpu"), precision):
        product = x @ x
    assert product.dtype == getattr(torch, precision)
    assert x.dtype == (x @ x).dtype == torch.float32


def test_autocast_computes_in_float32_unless_told():
    with autocast(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_float16_on_a_cpu_is_refused_for_training_and_evaluated_in_float32():
    cpu = torch.device("cpu")
    with user_error("--precision float16", "GPU", "bfloat16"):
        grad_scaler(cpu, "float16")
    with autocast(cpu, "float16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert not grad_scaler(cpu, "bfloat16").is_enabled()


def test_a_model_that_need_not_be_compiled_stays_itself(monkeypatch):
    monkeypatch.setattr(torch, "compile", None)
    model = torch.nn.Linear(2, 3)
    assert compiled(model, wanted=False) is model


@pytest.mark.compiler
@pytest.mark.long
def test_a_compiled_model_shares_its_parameters():
    model = torch.nn.Linear(2, 3)
    try:
        faster = compiled(model, wanted=True)
    except UserError:
        pytest.skip("this torch cannot compile on this Python")
    assert faster is not model
    assert [id(p) for p in faster.parameters()] == [id(p) for p in model.parameters()]


def test_a_compiler_that_fails_at_the_first_call_is_a_user_error(monkeypatch):
    def lazy(module):
        def run(x):
            raise FileNotFoundError("no C++ compiler")

        return run

    monkeypatch.setattr(torch, "compile", lazy)
    with user_error("--compile", "no C++ compiler", "leave it out"):
        compiled(torch.nn.Linear(2, 3), wanted=True)


def failing_backend(where: str):
    """A compiler of which the forward or the backward part cannot be made, as inductor's of some
    torch could not."""

    def fail(graph, inputs):
        raise AssertionError("Unsupported reduction type\nand more")

    def make(graph, inputs):
        from functorch.compile import make_boxed_func
        from torch._dynamo.backends.common import aot_autograd

        whole = lambda graph, inputs: make_boxed_func(graph.forward)  # noqa: E731
        return aot_autograd(**{"fw_compiler": whole, "bw_compiler": whole, where: fail})(
            graph, inputs
        )

    return make


@pytest.mark.parametrize("where", ["fw_compiler", "bw_compiler"])
@pytest.mark.parametrize("folder", ["MLP_Torch", "ResNet"])
def test_a_network_that_cannot_be_compiled_is_one_line(
    folder, where, tmp_path, capsys, monkeypatch
):
    """Which the first step tells, forwards or backwards; the line names the torch version."""
    wanted = torch.compile
    monkeypatch.setattr(
        torch, "compile",
        lambda model: wanted(model, backend=failing_backend(where)) if isinstance(model, nn.Module)
        else model,
    )  # fmt: skip
    torch._dynamo.reset()
    argv = [*small(folder), "--epochs", 1, "--compile", "--run-dir", tmp_path / "run"]
    result = call(capsys, script(folder).main, *argv)
    parts = ("--compile", torch.__version__, "Unsupported reduction type", "leave it out")
    assert_one_line(result, *parts)


def test_a_device_without_half_precision_is_a_user_error(monkeypatch):
    def fail(kind, dtype):
        raise RuntimeError(f"User specified an unsupported autocast device_type '{kind}'")

    monkeypatch.setattr(torch, "autocast", fail)
    with user_error("--precision bfloat16", "'mps'"):
        autocast(torch.device("mps"), "bfloat16")


def test_a_torch_that_cannot_compile_is_a_user_error(monkeypatch):
    def fail(model):
        raise RuntimeError("Dynamo is not supported on Python 3.12+\nand more")

    monkeypatch.setattr(torch, "compile", fail)
    with user_error("--compile", "Dynamo", "leave it out"):
        compiled(torch.nn.Linear(2, 3), wanted=True)


def test_a_commit_is_that_of_the_beginning(tmp_path, monkeypatch):
    """A record that a process writes makes the clone dirty, but not what is measured after it."""
    (tmp_path / "device.py").write_text("1\n")
    who = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "First"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    monkeypatch.setattr(device, "__file__", str(tmp_path / "device.py"))
    device.git_commit.cache_clear()
    try:
        first = device.git_commit()
        assert re.fullmatch(r"[0-9a-f]{12}", first)
        (tmp_path / "device.py").write_text("2\n")
        assert device.git_commit() == first
        device.git_commit.cache_clear()  # as another process would
        assert device.git_commit() == f"{first}-dirty"
    finally:
        device.git_commit.cache_clear()
