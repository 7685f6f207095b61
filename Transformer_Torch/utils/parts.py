"""A batch in parts, each small enough for the memory (gradient accumulation); what compiles, and
which of PyTorch's kernels computes attention."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from common import distributed
from common.errors import UserError
from Transformer_Torch.dataset.batches import IGNORED


def check_compile(args: Namespace) -> None:
    """Raises UserError where this torch cannot compile what is asked for: that of 2.3 remembers how
    long a padded batch was, and fails at the first one of another length."""
    if args.compile and args.task == "translate" and torch.__version__ < "2.4":
        raise UserError(
            f"--compile: torch {torch.__version__} cannot compile --task translate, whose batches "
            "are of many lengths; leave it out, or install a newer torch"
        )


def attention_kernel(device: torch.device, precision: str):
    """A context in which attention is computed by the kernel that is faster to train with.

    That is the fused one, but for half the bits on a CPU: there its backward pass takes longer than
    the products and the softmax that it fuses, so these are computed one by one.
    """
    if device.type == "cpu" and precision != "float32":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def count(labels: Tensor) -> int:
    """How many labels of the batch count, in all processes together; IGNORED are those that
    nn.CrossEntropyLoss leaves out by itself."""
    return int(distributed.total((labels != IGNORED).sum()))


def in_parts(
    model: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor, parts: int
) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """Inputs and labels of each part: every `parts`-th row, so that they are of like length.

    Of several processes, the gradients are averaged with the last part's.
    """
    parts = min(parts, len(labels))
    for part in range(parts):
        share = slice(part, None, parts)
        with distributed.synchronising(model, part == parts - 1):
            yield tuple(tokens[share] for tokens in inputs), labels[share]
