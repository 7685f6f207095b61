"""The layers of a convolutional network, forward and backward.

A layer's `forward(x)` keeps what `backward` needs. `backward(grad_output)` takes ∂L/∂y, stores the
gradients of the layer's own parameters (`weight` -> `grad_weight`), and returns ∂L/∂x: the chain
rule, one layer at a time. In the formulas g = ∂L/∂y. N is the batch, C channels, H W height and
width, O output channels, D features.

Images have the shape (N, C, H, W), but convolutions leave each pixel's channels side by side in
memory ("channels last"); the layers after them keep it so.
"""

import inspect
from collections.abc import Iterator

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


class Conv2d(Layer):
    """y[n, o, h, w] = b[o] + Σ_c Σ_ij W[o, c, i, j] · x[n, c, h·s + i·d − p, w·s + j·d − p]

    with stride s, padding p, dilation d (zeros outside of x). For one kernel offset ("tap") (i, j)
    this is a matrix product over the channels, so a convolution is one product per tap, added up:
    y = b + Σ_ij x_ij W_ijᵀ, where x_ij is the input shifted by (i, j), a pixel per row.

    No shifted copy is made. In memory each pixel's channels lie side by side (N, H, W, C), pixel
    after pixel: shifting the image by (i, j) is starting to read i·width + j rows further on. The
    zeros at the left of each row are also what stands to the right of the row above; those above
    an image stand below the one before. A stride s splits the padded image into s·s "phases",
    phase (a, b) holding rows a, a + s, … and columns b, b + s, …: within a phase the stride is 1.

    With g = ∂L/∂y, each tap gives
    ∂L/∂W_ij = g_ijᵀ x_ij (Σ over all pixels)    ∂L/∂x_ij += g W_ij    ∂L/∂b = Σ_nhw g
    """

    parameter_names = ("weight", "bias")

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1,
        padding: int = 0, dilation: int = 1, needs_grad_input: bool = True,
    ):  # fmt: skip
        bound = (in_channels * kernel_size**2) ** -0.5  # as nn.Conv2d, so that twins start alike
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = torch.empty(shape).uniform_(-bound, bound)
        self.bias = torch.empty(out_channels).uniform_(-bound, bound)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.needs_grad_input = needs_grad_input

    def taps(self):
        """For each kernel offset: (i, j), its phase, and how many rows further on it reads."""
        k, s, d = self.weight.shape[-1], self.stride, self.dilation
        for i in range(k):
            for j in range(k):
                yield (i, j), (i * d % s, j * d % s), i * d // s * self.grid[2] + j * d // s

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, O, H_out, W_out)
        (N, C, H, W), (O, _, k, _) = x.shape, self.weight.shape
        s, p, reach = self.stride, self.padding, self.dilation * (k - 1)
        H_out, W_out = (H + 2 * p - reach - 1) // s + 1, (W + 2 * p - reach - 1) // s + 1
        if min(H_out, W_out) < 1:
            raise ValueError(f"a {H} x {W} image is too small for this convolution")
        # height and width of a phase: the image, its zeros above and on the left, and the output
        h, w = max(-(-(H + p) // s), H_out), max(-(-(W + p) // s), W_out)
        self.grid, self.sizes = (N, h, w), (H, W, H_out, W_out)
        padded = x.new_zeros(N, h * s, w * s, C)
        padded[:, p : p + H, p : p + W] = x.permute(0, 2, 3, 1)
        phases = padded.view(N, h, s, w, s, C).permute(2, 4, 0, 1, 3, 5)  # (s, s, N, h, w, C)
        self.phases = phases.reshape(s, s, N * h * w, C)  # for s = 1, no copy

        y = self.bias.expand(N * h * w, O).contiguous()
        for (i, j), phase, shift in self.taps():
            x_ij = self.phases[phase][shift:]
            y[: len(x_ij)].addmm_(x_ij, self.weight[:, :, i, j].T)
        return y.view(N, h, w, O)[:, :H_out, :W_out].permute(0, 3, 1, 2)

    def backward(
        self, grad_output: Tensor
    ) -> Tensor | None:  # (N, O, H_out, W_out) -> (N, C, H, W)
        (N, h, w), (H, W, H_out, W_out) = self.grid, self.sizes
        O, C, _, _ = self.weight.shape
        s, p = self.stride, self.padding
        self.grad_bias = grad_output.sum((0, 2, 3))
        g = grad_output.new_zeros(N, h, w, O)
        g[:, :H_out, :W_out] = grad_output.permute(0, 2, 3, 1)
        g = g.view(N * h * w, O)

        self.grad_weight = torch.empty_like(self.weight)
        grad_phases = torch.zeros_like(self.phases) if self.needs_grad_input else None
        for (i, j), phase, shift in self.taps():
            x_ij = self.phases[phase][shift:]
            self.grad_weight[:, :, i, j] = g[: len(x_ij)].T @ x_ij
            if grad_phases is not None:
                grad_phases[phase][shift:].addmm_(g[: len(x_ij)], self.weight[:, :, i, j])
        if grad_phases is None:
            return None
        grad_padded = grad_phases.view(s, s, N, h, w, C).permute(2, 3, 0, 4, 1, 5)
        grad_padded = grad_padded.reshape(N, h * s, w * s, C)[:, p : p + H, p : p + W]
        return grad_padded.permute(0, 3, 1, 2)


class BatchNorm2d(Layer):
    """y = γ x̂ + β,  x̂ = (x − μ) / √(σ² + ε)  (Ioffe & Szegedy, 2015, Section 3.2)

    As BatchNorm1d, with a channel's pixels in all images taken as one batch of M = N·H·W values:
    μ, σ², γ and β are per channel. In evaluation μ and σ² are running estimates (the variance's is
    the unbiased one, as in PyTorch).

    ∂L/∂γ = Σ g x̂    ∂L/∂β = Σ g    (Σ and mean over N, H, W)
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

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        self.shape = N, C, H, W = x.shape
        x = x.permute(0, 2, 3, 1).reshape(-1, C)  # (M, C); no copy when channels are last in memory
        mean, var, M = self.running_mean, self.running_var, N * H * W
        self.of_batch = self.training
        if self.training:
            if M < 2:
                raise ValueError("batch normalisation needs at least 2 values per channel")
            mean = x.mean(0)
            var = ((x - mean) ** 2).mean(0)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * M / (M - 1), self.momentum)
            self.num_batches_tracked += 1
        self.inverse_std = (var + self.eps) ** -0.5
        self.x_hat = (x - mean) * self.inverse_std
        y = torch.addcmul(self.bias, self.x_hat, self.weight)
        return y.view(N, H, W, C).permute(0, 3, 1, 2)

    def backward(self, grad_output: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        N, C, H, W = self.shape
        grad_output = grad_output.permute(0, 2, 3, 1).reshape(-1, C)  # (M, C)
        self.grad_weight = (grad_output * self.x_hat).sum(0)
        self.grad_bias = grad_output.sum(0)
        scale, M = self.weight * self.inverse_std, N * H * W
        if self.of_batch:  # else μ and σ² were constants
            means = torch.addcmul(self.grad_bias / M, self.x_hat, self.grad_weight / M)
            grad_output = grad_output - means
        return (grad_output * scale).view(N, H, W, C).permute(0, 3, 1, 2)


class Pool2d(Layer):
    """What both poolings share: the pixels of all windows, one kernel offset at a time."""

    def __init__(self, kernel_size: int, stride: int | None = None, padding: int = 0):
        if not 0 <= 2 * padding <= kernel_size:
            raise ValueError(f"padding {padding} is more than half of the kernel {kernel_size}")
        self.kernel_size, self.stride, self.padding = kernel_size, stride or kernel_size, padding

    def pad(self, x: Tensor, value: float) -> Tensor:
        if self.padding == 0:
            return x
        (N, C, H, W), p = x.shape, self.padding
        padded = x.new_full((N, H + 2 * p, W + 2 * p, C), value).permute(0, 3, 1, 2)
        padded[:, :, p : p + H, p : p + W] = x
        return padded

    def unpad(self, x: Tensor) -> Tensor:
        H, W, p = *x.shape[2:], self.padding
        return x[:, :, p : H - p, p : W - p]

    def windows(self, padded: Tensor) -> Iterator[Tensor]:
        """For each kernel offset a view: pixel (h, w) of it is that offset's in window (h, w)."""
        k, s, (H, W) = self.kernel_size, self.stride, padded.shape[2:]
        if k > min(H, W):
            raise ValueError(f"a {H} x {W} image is too small for windows of {k} x {k}")
        for i in range(k):
            for j in range(k):
                yield padded[:, :, i : H - k + i + 1 : s, j : W - k + j + 1 : s]


class MaxPool2d(Pool2d):
    """y = the largest x of each window    ∂L/∂x = g at that pixel (the first of equals), else 0

    Going through a window's pixels in order, each that beats all before it holds the record, until
    the next one does: the last record holder is the maximum. Backward goes through them the other
    way, and whoever held the record last takes the whole gradient.
    """

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H_out, W_out)
        padded = self.pad(x, torch.finfo(x.dtype).min)
        self.input_shape, self.records = padded.shape, []
        first, *others = self.windows(padded)
        best, is_nan = first, torch.empty_like(first)
        for pixels in others:
            # 1 for a new record, else 0, as numbers: they multiply faster than bools. NaN beats all
            record = torch.gt(pixels, best, out=torch.empty_like(best))
            self.records.append(record.add_(torch.ne(pixels, pixels, out=is_nan)))
            best = torch.maximum(best, pixels)
        return best

    def backward(self, grad_output: Tensor) -> Tensor:  # (N, C, H_out, W_out) -> (N, C, H, W)
        N, C, H, W = self.input_shape
        grad_x = grad_output.new_zeros(N, H, W, C).permute(0, 3, 1, 2)
        first, *others = self.windows(grad_x)
        for pixels, record in zip(reversed(others), reversed(self.records), strict=True):
            taken = grad_output * record
            pixels += taken
            grad_output = grad_output - taken
        first += grad_output
        return self.unpad(grad_x)


class AvgPool2d(Pool2d):
    """y = the mean of each window (zeros of the padding included)    ∂L/∂x = Σ g / k², over the
    windows that hold the pixel"""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H_out, W_out)
        padded = self.pad(x, 0.0)
        self.input_shape = padded.shape
        return sum(self.windows(padded)) / self.kernel_size**2

    def backward(self, grad_output: Tensor) -> Tensor:  # (N, C, H_out, W_out) -> (N, C, H, W)
        N, C, H, W = self.input_shape
        grad_x = grad_output.new_zeros(N, H, W, C).permute(0, 3, 1, 2)
        share = grad_output / self.kernel_size**2
        for pixels in self.windows(grad_x):
            pixels += share
        return self.unpad(grad_x)


class GlobalAvgPool2d(Layer):
    """y = mean over all pixels (Lin et al., 2014, Section 3.2)    ∂L/∂x = g / (H W), everywhere"""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C)
        self.shape = x.shape
        return x.mean((2, 3))

    def backward(self, grad_output: Tensor) -> Tensor:  # (N, C) -> (N, C, H, W)
        _, _, H, W = self.shape
        return (grad_output / (H * W))[:, :, None, None].expand(self.shape)


class Flatten(Layer):
    """One row of features per image; backward only restores the shape."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C*H*W)
        self.shape = x.shape
        return x.flatten(1)

    def backward(self, grad_output: Tensor) -> Tensor:  # (N, C*H*W) -> (N, C, H, W)
        return grad_output.reshape(self.shape)


class ReLU(Layer):
    """y = max(x, 0)    ∂L/∂x = g · [x > 0]; at the kink, 0, as PyTorch. NaN stays NaN."""

    def forward(self, x: Tensor) -> Tensor:
        self.y = x.clamp(min=0)
        return self.y

    def backward(self, grad_output: Tensor) -> Tensor:
        # y >= 0, so [x > 0] is where y is not 0: as numbers, which multiply faster than bools
        return torch.ne(self.y, 0, out=torch.empty_like(self.y)).mul_(grad_output)


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
