"""Transformer_Torch: the network beside nn.Transformer and plain softmax, the cached decoder beside
reading everything again, search beside brute force, sampling."""

import ast
import functools
import inspect
import itertools
import math
import warnings
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.device import autocast
from tests.conftest import user_error
from Transformer_Torch.model import PAD, LanguageModel, Transformer, sinusoids
from Transformer_Torch.utils import sampling, search
from Transformer_Torch.utils.attention import attention_weights
from Transformer_Torch.utils.cache import CachedDecoder, CachedReader
from Transformer_Torch.utils.parts import attention_kernel
from Transformer_Torch.utils.sampling import generate, probabilities
from Transformer_Torch.utils.search import BEGIN, END, beam_search, greedy_search

SMALL = dict(embed_dim=12, num_heads=3, num_layers=2, feedforward_dim=10, max_length=12)
KINDS = [  # pre- and post-norm, and what else there is to choose
    dict(norm_first=True, activation="relu", positions="sinusoidal"),
    dict(norm_first=False, activation="gelu", positions="learned"),
]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def translator(vocab_size: int = 9, **more) -> Transformer:
    """A small network in double precision and evaluation mode, untrained."""
    model = Transformer(vocab_size, **{**SMALL, **more}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms, too
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def writer(vocab_size: int = 9, **more) -> LanguageModel:
    return LanguageModel(vocab_size, **{**SMALL, **more}).double().eval()


def sentences(N: int, S: int, V: int = 9) -> torch.Tensor:
    """(N, S), of different lengths, the first one S long, the last one a single token."""
    tokens = torch.randint(END + 1, V, (N, S))
    lengths = torch.linspace(S, 1, N).long()
    return tokens.masked_fill(torch.arange(S) >= lengths[:, None], PAD)


# ---- the network ----


@pytest.mark.smoke
def test_parameters_are_those_of_nn_transformer():
    model, native = Transformer(50, **SMALL), nn.Transformer(12, 3, 2, 2, 10, norm_first=True)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    expected = {f"transformer.{name}": v.shape for name, v in native.state_dict().items()}
    assert shapes == {"embedding.weight": (50, 12), **expected}
    model = LanguageModel(50, **SMALL, positions="learned")
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    expected = {f"encoder.{name}": v.shape for name, v in native.encoder.state_dict().items()}
    assert shapes == {"embedding.weight": (50, 12), "positions.weight": (12, 12), **expected}
    assert len(inspect.signature(Transformer).parameters) == 10
    assert Transformer().embedding.weight.shape == (8000, 256)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_nn_transformer_with_plain_masks(kind):
    """Boolean masks, no hints, every padding hidden, no kernel of the inference path."""
    model = translator(**kind)
    sizes = dict(dim_feedforward=10, norm_first=kind["norm_first"], activation=kind["activation"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        native = nn.Transformer(12, 3, 2, 2, dropout=0.0, batch_first=True, **sizes).double()
    native.load_state_dict(model.transformer.state_dict())
    source, target = sentences(4, 6), sentences(4, 5)
    positions = model.positions.weight

    def embed(tokens):
        return model.embedding.weight[tokens] * math.sqrt(12) + positions[: tokens.shape[1]]

    padding = {"src_key_padding_mask": source == PAD, "memory_key_padding_mask": source == PAD,
               "tgt_key_padding_mask": target == PAD}  # fmt: skip
    causal = torch.ones(5, 5).triu(1).bool()
    x = native(embed(source), embed(target), tgt_mask=causal, **padding)
    expected = (x @ model.embedding.weight.T)[target != PAD]
    for grad in (True, False):  # without gradients, encoder layers take PyTorch's inference path
        with torch.set_grad_enabled(grad):
            found = model(source, target)[target != PAD]
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_gradients_reach_every_parameter():
    for model, inputs in (
        (Transformer(9, **SMALL, positions="learned"), (sentences(3, 4), sentences(3, 5))),
        (LanguageModel(9, **SMALL), (torch.randint(9, (3, 12)),)),
    ):
        model(*inputs).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_positions_are_sines_and_cosines():
    table = sinusoids(7, 5).double()
    for t, channel in itertools.product(range(7), range(5)):
        angle = t / 10_000 ** (channel // 2 * 2 / 5)
        expected = math.cos(angle) if channel % 2 else math.sin(angle)
        assert table[t, channel] == pytest.approx(expected, abs=1e-6)


def test_initial_layers_differ_and_inputs_have_variance_one():
    model = LanguageModel(500, 64, 4, 2, 64, positions="learned")
    first, second = (layer.linear1.weight for layer in model.encoder.layers)
    assert not torch.equal(first, second)
    bound = math.sqrt(6 / (64 + 64))
    assert 0.95 * bound < first.abs().max() <= bound
    assert model.embedding.weight.std().item() == pytest.approx(64**-0.5, rel=0.05)
    assert model.positions.weight.std().item() == pytest.approx(0.5**0.5, rel=0.05)
    logits = Transformer(100, **SMALL).eval()(sentences(8, 6), sentences(8, 7))
    loss = F.cross_entropy(logits.flatten(0, 1), torch.randint(100, (56,)))
    assert loss.item() == pytest.approx(math.log(100) + 0.5, abs=0.3)  # logits of variance one


@pytest.mark.smoke
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_no_token_sees_its_future(kind, grad):
    torch.set_grad_enabled(grad)
    try:
        source, target = sentences(3, 5), torch.randint(9, (3, 8))
        translate, write = translator(**kind), writer(**kind)
        for forward in (lambda tokens: translate(source, tokens), write):
            before = forward(target)
            for t in range(1, 8):
                changed = target.clone()
                changed[:, t:] = (changed[:, t:] + 1 + torch.randint(8, (3, 8 - t))) % 9
                after = forward(changed)
                torch.testing.assert_close(after[:, :t], before[:, :t], rtol=1e-12, atol=1e-12)
                assert (after[:, t] != before[:, t]).any(1).all()
    finally:
        torch.set_grad_enabled(True)


@pytest.mark.smoke
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind, grad):
    model = translator(**kind)
    source, target = sentences(4, 6), sentences(4, 7)
    with torch.set_grad_enabled(grad):
        logits = model(F.pad(source, (0, 3)), F.pad(target, (0, 4)))[:, :7]
        torch.testing.assert_close(logits, model(source, target), rtol=1e-12, atol=1e-12)
        for n in range(4):  # each sentence alone, without any
            alone = source[n][source[n] != PAD][None], target[n][target[n] != PAD][None]
            shown = logits[n : n + 1, : alone[1].shape[1]]
            torch.testing.assert_close(model(*alone), shown, rtol=1e-12, atol=1e-12)


def test_a_source_of_padding_alone_gives_numbers():
    model, source = translator(), torch.full((2, 5), PAD)
    source[1, :2] = 4
    logits = model(source, sentences(2, 3))
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert len(beam_search(model, source, 2)) == 2


def test_attention_is_the_fused_one_and_nobody_warns(monkeypatch):
    """Decoders are told that their mask is causal; no other mask is finite or mixed in kind."""
    calls, fused = [], F.scaled_dot_product_attention

    def spy(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, **more):
        calls.append((attn_mask, is_causal))
        return fused(q, k, v, attn_mask, dropout_p, is_causal, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    source, target = sentences(4, 6), sentences(4, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, write = Transformer(9, **SMALL), LanguageModel(9, **SMALL)
        model(source, target).sum().backward()
        write(target).sum().backward()
        assert len(calls) == 2 + 2 * 2 + 2
        causal = [is_causal for _, is_causal in calls]
        assert causal == [False] * 2 + [True, False] * 2 + [True] * 2
        for mask, is_causal in calls:
            assert (mask is None) if is_causal else set(mask.unique().tolist()) == {0, -math.inf}
        with torch.no_grad():
            assert model.eval()(source, target).isfinite().all()
            assert write.eval()(target).isfinite().all()


@pytest.mark.parametrize(
    "network, arguments, part",
    [
        (Transformer, dict(num_heads=5), "width of 12 cannot be split into 5"),
        (LanguageModel, dict(num_heads=5), "width of 12 cannot be split into 5"),
        (Transformer, dict(activation="swish"), "'swish' is none of relu, gelu"),
        (LanguageModel, dict(positions="relative"), "'relative' is none of sinusoidal, learned"),
    ],
)
def test_unusable_arguments_are_named(network, arguments, part):
    with pytest.raises(ValueError, match=part):
        network(9, **{**SMALL, **arguments})


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_too_long_texts_are_refused(positions):
    with pytest.raises(ValueError, match="13 tokens are more than the max_length of 12"):
        writer(positions=positions)(torch.randint(9, (2, 13)))
    with pytest.raises(ValueError, match="13 tokens"):
        translator(positions=positions)(torch.randint(4, 9, (2, 13)), sentences(2, 3))
    reader = CachedReader(writer(positions=positions))
    reader.read(torch.randint(9, (2, 12)))
    with pytest.raises(ValueError, match="13 tokens"):
        reader.read(torch.randint(9, (2, 1)))


@pytest.mark.parametrize("network", [Transformer, LanguageModel])
def test_bfloat16_is_near(network):
    model = network(9, **SMALL)
    model.eval()
    inputs = [sentences(4, 6), sentences(4, 5)][-1 if network is LanguageModel else 0 :]
    expected = model(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(*inputs)
        loss = logits.float().square().mean()
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), expected, rtol=0.05, atol=0.15)
    loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("more", [{}, {"kv_heads": 1, "bias": False}], ids=["original", "modern"])
@pytest.mark.parametrize("precision, fused", [("float32", True), ("bfloat16", False)])
def test_half_the_bits_leave_the_fused_kernel_which_is_slow_on_a_cpu(precision, fused, more):
    model, tokens = LanguageModel(9, **SMALL | {"dropout": 0.0} | more), sentences(4, 6)
    cpu, gradients = torch.device("cpu"), []
    for kernel in (attention_kernel(cpu, precision), nullcontext()):
        model.zero_grad()
        with torch.profiler.profile() as profile, autocast(cpu, precision), kernel:
            model(tokens).float().square().mean().backward()
        names = [event.key for event in profile.key_averages()]
        assert any("flash_attention" in name for name in names) == fused
        gradients.append([p.grad.clone() for p in model.parameters()])
        fused = True  # by itself, PyTorch takes it
    for plain, usual in zip(*gradients, strict=True):
        scale = usual.abs().max().item() + 1e-6
        torch.testing.assert_close(plain, usual, rtol=0.0, atol=0.05 * scale)


def test_compiled_networks_compute_the_same():
    inputs = sentences(4, 6), sentences(4, 5)
    for model, given in ((translator(), inputs), (writer(), inputs[:1])):
        try:  # tracing alone: a compiler takes a minute
            fast = torch.compile(model, backend="eager")
        except RuntimeError:
            pytest.skip("this torch cannot compile on this Python")
        torch.testing.assert_close(fast(*given), model(*given))
        torch.testing.assert_close(fast(*given).sum(), model(*given).sum())


# ---- the weights of the attention ----


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_every_head_are_probabilities_under_the_masks(kind):
    model, source, target = translator(**kind), sentences(4, 6), sentences(4, 5)
    before = model(source, target)
    weights = attention_weights(model, source, target)
    shapes = {"encoder": (4, 3, 6, 6), "decoder": (4, 3, 5, 5), "cross": (4, 3, 5, 6)}
    assert {name: [w.shape for w in layers] for name, layers in weights.items()} == {
        name: [shape] * 2 for name, shape in shapes.items()
    }
    hidden = (source == PAD)[:, None, None]
    for layers in weights.values():
        for w in layers:
            torch.testing.assert_close(w.sum(3), torch.ones_like(w[..., 0]))
    for w in weights["encoder"] + weights["cross"]:
        assert (w.masked_select(hidden.expand_as(w)) == 0).all()
    assert all(w.triu(1).count_nonzero() == 0 for w in weights["decoder"])
    assert torch.equal(model(source, target), before), "the hooks are gone"
    assert torch.backends.mha.get_fastpath_enabled()


def test_weights_are_the_softmax_of_the_scores():
    model, tokens = writer(norm_first=False), torch.randint(9, (2, 6))
    (first, _) = attention_weights(model, tokens)["encoder"]
    x, attention = model.embed(tokens), model.encoder.layers[0].self_attn
    q, k, _ = (x @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=2)
    for head in range(3):
        channels = slice(4 * head, 4 * head + 4)
        scores = q[..., channels] @ k[..., channels].mT / math.sqrt(4)
        scores = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -math.inf)
        torch.testing.assert_close(first[:, head], scores.softmax(2))


# ---- the cache ----


@pytest.mark.smoke
@pytest.mark.parametrize("kind", KINDS)
def test_cached_decoder_gives_the_logits_of_the_plain_one(kind):
    model, source = translator(**kind), sentences(3, 6)
    tokens = torch.randint(9, (3, 2, 12))  # two beams
    decoder = CachedDecoder(model, source)
    for t in range(12):
        found = decoder.step(tokens[:, :, t])
        for beam in range(2):
            expected = model(source, tokens[:, beam, : t + 1])[:, -1]
            torch.testing.assert_close(found[:, beam], expected, rtol=1e-10, atol=1e-10)


def test_selected_beams_go_on_from_their_own_past():
    model, source = translator(), sentences(4, 6)
    decoder, tokens = CachedDecoder(model, source), torch.randint(9, (4, 3, 1))
    going_on = torch.tensor([0, 1, 2, 3])
    for kept in ([0, 1, 2, 3], [1, 3], [0, 1], [1]):
        decoder.step(tokens[:, :, -1])
        beams, kept = torch.randint(3, (len(kept), 3)), torch.tensor(kept)
        decoder.select(kept, beams)
        going_on = going_on[kept]
        new = torch.randint(9, (len(kept), 3, 1))
        tokens = torch.cat([tokens[kept[:, None], beams], new], dim=2)
    found = decoder.step(tokens[:, :, -1])
    expected = model(source[going_on].repeat(3, 1), tokens[0])[:, -1]
    torch.testing.assert_close(found[0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", [1, 5])
def test_cached_reader_gives_the_logits_of_the_plain_one(kind, prompt):
    model, tokens = writer(**kind), torch.randint(9, (3, 12))
    reader = CachedReader(model)
    ends = [0, *range(prompt, 13)]
    for start, end in itertools.pairwise(ends):
        found = reader.read(tokens[:, start:end])
        expected = model(tokens[:, :end])[:, -1]
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


# ---- search ----


@functools.cache
def half_trained(kind: int = 0, V: int = 9) -> Transformer:
    """It has begun to learn to copy what is noisy: it hesitates, and ends where it likes."""
    torch.manual_seed(0)
    model = Transformer(V, **SMALL, **KINDS[kind], dropout=0.0).double()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        source = sentences(24, 6, V)
        noisy = (torch.rand(24, 6) < 0.3) & (source != PAD)
        target = torch.where(noisy, torch.randint(END, V, (24, 6)), source)
        labels = F.pad(target, (0, 1))
        labels[torch.arange(24), (source != PAD).sum(1)] = END
        logits = model(source, F.pad(target, (1, 0), value=BEGIN)).flatten(0, 1)
        loss = F.cross_entropy(logits, labels.flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def log_probs(model, source, begun):
    """log p of the token after each of the beginnings (M, t) of one sentence's translation."""
    logits = model(source[None].expand(len(begun), -1), begun)[:, -1]
    logits[:, [PAD, BEGIN]] = -math.inf
    return logits.log_softmax(1)


def plain_greedy(model, source, limit):
    tokens = [BEGIN]
    while len(tokens) <= limit:
        tokens.append(int(log_probs(model, source, torch.tensor([tokens]))[0].argmax()))
        if tokens[-1] == END:
            break
    return [token for token in tokens[1:] if token != END]


def plain_beam(model, source, B, alpha, limit):
    """One sentence, lists, and everything read again at every step."""
    beams, finished = [(0.0, [BEGIN])], []
    for t in range(1, limit + 1):
        steps = log_probs(model, source, torch.tensor([tokens for _, tokens in beams])).tolist()
        grown = [
            (total + more, tokens + [word])
            for (total, tokens), row in zip(beams, steps, strict=True)
            for word, more in enumerate(row)
            if more > -math.inf
        ]
        grown.sort(key=lambda pair: -pair[0])
        for total, tokens in grown[:B]:
            if tokens[-1] == END or t == limit:
                finished.append((total / ((5 + t) / 6) ** alpha, tokens))
        if len(finished) >= B:
            break
        beams = [pair for pair in grown if pair[1][-1] != END][:B]
    best = max(finished)[1]
    return [token for token in best[1:] if token != END]


@pytest.mark.smoke
@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("most", [3, 12])
def test_beam_of_one_is_greedy_and_greedy_is_the_plain_one(most, kind):
    model, source = half_trained(kind), sentences(12, 6)
    limits = search.length_limits(source, most, model.extra_length).tolist()
    expected = [plain_greedy(model, s, n) for s, n in zip(source, limits, strict=True)]
    assert greedy_search(model, source, most) == expected
    assert beam_search(model, source, 1, max_length=most) == expected
    assert len({len(translation) for translation in expected}) > 2


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("B, alpha, most", [(2, 0.0, 12), (3, 1.0, 5), (5, 3.0, 12)])
def test_beam_search_is_the_plain_one(B, alpha, most, kind):
    model, source = half_trained(kind), sentences(8, 6)
    limits = search.length_limits(source, most, model.extra_length).tolist()
    expected = [plain_beam(model, s, B, alpha, n) for s, n in zip(source, limits, strict=True)]
    assert beam_search(model, source, B, alpha, most) == expected
    assert greedy_search(model, source, most) != expected


@pytest.mark.smoke
@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_a_wide_beam_finds_what_brute_force_finds(alpha):
    V, limit = 6, 4
    model, source = half_trained(V=V), sentences(4, 5, V)
    words = [token for token in range(V) if token not in (PAD, BEGIN, END)]
    possible = [
        [*body, *end]
        for length in range(limit + 1)
        for body in itertools.product(words, repeat=length)
        for end in ([[]] if length == limit else [[END]])
    ]
    lengths = torch.tensor([len(candidate) for candidate in possible])
    padded = torch.tensor([[BEGIN, *row, *[PAD] * (limit - len(row))] for row in possible])
    best = []
    for row in source:
        logits = model(row[None].expand(len(possible), -1), padded[:, :-1])
        logits[..., [PAD, BEGIN]] = -math.inf
        steps = logits.log_softmax(2).gather(2, padded[:, 1:, None])[..., 0]
        totals = steps.masked_fill(torch.arange(limit) >= lengths[:, None], 0).sum(1)
        found = possible[(totals / ((5 + lengths) / 6) ** alpha).argmax()]
        best.append([token for token in found if token != END])
    assert beam_search(model, source, len(possible), alpha, max_length=limit) == best
    assert len(set(map(len, best))) > 1


def test_longer_translations_win_under_a_stronger_penalty():
    model, source = half_trained(), sentences(20, 6)
    short, long = (beam_search(model, source, 6, alpha) for alpha in (0.0, 3.0))
    assert sum(map(len, short)) < sum(map(len, long))
    assert search.penalty(7, 0.6) == pytest.approx(2**0.6)


@pytest.mark.parametrize("B", [1, 4])
def test_sentences_are_searched_together_as_alone(B):
    model, source = half_trained(), sentences(9, 7)
    expected = [beam_search(model, row[row != PAD][None], B)[0] for row in source]
    assert beam_search(model, F.pad(source, (0, 2)), B) == expected
    assert beam_search(model, source.flip(0), B) == expected[::-1]


def test_search_says_that_weights_have_blown_up():
    model = translator()
    with torch.no_grad():
        model.embedding.weight[5] = math.nan
    for search_with in (greedy_search, beam_search):
        with user_error("blown up", "--lr"):
            search_with(model, sentences(2, 4))


# ---- writing ----


def test_sampling_is_that_of_the_hand_written_network_word_for_word():
    from RNN_Manual.utils import sampling as manual

    for name in ("probabilities", "add_sample"):
        ours, theirs = (
            ast.dump(ast.parse(inspect.getsource(getattr(module, name))))
            for module in (sampling, manual)
        )
        assert ours == theirs, name


def test_top_k_and_top_p_against_cases_worked_by_hand():
    p = torch.tensor([0.1, 0.4, 0.2, 0.3])
    for options, expected in (
        (dict(), [0.1, 0.4, 0.2, 0.3]),
        (dict(temperature=0.5), [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        (dict(top_k=2), [0, 4 / 7, 0, 3 / 7]),
        (dict(top_p=0.65), [0, 4 / 7, 0, 3 / 7]),
        (dict(top_k=3, top_p=0.5), [0, 4 / 7, 0, 3 / 7]),  # 0.4 / 0.9 is less than half
        (dict(temperature=0), [0, 1, 0, 0]),
    ):
        torch.testing.assert_close(probabilities(p.log(), **options), torch.tensor(expected) / 1)


def plain_contexts(prompt: list[int], written: list[int], most: int):
    """What the network may look at before each token: it grows to `most`, then half of it goes."""
    seen = prompt[-most:]
    for token in written:
        yield seen
        seen = [*seen, token]
        if len(seen) > most:
            seen = seen[-max(1, most // 2) :]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt, most", [(1, 12), (12, 12), (30, 12), (3, 5), (2, 1)])
def test_writing_with_the_cache_is_reading_it_all_again(prompt, most, kind):
    model = writer(**kind, max_length=most)
    begun = torch.randint(9, (prompt,))
    written = list(generate(model, begun, 30, temperature=0))
    assert len(written) == 30
    for context, token in zip(plain_contexts(begun.tolist(), written, most), written, strict=True):
        assert model(torch.tensor([context]))[0, -1].argmax() == token


def test_tokens_are_drawn_as_often_as_they_are_likely():
    model, begun = writer(4), torch.tensor([1, 2])
    expected = model(begun[None])[0, -1].softmax(0)
    drawn = [next(generate(model, begun, 1, seed=seed)) for seed in range(600)]
    shares = torch.bincount(torch.tensor(drawn), minlength=4) / 600
    torch.testing.assert_close(shares.double(), expected, rtol=0, atol=0.06)


def test_same_seed_writes_the_same():
    model, begun = writer(), torch.tensor([1])
    first = list(generate(model, begun, 20, seed=3))
    assert first == list(generate(model, begun, 20, seed=3))
    assert first != list(generate(model, begun, 20, seed=4))
    assert list(generate(model, begun, 20, top_k=1)) == list(generate(model, begun, 20, top_p=0))


def test_writing_says_that_weights_have_blown_up():
    model = writer()
    with torch.no_grad():
        model.embedding.weight[5] = math.inf
    with user_error("blown up", "--lr"):
        next(generate(model, torch.tensor([1]), 1))


# ---- learning ----


def fit(model, inputs, labels, steps: int, lr: float) -> float:
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr)
    model.train()
    for _ in range(steps):
        loss = criterion(model(*inputs).flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def test_language_model_overfits_a_batch():
    model, tokens = LanguageModel(10, 32, 4, 1, 32, 0.0, max_length=8), torch.randint(10, (6, 9))
    assert fit(model, (tokens[:, :-1],), tokens[:, 1:], steps=100, lr=1e-2) < 0.35  # from ln 10


@pytest.mark.smoke
@pytest.mark.parametrize("norm_first", [True, False])
def test_translator_learns_a_few_sentences_by_heart_and_writes_them(norm_first):
    source, target = torch.randint(4, 12, (8, 5)), torch.randint(4, 12, (8, 6))
    target[:, 0], target[:, -1] = BEGIN, END
    model = Transformer(12, 32, 4, 1, 32, 0.0, norm_first=norm_first, max_length=8)
    assert fit(model, (source, target[:, :-1]), target[:, 1:], steps=80, lr=5e-3) < 0.1
    expected = target[:, 1:-1].tolist()
    assert greedy_search(model.eval(), source) == beam_search(model, source, 3) == expected
