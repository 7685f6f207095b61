"""What compare.py puts side by side: pairs of networks or layers, their batches, a step of each."""

import importlib
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from Transformer_Torch.dataset.batches import IGNORED

TOKENS = 16  # of the longest sentence
WINDOW = 128  # characters; of a layer, steps

Batch = tuple[tuple[Tensor, ...], Tensor]


def features(*shape: int) -> Callable[..., Batch]:
    """Random examples of this shape, of ten classes."""

    def make(N: int, model, dtype: torch.dtype, device: torch.device) -> Batch:
        inputs = torch.randn(N, *shape, dtype=dtype, device=device)
        return (inputs,), torch.randint(10, (N,), device=device)

    return make


def tokens(model, *shape: int) -> Tensor:
    """Random tokens of the network's vocabulary, none of the special ones."""
    vocab_size = model.state_dict()["embedding.weight"].shape[0]
    return torch.randint(4, vocab_size, shape)


def sentences(N: int, model, dtype: torch.dtype, device: torch.device) -> Batch:
    """Pairs of half to all of `TOKENS` tokens, padded, and labels that count where a target is."""
    source, target, labels = (tokens(model, N, TOKENS) for _ in range(3))
    ended, silent = (
        torch.arange(TOKENS) >= torch.randint(TOKENS // 2, TOKENS + 1, (N, 1)) for _ in range(2)
    )
    source, target = source.masked_fill(ended, 0), target.masked_fill(silent, 0)
    labels = labels.masked_fill(silent, IGNORED)
    return (source.to(device), target.to(device)), labels.to(device)


def windows(N: int, model, dtype: torch.dtype, device: torch.device) -> Batch:
    inputs, labels = (tokens(model, N, WINDOW).to(device) for _ in range(2))
    return (inputs,), labels


def sequences(size: tuple[int, int], model, dtype: torch.dtype, device: torch.device) -> Batch:
    """A layer's inputs (T, N, D) and the gradient of its outputs (T, N, H); `size` is (T, N)."""
    x = torch.randn(*size, model.input_size, dtype=dtype, device=device)
    return (x,), torch.randn(*size, model.hidden_size, dtype=dtype, device=device)


class Twins(NamedTuple):
    """The folders, the class, its batches, how many examples one has, and what these are."""

    manual: str
    native: str
    network: str
    make_batch: Callable[..., Batch]
    batch_size: int = 128
    examples: str = ""


TRANSFORMERS = ("Transformer_Manual", "Transformer_Torch")
TWINS = {
    "MLP": Twins("MLP_Manual", "MLP_Torch", "MLP", features(784)),
    "CNN": Twins("CNN_Manual", "CNN_Torch", "CNN", features(1, 28, 28)),
    "Transformer": Twins(
        *TRANSFORMERS, "Transformer", sentences, 128, f"sentences of up to {TOKENS} tokens"
    ),
    "LanguageModel": Twins(
        *TRANSFORMERS, "LanguageModel", windows, 16, f"windows of {WINDOW} characters"
    ),
}
RECURRENT = ("RNN", "GRU", "LSTM")  # whose folder has no twin
LAYERS = {name: Twins("RNN_Manual", "torch", name, sequences, 64) for name in RECURRENT}
PAIRS = TWINS | LAYERS


class ManualStep:
    """One training step of a hand-written model, with the folder's own loss and AdamW."""

    def __init__(self, folder: str, model, lr: float):
        optim = importlib.import_module(f"{folder}.utils.optim")
        losses = importlib.import_module(f"{folder}.utils.losses")
        self.model = model
        name = "TokenCrossEntropy" if folder in TRANSFORMERS else "CrossEntropy"
        self.criterion = getattr(losses, name)()
        self.optimizer = optim.AdamW(model, lr, weight_decay=0.05)

    def __call__(self, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        loss = self.criterion.forward(self.model.forward(*inputs), labels)
        self.model.backward(self.criterion.backward())
        self.optimizer.step()
        return loss

    def gradients(self) -> dict:
        return self.model.gradients()


class TorchStep:
    """The same step in PyTorch."""

    def __init__(self, model: nn.Module, lr: float):
        self.model = model
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.05)

    def __call__(self, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        logits = self.model(*inputs)
        loss = self.criterion(logits.flatten(0, -2), labels.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def gradients(self) -> dict:
        return {name: parameter.grad for name, parameter in self.model.named_parameters()}


class ManualLayer(ManualStep):
    """Forward and backward of a hand-written layer, from the gradient of its outputs."""

    def __init__(self, model):
        self.model = model

    def __call__(self, inputs: tuple[Tensor, ...], grad_output: Tensor) -> Tensor:
        output, _ = self.model.forward(*inputs)
        self.grad_x, _ = self.model.backward(grad_output)
        return output

    def gradients(self) -> dict:
        return {"x": self.grad_x, **super().gradients()}


class TorchLayer(TorchStep):
    """The same in PyTorch, by autograd."""

    def __init__(self, model: nn.Module):
        self.model = model

    def __call__(self, inputs: tuple[Tensor, ...], grad_output: Tensor) -> Tensor:
        self.x = inputs[0].detach().requires_grad_()
        output, _ = self.model(self.x)
        self.model.zero_grad()
        output.backward(grad_output)
        return output.detach()

    def gradients(self) -> dict:
        return {"x": self.x.grad, **super().gradients()}


def make_pair(name: str, dtype: torch.dtype, device: torch.device, lr: float = 1e-3, **kwargs):
    """A step of each twin, from the same weights. `kwargs` go to both constructors."""
    pair, modules = PAIRS[name], ("utils.layers", "nn") if name in LAYERS else ("model", "model")
    manual, native = (
        getattr(importlib.import_module(f"{folder}.{module}"), pair.network)(**kwargs)
        for folder, module in zip(pair[:2], modules, strict=True)
    )
    native.load_state_dict(manual.state_dict())
    manual.to(device=device, dtype=dtype).train()
    native.to(device=device, dtype=dtype).train()
    if name in LAYERS:
        return ManualLayer(manual), TorchLayer(native)
    return ManualStep(pair.manual, manual, lr), TorchStep(native, lr)
