"""The layers of a recurrent network, forward and backward through time.

A layer's `forward(x)` keeps what `backward` needs. `backward(grad_output)` takes ∂L/∂y, stores the
gradients of the layer's own parameters (`weight` -> `grad_weight`), and returns ∂L/∂x: the chain
rule, one layer at a time. In the formulas g = ∂L/∂y. T is time, N the batch, V the vocabulary, D
the features, H the hidden units.
"""

import inspect

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


class Embedding(Layer):
    """y = W[x]: the row of each token; as if x were one-hot rows and y = x W

    ∂L/∂W[v] = Σ g over all places where the token is v: of the same token, the gradients add up.
    Tokens have no derivative, so backward returns None.
    """

    parameter_names = ("weight",)

    def __init__(self, num_embeddings: int, embedding_dim: int):
        self.weight = torch.empty(num_embeddings, embedding_dim).normal_()  # as nn.Embedding

    def forward(self, x: Tensor) -> Tensor:  # (…) int64 -> (…, D)
        self.x = x
        return self.weight[x]

    def backward(self, grad_output: Tensor) -> None:  # (…, D) ->
        self.grad_weight = torch.zeros_like(self.weight)
        self.grad_weight.index_add_(0, self.x.flatten(), grad_output.flatten(0, -2))


def product_type(x: Tensor) -> torch.dtype:
    """The type of a product of x. Under autocast it has fewer bits than x."""
    return (x.new_empty(0, 0) @ x.new_empty(0, 0)).dtype


def multiply(x: Tensor, weight: Tensor, out: Tensor, plus: Tensor | None = None) -> Tensor:
    """out ← x W + plus, or x W alone. `plus` may be `out` itself. Where W has fewer bits than x, x
    and the product are rounded to these; the sum is not."""
    if weight.dtype == x.dtype:
        return (
            torch.mm(x, weight, out=out) if plus is None else torch.addmm(plus, x, weight, out=out)
        )
    y = x.to(weight.dtype) @ weight
    return out.copy_(y) if plus is None else torch.add(plus, y, out=out)


class Recurrent(Layer):
    """What RNN, GRU and LSTM share: layers on top of each other, and all that can be done for the
    whole window at once. Names, shapes, gate order and initial values are those of nn.RNN, nn.GRU
    and nn.LSTM.

    Each step computes, for each gate, a = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh. Only the part with
    h_{t-1} has to wait for the step before, so W_ih x + b is one product over the T·N rows of the
    window, of all gates together; a subclass's `run` loops over the rest.

    Backward goes through the same steps in the opposite order (backpropagation through time,
    Werbos, 1990). `run_back` finds ∂L/∂a of every step, and what is left is again one product each:

    ∂L/∂W_ih = Σ_t (∂L/∂a_t)ᵀ x_t    ∂L/∂W_hh = Σ_t (∂L/∂a_t)ᵀ h_{t-1}    ∂L/∂b = Σ_t Σ_n ∂L/∂a_t
    ∂L/∂x_t = ∂L/∂a_t W_ih

    Dropout is between the layers, not between the steps (Zaremba et al., 2014): drawn
    anew at every step, it would wear down what is to be remembered. Weight dropout does act on the
    steps, but with one mask for the whole window: it leaves out single weights of W_hh, the same
    ones at every step (DropConnect; Merity et al., 2018, arXiv:1708.02182, Section 2). With the
    mask m, W_hh m stands for W_hh, and ∂L/∂W_hh = m Σ_t (∂L/∂a_t)ᵀ h_{t-1}.
    """

    num_gates = 1
    num_states = 1  # tensors that go from step to step
    gate_names: tuple[str, ...] = ()  # of the rows of the weights, for pictures

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
    ):
        self.hidden_size, self.num_layers = hidden_size, num_layers
        rows, bound = self.num_gates * hidden_size, hidden_size**-0.5
        names = []
        for layer in range(num_layers):
            columns = hidden_size if layer else input_size
            for name, shape in (
                ("weight_ih", (rows, columns)),
                ("weight_hh", (rows, hidden_size)),
                ("bias_ih", (rows,)),
                ("bias_hh", (rows,)),
            ):
                names.append(f"{name}_l{layer}")
                setattr(self, names[-1], torch.empty(shape).uniform_(-bound, bound))
        self.parameter_names = tuple(names)
        self.dropouts = [Dropout(dropout) for _ in range(num_layers - 1)]
        self.weight_dropouts = [Dropout(weight_dropout) for _ in range(num_layers)]
        self.memory: dict[str, Tensor] = {}
        self.saved: list[tuple] = []  # what backward needs, of each layer

    def children(self) -> dict[str, Layer]:
        both = {"dropouts": self.dropouts, "weight_dropouts": self.weight_dropouts}
        return {f"{name}.{k}": child for name, of in both.items() for k, child in enumerate(of)}

    def parameter(self, name: str, layer: int) -> Tensor:
        return getattr(self, f"{name}_l{layer}")

    def forward(self, x: Tensor, state=None) -> tuple:
        """(T, N, D) -> the last layer's (T, N, H), and the state after the last step.

        A state has the shape (num_layers, N, H); an LSTM's is a pair (h, c) of them. None stands
        for zeros.
        """
        if state is None:
            state = x.new_zeros(self.num_states, self.num_layers, x.shape[1], self.hidden_size)
        elif self.num_states == 1:
            state = (state,)
        self.inputs, self.saved, self.recurrent_weights, final = [], [], [], []
        for layer in range(self.num_layers):
            if layer:
                x = self.dropouts[layer - 1].forward(x)
            self.inputs.append(x)
            weight = self.weight_dropouts[layer].forward(self.parameter("weight_hh", layer))
            weight = weight.to(product_type(weight))  # under autocast rounded, once for all steps
            self.recurrent_weights.append(weight)
            a = self.project(x, layer)  # (T, N, gates·H)
            x, last, saved = self.run(layer, a, *(part[layer] for part in state))
            self.saved.append(saved)
            final.append(last)
        final = tuple(torch.stack(part) for part in zip(*final, strict=True))
        return x, final[0] if self.num_states == 1 else final

    def backward(self, grad_output: Tensor, grad_state=None) -> tuple:
        """∂L/∂output (T, N, H), ∂L/∂(last state) -> ∂L/∂x (T, N, D), ∂L/∂(first state).

        None stands for zeros: between the windows of truncated BPTT, nothing comes back.
        """
        grad_output = grad_output.to(self.weight_ih_l0)  # it may have fewer bits (autocast)
        if grad_state is None:
            N = grad_output.shape[1]
            grad_state = grad_output.new_zeros(
                self.num_states, self.num_layers, N, self.hidden_size
            )
        elif self.num_states == 1:
            grad_state = (grad_state,)
        if not self.saved:
            raise RuntimeError("backward writes over what forward kept: call forward again first")
        grad, first = grad_output, []
        for layer in reversed(range(self.num_layers)):
            grad_last = [part[layer].clone() for part in grad_state]
            grad_a, grad_hh, previous, grad_first = self.run_back(layer, grad, *grad_last)
            first.insert(0, grad_first)
            x = self.inputs[layer].flatten(0, 1)  # (T·N, D)
            grad_a, grad_hh = grad_a.flatten(0, 1), grad_hh.flatten(0, 1)  # (T·N, gates·H)
            setattr(self, f"grad_weight_ih_l{layer}", grad_a.T @ x)
            grad_weight = self.weight_dropouts[layer].backward(grad_hh.T @ previous.flatten(0, 1))
            setattr(self, f"grad_weight_hh_l{layer}", grad_weight)
            setattr(self, f"grad_bias_ih_l{layer}", grad_a.sum(0))
            setattr(self, f"grad_bias_hh_l{layer}", grad_hh.sum(0))
            grad = (grad_a @ self.parameter("weight_ih", layer)).to(grad_a)
            grad = grad.view(self.inputs[layer].shape)
            if layer:
                grad = self.dropouts[layer - 1].backward(grad)
        self.saved = []
        first = tuple(torch.stack(part) for part in zip(*first, strict=True))
        return grad, first[0] if self.num_states == 1 else first

    def project(self, x: Tensor, layer: int) -> Tensor:
        """W_ih x + b_ih + b_hh of the whole window: (T, N, D) -> (T, N, gates·H)."""
        T, N, _ = x.shape
        bias = self.parameter("bias_ih", layer) + self.parameter("bias_hh", layer)
        return self.product(bias, x, self.parameter("weight_ih", layer), f"a{layer}").view(T, N, -1)

    def product(self, bias: Tensor, x: Tensor, weight: Tensor, name: str) -> Tensor:
        rows = x.shape[0] * x.shape[1]
        out = self.keep(name, (rows, len(weight)), x)
        weight = weight.to(product_type(weight))
        return multiply(x.reshape(rows, -1), weight.T, out, bias)

    def keep(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Memory that stays from window to window, with whatever is in it: asking the system for
        fresh pages takes as long as the arithmetic on them."""
        memory = self.memory.get(name)
        if (
            memory is None
            or (memory.shape, memory.dtype, memory.device) != (shape, like.dtype, like.device)
            or memory.is_inference() != torch.is_inference_mode_enabled()
        ):
            memory = self.memory[name] = torch.empty(shape, dtype=like.dtype, device=like.device)
        return memory

    def gates(self, layer: int) -> dict[str, Tensor]:
        """Each gate's values (T, N, H) in the last forward, until backward writes over them."""
        parts = self.saved[layer][0].chunk(self.num_gates, dim=2)
        return dict(zip(self.gate_names, parts, strict=False))

    def run(self, layer: int, a: Tensor, *state: Tensor) -> tuple[Tensor, tuple, tuple]:
        """All steps: W_ih x + b (T, N, gates·H), which may be written over, and the state (N, H)
        before the first -> the outputs (T, N, H), the state after the last, what backward needs.
        """
        raise NotImplementedError

    def run_back(self, layer: int, grad_output: Tensor, *grad_last: Tensor) -> tuple:
        """∂L/∂output (T, N, H) and ∂L/∂(last state), which may be written over -> ∂L/∂(W_ih x) and
        ∂L/∂(W_hh h), both (T, N, gates·H); h of the step before each (T, N, H); ∂L/∂(first state).
        """
        raise NotImplementedError


class RNN(Recurrent):
    """h_t = tanh(a_t),  a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh  (Elman, 1990)

    With δ_t = ∂L/∂h_t, the output's own gradient g_t plus what comes back from the step after:

    ∂L/∂a_t = δ_t (1 − h_t²)    δ_{t-1} = g_{t-1} + ∂L/∂a_t W_hh

    So from step to step, δ is multiplied by W_hh and by factors of at most 1. Where the largest
    singular value of W_hh is below 1, it vanishes exponentially; it can explode only where that
    value is above 1 (Pascanu et al., 2013, Section 2).
    """

    def run(self, layer, a, h):
        T, N, H = a.shape
        weight = self.recurrent_weights[layer].T
        hidden = a.new_empty(T + 1, N, H)  # hidden[t] is before step t, hidden[t + 1] after it
        hidden[0] = h
        for t in range(T):
            torch.tanh(multiply(hidden[t], weight, a[t], a[t]), out=hidden[t + 1])
        return hidden[1:], (hidden[T],), (a, hidden)

    def run_back(self, layer, grad_output, grad_h):
        a, hidden = self.saved[layer]
        weight = self.recurrent_weights[layer]
        grad_a = a  # is no longer needed: its memory is used again
        for t in reversed(range(len(a))):
            grad_h.add_(grad_output[t])
            torch.mul(hidden[t + 1], hidden[t + 1], out=grad_a[t])
            torch.addcmul(grad_h, grad_h, grad_a[t], value=-1, out=grad_a[t])  # δ (1 − h²)
            multiply(grad_a[t], weight, grad_h)
        return grad_a, grad_a, hidden[:-1], (grad_h,)


class GRU(Recurrent):
    """A gate z decides how much of h stays, a gate r what the new content sees of it (Cho et al.,
    2014, Section 2.3, in PyTorch's form, where r stands outside the product):

    r = sigmoid(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)
    z = sigmoid(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
    q = W_hn h_{t-1} + b_hn    n = tanh(W_in x_t + b_in + r q)    h_t = (1 − z) n + z h_{t-1}

    The rows of the weights hold r, z, n in this order. With δ_t = ∂L/∂h_t and a the argument of
    each sigmoid or tanh:

    ∂L/∂a_n = δ_t (1 − z) (1 − n²)    ∂L/∂a_z = δ_t (h_{t-1} − n) z (1 − z)
    ∂L/∂q = ∂L/∂a_n r                 ∂L/∂a_r = ∂L/∂a_n q r (1 − r)

    δ_{t-1} = g_{t-1} + δ_t z + (∂L/∂a_r, ∂L/∂a_z, ∂L/∂q) W_hh: where z is near 1, the gradient
    passes as it is.
    """

    num_gates = 3
    gate_names = ("reset r", "update z", "content n")

    def project(self, x, layer):
        """b_hh is not in here, because b_hn is multiplied by r."""
        bias = self.parameter("bias_ih", layer)
        a = self.product(bias, x, self.parameter("weight_ih", layer), f"a{layer}")
        return a.view(*x.shape[:2], -1)

    def run(self, layer, a, h):
        T, N, H = *a.shape[:2], self.hidden_size
        weight, bias = self.recurrent_weights[layer].T, self.parameter("bias_hh", layer)
        b = self.keep(f"b{layer}", (T, N, 3 * H), a)  # W_hh h_{t-1} + b_hh
        hidden = a.new_empty(T + 1, N, H)
        hidden[0] = h
        for t in range(T):
            multiply(hidden[t], weight, b[t], bias)
            r, _, n = a[t].chunk(3, dim=1)
            a[t, :, : 2 * H].add_(b[t, :, : 2 * H]).sigmoid_()  # r and z
            n.addcmul_(r, b[t, :, 2 * H :]).tanh_()
            torch.lerp(n, hidden[t], a[t, :, H : 2 * H], out=hidden[t + 1])  # n + z (h_{t-1} − n)
        return hidden[1:], (hidden[T],), (a, b, hidden)

    def run_back(self, layer, grad_output, grad_h):
        a, b, hidden = self.saved[layer]
        weight, H = self.recurrent_weights[layer], self.hidden_size
        for t in reversed(range(len(a))):
            grad_h.add_(grad_output[t])
            r, z, n = a[t].chunk(3, dim=1)
            q = b[t, :, 2 * H :]
            grad_z = (hidden[t] - n).mul_(grad_h).mul_(z).mul_(1 - z)
            grad_n = (1 - z).mul_(grad_h).mul_(1 - n * n)
            grad_r = (grad_n * q).mul_(r).mul_(1 - r)
            torch.mul(grad_n, r, out=q)  # ∂L/∂q
            grad_h.mul_(z)
            torch.cat((grad_r, grad_z), dim=1, out=b[t, :, : 2 * H])
            torch.cat((grad_r, grad_z, grad_n), dim=1, out=a[t])
            multiply(b[t], weight, grad_h, grad_h)
        return a, b, hidden[:-1], (grad_h,)


class LSTM(Recurrent):
    """A cell c that is changed by adding, behind three gates (Hochreiter & Schmidhuber, 1997; with
    the forget gate of Gers et al., 2000):

    i = sigmoid(a_i)    f = sigmoid(a_f)    n = tanh(a_n)    o = sigmoid(a_o)
    c_t = f c_{t-1} + i n    h_t = o tanh(c_t),   with a = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh

    The rows of the weights hold i, f, n, o in this order (n, the new content, is PyTorch's g). With
    δ_t = ∂L/∂h_t and δᶜ_t = ∂L/∂c_t, to which h_t's part is added,
    δᶜ_t ← δᶜ_t + δ_t o (1 − tanh²(c_t)):

    ∂L/∂a_i = δᶜ_t n i (1 − i)    ∂L/∂a_f = δᶜ_t c_{t-1} f (1 − f)    ∂L/∂a_n = δᶜ_t i (1 − n²)
    ∂L/∂a_o = δ_t tanh(c_t) o (1 − o)

    δ_{t-1} = g_{t-1} + ∂L/∂a W_hh    δᶜ_{t-1} = δᶜ_t f: from step to step, δᶜ is multiplied by a
    forget gate and by no matrix. Where they are open (f near 1), the gradient stays.
    """

    num_gates = 4
    num_states = 2
    gate_names = ("input i", "forget f", "content n", "output o")

    def run(self, layer, a, h, c):
        T, N, H = *a.shape[:2], self.hidden_size
        weight = self.recurrent_weights[layer].T
        hidden = a.new_empty(T + 1, N, H)
        cells = self.keep(f"cells{layer}", (T + 1, N, H), a)
        tanh_cells = self.keep(f"tanh_cells{layer}", (T, N, H), a)
        hidden[0], cells[0] = h, c
        for t in range(T):
            gates = multiply(hidden[t], weight, a[t], a[t])  # (N, 4H)
            gates[:, : 2 * H].sigmoid_()
            gates[:, 2 * H : 3 * H].tanh_()
            gates[:, 3 * H :].sigmoid_()
            i, f, n, o = gates.chunk(4, dim=1)
            torch.mul(f, cells[t], out=cells[t + 1]).addcmul_(i, n)
            torch.tanh(cells[t + 1], out=tanh_cells[t])
            torch.mul(o, tanh_cells[t], out=hidden[t + 1])
        return hidden[1:], (hidden[T], cells[T].clone()), (a, hidden, cells, tanh_cells)

    def run_back(self, layer, grad_output, grad_h, grad_c):
        a, hidden, cells, tanh_cells = self.saved[layer]
        weight = self.recurrent_weights[layer]
        for t in reversed(range(len(a))):
            i, f, n, o = a[t].chunk(4, dim=1)
            tanh_c = tanh_cells[t]
            grad_h.add_(grad_output[t]).mul_(o)  # δ o
            grad_c.add_(grad_h).addcmul_(grad_h * tanh_c, tanh_c, value=-1)  # + δ o (1 − tanh²(c))
            grad_o = grad_h.mul_(tanh_c)
            passed_on = grad_c * f
            grad_f = passed_on * cells[t]
            grad_n = grad_c.mul_(i)
            grad_i = grad_n * n
            # each gate's gradient takes the gate's place; y (1 − y) = y − y y, 1 − y² likewise
            torch.addcmul(grad_i, grad_i, i, value=-1, out=i)
            torch.addcmul(grad_f, grad_f, f, value=-1, out=f)
            torch.addcmul(grad_n, grad_n * n, n, value=-1, out=n)
            torch.addcmul(grad_o, grad_o, o, value=-1, out=o)
            grad_c = passed_on
            multiply(a[t], weight, grad_h)
        return a, a, hidden[:-1], (grad_h, grad_c)
