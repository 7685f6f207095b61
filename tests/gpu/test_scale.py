"""What makes a network fast on a GPU: low precision, channels-last, compiling, and torchrun."""

import functools
import json
import math

import pytest

from common import checkpoint
from common.results import speed
from tests.running import FOLDERS, assert_one_line, call, history, script, small, torchrun

pytestmark = pytest.mark.gpu

BFLOAT16 = ["CNN_Manual", "CNN_Torch", "GAN", "LSTM", "RNN_Manual", "ResNet", "Transformer_Manual",
            "Transformer_Torch", "VAE", "ViT"]  # fmt: skip
FLOAT16 = ["CNN_Torch", "LSTM", "ResNet", "Transformer_Torch", "ViT"]
COMPILED = [
    ("CNN_Torch", []), ("MLP_Torch", []), ("ResNet", []), ("Transformer_Torch", []), ("ViT", []),
    ("ResNet", ["--precision", "bfloat16"]),
]  # fmt: skip
# without dropout, which another precision and a compiled network draw in another way, and with
# steps so small that rounding does not grow
STEADY = dict.fromkeys(("CNN_Manual", "CNN_Torch"), ["--dropout", 0, "--lr", 1e-3])
DISTRIBUTED = {"LSTM": [], "ResNet": ["--sync-batch-norm"], "Transformer_Torch": [], "ViT": []}


@pytest.fixture(scope="module")
def plain(learn, device):
    """A function (folder, *flags) -> the training losses of its run, trained once."""
    return functools.cache(
        lambda folder, *flags: losses(learn(folder, device, *STEADY.get(folder, []), *flags))
    )


def losses(run_dir) -> list[float]:
    return [float(row["train_loss"]) for row in history(run_dir)]


def test_every_folder_with_such_a_flag_is_tested():
    pytest.importorskip("kornia")
    choices = {
        folder: {a.dest: a.choices or () for a in script(folder).make_parser()._actions}
        for folder in FOLDERS
    }
    for precision, tested in (("bfloat16", BFLOAT16), ("float16", FLOAT16)):
        assert [f for f in FOLDERS if precision in choices[f].get("precision", ())] == tested
    assert {f for f in FOLDERS if "compile" in choices[f]} == {folder for folder, _ in COMPILED}


@pytest.mark.parametrize("folder", BFLOAT16)
def test_bfloat16_learns_what_float32_does(folder, learn, plain, device):
    """Products have 8 bits of mantissa, 0.4 %; the loss, a mean over the batch, is nearer. A GAN's
    two players drive each other away from any one course: there it is to stay finite."""
    flags = [*STEADY.get(folder, []), "--precision", "bfloat16"]
    found = losses(learn(folder, device, *flags))
    assert all(map(math.isfinite, found)) and len(found) == 2
    assert found != plain(folder), "the flag changes nothing"
    if folder != "GAN":
        assert found == pytest.approx(plain(folder), rel=0.05)


@pytest.mark.parametrize("folder", FLOAT16)
def test_float16_learns_with_a_gradient_scaler(folder, learn, plain, device):
    """A step is left out where the scale of 2^16 makes its gradients overflow; on a CPU, where
    float16 rounds alike, none was."""
    run_dir = learn(folder, device, *STEADY.get(folder, []), "--precision", "float16")
    assert losses(run_dir) == pytest.approx(plain(folder), rel=0.05)
    assert losses(run_dir) != plain(folder), "the flag changes nothing"
    scaler = checkpoint.load(run_dir / "last.safetensors")["scaler"]
    assert 1 < scaler["scale"] <= 2**16 and scaler["_growth_tracker"] > 0


def test_memory_layout_changes_no_loss(learn, plain, device):
    """CNN_Torch's --channels-last, which is the default, beside --no-channels-last."""
    run_dir = learn("CNN_Torch", device, *STEADY["CNN_Torch"], "--no-channels-last")
    assert losses(run_dir) == pytest.approx(plain("CNN_Torch"), rel=1e-2)


@pytest.mark.parametrize("folder, flags", COMPILED)
def test_compiled_network_learns_what_the_plain_one_does(
    folder, flags, learn, plain, device, tmp_path, capsys
):
    """Or train.py says in a line that this torch cannot compile it. What is compiled adds in
    another order, and rounds to bfloat16 less often."""
    argv = [*STEADY.get(folder, []), *flags, "--compile", "--run-dir", tmp_path / "run"]
    result = call(capsys, lambda argv: learn(folder, device, *argv), *argv)
    if result.code:
        assert_one_line(result, "--compile")
    else:
        rel = 5e-2 if "bfloat16" in flags else 1e-2
        assert losses(tmp_path / "run") == pytest.approx(plain(folder, *flags), rel=rel)


@pytest.fixture
def alone(monkeypatch):
    """This process becomes the only one of a group, as torchrun would start it."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "NCCL_SOCKET_IFNAME": "lo"}
    for name, value in {"LOCAL_RANK": 0, "RANK": 0, "WORLD_SIZE": 1, **where}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("folder, flags", DISTRIBUTED.items())
def test_one_process_of_nccl_learns_what_no_group_does(folder, flags, learn, plain, device, alone):
    run_dir = learn(folder, device, *STEADY.get(folder, []), *flags)
    assert losses(run_dir) == pytest.approx(plain(folder), rel=1e-2)


def test_torchrun_with_synchronised_batch_norm(device, tmp_path, monkeypatch):
    """As a user starts it; with one process, the statistics of all are those of one."""
    pytest.importorskip("kornia")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "lo")
    flags = [*small("ResNet"), "--epochs", 2, "--device", device, "--run-dir", tmp_path / "run"]
    result = torchrun("ResNet/train.py", *flags, "--sync-batch-norm", processes=1)
    assert result.code == 0, result.err
    assert "now try" in result.out
    found = losses(tmp_path / "run")
    assert len(found) == 2 and all(map(math.isfinite, found))


def test_speed_is_measured_on_the_gpu(device, gpu, tmp_path, capsys):
    flags = ["--quick", "--device", device, "--json", tmp_path / "speed.json"]
    result = call(capsys, speed.main, *flags)
    assert result.code == 0, result.err
    figures = json.loads((tmp_path / "speed.json").read_text())
    assert figures["environment"].get("gpu") == gpu
    assert all(rate > 0 for rate in figures["matmul_gflops"].values())
    assert len(figures["rows"]) >= 6 and all(row["steps/s"] > 0 for row in figures["rows"])
