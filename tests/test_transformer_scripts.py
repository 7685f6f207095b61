"""The scripts of Transformer_Torch: both tasks from training to translations and texts, resuming,
batches in parts, and what may go wrong."""

import io
import itertools
import json
import math
import time
from argparse import Namespace
from functools import partial
from pathlib import Path

import pytest
import torch

from common import checkpoint, cli, data
from tests.conftest import user_error
from tests.running import (
    MARKED,
    TRANSFORMERS,
    Stop,
    assert_ended_alike,
    assert_one_line,
    call,
    crash,
    few_shapes,
    finish,
    history,
    interrupt,
    marked,
    script,
    small,
    start,
)
from Transformer_Torch import generate, train, translate
from Transformer_Torch import test as evaluation
from Transformer_Torch.dataset import encodings
from Transformer_Torch.dataset.tokenizers import Words
from Transformer_Torch.model import PAD, Transformer
from Transformer_Torch.utils import evaluation as measures
from Transformer_Torch.utils.evaluation import shortened
from Transformer_Torch.utils.optim import learning_rates
from Transformer_Torch.utils.search import penalty

TINY = ["--embed-dim", 8, "--num-heads", 2, "--num-layers", 1, "--feedforward-dim", 8]
WORDS = {"ein": "one", "zwei": "two", "rote": "red", "hunde": "dogs", "schlafen": "sleep"}
TEXT = "abcdefgh\n" * 300


@pytest.fixture(autouse=True)
def few_strings(monkeypatch):
    few_shapes(monkeypatch)


def run(main, *argv) -> None:
    main([*map(str, argv)])


def answer(line: str) -> str:
    return " ".join(WORDS[word] for word in line.split())


FILES = [
    "--dataset", "files", "--tokenizer", "word", "--max-length", 16, "--batch-size", 128,
    "--lr", 0.01, "--embed-dim", 32, "--num-layers", 1, "--feedforward-dim", 32, "--dropout", 0,
    "--label-smoothing", 0, "--warmup", 1, "--epochs", 1,
]  # fmt: skip


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    """A run that has learned to translate word by word, from two files."""
    place = tmp_path_factory.mktemp("files")
    lines = [" ".join(words) for n in (2, 3, 4) for words in itertools.product(WORDS, repeat=n)]
    (place / "de.txt").write_text("\n".join(lines) + "\n")
    (place / "en.txt").write_text("\n".join(map(answer, lines)) + "\n")
    flags = [*FILES, "--src", place / "de.txt", "--tgt", place / "en.txt",
             "--warmup", 10, "--epochs", 8]  # fmt: skip
    run(train.main, *flags, "--run-dir", place / "run")
    return place / "run"


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A run that has learned the beginning of the alphabet by heart."""
    place = tmp_path_factory.mktemp("text")
    (place / "input.txt").write_text(TEXT)
    flags = ["--dataset", "text", "--data-dir", place, "--max-length", 16, "--batch-size", 4,
             "--embed-dim", 16, "--num-layers", 1, "--feedforward-dim", 16, "--warmup", 5,
             "--lr", 0.01, "--epochs", 3, "--sample-length", 30]  # fmt: skip
    run(train.main, *flags, "--run-dir", place / "run")
    return place / "run"


# ---- flags ----


@pytest.mark.parametrize(
    "argv, task, dataset",
    [
        ("", "translate", "multi30k"),
        ("--task translate", "translate", "multi30k"),
        ("--task lm", "lm", "tiny-shakespeare"),
        ("--dataset text", "lm", "text"),
        ("--dataset dates", "translate", "dates"),
        ("--task lm --dataset dates", "lm", "dates"),
    ],
)
def test_task_and_dataset_stand_for_each_other(argv, task, dataset, tmp_path):
    args = cli.parse_training(train.make_parser(), train.RECIPES, tmp_path, argv.split())
    assert (args.task, args.dataset) == (task, dataset)
    assert args.max_length == train.RECIPES[dataset]["max_length"]
    assert args.given == sorted(word[2:] for word in argv.split() if word.startswith("--"))


@pytest.mark.parametrize(
    "argv, parts",
    [
        ("--task lm --dataset dates", ["--task lm learns tiny-shakespeare", "not dates"]),
        ("--task translate --dataset text", ["--task translate learns multi30k", "not text"]),
        ("--task write", ["--task", "write"]),
        ("--dataset reverse --num-heads 3", ["--num-heads 3", "width, 8"]),
        ("--dataset reverse --batch-size 5", ["--batch-size 5", "tokens"]),
        ("--dataset reverse --accumulate 0", ["--accumulate"]),
        ("--dataset reverse --precision float8", ["--precision"]),
        ("--dataset reverse --beta2 1", ["--beta2"]),
        ("--dataset reverse --src a.txt", ["--src", "--dataset reverse"]),
        ("--dataset reverse --sample-length 9", ["--sample-length", "translate"]),
        ("--dataset help-topics --vocabulary-size 50", ["--vocabulary-size", "--task lm"]),
    ],
)
def test_bad_wishes_are_one_line(argv, parts, tmp_path, capsys):
    flags = [*small("Transformer"), *argv.split(), "--run-dir", tmp_path / "run"]
    assert_one_line(call(capsys, train.main, *flags), *parts)
    assert not (tmp_path / "run").exists()


def test_more_processes_than_windows_in_a_batch_are_refused(tmp_path, monkeypatch):
    (tmp_path / "input.txt").write_text("abcdefgh" * 200)
    argv = ["--dataset", "text", "--data-dir", str(tmp_path), "--max-length", "8"]
    args = cli.parse_training(train.make_parser(), train.RECIPES, tmp_path, argv)
    windows, _ = train.load_training(args)
    assert windows.num_batches(8) > 0
    monkeypatch.setattr("common.distributed.world_size", lambda: 9)
    with user_error("--batch-size 8", "9 processes"):
        windows.num_batches(8)


def test_without_data_the_default_run_learns_dates_and_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data, "ROOT", tmp_path / "repository")
    for module in ("train", "dataset.translation", "dataset.lm"):
        monkeypatch.setattr(f"Transformer_Torch.{module}.FOLDER", tmp_path / "Transformer_Torch")

    def fail(urls, path, md5):
        raise data.DataMissing(f"{path.name} could not be downloaded")

    monkeypatch.setattr(data, "download", fail)
    argv = ["--epochs", 1, "--warmup", 1, *TINY]
    result = call(capsys, train.main, *argv, "--run-dir", tmp_path / "run")
    assert result.code == 0 and "MADE-UP PAIRS" in result.err and "multi30k" in result.err
    assert history(tmp_path / "run")[0]["dataset"] == "dates"
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["tokenizer"] == "character" and config["embed_dim"] == 8
    result = call(capsys, train.main, "--task", "lm", "--subset", 4000, *argv, "--run-dir",
                  tmp_path / "text")  # fmt: skip
    assert result.code == 0 and "ANOTHER TEXT" in result.err
    assert history(tmp_path / "text")[0]["dataset"] == "help-topics"


# ---- the learning rate ----


@pytest.mark.parametrize("folder", TRANSFORMERS)
def test_a_short_run_needs_no_warmup_flag(folder, tmp_path, capsys):
    """A recipe's own is longer than the run; the same number typed is refused."""
    flags = [*small("Transformer")[:-2], "--epochs", 2, "--run-dir", tmp_path / "run"]
    result = call(capsys, script(folder).main, *flags)
    assert result.code == 0 and "steps of learning" in result.out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    steps = checkpoint.load(tmp_path / "run" / "last.safetensors")["step"]
    assert config["warmup"] == steps // 2 > 0 and "warmup" not in config["given"]
    flags[-1] = tmp_path / "typed"
    result = call(capsys, script(folder).main, *flags, "--warmup", 100)
    assert_one_line(result, "--warmup 100 does not fit", f"{steps} steps")
    assert not (tmp_path / "typed").exists()


def test_inverse_root_schedule_is_the_papers():
    D, warmup = 512, 40
    lr = (D * warmup) ** -0.5
    rates = learning_rates("inverse-sqrt", lr, 100, warmup - 1)
    expected = [D**-0.5 * min(t**-0.5, t * warmup**-1.5) for t in range(1, 101)]
    assert rates == pytest.approx(expected, rel=1e-12)
    assert max(rates) == pytest.approx(lr)


@pytest.mark.pictures
def test_picture_shows_the_rates_that_the_run_had(tmp_path):
    run(train.main, *small("Transformer"), "--epochs", 2, "--warmup", 3, "--schedule",
        "inverse-sqrt", "--run-dir", tmp_path / "run")  # fmt: skip
    state = checkpoint.load(tmp_path / "run" / "last.safetensors")
    rates = learning_rates("inverse-sqrt", 3e-3, state["step"], 3)
    assert rates[-1] == state["lr"] and rates[state["step"] // 2 - 1] == state["history"][0]["lr"]


# ---- batches in parts, precision, compilation ----


def small_lm(tmp_path, text: str = TEXT) -> list:
    (tmp_path / "input.txt").write_text(text)
    return ["--dataset", "text", "--data-dir", tmp_path, "--max-length", 8, "--batch-size", 8,
            *TINY, "--epochs", 1, "--warmup", 2, "--sample-length", 10]  # fmt: skip


def losses(path) -> list[float]:
    return [float(row[name]) for row in history(path) for name in ("train_loss", "validation_loss")]


@pytest.mark.parametrize("folder", TRANSFORMERS)
def test_refit_is_for_texts_and_keeps_the_last_epoch(folder, tmp_path, capsys):
    main, place = script(folder).main, tmp_path / "run"
    flags = [*small_lm(tmp_path), "--epochs", 2, "--lr", 0.5, "--refit", "--run-dir", place]
    result = call(capsys, main, *flags)
    assert result.code == 0 and " 0 held out" in result.out
    assert not any("validation" in key for row in history(place) for key in row)
    assert checkpoint.load(place / "best.safetensors")["epoch"] == 2
    assert (place / "samples.txt").read_text().count("training loss") == 2
    call(capsys, main, "--resume", "--run-dir", place, "--epochs", 3)
    assert checkpoint.load(place / "best.safetensors")["epoch"] == 3
    assert_one_line(call(capsys, main, *small("Transformer"), "--refit"), "--refit", "--task lm")


@pytest.mark.parametrize("task", ["translate", "lm"])
def test_a_batch_in_parts_is_the_batch(task, tmp_path):
    """Though the parts have more or fewer tokens, and a batch may have fewer rows than parts."""
    flags = [*small("Transformer"), "--epochs", 2] if task == "translate" else small_lm(tmp_path)
    for parts in (1, 3, 50):
        run(train.main, *flags, "--accumulate", parts, "--run-dir", tmp_path / str(parts))
    for parts in (3, 50):
        assert losses(tmp_path / str(parts)) == pytest.approx(losses(tmp_path / "1"), rel=1e-4)


@pytest.mark.parametrize("folder", TRANSFORMERS)
@pytest.mark.parametrize("task", ["translate", "lm"])
def test_half_the_bits_learn_nearly_the_same(task, folder, tmp_path):
    flags = small("Transformer") + ["--epochs", 1] if task == "translate" else small_lm(tmp_path)
    for precision in ("float32", "bfloat16"):
        place = ["--run-dir", tmp_path / precision]
        run(script(folder).main, *flags, "--precision", precision, *place)
    found = losses(tmp_path / "bfloat16")
    assert found == pytest.approx(losses(tmp_path / "float32"), rel=0.02)
    assert found != losses(tmp_path / "float32")


def test_compiled_network_learns_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    flags = [*small_lm(tmp_path), "--subset", 400]
    try:
        run(train.main, *flags, "--compile", "--run-dir", tmp_path / "fast")
    except cli.UserError as error:
        pytest.skip(str(error))
    run(train.main, *flags, "--run-dir", tmp_path / "plain")
    assert losses(tmp_path / "fast") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    states = [checkpoint.load(tmp_path / name / "last.safetensors") for name in ("fast", "plain")]
    assert states[0]["model"].keys() == states[1]["model"].keys()


# ---- resuming ----

EVERYTHING = ["--dropout", 0.3, "--ema", 0.5, "--accumulate", 2, "--precision", "bfloat16",
              "--label-smoothing", 0.1, "--epochs", 2]  # fmt: skip


@pytest.mark.parametrize("how, step", [(crash, 1), (interrupt, 4), (crash, 5), (interrupt, 6)])
def test_stopped_anywhere_and_resumed_is_as_never_stopped(how, step, tmp_path, monkeypatch):
    monkeypatch.setattr("common.plots.draw_curves", lambda path, history: None)
    flags = [*small("Transformer"), *EVERYTHING]
    run(train.main, *flags, "--run-dir", tmp_path / "whole")
    with monkeypatch.context() as patch:
        how(patch, step)
        with pytest.raises((Stop, KeyboardInterrupt)):
            run(train.main, *flags, "--run-dir", tmp_path / "run")
    assert checkpoint.load(tmp_path / "run" / "last.safetensors")["step"] == step
    run(train.main, "--resume", "--run-dir", tmp_path / "run")
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("step", [1, 4])
def test_stopped_and_resumed_the_subwords_are_cut_alike(step, tmp_path, monkeypatch):
    (tmp_path / "dataset").mkdir()  # where subwords of data made by code are kept
    monkeypatch.setattr("Transformer_Torch.dataset.translation.FOLDER", tmp_path)
    monkeypatch.setattr("common.plots.draw_curves", lambda path, history: None)
    flags = [*small("Transformer"), "--tokenizer", "subword", "--vocabulary-size", 40,
             "--subword-dropout", 0.3, "--epochs", 2]  # fmt: skip
    run(train.main, *flags, "--run-dir", tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash(patch, step)
        run(train.main, *flags, "--run-dir", tmp_path / "run")
    run(train.main, "--resume", "--run-dir", tmp_path / "run")
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("step", [3, 45])  # of epochs of 35
def test_stopped_language_model_goes_on_with_its_samples(step, tmp_path, monkeypatch):
    monkeypatch.setattr("common.plots.draw_curves", lambda path, history: None)
    flags = [*small_lm(tmp_path), *EVERYTHING]
    run(train.main, *flags, "--run-dir", tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash(patch, step)
        run(train.main, *flags, "--run-dir", tmp_path / "run")
    run(train.main, "--resume", "--run-dir", tmp_path / "run")
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")
    samples = [(tmp_path / name / "samples.txt").read_text() for name in ("run", "whole")]
    assert samples[0] == samples[1] and samples[0].count("====") == 4


def test_run_whose_sentences_changed_is_not_resumed(translator, tmp_path, capsys):
    config = json.loads((translator / "config.json").read_text())
    changed = {}
    for flag in ("src", "tgt"):
        changed[flag] = str(tmp_path / f"{flag}.txt")
        text = (translator.parent / config[flag]).read_text()
        (tmp_path / f"{flag}.txt").write_text(text.replace("dogs", "cats"))
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**config, **changed}))
    (path / "last.safetensors").write_bytes((translator / "last.safetensors").read_bytes())
    result = call(capsys, train.main, "--resume", "--run-dir", path, "--epochs", 30)
    assert_one_line(result, "of another tokenizer")


# ---- evaluation ----


def test_loss_of_a_split_is_the_mean_over_its_tokens(translator):
    """One pair at a time, without padding, and divided once."""
    model, test = restored(translator)
    nats, tokens = 0.0, 0
    for row in range(len(test)):
        source, target = (side.sequence(row).long()[None] for side in (test.source, test.target))
        log_probs = model.double()(source, target[:, :-1]).log_softmax(2)
        nats -= log_probs.gather(2, target[:, 1:, None]).sum().item()
        tokens += target.shape[1] - 1
    assert measures.mean_loss(model.float(), test) == pytest.approx(nats / tokens, rel=1e-4)


def restored(run_dir):
    """The network and the test split of a run."""
    _, config = evaluation.find_trained(
        Path("Transformer_Torch"), cli.argparse.Namespace(run_dir=str(run_dir)), train.make_parser()
    )
    state = checkpoint.load(run_dir / "best.safetensors")
    test = evaluation.load_test(config, evaluation.restore_tokenizer(config, state["tokenizer"]))
    model = train.build_model(config, test.tokenizer)
    evaluation.load_best(model, run_dir)
    return model, test


def test_best_epoch_is_the_one_with_the_lowest_loss(translator):
    rows = [float(row["validation_loss"]) for row in history(translator)]
    best = checkpoint.load(translator / "best.safetensors")["epoch"]
    assert rows[best - 1] == min(rows) and "validation_exact_match" not in history(translator)[0]


@pytest.mark.pictures
def test_translations_are_scored_drawn_and_recorded(translator, tmp_path, capsys, monkeypatch):
    (tmp_path / "Transformer_Torch").mkdir()
    monkeypatch.setattr(evaluation, "FOLDER", tmp_path / "Transformer_Torch")
    result = call(capsys, evaluation.main, "--run-dir", translator, "--record", "--beam", 2)
    assert (result.code, result.err) == (0, ""), result
    kinds = ["attention_cross", "attention_decoder", "attention_encoder"]
    drawn = sorted(path.stem for path in translator.glob("*.png"))
    assert drawn == [*kinds, "curves", "positions", "schedule"]
    (path,) = (tmp_path / "Transformer_Torch" / "results").glob("*.json")
    written = json.loads(path.read_text())
    (row,) = written["runs"]
    assert row["test"]["exact_match"] >= 0.95 and row["test"]["bleu"] > 90
    assert row["test"]["perplexity"] == pytest.approx(math.exp(row["test"]["loss"]))
    assert {"loss", "perplexity", "bleu", "chrf", "exact_match"} <= set(row["test"])
    for name in ("bleu", "chrf"):
        signature = written["signatures"][name]
        assert "version:" in signature and signature.endswith("beam 2, length penalty 1")
        assert signature in result.out
    lines = (translator / "translations.txt").read_text().splitlines()
    assert lines[0] == "beam 2, length penalty 1"
    assert lines[3].split(None, 1) == ["is", answer(lines[2])]
    shown = sum(line.startswith("  became  ") for line in lines)
    assert shown == written["data"]["examples"]["test"]
    samples = path.with_name(f"{path.stem}_samples.txt").read_text()
    heads = [line for line in samples.splitlines() if line.startswith("====")]
    assert len(heads) == 5 and "the worst of" in heads[0] and "the best of" in heads[-1]
    assert {line for line in samples.splitlines() if line.startswith("  became")} <= set(lines)


@pytest.mark.pictures
def test_text_has_nats_perplexity_and_bits(writer, tmp_path, capsys, monkeypatch):
    (tmp_path / "Transformer_Torch").mkdir()
    monkeypatch.setattr(evaluation, "FOLDER", tmp_path / "Transformer_Torch")
    result = call(capsys, evaluation.main, "--run-dir", writer, "--record")
    assert (result.code, result.err) == (0, ""), result
    drawn = {path.name for path in writer.glob("*.png")}
    assert drawn == {"attention.png", "curves.png", "positions.png", "schedule.png"}
    (path,) = (tmp_path / "Transformer_Torch" / "results").glob("*.json")
    samples = path.with_name(f"{path.stem}_samples.txt")
    assert samples.read_text() == (writer / "samples.txt").read_text()
    written = json.loads(path.read_text())
    (row,) = written["runs"]
    loss = row["test"]["loss"]
    assert 0 < loss < 0.3 and "signatures" not in written  # all but the first can be known
    assert row["test"]["perplexity"] == pytest.approx(math.exp(loss))
    assert row["test"]["bits_per_character"] == pytest.approx(loss / math.log(2))


# ---- translate.py ----


def ask(capsys, run_dir, *argv) -> list[str]:
    result = call(capsys, translate.main, "--run-dir", run_dir, *argv)
    assert result.code == 0
    assert all("unknown to this network" in line for line in result.err.splitlines())
    return result.out.split("\n")[:-1]


def pipe(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.smoke
def test_a_sentence_is_translated(translator, capsys):
    for beam in (1, 3):
        assert ask(capsys, translator, "zwei rote hunde", "--beam", beam) == ["two red dogs"]
    assert ask(capsys, translator, "zwei", "hunde") == ["two dogs"], "words need no quotes"


@pytest.mark.parametrize("block", [encodings.BLOCK, 7, 1])
def test_lines_stay_in_order_and_empty_ones_empty(block, translator, capsys, monkeypatch, tmp_path):
    lines = ["zwei rote hunde", "", "ein ein", "  ", "schlafen ein", "zwei hunde schlafen rote"]
    expected = [answer(line) for line in lines]
    monkeypatch.setattr(encodings, "BLOCK", block)
    for end in ("\n", "\r\n"):
        for last in (end, ""):
            content = (end.join(lines) + last).encode()
            pipe(monkeypatch, content)
            assert ask(capsys, translator) == expected
            (tmp_path / "de.txt").write_bytes(content)
            assert ask(capsys, translator, "--input", tmp_path / "de.txt") == expected
    for nothing in (b"", b"\n", b"\n\n"):
        pipe(monkeypatch, nothing)
        assert ask(capsys, translator) == [""] * len(nothing)


@pytest.mark.parametrize("block", [encodings.BLOCK, 5, 1])
@pytest.mark.parametrize("encoding", MARKED)
def test_lines_with_a_byte_order_mark_are_translated_alike(
    encoding, block, translator, capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(encodings, "BLOCK", block)
    lines = ["zwei rote hunde", "", "ein ein", "rote hunde"]
    content = marked("\r\n".join(lines), encoding)
    pipe(monkeypatch, content)
    result = call(capsys, translate.main, "--run-dir", translator)
    assert result.out.split("\n")[:-1] == [answer(line) for line in lines]
    assert "unknown" not in result.err
    (tmp_path / "de.txt").write_bytes(content)
    assert ask(capsys, translator, "--input", tmp_path / "de.txt") == result.out.split("\n")[:-1]
    pipe(monkeypatch, marked("", encoding))
    assert ask(capsys, translator) == []
    assert ask(capsys, translator, "\ufeffzwei", "hunde") == ["two dogs"]


@pytest.mark.parametrize("task", ["lm", "translate"])
@pytest.mark.parametrize("folder", TRANSFORMERS)
def test_texts_with_a_byte_order_mark_are_learned_alike(folder, task, tmp_path):
    dataset = script(folder, "dataset")
    names = ["input.txt"] if task == "lm" else ["de.txt", "en.txt"]
    flags = ["--task", task, "--dataset", "text", "--data-dir", tmp_path]
    if task == "translate":
        flags = ["--dataset", "files", "--src", tmp_path / "de.txt", "--tgt", tmp_path / "en.txt"]
        flags += ["--tokenizer", "word"]
    module = script(folder)
    found = []
    for encoding in ("utf-8", *MARKED):
        for name in names:
            text = "".join(f"{name[0]}ä{n % 7} wort\n" for n in range(60))
            (tmp_path / name).write_bytes(marked(text, encoding))
        args = cli.parse_training(
            module.make_parser(), module.RECIPES, tmp_path, [str(flag) for flag in flags]
        )
        train, validation = dataset.load_training(args)
        found.append([train.tokenizer.state_dict(), len(train), len(validation)])
        assert "\ufeff" not in str(found[-1])
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("folder", TRANSFORMERS)
@pytest.mark.parametrize("task", ["lm", "translate"])
def test_changed_files_are_not_evaluated(folder, task, tmp_path, capsys):
    """One more line, and others are held out: what is tested then has been learned."""
    names = ["input.txt"] if task == "lm" else ["de.txt", "en.txt"]
    for name in names:
        (tmp_path / name).write_text("".join(f"{name[0]}{n} word\n" for n in range(60)))
    flags = ["--dataset", "text", "--data-dir", tmp_path, "--max-length", 16]
    if task == "translate":
        flags = [*FILES, "--src", tmp_path / "de.txt", "--tgt", tmp_path / "en.txt"]
    flags += ["--embed-dim", 8, "--num-heads", 2, "--num-layers", 1, "--epochs", 1]
    place = ["--run-dir", tmp_path / "run"]
    assert call(capsys, script(folder).main, *flags, *place).code == 0
    for name in names:
        with open(tmp_path / name, "a") as file:
            file.write(f"{name[0]}99 word\n")
    refused = call(capsys, script(folder, "test").main, *place)
    assert_one_line(refused, "a run on other content of ", names[0], "or train again")


@pytest.mark.parametrize("folder", TRANSFORMERS)
def test_files_that_were_moved_are_named_again(folder, tmp_path, capsys):
    """To go on, and to test. What is in them is checked."""
    for name in ("de.txt", "en.txt"):
        (tmp_path / name).write_text("".join(f"{name[0]}{n} word\n" for n in range(60)))
    module, tested, run_dir = script(folder), script(folder, "test"), tmp_path / "run"
    before = ["--src", tmp_path / "de.txt", "--tgt", tmp_path / "en.txt"]
    flags = [*FILES, *before, "--embed-dim", 8, "--num-heads", 2]
    assert call(capsys, module.main, *flags, "--run-dir", run_dir).code == 0
    expected = call(capsys, tested.main, "--run-dir", run_dir, "--beam", 1)
    assert expected.code == 0

    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("de.txt", "en.txt"):
        (tmp_path / name).rename(moved / name)
    assert_one_line(call(capsys, tested.main, "--run-dir", run_dir), "needs --src")
    now = ["--src", moved / "de.txt", "--tgt", moved / "en.txt", "--run-dir", run_dir]
    found = call(capsys, tested.main, *now, "--beam", 1)
    assert found.code == 0
    (loss,) = {line for out in (expected, found) for line in out.out.split("\n") if "loss" in line}
    assert "nats" in loss
    resumed = call(capsys, module.main, "--resume", *now, "--epochs", 2)
    assert resumed.code == 0, resumed.err
    assert call(capsys, tested.main, "--run-dir", run_dir, "--beam", 1).code == 0
    own = ["--test-src", moved / "de.txt", "--test-tgt", moved / "en.txt"]
    assert "60 sentences" in call(capsys, tested.main, *now, *own, "--beam", 1).out

    (moved / "de.txt").write_text("".join(f"other {n}\n" for n in range(60)))
    refused = call(capsys, module.main, "--resume", *now, "--epochs", 3)
    assert_one_line(refused, "of a run on", "or start without --resume")


@pytest.mark.parametrize("folder", TRANSFORMERS)
def test_translations_can_be_as_long_as_those_learned(folder, tmp_path, capsys, monkeypatch):
    """Here a character stands for thirty. The run keeps the room that its training pairs need."""
    lines = "abcdefghijklmnop"
    (tmp_path / "de.txt").write_text("\n".join(lines))
    (tmp_path / "en.txt").write_text("\n".join(letter * 30 for letter in lines))
    flags = [*FILES, "--tokenizer", "character", "--max-length", 64, "--src", tmp_path / "de.txt",
             "--tgt", tmp_path / "en.txt", "--run-dir", tmp_path / "run"]  # fmt: skip
    assert call(capsys, script(folder).main, *flags).code == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["extra_length"] == 31 - 2 * 2 and "extra_length" in config["given"]

    state = checkpoint.load(tmp_path / "run" / "best.safetensors")
    tokenizer = script(folder, "dataset").restore_tokenizer(Namespace(**config), state["tokenizer"])
    search, END = script(folder, "utils.search"), script(folder, "dataset.tokenizers").END
    allowed = search.allowed_logits

    def endless(logits):
        allowed(logits)[..., END] = -1e9
        return logits

    monkeypatch.setattr(search, "allowed_logits", endless)
    source = torch.tensor([[5, END]])
    for more, expected in (({}, 31), ({"extra_length": 40}, 44), ({"max_length": 20}, 20)):
        model = script(folder).build_model(Namespace(**{**config, **more}), tokenizer)
        model.eval()
        assert len(search.greedy_search(model, source)[0]) == expected
        assert len(search.beam_search(model, source, 2)[0]) == expected


@pytest.mark.parametrize("folder", TRANSFORMERS)
def test_more_room_for_translations_is_given(folder, tmp_path):
    flags = [*small("Transformer"), "--extra-length", "33"]
    module, dataset = script(folder), script(folder, "dataset")
    args = cli.parse_training(module.make_parser(), module.RECIPES, tmp_path, flags)
    train, _ = dataset.load_training(args)
    assert train.extra_length < args.extra_length == 33
    assert module.build_model(args, train.tokenizer).extra_length == 33
    args = cli.parse_training(module.make_parser(), module.RECIPES, tmp_path, flags[:-2])
    dataset.load_training(args)
    assert args.extra_length == 10 and "extra_length" not in args.given


@pytest.mark.parametrize("folder", TRANSFORMERS)
def test_files_are_of_no_other_dataset(folder, tmp_path, capsys):
    flags = [*small(folder), "--epochs", 1, "--run-dir", tmp_path / "run"]
    assert call(capsys, script(folder).main, *flags).code == 0
    result = call(capsys, script(folder, "test").main, *flags[-2:], "--src", tmp_path / "de.txt")
    assert_one_line(result, "learned reverse, not --dataset files", tmp_path / "de.txt")


def test_the_twin_by_hand_translates_alike(translator, tmp_path, capsys, monkeypatch):
    """With the same weights, in a run of its own."""
    by_hand, place = tmp_path / "run", translator.parent
    flags = [*FILES, "--src", place / "de.txt", "--tgt", place / "en.txt"]
    run(script("Transformer_Manual").main, *flags, "--subset", 64, "--run-dir", by_hand)
    state = checkpoint.load(by_hand / "best.safetensors")
    state["model"] = checkpoint.load(translator / "best.safetensors")["model"]
    checkpoint.save(by_hand / "best.safetensors", state)
    main = script("Transformer_Manual", "translate").main
    lines = ["zwei rote hunde", "", "ein ein schlafen", "rote hunde"]
    for beam in (1, 3):
        pipe(monkeypatch, "\n".join(lines).encode())
        result = call(capsys, main, "--run-dir", by_hand, "--beam", beam)
        assert (result.code, result.err) == (0, "")
        assert result.out.split("\n")[:-1] == [answer(line) for line in lines]


def test_odd_input_has_an_output_line_each(translator, capsys, monkeypatch):
    odd = b"\xfe\xfe\n\xe7\x94\xb5\xe5\xbd\xb1\n" + b"zwei " * 500 + b"\n\x00\n\xe2\x80\xa8\n"
    pipe(monkeypatch, odd)
    assert len(ask(capsys, translator)) == 5


@pytest.mark.long
def test_somebody_who_types_is_answered_at_once(translator):
    process = start("-m", "Transformer_Torch.translate", "--run-dir", translator, stdin=-1)
    for line in ("zwei hunde", "rote rote ein"):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == answer(line) + "\n"
    process.stdin.write("rote hunde")
    result = finish(process)
    assert (result.code, result.out, result.err) == (0, "red dogs\n", "")


def test_translations_come_in_the_order_of_the_texts(translator, monkeypatch):
    model, test = restored(translator)
    texts = ["zwei rote hunde ein", "ein ein", "", "rote hunde schlafen", "ein ein", "zwei ein"]
    expected = [measures.translate(model, test.tokenizer, [line], 2)[0] for line in texts]
    for tokens in (measures.TOKENS, 9, 1):
        monkeypatch.setattr(measures, "TOKENS", tokens)
        assert measures.translate(model, test.tokenizer, texts, 2) == expected
    assert measures.translate(model, test.tokenizer, []) == []


def test_sentences_that_are_too_long_end_earlier():
    source = torch.tensor([[4, 5, 6, 7, 3], [4, 5, 3, PAD, PAD]])
    assert shortened(source, 5) is source
    assert shortened(source, 3).tolist() == [[4, 5, 3], [4, 5, 3]]
    assert shortened(source, 4).tolist() == [[4, 5, 6, 3], [4, 5, 3, PAD]]
    assert source[0].tolist() == [4, 5, 6, 7, 3]


def test_what_may_go_wrong_with_a_translation_is_one_line(translator, writer, tmp_path, capsys):
    for argv, part in (
        (["--run-dir", tmp_path], tmp_path),
        (["--run-dir", translator, "--beam", 0], "--beam"),
        (["--run-dir", translator, "--length-penalty", -1], "--length-penalty"),
        (["--run-dir", translator, "--device", "tpu"], "tpu"),
        (["--run-dir", translator, "--input", tmp_path / "absent"], tmp_path / "absent"),
        (["--run-dir", translator, "--input", tmp_path], tmp_path),
        (["--run-dir", writer, "ein"], "train.py --task translate"),
    ):
        assert_one_line(call(capsys, translate.main, *argv), part)


@pytest.mark.parametrize("folder", TRANSFORMERS)
@pytest.mark.parametrize("words", ["ein hund", ""])
def test_a_sentence_and_a_file_are_not_both_translated(folder, words, tmp_path, capsys):
    (tmp_path / "de.txt").write_text("zwei hunde\n")
    argv = ["--run-dir", tmp_path, "--input", tmp_path / "de.txt", words]
    assert_one_line(call(capsys, script(folder, "translate").main, *argv), "--input", "not both")


@pytest.mark.parametrize("folder", TRANSFORMERS)
@pytest.mark.parametrize("alpha", ["10", "1e6", "inf", "nan"])
def test_no_length_penalty_is_so_large_that_it_overflows(folder, alpha, tmp_path, capsys):
    argv = ["--run-dir", tmp_path, "--length-penalty", alpha, "ein hund"]
    result = call(capsys, script(folder, "translate").main, *argv)
    assert_one_line(result, "--length-penalty", "at least 0 and below 10", alpha)


def test_the_largest_length_penalty_still_tells_scores_apart(translator, capsys):
    sentence = " ".join(["ein zwei"] * 20)
    found = ask(capsys, translator, "--beam", 3, "--length-penalty", 9.99, sentence)
    assert len(found) == 1
    longest = penalty(torch.tensor(10_000), 9.99)
    assert longest.isfinite() and -0.001 / longest < -0.0001 / longest < 0


def test_thousand_sentences_do_not_take_long():
    """Untrained, so none ends before its limit; the real network is 16 times as wide."""
    model = Transformer(50, 16, 2, 1, 16)
    tokenizer = Words.of({"words": [*("<pad>", "<unk>", "<s>", "</s>"), *map(str, range(46))]})
    texts = [" ".join(["7"] * (3 + n % 5)) for n in range(1_000)]
    begun = time.process_time()
    translations = measures.translate(model, tokenizer, texts, beam_size=2)
    assert len(translations) == 1_000 and time.process_time() - begun < 20


# ---- generate.py ----


def write(capsys, run_dir, *argv) -> str:
    result = call(capsys, generate.main, "--run-dir", run_dir, "--length", 40, *argv)
    assert (result.code, result.err) == (0, "")
    return result.out


@pytest.mark.smoke
def test_what_was_learned_by_heart_is_written(writer, capsys):
    """Far beyond the window of 16 characters that the network sees."""
    assert write(capsys, writer, "--prompt", "abc", "--temperature", 0) == (TEXT[:43] + "\n")
    assert write(capsys, writer, "--temperature", 0) == TEXT[:40] + "\n"
    samples = (writer / "samples.txt").read_text()
    assert samples.count("==== after epoch") == 3 and samples.rstrip().endswith("defgh\nabc")


def test_same_seed_writes_the_same_text(writer, capsys):
    bold = ["--prompt", "a", "--temperature", 5]
    first = write(capsys, writer, *bold)
    assert first == write(capsys, writer, *bold) != write(capsys, writer, *bold, "--seed", 1)
    greedy = write(capsys, writer, "--temperature", 0)
    assert greedy == write(capsys, writer, *bold[2:], "--top-p", 0, "--seed", 3)
    assert greedy == write(capsys, writer, *bold[2:], "--top-k", 1, "--seed", 4)


@pytest.mark.parametrize(
    "flags, parts",
    [
        (["--prompt", "aXbY"], ["'X' 'Y'", "not in the vocabulary"]),
        (["--prompt", ""], ["--prompt", "empty"]),
        (["--temperature", "-1"], ["--temperature"]),
        (["--top-p", "1.5"], ["--top-p"]),
    ],
)
def test_bad_wishes_of_a_text_are_one_line(flags, parts, writer, capsys):
    result = call(capsys, generate.main, "--run-dir", writer, *flags)
    assert_one_line(result, *parts)
    assert result.out == ""


def test_a_translator_writes_no_text(translator, capsys):
    result = call(capsys, generate.main, "--run-dir", translator)
    assert_one_line(result, "train.py --task lm")


@pytest.mark.parametrize("main", [generate.main, translate.main])
def test_help_of_the_other_scripts_reads(main, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    result = call(capsys, main, "--help")
    assert result.code == 0 and result.err == "" and result.out.startswith("usage: ")
    assert max(map(len, result.out.splitlines())) <= 100 and "--device" in result.out
