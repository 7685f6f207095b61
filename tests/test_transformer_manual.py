"""Transformer_Manual against PyTorch: attention, layers, networks, losses, schedules, learning."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from common import checkpoint
from common.data import ROOT
from common.metrics import parameter_count
from common.schedules import moving_average
from tests.conftest import user_error
from tests.gradients import assert_close, check_layer, fixed_seed
from tests.running import (
    SAME_DROPOUT,
    Stop,
    assert_ended_alike,
    assert_one_line,
    call,
    crash,
    history,
)
from Transformer_Manual import generate, train
from Transformer_Manual import test as evaluation
from Transformer_Manual.dataset import dates, strings
from Transformer_Manual.dataset.tokenizers import BEGIN, END, PAD
from Transformer_Manual.model import LanguageModel, Transformer
from Transformer_Manual.utils import sampling, search
from Transformer_Manual.utils.attention import (
    Attention,
    CrossAttention,
    MultiheadAttention,
    causal_mask,
    padding_mask,
)
from Transformer_Manual.utils.blocks import DecoderLayer, EncoderLayer
from Transformer_Manual.utils.cache import CachedDecoder, CachedReader
from Transformer_Manual.utils.embedding import LearnedPositions, TiedEmbedding, sinusoids
from Transformer_Manual.utils.evaluation import mean_loss
from Transformer_Manual.utils.layers import Layer, LayerNorm
from Transformer_Manual.utils.looks import attention_weights
from Transformer_Manual.utils.losses import IGNORED, TokenCrossEntropy
from Transformer_Manual.utils.optim import (
    TRANSFORMER_SCHEDULES,
    Adam,
    AdamW,
    MovingAverage,
    clip_gradients,
    inverse_sqrt,
    learning_rate,
)
from Transformer_Torch import model as native_model
from Transformer_Torch.utils import attention as native_attention
from Transformer_Torch.utils import sampling as native_sampling
from Transformer_Torch.utils import search as native_search
from Transformer_Torch.utils.optim import learning_rates

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
@pytest.mark.parametrize("N, T, dropout", [(1, 1, 0.0), (2, 3, 0.3 * SAME_DROPOUT)])
def test_encoder_layer_is_that_of_torch(N, T, dropout, norm_first, activation):
    layer = CausalEncoderLayer(4, 2, 3, dropout, activation, norm_first)
    native = NativeEncoderLayer(
        4, 2, 3, dropout, activation, norm_first=norm_first, batch_first=True
    )
    check_layer(layer, native, random_doubles(N, T, 4))


@pytest.mark.parametrize("norm_first, activation", [(True, "relu"), (False, "gelu")])
@pytest.mark.parametrize("N, T, S, dropout", [(1, 1, 1, 0.0), (2, 2, 3, 0.3 * SAME_DROPOUT)])
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


def gradients_of(native: nn.Module, inputs, labels) -> dict[str, torch.Tensor]:
    """Autograd's, of the smoothed loss."""
    native.zero_grad()
    logits = native(*inputs).flatten(0, 1)
    F.cross_entropy(logits, labels.flatten(), label_smoothing=0.1).backward()
    return {name: parameter.grad.clone() for name, parameter in native.named_parameters()}


BATCHES = [(3, 5, 4, True), (2, 1, 1, False), (1, 4, 3, False), (4, 3, 8, True), (1, 1, 1, False)]


@pytest.mark.smoke
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
@pytest.mark.parametrize("norm_first, activation", STYLES)
@pytest.mark.parametrize("network", NATIVE)
def test_network_has_the_gradients_of_autograd(network, norm_first, activation, positions):
    """With padding, with sentences of one token, and one sentence alone."""
    for dropout in (0.0, 0.2) if SAME_DROPOUT else (0.0,):
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
def test_products_in_half_the_bits_give_nearly_the_same_gradients(network, norm_first):
    """As near as autograd's, whose products autocast makes in half the bits as well."""
    arguments = dict(norm_first=norm_first, activation="gelu", positions="learned")
    model, native = make_pair(network, **arguments)  # GELU: rounding turns no unit on or off
    model.to(dtype=torch.float32)
    inputs, labels = make_batch(network, 16, 6, 5, True)
    exact, criterion = gradients_of(native, inputs, labels), TokenCrossEntropy(0.1)
    native.float()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.forward(*inputs)
        criterion.forward(logits, labels)
        model.backward(criterion.backward())
        theirs = gradients_of(native, inputs, labels)
    assert logits.dtype == torch.float32
    for name, gradient in model.gradients().items():
        assert gradient.dtype == torch.float32
        error, usual = ((g - exact[name]).norm() for g in (gradient, theirs[name]))
        assert 0 < error < 0.02 * exact[name].norm() + 2 * usual, name


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
    assert LearnedPositions(500, 64).weight.std().item() == pytest.approx(0.5**0.5, rel=0.05)


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


@pytest.mark.parametrize(
    "network, record",
    [(Transformer, "multi30k"), (LanguageModel, "tiny-shakespeare")],
)
def test_networks_without_arguments_are_the_twin_s_recorded_ones(network, record):
    path = ROOT / "Transformer_Torch" / "results" / f"{record}.json"
    known, model = json.loads(path.read_text()), network()
    assert parameter_count(model) == known["parameters"]
    tokens = torch.randint(1, 60, (1, 2))
    with torch.inference_mode():
        logits = model.forward(*[tokens] * (1 + (network is Transformer)))
    wide = known["hyperparameters"]["embed_dim"], known["hyperparameters"]["num_layers"]
    kinds = [name for name in model.parameters() if name.endswith("self_attn.in_proj_weight")]
    assert logits.shape[:2] == (1, 2) and model.parameters()[kinds[0]].shape[1] == wide[0]
    assert len(kinds) == wide[1] * (1 + (network is Transformer))


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
        (dict(positions="relative"), ["relative", "sinusoidal"]),
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
    with pytest.raises(RuntimeError, match="call forward again"):
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


def test_average_is_that_of_torch():
    model, native = make_pair(LanguageModel, positions="learned")
    ours, theirs = MovingAverage(model, 0.7), moving_average(native, 0.7)
    assert isinstance(theirs, AveragedModel)
    for _ in range(4):
        for ours_now, theirs_now in zip(
            model.parameters().values(), native.parameters(), strict=True
        ):
            change = torch.randn_like(ours_now)
            ours_now += change
            theirs_now.data += change
        ours.update(model)
        theirs.update_parameters(native)
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys() and expected["n_averaged"] == 4
    for name, value in theirs.module.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[name], value)
    other = MovingAverage(model, 0.7)
    other.load_state_dict(ours.state_dict())
    other.update(model)
    ours.update(model)
    for name, value in ours.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], value) and other.steps == 5


# ---- decoding: beside the network that reads everything again, and beside the twin's ----

KINDS = [
    dict(norm_first=True, activation="relu", positions="sinusoidal"),
    dict(norm_first=False, activation="gelu", positions="learned"),
]


def make_twins(network, **changed):
    """Ours and Transformer_Torch's in evaluation mode, whose biases and norms have moved, too."""
    arguments = {**SMALL, "max_length": 12, **changed}
    model = network(**arguments).to(dtype=torch.float64).eval()
    for parameter in model.parameters().values():
        parameter += 0.1 * torch.randn_like(parameter)
    native = getattr(native_model, network.__name__)(**arguments).double().eval()
    native.load_state_dict(model.state_dict())
    return model, native


def sentences(N: int, S: int) -> torch.Tensor:
    """(N, S), of different lengths, the first one S long, the last one a single token."""
    tokens = torch.randint(END + 1, 9, (N, S))
    lengths = torch.linspace(S, 1, N).long()
    return tokens.masked_fill(torch.arange(S) >= lengths[:, None], PAD)


@pytest.mark.smoke
@pytest.mark.parametrize("kind", KINDS)
def test_cached_decoder_gives_the_logits_of_the_plain_one(kind):
    model, _ = make_twins(Transformer, **kind)
    source, tokens = sentences(3, 6), torch.randint(9, (3, 2, 12))  # two beams
    decoder = CachedDecoder(model, source)
    for t in range(12):
        found = decoder.step(tokens[:, :, t])
        for beam in range(2):
            expected = model.forward(source, tokens[:, beam, : t + 1])[:, -1]
            torch.testing.assert_close(found[:, beam], expected, rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="13 tokens"):
        decoder.step(tokens[:, :, 0])


def test_selected_beams_go_on_from_their_own_past():
    model, _ = make_twins(Transformer)
    source, tokens = sentences(4, 6), torch.randint(9, (4, 3, 1))
    decoder, going_on = CachedDecoder(model, source), torch.arange(4)
    for kept in ([0, 1, 2, 3], [1, 3], [0, 1], [1]):
        decoder.step(tokens[:, :, -1])
        beams, kept = torch.randint(3, (len(kept), 3)), torch.tensor(kept)
        decoder.select(kept, beams)
        going_on = going_on[kept]
        new = torch.randint(9, (len(kept), 3, 1))
        tokens = torch.cat([tokens[kept[:, None], beams], new], dim=2)
    found = decoder.step(tokens[:, :, -1])
    expected = model.forward(source[going_on].repeat(3, 1), tokens[0])[:, -1]
    torch.testing.assert_close(found[0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", [1, 5])
def test_cached_reader_gives_the_logits_of_the_plain_one(kind, prompt):
    model, _ = make_twins(LanguageModel, **kind)
    tokens, reader = torch.randint(9, (3, 12)), CachedReader(model)
    for start, end in itertools.pairwise([0, *range(prompt, 13)]):
        found = reader.read(tokens[:, start:end])
        expected = model.forward(tokens[:, :end])[:, -1]
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def half_train(model) -> None:
    """To copy what is noisy, so that it hesitates, and ends where it likes."""
    criterion, optimizer = TokenCrossEntropy(), Adam(model, 1e-2)
    for _ in range(60):
        source = sentences(24, 6)
        noisy = (torch.rand(24, 6) < 0.3) & (source != PAD)
        words = torch.where(noisy, torch.randint(END, 9, (24, 6)), source)
        labels = F.pad(words.masked_fill(source == PAD, IGNORED), (0, 1), value=IGNORED)
        labels[torch.arange(24), (source != PAD).sum(1)] = END
        criterion.forward(model.forward(source, F.pad(words, (1, 0), value=BEGIN)), labels)
        model.backward(criterion.backward())
        optimizer.step()


@pytest.mark.smoke
@pytest.mark.parametrize("kind", KINDS)
def test_search_finds_what_the_twin_finds(kind):
    """Whose search is tested beside brute force."""
    model, native = make_twins(Transformer, **kind)
    half_train(model)
    native.load_state_dict(model.state_dict())
    source = sentences(9, 6)
    greedy = search.greedy_search(model, source)
    assert greedy == native_search.greedy_search(native, source)
    assert greedy == search.beam_search(model, source, 1) and len(set(map(len, greedy))) > 1
    for B, alpha in ((3, 0.0), (4, 1.0)):
        found = search.beam_search(model, source, B, alpha)
        assert found == native_search.beam_search(native, source, B, alpha)


def test_search_is_the_twins_word_for_word():
    ours, theirs = (Path(module.__file__).read_text("utf-8") for module in (search, native_search))
    theirs = theirs.replace("Transformer_Torch", "Transformer_Manual")
    assert ours == theirs.replace("@torch.no_grad()\n", "")


def test_search_says_that_weights_have_blown_up():
    model, _ = make_twins(Transformer)
    model.embedding.weight[5] = math.nan
    for search_with in (search.greedy_search, search.beam_search):
        with user_error("blown up", "--lr"):
            search_with(model, sentences(2, 4))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt, most", [(1, 12), (12, 12), (30, 12), (2, 1)])
def test_writing_is_the_twins(prompt, most, kind):
    """Also on from where max_length is reached."""
    model, native = make_twins(LanguageModel, **kind, max_length=most)
    begun = torch.randint(9, (prompt,))
    for options in (dict(temperature=0), dict(seed=3), dict(temperature=1.3, top_k=4, top_p=0.8)):
        written = list(sampling.go_on(model, begun, 20, **options))
        assert written == list(native_sampling.generate(native, begun, 20, **options))


def test_weights_of_every_head_are_the_twins():
    model, native = make_twins(Transformer)
    inputs = sentences(3, 5), torch.randint(1, 9, (3, 4))
    expected = native_attention.attention_weights(native, *inputs)
    found = attention_weights(model, *inputs)
    assert {name: len(layers) for name, layers in found.items()} == {
        name: 2 for name in ("encoder", "decoder", "cross")
    }
    for name, layers in found.items():
        for ours, theirs in zip(layers, expected[name], strict=True):
            torch.testing.assert_close(ours, theirs)
    model, native = make_twins(LanguageModel)
    expected = native_attention.attention_weights(native, inputs[1])["encoder"]
    found = attention_weights(model, inputs[1])["encoder"]
    torch.testing.assert_close(found, expected)


# ---- runs ----

TINY = ["--embed-dim", "8", "--num-heads", "2", "--num-layers", "1", "--feedforward-dim", "8",
        "--epochs", "2", "--warmup", "2"]  # fmt: skip
TEXT = "".join(f"{n} {'abc' * (n % 3)}\n" for n in range(400))


@pytest.fixture(scope="module")
def own_text(tmp_path_factory):
    """The flags of a run on a small text."""
    place = tmp_path_factory.mktemp("text")
    (place / "input.txt").write_text(TEXT)
    return [*TINY, "--task", "lm", "--dataset", "text", "--data-dir", str(place), "--subset",
            "900", "--batch-size", "4", "--max-length", "16", "--sample-length", "20"]  # fmt: skip


@pytest.fixture(autouse=True)
def few_pairs(monkeypatch):
    for split, size in (("train", 100), ("validation", 24), ("test", 16)):
        monkeypatch.setitem(dates.SIZES, split, size)
        monkeypatch.setitem(strings.SIZES, split, size)


@pytest.fixture
def no_curves(monkeypatch):
    monkeypatch.setattr("common.plots.draw_curves", lambda path, history: None)


PAIRS = [*TINY, "--dataset", "reverse", "--subset", "48", "--batch-size", "128"]


@pytest.mark.parametrize("task", ["translate", "lm"])
def test_stopped_amid_an_epoch_goes_on_as_never_stopped(
    task, own_text, tmp_path, monkeypatch, no_curves
):
    """With dropout and averaged weights, bit for bit."""
    flags = [*(PAIRS if task == "translate" else own_text), "--dropout", "0.2", "--ema", "0.8"]
    train.main([*flags, "--run-dir", str(tmp_path / "whole")])
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash(patch, 3)
        train.main([*flags, "--run-dir", str(tmp_path / "run")])
    stopped = checkpoint.load(tmp_path / "run" / "last.safetensors")
    assert stopped["step"] == stopped["average"]["n_averaged"] == 3 and stopped["batch"] > 0
    train.main(["--resume", "--run-dir", str(tmp_path / "run")])
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")


@pytest.mark.pictures
def test_translator_is_evaluated_recorded_and_drawn(tmp_path, capsys, monkeypatch, no_curves):
    (tmp_path / "Transformer_Manual").mkdir()
    monkeypatch.setattr(evaluation, "FOLDER", tmp_path / "Transformer_Manual")
    path = tmp_path / "run"
    train.main([*PAIRS, "--ema", "0.5", "--run-dir", str(path)])
    result = call(capsys, evaluation.main, "--run-dir", path, "--record", "--beam", 2)
    assert (result.code, result.err) == (0, "") and "16 sentences" in result.out
    drawn = {picture.stem for picture in path.glob("*.png")}
    kinds = {f"attention_{kind}" for kind in ("encoder", "decoder", "cross")}
    assert kinds | {"positions", "schedule"} <= drawn
    record = json.loads((tmp_path / "Transformer_Manual" / "results" / "reverse.json").read_text())
    (run,) = record["runs"]
    assert run["test"].keys() == {"loss", "perplexity", "exact_match", "translation_seconds"}
    assert run["test"]["translation_seconds"] > 0
    assert record["model"] == "Transformer" and "signatures" not in record
    monkeypatch.setattr(evaluation, "ONE_ANSWER", ())  # as of sentences, with many right answers
    call(capsys, evaluation.main, "--run-dir", path, "--record", "--beam", 2, "--config", "many")
    record = json.loads((tmp_path / "Transformer_Manual" / "results" / "many.json").read_text())
    assert {"loss", "bleu", "chrf", "exact_match"} <= record["runs"][0]["test"].keys()
    assert "beam 2" in record["signatures"]["bleu"]
    assert (path / "translations.txt").read_text().count("  became  ") == 16

    # the average of the weights is kept beside them
    state = checkpoint.load(path / "best.safetensors")
    weights = {n.removeprefix("module."): w for n, w in state["average"].items() if n[0] == "m"}
    assert not torch.equal(weights["embedding.weight"], state["model"]["embedding.weight"])
    result = call(capsys, generate.main, "--run-dir", path)
    assert_one_line(result, "train.py --task lm")


@pytest.mark.pictures
def test_writer_is_evaluated_and_writes(own_text, tmp_path, capsys, monkeypatch, no_curves):
    path = tmp_path / "run"
    train.main([*own_text, "--run-dir", str(path)])
    assert (path / "samples.txt").read_text().count("====") == 4
    monkeypatch.setattr(evaluation, "CHARACTERS", 12)
    result = call(capsys, evaluation.main, "--run-dir", path)
    assert (result.code, result.err) == (0, "") and "bits per character" in result.out
    assert {"attention", "positions", "schedule"} <= {p.stem for p in path.glob("*.png")}

    def write(*argv) -> str:
        result = call(capsys, generate.main, "--run-dir", path, "--length", 30, *argv)
        assert (result.code, result.err) == (0, "")
        return result.out

    assert write("--prompt", "ab").startswith("ab") and len(write("--prompt", "ab")) == 2 + 30 + 1
    assert write("--seed", 1) == write("--seed", 1) != write("--seed", 2)
    for flags, part in ((["--prompt", "aXb"], "'X'"), (["--top-p", 2], "--top-p")):
        result = call(capsys, generate.main, "--run-dir", path, *flags)
        assert_one_line(result, part)


def test_mean_loss_counts_every_label_once(own_text):
    args = train.cli.parse_training(train.make_parser(), train.RECIPES, None, own_text)
    _, validation = train.load_training(args)
    model = train.build_model(args, validation.tokenizer).to(dtype=torch.float64).eval()
    criterion, nats, n = TokenCrossEntropy(), 0.0, 0
    for inputs, labels in validation.in_order(1):
        counted = int((labels != IGNORED).sum())
        nats += criterion.forward(model.forward(*inputs), labels).item() * counted
        n += counted
    assert n == len(validation) and mean_loss(model, validation) == pytest.approx(nats / n)


@pytest.mark.parametrize(
    "flags, parts",
    [
        (["--num-heads", "3"], ["--num-heads 3", "width, 8"]),
        (["--max-length", "2"], ["--max-length 2"]),
        (["--batch-size", "3"], ["--batch-size 3"]),
        (["--task", "lm"], ["--task lm", "reverse"]),
        (["--ema", "1"], ["--ema"]),
        (["--test-tgt", "b.txt"], ["--test-tgt", "--dataset reverse"]),
        (["--precision", "float16"], ["--precision"]),
    ],
)
def test_bad_flags_are_one_line(flags, parts, tmp_path, capsys):
    result = call(capsys, train.main, *PAIRS, *flags, "--run-dir", tmp_path / "run")
    assert_one_line(result, *parts)
    assert not (tmp_path / "run").exists()


def test_dates_are_learned_better_and_better(tmp_path, monkeypatch, no_curves):
    monkeypatch.setitem(dates.SIZES, "train", 600)
    flags = "--dataset dates --embed-dim 16 --feedforward-dim 32 --num-layers 1 --batch-size 512 "
    flags += "--epochs 2 --warmup 5 --lr 0.01 --run-dir"
    train.main([*flags.split(), str(tmp_path / "run")])
    first, last = history(tmp_path / "run")
    assert float(last["validation_loss"]) < float(first["validation_loss"]) < math.log(60)
