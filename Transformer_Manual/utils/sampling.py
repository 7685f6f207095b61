"""Writing text: the next token is drawn from the network's distribution, again and again."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from common import checkpoint
from common.errors import UserError
from common.run import Run
from Transformer_Manual.dataset.characters import Vocabulary
from Transformer_Manual.model import LanguageModel
from Transformer_Manual.utils.cache import CachedReader
from Transformer_Manual.utils.writing import shown_loss


def probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Tensor:
    """The distribution to draw from: logits (V,) -> (V,), which sum to 1.

    p ∝ exp(z / temperature); 0 leaves the likeliest alone. `top_k` keeps the k likeliest (0: all),
    `top_p` of these the fewest that have that much probability together (Holtzman et al., 2020,
    Section 3.1), and always the likeliest. After each, what is kept is scaled up to 1.
    """
    if temperature < 1e-30:  # float32 cannot divide by less
        return (torch.arange(len(logits), device=logits.device) == logits.argmax()).to(logits.dtype)
    logits = (logits - logits.max()) / temperature
    logits, order = logits.sort(descending=True, stable=True)
    p = (logits - logits.logsumexp(0)).exp()
    if top_k:
        p[top_k:] = 0
    p = p / p.sum()
    before = p.cumsum(0) - p  # the probability of all that are likelier
    p[(before >= top_p) & (torch.arange(len(p), device=p.device) > 0)] = 0
    return torch.zeros_like(p).index_put_((order,), p / p.sum())


def go_on(
    model: LanguageModel, tokens: Tensor, length: int, temperature: float = 1.0, top_k: int = 0,
    top_p: float = 1.0, seed: int = 0,
) -> Iterator[int]:  # fmt: skip
    """Yield `length` tokens that go on from `tokens` (T,), one by one; the same for the same seed.

    The network is in evaluation mode. It sees at most max_length tokens; where these are reached,
    it reads the last half of them anew, at the first positions, and goes on from there. Raises
    UserError for a network that has no finite logits.
    """
    generator = torch.Generator().manual_seed(seed)
    seen, reader = tokens[-model.max_length :], CachedReader(model)
    new = seen
    for _ in range(length):
        if reader.length == model.max_length:
            new, reader = seen[-max(1, model.max_length // 2) :], CachedReader(model)
        logits = reader.read(new[None])[0].float()
        if not logits.isfinite().all():
            raise UserError("the network's weights have blown up: train with a smaller --lr")
        p = probabilities(logits, temperature, top_k, top_p).cpu()
        token = int(torch.multinomial(p, 1, generator=generator))
        yield token
        new = tokens.new_tensor([token])
        seen = torch.cat([seen, new])[-model.max_length :]


def add_sample(path: Path, epoch: int, about: str, text: str) -> None:
    """Write what the network can say after `epoch` to the end of the file, in place of anything
    that a run which was stopped and resumed wrote about it or later epochs before."""
    head = f"==== after epoch {epoch}"
    kept = path.read_bytes().decode(errors="replace") if path.is_file() else ""
    kept = kept.split(head + ",")[0]
    sample = f"{head}, {about} ====\n\n{text}\n\n"
    checkpoint.write_atomically(path, (kept + sample).encode())


def write_sample(run: Run, model: LanguageModel, vocabulary: Vocabulary, metrics: dict) -> None:
    """What a language model writes at this moment, for the run's samples.txt."""
    split, loss = shown_loss(metrics, run.train_loss.value)
    wanted = run.args.task == "lm" and run.args.sample_length
    if wanted and math.isfinite(loss):  # where not, log_epoch stops the run
        prompt = vocabulary.encode(beginning(vocabulary)).to(model.embedding.weight.device)
        tokens = go_on(model.eval(), prompt, run.args.sample_length)
        text = vocabulary.decode(list(tokens)).strip("\n")
        add_sample(run.path / "samples.txt", run.epoch + 1, f"{split} loss {loss:.4f}", text)


def beginning(vocabulary: Vocabulary) -> str:
    """What a text begins after: the end of a line, if the vocabulary has that."""
    return "\n" if "\n" in vocabulary.tokens else vocabulary.characters[0]
