"""Hand-written networks and their PyTorch twins: constructors, names, losses, flags, histories."""

import importlib
import inspect
import re

import pytest
import torch

from common import cli
from common.results import compare
from common.results.tables import compare_results
from tests.running import (
    CNNS,
    MLPS,
    SAME_DROPOUT,
    TRANSFORMERS,
    TWINS,
    assert_one_line,
    call,
    few_shapes,
    history,
    make_digits,
    script,
    small,
)

SMALL_TRANSFORMER = {
    "vocab_size": 20, "embed_dim": 12, "num_heads": 3, "num_layers": 2, "feedforward_dim": 10,
    "max_length": 128, "dropout": 0.1 * SAME_DROPOUT,
}  # fmt: skip
OTHERWISE = {"norm_first": False, "activation": "gelu", "positions": "learned", "num_layers": 1}
NETWORKS = {
    "MLP": [
        {},
        {"in_features": 3, "hidden_sizes": (), "num_classes": 2},
        {"in_features": 1, "hidden_sizes": (5, 1, 4), "batch_norm": False, "activation": "gelu"},
        {"in_features": 4, "hidden_sizes": [7], "activation": "tanh", "dropout": 0.0},
    ],
    "CNN": [
        {},
        {"in_channels": 3, "image_size": 17, "num_classes": 4, "channels": (5, 2)},
        {"image_size": 3, "channels": [2], "dropout": 0.0},
    ],
    "Transformer": [SMALL_TRANSFORMER, {**SMALL_TRANSFORMER, **OTHERWISE}],
    "LanguageModel": [SMALL_TRANSFORMER, {**SMALL_TRANSFORMER, **OTHERWISE}],
}
PAIRS = [(name, arguments) for name, rows in NETWORKS.items() for arguments in rows]


def networks(name: str) -> list[type]:
    """The hand-written class and its twin."""
    *folders, network = compare.TWINS[name][:3]
    return [getattr(importlib.import_module(f"{folder}.model"), network) for folder in folders]


@pytest.fixture
def small_transformers(monkeypatch):
    """Where common.compare makes pairs of the recorded networks' size."""
    make_pair = compare.make_pair

    def make(name, *args, **more):
        arguments = SMALL_TRANSFORMER if name in ("Transformer", "LanguageModel") else {}
        return make_pair(name, *args, **{**arguments, **more})

    monkeypatch.setattr(compare, "make_pair", make)


@pytest.mark.smoke
@pytest.mark.parametrize("name", NETWORKS)
def test_twins_take_the_same_arguments(name):
    signatures = [inspect.signature(network.__init__) for network in networks(name)]
    assert signatures[0].parameters == signatures[1].parameters
    assert all(
        parameter.default is not inspect.Parameter.empty
        for key, parameter in signatures[0].parameters.items()
        if key != "self"
    )


@pytest.mark.smoke
@pytest.mark.parametrize("name, arguments", PAIRS)
def test_state_dicts_fit_both_ways(name, arguments):
    Manual, Native = networks(name)
    torch.manual_seed(1)
    manual = Manual(**arguments)
    torch.manual_seed(1)
    native = Native(**arguments)

    def shapes(model) -> list[tuple]:
        return [(key, value.shape, value.dtype) for key, value in model.state_dict().items()]

    def same() -> bool:
        pairs = zip(manual.state_dict().values(), native.state_dict().values(), strict=True)
        return all(torch.equal(ours, theirs) for ours, theirs in pairs)

    assert shapes(manual) == shapes(native)
    assert same(), "one seed, but other weights"
    native.load_state_dict(Manual(**arguments).state_dict())
    assert not same()
    manual.load_state_dict(native.state_dict())
    assert same()
    native = Native(**arguments)
    native.load_state_dict(manual.state_dict())
    assert same()


@pytest.mark.smoke
@pytest.mark.parametrize("name", NETWORKS)
def test_losses_and_gradients_are_alike_step_by_step(name, small_transformers):
    torch.manual_seed(0)
    found = compare.differences(name, torch.device("cpu"), batch_size=4)
    assert found["loss"] <= 1e-8 and found["gradient"] <= 1e-8


def test_differences_find_a_twin_that_learns_otherwise(monkeypatch):
    pair = compare.make_pair("MLP", torch.float64, torch.device("cpu"), hidden_sizes=(4,))
    pair[0].optimizer.weight_decay = 0.04
    monkeypatch.setattr(compare, "make_pair", lambda *args: pair)
    found = compare.differences("MLP", torch.device("cpu"), batch_size=4, steps=3)
    assert found["loss"] > 1e-8 and found["gradient"] > 1e-8


@pytest.mark.parametrize("name", NETWORKS)
def test_compare_prints_times_lines_and_differences(name, capsys, small_transformers):
    result = call(capsys, compare.main, name, "--steps", 2, "--batch-size", 4, "--device", "cpu")
    assert (result.code, result.err) == (0, "")
    manual, native, ratio, difference = result.out.splitlines()
    for folder, line in zip(compare.TWINS[name][:2], (manual, native), strict=True):
        assert re.fullmatch(rf"{folder} +\d+\.\d\d ms per step +\d+ lines", line)
    assert re.fullmatch(r"time ratio \d+\.\d\d \(medians of 2 steps\)", ratio)
    numbers = re.findall(r"\d\.\de[-+]\d\d", difference)
    assert len(numbers) == 2 and all(float(number) <= 1e-8 for number in numbers)


@pytest.mark.parametrize("name", ["Transformer", "LanguageModel"])
def test_comparison_of_each_network_is_recorded_and_shown(
    name, tmp_path, monkeypatch, capsys, small_transformers
):
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    (tmp_path / "Transformer_Manual").mkdir()
    argv = [name, "--steps", 1, "--batch-size", 2, "--device", "cpu", "--record"]
    assert call(capsys, compare.main, *argv).code == 0
    (path,) = (tmp_path / "Transformer_Manual" / "results").iterdir()
    assert path.name == {"Transformer": "compare.json"}.get(name, f"compare_{name}.json")
    for folder in compare.TWINS[name][:2]:
        text = compare_results(tmp_path / folder)
        assert (
            f"| Transformer_Manual: {name} |" in text
            and f"`python -m common.results.compare {name} --batch-size 2 --steps 1`" in text
        )
        assert f"batches of 2 {compare.TWINS[name].examples}, 1 steps in turns" in text
    assert compare_results(tmp_path / "MLP_Manual") == "Nothing recorded yet."


@pytest.mark.parametrize("argv", [[], ["all"], ["CNN", "all"], ["LSTM", "MLP"]])
def test_compare_takes_all_pairs_or_those_that_are_named(argv, capsys, monkeypatch):
    measured = []

    def measure(name, *args, **sizes):
        return measured.append(name) or {}

    monkeypatch.setattr(compare, "measure", measure)
    assert call(capsys, compare.main, *argv).code == 0
    assert measured == (argv if "MLP" in argv else [*compare.PAIRS])


def test_compare_refuses_what_is_no_pair(capsys):
    assert_one_line(call(capsys, compare.main, "MLP", "ResNet"), "ResNet", "MLP")


def test_lines_of_code_leave_out_comments_docstrings_and_studies(tmp_path):
    (tmp_path / "folder" / "utils").mkdir(parents=True)
    source = '"""Module,\n\nof two lines."""\n\nx = 1  # here\n\n# there\n\n\n'
    function = 'def f():\n    """Doc."""\n    return (\n        x\n    )\n'
    (tmp_path / "folder" / "model.py").write_text(source + function)
    (tmp_path / "folder" / "study.py").write_text("x = 1\n")
    (tmp_path / "folder" / "utils" / "b.py").write_text("import os\n")
    assert compare.lines_of_code(tmp_path / "folder") == 1 + 3 + 1
    assert compare.lines_of_code(tmp_path / "folder" / "model.py") == 1 + 3, "of a module alone"


# ---- the same run by both scripts ----


def limits(parse) -> tuple:
    """What tells one type of flags from another: both folders make theirs anew."""
    cells = getattr(parse, "__closure__", None) or ()
    return getattr(parse, "__qualname__", parse), [cell.cell_contents for cell in cells]


def own_flags(folder: str) -> dict:
    """What train.py adds to the shared flags, and the defaults of all."""
    shared = {action.dest for action in cli.train_parser("", {"mnist": {}})._actions}
    return {
        action.dest: action.default
        if action.dest in shared
        else (
            type(action), action.option_strings, action.nargs, action.default,
            limits(action.type), action.choices and list(action.choices),
        )
        for action in script(folder).make_parser()._actions
    }  # fmt: skip


@pytest.mark.smoke
@pytest.mark.parametrize("manual, native", TWINS)
def test_flags_and_recipes_are_the_same_but_for_those_of_pytorch(manual, native):
    ours, theirs = own_flags(manual), own_flags(native)
    for name in ("compile", "precision", "accumulate", "channels_last"):
        ours.pop(name, None)
        theirs.pop(name, None)
    assert ours == theirs
    assert script(manual).RECIPES == script(native).RECIPES


def histories(folders, tmp_path, *argv) -> list[list[dict]]:
    for folder in folders:
        script(folder).main([*map(str, argv), "--run-dir", str(tmp_path / folder)])
    return [history(tmp_path / folder) for folder in folders]


def assert_alike(one: list[dict], other: list[dict], tolerance: float) -> None:
    assert len(one) == len(other) == 2
    for ours, theirs in zip(one, other, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"dataset", "seconds"}:
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=tolerance), name


@pytest.fixture
def double_precision():
    """So that rounding does not grow over the steps, and the scripts can be compared sharply."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("common.plots.draw_curves", lambda path, history: None)


RECIPES = [
    "--schedule one-cycle --dropout 0.3 --input-dropout 0.1",
    "--schedule cosine --warmup 5 --clip 0.5 --optimizer sgd --lr 0.5",
    "--schedule step --warmup 3 --dropout 0.2 --optimizer nesterov --lr 0.05",
    "--schedule constant --optimizer rmsprop --weight-decay 0.01 --clip 0.1",
    "--schedule constant --warmup 1 --optimizer adagrad --no-batch-norm --activation relu",
    "--schedule one-cycle --warmup 9 --optimizer momentum --loss mse --activation gelu",
    "--schedule cosine --optimizer adam --label-smoothing 0.1 --activation sigmoid",
    "--schedule cosine --optimizer muon --hidden-sizes 8 6 8 --weight-decay 0.1 --clip 0.5",
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_mlp_scripts_learn_the_spirals_alike(recipe, tmp_path, double_precision):
    argv = [*small("MLP"), "--epochs", 2, "--seed", 3, "--train-accuracy", 99, *recipe.split()]
    assert_alike(*histories(MLPS, tmp_path, *argv), tolerance=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "one-cycle"])
@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist"])
def test_mlp_scripts_learn_images_alike(dataset, schedule, tmp_path):
    argv = [
        "--dataset", dataset, "--data-dir", make_digits(tmp_path, dataset), "--epochs", 2,
        "--hidden-sizes", 16, 16, "--batch-size", 40, "--schedule", schedule, "--warmup", 2,
        "--clip", 1, "--dropout", 0.2, "--optimizer", "momentum", "--lr", 0.01,
    ]  # fmt: skip
    assert_alike(*histories(MLPS, tmp_path, *argv), tolerance=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_cnn_scripts_learn_the_shapes_alike(schedule, optimizer, tmp_path, double_precision):
    argv = [
        *small("CNN"), "--channels", 4, 4, "--optimizer", optimizer, "--train-accuracy", 99,
        "--epochs", 2, "--schedule", schedule, "--warmup", 2, "--clip", 1,
        "--dropout", 0.2, "--shift", 0, "--rotation", 0, "--zoom", 0, "--no-flip",
    ]  # fmt: skip
    assert_alike(*histories(CNNS, tmp_path, *argv), tolerance=1e-6)


TRANSFORMER_RECIPES = [  # --dataset reverse, and of texts
    "--schedule inverse-sqrt --dropout 0.2 --label-smoothing 0.1 --ema 0.7 --clip 0.5",
    "--schedule cosine --optimizer adamw --weight-decay 0.1 --no-norm-first --activation gelu "
    "--positions learned --beta2 0.9",
    "--schedule cosine --optimizer muon --weight-decay 0.1 --positions learned --beta2 0.9",
]


@pytest.mark.parametrize("task", ["translate", "lm"])
@pytest.mark.parametrize("recipe", TRANSFORMER_RECIPES)
def test_transformer_scripts_learn_alike(recipe, task, tmp_path, monkeypatch, double_precision):
    few_shapes(monkeypatch)
    recipe = recipe if SAME_DROPOUT else recipe.replace("--dropout 0.2", "--dropout 0")
    argv = small("Transformer")
    if task == "lm":
        (tmp_path / "input.txt").write_text("".join(f"{n} {'abc' * (n % 3)}\n" for n in range(300)))
        data = ["--task", "lm", "--dataset", "text", "--data-dir", tmp_path, "--subset", 900]
        sizes = ["--batch-size", 4, "--max-length", 16, "--sample-length", 10]
        argv = [*data, *sizes, *argv[argv.index("--embed-dim") :]]
    runs = histories(TRANSFORMERS, tmp_path, *argv, "--epochs", 2, "--seed", 3, *recipe.split())
    assert_alike(*runs, tolerance=1e-6)
    if task == "lm":
        texts = [(tmp_path / folder / "samples.txt").read_text() for folder in TRANSFORMERS]
        assert texts[0] == texts[1]


def test_run_of_one_twin_is_no_run_of_the_other(tmp_path, capsys):
    """The names agree, the optimisers' states do not: the run says whose it is."""
    path = tmp_path / "run"
    script("MLP_Manual").main([*small("MLP"), "--epochs", "1", "--run-dir", str(path)])
    argv = ["--resume", "--run-dir", path, "--epochs", 2]
    assert_one_line(call(capsys, script("MLP_Torch").main, *argv), path, "a run of 'MLP_Manual'")
