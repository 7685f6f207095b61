"""Where a training step spends its time, of both twins: forward, backward and optimiser, and layer
by layer.

By hand, every layer has a `forward` and a `backward`, and a clock is put around each. In PyTorch
there is no backward to put it around: autograd notes a node for each operation, and runs the nodes
later. So each node is given to the layer in whose forward it was noted, and its time is that
layer's. Time within an inner layer is not the outer one's, so all parts add up to the step. What
is left is "the rest": what a network does between its layers, and in PyTorch autograd's own work.

A clock costs a few microseconds each time, which small layers feel. So whole steps are timed
without any (`turns`), and a profile is for shares.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from statistics import median
from types import BuiltinFunctionType, FunctionType, MethodType

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from common.device import synchronize
from common.results.compare_steps import LayerStep, ManualStep, TorchStep, manual_layer

TWINS = ("manual", "torch")
METHODS = {
    "forward": ("forward", "lookup", "logits", "run", "activation"),
    "backward": ("backward", "lookup_backward", "logits_backward", "run_back"),
}
REST, IN_ORDER, LOGITS = "the rest", "its steps, one by one", "logits"
WHOLE = ("MultiheadAttention", "CrossAttention", "RNN", "GRU", "LSTM")  # with all that is in them
NAMES = {  # a name for both twins
    "CrossAttention": "MultiheadAttention", "TiedEmbedding": "Embedding", "relu": "ReLU",
    "gelu": "GELU", "TokenCrossEntropy": "CrossEntropy", "CrossEntropyLoss": "CrossEntropy",
    "SinusoidalPositions": REST, "run": IN_ORDER, "run_back": IN_ORDER, "logits": LOGITS,
    "logits_backward": LOGITS,
}  # fmt: skip


def phases(step, inputs: tuple[Tensor, ...], labels: Tensor) -> Iterator[str]:
    """A training step of common.results.compare_steps in its parts: the name of each, once done."""
    if isinstance(step, ManualStep):
        step.criterion.forward(step.model.forward(*inputs), labels)
        yield "forward"
        step.model.backward(step.criterion.backward())
    elif isinstance(step, TorchStep):
        loss = step.criterion(step.model(*inputs).flatten(0, -2), labels.flatten())
        yield "forward"
        step.optimizer.zero_grad()
        loss.backward()
    elif step.run is manual_layer:  # a layer alone: the labels are the gradient of its outputs
        step.model.forward(*inputs)
        yield "forward"
        step.model.backward(labels)
    else:
        x = inputs[0].detach().requires_grad_()
        output, _ = step.model(x)
        yield "forward"
        torch.autograd.grad(output, [x, *step.model.parameters()], labels)
    yield "backward"
    if not isinstance(step, LayerStep):
        step.optimizer.step()
        yield "optimiser"


def turns(pair: tuple, batch: tuple, device, steps: int, warmup: int = 5) -> dict[str, list]:
    """Of each twin, for each of so many steps, the seconds of its parts. The twins take turns."""
    found = {twin: [] for twin in TWINS}
    for _ in range(warmup + steps):
        for twin, step in zip(TWINS, pair, strict=True):
            taken, begun = {}, now(device)
            for phase in phases(step, *batch):
                ended = now(device)
                taken[phase], begun = ended - begun, ended
            found[twin].append(taken)
    return {twin: taken[warmup:] for twin, taken in found.items()}


def now(device: torch.device) -> float:
    synchronize(device)
    return time.perf_counter()


class Clock:
    """Seconds by (part, way). What is started and stopped within another part is not that one's."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[tuple, float] = defaultdict(float)
        self.running: list[list[float]] = []  # when each began, and the seconds of those in it

    def start(self) -> None:
        self.running.append([now(self.device), 0.0])

    def stop(self, part: str | None, way: str) -> None:
        begun, within = self.running.pop()
        taken = now(self.device) - begun
        self.seconds[part, way] += taken - within
        if self.running:
            self.running[-1][1] += taken

    def around(self, part: str, way: str, function: Callable) -> Callable:
        """The function, timed; and of what autograd notes in it, the backward as well."""

        def call(*inputs, **options):
            self.start()
            output = function(*inputs, **options)
            self.stop(part, way)
            if way == "forward":
                self.start()
                self.claim(part, (inputs, options), output)
                self.stop(None, way)  # the search is nobody's
            return output

        return call

    def claim(self, part: str, inputs, output) -> None:
        """Time all nodes from the output back to the inputs that no inner layer has claimed."""
        seen = {None, *map(node_of, tree_leaves(inputs))}
        waiting = [*map(node_of, tree_leaves(output))]
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
            if node not in self.claimed:
                self.claimed[node] = (
                    node.register_prehook(lambda gradients: self.start()),
                    node.register_hook(lambda *gradients: self.stop(part, "backward")),
                )

    def of_step(self, step, batch: tuple, base: str) -> dict[tuple, float]:
        """Seconds of a step's parts; `base` has what is in no watched layer."""
        self.seconds.clear()
        self.claimed: dict = {}
        self.start()
        for phase in phases(step, *batch):
            whose = type(step.optimizer).__name__ if phase == "optimiser" else base
            self.stop(whose, phase)
            self.start()
        self.stop(None, "")
        for handle in (handle for pair in self.claimed.values() for handle in pair):
            handle.remove()
        return {key: value for key, value in self.seconds.items() if key[0] is not None}


def node_of(value):
    """Autograd's node of a tensor, if it has one."""
    return value.grad_fn if isinstance(value, Tensor) else None


def watch(layer, clock: Clock) -> None:
    """Put the clock around the layer and those below it, by hand or of torch.nn."""
    below = layer.children() if hasattr(layer, "children") else {}  # a loss by hand has none
    below = list(below.values() if isinstance(below, dict) else below)
    kind = type(layer).__name__
    own = NAMES.get(kind, kind) if kind in WHOLE or not below else REST
    for way, names in METHODS.items():
        for name in names:
            function = getattr(layer, name, None)
            if isinstance(function, (FunctionType, BuiltinFunctionType, MethodType)):
                called = function.__name__ if name == "activation" else name
                setattr(layer, name, clock.around(NAMES.get(called, own), way, function))
    for child in below if kind not in WHOLE else ():
        watch(child, clock)


def watch_step(step, clock: Clock) -> Clock:
    """Put the clock around all layers of a step and its loss. Of nn's recurrent layers there is
    nothing to see but the whole; those by hand have a loop over the steps."""
    if not isinstance(step, LayerStep):
        watch(step.model, clock)
        watch(step.criterion, clock)
    elif step.run is manual_layer:
        for way, method in (("forward", "run"), ("backward", "run_back")):
            function = getattr(step.model, method)
            setattr(step.model, method, clock.around(IN_ORDER, way, function))
    return clock


def profile(name: str, pair: tuple, batch: tuple, device, steps: int, warmup: int = 3) -> dict:
    """Milliseconds of both twins by part: {part: {twin: {"forward": …, "backward": …}}}, the
    medians over so many steps, in which the twins take turns."""
    clocks = [watch_step(step, Clock(device)) for step in pair]
    base = name if isinstance(pair[0], LayerStep) else REST
    seconds: dict[tuple, list] = defaultdict(list)
    for turn in range(warmup + steps):
        for twin, step, clock in zip(TWINS, pair, clocks, strict=True):
            taken = clock.of_step(step, batch, base)
            for (part, way), value in taken.items() if turn >= warmup else ():
                seconds[part, twin, way].append(value)
    found: dict = defaultdict(lambda: defaultdict(dict))
    for (part, twin, way), values in seconds.items():
        found[part][twin][way] = round(1000 * median(values), 3)
    return found
