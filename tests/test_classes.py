"""A run and its data: other classes, or other examples than those it learned, are one line."""

import json
import shutil

import pytest

from common import checkpoint
from common.checkpoint import check_classes
from common.errors import UserError, printable
from common.folders import read_config
from tests.conftest import user_error
from tests.running import FOLDERS, assert_one_line, call, few_shapes, script, short_strings
from tests.test_image_folder import make_split, noise

KNOW_CLASSES = ["CNN_Manual", "CNN_Torch", "MLP_Manual", "MLP_Torch", "ResNet", "VAE", "ViT"]
CHANGES = {
    "names": lambda names: [f"no {name}" for name in names],
    "order": lambda names: names[::-1],
    "number": lambda names: names[:-1],
}
RESNET = [
    "--dataset", "folder", "--model", "resnet9-small", "--batch-size", 8, "--epochs", 1,
    "--image-size", 16,
]  # fmt: skip
CGAN = [
    "--dataset", "folder", "--model", "cgan", "--batch-size", 8, "--epochs", 1, "--channels", 16,
    "--latent-dim", 4, "--image-size", 16,
]  # fmt: skip
VAE = [
    "--dataset", "folder", "--batch-size", 8, "--epochs", 1, "--channels", 4, "--latent-dim", 4,
]  # fmt: skip
SIZED = {  # by the first image of train/, if nobody says how large
    "ResNet": RESNET[: RESNET.index("--image-size")],
    "VAE": VAE,
    "ViT": [
        "--dataset",
        "folder",
        "--patch-size",
        4,
        "--crop",
        2,
        "--batch-size",
        8,
        "--epochs",
        1,
    ],
}


@pytest.fixture(autouse=True)
def little_data(monkeypatch):
    few_shapes(monkeypatch)
    short_strings(monkeypatch)


def edited(run, copy, change):
    """A copy of a run, with `change(state)` made to both checkpoints."""
    shutil.copytree(run, copy)
    for name in ("last.safetensors", "best.safetensors"):
        state = checkpoint.load(copy / name)
        change(state)
        checkpoint.save(copy / name, state)
    return copy


def resume(capsys, folder, run, *more):
    return call(capsys, script(folder).main, "--resume", "--run-dir", run, *more)


def evaluate(capsys, folder, run, *more):
    return call(capsys, script(folder, "test").main, "--run-dir", run, *more)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("folder", KNOW_CLASSES)
def test_other_classes_than_the_runs_are_one_line(folder, change, runs, tmp_path, capsys):
    names = list(checkpoint.load(runs / folder / "best.safetensors")["data"]["classes"])
    assert len(names) >= 2

    def rename(state):
        state["data"]["classes"] = change(names)

    run = edited(runs / folder, tmp_path / "run", rename)
    for result in (resume(capsys, folder, run, "--epochs", 2), evaluate(capsys, folder, run)):
        parts = [f"{len(change(names))}: ", f"{len(names)}: "]
        if len(names) <= 10:
            parts = [f"{len(c)}: {', '.join(c)}" for c in (change(names), names)]
        assert_one_line(result, run, "knows other classes", *parts)


@pytest.mark.parametrize("folder", FOLDERS)
def test_other_examples_than_the_runs_are_one_line(folder, runs, tmp_path, capsys):
    def one_more(state):
        state["data"]["examples"] += 1

    run = edited(runs / folder, tmp_path / "run", one_more)
    examples = checkpoint.load(run / "last.safetensors")["data"]["examples"]
    result = resume(capsys, folder, run, "--epochs", 2)
    assert_one_line(result, run, f"{examples:,} examples", f"{examples - 1:,} now", "--resume")


@pytest.mark.parametrize("folder", FOLDERS)
def test_older_runs_which_do_not_tell_their_data_go_on(folder, runs, tmp_path, capsys):
    run = edited(runs / folder, tmp_path / "run", lambda state: state.pop("data"))
    result = resume(capsys, folder, run, "--epochs", 2)
    assert result.code == 0, result.err
    assert "data" in checkpoint.load(run / "last.safetensors")


@pytest.mark.parametrize("folder", KNOW_CLASSES)
def test_older_runs_which_do_not_tell_their_classes_are_evaluated(folder, runs, tmp_path, capsys):
    run = edited(runs / folder, tmp_path / "run", lambda state: state.pop("data"))
    result = evaluate(capsys, folder, run)
    assert result.code == 0, result.err


# ---- with folders of images ----

OTHERS = {
    "names": {"apple": 12, "pear": 12},
    "order": {"Dog": 12, "cat": 12},
    "number": {"ant": 8, "cat": 8, "dog": 8},
}


def make_folder(root, counts, first=0):
    make_split(root / "train", counts, first)
    make_split(root / "test", dict.fromkeys(counts, 8), first + 1000)
    return root


@pytest.mark.parametrize("folder, flags", [("ResNet", RESNET), ("GAN", CGAN), ("VAE", VAE)])
def test_a_run_on_images_knows_its_classes(folder, flags, tmp_path, capsys):
    home = make_folder(tmp_path / "home", {"cat": 12, "dog": 12})
    run = tmp_path / "run"
    result = call(capsys, script(folder).main, *flags, "--data-dir", home, "--run-dir", run)
    assert result.code == 0, result.err
    for name, counts in OTHERS.items():
        other = make_folder(tmp_path / name, counts)
        for result in (
            resume(capsys, folder, run, "--data-dir", other, "--epochs", 2),
            evaluate(capsys, folder, run, "--data-dir", other),
        ):
            assert_one_line(result, "2: cat, dog", f"{len(counts)}: {', '.join(sorted(counts))}")


@pytest.mark.parametrize("folder", SIZED)
def test_a_run_keeps_the_size_of_its_images(folder, tmp_path, capsys, monkeypatch):
    """Whatever is put into the folder later; its record's command still repeats it."""
    monkeypatch.setattr(script(folder, "test"), "FOLDER", tmp_path / folder)
    (tmp_path / folder).mkdir()
    home, run = sized_run(folder, tmp_path, capsys)
    assert read_config(run)["image_size"] == 16
    before = evaluate(capsys, folder, run, "--record")
    assert (before.code, before.err) == (0, "")
    record = json.loads((tmp_path / folder / "results" / "home.json").read_text())
    size = record["hyperparameters"]["image_size"]
    assert (f"--image-size {size} " in record["command"]) == (size is not None)
    noise(0, 40, 40).save(home / "train" / "cat" / "-first.png")
    after = evaluate(capsys, folder, run)
    assert (after.code, after.err) == (0, "")
    assert after.out == before.out.partition("recorded")[0]
    (home / "train" / "cat" / "-first.png").unlink()
    assert resume(capsys, folder, run, "--epochs", 2).code == 0
    assert evaluate(capsys, folder, run).code == 0


@pytest.mark.parametrize("folder", ["ResNet", "ViT"])
def test_a_record_of_images_is_of_the_flags_as_they_were_typed(
    folder, tmp_path, capsys, monkeypatch
):
    """So one that older runs began takes further seeds."""
    monkeypatch.setattr(script(folder, "test"), "FOLDER", tmp_path / folder)
    (tmp_path / folder).mkdir()
    for seed in (0, 1):
        _, run = sized_run(folder, tmp_path, capsys, "--seed", seed)
        if seed == 0:
            without_size(run)
        result = evaluate(capsys, folder, run, "--record")
        assert (result.code, result.err) == (0, "")
    record = json.loads((tmp_path / folder / "results" / "home.json").read_text())
    assert [row["seed"] for row in record["runs"]] == [0, 1]
    assert record["hyperparameters"]["image_size"] is None
    assert "--image-size" not in record["command"]


@pytest.mark.parametrize("folder", SIZED)
def test_older_runs_that_do_not_tell_the_size_go_on(folder, tmp_path, capsys):
    """And both of their checkpoints still fit what config.json says."""
    _, run = sized_run(folder, tmp_path, capsys)
    without_size(run)
    result = resume(capsys, folder, run, "--epochs", 1)
    assert result.code == 0, result.err
    for again in (evaluate(capsys, folder, run), resume(capsys, folder, run, "--epochs", 2)):
        assert again.code == 0, again.err


def sized_run(folder, place, capsys, *more):
    """A folder of images of 16 pixels, and a new run on it."""
    home = place / "home"
    if not home.exists():
        for number, (split, count) in enumerate({"train": 12, "test": 4}.items()):
            make_split(home / split, {"cat": count, "dog": count}, 1000 * number, (16, 16))
    run = place / "-".join(["run", *map(str, more)])
    argv = [*SIZED[folder], *more, "--data-dir", home, "--run-dir", run]
    assert call(capsys, script(folder).main, *argv).code == 0
    return home, run


def without_size(run):
    """Make of a run what it was before runs kept the size."""
    config = read_config(run)
    config["given"] = [flag for flag in config["given"] if flag != "image_size"]
    checkpoint.write_json(run / "config.json", {**config, "image_size": None})
    for name in ("last.safetensors", "best.safetensors"):
        state = checkpoint.load(run / name)
        state["flags"]["image_size"] = None
        checkpoint.save(run / name, state)


def test_images_that_vanished_or_changed_are_one_line(tmp_path, capsys):
    root, run = make_folder(tmp_path / "home", {"cat": 14, "dog": 14}), tmp_path / "run"
    argv = [*RESNET, "--data-dir", root, "--run-dir", run]
    assert call(capsys, script("ResNet").main, *argv).code == 0
    path = root / "train" / "dog" / "03.png"
    content = path.read_bytes()
    path.unlink()
    result = resume(capsys, "ResNet", run, "--epochs", 2)
    assert_one_line(result, run, "25 examples", "24 now")
    shutil.copy(root / "test" / "dog" / "03.png", path)
    result = resume(capsys, "ResNet", run, "--epochs", 2)
    assert_one_line(result, run, "other content of train")
    path.write_bytes(content)
    assert resume(capsys, "ResNet", run, "--epochs", 2).code == 0


# ---- with texts ----


def write_texts(folder, labels, count=12):
    folder.mkdir()
    for name in ("train.csv", "test.csv"):
        rows = [f"{label} word {n},{label}" for n in range(count) for label in labels]
        (folder / name).write_text("\n".join(["text,label", *rows]))
    return folder


def test_a_run_on_texts_knows_its_classes_and_texts(tmp_path, capsys):
    home, run = write_texts(tmp_path / "home", ["bad", "good"]), tmp_path / "run"
    flags = ["--dataset", "csv", "--epochs", 1, "--batch-size", 4, "--hidden-size", 4]
    argv = [*flags, "--data-dir", home, "--run-dir", run]
    assert call(capsys, script("LSTM").main, *argv).code == 0
    other = write_texts(tmp_path / "other", ["no", "yes"])
    for result in (
        resume(capsys, "LSTM", run, "--data-dir", other, "--epochs", 2),
        evaluate(capsys, "LSTM", run, "--data-dir", other),
    ):
        assert_one_line(result, "bad, good", "no, yes")
    fewer = write_texts(tmp_path / "fewer", ["bad", "good"], count=11)
    result = resume(capsys, "LSTM", run, "--data-dir", fewer, "--epochs", 2)
    assert_one_line(result, run, "examples", "now")


# ---- the line itself ----


@pytest.mark.parametrize("known, here", [(["a", "b"], ["b", "a"]), (["a"], ["a", "b"])])
def test_both_lists_of_classes_are_named(known, here, tmp_path):
    there, now = (f"{len(names)}: {', '.join(names)}" for names in (known, here))
    with user_error(tmp_path, there, now):
        check_classes(tmp_path, known, here)
    check_classes(tmp_path, known, known)
    check_classes(tmp_path, None, here)


def test_of_many_classes_the_first_that_differs_is_named(tmp_path):
    known = [f"c{n}" for n in range(1000)]
    with user_error("1000: … c500, c501", "1000: … other, c501") as caught:
        check_classes(tmp_path, known, [*known[:500], "other", *known[501:]])
    assert len(str(caught.value)) < 300


NAMES = ["two\nlines", "\x1b[31mred", "nul\0", "tab\t", "back\r", "\u202egnp", "\u2028", "\udcff"]


@pytest.mark.parametrize("name", NAMES)
def test_control_characters_of_names_are_escaped(name):
    text = printable(name)
    assert text.isprintable() and text.isascii()
    assert text.encode().decode("unicode_escape") == name
    assert str(UserError(f"{name} is absent")) == f"{text} is absent"


@pytest.mark.parametrize(
    "name", ["plain", "é", "e\u0301", "日本", "कि\u200dक", "a b", r"C:\new", "😀"]
)
def test_names_that_a_terminal_can_show_stay_as_they_are(name):
    assert printable(name) == name


def test_a_class_with_a_line_break_stays_on_one_line(tmp_path, capsys):
    root = make_folder(tmp_path / "my\nphotos\x1b[2J", {"cat\n": 12, "dog": 12})
    run = tmp_path / "run"
    result = call(capsys, script("ResNet").main, *RESNET, "--data-dir", root, "--run-dir", run)
    assert result.code == 0 and "\x1b" not in result.out + result.err
    assert r"my\nphotos\x1b[2J" in result.out
    make_split(root / "test" / "third\n", {"x": 1})
    (root / "test" / "third\n" / "x").rename(root / "elsewhere")
    result = evaluate(capsys, "ResNet", run)
    assert_one_line(result, r"third\n")
    (root / "test" / "third\n").rmdir()
    result = call(capsys, script("ResNet").main, *RESNET, "--data-dir", root, "--run-dir", "a\nb")
    assert_one_line(result, r"a\nb")
