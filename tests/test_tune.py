"""CNN_Torch/tune.py and CNN_Torch/lr_range.py: searches that share a store and go on after they
were killed, and the learning-rate range test against PyTorch's schedule and pandas."""

import ast
import json
import os
import signal
import sqlite3
from argparse import Namespace
from pathlib import Path

import optuna
import pandas as pd
import pytest
import torch
from sqlalchemy import event
from sqlalchemy.engine import Engine

from CNN_Torch import lr_range, tune
from CNN_Torch.utils import studies
from common.data import ROOT
from common.results import report
from tests.conftest import user_error
from tests.running import Stop, assert_one_line, call, make_digits, start, wait_until

SEARCH = ["--images", 40, "--epochs", 2, "--budget", 14, "--seeds", 2]
TINY = {**tune.RECIPES["mnist-sample"], "channels": [2], "epochs": 2, "batch_size": 16}


@pytest.fixture(autouse=True, scope="module")
def stores_do_not_wait_for_the_disk():
    """As nothing else that tests write does."""

    def hurry(connection, _):
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", hurry)
    yield
    event.remove(Engine, "connect", hurry)


@pytest.fixture
def small(monkeypatch):
    """Networks of a few weights."""
    monkeypatch.setitem(tune.RECIPES, "mnist", TINY)


def flags_below(place) -> tuple[list, Path]:
    """The flags of a small search, and its file."""
    data, path = make_digits(place / "data"), place / "study" / "found.json"
    return ["--dataset", "mnist", "--data-dir", data, *SEARCH, "--output", path], path


@pytest.fixture
def flags(tmp_path, small):
    return flags_below(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The file of a small search that never stopped."""
    argv, path = flags_below(tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tune.RECIPES, "mnist", TINY)
        for name in ("draw_history", "draw_importance", "draw_slices"):
            patch.setattr(studies, name, lambda *args: None)
        patch.setattr(studies, "importances", lambda study: {})
        tune.main([str(word) for word in argv])
    return path


def load(path) -> dict:
    return json.loads(path.read_text())


# ---- the search ----


def test_the_space_holds_what_a_recipe_has():
    limits = optuna.distributions
    trial = optuna.create_study().ask()
    found = tune.suggest(trial)
    for recipe in tune.RECIPES.values():
        assert found.keys() <= recipe.keys(), "a name that no flag has would change nothing"
        for name in ("lr", "weight_decay", "dropout", "label_smoothing", "shift", "zoom", "flip"):
            space = trial.distributions[name]
            assert space._contains(space.to_internal_repr(recipe[name])), "by hand: out of reach"
    assert isinstance(trial.distributions["lr"], limits.FloatDistribution)
    assert trial.distributions["lr"].log and trial.distributions["weight_decay"].log


def test_fit_trains_as_train_does(tmp_path, small, monkeypatch, capsys):
    """The same weights as those of a run of train.py, bit by bit."""
    from CNN_Torch import train
    from common import checkpoint

    place = make_digits(tmp_path / "data")
    flags = ["--dataset", "mnist", "--data-dir", place, "--run-dir", tmp_path / "run"]
    assert call(capsys, train.main, *flags, "--epochs", 2, "--seed", 3).code == 0
    args = Namespace(dataset="mnist", data_dir=str(place), images=None, epochs=2, device="cpu")
    *_, model = tune.fit(tune.recipe_with({}, args), tune.load_data(args)[0], seed=3)
    expected = checkpoint.load(tmp_path / "run" / "last.safetensors")["model"]
    assert model.state_dict().keys() == expected.keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, expected[name]), name


def test_halves_of_the_validation_split_share_no_image(tmp_path):
    place = make_digits(tmp_path / "data")
    args = Namespace(dataset="mnist", data_dir=str(place), images=40, device="cpu")
    train, seen, unseen = tune.load_data(args)
    _, validation = tune.load_training("mnist", str(place))
    assert len(train) == 40 and len(seen) + len(unseen) == len(validation)
    assert not (seen.inputs[:, None] == unseen.inputs[None]).all((2, 3, 4)).any()


@pytest.mark.long
def test_a_search_has_its_budget_prunes_and_picks_the_best(flags, capsys):
    argv, path = flags
    result = call(capsys, tune.main, *argv)
    assert (result.code, result.err) == (0, "")
    record = load(path)
    for trials in record["searches"].values():
        assert 14 <= sum(len(t["accuracies"]) for t in trials) <= 15
        assert {len(t["accuracies"]) for t in trials if t["state"] == "complete"} == {2}
        assert {len(t["accuracies"]) for t in trials if t["state"] == "pruned"} <= {1}
        assert len({t["parameters"]["lr"] for t in trials}) == len(trials), "none is a repetition"
        last = [t["accuracies"][-1] for t in trials if t["state"] == "complete"]
        assert tune.best(trials)["accuracies"][-1] == max(last)
    seeds = [(row["seed"], row["recipe"]) for row in record["rows"]]
    assert seeds == [(s, r) for s in (100, 101) for r in ("by hand", "tpe", "random")]


def test_the_pruner_is_the_median_of_earlier_trials(small, tmp_path, monkeypatch):
    """A trial whose first accuracy is below the median of five goes no further."""
    accuracies = iter([0.5, 0.6] * 5 + [0.4, *[0.9] * 9])
    monkeypatch.setattr(tune, "fit", lambda recipe, train, seed: iter([None] * recipe.epochs))
    monkeypatch.setattr(tune, "accuracy", lambda model, data: next(accuracies))
    args = Namespace(dataset="mnist", epochs=2, budget=13, jobs=1)
    tune.search("random", tmp_path / "a.db", 0, args, (None, None, None))
    trials = studies.trials_of(studies.open_store("random", tmp_path / "a.db"))
    assert [t["state"] for t in trials] == ["complete"] * 5 + ["pruned", "complete"]


@pytest.mark.parametrize("after", [5, 16])
@pytest.mark.long
def test_a_killed_search_ends_as_one_that_never_stopped(after, flags, whole, monkeypatch, capsys):
    """Killed in an epoch of either search or of the comparison: no trial is made twice, and the
    trials that follow are those that would have followed."""
    argv, path = flags
    fit, begun = tune.fit, []

    def counted(recipe, train, seed):
        begun.append(seed)
        for epoch, model in enumerate(fit(recipe, train, seed)):
            if len(begun) == after + 1 and epoch == 1:
                raise Stop
            yield model

    monkeypatch.setattr(tune, "fit", counted)
    monkeypatch.setattr(studies, "importances", lambda study: {})
    with pytest.raises(Stop):
        call(capsys, tune.main, *argv)
    assert call(capsys, tune.main, *argv).code == 0
    found, expected = load(path), load(whole)
    trials = sum(len(trials) for trials in expected["searches"].values())
    assert len(begun) == trials + 6 + 1, "one training was lost, no other"
    for record in (found, expected):
        for trials in record["searches"].values():
            for trial in trials:
                del trial["number"]  # those that failed have one too
    assert found["searches"] == expected["searches"] and found["rows"] == expected["rows"]
    call(capsys, tune.main, *argv)
    assert len(begun) == sum(map(len, found["searches"].values())) + 7, "it was complete"


def of_store(store, name: str) -> list:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.load_study(study_name=name, storage=f"sqlite:///{store}").trials


@pytest.mark.long
def test_two_workers_on_one_store_lose_nothing(tmp_path, monkeypatch, capsys):
    """Killed with -9 in the middle, workers too, and started again: every trial that was finished
    is there, no two propose the same, and the budget is spent once."""
    place, path = make_digits(tmp_path / "data"), tmp_path / "study" / "found.json"
    argv = ["--dataset", "mnist", "--data-dir", place, "--images", 40, "--epochs", 1]
    argv += ["--budget", 8, "--seeds", 1, "--jobs", 2, "--output", path]
    store = path.with_suffix(".db")
    process = start(ROOT / "CNN_Torch" / "tune.py", *argv, start_new_session=True)

    def finished() -> int:
        try:
            with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
                query = "SELECT count(*) FROM trials WHERE state = 'COMPLETE'"
                return connection.execute(query).fetchone()[0]
        except sqlite3.OperationalError:  # it is not there yet
            return 0

    wait_until(lambda: finished() >= 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    monkeypatch.setattr(studies, "importances", lambda study: {})
    kept = {t.number: t.params for t in of_store(store, "tpe") if t.state.name == "COMPLETE"}
    result = call(capsys, tune.main, *argv)
    assert (result.code, result.err) == (0, "")
    for name in tune.SAMPLERS:
        whole = [t for t in of_store(store, name) if t.state.name == "COMPLETE"]
        recorded = {t["number"]: t["parameters"] for t in load(path)["searches"][name]}
        assert {t.number: t.params for t in whole} == recorded and len(recorded) == 8
        assert len({parameters["lr"] for parameters in recorded.values()}) == 8
        if name == "tpe":
            assert len(kept) >= 2 and kept.items() <= recorded.items()


@pytest.mark.parametrize("folder", ["what?", "100%20", "{name}", "#1"])
def test_the_store_is_made_where_it_is_asked_for(folder, tmp_path):
    (tmp_path / folder).mkdir()
    studies.open_store("tpe", tmp_path / folder / "a.db")
    assert sorted(p.name for p in tmp_path.rglob("*")) == sorted([folder, "a.db"])


def test_a_seed_is_free_again_only_when_its_trial_failed(tmp_path):
    study = studies.open_store("tpe", tmp_path / "a.db")
    for seed in (0, 1, 2):
        study.ask().set_user_attr("seed", seed)
    study.tell(0, state=optuna.trial.TrialState.FAIL)
    study.tell(1, 0.5)
    assert studies.free_seed(study, first=0) == 0
    study.ask().set_user_attr("seed", 0)
    assert (studies.free_seed(study, first=0), studies.free_seed(study, first=7)) == (3, 7)


def test_running_trials_keep_their_share_of_the_budget(tmp_path):
    study = studies.open_store("tpe", tmp_path / "a.db")
    first, second = study.ask(), study.ask()
    first.report(0.1, 1)
    assert studies.spent(study, epochs=4) == 8
    study.tell(first, state=optuna.trial.TrialState.PRUNED)
    assert studies.spent(study, epochs=4) == 5
    second.report(0.3, 1)
    studies.release(study)
    assert studies.spent(study, epochs=4) == 1 and len(studies.trials_of(study)) == 1


def test_importance_finds_what_matters(tmp_path):
    """Of f(a, b) = a² alone; too few trials say nothing."""
    study = studies.open_store("tpe", tmp_path / "a.db")
    assert studies.importances(study) == {}
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    study.optimize(lambda t: t.suggest_float("a", 0, 1) ** 2 + 0 * t.suggest_float("b", 0, 1), 30)
    found = studies.importances(study)
    assert found["a"] > 0.9 and sum(found.values()) == pytest.approx(1, abs=1e-3)


def test_bad_flags_and_other_files_are_one_line(flags, monkeypatch, capsys):
    argv, path = flags
    for flag in ("--jobs", "--budget", "--epochs", "--images", "--seeds"):
        assert_one_line(call(capsys, tune.main, *argv, flag, 0), flag)
    assert_one_line(call(capsys, tune.main, *argv, "--images", 9999), "9999")
    assert_one_line(call(capsys, tune.main, *argv, "--dataset", "cifar10"), "cifar10")
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".db").write_text("no database, but long enough to be taken for one" * 9)
    assert_one_line(call(capsys, tune.main, *argv), path.with_suffix(".db"), "damaged", "remove")
    path.with_suffix(".db").unlink()
    studies.open_store("tpe", path.with_suffix(".db")).set_user_attr("settings", {"budget": 1})
    assert_one_line(call(capsys, tune.main, *argv), path.with_suffix(".db"), "other flags")
    path.write_text(json.dumps({"settings": {"budget": 1}, "rows": []}))
    assert_one_line(call(capsys, tune.main, *argv), path, "other flags")
    path.write_text("{")
    assert_one_line(call(capsys, tune.main, *argv), path, "damaged")


def test_optuna_is_imported_where_it_is_needed_alone():
    """It takes seconds, and --help needs none of it."""
    for name in ("tune.py", "utils/studies.py", "lr_range.py"):
        tree = ast.parse((ROOT / "CNN_Torch" / name).read_text())
        top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        assert not any("optuna" in ast.unparse(node) for node in top)


def test_more_images_than_there_are_is_one_line_with_the_flag(tmp_path, capsys):
    argv = ["--data-dir", make_digits(tmp_path, "fashion-mnist"), "--images", 60_000]
    result = call(capsys, tune.main, *argv, "--output", tmp_path / "rows.json")
    assert_one_line(result, "--images 60000 is more than")


@pytest.mark.smoke
@pytest.mark.pictures
@pytest.mark.long
def test_quick_search_shows_both_and_the_recipe_by_hand(tmp_path, monkeypatch, capsys):
    small = {"images": 60, "budget": 4, "channels": [2], "hidden_size": 0, "seeds": 1}
    monkeypatch.setattr(tune, "QUICK", {**tune.QUICK, **small})
    path = tmp_path / "quick.json"
    result = call(capsys, tune.main, "--quick", "--output", path)
    assert (result.code, result.err) == (0, "")
    assert all(f"| {name} |" in result.out for name in ("by hand", "tpe", "random"))
    for picture in ("tune.png", "tune_importance.png", "tune_slices.png"):
        assert (tmp_path / picture).stat().st_size > 5_000


def filled(script, name: str, path, tmp_path, monkeypatch) -> str:
    readme = tmp_path / "CNN_Torch" / "README.md"
    readme.parent.mkdir()
    readme.write_text(f"<!-- {name} -->\n<!-- /{name} -->\n")
    (readme.parent / f"{name}.py").write_text("")
    table = script.table
    assert table(tmp_path / "none.json") == "Nothing recorded yet."
    monkeypatch.setattr(script, "table", lambda: table(path))
    return report.fill(readme)


@pytest.mark.long
def test_the_searches_table_is_made_of_the_record(whole, tmp_path, monkeypatch):
    text, record = filled(tune, "tune", whole, tmp_path, monkeypatch), load(whole)
    trials = record["searches"]["tpe"]
    found = [r["validation"]["accuracy"] for r in record["rows"] if r["recipe"] == "tpe"]
    new = 100 * torch.tensor(found).double()
    pruned, epochs = (sum(map(of, trials)) for of in (
        lambda t: t["state"] == "pruned", lambda t: len(t["accuracies"])))  # fmt: skip
    best = tune.best(trials)
    cells = ["tpe", f"{100 * best['accuracies'][-1]:.2f}", f"{new.mean():.2f} ± {new.std():.2f}"]
    cells += ["2", f"{len(trials)}", f"{pruned}", f"{epochs}", f"{best['parameters']['lr']:.3g}"]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    at = lines[0].index("tpe")
    assert [line[at] for line in lines if line[0] != "---"][: len(cells)] == cells
    assert "--dataset mnist --images 40 --epochs 2 --budget 14`" in text


# ---- the learning-rate range test ----


def test_rates_are_those_of_exponential_lr():
    low, high, steps = 1e-5, 2.0, 50
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=low)
    gamma = (high / low) ** (1 / (steps - 1))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)
    expected = []
    for _ in range(steps):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert lr_range.rates(low, high, steps) == pytest.approx(expected, rel=1e-9)


def test_smoothed_loss_is_pandas():
    losses = torch.rand(40, generator=torch.Generator().manual_seed(0)).tolist()
    expected = pd.Series(losses).ewm(alpha=1 - lr_range.SMOOTHING, adjust=True).mean()
    assert lr_range.smoothed(losses) == pytest.approx(expected.tolist(), rel=1e-9)


def test_steepest_and_lowest_of_a_known_curve():
    """1 / (1 + e^(s − 60)) falls fastest in step 60; then it rises from step 90 on."""
    losses = [1 / (1 + 2.718281828 ** (0.2 * (s - 60))) for s in range(90)]
    losses += [losses[-1] + 0.1 * s for s in range(1, 6)]
    settings = {"low": 1e-4, "high": 1.0, "steps": 120}
    lrs = lr_range.rates(1e-4, 1.0, 120)
    found = lr_range.suggested({"losses": losses}, settings)
    assert found == {"steepest": lrs[60], "lowest": lrs[89]}
    exploded = [*losses, 50.0, 30.0, 10.0]  # falls faster than ever
    assert lr_range.suggested({"losses": exploded}, settings) == found


@pytest.fixture
def ranged(tmp_path, small):
    place, path = make_digits(tmp_path / "data"), tmp_path / "study" / "range.json"
    flags = ["--dataset", "mnist", "--data-dir", place, "--steps", 30, "--seeds", 2]
    return [*flags, "--high", 10, "--output", path], path


def test_each_step_has_its_rate_and_a_loss_that_explodes_ends_it(ranged, monkeypatch, capsys):
    argv, path = ranged
    used, step = [], torch.optim.AdamW.step

    def note(self, *args, **kwargs):
        used.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    call(capsys, lr_range.main, *argv, "--low", 1e-3, "--seeds", 1)
    whole = lr_range.rates(1e-3, 10, 30)
    assert used == whole[: len(used)] and len(load(path)["rows"][0]["losses"]) == len(used) == 30
    used.clear()
    monkeypatch.setattr(lr_range, "STOP", 1.1)
    argv = [*argv, "--low", 1e-2, "--output", path.with_name("b.json")]
    call(capsys, lr_range.main, *argv, "--seeds", 1)
    assert 3 <= len(used) < 30


def test_a_killed_range_test_goes_on(ranged, monkeypatch, capsys):
    argv, path = ranged
    measure, begun = lr_range.measure, []

    def counted(train, recipe, args, seed):
        begun.append(seed)
        if len(begun) == 2:
            raise Stop
        return measure(train, recipe, args, seed)

    monkeypatch.setattr(lr_range, "measure", counted)
    with pytest.raises(Stop):
        call(capsys, lr_range.main, *argv)
    first = load(path)["rows"]
    call(capsys, lr_range.main, *argv)
    assert begun == [0, 1, 1] and load(path)["rows"][:1] == first
    call(capsys, lr_range.main, *argv)
    assert len(begun) == 3, "it was complete"
    assert_one_line(call(capsys, lr_range.main, *argv, "--steps", 31), path, "other flags")


def test_a_range_that_is_none_is_one_line(ranged, monkeypatch, capsys):
    argv, _ = ranged
    assert_one_line(call(capsys, lr_range.main, *argv, "--low", 10), "--high 10", "--low 10")
    assert_one_line(call(capsys, lr_range.main, *argv, "--steps", 9), "--steps")
    monkeypatch.setattr(lr_range, "smoothed", lambda losses: [0.1, 9.0][: len(losses)])
    assert_one_line(call(capsys, lr_range.main, *argv), "--low")


@pytest.mark.smoke
@pytest.mark.pictures
@pytest.mark.parametrize("dataset", ["mnist-sample", "fashion-mnist"])
@pytest.mark.long
def test_the_picture_marks_the_rate_that_the_search_found(dataset, tmp_path, monkeypatch, capsys):
    """And the table names it, where the record is of the same dataset."""
    tiny = {**tune.RECIPES["mnist-sample"], "channels": [2]}
    monkeypatch.setitem(tune.RECIPES, "mnist-sample", tiny)
    trial = {"state": "complete", "accuracies": [0.5], "parameters": {"lr": 0.0123}}
    record = {"settings": {"dataset": dataset}, "rows": [], "searches": {"tpe": [trial]}}
    monkeypatch.setattr(tune, "RECORD", tmp_path / "tuned.json")
    tune.RECORD.write_text(json.dumps(record))
    labels, save = [], lr_range.save

    def note(figure, path):
        labels.extend(figure.axes[0].get_legend_handles_labels()[1])
        save(figure, path)

    monkeypatch.setattr(lr_range, "save", note)
    result = call(capsys, lr_range.main, "--quick", "--output", tmp_path / "a.json")
    assert (result.code, result.err) == (0, "") and "by hand: 0.01" in labels
    same = dataset == "mnist-sample"
    assert ("tune.py: 0.012" in labels) == ("| tune.py | 0.012 |" in result.out) == same
    assert (tmp_path / "lr_range.png").stat().st_size > 5_000


def test_the_range_tests_table_is_made_of_the_rows(ranged, tmp_path, monkeypatch, capsys):
    argv, path = ranged
    call(capsys, lr_range.main, *argv)
    text, study = filled(lr_range, "lr_range", path, tmp_path, monkeypatch), load(path)
    found = [lr_range.suggested(row, study["settings"])["lowest"] for row in study["rows"]]
    middle = (found[0] * found[1]) ** 0.5
    assert f"| {middle:.2g} | {min(found):.2g} | {max(found):.2g} | 2 |" in text
    assert "`python CNN_Torch/lr_range.py --dataset mnist" in text


def test_a_damaged_store_is_named(tmp_path):
    (tmp_path / "a.db").write_bytes(b"\x00" * 5_000 + b"SQLite" * 900)
    with user_error(tmp_path / "a.db", "remove it"):
        studies.open_store("tpe", tmp_path / "a.db")
