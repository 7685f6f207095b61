"""The studies ResNet/depth.py, MLP_Torch/signals.py and VAE/codes.py: what they measure against
closed forms, torch, scikit-learn and the paper; then the rows that they keep."""

import importlib
import json
import re
from argparse import Namespace

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn
from torch.distributions import Bernoulli
from torch.nn import functional as F

from common import data, lock
from common.data import ROOT, Split
from common.files import DataMissing
from common.results import report
from common.results import rows as kept
from MLP_Torch import signals, torch_optim
from MLP_Torch.model import MLP
from ResNet import depth
from ResNet.model import BasicBlock, PaddedShortcut
from tests.conftest import user_error
from tests.running import Stop, assert_one_line, call, few_shapes, make_digits
from VAE import codes
from VAE.model import VAE, Autoencoder
from VAE.utils.neighbours import nearest, neighbours

# ---- signals at the start ----


def deep(std: float, width: int, layers: int = 6) -> tuple[list[float], list[float]]:
    """Mean squares of activations and gradients of every layer, the mean of four networks."""
    found = []
    for seed in range(4):
        torch.manual_seed(seed)
        model = MLP(width, (width,) * layers, 10, "relu", False, 0.0, 0.0).double()
        for layer in model.layers:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)
        inputs = torch.randn(64, width, dtype=torch.float64)
        measured = signals.measure(model, inputs, torch.arange(64) % 10, "relu")
        found.append([measured["activations"], measured["gradients"]])
    return tuple(torch.tensor(found).square().mean(0).tolist())


@pytest.mark.smoke
@pytest.mark.parametrize("share", [1.0, 0.5, 2.0])
def test_mean_squares_grow_by_the_known_factor_in_each_layer(share):
    """With He's weights, they stay; with others, they grow by half of width · s²."""
    width = 600
    std = share * signals.INITIALISATIONS["He"](width, width)
    factor = signals.growth(std, width)
    assert factor == pytest.approx(share**2)
    activations, gradients = deep(std, width)
    for n in range(5):
        assert activations[n + 1] / activations[n] == pytest.approx(factor, rel=0.1)
        assert gradients[n] / gradients[n + 1] == pytest.approx(factor, rel=0.1)
    assert activations[5] / activations[0] == pytest.approx(factor**5, rel=0.2)


def test_weights_are_drawn_as_torch_draws_them():
    model = MLP(50, (30,), 7, batch_norm=False)
    for name, init in (("He", nn.init.kaiming_normal_), ("Glorot", nn.init.xavier_normal_)):
        torch.manual_seed(0)
        signals.initialise(model, name)
        torch.manual_seed(0)
        options = {"nonlinearity": "relu"} if name == "He" else {}
        for layer in (model.layers[0], model.layers[-1]):
            torch.testing.assert_close(
                layer.weight, init(torch.empty_like(layer.weight), **options)
            )
            assert not layer.bias.any()
    of_torch = nn.Linear(400, 900).weight.std().item()
    assert signals.INITIALISATIONS["nn.Linear's"](400, 900) == pytest.approx(of_torch, rel=0.01)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_signals_are_those_of_autograd(activation):
    torch.manual_seed(0)
    model = MLP(5, (4, 3), 2, activation, False, 0.0, 0.0).double()
    x, labels = torch.randn(6, 5).double(), torch.arange(6) % 2
    first, second, last = (layer for layer in model.layers if isinstance(layer, nn.Linear))
    f = getattr(torch, activation)
    h1 = f(x @ first.weight.T + first.bias)
    h2 = f(h1 @ second.weight.T + second.bias)
    loss = F.cross_entropy(h2 @ last.weight.T + last.bias, labels)
    wanted = torch.autograd.grad(loss, [h1, h2, first.weight, second.weight])
    found = signals.measure(model, x, labels, activation)
    assert found["activations"] == pytest.approx(
        [h.square().mean().sqrt().item() for h in (h1, h2)]
    )
    expected = [6 * g.square().mean().sqrt().item() for g in wanted[:2]]
    assert found["gradients"] == pytest.approx(expected)
    assert found["weight_gradients"] == pytest.approx([g.norm().item() for g in wanted[2:]])
    assert signals.measure(model, x, labels, activation) == found, "gradients of each call alone"


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_dead_units_are_counted(activation):
    """Units that some large bias keeps where the slope is nothing, for all inputs."""
    torch.manual_seed(0)
    model = MLP(5, (8, 8), 2, activation, False, 0.0, 0.0)
    with torch.no_grad():
        model.layers[0].bias[:3] = -1e3
    x, labels = torch.randn(100, 5), torch.arange(100) % 2
    assert signals.measure(model, x, labels, activation)["dead"][0] == 3 / 8
    signals.initialise(model, "zeros")
    dead = signals.measure(model, x, labels, activation)["dead"]
    assert dead == ([1.0, 1.0] if activation == "relu" else [0.0, 0.0]), "tanh′(0) = 1"


# ---- depth ----


@pytest.mark.parametrize("layers, millions", [(8, 0.08), (20, 0.27), (32, 0.46), (44, 0.66)])
def test_plain_and_residual_networks_differ_in_shortcuts_alone(layers, millions):
    """Parameters as He et al. (2015), table 6, count them; of 8 layers, it says nothing."""
    models = []
    for network in depth.NETWORKS:
        torch.manual_seed(0)
        models.append(depth.make_model(network, layers, 10, 3))
    plain, residual = (model.state_dict() for model in models)
    assert plain.keys() == residual.keys()
    assert all(torch.equal(plain[name], residual[name]) for name in plain)
    for model in models:
        learned = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        assert len(learned) == layers
        count = sum(p.numel() for p in model.parameters())
        assert count / 1e6 == pytest.approx(millions, abs=0.006)
    shortcuts = [type(m) for m in models[1].modules() if isinstance(m, PaddedShortcut)]
    assert len(shortcuts) == 2, "option A, where the shape changes"
    images = torch.randn(2, 3, 16, 16)
    shapes = [m.features(images).shape for m in models]
    assert shapes == [(2, 64, 4, 4)] * 2


def test_a_plain_block_is_its_layers_one_after_the_other():
    torch.manual_seed(0)
    plain, residual = depth.PlainBlock(4, 4, 1, None), BasicBlock(4, 4, 1, None)
    residual.load_state_dict(plain.state_dict())
    x = torch.randn(3, 4, 8, 8)
    layers = nn.Sequential(plain.conv1, plain.bn1, nn.ReLU(), plain.conv2, plain.bn2)
    y = layers(x)
    torch.testing.assert_close(plain(x), y.relu())
    torch.testing.assert_close(residual(x), (x + y).relu())


def test_images_are_shrunk_by_means():
    images = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8)
    small = depth.shrunk(Split(images, torch.arange(5), ["a"], {}), 8)
    mean = F.avg_pool2d(images.float(), 4)
    assert small.inputs.dtype == torch.uint8 and small.shape == (3, 8, 8)
    assert (small.inputs.float() - mean).abs().max() <= 0.5
    same = depth.shrunk(Split(images, torch.arange(5), ["a"], {}), 32)
    assert torch.equal(same.inputs, images)
    for pixels in (3, 33):
        with user_error(f"--pixels {pixels}", "4 to 32"):
            depth.shrunk(Split(images, torch.arange(5), ["a"], {}), pixels)


def test_errors_are_of_fixed_parts_in_evaluation_mode(tmp_path, capsys, monkeypatch):
    """Of the same images for every network, without augmentation or the statistics of a batch."""
    few_shapes(monkeypatch)
    monkeypatch.setattr(depth, "DEPTHS", [8])
    monkeypatch.setattr(depth, "MEASURED", 40)
    predict, seen = depth.predict_all, []

    def note(model, part, args):
        logits, labels = predict(model, part, args)
        assert not model.training and not args.flip_test
        wrong = (logits.argmax(1) != labels).float().mean().item()
        seen.append((part.inputs, part.labels, wrong))
        return logits, labels

    monkeypatch.setattr(depth, "predict_all", note)
    path = tmp_path / "rows.json"
    argv = ["--dataset", "shapes", "--subset", 64, "--epochs", 2, "--pixels", 8]
    assert call(capsys, depth.main, *argv, "--seeds", 1, "--output", path).code == 0
    assert len(seen) == 2 * 2 * 2
    for images, labels, _ in seen:
        assert len(labels) == 40 and any(torch.equal(images, seen[n][0]) for n in (0, 1))
    assert not torch.equal(seen[0][0], seen[1][0])
    found = json.loads(path.read_text())["rows"]
    for n, row in enumerate(found):
        for k, split in enumerate(("training", "validation")):
            errors = [seen[4 * n + k][2], seen[4 * n + 2 + k][2]]
            assert row[split]["error"] == pytest.approx(errors, abs=1e-6)


# ---- codes ----


def redundant(N: int, seed: int) -> Split:
    """Images of 8 x 8 pixels, black or white in 16 blocks of 2 x 2: what is missing can be told."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(2, (N, 1, 4, 4), generator=generator)
    images = blocks.repeat_interleave(2, 2).repeat_interleave(2, 3)
    labels = blocks[:, 0, 0, :2] @ torch.tensor([2, 1])
    return Split((255 * images).to(torch.uint8), labels, list("abcd"), {})


def test_missing_pixels_are_black_and_as_many_as_said():
    x = torch.ones(500, 64)
    left = codes.hide(x, torch.Generator().manual_seed(0))
    assert set(left.unique().tolist()) == {0.0, 1.0}
    assert 1 - left.mean() == pytest.approx(codes.MISSING, abs=0.01)
    assert not codes.hide(torch.zeros(3, 4)).any()


@pytest.mark.smoke
def test_a_denoising_autoencoder_fills_in_what_a_plain_one_does_not():
    train, validation = redundant(2_000, 0), redundant(400, 1)
    recipe = Namespace(lr=3e-3, epochs=8, batch_size=50, schedule="cosine")
    found = {}
    for kind in ("ae", "dae"):
        torch.manual_seed(0)
        model = Autoencoder((1, 8, 8), 16, hidden_sizes=(64,))
        codes.fit(model, kind, train, recipe, seed=0)
        model.eval()
        found[kind] = codes.measure(model, validation)
    assert found["dae"]["filled_in"] < 0.7 * found["ae"]["filled_in"]
    assert found["ae"]["reconstruction"] < found["ae"]["filled_in"]


@pytest.mark.parametrize("kind", [Autoencoder, VAE])
def test_reconstruction_is_that_of_torch_distributions(kind):
    torch.manual_seed(0)
    model, split = kind((1, 8, 8), 3, hidden_sizes=(16,)).eval(), redundant(30, 0)
    x = split.inputs.flatten(1).float() / 255
    found = codes.measure(model, split)
    holes = codes.hide(x, torch.Generator().manual_seed(1))
    for name, seen in (("reconstruction", x), ("filled_in", holes)):
        mu, logvar = model.encode(seen)
        p = Bernoulli(logits=model.decode(mu[:, None])[:, 0])
        assert found[name] == pytest.approx(-p.log_prob(x).sum(1).mean().item(), rel=1e-5)
    assert ("kl" in found) == (kind is VAE)


def test_neighbours_are_those_of_scikit_learn():
    torch.manual_seed(0)
    known, data = redundant(300, 0), redundant(80, 1)
    a, b = torch.randn(80, 4), torch.randn(300, 4)
    sklearn = KNeighborsClassifier(1).fit(b.numpy(), known.labels.numpy())
    near = sklearn.kneighbors(a.numpy(), 8, return_distance=False)
    assert nearest(a, b, 8).tolist() == near.tolist()
    found = neighbours(a, b, data, known)
    score = sklearn.score(a.numpy(), data.labels.numpy())
    assert found["same_class"] == pytest.approx(score)
    first = [int((data.labels == label).nonzero()[0]) for label in range(4)]
    assert found["neighbours"] == near[first].tolist()


@pytest.mark.pictures
def test_fewer_images_than_neighbours_are_studied_all_the_same(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(codes, "LATENT_DIMS", [2])
    assert (
        nearest(torch.randn(5, 2), torch.randn(3, 2), 8).sort().values.tolist() == [[0, 1, 2]] * 5
    )
    argv = ["--dataset", "mnist", "--data-dir", make_digits(tmp_path / "digits"), "--epochs", 1]
    argv += ["--samples", 2, "--seeds", 1, "--output", tmp_path / "codes.json"]
    result = call(capsys, codes.main, *argv, "--subset", 3)
    assert (result.code, result.err) == (0, "")
    rows = json.loads((tmp_path / "codes.json").read_text())["rows"]
    kept = [row["neighbours"] for row in rows if "neighbours" in row]
    assert kept and all(sorted(near) == [0, 1, 2] for found in kept for near in found)
    assert (tmp_path / "codes_neighbours.png").stat().st_size > 5_000
    (tmp_path / "codes.json").unlink()
    assert_one_line(call(capsys, codes.main, *argv, "--subset", 1), "--subset 1 is too few")
    assert not (tmp_path / "codes.json").exists()


# ---- the rows of a study ----

MODULES = {"depth": (depth, "fit"), "signals": (signals, "learn"), "codes": (codes, "fit")}


@pytest.fixture(params=MODULES)
def study(request, tmp_path, monkeypatch):
    """A small study: its module, what trains in it, its flags, its file."""
    few_shapes(monkeypatch)
    monkeypatch.setattr(depth, "DEPTHS", [8, 14])
    monkeypatch.setattr(signals, "ACTIVATIONS", ["relu"])
    monkeypatch.setattr(codes, "LATENT_DIMS", [2, 5])
    path = tmp_path / "study" / f"compare_{request.param}.json"
    argv = {
        "depth": ["--dataset", "shapes", "--subset", 64, "--epochs", 1, "--pixels", 8,
                  "--lr", 0.1],
        "signals": ["--dataset", "mnist", "--depth", 2, "--width", 8, "--steps", 2, "--lr", 0.1],
        "codes": ["--dataset", "mnist", "--subset", 140, "--epochs", 1, "--samples", 3],
    }[request.param]  # fmt: skip
    if request.param != "depth":
        argv += ["--data-dir", make_digits(tmp_path / "digits")]
    return *MODULES[request.param], [*argv, "--seeds", 2, "--output", path], path


def key_of(row: dict) -> tuple:
    names = ("network", "depth", "activation", "batch_norm", "initialisation", "model",
             "latent_dim", "seed")  # fmt: skip
    return tuple(row[name] for name in names if name in row)


def without_time(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.long
def test_a_study_killed_three_times_goes_on_and_does_nothing_twice(study, capsys, monkeypatch):
    """Killed in the training after none, one and six: it ends as one that was never stopped."""
    module, name, argv, path = study
    train, begun, stops = getattr(module, name), [], []

    def counted(*args):
        begun.append(args)
        if len(begun) in stops:
            raise Stop
        return train(*args)

    monkeypatch.setattr(module, name, counted)
    before = []
    for kills, after in enumerate((0, 1, 6)):
        stops.append(after + kills + 1)  # those that were killed have begun, too
        with pytest.raises(Stop):
            call(capsys, module.main, *argv)
        found = json.loads(path.read_text())["rows"]
        assert found[: len(before)] == before
        before = found
        assert len(before) == after + (module is codes), "pixels are not trained"
    result = call(capsys, module.main, *argv)
    assert (result.code, result.err) == (0, "")
    now = json.loads(path.read_text())["rows"]
    trained = len(now) - (module is codes)
    assert now[: len(before)] == before and len(begun) == trained + len(stops)
    assert len({key_of(row) for row in now}) == len(now)
    call(capsys, module.main, *argv)
    assert len(begun) == trained + len(stops) and json.loads(path.read_text())["rows"] == now
    call(capsys, module.main, *argv, "--seeds", 3)
    assert len(begun) == trained * 3 // 2 + len(stops), "one more seed is all that is new"
    other = path.with_name("other.json")
    call(capsys, module.main, *argv, "--output", other)
    assert without_time(json.loads(other.read_text())["rows"]) == without_time(now)


OTHERS = {
    depth: [["--subset", 32], ["--epochs", 2], ["--pixels", 16], ["--lr", 0.2]],
    signals: [["--depth", 3], ["--width", 9], ["--steps", 3], ["--lr", 0.2],
              ["--dataset", "mnist-sample"]],
    codes: [["--subset", 130], ["--epochs", 2], ["--samples", 4], ["--dataset", "mnist-sample"]],
}  # fmt: skip


@pytest.mark.long
def test_rows_of_other_flags_are_refused(study, capsys, monkeypatch):
    module, _, argv, path = study
    monkeypatch.setattr(depth, "DEPTHS", [8])
    monkeypatch.setattr(codes, "LATENT_DIMS", [2])
    monkeypatch.setattr(codes, "MODELS", {name: name for name in ("pixels", "vae")})
    monkeypatch.setattr(signals, "INITIALISATIONS", {"He": signals.INITIALISATIONS["He"]})
    argv = [*argv, "--seeds", 1]
    assert call(capsys, module.main, *argv).code == 0
    before = path.read_bytes()
    for flags in OTHERS[module]:
        result = call(capsys, module.main, *argv, *flags)
        assert_one_line(result, path, "other flags", "--output")
        other = path.with_name("other.json")
        assert call(capsys, module.main, *argv, *flags, "--output", other).code == 0
        changed = [json.loads(p.read_text())["rows"][-1] for p in (path, other)]
        assert without_time(changed)[0] != without_time(changed)[1], f"{flags} change nothing"
        other.unlink()
    assert path.read_bytes() == before
    with lock.hold(path.parent):
        assert_one_line(call(capsys, module.main, *argv), "in use")
    path.write_text("{")
    assert_one_line(call(capsys, module.main, *argv), path, "damaged")


@pytest.mark.parametrize("name", ["rows.png", "rows.db", "rows", "folder.json"])
def test_rows_are_no_picture_and_no_folder(name, tmp_path):
    """Pictures, and a store of trials, lie beside the rows: one of them might take their place."""
    (tmp_path / "folder.json").mkdir()
    path, keys = tmp_path / name, [{"seed": 0}]
    with user_error(name):
        kept.collect(path, {"lr": 1}, "do", torch.device("cpu"), keys, None)
    assert {file.name for file in tmp_path.iterdir()} <= {"folder.json", ".lock"}


def test_a_key_that_comes_twice_is_measured_once(tmp_path):
    keys, made = [{"seed": 0}, {"seed": 1}, {"seed": 0}], []
    study = kept.collect(
        tmp_path / "rows.json", {"lr": 1}, "do", torch.device("cpu"), iter(keys),
        lambda seed: made.append(seed) or {"x": seed},
    )  # fmt: skip
    assert made == [0, 1] and [row["x"] for row in study["rows"]] == [0, 1]


def test_rows_name_their_commit_and_another_machine(tmp_path, monkeypatch, capsys):
    path, device = tmp_path / "a" / "rows.json", torch.device("cpu")

    def collect(seeds):
        keys = [{"seed": seed} for seed in range(seeds)]
        return kept.collect(path, {"lr": 1}, "do", device, keys, lambda seed: {"x": seed**2})

    monkeypatch.setattr(kept, "git_commit", lambda: "first")
    collect(2)
    monkeypatch.setattr(kept, "git_commit", lambda: "second")
    monkeypatch.setattr(kept, "environment", lambda device: {"torch": "9"})
    found = collect(3)["rows"]
    assert "nothing is measured" not in capsys.readouterr().out
    assert collect(3)["rows"] == found
    assert f"{path} has all rows: nothing is measured" in capsys.readouterr().out
    assert [row["x"] for row in found] == [0, 1, 4]
    assert [row["commit"] for row in found] == ["first", "first", "second"]
    assert [row.get("environment") for row in found] == [None, None, {"torch": "9"}]
    assert json.loads(path.read_text())["environment"]["torch"] == torch.__version__


@pytest.mark.smoke
@pytest.mark.pictures
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.long
def test_quick_study_makes_its_table_and_its_picture(name, tmp_path, capsys, monkeypatch):
    few_shapes(monkeypatch)
    monkeypatch.setitem(depth.QUICK, "subset", 64)
    monkeypatch.setattr(depth, "DEPTHS", [8, 14])
    monkeypatch.setattr(codes, "LATENT_DIMS", [2, 50])
    monkeypatch.setitem(codes.QUICK, "subset", 200)
    module, path = MODULES[name][0], tmp_path / "quick.json"
    result = call(capsys, module.main, "--quick", "--output", path)
    assert (result.code, result.err) == (0, "")
    pictures = sorted(picture.name for picture in tmp_path.glob("*.png"))
    assert pictures == [f"{name}.png"] + ["codes_neighbours.png"] * (name == "codes")
    assert all((tmp_path / picture).stat().st_size > 5_000 for picture in pictures)
    assert f"{name}.py --quick`" in result.out
    assert ("mnist-sample" if name != "depth" else "shapes") in result.out
    shown = {"depth": "| residual | 14 |", "signals": "| tanh, batch norm | zeros |",
             "codes": "| denoising autoencoder | 50 |"}[name]  # fmt: skip
    assert shown in result.out


@pytest.mark.long
def test_the_readmes_table_is_made_of_the_rows(study, tmp_path, capsys, monkeypatch):
    module, _, argv, path = study
    call(capsys, module.main, *argv)
    folder, name = module.__name__.split(".")
    readme = tmp_path / folder / "README.md"
    readme.parent.mkdir()
    readme.write_text(f"<!-- {name} -->\n<!-- /{name} -->\n")
    readme.with_name(f"{name}.py").touch()  # by which the table's name is known
    table = module.table
    monkeypatch.setattr(module, "table", lambda: table(path))
    text = report.fill(readme)
    assert f"`python {folder}/{name}.py --dataset" in text
    wanted = {
        "depth": ({"network": "plain", "depth": 14}, lambda r: 100 * r["training"]["error"][-1]),
        "signals": ({"initialisation": "He", "batch_norm": True},
                    lambda r: 100 * r["validation"]["accuracy"]),
        "codes": ({"model": "vae", "latent_dim": 5}, lambda r: r["validation"]["log_likelihood"]),
    }  # fmt: skip
    key, figure = wanted[name]
    rows = [r for r in json.loads(path.read_text())["rows"] if key.items() <= r.items()]
    values = torch.tensor([figure(row) for row in rows]).double()
    assert len(rows) == 2 and f"| {values.mean():.1f} ± {values.std():.1f} |" in text
    assert table(tmp_path / "none.json") == "Nothing recorded yet."


@pytest.mark.parametrize(
    "module, flags, parts",
    [
        (depth, ["--epochs", 0], ["--epochs"]),
        (depth, ["--dataset", "shapes", "--subset", 9_000], ["--subset 9000", "8000"]),
        (depth, ["--dataset", "shapes", "--pixels", 64], ["--pixels 64", "32"]),
        (depth, ["--dataset", "folder"], ["--data-dir"]),
        (signals, ["--steps", 0], ["--steps"]),
        (signals, ["--dataset", "mnist-sample", "--lr", "-1"], ["--lr"]),
        (codes, ["--samples", 0], ["--samples"]),
        (codes, ["--dataset", "mnist-sample", "--subset", 9_000], ["--subset 9000"]),
        (codes, ["--dataset", "letters"], ["letters"]),
    ],
)
def test_a_wrong_flag_is_one_line(module, flags, parts, tmp_path, capsys):
    result = call(capsys, module.main, *flags, "--output", tmp_path / "rows.json")
    assert_one_line(result, *parts)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module, stand_in", [(depth, "shapes"), (signals, "mnist-sample"),
                                              (codes, "mnist-sample")])  # fmt: skip
def test_without_data_a_study_says_what_it_takes_instead(
    module, stand_in, tmp_path, capsys, monkeypatch
):
    def no_network(*args, **kwargs):
        raise DataMissing("no network")

    def stop(path, settings, *rest):
        folder, name = module.__name__.split(".")
        assert path == ROOT / folder / "runs" / f"{name}.json"
        raise SystemExit(settings["dataset"])

    monkeypatch.setattr(data, "download", no_network)
    monkeypatch.setattr(data, "ROOT", tmp_path)
    monkeypatch.setattr(module.rows, "collect", stop)
    result = call(capsys, module.main, "--data-dir", tmp_path)
    assert result.code == stand_in and "***" in result.err


@pytest.mark.parametrize("name, dataset", [
    ("ResNet.depth", "cifar10"), ("MLP_Torch.signals", "mnist"), ("VAE.codes", "mnist"),
    ("Transformer_Torch.parts", "tiny-shakespeare"),
])  # fmt: skip
def test_a_dataset_that_was_named_is_never_replaced(name, dataset, tmp_path, capsys, monkeypatch):
    def no_network(*args, **kwargs):
        raise DataMissing(f"{dataset}: no network")

    module = importlib.import_module(name)
    monkeypatch.setattr(data, "download", no_network)
    monkeypatch.setattr(data, "ROOT", tmp_path)
    monkeypatch.delenv("PLAYGROUND_DATA", raising=False)
    monkeypatch.setattr(module.rows, "collect", None)
    result = call(capsys, module.main, "--dataset", dataset, "--output", tmp_path / "rows.json")
    assert result.code == 2 and dataset in result.err and "***" not in result.err
    assert not list(tmp_path.iterdir())


STUDIES = ["CNN_Torch.lr_range", "CNN_Torch.regularisation", "CNN_Torch.tune",
           "MLP_Manual.optimizers", "MLP_Torch.signals", "MLP_Torch.torch_optim", "ResNet.depth",
           "Transformer_Torch.parts", "VAE.codes", "studies.images", "studies.reviews",
           "studies.text", "studies.twins"]  # fmt: skip


def test_these_are_all_studies():
    scripts = [*ROOT.glob("*_*/*.py"), *ROOT.glob("[A-Z]*/*.py"), *ROOT.glob("studies/*.py")]
    keep = {
        f"{path.parent.name}.{path.stem}"
        for path in scripts
        if re.search(r"(rows|protocol)\.collect\(", path.read_text(encoding="utf-8"))
    }
    others = {"studies.protocol", "docs.first_runs"}  # the latter where names ignore the case
    assert keep - others == set(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("given", [False, True])
def test_a_study_writes_into_runs_or_where_it_is_told_to(
    name, given, tmp_path, capsys, monkeypatch
):
    """What is recorded in results/ is never continued on somebody's machine, nor drawn over."""
    module = importlib.import_module(name)
    folder, script = name.split(".")

    def stop(path, *rest, **facts):
        raise SystemExit(str(path))

    few_shapes(monkeypatch)
    monkeypatch.setitem(depth.QUICK, "subset", 64)
    collect = module.protocol.rows if hasattr(module, "protocol") else module.rows
    monkeypatch.setattr(collect, "collect", stop)
    own = tmp_path / "rows.json"
    by_hand = ["--by-hand", torch_optim.BY_HAND] if script == "torch_optim" else []
    flags = ["--quick", *by_hand, *["--output", own] * given]
    if by_hand:
        monkeypatch.setattr(module, "load_training", lambda *args: [])
    expected = own if given else ROOT / folder / "runs" / "quick" / f"{script}.json"
    assert call(capsys, module.main, *flags).code == str(expected)
