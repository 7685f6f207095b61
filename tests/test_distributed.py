"""common/distributed.py: two processes under torchrun do what one does with the whole batch."""

import itertools
import json
import os

import pytest
import torch
from PIL import Image

from common import checkpoint, distributed
from common.data import Split
from common.evaluation import best_weights
from ResNet.dataset import coloured_shapes, image_folder
from tests.conftest import user_error
from tests.running import finish, free_port, history, script, small, start, torchrun

possible = os.name == "posix" and torch.distributed.is_available()
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not possible, reason="torchrun with gloo"),
]


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    monkeypatch.setattr("common.plots.draw_curves", lambda path, history: None)


@pytest.fixture(scope="module")
def goods(tmp_path_factory):
    """A folder of shapes of 16 x 16 pixels: 64 to train on, and fewer than a batch to validate."""
    root = tmp_path_factory.mktemp("data") / "goods"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(coloured_shapes.SIZES_SEEDS, "test", (100, 3))
        shapes = coloured_shapes.make("test")
    for n, (image, label) in enumerate(zip(shapes.inputs, shapes.labels, strict=True)):
        path = root / ("train" if n < 64 else "val" if n < 83 else "test") / f"{label % 3}"
        path.mkdir(parents=True, exist_ok=True)
        pixels = image[:, ::2, ::2].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path / f"{n:03d}.png")
    return root


def flags_of(goods, run_dir, *more):
    flags = ["--dataset", "folder", "--data-dir", goods, "--batch-size", 32, "--run-dir", run_dir]
    return [*map(str, (*flags, *more))]


# ---- in one process ----


def test_one_process_is_the_first_of_one_and_changes_nothing():
    model, values = torch.nn.Linear(2, 3), torch.tensor([1.0, 2.0])
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.is_first() and not distributed.is_distributed()
    assert distributed.parallel(model) is distributed.parallel(model, True) is model
    assert distributed.total(values) is values
    assert distributed.own_seed(5, 0) == 5
    with distributed.processes(torch.device("cpu")) as device:
        assert device == torch.device("cpu") and not distributed.is_distributed()


@pytest.mark.parametrize("size, parts, even", [(8, 1, 1), (8, 4, 1), (8, 3, 0), (1, 2, 0)])
def test_a_batch_is_dealt_out_evenly_or_refused(size, parts, even):
    if even:
        distributed.check_batch(size, parts)
    else:
        with user_error(f"--batch-size {size}", f"{parts} parts"):
            distributed.check_batch(size, parts)


# ---- in two: what the functions give ----

EACH = '''
"""What every process sees, in a file of its own."""

from contextlib import suppress

import pytest
import torch
from torch.nn import functional as F

from common import distributed
from common.device import seed_everything
from common.errors import UserError
from common.metrics import RunningMean
from ResNet.dataset import image_folder, streamed
from tests.test_distributed import make_network, make_split


def main(argv):
    place, goods = argv
    with distributed.processes(torch.device("cpu")):
        rank, seen = distributed.rank(), look(goods)
    seen["left"] = distributed.is_distributed()
    torch.save(seen, f"{place}/{rank}.pt")


def look(goods):
    seen, rank = {}, distributed.rank()
    print("printed by", rank)
    seen["who"] = [rank, distributed.world_size(), distributed.is_first()]
    seen["total"] = distributed.total(torch.tensor([1.0, 10.0]) * (rank + 1))

    running = RunningMean()
    running.add(torch.tensor(2.0 + 3 * rank), 3 - 2 * rank)
    seen["gathered"] = [running.gather().value, running.count]
    running = RunningMean()
    if rank == 0:
        running.add(torch.tensor(2.0), 3)
    seen["gathered, one without examples"] = running.gather().value

    seen["refused"] = []
    for size, parts in ((8, 1), (7, 1), (8, 4), (8, 8)):
        try:
            distributed.check_batch(size, parts)
        except UserError as error:
            seen["refused"].append(str(error))

    split = make_split()
    seen["batches"] = [labels for _, labels in split.batches(8, seed=1, epoch=2, skip=1)]
    seen["in order"] = [labels for _, labels in split.in_order(4)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streamed, "MOST_WORKERS", 0)
        patch.setattr(image_folder, "IN_MEMORY_BYTES", 0)
        from_disk = image_folder.load_test(goods, None)
        seen["streamed batches"] = list(from_disk.batches(4, seed=1))
        seen["streamed in order"] = list(from_disk.in_order(4))

    for parts in (1, 2):
        model = make_network()
        fast = distributed.parallel(model)
        (inputs, labels), *_ = split.batches(8, seed=1)
        for part in range(parts):
            share = slice(part, None, parts)
            with distributed.synchronising(fast, part == parts - 1):
                loss = F.cross_entropy(fast(inputs[share]), labels[share] % 3) / parts
                loss.backward()
        seen[f"gradients of {parts}"] = [p.grad for p in model.parameters()]

    torch.manual_seed(0)
    if not distributed.is_first():
        seed_everything(distributed.own_seed(seed=7, step=0))
    seen["drawn"] = torch.rand(3)
    with suppress(UserError):
        distributed.parallel(make_network(), sync_batch_norm=True)
        seen["sync"] = "not refused"
    return seen
'''


def make_split():
    generator = torch.Generator().manual_seed(0)
    return Split(torch.randn(22, 5, generator=generator), torch.arange(22), ["a"], {})


def make_network():
    with torch.random.fork_rng():
        torch.manual_seed(distributed.rank())  # the first process's weights are everybody's
        return torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))


@pytest.fixture(scope="module")
def two(in_turn):
    """What the two processes saw."""
    place, _ = in_turn
    return [torch.load(place / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_the_first_process_alone_prints(two, in_turn):
    first, second = two
    assert (first["who"], second["who"]) == ([0, 2, True], [1, 2, False])
    assert in_turn[1]["each"][0] == "each\nprinted by 0\n"
    assert not first["left"] and not second["left"]


def test_sums_and_means_are_over_both(two):
    for seen in two:
        assert seen["total"].tolist() == [3, 30]
        assert seen["gathered"] == [(3 * 2 + 1 * 5) / 4, 4]
        assert seen["gathered, one without examples"] == 2.0


def test_a_batch_that_cannot_be_dealt_out_is_refused_by_both(two):
    for seen in two:
        assert [line.split()[1] for line in seen["refused"]] == ["7", "8"]
        assert all("2 processes" in line for line in seen["refused"])


def test_the_shares_of_a_batch_are_the_batch(two):
    whole = [labels for _, labels in make_split().batches(8, seed=1, epoch=2, skip=1)]
    shares = [seen["batches"] for seen in two]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert len(first) == len(second) == 4
        assert sorted([*first.tolist(), *second.tolist()]) == sorted(batch.tolist())


def test_for_evaluation_every_example_is_seen_once(two):
    first, second = (torch.cat(seen["in order"]).tolist() for seen in two)
    assert sorted(first + second) == list(range(22)) and min(len(first), len(second)) >= 8


def test_streamed_shares_are_those_in_memory(two, goods):
    whole = image_folder.load_test(str(goods), None)
    for name, batches in (("batches", whole.batches(4, seed=1)), ("in order", whole.in_order(4))):
        seen = [images for part in two for images, _ in part[f"streamed {name}"]]
        seen = {image.numpy().tobytes() for image in torch.cat(seen)}
        assert seen == {image.numpy().tobytes() for images, _ in batches for image in images}


@pytest.mark.parametrize("parts", [1, 2])
def test_gradients_are_those_of_the_whole_batch(two, parts):
    model = make_network()
    (inputs, labels), *_ = make_split().batches(8, seed=1)
    torch.nn.functional.cross_entropy(model(inputs), labels % 3).backward()
    for seen in two:
        for gradient, parameter in zip(
            seen[f"gradients of {parts}"], model.parameters(), strict=True
        ):
            torch.testing.assert_close(gradient, parameter.grad)


def test_processes_draw_numbers_of_their_own(two):
    torch.manual_seed(0)
    assert torch.equal(two[0]["drawn"], torch.rand(3)), "the first goes on as it would alone"
    assert not torch.equal(two[0]["drawn"], two[1]["drawn"])


def test_synchronised_statistics_without_gpus_are_refused(two):
    assert "sync" not in two[0] and "sync" not in two[1]


# ---- in two: what the scripts do ----

FROZEN = ["--model", "resnet20", "--freeze", "--crop", 0, "--no-flip", "--schedule", "constant"]


def assert_only_the_first_speaks(out, err, epochs):
    lines = out.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == len(epochs)
    assert [line.split()[1].split("/")[0] for line in lines if "epoch  " in line] == epochs
    assert sum("run folder" in line for line in lines) == 1
    assert "Traceback" not in err and "\r" not in out


def test_two_processes_go_on_with_the_losses_of_one(goods, tmp_path):
    """The network in evaluation mode: batch norm sees the same in half a batch as in the whole."""
    main = script("ResNet").main
    main(flags_of(goods, tmp_path / "one", *FROZEN, "--epochs", 2))
    main(flags_of(goods, tmp_path / "two", *FROZEN, "--accumulate", 2, "--epochs", 1))
    resume = ["--resume", "--run-dir", tmp_path / "two", "--epochs", 2]
    result = torchrun("-m", "ResNet.train", *resume)  # as a user types it
    assert result.code == 0, result.err
    assert_only_the_first_speaks(result.out, result.err, ["2"])

    one, two = history(tmp_path / "one"), history(tmp_path / "two")
    assert [row["epoch"] for row in two] == ["1", "2"]
    for name in ("train_loss", "validation_loss", "validation_accuracy", "lr"):
        expected = [float(row[name]) for row in one]
        assert [float(row[name]) for row in two] == pytest.approx(expected, rel=1e-5), name
    weights = [checkpoint.load(tmp_path / run / "last.safetensors") for run in ("one", "two")]
    torch.testing.assert_close(*(state["model"]["fc.weight"] for state in weights))


def before_texts(place):
    """Trains one run to the end and another half; gives what resumes that."""
    flags = ["--dataset", "templates", "--subset", 96, "--batch-size", 16, "--word-dropout", 0,
             "--adversarial", 0.1, "--schedule", "constant"]  # fmt: skip
    return begin("LSTM", place, flags)


def begin(folder, place, flags, more=()):
    for name, epochs in (("one", 2), ("two", 1)):
        where = ["--run-dir", place / name, "--epochs", epochs]
        script(folder).main([*map(str, (*flags, *(more if name == "two" else ()), *where))])
    return f"{folder}.train", ["--resume", "--run-dir", str(place / "two"), "--epochs", "2"]


def before_translation(place):
    """Sources of one length, so that two processes make the same batches, but not targets."""
    flags = [*small("Transformer_Torch"), "--dropout", 0, "--schedule", "constant"]
    words = list(itertools.islice(itertools.permutations("abcdef"), 0, 700, 13))  # 54
    for side, lines in (("src", words), ("tgt", [w[: n % 6 + 1] for n, w in enumerate(words)])):
        (place / side).write_text("\n".join(map(" ".join, lines)) + "\n")
    flags[:6] = ["--dataset", "files", "--src", place / "src", "--tgt", place / "tgt"]
    flags += ["--tokenizer", "word", "--batch-size", 8 * 7]
    return begin("Transformer_Torch", place, flags, ["--accumulate", 2])


def before_lm(place):
    """With Muon, of whose momentum each process has all."""
    flags = [*small("Transformer_Torch"), "--dropout", 0, "--schedule", "constant"]
    (place / "input.txt").write_text("abcdefgh\n" * 60)
    flags[:6] = ["--dataset", "text", "--data-dir", place, "--batch-size", 8]
    flags += ["--max-length", 8, "--sample-length", 9, "--optimizer", "muon"]
    return begin("Transformer_Torch", place, flags, ["--accumulate", 2])


EVERYTHING = ["--ema", 0.5, "--mixup", 0.3, "--cutmix", 0.3, "--cutout", 2, "--accumulate", 2]


def before_images(place, goods):
    flags = flags_of(goods, place / "run", *EVERYTHING, "--model", "resnet9-small")
    return "ResNet.train", [*flags, "--epochs", "1", "--train-accuracy", "10"]


IN_TURN = '''
"""Scripts one after the other, as one of two processes. Each has a rendezvous of its own, and what
torchrun would tell it. torchrun itself takes seconds to begin."""

import importlib
import json
import os
import sys

from common import cli
from ResNet.utils import predict

predict.AT_ONCE = 4  # so that both processes have something to validate on
rank, jobs = sys.argv[1:]
os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
for port, module, argv in json.loads(jobs):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for stream in (sys.stdout, sys.stderr):
        print("== script", module, file=stream, flush=True)
    cli.entry(lambda: importlib.import_module(module).main(argv))
'''


@pytest.fixture(scope="module")
def in_turn(tmp_path_factory, goods):
    """The place of what two processes saw, of four runs that they ended and of one that was
    refused; and what was printed of each."""
    place, jobs = tmp_path_factory.mktemp("turns"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.plots.draw_curves", lambda path, history: None)
        for name, before in (("texts", before_texts), ("translation", before_translation),
                             ("lm", before_lm)):  # fmt: skip
            (place / name).mkdir()
            jobs[name] = before(place / name)
    jobs["images"] = before_images(place / "images", goods)
    (place / "each.py").write_text(EACH)
    jobs["each"] = "each", [str(place), str(goods)]
    refused = flags_of(goods, place / "refused" / "run", *FROZEN, "--batch-size", 33)
    jobs["refused"] = "ResNet.train", refused
    (place / "in_turn.py").write_text(IN_TURN)
    calls = json.dumps([(free_port(), *job) for job in jobs.values()])
    processes = [start(place / "in_turn.py", rank, calls) for rank in (0, 1)]
    first, second = map(finish, processes)
    assert first.code == second.code == 2, (first.err, second.err)
    printed = {name: [] for name in jobs}
    for streams in ((first.out, second.out), (first.err, second.err)):
        both = (stream.split("== script ")[1:] for stream in streams)
        for name, one, two in zip(jobs, *both, strict=True):
            printed[name].append(one + two.partition("\n")[2])  # the module is named once
    return place, printed


@pytest.mark.parametrize("name", ["texts", "translation", "lm"])
def test_two_processes_learn_to_read_and_write_as_one_does(name, in_turn):
    """Each pads its share of a batch for itself; the shares have more or fewer tokens, and each
    token counts the same."""
    place, printed = in_turn
    assert_only_the_first_speaks(*printed[name], ["2"])
    one, two = (history(place / name / run) for run in ("one", "two"))
    for column in {"train_loss", "validation_loss", "validation_accuracy"} & one[0].keys():
        expected = [float(row[column]) for row in one]
        assert [float(row[column]) for row in two] == pytest.approx(expected, rel=1e-4), column


def test_the_accuracy_of_two_processes_is_that_of_the_checkpoint(goods, in_turn):
    """Each process has running statistics of its own, and the first one's are saved."""
    place, printed = in_turn
    assert_only_the_first_speaks(*printed["images"], ["1"])
    run_dir = place / "images" / "run"
    names = [path.name for path in run_dir.iterdir()]
    assert sorted(names) == [
        ".lock", "best.safetensors", "config.json", "curves.png", "history.csv", "last.safetensors",
    ]  # fmt: skip

    state = checkpoint.load(run_dir / "best.safetensors")
    train, validation = image_folder.load_training(str(goods), None)
    args = script("ResNet").make_parser().parse_args(before_images(run_dir.parent, goods)[1])
    model = script("ResNet").build_model(args, validation)
    model.load_state_dict(best_weights(state))
    logits, labels = script("ResNet").predict_all(model, validation, args)
    expected = torch.nn.functional.cross_entropy(logits, labels).item()
    (row,) = history(run_dir)
    assert float(row["validation_loss"]) == pytest.approx(expected, rel=1e-4)
    logits, labels = script("ResNet").predict_all(model, train.subset(10), args)
    expected = (logits.argmax(1) == labels).float().mean().item()
    assert float(row["train_accuracy"]) == pytest.approx(expected)


def test_a_batch_that_cannot_be_dealt_out_is_one_line(in_turn):
    place, printed = in_turn
    out, err = printed["refused"]
    said = {line for line in err.splitlines() if line.startswith("error: ")}
    assert len(said) == 1 and "--batch-size 33" in said.pop()
    assert out == "ResNet.train\n", "its name, and nothing else"
    assert "UserError" not in err
    assert not (place / "refused" / "run").exists()
