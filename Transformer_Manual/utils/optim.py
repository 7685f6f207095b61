"""Optimisers, gradient clipping and learning-rate schedules.

Each optimiser reads `model.parameters()` and `model.gradients()` (dicts with the same names) and
moves the parameters in place. θ is a parameter, ∇ its gradient, η the learning rate `lr`, λ the
weight decay, t the number of the step.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from common.errors import UserError


class Optimizer:
    """What optimisers share: the loop over parameters, and their averages ("buffers")."""

    buffer_names: tuple[str, ...] = ()

    def __init__(self, model, lr: float, weight_decay: float = 0.0):
        self.model, self.lr, self.weight_decay = model, lr, weight_decay
        self.t = 0
        self.buffers = {
            buffer: {name: torch.zeros_like(p) for name, p in model.parameters().items()}
            for buffer in self.buffer_names
        }

    def step(self) -> None:
        self.t += 1
        gradients = self.model.gradients()
        for name, parameter in self.model.parameters().items():
            buffers = [self.buffers[buffer][name] for buffer in self.buffer_names]
            self.update(parameter, gradients[name], *buffers)

    def update(self, parameter: Tensor, gradient: Tensor, *buffers: Tensor) -> None:
        """Move one parameter by one step, in place."""
        raise NotImplementedError

    def with_decay(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """∇ + λθ: weight decay as the gradient of λ/2 ‖θ‖²."""
        return gradient.add(parameter, alpha=self.weight_decay) if self.weight_decay else gradient

    def state_dict(self) -> dict:
        return {"lr": self.lr, "t": self.t, "buffers": self.buffers}

    def load_state_dict(self, state: dict) -> None:
        """Copy `state` in. Raises ValueError when it is of other buffers or parameters."""
        for buffer in self.buffers.keys() | state["buffers"].keys():
            own, given = (
                {name: tensor.shape for name, tensor in buffers.get(buffer, {}).items()}
                for buffers in (self.buffers, state["buffers"])
            )
            if own != given:
                raise ValueError(f"{buffer} is of parameters {given} instead of {own}")
        self.lr, self.t = float(state["lr"]), int(state["t"])
        if self.t < 0:
            raise ValueError(f"it has taken {self.t} steps")
        for buffer, tensors in self.buffers.items():
            for name, tensor in tensors.items():
                tensor.copy_(state["buffers"][buffer][name])


class Adam(Optimizer):
    """m ← β₁ m + (1 − β₁) ∇,  v ← β₂ v + (1 − β₂) ∇²,  θ ← θ − η m̂ / (√v̂ + ε)

    m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ) undo the start at zero (Kingma & Ba, 2015, Algorithm 1)
    """

    buffer_names = ("mean", "square_average")

    def __init__(self, model, lr: float, weight_decay: float = 0.0,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8):  # fmt: skip
        super().__init__(model, lr, weight_decay)
        self.betas, self.eps = betas, eps

    def update(self, parameter, gradient, mean, square_average):
        self.adapt(parameter, self.with_decay(parameter, gradient), mean, square_average)

    def adapt(self, parameter, gradient, mean, square_average):
        beta1, beta2 = self.betas
        mean.lerp_(gradient, 1 - beta1)
        square_average.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        # √v̂ + ε with one temporary: √v / √(1 − β₂ᵗ) + ε
        denominator = square_average.sqrt().div_(math.sqrt(1 - beta2**self.t)).add_(self.eps)
        parameter.addcdiv_(mean, denominator, value=-self.lr / (1 - beta1**self.t))


class AdamW(Adam):
    """Adam whose weight decay bypasses the averages: θ ← θ − η λ θ, then Adam's step without λ
    (Loshchilov & Hutter, 2019, in PyTorch's form: in their Algorithm 2 the schedule alone, and not
    the rate, multiplies λ θ)"""

    def update(self, parameter, gradient, mean, square_average):
        parameter.mul_(1 - self.lr * self.weight_decay)
        self.adapt(parameter, gradient, mean, square_average)


def orthogonalise(X: Tensor) -> Tensor:
    """Nearly U Vᵀ for X = U S Vᵀ, its singular value decomposition, without computing that: five
    steps of a Newton–Schulz iteration (Jordan et al., 2024). X is (…, rows, columns).

        X ← X / ‖X‖,  then five times  X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X

    It changes the singular values alone. UᵀU = VᵀV = 1, so X Xᵀ = U S² Uᵀ, (X Xᵀ) X = U S³ Vᵀ and
    (X Xᵀ)² X = U S⁵ Vᵀ: a step gives U f(S) Vᵀ with f(x) = a x + b x³ + c x⁵. Only odd powers keep
    U on the left and Vᵀ on the right; an even one, such as X Xᵀ, has lost V.

    It drives them towards 1. The classic f(x) = (3 x − x³)/2 gets there exactly, but takes many
    steps, since it multiplies a small x by 1.5 only. These a, b, c make the slope at 0, which is a,
    as large as they can without leaving the neighbourhood of 1: what is at least 0.002 after the
    division ends between 0.68 and 1.21. (From f(0.55) = 1.20, its largest value up to 1, and
    f(1.05) = 0.68, its least one beyond 0.68. 1 itself is no fixed point: f(1) = 0.70.) About the
    right length in every direction serves a step as well as the exact one.

    The division makes all of them 1 or less, for beyond 1.26 they would run away: ‖X‖² = Σ sᵢ²
    (Frobenius) is at least the largest sᵢ², and U Vᵀ does not depend on X's length. A tall X is
    transposed, and back at the end: Xᵀ = V S Uᵀ, and X Xᵀ is then the smaller of the two products.

    Under autocast in bfloat16, as Jordan et al. have it, the products are faster where the
    processor knows it, and still good enough. Raises ValueError for what is no matrix.
    """
    if X.dim() < 2:
        raise ValueError(f"a tensor of {X.dim()} dimensions is no matrix to orthogonalise")
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = X.shape[-2] > X.shape[-1]
    Y = X.mT if tall else X
    Y = Y / (Y * Y).sum((-2, -1), keepdim=True).sqrt().clamp(min=1e-7)  # of zeros, zeros
    for _ in range(5):
        A = Y @ Y.mT
        Y = a * Y + (b * A + c * (A @ A)) @ Y
    return Y.mT if tall else Y


class Muon(AdamW):
    """u ← ρ u + ∇,  O = U Vᵀ of ∇ + ρ u,  θ ← θ − η λ θ − η r O  (Jordan et al., 2024), of hidden
    layers; AdamW of all others

    Nesterov's direction, with all singular values made 1. A gradient is often large along a few
    directions and tiny along the others; here each counts alike. Without momentum,
    subtracting O would lower the loss most, to first order, among the matrices that make no vector
    longer (Bernstein & Newhouse, 2024, arXiv:2409.20325).

    What is hidden is the model's to say, in names: a matrix is Muon's unless its name begins with
    one of the model's `not_hidden`, which are the layers that read the input (an embedding, a first
    layer) and the last one. Those, norms and biases are AdamW's, with the same η and λ.

    A kernel counts as a matrix (out, in · kh · kw). Its U Vᵀ is not an orthogonal convolution, for
    patches of an image overlap. What is stored as one matrix is made orthogonal as one, also the
    gates of a cell, and Q, K, V of an attention.

    r, the scale, is by default 0.2 √max(rows, columns) ("match_rms_adamw", Liu et al., 2025,
    arXiv:2502.16982, section 2.2): the root mean square of U Vᵀ is 1/√max(rows, columns), and 0.2
    is about that of Adam's steps, so that one learning rate is right for both. Jordan's own is
    √max(1, rows/columns) ("original"), which wants an η of its own.
    """

    buffer_names = ("velocity", "mean", "square_average")

    def __init__(self, model, lr: float, weight_decay: float = 0.0, momentum: float = 0.95,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 adjust: str = "match_rms_adamw"):  # fmt: skip
        super().__init__(model, lr, weight_decay, betas, eps)
        if adjust not in ("match_rms_adamw", "original"):
            raise ValueError(f"adjust={adjust!r} is neither match_rms_adamw nor original")
        self.momentum, self.adjust = momentum, adjust
        self.hidden = [
            name
            for name, parameter in model.parameters().items()
            if parameter.dim() >= 2 and not name.startswith(getattr(model, "not_hidden", ()))
        ]
        if not self.hidden:
            raise UserError("muon is for hidden layers, and there is none: take adamw")
        for buffer, tensors in self.buffers.items():  # a velocity there, the averages elsewhere
            needed = [n for n in tensors if (n in self.hidden) == (buffer == "velocity")]
            self.buffers[buffer] = {name: tensors[name] for name in needed}

    def step(self) -> None:
        self.t += 1
        parameters, gradients = self.model.parameters(), self.model.gradients()
        alike: dict[torch.Size, list[str]] = {}  # of one shape: iterated together
        for name, parameter in parameters.items():
            if name in self.hidden:
                alike.setdefault(parameter.flatten(1).shape, []).append(name)
            else:
                own = (self.buffers[buffer][name] for buffer in ("mean", "square_average"))
                self.update(parameter, gradients[name], *own)
        for shape, names in alike.items():
            ahead = [self.look_ahead(gradients[n], self.buffers["velocity"][n]) for n in names]
            steps = orthogonalise(torch.stack([d.reshape(shape) for d in ahead]))
            for name, step in zip(names, steps, strict=True):
                parameter = parameters[name].mul_(1 - self.lr * self.weight_decay)
                parameter.add_(step.view_as(parameter), alpha=-self.lr * self.scale(*shape))

    def look_ahead(self, gradient: Tensor, velocity: Tensor) -> Tensor:
        """u ← ρ u + ∇; gives ∇ + ρ u."""
        return gradient.add(velocity.mul_(self.momentum).add_(gradient), alpha=self.momentum)

    def scale(self, rows: int, columns: int) -> float:
        if self.adjust == "match_rms_adamw":
            return 0.2 * math.sqrt(max(rows, columns))
        return math.sqrt(max(1, rows / columns))


OPTIMIZERS = {"adam": Adam, "adamw": AdamW, "muon": Muon}


class MovingAverage:
    """A second network whose weights are an average over the steps: a ← ρ a + (1 − ρ) θ after each,
    from the first step's θ on (Polyak & Juditsky, 1992, here with exponential weights).

    Its state has the same names as the twin's.
    """

    def __init__(self, model, decay: float):
        self.model, self.decay, self.steps = copy.deepcopy(model), decay, 0

    def update(self, model) -> None:
        weight = 1 - self.decay if self.steps else 1.0
        for average, value in zip(
            self.model.state_dict().values(), model.state_dict().values(), strict=True
        ):
            average.lerp_(value, weight)
        self.steps += 1

    def state_dict(self) -> dict:
        model = {f"module.{name}": value for name, value in self.model.state_dict().items()}
        return {"n_averaged": self.steps, **model}

    def load_state_dict(self, state: dict) -> None:
        state = {name.removeprefix("module."): value for name, value in state.items()}
        self.steps = int(state.pop("n_averaged"))
        self.model.load_state_dict(state)


def clip_gradients(model, max_norm: float) -> Tensor:
    """Scale all gradients, in place, so that their joint norm is at most `max_norm` (Pascanu et
    al., 2013, Algorithm 1). Returns the norm before."""
    gradients = model.gradients().values()
    norm = torch.stack([(gradient**2).sum() for gradient in gradients]).sum().sqrt()
    scale = (max_norm / (norm + 1e-6)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(scale)
    return norm


def constant(lr: float, total: int) -> Callable[[int], float]:
    """η(t) = lr"""
    return lambda step: lr


def step_decay(lr: float, total: int) -> Callable[[int], float]:
    """η is divided by 10 after each third of the steps"""
    size = max(1, -(-total // 3))
    return lambda step: lr * 0.1 ** (step // size)


def cosine(lr: float, total: int) -> Callable[[int], float]:
    """η(t) = lr (1 + cos(π t/T)) / 2, from lr to 0  (Loshchilov & Hutter, 2017, Eq. 5)"""
    return lambda step: lr * (1 + math.cos(math.pi * step / total)) / 2


def one_cycle(lr: float, total: int, rise: float = 0.3) -> Callable[[int], float]:
    """Half a cosine up from lr/25 for `rise` of the steps, then half a cosine down to lr/250,000
    (Smith & Topin, 2018; the form and the constants are PyTorch's)"""
    low, end = lr / 25, lr / 25 / 1e4
    # the last step is number total − 1, the peak is just before step rise · total
    peak, last = rise * total - 1, total - 1

    def between(start: float, stop: float, share: float) -> float:
        return stop + (start - stop) * (1 + math.cos(math.pi * share)) / 2

    def schedule(step: int) -> float:
        if step <= peak:
            return between(low, lr, step / peak if peak > 0 else 1)
        return between(lr, end, (step - peak) / (last - peak) if last > peak else 1)

    return schedule


def with_warmup(schedule: Callable[[int], float], steps: int) -> Callable[[int], float]:
    """A straight line up to `schedule`'s start over the first `steps`, then `schedule` (Goyal et
    al., 2017, Section 2.2)"""
    return lambda step: (
        schedule(0) * (step + 1) / (steps + 1) if step < steps else schedule(step - steps)
    )


SCHEDULES = {"constant": constant, "step": step_decay, "cosine": cosine, "one-cycle": one_cycle}


def make_schedule(name: str, lr: float, total: int, warmup: int = 0) -> Callable[[int], float]:
    """The learning rate as a function of the step, 0 <= step < `total`, `warmup` of them first.

    Raises ValueError when the warm-up leaves nothing for the schedule itself.
    """
    if warmup >= total:
        raise ValueError(f"{warmup} steps of warm-up do not fit into {total} steps")
    return with_warmup(SCHEDULES[name](lr, total - warmup), warmup)


TRANSFORMER_SCHEDULES = (*SCHEDULES, "inverse-sqrt")


def inverse_sqrt(lr: float, warmup: int) -> Callable[[int], float]:
    """lr · min(t/w, √(w/t)) in step t = 1, 2, … with w = warmup + 1: up in a line to lr, then down
    with the root (Vaswani et al., 2017, Equation 3, where lr is 1/√(D w))"""
    w = warmup + 1
    return lambda step: lr * min((step + 1) / w, (w / (step + 1)) ** 0.5)


def learning_rate(name: str, lr: float, total: int, warmup: int = 0) -> Callable[[int], float]:
    """`make_schedule`, or "inverse-sqrt", of which the warm-up is a part."""
    if name == "inverse-sqrt":
        return inverse_sqrt(lr, warmup)
    return make_schedule(name, lr, total, warmup)
