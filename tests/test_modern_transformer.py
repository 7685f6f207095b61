"""Parts of a modern Transformer in both folders (RMSNorm, rotary positions, SwiGLU, shared heads
of keys and values, QK-norm, no biases): against autograd, as twins, with the cache, as flags."""

import json
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from common import checkpoint
from common.results import compare, report
from tests.gradients import assert_close, check_layer, fixed_seed
from tests.running import (
    SAME_DROPOUT,
    TRANSFORMERS,
    Stop,
    assert_ended_alike,
    assert_one_line,
    call,
    crash,
    history,
    script,
)
from Transformer_Manual import model as manual
from Transformer_Manual.utils import modern as by_hand
from Transformer_Manual.utils import sampling
from Transformer_Manual.utils.attention import causal_mask
from Transformer_Manual.utils.blocks import EncoderLayer
from Transformer_Manual.utils.cache import CachedReader
from Transformer_Manual.utils.looks import attention_weights
from Transformer_Torch import model as native
from Transformer_Torch import parts
from Transformer_Torch.utils import attention as native_attention
from Transformer_Torch.utils import modern
from Transformer_Torch.utils import sampling as native_sampling
from Transformer_Torch.utils.cache import CachedReader as NativeReader

SMALL = dict(
    vocab_size=9, embed_dim=12, num_heads=2, num_layers=2, feedforward_dim=5, dropout=0.0,
    max_length=12,
)  # fmt: skip
ALL = dict(positions="rotary", activation="swiglu", norm="rms", kv_heads=1, bias=False)
PARTS = {
    "rms": dict(norm="rms"),
    "rotary": dict(positions="rotary"),
    "swiglu": dict(activation="swiglu"),
    "kv-heads": dict(kv_heads=1),
    "no-bias": dict(bias=False),
    "qk-norm": dict(qk_norm=True),
    "modern": ALL,
    "all, post-norm": {**ALL, "qk_norm": True, "norm_first": False},
    "learned positions": {**ALL, "positions": "learned"},
    "biases": {**ALL, "bias": True, "qk_norm": True, "activation": "relu"},
}
each_part = pytest.mark.parametrize("part", PARTS)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random_doubles(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def shaken(layer):
    """With norms and biases that are neither 1 nor 0."""
    for parameter in layer.parameters().values():
        parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return layer


# ---- layers by hand, against autograd and finite differences ----


@pytest.mark.smoke
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2, 5), (1, 1, 2), (4, 1)])
def test_rms_norm_has_the_right_gradient(shape):
    def reference(x, weight):
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight

    x = random_doubles(*shape)
    check_layer(shaken(by_hand.RMSNorm(shape[-1])), reference, x)
    check_layer(shaken(by_hand.RMSNorm(shape[-1])), modern.RMSNorm(shape[-1]), x)
    if hasattr(nn, "RMSNorm"):  # torch >= 2.4
        check_layer(shaken(by_hand.RMSNorm(shape[-1])), nn.RMSNorm(shape[-1], eps=1e-5), x)


@pytest.mark.parametrize("norm", [by_hand.RMSNorm, modern.RMSNorm])
def test_rms_norm_of_large_and_of_small_tokens(norm):
    forward = norm(64).forward
    x = torch.randn(64)
    torch.testing.assert_close(forward(1e15 * x), forward(1e3 * x))
    assert forward(torch.zeros(64)).eq(0).all()
    assert forward(x.bfloat16()).dtype == torch.float32  # what autocast makes of a product
    assert forward(x + 3).mean() > 0.5, "it takes no mean away"


@pytest.mark.smoke
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 10), (1, 2)])
def test_swiglu_has_the_right_gradient(shape):
    def reference(x):
        u, c = x.chunk(2, dim=-1)
        return F.silu(u) * c

    check_layer(by_hand.SwiGLU(), reference, 3 * random_doubles(*shape))
    check_layer(by_hand.SwiGLU(), modern.SwiGLU(), random_doubles(*shape))
    gate = torch.tensor([[-1e4, 1.0, 1e4, 1.0]])  # it shuts to 0, and opens to u
    assert by_hand.SwiGLU().forward(gate[:, [0, 1]]).item() == 0
    assert by_hand.SwiGLU().forward(gate[:, [2, 3]]).item() == 1e4


def complex_rotation(x: torch.Tensor, start: int = 0) -> torch.Tensor:
    """(N, T, heads, d): each pair of channels as a complex number, times e^(i t ω)."""
    T, d = x.shape[1], x.shape[3]
    omega = 10_000 ** (-torch.arange(0, d, 2) / d)  # as the layers, in single precision
    angles = torch.arange(start, start + T)[:, None, None] * omega
    turned = torch.complex(*x.chunk(2, dim=-1)) * torch.complex(angles.cos(), angles.sin())
    return torch.cat((turned.real, turned.imag), dim=-1)


@pytest.mark.smoke
@pytest.mark.parametrize("shape", [(2, 3, 2, 4), (1, 1, 1, 2), (1, 5, 3, 6)])
def test_rotary_positions_turn_complex_numbers(shape):
    check_layer(by_hand.Rotary(7, shape[3]), complex_rotation, random_doubles(*shape))
    x = random_doubles(*shape)
    for start in (0, 2):
        expected = complex_rotation(x, start)
        assert_close(by_hand.Rotary(7, shape[3]).forward(x, start), expected, 1e-8, "by hand")
        found = modern.Rotary(7, shape[3])(x.transpose(1, 2), start).transpose(1, 2)
        assert_close(found, expected, 1e-8, "native")
    lengths = by_hand.Rotary(7, shape[3]).forward(x).norm(dim=-1)
    torch.testing.assert_close(lengths, x.norm(dim=-1), rtol=1e-6, atol=0)


def test_a_rotary_score_knows_the_distance_alone():
    rotary, q, k = by_hand.Rotary(30, 8), torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(query: int, key: int) -> float:
        return float((rotary.forward(q, query) * rotary.forward(k, key)).sum())

    for distance in range(5):
        scores = [score(n + distance, n) for n in (0, 3, 25)]
        assert scores == pytest.approx([scores[0]] * 3, abs=1e-4)
    assert score(9, 8) != pytest.approx(score(9, 7), abs=1e-3)


@pytest.mark.parametrize(
    "layer, reference",
    [
        (by_hand.LinearWithoutBias(3, 4), nn.Linear(3, 4, bias=False)),
        (by_hand.LayerNormWithoutBias(3), nn.LayerNorm(3, bias=False)),
    ],
)
def test_layers_without_bias_have_the_right_gradient(layer, reference):
    check_layer(shaken(layer), reference, random_doubles(5, 3))


class Causal:
    """A layer that is given the causal mask."""

    def forward(self, x):
        return super().forward(x, causal_mask(x.shape[1], x))


class CausalAttention(Causal, by_hand.GroupedAttention):
    pass


class CausalLayer(Causal, by_hand.ModernLayer):
    pass


def plain_attention(h: int, G: int, qk_norm: bool, rotary: bool, bias: bool):
    """Grouped-query attention with a softmax written out, head by head."""

    def rms(x, weight):
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight

    def reference(x, **w):
        N, T, D = x.shape
        qkv = F.linear(x, w["in_proj.weight"], w.get("in_proj.bias")).view(N, T, h + 2 * G, D // h)
        q, k, v = qkv.split((h, G, G), dim=2)
        if qk_norm:
            q, k = rms(q, w["q_norm.weight"]), rms(k, w["k_norm.weight"])
        if rotary:
            q, k = complex_rotation(q), complex_rotation(k)
        heads = []
        for head in range(h):
            shared = head // (h // G)
            scores = q[:, :, head] @ k[:, :, shared].transpose(1, 2) / math.sqrt(D // h)
            scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf)
            heads.append(scores.softmax(2) @ v[:, :, shared])
        y = torch.cat(heads, dim=2)
        return F.linear(y, w["out_proj.weight"], w.get("out_proj.bias"))

    return reference


@pytest.mark.parametrize(
    "h, G, N, T",
    [(4, 2, 2, 3), (4, 1, 1, 4), (2, 2, 2, 2), (6, 3, 1, 3), (1, 1, 1, 4), (4, 2, 1, 1)],
)
def test_grouped_attention_has_the_right_gradient(h, G, N, T):
    for qk_norm, rotary, bias in [(True, True, True), (False, True, False), (True, False, False)]:
        layer = CausalAttention(4 * h, h, G, 0.0, bias, qk_norm, rotary, 6)
        reference = plain_attention(h, G, qk_norm, rotary, bias)
        check_layer(shaken(layer), reference, random_doubles(N, T, 4 * h))


@pytest.mark.parametrize("dropout", [0.0, 0.3 * SAME_DROPOUT])
@pytest.mark.parametrize("qk_norm, bias", [(True, False), (False, True)])
def test_grouped_attention_is_the_twins(qk_norm, bias, dropout):
    """Which drops the same weights of the attention."""
    arguments = (12, 6, 2, dropout, bias, qk_norm, True, 6)
    layer, twin = CausalAttention(*arguments), modern.GroupedAttention(*arguments)
    check_layer(shaken(layer), twin, random_doubles(2, 4, 12))


@each_part
def test_layer_is_the_twins(part):
    arguments = dict(
        embed_dim=8, num_heads=2, feedforward_dim=3, dropout=0.3 * SAME_DROPOUT,
        activation="gelu", norm_first=True, max_length=5, norm="layer", kv_heads=2, bias=True,
        qk_norm=False,
    )  # fmt: skip
    arguments |= PARTS[part]
    arguments["rotary"] = arguments.pop("positions", None) == "rotary"
    layer, twin = CausalLayer(**arguments), modern.ModernLayer(**arguments)
    check_layer(shaken(layer), twin, random_doubles(2, 3, 8))


def test_of_the_old_parts_it_is_the_old_layer():
    """So what a table adds to a network part by part begins with PyTorch's own layer."""
    old = EncoderLayer(8, 2, 3, 0.0, "gelu", True)
    new = by_hand.ModernLayer(8, 2, 3, 0.0, "gelu", True, False, 9, "layer", 2, True, False)
    shaken(old)
    state = {name.replace("in_proj_", "in_proj."): w for name, w in old.state_dict().items()}
    new.load_state_dict({name: state[name] for name in new.state_dict()})
    x, grad, mask = torch.randn(2, 4, 8), torch.randn(2, 4, 8), causal_mask(4, torch.zeros(1))
    torch.testing.assert_close(new.forward(x, mask), old.forward(x, mask))
    torch.testing.assert_close(new.backward(grad), old.backward(grad))
    twin = modern.ModernLayer(8, 2, 3, 0.0, "gelu", True, False, 9, "layer", 2, True, False)
    torch.testing.assert_close(functional_call(twin, new.state_dict(), x), old.forward(x, mask))


def test_queries_and_keys_of_length_one_bound_the_scores():
    layer = by_hand.GroupedAttention(8, 2, 2, 0.0, False, True, True, 9)
    layer.in_proj.weight.mul_(1e4)
    q, k, _ = layer.project(torch.randn(2, 9, 8))
    assert (q @ k.transpose(1, 2) / 2).abs().max() <= 2 + 1e-4  # √d


# ---- the networks ----


def make_twins(**changed):
    """Both networks in double precision and evaluation mode, with the same shaken weights."""
    arguments = {**SMALL, **changed}
    ours, theirs = manual.LanguageModel(**arguments), native.LanguageModel(**arguments)
    shaken(ours)
    theirs.load_state_dict(ours.state_dict())
    return ours.to(dtype=torch.float64).eval(), theirs.double().eval()


@pytest.mark.smoke
@each_part
def test_twins_have_the_same_names_and_the_same_start(part):
    torch.manual_seed(1)
    ours = manual.LanguageModel(**SMALL, **PARTS[part])
    torch.manual_seed(1)
    theirs = native.LanguageModel(**SMALL, **PARTS[part])
    one, two = ours.state_dict(), theirs.state_dict()
    assert list(one) == list(two)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert ours.parameters().keys() == dict(theirs.named_parameters()).keys()
    first, second = ours.encoder.layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)
    other = manual.LanguageModel(**SMALL, **PARTS[part])
    other.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(other.state_dict())
    assert any("bias" in name for name in one) == PARTS[part].get("bias", True)


@pytest.mark.smoke
@each_part
def test_losses_and_gradients_are_alike_step_by_step(part, monkeypatch):
    make_pair = compare.make_pair
    changed = {**SMALL, "max_length": 128, "dropout": 0.1 * SAME_DROPOUT, **PARTS[part]}
    monkeypatch.setattr(compare, "make_pair", lambda *a, **more: make_pair(*a, **changed))
    found = compare.differences("LanguageModel", torch.device("cpu"), batch_size=3, steps=4)
    assert found["loss"] <= 1e-8 and found["gradient"] <= 1e-8


def test_without_parts_it_is_the_network_as_it_was():
    assert type(native.LanguageModel(**SMALL).encoder) is nn.TransformerEncoder
    assert type(manual.LanguageModel(**SMALL, kv_heads=2).encoder.layers[0]) is EncoderLayer
    for part in PARTS.values():
        assert isinstance(native.LanguageModel(**SMALL, **part).encoder, modern.ModernEncoder)


def test_attention_is_the_fused_one(monkeypatch):
    asked, fused = [], F.scaled_dot_product_attention

    def attend(*args, **more):
        asked.append(more)
        return fused(*args, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    native.LanguageModel(**SMALL, **ALL)(torch.randint(9, (2, 5)))
    assert asked == [{"dropout_p": 0.0, "is_causal": True}] * 2


@each_part
def test_no_token_sees_its_future(part):
    for model in make_twins(**PARTS[part]):
        tokens = torch.randint(9, (1, 8))
        changed = tokens.clone()
        changed[0, 5] = (tokens[0, 5] + 1) % 9
        before, after = model.forward(tokens), model.forward(changed)
        torch.testing.assert_close(before[:, :5], after[:, :5], rtol=1e-12, atol=1e-12)
        assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_rotary_positions_matter_and_shifting_all_of_them_does_not():
    """The network that reads a text later reads it alike."""
    ours, theirs = make_twins(**ALL)
    tokens = torch.randint(9, (1, 6))
    assert not torch.allclose(ours.forward(tokens)[:, -1], ours.forward(tokens.flip(1))[:, -1])
    for model, Reader in ((ours, CachedReader), (theirs, NativeReader)):
        reader = Reader(model)
        reader.length = 4  # learned positions would differ; these do not even look at it
        torch.testing.assert_close(reader.read(tokens), model.forward(tokens)[:, -1])


@each_part
@pytest.mark.parametrize("prompt", [1, 5])
def test_cached_reader_gives_the_logits_of_the_plain_one(prompt, part):
    for model, Reader in zip(make_twins(**PARTS[part]), (CachedReader, NativeReader), strict=True):
        tokens, reader, start = torch.randint(9, (3, 12)), Reader(model), 0
        for end in range(prompt, 13):
            found = reader.read(tokens[:, start:end])
            expected = model.forward(tokens[:, :end])[:, -1]
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
            start = end


@pytest.mark.parametrize("part", ["modern", "all, post-norm", "kv-heads"])
@pytest.mark.parametrize("prompt, most", [(1, 12), (30, 12), (2, 1)])
def test_writing_with_the_cache_is_the_twins_and_reading_all_again(prompt, most, part):
    """Token for token, also on from where max_length is reached."""
    ours, theirs = make_twins(**PARTS[part], max_length=most)
    begun = torch.randint(9, (prompt,))
    for options in (dict(temperature=0), dict(seed=3), dict(temperature=1.3, top_k=4, top_p=0.8)):
        written = list(sampling.go_on(ours, begun, 20, **options))
        assert written == list(native_sampling.generate(theirs, begun, 20, **options))
    seen = begun[-most:].tolist()
    for token in sampling.go_on(ours, begun, 20, temperature=0):
        assert token == ours.forward(torch.tensor([seen]))[0, -1].argmax()
        seen = [*seen, token]
        seen = seen[-max(1, most // 2) :] if len(seen) > most else seen


def test_the_cache_keeps_the_shared_heads_alone():
    ours, theirs = make_twins(**{**ALL, "embed_dim": 16, "num_heads": 4, "kv_heads": 2})
    for model, Reader in ((ours, CachedReader), (theirs, NativeReader)):
        reader = Reader(model)
        reader.read(torch.randint(9, (3, 5)))
        assert reader.pasts[0].keys.numel() == 3 * 2 * 5 * 4  # n · G · T · d
        one, rows = reader.pasts[0].keys.detach().clone(), torch.tensor([2, 2, 0])
        reader.pasts[0].select(rows)
        torch.testing.assert_close(
            reader.pasts[0].keys.reshape(3, -1), one.reshape(3, -1)[rows], rtol=0, atol=0
        )


@each_part
def test_weights_of_every_head_are_the_twins(part):
    ours, theirs = make_twins(**PARTS[part])
    tokens = torch.randint(9, (2, 7))
    found = attention_weights(ours, tokens)["encoder"]
    expected = native_attention.attention_weights(theirs, tokens)["encoder"]
    assert len(found) == len(expected) == 2 and found[0].shape == (2, 2, 7, 7)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(one.sum(3), torch.ones_like(one[..., 0]))


@pytest.mark.parametrize("network", [manual, native])
@pytest.mark.parametrize(
    "arguments, part",
    [
        (dict(kv_heads=3), "share 3 heads"),
        (dict(norm="batch"), "'batch'"),
        (dict(activation="swish", bias=False), "'swish'"),
        (dict(positions="rotary", embed_dim=6), "3 are odd"),
        (dict(embed_dim=13, bias=False), "13"),
    ],
)
def test_unusable_arguments_are_named(network, arguments, part):
    with pytest.raises(ValueError, match=part):
        network.LanguageModel(**{**SMALL, **arguments})


@pytest.mark.parametrize("network", [manual, native])
@pytest.mark.parametrize("arguments", [dict(positions="rotary"), dict(activation="swiglu")])
def test_translation_has_none_of_it(network, arguments):
    with pytest.raises(ValueError):
        network.Transformer(**{**SMALL, **arguments})


@pytest.mark.parametrize("part", ["modern", "all, post-norm"])
def test_half_the_bits_give_nearly_the_same_gradients(part):
    """By hand and by PyTorch; norms and turns keep all bits."""
    ours, theirs = make_twins(**PARTS[part])
    ours.to(dtype=torch.float32), theirs.float()
    tokens, grad = torch.randint(9, (4, 12)), torch.randn(4, 12, 9)
    exact = ours.forward(tokens)
    ours.backward(grad)
    expected = {name: gradient.clone() for name, gradient in ours.gradients().items()}
    with torch.autocast("cpu", torch.bfloat16):
        logits = ours.forward(tokens)
        ours.backward(grad)
    assert_close(logits, exact, 0.1, "logits")
    with torch.autocast("cpu", torch.bfloat16):
        native_logits = theirs(tokens)
    native_logits.backward(grad.to(native_logits))
    for name, parameter in theirs.named_parameters():
        gradient = ours.gradients()[name]
        assert gradient.dtype == torch.float32
        assert_close(gradient, expected[name], 0.2, name)
        assert_close(parameter.grad, expected[name], 0.2, name)


def test_modern_network_overfits_a_batch():
    torch.manual_seed(0)
    model = native.LanguageModel(**{**SMALL, "embed_dim": 32, "feedforward_dim": 64}, **ALL)
    tokens = torch.randint(9, (4, 13))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(120):
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5 < math.log(9)


# ---- runs ----


@pytest.fixture(scope="module")
def own_text(tmp_path_factory):
    """The flags of a run on a small text."""
    place = tmp_path_factory.mktemp("text")
    text = "".join(f"{n} {'abc' * (n % 3)}\n" for n in range(400))
    (place / "input.txt").write_text(text)
    return [
        "--task", "lm", "--dataset", "text", "--data-dir", str(place), "--subset", "900",
        "--batch-size", "4", "--max-length", "16", "--sample-length", "10", "--embed-dim", "16",
        "--num-heads", "4", "--num-layers", "1", "--feedforward-dim", "8", "--epochs", "1",
        "--warmup", "2",
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    monkeypatch.setattr("common.plots.draw_curves", lambda path, history: None)


def train(folder: str, path, *flags) -> float:
    """The validation loss of the last epoch."""
    script(folder).main([*map(str, flags), "--run-dir", str(path)])
    return float(history(path)[-1]["validation_loss"])


FLAGS = [
    "", "--norm rms", "--positions rotary", "--activation swiglu", "--kv-heads 2", "--kv-heads 1",
    "--no-bias", "--qk-norm", "--block modern", "--block modern --qk-norm",
    "--block modern --kv-heads 4",
]  # fmt: skip
SPELT_OUT = "--norm rms --positions rotary --activation swiglu --kv-heads 2 --no-bias"


@pytest.mark.parametrize("folder", TRANSFORMERS)
def test_every_part_has_an_effect_and_modern_is_all_of_them(folder, own_text, tmp_path):
    losses = {
        flags: train(folder, tmp_path / str(number), *own_text, *flags.split())
        for number, flags in enumerate(FLAGS)
    }
    assert len(set(losses.values())) == len(FLAGS)
    together = train(folder, tmp_path / "together", *own_text, *SPELT_OUT.split())
    assert together == losses["--block modern"]
    changed = train(
        folder, tmp_path / "changed", *own_text, "--block", "modern", "--norm", "layer",
        "--positions", "sinusoidal", "--activation", "gelu", "--kv-heads", 2, "--bias",
    )  # fmt: skip
    assert changed == losses["--kv-heads 2"], "a flag of its own does not go before --block"
    config = json.loads((tmp_path / str(FLAGS.index("--block modern")) / "config.json").read_text())
    assert (config["norm"], config["kv_heads"], config["bias"]) == ("rms", 2, False)


@pytest.mark.parametrize("block", ["modern", "modern --qk-norm --no-norm-first"])
def test_scripts_learn_alike(block, own_text, tmp_path):
    flags = [*own_text, "--epochs", 2, "--dropout", 0.1 * SAME_DROPOUT, "--block", *block.split()]
    torch.set_default_dtype(torch.float64)  # so that rounding does not grow over the steps
    try:
        for folder in TRANSFORMERS:
            train(folder, tmp_path / folder, *flags)
    finally:
        torch.set_default_dtype(torch.float32)
    for ours, theirs in zip(*(history(tmp_path / folder) for folder in TRANSFORMERS), strict=True):
        for name in ("train_loss", "validation_loss"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-6)
    texts = [(tmp_path / folder / "samples.txt").read_text() for folder in TRANSFORMERS]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("folder", TRANSFORMERS)
def test_a_modern_run_goes_on_as_never_stopped(folder, own_text, tmp_path, monkeypatch, capsys):
    flags = [*own_text, "--block", "modern", "--dropout", "0.2", "--epochs", "2"]
    train(folder, tmp_path / "whole", *flags)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash(patch, 3)
        train(folder, tmp_path / "run", *flags)
    train(folder, tmp_path / "run", "--resume")
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")
    result = call(
        capsys, script(folder).main, "--resume", "--run-dir", tmp_path / "run", "--block",
        "original",
    )  # fmt: skip
    assert_one_line(result, "--block original", "modern")


@pytest.mark.pictures
@pytest.mark.parametrize("folder", TRANSFORMERS)
def test_a_modern_run_is_evaluated_and_writes(folder, own_text, tmp_path, capsys, monkeypatch):
    path, evaluation = tmp_path / "run", script(folder, "test")
    train(folder, path, *own_text, "--block", "modern")
    monkeypatch.setattr(evaluation, "CHARACTERS", 12)
    result = call(capsys, evaluation.main, "--run-dir", path)
    assert (result.code, result.err) == (0, "") and "bits per character" in result.out
    assert {p.stem for p in path.glob("*.png")} == {"attention", "schedule"}
    main = script(folder, "generate").main
    result = call(capsys, main, "--run-dir", path, "--length", 30, "--prompt", "ab")
    assert (result.code, result.err, len(result.out)) == (0, "", 2 + 30 + 1)


def test_a_checkpoint_of_one_twin_fits_the_other(own_text, tmp_path):
    train("Transformer_Manual", tmp_path / "run", *own_text, "--block", "modern")
    state = checkpoint.load(tmp_path / "run" / "best.safetensors")["model"]
    sizes = (state["embedding.weight"].shape[0], 16, 4, 1, 8)
    native.LanguageModel(*sizes, max_length=16, **{**ALL, "kv_heads": 2}).load_state_dict(state)


@pytest.mark.parametrize("folder", TRANSFORMERS)
@pytest.mark.parametrize(
    "flags, parts",
    [
        ("--kv-heads 3", ["--kv-heads 3", "--num-heads 4"]),
        ("--kv-heads 0", ["--kv-heads"]),
        ("--block modern --num-heads 1", ["--kv-heads 2", "--num-heads 1"]),
        ("--block modern --num-heads 16", ["--positions rotary", "a head has 1"]),
        ("--block old", ["--block", "old"]),
        ("--norm batch", ["--norm", "batch"]),
        ("--num-heads 3", ["--num-heads 3", "width, 16"]),
    ],
)
def test_bad_parts_are_one_line(folder, flags, parts, own_text, tmp_path, capsys):
    result = call(
        capsys, script(folder).main, *own_text, *flags.split(), "--run-dir", tmp_path / "run"
    )
    assert_one_line(result, *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("folder", TRANSFORMERS)
@pytest.mark.parametrize(
    "flags, named",
    [
        ("--block modern", "--block modern"),
        ("--norm rms", "--norm rms"),
        ("--positions rotary", "--positions rotary"),
        ("--activation swiglu", "--activation swiglu"),
        ("--kv-heads 1", "--kv-heads 1"),
        ("--no-bias", "--no-bias"),
        ("--qk-norm", "--qk-norm"),
    ],
)
def test_translation_refuses_the_parts_in_a_line(folder, flags, named, tmp_path, capsys):
    argv = ["--dataset", "reverse", *flags.split(), "--run-dir", tmp_path / "run"]
    result = call(capsys, script(folder).main, *argv)
    assert_one_line(result, f"{named} is for --task lm")
    assert not (tmp_path / "run").exists()


def test_dropped_values_are_the_twins():
    """In training, from one seed (where PyTorch's attention draws as a mask of its own does)."""
    ours, theirs = make_twins(**ALL, dropout=0.3 * SAME_DROPOUT)
    tokens = torch.randint(9, (2, 6))
    with fixed_seed():
        found = ours.train().forward(tokens)
    with fixed_seed():
        expected = theirs.train()(tokens)
    assert_close(found, expected.detach(), 1e-8, "logits")


# ---- the study ----


@pytest.fixture
def study(own_text, tmp_path, monkeypatch):
    """The flags of a study of small networks, and its file; each is timed by a single step."""
    small = {**parts.QUICK, "embed_dim": 16, "batch_size": 4, "max_length": 16, "warmup": 2}
    monkeypatch.setitem(parts.RECIPES, "text", {**parts.RECIPES["text"], **small})
    monkeypatch.setattr(parts, "TIMED", 1)
    path = tmp_path / "study" / "compare_parts.json"
    data = own_text[own_text.index("--dataset") : own_text.index("--subset")]
    return [*data, "--seconds", "0.001", "--seeds", "2", "--output", path], path


def rows(path) -> list[tuple]:
    return [(r["part"], r["seed"]) for r in json.loads(path.read_text())["rows"]]


def test_parts_are_added_one_by_one():
    models = [parts.make_model(part, parts.RECIPES["text"], 9) for part in parts.PARTS]
    assert type(models[0].encoder) is nn.TransformerEncoder
    layers = [model.encoder.layers[0] for model in models]
    rms, rotary, gated, grouped, unbiased, qk_norm = layers[1:]
    assert type(rms.norm1) is modern.RMSNorm and rms.self_attn.rotary is None
    assert rotary.self_attn.rotary is not None and models[2].positions is None
    assert type(rotary.activation) is nn.GELU and type(gated.activation) is modern.SwiGLU
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    assert abs(sizes[3] / sizes[2] - 1) < 0.02, "of SwiGLU's three matrices, each is smaller"
    assert (gated.self_attn.kv_heads, grouped.self_attn.kv_heads) == (4, 2)
    assert grouped.linear1.bias is not None and unbiased.linear1.bias is None
    assert type(qk_norm.self_attn.q_norm) is modern.RMSNorm
    assert type(unbiased.self_attn.q_norm) is nn.Identity


@pytest.mark.parametrize("after", [0, 1, 9])
@pytest.mark.long
def test_a_killed_study_goes_on_and_does_nothing_twice(after, study, monkeypatch, capsys):
    """Killed in the row after `after` of them, whose time is lost, but no other's."""
    argv, path = study
    run, begun = parts.run, []

    def counted(part, seed, *rest):
        begun.append((part, seed))
        if len(begun) == after + 1:
            raise Stop
        return run(part, seed, *rest)

    monkeypatch.setattr(parts, "run", counted)
    with pytest.raises(Stop):
        call(capsys, parts.main, *argv)
    assert rows(path) == begun[:-1]
    before = json.loads(path.read_text())
    result = call(capsys, parts.main, *argv)
    assert (result.code, result.err) == (0, "")
    assert rows(path) == [(part, seed) for seed in range(2) for part in parts.PARTS]
    assert len(begun) == len(rows(path)) + 1 == 15
    now = json.loads(path.read_text())
    assert now["rows"][:after] == before["rows"], "a row was made again"
    assert now["step_seconds"] == before["step_seconds"], "measured again: other numbers of steps"
    for row in now["rows"]:
        assert row["steps"] == max(2, round(0.001 / now["step_seconds"][row["part"]]))
        assert 1 < row["validation"]["loss"] < 5
    call(capsys, parts.main, *argv)
    assert len(begun) == 15 and json.loads(path.read_text()) == now, "it was complete"
    call(capsys, parts.main, *argv, "--seeds", 3)
    assert len(begun) == 22, "one more seed is all that is new"


def test_rows_of_other_flags_are_refused(study, capsys, monkeypatch):
    argv, path = study
    monkeypatch.setattr(parts, "PARTS", {"original": {}})
    call(capsys, parts.main, *argv)
    before = path.read_bytes()
    for flags in (["--lr", 0.1], ["--precision", "float32"], ["--seconds", 0.1]):
        result = call(capsys, parts.main, *argv, *flags)
        assert_one_line(result, path, "other flags", "--output")
        call(capsys, parts.main, *argv, *flags[:1], flags[1], "--output", path.with_name("b.json"))
        loss, other = (
            json.loads(p.read_text())["rows"][0]["validation"]["loss"]
            for p in (path, path.with_name("b.json"))
        )
        path.with_name("b.json").unlink()
        assert loss != other
    assert path.read_bytes() == before
    path.write_text("{")
    assert_one_line(call(capsys, parts.main, *argv), path, "damaged")


@pytest.mark.smoke
@pytest.mark.pictures
@pytest.mark.long
def test_quick_study_shows_every_part(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(parts, "TIMED", 1)
    path = tmp_path / "quick.json"
    result = call(capsys, parts.main, "--quick", "--output", path)
    assert (result.code, result.err) == (0, "")
    assert len(rows(path)) == 2 * len(parts.PARTS)
    assert (tmp_path / "parts.png").stat().st_size > 5_000
    for part in list(parts.PARTS)[1:]:
        assert f"| + {part} |" in result.out
    assert "help-topics" in result.out


def test_the_readmes_table_is_made_of_the_rows(study, tmp_path, capsys, monkeypatch):
    argv, path = study
    call(capsys, parts.main, *argv)
    readme = tmp_path / "Transformer_Torch" / "README.md"
    readme.parent.mkdir()
    readme.write_text("<!-- parts -->\n<!-- /parts -->\n")
    readme.with_name("parts.py").touch()
    table = parts.table
    monkeypatch.setattr(parts, "table", lambda: table(path))
    text = report.fill(readme)
    found = [row["validation"]["loss"] for row in json.loads(path.read_text())["rows"]]
    mean, std = torch.tensor(found[::7]).mean(), torch.tensor(found[::7]).std()
    assert f"| original | {mean:.4f} ± {std:.4f} | 2 |" in text
    assert "| + QK-norm |" in text and "`python Transformer_Torch/parts.py --dataset text" in text
    assert table(tmp_path / "none.json") == "Nothing recorded yet."
