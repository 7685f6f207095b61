"""Transformer_Manual against PyTorch: attention, layers, networks, losses, schedules, learning."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from common.schedules import learning_rates
from tests.gradients import assert_close, check_layer, fixed_seed
from Transformer_Manual.model import LanguageModel, Transformer
from Transformer_Manual.utils.attention import (
    Attention,
    CrossAttention,
    MultiheadAttention,
    causal_mask,
    padding_mask,
)
from Transformer_Manual.utils.blocks import DecoderLayer, EncoderLayer
from Transformer_Manual.utils.embedding import LearnedPositions, TiedEmbedding, sinusoids
from Transformer_Manual.utils.layers import Layer, LayerNorm
from Transformer_Manual.utils.losses import IGNORED, TokenCrossEntropy
from Transformer_Manual.utils.optim import (
    TRANSFORMER_SCHEDULES,
    Adam,
    AdamW,
    clip_gradients,
    inverse_sqrt,
    learning_rate,
)

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor")  # nn.Transformer's own
STYLES = list(itertools.product([True, False], ["relu", "gelu"]))  # norm_first, activation


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random_doubles(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


# ---- LayerNorm ----


@pytest.mark.smoke
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 5), (1, 1, 2), (4, 1)])
def test_layer_norm_has_the_right_gradient(shape):
    layer = LayerNorm(shape[-1])
    layer.weight.normal_()
    layer.bias.normal_()
    check_layer(layer, nn.LayerNorm(shape[-1]), random_doubles(*shape))


def test_layer_norm_of_large_and_of_equal_values():
    layer, native = LayerNorm(64), nn.LayerNorm(64)
    x = torch.randn(5, 64) + 1e3
    torch.testing.assert_close(layer.forward(x), native(x).detach(), rtol=1e-4, atol=1e-4)
    assert layer.forward(torch.full((2, 64), 7.0)).abs().max() == 0
    assert layer.backward(torch.randn(2, 64)).isfinite().all()


# ---- attention ----


class Asked(Layer):
    """A layer of x and of what it asks, as a function of x and of parameters."""

    def __init__(self, layer: Layer, mask=None, **asked: torch.Tensor):
        self.layer, self.mask = layer, mask
        self.parameter_names = tuple(asked)
        for name, tensor in asked.items():
            setattr(self, name, tensor)

    def forward(self, x):
        mask = self.mask if isinstance(self.mask, tuple) else (self.mask,)
        return self.layer.forward(x, *(getattr(self, name) for name in self.parameter_names), *mask)

    def backward(self, grad):
        grad_x, *grads = self.layer.backward(grad)
        for name, gradient in zip(self.parameter_names, grads, strict=True):
            setattr(self, f"grad_{name}", gradient)
        return grad_x


def masks(B: int, T: int, S: int) -> dict:
    one = torch.zeros(1, dtype=torch.float64)
    padding = torch.arange(S) >= torch.randint(1, S + 1, (B, 1))
    found = {"none": None, "padding": padding_mask(padding, 1, one)}
    return {**found, "causal": causal_mask(T, one)} if T == S else found


SHAPES = [(2, 3, 4, 5), (3, 4, 4, 2), (1, 1, 1, 1), (2, 1, 3, 3), (4, 5, 5, 1)]  # B, T, S, d


@pytest.mark.smoke
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("B, T, S, d", SHAPES)
def test_attention_has_the_right_gradient(B, T, S, d, dropout):
    """Of queries, keys and values, with every mask."""
    for mask in masks(B, T, S).values():
        asked = dict(k=random_doubles(B, S, d), v=random_doubles(B, S, d))

        def reference(x, k, v, mask=mask):
            return F.scaled_dot_product_attention(x, k, v, attn_mask=mask, dropout_p=dropout)

        check_layer(Asked(Attention(dropout), mask, **asked), reference, random_doubles(B, T, d))


def test_weights_sum_to_one_and_are_zero_where_masked():
    attention, mask = Attention(), masks(6, 7, 7)
    for name in ("padding", "causal"):
        attention.forward(*(random_doubles(6, 7, 3) for _ in range(3)), mask[name])
        weights, hidden = attention.weights, mask[name].expand(6, 7, 7) < 0
        torch.testing.assert_close(weights.sum(2), torch.ones(6, 7, dtype=torch.float64))
        assert hidden.any() and (weights[hidden] == 0).all() and (weights[~hidden] > 0).all()


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_huge_scores_stay_finite(size):
    attention, mask = Attention(), causal_mask(4, torch.zeros(1))
    q, k, v = (torch.randn(2, 4, 3) * size for _ in range(3))
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(attention.forward(q, k, v, mask), expected, rtol=1e-3, atol=1e-3)
    assert all(grad.isfinite().all() for grad in attention.backward(torch.ones(2, 4, 3)))


def test_example_of_padding_alone_sees_its_first_place():
    padding = torch.tensor([[True, True, True], [False, False, True]])
    mask = padding_mask(padding, 2, torch.zeros(1))
    hidden = [[0, -math.inf, -math.inf], [0, 0, -math.inf]]
    assert mask.tolist() == [[row] for row in hidden for _ in range(2)]
    assert padding.tolist()[0] == [True] * 3, "the argument was changed"


class NativeSelf(nn.MultiheadAttention):
    def __init__(self, *args, mask=None):
        super().__init__(*args, batch_first=True)
        self.mask = mask

    def forward(self, x):
        return super().forward(x, x, x, need_weights=False, attn_mask=self.mask)[0]


class ManualSelf(MultiheadAttention):
    def __init__(self, *args, mask=None):
        super().__init__(*args)
        self.mask = mask

    def forward(self, x):
        return super().forward(x, self.mask)


@pytest.mark.smoke
@pytest.mark.parametrize("N, T, D, h", [(2, 3, 4, 2), (1, 1, 2, 1), (1, 5, 3, 3)])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_self_attention_is_that_of_torch(N, T, D, h, dropout):
    for mask in masks(N * h, T, T).values():
        native_mask = mask if mask is None else mask.expand(N * h, T, T)
        layer = ManualSelf(D, h, dropout, mask=mask)
        layer.in_proj_bias.normal_()
        native = NativeSelf(D, h, dropout, mask=native_mask)
        check_layer(layer, native, random_doubles(N, T, D))


def test_attention_starts_as_that_of_torch():
    torch.manual_seed(4)
    ours = MultiheadAttention(6, 2).state_dict()
    torch.manual_seed(4)
    theirs = nn.MultiheadAttention(6, 2).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("N, T, S, D, h", [(2, 3, 4, 4, 2), (1, 1, 1, 2, 1), (2, 1, 5, 6, 3)])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_cross_attention_is_that_of_torch(N, T, S, D, h, dropout):
    padding = torch.arange(S) >= torch.randint(1, S + 1, (N, 1))
    native = nn.MultiheadAttention(D, h, dropout, batch_first=True).double()

    def reference(x, memory, **weights):
        weights = {name.removeprefix("layer."): weight for name, weight in weights.items()}
        arguments = dict(need_weights=False, key_padding_mask=padding)
        return functional_call(native, weights, (x, memory, memory), arguments)[0]

    mask = padding_mask(padding, h, torch.zeros(1, dtype=torch.float64))
    layer = CrossAttention(D, h, dropout)
    layer.in_proj_bias.normal_()
    asked = Asked(layer, mask, memory=random_doubles(N, S, D))
    check_layer(asked, reference, random_doubles(N, T, D))


def test_weights_of_the_heads_are_those_of_torch():
    layer, native = CrossAttention(6, 3), nn.MultiheadAttention(6, 3, batch_first=True)
    native.load_state_dict(layer.state_dict())
    x, memory = torch.randn(2, 3, 6), torch.randn(2, 4, 6)
    layer.forward(x, memory)
    _, expected = native(x, memory, memory, average_attn_weights=False)
    assert layer.weights.shape == (2, 3, 3, 4)
    torch.testing.assert_close(layer.weights, expected.detach())


# ---- embedding and positions ----


def test_sinusoids_are_the_papers():
    table = sinusoids(50, 6)
    assert table.shape == (50, 6) and sinusoids(3, 5).shape == (3, 5)
    for t, i in itertools.product((0, 1, 7, 49), range(3)):
        angle = t / 10_000 ** (2 * i / 6)
        assert table[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_a_step_turns_each_pair_of_sinusoids_by_the_same_angle():
    pairs = sinusoids(60, 8).view(60, 4, 2)
    cos = (pairs[:-7] * pairs[7:]).sum(2)
    torch.testing.assert_close(cos, cos[:1].expand_as(cos), rtol=0, atol=1e-4)


def test_tied_embedding_adds_up_the_gradients_of_its_three_uses():
    layer = TiedEmbedding(5, 3).to(dtype=torch.float64)
    weight = layer.weight.clone().requires_grad_()
    source, target = torch.randint(3, (2, 4)), torch.randint(1, 4, (2, 3))
    x, grads = random_doubles(2, 3, 3).requires_grad_(), [random_doubles(2, n, 3) for n in (4, 3)]
    grad_logits = random_doubles(2, 3, 5)
    outputs = [weight[source] * 3**0.5, weight[target] * 3**0.5, x @ weight.T]
    torch.autograd.backward(outputs, [*grads, grad_logits])

    for tokens, output in zip((source, target), outputs, strict=False):
        torch.testing.assert_close(layer.lookup(tokens), output.detach())
    torch.testing.assert_close(layer.logits(x.detach()), outputs[2].detach())
    for _ in range(2):  # a second backward starts anew
        assert_close(layer.logits_backward(grad_logits), x.grad, 1e-8, "x")
        layer.lookup_backward(source, grads[0])
        layer.lookup_backward(target, grads[1])
        assert_close(layer.grad_weight, weight.grad, 1e-8, "weight")


def test_learned_positions_add_up_over_batch_and_uses():
    layer = LearnedPositions(6, 2).to(dtype=torch.float64)
    weight = layer.weight.clone().requires_grad_()
    grads = random_doubles(3, 4, 2), random_doubles(3, 5, 2)
    torch.autograd.backward([weight[:4].expand(3, 4, 2), weight[:5].expand(3, 5, 2)], grads)
    for _ in range(2):
        layer.backward(*grads)
        assert_close(layer.grad_weight, weight.grad, 1e-8, "positions")


# ---- encoder and decoder layers ----


class NativeEncoderLayer(nn.TransformerEncoderLayer):
    def forward(self, x):
        return super().forward(x, src_mask=causal_mask(x.shape[1], x)[0], is_causal=True)


class CausalEncoderLayer(EncoderLayer):
    def forward(self, x):
        return super().forward(x, causal_mask(x.shape[1], x))


@pytest.mark.smoke
@pytest.mark.parametrize("norm_first, activation", [(True, "gelu"), (False, "relu")])
@pytest.mark.parametrize("N, T, dropout", [(1, 1, 0.0), (2, 3, 0.3)])
def test_encoder_layer_is_that_of_torch(N, T, dropout, norm_first, activation):
    layer = CausalEncoderLayer(4, 2, 3, dropout, activation, norm_first)
    native = NativeEncoderLayer(
        4, 2, 3, dropout, activation, norm_first=norm_first, batch_first=True
    )
    check_layer(layer, native, random_doubles(N, T, 4))


@pytest.mark.parametrize("norm_first, activation", [(True, "relu"), (False, "gelu")])
@pytest.mark.parametrize("N, T, S, dropout", [(1, 1, 1, 0.0), (2, 2, 3, 0.3)])
def test_decoder_layer_is_that_of_torch(N, T, S, dropout, norm_first, activation):
    layer = DecoderLayer(4, 2, 3, dropout, activation, norm_first)
    native = nn.TransformerDecoderLayer(
        4, 2, 3, dropout, activation, norm_first=norm_first, batch_first=True
    ).double()
    one = torch.zeros(1, dtype=torch.float64)
    causal, padding = causal_mask(T, one), torch.arange(S) >= torch.randint(1, S + 1, (N, 1))

    def reference(x, memory, **weights):
        weights = {name.removeprefix("layer."): weight for name, weight in weights.items()}
        arguments = dict(tgt_mask=causal[0], memory_key_padding_mask=padding)
        return functional_call(native, weights, (x, memory), arguments)

    masks = (causal, padding_mask(padding, 2, one))
    asked = Asked(layer, masks, memory=random_doubles(N, S, 4))
    check_layer(asked, reference, random_doubles(N, T, 4))


# ---- the networks ----


class Native(nn.Module):
    """What both networks share, in PyTorch."""

    def __init__(self, vocab_size, embed_dim, positions, max_length, dropout):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        if positions == "learned":
            self.positions = nn.Embedding(max_length, embed_dim)
        self.table = None if positions == "learned" else sinusoids(max_length, embed_dim)
        self.dropout = nn.Dropout(dropout)

    def embed(self, tokens):
        table = self.positions.weight if self.table is None else self.table
        scale = self.embedding.embedding_dim**0.5
        return self.dropout(self.embedding(tokens) * scale + table[: tokens.shape[1]])

    def logits(self, x):
        return x @ self.embedding.weight.T


class NativeTransformer(Native):
    def __init__(self, vocab_size, embed_dim, num_heads, num_layers, feedforward_dim, dropout,
                 activation, norm_first, positions, max_length):  # fmt: skip
        super().__init__(vocab_size, embed_dim, positions, max_length, dropout)
        self.transformer = nn.Transformer(
            embed_dim, num_heads, num_layers, num_layers, feedforward_dim, dropout, activation,
            batch_first=True, norm_first=norm_first,
        )  # fmt: skip

    def forward(self, source, target):
        padding = source == 0
        padding[:, 0] = False
        memory = self.transformer.encoder(self.embed(source), src_key_padding_mask=padding)
        x = self.embed(target)
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        x = self.transformer.decoder(x, memory, tgt_mask=mask, memory_key_padding_mask=padding)
        return self.logits(x)


class NativeLanguageModel(Native):
    def __init__(self, vocab_size, embed_dim, num_heads, num_layers, feedforward_dim, dropout,
                 activation, norm_first, positions, max_length):  # fmt: skip
        super().__init__(vocab_size, embed_dim, positions, max_length, dropout)
        layer = nn.TransformerEncoderLayer(
            embed_dim, num_heads, feedforward_dim, dropout, activation, batch_first=True,
            norm_first=norm_first,
        )  # fmt: skip
        norm = nn.LayerNorm(embed_dim)
        self.encoder = nn.TransformerEncoder(layer, num_layers, norm, enable_nested_tensor=False)

    def forward(self, tokens):
        x = self.embed(tokens)
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        return self.logits(self.encoder(x, mask=mask, is_causal=True))


SMALL = dict(
    vocab_size=9, embed_dim=6, num_heads=3, num_layers=2, feedforward_dim=5, dropout=0.0,
    activation="relu", norm_first=True, positions="sinusoidal", max_length=8,
)  # fmt: skip
NATIVE = {Transformer: NativeTransformer, LanguageModel: NativeLanguageModel}


def make_pair(network, **changed):
    """Ours in float64 and the same in PyTorch."""
    arguments = {**SMALL, **changed}
    model, native = network(**arguments), NATIVE[network](**arguments)
    native.load_state_dict(model.state_dict())
    return model.to(dtype=torch.float64), native.double()


def make_batch(network, N: int, S: int, T: int, padded: bool = True):
    """Inputs and labels of words 2 to 8; 0 is padding. The first sentences are whole."""
    source, target = torch.randint(2, 9, (N, S)), torch.randint(2, 9, (N, T))
    labels = torch.randint(2, 9, (N, T))
    if padded:
        source[torch.arange(S) >= 1 + (S - 1) * torch.arange(N, 0, -1)[:, None] // N] = 0
        ended = torch.arange(T) >= 1 + (T - 1) * torch.arange(N, 0, -1)[:, None] // N
        target[ended], labels[ended] = 0, IGNORED
    return ((source, target) if network is Transformer else (target,)), labels


def assert_twins(model, native, inputs, labels, smoothing=0.1) -> None:
    """Logits, loss and all gradients agree to 1e-8."""
    criterion = TokenCrossEntropy(smoothing)
    with fixed_seed():
        logits = model.forward(*inputs)
    loss = criterion.forward(logits, labels)
    model.backward(criterion.backward())
    with fixed_seed():
        expected = native(*inputs)
    expected_loss = F.cross_entropy(
        expected.flatten(0, 1), labels.flatten(), label_smoothing=smoothing
    )
    native.zero_grad()
    expected_loss.backward()
    assert_close(logits, expected.detach(), 1e-8, "logits")
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-10)
    gradients = model.gradients()
    assert gradients.keys() == dict(native.named_parameters()).keys()
    for name, parameter in native.named_parameters():
        assert_close(gradients[name], parameter.grad, 1e-8, name)


BATCHES = [(3, 5, 4, True), (2, 1, 1, False), (1, 4, 3, False), (4, 3, 8, True), (1, 1, 1, False)]


@pytest.mark.smoke
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
@pytest.mark.parametrize("norm_first, activation", STYLES)
@pytest.mark.parametrize("network", NATIVE)
def test_network_has_the_gradients_of_autograd(network, norm_first, activation, positions):
    """With padding, with sentences of one token, and one sentence alone."""
    for dropout in (0.0, 0.2):
        model, native = make_pair(
            network, norm_first=norm_first, activation=activation, positions=positions,
            dropout=dropout,
        )  # fmt: skip
        for N, S, T, padded in BATCHES:
            assert_twins(model, native, *make_batch(network, N, S, T, padded))
        assert_twins(model.eval(), native.eval(), *make_batch(network, 3, 5, 4))


@pytest.mark.parametrize("network", NATIVE)
def test_sentence_of_padding_alone_is_defined(network):
    model, native = make_pair(network)
    inputs, labels = make_batch(network, 3, 5, 4)
    for tokens in inputs:
        tokens[1] = 0
    labels[1] = IGNORED
    assert_twins(model, native, inputs, labels)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("network", NATIVE)
def test_loss_changes_as_the_gradients_say(network, norm_first):
    """Central differences of the loss along random directions of all parameters at once."""
    model, _ = make_pair(network, norm_first=norm_first, activation="gelu", positions="learned")
    inputs, labels = make_batch(network, 3, 5, 4)
    criterion = TokenCrossEntropy(0.1)
    criterion.forward(model.forward(*inputs), labels)
    model.backward(criterion.backward())
    gradients = {name: gradient.clone() for name, gradient in model.gradients().items()}
    for _ in range(5):
        direction = {name: torch.randn_like(p) for name, p in model.parameters().items()}
        slope = sum((gradients[name] * direction[name]).sum() for name in gradients).item()
        losses = []
        for step in (1e-6, -2e-6):
            for name, parameter in model.parameters().items():
                parameter.add_(direction[name], alpha=step)
            losses.append(criterion.forward(model.forward(*inputs), labels).item())
        for name, parameter in model.parameters().items():
            parameter.add_(direction[name], alpha=1e-6)
        assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("network", NATIVE)
def test_weights_fit_both_ways(network):
    for positions in ("sinusoidal", "learned"):
        arguments = {**SMALL, "positions": positions}
        model, native = network(**arguments), NATIVE[network](**arguments)
        assert list(model.state_dict()) == list(native.state_dict())
        assert list(model.parameters()) == [name for name, _ in native.named_parameters()]
        inputs, _ = make_batch(network, 2, 3, 4)
        model.eval().load_state_dict(native.state_dict())
        torch.testing.assert_close(model.forward(*inputs), native.eval()(*inputs).detach())
        other = network(**arguments).eval()
        native.load_state_dict(other.state_dict())
        torch.testing.assert_close(native(*inputs).detach(), other.forward(*inputs))


def test_stacks_start_as_nn_transformer_does():
    torch.manual_seed(7)
    model = Transformer(9, 6, 3, 2, 5)
    torch.manual_seed(7)
    torch.empty(9, 6).normal_()  # the embedding's
    native = nn.Transformer(6, 3, 2, 2, 5, batch_first=True).state_dict()
    ours = model.state_dict()
    assert [f"transformer.{name}" for name in native] == list(ours)[1:]
    assert all(torch.equal(ours[f"transformer.{name}"], value) for name, value in native.items())
    layers = [model.transformer.encoder.layers[n].linear1.weight for n in range(2)]
    assert not torch.equal(*layers)
    large = TiedEmbedding(2000, 64).weight
    assert large.std().item() == pytest.approx(1 / 8, rel=0.02)
    assert LearnedPositions(500, 64).weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.smoke
@pytest.mark.parametrize("network", NATIVE)
def test_no_position_sees_its_future(network):
    model, _ = make_pair(network, positions="learned")
    inputs, _ = make_batch(network, 3, 5, 7, padded=False)
    *source, target = inputs
    before = model.forward(*inputs)
    for t in range(1, 7):
        changed = target.clone()
        changed[:, t:] = torch.randint(1, 9, changed[:, t:].shape)
        after = model.forward(*source, changed)
        torch.testing.assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-12)
        shorter = model.forward(*source, target[:, :t])
        torch.testing.assert_close(shorter, before[:, :t], rtol=0, atol=1e-12)
    changed = target.clone()
    changed[:, 0] = 1
    assert (model.forward(*source, changed) - before).abs().amax((0, 2)).min() > 1e-6


@pytest.mark.smoke
@pytest.mark.parametrize("norm_first", [True, False])
def test_padding_changes_nothing(norm_first):
    """Neither logits nor gradients, wherever a batch puts it."""
    model, _ = make_pair(Transformer, norm_first=norm_first)
    (source, target), labels = make_batch(Transformer, 2, 3, 4, padded=False)
    criterion, found = TokenCrossEntropy(0.1), []
    for longer in (0, 1, 4):
        inputs = F.pad(source, (0, longer)), F.pad(target, (0, longer))
        logits = model.forward(*inputs)
        criterion.forward(logits, F.pad(labels, (0, longer), value=IGNORED))
        model.backward(criterion.backward())
        found.append({"logits": logits[:, :4], **model.gradients()})
    for name, expected in found[0].items():
        for other in found[1:]:
            torch.testing.assert_close(other[name], expected, rtol=0, atol=1e-12)


def test_source_of_another_sentence_is_not_seen():
    model, _ = make_pair(Transformer)
    (source, target), _ = make_batch(Transformer, 3, 4, 4)
    together = model.forward(source, target)
    for n in range(3):
        alone = model.forward(source[n : n + 1], target[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], alone, rtol=0, atol=1e-12)


def test_networks_without_arguments_are_the_recorded_ones():
    tokens = torch.randint(1, 60, (1, 2))
    with torch.inference_mode():
        assert Transformer().forward(tokens, tokens).shape == (1, 2, 8000)
        assert LanguageModel().forward(tokens).shape == (1, 2, 65)


def test_logits_are_not_written_over_by_the_next_step():
    for network in NATIVE:
        model, _ = make_pair(network)
        inputs, _ = make_batch(network, 2, 3, 4)
        logits = model.forward(*inputs)
        before = logits.clone()
        model.backward(torch.randn_like(logits))
        model.forward(*make_batch(network, 2, 3, 4)[0])
        assert torch.equal(logits, before)


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (dict(embed_dim=10, num_heads=4), ["10", "4 equal heads"]),
        (dict(positions="rotary"), ["rotary", "sinusoidal"]),
        (dict(activation="swish"), ["swish", "gelu"]),
    ],
)
@pytest.mark.parametrize("network", NATIVE)
def test_bad_arguments_are_told(network, arguments, parts):
    with pytest.raises(ValueError) as error:
        network(**{**SMALL, **arguments})
    assert all(part in str(error.value) for part in parts)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
@pytest.mark.parametrize("network", NATIVE)
def test_text_that_is_too_long_is_told(network, positions):
    model = network(**{**SMALL, "positions": positions})
    model.forward(*make_batch(network, 2, 8, 8)[0])
    for S, T in ((8, 9), (9, 8)):
        if network is Transformer or T == 9:
            with pytest.raises(ValueError, match="9 tokens .* max_length of 8"):
                model.forward(*make_batch(network, 2, S, T)[0])


# ---- the loss ----


@pytest.mark.smoke
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("N, T, V", [(3, 4, 5), (1, 1, 2), (2, 3, 1)])
def test_loss_is_that_of_torch(N, T, V, smoothing):
    criterion = TokenCrossEntropy(smoothing)
    for ignored in {0, 1 % (N * T), N * T - 1}:
        logits = (3 * random_doubles(N, T, V)).requires_grad_()
        labels = torch.randint(V, (N * T,))
        labels[torch.randperm(N * T)[:ignored]] = IGNORED
        labels = labels.view(N, T)
        expected = F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing
        )
        (gradient,) = torch.autograd.grad(expected, logits)
        given = logits.detach().clone()
        assert criterion.forward(given, labels).item() == pytest.approx(expected.item(), rel=1e-12)
        found = criterion.backward()
        assert_close(found, gradient, 1e-10, "gradient")
        assert (found[labels == IGNORED] == 0).all() and torch.equal(given, logits.detach())


def test_loss_of_huge_logits_is_finite():
    logits = torch.tensor([[[1e4, -1e4, 0.0], [-1e4, 1e4, 9e3]]])
    criterion = TokenCrossEntropy(0.1)
    expected = F.cross_entropy(logits[0], torch.tensor([0, 2]), label_smoothing=0.1)
    loss = criterion.forward(logits, torch.tensor([[0, 2]]))
    torch.testing.assert_close(loss, expected)
    assert criterion.backward().isfinite().all()


def test_twice_the_same_batch_has_the_same_loss_and_half_the_gradient_of_each_token():
    criterion, logits = TokenCrossEntropy(0.1), random_doubles(2, 3, 4)
    labels = torch.tensor([[1, 2, IGNORED], [0, IGNORED, IGNORED]])
    loss = criterion.forward(logits, labels)
    gradient = criterion.backward().clone()
    twice = criterion.forward(logits.repeat(2, 1, 1), labels.repeat(2, 1))
    torch.testing.assert_close(twice, loss)
    torch.testing.assert_close(criterion.backward(), gradient.repeat(2, 1, 1) / 2)


def test_memory_of_the_loss_is_no_memory_of_the_last_batch():
    kept, labels = TokenCrossEntropy(), torch.randint(5, (4, 6))
    for N, T, dtype in ((4, 6, torch.float32), (2, 3, torch.float32), (3, 6, torch.float64)):
        logits = torch.randn(N, T, 5, dtype=dtype)
        fresh = TokenCrossEntropy()
        losses = [c.forward(logits, labels[:N, :T]) for c in (kept, fresh)]
        assert torch.equal(*losses) and torch.equal(kept.backward(), fresh.backward())
    with torch.inference_mode():
        kept.forward(torch.randn(2, 3, 5), labels[:2, :3])
    kept.forward(torch.randn(2, 3, 5), labels[:2, :3])
    kept.backward()
    with pytest.raises(AttributeError):  # rather than a wrong gradient
        kept.backward()


# ---- learning ----


def paper_schedule(step: int, D: int, warmup: int) -> float:
    return D**-0.5 * min((step + 1) ** -0.5, (step + 1) * warmup**-1.5)


@pytest.mark.parametrize("warmup", [0, 7, 3999])
def test_schedule_is_the_papers_with_lr_as_its_peak(warmup):
    """And, as after every other warm-up, step number `warmup` is the first at lr."""
    lr, D = 3e-3, 512
    schedule = learning_rate("inverse-sqrt", lr, total=10_000, warmup=warmup)
    peak = paper_schedule(warmup, D, warmup + 1)
    for step in (0, 1, 3, 6, 7, 8, 100, 3998, 3999, 4000, 9999):
        expected = lr * paper_schedule(step, D, warmup + 1) / peak
        assert schedule(step) == pytest.approx(expected, rel=1e-12)
    assert max(map(schedule, range(2 * warmup + 2))) == schedule(warmup) == lr


@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize("name", TRANSFORMER_SCHEDULES)
def test_schedules_are_those_of_torch(name, warmup):
    schedule = learning_rate(name, 0.01, 20, warmup)
    expected = learning_rates(name, 0.01, 20, warmup)
    assert list(map(schedule, range(20))) == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("network, optimizer", [(Transformer, Adam), (LanguageModel, AdamW)])
def test_training_is_that_of_torch_step_by_step(network, optimizer):
    """Twenty steps with dropout, clipping and the paper's schedule: the same losses."""
    model, native = make_pair(network, dropout=0.1, positions="learned")
    ours = optimizer(model, lr=0.01, weight_decay=0.01)
    native_optimizer = getattr(torch.optim, optimizer.__name__)
    theirs = native_optimizer(native.parameters(), 0.01, weight_decay=0.01)
    schedule, criterion, clipped = inverse_sqrt(0.01, 4), TokenCrossEntropy(0.1), 0
    for step in range(20):
        inputs, labels = make_batch(network, 3, 5, 4)
        ours.lr = theirs.param_groups[0]["lr"] = schedule(step)
        with fixed_seed():
            loss = criterion.forward(model.forward(*inputs), labels)
        model.backward(criterion.backward())
        clipped += clip_gradients(model, 1.0).item() > 1
        ours.step()
        with fixed_seed():
            logits = native(*inputs)
        expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
        theirs.zero_grad()
        expected.backward()
        nn.utils.clip_grad_norm_(native.parameters(), 1.0)
        theirs.step()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-7), step
    assert clipped > 0


@pytest.mark.smoke
@pytest.mark.parametrize("network", NATIVE)
def test_overfits_a_batch(network):
    """Whatever the labels are: sentences that the network can only know by heart."""
    model = network(**{**SMALL, "embed_dim": 32, "num_heads": 4, "feedforward_dim": 64})
    inputs, labels = make_batch(network, 6, 5, 6)
    inputs[-1][:, 0] = torch.arange(2, 8)  # no two begin alike
    with torch.inference_mode():
        criterion, optimizer = TokenCrossEntropy(), Adam(model, 3e-3)
        first = criterion.forward(model.forward(*inputs), labels).item()
        for _ in range(100):
            loss = criterion.forward(model.forward(*inputs), labels)
            model.backward(criterion.backward())
            optimizer.step()
    assert abs(first - math.log(9)) < 1.5 and loss < 0.05


def test_a_decoder_learns_to_look_at_the_source():
    """Copy a source that the target cannot be known without."""
    model = Transformer(**{**SMALL, "embed_dim": 32, "num_heads": 4, "num_layers": 1,
                           "feedforward_dim": 32})  # fmt: skip
    criterion, optimizer = TokenCrossEntropy(), Adam(model, 5e-3)
    for _ in range(150):
        source = torch.randint(2, 9, (16, 5))
        target = F.pad(source[:, :-1], (1, 0), value=1)
        loss = criterion.forward(model.forward(source, target), source)
        model.backward(criterion.backward())
        optimizer.step()
    assert loss < 0.4  # from ln 7
    weights = model.transformer.decoder.layers[0].multihead_attn.weights  # (N, h, T, S)
    places = weights.mean((0, 1)).argmax(1)
    assert places.tolist() == [0, 1, 2, 3, 4]
