"""How much memory a training step needs, counted tensor by tensor. A repetition gives the same."""

import weakref
from collections.abc import Callable

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Memory(TorchDispatchMode):
    """The bytes of all tensors that are made in this context: those alive `now`, and the `most`
    that were alive at once.

    A view has none of its own, nor has what is written in place. What a kernel takes for itself
    while it computes is not seen.
    """

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.alive: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        given = {storage.data_ptr() for storage in storages((args, kwargs))}
        for storage in storages(made):
            place = storage.data_ptr()
            if place and place not in given | self.alive:
                self.alive.add(place)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.freed, place, storage.nbytes())
        self.most = max(self.most, self.now)
        return made

    def freed(self, place: int, size: int) -> None:
        self.alive.discard(place)
        self.now -= size


def storages(tree) -> list:
    """Where the tensors of a nest of arguments or results lie."""
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def peak_megabytes(build: Callable, steps: int = 2) -> float:
    """The most at once of a learner (studies/protocol.py) that `build` makes: its weights, their
    gradients, the optimiser's averages, a batch, and all that a step keeps for its way back."""
    with Memory() as memory:
        learner = build()
        memory.most = memory.now
        for _ in range(steps):
            next(learner.steps)
    return memory.most / 1e6
