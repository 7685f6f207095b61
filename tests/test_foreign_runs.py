"""A run of another folder, an edited config.json, and which run is the latest that fits."""

import builtins
import errno
import io
import json
import os
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from common import checkpoint, folders
from common.data import ROOT
from tests.running import (
    FOLDERS,
    MLPS,
    TWINS,
    assert_one_line,
    call,
    few_shapes,
    kind,
    script,
    short_strings,
    small,
)

OTHERS = ("test", "generate", "translate", "predict")  # beside train.py
ARGUMENTS = {"translate": ["ein"], "predict": ["good"]}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    few_shapes(monkeypatch)
    short_strings(monkeypatch)


def scripts(folder: str) -> list[str]:
    return [name for name in OTHERS if (ROOT / folder / f"{name}.py").is_file()]


def edit(run_dir, **changed) -> None:
    path = run_dir / "config.json"
    config = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def test_a_run_says_which_folder_made_it(runs):
    for folder in FOLDERS:
        assert json.loads((runs / folder / "config.json").read_text())["folder"] == folder


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_run_of_any_other_folder_is_one_line(folder, runs, capsys):
    for maker in FOLDERS:
        if maker == folder:
            continue
        path = runs / maker
        result = call(capsys, script(folder).main, "--resume", "--run-dir", path)
        assert_one_line(result, path, f"'{maker}'", f"not of {folder}")
        for name in scripts(folder):
            argv = ["--run-dir", path, *ARGUMENTS.get(name, [])]
            result = call(capsys, script(folder, name).main, *argv)
            assert_one_line(result, path, f"'{maker}'", f"not of {folder}")


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_early_run_of_any_other_folder_is_one_line(folder, runs, tmp_path, capsys):
    """Which does not say who made it, nor what its checkpoint was trained with."""
    for maker in FOLDERS:
        if maker == folder or any({folder, maker} <= set(twins) for twins in TWINS):
            continue  # twins read each other's networks
        path = shutil.copytree(runs / maker, tmp_path / maker)
        edit(path, folder=...)
        for name in ("last", "best"):
            state = checkpoint.load(path / f"{name}.safetensors")
            state.pop("flags")
            checkpoint.save(path / f"{name}.safetensors", state)
        assert_one_line(call(capsys, script(folder).main, "--resume", "--run-dir", path), path)
        for name in scripts(folder):
            argv = ["--run-dir", path, *ARGUMENTS.get(name, [])]
            assert_one_line(call(capsys, script(folder, name).main, *argv), path)


EDITED = [  # flag, value, what is said
    ("lr", -0.5, "above 0"), ("lr", None, "above 0"), ("lr", float("nan"), "above 0"),
    ("lr", float("inf"), "above 0"), ("lr", "0.01", "above 0"), ("lr", [0.01], "above 0"),
    ("lr", {}, "above 0"), ("lr", True, "above 0"), ("epochs", "9", "whole number at least 1"),
    ("epochs", 1.5, "whole number"), ("epochs", 0, "whole number"), ("dropout", 1.5, "below 1"),
    ("optimizer", "x", "one of"), ("optimizer", ["sgd"], "one of"), ("optimizer", None, "one of"),
    ("hidden_sizes", 8, "a list"), ("hidden_sizes", [], "a list"), ("hidden_sizes", [0], "least 1"),
    ("hidden_sizes", ["8"], "whole number"), ("batch_norm", 1, "true or false"),
    ("batch_norm", "yes", "true or false"), ("device", 3, "a text"), ("data_dir", 3, "a text"),
    ("dataset", "cifar10", "one of"), ("dataset", ["mnist"], "one of"), ("given", "lr", "flags"),
    ("given", [[]], "flags"), ("colour\n", 1, "no flag of"), ("subset", -1, "whole number"),
    ("folder", ["MLP_Manual"], "is a run of"),
]  # fmt: skip


@pytest.mark.parametrize("flag, value, said", EDITED, ids=[f"{r[0]}={r[1]}" for r in EDITED])
def test_a_value_that_the_parser_would_not_take_is_one_line(
    flag, value, said, runs, tmp_path, capsys
):
    path = shutil.copytree(runs / "MLP_Manual", tmp_path / "run")
    edit(path, **{flag: value})
    where = path if flag == "folder" else f"{path / 'config.json'}: {json.dumps(flag)}: "
    for main in (script("MLP_Manual", "test").main, script("MLP_Manual").main):
        argv = ["--run-dir", path] + ["--resume"] * (main is script("MLP_Manual").main)
        assert_one_line(call(capsys, main, *argv), where, said)


CONTRADICTIONS = [
    ("dataset", "fashion-mnist"), ("seed", 1), ("subset", 100), ("subset", None), ("lr", 0.5),
    ("hidden_sizes", [9]), ("batch_norm", False), ("batch_size", 31), ("schedule", "constant"),
]  # fmt: skip


@pytest.mark.parametrize("flag, value", CONTRADICTIONS)
@pytest.mark.parametrize("folder", MLPS)
def test_what_contradicts_the_checkpoint_is_one_line(folder, flag, value, runs, tmp_path, capsys):
    path = shutil.copytree(runs / folder, tmp_path / "run")
    edit(path, **{flag: value})
    said = [path / "config.json", f'"{flag}" is {json.dumps(value)}', "was trained with"]
    for main, needed in ((script(folder, "test").main, "best"), (script(folder).main, "last")):
        argv = ["--run-dir", path] + ["--resume"] * (needed == "last")
        assert_one_line(call(capsys, main, *argv), *said, needed)


def test_a_flag_that_was_taken_out_has_its_default_or_contradicts(runs, tmp_path, capsys):
    path = shutil.copytree(runs / "MLP_Manual", tmp_path / "run")
    edit(path, dropout=..., clip=..., commit=..., given=...)  # as they were anyway
    assert call(capsys, script("MLP_Manual", "test").main, "--run-dir", path).code == 0
    edit(path, hidden_sizes=...)
    result = call(capsys, script("MLP_Manual", "test").main, "--run-dir", path)
    assert_one_line(result, '"hidden_sizes"', "[64, 64]", "[8]")


def test_epochs_device_and_places_may_change(runs, tmp_path, capsys):
    path = shutil.copytree(runs / "MLP_Manual", tmp_path / "run")
    edit(path, epochs=2, device="cpu", data_dir=str(tmp_path))
    result = call(capsys, script("MLP_Manual").main, "--resume", "--run-dir", path)
    assert result.code == 0 and "epoch   2/2" in result.out


def test_a_dataset_that_contradicts_an_early_run_is_one_line(runs, tmp_path, capsys):
    path = shutil.copytree(runs / "MLP_Manual", tmp_path / "run")
    state = checkpoint.load(path / "best.safetensors")
    state.pop("flags")
    checkpoint.save(path / "best.safetensors", state)
    edit(path, dataset="mnist", folder=...)
    result = call(capsys, script("MLP_Manual", "test").main, "--run-dir", path)
    assert_one_line(result, path / "config.json", "mnist", "spirals")


# ---- a whole checkpoint with the wrong content ----


def with_weight(change):
    """The state with its first weights changed."""

    def wrong(state):
        name = next(k for k, v in state["model"].items() if v.is_floating_point() and v.numel() > 1)
        return {**state, "model": {**state["model"], name: change(state["model"][name])}}

    return wrong


WRONG = {
    "nothing": lambda state: {},
    "a list": lambda state: [1, 2],
    "a number": lambda state: 3,
    "a list of itself": lambda state: [state],
    "no model": lambda state: {k: v for k, v in state.items() if k != "model"},
    "a list for a model": lambda state: {**state, "model": [1]},
    "an empty model": lambda state: {**state, "model": {}},
    "a tensor less": lambda state: {**state, "model": dict([*state["model"].items()][1:])},
    "a tensor more": lambda state: {**state, "model": {**state["model"], "x": torch.ones(1)}},
    "no tensor": with_weight(lambda weight: None),
    "no weight but a number": with_weight(lambda weight: 0.5),
    "another shape": with_weight(lambda weight: weight[None]),
    "another length": with_weight(lambda weight: weight[:-1]),
    "double": with_weight(lambda weight: weight.double()),
    "integers": with_weight(lambda weight: weight.long()),
    "NaN": with_weight(lambda weight: weight * float("nan")),
    "infinity": with_weight(lambda weight: weight.index_fill(0, torch.tensor(0), float("-inf"))),
    "a list for data": lambda state: {**state, "data": [1]},
    "a number for flags": lambda state: {**state, "flags": 3},
}
WRONG_PROGRESS = {  # what train.py alone looks at
    "no epoch in the history": lambda state: {**state, "history": []},
    "a history without time": lambda state: without(state, "seconds"),
    "a history without loss": lambda state: without(state, "train_loss"),
    "another history": lambda state: {**state, "history": [3]},
    "text in the history": lambda state: {**state, "history": [{**state["history"][0], "lr": "x"}]},
    "no history": lambda state: {k: v for k, v in state.items() if k != "history"},
    "steps before the first": lambda state: {**state, "step": -1},
    "no optimiser": lambda state: {**state, "optimizer": {}},
    "a list for an optimiser": lambda state: {**state, "optimizer": []},
    "an optimiser before its first step": lambda state: {**state, "optimizer": fresh(state)},
    "an optimiser of a parameter less": lambda state: {**state, "optimizer": fewer(state)},
    "an optimiser's NaN": lambda state: {**state, "optimizer": with_nan(state["optimizer"])},
    "random states of other lengths": lambda state: {**state, "random": {"torch": torch.ones(3)}},
    "no random state": lambda state: {**state, "random": None},
    "no mean loss": lambda state: {**state, "train_loss": ["x"]},
}


def without(state, key: str):
    """The state with a number less in the history."""
    rows = [{k: v for k, v in row.items() if k != key} for row in state["history"]]
    return {**state, "history": rows}


def fresh(state):
    """The optimiser's state as it was before it took a step."""
    own = state["optimizer"]
    return {**own, "state": {}} if "state" in own else {**own, "t": 0}


def fewer(state):
    """The optimiser's state without what it keeps of its first parameter."""
    own = state["optimizer"]
    if "state" in own:
        return {**own, "state": dict([*own["state"].items()][1:])}
    buffers = {name: dict([*kept.items()][1:]) for name, kept in own["buffers"].items()}
    return {**own, "buffers": buffers}


def with_nan(state):
    """The same nesting with NaN in every tensor."""
    if isinstance(state, dict):
        return {key: with_nan(value) for key, value in state.items()}
    return state * float("nan") if isinstance(state, torch.Tensor) else state


def second(change):
    """The same change of the discriminator's optimiser."""

    def wrong(state):
        other = change({**state, "optimizer": state["discriminator_optimizer"]})["optimizer"]
        return {**state, "discriminator_optimizer": other}

    return wrong


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_whole_checkpoint_with_wrong_content_is_one_line(
    folder, runs, tmp_path, capsys, monkeypatch
):
    path = shutil.copytree(runs / folder, tmp_path / "run")
    load, loaded = script(folder).load_training, []

    def load_once(*args):
        loaded[:] = loaded or [load(*args)]  # the data is the same every time
        return loaded[0]

    monkeypatch.setattr(script(folder), "load_training", load_once)
    used = {"last": [("train", ["--resume", "--epochs", 2])],
            "best": [(name, ARGUMENTS.get(name, [])) for name in scripts(folder)]}  # fmt: skip
    if folder != "LSTM":  # predict.py is asked of pictures
        picture = Image.new("RGB", (32, 32))
        picture.paste("white", (8, 6, 20, 26))
        picture.save(tmp_path / "bar.png")
        used["best"] = [(name, [tmp_path / "bar.png"] if name == "predict" else argv)
                        for name, argv in used["best"]]  # fmt: skip
    if kind(folder) == "Transformer":  # the run is of the other task
        used["best"] = [each for each in used["best"] if each[0] != "generate"]
    for name, commands in used.items():
        file = path / f"{name}.safetensors"
        whole, content = checkpoint.load(file), file.read_bytes()
        own = [n for n in ("encoding", "tokenizer", "vocabulary", "kind") if n in whole]
        cases = {**WRONG, **(WRONG_PROGRESS if name == "last" else {})}
        if name == "last" and folder == "GAN":  # which has another one
            other = {"second: " + k: v for k, v in cases.items() if "optimiser" in k}
            cases |= {k: second(change) for k, change in other.items()}
        cases |= {f"no {n}": lambda s, n=n: {k: v for k, v in s.items() if k != n} for n in own}
        cases |= {f"{n} {{}}": lambda s, n=n: {**s, n: {}} for n in own}
        cases |= {f"{n} 3": lambda s, n=n: {**s, n: 3} for n in own}
        cases |= {f"{n} []": lambda s, n=n: {**s, n: {k: [] for k in s[n]}} for n in own}
        for case, change in cases.items():
            checkpoint.save(file, change(whole))
            for command, argv in commands:
                result = call(capsys, script(folder, command).main, "--run-dir", path, *argv)
                assert result.code == 2, (case, command, result)
                assert_one_line(result, path)
                assert len(result.err) < 700, (case, command)
        file.write_bytes(content)
    assert {p.name for p in path.glob("*.safetensors")} == {"last.safetensors", "best.safetensors"}


@pytest.mark.parametrize("where", ["state", "header", "config"])
def test_deeply_nested_json_is_one_line(where, runs, tmp_path, capsys):
    path = shutil.copytree(runs / "MLP_Torch", tmp_path / "run")
    deep, file = "[" * 100_000 + "]" * 100_000, path / "config.json"
    if where == "config":
        file.write_text(f'{{"dataset": {deep}}}')
        called = [(script("MLP_Torch").main, ["--resume"]), (script("MLP_Torch", "test").main, [])]
    else:
        file = path / "best.safetensors"
        if where == "state":
            metadata = {"state": deep, "crc32": checkpoint.checksum(deep, {})}
            content = safetensors.torch.save({}, metadata)
        else:
            header = f'{{"__metadata__": {deep}}}'.encode()
            content = len(header).to_bytes(8, "little") + header
        file.write_bytes(content)
        called = [(script("MLP_Torch", "test").main, [])]
    for main, argv in called:
        assert_one_line(call(capsys, main, "--run-dir", path, *argv), file)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
@pytest.mark.parametrize("name", ["config.json", "best.safetensors"])
def test_a_pipe_or_a_folder_in_a_run_is_one_line(name, runs, tmp_path, capsys):
    path = shutil.copytree(runs / "CNN_Torch", tmp_path / "run")
    for make in (os.mkfifo, os.mkdir):
        (path / name).unlink() if (path / name).is_file() else None
        make(path / name)
        result = call(capsys, script("CNN_Torch", "test").main, "--run-dir", path)
        assert_one_line(result, path, name)
        (path / name).rmdir() if make is os.mkdir else (path / name).unlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
@pytest.mark.parametrize("folder", ["CNN_Manual", "CNN_Torch", "ResNet", "ViT"])
def test_a_picture_that_is_a_pipe_is_one_line(folder, runs, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.png")
    argv = ["--run-dir", runs / folder, tmp_path / "pipe.png"]
    result = call(capsys, script(folder, "predict").main, *argv)
    assert_one_line(result, tmp_path / "pipe.png", "no regular file")


# ---- the latest run ----


def make_run(place, name: str, config: dict | None, needed: str | None = "best.safetensors"):
    path = place / name
    path.mkdir(parents=True)
    if config is not None:
        (path / "config.json").write_text(json.dumps({"dataset": "x", **config}))
    if needed:
        (path / needed).write_bytes(b"")
    return path


def test_the_latest_run_is_the_latest_that_fits(tmp_path):
    make_run(tmp_path, "0001-x", {"task": "lm"})
    fits = make_run(tmp_path, "0002-x", {"task": "lm"})
    latest = make_run(tmp_path, "0003-x", {"task": "translate"})
    assert folders.find_run(tmp_path, None, "best.safetensors", task=["lm"]) == fits
    assert folders.find_run(tmp_path, None, "best.safetensors", task=["a", "lm"]) == fits
    assert folders.find_run(tmp_path, None, "best.safetensors") == latest


@pytest.mark.parametrize(
    "folder, name, argv, flag",
    [
        ("Transformer_Torch", "generate", [], "--task lm"),
        ("Transformer_Manual", "generate", [], "--task lm"),
        ("VAE", "generate", ["--label", "red disc"], "--model cvae"),
        ("GAN", "generate", ["--label", "0"], "--model cgan"),
    ],
)
def test_where_no_run_fits_the_command_that_makes_one_is_named(
    folder, name, argv, flag, runs, tmp_path, capsys, monkeypatch
):
    moved = tmp_path / folder
    shutil.copytree(runs / folder, moved / "runs" / "0001-x")
    module = script(folder, name)
    monkeypatch.setattr(module, "FOLDER", moved)
    said = f"python {folder}/train.py {flag}"
    assert_one_line(call(capsys, module.main, *argv), moved / "runs", said)
    result = call(capsys, module.main, *argv, "--run-dir", runs / folder)
    assert_one_line(result, runs / folder, said)


def test_generate_and_translate_take_their_own_latest_run(runs, tmp_path, capsys, monkeypatch):
    """Each beside a later run of the other task."""
    moved = tmp_path / "Transformer_Torch"
    shutil.copytree(runs / "Transformer_Torch", moved / "runs" / "0001-reverse")
    make_run(moved / "runs", "0002-text", {"task": "lm"})
    module = script("Transformer_Torch", "translate")
    monkeypatch.setattr(module, "FOLDER", moved)
    assert call(capsys, module.main, "a b").code == 0
    module = script("Transformer_Torch", "generate")
    monkeypatch.setattr(module, "FOLDER", moved)
    result = call(capsys, module.main)  # which is damaged
    assert_one_line(result, moved / "runs" / "0002-text")


@pytest.mark.parametrize("needed", ["last.safetensors", "best.safetensors"])
def test_a_later_run_that_has_not_saved_yet_is_named(needed, tmp_path, capsys):
    older = make_run(tmp_path, "0001-x", {}, needed)
    for name in ("0002-x", "0003-x"):
        make_run(tmp_path, name, {}, needed=None)
    assert folders.find_run(tmp_path, None, needed) == older
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "0003-x") in line and needed in line and str(older) in line


def test_a_named_run_that_has_not_saved_yet_is_one_line(tmp_path, capsys):
    path = make_run(tmp_path, "0001-x", {}, needed=None)
    for main, flags in ((script("MLP_Manual").main, ["--resume"]),
                        (script("MLP_Manual", "test").main, [])):  # fmt: skip
        assert_one_line(call(capsys, main, *flags, "--run-dir", path), path, "has not come so far")


# ---- places that cannot be used ----


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_run_dir_that_is_a_file_is_one_line(folder, tmp_path, capsys):
    path = tmp_path / "file"
    path.write_text("mine")
    result = call(capsys, script(folder).main, *small(folder), "--run-dir", path)
    assert_one_line(result, path)
    assert_one_line(call(capsys, script(folder).main, "--resume", "--run-dir", path), path)
    assert_one_line(call(capsys, script(folder, "test").main, "--run-dir", path), path)
    assert path.read_text() == "mine"


@pytest.fixture
def without_rights(monkeypatch):
    """A function: a path that nobody may look at, nor at what lies in it, not even root."""

    def lock_up(shut):
        def refusing(real):
            def call(path, *args, **kwargs):
                if isinstance(path, (str, os.PathLike)) and (Path(path) / ".").is_relative_to(shut):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
                return real(path, *args, **kwargs)

            return call

        for module, name in ((os, "stat"), (os, "listdir"), (os, "scandir"), (os, "open"),
                             (io, "open"), (builtins, "open")):  # fmt: skip
            monkeypatch.setattr(module, name, refusing(getattr(module, name)))

    return lock_up


@pytest.mark.parametrize("name", [".", "config.json", "best.safetensors", "last.safetensors"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_run_that_may_not_be_read_is_one_line(
    folder, name, runs, tmp_path, capsys, without_rights
):
    path = shutil.copytree(runs / folder, tmp_path / "run")
    without_rights(path / name)
    if name != "last.safetensors":
        for other in scripts(folder):
            argv = ["--run-dir", path, *ARGUMENTS.get(other, [])]
            result = call(capsys, script(folder, other).main, *argv)
            assert_one_line(result, path, "Permission denied")
    if name != "best.safetensors":
        result = call(capsys, script(folder).main, "--resume", "--run-dir", path)
        assert_one_line(result, path, "Permission denied")


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_runs_that_may_not_be_read_is_one_line(
    folder, tmp_path, capsys, monkeypatch, without_rights
):
    monkeypatch.setattr(script(folder), "FOLDER", tmp_path)
    monkeypatch.setattr(script(folder, "test"), "FOLDER", tmp_path)
    make_run(tmp_path / "runs", "0001-x", {})
    without_rights(tmp_path / "runs")
    for main, flags in ((script(folder).main, ["--resume"]), (script(folder, "test").main, [])):
        assert_one_line(call(capsys, main, *flags), tmp_path / "runs", "Permission denied")


@pytest.mark.skipif(os.name != "posix" or not hasattr(os, "geteuid"), reason="rights")
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may do all")
@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_a_run_dir_without_rights_is_one_line(mode, runs, tmp_path, capsys):
    path = shutil.copytree(runs / "MLP_Manual", tmp_path / "run")
    (tmp_path / "empty").mkdir()
    for place in (path, tmp_path / "empty"):
        place.chmod(mode)
    flags = [["--resume", "--run-dir", path], [*small("MLP"), "--run-dir", tmp_path / "empty"]]
    results = [call(capsys, script("MLP_Manual").main, *argv) for argv in flags]
    results.append(call(capsys, script("MLP_Manual", "test").main, "--run-dir", path))
    for place in (path, tmp_path / "empty"):
        place.chmod(0o700)
    for result in results:
        assert_one_line(result, tmp_path)
