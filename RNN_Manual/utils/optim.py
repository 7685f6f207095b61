"""Optimisers, gradient clipping and learning-rate schedules.

Each optimiser reads `model.parameters()` and `model.gradients()` (dicts with the same names) and
moves the parameters in place. θ is a parameter, ∇ its gradient, η the learning rate `lr`, λ the
weight decay, t the number of the step.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


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
        self.lr, self.t = state["lr"], state["t"]
        for buffer, tensors in self.buffers.items():
            for name, tensor in tensors.items():
                tensor.copy_(state["buffers"][buffer][name])


class SGD(Optimizer):
    """θ ← θ − η ∇"""

    def update(self, parameter, gradient):
        parameter.add_(self.with_decay(parameter, gradient), alpha=-self.lr)


class Momentum(Optimizer):
    """u ← ρ u + ∇,  θ ← θ − η u, with the momentum ρ  (Polyak, 1964)"""

    buffer_names = ("velocity",)

    def __init__(self, model, lr: float, weight_decay: float = 0.0, momentum: float = 0.9):
        super().__init__(model, lr, weight_decay)
        self.momentum = momentum

    def update(self, parameter, gradient, velocity):
        velocity.mul_(self.momentum).add_(self.with_decay(parameter, gradient))
        parameter.add_(velocity, alpha=-self.lr)


class Nesterov(Momentum):
    """u ← ρ u + ∇,  θ ← θ − η (∇ + ρ u): the gradient as if taken one step ahead (Sutskever et
    al., 2013, Section 2, in the form that PyTorch uses)"""

    def update(self, parameter, gradient, velocity):
        gradient = self.with_decay(parameter, gradient)
        velocity.mul_(self.momentum).add_(gradient)
        parameter.add_(gradient.add(velocity, alpha=self.momentum), alpha=-self.lr)


class AdaGrad(Optimizer):
    """s ← s + ∇²,  θ ← θ − η ∇ / (√s + ε)  (Duchi et al., 2011)"""

    buffer_names = ("square_sum",)

    def __init__(self, model, lr: float, weight_decay: float = 0.0, eps: float = 1e-10):
        super().__init__(model, lr, weight_decay)
        self.eps = eps

    def update(self, parameter, gradient, square_sum):
        gradient = self.with_decay(parameter, gradient)
        square_sum.addcmul_(gradient, gradient)
        parameter.addcdiv_(gradient, square_sum.sqrt().add_(self.eps), value=-self.lr)


class RMSprop(Optimizer):
    """s ← α s + (1 − α) ∇²,  θ ← θ − η ∇ / (√s + ε)  (Hinton, 2012, lecture 6e)"""

    buffer_names = ("square_average",)

    def __init__(self, model, lr: float, weight_decay: float = 0.0, alpha: float = 0.99,
                 eps: float = 1e-8):  # fmt: skip
        super().__init__(model, lr, weight_decay)
        self.alpha, self.eps = alpha, eps

    def update(self, parameter, gradient, square_average):
        gradient = self.with_decay(parameter, gradient)
        square_average.mul_(self.alpha).addcmul_(gradient, gradient, value=1 - self.alpha)
        parameter.addcdiv_(gradient, square_average.sqrt().add_(self.eps), value=-self.lr)


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
    (Loshchilov & Hutter, 2019, in PyTorch's form: their Algorithm 2 has no η before λ θ)"""

    def update(self, parameter, gradient, mean, square_average):
        parameter.mul_(1 - self.lr * self.weight_decay)
        self.adapt(parameter, gradient, mean, square_average)


OPTIMIZERS = {
    "sgd": SGD, "momentum": Momentum, "nesterov": Nesterov, "adagrad": AdaGrad,
    "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW,
}  # fmt: skip


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
