"""VAE/: likelihoods, KL and bounds against torch.distributions and a model whose likelihood is
known; learning, runs, pictures and generated images."""

import json
import math
from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import mutual_info_score
from torch import nn
from torch.distributions import Bernoulli, MultivariateNormal, Normal, kl_divergence
from torch.nn import functional as F

from common import checkpoint, data
from common.data import Split
from common.folders import read_config
from common.history import shown
from tests.conftest import user_error
from tests.running import (
    Stop,
    assert_ended_alike,
    assert_one_line,
    call,
    crash,
    differences,
    history,
    interrupt,
    make_digits,
    small,
    without_seconds,
)
from tests.test_classes import make_folder
from tests.test_image_folder import make_split
from VAE import generate, train
from VAE import test as evaluation
from VAE.dataset import coloured_shapes, image_folder, load_test, load_training, no_images
from VAE.model import VAE, Autoencoder
from VAE.utils import bounds
from VAE.utils.build import build_model
from VAE.utils.factors import binned, information, mutual_information, mutual_information_gap
from VAE.utils.importance import estimate, estimate_split
from VAE.utils.likelihoods import LIKELIHOODS, BernoulliLogProb, Gaussian
from VAE.utils.networks import ConvDecoder, ConvEncoder
from VAE.utils.pictures import encode_all, sample_codes
from VAE.utils.plots import plane

pytestmark = pytest.mark.usefixtures("seeded")


def doubles(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def linear_gaussian(exact: bool, D: int = 4, L: int = 2) -> tuple[VAE, MultivariateNormal]:
    """A model whose p(x) is known, x = W z + b + σ ε, and p(x) itself = N(b, W Wᵀ + σ² I).

    The columns of W are orthogonal, so that the posterior is of the encoder's form: with `exact`,
    the encoder gives it; without, something like it.
    """
    shape = (1, 1, D)
    model = VAE(shape, L, hidden_sizes=(), batch_norm=False, likelihood="gaussian").double()
    W = torch.linalg.qr(doubles(D, L)).Q * torch.tensor([1.5, 0.7]).double()
    b, log_sigma = doubles(D), torch.tensor(-0.4).double()
    variance = 1 / (1 + W.square().sum(0) / (2 * log_sigma).exp())  # of z given x
    to_mean = variance[:, None] * W.T / (2 * log_sigma).exp()
    decoder, encoder = model.decoder.layers[0], model.encoder.layers[0]
    with torch.no_grad():
        model.likelihood.log_sigma.copy_(log_sigma)
        decoder.weight.copy_(W)
        decoder.bias.copy_(b)
        encoder.weight.zero_()[:L].copy_(to_mean)
        encoder.bias[:L].copy_(-to_mean @ b)
        encoder.bias[L:].copy_(variance.log())
        if not exact:
            encoder.bias.add_(torch.tensor([0.3, -0.2, 0.5, -0.4]).double())
    covariance = W @ W.T + (2 * log_sigma).exp() * torch.eye(D).double()
    return model, MultivariateNormal(b, covariance)


# ---- likelihoods ----


@pytest.mark.smoke
def test_bernoulli_is_that_of_torch_with_its_gradient():
    logits, x = (3 * doubles(3, 2, 5)).requires_grad_(), torch.rand(3, 5).double()
    black_or_white = x.round()
    expected = Bernoulli(logits=logits).log_prob(black_or_white[:, None].expand(3, 2, 5)).sum(2)
    torch.testing.assert_close(BernoulliLogProb.apply(logits, black_or_white), expected)
    greys = -F.binary_cross_entropy_with_logits(
        logits, x[:, None].expand(3, 2, 5), reduction="none"
    ).sum(2)
    torch.testing.assert_close(BernoulliLogProb.apply(logits, x), greys)
    assert torch.autograd.gradcheck(lambda values: BernoulliLogProb.apply(values, x), logits)


def test_bernoulli_of_extreme_logits_is_finite():
    logits = torch.tensor([[[1e4, -1e4]]], requires_grad=True)
    right = BernoulliLogProb.apply(logits, torch.tensor([[1.0, 0.0]]))
    wrong = BernoulliLogProb.apply(logits, torch.tensor([[0.0, 1.0]]))
    assert right.item() == 0 and wrong.item() == -2e4
    wrong.sum().backward()
    assert logits.grad.tolist() == [[[-1.0, 1.0]]]


def test_bernoulli_of_bfloat16_logits_is_summed_in_float32():
    logits = torch.randn(4, 1, 784).bfloat16().requires_grad_()
    x = (torch.rand(4, 784) < 0.3).float()
    value = BernoulliLogProb.apply(logits, x)
    expected = BernoulliLogProb.apply(logits.detach().float(), x)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=3e-3, atol=0)
    value.sum().backward()
    assert logits.grad.dtype == torch.bfloat16


@pytest.mark.smoke
def test_gaussian_is_that_of_torch_with_its_gradient():
    likelihood = Gaussian().double()
    outputs, x = doubles(3, 2, 5).requires_grad_(), doubles(3, 5)
    sigma = likelihood.log_sigma.exp()
    expected = Normal(outputs, sigma).log_prob(x[:, None]).sum(2)
    actual = likelihood.log_prob(outputs, x)
    torch.testing.assert_close(actual, expected)
    inputs = (outputs, likelihood.log_sigma)
    for a, b in zip(
        torch.autograd.grad(actual.sum(), inputs, retain_graph=True),
        torch.autograd.grad(expected.sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.smoke
def test_pixels_are_white_as_often_as_their_grey_level_says():
    images = torch.tensor([0, 1, 51, 128, 254, 255], dtype=torch.uint8).view(1, 1, 2, 3)
    draws = LIKELIHOODS["bernoulli"]().observe(images.expand(20_000, -1, -1, -1))
    assert draws.shape == (20_000, 6) and set(draws.unique().tolist()) == {0.0, 1.0}
    p = images.flatten().double() / 255
    error = (draws.double().mean(0) - p).abs()
    assert (error <= 4.5 * (p * (1 - p) / 20_000).sqrt()).all()  # 0 and 255 exactly
    for name in ("grey", "gaussian"):
        torch.testing.assert_close(LIKELIHOODS[name]().observe(images)[0].double(), p)


def test_a_seed_draws_the_same_pixels():
    images = torch.randint(256, (5, 1, 4, 4), dtype=torch.uint8)
    observe = LIKELIHOODS["bernoulli"]().observe
    draws = [observe(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert not torch.equal(observe(images), observe(images))  # dynamic: anew every time


def test_grey_loss_is_that_of_pytorchs_example():
    """Cross-entropy added up over pixels, minus ½ Σ (1 + log σ² − mu² − σ²), over the batch."""
    model = VAE((1, 3, 4), 2, hidden_sizes=(7,), batch_norm=False, likelihood="grey")
    images = torch.randint(256, (6, 1, 3, 4), dtype=torch.uint8)
    x = model.likelihood.observe(images)
    terms = model(x)
    reconstruction = model.decode(terms.z)[:, 0].sigmoid()
    entropy = F.binary_cross_entropy(reconstruction, images.flatten(1) / 255, reduction="sum")
    kl = -0.5 * torch.sum(1 + terms.logvar - terms.mu.pow(2) - terms.logvar.exp())
    loss = bounds.elbo_loss(terms, 1.0).mean()
    assert loss.item() == pytest.approx((entropy + kl).item() / 6, rel=1e-5)


# ---- KL, and the sampling step ----


@pytest.mark.smoke
def test_kl_is_that_of_torch_and_of_monte_carlo():
    mu, logvar = doubles(5, 3), doubles(5, 3)
    q, prior = Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)
    closed = bounds.kl_to_prior(mu, logvar)
    torch.testing.assert_close(closed, kl_divergence(q, prior))
    z = q.sample((40_000,))
    differences = q.log_prob(z) - prior.log_prob(z)
    error = differences.std(0) / 200
    assert ((differences.mean(0) - closed).abs() < 4.5 * error).all()
    assert bounds.kl_to_prior(torch.zeros(1, 1), torch.zeros(1, 1)).item() == 0


def test_gradients_of_the_kl_are_those_of_the_readme():
    mu, logvar = doubles(5, 3).requires_grad_(), doubles(5, 3).requires_grad_()
    grad_mu, grad_logvar = torch.autograd.grad(bounds.kl_to_prior(mu, logvar).sum(), (mu, logvar))
    torch.testing.assert_close(grad_mu, mu.detach())
    torch.testing.assert_close(grad_logvar, 0.5 * (logvar.detach().exp() - 1))


def test_gradient_goes_through_the_sampling_step():
    """∂z/∂mu = 1 and ∂z/∂logvar = σ ε / 2. And E (z − a)² = (mu − a)² + σ², so its gradients are
    2 (mu − a) and σ²: what the mean over many draws must come to."""
    model = VAE((1, 1, 3), 2, hidden_sizes=(), batch_norm=False).double()
    mu, logvar = doubles(1, 2).requires_grad_(), doubles(1, 2).requires_grad_()
    z = model.sample(mu, logvar, 3)
    noise = (z - mu[:, None]) / (0.5 * logvar).exp()[:, None]
    grad_mu, grad_logvar = torch.autograd.grad(z.sum(), (mu, logvar))
    torch.testing.assert_close(grad_mu, torch.full_like(mu, 3))
    torch.testing.assert_close(
        grad_logvar, (0.5 * (0.5 * logvar).exp()[:, None] * noise).sum(1).detach()
    )
    z = model.sample(mu, logvar, 100_000)
    grad_mu, grad_logvar = torch.autograd.grad((z - 0.5).square().mean(1).sum(), (mu, logvar))
    torch.testing.assert_close(grad_mu, 2 * (mu.detach() - 0.5), rtol=0.03, atol=0.03)
    torch.testing.assert_close(grad_logvar, logvar.detach().exp(), rtol=0.03, atol=0.03)


def test_noise_goes_through_the_sampling_step_for_each_image_and_draw():
    model = VAE((1, 1, 3), 2, hidden_sizes=(), batch_norm=False)
    mu = logvar = torch.zeros(4, 2)
    noise = model.sample(mu, logvar, 3)
    assert noise.shape == (4, 3, 2) and len(noise.unique()) == 24
    drawn = [model.sample(mu, logvar, 3, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


# ---- bounds ----


@pytest.mark.smoke
def test_log_weights_are_made_of_the_densities_of_torch():
    model = VAE((1, 2, 3), 4, hidden_sizes=(5,), batch_norm=False).double()
    terms = model(torch.rand(3, 6).double().round(), samples=7)
    q = Normal(terms.mu[:, None], (0.5 * terms.logvar[:, None]).exp())
    expected = terms.log_p_x + (Normal(0, 1).log_prob(terms.z) - q.log_prob(terms.z)).sum(2)
    torch.testing.assert_close(bounds.log_weights(terms), expected)
    torch.testing.assert_close(
        bounds.importance_bound(expected), expected.exp().mean(1).log(), rtol=1e-9, atol=1e-9
    )


def test_bound_of_one_sample_is_the_elbo_in_the_mean():
    model, _ = linear_gaussian(exact=False)
    x = doubles(1, 4)
    terms = model(x.expand(40_000, 4))
    single = bounds.importance_bound(bounds.log_weights(terms))
    closed = -bounds.elbo_loss(terms, 1.0)
    error = (single - closed).std() / 200
    assert abs(single.mean() - closed.mean()) < 4.5 * error


@pytest.mark.smoke
def test_bounds_grow_with_the_number_of_samples_up_to_the_likelihood():
    """L_1 < L_2 < L_5 < log p(x) in the mean, by many standard errors each; and L_200 is close."""
    model, marginal = linear_gaussian(exact=False)
    x = doubles(1, 4)
    truth, means = marginal.log_prob(x).item(), {}
    for k in (1, 2, 5, 200):
        terms = model(x.expand(60_000 // k, 4), samples=k)
        values = bounds.importance_bound(bounds.log_weights(terms))
        means[k] = values.mean().item(), values.std().item() / math.sqrt(len(values))
    for (low, error), (high, other) in (
        (means[1], means[2]),
        (means[2], means[5]),
        (means[5], (truth, 0.0)),
    ):
        assert low + 4 * (error + other) < high
    assert means[200][0] == pytest.approx(truth, abs=0.02)
    assert means[1][0] < truth - 0.1


def test_every_bound_is_tight_where_q_is_the_posterior():
    model, marginal = linear_gaussian(exact=True)
    x = doubles(5, 4)
    terms = model(x, samples=6)
    expected = marginal.log_prob(x)
    torch.testing.assert_close(bounds.log_weights(terms), expected[:, None].expand(5, 6))
    torch.testing.assert_close(-bounds.importance_loss(terms, 1.0), expected)
    elbo = -bounds.elbo_loss(model(x.repeat(20_000, 1)), 1.0).view(-1, 5).mean(0)
    torch.testing.assert_close(elbo, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("beta", [0.0, 0.5, 4.0])
def test_beta_weighs_the_kl(beta):
    model, _ = linear_gaussian(exact=False)
    terms = model(doubles(3, 4), samples=5)
    kl = bounds.kl_to_prior(terms.mu, terms.logvar).sum(1)
    loss = bounds.elbo_loss(terms, beta)
    torch.testing.assert_close(loss, beta * kl - terms.log_p_x.mean(1))
    torch.testing.assert_close(bounds.reconstruction_loss(terms, beta), -terms.log_p_x.mean(1))
    if beta == 0:
        expected = math.log(5) - terms.log_p_x.logsumexp(1)
        torch.testing.assert_close(bounds.importance_loss(terms, beta), expected)


def gradients(model, loss) -> dict[str, torch.Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss.sum(), parameters, retain_graph=True)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_doubly_reparameterised_gradient_has_the_same_mean_and_less_noise(beta):
    model, _ = linear_gaussian(exact=False)
    x, k = doubles(1, 4), 20
    found = {name: [] for name in ("importance_loss", "doubly_reparameterised_loss")}
    for _ in range(40):  # batches of 500 draws of the gradient: their means, and how they vary
        terms = model(x.expand(500, 4), samples=k)
        for name, batches in found.items():
            batches.append(gradients(model, getattr(bounds, name)(terms, beta) / 500))
        values = [getattr(bounds, name)(terms, beta).detach() for name in found]
        torch.testing.assert_close(*values)
    plain, doubly = found.values()
    for name in plain[0]:
        a, b = (torch.stack([batch[name] for batch in batches]) for batches in (plain, doubly))
        if name.startswith("encoder"):
            error = (a.var(0) / 40 + b.var(0) / 40).sqrt()
            assert ((a.mean(0) - b.mean(0)).abs() < 4.5 * error + 1e-12).all()
            if beta == 1:  # with less of it, less is turned into a path; with 0, nothing
                assert b.var(0).sum() < 0.5 * a.var(0).sum()
            elif beta == 0:
                torch.testing.assert_close(a, b)
        else:
            torch.testing.assert_close(a, b)


def test_doubly_reparameterised_gradient_of_the_encoder_vanishes_at_the_posterior():
    """There every weight is p(x), whatever z is. The plain gradient is zero in the mean alone."""
    model, _ = linear_gaussian(exact=True)
    x = doubles(5, 4)
    for k in (1, 4):
        found = gradients(model, bounds.doubly_reparameterised_loss(model(x, samples=k), 1.0))
        assert found["encoder.layers.0.weight"].abs().max() < 1e-12
        assert found["decoder.layers.0.weight"].abs().max() > 1e-3
        plain = gradients(model, bounds.importance_loss(model(x, samples=k), 1.0))
        assert plain["encoder.layers.0.weight"].abs().max() > 1e-3


# ---- the log-likelihood ----


@pytest.mark.smoke
@pytest.mark.parametrize("rows", [7, 500, 10_000])
def test_importance_sampling_finds_the_likelihood_in_any_chunks(rows):
    model, marginal = linear_gaussian(exact=False)
    x = marginal.sample((6,))
    samples = 3_001
    found = estimate(model, x, None, samples, torch.Generator().manual_seed(1), rows)
    torch.testing.assert_close(found.log_likelihood, marginal.log_prob(x), rtol=0, atol=0.08)
    terms = model(x.repeat(5_000, 1))
    elbo = -bounds.elbo_loss(terms, 1.0).view(-1, 6).mean(0)
    torch.testing.assert_close(found.elbo, elbo, rtol=0, atol=0.2)
    assert (found.elbo < found.log_likelihood).all()


def test_importance_sampling_of_the_exact_posterior_is_exact_with_few_samples():
    model, marginal = linear_gaussian(exact=True)
    x = marginal.sample((4,))
    for samples, rows in ((1, 100), (10, 3), (9, 9)):
        found = estimate(model, x, None, samples, rows=rows)
        for values in found:
            torch.testing.assert_close(values, marginal.log_prob(x))


def test_importance_sampling_holds_few_codes_at_once():
    model, _ = linear_gaussian(exact=False)
    sizes = []
    model.decoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    estimate(model, doubles(30, 4), None, 50, rows=64)
    assert max(sizes) <= 64 and sum(sizes) == 30 * 50
    sizes.clear()
    estimate(model, doubles(3, 4), None, 1_000, rows=64)
    assert max(sizes) <= 64 and sum(sizes) == 3_000


def test_likelihood_of_a_split_is_the_mean_over_its_images():
    """Of a decoder that says nothing: every pixel is white with a half, D log 2 nats an image."""
    model = VAE((1, 4, 4), 2, hidden_sizes=(), batch_norm=False)
    nn.init.zeros_(model.decoder.layers[0].weight)
    nn.init.zeros_(model.decoder.layers[0].bias)
    nn.init.zeros_(model.encoder.layers[0].weight)
    nn.init.zeros_(model.encoder.layers[0].bias)
    images = torch.randint(256, (250, 1, 4, 4), dtype=torch.uint8)
    split = Split(images, torch.zeros(250, dtype=torch.int64), ["x"], {})
    elbo, log_likelihood = estimate_split(model, split, samples=3)
    assert elbo == pytest.approx(-16 * math.log(2), rel=1e-5)
    assert log_likelihood == pytest.approx(-16 * math.log(2), rel=1e-5)
    assert estimate_split(model, split, 3) == (elbo, log_likelihood)


def test_every_model_and_measure_sees_the_same_pixels(monkeypatch):
    """However many random numbers its codes take."""
    images = torch.randint(256, (2_100, 1, 4, 4), dtype=torch.uint8)
    split = Split(images, torch.zeros(2_100, dtype=torch.int64), ["x"], {})
    seen, observe = [], LIKELIHOODS["bernoulli"].observe

    def spy(self, images, generator=None):
        seen.append(observe(self, images, generator))
        return seen[-1]

    monkeypatch.setattr(LIKELIHOODS["bernoulli"], "observe", spy)
    found = []
    for name, latent_dim, k in (("ae", 2, 1), ("vae", 2, 1), ("vae", 5, 1), ("iwae", 2, 5)):
        model = (Autoencoder if name == "ae" else VAE)((1, 4, 4), latent_dim, hidden_sizes=(4,))
        args = Namespace(model=name, samples=k, beta=1.0)
        measures = [(train.evaluate, (args,)), (encode_all, ())]
        if name != "ae":
            measures.append((estimate_split, (3,)))
        for measure, more in measures:
            measure(model.eval(), split, *more)
            found.append(torch.cat(seen))
            seen.clear()
    assert len(found) == 11
    for pixels in found[1:]:
        torch.testing.assert_close(pixels, found[0], rtol=0, atol=0)


@pytest.mark.smoke
def test_active_units_are_those_whose_mean_moves():
    mu = torch.stack([torch.linspace(-1, 1, 50), torch.full((50,), 3.0)], dim=1)
    mu = torch.cat([mu, torch.randn(50, 1) * 0.05], dim=1)
    assert bounds.active_units(mu).tolist() == [True, False, False]
    assert bounds.active_units(mu, 0.0001).tolist() == [True, False, True]
    assert bounds.active_units(mu[:1]).tolist() == [False] * 3


# ---- networks ----


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 4, 8)])
def test_shapes_of_the_networks(network, shape):
    D = math.prod(shape)
    for kind in (Autoencoder, VAE):
        model = kind(shape, 5, network, (6, 7), (2, 3), batch_norm=True, num_classes=4).eval()
        x, labels = torch.rand(3, D), torch.tensor([0, 3, 1])
        terms = model(x, labels, samples=2)
        assert terms.z.shape == (3, 2, 5) and terms.mu.shape == (3, 5)
        assert terms.log_p_x.shape == (3, 2)
        assert model.pictures(terms.z[:, 0], labels).shape == (3, *shape)
        assert (terms.logvar is None) == (kind is Autoencoder)


def test_codes_of_an_image_are_decoded_beside_each_other():
    model = VAE((1, 3, 3), 2, hidden_sizes=(4,), batch_norm=False, num_classes=3).double()
    x, labels = torch.rand(4, 9).double().round(), torch.tensor([2, 0, 1, 1])
    terms = model(x, labels, samples=5)
    for n in range(4):
        for k in range(5):
            outputs = model.decode(terms.z[n, k].view(1, 1, 2), labels[n : n + 1])
            alone = model.likelihood.log_prob(outputs, x[n : n + 1])
            torch.testing.assert_close(terms.log_p_x[n, k], alone[0, 0])


def test_plain_autoencoder_gives_the_same_code_every_time():
    model = Autoencoder((1, 3, 3), 2, hidden_sizes=(4,), batch_norm=False)
    x = torch.rand(4, 9)
    first, second = model(x), model(x)
    assert torch.equal(first.z, second.z) and torch.equal(first.z[:, 0], first.mu)


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_conditional_model_is_told_the_class_on_both_sides(network):
    model = VAE((1, 8, 8), 2, network, (5,), (2, 3), batch_norm=False, num_classes=3)
    x, z = torch.rand(2, 64), torch.randn(2, 1, 2)
    first, other = torch.tensor([0, 0]), torch.tensor([0, 2])
    codes = [model.encode(x, labels)[0] for labels in (first, other)]
    outputs = [model.decode(z, labels) for labels in (first, other)]
    for a, b in (codes, outputs):
        assert torch.equal(a[0], b[0]) and not torch.allclose(a[1], b[1])
    one_hot = F.one_hot(other, 3).float()
    assert torch.equal(model.decode(z, one_hot), outputs[1])  # and shares of classes


@pytest.mark.parametrize("side", [4, 6, 8])
def test_convolutions_see_the_places_of_pixels(side):
    """A network that is not told the place could not tell these images apart."""
    encoder = ConvEncoder((1, side, side), 0, (2,), 4, 3, "tanh", False)
    images = torch.eye(side * side)
    codes = encoder(images)
    assert len(torch.unique(codes, dim=0)) == side * side
    decoder = ConvDecoder(3, (2,), 4, (1, side, side), "tanh", False)
    assert decoder(codes).shape == (side * side, side * side)


def test_model_without_arguments_is_that_of_the_readme():
    model = VAE()
    sizes = [layer.out_features for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert sizes == [512, 512, 100, 512, 512, 784]
    recipe = Namespace(**train.RECIPES["mnist"], dataset="mnist", data_dir=None)
    built = build_model(recipe, no_images(recipe))
    assert str(built) == str(model)


def test_untrained_network_says_little():
    """Logits near 0, so about D log 2 nats; and a KL of a few nats, not of thousands."""
    model = VAE(hidden_sizes=(32,)).eval()
    x = (torch.rand(50, 784) < 0.5).float()
    terms = model(x)
    assert -terms.log_p_x.mean().item() == pytest.approx(784 * math.log(2), rel=0.05)
    assert bounds.kl_to_prior(terms.mu, terms.logvar).sum(1).mean() < 10


# ---- the factors of the shapes ----


@pytest.mark.smoke
def test_factors_are_what_the_images_show():
    shapes, factors = coloured_shapes.make_with_factors("test")
    assert torch.equal(shapes.inputs, coloured_shapes.make("test").inputs)
    names = [
        f"{list(coloured_shapes.COLOURS)[colour]} {coloured_shapes.SHAPES[shape]}"
        for colour, shape in zip(factors["colour"], factors["shape"], strict=True)
    ]
    assert names == [shapes.classes[label] for label in shapes.labels]
    images = shapes.inputs.float() / 255
    background = images[:, :, 0, 0, None, None]
    covered = ((images - background).abs().sum(1) > 0.5).float()  # (N, H, W)
    red_discs = (factors["colour"] == 0) & (factors["shape"] == 0)
    for name, axis in (("row", 1), ("column", 2)):
        sums = covered.sum(3 - axis)
        centre = (sums * torch.arange(32)).sum(1) / sums.sum(1)
        assert (centre - factors[name])[red_discs].abs().median() < 0.3
    area = covered.sum((1, 2))[red_discs]
    radius = (area / (0.8 * math.pi)).sqrt()
    assert (radius - factors["size"][red_discs]).abs().median() < 0.4
    assert set(factors) == {"shape", "colour", "size", "angle", "column", "row"}


@pytest.mark.smoke
def test_mutual_information_is_that_of_scikit_learn():
    a, b = torch.randint(6, (300,)), torch.randint(4, (300,))
    b = torch.where(torch.rand(300) < 0.5, a.clamp(max=3), b)
    expected = mutual_info_score(a.numpy(), b.numpy())
    assert mutual_information(a, b) == pytest.approx(expected, abs=1e-12)
    values = torch.randn(300)
    edges = np.linspace(values.min(), values.max(), 21)
    bins = np.clip(np.digitize(values.numpy(), edges) - 1, 0, 19)
    assert mutual_info_score(bins, a) == pytest.approx(
        mutual_information(binned(values), a), abs=0.02
    )


def test_gap_is_1_where_each_factor_has_its_number_and_0_where_all_share():
    factors = {"a": torch.randint(4, (2_000,)), "b": torch.randint(3, (2_000,))}
    both = torch.stack([v.float() for v in factors.values()], dim=1)
    own = information(both, factors)
    assert mutual_information_gap(own) > 0.97
    assert own.diagonal().min() > 0.999
    mixed = both[:, :1] * 10 + both[:, 1:]  # one number that knows all, twice
    assert mutual_information_gap(information(mixed.repeat(1, 2), factors)) < 1e-6
    assert mutual_information_gap(information(torch.randn(2_000, 3), factors)) < 0.05


# ---- learning ----


@pytest.mark.smoke
def test_linear_vae_reaches_the_likelihood_of_probabilistic_pca():
    """Its best likelihood is known in closed form (Tipping & Bishop, 1999, equation 15; for VAEs:
    Lucas et al., 2019), and its ELBO comes to the same, as the posterior is of q's form there."""
    D, L, N = 5, 2, 200
    x = doubles(N, L) @ torch.tensor([[2.0, 0, 1, 0, 1], [0, 1.0, 0, -1, 0.5]]).double()
    x += 0.4 * doubles(N, D) + 1
    values = torch.linalg.eigvalsh(x.T.cov(correction=0)).flip(0)
    sigma2 = values[L:].mean()
    best = -0.5 * (D * math.log(2 * math.pi) + values[:L].log().sum() + (D - L) * sigma2.log() + D)
    model = VAE((1, 1, D), L, hidden_sizes=(), batch_norm=False, likelihood="gaussian").double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)
    for _ in range(600):
        loss = bounds.elbo_loss(model(x, samples=4), 1.0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        elbo = -bounds.elbo_loss(model(x.repeat(20, 1)), 1.0).mean()
    found = estimate(model, x, None, 200)
    assert found.log_likelihood.mean().item() == pytest.approx(best.item(), abs=0.01)
    assert elbo.item() == pytest.approx(best.item(), abs=0.04)
    assert model.likelihood.log_sigma.item() == pytest.approx(0.5 * sigma2.log().item(), abs=0.02)


def fit(model, x, labels=None, steps=150, objective=bounds.elbo_loss, beta=1.0, samples=1):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = objective(model(x, labels, samples), beta).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def bars(N: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """8 x 8 images of one white row each; its number is the class."""
    labels = torch.arange(N) % 8
    images = torch.zeros(N, 8, 8)
    images[torch.arange(N), labels] = 1
    return images.flatten(1), labels


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("name", ["vae", "iwae", "dreg"])
def test_learns_eight_images_to_about_the_nats_that_they_have(network, name):
    """Eight images that are equally likely: log 8 = 2.08 nats; before, 64 log 2 = 44."""
    x, _ = bars()
    objective = bounds.doubly_reparameterised_loss if name == "dreg" else bounds.OBJECTIVES[name]
    k = 1 if name == "vae" else 5
    model = VAE((1, 8, 8), 3, network, (32,), (8, 8), "leaky-relu", False)
    fit(model, x, objective=objective, samples=k, steps=250)
    found = estimate(model, x, None, 200)
    assert -6 < found.log_likelihood.mean() < -math.log(8) + 0.01  # no model can do better
    assert found.elbo.mean() < found.log_likelihood.mean()


def test_larger_beta_leaves_less_in_the_code():
    x, _ = bars()
    kls = []
    for beta in (0.1, 1.0, 30.0):
        torch.manual_seed(0)
        model = fit(VAE((1, 8, 8), 3, "mlp", (32,), batch_norm=False), x, beta=beta)
        kls.append(bounds.kl_to_prior(*model.encode(x)).sum(1).mean().item())
    assert kls[0] > kls[1] > 1.5 > 0.1 > kls[2]


def test_conditional_model_draws_the_class_that_it_is_told():
    """And its codes need not say the class any more: hardly any nats are left in them."""
    x, labels = bars()
    model = VAE((1, 8, 8), 3, "mlp", (32,), batch_norm=False, num_classes=8)
    fit(model, x, labels)
    with torch.no_grad():
        pictures = model.pictures(torch.randn(8, 3), torch.arange(8))[:, 0]
        kl = bounds.kl_to_prior(*model.encode(x, labels)).sum(1).mean()
    assert pictures.mean(2).argmax(1).tolist() == list(range(8))
    assert kl < 0.5


def test_codes_of_the_plain_autoencoder_are_drawn_like_those_it_has_seen():
    model = Autoencoder((1, 2, 2), 3)
    seen = torch.randn(5_000, 3) @ torch.tensor([[2.0, 1, 0], [0, 0.5, 0], [0, 0, 0.01]]) + 5
    drawn = sample_codes(model, 20_000, torch.Generator().manual_seed(0), seen)
    torch.testing.assert_close(drawn.mean(0), seen.mean(0), rtol=0, atol=0.08)
    torch.testing.assert_close(drawn.T.cov(), seen.T.cov(), rtol=0.1, atol=0.05)
    prior = sample_codes(VAE((1, 2, 2), 3), 20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(prior.T.cov(), torch.eye(3), rtol=0, atol=0.05)
    one = sample_codes(Autoencoder((1, 2, 2), 1), 100, None, torch.randn(50, 1))
    assert one.shape == (100, 1)


@pytest.mark.parametrize("J", [1, 3])
@pytest.mark.parametrize("seen", [1, 7])
def test_where_all_codes_are_alike_that_one_is_drawn(seen, J):
    """Also of a single image, which has no covariance."""
    code = 3 * torch.randn(1, J)
    drawn = sample_codes(Autoencoder((1, 2, 2), J), 20, None, code.repeat(seen, 1))
    assert drawn.shape == (20, J)
    torch.testing.assert_close(drawn, code.expand(20, J), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("N, J", [(1, 1), (1, 2), (1, 5), (2, 5), (6, 5)])
def test_codes_lie_in_a_plane(N, J):
    """In their own where there are so few; else in that of their two principal components."""
    mu = torch.randn(N, J)
    points, what = plane(mu)
    assert points.shape == (N, 2) and points.isfinite().all()
    assert what == ("latent number" if J <= 2 else "principal component")
    if J <= 2:
        assert torch.equal(points, F.pad(mu, (0, 2 - J)))
    else:
        _, S, _ = torch.linalg.svd(mu - mu.mean(0))
        largest = F.pad(S, (0, 2))[:2].square()
        torch.testing.assert_close(points.square().sum(0), largest, rtol=1e-4, atol=1e-5)


# ---- runs ----


def run(run_dir, *argv):
    train.main([*small("VAE"), "--run-dir", str(run_dir), *map(str, argv)])
    return run_dir


EVERYTHING = ["--epochs", 2, "--ema", 0.9, "--precision", "bfloat16", "--beta-warmup", 1]
EVERYTHING += ["--clip", 5, "--schedule", "one-cycle", "--batch-norm"]
KINDS = {
    "iwae": ["--model", "iwae", "--samples", 3, "--dreg", "--likelihood", "bernoulli"],
    "cvae": ["--model", "cvae", "--network", "conv", "--channels", 2, 3],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A function: a run with everything, never stopped, trained once per model."""
    runs = {}

    def train_once(kind):
        if kind not in runs:
            runs[kind] = run(tmp_path_factory.mktemp(kind) / "run", *EVERYTHING, *KINDS[kind])
        return runs[kind]

    return train_once


@pytest.mark.parametrize(
    "kind, how, step",
    [("iwae", crash, 1), ("iwae", interrupt, 3), ("iwae", crash, 4), ("cvae", interrupt, 5),
     ("cvae", crash, 6)],
)  # fmt: skip
def test_stopped_anywhere_and_resumed_is_as_never_stopped(
    kind, how, step, quick, whole, tmp_path, monkeypatch
):
    expected = whole(kind)
    with monkeypatch.context() as patch, pytest.raises((Stop, KeyboardInterrupt)):
        how(patch, step)
        run(tmp_path / "run", *EVERYTHING, *KINDS[kind])
    assert checkpoint.load(tmp_path / "run" / "last.safetensors")["step"] == step
    train.main(["--resume", "--run-dir", str(tmp_path / "run")])
    assert_ended_alike(tmp_path / "run", expected)
    frames = [sorted((path / "frames").iterdir()) for path in (tmp_path / "run", expected)]
    assert [f.name for f in frames[0]] == ["00001.png", "00002.png"]
    assert [f.read_bytes() for f in frames[0]] == [f.read_bytes() for f in frames[1]]


def test_beta_grows_to_its_value_in_the_epochs_of_its_warm_up(quick, tmp_path, monkeypatch):
    seen, elbo_loss = [], bounds.elbo_loss

    def spy(terms, beta):
        seen.append((terms.mu.requires_grad, beta))
        return elbo_loss(terms, beta)

    monkeypatch.setitem(bounds.OBJECTIVES, "vae", spy)
    run(tmp_path / "run", "--epochs", 3, "--beta", 4, "--beta-warmup", 2)
    steps = [beta for training, beta in seen if training]
    assert steps == pytest.approx([0.5 * n for n in range(1, 9)] + [4.0] * 4)
    assert {beta for training, beta in seen if not training} == {4.0}


def test_validation_is_the_mean_over_images_with_the_average_of_the_weights(quick, tmp_path):
    path = run(tmp_path / "run", "--epochs", 1, "--ema", 0.5)
    state = checkpoint.load(path / "best.safetensors")
    config = Namespace(**read_config(path))
    validation = coloured_shapes.make("validation")
    model = build_model(config, validation)
    model.load_state_dict({n[7:]: w for n, w in state["average"].items() if n != "n_averaged"})
    (row,) = history(path)
    assert train.evaluate(model, validation, config) == pytest.approx(
        {name: float(row[f"validation_{name}"]) for name in ("loss", "reconstruction", "kl")}
    )
    x = model.likelihood.observe(validation.inputs)
    kl = bounds.kl_to_prior(*model.encode(x)).sum(1).mean().item()
    assert float(row["validation_kl"]) == pytest.approx(kl, rel=1e-4)
    assert float(row["validation_loss"]) == pytest.approx(
        float(row["validation_reconstruction"]) + kl, rel=1e-4
    )


def test_importance_weighted_model_brings_five_codes(quick, tmp_path):
    path = run(tmp_path / "run", "--epochs", 1, "--model", "iwae")
    assert read_config(path)["samples"] == 5
    path = run(tmp_path / "one", "--epochs", 1, "--model", "iwae", "--samples", 1)
    assert read_config(path)["samples"] == 1


PICTURES = {"reconstructions.png", "samples.png", "scatter.png", "training.gif"}


def name_of(metric: str) -> str:
    return shown(metric)[0].partition(",")[0]


@pytest.mark.pictures
@pytest.mark.parametrize(
    "flags, more, names",
    [
        ("--model ae", set(), {"loss", "reconstruction", "mig"}),
        ("--model vae --latent-dim 2", {"latent_grid.png"}, {"log_likelihood", "elbo", "kl"}),
        ("--model ae --latent-dim 2", {"latent_grid.png"}, {"loss"}),
        ("--model vae --latent-dim 1 --likelihood grey", set(), {"kl", "active_units"}),
        ("--model cvae --likelihood bernoulli", set(), {"log_likelihood", "elbo"}),
        ("--model iwae --likelihood bernoulli", set(), {"log_likelihood", "active_units"}),
    ],
)
def test_evaluation_draws_every_picture(flags, more, names, quick, tmp_path, capsys):
    path = run(tmp_path / "run", "--epochs", 1, *flags.split())
    result = call(capsys, evaluation.main, "--run-dir", path, "--samples", 4)
    assert (result.code, result.err) == (0, "")
    drawn = {file.name for file in path.iterdir() if file.suffix in (".png", ".gif")}
    variational = set() if "--model ae" in flags else {"units.png", "traversals.png"}
    assert drawn == PICTURES | more | variational | {"factors.png"}
    printed = [line.strip() for line in result.out.splitlines() if line.startswith("  ")]
    found = {n for n in names if any(line.startswith(name_of(n)) for line in printed)}
    assert found == names
    likely = not {"ae", "grey"} & set(flags.split())
    assert any(line.startswith("log-likelihood") for line in printed) == likely
    with Image.open(path / "training.gif") as film:
        assert film.n_frames == 1


@pytest.mark.smoke
def test_evaluation_of_digits_records_what_was_measured(tmp_path, capsys, monkeypatch, quick):
    monkeypatch.setattr(evaluation, "FOLDER", tmp_path / "VAE")
    (tmp_path / "VAE").mkdir()
    place, path = make_digits(tmp_path / "data"), tmp_path / "run"
    flags = ["--dataset", "mnist", "--data-dir", place, "--hidden-sizes", 8, "--latent-dim", 3]
    flags += ["--epochs", 2, "--batch-size", 50, "--run-dir", path]
    assert call(capsys, train.main, *flags).code == 0
    result = call(capsys, evaluation.main, "--run-dir", path, "--samples", 30, "--record")
    assert (result.code, result.err) == (0, "") and "mnist, 40 examples" in result.out
    record = json.loads((tmp_path / "VAE" / "results" / "mnist.json").read_text())
    test = record["runs"][0]["test"]
    assert test["elbo"] < test["log_likelihood"] < 0
    assert test["elbo"] == pytest.approx(-test["loss"], rel=0.02)
    assert test["loss"] == pytest.approx(test["reconstruction"] + test["kl"])
    assert "30 codes" in record["signatures"]["log_likelihood"]
    assert (tmp_path / "VAE" / "results" / "mnist_training.gif").is_file()


PHOTOS = [
    "--dataset", "folder", "--batch-size", 8, "--channels", 4, 4, "--hidden-sizes", 8,
    "--latent-dim", 3, "--epochs", 1,
]  # fmt: skip


def photographed(capsys, main, place, run, *more):
    argv = [*PHOTOS, "--data-dir", place, "--run-dir", run, *more]
    result = call(capsys, main, *argv)
    assert (result.code, result.err) == (0, ""), result


@pytest.mark.parametrize("size, side", [(None, 16), (12, 24)])
def test_any_folder_of_images_is_learned_in_colour(
    size, side, quick, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(evaluation, "FOLDER", tmp_path / "VAE")
    (tmp_path / "VAE").mkdir()
    place, path = make_folder(tmp_path / "photos", {"cat": 12, "dog": 12}), tmp_path / "run"
    photographed(capsys, train.main, place, path, *(["--image-size", size] if size else []))
    result = call(capsys, evaluation.main, "--run-dir", path, "--samples", 5, "--record")
    assert (result.code, result.err) == (0, "") and "photos, 16 examples" in result.out
    record = json.loads((tmp_path / "VAE" / "results" / "photos.json").read_text())
    assert record["data"]["examples"] == {"train": 22, "validation": 2, "test": 16}
    assert f"--image-size {side // 2} " in record["command"], "as the images were, if nobody says"
    test = record["runs"][0]["test"]
    assert test["elbo"] <= test["log_likelihood"]
    for kind in ("samples", "interpolation"):
        result = call(capsys, generate.main, kind, "--run-dir", path, "--count", 1)
        assert (result.code, result.err) == (0, "") and "image" in result.out
    (sample,) = (path / "generated").glob("samples*.png")
    with Image.open(sample) as picture:
        assert picture.mode == "RGB" and picture.size[1] == side, "twice as large"


@pytest.mark.pictures
def test_images_from_the_disk_are_learned_as_those_in_memory(quick, tmp_path, capsys, monkeypatch):
    place = make_folder(tmp_path / "photos", {"cat": 12, "dog": 12})
    for name in ("memory", "disk"):
        photographed(capsys, train.main, place, tmp_path / name)
        result = call(capsys, evaluation.main, "--run-dir", tmp_path / name, "--samples", 5)
        assert (result.code, result.err) == (0, "")
        monkeypatch.setattr(image_folder, "IN_MEMORY_BYTES", 0)
    runs = [tmp_path / name for name in ("memory", "disk")]
    assert without_seconds(history(runs[0])) == without_seconds(history(runs[1])) != []
    states = [checkpoint.load(run / "last.safetensors") for run in runs]
    assert states[0]["data"] != states[1]["data"], "known by its files' sizes, and not content"
    assert differences(*(state["model"] for state in states)) == []
    for name in ("reconstructions", "samples", "scatter"):
        pictures = [(run / f"{name}.png").read_bytes() for run in runs]
        assert pictures[0] == pictures[1], name


@pytest.mark.parametrize("size, side", [(50, 50), (64, 64), (65, 64)])
def test_photos_are_learned_with_64_pixels_at_most(size, side, tmp_path):
    make_split(tmp_path / "train", {"a": 3}, size=(size, size))
    make_split(tmp_path / "test", {"a": 1}, size=(size, size))
    flags = Namespace(dataset="folder", data_dir=str(tmp_path), image_size=None, refit=False)
    for split in (*load_training(flags), load_test(flags), no_images(flags)):
        assert split.shape == (3, side, side)
    with user_error("--channels 4 4 4 4 4 4", "50 x 50", "--image-size", "multiple of 64"):
        recipe = {**train.RECIPES["folder"], "channels": [4] * 6, "image_size": None}
        build_model(Namespace(**recipe), no_images(Namespace(**vars(flags) | {"image_size": 50})))


def test_a_run_keeps_the_size_of_its_images(quick, tmp_path, capsys):
    place, path = make_folder(tmp_path / "photos", {"cat": 12, "dog": 12}), tmp_path / "run"
    photographed(capsys, train.main, place, path)
    assert read_config(path)["image_size"] == 8
    Image.new("RGB", (40, 40)).save(place / "train" / "cat" / "00.png")  # now the first one
    result = call(capsys, evaluation.main, "--run-dir", path, "--samples", 5)
    assert (result.code, result.err) == (0, "")


@pytest.mark.pictures
@pytest.mark.parametrize("model", ["ae", "vae", "cvae"])
def test_one_image_to_test_on_and_one_held_out_are_enough(model, quick, tmp_path, capsys):
    place, path = tmp_path / "photos", tmp_path / "run"
    for split, count in {"train": 12, "val": 1, "test": 1}.items():
        make_split(place / split, {"cat": count})
    photographed(capsys, train.main, place, path, "--model", model)
    result = call(capsys, evaluation.main, "--run-dir", path, "--samples", 5)
    assert (result.code, result.err) == (0, "") and "1 example" in result.out
    for kind in (["samples"], ["interpolation"], ["walk", "--from", "cat", "--to", "cat"]):
        result = call(capsys, generate.main, *kind, "--run-dir", path, "--count", 2)
        assert (result.code, result.err) == (0, ""), kind
        (picture,) = (path / "generated").glob(f"{kind[0]}*.png")
        with Image.open(picture) as drawn:
            assert np.asarray(drawn).std() > 0


@pytest.mark.pictures
def test_of_many_classes_the_first_are_drawn(quick, tmp_path, capsys):
    place = make_folder(tmp_path / "photos", {f"class {n:02d}": 3 for n in range(25)})
    photographed(capsys, train.main, place, tmp_path / "run", "--model", "cvae")
    result = call(capsys, evaluation.main, "--run-dir", tmp_path / "run", "--samples", 5)
    assert (result.code, result.err) == (0, "")
    result = call(capsys, generate.main, "--run-dir", tmp_path / "run", "--count", 40)
    assert (result.code, result.err) == (0, "")
    (sample,) = (tmp_path / "run" / "generated").glob("samples*.png")
    with Image.open(sample) as picture:
        assert picture.size == (2 * (20 * 10 - 2), 2 * (2 * 10 - 2)), "a class in each column"


@pytest.mark.parametrize("model", ["vae", "ae"])
def test_a_refitted_run_keeps_its_last_epoch(model, quick, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "FOLDER", tmp_path / "VAE")
    (tmp_path / "VAE").mkdir()
    argv = [*small("VAE"), "--subset", 128, "--model", model, "--refit", "--epochs", 3]
    result = call(capsys, train.main, *argv, "--run-dir", tmp_path / "r")
    assert (result.code, result.err) == (0, "") and "128 to train on, 0 held out" in result.out
    assert not any("validation" in key for row in history(tmp_path / "r") for key in row)
    assert checkpoint.load(tmp_path / "r" / "best.safetensors")["epoch"] == 3
    for kind in ("samples", "interpolation"):  # which looks at images that were held out before
        result = call(capsys, generate.main, kind, "--run-dir", tmp_path / "r", "--count", 1)
        assert (result.code, result.err) == (0, "")

    result = call(capsys, evaluation.main, "--run-dir", tmp_path / "r", "--samples", 5, "--record")
    assert (result.code, result.err) == (0, "")
    record = json.loads((tmp_path / "VAE" / "results" / "shapes.json").read_text())
    assert record["data"]["examples"] == {"train": 128, "test": 32}
    assert "--refit" in record["command"]
    assert record["runs"][0]["validation"] == {} and record["runs"][0]["best_epoch"] == 3


def test_without_data_the_default_run_learns_the_sample_and_says_so(
    quick, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(data, "ROOT", tmp_path / "repository")
    (tmp_path / "repository" / "VAE").mkdir(parents=True)
    for module in ("VAE.train", "VAE.dataset"):
        monkeypatch.setattr(f"{module}.FOLDER", tmp_path / "repository" / "VAE")
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", ["http://127.0.0.1:1/"])
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    argv = ["--epochs", 1, "--subset", 128, "--hidden-sizes", 8]
    result = call(capsys, train.main, *argv)
    assert result.code == 0 and "SAMPLE" in result.err
    assert "mnist-sample: 128 to train on" in result.out
    (path,) = (tmp_path / "repository" / "VAE" / "runs").iterdir()
    config = read_config(path)
    assert config["latent_dim"] == train.RECIPES["mnist-sample"]["latent_dim"]
    assert_one_line(call(capsys, train.main, "--dataset", "mnist"), "mnist is not in")


# ---- generate.py ----


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function (model) -> a run of one epoch on the shapes, trained once."""
    runs = {}

    def train_once(model):
        if model not in runs:
            path = tmp_path_factory.mktemp(model) / "run"
            runs[model] = run(path, "--epochs", 1, "--model", model)
        return runs[model]

    return train_once


def size(path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.mark.parametrize("kind", ["samples", "interpolation", "walk"])
@pytest.mark.parametrize("name", ["file", "file/deeper/still"])
def test_generate_refuses_a_place_that_is_no_folder_before_it_reads_data(
    kind, name, quick, trained, tmp_path, capsys, monkeypatch
):
    (tmp_path / "file").touch()
    for function in ("load_validation", "no_images"):
        monkeypatch.setattr(generate, function, None)
    argv = [kind, "--run-dir", trained("vae"), "--output", tmp_path / name]
    assert_one_line(call(capsys, generate.main, *argv), f"--output {tmp_path / name}", "file")


@pytest.mark.pictures
@pytest.mark.parametrize("model", ["ae", "vae", "cvae"])
@pytest.mark.parametrize(
    "kind", ["samples", "interpolation", "walk --from red --to blue", "walk --from disc --to cross"]
)
def test_same_seed_same_images(model, kind, quick, trained, tmp_path, capsys):
    pictures = []
    for n, seed in enumerate((3, 3, 4)):
        argv = [*kind.split(), "--seed", seed, "--count", 4, "--output", tmp_path]
        result = call(capsys, generate.main, "--run-dir", trained(model), *argv)
        path = tmp_path / f"{kind.split()[0]}-{n + 1:03d}.png"  # nothing is written over
        assert (result.code, result.err) == (0, "") and str(path) in result.out
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]
    columns, rows = (10, 4) if kind != "samples" else (16 if model == "cvae" else 10, 1)
    assert size(path) == (2 * (34 * columns - 2), 2 * (34 * rows - 2))


@pytest.mark.pictures
def test_images_go_below_the_run_where_no_record_takes_them(quick, trained, capsys):
    path = trained("cvae")
    argv = ["--run-dir", path, "--label", "yellow cross", "--count", 3]
    assert call(capsys, generate.main, *argv).code == 0
    assert (path / "generated" / "samples-001.png").is_file()
    assert not list(path.glob("samples*.png"))


@pytest.mark.pictures
def test_walk_of_a_code_goes_from_one_class_mean_to_the_other(quick, trained, capsys):
    """The first column is the image's own code; the last is moved by the difference of means."""
    path = trained("vae")
    config = Namespace(**read_config(path))
    validation = coloured_shapes.make("validation")
    model = build_model(config, validation).eval()
    model.load_state_dict(checkpoint.load(path / "best.safetensors")["model"])
    args = Namespace(source="red", target="blue", count=2)
    with torch.no_grad():
        pictures = generate.walk(model, validation, args, torch.Generator().manual_seed(0))
        mu, _ = model.encode(model.likelihood.observe(validation.inputs))
        colours = validation.labels // 4
        move = mu[colours == 2].mean(0) - mu[colours == 0].mean(0)
        first = [model.pictures(code[None])[0] for code in mu[colours == 0]]
        last = [model.pictures(code[None] + move)[0] for code in mu[colours == 0]]
    assert pictures.shape == (20, 3, 32, 32)
    for column, expected in ((0, first), (9, last)):
        for row in (0, 1):
            picture = pictures[10 * row + column]
            assert min((picture - other).abs().max() for other in expected) < 1e-5


@pytest.mark.parametrize("model", ["ae", "vae", "cvae"])
@pytest.mark.parametrize("flag", ["--from", "--to"])
@pytest.mark.parametrize("lacking, named", [("red cross", [3]), ("cross", [3, 7, 11, 15])])
def test_walk_needs_images_of_the_classes_whose_means_it_takes(
    lacking, named, flag, model, quick, trained, tmp_path, capsys, monkeypatch
):
    """A conditional model takes no means: there, nothing has to be of the class that --to names."""
    whole = coloured_shapes.make("validation")
    rest = whole.take((~torch.isin(whole.labels, torch.tensor(named))).nonzero().squeeze(1))
    monkeypatch.setattr(generate, "load_validation", lambda config: rest)
    there = "red disc" if lacking == "red cross" else "disc"
    ends = [flag, lacking, {"--from": "--to", "--to": "--from"}[flag], there]
    argv = ["walk", *ends, "--run-dir", trained(model), "--output", tmp_path / "x"]
    result = call(capsys, generate.main, *argv)
    if (model, flag) == ("cvae", "--to"):
        assert (result.code, result.err) == (0, "")
        return
    classes = ", ".join(coloured_shapes.CLASSES[label] for label in named)
    assert_one_line(result, f"{flag} {lacking}", f"validation split has no image of {classes}")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "model, flags, parts",
    [
        ("vae", "walk", ["--from", "--to"]),
        ("vae", "walk --from red --to pink", ["--to pink", "red disc"]),
        ("vae", "--label red", ["VAE/train.py --model cvae"]),
        ("cvae", "--label pink", ["--label pink"]),
        ("cvae", "--label red", ["--label red", "4 classes"]),
        ("cvae", "walk --from red --to cross", []),
        ("cvae", "walk --from red --to disc", []),
        ("cvae", "walk --from red --to", ["--to"]),
        ("vae", "dance", ["dance"]),
        ("vae", "--from red --to blue", ["--from", "walk"]),
        ("cvae", "interpolation --label red", ["--label", "interpolation"]),
        ("vae", "--output /dev/null/x", ["/dev/null", "cannot be made"]),
        ("vae", "--count 0", ["--count"]),
        ("vae", "--seed -1", ["--seed"]),
        ("vae", "--device tpu", ["tpu"]),
    ],
)
def test_bad_flag_of_generate_is_one_line(model, flags, parts, quick, trained, tmp_path, capsys):
    argv = ["--run-dir", trained(model), "--output", tmp_path / "x", *flags.split()]
    result = call(capsys, generate.main, *argv)
    if parts:
        assert_one_line(result, *parts)
        assert not (tmp_path / "x").exists()
    else:
        assert result.code == 0  # four colours, four shapes: as many classes


@pytest.mark.smoke
@pytest.mark.parametrize("main", [generate.main, evaluation.main])
def test_another_networks_checkpoint_is_one_line(main, quick, tmp_path, capsys):
    from MLP_Torch.train import main as train_mlp

    place = make_digits(tmp_path / "data")
    flags = ["--dataset", "mnist", "--data-dir", place, "--epochs", 1, "--hidden-sizes", 4]
    assert call(capsys, train_mlp, *flags, "--run-dir", tmp_path / "mlp").code == 0
    assert_one_line(call(capsys, main, "--run-dir", tmp_path / "mlp"), tmp_path / "mlp", "VAE")

    path = run(tmp_path / "run", "--epochs", 1)
    config = read_config(path) | {"hidden_sizes": [9]}
    (path / "config.json").write_text(json.dumps(config))
    assert_one_line(call(capsys, main, "--run-dir", path), '"hidden_sizes" is [9]')
    assert_one_line(call(capsys, main, "--run-dir", tmp_path / "none"), tmp_path / "none")


# ---- what a user may get wrong ----


@pytest.mark.smoke
@pytest.mark.parametrize(
    "flags, parts",
    [
        ("--model gan", ["--model", "gan"]),
        ("--beta -1", ["--beta"]),
        ("--samples 0", ["--samples"]),
        ("--latent-dim 0", ["--latent-dim"]),
        ("--likelihood poisson", ["--likelihood"]),
        ("--network transformer", ["--network"]),
        ("--activation sine", ["--activation"]),
        ("--ema 1", ["--ema"]),
        ("--precision float16", ["--precision"]),
        ("--dreg", ["--dreg", "vae"]),
        ("--model ae --beta 4", ["--beta", "ae"]),
        ("--model ae --samples 5", ["--samples", "ae"]),
        ("--network conv --channels 2 2 2 2 2 2", ["--channels", "32 x 32"]),
        ("--batch-norm --batch-size 1", ["batch"]),
        ("--dataset folder", ["--data-dir"]),
        ("--image-size 32", ["--image-size", "shapes"]),
    ],
)
def test_bad_flag_is_one_line_and_leaves_nothing(flags, parts, quick, tmp_path, capsys):
    argv = [*small("VAE"), "--run-dir", tmp_path / "run", *flags.split()]
    assert_one_line(call(capsys, train.main, *argv), *parts)
    assert not (tmp_path / "run").exists()


def test_a_run_that_diverges_stops_with_one_line(quick, tmp_path, capsys):
    argv = [*small("VAE"), "--run-dir", tmp_path / "run", "--lr", "1e30", "--epochs", 3]
    result = call(capsys, train.main, *argv, "--no-batch-norm", "--likelihood", "gaussian")
    assert_one_line(result, "no longer finite", "--lr")
