"""Muon (Jordan et al., 2024) for hidden layers and AdamW for all others, as one torch.optim
optimiser. `utils/optim.py` of the folders written by hand derives it."""

import torch
from torch import Tensor, nn, optim

from common.errors import UserError


def orthogonalise(X: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Nearly U Vᵀ for X = U S Vᵀ, (…, rows, columns): all singular values become about 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = X.shape[-2] > X.shape[-1]
    Y = (X.mT if tall else X).to(dtype or X.dtype)
    Y = Y / (Y * Y).sum((-2, -1), keepdim=True).sqrt().clamp(min=1e-7)
    for _ in range(5):  # U f(S) Vᵀ with f(x) = a x + b x³ + c x⁵
        A = Y @ Y.mT
        Y = a * Y + (b * A + c * (A @ A)) @ Y
    return (Y.mT if tall else Y).to(X.dtype)


class Muon(optim.Optimizer):
    """Groups with `muon=True` hold matrices and kernels: ∇ + ρ u (velocity u, momentum ρ) with all
    singular values made 1, kernels as matrices (out, in · kh · kw). The other groups are AdamW's.

    `adjust` is by how much that step is longer: "match_rms_adamw", as long as AdamW's are, so that
    one learning rate and one schedule serve both; or "original", √max(1, rows/columns).
    Raises ValueError for a vector in a group of Muon's.
    """

    def __init__(self, groups, lr: float, weight_decay: float = 0.0, momentum: float = 0.95,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 adjust: str = "match_rms_adamw", dtype: torch.dtype | None = None):  # fmt: skip
        if adjust not in ("match_rms_adamw", "original"):
            raise ValueError(f"adjust={adjust!r} is neither match_rms_adamw nor original")
        self.adjust, self.dtype = adjust, dtype
        super().__init__(groups, dict(lr=lr, weight_decay=weight_decay, momentum=momentum,
                                      betas=betas, eps=eps, muon=False))  # fmt: skip
        for group in self.param_groups:
            if group["muon"] and any(p.dim() < 2 for p in group["params"]):
                raise ValueError("Muon is for matrices and kernels, and there is a vector")

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for p in parameters:
                p.mul_(1 - group["lr"] * group["weight_decay"])
            (self.step_muon if group["muon"] else self.step_adam)(parameters, group)

    def step_muon(self, parameters: list[Tensor], group: dict) -> None:
        alike: dict[torch.Size, list[Tensor]] = {}  # of one shape: iterated together
        for p in parameters:
            alike.setdefault(p.flatten(1).shape, []).append(p)
        for (rows, columns), same in alike.items():
            ahead = []
            for p in same:
                if not self.state[p]:
                    self.state[p]["velocity"] = torch.zeros_like(p)
                velocity = self.state[p]["velocity"].mul_(group["momentum"]).add_(p.grad)
                ahead.append(p.grad.add(velocity, alpha=group["momentum"]).flatten(1))
            matched = 0.2 * max(rows, columns) ** 0.5
            scale = matched if self.adjust == "match_rms_adamw" else max(1, rows / columns) ** 0.5
            for p, step in zip(same, orthogonalise(torch.stack(ahead), self.dtype), strict=True):
                p.add_(step.view_as(p), alpha=-group["lr"] * scale)

    def step_adam(self, parameters: list[Tensor], group: dict) -> None:
        beta1, beta2 = group["betas"]
        for p in parameters:
            state = self.state[p]
            if not state:
                state.update(t=0, mean=torch.zeros_like(p), square_average=torch.zeros_like(p))
            state["t"] += 1
            state["mean"].lerp_(p.grad, 1 - beta1)
            state["square_average"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
            root = state["square_average"].sqrt().div_((1 - beta2 ** state["t"]) ** 0.5)
            rate = group["lr"] / (1 - beta1 ** state["t"])
            p.addcdiv_(state["mean"], root.add_(group["eps"]), value=-rate)


def muon(model: nn.Module, groups: list[dict], **options) -> Muon:
    """Muon for `groups` of the model's parameters. A matrix is hidden, and Muon's, unless its name
    begins with one of the model's `not_hidden`: what reads the input, and the last layer."""
    hidden = {
        p for name, p in model.named_parameters()
        if p.dim() >= 2 and p.requires_grad and not name.startswith(model.not_hidden)
    }  # fmt: skip
    if not hidden:
        raise UserError("muon is for hidden layers, and there is none: take adamw")
    halves = [
        {**group, "muon": mine, "params": [p for p in group["params"] if (p in hidden) == mine]}
        for group in groups
        for mine in (True, False)
    ]
    return Muon([half for half in halves if half["params"]], **options)
