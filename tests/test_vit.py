"""ViT/: attention and networks against PyTorch, torchvision and their equations; rollout, runs."""

import json
import math
from argparse import Namespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from common import checkpoint, data
from common.data import Split
from tests.conftest import user_error
from tests.running import (
    Stop,
    assert_ended_alike,
    assert_one_line,
    call,
    crash,
    history,
    interrupt,
    make_digits,
)
from ViT import model as networks
from ViT import train as script
from ViT.dataset import coloured_shapes
from ViT.model import PRESETS, ViT
from ViT.test import main as evaluate
from ViT.utils import build
from ViT.utils.optim import make_optimizer
from ViT.utils.pretrained import load_pretrained
from ViT.utils.rollout import attention_weights, relevance, rollout
from ViT.utils.weights import fit_weights, from_torchvision, resize_positions

pytestmark = pytest.mark.usefixtures("seeded")

TINY = dict(image_size=8, patch_size=2, embed_dim=12, depth=2, num_heads=3, num_classes=5)
SMALL = ["--dataset", "shapes", "--subset", "64", "--batch-size", "16"]
CLOSE = dict(rtol=1e-10, atol=1e-10)
NANO = PRESETS["nano-conv"]


def randomised(model, std=0.3):
    """The model with weights of which each one matters."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model


# ---- attention, against PyTorch's ----


def attentions(D=12, heads=3):
    """Ours, written out and fused, and PyTorch's, with the same weights."""
    theirs = randomised(nn.MultiheadAttention(D, heads, batch_first=True)).double()
    ours = [networks.MultiHeadAttention(D, heads, 0.0, fused).double() for fused in (False, True)]
    for module in ours:
        module.qkv.weight.data.copy_(theirs.in_proj_weight)
        module.qkv.bias.data.copy_(theirs.in_proj_bias)
        module.projection.load_state_dict(theirs.out_proj.state_dict())
    return *ours, theirs


@pytest.mark.smoke
@pytest.mark.parametrize("N, T, D, heads", [(2, 5, 12, 3), (3, 1, 4, 1), (1, 17, 8, 8)])
def test_attention_and_its_gradients_are_those_of_pytorch(N, T, D, heads):
    written_out, fused, theirs = attentions(D, heads)
    x = torch.randn(N, T, D, dtype=torch.float64, requires_grad=True)
    g = torch.randn(N, T, D, dtype=torch.float64)
    expected, weights = theirs(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(written_out.weights(x), weights, **CLOSE)
    parameters = [theirs.in_proj_weight, theirs.in_proj_bias, *theirs.out_proj.parameters()]
    gradients = torch.autograd.grad(expected, [x, *parameters], g)
    for module in (written_out, fused):
        y = module(x)
        torch.testing.assert_close(y, expected, **CLOSE)
        ours = torch.autograd.grad(y, [x, *module.parameters()], g)
        torch.testing.assert_close(ours, gradients, **CLOSE)


def test_attention_is_its_equation():
    """Row t of the output is Σₛ exp(q_t·k_s / √d) v_s over Σₛ exp(q_t·k_s / √d)."""
    q, k, v = torch.randn(3, 2, 3, 4, 5, dtype=torch.float64)
    y, weights = networks.attention(q, k, v)
    for n, h, t in np.ndindex(2, 3, 4):
        powers = [math.exp(q[n, h, t] @ k[n, h, s] / math.sqrt(5)) for s in range(4)]
        expected = sum(p * v[n, h, s] for s, p in enumerate(powers)) / sum(powers)
        torch.testing.assert_close(y[n, h, t], expected, **CLOSE)
        share = torch.tensor(powers, dtype=torch.float64) / sum(powers)
        torch.testing.assert_close(weights[n, h, t], share, **CLOSE)
    y, weights = networks.attention(1e4 * q, k, v)  # the powers above would be infinite
    torch.testing.assert_close(y, F.scaled_dot_product_attention(1e4 * q, k, v), **CLOSE)
    assert weights.isfinite().all()


@pytest.mark.smoke
def test_attention_without_dropout_is_the_fused_kernels_in_single_precision():
    q, k, v = torch.randn(3, 4, 3, 65, 32)
    y, _ = networks.attention(q, k, v)
    torch.testing.assert_close(y, F.scaled_dot_product_attention(q, k, v))


def test_dropout_leaves_out_the_same_weights_in_both_programs():
    written_out, fused, _ = attentions()
    written_out.dropout = fused.dropout = 0.4
    x, results = torch.randn(4, 6, 12, dtype=torch.float64), []
    for module in (written_out, fused):
        torch.manual_seed(3)
        results.append(module.train()(x))
    torch.testing.assert_close(*results, **CLOSE)
    assert not torch.allclose(results[0], written_out.eval()(x))
    torch.testing.assert_close(fused.eval()(x), written_out(x), **CLOSE)


def test_dropout_keeps_the_expectation_of_attention():
    q, k, v = torch.randn(3, 1, 1, 3, 2, dtype=torch.float64)
    expected, _ = networks.attention(q, k, v)
    many = [part.expand(40_000, -1, -1, -1) for part in (q, k, v)]
    y, weights = networks.attention(*many, dropout=0.5)
    torch.testing.assert_close(y.mean(0, keepdim=True), expected, rtol=0.05, atol=0.03)
    torch.testing.assert_close(weights.sum(3), torch.ones_like(weights.sum(3)))


def test_large_scores_stay_finite():
    q, k, v = torch.randn(3, 1, 1, 4, 2)
    y, weights = networks.attention(1e4 * q, 1e4 * k, v)
    assert y.isfinite().all() and weights.isfinite().all()


# ---- blocks and stems, against their equations ----


def test_block_is_its_equations():
    """x' = x + γ₁ attention(norm₁(x));  y = x' + γ₂ W₂ gelu(W₁ norm₂(x'))"""
    block = randomised(networks.Block(12, 3, 2.5, 0.0, 0.0, 0.1, True)).double()
    assert block.mlp.linear1.out_features == 30
    x = torch.randn(2, 5, 12, dtype=torch.float64)

    def norm(x, layer):
        x = x - x.mean(2, keepdim=True)
        x = x / (x.square().mean(2, keepdim=True) + 1e-6).sqrt()
        return x * layer.weight + layer.bias

    between = x + block.scale1.scale * block.attention(norm(x, block.norm1))
    hidden = norm(between, block.norm2) @ block.mlp.linear1.weight.T + block.mlp.linear1.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    branch = hidden @ block.mlp.linear2.weight.T + block.mlp.linear2.bias
    torch.testing.assert_close(block(x), between + block.scale2.scale * branch, **CLOSE)


@pytest.mark.smoke
def test_layer_scale_starts_at_its_value_and_its_absence_is_a_factor_of_one():
    scaled, plain = (networks.Block(12, 3, 4.0, 0.0, 0.0, scale, True) for scale in (1e-3, 0.0))
    assert torch.equal(scaled.scale1.scale, torch.full((12,), 1e-3))
    for parameter in ("scale1.scale", "scale2.scale"):
        assert parameter not in plain.state_dict()
    x = torch.randn(2, 5, 12)
    assert 0 < (scaled(x) - x).abs().max() < 0.05 < (plain(x) - x).abs().max()
    scaled.load_state_dict({**plain.state_dict(), "scale1.scale": torch.ones(12),
                            "scale2.scale": torch.ones(12)})  # fmt: skip
    torch.testing.assert_close(scaled(x), plain(x))


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.7])
def test_stochastic_depth_drops_whole_samples_and_keeps_the_expectation(rate):
    drop, x = networks.DropPath(rate), torch.randn(4_000, 3, 2)
    torch.manual_seed(5)
    y = drop.train()(x)
    factors = y / x
    assert torch.allclose(factors, factors[:, :1, :1].expand_as(factors), atol=1e-5)
    share = (factors[:, 0, 0] != 0).float().mean().item()
    assert share == pytest.approx(1 - rate, abs=0.03)
    torch.testing.assert_close(
        factors[factors != 0].mean().item(), 1 / (1 - rate), rtol=1e-5, atol=0
    )
    assert drop.eval()(x) is x
    torch.manual_seed(5)
    theirs = torchvision.ops.stochastic_depth(x, rate, "row")
    torch.testing.assert_close(y, theirs)


def test_stochastic_depth_grows_from_the_first_block_to_the_last():
    model = ViT(**{**TINY, "depth": 5}, drop_path=0.2)
    rates = [block.drop_path.rate for block in model.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert ViT(**{**TINY, "depth": 1}, drop_path=0.2).blocks[0].drop_path.rate == 0


@pytest.mark.parametrize("C, D, p", [(3, 12, 4), (1, 8, 3), (2, 4, 1)])
def test_patch_stem_is_one_linear_map_of_each_patch(C, D, p):
    stem, images = networks.PatchStem(C, D, p), torch.randn(2, C, 4 * p, 4 * p)
    tokens = stem(images)
    weight = stem.projection.weight.flatten(1)
    for n, row, column in np.ndindex(2, 4, 4):
        patch = images[n, :, row * p : (row + 1) * p, column * p : (column + 1) * p].flatten()
        expected = weight @ patch + stem.projection.bias
        torch.testing.assert_close(tokens[n, :, row, column], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.smoke
@pytest.mark.parametrize("p, widths", [(1, []), (2, [8]), (4, [4, 8]), (8, [2, 4, 8])])
def test_convolution_stem_halves_the_image_until_patches_are_pixels(p, widths):
    stem = networks.ConvolutionStem(3, 16, p)
    assert stem(torch.randn(2, 3, 32, 32)).shape == (2, 16, 32 // p, 32 // p)
    assert [m.out_channels for m in stem.layers if isinstance(m, nn.Conv2d)] == widths


@pytest.mark.parametrize("side, D", [(1, 4), (3, 8), (5, 12)])
def test_fixed_positions_are_their_closed_form(side, D):
    grid = networks.sincos_positions(side, D)
    assert grid.shape == (side**2, D)
    for y, x, k in np.ndindex(side, side, D // 4):
        omega = 10_000 ** (-4 * k / D)
        expected = [math.sin(omega * x), math.cos(omega * x), math.sin(omega * y),
                    math.cos(omega * y)]  # fmt: skip
        assert grid[y * side + x, k :: D // 4].tolist() == pytest.approx(expected, abs=1e-5)


def test_fixed_positions_are_neither_learned_nor_saved_and_the_class_token_has_none():
    model = ViT(**TINY, positions="sincos")
    assert "position_embedding" not in model.state_dict()
    assert "position_embedding" not in dict(model.named_parameters())
    assert torch.equal(model.position_embedding[0, 0], torch.zeros(12))
    assert torch.equal(model.position_embedding[0, 1:], networks.sincos_positions(4, 12))


# ---- the networks ----


@pytest.mark.parametrize("C, size", [(3, 32), (1, 48), (3, 224)])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_a_logit_per_class(name, C, size):
    with torch.device("meta"):
        model = PRESETS[name](image_size=size, num_classes=7, in_channels=C)
        images = torch.zeros(2, C, size, size)
    p = 16 if name.endswith("16") else 4
    T = (size // p) ** 2 + (model.pooling == "token")
    assert model.embed(images).shape == (2, T, model.head.in_features)
    for training in (True, False):
        assert model.train(training)(images).shape == (2, 7)


PARAMETERS = {  # DeiT's tables (arXiv:2012.12877), torchvision's documentation
    "ti16": 5_717_416, "s16": 22_050_664, "b16": 86_567_656,
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_of_the_papers_networks_are_as_many_as_published(name):
    with torch.device("meta"):
        model = PRESETS[name](image_size=224, num_classes=1000)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


def test_a_width_that_cannot_be_halved_so_often_is_refused():
    assert networks.ConvolutionStem(3, 128, 128).layers[0].out_channels == 1
    with pytest.raises(ValueError, match="a width of 128 cannot be halved 8 times"):
        networks.ConvolutionStem(3, 128, 256)


@pytest.mark.parametrize(
    "stem, pooling, positions",
    [
        ("patch", "token", "learned"),
        ("patch", "mean", "sincos"),
        ("convolution", "token", "sincos"),
        ("convolution", "mean", "learned"),
    ],
)
def test_every_kind_of_network_learns_one_batch_by_heart(stem, pooling, positions):
    sizes = {**TINY, "image_size": 16, "patch_size": 4, "embed_dim": 24, "num_classes": 16}
    model = ViT(**sizes, stem=stem, pooling=pooling, positions=positions)
    shapes = coloured_shapes.make("test")
    images, labels = shapes.inputs[:16, :, ::2, ::2] / 128 - 1, shapes.labels[:16]
    optimizer = make_optimizer("adamw", model, 0.01, 0.0)
    for step in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        assert step or loss.item() == pytest.approx(math.log(16)), "a guess: the head starts at 0"
        loss.backward()
        optimizer.step()
    assert loss < 0.05 and torch.equal(model(images).argmax(1), labels)


@pytest.mark.parametrize("pooling", ["token", "mean"])
def test_network_is_its_description(pooling):
    """Tokens and positions -> blocks -> the class token, or the mean -> norm -> Linear."""
    model = randomised(ViT(**TINY, pooling=pooling, layer_scale=0.1)).double().eval()
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    x = model.stem(images).permute(0, 2, 3, 1).reshape(3, 16, 12)
    if pooling == "token":
        x = torch.cat([model.class_token.repeat(3, 1, 1), x], dim=1)
    x = x + model.position_embedding
    for block in model.blocks:
        x = block(x)
    pooled = x[:, 0] if pooling == "token" else x.sum(1) / 16
    expected = F.layer_norm(pooled, (12,), model.norm.weight, model.norm.bias, eps=1e-6)
    expected = expected @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(images), expected, **CLOSE)


def test_only_positions_tell_places_apart():
    model = randomised(ViT(**TINY, pooling="mean")).eval()
    images = torch.randn(2, 3, 8, 8)
    swapped = torch.cat([images[:, :, 4:], images[:, :, :4]], dim=2)  # whole patches change place
    assert (model(swapped) - model(images)).abs().max() > 1e-2
    nn.init.zeros_(model.position_embedding)
    torch.testing.assert_close(model(swapped), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["adamw", "nesterov"])
def test_weight_decay_is_on_matrices_and_kernels_alone(name):
    model = ViT(**TINY, stem="convolution", layer_scale=0.1)
    decays = {}
    for group in make_optimizer(name, model, 0.1, 0.03).param_groups:
        for parameter in group["params"]:
            assert id(parameter) not in decays
            decays[id(parameter)] = group["weight_decay"]
    for module in model.modules():
        for kind, parameter in module.named_parameters(recurse=False):
            is_matrix = isinstance(module, (nn.Conv2d, nn.Linear)) and kind == "weight"
            assert decays.pop(id(parameter)) == (0.03 if is_matrix else 0.0)
    assert decays == {}


# ---- torchvision's weights ----

THEIRS = dict(num_layers=2, num_heads=3, hidden_dim=12, mlp_dim=48)


def of_torchvision(image_size=8, num_classes=5, patch_size=2, **changes):
    sizes = {**THEIRS, "patch_size": patch_size, **changes}
    return randomised(VisionTransformer(image_size, num_classes=num_classes, **sizes))


@pytest.mark.smoke
@pytest.mark.parametrize("fused", [True, False])
def test_logits_are_torchvisions(fused):
    theirs = of_torchvision().double().eval()
    ours = ViT(**TINY, fused=fused).double().eval()
    ours.load_state_dict(from_torchvision(theirs.state_dict()))
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(images), theirs(images), **CLOSE)


def test_the_names_in_torchvisions_published_files_are_known_too():
    """There the MLP's layers are called linear_1 and linear_2."""
    state = of_torchvision().state_dict()
    old = {n.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): w
           for n, w in state.items()}  # fmt: skip
    assert old.keys() != state.keys()
    expected, renamed = from_torchvision(state), from_torchvision(old)
    assert list(renamed) == list(expected)
    assert all(torch.equal(renamed[name], expected[name]) for name in expected)


@pytest.mark.smoke
def test_the_large_preset_takes_every_weight_of_vit_b_16():
    with torch.device("meta"):
        ours = PRESETS["b16"](image_size=224, num_classes=1000)
        theirs = torchvision.models.vit_b_16()
    renamed = from_torchvision(theirs.state_dict())
    assert {n: w.shape for n, w in renamed.items()} == {
        n: w.shape for n, w in ours.state_dict().items()
    }


@pytest.mark.parametrize("sides", [(4, 7), (7, 4), (3, 1), (5, 5)])
def test_positions_are_resized_as_by_torchvision(sides):
    positions = torch.randn(1, 1 + sides[0] ** 2, 6)
    theirs = interpolate_embeddings(sides[1], 1, {"encoder.pos_embedding": positions.clone()})
    ours = resize_positions(positions, 1 + sides[1] ** 2)
    torch.testing.assert_close(ours, theirs["encoder.pos_embedding"])
    assert torch.equal(ours[:, 0], positions[:, 0]), "the class token has no place"
    without = resize_positions(positions[:, 1:], sides[1] ** 2)
    torch.testing.assert_close(without, ours[:, 1:])


def test_the_corners_of_the_image_keep_their_positions():
    grid, larger = torch.randn(1, 9, 4), [0, 6, 42, 48]
    resized = resize_positions(grid, 49)
    torch.testing.assert_close(resized[:, larger], grid[:, [0, 2, 6, 8]])


@pytest.mark.smoke
def test_weights_for_other_images_and_classes_are_a_start(tmp_path):
    theirs = of_torchvision(image_size=8, num_classes=9).state_dict()
    torch.save(theirs, tmp_path / "vit.pth")
    model = randomised(ViT(**{**TINY, "image_size": 12}))
    head = model.head.weight.clone()
    load_pretrained(model, str(tmp_path / "vit.pth"), head="head", fit=fit_weights)
    state, renamed = model.state_dict(), from_torchvision(theirs)
    assert torch.equal(state.pop("head.weight"), head) and state.pop("head.bias").shape == (5,)
    resized = resize_positions(renamed["position_embedding"], 37)
    assert torch.equal(state.pop("position_embedding"), resized)
    assert all(torch.equal(weight, renamed[name]) for name, weight in state.items())


@pytest.mark.parametrize(
    "change", [{"depth": 3}, {"pooling": "mean"}, {"embed_dim": 24}, {"in_channels": 1}]
)
def test_weights_of_another_network_are_one_line(change, tmp_path):
    torch.save(of_torchvision().state_dict(), tmp_path / "vit.pth")
    with user_error(tmp_path / "vit.pth", "another network"):
        model = ViT(**{**TINY, **change})
        load_pretrained(model, str(tmp_path / "vit.pth"), head="head", fit=fit_weights)


# ---- attention rollout ----


def random_weights(L, N, h, T):
    return torch.rand(L, N, h, T, T, dtype=torch.float64).softmax(4)


@pytest.mark.smoke
def test_weights_of_attention_are_those_that_the_network_uses():
    model = randomised(ViT(**TINY)).double().eval()
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    weights = attention_weights(model, images)
    assert weights.shape == (2, 3, 3, 17, 17)
    x = model.embed(images)
    for block, W in zip(model.blocks, weights, strict=True):
        values = block.attention.heads(block.norm1(x))[2]
        gathered = block.attention.projection((W @ values).transpose(1, 2).flatten(2))
        between = x + gathered
        x = between + block.mlp(block.norm2(between))
    torch.testing.assert_close(model.head(model.norm(x[:, 0])), model(images), **CLOSE)


def test_rows_of_the_rollout_sum_to_one():
    rows = rollout(random_weights(4, 3, 2, 7))
    assert rows.shape == (3, 7, 7) and (rows > 0).all()
    torch.testing.assert_close(rows.sum(2), torch.ones(3, 7).double())


def test_rollout_of_uniform_attention_is_its_closed_form():
    """With J all 1/T: ((J + 1) / 2)^L = 2^-L + (1 - 2^-L) J, as J J = J."""
    for L in (1, 2, 5):
        rows = rollout(torch.full((L, 1, 2, 4, 4), 0.25))
        expected = 2.0**-L * torch.eye(4) + (1 - 2.0**-L) / 4
        torch.testing.assert_close(rows[0], expected)


def test_rollout_of_tokens_that_look_at_themselves_alone_leaves_them():
    weights = torch.eye(5).expand(3, 2, 4, 5, 5)
    assert torch.equal(rollout(weights), torch.eye(5).expand(2, 5, 5))


def test_rollout_goes_from_the_last_block_back_to_the_first():
    """By hand: block 1 moves token 2 to 1, block 2 moves 1 to 0; so half of a half of 2 is in 0."""
    weights = torch.eye(3).repeat(2, 1, 1, 1, 1)
    weights[0, 0, 0, 1] = torch.tensor([0.0, 0.0, 1.0])
    weights[1, 0, 0, 0] = torch.tensor([0.0, 1.0, 0.0])
    expected = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    assert torch.equal(rollout(weights)[0], expected)


def test_rollout_takes_the_mean_over_the_heads():
    weights = random_weights(2, 1, 3, 5)  # blocks, N, heads, T
    first, second = ((block[0].mean(0) + torch.eye(5)) / 2 for block in weights)
    assert (weights[:, :, 0] - weights[:, :, 1]).abs().max() > 0.1
    torch.testing.assert_close(rollout(weights)[0], second @ first)


@pytest.mark.parametrize("pooling", ["token", "mean"])
def test_relevance_is_highest_where_attention_goes(pooling):
    """Every query looks for one bright patch: q·k is large for it alone."""
    model = ViT(**{**TINY, "image_size": 16, "patch_size": 4, "num_heads": 1}, pooling=pooling)
    nn.init.zeros_(model.position_embedding)
    nn.init.zeros_(model.stem.projection.weight)
    model.stem.projection.weight.data[0] = 1.0  # brightness is channel 0
    for block in model.blocks:
        nn.init.zeros_(block.attention.qkv.weight)
        block.attention.qkv.bias.data[:12] = 10.0  # queries
        block.attention.qkv.weight.data[12, 0] = 10.0  # keys
    images = torch.zeros(2, 3, 16, 16)
    images[0, :, 4:8, 8:12] = 1
    images[1, :, 12:, :4] = 1
    places = relevance(model.eval(), images)
    assert places.shape == (2, 16, 16) and places.min() == 0 and places.max() == 1
    assert places[0, 4:8, 8:12].mean() > 0.6 > 0.3 > places[0, 12:, :4].mean()
    assert places[1, 12:, :4].mean() > 0.6 > 0.3 > places[1, 4:8, 8:12].mean()


# ---- flags ----


def args_of(*flags):
    return script.make_parser().parse_args(list(map(str, flags)))


def images_of(size, C=3):
    return Split(
        torch.zeros(4, C, size, size, dtype=torch.uint8), torch.arange(4), list("abcd"), {}
    )


def test_every_flag_of_the_network_reaches_it():
    plain = build.build_model(args_of("--model", "tiny"), images_of(32))
    assert (plain.pooling, plain.side, plain.head.out_features) == ("token", 8, 4)
    assert plain.blocks[0].attention.fused and isinstance(plain.stem, networks.PatchStem)
    flags = ["--patch-size", 8, "--stem", "convolution", "--pooling", "mean", "--positions",
             "sincos", "--attention", "written-out", "--dropout", 0.1, "--drop-path", 0.3,
             "--layer-scale", 0.5]  # fmt: skip
    model = build.build_model(args_of("--model", "tiny", *flags), images_of(48, C=1))
    last = model.blocks[-1]
    assert (model.pooling, model.side) == ("mean", 6) and not last.attention.fused
    assert isinstance(model.stem, networks.ConvolutionStem) and model.first_weight.shape[1] == 1
    assert "position_embedding" not in model.state_dict()
    rates = (last.attention.dropout, last.mlp.dropout.p, last.dropout.p, model.dropout.p)
    assert rates == (0.1,) * 4 and last.drop_path.rate == pytest.approx(0.3)
    assert torch.equal(last.scale2.scale, torch.full((192,), 0.5))


def test_the_presets_parts_are_kept_where_no_flag_names_others():
    model = build.build_model(args_of("--model", "tiny-conv"), images_of(32))
    assert isinstance(model.stem, networks.ConvolutionStem) and model.pooling == "mean"
    model = build.build_model(args_of("--model", "ti16"), images_of(224))
    assert isinstance(model.stem, networks.PatchStem) and model.side == 14


# ---- runs ----


def train(run_dir, *argv):
    script.main([*SMALL, "--run-dir", str(run_dir), *map(str, argv)])


EVERYTHING = ["--ema", 0.9, "--precision", "bfloat16", "--mixup", 0.3, "--cutmix", 0.3, "--crop", 2]
EVERYTHING += ["--accumulate", 2, "--colour", 0.1, "--cutout", 4, "--clip", 1, "--epochs", 2]
EVERYTHING += ["--dropout", 0.1, "--drop-path", 0.2, "--layer-scale", 0.1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A function: a run with everything, never stopped, trained once."""
    runs = []

    def run():
        if not runs:
            runs.append(tmp_path_factory.mktemp("whole") / "run")
            train(runs[0], *EVERYTHING)
        return runs[0]

    return run


@pytest.mark.parametrize("how, step", [(crash, 1), (interrupt, 4), (crash, 6)])
def test_stopped_anywhere_and_resumed_is_as_never_stopped(
    how, step, quick, whole, tmp_path, monkeypatch
):
    expected = whole()
    with monkeypatch.context() as patch, pytest.raises((Stop, KeyboardInterrupt)):
        how(patch, step)
        train(tmp_path / "run", *EVERYTHING)
    assert checkpoint.load(tmp_path / "run" / "last.safetensors")["step"] == step
    script.main(["--resume", "--run-dir", str(tmp_path / "run")])
    assert_ended_alike(tmp_path / "run", expected)


def test_a_run_goes_on_without_the_weights_it_started_from(quick, tmp_path, monkeypatch):
    weights = tmp_path / "weights.pth"
    model = randomised(PRESETS["nano-conv"](num_classes=16, pooling="token"), std=0.05)
    torch.save(model.state_dict(), weights)
    flags = ["--pretrained", weights, "--layer-scale", 0, "--epochs", 1]
    train(tmp_path / "whole", *flags)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash(patch, 3)
        train(tmp_path / "run", *flags)
    weights.unlink()
    script.main(["--resume", "--run-dir", str(tmp_path / "run")])
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")


def test_both_programs_of_attention_train_alike(quick, tmp_path):
    for attention in ("fused", "written-out"):
        train(tmp_path / attention, "--attention", attention, "--epochs", 1, "--dropout", 0.1)
    losses = [float(history(tmp_path / name)[0]["train_loss"]) for name in ("fused", "written-out")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_parts_of_a_batch_add_up_to_the_batch(quick, tmp_path):
    """Without batch normalisation, which sees the parts one by one."""
    for parts in (1, 2):
        flags = ["--stem", "patch", "--epochs", 1, "--crop", 0, "--no-flip"]
        train(tmp_path / str(parts), *flags, "--accumulate", parts)
    for name in ("train_loss", "validation_loss"):
        whole, halves = (float(history(tmp_path / parts)[0][name]) for parts in "12")
        assert halves == pytest.approx(whole, rel=1e-3)


# ---- transfer, pictures ----

GOODS = ("green", "red", "yellow")
PICTURES = ["confusion.png", "filters.png", "mistakes.png", "positions.png", "rollout.png"]


def make_goods(root, size=16, number=6):
    """A folder of plain colours with some noise: three classes."""
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in GOODS:
            (root / split / name).mkdir(parents=True)
            for n in range(number):
                colour = 255 * np.array(coloured_shapes.COLOURS[name])
                pixels = colour + random.normal(0, 20, (size, size, 3))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(root / split / name / f"{n}.png")
    return root


@pytest.mark.pictures
def test_what_was_learned_on_shapes_serves_on_smaller_images_of_other_classes(
    quick, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(networks.PRESETS, "nano-conv", NANO)  # features of a whole network
    place, path = make_goods(tmp_path / "goods"), tmp_path / "run"
    train(tmp_path / "shapes", "--epochs", 1, "--pooling", "mean")
    weights = tmp_path / "shapes" / "best.safetensors"
    flags = ["--dataset", "folder", "--data-dir", place, "--epochs", 8, "--batch-size", 6]
    flags += ["--pretrained", weights, "--freeze", "--lr", 0.02, "--run-dir", path]
    assert call(capsys, script.main, *flags).code == 0
    before = checkpoint.load(weights)["model"]
    after = checkpoint.load(path / "best.safetensors")["model"]
    assert after.pop("head.weight").shape == (3, 128) and after.pop("head.bias").any()
    resized = resize_positions(before["position_embedding"], 16)
    assert torch.equal(after.pop("position_embedding"), resized)
    assert all(torch.equal(weight, before[name]) for name, weight in after.items())
    rows = history(path)
    assert {row["dataset"] for row in rows} == {"goods"}
    assert max(float(row["validation_accuracy"]) for row in rows) > 0.8

    result = call(capsys, evaluate, "--run-dir", path)
    assert (result.code, result.err) == (0, "") and "goods, 18 examples" in result.out
    assert sorted(file.name for file in path.glob("*.png")) == PICTURES


@pytest.mark.pictures
def test_evaluation_of_grey_images_draws_every_picture(tmp_path, capsys, quick):
    place, path = make_digits(tmp_path / "data", sizes=(60, 40)), tmp_path / "run"
    flags = ["--dataset", "mnist", "--data-dir", place, "--epochs", 1, "--batch-size", 16]
    flags += ["--model", "tiny", "--positions", "sincos", "--patch-size", 7, "--run-dir", path]
    assert call(capsys, script.main, *flags).code == 0
    result = call(capsys, evaluate, "--run-dir", path, "--data-dir", place)
    assert (result.code, result.err) == (0, "") and "mnist, 40 examples" in result.out
    assert sorted(file.name for file in path.glob("*.png")) == PICTURES
    assert all((path / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)


def test_predictions_are_those_of_the_network_in_evaluation_mode():
    model = randomised(ViT(**TINY, stem="convolution", dropout=0.5, drop_path=0.5), std=0.1)
    split = Split(torch.randint(256, (30, 3, 8, 8), dtype=torch.uint8), torch.arange(30) % 5,
                  list("abcde"), {})  # fmt: skip
    args = Namespace(dataset="shapes", precision="float32", flip_test=True, shift_test=False)
    logits, labels = script.predict_all(model.train(), split, args)
    images, model = (split.inputs / 255 - 0.45) / 0.2, model.eval()
    expected = (model(images) + model(images.flip(3))).detach() / 2
    torch.testing.assert_close(logits, expected)
    assert torch.equal(labels, split.labels) and not logits.requires_grad


# ---- what a user may get wrong ----


@pytest.mark.smoke
@pytest.mark.parametrize(
    "flags, parts",
    [
        ("--model vit-huge", ["--model", "vit-huge", "tiny-conv"]),
        ("--patch-size 0", ["--patch-size"]),
        ("--patch-size 5", ["32 pixels", "patches of 5"]),
        ("--patch-size 64", ["32 pixels", "patches of 64"]),
        ("--patch-size 1 --stem convolution --positions fixed", ["--positions", "sincos"]),
        ("--model ti16 --patch-size 32 --attention slow", ["--attention", "written-out"]),
        ("--dropout 1", ["--dropout"]),
        ("--image-size 64", ["--image-size", "shapes"]),
        ("--drop-path 1", ["--drop-path"]),
        ("--layer-scale -1", ["--layer-scale"]),
        ("--ema 1", ["--ema"]),
        ("--mixup 0.6 --cutmix 0.6", ["--mixup", "--cutmix", "at most 1"]),
        ("--batch-size 15 --accumulate 2", ["--batch-size 15"]),
        ("--batch-size 64 --subset 33 --accumulate 2", ["33"]),
        ("--warmup 99", ["--warmup 99"]),
        ("--pretrained absent.pth", ["--pretrained absent.pth"]),
    ],
)
def test_bad_flag_is_one_line_and_leaves_nothing(flags, parts, quick, tmp_path, capsys):
    argv = [*SMALL, "--run-dir", tmp_path / "run", *flags.split()]
    assert_one_line(call(capsys, script.main, *argv), *parts)
    assert not (tmp_path / "run").exists()


def test_patches_for_which_a_stem_cannot_be_made_are_named():
    args = args_of("--model", "nano-conv", "--patch-size", 7)
    with user_error("--model nano-conv", "7 pixels"):
        build.build_model(args, images_of(28))


def test_more_tokens_than_anyone_wants_need_a_patch_size():
    """The presets for small images on large ones: 3,136 tokens."""
    with user_error("--model tiny", "3,136 tokens", "--patch-size"):
        build.build_model(args_of("--model", "tiny"), images_of(224))
    assert (
        build.build_model(args_of("--model", "tiny", "--patch-size", 4), images_of(224)).side == 56
    )


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 3, 8, 12)])
def test_images_of_another_size_are_refused_in_words(shape):
    with pytest.raises(ValueError, match="8 pixels"):
        ViT(**TINY)(torch.zeros(shape))


def test_heads_that_do_not_fit_the_width_are_refused():
    with pytest.raises(ValueError, match="5 equal heads"):
        ViT(**{**TINY, "num_heads": 5})


def test_without_data_the_default_run_learns_shapes_and_says_so(
    quick, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(data, "ROOT", tmp_path / "repository")
    monkeypatch.setattr(script, "FOLDER", tmp_path / "repository" / "ViT")
    monkeypatch.setattr("ViT.dataset.FOLDER", tmp_path / "repository" / "ViT")
    monkeypatch.setattr("torchvision.datasets.CIFAR10.url", "http://127.0.0.1:1/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "repository" / "ViT").mkdir(parents=True)
    result = call(capsys, script.main, "--epochs", 1, "--subset", 32, "--batch-size", 16)
    assert result.code == 0 and "MADE-UP" in result.err
    (path,) = (tmp_path / "repository" / "ViT" / "runs").iterdir()
    assert path.name == "0001-shapes"
    config = json.loads((path / "config.json").read_text())
    assert (config["dataset"], config["pooling"]) == ("shapes", "token")
