"""MLP_Manual/optimizers.py and MLP_Torch/torch_optim.py: the study of optimisers and rates."""

import itertools
import json
import statistics

import pytest
import torch

from common.results import report
from common.results import rows as kept
from MLP_Manual import optimizers as script
from MLP_Manual.dataset import load_training
from MLP_Manual.utils.optim import OPTIMIZERS
from MLP_Manual.utils.optimizer_plots import best_rates, of, reached
from MLP_Torch import torch_optim as native
from tests.running import Stop, assert_one_line, call, make_digits, start, wait_until


def make_few(patch) -> None:
    """A small network, six rates (--quick: two) and three optimisers."""
    network = script.MLP

    def small(features, sizes, classes, **options):
        return network(features, (8, 8), classes, **options)

    patch.setattr(script, "MLP", small)
    patch.setattr(script, "RATES", [1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1])
    patch.setattr(script, "OPTIMIZERS", {n: OPTIMIZERS[n] for n in ("sgd", "adam", "muon")})


@pytest.fixture
def few(monkeypatch):
    make_few(monkeypatch)


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> bytes:
    """What --quick finds."""
    path = tmp_path_factory.mktemp("quick") / "rows.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *to, **how: None)
        make_few(patch)
        script.main(["--quick", "--output", str(path)])
    return path.read_bytes()


def rows(path) -> list[dict]:
    """Without what no two trainings share."""
    found = json.loads(path.read_text())["rows"]
    return [{k: v for k, v in row.items() if k not in ("seconds", "commit")} for row in found]


@pytest.mark.pictures
@pytest.mark.long
def test_a_small_study_is_recorded_and_shown(few, tmp_path, monkeypatch, capsys):
    record = tmp_path / "results" / "compare_optimizers.json"
    table = script.table
    monkeypatch.setattr(script, "table", lambda path=record: table(path))
    for dataset in ("mnist", "fashion-mnist"):
        make_digits(tmp_path, dataset)
    argv = ["--epochs", 2, "--data-dir", tmp_path, "--output", record]
    assert call(capsys, script.main, *argv, "--seeds", 1).code == 0
    first = json.loads(record.read_text())["rows"]
    result = call(capsys, script.main, *argv, "--seeds", 2)
    assert (result.code, result.err) == (0, "")
    found = json.loads(record.read_text())
    assert found["rows"][: len(first)] == first, "a second seed is added, nothing is done twice"
    jobs = {(r["dataset"], r["optimizer"], r["lr"], r["seed"]) for r in found["rows"]}
    assert len(jobs) == len(found["rows"]) == 2 * 3 * 6 * 2
    assert found["settings"]["epochs"] == 2 and found["command"].endswith("--epochs 2")
    assert (tmp_path / "results" / "optimizers.png").stat().st_size > 10_000
    # without momentum none; two averages; a velocity where Muon's are two
    assert [found["steps"][n]["kept"] for n in ("sgd", "adam")] == [0, 2]
    assert 1 < found["steps"]["muon"]["kept"] < 2

    folder = tmp_path / "MLP_Manual"
    folder.mkdir()
    (folder / "optimizers.py").write_text("")  # the report asks the script of that name
    readme = folder / "README.md"
    readme.write_text("<!-- optimizers -->\nold\n<!-- /optimizers -->\n")
    text = report.fill(readme)
    best = best_rates(found, "mnist")["adam"]
    accuracy = 100 * statistics.fmean(r["accuracy"] for r in of(found, "mnist", "adam", best))
    assert f"| adam | {best:.2g} | {accuracy:.2f} ± " in text and "old" not in text


def test_a_killed_study_goes_on_and_does_nothing_twice(few, quick, tmp_path, monkeypatch):
    whole, path = tmp_path / "whole.json", tmp_path / "half" / "rows.json"
    whole.write_bytes(quick)
    trained, fit = [], script.fit

    def fit_and_stop(*job):
        if len(trained) == 2:
            raise Stop
        trained.append(job[:3])
        return fit(*job)

    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr(script, "fit", fit_and_stop)
            trained.clear()  # two trainings more, each time
            script.main(["--quick", "--output", str(path)])
    assert (len(rows(path)), len(rows(whole))) == (4, 6)
    script.main(["--quick", "--output", str(path)])
    assert rows(path) == rows(whole)


@pytest.mark.long
def test_a_process_that_is_killed_leaves_whole_rows(tmp_path):
    path = tmp_path / "rows.json"
    process = start("MLP_Manual/optimizers.py", "--quick", "--output", path)
    wait_until(path.is_file, process)
    process.kill()
    process.communicate()
    known = rows(path)
    again = start("MLP_Manual/optimizers.py", "--quick", "--output", path)
    wait_until(lambda: len(rows(path)) > len(known), again)
    again.kill()
    again.communicate()
    after = rows(path)
    assert after[: len(known)] == known
    assert len({(r["optimizer"], r["lr"]) for r in after}) == len(after)


def test_subnormal_numbers_are_0_while_it_trains_and_only_then(few, tmp_path, monkeypatch):
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot")
    seen = []

    def look(*job):
        seen.append((torch.full((64,), 1e-40) * 1).sum().item())
        return {"diverged": True, "step": 0, "seconds": 0.0}

    monkeypatch.setattr(script, "fit", look)
    script.main(["--quick", "--output", str(tmp_path / "rows.json")])
    assert seen == [0] * 6 and (torch.full((64,), 1e-40) * 1).sum() > 0


@pytest.mark.parametrize("how", ["text", "cut short", "of other rates", "other epochs"])
def test_a_file_of_something_else_is_one_line_and_stays(
    how, few, quick, tmp_path, capsys, monkeypatch
):
    path = tmp_path / "rows.json"
    path.write_bytes(quick)
    if how == "of other rates":
        monkeypatch.setattr(script, "RATES", [1.0, 2.0, 3.0])
    elif how == "other epochs":
        record = json.loads(path.read_text())
        record["settings"]["epochs"] = 7
        kept.write(path, record)
    else:
        path.write_bytes(b"[]" if how == "text" else path.read_bytes()[:200])
    content = path.read_bytes()
    result = call(capsys, script.main, "--quick", "--output", path)
    assert_one_line(result, path, "other flags" if "other" in how else "damaged")
    assert path.read_bytes() == content


@pytest.mark.parametrize("study", ["compare_signals.json", "unfinished"])
def test_torch_optim_refuses_rows_that_are_not_those_by_hand(study, tmp_path, capsys):
    path = native.FOLDER / "results" / study
    if study == "unfinished":  # stopped before its steps were timed
        path = tmp_path / "rows.json"
        whole = kept.read(script.RECORD)
        kept.write(path, {k: v for k, v in whole.items() if k != "steps"} | {"rows": []})
    result = call(capsys, native.main, "--by-hand", path, "--output", tmp_path / "native.json")
    assert_one_line(result, path, "holds no rows of MLP_Manual/optimizers.py")


@pytest.mark.long
def test_torch_optim_goes_the_same_way(few, tmp_path, monkeypatch, capsys):
    """Every optimiser of the study by hand, from the same weights and with the same batches."""
    monkeypatch.setattr(script, "OPTIMIZERS", OPTIMIZERS)
    monkeypatch.setattr(script, "RATES", [1e-3, 1e-2, 1e4])
    by_hand, path = tmp_path / "by_hand.json", tmp_path / "native" / "rows.json"
    place = make_digits(tmp_path / "data")
    make_digits(tmp_path / "data", "fashion-mnist")
    argv = ["--seeds", 2, "--epochs", 2, "--data-dir", place]
    assert call(capsys, script.main, *argv, "--output", by_hand).code == 0

    network = native.MLP
    monkeypatch.setattr(
        native, "MLP", lambda inputs, sizes, classes, **kw: network(inputs, (8, 8), classes, **kw)
    )
    argv = ["--by-hand", by_hand, "--data-dir", place, "--output", path]
    result = call(capsys, native.main, *argv)
    assert (result.code, result.err) == (0, "")
    found = kept.read(path)
    assert {(r["optimizer"], r["dataset"], r["lr"], r["seed"]) for r in found["rows"]} == set(
        itertools.product(OPTIMIZERS, ("mnist", "fashion-mnist"), (1e-3, 1e-2, 1e4), (0, 1))
    )
    diverged = [row for row in found["rows"] if row["diverged"]]
    assert {row["optimizer"] for row in diverged} >= {"sgd", "momentum", "nesterov"}
    assert {row["lr"] for row in diverged} == {1e4}
    for row in diverged:
        assert (row["accuracy"], row["by_hand"], row["first"]) == (None, None, None)
    for row in found["rows"]:
        if row["lr"] == 1e4:
            continue
        assert row["first"] <= row["whole"] < 1e-4, "float32, and curves of six decimals"
        assert row["accuracy"] == pytest.approx(row["by_hand"], abs=0.02)
    for name in OPTIMIZERS:  # by hand and torch.optim keep as much
        assert found["steps"][name]["bytes"] == pytest.approx(found["by_hand"][name]["bytes"])
    assert "| sgd | 12 | 4 | 4 | 6 | 6 |" in result.out, "the whole grid"
    assert "| muon | " in result.out and native.table(tmp_path / "x") == "Nothing recorded yet."

    assert native.WEIGHT_DECAY == script.WEIGHT_DECAY and native.POINTS == script.POINTS
    monkeypatch.setattr(native, "MANUAL", tmp_path)
    result = call(capsys, native.main, "--quick")
    lacks = tmp_path / "runs" / "quick" / "optimizers.json"
    assert_one_line(result, lacks, "python MLP_Manual/optimizers.py --quick")

    argv[0:2] = ["--by-hand", tmp_path / "other.json"]
    others = kept.read(by_hand)
    more = [{**row, "seed": 2} for row in others["rows"] if row["seed"] == 1]
    kept.write(argv[1], others | {"rows": others["rows"] + more})
    assert call(capsys, native.main, *argv).code == 0, "more seeds are added"
    assert len(kept.read(path)["rows"]) == len(found["rows"]) + len(more)
    changed = [{**row, "accuracy": 0.5} for row in others["rows"]]
    kept.write(argv[1], others | {"rows": changed})
    assert_one_line(call(capsys, native.main, *argv), path, "other rows by hand", "--output")


@pytest.mark.smoke
def test_torch_optim_killed_goes_on_from_what_quick_found(quick, tmp_path, monkeypatch):
    by_hand, whole, path = (tmp_path / f"{name}.json" for name in ("by_hand", "whole", "half"))
    by_hand.write_bytes(quick)
    network, fit, trained = native.MLP, native.fit, []
    monkeypatch.setattr(
        native, "MLP", lambda inputs, sizes, classes, **kw: network(inputs, (8, 8), classes, **kw)
    )
    argv = ["--quick", "--by-hand", str(by_hand), "--output"]
    native.main([*argv, str(whole)])

    def fit_and_stop(*job):
        if len(trained) == 1:
            raise Stop
        trained.append(job[:3])
        return fit(*job)

    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr(native, "fit", fit_and_stop)
            trained.clear()  # a training more, each time
            native.main([*argv, str(path)])
    assert (len(rows(path)), len(rows(whole))) == (2, 6)
    native.main([*argv, str(path)])
    assert rows(path) == rows(whole)


def test_both_take_the_same_rates():
    """MLP_Manual's, which marks them in its table, and those that torch.optim is tried at."""
    by_hand, study = kept.read(script.RECORD), kept.read(native.RECORD)
    assert study["settings"]["rates"] == by_hand["settings"]["rates"]
    for dataset, rates in study["best"].items():
        assert native.best_rates(by_hand, dataset) == best_rates(by_hand, dataset) == rates


def test_digits_are_counted():
    """0.5000 and 0.5005 agree to three digits."""
    row, other = {"curve": [0.5, 0.5]}, {"curve": [0.5, 0.5005]}
    assert native.largest_difference(row, other, 1) == 0
    assert native.largest_difference(row, other) == pytest.approx(0.001, rel=0.01)
    assert (native.digits(0.0), native.digits(0.001)) == ("6", "3.0")


def test_a_rate_that_is_too_high_diverges_and_says_so():
    train, held_out = load_training("mnist-sample")
    found = script.fit("sgd", 1e4, 0, 1, train.subset(512), held_out)
    assert found["diverged"] and "accuracy" not in found and found["step"] < 4
    record = {
        "settings": {"rates": [1e-2, 1e4], "datasets": ["mnist-sample"]},
        "rows": [
            {"dataset": "mnist-sample", "optimizer": "sgd", "lr": 1e4, "seed": 0, **found},
            {"dataset": "mnist-sample", "optimizer": "sgd", "lr": 1e-2, "seed": 0,
             "diverged": False, "accuracy": 0.5},
        ],
    }  # fmt: skip
    assert reached(record, "mnist-sample", "sgd", 1) == "diverges"
    assert reached(record, "mnist-sample", "sgd", 0) == "50.00"
    assert reached(record, "mnist-sample", "sgd", 2) == reached(record, "x", "sgd", -1) == "–"
    assert best_rates(record, "mnist-sample") == {"sgd": 1e-2}


def test_every_training_starts_alike_and_its_curve_is_the_mean_loss(few):
    train, held_out = load_training("mnist-sample")
    train = train.subset(1280)
    runs = [script.fit("adam", 1e-30, 3, 2, train, held_out) for _ in range(2)]
    for run in runs:
        run.pop("seconds")
    assert runs[0] == runs[1], "nothing is drawn but from the seed"
    curve = torch.tensor(runs[0]["curve"])
    assert len(curve) == 2 * script.POINTS  # one step in each point; nothing was learned
    assert abs(curve[:10].mean() - curve[10:].mean()) < 1e-3


def test_the_study_of_the_readme_is_whole():
    if not script.RECORD.is_file():
        pytest.skip("not recorded yet")
    record = json.loads(script.RECORD.read_text(encoding="utf-8"))
    found = [tuple(r[k] for k in ("dataset", "optimizer", "lr", "seed")) for r in record["rows"]]
    seeds = len({row["seed"] for row in record["rows"]})
    jobs = script.jobs(record["settings"], seeds)
    assert sorted(found) == sorted(tuple(job.values()) for job in jobs)
    assert seeds >= 3 and set(record["steps"]) == set(OPTIMIZERS)
    assert "sample" not in str(record["settings"]["datasets"])
    assert not any(str(row["commit"]).endswith("-dirty") for row in record["rows"])
