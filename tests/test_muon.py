"""Muon, by hand and as a torch.optim optimiser: against torch.optim.Muon and singular values, the
two against each other, what is AdamW's, learning, bad input, and going on where it stopped."""

import importlib
import math

import pytest
import torch
from torch import nn

from common import checkpoint
from common.errors import UserError
from common.results import compare
from MLP_Manual.utils import optim as by_hand
from MLP_Manual.utils.losses import CrossEntropy
from MLP_Torch.utils import muon as native
from tests.running import (
    Stop,
    assert_ended_alike,
    assert_one_line,
    call,
    crash,
    history,
    script,
    small,
)
from tests.test_mlp_manual import LEARNING_RATES, Parameters, advance
from tests.test_run import resume, train

FORMS = {"by hand": by_hand.orthogonalise, "native": native.orthogonalise}
SHAPES = {  # wide, tall and square; two of one shape, also a kernel of it; one row, one value
    "wide": (3, 7), "too": (3, 7), "tall": (9, 4), "square": (5, 5), "kernel": (4, 2, 3, 3),
    "like": (4, 18), "row": (1, 6), "one": (1, 1), "bias": (5,), "scalar": (),
    "embedding.weight": (6, 4), "head.weight": (3, 5),
}  # fmt: skip
HIDDEN = [name for name, shape in SHAPES.items() if len(shape) > 1 and "weight" not in name]
TORCHS = getattr(torch.optim, "Muon", None)
has_torchs = pytest.mark.skipif(TORCHS is None, reason="torch.optim.Muon is of torch 2.9")


def network() -> Parameters:
    model = Parameters(SHAPES)
    model.not_hidden = ("embedding.", "head.")
    return model


class Leaves(nn.Module):
    """The same parameters as an nn.Module has them; its gradients are the other one's."""

    not_hidden = ("embedding.", "head.")

    def __init__(self, model: Parameters):
        super().__init__()
        self.leaves = {n: nn.Parameter(p.clone()) for n, p in model.parameters().items()}

    def named_parameters(self, *args, **kwargs):
        return self.leaves.items()

    def take_gradients(self, model: Parameters) -> None:
        for name, gradient in model.gradients().items():
            self.leaves[name].grad = gradient.clone()


def pair(lr: float = 0.1, **options) -> tuple:
    """(network by hand, its optimiser, the same as leaves, theirs)."""
    model = network()
    leaves = Leaves(model)
    groups = [{"params": list(leaves.leaves.values())}]
    return (
        model,
        by_hand.Muon(model, lr, **options),
        leaves,
        native.muon(leaves, groups, lr=lr, **options),
    )


# ---- the iteration ----


def matrix(*shape: int, least: float = 0.01) -> torch.Tensor:
    """Singular values from `least` to 1 (before they are divided by their norm), in float64."""
    generator = torch.Generator().manual_seed(sum(shape))
    X = torch.randn(*shape, generator=generator, dtype=torch.float64)
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    S = torch.logspace(0, math.log10(least), S.shape[-1], dtype=torch.float64)
    return U * S @ Vh


def five_times(s: torch.Tensor) -> torch.Tensor:
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


@pytest.mark.smoke
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (1, 5), (5, 1), (2, 3, 8, 5)])
def test_the_iteration_keeps_singular_vectors_and_maps_singular_values(form, shape):
    X = matrix(*shape)
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    S = five_times(S / S.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(FORMS[form](X), U * S.unsqueeze(-2) @ Vh, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(40, 40), (30, 200), (200, 30)])
def test_it_is_nearly_the_orthogonal_factor(form, shape):
    """U Vᵀ to the spread of the docstring: 0.68 to 1.21, for singular values from 0.002 ‖X‖."""
    X = matrix(*shape, least=0.01)
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    assert S.min() / S.norm() > 0.002
    found = torch.linalg.svdvals(FORMS[form](X))
    assert found.min() > 0.68 and found.max() < 1.21
    assert (U.mT @ FORMS[form](X) @ Vh.mT - torch.eye(len(S))).abs().max() < 0.32


def test_the_spread_that_the_docstring_promises():
    s = torch.linspace(0.002, 1, 1_000_001, dtype=torch.float64)
    assert five_times(s).min() >= 0.681 and five_times(s).max() <= 1.203
    assert five_times(torch.tensor(0.001)) < 0.5, "below, they are still on their way"
    beyond = [five_times(torch.tensor(x, dtype=torch.float64)) for x in (1.26, 1.27)]
    assert beyond[0] < 1.21 and beyond[1] > 1e6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [1e-4, 1.0, 1e15])
def test_length_does_not_count_and_zero_stays_zero(form, length):
    X = matrix(4, 6).float()
    torch.testing.assert_close(FORMS[form](X * length), FORMS[form](X), rtol=1e-4, atol=1e-5)
    assert torch.equal(FORMS[form](torch.zeros(2, 3)), torch.zeros(2, 3))


@pytest.mark.parametrize("form", FORMS)
def test_matrices_of_a_stack_do_not_meet(form):
    stack = torch.stack([matrix(4, 6), 1e3 * matrix(4, 6, least=0.5), torch.zeros(4, 6).double()])
    alone = torch.stack([FORMS[form](X) for X in stack])
    torch.testing.assert_close(FORMS[form](stack), alone, rtol=0, atol=1e-13)


def test_native_steps_are_of_the_type_that_is_named():
    X = matrix(8, 16)
    found = native.orthogonalise(X, torch.bfloat16)
    assert found.dtype == X.dtype and torch.equal(found, found.bfloat16().double())
    torch.testing.assert_close(found, native.orthogonalise(X), rtol=0, atol=0.05)


# ---- the optimiser against torch.optim's ----


@has_torchs
@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_are_those_of_torch_optim_muon(adjust, weight_decay, monkeypatch):
    """In float64, step for step: what torch rounds to bfloat16 is not rounded here. Kernels are
    given to torch as matrices; what is AdamW's is beside its AdamW."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    model, optimizer, leaves, ours = pair(weight_decay=weight_decay, adjust=adjust)
    start = model.parameters().items()
    theirs = {n: p.clone().flatten(1) if p.dim() > 2 else p.clone() for n, p in start}
    twins = [
        TORCHS([theirs[n] for n in HIDDEN], weight_decay=weight_decay, adjust_lr_fn=adjust),
        torch.optim.AdamW(
            [p for n, p in theirs.items() if n not in HIDDEN], weight_decay=weight_decay
        ),
    ]
    for step, lr in enumerate(LEARNING_RATES):
        advance(model, optimizer, range(step, step + 1))
        leaves.take_gradients(model)
        for name, parameter in theirs.items():
            parameter.grad = model.gradients()[name].clone().view_as(parameter)
        for one in (ours, *twins):
            for group in one.param_groups:
                group["lr"] = lr
            one.step()
        for name, parameter in theirs.items():
            for found in (model.parameters()[name], leaves.leaves[name].detach()):
                expected = parameter.view_as(found)
                torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@has_torchs
def test_steps_in_bfloat16_are_torchs_to_its_rounding():
    """As torch.optim.Muon comes: products in bfloat16, of 8 bits. Five steps multiply a rounding by
    up to 3.4⁵, so a single step is as far from torch's as that is from the exact one."""
    torch.manual_seed(0)
    X = torch.randn(32, 48)
    parameter = X.clone()
    parameter.grad = torch.randn(32, 48)
    TORCHS([parameter], lr=1.0, weight_decay=0.0, adjust_lr_fn="original").step()
    theirs = X - parameter
    with torch.autocast("cpu", torch.bfloat16):
        rounded = {"by hand": by_hand.orthogonalise(parameter.grad)}
    rounded["native"] = native.orthogonalise(parameter.grad, torch.bfloat16)
    for name, ours in rounded.items():
        exact = FORMS[name](parameter.grad)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)
        torch.testing.assert_close(exact, theirs, rtol=0, atol=0.02)
        assert not torch.equal(ours, exact)


# ---- the two forms ----


@pytest.mark.smoke
@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_both_forms_step_alike(adjust, weight_decay):
    model, optimizer, leaves, ours = pair(weight_decay=weight_decay, adjust=adjust)
    for step, lr in enumerate(LEARNING_RATES):
        advance(model, optimizer, range(step, step + 1))
        leaves.take_gradients(model)
        for group in ours.param_groups:
            group["lr"] = lr
        ours.step()
        for name, parameter in model.parameters().items():
            found = leaves.leaves[name].detach()
            torch.testing.assert_close(found, parameter, rtol=1e-12, atol=1e-12)


@pytest.mark.smoke
def test_embeddings_norms_biases_and_heads_step_as_adamw_does():
    model, optimizer, leaves, _ = pair(weight_decay=0.1)
    assert optimizer.hidden == HIDDEN
    rest = [p for n, p in leaves.leaves.items() if n not in HIDDEN]
    adamw = torch.optim.AdamW(rest, weight_decay=0.1)
    for step, lr in enumerate(LEARNING_RATES):
        advance(model, optimizer, range(step, step + 1))
        leaves.take_gradients(model)
        adamw.param_groups[0]["lr"] = lr
        adamw.step()
    for name in set(SHAPES) - set(HIDDEN):
        found, expected = model.parameters()[name], leaves.leaves[name].detach()
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_matched_steps_are_as_long_as_those_of_adamw():
    """0.2 in the root mean square, to the spread of the singular values; "original" is not."""
    for shape in [(64, 64), (32, 256), (256, 32)]:
        model = Parameters({"weight": shape})
        for adjust, wanted in (("match_rms_adamw", 0.2), ("original", None)):
            optimizer = by_hand.Muon(model, 1.0, adjust=adjust)
            model.draw_gradients(1)
            before = model.weight.clone()
            optimizer.step()
            length = (model.weight - before).square().mean().sqrt()
            wanted = wanted or max(1, shape[0] / shape[1]) ** 0.5 / max(shape) ** 0.5
            assert 0.68 < length / wanted < 1.21


# ---- which parameters are hidden ----

NETWORKS = {  # of what builds it, and the matrices and kernels that are AdamW's
    ("MLP_Torch", "MLP"): "layers.0.weight layers.8.weight",
    ("CNN_Torch", "CNN"): "features.0.weight classifier.2.weight",
    ("Transformer_Torch", "Transformer"): "embedding.weight",
    ("Transformer_Torch", "LanguageModel"): "embedding.weight",
    ("ResNet", "FastResNet"): "fc.weight",  # its first kernels are not learned
    ("ResNet", "resnet20"): "conv1.weight fc.weight",
    ("ViT", "nano-conv"): "head.weight position_embedding stem.layers.0.weight "
    "stem.layers.4.weight stem.projection.weight",
    ("ViT", "tiny"): "class_token head.weight position_embedding stem.projection.weight",
}


@pytest.mark.parametrize("folder, name", NETWORKS)
def test_what_is_adamw_s_of_each_network(folder, name):
    module = importlib.import_module(f"{folder}.model")
    model = getattr(module, name, None) or module.PRESETS[name]
    model = model()
    groups = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    (mine, rest) = native.muon(model, groups, lr=0.1).param_groups
    assert mine["muon"] and not rest["muon"]
    names = {p: n for n, p in model.named_parameters()}
    found = {names[p] for p in rest["params"] if p.dim() > 1}
    assert found == set(NETWORKS[folder, name].split())
    assert all(p.dim() > 1 for p in mine["params"])
    assert len(mine["params"]) + len(rest["params"]) == len(groups[0]["params"])


@pytest.mark.parametrize("name", ["MLP", "CNN", "Transformer", "LanguageModel"])
def test_twins_agree_on_what_is_hidden(name):
    (manual, model), (_, twin) = (
        (folder, getattr(importlib.import_module(f"{folder}.model"), compare.TWINS[name][2])())
        for folder in compare.TWINS[name][:2]
    )
    ours = importlib.import_module(f"{manual}.utils.optim").Muon(model, 0.1).hidden
    groups = native.muon(twin, [{"params": list(twin.parameters())}], lr=0.1).param_groups
    names = {p: n for n, p in twin.named_parameters()}
    assert ours == [names[p] for p in groups[0]["params"]] and len(ours) > 0


def test_the_cells_of_a_recurrent_network_are_hidden():
    from RNN_Manual.model import LanguageModel
    from RNN_Manual.utils.optim import Muon

    assert Muon(LanguageModel(), 0.1).hidden == [
        f"recurrent.weight_{part}_l{layer}" for layer in range(2) for part in ("ih", "hh")
    ]


@pytest.mark.parametrize("folder", ["ResNet", "ViT"])
def test_norms_biases_and_what_is_not_decayed_stay_so(folder):
    make_optimizer = importlib.import_module(f"{folder}.utils.optim").make_optimizer
    name = {"ResNet": "resnet9-small", "ViT": "nano-conv"}[folder]
    model = importlib.import_module(f"{folder}.model").PRESETS[name]()
    made = make_optimizer("muon", model, 0.1, 0.03)
    spared = getattr(model, "not_decayed", ())
    decays = {p: g["weight_decay"] for g in made.param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            wanted = 0.0 if parameter.dim() < 2 or name in spared else 0.03
            assert decays.pop(parameter) == wanted
    assert decays == {}


@pytest.mark.parametrize("folder", ["CNN_Torch", "Transformer_Torch", "ResNet", "ViT"])
def test_its_products_are_in_bfloat16_where_the_network_is(folder):
    make_optimizer = importlib.import_module(f"{folder}.utils.optim").make_optimizer
    rest = [0.99] if folder == "Transformer_Torch" else []  # Adam's β₂
    moved = {}
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        layer = nn.Linear(40, 30, bias=False)
        layer.not_hidden = ("none",)
        layer.weight.grad = torch.randn(30, 40)
        before = layer.weight.detach().clone()
        make_optimizer("muon", layer, 1.0, 0.0, *rest, precision).step()
        moved[precision] = before - layer.weight.detach()
    gap = (moved["float32"] - moved["bfloat16"]).norm() / moved["float32"].norm()
    assert 1e-3 < gap < 6e-2


# ---- learning ----


def test_it_learns_a_batch_by_heart_where_one_direction_is_large():
    """Inputs that are a hundred times as long along one axis, which SGD's steps all follow."""
    from MLP_Manual.model import MLP

    torch.manual_seed(0)
    x = torch.randn(64, 20)
    x[:, 0] *= 100
    labels = (x[:, 1] * x[:, 2] > 0).long()

    def fit(name: str, lr: float) -> float:
        torch.manual_seed(1)
        model = MLP(20, (64, 64), 2, batch_norm=False, dropout=0.0, input_dropout=0.0)
        criterion, optimizer = CrossEntropy(), by_hand.OPTIMIZERS[name](model, lr)
        for _ in range(60):
            loss = criterion.forward(model.forward(x), labels)
            model.backward(criterion.backward())
            optimizer.step()
        return loss.item()

    assert fit("muon", 1e-2) < 0.05
    assert min(fit("sgd", lr) for lr in (1e-4, 1e-3, 1e-2, 1e-1)) > 0.5


# ---- runs ----

RUNS = {  # what a folder's small run needs besides, to have a hidden layer and what must go on
    "MLP_Manual": ["--hidden-sizes", 8, 8, "--dropout", 0.3], "CNN_Manual": ["--channels", 4, 4],
    "RNN_Manual": ["--dropout", 0.3, "--num-layers", 2], "Transformer_Manual": ["--ema", 0.5],
    "MLP_Torch": ["--hidden-sizes", 8, 8, "--dropout", 0.3],
    "CNN_Torch": ["--channels", 4, 4, "--precision", "bfloat16"],
    "Transformer_Torch": ["--ema", 0.5, "--precision", "bfloat16"],
    "ResNet": ["--ema", 0.5, "--precision", "bfloat16", "--lr", 0.01],
    "ViT": ["--ema", 0.5, "--precision", "bfloat16"],
}  # fmt: skip


@pytest.mark.parametrize("folder", ["CNN_Manual", "RNN_Manual", "Transformer_Manual"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_its_products_by_hand_have_the_precision_of_the_run(
    folder, precision, tmp_path, monkeypatch, quick
):
    optim, seen = importlib.import_module(f"{folder}.utils.optim"), set()
    orthogonalise = optim.orthogonalise

    def note(X):
        seen.add((X @ X.mT).dtype)
        return orthogonalise(X)

    monkeypatch.setattr(optim, "orthogonalise", note)
    train(folder, tmp_path / "run", "--optimizer", "muon", "--precision", precision, *RUNS[folder])
    assert seen == {getattr(torch, precision)}


@pytest.mark.parametrize("folder", RUNS)
def test_a_stopped_run_goes_on_bit_for_bit(folder, tmp_path, monkeypatch, quick):
    """With schedules, averaged weights and bfloat16; on each the training loss falls."""
    flags = ["--optimizer", "muon", "--epochs", 2, "--weight-decay", 0.1, *RUNS[folder]]
    train(folder, tmp_path / "whole", *flags)
    first, second = history(tmp_path / "whole")
    assert float(second["train_loss"]) < float(first["train_loss"])
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash(patch, 3)
        train(folder, tmp_path / "run", *flags)
    resume(folder, tmp_path / "run")
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("folder", RUNS)
def test_it_is_another_optimiser_than_adamw(folder, tmp_path, quick):
    losses = []
    for name in ("adamw", "muon"):
        path = tmp_path / name
        train(folder, path, "--optimizer", name, "--epochs", 1, *RUNS[folder])
        losses.append(history(path)[0]["train_loss"])
    assert losses[0] != losses[1]


# ---- bad input ----


def test_a_vector_is_no_matrix():
    with pytest.raises(ValueError, match="no matrix"):
        by_hand.orthogonalise(torch.randn(3))
    with pytest.raises(ValueError, match="there is a vector"):
        native.Muon([{"params": [torch.randn(3, requires_grad=True)], "muon": True}], lr=0.1)


@pytest.mark.parametrize("adjust", ["", "match", None])
def test_unknown_scale_is_refused(adjust):
    with pytest.raises(ValueError, match="neither match_rms_adamw nor original"):
        by_hand.Muon(network(), 0.1, adjust=adjust)
    with pytest.raises(ValueError, match="neither match_rms_adamw nor original"):
        native.Muon([torch.randn(3, requires_grad=True)], lr=0.1, adjust=adjust)


@pytest.mark.parametrize("folder", ["MLP_Manual", "MLP_Torch"])
def test_a_network_without_a_hidden_matrix_is_one_line(folder, tmp_path, capsys):
    argv = [
        *small(folder),
        "--optimizer",
        "muon",
        "--run-dir",
        tmp_path / "run",
    ]
    assert_one_line(call(capsys, script(folder).main, *argv), "hidden", "adamw")
    with pytest.raises(UserError, match="hidden"):
        by_hand.Muon(Parameters({"bias": (3,)}), 0.1)


@pytest.mark.parametrize("which", ["by hand", "native"])
def test_the_state_of_another_network_or_optimiser_is_refused(which, tmp_path):
    def made(hidden: tuple[str, ...]):
        model = network()
        model.not_hidden = hidden
        leaves = Leaves(model)
        leaves.not_hidden = hidden
        if which == "by hand":
            return by_hand.Muon(model, 0.1), by_hand.AdamW(model, 0.1)
        parameters = list(leaves.leaves.values())
        ours = native.muon(leaves, [{"params": parameters}], lr=0.1)
        return ours, torch.optim.AdamW(parameters, lr=0.1)

    (muon, adamw), (other, _) = made(("embedding.", "head.")), made(("square",))
    for stranger in (adamw, other):
        with pytest.raises(UserError, match="another optimiser"):
            path = tmp_path / "last.safetensors"
            checkpoint.restore(muon, stranger.state_dict(), path, "optimiser")
