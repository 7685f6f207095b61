"""What compare.py puts side by side: pairs of networks or layers, their batches, a step of each."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from Transformer_Torch.dataset.batches import IGNORED

TOKENS = 16  # of the longest sentence
WINDOW = 128  # characters; of a layer, steps

Batch = tuple[tuple[Tensor, ...], Tensor]


def features(shape: tuple, N: int, model, dtype: torch.dtype, device: torch.device) -> Batch:
    """Random examples of this shape, of ten classes."""
    inputs = torch.randn(N, *shape, dtype=dtype, device=device)
    return (inputs,), torch.randint(10, (N,), device=device)


def tokens(model, *shape: int) -> Tensor:
    """Random tokens of the network's vocabulary, none of the special ones."""
    vocab_size = model.state_dict()["embedding.weight"].shape[0]
    return torch.randint(4, vocab_size, shape)


def sentences(N: int, model, dtype: torch.dtype, device: torch.device) -> Batch:
    """Pairs of half to all of `TOKENS` tokens, padded, and labels that count where a target is."""
    source, target, labels = (tokens(model, N, TOKENS) for _ in range(3))
    ended, silent = torch.arange(TOKENS) >= torch.randint(TOKENS // 2, TOKENS + 1, (2, N, 1))
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
    "MLP": Twins("MLP_Manual", "MLP_Torch", "MLP", partial(features, (784,))),
    "CNN": Twins("CNN_Manual", "CNN_Torch", "CNN", partial(features, (1, 28, 28))),
    "Transformer": Twins(
        *TRANSFORMERS, "Transformer", sentences, 128, f"sentences of up to {TOKENS} tokens"
    ),
    "LanguageModel": Twins(
        *TRANSFORMERS, "LanguageModel", windows, 16, f"windows of {WINDOW} characters"
    ),
}
LAYERS = {n: Twins("RNN_Manual", "torch", n, sequences, 64) for n in ("RNN", "GRU", "LSTM")}
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


def manual_layer(layer, x: Tensor, grad_output: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output of a hand-written layer, and all gradients by name."""
    output, _ = layer.forward(x)
    grad_x, _ = layer.backward(grad_output)
    return output, {"x": grad_x, **layer.gradients()}


def torch_layer(layer: nn.Module, x: Tensor, grad_output: Tensor) -> tuple:
    """The same of PyTorch's, by autograd."""
    wanted = {"x": x.detach().requires_grad_(), **dict(layer.named_parameters())}
    output, _ = layer(wanted["x"])
    gradients = torch.autograd.grad(output, list(wanted.values()), grad_output)
    return output.detach(), dict(zip(wanted, gradients, strict=True))


class LayerStep:
    """Forward and backward of a layer by itself, by one of these functions."""

    def __init__(self, model, run: Callable):
        self.model, self.run = model, run

    def __call__(self, inputs: tuple[Tensor, ...], grad_output: Tensor) -> Tensor:
        output, self.found = self.run(self.model, *inputs, grad_output)
        return output

    def gradients(self) -> dict:
        return self.found


def make_pair(name: str, dtype: torch.dtype, device: torch.device, lr: float = 1e-3, **kwargs):
    """A step of each twin, from the same weights. `kwargs` go to both constructors."""
    pair, modules = PAIRS[name], ("utils.layers", "nn") if name in LAYERS else ("model", "model")
    manual, native = (
        getattr(importlib.import_module(f"{folder}.{module}"), pair.network)(**kwargs)
        for folder, module in zip(pair[:2], modules, strict=True)
    )
    native.load_state_dict(manual.state_dict())
    manual.to(device=device, dtype=dtype).train()
    native.to(device=device, dtype=dtype, memory_format=torch.channels_last).train()  # as train.py
    if name in LAYERS:
        return LayerStep(manual, manual_layer), LayerStep(native, torch_layer)
    return ManualStep(pair.manual, manual, lr), TorchStep(native, lr)
