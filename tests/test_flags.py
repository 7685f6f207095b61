"""Every flag of every script has a test (the table is tests/flags.py), and those that no other file
has room for."""

import os
import re

import pytest
import torch
from PIL import Image
from torch import nn

from common import cli, distributed, evaluation
from common.data import ROOT
from common.run import Run
from LSTM import baseline
from RNN_Manual import echo
from tests.conftest import user_error
from tests.flags import PREDICTORS, SCRIPTS, definitions, find_test, flags, mentions, source
from tests.running import (
    TRANSFORMERS,
    assert_one_line,
    call,
    history,
    make_digits,
    script,
    short_strings,
    small,
)

# ---- the table ----


@pytest.mark.parametrize("path", SCRIPTS)
def test_every_flag_has_a_test_that_uses_it(path):
    missing, unused = [], []
    for flag in flags(path):
        test = find_test(path, flag)
        if test is None or test.split("::")[1] not in definitions(test.split("::")[0]):
            missing.append((flag, test))
        elif flag.startswith("--"):
            names = (flag, flag.replace("--", "--no-"))
            text = source(test)
            if not any(mentions(text, name) for name in names):
                unused.append((flag, test))
    assert missing == [] and unused == [], "name a test in tests/flags.py"


def test_a_flag_without_a_test_is_found():
    assert find_test("MLP_Manual/train.py", "--unheard-of") is None
    assert find_test("GAN/generate.py", "--epochs") is None
    assert not mentions("--test-src x", "--src") and mentions('"--src", x', "--src")
    used = source("test_flags.py::test_a_flag_without_a_test_is_found")
    assert mentions(used, "--unheard-of") and not mentions(used, "--" + "picture")


def test_every_script_with_flags_is_in_the_table():
    """overhead.py passes its own on to train.py."""
    found = {str(p.relative_to(ROOT)) for p in ROOT.glob("*/*.py")}
    found |= {str(p.relative_to(ROOT)) for p in (*ROOT.glob("*.py"), *ROOT.glob("common/*/*.py"))}
    runs = {p for p in found if not p.startswith("tests/") and "entry(main)" in
            (ROOT / p).read_text(encoding="utf-8")}  # fmt: skip
    assert runs == {*SCRIPTS, "ResNet/overhead.py", "ViT/overhead.py"}


# ---- flags of training ----


@pytest.fixture
def quick(quick, monkeypatch):
    short_strings(monkeypatch)


@pytest.fixture
def seen(monkeypatch) -> list:
    """(run, training split) of every run that is announced."""
    found, announce = [], Run.announce

    def note(self, train, validation):
        found.append((self, train))
        announce(self, train, validation)

    monkeypatch.setattr(Run, "announce", note)
    return found


def train(folder, *argv):
    script(folder).main([str(word) for word in argv])


COMPILED = ["MLP_Torch", "CNN_Torch", "ResNet", "ViT", "Transformer_Torch"]


@pytest.mark.parametrize("folder", COMPILED)
def test_a_compiled_network_learns_as_a_plain_one_does(folder, tmp_path, quick, monkeypatch):
    """With the tracer alone; what compiles the trace takes minutes."""
    if folder == "Transformer_Torch" and torch.__version__ < "2.4":
        pytest.skip("refused: the next test")
    wanted, traced = torch.compile, []

    def compile(model):
        if isinstance(model, nn.Module):
            traced.append(type(model).__name__)
        return wanted(model, backend="eager")

    monkeypatch.setattr(torch, "compile", compile)
    torch._dynamo.reset()
    losses = []
    for name, more in (("plain", []), ("fast", ["--compile"])):
        train(folder, *small(folder), "--epochs", 2, "--run-dir", tmp_path / name, *more)
        losses.append([float(row["train_loss"]) for row in history(tmp_path / name)])
    assert len(traced) == 1 and losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.skipif(torch.__version__ >= "2.4", reason="newer ones can")
def test_a_translation_that_this_torch_cannot_compile_is_refused_at_once(tmp_path, quick, capsys):
    argv = [*small("Transformer"), "--epochs", 1, "--run-dir", tmp_path / "run", "--compile"]
    result = call(capsys, script("Transformer_Torch").main, *argv)
    assert_one_line(result, "--compile", f"torch {torch.__version__}", "--task translate")
    assert not (tmp_path / "run").exists()


@pytest.mark.compiler  # some minutes
@pytest.mark.long
@pytest.mark.skipif(torch.__version__ < "2.4", reason="refused")
def test_a_compiled_translation_learns_as_a_plain_one_does(tmp_path, quick):
    """Really compiled, with batches of several lengths."""
    torch._dynamo.reset()
    losses = []
    for name, more in (("plain", []), ("fast", ["--compile"])):
        flags = [*small("Transformer"), "--dropout", 0, "--epochs", 1]
        train("Transformer_Torch", *flags, "--run-dir", tmp_path / name, *more)
        losses.append([float(row["train_loss"]) for row in history(tmp_path / name)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.compiler  # a minute and a half each
@pytest.mark.long
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_compiled_resnet_has_the_gradients_of_a_plain_one(precision):
    """Really compiled: largest values had no gradient with torch 2.3.1, and NaN in bfloat16.

    In bfloat16 both round, each in its own places: compiled gradients have to be as near to those
    of float32 as plain ones are.
    """
    from ResNet.model import FastResNet

    torch._dynamo.reset()
    torch.manual_seed(0)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    images = images.to(memory_format=torch.channels_last)
    model = FastResNet(widths=(4, 8, 8)).to(memory_format=torch.channels_last)

    def gradient(network, dtype):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])

    exact = gradient(model, torch.float32)
    compiled = gradient(torch.compile(model, backend="inductor"), precision)
    distance = (compiled - exact).norm() / exact.norm()
    plain = (gradient(model, precision) - exact).norm() / exact.norm()
    assert distance <= 1.5 * plain + 1e-4, "and NaN is not"


@pytest.mark.parametrize("layout", ["--channels-last", "--no-channels-last"])
def test_channels_last_is_the_layout_of_the_weights(layout, tmp_path, quick, seen):
    flags = [*small("CNN_Torch"), "--channels", 4, 4, "--epochs", 1, "--run-dir", tmp_path / "run"]
    train("CNN_Torch", *flags, layout)
    (weight,) = [p for p in seen[0][0].model.parameters() if p.shape == (4, 4, 3, 3)]
    nhwc = weight.is_contiguous(memory_format=torch.channels_last)
    assert nhwc == (layout == "--channels-last")


@pytest.mark.parametrize("folder", ["ResNet", "ViT"])
def test_photos_are_read_in_the_size_that_is_asked_for(folder, tmp_path, quick, seen):
    for number in range(48):
        place = tmp_path / "photos" / ("train", "val")[number // 36] / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (50, 40), (5 * number, 100, 200)).save(place / f"{number}.png")
    flags = small(folder)[small(folder).index("--batch-size") :]
    flags += ["--dataset", "folder", "--data-dir", tmp_path / "photos", "--epochs", 1]
    for size in (32, 48):
        train(folder, *flags, "--image-size", size, "--run-dir", tmp_path / str(size))
    assert [split.shape for _, split in seen] == [(3, 32, 32), (3, 48, 48)]


@pytest.mark.parametrize("folder", ["ResNet", "ViT"])
def test_batch_norm_of_several_processes_is_passed_on(folder, tmp_path, quick, monkeypatch):
    asked = []
    monkeypatch.setattr(distributed, "parallel", lambda model, sync: asked.append(sync) or model)
    for number, flag in enumerate(([], ["--sync-batch-norm"])):
        train(folder, *small(folder), "--epochs", 1, "--run-dir", tmp_path / str(number), *flag)
    assert asked == [False, True]
    monkeypatch.undo()
    monkeypatch.setattr(distributed, "is_distributed", lambda: True)
    with user_error("--sync-batch-norm", "CUDA"):
        distributed.parallel(nn.BatchNorm1d(2), True)


@pytest.mark.parametrize("folder", ["RNN_Manual", *TRANSFORMERS])
def test_a_sample_is_as_long_as_asked_for(folder, tmp_path, quick):
    (tmp_path / "input.txt").write_text("".join(f"{n} {'abc' * (n % 3)}\n" for n in range(900)))
    flags = ["--dataset", "text", "--data-dir", tmp_path, "--batch-size", 4, "--epochs", 1]
    flags += ["--embed-dim", 8, "--num-layers", 1]
    texts = []
    for length in (0, 20, 50):
        place = ["--run-dir", tmp_path / str(length), "--sample-length", length]
        train(folder, *flags, *place)
        file = tmp_path / str(length) / "samples.txt"
        texts.append(file.read_text() if file.is_file() else "")
    assert 28 <= len(texts[2]) - len(texts[1]) <= 32, "an empty last line does not count"
    assert len(texts[1]) - len(texts[0]) >= 18


NETWORKS = [
    ("VAE", ["--network", "conv", "--no-batch-norm"], [(5,), (4, 6)]),
    ("GAN", ["--dataset", "mnist", "--subset", 64], [(8,), (16,)]),
]


@pytest.mark.parametrize("folder, flags, widths", NETWORKS)
def test_channels_are_those_of_the_network(folder, flags, widths, tmp_path, quick, seen):
    flags = [*small(folder), *flags, "--epochs", 1, "--data-dir", make_digits(tmp_path)]
    for number, channels in enumerate(widths):
        train(folder, *flags, "--channels", *channels, "--run-dir", tmp_path / str(number))
        kernels = [p for p in seen[-1][0].model.parameters() if p.dim() == 4]
        assert set(channels) <= {size for kernel in kernels for size in kernel.shape[:2]}


def test_changes_of_a_gan_reach_both_kinds_of_image(tmp_path, quick, monkeypatch):
    built = []
    module = script("GAN")
    whole = module.Augmentation

    def build(changes, shape):
        built.append(list(changes))
        return whole(changes, shape)

    monkeypatch.setattr(module, "Augmentation", build)
    place, losses = make_digits(tmp_path), []
    flags = ["--dataset", "mnist", "--data-dir", place, "--subset", 32, "--batch-size", 8]
    for number, changes in enumerate(([], ["colour"])):
        flags_now = [*flags, "--channels", 8, "--epochs", 1, "--run-dir", tmp_path / str(number)]
        train("GAN", *flags_now, "--augment", *changes)
        losses.append(history(tmp_path / str(number))[0]["train_loss"])
    assert built == [[], ["colour"]] and losses[0] != losses[1]


# ---- flags of the other scripts ----


def test_a_data_dir_goes_before_the_runs_own(tmp_path, quick):
    run_dir = tmp_path / "run"
    train("MLP_Torch", *small("MLP"), "--epochs", 1, "--run-dir", run_dir, "--data-dir", tmp_path)
    for more, expected in (
        ([], tmp_path),
        (["--data-dir", "elsewhere"], os.path.abspath("elsewhere")),
    ):
        args = cli.test_parser("").parse_args(["--run-dir", str(run_dir), *more])
        _, config = evaluation.find_trained(
            ROOT / "MLP_Torch", args, script("MLP_Torch").make_parser()
        )
        assert config.data_dir == str(expected)


NEEDED = {
    "common/results/compare.py": ["MLP"], "VAE/generate.py": ["samples"],
    **dict.fromkeys(PREDICTORS, ["photo.png"]),
}  # fmt: skip
OTHERS = [path for path in SCRIPTS if not path.endswith(("/train.py", "/test.py"))
          and path not in ("common/results/report.py", "common/results/runs.py",
                           "LSTM/baseline.py", "CNN_Manual/profile_step.py",
                           "ResNet/profile_step.py", "ResNet/make_jpegs.py",
                           "ViT/make_jpegs.py", "docs/first_runs.py", "exercise.py")]  # fmt: skip


@pytest.mark.parametrize("path", OTHERS)
def test_a_tool_takes_no_unknown_device(path, capsys):
    folder, name = path.removesuffix(".py").replace("/", ".").rsplit(".", 1)
    main = script(folder, name).main
    result = call(capsys, main, *NEEDED.get(path, []), "--device", "tpu")
    assert_one_line(result, "tpu", "cuda")


@pytest.mark.pictures
def test_echo_is_trained_so_often_and_so_long(tmp_path, capsys, monkeypatch):
    argv = ["--delays", 2, "--hidden-size", 4, "--output", tmp_path / "echo.png"]
    trained, fit = [], echo.fit

    def note(model, data, steps, window, seed):
        trained.append((steps, seed))
        fit(model, data, steps, window, seed)

    monkeypatch.setattr(echo, "fit", note)
    for steps, seeds in ((2, 1), (3, 2)):
        trained.clear()
        assert call(capsys, echo.main, *argv, "--steps", steps, "--seeds", seeds).code == 0
        assert set(trained) == {(steps, seed) for seed in range(seeds)}


def test_flags_reach_the_baseline(tmp_path, quick, capsys, monkeypatch):
    asked, real = [], baseline.MODELS["logistic"]
    monkeypatch.setitem(
        baseline.MODELS, "logistic", lambda C, seed: asked.append((C, seed)) or real(C, seed)
    )
    monkeypatch.setattr(baseline, "FOLDER", tmp_path)
    argv = ["--dataset", "templates", "--model", "logistic"]
    result = call(
        capsys, baseline.main, *argv, "--C", 0.5, "--seed", 3, "--config", "mine", "--record"
    )
    assert result.code == 0 and set(asked) == {(0.5, 3)}
    assert [path.name for path in (tmp_path / "results").glob("*.json")] == ["mine.json"]
    grams = [
        re.findall(r"[\d,]+ n-grams", call(capsys, baseline.main, *argv, "--C", 1, *more).out)
        for more in ([], ["--min-freq", 9], ["--subset", 50])
    ]
    assert len({str(found) for found in grams}) == 3
    absent = ["--dataset", "imdb", "--data-dir", tmp_path / "absent"]
    assert_one_line(call(capsys, baseline.main, *absent), tmp_path / "absent")


@pytest.mark.parametrize("folder", TRANSFORMERS)
def test_length_penalty_reaches_the_search(folder, tmp_path, quick, capsys, monkeypatch):
    path, asked = tmp_path / "run", []
    train(folder, *small(folder), "--epochs", 1, "--run-dir", path)
    for name in ("test", "translate"):
        module = script(folder, name)
        real = module.translate

        def note(model, tokenizer, source, beam, penalty, real=real):
            asked.append((beam, penalty))
            return real(model, tokenizer, source, beam, penalty)

        monkeypatch.setattr(module, "translate", note)
        words = ["a b"] * (name == "translate")
        flags = ["--run-dir", path, "--beam", 2, "--length-penalty", 0.25]
        assert call(capsys, module.main, *words, *flags).code == 0
    assert set(asked) == {(2, 0.25)} and len(asked) == 2


@pytest.mark.parametrize("folder", ["RNN_Manual", *TRANSFORMERS])
def test_a_text_is_as_long_as_asked_for(folder, tmp_path, quick, capsys):
    (tmp_path / "input.txt").write_text("abc\n" * 900)
    flags = ["--dataset", "text", "--data-dir", tmp_path, "--batch-size", 4, "--epochs", 1]
    flags += ["--embed-dim", 8, "--num-layers", 1, "--sample-length", 0]
    train(folder, *flags, "--run-dir", tmp_path / "run")
    for length in (1, 30):
        argv = ["--run-dir", tmp_path / "run", "--prompt", "ab", "--length", length]
        result = call(capsys, script(folder, "generate").main, *argv)
        assert result.code == 0 and len(result.out) == len("ab") + length + len("\n")


def test_likelihoods_are_of_so_many_samples(tmp_path, quick, capsys, monkeypatch):
    train("VAE", *small("VAE"), "--epochs", 1, "--run-dir", tmp_path / "run")
    module, asked = script("VAE", "test"), []
    real = module.estimate_split

    def note(model, data, samples):
        asked.append(samples)
        return real(model, data, samples)

    monkeypatch.setattr(module, "estimate_split", note)
    for samples in (3, 5):
        argv = ["--run-dir", tmp_path / "run", "--samples", samples]
        assert call(capsys, module.main, *argv).code == 0
    assert asked == [3, 5]
