"""The layers of a multi-layer perceptron, forward and backward.

A layer's `forward(x)` keeps what `backward` needs. `backward(grad_output)` takes ∂L/∂y, stores the
gradients of the layer's own parameters (`weight` -> `grad_weight`), and returns ∂L/∂x: the chain
rule, one layer at a time. In the formulas g = ∂L/∂y. N is the batch, D the features.
"""

import inspect
import math

import torch
from torch import Tensor


class Layer:
    """What layers share: naming, showing, moving and switching everything below them.

    A subclass lists its learned tensors in `parameter_names` and those that are only kept in
    `buffer_names`; layers among its attributes are found by walking them. Names are dotted paths,
    as in an nn.Module ("layers.0.weight").
    """

    parameter_names: tuple[str, ...] = ()
    buffer_names: tuple[str, ...] = ()
    training = True

    def __call__(self, *inputs, **options):
        """model(x) is model.forward(x), as of an nn.Module."""
        return self.forward(*inputs, **options)

    def __repr__(self) -> str:
        """The tree of layers: the shapes of each one's parameters, its settings, those below."""
        parts = [f"{n} {tuple(getattr(self, n).shape)}" for n in self.parameter_names]
        of_init = inspect.signature(type(self)).parameters
        settings = {n: v for n, v in vars(self).items() if n in of_init}
        parts += [f"{n}={v}" for n, v in settings.items() if type(v) in (int, float)]
        if not self.children():
            return f"{type(self).__name__}({', '.join(parts)})"
        parts += [f"({name}): {child}" for name, child in self.children().items()]
        indented = "".join(f"\n{part}" for part in parts).replace("\n", "\n  ")
        return f"{type(self).__name__}({indented}\n)"

    def children(self) -> dict[str, "Layer"]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Layer)}

    def modules(self, path: str = ""):
        """Yield (path, layer) for this layer and all below it."""
        yield path, self
        for name, child in self.children().items():
            yield from child.modules(f"{path}{name}.")

    def parameters(self) -> dict[str, Tensor]:
        return {p + n: getattr(m, n) for p, m in self.modules() for n in m.parameter_names}

    def gradients(self) -> dict[str, Tensor]:
        """∂L/∂parameter for every name in `parameters()`, as the last backward left them."""
        return {
            p + n: getattr(m, "grad_" + n) for p, m in self.modules() for n in m.parameter_names
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers, under the names of the PyTorch twin."""
        return {
            p + n: getattr(m, n)
            for p, m in self.modules()
            for n in m.parameter_names + m.buffer_names
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy `state` in. Raises ValueError when names or shapes differ."""
        own = self.state_dict()
        if own.keys() != state.keys():
            raise ValueError(f"names differ: {', '.join(sorted(own.keys() ^ state.keys()))}")
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                shapes = f"{tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
                raise ValueError(f"{name} has shape {shapes}")
            tensor.copy_(state[name])

    def to(self, device=None, dtype=None):
        """Move everything; `dtype` is for the floating-point tensors only."""
        for _, module in self.modules():
            for name in module.parameter_names + module.buffer_names:
                tensor = getattr(module, name)
                floating = tensor.is_floating_point()
                setattr(module, name, tensor.to(device=device, dtype=dtype if floating else None))
        return self

    def train(self, mode: bool = True):
        for _, module in self.modules():
            module.training = mode
        return self

    def eval(self):
        return self.train(False)


class Sequential(Layer):
    """Layers one after the other: y = fₙ(… f₂(f₁(x))), and backward in the opposite order."""

    def __init__(self, *layers: Layer):
        self.layers = layers

    def children(self) -> dict[str, Layer]:
        return {str(index): layer for index, layer in enumerate(self.layers)}

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, grad_output: Tensor) -> Tensor | None:
        for layer in reversed(self.layers):
            grad_output = layer.backward(grad_output)
        return grad_output


class Linear(Layer):
    """y = x Wᵀ + b

    ∂L/∂W = gᵀ x    ∂L/∂b = Σₙ gₙ    ∂L/∂x = g W

    A network's first layer may set `needs_grad_input=False`: nobody learns the images, so it
    returns None instead of ∂L/∂x and saves a third of its work, as autograd does.
    """

    parameter_names = ("weight", "bias")

    def __init__(self, in_features: int, out_features: int, needs_grad_input: bool = True):
        bound = in_features**-0.5  # as nn.Linear, so that twins start alike
        self.weight = torch.empty(out_features, in_features).uniform_(-bound, bound)
        self.bias = torch.empty(out_features).uniform_(-bound, bound)
        self.needs_grad_input = needs_grad_input

    def forward(self, x: Tensor) -> Tensor:  # (N, in) -> (N, out)
        self.x = x
        return torch.addmm(self.bias, x, self.weight.T)

    def backward(self, grad_output: Tensor) -> Tensor | None:  # (N, out) -> (N, in)
        self.grad_weight = grad_output.T @ self.x
        self.grad_bias = grad_output.sum(0)
        return grad_output @ self.weight if self.needs_grad_input else None


class ReLU(Layer):
    """y = max(x, 0)    ∂L/∂x = g · [x > 0]; at the kink, 0, as PyTorch. NaN stays NaN."""

    def forward(self, x: Tensor) -> Tensor:
        self.y = x.clamp(min=0)
        return self.y

    def backward(self, grad_output: Tensor) -> Tensor:
        # y >= 0, so [x > 0] is where y is not 0: as numbers, which multiply faster than bools
        return torch.ne(self.y, 0, out=torch.empty_like(self.y)).mul_(grad_output)


class Tanh(Layer):
    """y = tanh(x)    ∂L/∂x = g (1 − y²)"""

    def forward(self, x: Tensor) -> Tensor:
        self.y = x.tanh()
        return self.y

    def backward(self, grad_output: Tensor) -> Tensor:
        return grad_output * (1 - self.y**2)


class Sigmoid(Layer):
    """y = σ(x) = 1 / (1 + e⁻ˣ)    ∂L/∂x = g y (1 − y)"""

    def forward(self, x: Tensor) -> Tensor:
        self.y = x.sigmoid()
        return self.y

    def backward(self, grad_output: Tensor) -> Tensor:
        return grad_output * self.y * (1 - self.y)


class GELU(Layer):
    """y = x Φ(x), Φ the standard normal distribution (Hendrycks & Gimpel, 2016, Section 2)

    Φ(x) = (1 + erf(x/√2)) / 2    φ(x) = e^(−x²/2) / √(2π)    ∂L/∂x = g (Φ(x) + x φ(x))
    """

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        self.cdf = (x / math.sqrt(2)).erf_().add_(1).div_(2)
        return x * self.cdf

    def backward(self, grad_output: Tensor) -> Tensor:
        # e^(−x²/2) by exp2, which takes a third of exp's time on some processors
        density = (self.x * self.x).mul_(-0.5 * math.log2(math.e)).exp2_()
        density.div_(math.sqrt(2 * math.pi))
        return density.mul_(self.x).add_(self.cdf).mul_(grad_output)


class Dropout(Layer):
    """Each value is 0 with probability p, else x / (1 − p), so that E[y] = x.

    As in PyTorch, p is the share that is dropped; Srivastava et al. (2014, Section 4) call p the
    share that is kept. They scale the weights at evaluation; this form ("inverted") scales in
    training, so that evaluation leaves x as it is.

    ∂L/∂x = g · mask, the same mask
    """

    def __init__(self, p: float):
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        self.mask = None
        if not self.training or self.p == 0:
            return x
        if self.p == 1:  # nothing is left that 1 / (1 − p) could make up for
            self.mask = torch.zeros_like(x)
        else:  # drawn as torch draws it, so that twins with one seed drop the same values
            self.mask = torch.empty_like(x).bernoulli_(1 - self.p).div_(1 - self.p)
        return x * self.mask

    def backward(self, grad_output: Tensor) -> Tensor:
        return grad_output if self.mask is None else grad_output * self.mask


class BatchNorm1d(Layer):
    """y = γ x̂ + β,  x̂ = (x − μ) / √(σ² + ε)  (Ioffe & Szegedy, 2015, Algorithm 1)

    μ and σ² (biased) are over the batch in training; in evaluation, running estimates of them
    (the variance's is the unbiased one, as in PyTorch). γ is `weight`, β is `bias`.

    ∂L/∂γ = Σₙ g x̂    ∂L/∂β = Σₙ g
    μ and σ² depend on every x of the batch, and collecting their terms (the paper's Section 3
    chain, simplified) gives, with means over the batch,
    ∂L/∂x = γ/√(σ² + ε) · (g − mean(g) − x̂ · mean(g x̂))
    """

    parameter_names = ("weight", "bias")
    buffer_names = ("running_mean", "running_var", "num_batches_tracked")

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1):
        self.weight = torch.ones(num_features)
        self.bias = torch.zeros(num_features)
        self.running_mean = torch.zeros(num_features)
        self.running_var = torch.ones(num_features)
        self.num_batches_tracked = torch.tensor(0)
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Tensor) -> Tensor:  # (N, D) -> (N, D)
        mean, var = self.running_mean, self.running_var
        self.of_batch = self.training
        if self.training:
            N = len(x)
            if N < 2:
                raise ValueError("batch normalisation needs at least 2 examples to train on")
            mean = x.mean(0)
            var = ((x - mean) ** 2).mean(0)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * N / (N - 1), self.momentum)
            self.num_batches_tracked += 1
        self.inverse_std = (var + self.eps) ** -0.5
        self.x_hat = (x - mean) * self.inverse_std
        return torch.addcmul(self.bias, self.x_hat, self.weight)

    def backward(self, grad_output: Tensor) -> Tensor:
        self.grad_weight = (grad_output * self.x_hat).sum(0)
        self.grad_bias = grad_output.sum(0)
        scale = self.weight * self.inverse_std
        if not self.of_batch:  # μ and σ² were constants
            return grad_output * scale
        N = len(grad_output)
        centred = grad_output - torch.addcmul(self.grad_bias / N, self.x_hat, self.grad_weight / N)
        return centred.mul_(scale)
