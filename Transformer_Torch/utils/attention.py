"""What the attention looks at: the weights of every head, for pictures."""

import torch
from torch import Tensor, nn

KINDS = {"encoder": "encoder", "self_attn": "decoder", "multihead_attn": "cross"}  # in a name


@torch.no_grad()
def attention_weights(model: nn.Module, *inputs: Tensor) -> dict[str, list[Tensor]]:
    """For each kind of attention its weights, a tensor (N, h, T, S) a layer: the softmax's rows.

    Kinds are "encoder" and "decoder", each looking at itself, and "cross", the decoder at the
    encoder; a language model has the first. The model is in evaluation mode.

    The fused kernels never store these weights. Hooks ask every nn.MultiheadAttention for them, and
    PyTorch's inference path, which would step over the attention modules, is off in the meantime.
    """
    weights, hooks = {}, []

    def ask(module, args, kwargs):
        return args, {**kwargs, "need_weights": True, "average_attn_weights": False}

    def keep(name):
        kind = next(kind for part, kind in KINDS.items() if part in name)
        return lambda module, args, outputs: weights.setdefault(kind, []).append(outputs[1])

    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for name, module in model.named_modules():
            if isinstance(module, nn.MultiheadAttention):
                hooks.append(module.register_forward_pre_hook(ask, with_kwargs=True))
                hooks.append(module.register_forward_hook(keep(name)))
        model(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for hook in hooks:
            hook.remove()
    return weights
