"""The study of twins, studies/twins.py: what it measures against closed forms, made-up networks and
a clock that is known; then its rows, its tables and its picture."""

import ast
import itertools
import json
import math
import subprocess
import sys
from argparse import Namespace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from scipy import stats
from torch import nn

from common import data
from common.data import ROOT, Split
from common.files import DataMissing
from common.results import report
from common.results.compare_steps import LAYERS, PAIRS, TWINS, TorchStep
from MLP_Manual.utils.layers import Layer, Linear, Sequential
from studies import layer_times, short_trainings, step_memory, twins, verdict
from tests.conftest import user_error
from tests.running import Stop, assert_one_line, call, few_shapes

CPU = torch.device("cpu")
QUICK = Namespace(quick=True, device=CPU, data_dir=None, datasets=["mnist-sample", "help-topics"])


@pytest.fixture
def clock(monkeypatch) -> Namespace:
    """A clock that goes on by a second whenever one reads it, or by as much as one says."""
    ours = Namespace(seconds=0.0)

    def perf_counter() -> float:
        ours.seconds += 1
        return ours.seconds

    ours.perf_counter = perf_counter
    monkeypatch.setattr(layer_times, "time", ours)
    return ours


# ---- a step, and its parts ----


@pytest.mark.smoke
@pytest.mark.parametrize("name", PAIRS)
def test_a_step_in_parts_is_the_step(name):
    """The same weights and gradients after each; of both twins."""
    for number in (0, 1):
        states = []
        for in_parts in (False, True):
            pair, batch = twins.made(name, QUICK)
            for seed in range(3):
                torch.manual_seed(seed)
                if in_parts:
                    done = list(layer_times.phases(pair[number], *batch))
                else:
                    pair[number](*batch)
            states.append(pair[number].model.state_dict())
            of = pair[1] if number else pair[0].model
            gradients = {} if number and name in LAYERS else of.gradients()
            states[-1] = {**states[-1], **{f"grad {k}": v for k, v in gradients.items()}}
        assert done == ["forward", "backward"] + ["optimiser"] * (name in TWINS)
        assert states[0].keys() == states[1].keys() and len(states[0]) > 3
        for key, value in states[0].items():
            torch.testing.assert_close(states[1][key], value, rtol=0.0, atol=0.0)


def test_the_timed_cnn_lies_in_memory_as_in_its_train_py():
    """Else its pooling takes several times as long."""
    (_, native), _ = twins.made("CNN", QUICK)
    kernels = [p for p in native.model.parameters() if p.dim() == 4 and p.shape[1] > 1]
    assert kernels and all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


def test_twins_take_turns_and_warm_up_first(clock, monkeypatch):
    order = []

    def phases(step, *batch):
        order.append(step)
        clock.seconds += 10 * step
        yield "forward"
        yield "backward"

    monkeypatch.setattr(layer_times, "phases", phases)
    found = layer_times.turns((1, 2), (None, None), CPU, steps=3, warmup=2)
    assert order == [1, 2] * 5
    assert found["manual"] == [{"forward": 11, "backward": 1}] * 3
    assert found["torch"] == [{"forward": 21, "backward": 1}] * 3


def test_the_ratio_is_of_each_step_and_the_one_after_it(monkeypatch):
    steps = {"manual": [1.0, 10.0, 2.0], "torch": [0.5, 5.0, 2.0]}  # slow together, once
    monkeypatch.setattr(twins, "turns", lambda *args: {
        twin: [{"forward": 0.25 * value, "backward": 0.75 * value} for value in values]
        for twin, values in steps.items()
    })  # fmt: skip
    row = twins.time_step("MLP", Namespace(**vars(QUICK), steps=3))
    assert row["ratio"] == [1.5, 2.0, 2.0]
    assert row["milliseconds"] == {"manual": [1500, 2000, 6000], "torch": [1250, 2000, 3500]}
    assert row["parts"]["torch"] == {"forward": 500, "backward": 1500}


# ---- layer by layer ----


def test_time_within_an_inner_part_is_not_the_outers(clock):
    found = layer_times.Clock(CPU)
    found.start()  # reads 1
    clock.seconds += 10
    found.start()  # reads 12
    clock.seconds += 100
    found.stop("inner", "forward")  # reads 113: 101
    found.stop("outer", "forward")  # reads 114: 113 in all
    assert found.seconds == {("inner", "forward"): 101, ("outer", "forward"): 12}


@pytest.mark.smoke
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("number", [0, 1])
def test_the_layers_add_up_to_the_step(name, number, clock):
    """Whenever the clock goes on during a step, a part gets the time, once."""
    pair, batch = twins.made(name, QUICK)
    found, layer = layer_times.watch_step(pair[number], layer_times.Clock(CPU)), name in LAYERS
    for _ in range(2):  # nothing stays from the step before
        clock.seconds = 0.0
        parts = found.of_step(pair[number], batch, "base")
        nobodys = sum(value for (part, _), value in found.seconds.items() if part is None)
        between = 2 if layer else 3  # the clock is read once more, from phase to phase
        assert sum(parts.values()) + nobodys == clock.seconds - 1 - between > 1
        assert not found.running
    assert {way for _, way in parts} == {"forward", "backward"} | (
        {"optimiser"} if not layer else set()
    )


EXPECTED = {
    "MLP": {"Linear", "BatchNorm1d", "ReLU", "Dropout"},
    "CNN": {"Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU", "Flatten", "Dropout", "Linear"},
    "Transformer": {"Embedding", "MultiheadAttention", "LayerNorm", "Linear", "ReLU", "Dropout",
                    "logits"},
    "LanguageModel": {"Embedding", "MultiheadAttention", "LayerNorm", "Linear", "GELU", "Dropout",
                      "logits"},
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_twins_have_the_same_layers_with_both_ways(name):
    pair, batch = twins.made(name, QUICK)
    found = layer_times.profile(name, pair, batch, CPU, steps=2, warmup=1)
    assert found.keys() == EXPECTED[name] | {"CrossEntropy", "AdamW", layer_times.REST}
    for part in EXPECTED[name] | {"CrossEntropy", layer_times.REST}:
        for twin in layer_times.TWINS:
            assert found[part][twin].keys() == {"forward", "backward"}, (part, twin)
            assert min(found[part][twin].values()) >= 0
    assert all(found["AdamW"][twin].keys() == {"optimiser"} for twin in layer_times.TWINS)


@pytest.mark.parametrize("name", LAYERS)
def test_of_a_recurrent_layer_the_steps_stand_apart(name):
    pair, batch = twins.made(name, QUICK)
    found = layer_times.profile(name, pair, batch, CPU, steps=2, warmup=1)
    both = {"forward", "backward"}
    assert {part: {twin: set(of) for twin, of in found[part].items()} for part in found} == {
        name: {"manual": both, "torch": both}, layer_times.IN_ORDER: {"manual": both}
    }  # fmt: skip


def test_a_slow_layer_is_found_in_both_ways(clock):
    """By hand and by autograd: 1,000 s of forward and 10,000 s of backward are those of `Slow`,
    where what is slow is a function before another layer of its own."""

    class Wait(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            clock.seconds += 1_000
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            clock.seconds += 10_000
            return gradient

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            return self.linear(Wait.apply(x).tanh())

    class SlowByHand(Layer):
        def forward(self, x):
            clock.seconds += 1_000
            return x

        def backward(self, grad_output):
            clock.seconds += 10_000
            return grad_output

    manual = twins.made("MLP", QUICK)[0][0]
    manual.model = Sequential(Linear(3, 3), SlowByHand(), Linear(3, 3))
    manual.optimizer = SimpleNamespace(step=lambda: None)
    native = TorchStep(nn.Sequential(nn.Linear(3, 3), Slow(), nn.Linear(3, 3)), lr=0.1)
    batch = (torch.randn(4, 3),), torch.tensor([0, 1, 2, 0])
    for step, name in ((manual, "SlowByHand"), (native, layer_times.REST)):
        found = layer_times.Clock(CPU)
        layer_times.watch(step.model, found)
        parts = found.of_step(step, batch, layer_times.REST)
        slow = {key: value for key, value in parts.items() if value >= 1_000}
        assert slow.keys() == {(name, "forward"), (name, "backward")}
        assert 1_000 <= slow[name, "forward"] < 1_100 and slow[name, "backward"] < 10_100


# ---- memory ----


@pytest.mark.long
def test_memory_of_a_step_is_found_in_a_process_of_its_own():
    """Of both twins at least W, ∂L/∂W and Adam's two averages; of tensors the same as here."""
    for twin in layer_times.TWINS:
        found = twins.memory_of_step("MLP", twin, QUICK)["megabytes"]
        weights = 4 * (784 * 16 + 16 * 10)
        assert 4 * weights < 1e6 * (found["tensors"] + 0.05) < 8 * weights
        build = partial(step_memory.build, "MLP", twin, CPU, *twins.sizes_of("MLP", True))
        here = step_memory.peak_megabytes(build)
        assert found["tensors"] == pytest.approx(here, abs=0.06)
    if sys.platform != "linux":
        return
    size, sizes = 512, {"hidden_sizes": [1024]}
    found = step_memory.measure("MLP", "manual", CPU, [size, sizes], [2, {"hidden_sizes": [4]}])
    assert found["process"] >= 0 and found["tensors"] > 12


def test_a_process_that_was_killed_says_nothing_and_is_named_all_the_same(monkeypatch):
    killed = subprocess.CompletedProcess([], returncode=-9, stdout="", stderr="")
    monkeypatch.setattr(twins.subprocess, "run", lambda *args, **kwargs: killed)
    with user_error("step_memory MLP manual", "failed: exit code -9"):
        twins.memory_of_step("MLP", "manual", QUICK)


@pytest.mark.long
def test_a_process_that_fails_is_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(twins.QUICK, "MLP", {"no_such_size": 1})
    monkeypatch.setattr(twins, "time_step", lambda *args, **kwargs: {})
    result = call(capsys, twins.main, "--quick", "--pairs", "MLP", "--output", tmp_path / "a.json")
    assert result.code == 2 and "step_memory MLP manual" in result.err
    assert "no_such_size" in result.err and "Traceback" not in result.err


# ---- results and lines ----


@pytest.mark.smoke
def test_the_standard_error_is_welchs():
    a, b = [99.1, 99.3, 99.0, 99.4], [98.9, 99.2, 99.25]
    found = verdict.Difference("mnist", "accuracy", a, b, {})
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert found.mean / found.standard_error == pytest.approx(expected.statistic)
    alike = verdict.Difference("mnist", "accuracy", a[:3], b, {})
    pooled = math.sqrt(2 / 3) * math.sqrt((stats.tvar(a[:3]) + stats.tvar(b)) / 2)
    assert alike.standard_error == pytest.approx(pooled)
    assert verdict.Difference("mnist", "accuracy", a, b[:1], {}).standard_error is None
    assert verdict.Difference("mnist", "accuracy", a[:1], b[:1], {}).mean == pytest.approx(0.2)


def write_record(place, config: str, values: list[float], sample=False, model="MLP", **flags):
    (place / "results").mkdir(parents=True, exist_ok=True)
    runs = [{"test": {"loss": 9.0, "accuracy": value}} for value in values]
    record = {"config": config, "model": model, "sample": sample, "hyperparameters": flags}
    (place / "results" / f"{config}.json").write_text(json.dumps({**record, "runs": runs}))


def test_results_are_those_that_both_twins_recorded(tmp_path):
    ours, theirs = tmp_path / "MLP_Manual", tmp_path / "MLP_Torch"
    write_record(ours, "mnist", [0.5, 0.7], lr=1, epochs=2)
    write_record(theirs, "mnist", [0.5], lr=1, epochs=3, compile=True)
    for name, more in (("sample", {"sample": True}), ("other", {"model": "Transformer"})):
        for place in (ours, theirs):
            write_record(place, name, [0.1], **more)
    write_record(ours, "alone", [0.1])
    (ours / "results" / "compare.json").write_text("{}")
    (found,) = verdict.differences("MLP", tmp_path)
    assert (found.config, found.metric) == ("mnist", "accuracy")
    assert (found.manual, found.torch) == ([0.5, 0.7], [0.5])
    assert found.flags == {"epochs": (2, 3)} and found.standard_error is None


def test_core_lines_of_a_made_up_folder(tmp_path):
    for folder, modules in {
        "ours": {"model.py": 3, "train.py": 4, "utils/layers.py": 5, "utils/optim.py": 6,
                 "utils/losses.py": 7, "utils/plots.py": 10, "study.py": 20, "dataset/a.py": 40},
        "theirs": {"model.py": 1, "dataset/a.py": 40, "utils/plots.py": 10},
    }.items():  # fmt: skip
        for name, lines in modules.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            body = '"""A docstring."""\n\n# a comment\n' + "x = 1\n" * lines
            path.write_text(body)
    found = verdict.count_lines(tmp_path / "ours", verdict.BY_HAND, tmp_path / "theirs")
    core = {"model": 3, "layers": 5, "loss": 7, "optimiser": 6, "loop": 4}
    assert found == verdict.Lines(core, copied=50, alone=20)


@pytest.mark.parametrize("name", TWINS)
def test_core_is_of_modules_that_exist_and_holds_all_that_the_model_imports(name):
    """And all modules of the folder that these come from, but for data."""
    assert tuple(verdict.CORE[name]) == PAIRS[name][:2]
    for folder, roles in verdict.CORE[name].items():
        modules = [module for role in verdict.ROLES for module in roles[role]]
        assert len(modules) == len(set(modules))
        assert all((ROOT / folder / module).is_file() for module in modules)
        for module in modules:
            if module == "train.py":  # which also loads, shows and evaluates
                continue
            tree = ast.parse((ROOT / folder / module).read_text())
            paths = set()
            for node in ast.walk(tree):
                start = getattr(node, "module", None) or ""
                if not start.startswith(f"{folder}.") or ".dataset" in start:
                    continue
                here = start.removeprefix(f"{folder}.").replace(".", "/")
                names = [f"{here}/{a.name}" for a in node.names] if here == "utils" else [here]
                paths |= {f"{name}.py" for name in names}
            assert paths <= set(modules), (module, paths - set(modules))


# ---- short trainings ----


@pytest.mark.parametrize("name", PAIRS)
def test_twins_are_trained_alike(name, monkeypatch):
    """The same losses in each of the first steps, and then the same on the validation split."""
    few_shapes(monkeypatch)
    recipe = short_trainings.recipe_of(name, QUICK)
    if name in short_trainings.IMAGES:
        torch.manual_seed(0)
        shape = (784,) if name == "MLP" else (1, 28, 28)
        inputs, labels = torch.randn(300, *shape), torch.randint(10, (300,))
        train = validation = Split(inputs, labels, list("abcdefghij"), {})
        learn = short_trainings.images
    else:
        train, validation, _ = short_trainings.load(name, QUICK)
        validation = validation.subset(min(500, len(validation)))
        learn = short_trainings.texts
    losses, epochs, found = [], [], []
    for twin in layer_times.TWINS:  # one after the other: both draw what they drop
        learner = learn(name, twin, 1, train, validation, recipe)
        losses.append([next(learner.steps).item() for _ in range(4)])
        found.append(learner.evaluate(learner.model))
        epochs.append(learner.epoch)
    assert losses[0] == pytest.approx(losses[1], abs=2e-4) and len(set(losses[0])) == 4
    assert found[0] == pytest.approx(found[1], abs=1e-2) and epochs[0] == epochs[1]


# ---- rows, tables and picture ----


@pytest.fixture
def few_figures(monkeypatch):
    """In the place of trainings and processes, figures that are found at once."""

    def learn(learner, minutes, metric):
        return {"seconds": [60 * m for m in minutes], "steps": [1] * len(minutes),
                "validation": {metric: [0.5] * len(minutes)}}  # fmt: skip

    number = itertools.count(1)
    monkeypatch.setattr(short_trainings.protocol, "learn", learn)
    monkeypatch.setattr(short_trainings, "load", lambda name, args: (None, None, None))
    for kind in ("images", "texts"):
        monkeypatch.setattr(short_trainings, kind, lambda *args: None)
    monkeypatch.setattr(twins, "memory_of_step", lambda *args, **kwargs: {
        "megabytes": {"tensors": float(next(number)), "process": None}
    })  # fmt: skip


def rows_of(path) -> list[dict]:
    return json.loads(path.read_text())["rows"]


@pytest.mark.parametrize("after", [0, 2, 6])
@pytest.mark.long
def test_a_killed_study_goes_on_and_does_nothing_twice(
    after, tmp_path, capsys, monkeypatch, few_figures
):
    path, make, begun = tmp_path / "rows" / "compare_twins.json", twins.make, []
    argv = ["--quick", "--pairs", "MLP", "--seeds", 2, "--output", path]

    def counted(*args, **key):
        begun.append(key)
        if len(begun) == after + 1:
            raise Stop
        return make(*args, **key)

    monkeypatch.setattr(twins, "make", counted)
    with pytest.raises(Stop):
        call(capsys, twins.main, *argv)
    before = rows_of(path)
    assert len(before) == after
    result = call(capsys, twins.main, *argv)
    assert (result.code, result.err) == (0, "")
    now = rows_of(path)
    assert now[:after] == before and len(now) == 8 and len(begun) == 9
    keys = [json.dumps({k: row.get(k) for k in ("what", "pair", "twin", "seed")}) for row in now]
    assert len(set(keys)) == 8
    call(capsys, twins.main, *argv[:2], "GRU", "MLP", *argv[3:], "--seeds", 3)
    assert len(begun) == 9 + 4 + 6 + 2, "another pair, and another seed of this one"
    assert rows_of(path)[:8] == now
    for more in (["--steps", 4], ["--seconds", 7]):
        assert_one_line(call(capsys, twins.main, *argv, *more), path, "other flags", "--output")
    assert rows_of(path)[:8] == now


@pytest.mark.smoke
@pytest.mark.pictures
@pytest.mark.long
def test_quick_study_makes_its_tables_and_its_picture(tmp_path, capsys, monkeypatch):
    """A network and a layer, with all that is measured; memory in this process."""
    few_shapes(monkeypatch)

    def memory_of_step(name, twin, args):  # in this process
        build = partial(step_memory.build, name, twin, args.device, *twins.sizes_of(name, True))
        return {"megabytes": {"tensors": step_memory.peak_megabytes(build), "process": None}}

    monkeypatch.setattr(twins, "memory_of_step", memory_of_step)
    path = tmp_path / "studies" / "compare_twins.json"
    argv = ["--quick", "--pairs", "Transformer", "LSTM", "--steps", 2, "--seconds", 0.01]
    result = call(capsys, twins.main, *argv, "--output", path)
    assert (result.code, result.err) == (0, "")
    assert path.with_name("twins.png").stat().st_size > 5_000
    trained = [row for row in rows_of(path) if row["what"] == "training"]
    assert len(trained) == 4 and all(len(row["validation"]["loss"]) == 5 for row in trained)
    readme = path.with_name("README.md")
    readme.write_text("<!-- twins -->\n<!-- /twins -->\n")
    readme.with_name("twins.py").touch()
    monkeypatch.setattr(twins, "table", lambda make=twins.table: make(path))
    shown = report.fill(readme)
    assert shown.split("\n\n", 1)[1].rsplit("\n\n", 1)[0] in result.out
    (step,) = [row for row in rows_of(path) if (row["what"], row["pair"]) == ("step", "LSTM")]
    assert f"| **{step['ratio'][1]:.2f}** (" in shown
    assert all(f"\n| {name} | " in shown for name in ("Transformer", "LSTM"))
    assert "\n| Transformer, multi30k | BLEU | " in shown and "| one seed |" in shown
    assert "\n| MLP, mnist | accuracy, % | " in shown and "lr 0.003 / 0.0015" in shown
    core = {folder: sum(of.core.values()) for folder, of in verdict.lines_of_twins("CNN").items()}
    assert core["CNN_Manual"] > core["CNN_Torch"]
    assert all(f"| **{lines}** |" in shown for lines in core.values())
    assert "| MultiheadAttention | " in shown and f"|  | {layer_times.REST} | " in shown
    assert "`python studies/twins.py --quick --steps 2 --seconds 0.01`" in shown
    monkeypatch.setattr(twins, "RECORD", path)
    names = {"Transformer": ROOT, "LSTM": ROOT / "RNN_Manual", "": ROOT / "MLP_Torch"}
    lines = {name: twins.verdict(folder).split("\n") for name, folder in names.items()}
    assert [line for line in lines["Transformer"][2:] if line.startswith("| LSTM")] == [
        line for line in lines["LSTM"][2:] if line.startswith("| ")
    ]
    assert not lines[""][2:], "nothing of MLPs is recorded"
    (line,) = [line for line in lines["Transformer"] if line.startswith("| Transformer |")]
    (full,) = [line for line in shown.split("\n") if line.startswith("| Transformer, multi30k |")]
    assert f"multi30k: {full.split(' | ')[4]} (BLEU, one seed)" in line
    (of,) = [of for of in verdict.differences("LanguageModel") if of.config == "tiny-shakespeare"]
    assert of.flags and "tiny-shakespeare:" not in twins.verdict(ROOT), "of other recipes"
    assert f"**{step['ratio'][1]:.2f}** (" in lines["LSTM"][2]
    readme = tmp_path / "RNN_Manual" / "README.md"
    readme.parent.mkdir()
    readme.write_text("<!-- studies.twins -->\n<!-- /studies.twins -->\n")
    assert "\n".join(lines["LSTM"]) in report.fill(readme)


@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM"])
def test_layers_without_a_folder_show_where_short_trainings_end(cell):
    ends = {"manual": [], "torch": []}
    for row in rows_of(twins.RECORD):
        if (row["what"], row["pair"]) == ("training", cell):
            ends[row["twin"]].append(row["validation"]["loss"][-1])
    a, b = ends.values()
    test = stats.ttest_ind(a, b, equal_var=False)  # Welch's
    mean = sum(a) / len(a) - sum(b) / len(b)
    (line,) = [x for x in twins.verdict(ROOT / "RNN_Manual").split("\n") if f"| {cell} |" in x]
    assert f"{mean:+.4f} ± {mean / test.statistic:.4f} (nats)" in line


@pytest.mark.parametrize(
    "flags, parts",
    [
        (["--pairs", "ResNet"], ["--pairs", "ResNet"]),
        (["--steps", 1], ["--steps", "at least 2"]),
        (["--seconds", 0], ["--seconds"]),
        (["--seeds", 0], ["--seeds"]),
        (["--device", "tpu"], ["tpu", "cuda"]),
        (["--data-dir", "absent"], ["--data-dir", "absent", "not a folder"]),
    ],
)
def test_a_wrong_flag_is_one_line(flags, parts, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_line(call(capsys, twins.main, *flags, "--output", tmp_path / "a.json"), *parts)
    assert not list(tmp_path.iterdir())


def test_without_data_the_study_says_what_it_takes_instead(tmp_path, capsys, monkeypatch):
    def no_network(*args, **kwargs):
        raise DataMissing("no network")

    def stop(path, settings, *rest):
        assert path == ROOT / "studies" / "runs" / "twins.json"
        raise SystemExit(f"{settings['datasets']} {settings['quick']}")

    monkeypatch.setattr(data, "download", no_network)
    monkeypatch.setattr(data, "ROOT", tmp_path)
    monkeypatch.setattr(twins.rows, "collect", stop)
    result = call(capsys, twins.main, "--data-dir", tmp_path)
    assert result.code == "['mnist-sample', 'help-topics'] False" and "***" in result.err


def test_before_anything_is_recorded_the_readme_says_so(tmp_path):
    assert twins.table(tmp_path / "compare_twins.json") == "Nothing recorded yet."
