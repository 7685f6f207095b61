"""common/results/speed.py: the rows it measures, and that their figures are what they say."""

import itertools
import json

import pytest
import torch

from common.results import speed
from common.run import Run
from tests.running import assert_one_line, call, few_shapes

TINY = ["--dataset", "shapes", "--epochs", "2", "--subset", "96", "--batch-size", "32"]
SMALL_TRANSFORMER = {
    "vocab_size": 20, "embed_dim": 12, "num_heads": 3, "num_layers": 1, "feedforward_dim": 10,
    "max_length": 128,
}  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def little_work(monkeypatch):
    few_shapes(monkeypatch)
    make_pair = speed.make_pair
    monkeypatch.setattr(
        speed, "make_pair", lambda *args, **more: make_pair(*args, **{**SMALL_TRANSFORMER, **more})
    )


@pytest.fixture
def histories(monkeypatch):
    """The history of each training, as it stood after its last epoch."""
    seen, log_epoch = [], Run.log_epoch

    def log(run, **metrics):
        log_epoch(run, **metrics)
        seen.append(list(run.history))

    monkeypatch.setattr(Run, "log_epoch", log)
    return seen


def test_quick_run_prints_one_table_of_all_networks(tmp_path, capsys):
    path = tmp_path / "speed.json"
    result = call(capsys, speed.main, "--quick", "--device", "cpu", "--json", path)
    assert result.code == 0, result.err
    machine, products, blank, titles, *lines = result.out.splitlines()
    assert f"torch {torch.__version__}, cpu" in machine and blank == ""
    assert products.startswith("products of 256 x 256 matrices: float32 ")
    for title in speed.COLUMNS:
        assert title in titles.split()
    networks = ["CNN_Manual", "CNN_Torch", "ResNet"]
    networks += [f"Transformer_{kind} {name}" for name in ("Transformer", "LanguageModel")
                 for kind in ("Manual", "Torch")]  # fmt: skip
    figures = json.loads(path.read_text())
    assert figures["environment"]["device"] == "cpu" and figures["quick"] is True
    assert [row["network"] for row in figures["rows"]] == networks
    for row, line in zip(figures["rows"], lines, strict=True):
        assert line.strip().startswith(row["network"])
        assert row["share"] == row["GFLOP/s"] / figures["matmul_gflops"]["float32"] > 0
        if "tokens/s" in row:
            assert f"{row['tokens/s']:,.0f}" in line and "target" not in row
        else:
            assert f" {row['reached']} " in line and f" {row['seconds']:.1f} " in line


@pytest.mark.parametrize("name", [".", "none/speed.json"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    name, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(speed, "train", None)
    monkeypatch.setattr(speed, "matmul_gflops", None)
    result = call(capsys, speed.main, "--quick", "--device", "cpu", "--json", tmp_path / name)
    assert_one_line(result, f"--json {tmp_path / name}", "written")


def test_seconds_are_the_history_s_at_the_first_epoch_that_reaches_the_target(
    histories, monkeypatch
):
    monkeypatch.setitem(speed.TARGETS, "shapes", 0.0)
    row = speed.train("CNN_Torch", CPU, *TINY)
    ((epoch,),) = histories  # and the second one is not learned any more
    assert (row["reached"], row["epochs"], row["data"]) == ("yes", 1, "shapes")
    assert row["seconds"] == epoch["seconds"]
    assert row["accuracy"] == epoch["validation_accuracy"]


def test_target_that_is_never_reached_says_so(histories, monkeypatch):
    monkeypatch.setitem(speed.TARGETS, "shapes", 1.01)
    row = speed.train("CNN_Manual", CPU, *TINY)
    assert (row["reached"], row["epochs"], row["target"]) == ("no", 2, 1.01)
    assert row["seconds"] == histories[-1][-1]["seconds"]


def test_training_is_as_it_was_afterwards():
    before = Run.progress, Run.log_epoch
    speed.train("CNN_Torch", CPU, *TINY)
    assert (Run.progress, Run.log_epoch) == before


def test_operations_are_the_products_of_one_step():
    rows = [
        speed.train(name, CPU, *TINY, "--channels", "4") for name in ("CNN_Torch", "CNN_Manual")
    ]
    torchs, manuals = (row["GFLOP/s"] / row["steps/s"] for row in rows)
    kernel = 2 * 32 * (28 * 28 * 4) * (3 * 3 * 1)  # 32 images of one channel become four
    linear = 2 * 32 * (14 * 14 * 4) * 4  # halved by pooling, to four classes
    assert torchs == pytest.approx((2 * kernel + 3 * linear) / 1e9, rel=1e-6)
    assert torchs < manuals < 1.5 * torchs, "which computes the padding as well"


def test_tokens_are_the_labels_that_count():
    size = speed.TWINS["LanguageModel"].batch_size
    for row in speed.train_twins("LanguageModel", CPU, size, steps=1):
        assert row["tokens/s"] == pytest.approx(row["steps/s"] * size * 128)
    for row in speed.train_twins("Transformer", CPU, 8, steps=1):  # half of 16, or more
        assert 8 * 8 <= row["tokens/s"] / row["steps/s"] <= 8 * 16


def test_rate_of_products(monkeypatch):
    clock = itertools.count(step=0.5)  # each product takes half a second
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    assert speed.matmul_gflops(CPU, torch.float32, 20) == 2 * 20**3 / 0.5 / 1e9
    assert speed.matmul_gflops(CPU, torch.bool, 20) is None, "which has no products"


def test_folder_whose_library_is_absent_is_left_out(monkeypatch, capsys):
    train = speed.train

    def without_kornia(folder, *args):
        if folder == "ResNet":
            raise ModuleNotFoundError("No module named 'kornia'")
        return train(folder, *args)

    monkeypatch.setattr(speed, "train", without_kornia)
    result = call(capsys, speed.main, "--quick", "--device", "cpu")
    assert result.code == 0 and "ResNet is left out: No module named 'kornia'" in result.err
    assert "ResNet" not in result.out and "CNN_Torch" in result.out
