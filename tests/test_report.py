"""common/results/report.py on made-up records; and the READMEs and records of this repository."""

import json
import math
import shlex
from pathlib import Path

import pytest
import torch

from common import cli
from common.data import ROOT
from common.device import environment
from common.history import METRICS
from common.results import report
from common.results.records import write as write_record
from common.results.tables import lines_of_code
from MLP_Manual.dataset import mnist
from MLP_Manual.dataset.idx import KNOWN
from RNN_Manual import compare_layers
from tests.conftest import user_error
from tests.running import (
    AUTOENCODERS,
    FOLDERS,
    GAMES,
    TRANSFORMERS,
    WRITERS,
    assert_one_line,
    call,
    script,
)

READMES = [path for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]) if path.exists()]
RECORDS = [p for p in sorted(ROOT.glob("*/results/*.json")) if not p.name.startswith("compare")]
COMPARISONS, STUDIES = (
    [path for path in sorted(ROOT.glob("*/results/compare*.json"))
     if key in json.loads(path.read_text(encoding="utf-8"))] for key in ("twins", "rows")
)  # fmt: skip


def name(path) -> str:
    return path.relative_to(ROOT).as_posix()


# ---- on made-up records ----

ENVIRONMENT = environment(torch.device("cpu")) | {"processor": "a processor", "torch": "2.3.1"}


def make_record(dataset: str, accuracies: list[float], **changes) -> dict:
    """A record with a run of each test accuracy, whose seeds count from 0."""
    runs = [
        {
            "seed": seed, "epochs": 20, "best_epoch": 19, "seconds": 60.0 + 2 * seed,
            "commit": "abc", "validation": {"loss": 0.07, "accuracy": 0.98},
            "test": {"loss": 0.05 + 0.01 * seed, "accuracy": accuracy},
        }
        for seed, accuracy in enumerate(accuracies)
    ]  # fmt: skip
    record = {
        "model": "MLP", "dataset": dataset, "config": dataset, "sample": False,
        "command": f"python MLP/train.py --dataset {dataset}", "hyperparameters": {},
        "parameters": 1234567, "data": {"examples": {}, "sha256": {}},
        "environment": ENVIRONMENT,
        "runs": runs,
    }  # fmt: skip
    return record | changes


COMPARISON = {
    "command": "python -m common.results.compare MLP",
    "twins": {"manual": "MLP", "torch": "MLP_Torch"},
    "batch_size": 128, "steps": 20, "step_milliseconds": {"manual": 12.5, "torch": 10.0},
    "step_ratio": 1.25, "largest_difference": {"loss": 1e-15, "gradient": 2e-13},
    "environment": ENVIRONMENT,
}  # fmt: skip
TEXT = "# Title\n\n<!-- results -->\nold\n<!-- /results -->\n\nBetween\n<!-- compare -->\n\n"
TEXT += "<!-- /compare -->\n\nThe end.\n"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository of two model folders, with READMEs and no records yet."""
    monkeypatch.setattr(report, "ROOT", tmp_path)
    for folder in ("MLP", "MLP_Torch"):
        (tmp_path / folder / "results").mkdir(parents=True)
        (tmp_path / folder / "model.py").write_text("")
        (tmp_path / folder / "README.md").write_text(TEXT)
    (tmp_path / "README.md").write_text(TEXT)
    return tmp_path


def put(root, *records: dict, folder: str = "MLP") -> None:
    for record in records:
        path = root / folder / "results" / f"{record['config']}.json"
        path.write_text(json.dumps(record))


def rows(text: str) -> list[list[str]]:
    """The cells of the first table in the text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


NOTHING = dict(model=object(), parameters=1, splits={}, test={})


@pytest.mark.smoke
def test_a_run_that_patience_has_not_ended_is_not_recorded(tmp_path):
    def write(*losses: float):
        rows = [{"epoch": n, "seconds": 1.0, "validation_loss": loss, "lr": 0.1}
                for n, loss in enumerate(losses, start=1)]  # fmt: skip
        config = {"dataset": "mnist", "epochs": 20, "patience": 2, "seed": 0, "given": []}
        config |= {"commit": "abc", "environment": {}}
        state = {"epoch": len(rows), "history": rows}
        return write_record(tmp_path, "mnist", config, state, **NOTHING)

    with user_error("epoch 2 of 20", "--resume"):
        write(1.0, 1.1)
    assert write(1.0, 1.1, 1.2)[0].is_file()


def test_a_seed_is_added_to_a_record_that_is_older_than_a_flag(tmp_path):
    def write(seed: int, given: list[str], **flags):
        row = {"epoch": 1, "seconds": 1.0, "validation_loss": 1.0, "lr": 0.1}
        config = {"dataset": "mnist", "epochs": 1, "seed": seed, "given": given, **flags}
        config |= {"commit": "abc", "environment": {}}
        state = {"epoch": 1, "history": [row]}
        path, _ = write_record(tmp_path, "mnist", config, state, **NOTHING)
        return json.loads(path.read_text())

    write(0, [])
    with user_error("of other hyperparameters"):
        write(1, ["precision"], precision="bfloat16")
    written = write(1, [], precision="float32")
    assert len(written["runs"]) == 2 and written["hyperparameters"]["precision"] == "float32"
    with user_error("of other hyperparameters"):
        write(2, [], precision="bfloat16")


def test_a_record_says_what_files_are_called_and_not_where_they_lie(tmp_path):
    """They may be moved: the next seed is of the same recipe. A shell takes the command apart."""

    def write(seed: int, place: Path):
        row = {"epoch": 1, "seconds": 1.0, "validation_loss": 1.0, "lr": 0.1}
        config = {"dataset": "files", "src": str(place / "de.txt"), "tgt": str(place / "in en.txt")}
        config |= {"betas": [0.5, 0.9], "clip": False, "bias": True, "epochs": 1, "seed": seed}
        config |= {"given": ["dataset", "src", "tgt", "betas", "clip", "bias"]}
        config |= {"commit": "abc", "environment": {}}
        path, _ = write_record(tmp_path, "mine", config, {"epoch": 1, "history": [row]}, **NOTHING)
        return json.loads(path.read_text())

    write(0, tmp_path / "here")
    written = write(1, tmp_path / "my texts")
    assert len(written["runs"]) == 2 and str(tmp_path) not in json.dumps(written)
    words = ["--dataset", "files", "--src", "de.txt", "--tgt", "in en.txt", "--betas", "0.5", "0.9"]
    expected = ["python", f"{tmp_path.name}/train.py", *words, "--no-clip", "--bias"]
    assert shlex.split(written["command"]) == expected


def test_a_readme_that_cannot_be_written_stays_as_it_was(root, monkeypatch):
    put(root, make_record("mnist", [0.98]))
    monkeypatch.setattr(report, "ROOT", root)

    def full(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(report.checkpoint, "write_atomically", full)
    with pytest.raises(OSError, match="no space left"):
        report.main([])
    assert (root / "MLP" / "README.md").read_text() == TEXT


def test_seconds_of_another_machine_stand_apart(tmp_path):
    """Its row names it, and the table's seconds are those of the machine that the record names."""
    first, other = ({"processor": name, "threads": 2, "torch": "2.3.1"} for name in ("one", "two"))
    for seed, place, seconds in ((1, first, 100.0), (0, other, 10.0), (2, first, 120.0)):
        row = {"epoch": 1, "seconds": seconds, "validation_loss": 1.0, "lr": 0.1}
        config = {"dataset": "mnist", "epochs": 1, "seed": seed, "given": [], "commit": "abc"}
        state = {"epoch": 1, "history": [row]}
        path, is_first = write_record(
            tmp_path, "mnist", config | {"environment": place}, state, **NOTHING
        )
        assert is_first == (seed < 2)
    record = json.loads(path.read_text())
    assert record["environment"] == first
    assert [run.get("environment") for run in record["runs"]] == [other, None, None]
    assert report.effort(record)[:3] == ["3", "1", "110"]


@pytest.mark.smoke
def test_table_holds_mean_and_sample_standard_deviation(root):
    put(root, make_record("mnist", [0.98, 0.985, 0.99]))
    head, _, row = rows(report.fill(root / "MLP" / "README.md"))
    table = dict(zip(head, row, strict=True))
    assert table == {
        "dataset": "mnist", "test accuracy, %": "98.50 ± 0.50",
        "test loss, nats": "0.0600 ± 0.0100",
        "validation accuracy, %": "98.00 ± 0.00", "seeds": "3", "epochs": "20", "seconds": "62",
        "parameters": "1,234,567", "machine": "A",
    }  # fmt: skip


def test_a_run_without_a_validation_split_leaves_its_cell_empty(root):
    run = {"seed": 0, "epochs": 9, "best_epoch": 9, "seconds": 1, "commit": "abc"}
    for config, validation in (("text", {"loss": 1.5}), ("text-refit", {})):
        runs = [run | {"validation": validation, "test": {"loss": 1.25}}]
        put(root, make_record("text", [], config=config, runs=runs))
    head, _, *lines = rows(report.fill(root / "MLP" / "README.md"))
    assert head[:3] == ["dataset", "test loss, nats", "validation loss, nats"]
    cells = [line[:3] for line in lines]
    assert cells == [["text", "1.2500", "1.5000"], ["text-refit", "1.2500", ""]]


def test_a_game_s_table_has_distances_instead_of_a_loss(root):
    game = make_record("mnist", [0.9])
    test = {"frechet_distance": 4.0, "frechet_floor": 2.5, "frechet_ratio": 1.6}
    game["runs"][0] |= {"validation": {"frechet_distance": 3.0}, "test": test}
    put(root, game)
    head, _, row = rows(report.fill(root / "MLP" / "README.md"))
    assert dict(zip(head, row, strict=True)) == {
        "dataset": "mnist", "test Fréchet distance": "4.0000",
        "test Fréchet distance, real to real": "2.5000",
        "test Fréchet distance, less real to real": "1.5000",
        "test Fréchet distance / real to real": "1.60",
        "validation Fréchet distance": "3.0000", "seeds": "1", "epochs": "20", "seconds": "60",
        "parameters": "1,234,567", "machine": "A",
    }  # fmt: skip


@pytest.mark.parametrize(
    "values, expected",
    [([0.5], "50.00"), ([0.1, 0.3], "20.00 ± 14.14"), ([0.2] * 4, "20.00 ± 0.00")],
)
def test_one_seed_has_no_standard_deviation(values, expected):
    assert report.mean_std(values, 100, 2) == expected


def test_table_of_one_seed_shows_no_deviation(root):
    put(root, make_record("mnist", [0.98]))
    row = rows(report.fill(root / "MLP" / "README.md"))[2]
    assert row[1] == "98.00" and row[4] == "1" and "±" not in " ".join(row)


def test_mnist_comes_first_and_samples_are_named_and_last(root):
    put(
        root, make_record("mnist-sample", [0.9], sample=True), make_record("fashion-mnist", [0.9]),
        make_record("shapes", [0.9]), make_record("mnist", [0.9]),
        make_record("mnist", [0.9], config="mnist-wide"),
    )  # fmt: skip
    text = report.fill(root / "MLP" / "README.md")
    assert [row[0] for row in rows(text)[2:]] == [
        "mnist", "mnist-wide", "fashion-mnist", "shapes", "mnist-sample (sample)",
    ]  # fmt: skip


def test_commands_seeds_and_machines_stand_below_the_table(root):
    two = make_record("mnist", [0.9], config="mnist-two")
    two["environment"] = {**two["environment"], "threads": 2}
    put(
        root, two, make_record("mnist", [0.98, 0.99]), make_record("mnist", [0.9], config="mnist-3")
    )
    text = report.fill(root / "MLP" / "README.md")
    command = "`python MLP/train.py --dataset mnist --seed S`, S = 0, 1"
    assert f"- {command}" in text.splitlines()
    where = {row[0]: row[-1] for row in rows(text)[2:]}
    assert where == {"mnist": "A", "mnist-two": "B", "mnist-3": "A"}
    machines = "A: a processor, 1 thread, torch 2.3.1; B: a processor, 2 threads, torch 2.3.1."
    assert f"Machines: {machines}" in text
    assert f"Machines: {machines}" in report.fill(root / "README.md")


@pytest.mark.parametrize("others", [0, 5])
def test_a_table_of_many_metrics_has_a_column_for_each_record(others, root):
    names = ["bleu", "chrf", "exact_match", "loss", "perplexity", "bits_per_character"]
    first = make_record("mnist", [0.9])
    first["runs"][0]["test"] = dict.fromkeys(names, 0.5)
    put(root, first, *(make_record("mnist", [0.9], config=f"mnist-{n}") for n in range(others)))
    text = report.fill(root / "MLP" / "README.md")
    lines = rows(text.partition("\nMean ±")[0])
    assert lines[0] == ["dataset", "mnist", *(f"mnist-{n}" for n in range(others))]
    assert "test BLEU" in [line[0] for line in lines]
    assert lines[-1] == ["machine", *["A"] * (others + 1)]
    assert all(any(line[1:]) for line in lines), "an empty row"


def make_text_record(loss: float, **changes) -> dict:
    """A record of a language model: a loss, but no accuracy."""
    record = make_record("tiny-shakespeare", [0.0], **changes)
    test = {"loss": loss, "perplexity": math.exp(loss), "bits_per_character": loss / math.log(2)}
    record["runs"][0] |= {"validation": {"loss": 1.4}, "test": test}
    return record


@pytest.mark.smoke
def test_language_models_have_loss_perplexity_and_bits_in_place_of_accuracy(root):
    put(root, make_text_record(1.5))
    put(root, make_record("mnist", [0.98]), folder="MLP_Torch")
    head, _, row = rows(report.fill(root / "MLP" / "README.md"))
    assert dict(zip(head, row, strict=True)) == {
        "dataset": "tiny-shakespeare", "test loss, nats": "1.5000", "test perplexity": "4.482",
        "test bits per character": "2.164", "validation loss, nats": "1.4000", "seeds": "1",
        "epochs": "20", "seconds": "60", "parameters": "1,234,567", "machine": "A",
    }  # fmt: skip
    head, _, *table = rows(report.fill(root / "README.md"))
    assert head[2:5] == ["figure", "test", "validation"]
    assert [row[2:5] for row in table] == [
        ["loss, nats", "1.5000", "1.4000"], ["accuracy, %", "98.00", "98.00"],
    ]  # fmt: skip


def test_layers_beside_torch_have_a_table(root, monkeypatch):
    readme = root / "RNN_Manual" / "README.md"
    path = readme.parent / "results" / "compare_layers.json"
    path.parent.mkdir(parents=True)
    (readme.parent / "compare_layers.py").write_text("")  # the report asks the script of that name
    table = compare_layers.table
    monkeypatch.setattr(compare_layers, "table", lambda: table(path))
    readme.write_text("# Title\n\n<!-- compare_layers -->\n<!-- /compare_layers -->\n")
    assert "Nothing recorded yet." in report.fill(readme)
    layer = {
        "step_milliseconds": {"manual": 12.5, "torch": 10.0}, "step_ratio": 1.25,
        "largest_difference": 2e-15,
    }  # fmt: skip
    result = {
        "command": "python -m common.results.compare LSTM", "batch_size": 64, "window": 128,
        "input_size": 64, "hidden_size": 256, "steps": 20, "layers": {"LSTM": layer},
        "environment": ENVIRONMENT,
    }  # fmt: skip
    path.write_text(json.dumps(result))
    text = report.fill(readme)
    assert rows(text)[2] == ["LSTM", "12.5", "10.0", "**1.25**"] and "2.0e-15" in text
    assert report.load_records(readme.parent) == [], "taken for a record of a run"


def test_epochs_that_differ_are_a_range(root):
    record = make_record("mnist", [0.98, 0.99, 0.97])
    record["runs"][1]["epochs"] = 7
    put(root, record)
    assert rows(report.fill(root / "MLP" / "README.md"))[2][5] == "7 to 20"


def test_root_readme_lists_every_folder(root):
    put(root, make_record("mnist", [0.98]), make_record("shapes", [0.5]))
    put(root, make_record("mnist", [0.97]), folder="MLP_Torch")
    head, _, *table = rows(report.fill(root / "README.md"))
    assert head[:4] == ["model", "dataset", "figure", "test"]
    assert [row[:4] for row in table] == [
        ["[MLP](MLP/)", "mnist", "accuracy, %", "98.00"],
        ["[MLP](MLP/)", "shapes", "accuracy, %", "50.00"],
        ["[MLP_Torch](MLP_Torch/)", "mnist", "accuracy, %", "97.00"],
    ]  # fmt: skip


@pytest.mark.parametrize("found, figure", [
    ({"loss": 2.0, "exact_match": 0.05, "bleu": 39.0}, ["BLEU", "39.00"]),
    ({"loss": 0.0, "exact_match": 0.995}, ["exact match, %", "99.50"]),
    ({"loss": 100.0, "elbo": -100.0, "log_likelihood": -90.0}, ["log-likelihood, nats", "-90.00"]),
    ({"frechet_distance": 4.0, "frechet_floor": 2.5, "frechet_ratio": 1.6},
     ["Fréchet distance, less real to real", "1.5000"]),
])  # fmt: skip
def test_root_readme_shows_what_counts_most(found, figure, root):
    record = make_record("mnist", [0.9])
    record["runs"][0] |= {"validation": {"loss": 2.0}, "test": found}
    put(root, record)
    (row,) = rows(report.fill(root / "README.md"))[2:]
    assert row[2:5] == [*figure, ""]


@pytest.mark.parametrize("folder", ["MLP", "MLP_Torch"])
def test_comparison_stands_in_both_twins(folder, root):
    (root / "MLP" / "results" / "compare.json").write_text(json.dumps(COMPARISON))
    text = report.fill(root / folder / "README.md")
    assert [row[0] for row in rows(text)[2:]] == ["MLP", "MLP_Torch"]
    assert "| MLP | 12.5 | 0 |" in text and "**1.25**" in text and "2.0e-13" in text


def test_lines_of_code_are_those_of_today(root, capsys):
    (root / "MLP" / "results" / "compare.json").write_text(json.dumps(COMPARISON))
    assert call(capsys, report.main).code == 0
    (root / "MLP" / "model.py").write_text('"""What it is."""\n\nx = 1\ny = 2  # and why\n')
    outcome = call(capsys, report.main, "--check")
    assert_one_line(outcome, "MLP/README.md", "MLP_Torch/README.md")
    assert call(capsys, report.main).code == 0
    assert "| MLP | 12.5 | 2 |" in (root / "MLP_Torch" / "README.md").read_text()
    assert call(capsys, report.main, "--check").code == 0


@pytest.mark.smoke
def test_writing_twice_changes_nothing_and_keeps_the_rest(root, capsys):
    put(root, make_record("mnist", [0.98, 0.99]))
    for _ in range(2):
        assert call(capsys, report.main).code == 0
        texts = [(root / place / "README.md").read_text() for place in (".", "MLP", "MLP_Torch")]
        assert all(text.startswith("# Title\n\n<!-- results -->\n") for text in texts)
        assert all("<!-- /results -->\n\nBetween\n<!-- compare -->\n" in text for text in texts)
        assert all(text.endswith("<!-- /compare -->\n\nThe end.\n") for text in texts)
        assert not any("old" in text for text in texts)
        assert "Nothing recorded yet." in texts[2]
    assert call(capsys, report.main).out == ""


def test_check_reports_and_changes_nothing(root, capsys):
    report.main([])
    assert call(capsys, report.main, "--check").code == 0
    put(root, make_record("mnist", [0.98]))
    before = (root / "MLP" / "README.md").read_text()
    result = call(capsys, report.main, "--check")
    assert_one_line(result, "README.md", "MLP/README.md", "python -m common.results.report")
    assert "MLP_Torch/README.md" not in result.err
    assert (root / "MLP" / "README.md").read_text() == before


@pytest.mark.parametrize(
    "text", ["a\n<!-- results -->\nb\n", "<!-- /results -->\n<!-- results -->\n"]
)
def test_marker_that_is_never_closed_is_a_users_error(root, text):
    (root / "MLP" / "README.md").write_text(text)
    with user_error("MLP/README.md", "<!-- results -->"):
        report.fill(root / "MLP" / "README.md")


def test_readme_without_markers_stays_as_it_is(root):
    put(root, make_record("mnist", [0.98]))
    (root / "MLP" / "README.md").write_text("# Title\n")
    assert report.fill(root / "MLP" / "README.md") == "# Title\n"


# ---- this repository's own ----


@pytest.mark.smoke
@pytest.mark.parametrize("readme", READMES, ids=name)
def test_readme_equals_its_records(readme):
    assert report.fill(readme) == readme.read_text(encoding="utf-8"), (
        "run python -m common.results.report"
    )


@pytest.mark.parametrize("folder", FOLDERS)
def test_readme_with_records_shows_them(folder):
    readme = ROOT / folder / "README.md"
    if any(path.parent.parent.name == folder for path in RECORDS):
        assert "<!-- results -->" in readme.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", RECORDS, ids=name)
def test_record_is_complete_and_consistent(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    assert [key for key in record if key != "signatures"] == [
        "model", "dataset", "config", "sample", "command", "hyperparameters", "parameters",
        "data", "environment", "runs",
    ]  # fmt: skip
    folder = path.parent.parent.name
    holder = "model" if "/train.py" in record["command"] else "baseline"
    assert record["config"] == path.stem and hasattr(script(folder, holder), record["model"])
    assert record["sample"] == record["dataset"].endswith("-sample")
    assert set(record["data"]) == {"examples", "sha256"}
    refit = record["hyperparameters"].get("refit")
    splits = {"train", "test"} if refit else {"train", "validation", "test"}
    assert set(record["data"]["examples"]) == splits

    seeds = [run["seed"] for run in record["runs"]]
    assert seeds == sorted(set(seeds))
    if path.stem in ("mnist", "fashion-mnist"):
        assert len(seeds) >= 3 and record["dataset"] == path.stem
    for run in record["runs"]:
        assert run["commit"] and not run["commit"].endswith("-dirty")
        assert 1 <= run["best_epoch"] <= run["epochs"] <= record["hyperparameters"]["epochs"]
        assert run["seconds"] > 0
        if folder in AUTOENCODERS:  # nats of whole images, negative where they are of a density
            losses = [run[split]["loss"] for split in ("test", "validation") if run[split]]
            assert len(losses) == (1 if refit else 2) and all(map(math.isfinite, losses))
            assert abs(losses[0] - losses[-1]) < 0.05 * abs(losses[-1])
            continue
        for split in ("test",) if refit else ("validation", "test"):
            if folder in GAMES:
                assert 0 <= run[split]["frechet_distance"] < math.inf
                continue
            assert folder in WRITERS + TRANSFORMERS or 0 <= run[split]["accuracy"] <= 1
            assert run[split]["loss"] > 0 and math.isfinite(run[split]["loss"])
        # the test split was not chosen on, but is alike: a swapped split or factor would show
        if folder in GAMES:  # whose distances depend on the size of the split
            assert run["test"]["frechet_floor"] > 0
        elif refit:
            assert run["validation"] == {}
        elif folder in WRITERS + TRANSFORMERS:
            assert abs(run["test"]["loss"] - run["validation"]["loss"]) < 0.2
        else:
            assert abs(run["test"]["accuracy"] - run["validation"]["accuracy"]) < 0.05


@pytest.mark.parametrize("path", RECORDS, ids=name)
def test_what_is_recorded_has_a_heading_of_its_own(path):
    """Beside those in per cent, a share between 0 and 1 would be misread."""
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    names = {metric for run in runs for split in ("validation", "test") for metric in run[split]}
    assert names and names <= METRICS.keys()
    assert len({heading for heading, *_ in METRICS.values()}) == len(METRICS)


@pytest.mark.parametrize("path", RECORDS, ids=name)
def test_record_is_of_the_real_data(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["dataset"] in mnist.FOLDERS:
        examples, recipe = record["data"]["examples"], record["hyperparameters"]
        held_out = 0 if recipe.get("refit") else 5_000
        assert (examples.get("validation", 0), examples["test"]) == (held_out, 10_000)
        assert examples["train"] == (recipe["subset"] or 60_000 - held_out)
        names = {KNOWN[checksum] for checksum in record["data"]["sha256"].values()}
        assert names == {(record["dataset"], n) for pair in mnist.FILES.values() for n in pair}


@pytest.mark.parametrize("path", RECORDS, ids=name)
def test_recorded_command_still_gives_the_recipe(path, tmp_path):
    record = json.loads(path.read_text(encoding="utf-8"))
    python, place, *argv = shlex.split(record["command"])
    folder = path.parent.parent.name
    name = place.removeprefix(f"{folder}/").removesuffix(".py")
    assert (python, place) == ("python", f"{folder}/{name}.py") and name in ("train", "baseline")
    module = script(folder, name)
    args = cli.parse_training(module.make_parser(), module.RECIPES, tmp_path, argv)
    if folder in TRANSFORMERS:  # --block stands for several parts
        module.architecture.resolve(args)
    recipe = record["hyperparameters"]
    assert {key: vars(args).get(key) for key in recipe} == recipe


@pytest.mark.parametrize("path", sorted(ROOT.glob("*/results/compare_layers.json")), ids=name)
def test_comparison_of_layers_is_consistent(path):
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["commit"] and not result["commit"].endswith("-dirty")
    for layer in result["layers"].values():
        assert layer["largest_difference"] <= 1e-8
        milliseconds = layer["step_milliseconds"]
        ratio = milliseconds["manual"] / milliseconds["torch"]
        assert layer["step_ratio"] == pytest.approx(ratio, rel=0.02)


@pytest.mark.parametrize("path", COMPARISONS, ids=name)
def test_comparison_is_consistent(path):
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["commit"] and not result["commit"].endswith("-dirty")
    assert result["twins"]["manual"] == path.parent.parent.name
    assert (ROOT / result["twins"]["torch"]).is_dir()
    assert max(result["largest_difference"].values()) <= 1e-8
    milliseconds = result["step_milliseconds"]
    ratio = milliseconds["manual"] / milliseconds["torch"]
    assert result["step_ratio"] == pytest.approx(ratio, rel=0.02)
    assert lines_of_code(ROOT / result["twins"]["torch"]) < lines_of_code(path.parent.parent)


@pytest.mark.parametrize("path", STUDIES, ids=name)
def test_rows_of_a_study_are_of_commits_and_not_of_a_quick_run(path):
    study = json.loads(path.read_text(encoding="utf-8"))
    assert study["rows"] and "--quick" not in study["command"]
    for row in study["rows"]:
        commit = row.get("commit") or study.get("commit")
        assert commit and not commit.endswith("-dirty")
