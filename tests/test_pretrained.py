"""utils/pretrained.py and common/evaluation.best_weights: whose weights a run starts from."""

import copy
import os
import pickle
import re
import tarfile
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common import checkpoint
from common.data import ROOT
from common.evaluation import best_weights, load_best
from ResNet.utils import pretrained
from tests.conftest import user_error
from tests.running import finish, start
from ViT.utils import pretrained as vit_pretrained


class Network(nn.Module):
    """A body with buffers, and a head as large as its classes are many."""

    def __init__(self, K=4, width=3, bias=True):
        super().__init__()
        self.conv = nn.Conv2d(2, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, K, bias=bias)
        self.header = nn.Linear(width, 2)  # named almost as the head
        for buffer in (self.norm.running_mean, self.norm.running_var):
            nn.init.uniform_(buffer)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def save_ours(path, state):
    checkpoint.save(path, {"model": state, "epoch": 3, "optimizer": {"lr": [0.1]}})


def save_average(path, state):
    """A checkpoint of a run with --ema: the network's own weights are others."""
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    average = {f"module.{name}": value for name, value in state.items()}
    average["n_averaged"] = torch.tensor(7)
    checkpoint.save(path, {"model": other, "average": average, "epoch": 3})


def save_with_metadata(path, state):
    """As Hugging Face writes them."""
    safetensors.torch.save_file(state, path, metadata={"format": "pt"})


def save_legacy(path, state):
    torch.save(state, path, _use_new_zipfile_serialization=False)


WAYS = {
    "best.safetensors": save_ours,
    "average.safetensors": save_average,
    "plain.safetensors": lambda path, state: safetensors.torch.save_file(state, path),
    "format.safetensors": save_with_metadata,
    "network.pth": lambda path, state: torch.save(state, path),
    "network.pt": lambda path, state: torch.save(state, path),
    "legacy.pth": save_legacy,
}


def states_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


# loading


@pytest.mark.smoke
@pytest.mark.parametrize("name", WAYS)
def test_every_kind_of_file_gives_its_weights(tmp_path, name):
    learned, model = Network(), Network()
    WAYS[name](tmp_path / name, learned.state_dict())
    assert pretrained.load_pretrained(model, str(tmp_path / name), head="head") == []
    assert states_equal(model.state_dict(), learned.state_dict())


@pytest.mark.parametrize("name", WAYS)
def test_a_head_of_another_shape_stays_as_it_is(tmp_path, name):
    learned, model = Network(K=9), Network(K=4)
    WAYS[name](tmp_path / name, learned.state_dict())
    own = copy.deepcopy(model.head.state_dict())
    kept = pretrained.load_pretrained(model, str(tmp_path / name), head="head")
    assert kept == ["head.weight", "head.bias"]
    assert states_equal(model.head.state_dict(), own)
    for part in ("conv", "norm", "header"):
        theirs = getattr(learned, part).state_dict()
        assert states_equal(getattr(model, part).state_dict(), theirs)


def test_a_file_without_a_head_leaves_it_as_it_is(tmp_path):
    learned, model = Network().state_dict(), Network()
    body = {name: value for name, value in learned.items() if not name.startswith("head.")}
    torch.save(body, tmp_path / "body.pth")
    kept = pretrained.load_pretrained(model, str(tmp_path / "body.pth"), head="head")
    assert kept == ["head.weight", "head.bias"]
    assert torch.equal(model.conv.weight, learned["conv.weight"])


def test_a_head_without_a_bias_takes_the_weight_alone(tmp_path):
    learned, model = Network(), Network(bias=False)
    torch.save(learned.state_dict(), tmp_path / "network.pth")
    assert pretrained.load_pretrained(model, str(tmp_path / "network.pth"), head="head") == []
    assert torch.equal(model.head.weight, learned.head.weight)


# what cannot be loaded


@pytest.mark.parametrize("change", ["missing", "another shape", "one too many", "renamed"])
def test_other_weights_than_the_networks_are_refused(tmp_path, change):
    state, model = Network().state_dict(), Network()
    if change == "missing":
        del state["norm.weight"]
    elif change == "another shape":
        state = Network(width=5).state_dict()
    elif change == "one too many":
        state["block.weight"] = torch.zeros(3)
    else:
        state = {f"module.{name}": value for name, value in state.items()}
    torch.save(state, tmp_path / "network.pth")
    with user_error(tmp_path / "network.pth", "another network"):
        pretrained.load_pretrained(model, str(tmp_path / "network.pth"), head="head")


CONTENTS = {
    "a list": [torch.zeros(3)],
    "a tensor": torch.zeros(3),
    "a number": 7,
    "nothing": None,
    "numbers": {name: 1.0 for name in Network().state_dict()},
    "nested": {"epoch": 3, "state_dict": Network().state_dict()},
    "numbers as names": {3: torch.zeros(3)},
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_pth_file_that_holds_no_weights_is_named_in_one_line(tmp_path, content):
    torch.save(content, tmp_path / "file.pth")
    with user_error(tmp_path / "file.pth"):
        pretrained.load_pretrained(Network(), str(tmp_path / "file.pth"), head="head")


@pytest.mark.smoke
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_a_pickle_with_code_is_refused_unrun(tmp_path, suffix, legacy):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it ran"),)

    path = tmp_path / f"network{suffix}"
    state = {**Network().state_dict(), "code": Code()}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    with user_error("--pretrained", path):
        pretrained.load_pretrained(Network(), str(path), head="head")
    path.write_bytes(pickle.dumps(Code()))
    with user_error("--pretrained", path):
        pretrained.load_pretrained(Network(), str(path), head="head")
    assert not (tmp_path / "it ran").exists()


class Program(nn.Module):
    """Writes a file when it is loaded by torch.jit.load."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def forward(self, x):
        return x

    @torch.jit.export
    def __getstate__(self) -> str:
        return self.path

    @torch.jit.export
    def __setstate__(self, path: str) -> None:
        self.path = path
        torch.save([torch.zeros(1)], path)
        self.training = False


@pytest.fixture
def program(tmp_path) -> bytes:
    """What torch.jit.save writes of a Program, whose file is `tmp_path / "it ran"`."""
    torch.jit.script(Program(str(tmp_path / "it ran"))).save(tmp_path / "program.pth")
    torch.jit.load(tmp_path / "program.pth")
    (tmp_path / "it ran").unlink()  # it does run
    return (tmp_path / "program.pth").read_bytes()


@pytest.mark.smoke
@pytest.mark.filterwarnings("ignore")  # of torch, that TorchScript is old
@pytest.mark.parametrize("module", [pretrained, vit_pretrained])
@pytest.mark.parametrize("name", ["evil.pth", "evil.pt", "evil.bin", "evil", "evil.safetensors"])
def test_a_program_is_refused_unrun(tmp_path, program, name, module):
    path = tmp_path / name
    path.write_bytes(program)
    advice = () if path.suffix == ".safetensors" else ("TorchScript", "README shows how")
    with user_error("--pretrained", path, *advice):
        module.load_pretrained(Network(), str(path), head="head")
    assert not (tmp_path / "it ran").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_program_that_poses_as_weights_is_refused_unrun(tmp_path, program):
    """Before or behind an honest file: readers of zip files differ in which members they find."""
    torch.save(Network().state_dict(), tmp_path / "honest.pth")
    honest = (tmp_path / "honest.pth").read_bytes()
    for name, content in {"before": program + honest, "behind": honest + program}.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(content)
        with user_error("--pretrained", path, "TorchScript"):
            pretrained.load_pretrained(Network(), str(path), head="head")
    assert not (tmp_path / "it ran").exists()


def test_weights_with_the_mark_of_a_program_are_refused(tmp_path):
    torch.save(Network().state_dict(), tmp_path / "network.pth")
    with zipfile.ZipFile(tmp_path / "network.pth", "a") as file:
        file.writestr("network/constants.pkl", pickle.dumps(()))
    with user_error("--pretrained", tmp_path / "network.pth", "TorchScript"):
        pretrained.load_pretrained(Network(), str(tmp_path / "network.pth"), head="head")


def test_weights_that_are_packed_are_refused_unread(tmp_path, monkeypatch):
    """A few bytes may unpack to any number of them."""
    torch.save({"weight": torch.zeros(10**6)}, tmp_path / "network.pth")
    packed = zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "network.pth") as plain, packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert (tmp_path / "packed.pth").stat().st_size < 50_000
    monkeypatch.setattr(torch, "load", None)
    with user_error("--pretrained", tmp_path / "packed.pth", "damaged"):
        pretrained.load_pretrained(Network(), str(tmp_path / "packed.pth"), head="head")


def test_a_tar_of_torch_before_its_first_release_is_refused_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "network.pth"
    with tarfile.open(path, "w") as file:
        for name in ("storages", "tensors", "pickle"):
            (tmp_path / name).write_bytes(pickle.dumps(0))
            file.add(tmp_path / name, name)
    monkeypatch.setattr(tarfile.TarFile, "extract", None)
    monkeypatch.setattr(tarfile, "open", lambda *args, **flags: pytest.fail("it was opened"))
    with user_error("--pretrained", path, "damaged"):
        pretrained.load_pretrained(Network(), str(path), head="head")


@pytest.mark.long
def test_the_readmes_converter_makes_weights_of_a_program(tmp_path):
    """The lines of both READMEs, as they stand there."""
    learned = Network()
    torch.jit.trace(learned.conv, torch.zeros(1, 2, 5, 5)).save(tmp_path / "network.pth")
    for folder in ("ResNet", "ViT"):
        text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
        (code,) = re.findall(r"```python\n(import safetensors.*?)```", text, re.DOTALL)
        assert finish(start("-c", code, cwd=tmp_path)).code == 0
        weights = pretrained.read_weights(tmp_path / "network.safetensors")
        assert states_equal(weights, learned.conv.state_dict())
        (tmp_path / "network.safetensors").unlink()


def test_nothing_else_in_the_repository_unpickles():
    """torch.load is only of what was looked at; CIFAR's pickles are torchvision's, after its md5;
    numpy and pandas are not asked for objects."""
    words = (
        r"(?<!safetensors\.)torch\.load\(|torch\.jit\.load\(|pickle\.loads?\(|allow_pickle|"
        r"read_pickle|joblib|dill"
    )
    found = {
        str(path.relative_to(ROOT))
        for path in [*ROOT.glob("*/*.py"), *ROOT.glob("*/*/*.py")]
        if path.relative_to(ROOT).parts[0] != "tests"
        and re.search(words, path.read_text(encoding="utf-8"))
    }
    assert found == {str(Path(folder, "utils", "pretrained.py")) for folder in ("ResNet", "ViT")}


def test_a_whole_network_instead_of_its_weights_is_refused(tmp_path):
    torch.save(nn.Linear(2, 3), tmp_path / "network.pth")
    with user_error("--pretrained", tmp_path / "network.pth"):
        pretrained.load_pretrained(nn.Linear(2, 3), str(tmp_path / "network.pth"), head="head")


DAMAGE = {
    "empty": lambda content: b"",
    "a byte": lambda content: content[:1],
    "cut in the header": lambda content: content[:60],
    "cut to a half": lambda content: content[: len(content) // 2],
    "cut at its end": lambda content: content[:-10],
    "text": lambda content: b"404: not found",
    "a web page": lambda content: b"<!DOCTYPE html>" * 1000,
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.smoke
@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", WAYS)
def test_a_damaged_file_is_named_in_one_line(tmp_path, name, change):
    path = tmp_path / name
    WAYS[name](path, Network().state_dict())
    path.write_bytes(change(path.read_bytes()))
    with user_error(path):
        pretrained.load_pretrained(Network(), str(path), head="head")


@pytest.mark.parametrize("name", ["absent.safetensors", "absent.pth", "folder", "folder.pth"])
def test_a_path_that_is_no_file_is_named_in_one_line(tmp_path, name):
    if "folder" in name:
        (tmp_path / name).mkdir()
    with user_error("--pretrained", tmp_path / name):
        pretrained.load_pretrained(Network(), str(tmp_path / name), head="head")


def test_a_checkpoint_without_a_network_is_refused(tmp_path):
    checkpoint.save(tmp_path / "best.safetensors", {"epoch": 3, "weight": torch.zeros(3)})
    with user_error(tmp_path / "best.safetensors", "another network"):
        pretrained.load_pretrained(Network(), str(tmp_path / "best.safetensors"), head="head")


# the weights that count


def test_the_weights_are_the_average_where_the_run_kept_one(tmp_path):
    model = Network()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    average.update_parameters(model)
    with torch.no_grad():
        for tensor in (*model.parameters(), model.norm.running_mean):
            tensor.add_(1)
    average.update_parameters(model)
    state = {"model": model.state_dict(), "average": average.state_dict(), "history": []}
    state |= dict(epoch=0, step=0, batch=0, lr=0.1, seconds=1.0, train_loss=[0.0, 0])
    checkpoint.save(tmp_path / "best.safetensors", state)
    assert states_equal(best_weights(state), average.module.state_dict())

    loaded = Network()
    load_best(loaded, tmp_path)
    assert states_equal(loaded.state_dict(), average.module.state_dict())
    torch.testing.assert_close(loaded.conv.weight + 0.5, model.conv.weight)
    assert not loaded.training


@pytest.mark.parametrize("more", [{}, {"average": {}}, {"average": None}])
def test_the_weights_are_the_networks_own_where_there_is_no_average(more):
    state = {"model": Network().state_dict(), **more}
    assert best_weights(state) is state["model"]


# freezing


def test_only_the_head_is_learned_when_the_rest_is_frozen():
    model = Network()
    pretrained.freeze(model, "head")
    learned = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learned == ["head.weight", "head.bias"]
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    features = model.norm(model.conv(torch.randn(5, 2, 6, 6))).mean((2, 3))
    (model.head(features).square().sum() + model.header(features).sum()).backward()
    optimizer.step()
    changed = {n for n, w in model.state_dict().items() if not torch.equal(w, before[n])}
    assert {name for name in changed if "norm" not in name} == {"head.weight", "head.bias"}
    assert model.conv.weight.grad is None and model.header.weight.grad is None
