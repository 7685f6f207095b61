"""The layers of a convolutional network, forward and backward.

A layer's `forward(x)` keeps what `backward` needs. `backward(grad_output)` takes ∂L/∂y, stores the
gradients of the layer's own parameters (`weight` -> `grad_weight`), and returns ∂L/∂x: the chain
rule, one layer at a time. In the formulas g = ∂L/∂y. N is the batch, C channels, H W height and
width, O output channels, D features.

Images have the shape (N, C, H, W), but lie in memory as (H, W, N, C), pixel after pixel: of each,
the whole batch, with the channels side by side. `rows` and `images` turn one view into the other.
So a convolution needs no shifted copies (see there), and poolings pass over long stretches.
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


def rows(x: Tensor) -> Tensor:  # (N, C, H, W) -> (H, W, N, C)
    """A view of images as they lie in memory."""
    return x.permute(2, 3, 0, 1)


def images(x: Tensor) -> Tensor:  # (H, W, N, C) -> (N, C, H, W)
    return x.permute(2, 3, 0, 1)


def product_type(x: Tensor) -> torch.dtype:
    """The type of a product of x. Under autocast it has fewer bits than x."""
    return (x.new_empty(0, 0) @ x.new_empty(0, 0)).dtype


class Conv2d(Layer):
    """y[n, o, h, w] = b[o] + Σ_c Σ_ij W[o, c, i, j] · x[n, c, h·s + i·d − p, w·s + j·d − p]

    with stride s, padding p, dilation d (zeros outside of x). For one kernel offset ("tap") (i, j)
    this is a matrix product over the channels: y = b + Σ_ij x_ij W_ijᵀ, where x_ij is the input
    shifted by (i, j), one pixel of one image per row. With g = ∂L/∂y, each tap gives
    ∂L/∂W_ij = gᵀ x_ij (Σ over all pixels)    ∂L/∂x_ij += g W_ij    ∂L/∂b = Σ_nhw g

    Both halves of this class compute just that. The first is the plain one: it copies all x_ij side
    by side ("im2col"), so that all taps are one product. It is the faster one, too, where x has
    few channels, as the network's own input: a product over one channel does too little per pass.

    The second makes no shifted copies. In memory, a line of pixels is a matrix with one row per
    pixel and image, and all lines are a stack of matrices. To shift them by j is to read from row
    j·N on. What a tap would read outside of the image is left out, so there are no zeros to
    multiply. A stride s splits the image into s·s "phases". Phase (a, b) holds the lines a, a + s,
    … and the columns b, b + s, …. Within a phase the stride is 1.
    """

    parameter_names = ("weight", "bias")
    few_channels = 4  # at most so many are copied

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

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, O, H_out, W_out)
        x, k, s = rows(x), self.weight.shape[-1], self.stride
        self.shape = H, W, _, C = x.shape
        reach = self.dilation * (k - 1)
        H_out, W_out = ((size + 2 * self.padding - reach - 1) // s + 1 for size in (H, W))
        if min(H_out, W_out) < 1:
            raise ValueError(f"a {H} x {W} image is too small for this convolution")
        self.size, self.copied = (H_out, W_out), self.few_channels >= C
        return images(self.forward_copied(x) if self.copied else self.forward_shifted(x))

    def backward(self, grad_output: Tensor) -> Tensor | None:  # (N, O, H_out, …) -> (N, C, H, W)
        backward = self.backward_copied if self.copied else self.backward_shifted
        grad_x = backward(rows(grad_output))
        return images(grad_x) if self.needs_grad_input else None

    # ---- all taps copied side by side ----

    def windows(self, padded: Tensor) -> Iterator[Tensor]:
        """For each tap a view of what it reads: (H+2p, W+2p, N, C) -> (H_out, W_out, N, C)."""
        k, s, d, (H_out, W_out) = self.weight.shape[-1], self.stride, self.dilation, self.size
        for i in range(0, k * d, d):
            for j in range(0, k * d, d):
                yield padded[i : i + s * (H_out - 1) + 1 : s, j : j + s * (W_out - 1) + 1 : s]

    def forward_copied(self, x: Tensor) -> Tensor:  # (H, W, N, C) -> (H_out, W_out, N, O)
        (H, W, N, C), (O, _, k, _), p = self.shape, self.weight.shape, self.padding
        padded = x.new_zeros(H + 2 * p, W + 2 * p, N, C)
        padded[p : p + H, p : p + W] = x
        self.patches = x.new_empty(k * k * C + 1, *self.size, N, dtype=product_type(x))
        self.patches[-1] = 1  # the bias is the weight of an input that is always 1
        for patch, window in zip(self.patches.split(C), self.windows(padded), strict=False):
            patch.copy_(window.permute(3, 0, 1, 2))
        weight = self.weight.permute(2, 3, 1, 0).reshape(-1, O)
        weight = torch.cat([weight, self.bias[None]])  # (k*k*C + 1, O)
        return (self.patches.flatten(1).T @ weight).view(*self.size, N, O)

    def backward_copied(self, g: Tensor) -> Tensor | None:  # (H_out, W_out, N, O) -> (H, W, N, C)
        (H, W, N, C), (O, _, k, _), p = self.shape, self.weight.shape, self.padding
        g = g.reshape(-1, O)
        grad_weight = self.patches.flatten(1) @ g
        self.grad_weight = grad_weight[:-1].view(k, k, C, O).permute(3, 2, 0, 1).contiguous()
        self.grad_bias = grad_weight[-1]
        if not self.needs_grad_input:
            return None
        weight = self.weight.permute(0, 2, 3, 1).reshape(O, -1)
        grad_patches = (g @ weight).view(*self.size, N, k * k, C)
        grad_padded = g.new_zeros(H + 2 * p, W + 2 * p, N, C)
        for window, grad in zip(self.windows(grad_padded), grad_patches.unbind(3), strict=True):
            window += grad
        return grad_padded[p : p + H, p : p + W]

    # ---- a product per tap and line of pixels ----

    def phases(self, x: Tensor) -> dict[tuple[int, int], Tensor]:
        """Each phase of x (H, W, N, C) by lines, (lines, columns·N, C): without a stride, x."""
        s = self.stride
        return {(a, b): x[a::s, b::s].flatten(1, 2) for a in range(s) for b in range(s)}

    def spans(self, axis: int) -> list[tuple[int, slice, slice]]:
        """For each place in the kernel, along one axis: the phase that it reads, the outputs for
        which it meets the image, and what it reads for them."""
        size, size_out, s, found = self.shape[axis], self.size[axis], self.stride, []
        for i in range(self.weight.shape[-1]):
            shift, phase = divmod(i * self.dilation - self.padding, s)
            start, stop = max(0, -shift), min(size_out, -(-(size - phase) // s) - shift)
            found.append((phase, slice(start, stop), slice(start + shift, stop + shift)))
        return found

    def taps(self) -> Iterator[tuple]:
        """For each tap that meets the image: (i, j), its phase, where in y (H_out, W_out·N, O) it
        adds, and where in the phase it reads."""
        N, across = self.shape[2], self.spans(1)
        for i, (a, lines, lines_read) in enumerate(self.spans(0)):
            for j, (b, *columns) in enumerate(across):
                pixels, pixels_read = (slice(c.start * N, c.stop * N) for c in columns)
                if lines.start < lines.stop and pixels.start < pixels.stop:
                    yield (i, j), (a, b), (lines, pixels), (lines_read, pixels_read)

    def forward_shifted(self, x: Tensor) -> Tensor:  # (H, W, N, C) -> (H_out, W_out, N, O)
        N, (H_out, W_out) = x.shape[2], self.size
        self.x = self.phases(x.to(product_type(x)).contiguous())
        weight = self.weight.permute(2, 3, 1, 0).to(self.x[0, 0].dtype).contiguous()  # (k, k, C, O)
        y = self.bias.to(weight.dtype).repeat(H_out, W_out * N, 1)
        for tap, phase, outputs, inputs in self.taps():
            pixels = self.x[phase][inputs]
            y[outputs].baddbmm_(pixels, weight[tap].expand(len(pixels), -1, -1))  # (…, C) (C, O)
        return y.view(H_out, W_out, N, -1)

    def backward_shifted(self, g: Tensor) -> Tensor | None:  # (H_out, W_out, N, O) -> (H, W, N, C)
        g = g.to(self.x[0, 0].dtype).contiguous().flatten(1, 2)  # (H_out, W_out·N, O)
        self.grad_bias = g.sum((0, 1))

        weight = self.weight.permute(2, 3, 0, 1).to(g.dtype).contiguous()  # (k, k, O, C)
        grad_weight = g.new_zeros(weight.mT.shape, dtype=self.weight.dtype)
        grad_phases = {phase: torch.zeros_like(x) for phase, x in self.x.items()}
        for tap, phase, outputs, inputs in self.taps():
            pixels, grad = self.x[phase][inputs], g[outputs]
            torch.sum(pixels.mT @ grad, 0, dtype=grad_weight.dtype, out=grad_weight[tap])
            if self.needs_grad_input:
                grad_phases[phase][inputs].baddbmm_(grad, weight[tap].expand(len(grad), -1, -1))
        self.grad_weight = grad_weight.permute(3, 2, 0, 1).contiguous()
        if not self.needs_grad_input:
            return None
        if self.stride == 1:
            return grad_phases[0, 0].view(self.shape)
        grad_x, s = g.new_empty(self.shape), self.stride
        for (a, b), grad in grad_phases.items():
            part = grad_x[a::s, b::s]
            part.copy_(grad.view_as(part))
        return grad_x


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
        self.shape = H, W, N, C = rows(x).shape
        x = rows(x).reshape(-1, C).to(self.weight.dtype)  # (M, C), in all bits under autocast
        mean, var, M = self.running_mean, self.running_var, N * H * W
        self.of_batch = self.training
        if self.training:
            if M < 2:
                raise ValueError("batch normalisation needs at least 2 values per channel")
            mean = x.mean(0)
        self.centred = x - mean
        if self.training:
            var = self.centred.square().mean(0)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * M / (M - 1), self.momentum)
            self.num_batches_tracked += 1
        self.inverse_std = (var + self.eps) ** -0.5  # (C,): never multiplied out over all pixels
        y = torch.addcmul(self.bias, self.centred, self.weight * self.inverse_std)
        return images(y.view(self.shape))

    def backward(self, grad_output: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        g = rows(grad_output).reshape(-1, self.shape[3])  # (M, C)
        self.grad_weight = (g * self.centred).sum(0) * self.inverse_std
        self.grad_bias = g.sum(0)
        scale, M = self.weight * self.inverse_std, len(g)
        if self.of_batch:  # scale · (g − mean(g) − x̂ · mean(g x̂)), gathered by what it multiplies
            means = self.grad_bias / M, self.grad_weight * self.inverse_std / M
            grad_x = torch.addcmul(-scale * means[0], self.centred, -scale * means[1])
            grad_x.addcmul_(g, scale)
        else:  # μ and σ² were constants
            grad_x = g * scale
        return images(grad_x.view(self.shape))


class Pool2d(Layer):
    """What both poolings share: the pixels of all windows, one kernel offset at a time."""

    def __init__(self, kernel_size: int, stride: int | None = None, padding: int = 0):
        if not 0 <= 2 * padding <= kernel_size:
            raise ValueError(f"padding {padding} is more than half of the kernel {kernel_size}")
        self.kernel_size, self.stride, self.padding = kernel_size, stride or kernel_size, padding

    def pad(self, x: Tensor, value: float) -> Tensor:
        (N, C, H, W), p = x.shape, self.padding
        self.padded_shape = H + 2 * p, W + 2 * p, N, C
        if p == 0:
            return x
        padded = images(x.new_full(self.padded_shape, value))
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
        self.dtype = x.dtype
        best, *others = self.windows(self.pad(x, -torch.inf))
        self.records = []
        for pixels in others:
            # 1 for a new record, else 0, as numbers: they multiply faster than bools
            self.records.append(torch.gt(pixels, best, out=torch.empty_like(best)))
            best = torch.maximum(best, pixels)
        if not best.sum().isfinite():  # there may be NaN, which beats all
            for pixels, record in zip(others, self.records, strict=True):
                record.add_(pixels.isnan())
        return best

    def backward(self, grad_output: Tensor) -> Tensor:  # (N, C, H_out, W_out) -> (N, C, H, W)
        H, W, N, C = self.padded_shape
        grad_output = grad_output.to(self.dtype)
        # windows that tile the image set each of its pixels once: no zeros, and nothing to add to
        tiled = self.kernel_size == self.stride and H % self.stride == W % self.stride == 0
        grad_x = images((grad_output.new_empty if tiled else grad_output.new_zeros)(H, W, N, C))
        first, *others = self.windows(grad_x)
        for pixels, record in zip(reversed(others), reversed(self.records), strict=True):
            if tiled:
                taken = torch.mul(grad_output, record, out=pixels)
            else:
                taken = grad_output * record
                pixels += taken
            grad_output = grad_output - taken
        first.copy_(grad_output) if tiled else first.add_(grad_output)
        return self.unpad(grad_x)


class AvgPool2d(Pool2d):
    """y = the mean of each window (zeros of the padding included)    ∂L/∂x = Σ g / k², over the
    windows that hold the pixel"""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H_out, W_out)
        return sum(self.windows(self.pad(x, 0.0))) / self.kernel_size**2

    def backward(self, grad_output: Tensor) -> Tensor:  # (N, C, H_out, W_out) -> (N, C, H, W)
        grad_x = images(grad_output.new_zeros(self.padded_shape))
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
