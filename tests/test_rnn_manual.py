"""RNN_Manual against PyTorch: recurrent layers, the language model, texts, learning, writing."""

import json
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from common import checkpoint, data, files
from common.results import compare, compare_steps
from RNN_Manual import compare_layers, echo, generate, train
from RNN_Manual import test as evaluation
from RNN_Manual.dataset import characters, encodings, load_test, load_training, strings, texts
from RNN_Manual.dataset.characters import Vocabulary
from RNN_Manual.dataset.text import Text
from RNN_Manual.model import CELLS, LanguageModel
from RNN_Manual.utils.carry import CarriedState
from RNN_Manual.utils.layers import GRU, LSTM, RNN, Embedding, Layer
from RNN_Manual.utils.losses import SequenceCrossEntropy
from RNN_Manual.utils.memory import gradient_over_distance
from RNN_Manual.utils.optim import Adam, clip_gradients
from RNN_Manual.utils.sampling import add_sample, probabilities
from tests.conftest import user_error
from tests.gradients import (
    assert_close,
    autograd_gradients,
    check_layer,
    evaluate,
    layer_gradients,
)
from tests.running import (
    MARKED,
    Stop,
    assert_ended_alike,
    assert_one_line,
    call,
    crash,
    history,
    marked,
    no_pictures,
    readme_function,
    short_strings,
    small,
)

NATIVE = {RNN: nn.RNN, GRU: nn.GRU, LSTM: nn.LSTM}


@pytest.fixture(autouse=True)
def prepared(monkeypatch):
    torch.manual_seed(0)
    short_strings(monkeypatch)
    monkeypatch.setattr("common.plots.draw_curves", lambda path, history: None)


def random_doubles(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


# ---- recurrent layers ----


class Whole(Layer):
    """A recurrent layer as a function of x (and of the first state, as parameters) alone, whose
    result holds the state after the last step too."""

    def __init__(self, layer, N: int, with_state: bool):
        self.layer = layer
        if with_state:
            self.parameter_names = ("h", "c")[: layer.num_states]
            for name in self.parameter_names:
                setattr(self, name, torch.randn(layer.num_layers, N, layer.hidden_size))

    def join(self, output, final):
        final = final if isinstance(final, tuple) else (final,)
        return torch.cat([part.flatten() for part in (output, *final)])

    def state(self, parts):
        return (tuple(parts) if len(parts) > 1 else parts[0]) if parts else None

    def forward(self, x):
        first = self.state([getattr(self, name) for name in self.parameter_names])
        output, final = self.layer.forward(x, first)
        self.shapes = [output.shape, *[self.layer_shape(x)] * self.layer.num_states]
        return self.join(output, final)

    def layer_shape(self, x):
        return (self.layer.num_layers, x.shape[1], self.layer.hidden_size)

    def backward(self, grad):
        parts = grad.split([math.prod(shape) for shape in self.shapes])
        parts = [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        grad_x, grad_first = self.layer.backward(parts[0], self.state(parts[1:]))
        grad_first = grad_first if isinstance(grad_first, tuple) else (grad_first,)
        for name, part in zip(self.parameter_names, grad_first, strict=False):
            setattr(self, f"grad_{name}", part)
        return grad_x

    def reference(self, native):
        def function(x, **parameters):
            first = self.state([parameters[name] for name in self.parameter_names])
            weights = {
                name.removeprefix("layer."): value
                for name, value in parameters.items()
                if name.startswith("layer.")
            }
            arguments = (x,) if first is None else (x, first)
            return self.join(*functional_call(native.double(), weights, arguments))

        return function


SHAPES = [  # T, N, D, H, layers
    (4, 3, 2, 3, 1),
    (1, 1, 1, 1, 1),
    (1, 2, 3, 2, 2),
    (5, 1, 2, 3, 2),
    (3, 2, 4, 1, 3),
]


@pytest.mark.smoke
@pytest.mark.parametrize("with_state", [True, False])
@pytest.mark.parametrize("T, N, D, H, layers", SHAPES)
@pytest.mark.parametrize("cell", NATIVE)
def test_recurrent_layer_has_the_right_gradient(cell, T, N, D, H, layers, with_state):
    """Of x, every weight and the first state, from every output and the last state."""
    whole = Whole(cell(D, H, layers), N, with_state)
    check_layer(whole, whole.reference(NATIVE[cell](D, H, layers)), random_doubles(T, N, D))


@pytest.mark.parametrize("cell", NATIVE)
def test_long_window_of_many_units_has_the_gradient_of_autograd(cell):
    layer, native = cell(7, 20, 2).to(dtype=torch.float64), NATIVE[cell](7, 20, 2).double()
    native.load_state_dict(layer.state_dict())
    x = random_doubles(40, 5, 7).requires_grad_()
    grad_output = random_doubles(40, 5, 20)
    expected, _ = native(x)
    expected.backward(grad_output)
    output, _ = layer.forward(x.detach())
    assert_close(output, expected.detach(), 1e-8, "output")
    grad_x, _ = layer.backward(grad_output)
    assert_close(grad_x, x.grad, 1e-8, "x")
    for name, parameter in native.named_parameters():
        assert_close(layer.gradients()[name], parameter.grad, 1e-8, name)


@pytest.mark.parametrize("T, N, D, H, layers", [*SHAPES, (30, 4, 7, 20, 2)])
def test_fast_lstm_is_the_plain_one_of_the_readme(monkeypatch, T, N, D, H, layers):
    """The README's `run_back` in the place of the layer's own: all gradients stay as they were."""
    layer = LSTM(D, H, layers, weight_dropout=0.3).to(dtype=torch.float64)
    x, grad_output = random_doubles(T, N, D), random_doubles(T, N, H)
    grad_state = random_doubles(layers, N, H), random_doubles(layers, N, H)

    def gradients():
        torch.manual_seed(1)
        layer.forward(x, (random_doubles(layers, N, H), random_doubles(layers, N, H)))
        grad_x, grad_first = layer.backward(grad_output, grad_state)
        first = dict(zip("hc", grad_first, strict=True))
        return {"x": grad_x, **first, **layer.gradients()}

    fast = gradients()
    plain = readme_function("RNN_Manual", "run_back")
    assert plain.__code__ != LSTM.run_back.__code__
    monkeypatch.setattr(LSTM, "run_back", plain)
    for name, gradient in gradients().items():
        assert_close(fast[name], gradient, 1e-12, name)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cell", NATIVE)
def test_dropout_is_between_the_layers_as_in_torch(cell, training):
    layer = cell(3, 4, 3, dropout=0.4).train(training)
    native = NATIVE[cell](3, 4, 3, dropout=0.4).train(training)
    whole = Whole(layer, 2, with_state=True).to(dtype=torch.float64)
    x, reference = random_doubles(3, 2, 3), whole.reference(native)
    grad_output = torch.randn_like(evaluate(whole, x))
    gradients = layer_gradients(whole, x, grad_output, needs_grad_input=True)
    _, expected = autograd_gradients(whole, reference, x, grad_output)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert_close(gradient, expected[name], 1e-8, name)


@pytest.mark.smoke
@pytest.mark.parametrize("cell", NATIVE)
def test_weight_dropout_is_the_layer_of_torch_with_the_weights_that_are_left(cell):
    """Autograd through W_hh m, with the masks that were drawn."""
    layer = cell(3, 6, 2, weight_dropout=0.4).train()
    native = NATIVE[cell](3, 6, 2).double()
    whole = Whole(layer, 2, with_state=True).to(dtype=torch.float64)
    x, unmasked = random_doubles(5, 2, 3), whole.reference(native)
    grad_output = torch.randn_like(evaluate(whole, x))
    gradients = layer_gradients(whole, x, grad_output, needs_grad_input=True)
    masks = [dropout.mask for dropout in layer.weight_dropouts]
    for mask in masks:
        assert mask.shape == layer.weight_hh_l0.shape and set(mask.unique().tolist()) <= {
            0,
            1 / 0.6,
        }
        assert 0.2 < (mask == 0).double().mean() < 0.6

    def reference(x, **parameters):
        for k, mask in enumerate(masks):
            parameters[f"layer.weight_hh_l{k}"] = parameters[f"layer.weight_hh_l{k}"] * mask
        return unmasked(x, **parameters)

    _, expected = autograd_gradients(whole, reference, x, grad_output)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert_close(gradient, expected[name], 1e-8, name)
        if "weight_hh" in name:
            assert (gradient[masks[int(name[-1])] == 0] == 0).all()

    layer.eval()
    assert_close(layer.forward(x)[0], native_output(native, layer, x), 1e-12, "all weights")


def native_output(native, layer, x):
    native.load_state_dict(layer.state_dict())
    return native(x)[0].detach()


@pytest.mark.smoke
@pytest.mark.parametrize("D, H, layers", [(3, 5, 1), (1, 2, 3)])
@pytest.mark.parametrize("cell", NATIVE)
def test_state_dict_and_first_weights_are_those_of_torch(cell, D, H, layers):
    torch.manual_seed(3)
    layer = cell(D, H, layers)
    torch.manual_seed(3)
    native = NATIVE[cell](D, H, layers)
    assert list(layer.state_dict()) == list(native.state_dict())
    same = zip(layer.state_dict().values(), native.state_dict().values(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in same)

    other = NATIVE[cell](D, H, layers)
    layer.load_state_dict(other.state_dict())
    native.load_state_dict(layer.state_dict())
    x = torch.randn(4, 2, D)
    torch.testing.assert_close(layer.forward(x)[0], other(x)[0].detach())
    torch.testing.assert_close(native(x)[0], other(x)[0])


@pytest.mark.parametrize("cell", NATIVE)
def test_two_windows_with_the_state_carried_are_one_long_window(cell):
    layer, x = cell(3, 4, 2).to(dtype=torch.float64), random_doubles(9, 2, 3)
    whole, last = layer.forward(x)
    first, state = layer.forward(x[:5])
    second, end = layer.forward(x[5:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(end, last, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", NATIVE)
def test_gradient_of_the_state_joins_two_windows_to_one(cell):
    """The full gradient, where truncated BPTT would drop what comes back."""
    layer, x = cell(3, 4, 2).to(dtype=torch.float64), random_doubles(7, 2, 3)
    grad_output = random_doubles(7, 2, 4)
    layer.forward(x)
    expected, _ = layer.backward(grad_output)
    _, state = layer.forward(x[:4])
    layer.forward(x[4:], state)
    late, grad_state = layer.backward(grad_output[4:])
    layer.forward(x[:4])
    early, _ = layer.backward(grad_output[:4], grad_state)
    torch.testing.assert_close(torch.cat([early, late]), expected, rtol=0, atol=1e-12)


def test_outputs_are_not_written_over_by_the_next_window():
    for cell in NATIVE:
        layer = cell(2, 3)
        output, final = layer.forward(torch.randn(4, 2, 2))
        parts = [output, *(final if isinstance(final, tuple) else (final,))]
        before = [part.clone() for part in parts]
        layer.forward(torch.randn(4, 2, 2))
        layer.backward(torch.randn(4, 2, 3))
        assert all(torch.equal(a, b) for a, b in zip(parts, before, strict=True))


def test_layer_goes_in_and_out_of_inference_mode():
    layer, x = LSTM(2, 3), torch.randn(4, 2, 2)
    with torch.inference_mode():
        first = layer.forward(x)[0].clone()
    torch.testing.assert_close(layer.forward(x)[0], first.clone())


def test_gates_are_named_and_in_their_range():
    for cell, count in ((RNN, 0), (GRU, 3), (LSTM, 4)):
        layer = cell(2, 3)
        layer.forward(torch.randn(4, 2, 2))
        gates = layer.gates(0)
        assert len(gates) == count
        for name, values in gates.items():
            low = -1 if name[-1] in "gn" else 0
            assert values.shape == (4, 2, 3) and low <= values.min() and values.max() <= 1


@pytest.mark.smoke
@pytest.mark.parametrize("shape", [(1,), (3, 4), (2, 1, 3)])
def test_embedding_adds_up_the_gradients_of_equal_tokens(shape):
    layer = Embedding(5, 3)
    tokens = torch.randint(3, shape)  # of five: some never occur, others often
    check_layer(layer, nn.Embedding(5, 3), tokens)
    torch.manual_seed(1)
    weight = Embedding(5, 3).weight
    torch.manual_seed(1)
    assert torch.equal(weight, nn.Embedding(5, 3).weight)


# ---- the language model ----


class Native(nn.Module):
    """The same network in PyTorch."""

    def __init__(self, vocab_size, embed_dim, hidden_size, num_layers, cell, dropout):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        layer = getattr(nn, cell.upper())
        self.recurrent = layer(embed_dim, hidden_size, num_layers, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, vocab_size)

    def forward(self, tokens):
        x, _ = self.recurrent(self.embedding(tokens))
        return self.linear(self.dropout(x))


@pytest.mark.smoke
@pytest.mark.parametrize("cell", CELLS)
def test_language_model_has_the_gradients_of_autograd(cell):
    arguments = (5, 2, 3, 2, cell, 0.3)
    check_layer(LanguageModel(*arguments), Native(*arguments), torch.randint(5, (4, 2)))
    torch.manual_seed(2)
    model = LanguageModel(*arguments)
    torch.manual_seed(2)
    native = Native(*arguments)
    assert list(model.state_dict()) == list(native.state_dict())
    pairs = zip(model.state_dict().values(), native.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("cell", CELLS)
def test_products_of_half_the_bits_leave_states_and_gradients_whole(cell):
    """Beside the same network in double precision. Rounding is to 8 bits, 0.4 % each time."""
    model, exact = LanguageModel(9, 8, 32, 2, cell, 0.0), LanguageModel(9, 8, 32, 2, cell, 0.0)
    exact.to(dtype=torch.float64).load_state_dict(model.state_dict())
    tokens, labels = torch.randint(9, (2, 12, 4))
    losses, criterion = [], SequenceCrossEntropy()
    for network, half in ((exact, False), (model, True)):
        state = None
        for _ in range(2):  # the second window takes the first one's state
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                losses.append(criterion.forward(network.forward(tokens, state), labels).item())
                state = network.state
                network.backward(criterion.backward())
    for of in [*state] if cell == "lstm" else [state]:
        assert of.dtype == torch.float32
    assert losses[2:] == pytest.approx(losses[:2], rel=0.01) and losses[2:] != losses[:2]
    for name, gradient in model.gradients().items():
        expected = exact.gradients()[name]
        assert gradient.dtype == torch.float32
        assert 0 < (gradient - expected).norm() < 0.03 * expected.norm(), name


def test_half_the_bits_learn_nearly_the_same(tmp_path):
    found = {}
    for precision in ("float32", "bfloat16"):
        flags = [*small("RNN"), "--epochs", 1, "--precision", precision]
        train.main([str(flag) for flag in [*flags, "--run-dir", tmp_path / precision]])
        found[precision] = float(history(tmp_path / precision)[0]["validation_loss"])
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.02)
    assert found["bfloat16"] != found["float32"]


def test_sequence_loss_is_that_of_torch():
    for smoothing in (0.0, 0.2):
        logits = random_doubles(4, 3, 5).requires_grad_()
        labels = torch.randint(5, (4, 3))
        expected = nn.CrossEntropyLoss(label_smoothing=smoothing)(
            logits.flatten(0, 1), labels.flatten()
        )
        (gradient,) = torch.autograd.grad(expected, logits)
        criterion = SequenceCrossEntropy(smoothing)
        assert criterion.forward(logits.detach(), labels).item() == pytest.approx(expected.item())
        assert_close(criterion.backward(), gradient, 1e-8, "gradient")


@pytest.mark.parametrize("cell", CELLS)
def test_loss_before_training_is_that_of_guessing(cell):
    model = LanguageModel(65, 64, 128, 1, cell).eval()
    labels = torch.randint(65, (50, 8))
    loss = SequenceCrossEntropy().forward(model.forward(torch.randint(65, (50, 8))), labels)
    assert abs(loss.item() - math.log(65)) < 0.1


def test_model_without_arguments_is_the_recorded_network():
    model = LanguageModel()
    assert model.forward(torch.zeros(2, 1, dtype=torch.int64)).shape == (2, 1, 65)
    assert [tensor.shape for tensor in model.state] == [(2, 1, 512)] * 2


def test_what_comes_later_does_not_move_what_was_predicted():
    tokens = torch.randint(7, (6, 2))
    for cell in CELLS:
        model = LanguageModel(7, 3, 4, 2, cell, 0.0)
        before = model.forward(tokens)[:4].clone()
        after = model.forward(torch.cat([tokens[:4], (tokens[4:] + 1) % 7]))[:4]
        torch.testing.assert_close(before, after, rtol=0, atol=1e-6)


# ---- texts ----


@pytest.fixture
def own_text(tmp_path):
    """A function (text) -> the flags of a run on it."""

    def write(text: str | bytes) -> list[str]:
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "input.txt").write_bytes(content)
        return ["--dataset", "text", "--data-dir", str(tmp_path)]

    return write


def numbers(n: int) -> Text:
    """A text that counts."""
    return Text(torch.arange(n), torch.arange(1, n + 1), [str(k) for k in range(n + 1)], {})


def test_windows_go_on_where_the_one_before_ended():
    text, N, T = numbers(1003), 4, 10
    windows = list(text.batches(N, T, seed=1, epoch=2))
    assert len(windows) == text.num_batches(N, T) == 24
    inputs, labels = (torch.cat(parts) for parts in zip(*windows, strict=True))
    assert inputs.shape == (240, N) and torch.equal(labels, inputs + 1)
    assert torch.equal(inputs, inputs[:1] + torch.arange(240)[:, None])
    assert (inputs[0].diff() == 248).all() and inputs[0, 0] < T  # 994 // 4 characters each
    assert len(inputs.unique()) == inputs.numel()

    again = list(text.batches(N, T, seed=1, epoch=2, skip=21))
    assert len(again) == 3 and torch.equal(again[0][0], windows[21][0])
    starts = {int(next(text.batches(N, T, 1, epoch))[0][0, 0]) for epoch in range(30)}
    assert starts <= set(range(T)) and len(starts) > 5


@pytest.mark.parametrize("n, N, T", [(31, 3, 8), (9, 1, 9), (63, 1, 32)])
def test_shortest_text_for_the_windows(n, N, T):
    short = N * T + T - 1
    assert numbers(short).num_batches(N, T) == 1
    assert max(int(x.max()) for x, _ in numbers(short).batches(N, T, epoch=n)) < short
    with user_error(f"{short:,}", f"{short - 1:,}", "--window"):
        numbers(short - 1).num_batches(N, T)


def test_a_text_shorter_than_a_window_is_too_short():
    for length in (10, 62, 63):
        with user_error(f"2 streams of 64 characters need a text of 191, and there are {length}"):
            numbers(length).num_batches(2, 64)


@pytest.mark.parametrize("n, most, streams", [(10_000, 16, 2), (65_536, 16, 16), (9_973, 4, 1)])
def test_evaluation_reads_every_character_once(n, most, streams):
    windows = list(numbers(n).in_order(700, most))
    labels = torch.cat([labels for _, labels in windows])
    assert labels.shape == (n // streams, streams)
    assert torch.equal(labels.T.flatten(), torch.arange(1, n + 1))
    assert all(torch.equal(inputs + 1, labels) for inputs, labels in windows)


@pytest.mark.smoke
def test_splits_of_a_text_have_the_sizes_of_the_readme(monkeypatch):
    """Of a text as long as tiny-shakespeare."""
    whole = "".join(chr(97 + n % 26) for n in range(1_115_393)) + "!"
    monkeypatch.setattr(characters, "read", lambda *_: (whole, {"input.txt": "abc"}))
    train_split, validation = load_training("tiny-shakespeare")
    test = load_test("tiny-shakespeare")
    assert [len(split) for split in (train_split, validation, test)] == [948_093, 55_760, 111_540]
    assert len(train_split) + len(validation) + len(test) + 1 == len(whole)
    parts = [
        "".join(s.classes[t] for t in s.labels.tolist()) for s in (train_split, validation, test)
    ]
    assert whole[0] + "".join(parts) == whole
    assert test.inputs[0] == validation.labels[-1] and test.classes == train_split.classes

    both, nothing = load_training("tiny-shakespeare", refit=True)
    assert nothing is None and both.classes == train_split.classes
    for part in ("inputs", "labels"):
        pieces = [getattr(split, part) for split in (train_split, validation)]
        assert torch.equal(getattr(both, part), torch.cat(pieces))


def test_help_topics_are_a_text_of_python_itself():
    train_split, validation = load_training("help-topics")
    assert len(train_split) > 100_000 and len(validation) % 16 == 0
    assert "assert" in "".join(train_split.classes[t] for t in train_split.inputs.tolist())
    assert list(train_split.checksums) == ["pydoc_data.topics"]


def test_another_file_does_not_pass_for_tiny_shakespeare(tmp_path, capsys):
    path = tmp_path / "tinyshakespeare" / "input.txt"
    path.parent.mkdir()
    for content in (b"", b"First Citizen:\n" * 100):
        path.write_bytes(content)
        argv = ["--data-dir", tmp_path, "--run-dir", tmp_path / "run"]
        assert_one_line(call(capsys, train.main, *argv), path, "not tiny-shakespeare")
    assert not (tmp_path / "run").exists()


def test_named_text_that_cannot_be_had_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data, "ROOT", tmp_path)
    monkeypatch.setattr(texts, "FOLDER", tmp_path / "RNN_Manual")
    monkeypatch.setattr(characters, "URL", (tmp_path / "absent").as_uri())
    argv = ["--dataset", "tiny-shakespeare", "--run-dir", tmp_path / "run"]
    result = call(capsys, train.main, *argv)
    assert_one_line(result, "tiny-shakespeare is not in", "could not be downloaded")

    argv = ["--epochs", 1, "--subset", 900, "--batch-size", 2, "--window", 8, "--hidden-size", 4]
    argv += ["--sample-length", 5, "--run-dir", tmp_path / "run"]
    monkeypatch.setattr(train, "evaluate", lambda model, data: {"loss": 1.0})
    result = call(capsys, train.main, *argv)
    assert result.code == 0 and "ANOTHER TEXT" in result.err and "help-topics: 900" in result.out
    assert history(tmp_path / "run")[0]["dataset"] == "help-topics"


def test_download_is_used_and_checked(tmp_path, monkeypatch):
    content = b"First Citizen:\nBefore we proceed any further, hear me speak.\n" * 20
    asked = []

    def download(urls, path, md5):
        asked.append((urls, md5))
        path.parent.mkdir(parents=True)
        path.write_bytes(content)

    monkeypatch.setattr(data, "download", download)
    monkeypatch.setattr(data, "ROOT", tmp_path / "root")
    monkeypatch.setattr(texts, "FOLDER", tmp_path / "RNN_Manual")
    with user_error("not tiny-shakespeare", characters.FILE):
        load_training("tiny-shakespeare")
    monkeypatch.setattr(characters, "SHA256", files.sha256(content))
    train_split, _ = load_training("tiny-shakespeare")
    assert train_split.checksums == {"input.txt": files.sha256(content)}
    assert asked == [([characters.URL], characters.MD5)], "what was downloaded is not found again"


@pytest.mark.parametrize("encoding", MARKED)
def test_a_text_with_a_byte_order_mark_is_learned_alike(encoding, tmp_path):
    text, found = "".join(f"ä{n % 7} wort\n" for n in range(60)), []
    for content in (text.encode(), marked(text, encoding)):
        (tmp_path / "input.txt").write_bytes(content)
        splits = [*load_training("text", str(tmp_path)), load_test("text", str(tmp_path))]
        found.append([(split.classes, split.labels.tolist()) for split in splits])
    assert found[0] == found[1] and found[0][0][0] == sorted(set(text))


BROKEN = {1: b"\xff", 2: b"\xd8\xd8", 4: b"\xff\xff\xff\xff"}  # no character, by bytes of a unit


UNITS = dict(zip(["utf-8", *MARKED], [1, 1, 2, 2, 4], strict=True))


@pytest.mark.parametrize("encoding, unit", UNITS.items())
def test_the_line_that_is_in_no_encoding_is_named(encoding, unit, tmp_path):
    """Also where it begins with what is wrong, and whether the file begins with a mark or not."""
    for before in ("", "ä", "a" * 7):
        lines = marked(f"\n\nwörter\n{before}", encoding)
        content = lines + BROKEN[unit] + "\n".encode(encoding)[-unit:]
        with user_error(tmp_path / "input.txt", "line 4", "UTF-8"):
            encodings.decode(tmp_path / "input.txt", content)


@pytest.mark.parametrize(
    "text, parts",
    [
        ("", ["too short", "0 characters"]),
        ("abc", ["too short", "3 characters"]),
        ("the text is too short for that\n" * 3, ["32 streams", "64 characters", "--batch-size"]),
        (b"\xff\xfe\x00", ["input.txt", "UTF-8"]),
    ],
)
def test_unusable_text_is_one_line(text, parts, own_text, tmp_path, capsys):
    argv = [*own_text(text), "--run-dir", tmp_path / "run"]
    assert_one_line(call(capsys, train.main, *argv), *parts)
    assert not (tmp_path / "run").exists()


def test_own_text_needs_its_folder(capsys, tmp_path):
    assert_one_line(call(capsys, train.main, "--dataset", "text"), "--data-dir")
    argv = ["--dataset", "text", "--data-dir", tmp_path]
    assert_one_line(call(capsys, train.main, *argv), tmp_path / "input.txt")


def test_controlled_texts_are_what_they_say():
    generator = torch.Generator().manual_seed(5)
    lines = strings.anbn(3_000, generator).splitlines()
    assert all(line == "a" * (len(line) // 2) + "b" * (len(line) // 2) for line in lines)
    assert {len(line) // 2 for line in lines} == set(range(1, strings.MOST + 1))
    text = strings.echo(3_000, generator, delay=5)
    blocks = [text[start : start + 8] for start in range(0, len(text), 8)]
    for block in blocks:
        assert block[0] == block[7] and block[0] in strings.CAPITALS and block[6] == "?"
        assert set(block[1:6]) <= set(strings.NOISE)
    assert {block[0] for block in blocks} == set(strings.CAPITALS)


def test_best_loss_of_the_controlled_texts_is_that_of_the_ideal_reader():
    """Who knows how a string goes on as well as can be: the frequencies, counted on long texts."""
    text = strings.anbn(400_000, torch.Generator().manual_seed(1))
    nats = 0.0
    for line in text.splitlines():
        n = len(line) // 2
        for k in range(1, n):  # k a so far, and one more comes: all longer ones are as likely
            nats -= math.log((strings.MOST - k) / (strings.MOST - k + 1))
        nats -= math.log(1 / (strings.MOST - n + 1))  # the first b
    assert nats / len(text) == pytest.approx(strings.best_loss("anbn"), rel=0.01)
    assert strings.best_loss("echo", 10) == pytest.approx(11 * math.log(4) / 13)


# ---- learning ----


def fit(model, batches, lr: float, clip: float = 1.0) -> float:
    """Adam with the state carried; the last loss."""
    criterion, optimizer, state, loss = SequenceCrossEntropy(), Adam(model, lr), None, None
    for tokens, labels in batches:
        logits = model.forward(tokens, state)
        state = model.state
        loss = criterion.forward(logits, labels)
        model.backward(criterion.backward())
        clip_gradients(model, clip)
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("cell", CELLS)
def test_overfits_a_batch(cell):
    model = LanguageModel(10, 8, 32, 1, cell, 0.0)
    tokens, labels = torch.randint(10, (8, 4)), torch.randint(10, (8, 4))
    criterion, optimizer = SequenceCrossEntropy(), Adam(model, 0.02)
    for _ in range(120):
        loss = criterion.forward(model.forward(tokens), labels)
        model.backward(criterion.backward())
        optimizer.step()
    assert loss < 0.15  # from ln 10


@pytest.mark.smoke
def test_lstm_learns_to_count(monkeypatch):
    """anbn, all but the luck of how many a come."""
    train_split = strings.make("anbn", "train")
    model = LanguageModel(3, 8, 24, 1, "lstm", 0.0)
    fit(model, train_split.batches(16, 32), lr=0.02)
    monkeypatch.setitem(strings.SIZES_SEEDS, "validation", (3_000, 2))
    loss = train.evaluate(model, strings.make("anbn", "validation"))["loss"]
    assert loss < strings.best_loss("anbn") + 0.05


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_gates_learn_to_echo(cell, monkeypatch):
    train_split = strings.make("echo", "train", delay=4)
    model = LanguageModel(9, 8, 32, 1, cell, 0.0)
    fit(model, train_split.batches(16, 14), lr=0.02)
    monkeypatch.setitem(strings.SIZES_SEEDS, "validation", (2_000, 2))
    validation = strings.make("echo", "validation", delay=4)
    assert echo.echo_accuracy(model.eval(), validation) > 0.97
    assert train.evaluate(model, validation)["loss"] < strings.best_loss("echo", 4) + 0.05


def test_gradient_over_distance_is_that_of_autograd():
    model, native = LanguageModel(5, 3, 4, 1, "gru", 0.0), Native(5, 3, 4, 1, "gru", 0.0)
    native.load_state_dict(model.state_dict())
    tokens, labels = torch.randint(5, (6, 3)), torch.randint(5, (6, 3))
    x = native.embedding(tokens).detach().requires_grad_()
    logits = native.linear(native.recurrent(x)[0])[-1]
    nn.functional.cross_entropy(logits, labels[-1]).backward()
    norms = x.grad.norm(dim=2).mean(1).flip(0)
    found = gradient_over_distance(model.eval(), tokens, labels)
    torch.testing.assert_close(found, norms / norms[0])


@pytest.mark.pictures
def test_echo_study_draws_its_picture(tmp_path, capsys):
    argv = ["--delays", 2, 3, "--steps", 3, "--hidden-size", 4, "--output", tmp_path / "echo.png"]
    result = call(capsys, echo.main, *argv)
    assert (result.code, result.err) == (0, "") and result.out.count("echoes right") == 6
    assert (tmp_path / "echo.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("delay", [0, 3_527, 70_000])
def test_echo_study_refuses_a_delay_that_its_strings_cannot_hold(delay, capsys, monkeypatch):
    """Before the first training: sixteen windows of 2 (delay + 3) characters, of 120,000."""
    monkeypatch.setattr(echo, "fit", None)
    result = call(capsys, echo.main, "--delays", 5, delay)
    assert_one_line(result, "--delays", "below 3,527" if delay else "at least 1")
    train_split = strings.make("echo", "train", delay=3_526)
    assert train_split.num_batches(echo.STREAMS, 2 * (3_526 + 3)) == 1
    with user_error("--window"):
        train_split.num_batches(echo.STREAMS, 2 * (3_527 + 3))


def test_echo_study_refuses_a_name_that_no_picture_can_have(tmp_path, capsys, monkeypatch):
    """Before the first training, not after all of them. Folders that lack are made."""
    monkeypatch.setattr(echo, "fit", None)
    names = no_pictures(tmp_path / "place")
    names.pop(str(tmp_path / "place" / "none" / "x.png"))
    names[str(tmp_path / "place" / "file" / "x.png")] = "file"
    for name, said in names.items():
        result = call(capsys, echo.main, "--delays", 2, "--output", name)
        assert_one_line(result, said)
        assert result.out == ""


# ---- evaluation, runs, resuming ----


@pytest.mark.parametrize("cell", CELLS)
def test_evaluation_is_that_of_one_character_at_a_time(cell):
    model = LanguageModel(3, 4, 6, 2, cell, 0.5).to(dtype=torch.float64)
    split = strings.make("anbn", "validation")
    found = train.evaluate(model, split, streams=1, window=100)["loss"]
    state, nats = None, 0.0
    for token, label in zip(split.inputs, split.labels, strict=True):
        logits = model.forward(token.view(1, 1), state)[0, 0]
        state = model.state
        nats += (logits.logsumexp(0) - logits[label]).item()
    assert found == pytest.approx(nats / len(split), rel=1e-10)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on anbn."""
    path = tmp_path_factory.mktemp("rnn") / "run"
    argv = [*small("RNN"), "--epochs", "2", "--num-layers", "2", "--run-dir", str(path)]
    with pytest.MonkeyPatch.context() as patch:
        short_strings(patch)
        train.main(argv)
    return path


STOPPABLE = ["--epochs", "2", "--dropout", "0.3", "--num-layers", "2", "--optimizer", "adamw"]


@pytest.mark.parametrize("step", [1, 4, 7, 9])  # of an epoch of 7
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_stopped_amid_an_epoch_goes_on_with_the_state_it_carried(cell, step, tmp_path, monkeypatch):
    flags = [*small("RNN"), *STOPPABLE, "--cell", cell]
    train.main([*flags, "--run-dir", str(tmp_path / "whole")])
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash(patch, step)
        train.main([*flags, "--run-dir", str(tmp_path / "run")])
    stopped = checkpoint.load(tmp_path / "run" / "last.safetensors")
    assert stopped["step"] == step and stopped["carried"]["value"] is not None
    train.main(["--resume", "--run-dir", str(tmp_path / "run")])
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")
    samples = [(tmp_path / name / "samples.txt").read_text() for name in ("run", "whole")]
    assert samples[0] == samples[1] and samples[0].count("====") == 4


def test_resuming_without_the_carried_state_would_be_noticed(tmp_path, monkeypatch):
    flags = [*small("RNN"), *STOPPABLE]
    train.main([*flags, "--run-dir", str(tmp_path / "whole")])
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash(patch, 4)
        train.main([*flags, "--run-dir", str(tmp_path / "run")])
    with monkeypatch.context() as patch:
        patch.setattr(CarriedState, "load_state_dict", lambda self, state: None)
        train.main(["--resume", "--run-dir", str(tmp_path / "run")])
    with pytest.raises(AssertionError):
        assert_ended_alike(tmp_path / "run", tmp_path / "whole")


def test_best_epoch_is_the_one_with_the_lowest_loss(finished):
    losses = [float(row["validation_loss"]) for row in history(finished)]
    best = checkpoint.load(finished / "best.safetensors")["epoch"]
    assert best == 1 + losses.index(min(losses))


@pytest.mark.pictures
def test_test_split_gives_nats_perplexity_and_bits(finished, tmp_path, capsys, monkeypatch):
    (tmp_path / "RNN_Manual").mkdir()
    monkeypatch.setattr(evaluation, "FOLDER", tmp_path / "RNN_Manual")
    monkeypatch.setattr(evaluation, "CHARACTERS", 20)
    result = call(capsys, evaluation.main, "--run-dir", finished, "--record")
    assert (result.code, result.err) == (0, ""), result
    drawn = {path.name for path in finished.glob("*.png")}
    assert {"neurons.png", "gates.png", "gradient.png"} <= drawn
    (run,) = json.loads((tmp_path / "RNN_Manual" / "results" / "anbn.json").read_text())["runs"]
    loss = run["test"]["loss"]
    assert run["test"]["perplexity"] == pytest.approx(math.exp(loss))
    assert run["test"]["bits_per_character"] == pytest.approx(loss / math.log(2))
    assert f"loss {loss:.4f}" in result.out and list(run["validation"]) == ["loss"]


@pytest.mark.pictures
def test_refit_learns_the_validation_split_and_keeps_the_last_epoch(
    tmp_path, own_text, capsys, monkeypatch
):
    flags = [*own_text("abcdefgh\n" * 100), "--batch-size", 2, "--window", 8, "--hidden-size", 4]
    flags += ["--epochs", 3, "--lr", 0.5, "--schedule", "constant", "--sample-length", 5]
    place = tmp_path / "run"
    result = call(capsys, train.main, *flags, "--refit", "--run-dir", place)
    assert result.code == 0 and "809 to train on, 0 held out (characters)" in result.out
    assert "3 epochs on the training and validation splits of" in result.out
    assert not any("validation" in key for row in history(place) for key in row)
    assert checkpoint.load(place / "best.safetensors")["epoch"] == 3
    assert (place / "samples.txt").read_text().count("training loss") == 3

    (tmp_path / "RNN_Manual").mkdir()
    monkeypatch.setattr(evaluation, "FOLDER", tmp_path / "RNN_Manual")
    monkeypatch.setattr(evaluation, "draw_neurons", lambda *args: None)
    assert call(capsys, evaluation.main, "--run-dir", place, "--record").code == 0
    (path,) = (tmp_path / "RNN_Manual" / "results").glob("*.json")
    record = json.loads(path.read_text())
    assert record["data"]["examples"] == {"train": 809, "test": 90}
    assert "--refit" in record["command"] and record["runs"][0]["validation"] == {}
    assert record["runs"][0]["best_epoch"] == 3


@pytest.mark.parametrize(
    "flags, part",
    [(["--patience", 2], "--patience"), (["--dataset", "echo"], "echo")],
)
def test_refit_that_makes_no_sense_is_one_line(flags, part, capsys):
    assert_one_line(call(capsys, train.main, "--refit", *flags), "--refit", part)


@pytest.mark.pictures
def test_pictures_of_a_network_without_gates(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "draw_neurons", lambda *args: None)
    argv = [*small("RNN"), "--epochs", 1, "--cell", "rnn", "--run-dir", tmp_path / "run"]
    train.main(list(map(str, argv)))
    assert call(capsys, evaluation.main, "--run-dir", tmp_path / "run").code == 0
    assert (tmp_path / "run" / "gates.png").is_file()


def test_states_of_a_network_without_gates_are_drawn_layer_by_layer(tmp_path, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr(evaluation, "draw_neurons", lambda *args: None)
    monkeypatch.setattr(evaluation, "draw_gates", lambda path, gates, title: drawn.extend(gates))
    argv = [*small("RNN"), "--epochs", 1, "--cell", "rnn", "--num-layers", 2]
    train.main([*map(str, argv), "--run-dir", str(tmp_path / "run")])
    seen, forward = [], RNN.forward

    def note(layer, *args):
        seen.append(forward(layer, *args))
        return seen[-1]

    monkeypatch.setattr(RNN, "forward", note)
    monkeypatch.setattr(evaluation, "gradient_over_distance", lambda *args: torch.ones(3))
    monkeypatch.setattr(evaluation, "draw_gradients", lambda *args: None)
    assert call(capsys, evaluation.main, "--run-dir", tmp_path / "run").code == 0
    assert [list(layer) for layer in drawn] == [["output h"]] * 2
    outputs = seen[-1][0] if isinstance(seen[-1], tuple) else seen[-1]
    torch.testing.assert_close(drawn[1]["output h"], outputs)
    assert not torch.equal(drawn[0]["output h"], outputs)


def test_run_on_another_text_is_refused(tmp_path, own_text, capsys):
    flags = own_text("abcdefgh\n" * 200)
    run = ["--run-dir", tmp_path / "run"]
    argv = [*flags, *run, "--epochs", 1, "--batch-size", 2, "--window", 8, "--hidden-size", 4]
    assert call(capsys, train.main, *argv).code == 0
    own_text("abcdefgx\n" * 200)
    assert_one_line(call(capsys, evaluation.main, *run), "of another", "abcdefgh")
    resumed = call(capsys, train.main, "--resume", *run, "--epochs", 2)
    assert_one_line(resumed, "a run on other content of input.txt")


def test_a_changed_text_is_not_evaluated(tmp_path, own_text, capsys):
    """Its last tenth may be what the run has learned."""
    flags = own_text("abcdefgh\n" * 200 + "hgfedcba\n" * 20)
    run = ["--run-dir", tmp_path / "run"]
    argv = [*flags, *run, "--epochs", 1, "--batch-size", 2, "--window", 8, "--hidden-size", 4]
    assert call(capsys, train.main, *argv).code == 0
    own_text("hgfedcba\n" * 20 + "abcdefgh\n" * 200)
    refused = call(capsys, evaluation.main, *run)
    assert_one_line(refused, "a run on other content of input.txt", "or train again")


# ---- writing ----


def test_probabilities_of_temperature_top_k_and_top_p():
    p = torch.tensor([0.05, 0.5, 0.15, 0.3])
    logits = p.log() + 3
    torch.testing.assert_close(probabilities(logits), p)
    squared = p**2 / (p**2).sum()
    torch.testing.assert_close(probabilities(logits, temperature=0.5), squared)
    assert probabilities(logits, temperature=0).tolist() == [0, 1, 0, 0]
    kept = torch.tensor([0, 0.5, 0, 0.3]) / 0.8
    torch.testing.assert_close(probabilities(logits, top_k=2), kept)
    for top_p in (0.6, 0.79):
        torch.testing.assert_close(probabilities(logits, top_p=top_p), kept)
    torch.testing.assert_close(probabilities(logits, top_k=9, top_p=1.0), p)
    both = probabilities(logits, top_k=3, top_p=0.51)  # 0.5 / 0.95 is more
    torch.testing.assert_close(both, torch.tensor([0.0, 1, 0, 0]))


@pytest.mark.parametrize("main", [generate.main, echo.main, compare.main])
def test_help_of_the_other_scripts_reads(main, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    result = call(capsys, main, "--help")
    assert result.code == 0 and result.err == "" and result.out.startswith("usage: ")
    assert max(map(len, result.out.splitlines())) <= 100 and "--device" in result.out


@pytest.mark.parametrize("top_p", [0.0, 1e-9, 0.3])
def test_top_p_keeps_at_least_one_character(top_p):
    for logits in (torch.tensor([1.0, 3.0, 2.0]), torch.zeros(4), torch.tensor([0.0])):
        p = probabilities(logits, top_p=top_p)
        assert p.sum() == pytest.approx(1) and p.argmax() == logits.argmax()


def test_probabilities_of_huge_logits_are_finite():
    logits = torch.tensor([1e4, -1e4, 9.9e3])
    for temperature in (0.01, 1.0, 100.0):
        p = probabilities(logits, temperature)
        assert p.isfinite().all() and p.sum() == pytest.approx(1)


def write(capsys, run_dir, *argv) -> str:
    result = call(capsys, generate.main, "--run-dir", run_dir, "--length", 40, *argv)
    assert (result.code, result.err) == (0, "")
    return result.out


def test_same_seed_writes_the_same_text(finished, capsys):
    first = write(capsys, finished, "--prompt", "aab", "--temperature", 1.5)
    assert first.startswith("aab") and len(first) == 3 + 40 + 1
    assert first == write(capsys, finished, "--prompt", "aab", "--temperature", 1.5)
    assert first != write(capsys, finished, "--prompt", "aab", "--temperature", 1.5, "--seed", 1)
    greedy = write(capsys, finished, "--prompt", "a", "--temperature", 0)
    assert greedy == write(capsys, finished, "--prompt", "a", "--top-p", 0, "--seed", 3)
    assert greedy == write(capsys, finished, "--prompt", "a", "--top-k", 1, "--seed", 4)


def test_writing_with_the_state_is_reading_it_all_again():
    model = LanguageModel(5, 4, 6, 2, "lstm", 0.5).eval()
    vocabulary = Vocabulary(list("abcde"))
    words = "".join(generate.generate(model, vocabulary, "ab", 12, temperature=0))
    for n in range(12):
        logits = model.forward(vocabulary.encode("ab" + words[:n])[:, None])[-1, 0]
        assert vocabulary.characters[logits.argmax()] == words[n]


@pytest.mark.parametrize(
    "flags, parts",
    [
        (["--prompt", "aXbY"], ["'X' 'Y'", "not in the vocabulary"]),
        (["--prompt", ""], ["--prompt", "empty"]),
        (["--temperature", "-1"], ["--temperature"]),
        (["--top-p", "1.5"], ["--top-p"]),
        (["--top-k", "-1"], ["--top-k"]),
    ],
)
def test_bad_wishes_are_one_line(flags, parts, finished, capsys):
    result = call(capsys, generate.main, "--run-dir", finished, *flags)
    assert_one_line(result, *parts)
    assert result.out == ""


def test_samples_of_an_epoch_are_written_once(tmp_path):
    path = tmp_path / "samples.txt"
    for epoch in (1, 2, 3, 2):
        add_sample(path, epoch, "validation loss 1.5000", f"text {epoch}")
    heads = [line for line in path.read_text().splitlines() if line.startswith("==")]
    assert [head.split(",")[0][-1] for head in heads] == ["1", "2"]


def test_what_samples_hold_already_stays_as_it_is(tmp_path):
    path = tmp_path / "samples.txt"
    path.write_bytes(b"caf\xe9\n")  # somebody else's, in another encoding
    for epoch in (1, 2):
        add_sample(path, epoch, "validation loss 1.5000", "a\rb")
    assert path.read_bytes().count(b"a\rb") == 2 and "caf\ufffd" in path.read_text("utf-8")


# ---- beside torch.nn ----


def test_layers_beside_torch_are_equal_and_recorded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    (tmp_path / "RNN_Manual").mkdir()
    argv = ["--steps", 2, "--batch-size", 2, "--window", 3, "--hidden-size", 5, "--record"]
    names = ["RNN", "GRU", "LSTM"]
    result = call(capsys, compare.main, *names, *argv, "--input-size", 4, "--device", "cpu")
    assert (result.code, result.err) == (0, "") and result.out.count("ratio") == 3
    (path,) = (tmp_path / "RNN_Manual/results").iterdir()
    record = json.loads(path.read_text())
    assert path.name == "compare_layers.json" and list(record["layers"]) == names
    flags = "--batch-size 2 --steps 2 --window 3 --input-size 4 --hidden-size 5"
    assert record["command"] == f"python -m common.results.compare RNN GRU LSTM {flags}"
    sizes = {"batch_size": 2, "steps": 2, "window": 3, "input_size": 4, "hidden_size": 5}
    assert {name: record[name] for name in sizes} == sizes
    for layer in record["layers"].values():
        assert layer["largest_difference"] <= 1e-8
        milliseconds = layer["step_milliseconds"]
        assert milliseconds["manual"] > 0 and layer["step_ratio"] > 0
    assert "| LSTM | " in compare_layers.table(path)


def test_layers_that_differ_are_found(monkeypatch):
    step = compare_steps.manual_layer
    wrong = lambda layer, x, grad_output: step(layer, x, 1.1 * grad_output)  # noqa: E731
    monkeypatch.setattr(compare_steps, "manual_layer", wrong)
    device, sizes = torch.device("cpu"), {"input_size": 4, "hidden_size": 5}
    found = compare.differences("GRU", device, (3, 2), steps=1, **sizes)
    assert found["gradient"] > 0.05 and found["loss"] <= 1e-8
