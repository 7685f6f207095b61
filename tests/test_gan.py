"""GAN/: distances against scipy and scikit-learn, losses and penalty against closed forms and
finite differences, whose step changes what, learning, scripts, interruption."""

import copy
import json
import math
from argparse import Namespace
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from PIL import Image
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional as F

from common import checkpoint, data, history
from common.data import Split
from common.errors import UserError
from common.plots import draw_curves
from common.schedules import moving_average
from GAN import dataset
from GAN import generate as drawing
from GAN import train as script
from GAN.dataset import as_data, mnist, ring, scaled
from GAN.model import (
    GAN,
    ConvDiscriminator,
    ConvGenerator,
    DenseDiscriminator,
    DenseGenerator,
    sides,
)
from GAN.test import main as evaluate
from GAN.utils import classifier, metrics
from GAN.utils import judge as judging
from GAN.utils.build import build_model
from GAN.utils.clusters import as_points, k_means, with_clusters
from GAN.utils.diary import Diary
from GAN.utils.diffaugment import Augmentation
from GAN.utils.judge import Judge, draw_labels, latents, sample
from GAN.utils.kind import Kind
from GAN.utils.loading import interpolations, load_trained
from GAN.utils.losses import LOSSES, gradient_penalty
from GAN.utils.turns import discriminator_step, generator_step, spectator
from tests.running import (
    Stop,
    assert_ended_alike,
    assert_one_line,
    call,
    crash,
    few_shapes,
    interrupt,
    make_digits,
    small,
)
from tests.running import history as rows_of
from VAE.utils.film import STRIP, is_filmed

pytestmark = pytest.mark.usefixtures("seeded")

DIGIT = (1, 28, 28)


@pytest.fixture
def quick(quick, monkeypatch):
    monkeypatch.setattr("GAN.utils.plots.draw_players", lambda path, diary, title: None)


# ---- distances, against scipy and scikit-learn ----


@pytest.mark.smoke
@pytest.mark.parametrize("size, rank", [(1, 1), (5, 5), (12, 12), (7, 3)])
def test_matrix_square_root_is_scipys(size, rank):
    factor = torch.randn(size, rank, dtype=torch.float64)
    matrix = factor @ factor.T
    root = metrics.matrix_sqrt(matrix)
    torch.testing.assert_close(root @ root, matrix)
    torch.testing.assert_close(root, root.T)
    if rank == size:  # scipy warns of singular ones
        torch.testing.assert_close(root, torch.from_numpy(scipy.linalg.sqrtm(matrix.numpy())))


@pytest.mark.smoke
def test_frechet_distance_is_scipys():
    """With the square root of a product that is not symmetric, as the formula has it."""
    one = torch.randn(200, 6) @ torch.randn(6, 6)
    other = torch.randn(150, 6) @ torch.randn(6, 6) + 1
    difference = (one.double().mean(0) - other.double().mean(0)).numpy()
    first, second = np.cov(one.double().T), np.cov(other.double().T)
    root = scipy.linalg.sqrtm(first @ second)
    expected = difference @ difference + np.trace(first + second - 2 * root.real)
    assert metrics.frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)
    assert metrics.frechet_distance(other, one) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_what_is_known():
    """Scaled by s and moved by v: tr(C) (1 - s)² + ‖v‖², for √C commutes with itself."""
    points = torch.randn(500, 4, dtype=torch.float64) @ torch.randn(4, 4, dtype=torch.float64)
    points = points - points.mean(0)
    trace, moved = points.T.cov().trace().item(), torch.tensor([1.0, -2.0, 0.5, 0.0])
    distance = metrics.frechet_distance(points, 3 * points + moved)
    assert distance == pytest.approx(4 * trace + 5.25, rel=1e-9)
    assert metrics.frechet_distance(points, points) == pytest.approx(0, abs=1e-9)
    flat = points[:, :1].expand(-1, 4)  # a singular covariance
    variance = flat[:, 0].var().item()
    assert metrics.frechet_distance(flat, 2 * flat) == pytest.approx(4 * variance, rel=1e-6)


@pytest.mark.parametrize("chunk", [7, 1000])
def test_precision_and_recall_are_those_of_scikit_learns_neighbours(chunk, monkeypatch):
    monkeypatch.setattr(metrics, "CHUNK", chunk)
    real = torch.randn(60, 3, dtype=torch.float64)
    fake = 0.5 * torch.randn(50, 3, dtype=torch.float64) + 0.8

    def share(inner, outer):
        distances, _ = NearestNeighbors(n_neighbors=4).fit(outer).kneighbors(outer)
        apart = np.linalg.norm(inner.numpy()[:, None] - outer.numpy()[None], axis=2)
        return (apart <= distances[:, 3]).any(1).mean()

    precision, recall = metrics.precision_recall(real, fake, 3)
    assert (precision, recall) == (share(fake, real), share(real, fake))
    assert 0 < recall < precision < 1, "a narrow cloud within a wide one"


def test_precision_without_recall_and_neither():
    real = torch.cat([torch.randn(40, 2), torch.randn(40, 2) + 100])
    precision, recall = metrics.precision_recall(real, torch.randn(40, 2) * 0.5)
    assert precision > 0.9 and recall < 0.6, "one mode of two"
    assert metrics.precision_recall(real, real + 1000) == (0, 0)


# ---- losses ----


@pytest.mark.smoke
def test_losses_are_those_of_the_papers():
    real, fake = torch.randn(9, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    ones, zeros = torch.ones_like(real), torch.zeros_like(real)
    bce = F.binary_cross_entropy_with_logits
    expected = {
        "non-saturating": (bce(real, ones) + bce(fake, zeros), bce(fake, ones)),
        "saturating": (bce(real, ones) + bce(fake, zeros), (1 - fake.sigmoid()).log().mean()),
        "hinge": (sum((1 - real).clamp(min=0) + (1 + fake).clamp(min=0)) / 9, -fake.mean()),
        "wasserstein": (fake.mean() - real.mean(), -fake.mean()),
    }
    assert LOSSES.keys() == expected.keys()
    for name, (discriminator, generator) in LOSSES.items():
        torch.testing.assert_close(discriminator(real, fake), expected[name][0])
        torch.testing.assert_close(generator(fake), expected[name][1])


def test_losses_are_finite_however_sure_the_discriminator_is():
    sure = torch.tensor([-1e4, 1e4])
    bce = F.binary_cross_entropy_with_logits
    expected = bce(sure, torch.ones(2)) + bce(sure, torch.zeros(2))
    assert LOSSES["non-saturating"][0](sure, sure) == expected == 1e4


@pytest.mark.parametrize("logit", [-1e4, -20.0, 0.0, 20.0, 1e4])
def test_the_saturating_gradient_vanishes_where_the_other_is_largest(logit):
    """-σ(a) and σ(a) - 1: both push a up, one hardly at all where the discriminator is sure."""
    for name, expected in (
        ("saturating", -1 / (1 + math.exp(-logit)) if logit > -700 else 0.0),
        ("non-saturating", 1 / (1 + math.exp(-logit)) - 1 if logit > -700 else -1.0),
    ):
        a = torch.tensor([logit], dtype=torch.float64, requires_grad=True)
        LOSSES[name][1](a).backward()
        assert a.grad.item() == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_optimal_discriminator_is_the_ratio_and_its_loss_the_jensen_shannon_divergence():
    """With p and q on three values: the gradient is zero at a = log p/q, where the loss is
    2 log 2 - 2 JS(p, q) (Goodfellow et al., 2014, proposition 1 and theorem 1)."""
    p, q = torch.tensor([5, 3, 2]), torch.tensor([2, 2, 6])
    logits = (p / q).double().log().requires_grad_()
    values = torch.arange(3)
    loss = LOSSES["non-saturating"][0](
        logits[values.repeat_interleave(p)], logits[values.repeat_interleave(q)]
    )
    loss.backward()
    torch.testing.assert_close(logits.grad, torch.zeros(3, dtype=torch.float64))
    p, q = p.double() / 10, q.double() / 10
    middle = (p + q) / 2
    divergence = (p * (p / middle).log() + q * (q / middle).log()).sum() / 2
    assert loss.item() == pytest.approx(2 * math.log(2) - 2 * divergence.item())


def small_critic(kind: str):
    if kind == "dense":
        return DenseDiscriminator((3,), [7, 5]), torch.randn(4, 3), torch.randn(4, 3)
    shape = (2, 8, 8)
    critic = ConvDiscriminator(shape, 3, kind, num_classes=3)
    for parameter in critic.parameters():  # DCGAN's small weights make all norms small
        nn.init.normal_(parameter, std=0.3)
    for _ in range(20):  # spectral norm gets to know these weights
        critic(torch.randn(4, *shape), torch.tensor([0, 1, 2, 1]))
    critic.eval()
    return critic, torch.randn(4, *shape), torch.randn(4, *shape)


@pytest.mark.smoke
def test_gradient_penalty_of_a_plane_is_known():
    weight = torch.tensor([3.0, -4.0])  # a slope of 5, everywhere
    real, fake = torch.randn(6, 2), torch.randn(6, 2)
    assert gradient_penalty(lambda x, labels: x @ weight, real, fake).item() == pytest.approx(16)


@pytest.mark.parametrize("kind", ["dense", "none", "spectral"])
def test_gradient_penalty_against_finite_differences(kind):
    """The gradient's norm by differences of f, and the penalty's own gradient by those of it."""
    critic, real, fake = small_critic(kind)
    critic, real, fake = critic.double(), real.double(), fake.double()
    labels, h = torch.tensor([0, 1, 2, 1]), 1e-6

    def penalty():
        torch.manual_seed(1)  # the same places between
        return gradient_penalty(critic, real, fake, labels)

    torch.manual_seed(1)
    t = torch.rand(4, *[1] * (real.dim() - 1), dtype=torch.float64)
    between = t * real + (1 - t) * fake
    slopes = torch.zeros_like(between)
    with torch.no_grad():
        for place in range(between[0].numel()):
            step = torch.zeros_like(between[0]).flatten()
            step[place] = h
            step = step.view(between[0].shape)
            up, down = critic(between + step, labels), critic(between - step, labels)
            slopes.view(4, -1)[:, place] = (up - down) / (2 * h)
    expected = (slopes.flatten(1).norm(dim=1) - 1).square().mean()
    value = penalty()
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)

    value.backward()
    weights = [w for w in critic.parameters() if w.grad is not None and w.dim() > 1]
    assert weights
    for weight in weights:
        place = weight.grad.abs().flatten().argmax()
        difference, flat = 0, weight.data.view(-1)
        for sign in (1, -1):
            flat[place] += sign * h
            difference += sign * penalty().item()
            flat[place] -= sign * h
        assert weight.grad.flatten()[place].item() == pytest.approx(difference / (2 * h), rel=1e-4)


# ---- the networks ----


@pytest.mark.smoke
@pytest.mark.parametrize(
    "size, expected",
    [(8, [4, 8]), (28, [3, 7, 14, 28]), (64, [4, 8, 16, 32, 64]), (71, [4, 8, 17, 35, 71])],
)
def test_sides_are_halved_down_to_a_few_pixels(size, expected):
    assert sides(size) == expected


@pytest.mark.parametrize("size", [1, 4, 7])
def test_tiny_sides_are_refused(size):
    with pytest.raises(ValueError, match=f"{size} pixels"):
        sides(size)


def test_the_last_maps_see_most_of_a_digit():
    """A number in the middle of them depends on 22 × 22 of the 28 × 28 pixels: 4 + 3·2 + 3·4."""
    images = torch.randn(1, 1, 28, 28, requires_grad=True)
    critic = ConvDiscriminator((1, 28, 28), channels=4, norm="none")
    maps = critic.layers[:-1](images)  # before they are flattened
    assert maps.shape == (1, 16, 3, 3)
    maps[0, :, 1, 1].sum().backward()
    seen = images.grad[0, 0] != 0
    assert (seen.any(0).sum(), seen.any(1).sum()) == (22, 22)


def test_at_64_pixels_it_is_pytorchs_example():
    """It has 3,576,704 parameters without the biases that ours has."""
    generator = ConvGenerator((3, 64, 64), 100, channels=64)
    maps = [layer for layer in generator.layers if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.in_channels for layer in maps] == [512, 256, 128, 64]
    biases = sum(layer.bias.numel() for layer in (generator.layers[0], *maps))
    assert sum(p.numel() for p in generator.parameters()) == 3_576_704 + biases
    critic = ConvDiscriminator((3, 64, 64), channels=64)
    norms = [layer.num_features for layer in critic.layers if isinstance(layer, nn.BatchNorm2d)]
    assert norms == [128, 256, 512], "not next to the pixels"


@pytest.mark.smoke
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 16, 16), (1, 45, 45)])
@pytest.mark.parametrize("K", [0, 4])
def test_shapes(shape, K):
    labels = torch.arange(5) % 4
    for generator, discriminator in (
        (ConvGenerator(shape, 6, 4, K), ConvDiscriminator(shape, 4, "batch", K)),
        (DenseGenerator(shape, 6, [8], K), DenseDiscriminator(shape, [8], "spectral", K)),
    ):
        fake = generator(torch.randn(5, 6), labels)
        assert fake.shape == (5, *shape) and fake.abs().max() <= 1
        assert discriminator(fake, labels).shape == (5,)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_spectral_norm_makes_the_largest_singular_value_one(kind):
    if kind == "dense":
        critic, x = DenseDiscriminator((9,), [20, 30], "spectral", 4), torch.randn(3, 9)
    else:
        critic, x = ConvDiscriminator((2, 8, 8), 6, "spectral", 4), torch.randn(3, 2, 8, 8)
    for _ in range(60):  # a power iteration each
        critic(x, torch.tensor([0, 1, 2]))
    layers = [*critic.layers, critic.head, critic.classes]
    weights = [layer.weight for layer in layers if hasattr(layer, "parametrizations")]
    assert len(weights) == (4 if kind == "dense" else 3)
    for weight in weights:
        largest = torch.linalg.svdvals(weight.detach().flatten(1))[0].item()
        assert largest == pytest.approx(1, abs=0.02)


def test_a_conditional_discriminator_adds_a_product_with_its_class():
    critic = DenseDiscriminator((3,), [7, 5], num_classes=4)
    x, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 3, 3, 0])
    features = critic.layers(x)
    vectors = torch.stack([critic.classes.weight[label] for label in labels])
    expected = critic.head(features)[:, 0] + torch.einsum("nd,nd->n", features, vectors)
    torch.testing.assert_close(critic(x, labels), expected)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_the_slope_is_a_factor_of_the_logits_and_of_what_bounds_them(kind):
    """Spectral norm bounds a dense discriminator's slope by 1. A factor of 3 makes it 3."""
    shape, build = (9,), partial(DenseDiscriminator, hidden_sizes=[20, 30], norm="spectral")
    if kind == "conv":
        shape, build = (2, 8, 8), partial(ConvDiscriminator, channels=6, norm="spectral")
    critics = [build(shape, num_classes=4, slope=slope) for slope in (1.0, 3.0)]
    critics[1].load_state_dict(critics[0].state_dict())
    x, labels = torch.randn(50, *shape, requires_grad=True), torch.arange(50) % 4
    for critic in critics:
        for _ in range(60):  # a power iteration each
            critic(x, labels)
        critic.eval()
    plain, steep = (critic(x, labels) for critic in critics)
    torch.testing.assert_close(steep, 3 * plain)
    if kind == "dense":
        critics[1].classes = None  # it has a bound of its own
        (gradient,) = torch.autograd.grad(critics[1](x).sum(), x)
        assert 0.03 < gradient.norm(dim=1).max() <= 3.05


def test_a_conditional_generator_sees_its_class_beside_z():
    generator = DenseGenerator((3,), 2, [7], num_classes=4)
    z, labels = torch.randn(5, 2), torch.tensor([0, 1, 2, 3, 1])
    expected = generator.layers(torch.cat([z, torch.eye(4)[labels]], dim=1))
    torch.testing.assert_close(generator(z, labels), expected)
    assert not torch.allclose(generator(z, labels), generator(z, labels.flip(0)))


# ---- clusters in place of classes ----


def test_clusters_are_the_modes_whatever_the_labels_and_however_many_threads():
    """Of the ring, which k-means can tell apart; scikit-learn's index of agreement is 1."""
    train = ring.make("train").take(torch.arange(2_000))
    mixed = Split(train.inputs, train.labels[torch.randperm(2_000)], train.classes, {})
    found = [with_clusters(split, 8) for split in (train, mixed)]
    assert adjusted_rand_score(train.labels, found[0].labels) > 0.999
    assert torch.equal(found[0].labels, found[1].labels) and found[0].classes == list("01234567")
    with threadpool_limits(2):
        assert torch.equal(k_means(as_points(train.inputs), 8), found[0].labels)
    assert with_clusters(train, 0) is train


def test_images_are_compared_at_14_by_14_pixels():
    """Of a digit, each is a mean over 2 × 2, so neighbours in a stroke are near to each other."""
    images = torch.randint(0, 256, (3, 2, 28, 28), dtype=torch.uint8)
    expected = images.float().view(3, 2, 14, 2, 14, 2).mean((3, 5)).flatten(1)
    torch.testing.assert_close(as_points(images), expected)
    assert as_points(images[..., :9, :9]).shape == (3, 2 * 9 * 9)
    assert as_points(images.repeat(1, 1, 2, 2)).shape == (3, 2 * 14 * 14)


def test_clusters_are_drawn_as_often_as_they_occur():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    split = Split(torch.randn(100, 2), labels, list("012"), {})
    flags = dict(model="gan", clusters=3, norm="none", slope=1.0, latent_dim=4, hidden_sizes=[5])
    flags = Namespace(**flags)
    kind = Kind.of(split, 3)
    generator = build_model(flags, kind).generator
    torch.testing.assert_close(generator.shares, torch.tensor([0.5, 0.3, 0.2]))
    drawn = draw_labels(10_000, generator, 7)
    counts = drawn.bincount(minlength=3)
    assert scipy.stats.chisquare(counts, 10_000 * generator.shares.double()).pvalue > 0.01
    assert torch.equal(drawn, draw_labels(10_000, generator, 7))
    assert not torch.equal(drawn, draw_labels(10_000, generator, 8))
    assert drawn[:100].bincount(minlength=3).min() > 5, "the first of them are a sample, too"
    other = build_model(flags, Kind(**kind.state_dict())).generator  # as out of a checkpoint
    assert torch.equal(other.shares, generator.shares) and not other.labelled


def test_other_clusters_than_before_are_not_taken_for_the_same():
    kind = Kind((2,), list("012"), [50, 30, 20])
    kind.load_state_dict(kind.state_dict())
    with pytest.raises(ValueError, match="other clusters"):
        kind.load_state_dict(Kind((2,), list("012"), [30, 50, 20]).state_dict())
    plain = Kind((2,), list("012"))
    assert "sizes" not in plain.state_dict()  # as runs of before have it


def test_fewer_different_examples_than_clusters_are_one_line():
    few = Split(torch.randn(3, 2).repeat(5, 1), torch.zeros(15), ["0"], {})
    with pytest.raises(UserError, match="--clusters 4: only 3 examples differ"):
        with_clusters(few, 4)
    assert with_clusters(few, 3).labels.bincount().tolist() == [5, 5, 5]


# ---- whose step changes what ----


def test_the_classifier_leaves_the_generators_of_the_run_alone(monkeypatch):
    """Those of GPUs, too, which torch.manual_seed would seed."""
    digits, seeds = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8), []
    before = torch.get_rng_state()
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    classifier.train_classifier(Split(digits, torch.arange(20) % 2, ["even", "odd"], {}))
    assert torch.equal(torch.get_rng_state(), before) and seeds == []


def players(norm: str, K: int = 0) -> GAN:
    shape = (1, 16, 16)
    return GAN(ConvGenerator(shape, 5, 4, K), ConvDiscriminator(shape, 4, norm, K)).train()


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module, before):
    return {n for n, value in module.state_dict().items() if not torch.equal(value, before[n])}


STEPS = [
    ("batch", 0, "non-saturating", 0.0, []),
    ("spectral", 3, "hinge", 0.0, ["translation"]),
    ("none", 0, "wasserstein", 10.0, ["cutout"]),
    ("batch", 3, "saturating", 0.0, []),
]


@pytest.mark.smoke
@pytest.mark.parametrize("norm, K, loss, penalty, augment", STEPS)
def test_each_player_s_step_leaves_the_other_untouched(norm, K, loss, penalty, augment):
    """Weights, running statistics of batch norm, vectors of spectral norm, and gradients."""
    model = players(norm, K)
    args = Namespace(latent_dim=5, precision="float32", loss=loss, penalty=penalty)
    augment = Augmentation(augment, (1, 16, 16))
    real, labels = torch.rand(6, 1, 16, 16) * 2 - 1, torch.arange(6) % max(K, 1)
    optimizers = {name: torch.optim.Adam(getattr(model, name).parameters(), lr=0.01)
                  for name in ("generator", "discriminator")}  # fmt: skip

    before = state_of(model)
    discriminator_step(model, optimizers["discriminator"], real, labels, args, augment)
    touched = changed(model, before)
    assert {name.split(".")[0] for name in touched} == {"discriminator"}
    learned = {name for name, _ in model.named_parameters() if name.startswith("discriminator")}
    assert learned - {"discriminator.head.bias"} <= touched
    assert all(p.grad is None for p in model.generator.parameters())
    assert all(p.requires_grad for p in model.parameters())

    before = state_of(model)
    gradients = [p.grad.clone() for p in model.discriminator.parameters()]
    generator_step(model, optimizers["generator"], labels, args, augment)
    touched = changed(model, before)
    assert {name.split(".")[0] for name in touched} == {"generator"}
    statistics = {name for name in before if name.startswith("generator") and "running" in name}
    assert statistics and statistics <= touched, "batch norm learns from the generator's own step"
    assert all(map(torch.equal, gradients, [p.grad for p in model.discriminator.parameters()]))


@pytest.mark.parametrize("penalty", [0.0, 10.0])
def test_steps_follow_the_gradient_of_their_own_loss(penalty):
    """Against the losses written out on copies; both see real and generated images changed."""

    def flip(images):
        return 0.5 * images.flip(3)

    def matches(player, other):
        for ours, theirs in zip(player.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad)

    model = players("none")
    other = copy.deepcopy(model)
    args = Namespace(latent_dim=5, precision="float32", loss="non-saturating", penalty=penalty)
    real, labels = torch.rand(6, 1, 16, 16) * 2 - 1, torch.zeros(6, dtype=torch.long)
    sgd = [torch.optim.SGD(p.parameters(), lr=0.1) for p in (model.generator, model.discriminator)]

    torch.manual_seed(7)
    loss, norm = discriminator_step(model, sgd[1], real, labels, args, flip)
    torch.manual_seed(7)
    seen, fake = flip(real), flip(other.generator(torch.randn(6, 5))).detach()
    expected = -(other.discriminator(seen).sigmoid().log().mean()
                 + (1 - other.discriminator(fake).sigmoid()).log().mean())  # fmt: skip
    if penalty:
        expected = expected + penalty * gradient_penalty(other.discriminator, seen, fake)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    flat = torch.cat([p.grad.flatten() for p in other.discriminator.parameters()])
    torch.testing.assert_close(norm, flat.norm())
    matches(model.discriminator, other.discriminator)

    other = copy.deepcopy(model)
    torch.manual_seed(8)
    loss, norm = generator_step(model, sgd[0], labels, args, flip)
    torch.manual_seed(8)
    fake = flip(other.generator(torch.randn(6, 5)))
    expected = -other.discriminator(fake).sigmoid().log().mean()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    flat = torch.cat([p.grad.flatten() for p in other.generator.parameters()])
    torch.testing.assert_close(norm, flat.norm())
    matches(model.generator, other.generator)


@pytest.mark.parametrize("warmup", [False, True])
def test_average_of_a_generator_is_that_written_out(warmup):
    """Of a batch norm's running statistics as well; in a short run the first weights are left."""
    model = players("batch").generator
    average = moving_average(model, 0.9, warmup)
    expected = None
    for n in range(1, 101):
        with torch.no_grad():
            for tensor in (*model.parameters(), model.layers[2].running_mean):
                tensor.fill_(float(n))
        average.update_parameters(model)
        decay = min(0.9, n / (9 + n)) if warmup else 0.9
        expected = 1.0 if n == 1 else decay * expected + (1 - decay) * n
        if n == 5:
            assert (expected > 4) == warmup
        for tensor in (*average.module.parameters(), average.module.layers[2].running_mean):
            torch.testing.assert_close(tensor, torch.full_like(tensor, expected))
    assert average.module.layers[2].num_batches_tracked == model.layers[2].num_batches_tracked


def test_a_spectator_is_put_back_even_after_an_error():
    model = players("batch")
    before = state_of(model.discriminator)
    with pytest.raises(KeyError), spectator(model.discriminator) as player:
        player(torch.randn(4, 1, 16, 16))
        assert changed(player, before)
        raise KeyError
    assert not changed(model.discriminator, before)
    assert all(p.requires_grad for p in model.parameters())


# ---- augmentation ----


def test_without_names_nothing_is_changed():
    images = torch.randn(3, 1, 8, 8)
    assert Augmentation([], DIGIT)(images) is images
    assert Augmentation([], (2,))(images[:, 0, 0, :2]).shape == (3, 2)


def test_translation_moves_by_whole_pixels_and_fills_with_black():
    images = torch.rand(40, 1, 16, 16) * 2 - 1
    moved = Augmentation(["translation"], (1, 16, 16))(images)
    padded = F.pad(images, (2, 2, 2, 2), value=-1.0)
    found = set()
    for n in range(40):
        places = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.allclose(moved[n], padded[n, :, y : y + 16, x : x + 16], atol=1e-5)
        ]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) > 10, "each image has its own way to go"


def test_cutout_paints_a_quarter_black():
    images = torch.ones(10, 3, 16, 16)
    cut = Augmentation(["cutout"], (3, 16, 16))(images)
    black = (cut == -1).all(1)
    assert torch.equal(cut == -1, (cut < 0.99)) and torch.equal(
        black.sum((1, 2)), torch.full((10,), 64)
    )
    assert len({tuple(b.nonzero()[0].tolist()) for b in black}) > 3


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["colour", "translation", "cutout"])
@pytest.mark.parametrize("C", [1, 3])
def test_augmentation_can_be_differentiated(name, C):
    """Its derivative in a direction is what differences say."""
    augment = Augmentation([name], (C, 8, 8))
    images = (torch.rand(4, C, 8, 8, dtype=torch.float64) * 2 - 1).requires_grad_()
    direction, weight, h = torch.randn_like(images), torch.randn_like(images), 1e-5

    def value(x):
        torch.manual_seed(3)
        return (augment(x) * weight).sum()

    (gradient,) = torch.autograd.grad(value(images), images)
    with torch.no_grad():
        up, down = value(images + h * direction), value(images - h * direction)
    assert (gradient * direction).sum().item() == pytest.approx(
        ((up - down) / (2 * h)).item(), rel=1e-4
    )
    assert (gradient != 0).double().mean() > 0.5


# ---- data, samples, films ----


@pytest.mark.smoke
def test_pixels_there_and_back():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    images = scaled(pixels)
    assert images.min() == -1 and images.max() == 1
    assert torch.equal(as_data(images), pixels)
    assert torch.equal(as_data(torch.tensor([[[[-7.0, 7.0]]]])).flatten(), torch.tensor([0, 255]))
    points = torch.randn(5, 2)
    assert torch.equal(scaled(points), points) and torch.equal(as_data(points), points)


def test_the_ring_is_judged_by_what_is_known():
    points = ring.make("test").inputs
    share = 1 - math.exp(-4.5)  # of a two-dimensional Gaussian, within three deviations
    assert ring.covered(points)["modes"] == 8
    assert ring.covered(points)["high_quality"] == pytest.approx(share, abs=0.003)
    assert torch.equal(points, ring.make("test").inputs)
    assert not torch.equal(points[:100], ring.make("train").inputs[:100])
    one = ring.centres()[3] + ring.STD * torch.randn(5_000, 2)
    assert ring.covered(one)["modes"] == 1
    assert ring.covered(one)["high_quality"] == pytest.approx(share, abs=0.01)
    middle = 0.1 * torch.randn(1_000, 2)
    assert ring.covered(middle) == {"modes": 0, "high_quality": 0}
    few = torch.cat([one, ring.centres()[5].expand(100, 2)])
    assert ring.covered(few)["modes"] == 1, "a mode with a fiftieth of the points is none"


def test_distances_on_the_ring_see_missing_and_blurred_modes(quick):
    real = ring.make("test")
    judge, generator = Judge(ring.Modes(), real), torch.Generator().manual_seed(9)

    def distance(modes, std):
        labels = torch.arange(2_000) % modes
        points = ring.centres()[labels] + std * torch.randn(2_000, 2, generator=generator)
        return metrics.frechet_distance(judge.real, judge.features([points]))

    same = distance(8, ring.STD)
    assert same < 0.02 and distance(7, ring.STD) > 3 * same and distance(8, 3 * ring.STD) > 3 * same


@pytest.mark.smoke
def test_samples_depend_on_the_seed_alone_and_not_on_the_batch():
    generator = ConvGenerator(DIGIT, 5, 4)
    generator(torch.randn(20, 5))  # statistics of some batch
    generator.eval()
    z, labels = latents(7, generator, 3), draw_labels(7, generator, 3)
    images = sample(generator, z, labels)
    torch.rand(11)
    assert torch.equal(images, sample(generator, latents(7, generator, 3), labels))
    assert not torch.equal(images, sample(generator, latents(7, generator, 4), labels))
    single = [sample(generator, z[n : n + 1], labels[n : n + 1]) for n in range(7)]
    assert (torch.cat(single).int() - images.int()).abs().max() <= 1


def test_interpolation_goes_from_one_latent_to_another_at_even_pace():
    generator = DenseGenerator((2,), 50, [4], num_classes=3)
    z, labels = interpolations(generator, lines=4, steps=6, seed=0)
    z, ends = z.view(4, 6, 50), latents(8, generator, 0)
    torch.testing.assert_close(z[:, 0], ends[:4])
    torch.testing.assert_close(z[:, -1], ends[4:])
    units = F.normalize(z, dim=2)
    angles = (units[:, 1:] * units[:, :-1]).sum(2).clamp(-1, 1).acos()
    torch.testing.assert_close(angles[:, 1:-1].std(1) / angles.mean(1), torch.zeros(4), atol=0.2,
                               rtol=0)  # fmt: skip
    assert (z.norm(dim=2) > 5).all(), "the straight line comes as near as 5 to the origin"
    assert labels.view(4, 6).tolist() == [[k % 3] * 6 for k in range(4)]
    assert interpolations(generator, 2, 3, 0, label=2)[1].tolist() == [2] * 6


@pytest.mark.pictures
def test_best_epoch_of_a_game_has_the_lowest_frechet_distance(tmp_path):
    rows = [
        {"epoch": n + 1, "dataset": "ring", "train_loss": 1.0, "validation_frechet_distance": d}
        for n, d in enumerate([3.0, 1.0, 2.0])
    ]
    assert history.best_row(rows) is rows[1]
    draw_curves(tmp_path / "curves.png", rows)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_diary_survives_and_notices_what_is_not_finite():
    diary, other = Diary(), Diary()
    assert diary.add("generator", 1, torch.tensor(0.5), torch.tensor(2.0))
    assert not diary.add("generator", 2, torch.tensor(math.nan), torch.tensor(2.0))
    assert not diary.add("discriminator", 2, torch.tensor(1.0), torch.tensor(math.inf))
    other.load_state_dict(diary.state_dict())
    assert other.rows("generator")[0].tolist() == [1, 0.5, 2.0]
    assert str(other.state_dict()) == str(diary.state_dict())


# ---- the classifier that judges ----


def digits_args(place, **more):
    return Namespace(dataset="mnist", data_dir=str(place), image_size=None, **more)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder with a few images like MNIST's, in which a classifier will be kept."""
    return make_digits(tmp_path_factory.mktemp("digits"), sizes=(240, 80))


def test_the_classifier_learns_once_and_is_kept_beside_the_data(digits, monkeypatch, capsys):
    train, validation = dataset.load_training(digits_args(digits))
    torch.manual_seed(5)
    model = classifier.find_classifier(digits_args(digits), train, validation)
    after = torch.rand(())
    assert model.accuracy > 0.9, "a bright row tells the class"
    (path,) = (digits / "MNIST" / "raw").glob("gan-classifier-*.safetensors")
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(classifier, "train_classifier", None)  # not again
        again = classifier.find_classifier(digits_args(digits), train, validation)
    assert capsys.readouterr().out == ""
    assert (again.fingerprint, again.accuracy) == (model.fingerprint, model.accuracy)
    assert len(model.fingerprint) == 12
    images = train.inputs[:5]
    torch.testing.assert_close(model(images), again(images))

    path.write_bytes(path.read_bytes()[:500])  # cut short: trained anew, and the same
    torch.manual_seed(5)
    assert classifier.find_classifier(digits_args(digits), train, validation).fingerprint == (
        model.fingerprint
    )
    assert torch.equal(after, torch.rand(())), "the run's random numbers are left alone"


def test_where_data_cannot_be_written_to_the_classifier_is_kept_in_dataset(
    digits, tmp_path, monkeypatch
):
    monkeypatch.setattr(classifier, "FOLDER", tmp_path)
    train, _ = dataset.load_training(digits_args(digits))
    raw = digits / "MNIST" / "raw"
    assert classifier.kept_where(digits_args(digits), train).parent == raw
    raw.chmod(0o555)
    try:
        path = classifier.kept_where(digits_args(digits), train)
    finally:
        raw.chmod(0o755)
    assert path.parent == tmp_path / "dataset"
    other = Split(train.inputs, train.labels, train.classes, {"a file": "another checksum"})
    assert classifier.kept_where(digits_args(digits), other).name != path.name


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "mnist-sample"])
def test_the_files_that_records_tell_of_keep_their_names(name, tmp_path, monkeypatch):
    """Their labels are in the checksums of their data."""
    monkeypatch.setattr(mnist, "find_files", lambda *_: tmp_path)
    images, labels = torch.zeros(6, 1, 4, 5, dtype=torch.uint8), torch.arange(6) % 2
    train = Split(images, labels, ["0", "1"], {"a": "b"})
    path = classifier.kept_where(Namespace(dataset=name, data_dir=None), train)
    assert path.name == "gan-classifier-9ecc49b5345986eb.safetensors"


def test_an_older_file_s_accuracy_is_the_one_that_records_hold(digits, monkeypatch):
    """Which says nothing of the split that it was measured on: beside MNIST's there is no other."""
    train, validation = dataset.load_training(digits_args(digits))
    classifier.find_classifier(digits_args(digits), train, validation)
    path = classifier.kept_where(digits_args(digits), train)
    state = checkpoint.load(path)
    del state["validation"]
    checkpoint.save(path, {**state, "accuracy": 0.125})
    monkeypatch.setattr(classifier, "train_classifier", None)  # not again
    found = classifier.find_classifier(digits_args(digits), train, validation)
    path.unlink()
    assert found.accuracy == 0.125


@pytest.fixture
def two_kinds(tmp_path):
    """A folder of dark images and of bright ones: its place, and the flags of a run on it."""
    for split, number in (("train", 20), ("val", 6), ("test", 6)):
        for bright, name in enumerate(("dark", "light")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for n in range(number):
                Image.new("RGB", (8, 8), (200 * bright + n,) * 3).save(folder / f"{n:02d}.png")
    place = tmp_path / "photos"
    return place, Namespace(dataset="folder", data_dir=str(place), image_size=8)


def swap(one, other):
    """Give each of two files or folders the other's name."""
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


def test_a_folder_labelled_anew_has_a_classifier_of_its_own(two_kinds):
    """The same images in the same order, of which one has another class."""
    place, args = two_kinds
    train, _ = dataset.load_training(args)
    path = classifier.kept_where(args, train)
    (place / "train" / "dark" / "19.png").rename(place / "train" / "light" / "-.png")
    again, _ = dataset.load_training(args)
    assert again.checksums == train.checksums and torch.equal(again.inputs, train.inputs)
    assert classifier.kept_where(args, again) != path
    (place / "train" / "light" / "-.png").rename(place / "train" / "dark" / "19.png")
    assert classifier.kept_where(args, dataset.load_training(args)[0]) == path


def test_a_kept_classifier_s_accuracy_is_on_the_validation_split_that_is_there(
    two_kinds, monkeypatch
):
    place, args = two_kinds
    first = classifier.find_classifier(args, *dataset.load_training(args))
    assert first.accuracy == 1, "dark or bright"
    monkeypatch.setattr(classifier, "train_classifier", None)  # not again
    for changed, reached in ((place / "val", 0), (place / "val", 1)):
        swap(changed / "dark", changed / "light")
        again = classifier.find_classifier(args, *dataset.load_training(args))
        assert (again.accuracy, again.fingerprint) == (reached, first.fingerprint)
    for n in range(3):
        swap(*(place / "val" / name / f"0{n}.png" for name in ("dark", "light")))
    assert classifier.find_classifier(args, *dataset.load_training(args)).accuracy == 0.5


@pytest.mark.parametrize("hindrance", ["a folder has its name", "its folder is a file"])
def test_a_classifier_that_cannot_be_kept_judges_all_the_same(
    hindrance, two_kinds, tmp_path, monkeypatch, capsys
):
    _, args = two_kinds
    path = tmp_path / "there" / "classifier.safetensors"
    if hindrance == "a folder has its name":
        path.mkdir(parents=True)
    else:
        path.parent.touch()
    monkeypatch.setattr(classifier, "kept_where", lambda *_: path)
    found = [classifier.find_classifier(args, *dataset.load_training(args)) for _ in range(2)]
    assert found[0].accuracy == 1 and found[0].fingerprint == found[1].fingerprint
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0] == lines[1]
    assert "not kept" in lines[0] and str(path.parent) in lines[0]


def test_images_of_one_class_are_told_apart_by_their_turn():
    images, labels = torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.long)
    turned, turns = classifier.task(images, labels, ["all"])
    assert turned.shape == (12, 1, 4, 4) and turns.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    torch.testing.assert_close(turned[9:].rot90(1, (2, 3)), images)
    assert classifier.task(images, labels, ["a", "b"])[0] is images


def test_real_images_pass_their_own_examination(digits):
    """A generator that gives real images back: as near to them as they to each other."""
    args = digits_args(digits)
    train, validation = dataset.load_training(args)
    test = dataset.load_test(args)

    class Copier(ConvGenerator):
        def forward(self, z, labels=None):
            places = torch.arange(len(z)) + self.shown
            self.shown += len(z)
            return scaled(test.inputs[places % len(test)])

    generator = Copier(DIGIT, 4, 2)
    generator.shown = 0
    judge = Judge(classifier.find_classifier(args, train, validation), test)
    found = judge.test(generator)
    assert found["frechet_distance"] < 2 * found["frechet_floor"]
    assert found["confident_share"] == found["real_confident_share"] > 0.5
    assert found["class_deviation"] == found["real_class_deviation"]
    assert found["precision"] > 0.9 and found["recall"] > 0.9
    assert "as_asked" not in found
    assert judge.observer.fingerprint in judge.signature and "40 generated" in judge.signature


def test_a_conditional_generator_is_compared_by_the_classes_of_the_real_data(digits):
    """However unequal they are; what the classifier says of it is of all classes equally often."""
    args = digits_args(digits)
    train, validation = dataset.load_training(args)
    order = train.labels.argsort()  # mostly zeros
    real = train.take(torch.cat([order[:18], order[-2:]])[torch.randperm(20)])
    asked = []

    class Notebook(ConvGenerator):
        def forward(self, z, labels=None):
            asked.append(labels)
            return super().forward(z, labels)

    judge = Judge(classifier.find_classifier(args, train, validation), real)
    generator = Notebook(DIGIT, 4, 2, len(train.classes))
    judge.validate(generator)
    assert torch.equal(torch.cat(asked), real.labels)
    asked.clear()
    assert judge.test(generator)["as_asked"] <= 1
    assert torch.cat(asked).tolist() == [*real.labels.tolist(), *range(10), *range(10)]


def test_the_floor_is_the_mean_over_halvings(monkeypatch):
    """Which varies less with the seed, around the same value."""
    real, generator = ring.make("test").take(torch.arange(400)), DenseGenerator((2,), 4, [8])
    floors = []
    for halvings in (1, 10):
        monkeypatch.setattr(judging, "HALVINGS", halvings)
        floors.append([])
        for seed in range(12):
            monkeypatch.setattr(judging, "SEED", seed)
            floors[-1].append(Judge(ring.Modes(), real).test(generator)["frechet_floor"])
    single, mean = torch.tensor(floors)
    assert mean.std() < 0.6 * single.std()
    assert (mean.mean() - single.mean()).abs() < 2 * single.std() / 12**0.5


# ---- learning ----


@pytest.mark.pictures
def test_on_the_ring_it_learns_where_the_modes_are(tmp_path, monkeypatch, capsys):
    few_shapes(monkeypatch)
    monkeypatch.setitem(ring.SIZES_SEEDS, "train", (4_096, 1))
    flags = ["--dataset", "ring", "--epochs", 16, "--hidden-sizes", 64, 64, "--batch-size", 128]
    flags += ["--ema", 0.9, "--critic-steps", 2, "--penalty", 0.1, "--lr", 2e-3]
    result = call(capsys, script.main, *flags, "--run-dir", tmp_path / "run")
    assert (result.code, result.err) == (0, "")
    distances = [float(row["validation_frechet_distance"]) for row in rows_of(tmp_path / "run")]
    assert min(distances) < 0.6 * distances[0]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"curves.png", "players.png", "training.gif", "frames"} <= names
    with Image.open(tmp_path / "run" / "training.gif") as film:
        assert film.n_frames == sum(map(is_filmed, range(1, 17)))

    result = call(capsys, evaluate, "--run-dir", tmp_path / "run")
    assert (result.code, result.err) == (0, "") and "modes" in result.out
    assert (tmp_path / "run" / "ring.png").is_file()


def test_clusters_keep_the_first_gan_from_losing_modes(quick, tmp_path, monkeypatch, capsys):
    """The same few steps, with and without."""
    monkeypatch.setitem(ring.SIZES_SEEDS, "train", (8_192, 1))
    monkeypatch.setitem(ring.SIZES_SEEDS, "validation", (2_000, 2))
    monkeypatch.setitem(ring.SIZES_SEEDS, "test", (2_000, 3))
    found = []
    for clusters in (0, 8):
        flags = ["--dataset", "ring", "--model", "gan", "--epochs", 20, "--batch-size", 128]
        flags, run = [*flags, "--clusters", clusters], tmp_path / str(clusters)
        assert call(capsys, script.main, *flags, "--run-dir", run).code == 0
        args = Namespace(run_dir=str(run), device="cpu")
        _, _, _, model = load_trained(script.FOLDER, args, script.make_parser())
        found.append(Judge(ring.Modes(), ring.make("test")).test(model.generator))
    assert found[0]["modes"] <= 2 and found[1]["modes"] == 8
    assert found[1]["high_quality"] > 0.8 > 0.3 > found[0]["high_quality"]
    assert found[1]["frechet_distance"] < 0.1 * found[0]["frechet_distance"]


# ---- runs ----


def train(run_dir, *argv):
    script.main([*small("GAN"), "--run-dir", str(run_dir), *map(str, argv)])


EVERYTHING = ["--dataset", "mnist", "--model", "cgan", "--norm", "spectral", "--penalty", 1.0,
              "--critic-steps", 2, "--ema", 0.9, "--precision", "bfloat16", "--augment", "colour",
              "translation", "cutout", "--channels", 4, "--batch-size", 25, "--subset", 100,
              "--latent-dim", 4, "--epochs", 2, "--schedule", "cosine"]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits):
    """A run on images with everything, never stopped."""
    path = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.plots.draw_curves", lambda path, history: None)
        script.main([*map(str, EVERYTHING), "--data-dir", str(digits), "--run-dir", str(path)])
    return path


@pytest.mark.parametrize("how, step", [(crash, 1), (interrupt, 3), (crash, 4), (crash, 7)])
def test_stopped_anywhere_and_resumed_is_as_never_stopped(
    how, step, quick, whole, digits, tmp_path, monkeypatch
):
    """Both optimisers, the average, the diary, and the pictures for the film."""
    with monkeypatch.context() as patch, pytest.raises((Stop, KeyboardInterrupt)):
        how(patch, step)
        argv = [*EVERYTHING, "--data-dir", digits, "--run-dir", tmp_path / "run"]
        script.main(list(map(str, argv)))
    assert checkpoint.load(tmp_path / "run" / "last.safetensors")["step"] == step
    script.main(["--resume", "--run-dir", str(tmp_path / "run")])
    assert_ended_alike(tmp_path / "run", whole)
    state = checkpoint.load(whole / "last.safetensors")
    assert {"optimizer", "discriminator_optimizer", "average", "diary", "kind"} <= state.keys()
    assert [len(state["diary"][name]) for name in ("discriminator", "generator")] == [8, 4]
    frames = [sorted((path / "frames").iterdir()) for path in (tmp_path / "run", whole)]
    assert [f.read_bytes() for f in frames[0]] == [f.read_bytes() for f in frames[1]]


def test_the_ring_s_run_resumes_alike_without_an_average(quick, tmp_path, monkeypatch):
    train(tmp_path / "whole", "--ema", 0, "--epochs", 2, "--norm", "spectral")
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash(patch, 11)
        train(tmp_path / "run", "--ema", 0, "--epochs", 2, "--norm", "spectral")
    script.main(["--resume", "--run-dir", str(tmp_path / "run")])
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")


def test_the_average_of_the_generator_is_what_is_measured(quick, tmp_path, capsys):
    train(tmp_path / "run", "--ema", 0.8, "--epochs", 1, "--critic-steps", 1)
    args = Namespace(run_dir=str(tmp_path / "run"), device="cpu")
    _, _, _, model = load_trained(script.FOLDER, args, script.make_parser())
    state = checkpoint.load(tmp_path / "run" / "best.safetensors")
    for name, value in model.generator.state_dict().items():
        assert torch.equal(value, state["average"][f"module.{name}"])
        assert not torch.equal(value, state["model"][f"generator.{name}"])
    judge = Judge(ring.Modes(), ring.make("validation"))
    reached = float(rows_of(tmp_path / "run")[0]["validation_frechet_distance"])
    assert judge.validate(model.generator)["frechet_distance"] == pytest.approx(reached, rel=1e-6)


@pytest.mark.smoke
@pytest.mark.parametrize("model", ["gan", "wgan-gp", "cgan"])
def test_a_diverged_game_stops_with_a_clear_line(model, quick, tmp_path, capsys):
    argv = [*small("GAN"), "--model", model, "--lr", "1e30", "--run-dir", tmp_path / "run"]
    result = call(capsys, script.main, *argv, "--loss", "wasserstein", "--norm", "none")
    assert_one_line(result, "no longer finite", "learning rate 1e+30", "largest gradient", "--lr")
    state = checkpoint.load(tmp_path / "run" / "last.safetensors")
    assert all(value.isfinite().all() for value in state["model"].values()), "the last good one"


def test_a_generator_alone_that_diverges_is_noticed_in_its_own_step(quick, tmp_path, capsys):
    """Before a checkpoint could hold it."""
    generator = "GAN.utils.turns.LOSSES"
    losses = {
        **LOSSES,
        "wasserstein": (LOSSES["wasserstein"][0], lambda fake: fake.sum() * math.nan),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, losses)
        result = call(capsys, script.main, *small("GAN"), "--critic-steps", 3, "--run-dir",
                      tmp_path / "run")  # fmt: skip
    assert_one_line(result, "no longer finite", "nan in generator.")
    state = checkpoint.load(tmp_path / "run" / "last.safetensors")
    assert all(value.isfinite().all() for value in state["model"].values())


def test_a_history_holds_the_distances_of_one_judge(
    quick, two_kinds, tmp_path, monkeypatch, capsys
):
    """Another classifier than the run's cannot go on with it; a run from before does not know its
    own, and takes the one that is there."""
    place, args = two_kinds
    run, epochs = tmp_path / "run", iter([2, 3, 3, 4])
    flags = ["--dataset", "folder", "--data-dir", place, "--image-size", 8, "--channels", 4]
    flags += ["--batch-size", 8, "--latent-dim", 4, "--epochs", 1, "--run-dir", run]
    assert call(capsys, script.main, *flags).code == 0

    def resume():
        return call(capsys, script.main, "--resume", "--run-dir", run, "--epochs", next(epochs))

    known = classifier.find_classifier(args, *dataset.load_training(args)).fingerprint
    (kept,) = place.glob("gan-classifier-*.safetensors")
    content = kept.read_bytes()
    kept.unlink()
    assert resume().code == 0, "the same is trained again"
    assert checkpoint.load(kept)["model"].keys() and len(rows_of(run)) == 2
    kept.unlink()
    monkeypatch.setattr(classifier, "SEED", 1)
    files = files_of(run)
    capsys.readouterr()
    result = resume()
    other = classifier.find_classifier(args, *dataset.load_training(args)).fingerprint
    assert_one_line(result._replace(out=""), known, other, "without --resume")
    assert other != known and files_of(run) == files
    assert call(capsys, evaluate, "--run-dir", run).code == 0, "whose distances are its own"

    kept.write_bytes(content)
    assert resume().code == 0 and len(rows_of(run)) == 3
    path = run / "last.safetensors"
    state = checkpoint.load(path)
    assert state["diary"].pop("judge") == known
    checkpoint.save(path, state)
    kept.unlink()
    assert resume().code == 0 and len(rows_of(run)) == 4
    assert checkpoint.load(path)["diary"]["judge"] == other


# ---- test.py and generate.py ----


@pytest.mark.parametrize("name", ["file", "file/deeper/still"])
def test_generate_refuses_a_place_that_is_no_folder_before_it_draws(
    name, points, tmp_path, capsys, monkeypatch
):
    (tmp_path / "file").touch()
    monkeypatch.setattr(drawing, "sample", None)
    argv = ["--run-dir", points, "--output", tmp_path / name]
    assert_one_line(call(capsys, drawing.main, *argv), f"--output {tmp_path / name}", "file")


@pytest.mark.pictures
def test_a_record_names_the_classifier_and_the_floor(whole, digits, tmp_path, capsys, monkeypatch):
    moved = tmp_path / "GAN"
    (moved / "results").mkdir(parents=True)
    monkeypatch.setattr("GAN.test.FOLDER", moved)
    result = call(capsys, evaluate, "--run-dir", whole, "--record", "--config", "tiny")
    assert (result.code, result.err) == (0, "")
    record = json.loads((moved / "results" / "tiny.json").read_text())
    found = record["runs"][0]["test"]
    names = "frechet_distance frechet_floor frechet_ratio precision recall confident_share"
    names += " class_deviation as_asked real_confident_share"
    assert set(names.split()) <= found.keys()
    assert found.keys() <= history.METRICS.keys(), "a share is no percentage without its factor"
    assert found["frechet_ratio"] == pytest.approx(
        found["frechet_distance"] / found["frechet_floor"]
    )
    (path,) = (digits / "MNIST" / "raw").glob("gan-classifier-*.safetensors")
    model = classifier.Classifier(DIGIT, 10)
    model.load_state_dict(checkpoint.load(path)["model"])
    assert classifier.fingerprint(model) in record["signatures"]["frechet_distance"]
    assert record["model"] == "GAN" and record["hyperparameters"]["loss"] == "hinge"
    assert list(record["runs"][0]["validation"]) == ["frechet_distance"]
    pictures = {path.name for path in (moved / "results").glob("tiny_*")}
    assert {
        "tiny_samples.png",
        "tiny_training.gif",
        "tiny_interpolation.png",
        "tiny_players.png",
    } <= pictures


def test_a_run_with_clusters_is_of_no_classes(digits, quick, tmp_path, capsys, monkeypatch):
    """It resumes alike, is measured without classes, and cannot be asked for one."""
    flags = ["--dataset", "mnist", "--model", "dcgan", "--clusters", 3, "--channels", 4]
    flags += ["--batch-size", 25, "--subset", 100, "--latent-dim", 4, "--epochs", 2]
    flags += ["--data-dir", digits, "--run-dir"]
    script.main(list(map(str, [*flags, tmp_path / "whole"])))
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash(patch, 5)
        script.main(list(map(str, [*flags, tmp_path / "run"])))
    script.main(["--resume", "--run-dir", str(tmp_path / "run")])
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")
    result = call(capsys, evaluate, "--run-dir", tmp_path / "run")
    assert (result.code, result.err) == (0, "")
    assert "Fréchet distance" in result.out and "asked" not in result.out

    argv = ["--run-dir", tmp_path / "run", "--count", 6, "--output", tmp_path / "out"]
    assert call(capsys, drawing.main, *argv).code == 0
    assert_one_line(call(capsys, drawing.main, *argv, "--label", 2), "dcgan", "cgan")


def files_of(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.pictures
def test_the_same_seed_draws_the_same_images(digits, quick, tmp_path, capsys):
    """Of a run that is long enough for running statistics to leave what they start with; its last
    epoch, whatever is nearest to such data."""
    more = ["--critic-steps", 1, "--epochs", 10, "--lr", 0.01, "--data-dir", digits]
    script.main(list(map(str, [*EVERYTHING, *more, "--run-dir", tmp_path / "run"])))
    last = (tmp_path / "run" / "last.safetensors").read_bytes()
    (tmp_path / "run" / "best.safetensors").write_bytes(last)

    def draw(name, *flags):
        argv = ["--run-dir", tmp_path / "run", "--output", tmp_path / name, "--count", 6, *flags]
        result = call(capsys, drawing.main, *argv)
        assert (result.code, result.err) == (0, "")
        return files_of(tmp_path / name)

    grid = draw("a", "--single", "--scale", 1)
    singles = [f"samples-001/{n:05d}.png" for n in range(6)]
    assert sorted(grid) == ["samples-001.png", *singles]
    assert draw("b", "--single", "--scale", 1) == grid
    assert draw("c", "--seed", 1)["samples-001.png"] != draw("d")["samples-001.png"]
    with Image.open(tmp_path / "a" / "samples-001" / "00003.png") as image:
        assert image.size == (28, 28)
    three = draw("e", "--label", "3")["samples-001.png"]
    assert three != draw("f", "--label", "4")["samples-001.png"]
    again = draw("e")  # nothing is written over
    assert again["samples-001.png"] == three and sorted(again)[1:] == ["samples-002.png"]
    assert sorted(draw("g", "--interpolate", 2, "--columns", 5)) == ["interpolation-001.png"]
    with Image.open(tmp_path / "g" / "interpolation-001.png") as image:
        assert image.size == (2 * (5 * 30 - 2), 2 * (2 * 30 - 2))


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """A small run on the ring."""
    path = tmp_path_factory.mktemp("points") / "run"
    with pytest.MonkeyPatch.context() as patch:
        few_shapes(patch)
        patch.setattr("common.plots.draw_curves", lambda path, history: None)
        train(path, "--epochs", 1)
    return path


@pytest.mark.pictures
def test_points_are_drawn_as_a_map(points, tmp_path, capsys):
    argv = ["--run-dir", points, "--output", tmp_path / "out"]
    assert call(capsys, drawing.main, *argv).code == 0
    assert list(files_of(tmp_path / "out")) == ["samples-001.png"]


@pytest.mark.parametrize(
    "flags, parts",
    [
        ("--label 3", ["GAN/train.py --model cgan"]),
        ("--single", ["--single", "points"]),
        ("--count 0", ["--count"]),
        ("--seed -1", ["--seed"]),
        ("--device tpu", ["tpu"]),
    ],
)
def test_what_cannot_be_drawn_is_one_line(flags, parts, points, tmp_path, capsys):
    argv = ["--run-dir", points, "--output", tmp_path / "out", *flags.split()]
    assert_one_line(call(capsys, drawing.main, *argv), *parts)
    assert not (tmp_path / "out").exists()


def test_an_unknown_class_is_one_line(whole, capsys, tmp_path):
    for label in ("10", "seven", "-1"):
        argv = ["--run-dir", whole, f"--label={label}", "--output", tmp_path / "out"]
        assert_one_line(call(capsys, drawing.main, *argv), f"--label {label}", "0, 1, 2")


@pytest.mark.smoke
@pytest.mark.parametrize("main", [drawing.main, evaluate])
def test_another_model_s_checkpoint_is_one_line(main, points, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    flags = {"dataset": "mnist", "model": "resnet9", "data_dir": None}
    checkpoint.save(other / "best.safetensors", {"model": {"conv1.weight": torch.zeros(2)}})
    (other / "config.json").write_text(json.dumps(flags))
    assert_one_line(call(capsys, main, "--run-dir", other), other, "expected one of gan", "resnet9")
    flags.pop("model")  # MLP_Torch's runs name none
    (other / "config.json").write_text(json.dumps(flags))
    assert_one_line(call(capsys, main, "--run-dir", other), other, "another folder", "no kind")
    (other / "config.json").write_text(json.dumps({**flags, "dataset": "imdb"}))
    assert_one_line(call(capsys, main, "--run-dir", other), other, "imdb", "expected one of mnist")

    config = json.loads((points / "config.json").read_text())  # another network of this folder
    (other / "config.json").write_text(json.dumps({**config, "hidden_sizes": [9]}))
    (other / "best.safetensors").write_bytes((points / "best.safetensors").read_bytes())
    assert_one_line(call(capsys, main, "--run-dir", other), other, '"hidden_sizes" is [9]')


def make_photos(root, classes=("a",), size=(40, 44)):
    random = np.random.default_rng(0)
    for split, number in (("train", 30), ("test", 10)):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for n in range(number):
                pixels = random.integers(0, 255, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{n}.png")
    return root


def test_any_folder_of_images_even_of_one_class(quick, tmp_path, capsys):
    place, path = make_photos(tmp_path / "photos"), tmp_path / "run"
    flags = ["--dataset", "folder", "--data-dir", place, "--image-size", 16, "--channels", 4]
    flags += ["--batch-size", 4, "--epochs", 1, "--augment", "colour", "--run-dir", path]
    assert call(capsys, script.main, *flags).code == 0
    result = call(capsys, evaluate, "--run-dir", path)
    assert (result.code, result.err) == (0, "") and "photos, 10 examples" in result.out
    assert "precision" in result.out and "confident_share" not in result.out
    with Image.open(path / "training.gif") as film:
        assert film.convert("RGB").size == (10 * 18 - 2, 4 * 18 - 2 + STRIP)


@pytest.mark.parametrize(
    "model, size, classes, parts",
    [
        ("dcgan", (24, 24), ("a", "b"), ["(3, 16, 16)", "(3, 24, 24)"]),
        ("cgan", (16, 16), ("x", "y"), ["a, b", "x, y"]),
        ("dcgan", (16, 16), ("x", "y"), []),
    ],
)
def test_other_data_than_the_run_s_is_one_line(
    model, size, classes, parts, quick, tmp_path, capsys
):
    path, place = tmp_path / "run", make_photos(tmp_path / "photos", ("a", "b"), (16, 16))
    flags = ["--dataset", "folder", "--model", model, "--channels", 4, "--batch-size", 8]
    argv = [*flags, "--epochs", 1, "--run-dir", path]
    assert call(capsys, script.main, *argv, "--data-dir", place).code == 0
    other = make_photos(tmp_path / "others", classes, size)
    result = call(capsys, evaluate, "--run-dir", path, "--data-dir", other)
    if parts:
        assert_one_line(result, *parts)
    else:
        assert (result.code, result.err) == (0, "")


# ---- what a user may get wrong ----


@pytest.mark.smoke
@pytest.mark.parametrize(
    "flags, parts",
    [
        ("--model stylegan", ["--model", "stylegan", "cgan"]),
        ("--loss l2", ["--loss", "l2", "hinge"]),
        ("--norm layer", ["--norm", "layer"]),
        ("--model dcgan", ["dcgan", "points"]),
        ("--norm batch", ["--penalty", "--norm"]),
        ("--penalty -1", ["--penalty"]),
        ("--critic-steps 0", ["--critic-steps"]),
        ("--critic-steps 5000", ["--critic-steps", "too few"]),
        ("--ema 1", ["--ema"]),
        ("--betas 0.5 1", ["--betas"]),
        ("--latent-dim 0", ["--latent-dim"]),
        ("--augment mirror", ["--augment", "mirror"]),
        ("--augment cutout", ["--augment", "points"]),
        ("--precision float16", ["--precision"]),
        ("--norm batch --penalty 0 --batch-size 1", ["batch"]),
        ("--dataset folder", ["--data-dir"]),
        ("--image-size 32", ["--image-size", "ring"]),
        ("--clusters -1", ["--clusters"]),
        ("--clusters 501", ["--clusters 501", "256 examples"]),
        ("--clusters 3 --model cgan", ["--clusters", "cgan"]),
    ],
)
def test_bad_flag_is_one_line_and_leaves_nothing(flags, parts, quick, tmp_path, capsys):
    argv = [*small("GAN"), "--run-dir", tmp_path / "run", *flags.split()]
    assert_one_line(call(capsys, script.main, *argv), *parts)
    assert not (tmp_path / "run").exists()


def test_a_split_of_one_image_cannot_be_compared_with(quick, tmp_path, capsys):
    place = make_photos(tmp_path / "photos")
    for path in list((place / "train" / "a").iterdir())[12:]:
        path.unlink()  # a tenth of which is held out
    flags = ["--dataset", "folder", "--data-dir", place, "--run-dir", tmp_path / "run"]
    assert_one_line(call(capsys, script.main, *flags, "--image-size", 8), "too few real examples")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [1, 7])
def test_tiny_images_are_one_line(size, quick, tmp_path, capsys):
    place = make_photos(tmp_path / "photos")
    flags = ["--dataset", "folder", "--data-dir", place, "--run-dir", tmp_path / "run"]
    result = call(capsys, script.main, *flags, "--image-size", size)
    assert_one_line(result, "--image-size", f"{size} pixels")
    assert not (tmp_path / "run").exists()


def parsed(*argv):
    recipes = script.RECIPES
    return script.cli.parse_training(script.make_parser(), recipes, script.FOLDER, list(argv))


def test_a_model_brings_its_settings_but_flags_and_datasets_come_first():
    assert parsed("--model", "wgan-gp").loss == "wasserstein"
    assert parsed("--penalty", "3", "--model", "wgan-gp").penalty == 3
    ours = parsed("--dataset", "ring")
    assert ours.model == "wgan-gp" and ours.penalty == script.RECIPES["ring"]["penalty"]
    assert vars(parsed("--dataset", "ring", "--model", "wgan-gp"))["penalty"] == ours.penalty
    plain = parsed("--dataset", "ring", "--model", "gan")
    assert (plain.loss, plain.penalty, plain.critic_steps) == ("non-saturating", 0, 1)
    assert plain.epochs == ours.epochs
    assert parsed().model == "dcgan" and parsed().norm == "spectral"
    rates = [parsed("--dataset", "folder", "--model", name).lr for name in ("dcgan", "cgan")]
    assert rates == [2e-4, 2e-4] and parsed("--model", "cgan").lr == 1e-3


def test_without_data_the_default_run_draws_from_a_sample_and_says_so(
    quick, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(data, "ROOT", tmp_path / "repository")
    for module in ("GAN.train", "GAN.dataset", "GAN.utils.classifier"):
        monkeypatch.setattr(f"{module}.FOLDER", tmp_path / "repository" / "GAN")
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", ["http://127.0.0.1:1/"])
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(classifier, "MOST_EPOCHS", 1)
    few = [part.take(torch.arange(200) * (len(part.labels) // 200)) for part in mnist.sample()]
    monkeypatch.setattr(mnist, "sample", lambda: few)
    real_split = data.stratified_split
    monkeypatch.setattr(mnist, "stratified_split", lambda labels, size: real_split(labels, 60))
    (tmp_path / "repository" / "GAN").mkdir(parents=True)
    flags = ["--epochs", 1, "--channels", 4, "--model", "wgan-gp", "--critic-steps", 2]
    result = call(capsys, script.main, *flags)
    assert result.code == 0 and "SAMPLE" in result.err
    (path,) = (tmp_path / "repository" / "GAN" / "runs").iterdir()
    assert path.name == "0001-mnist-sample"
    config = json.loads((path / "config.json").read_text())
    assert (config["dataset"], config["loss"], config["channels"]) == (
        "mnist-sample",
        "wasserstein",
        4,
    )
    kept = tmp_path / "repository" / "GAN" / "dataset"
    assert [file.name[:14] for file in kept.iterdir()] == ["gan-classifier"]


def test_images_and_averages_of_the_classifier_s_shares_add_up():
    """Class shares and sureness by hand, with a head that is the identity."""
    observer = classifier.Classifier(DIGIT, 4)
    observer.head = nn.Identity()
    observer.weight = nn.Parameter(torch.zeros(1))
    judge = Judge.__new__(Judge)
    judge.observer, judge.num_classes = observer, 3
    logits = torch.tensor([[9.0, 0, 0, 50], [9, 0, 0, 0], [0, 1, 0, 0], [0, 0, 9, 0]])
    found = judge.classified(logits, torch.tensor([0, 1, 1, 2]))
    assert found["confident_share"] == 0.75 and found["as_asked"] == 0.75
    assert found["class_deviation"] == pytest.approx(0.5 - 1 / 3)
