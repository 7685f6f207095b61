"""Samples of a generator, and how they compare with real data."""

from argparse import Namespace

import torch
from torch import Tensor

from common.data import Split
from common.errors import UserError
from GAN.dataset import as_data, ring
from GAN.model import Generator
from GAN.utils.classifier import SURE, Classifier, find_classifier
from GAN.utils.metrics import frechet_distance, precision_recall

SEED, BATCH, NEIGHBOURS = 2014, 500, 3
HALVINGS = 10  # a single one of MNIST's test split gives a floor that is off by a fifth


def latents(number: int, generator: Generator, seed: int) -> Tensor:
    """z (number, Z): the same for the same seed, on every device, whatever else is drawn."""
    source = torch.Generator().manual_seed(seed)
    return torch.randn(number, generator.latent_dim, generator=source)


def draw_labels(number: int, generator: Generator, seed: int) -> Tensor:
    """Classes (number,) to ask for: 0, 1, …, K - 1, 0, 1, …; clusters at random, each as often as
    it occurs in the data, the same for the same seed; zeros where there are no classes."""
    if generator.shares is not None:
        source = torch.Generator().manual_seed(seed)
        return torch.multinomial(generator.shares.cpu(), number, replacement=True, generator=source)
    return torch.arange(number) % max(1, generator.num_classes)


@torch.no_grad()
def sample(generator: Generator, z: Tensor, labels: Tensor) -> Tensor:
    """uint8 images (N, C, H, W), or points (N, 2), of latents (N, Z), labels (N,).

    The generator should be in evaluation mode: then a sample does not depend on its batch.
    """
    device = next(generator.parameters()).device
    parts = [
        as_data(generator(some.to(device), some_labels.to(device)))
        for some, some_labels in zip(z.split(BATCH), labels.split(BATCH), strict=True)
    ]
    return torch.cat(parts)


class Judge:
    """Compares generated data with the real data of a split, in the features of `observer`."""

    def __init__(self, observer: Classifier | ring.Modes, real: Split):
        if len(real) < 2:
            raise UserError(
                "there are too few real examples to compare with: one has no covariance"
            )
        self.observer, self.num_classes = observer, len(real.classes)
        self.real = self.features(inputs for inputs, _ in real.in_order())
        self.labels = real.labels.cpu()

    @torch.no_grad()
    def features(self, batches) -> Tensor:
        """(N, D) on the CPU, in double precision."""
        return torch.cat([self.observer.features(batch).cpu().double() for batch in batches])

    def of_generated(self, generator: Generator, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A sample for each label (N,), where the generator has these classes, and their features.
        One of clusters makes as many samples, of clusters that it draws."""
        generator.eval()
        if generator.shares is not None:
            labels = draw_labels(len(labels), generator, SEED)
        samples = sample(generator, latents(len(labels), generator, SEED), labels)
        return samples, self.features(samples.split(BATCH))

    def validate(self, generator: Generator) -> dict[str, float]:
        """The Fréchet distance of as many samples as there are real ones; of a conditional
        generator, of the same classes."""
        _, features = self.of_generated(generator, self.labels)
        if not features.isfinite().all():
            return {"frechet_distance": float("nan")}  # the run stops for it
        return {"frechet_distance": frechet_distance(self.real, features)}

    def test(self, generator: Generator) -> dict[str, float]:
        """All that is measured. The real data is cut into two halves at random: `…_floor` is one
        against the other; the generator's figure is the mean of a comparison with each half, each
        of as many samples as a half has examples. So the two figures differ in nothing else; both
        are means over ten such halvings.

        A conditional generator is asked for the classes of the real data, one by one; for what the
        classifier says of it, for all classes equally often. One of clusters draws them at random,
        as often as they occur in training.
        """
        size = len(self.real) // 2
        if size <= NEIGHBOURS:
            raise UserError(f"{len(self.real)} real examples are too few to compare with")
        samples, features = self.of_generated(generator, self.labels[: 2 * size])
        source = torch.Generator().manual_seed(SEED)
        halvings = [
            [some[torch.randperm(2 * size, generator=source)].split(size) for some in pair]
            for pair in [(self.real, features)] * HALVINGS
        ]
        distances = [sum(map(frechet_distance, real, fake)) / 2 for real, fake in halvings]
        distance = sum(distances) / HALVINGS
        floor = max(sum(frechet_distance(*real) for real, _ in halvings) / HALVINGS, 1e-12)
        real, fake = halvings[0]
        metrics = {
            "frechet_distance": distance,
            "frechet_floor": floor,
            "frechet_ratio": distance / floor,
        }
        pairs = torch.tensor(
            [precision_recall(r, f, NEIGHBOURS) for r, f in zip(real, fake, strict=True)]
        )
        metrics["precision"], metrics["recall"] = pairs.mean(0).tolist()
        metrics["real_precision"], metrics["real_recall"] = precision_recall(*real, NEIGHBOURS)
        if isinstance(self.observer, ring.Modes):
            return metrics | ring.covered(samples.cpu())
        if self.num_classes > 1:
            asked = None
            if generator.labelled:
                asked = draw_labels(2 * size, generator, SEED)
                _, features = self.of_generated(generator, asked)
            metrics |= self.classified(features, asked)
            others = self.classified(self.real)
            metrics |= {f"real_{name}": value for name, value in others.items()}
        return metrics

    @torch.no_grad()
    def classified(self, features: Tensor, asked: Tensor | None = None) -> dict[str, float]:
        """What the classifier says of features (N, D): the share that it is sure of, the largest
        deviation of a class's share from 1/K, and how many are of the class `asked` for (N,)."""
        like = next(self.observer.parameters())
        logits = self.observer.head(features.to(like))[:, : self.num_classes]
        confidence, predicted = logits.softmax(1).cpu().max(1)
        shares = torch.bincount(predicted, minlength=self.num_classes) / len(predicted)
        metrics = {
            "confident_share": (confidence >= SURE).double().mean().item(),
            "class_deviation": (shares - 1 / self.num_classes).abs().max().item(),
        }
        if asked is not None:
            metrics["as_asked"] = (predicted == asked).double().mean().item()
        return metrics

    @property
    def name(self) -> str:
        """The fingerprint of the classifier; the ring's modes are always the same."""
        return getattr(self.observer, "fingerprint", "")

    @property
    def signature(self) -> str:
        """In whose eyes: what a record says of its distances."""
        size = f"{len(self.real) // 2:,} generated against as many real, in {HALVINGS} halvings"
        if isinstance(self.observer, ring.Modes):
            return f"{size}, as nearness to the {ring.MODES} modes"
        reached = f"{self.observer.accuracy:.2%} on validation"
        return f"{size}, in the features of classifier {self.name} ({reached})"


def make_judge(args: Namespace, train: Split, validation: Split, real: Split) -> Judge:
    """The judge of generated data beside `real`; `train` and `validation` are the whole splits."""
    if args.dataset == "ring":
        return Judge(ring.Modes().to(real.labels.device), real)
    return Judge(find_classifier(args, train, validation), real)
