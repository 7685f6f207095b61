"""predict.py of the image networks: pictures prepared as MNIST's were, the answers, bad input."""

import json
import os
import re
import shutil
import time
from argparse import Namespace

import numpy
import pytest
import torch
from PIL import Image

from common import checkpoint
from MLP_Manual.dataset import drawing, mnist
from tests.conftest import user_error
from tests.running import CNNS, MLPS, assert_one_line, call, no_pictures, script
from tests.test_classes import without_size

DIGITS = [*MLPS, *CNNS]
PHOTOS = ["ResNet", "ViT"]


@pytest.fixture(scope="module")
def held_out():
    """The sample's digits that no run has seen, as bytes (N, 28, 28), and their labels."""
    test = mnist.sample()[1]
    return test.inputs[:, 0].numpy(), test.labels


def draw(place, digit) -> dict:
    """A digit as files of several forms."""
    small = Image.fromarray(digit)
    large = small.resize((280, 280), Image.Resampling.BICUBIC)
    ink = numpy.asarray(large)
    paper = Image.fromarray(255 - ink)
    wide = Image.new("L", (700, 500), 255)
    wide.paste(paper, (400, 20))
    clear = Image.merge("RGBA", [Image.new("L", large.size, 20)] * 3 + [large])
    across = numpy.linspace(0.55, 0.95, 280)  # from the shadow to the window
    noise = numpy.random.default_rng(0).normal(0, 4, (280, 280, 1))
    photo = numpy.array([250, 240, 220]) * across[None, :, None] * (1 - 0.8 * ink[..., None] / 255)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise
    forms = {
        "as it is.png": (small, {}),
        "inverted.png": (Image.fromarray(255 - digit), {}),
        "larger.png": (paper, {}),
        "off-centre.png": (wide, {}),
        "transparent.png": (clear, {}),
        "turned.jpg": (wide.transpose(Image.Transpose.ROTATE_90), {"exif": turned}),
        "photo.jpg": (Image.fromarray((photo + noise).clip(0, 255).astype("uint8")), {}),
        "16 bits.png": (Image.fromarray(257 * (255 - ink).astype("uint16")), {}),
    }
    for name, (image, options) in forms.items():
        image.save(place / name, **options)
    return {name: place / name for name in forms}


# ---- a picture of yours becomes one of MNIST's ----


def test_a_digit_of_mnist_is_prepared_into_itself(held_out, tmp_path):
    """Its box, its size and its place, whichever way round: MNIST's own were made so."""
    digits, _ = held_out
    same = 0
    for digit in digits[::10]:
        for picture in (digit, 255 - digit):
            Image.fromarray(picture).save(tmp_path / "digit.png")
            prepared = drawing.prepare(tmp_path / "digit.png", "mnist")[0].numpy()
            same += numpy.abs(prepared.astype(int) - digit).mean() < 1  # of 255
    assert same >= 190  # of 200: of some, a pale edge passes for the paper's grain


def test_every_form_of_a_digit_has_its_size_and_centre(held_out, tmp_path):
    """20 pixels in the longer direction, centre of mass at (14, 14): LeCun et al., 1998."""
    for name, path in draw(tmp_path, held_out[0][310]).items():
        picture = drawing.prepare(path, "mnist")
        assert (picture.shape, picture.dtype) == ((1, 28, 28), torch.uint8)
        drawn = picture[0].float()
        rows, columns = drawn.amax(1).nonzero(), drawn.amax(0).nonzero()
        sides = [int(where[-1] - where[0]) + 1 for where in (rows, columns)]
        assert 19 <= max(sides) <= 20 and drawn.max() == 255, name
        expected = held_out[0][310].astype(float)
        similarity = numpy.corrcoef(drawn.numpy().ravel(), expected.ravel())[0, 1]
        assert similarity > 0.9, name
        middle = drawing.center_of_mass(drawn)
        assert middle == pytest.approx([14, 14], abs=0.6), name


def test_clothes_fill_the_picture(tmp_path):
    """And lie in the middle by their edges: Xiao et al., 2017."""
    paper = numpy.full((200, 300, 3), 255, numpy.uint8)
    paper[40:180, 100:170] = (90, 60, 30)
    paper[40:60, 100:170] = 0
    Image.fromarray(paper).save(tmp_path / "trousers.png")
    picture = drawing.prepare(tmp_path / "trousers.png", "fashion-mnist")[0]
    assert (picture[:, 7:21] > 100).all() and picture[:, :7].max() == picture[:, 21:].max() == 0
    assert picture[1, 14] == 255 and 180 < picture[20, 14] < 195, "not stretched"


def test_a_shadow_on_the_paper_is_no_drawing():
    across = torch.linspace(0.4, 1, 100).expand(80, 100)
    drawn, grain = drawing.lift(across)
    assert drawn.max() < 0.05
    ink = torch.zeros(80, 100)
    ink[30:50, 40:60] = 0.3
    assert torch.allclose(drawing.lift(across - ink)[0], ink, atol=0.05)
    assert torch.allclose(drawing.lift(1 - across + ink)[0], ink, atol=0.05), "light on dark"


# ---- the answer ----


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each folder of digits on the sample, which is what is learned without network and
    data, in fewer epochs. The twins by hand have the weights of the others."""
    place = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *to, **how: None)
        for kind, flags in (
            ("MLP", ["--hidden-sizes", "256", "--epochs", "6"]),
            ("CNN", ["--channels", "16", "32", "--epochs", "3"]),
        ):
            flags += ["--dataset", "mnist-sample", "--run-dir"]
            script(f"{kind}_Torch").main([*flags, str(place / f"{kind}_Torch")])
            by_hand = place / f"{kind}_Manual"
            script(f"{kind}_Manual").main([*flags, str(by_hand), "--subset", "200"])
            state = checkpoint.load(by_hand / "best.safetensors")
            state["model"] = checkpoint.load(place / f"{kind}_Torch" / "best.safetensors")["model"]
            checkpoint.save(by_hand / "best.safetensors", state)
    return place


def table(out: str) -> dict[str, list[tuple[str, float]]]:
    """The answers by the file's name: (class, percent)."""
    found, name = {}, None
    for line in out.splitlines():
        row = re.fullmatch(r" *(.+?) +([\d.]+) %(  \* the likeliest)?", line)
        if row:
            found[name].append((row[1], float(row[2])))
            assert bool(row[3]) == (len(found[name]) == 1)
        else:
            name = os.path.basename(line)
            found[name] = []
    return found


@pytest.mark.parametrize("folder", DIGITS)
def test_a_held_out_digit_is_recognised_in_every_form(folder, runs, held_out, tmp_path, capsys):
    digits, labels = held_out
    module, right = script(folder, "predict"), []
    for digit in range(10):
        row = int((labels == digit).nonzero()[0])
        files = draw(tmp_path, digits[row])
        argv = ["--run-dir", runs / folder, *files.values()]
        result = call(capsys, module.main, *argv)
        assert (result.code, result.err) == (0, "")
        found = table(result.out)
        assert list(found) == list(files)
        right += [answer[0][0] == str(digit) for answer in found.values()]
    assert sum(right) >= 0.9 * len(right) and len(right) == 80


@pytest.mark.parametrize("kind", ["MLP", "CNN"])
def test_twins_give_the_same_answer_from_the_same_weights(kind, runs, held_out, tmp_path, capsys):
    files = [*draw(tmp_path, held_out[0][450]).values()]
    out = [
        call(capsys, script(name, "predict").main, "--run-dir", runs / name, "--top", 10, *files)
        for name in (f"{kind}_Manual", f"{kind}_Torch")
    ]
    answers = [table(result.out) for result in out]
    assert answers[0].keys() == answers[1].keys() and len(answers[0]) == len(files)
    for name, rows in answers[0].items():
        assert len(rows) == 10 and sum(p for _, p in rows) == pytest.approx(100, abs=0.06)
        assert rows == sorted(rows, key=lambda row: -row[1])
        theirs = dict(answers[1][name])
        assert all(p == pytest.approx(theirs[label], abs=0.011) for label, p in rows)


@pytest.mark.parametrize("folder", DIGITS)
def test_so_many_classes_are_listed(folder, runs, held_out, tmp_path, capsys):
    (path, *_) = draw(tmp_path, held_out[0][0]).values()
    for top, rows in ((1, 1), (4, 4), (99, 10)):
        argv = ["--run-dir", runs / folder, path, "--top", top]
        found = table(call(capsys, script(folder, "predict").main, *argv).out)
        assert [len(answer) for answer in found.values()] == [rows]


@pytest.mark.pictures
@pytest.mark.parametrize("folder", DIGITS)
def test_what_the_network_saw_is_drawn(folder, runs, held_out, tmp_path, capsys):
    files = [*draw(tmp_path, held_out[0][0]).values()][:2]
    main, flags = script(folder, "predict").main, ["--run-dir", runs / folder]
    for names in (["one.png"], ["two-1.png", "two-2.png"] if "CNN" in folder else ["two.png"]):
        output = tmp_path / f"{names[0][:3]}.png"
        result = call(
            capsys, main, *flags, *files[: 1 + (output.stem == "two")], "--output", output
        )
        assert (result.code, result.err) == (0, "")
        for name in names:
            assert f"picture in {tmp_path / name}" in result.out
            image = Image.open(tmp_path / name)
            assert image.size > (200, 100)
            colours = numpy.asarray(image.convert("RGB")).astype(int)
            assert numpy.ptp(colours, axis=2).max() > 100, "the inputs alone, which are grey"
    result = call(capsys, main, *flags, *files, "--output", tmp_path / "x.jpg")
    assert_one_line(result, ".jpg", ".png")


# ---- which pixels the answer of an MLP depends on ----

MLP_SIZES = {
    "default": {"hidden_sizes": (9, 7)},
    "plain": {"hidden_sizes": (6,), "batch_norm": False, "activation": "gelu"},
    "linear": {"hidden_sizes": ()},
}


def twin_mlps(**arguments):
    """Both MLPs for 12 pixels, alike, in double precision and evaluation mode; each tensor is
    random, so that none has no effect."""
    torch.manual_seed(0)
    models = [script(name, "model").MLP(12, num_classes=5, **arguments) for name in MLPS]
    state = models[1].state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            state[name] = torch.rand_like(tensor) + (0.5 if "var" in name else -0.5)
    for model in models:
        model.load_state_dict(state)
        model.to(dtype=torch.float64).eval()
    return models


@pytest.mark.parametrize("arguments", MLP_SIZES.values(), ids=MLP_SIZES)
def test_the_maps_of_the_twins_are_the_jacobian_of_autograd(arguments):
    """Of each picture alone: the size of the answered class's row."""
    models = twin_mlps(**arguments)
    inputs, classes = torch.randn(6, 12, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0])
    by_hand, native = (
        script(name, "utils.sensitivity").sensitivity(model, inputs, classes)
        for name, model in zip(MLPS, models, strict=True)
    )
    assert by_hand.shape == inputs.shape and not native.requires_grad
    torch.testing.assert_close(by_hand, native, rtol=0, atol=1e-10)
    for n, k in enumerate(classes):
        jacobian = torch.autograd.functional.jacobian(models[1], inputs[n : n + 1])  # (1, K, 1, D)
        torch.testing.assert_close(by_hand[n], jacobian[0, k, 0].abs(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("folder", MLPS)
def test_a_map_leaves_inputs_and_network_as_they_were(folder):
    model = dict(zip(MLPS, twin_mlps(**MLP_SIZES["default"]), strict=True))[folder]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs, classes = torch.randn(3, 12, dtype=torch.float64), torch.tensor([4, 0, 2])
    script(folder, "utils.sensitivity").sensitivity(model, inputs, classes)
    assert not inputs.requires_grad
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    if folder == "MLP_Manual":  # which need not pay for the gradient of images in training
        assert model.backward(torch.randn(3, 5, dtype=torch.float64)) is None
    else:
        assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("folder", MLPS)
def test_there_is_no_map_in_training_mode(folder):
    """Dropout would be on, and batch normalisation would mix the pictures."""
    model = script(folder, "model").MLP(12, (4,), 5)
    with pytest.raises(ValueError, match=r"call model\.eval\(\) first"):
        script(folder, "utils.sensitivity").sensitivity(model, torch.randn(3, 12), torch.arange(3))


@pytest.mark.parametrize("folder", MLPS)
def test_the_map_is_of_the_class_that_is_answered(folder, runs, held_out, tmp_path, monkeypatch):
    files = [*draw(tmp_path, held_out[0][0]).values()][:3]
    module, asked, drawn = script(folder, "predict"), [], []
    real = module.sensitivity
    monkeypatch.setattr(module, "sensitivity", lambda *args: asked.append(args) or real(*args))
    monkeypatch.setattr(module, "draw_sensitivity", lambda *args: drawn.append(args))
    flags = ["--run-dir", runs / folder, "--output", tmp_path / "x.png"]
    module.main([str(word) for word in (*flags, *files)])
    (model, inputs, classes), (_, pictures, maps, captions, _) = asked[0], drawn[0]
    assert classes.tolist() == model(inputs).argmax(1).tolist()
    assert [caption.split("\n")[1].split()[0] for caption in captions] == [
        str(int(k)) for k in classes
    ]
    assert pictures.shape == maps.shape == (3, 28, 28)
    assert torch.equal(maps.flatten(1), real(model, inputs, classes))


# ---- images in colour ----


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """A run of ResNet and of ViT on the coloured shapes, which no accuracy is asked of."""
    place = tmp_path_factory.mktemp("coloured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *to, **how: None)
        for folder in PHOTOS:
            shapes = script(folder, "dataset.coloured_shapes")
            for split, size in (("train", 320), ("validation", 64), ("test", 48)):
                patch.setitem(shapes.SIZES_SEEDS, split, (size, shapes.SIZES_SEEDS[split][1]))
            flags = ["--dataset", "shapes", "--epochs", "1", "--flip-test", "--batch-size", "32"]
            script(folder).main([*flags, "--run-dir", str(place / folder)])
    return place


@pytest.mark.pictures
@pytest.mark.parametrize("folder", PHOTOS)
def test_images_are_answered_as_the_test_split_is(folder, coloured, tmp_path, capsys):
    """From files of several forms, the probabilities that evaluation finds."""
    module, names = script(folder, "predict"), ["plain.png", "turned.png", "transparent.png"]
    split = script(folder, "dataset.coloured_shapes").make("test").take(torch.arange(2))
    image = Image.fromarray(split.inputs[0].permute(1, 2, 0).numpy())
    turned, clear = Image.Exif(), image.convert("RGBA")
    turned[0x0112] = 6
    image.save(tmp_path / names[0])
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / names[1], exif=turned)
    clear.save(tmp_path / names[2])
    files = [tmp_path / name for name in names]
    output = tmp_path / "seen.png"
    flags = ["--run-dir", coloured / folder, "--top", 16, "--output", output]
    result = call(capsys, module.main, *files, *flags)
    assert (result.code, result.err) == (0, "") and f"picture in {output}" in result.out
    assert Image.open(output).size > (300, 300)

    args, parser = Namespace(run_dir=str(coloured / folder)), script(folder).make_parser()
    run_dir, config = module.find_trained(module.FOLDER, args, parser)
    model = module.build_model(config, split)
    module.load_best(model, run_dir)
    logits, _ = module.predict_all(model, split, config)
    expected = 100 * logits[0].softmax(0)
    lines = result.out.replace(f"picture in {output}\n", "")
    for answer in table(lines).values():
        assert len(answer) == 16
        for label, percent in answer:
            row = split.classes.index(label)
            assert percent == pytest.approx(expected[row].item(), abs=0.011)


@pytest.mark.parametrize("folder", PHOTOS)
def test_photos_are_read_in_the_size_of_the_folder_that_was_learned(
    folder, coloured, tmp_path, capsys, monkeypatch
):
    """Also when that folder has moved; older runs, which do not tell the size, ask where it is."""
    for split, number in (("train", 6), ("test", 2)):
        for name in ("day", "night"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for n in range(number):
                image = Image.new("RGB", (40, 30), (200 + n if name == "day" else n, 99, 99))
                image.save(tmp_path / "photos" / split / name / f"{n}.png")
    flags = ["--dataset", "folder", "--data-dir", tmp_path / "photos", "--batch-size", 8]
    flags += ["--epochs", 1, "--run-dir", tmp_path / "run", "--crop", 0]
    assert call(capsys, script(folder).main, *flags).code == 0
    (tmp_path / "photos").rename(tmp_path / "moved")
    module, asked = script(folder, "predict"), []
    real = module.predict_all

    def note(model, data, config):
        asked.append(data.shape)
        return real(model, data, config)

    monkeypatch.setattr(module, "predict_all", note)
    argv = ["--run-dir", tmp_path / "run", tmp_path / "moved" / "test" / "day" / "0.png"]
    result = call(capsys, module.main, *argv)
    assert result.code == 0 and {name for name, _ in table(result.out)["0.png"]} == {"day", "night"}
    without_size(tmp_path / "run")
    assert_one_line(call(capsys, module.main, *argv), tmp_path / "photos")
    again = call(capsys, module.main, *argv, "--data-dir", tmp_path / "moved")
    assert (again.code, again.out) == (0, result.out)
    assert asked == [(3, 40, 40)] * 2


# ---- what may go wrong ----


@pytest.mark.parametrize("folder", DIGITS + PHOTOS)
def test_without_a_run_the_command_and_its_time_are_named(folder, tmp_path, capsys, monkeypatch):
    module = script(folder, "predict")
    monkeypatch.setattr(module, "FOLDER", tmp_path / folder)
    said = [f"`python {folder}/train.py`", "on 2 cores"]
    assert_one_line(call(capsys, module.main, "photo.png"), *said)


@pytest.mark.parametrize("folder", DIGITS + PHOTOS)
def test_a_name_that_no_picture_can_have_is_refused_first(folder, tmp_path, capsys):
    """Before a run is looked for, and the pictures."""
    for name, said in no_pictures(tmp_path / "place").items():
        argv = ["absent.png", "--run-dir", tmp_path / "absent", "--output", name]
        assert_one_line(call(capsys, script(folder, "predict").main, *argv), "--output", said)


@pytest.mark.parametrize("folder", ["Transformer_Manual", "Transformer_Torch"])
def test_without_a_run_to_translate_with_as_well(folder, tmp_path, capsys, monkeypatch):
    module = script(folder, "translate")
    monkeypatch.setattr(module, "FOLDER", tmp_path / folder)
    said = [f"`python {folder}/train.py --task translate`", "on 2 cores"]
    assert_one_line(call(capsys, module.main, "ein hund"), *said)


@pytest.mark.parametrize("folder", DIGITS)
def test_bad_input_is_one_line(folder, runs, tmp_path, capsys):
    for name, content in (("text.png", b"no picture"), ("empty.png", b"")):
        (tmp_path / name).write_bytes(content)
    Image.new("RGB", (90, 60), "white").save(tmp_path / "white.png")
    Image.new("L", (1, 1), 7).save(tmp_path / "dot.png")
    Image.new("RGBA", (50, 50), (255, 255, 255, 40)).save(tmp_path / "ghost.png")
    main, flags = script(folder, "predict").main, ["--run-dir", runs / folder]
    for name in ("text.png", "empty.png", "white.png", "dot.png", "ghost.png", "absent.png", ""):
        assert_one_line(call(capsys, main, *flags, tmp_path / name), tmp_path / name)
    for argv, said in (
        (["a\0b"], "null"), (["--top", 0, "x"], "--top"), (["--device", "tpu", "x"], "tpu"),
        ([], "FILE"), (["--run-dir", tmp_path, "x"], tmp_path),
    ):  # fmt: skip
        assert_one_line(call(capsys, main, *flags, *argv), said)


@pytest.mark.parametrize("folder", MLPS)
def test_of_the_runs_the_latest_of_pictures_is_taken(folder, runs, tmp_path, capsys, monkeypatch):
    module, moved = script(folder, "predict"), tmp_path / folder
    Image.fromarray(numpy.eye(28, dtype=numpy.uint8) * 255).save(tmp_path / "line.png")
    for number, name in ((1, "mnist-sample"), (2, "spirals")):
        path = shutil.copytree(runs / folder, moved / "runs" / f"000{number}-{name}")
        if name == "spirals":
            config = json.loads((path / "config.json").read_text())
            (path / "config.json").write_text(json.dumps({**config, "dataset": name}))
    monkeypatch.setattr(module, "FOLDER", moved)
    assert call(capsys, module.main, tmp_path / "line.png").code == 0
    flags = ["--dataset", "spirals", "--epochs", "1", "--hidden-sizes", "4"]
    assert call(capsys, script(folder).main, *flags, "--run-dir", tmp_path / "points").code == 0
    result = call(capsys, module.main, tmp_path / "line.png", "--run-dir", tmp_path / "points")
    named = [tmp_path / "points", "--dataset spirals", "mnist or", f"python {folder}/train.py"]
    assert_one_line(result, *named, module.TAKES)


def test_a_photo_of_many_pixels_takes_no_time(tmp_path):
    """Ten million, of which a few are looked at."""
    paper = Image.new("L", (4000, 2500), 220)
    paper.paste(30, (1900, 400, 2150, 2100))
    paper.save(tmp_path / "photo.jpg")
    begun = time.process_time()
    picture = drawing.prepare(tmp_path / "photo.jpg", "mnist")
    assert time.process_time() - begun < 5  # 0.2 s
    assert picture[0, 14, 14] == 255


def test_what_is_not_there_is_said_without_advice(tmp_path):
    from ResNet.utils.answers import existing

    with user_error(tmp_path / "absent", "No such file"):
        existing([str(tmp_path / "absent")])
    (tmp_path / "there").write_bytes(b"")
    assert existing([str(tmp_path / "there")]) == [tmp_path / "there"]


def test_a_picture_that_is_looked_at_is_not_drawn_over(tmp_path):
    from ResNet.utils.answers import existing

    photo, other = tmp_path / "photo.png", tmp_path / "seen.png"
    for path in (photo, other):
        path.write_bytes(b"mine")
    (tmp_path / "link.png").symlink_to(photo)
    for output in (photo, tmp_path / "link.png"):
        with user_error("--output", output.name):
            existing([str(photo)], output)
    assert existing([str(photo)], other) == [photo]
