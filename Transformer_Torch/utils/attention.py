"""What the attention looks at: the weights of every head, for pictures."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from Transformer_Torch.dataset.characters import Vocabulary
from Transformer_Torch.dataset.tokenizers import BEGIN, END, Tokenizer
from Transformer_Torch.utils.modern import GroupedAttention

KINDS = {".encoder.": "encoder", "self_attn": "decoder", "multihead_attn": "cross"}  # in a name


class Looks(NamedTuple):
    """A picture of attention: weights (h, T, S) of each layer, what looks, what is looked at."""

    title: str
    layers: list[Tensor]
    rows: list[str]
    columns: list[str]


@torch.no_grad()
def attention_weights(model: nn.Module, *inputs: Tensor) -> dict[str, list[Tensor]]:
    """For each kind of attention its weights, a tensor (N, h, T, S) a layer: the softmax's rows.

    Kinds are "encoder" and "decoder", each looking at itself, and "cross", the decoder at the
    encoder; a language model has the first. The model is in evaluation mode.

    The fused kernels never store these weights. Hooks ask every nn.MultiheadAttention for them, and
    PyTorch's inference path, which would step over the attention modules, is off in the meantime;
    GroupedAttention computes them from its inputs.
    """
    weights, hooks = {}, []

    def ask(module, args, kwargs):
        return args, {**kwargs, "need_weights": True, "average_attn_weights": False}

    def keep(name):
        kind = next(kind for part, kind in KINDS.items() if part in f".{name}")
        return lambda module, args, outputs: weights.setdefault(kind, []).append(outputs[1])

    def compute(module, args):
        weights.setdefault("encoder", []).append(module.weights(args[0]))

    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for name, module in model.named_modules():
            if isinstance(module, nn.MultiheadAttention):
                hooks.append(module.register_forward_pre_hook(ask, with_kwargs=True))
                hooks.append(module.register_forward_hook(keep(name)))
            if isinstance(module, GroupedAttention):
                hooks.append(module.register_forward_pre_hook(compute))
        model(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for hook in hooks:
            hook.remove()
    return weights


def over_translation(
    model: nn.Module, tokenizer: Tokenizer, source: Tensor, translation: list[int]
) -> dict[str, Looks]:
    """Where a Transformer's heads look while it reads `source` (S,) and writes `translation`."""
    read = [BEGIN, *translation]
    weights = attention_weights(model, source[None], source.new_tensor([read]))
    sources, targets, written = (
        tokenizer.pieces(tokens) for tokens in (source.tolist(), read, [*translation, END])
    )
    parts = {
        "encoder": ("where the encoder looks", sources, sources),
        "decoder": ("where the decoder looks in what it has written", targets, targets),
        "cross": ("where the decoder looks to write each token", written, sources),
    }
    return {
        f"attention_{kind}": Looks(title, [layer[0] for layer in weights[kind]], rows, columns)
        for kind, (title, rows, columns) in parts.items()
    }


def over_text(model: nn.Module, vocabulary: Vocabulary, tokens: Tensor) -> dict[str, Looks]:
    """Where a language model's heads look in a text (T,)."""
    layers = [layer[0] for layer in attention_weights(model, tokens[None])["encoder"]]
    characters = [vocabulary.characters[token] for token in tokens.tolist()]
    return {"attention": Looks("where each character looks", layers, characters, characters)}
