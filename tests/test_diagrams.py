"""The diagrams of the networks: every shape and every gradient in them is what the real network
shows, every word is legible, and the committed pictures are of these descriptions."""

import math
import re
from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from common.data import ROOT
from docs import diagrams
from docs.diagrams import DIAGRAMS, path_of
from docs.drawing import Arrow, Diagram, lines
from tests.running import FOLDERS

NETWORKS = [name for name in DIAGRAMS if name != "docs"]
N, T, S = 3, 5, 7  # no two sizes alike, so that a wrong letter is a wrong shape


class Seen(dict):
    """What a real network shows in one training step: place -> its shape, that of ∂L/∂it or None.

    "layers.0" is the output of that layer and "layers.0:in" its input, "layers.0:in1" its second
    one; "layers.0.weight" a parameter."""

    @classmethod
    def of(cls, values: dict) -> "Seen":
        """Of tensors that kept their gradients."""
        seen = cls()
        for place, value in values.items():
            seen.note(place, value, value.grad)
        return seen

    def __init__(self):
        super().__init__()
        self.bits = {}

    def note(self, place: str, value, gradient) -> None:
        self[place] = (tuple(value.shape), None if gradient is None else tuple(gradient.shape))
        self.bits[place] = torch.finfo(value.dtype).bits if value.is_floating_point() else 0


def places(path: str, part: str, values) -> dict:
    """The tensors among what a layer took or gave, each with its name."""
    values = values if isinstance(values, (tuple, list)) else (values,)
    return {
        f"{path}{part}{n or ''}".replace(":out", "" if not n else ":out"): value
        for n, value in enumerate(values)
        if isinstance(value, torch.Tensor)
    }


def run_by_hand(model, step, **others) -> Seen:
    """`step()` runs forward and backward of a hand-written model, whose every layer is watched."""
    values, gradients = dict(others), {}

    def watch(path, layer):
        forward, backward = layer.forward, getattr(layer, "backward", None)

        def forward_seen(*inputs, **options):
            output = forward(*inputs, **options)
            values.update(places(path, ":in", inputs) | places(path, ":out", output))
            return output

        def backward_seen(*grads, **options):
            result = backward(*grads, **options)
            gradients.update(places(path, ":out", grads) | places(path, ":in", result))
            return result

        layer.forward = forward_seen
        if backward:
            layer.backward = backward_seen

    for path, layer in list(model.modules()):
        if hasattr(layer, "forward"):
            watch(path.rstrip("."), layer)
    model.train()
    step()
    values |= model.parameters()
    gradients |= model.gradients()
    seen = Seen()
    for place, value in values.items():
        seen.note(place, value, gradients.get(place))
    return seen


def mlp_manual() -> tuple[Seen, dict]:
    from MLP_Manual.model import MLP
    from MLP_Manual.utils.losses import CrossEntropy

    model, criterion, labels = MLP(), CrossEntropy(), torch.zeros(N, dtype=torch.int64)

    def step():
        criterion.forward(model.forward(torch.randn(N, 784)), labels)
        model.backward(criterion.backward())

    return run_by_hand(model, step, labels=labels), {"N": N}


def cnn_manual() -> tuple[Seen, dict]:
    from CNN_Manual.model import CNN
    from CNN_Manual.utils.losses import CrossEntropy

    model, criterion, labels = CNN(), CrossEntropy(), torch.zeros(N, dtype=torch.int64)

    def step():
        criterion.forward(model.forward(torch.randn(N, 1, 28, 28)), labels)
        model.backward(criterion.backward())

    seen = run_by_hand(model, step, labels=labels)
    conv = model.features.layers[4]
    _, phase, _, read = next(tap for tap in conv.taps() if tap[0] == (1, 1))
    assert conv.weight[:, :, 1, 1].shape == (64, 32)
    seen["x_ij"] = 2 * (tuple(conv.x[phase][read].flatten(0, 1).shape),)
    return seen, {"N": N, "H": 14, "W": 14}


def rnn_manual() -> tuple[Seen, dict]:
    from RNN_Manual.model import LanguageModel
    from RNN_Manual.utils.losses import SequenceCrossEntropy

    model, criterion = LanguageModel(), SequenceCrossEntropy()
    tokens, taken, given = torch.zeros(T, N, dtype=torch.int64), {}, {}
    layers, run, run_back = model.recurrent, model.recurrent.run, model.recurrent.run_back

    def run_seen(layer, a, *state):
        if layer:
            return run(layer, a, *state)
        outputs, last, saved = run(layer, a, *state)
        taken.update(h_0=state[0], c_0=state[1], h_T=last[0], c_T=last[1], h_t=outputs[0])
        taken.update(c_t=saved[2][1], a=a[0])
        taken.update({name[-1]: gate[0] for name, gate in zip(layers.gate_names, a.chunk(4, 2))})  # noqa: B905
        return outputs, last, saved

    def run_back_seen(layer, *grads):
        if layer:
            return run_back(layer, *grads)
        taken.update({f"a_{name}": taken[name] for name in "ifno"})
        grad_a, grad_hh, before, (grad_h, grad_c) = run_back(layer, *grads)
        # the first step's: what would go on to the step before, and here ends
        given.update(h_t=grad_h, c_t=grad_c)
        given.update({f"a_{name}": part[0] for name, part in zip("ifno", grad_a.chunk(4, 2))})  # noqa: B905
        given.update({name: given[f"a_{name}"] for name in "ifno"})
        return grad_a, grad_hh, before, (grad_h, grad_c)

    layers.run, layers.run_back = run_seen, run_back_seen

    def step():
        logits = model.forward(tokens)
        taken["logits"] = logits
        criterion.forward(logits, tokens)
        given["logits"] = criterion.backward()
        model.backward(given["logits"])

    seen = run_by_hand(model, step)
    for place, value in taken.items():
        seen.note(place, value, given.get(place))
    seen["x_t"] = tuple(shape[1:] for shape in seen["embedding"])
    return seen, {"N": N, "T": T, "V": 65}


def rnn_manual_cells() -> tuple[Seen, dict]:
    from RNN_Manual.model import LanguageModel
    from RNN_Manual.utils.losses import SequenceCrossEntropy

    seen, D, H = Seen(), 8, 6
    for cell in ("rnn", "gru"):
        model, criterion = LanguageModel(11, D, H, 1, cell, 0.0), SequenceCrossEntropy()
        layers, taken, given = model.recurrent, {}, {}
        run, run_back = layers.run, layers.run_back

        def run_seen(layer, a, h, run=run, cell=cell, taken=taken):
            outputs, last, saved = run(layer, a, h)
            names = ["a"] if cell == "rnn" else ["a_r", "a_z", "a_n"]
            taken.update(zip(names, a[0].chunk(len(names), 1), strict=True), h=outputs[0])
            if cell == "gru":
                taken["q"] = saved[1][0, :, 2 * H :]
            return outputs, last, saved

        def run_back_seen(layer, *grads, run_back=run_back, cell=cell, given=given):
            grad_a, grad_hh, before, (grad_h,) = run_back(layer, *grads)
            names = ["a"] if cell == "rnn" else ["a_r", "a_z", "a_n"]
            given.update(zip(names, grad_a[0].chunk(len(names), 1), strict=True), h=grad_h)
            if cell == "gru":
                given["q"] = grad_hh[0, :, 2 * H :]
            return grad_a, grad_hh, before, (grad_h,)

        layers.run, layers.run_back = run_seen, run_back_seen

        def step(model=model, criterion=criterion):
            tokens = torch.zeros(T, N, dtype=torch.int64)
            criterion.forward(model.forward(tokens), tokens)
            model.backward(criterion.backward())

        found = run_by_hand(model, step)
        seen[f"{cell}:x"] = tuple(shape[1:] for shape in found["embedding"])
        for place, value in taken.items():
            seen.note(f"{cell}:{place}", value, given[place])
    return seen, {"N": N, "D": D, "H": H}


def language_model_by_hand(model, tokens) -> Seen:
    """The same for both blocks: a training step, whose logits no layer holds."""
    from Transformer_Manual.utils.losses import TokenCrossEntropy

    criterion, taken, given = TokenCrossEntropy(), {}, {}

    def step():
        taken["logits"] = model.forward(tokens)
        criterion.forward(taken["logits"], tokens)
        given["logits"] = criterion.backward()
        model.backward(given["logits"])

    seen = run_by_hand(model, step, tokens=tokens)
    seen.note("logits", taken["logits"], given["logits"])
    return seen


def transformer_manual_language_model() -> tuple[Seen, dict]:
    from Transformer_Manual.model import LanguageModel

    sizes = {"N": N, "T": T, "V": 11, "D": 24}
    tokens = torch.ones(N, T, dtype=torch.int64)
    return language_model_by_hand(LanguageModel(11, 24, feedforward_dim=32), tokens), sizes


def transformer_manual_modern_block() -> tuple[Seen, dict]:
    from Transformer_Manual.model import LanguageModel
    from Transformer_Manual.utils.architecture import BLOCKS

    sizes = {"N": N, "T": T, "D": 80, "h": 8, "G": 2, "h/G": 4, "d": 10, "F": 32}
    model = LanguageModel(11, 80, 8, feedforward_dim=32, **BLOCKS["modern"], qk_norm=True)
    gate, taken, given = model.encoder.layers[0].activation, {}, {}
    back = gate.backward

    def backward_seen(g):  # which holds a and c side by side, and never stores ∂L/∂silu(a)
        result = back(g)
        taken.update({"a": gate.a, "c": gate.c, "silu(a)": gate.silu})
        given.update(zip("ac", result.chunk(2, dim=1), strict=True))
        given["silu(a)"] = g * gate.c
        return result

    gate.backward = backward_seen
    seen = language_model_by_hand(model, torch.ones(N, T, dtype=torch.int64))
    for place, value in taken.items():
        seen.note(place, value, given[place])
    assert not any("bias" in place for place in seen), "no biases anywhere"
    return seen, sizes


def transformer_manual() -> tuple[Seen, dict]:
    from Transformer_Manual.model import Transformer
    from Transformer_Manual.utils.losses import TokenCrossEntropy

    sizes = {"N": N, "T": T, "S": S, "V": 11, "D": 24, "h": 4, "d": 6}
    model, criterion = Transformer(sizes["V"], sizes["D"], feedforward_dim=32), TokenCrossEntropy()
    source, target = torch.ones(N, S, dtype=torch.int64), torch.ones(N, T, dtype=torch.int64)
    attention = model.transformer.decoder.layers[0].self_attn.attention
    taken, given, back = {}, {}, attention.backward

    def backward_seen(g):  # which never stores ∂L/∂p̃ = g vᵀ
        taken["p"], given["p"] = attention.weights, g @ attention.v.transpose(1, 2)
        return back(g)

    attention.backward = backward_seen

    def step():
        taken["logits"] = model.forward(source, target)
        criterion.forward(taken["logits"], target)
        given["logits"] = criterion.backward()
        model.backward(given["logits"])

    seen = run_by_hand(model, step, source=source, target=target)
    for place, value in taken.items():
        seen.note(place, value, given[place])
    return seen, sizes


def run_torch(model, step, parameters=True) -> Seen:
    """`step()` runs forward and backward of an nn.Module, whose every module is watched."""
    values = {}

    def watch(path):
        def hook(module, inputs, output):
            for place, value in (
                places(path, ":in", inputs) | places(path, ":out", output)
            ).items():
                values[place] = value
                if value.requires_grad:
                    value.retain_grad()

        return hook

    for path, module in model.named_modules():
        module.register_forward_hook(watch(path))
    model.train()
    values |= step() or {}
    if parameters:
        values |= dict(model.named_parameters())
    return Seen.of(values)


def mlp_torch() -> tuple[Seen, dict]:
    from MLP_Torch.model import MLP

    model, labels = MLP(), torch.zeros(N, dtype=torch.int64)

    def step():
        F.cross_entropy(model(torch.randn(N, 784)), labels).backward()
        return {"labels": labels}

    return run_torch(model, step), {"N": N}


def test_autograd_records_the_functions_of_the_picture():
    """Those in the boxes of block 2, from the last to the first."""
    from MLP_Torch.model import MLP

    boxes = DIAGRAMS["MLP_Torch"]().boxes
    node, recorded = MLP()(torch.randn(N, 784)).grad_fn, []
    while node is not None:
        recorded.append(type(node).__name__)
        node = next((f for f, _ in node.next_functions if "Backward" in type(f).__name__), None)
    names = [boxes[name].back[0] for name in ("dropout", "relu", "norm", "linear")]
    assert recorded[1:5] == names and recorded[5:9] == names


def cnn_torch() -> tuple[Seen, dict]:
    from CNN_Torch.model import CNN

    model, labels = CNN(), torch.zeros(N, dtype=torch.int64)

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(torch.randn(N, 1, 28, 28))
        F.cross_entropy(logits.float(), labels).backward()
        return {"labels": labels}

    seen = run_torch(model, step)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert tensor.dtype == torch.float32 or name.endswith("tracked")
        assert tensor.grad is None or tensor.grad.dtype == torch.float32
    return seen, {"N": N}


def test_memory_layouts_are_those_of_the_picture():
    from docs.networks.cnn import LAYOUTS

    names = [["A1", "A2", "A3", "A4"], ["B1", "B2", "B3", "B4"]]
    image = torch.arange(8).view(1, 2, 2, 2)
    for layout, memory in (
        ("NCHW", torch.contiguous_format),
        ("channels_last", torch.channels_last),
    ):
        kept = image.contiguous(memory_format=memory)
        order = torch.as_strided(kept, (8,), (1,)).tolist()
        assert [names[n // 4][n % 4] for n in order] == LAYOUTS[layout]


def resnet() -> tuple[Seen, dict]:
    from ResNet.model import PRESETS, BasicBlock, Bottleneck, PreActivationBlock, ResNet

    sizes, labels, seen = {"N": N, "H": 8, "W": 12}, torch.zeros(N, dtype=torch.int64), Seen()
    for prefix, model, shape in (
        ("", PRESETS["resnet9-wide"](), (32, 32)),
        ("resnet18.", ResNet(BasicBlock, (1,), (64,)), (8, 12)),  # its first block
        ("preact.", ResNet(PreActivationBlock, (1,), (64,)), (8, 12)),
        ("bottleneck.", ResNet(Bottleneck, (2,), (64,)), (8, 12)),  # its second: x has 256 channels
    ):

        def step(model=model, shape=shape):
            logits = model(torch.randn(N, 3, *shape))
            logits.retain_grad()
            F.cross_entropy(logits, labels).backward()
            return {"logits": logits}

        found = run_torch(model, step)
        seen |= {prefix + place: shapes for place, shapes in found.items()}
        if not prefix:
            assert found["conv1.weight"][1] is None and found["conv1.bias"][1] is not None
    return seen, sizes


def kept(values: dict) -> dict:
    """Tensors that will know their gradients."""
    for value in values.values():
        if value.requires_grad:
            value.retain_grad()
    return values


def vit() -> tuple[Seen, dict]:
    from ViT import model as module

    model = module.PRESETS["nano-conv"](layer_scale=0.1, fused=False)
    torch.nn.init.normal_(model.head.weight)  # it starts with zeros, which give no gradient
    inside, attention = {}, module.attention

    def attention_seen(q, k, v, dropout=0.0):  # the same, with every step kept
        s = q @ k.transpose(2, 3) * q.shape[3] ** -0.5
        p = s.softmax(3)
        kept({"q": q, "k": k, "v": v, "s": s, "p": p})
        inside.update(q=q, k=k, v=v, s=s, p=p)
        expected, weights = attention(q, k, v, dropout)
        torch.testing.assert_close((p @ v, p), (expected, weights))
        return p @ v, p

    def step():
        module.attention = attention_seen
        try:
            logits = model(torch.randn(N, 3, 32, 32))
        finally:
            module.attention = attention
        F.cross_entropy(logits, torch.zeros(N, dtype=torch.int64)).backward()
        return inside

    return run_torch(model, step), {"N": N, "h": 4, "T": 64, "d": 32}


def lstm() -> tuple[Seen, dict]:
    from LSTM.model import PAD, RecurrentClassifier

    model = RecurrentClassifier(vocabulary=20, embed_dim=64, hidden_size=128)
    tokens, lengths = torch.randint(2, 20, (N, T)), torch.tensor([T, 3, 2])
    tokens[1, 3:] = tokens[2, 2:] = PAD
    states = []
    model.layers[0].register_forward_hook(lambda module, inputs, output: states.append(output))

    def step():
        F.cross_entropy(model(tokens, lengths), torch.zeros(N, dtype=torch.int64)).backward()

    seen = run_torch(model, step)
    (y,) = states
    assert not y.grad[1, 3:].any() and not y.grad[2, 2:].any()  # no gradient comes from padding
    assert ((y.grad != 0).sum(1) <= 1).all() and y.grad.any()  # one word takes all of a feature's
    return seen, {"N": N, "T": T}


def transformer_torch() -> tuple[Seen, dict]:
    from Transformer_Torch import model as module
    from Transformer_Torch.utils import cache

    sizes = {"N": N, "T": T, "S": S, "V": 11, "D": 24, "h": 4, "d": 6, "t": T + 1}
    model = module.Transformer(sizes["V"], sizes["D"], feedforward_dim=32)
    source, target = torch.ones(N, S, dtype=torch.int64), torch.ones(N, T, dtype=torch.int64)
    taken, attend, mask = (
        {},
        F.scaled_dot_product_attention,
        module.causal_mask(torch.zeros(1, T, 1)),
    )

    def attend_seen(q, k, v, *others, **options):
        y = attend(q, k, v, *others, **options)
        if q.shape[2] == k.shape[2] == T:  # self-attention of the target
            taken.update(kept({"q": q, "k": k, "v": v, "y": y}))
        return y

    def step():
        F.scaled_dot_product_attention = attend_seen
        try:
            logits = model(source, target)
        finally:
            F.scaled_dot_product_attention = attend
        kept({"logits": logits})
        F.cross_entropy(logits.flatten(0, 1), target.flatten()).backward()
        return {**taken, "logits": logits, "source": source, "target": target, "mask": mask}

    seen = run_torch(model, step)

    writer = module.LanguageModel(sizes["V"], sizes["D"], feedforward_dim=32).eval()
    reader, token, project = cache.CachedReader(writer), torch.ones(N, 1, dtype=torch.int64), {}
    parts, attend_cached = cache.project, cache.attend

    def project_seen(attention, x, which):
        q, k, v = parts(attention, x, which)
        project.update(new_x=x, new_q=q, new_k=k, new_v=v)
        return q, k, v

    def attend_cached_seen(attention, q, k, v, **options):
        y = attend_cached(attention, q, k, v, **options)
        project.update(keys=k, values=v, new_y=y)
        return y

    cache.project, cache.attend = project_seen, attend_cached_seen
    try:
        with torch.inference_mode():
            reader.read(target)
            project.update(new_logits=reader.read(token), token=token)
    finally:
        cache.project, cache.attend = parts, attend_cached
    for place, value in project.items():
        seen.note(place, value, None)
    return seen, sizes


def vae() -> tuple[Seen, dict]:
    from VAE.model import VAE
    from VAE.utils.bounds import elbo_loss

    model, k, J, beta = VAE(), 2, 50, 0.7
    x, taken, decode, sample = torch.rand(N, 784).round(), {}, model.decode, model.sample

    def sample_seen(mu, logvar, *others):
        z = sample(mu, logvar, *others)
        scaled = z.detach() - mu.detach()[:, None]
        noise = scaled / (0.5 * logvar.detach()[:, None]).exp()
        sigma = (0.5 * logvar).exp()
        again = kept({"scaled": sigma[:, None] * noise})["scaled"]
        taken.update(kept({"mu": mu, "s": logvar, "sigma": sigma}), noise=noise, scaled=again)
        taken.update(kept({"z": mu[:, None] + again}))
        torch.testing.assert_close(taken["z"], z)
        return taken["z"]

    def decode_seen(z, *labels):
        taken.update(kept({"logits": decode(z, *labels)}))
        return taken["logits"]

    model.sample, model.decode = sample_seen, decode_seen

    def step():
        elbo_loss(model(x, samples=k), beta).mean().backward()
        return {**taken, "x": x}

    seen = run_torch(model, step)
    mu, logvar, z = taken["mu"], taken["s"], taken["z"]  # and the formulas in the picture:
    to_s = (z.grad * taken["noise"]).sum(1) * 0.5 * taken["sigma"]
    torch.testing.assert_close(mu.grad, z.grad.sum(1) + beta * mu / N)
    torch.testing.assert_close(taken["sigma"].grad, (z.grad * taken["noise"]).sum(1))
    torch.testing.assert_close(logvar.grad, to_s + beta * (logvar.exp() - 1) / (2 * N))
    expected = (taken["logits"].sigmoid() - x[:, None]) / (N * k)
    torch.testing.assert_close(taken["logits"].grad, expected)
    return seen, {"N": N, "k": k, "J": J}


def gan() -> tuple[Seen, dict]:
    from GAN.model import GAN, ConvDiscriminator, ConvGenerator
    from GAN.utils.turns import discriminator_step, generator_step

    Z, shape, labels = 64, (1, 28, 28), torch.zeros(N, dtype=torch.int64)
    args = Namespace(latent_dim=Z, precision="float32", loss="hinge", penalty=0)
    seen = Seen()
    for turn in ("1", "2"):
        model = GAN(ConvGenerator(shape, Z, 48), ConvDiscriminator(shape, 48, "spectral"))
        calls = {"generator": [], "discriminator": []}
        for name, player in model.named_children():
            player.register_forward_hook(
                lambda module, inputs, output, calls=calls[name]: calls.append(
                    list(kept({"in": inputs[0], "out": output}).values())
                )
            )

        def step(turn=turn, model=model):
            optimizer = torch.optim.SGD(model.parameters(), 0.0)
            turns = (optimizer, labels, args, lambda images: images)
            if turn == "1":
                discriminator_step(model, turns[0], torch.rand(N, *shape), *turns[1:])
            else:
                generator_step(model, *turns)

        found = run_torch(model, step)
        judged = [values for call in calls["discriminator"] for values in call]
        names = {
            "1": ["real", "logits_real", "fake", "logits_fake"], "2": ["fake", "logits"]
        }[turn]  # fmt: skip
        for name, value in zip(names, judged, strict=True):
            seen.note(f"{turn}:{name}", value, value.grad)
        seen.note(f"{turn}:z", calls["generator"][0][0], None)
        for letter, player in (("G", model.generator), ("D", model.discriminator)):
            grads = [parameter.grad for parameter in player.parameters()]
            assert len({grad is None for grad in grads}) == 1
            # step 1 gives gradients to the discriminator alone, step 2 to the generator alone
            assert (grads[0] is not None) == (letter == {"1": "D", "2": "G"}[turn])
            seen.note(f"{turn}:{letter}", next(player.parameters()), grads[0])
        if turn == "2":
            seen |= found
    return seen, {"N": N, "Z": Z}


def size(expression: str, sizes: dict[str, int]) -> tuple[int, ...]:
    """N×2·D -> the numbers."""
    return tuple(
        math.prod(int(f) if f.isdigit() else sizes[f] for f in factor.split("·"))
        for factor in expression.replace("\n", "").split("×")
    )


def test_sizes_of_a_label():
    assert size("N·h×T×10", {"N": 3, "h": 2, "T": 5}) == (6, 5, 10)


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_and_gradients_are_those_of_the_network(name):
    """One training step of the real network; each arrow says where its tensor is seen."""
    torch.manual_seed(0)
    seen, sizes = globals()[name.lower().replace("/", "_")]()
    for arrow in DIAGRAMS[name]().arrows:
        shapes = re.sub(r"^\w: ", "", arrow.shape)  # which of q, k and v it is
        if arrow.seen and not shapes:  # the gradients of weights, all together
            assert (seen[arrow.seen][1] is not None) == arrow.back, arrow
            continue
        shapes, _, bits = shapes.partition("\n16 ")
        named = [shape for shape in re.split(r" and |,\s", shapes) if shape]
        assert len(named) == len(arrow.seen.split()), arrow
        for shape, place in zip(named, arrow.seen.split(), strict=True):
            assert place in seen, f"{place} is none of {sorted(seen)}"
            shown = size(shape, sizes)
            assert not bits or seen.bits[place] == 16, (shape, place)
            assert (shown, shown if arrow.back else None) == seen[place], (shape, place)


# ---- legible ----


def drawn(diagram: Diagram):
    """The figure, and its texts as (words, left, top, right, bottom) in pixels of the page."""
    figure = diagram.draw()
    renderer = figure.canvas.get_renderer()
    placed, scale = [], figure.dpi / 100
    for text in figure.axes[0].texts:
        box = text.get_window_extent(renderer)
        y0, y1 = (diagram.height - y / scale for y in (box.y1, box.y0))
        placed.append((text.get_text(), box.x0 / scale, y0, box.x1 / scale, y1))
    return placed


def meet(a, b, by: float = 1.0) -> bool:
    """Whether two rectangles overlap by more than that."""
    return min(a[2], b[2]) - max(a[0], b[0]) > by and min(a[3], b[3]) - max(a[1], b[1]) > by


def stretches(arrow: Arrow):
    """Every straight piece of what is drawn of an arrow, as a thin rectangle."""
    for path, _ in lines(arrow):
        for (x0, y0), (x1, y1) in zip(path, path[1:], strict=False):
            yield min(x0, x1) - 1, min(y0, y1) - 1, max(x0, x1) + 1, max(y0, y1) + 1


def rectangle(box):
    return box.x, box.y, box.x + box.w, box.y + box.h


def faults(diagram: Diagram) -> list[str]:
    """What a reader would trip over."""
    texts, found = drawn(diagram), []
    boxes = {name: box for name, box in diagram.boxes.items() if box.kind != "panel"}
    for n, (words, *place) in enumerate(texts):
        if place[0] < 2 or place[1] < 2 or place[2] > 898 or place[3] > diagram.height - 2:
            found.append(f"{words!r} leaves the page")
        for other, *its in texts[n + 1 :]:
            if meet(place, its):
                found.append(f"{words!r} meets {other!r}")
        middle = (place[0] + place[2]) / 2, (place[1] + place[3]) / 2
        for name, box in boxes.items():
            x0, y0, x1, y1 = rectangle(box)
            inside = x0 < middle[0] < x1 and y0 < middle[1] < y1
            fits = x0 + 2 <= place[0] and place[2] <= x1 - 2 and y0 <= place[1] and place[3] <= y1
            if (inside and not fits and box.kind != "node") or (
                not inside and meet(place, rectangle(box))
            ):
                found.append(f"{words!r} crosses the edge of {name}")
        for arrow in diagram.arrows:
            own = [boxes[n].title for n in (arrow.start, arrow.end) if n in boxes]
            if words not in own and any(meet(place, piece, 0.5) for piece in stretches(arrow)):
                found.append(f"{words!r} is crossed by {arrow.start} -> {arrow.end}")
    for arrow in diagram.arrows:
        for name, box in boxes.items():
            if name not in (arrow.start, arrow.end) and any(
                meet(piece, rectangle(box)) for piece in stretches(arrow)
            ):
                found.append(f"{arrow.start} -> {arrow.end} runs through {name}")
        for point, name in ((arrow.path[0], arrow.start), (arrow.path[-1], arrow.end)):
            x0, y0, x1, y1 = rectangle(diagram.boxes[name])
            edge = (point[0] in (x0, x1) and y0 <= point[1] <= y1) or (
                point[1] in (y0, y1) and x0 <= point[0] <= x1
            )
            if not edge:
                found.append(f"{arrow.start} -> {arrow.end} does not end at {name}")
    names = list(boxes)
    for n, name in enumerate(names):
        for other in names[n + 1 :]:
            if meet(rectangle(boxes[name]), rectangle(boxes[other])):
                found.append(f"{name} overlaps {other}")
    return found


@pytest.mark.parametrize("name", DIAGRAMS)
def test_nothing_overlaps_and_arrows_end_at_boxes(name):
    assert not (found := faults(DIAGRAMS[name]())), "\n".join(found)


# ---- the pictures ----


@pytest.mark.parametrize("name", DIAGRAMS)
def test_the_committed_picture_is_of_this_description(name):
    """`python -m docs.diagrams` draws it anew. Another matplotlib may give other pixels."""
    path = path_of(name)
    with Image.open(path) as image:
        assert image.text["Description"] == DIAGRAMS[name]().digest()
        assert image.getpixel((0, 0)) == image.getpixel((image.width - 1, 0)), "a white ground"
    assert path.stat().st_size < 60_000


@pytest.mark.parametrize("name", NETWORKS)
def test_the_readme_shows_it(name):
    """The network itself before the maths, and in words to those who cannot see it."""
    folder, _, picture = name.partition("/")
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    top, _, _ = text.partition("## The maths")
    part = text if picture else top
    (words,) = re.findall(rf"!\[(.+?)\]\(results/{picture or 'network'}\.png\)", part)
    assert len(words.split()) > 8


def test_a_fault_is_found():
    d = Diagram("a picture", 200)
    d.box("a", 20, 50, 60, 40, "far too long a name")
    d.box("b", 60, 60, 60, 40, "b")
    d.box("c", 200, 50, 60, 40, "c")
    d.box("e", 300, 50, 60, 40, "e")
    d.arrow("b", "e")
    found = "; ".join(faults(d))
    for fault in ("crosses the edge of a", "a overlaps b", "b -> e runs through c"):
        assert fault in found


def test_a_wrong_shape_and_a_wrong_gradient_are_found(monkeypatch):
    for wrong in ({"shape": "N×785"}, {"back": True}):
        d = DIAGRAMS["MLP_Manual"]()
        for name, value in wrong.items():
            setattr(d.arrows[0], name, value)
        monkeypatch.setitem(DIAGRAMS, "MLP_Manual", lambda d=d: d)
        with pytest.raises(AssertionError):
            test_shapes_and_gradients_are_those_of_the_network("MLP_Manual")


def test_every_folder_has_a_diagram():
    assert [folder for folder in FOLDERS if folder not in DIAGRAMS] == []


def test_a_folder_draws_all_its_pictures_and_another_name_is_one_line(monkeypatch):
    drawn = []
    monkeypatch.setattr(Diagram, "save", lambda diagram, path: drawn.append(path.name))
    diagrams.main(["RNN_Manual/"])
    assert drawn == ["network.png", "cells.png"]
    diagrams.main(["Transformer_Manual/modern_block", "docs"])
    assert drawn[2:] == ["modern_block.png", "folders.png"]
    with pytest.raises(SystemExit, match="no diagram RNN; there are MLP_Manual, "):
        diagrams.main(["GAN", "RNN"])
    assert len(drawn) == 4
    diagrams.main([])
    assert len(drawn) == 4 + len(DIAGRAMS)
