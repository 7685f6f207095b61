"""Writing text: the next character is drawn from the network's distribution, again and again."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from common import checkpoint
from common.errors import UserError
from RNN_Manual.dataset.characters import Vocabulary


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


def generate(
    model, vocabulary: Vocabulary, prompt: str, length: int, temperature: float = 1.0,
    top_k: int = 0, top_p: float = 1.0, seed: int = 0,
) -> Iterator[str]:  # fmt: skip
    """Yield `length` characters that go on from `prompt`, one by one; the same for the same seed.

    The network is in evaluation mode; it reads the prompt at once and then each character that it
    wrote. Raises ValueError for a prompt that is empty or has unknown characters, and UserError
    for a network that has no finite logits.
    """
    device = next(iter(model.parameters().values())).device
    generator = torch.Generator().manual_seed(seed)
    tokens, state = vocabulary.encode(prompt)[:, None].to(device), None  # (T, 1)
    for _ in range(length):
        logits = model.forward(tokens, state)[-1, 0]
        state = model.state
        if not logits.isfinite().all():
            raise UserError("the network's weights have blown up: train with a smaller --lr")
        p = probabilities(logits, temperature, top_k, top_p).cpu()
        token = int(torch.multinomial(p, 1, generator=generator))
        yield vocabulary.characters[token]
        tokens = torch.tensor([[token]], device=device)


def add_sample(path: Path, epoch: int, about: str, text: str) -> None:
    """Write what the network can say after `epoch` to the end of the file, in place of anything
    that a run which was stopped and resumed wrote about it or later epochs before."""
    head = f"==== after epoch {epoch}"
    kept = path.read_bytes().decode(errors="replace") if path.is_file() else ""
    kept = kept.split(head + ",")[0]
    sample = f"{head}, {about} ====\n\n{text}\n\n"
    checkpoint.write_atomically(path, (kept + sample).encode())
