"""common/checkpoint.py: what comes back, what is refused, and what a full disk leaves."""

import math
import os
import random
import re
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

import CNN_Manual.model
import CNN_Manual.utils.losses
import CNN_Manual.utils.optim
import CNN_Torch.model
import CNN_Torch.utils.optim
from common import checkpoint
from tests.conftest import user_error
from tests.running import differences, finish, start

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


def round_trip(tmp_path, state):
    checkpoint.save(tmp_path / "state.safetensors", state)
    return checkpoint.load(tmp_path / "state.safetensors")


def assert_same(actual, expected):
    """Equal in value and type, all the way down; tensors in every bit."""
    assert type(actual) is type(expected)
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)
    elif isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key, value in expected.items():
            assert_same(actual[key], value)
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            assert_same(a, e)
    else:
        assert actual == expected


def training_state():
    """Like a run's: a network and its optimiser after a step, and plain values."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.Linear(30, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model(torch.randn(5, 20)).square().mean().backward()
    optimizer.step()
    return {
        "model": dict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "history": [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": 1 / 3}],
        "epoch": 2,
    }


@pytest.mark.smoke
def test_nested_state_comes_back_with_its_keys_types_and_order(tmp_path):
    state = {
        "z": {3: {"x": torch.arange(4)}, 1: [torch.ones(2, 3), [], {}], -7: "text \n “ü”"},
        "a": [None, True, False, 0, 1, 2**70, -1.5, [1, [2.0, torch.zeros(())]]],
        "": {"dict": [], "tensor": "not one", "empty": torch.zeros(0, 5)},
    }
    assert_same(round_trip(tmp_path, state), state)


def test_state_without_any_tensor(tmp_path):
    assert round_trip(tmp_path, {"epoch": 3}) == {"epoch": 3}


@pytest.mark.parametrize(
    "value", [0.1, 1 / 3, -0.0, math.pi, 5e-324, 1.7976931348623157e308, math.inf, math.nan]
)
def test_floats_come_back_exactly(tmp_path, value):
    assert round_trip(tmp_path, {"lr": value})["lr"].hex() == value.hex()


def test_tuples_come_back_as_lists(tmp_path):
    assert round_trip(tmp_path, {"betas": (0.9, 0.999)}) == {"betas": [0.9, 0.999]}


@pytest.mark.parametrize("shape", [(), (1,), (2, 3, 5), (0,)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back(tmp_path, dtype, shape):
    tensor = torch.randint(0, 100, shape).to(dtype)
    assert_same(round_trip(tmp_path, {"x": tensor}), {"x": tensor})


def test_views_of_one_memory_come_back_apart(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    state = {
        "base": base,
        "again": base,
        "row": base[1],
        "transposed": base.T,
        "strided": base[:, ::2],
        "expanded": torch.ones(1).expand(5),
    }
    loaded = round_trip(tmp_path, state)
    assert_same(loaded, state)
    loaded["base"].zero_()
    loaded["expanded"][0] = 7
    assert_same(loaded["row"], base[1])
    assert loaded["expanded"].tolist() == [7, 1, 1, 1, 1]


def test_tensors_that_need_gradients_come_back_without(tmp_path):
    weight = nn.Parameter(torch.randn(2, 3))
    loaded = round_trip(tmp_path, {"weight": weight})["weight"]
    assert not loaded.requires_grad
    assert_same(loaded, weight.detach())


def test_dotted_keys_do_not_overwrite_each_other(tmp_path):
    state = {"a": {"b": torch.zeros(2)}, "a.b": torch.ones(2), 1: torch.ones(1), "1": torch.ones(3)}
    assert_same(round_trip(tmp_path, state), state)


def test_optimiser_goes_on_as_if_never_saved(tmp_path):
    def train(weight, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            weight.square().sum().backward()
            optimizer.step()

    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    train(weight, optimizer, 3)
    state = round_trip(tmp_path, {"weight": weight, "optimizer": optimizer.state_dict()})
    train(weight, optimizer, 3)

    resumed = nn.Parameter(state["weight"])
    other = torch.optim.AdamW([resumed], lr=0.5)
    other.load_state_dict(state["optimizer"])
    train(resumed, other, 3)
    assert_same(resumed, weight)


@pytest.mark.smoke
def test_other_programs_can_read_the_tensors_under_dotted_names(tmp_path):
    path = tmp_path / "state.safetensors"
    weight = torch.randn(2, 3)
    checkpoint.save(path, {"model": {"layers.0.weight": weight}, "state": {0: [torch.ones(1)]}})
    tensors = safetensors.torch.load_file(path)
    assert set(tensors) == {"model.layers.0.weight", "state.0.0"}
    assert_same(tensors["model.layers.0.weight"], weight)
    with safe_open(path, framework="pt") as file:
        assert all(isinstance(value, str) for value in file.metadata().values())


def test_saving_again_replaces_the_file_and_leaves_what_was_loaded(tmp_path):
    path = tmp_path / "state.safetensors"
    loaded = round_trip(tmp_path, {"x": torch.zeros(1000)})
    checkpoint.save(path, {"x": torch.ones(1000)})
    assert loaded["x"].sum() == 0
    assert checkpoint.load(path)["x"].sum() == 1000
    assert os.listdir(tmp_path) == [path.name]


def damage(path, seed):
    """Change one byte at a random place."""
    content = bytearray(path.read_bytes())
    generator = random.Random(seed)
    content[generator.randrange(len(content))] ^= generator.randrange(1, 256)
    path.write_bytes(content)


@pytest.mark.parametrize("seed", range(25))
def test_a_changed_byte_anywhere_is_noticed(tmp_path, seed):
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, training_state())
    damage(path, seed)
    with user_error(path):
        checkpoint.load(path)


@pytest.mark.parametrize("part", ["model", "history"])
def test_a_changed_value_is_noticed(tmp_path, part):
    """The file stays a good safetensors file: its own checks cannot find this."""
    path = tmp_path / "state.safetensors"
    weight = torch.full((50,), 1.5)
    checkpoint.save(path, {"model": {"weight": weight}, "history": [{"loss": 0.123456}]})
    old = weight[:1].numpy().tobytes() if part == "model" else b"0.123456"
    new = torch.tensor([2.5]).numpy().tobytes() if part == "model" else b"0.923456"
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    with user_error(path):
        checkpoint.load(path)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.9999])
def test_a_file_cut_short_is_refused(tmp_path, share):
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, training_state())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with user_error(path):
        checkpoint.load(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"no checkpoint at all, but a few lines of text\n" * 20,
        b"\xff" * 100,
        safetensors.torch.save({"weight": torch.ones(3)}),
        safetensors.torch.save({"weight": torch.ones(3)}, {"format": "pt"}),
        safetensors.torch.save({"weight": torch.ones(3)}, {"state": "no JSON"}),
        safetensors.torch.save({"weight": torch.ones(3)}, {"state": '{"weight": 1}'}),
        safetensors.torch.save({}, {"state": '{"dict": [["w", {"tensor": "w"}]]}'}),
    ],
    ids=["empty", "byte", "text", "ones", "safetensors", "format", "no-json", "json", "no-tensor"],
)
def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path, content):
    path = tmp_path / "state.safetensors"
    path.write_bytes(content)
    with user_error(path, "use another run"):
        checkpoint.load(path)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    path = tmp_path / "state.safetensors"
    torch.save({"weight": torch.ones(3)}, path)
    with user_error(path):
        checkpoint.load(path)


@pytest.mark.parametrize("what", ["missing", "folder"])
def test_a_path_without_a_file_is_refused(tmp_path, what):
    path = tmp_path / "missing" if what == "missing" else tmp_path
    with user_error(path):
        checkpoint.load(path)


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from common import checkpoint, cli

def main():
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # writing more fails half-way
    checkpoint.save(Path(sys.argv[1]), {"weight": torch.ones(10_000)})

cli.entry(main)
"""


@pytest.mark.parametrize("before", ["nothing", "checkpoint"])
@pytest.mark.long
def test_a_full_disk_is_one_line_and_the_old_file_stays_whole(tmp_path, before):
    pytest.importorskip("resource")
    path = tmp_path / "last.safetensors"
    if before == "checkpoint":
        checkpoint.save(path, {"weight": torch.zeros(10_000)})
    done = finish(start("-c", FULL_DISK, path))
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert str(path) in done.err
    assert os.listdir(tmp_path) == ([path.name] if before == "checkpoint" else [])
    if before == "checkpoint":
        assert_same(checkpoint.load(path), {"weight": torch.zeros(10_000)})


@pytest.mark.parametrize("what", ["no folder", "file for a folder"])
def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path, what):
    folder = tmp_path / "run"
    if what == "file for a folder":
        folder.write_text("")
    with user_error(folder / "last.safetensors"):
        checkpoint.save(folder / "last.safetensors", {"epoch": 1})


def test_restore_puts_the_state_in(tmp_path):
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    state = round_trip(tmp_path, dict(other.state_dict()))
    checkpoint.restore(model, state, tmp_path / "state.safetensors", "network")
    assert_same(dict(model.state_dict()), dict(other.state_dict()))


@pytest.mark.smoke
@pytest.mark.parametrize(
    "state",
    [nn.Linear(4, 2).state_dict(), nn.Linear(3, 2, bias=False).state_dict(), nn.ReLU().state_dict(),
     nn.Sequential(nn.Linear(3, 2)).state_dict(), [1, 2], None],
    ids=["shape", "no-bias", "nothing", "names", "list", "none"],
)  # fmt: skip
def test_restore_refuses_another_network(tmp_path, state):
    path = tmp_path / "best.safetensors"
    with user_error(path, "another network"):
        checkpoint.restore(nn.Linear(3, 2), state, path, "network")


def test_restore_refuses_another_optimiser(tmp_path):
    path = tmp_path / "last.safetensors"
    small, large = nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    state = torch.optim.SGD(large.parameters(), lr=0.1).state_dict()
    with user_error(path, "another optimiser"):
        checkpoint.restore(torch.optim.SGD(small.parameters(), lr=0.1), state, path, "optimiser")


def after_steps(folder: str, name: str):
    """A small CNN and its optimiser, both after two steps."""
    torch.manual_seed(0)
    arguments = dict(channels=(3, 4), image_size=8, num_classes=3, dropout=0.0)
    images, labels = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
    if folder == "CNN_Torch":
        model = CNN_Torch.model.CNN(**arguments)
        optimizer = CNN_Torch.utils.optim.make_optimizer(name, model, 0.01, 0.1)
    else:
        model = CNN_Manual.model.CNN(**arguments)
        optimizer = CNN_Manual.utils.optim.OPTIMIZERS[name](model, 0.01, 0.1)

    def step():
        if folder == "CNN_Torch":
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
        else:
            criterion = CNN_Manual.utils.losses.CrossEntropy()
            criterion.forward(model.forward(images), labels)
            model.backward(criterion.backward())
        optimizer.step()

    step()
    step()
    return model, optimizer, step


NAMES = ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "muon"]


@pytest.mark.smoke
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("folder", ["CNN_Manual", "CNN_Torch"])
def test_a_restored_optimiser_goes_on_exactly(folder, name, tmp_path):
    model, optimizer, step = after_steps(folder, name)
    state = {"model": dict(model.state_dict()), "optimizer": optimizer.state_dict()}
    state = round_trip(tmp_path, state)
    step()
    other, resumed, again = after_steps(folder, name)
    again()  # it stands elsewhere
    path = tmp_path / "state.safetensors"
    checkpoint.restore(other, state["model"], path, "network")
    checkpoint.restore(resumed, state["optimizer"], path, "optimiser", stepped=True)
    again()
    assert_same(dict(other.state_dict()), dict(model.state_dict()))
    assert_same(resumed.state_dict(), optimizer.state_dict())


def each(kept, change):
    """Every number and tensor that is kept of a parameter, changed: `change(name, value)`."""
    return {n: {k: change(k, v) for k, v in own.items()} for n, own in kept.items()}


def without_first(state):
    return dict([*state.items()][1:])


DAMAGED = {  # what a torch.optim optimiser keeps of each parameter
    "nothing": lambda kept: {},
    "nothing of the first parameter": without_first,
    "nothing of any parameter": lambda kept: {k: {} for k in kept},
    "less of each": lambda kept: {k: without_first(v) for k, v in kept.items()},
    "more of each": lambda kept: {k: {**v, "x": torch.ones(1)} for k, v in kept.items()},
    "other parameters": lambda kept: {k + 1: v for k, v in kept.items()},
    "texts": lambda kept: each(kept, lambda k, v: "x"),
    "lists": lambda kept: each(kept, lambda k, v: [v]),
    "other shapes": lambda kept: each(kept, lambda k, v: torch.ones(2, 2, 2, 2, 2)),
    "NaN": lambda kept: each(kept, lambda k, v: torch.as_tensor(v) * float("nan")),
    "integers": lambda kept: each(kept, lambda k, v: torch.as_tensor(v).long()),
    "steps below zero": lambda kept: each(kept, lambda k, v: -v if k in ("step", "t") else v),
    "a list": lambda kept: [kept],
    "None": lambda kept: None,
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", NAMES[1:])  # plain SGD keeps nothing
def test_restore_refuses_what_the_optimiser_would_not_keep(name, damage, tmp_path):
    _, optimizer, _ = after_steps("CNN_Torch", name)
    whole = optimizer.state_dict()
    state = {**whole, "state": DAMAGED[damage](whole["state"])}
    path, same = tmp_path / "last.safetensors", differences(state, whole) == []
    assert same == (damage == "steps below zero" and name in ("momentum", "nesterov"))
    if not same:
        with user_error(path, "another optimiser"):
            checkpoint.restore(optimizer, state, path, "optimiser", stepped=True)


def test_an_optimiser_has_its_own_options_back(tmp_path):
    """Those are the flags' and the schedule's: what a file says of them is not used."""
    _, optimizer, step = after_steps("CNN_Torch", "adam")
    state = optimizer.state_dict()
    state["param_groups"] = [{"params": group["params"]} for group in state["param_groups"]]
    checkpoint.restore(optimizer, state, tmp_path / "last.safetensors", "optimiser", stepped=True)
    assert optimizer.param_groups[0]["lr"] == 0.01
    step()
    state["param_groups"][0]["params"].reverse()
    with user_error("another optimiser"):
        checkpoint.restore(optimizer, state, tmp_path / "last.safetensors", "optimiser")


def test_an_optimiser_that_need_not_have_stepped_may_be_new(tmp_path):
    for folder in ("CNN_Manual", "CNN_Torch"):
        _, optimizer, _ = after_steps(folder, "adam")
        new = optimizer.state_dict() | ({"state": {}} if folder == "CNN_Torch" else {"t": 0})
        path = tmp_path / "last.safetensors"
        checkpoint.restore(optimizer, new, path, "optimiser")
        with user_error(path, "another optimiser"):
            checkpoint.restore(optimizer, new, path, "optimiser", stepped=True)


def test_temporary_names_are_new_each_time_and_removed_on_every_failure(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", []

    def interrupted(source, target):
        seen.append(source.name)
        assert source.parent == tmp_path and source.stat().st_mode & 0o777 == mode
        raise KeyboardInterrupt

    path.write_bytes(b"before")
    mode = path.stat().st_mode & 0o777
    monkeypatch.setattr(os, "replace", interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            checkpoint.write_atomically(path, b"after")
    assert len(set(seen)) == 3 and all(re.fullmatch(r"\.file\.\w{16}\.part", n) for n in seen)
    assert os.listdir(tmp_path) == ["file"] and path.read_bytes() == b"before"


def test_a_file_with_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda n: "0" * 2 * n)
    target = tmp_path / "target"
    (tmp_path / f".file.{'0' * 16}.part").symlink_to(target)
    with user_error("cannot write"):
        checkpoint.write_atomically(tmp_path / "file", b"after")
    assert not target.exists()


@pytest.mark.parametrize("failures", [0, 2, 3])
def test_on_windows_a_file_that_is_being_read_is_waited_for(tmp_path, monkeypatch, failures):
    """There, a file that another process has open cannot be replaced."""
    path, attempts, waits = tmp_path / "file", [], []

    def replace(source, target):
        attempts.append(target)
        if len(attempts) <= failures:
            raise PermissionError(13, "Access is denied")
        os.replace(source, target)

    path.write_bytes(b"before")
    windows = SimpleNamespace(name="nt", replace=replace, fsync=os.fsync)
    monkeypatch.setattr(checkpoint, "os", windows)
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(sleep=waits.append))
    if failures == 3:
        with user_error("cannot write", "Access is denied"):
            checkpoint.write_atomically(path, b"after")
    else:
        checkpoint.write_atomically(path, b"after")
    assert path.read_bytes() == (b"before" if failures == 3 else b"after")
    assert os.listdir(tmp_path) == ["file"] and waits == [0.2, 2][:failures]


def test_leftovers_are_removed_when_nobody_has_written_for_long(tmp_path):
    old, young = (tmp_path / f".file.{digit * 16}.part" for digit in "ab")
    for file in (old, young):
        file.write_text("")
    os.utime(old, (1, 1))
    checkpoint.remove_leftovers(tmp_path, seconds=60)
    assert os.listdir(tmp_path) == [young.name]
    checkpoint.remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == []
