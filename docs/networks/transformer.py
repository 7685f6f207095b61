"""The Transformers of Transformer_Manual and Transformer_Torch."""

# a call a line, like the rows of a table
# fmt: off
from docs.drawing import BACK, FIXED, Diagram


def encoder_decoder(d: Diagram, names: dict[str, str], seen: dict[str, str]) -> None:
    """The whole network in two rows: the encoder above, the decoder below."""
    for row, y, tokens in (("1", 46, "source"), ("2", 130, "target")):
        d.box(f"tokens{row}", 14, y, 62, 44, tokens, kind="tensor")
        d.box(f"embed{row}", 130, y, 150, 44, names["embed"], kind="learned", size=11.5)
    d.box("encoder", 346, 46, 104, 44, "encoder\n3 layers", kind="learned")
    d.box("norm1", 516, 46, 90, 44, "LayerNorm", kind="learned")
    d.box("decoder", 506, 130, 110, 44, "decoder\n3 layers", kind="learned")
    d.box("norm2", 676, 130, 84, 44, "LayerNorm", kind="learned", size=11.5)
    d.box("logits", 816, 130, 70, 44, names["logits"], kind="learned")
    d.box("loss", 776, 46, 110, 44, "cross-entropy", kind="loss")
    d.arrow("tokens1", "embed1", "N×S", "source", back=False)
    d.arrow("embed1", "encoder", "N×S×D", seen["embed1"])
    d.arrow("encoder", "norm1", "N×S×D", "transformer.encoder.norm:in")
    d.arrow("norm1", "decoder", "N×S×D", "transformer.encoder.norm")
    d.arrow("tokens2", "embed2", "N×T", "target", back=False)
    d.arrow("embed2", "decoder", "N×T×D", seen["embed2"])
    d.arrow("decoder", "norm2", "N×T×D", "transformer.decoder.norm:in")
    d.arrow("norm2", "logits", "N×T×D", "transformer.decoder.norm")
    d.arrow("logits", "loss.bottom 0.68", "N×T×V", "logits")
    d.text(620, 110, "memory", align="left", size=11.5)


def transformer_manual() -> Diagram:
    d = Diagram("Transformer_Manual: attention, and who receives its gradients", 800)
    embed = r"$\sqrt{D}\;\W$[token]" + "\n+ position, Dropout"
    encoder_decoder(
        d, {"embed": embed, "logits": r"$x\,\W^\top$"},
        {"embed1": "dropout", "embed2": "target_dropout"},
    )
    d.text(
        14, 110, r"$\W$ stands in three places; $\dL\W$ is the sum of three.", BACK, align="left",
    )

    d.panel(
        "layer", 14, 190, 872, 266,
        "One decoder layer (pre-norm). An encoder layer: no middle part, and a mask of padding.",
    )
    at = "transformer.decoder.layers.0"
    for n, name in enumerate(
        ("causal\nself-attention", "cross-\nattention", "feed-forward\nD → F → D")
    ):
        x = 58 + 272 * n
        d.node(f"copy{n}", x, 404, "•")
        d.box(f"ln{n}", x + 20, 316, 52, 48, "Layer-\nNorm", kind="learned", size=11)
        d.box(f"part{n}", x + 106, 312, 108, 56, name, kind="learned")
        d.node(f"add{n}", x + 238, 404, "+")
        d.arrow(f"copy{n}.top", f"ln{n}.left")
        d.arrow(f"ln{n}", f"part{n}")
        d.arrow(f"part{n}.right", f"add{n}.top")
        d.arrow(f"copy{n}", f"add{n}", "N×T×D", f"{at}.norm{n + 1}:in")
    d.arrow("layer.left 0.8045", "copy0.left")
    d.arrow("add0", "copy1")
    d.arrow("add1", "copy2")
    d.arrow("add2.right", "layer.right 0.8045")
    d.box("causal", 164, 226, 108, 28, "causal mask", kind="tensor", size=11.5)
    d.box("memory", 400, 226, 76, 28, "memory", kind="tensor", size=11.5)
    d.box("padding", 500, 226, 106, 28, "padding mask", kind="tensor", size=11.5)
    d.arrow("causal", "part0", "1×T×T", f"{at}.self_attn:in1", back=False)
    d.arrow("memory", "part1.top 0.2", "N×S×D", f"{at}.multihead_attn:in1")
    d.arrow("padding", "part1.top 0.85", "N·h×1×S", f"{at}.multihead_attn:in2", back=False)
    d.text(
        450, 438,
        "At a +, both ways receive one gradient. Where data went two ways, the gradients add up.",
        BACK,
    )

    d.panel(
        "attention", 14, 468, 872, 292,
        "Inside causal self-attention: h heads side by side, each with d = D/h channels",
    )
    d.box(
        "project", 28, 546, 124, 192, "in_proj", r"$(q, k, v) =$ | $x\,\W_{in}^\top + b_{in}$",
        r"$\dL x = (\dL q,$ | $\dL k,\;\dL v)\,\W_{in}$", "learned",
    )
    d.box(
        "scores", 238, 546, 154, 88, "", r"$s = q\,k^\top/\sqrt{d} + M$",
        r"$\dL q = (\dL s)\, k\,/\sqrt{d}$ | $\dL k = (\dL s)^\top q\,/\sqrt{d}$",
    )
    d.box(
        "softmax", 462, 546, 180, 88, "", r"$p = \mathrm{softmax}(s)$",
        r"$\dL s_i = p_i\,(\,\dL p_i$ | $- \Sigma_j\; p_j\;\dL p_j)$",
    )
    d.box(
        "dropout", 710, 546, 100, 88, "Dropout", r"$\tilde p = m\,p$",
        r"$\dL p =$ | $m\;\dL\tilde p$",
    )
    d.box(
        "values", 600, 672, 160, 74, "", r"$y = \tilde p\, v$",
        r"$\dL v = \tilde p^\top g$ | $\dL \tilde p = g\, v^\top$",
    )
    d.box("out", 816, 672, 62, 74, "out_proj", kind="learned", size=11)
    d.box("mask", 260, 494, 100, 24, "causal mask M", kind="tensor", size=11)
    at += ".self_attn.attention"
    d.arrow("project.right 0.15", "scores.left", "q: N·h×T×d", f"{at}:in")
    d.arrow("project.right 0.36", "scores.left", "k: N·h×T×d", f"{at}:in1")
    d.arrow("project.right 0.84", "values.left", "v: N·h×T×d", f"{at}:in2")
    d.arrow("mask", "scores", "1×T×T", f"{at}:in3", back=False)
    d.arrow("scores", "softmax", "N·h×T×T", "p")
    d.arrow("softmax", "dropout", "N·h×T×T", "p")
    d.arrow("dropout", "values", "N·h×T×T", "p")
    d.arrow("values", "out", "N·h×\nT×d", f"{at}")
    return d


def transformer_torch() -> Diagram:
    d = Diagram("Transformer_Torch: training reads at once, writing goes token by token", 708)
    embed = r"nn.Embedding $\cdot\;\sqrt{D}$" + "\n+ position, Dropout"
    encoder_decoder(
        d, {"embed": embed, "logits": "F.linear\nsame W"},
        {"embed1": "transformer.encoder.layers.0:in", "embed2": "transformer.decoder.layers.0:in"},
    )
    d.text(
        14, 110, "Between them stands nn.Transformer. The last layer shares the embedding's W.",
        align="left",
    )

    d.panel(
        "training", 14, 190, 872, 218, "Training: a causal mask, so one pass gives T predictions",
    )
    words = ["<s>", "a", "dog", "runs"]
    for column, word in enumerate(words):
        d.text(142 + 48 * column, 228, word, size=11.5)
    for row, word in enumerate(words):
        d.text(108, 258 + 34 * row, word, align="right", size=11.5)
        for column in range(len(words)):
            seen = column <= row
            kind = "plain" if seen else "tensor"
            d.box(
                f"m{row}{column}", 120 + 48 * column, 244 + 34 * row, 44, 28,
                "0" if seen else "−∞", kind=kind,
            )
    d.text(215, 394, "who asks: a row; who answers: a column", size=11.5)
    d.box("project", 380, 240, 60, 116, "in_proj", kind="learned", size=11.5)
    d.box(
        "attention", 534, 240, 172, 116, "scaled_dot_product_\nattention",
        r"$\mathrm{softmax}(q\,k^\top/\sqrt{d} + M)\,v$",
        r"$\dL q,\;\;\dL k,\;\;\dL v$", size=11.5,
    )
    d.box("mask", 568, 374, 104, 24, "causal mask M", kind="tensor", size=11)
    d.box("out", 808, 272, 64, 52, "out_proj", kind="learned", size=11)
    for name, share in (("q", 0.17), ("k", 0.5), ("v", 0.83)):
        d.arrow(f"project.right {share}", f"attention.left {share}", f"{name}: N×h×T×d", name)
    d.arrow("attention", "out", "N×h×T×d", "y")
    d.arrow("mask", "attention", "T×T", "mask", back=False)

    d.panel(
        "writing", 14, 420, 872, 246,
        "Writing: a token is read once, its key and value stay. Nothing learns, so no gradients.",
    )
    d.box("token", 28, 518, 64, 48, "one new\ntoken", kind="tensor", size=11.5)
    d.box("embed", 146, 518, 86, 48, "embedding,\nposition", kind="learned", size=11)
    d.box("project1", 294, 458, 60, 168, "in_proj", kind="learned", size=11.5)
    d.box("keys", 446, 516, 104, 44, "keys of\nall t tokens", kind="tensor", size=11.5)
    d.box("values", 446, 582, 104, 44, "values of\nall t tokens", kind="tensor", size=11.5)
    d.box("attention1", 638, 458, 84, 168, "attention", size=11.5)
    d.box(
        "rest", 784, 508, 88, 68, "feed-forward,\nmore layers,\nlogits", kind="learned", size=10.5,
    )
    d.arrow("token", "embed", "N×1", "token", back=False)
    d.arrow("embed", "project1", "N×1×D", "new_x", back=False)
    d.arrow("project1.right 0.14", "attention1.left 0.14", "q: N×h×1×d", "new_q", back=False)
    d.arrow("project1", "keys.left 0.5", "k: N×h×1×d", "new_k", back=False)
    d.arrow("project1", "values.left 0.5", "v: N×h×1×d", "new_v", back=False)
    d.arrow("keys.right 0.5", "attention1", "N×h×t×d", "keys", back=False)
    d.arrow("values.right 0.5", "attention1", "N×h×t×d", "values", back=False)
    d.arrow("attention1", "rest", "N×1×D", "new_y", back=False)
    d.arrow("rest", "token", "N×V", "new_logits", back=False, over=642, shift=(-184, 0))
    d.text(260, 632, "choose the next token", FIXED, size=11)
    return d


def language_model() -> Diagram:
    d = Diagram("Transformer_Manual: the language model, a decoder alone", 400)
    d.box("tokens", 14, 52, 62, 52, "tokens", kind="tensor")
    d.box(
        "embed", 126, 52, 150, 52, r"$\sqrt{D}\;\W$[token]" + "\n+ position, Dropout",
        kind="learned", size=11.5,
    )
    d.box("layers", 342, 52, 84, 52, "layers,\n4", kind="learned")
    d.box("norm", 492, 52, 90, 52, "LayerNorm", kind="learned")
    d.box("logits", 648, 52, 62, 52, r"$x\,\W^\top$", kind="learned")
    d.box("loss", 776, 52, 110, 52, "cross-entropy", kind="loss")
    d.arrow("tokens", "embed", "N×T", "tokens", back=False)
    d.arrow("embed", "layers", "N×T×D", "dropout")
    d.arrow("layers", "norm", "N×T×D", "encoder.norm:in")
    d.arrow("norm", "logits", "N×T×D", "encoder.norm")
    d.arrow("logits", "loss", "N×T×V", "logits")

    d.panel(
        "layer", 14, 124, 872, 238,
        "One layer (pre-norm): no token sees a later one, so all T predictions count",
    )
    for n, name in enumerate(("causal\nself-attention", "feed-forward\nD → F → D")):
        x = 76 + 400 * n
        d.node(f"copy{n}", x, 314, "•")
        d.box(f"ln{n}", x + 40, 222, 84, 52, "LayerNorm", kind="learned", size=11)
        d.box(f"part{n}", x + 184, 222, 116, 52, name, kind="learned")
        d.node(f"add{n}", x + 346, 314, "+")
        d.arrow(f"copy{n}.top", f"ln{n}.left")
        d.arrow(f"ln{n}", f"part{n}", "N×T×D", f"encoder.layers.0.norm{n + 1}")
        d.arrow(f"part{n}.right", f"add{n}.top")
        d.arrow(f"copy{n}", f"add{n}", "N×T×D", f"encoder.layers.0.norm{n + 1}:in")
    d.arrow("layer.left 0.7983", "copy0.left")
    d.arrow("add0", "copy1")
    d.arrow("add1.right", "layer.right 0.7983")
    d.box("mask", 260, 154, 116, 28, "causal mask", kind="tensor", size=11.5)
    d.arrow("mask", "part0", "1×T×T", "encoder.layers.0.self_attn:in1", back=False)
    return d


def modern_block() -> Diagram:
    d = Diagram("Transformer_Manual: the layer of today's language models", 830)
    at = "encoder.layers.0"
    d.panel("layer", 14, 40, 872, 234, "One layer (pre-norm): RMSNorm, and no biases anywhere")
    for n, name in enumerate(("grouped-query\nattention", "SwiGLU\nD → 2F → F → D")):
        x = 46 + 430 * n
        d.node(f"copy{n}", x, 248, "•")
        d.box(
            f"norm{n}", x + 24, 128, 160, 96, "RMSNorm",
            r"$y = \gamma\,\hat x, \;\; \hat x = x/\sigma$",
            r"$\dL x = (\,\hat g\,-$ | $\hat x\;\mathrm{mean}(\hat g\,\hat x)\,)\,/\,\sigma$",
            "learned", 11.5,
        )
        d.box(f"part{n}", x + 246, 146, 116, 60, name, kind="learned", size=11.5)
        d.node(f"add{n}", x + 382, 248, "+")
        d.arrow(f"copy{n}.top", f"norm{n}.left")
        d.arrow(f"norm{n}", f"part{n}", "N×T×D", f"{at}.norm{n + 1}")
        d.arrow(f"part{n}.right", f"add{n}.top")
        d.arrow(f"copy{n}", f"add{n}", "N×T×D", f"{at}.norm{n + 1}:in")
    d.arrow("layer.left 0.8889", "copy0.left")
    d.arrow("add0", "copy1")
    d.arrow("add1.right", "layer.right 0.8889")
    d.box("causal", 300, 70, 100, 26, "causal mask", kind="tensor", size=11)
    d.arrow("causal", "part0", "1×T×T", f"{at}.self_attn:in1", back=False)

    d.panel(
        "attention", 14, 286, 872, 312,
        "Grouped-query attention: h heads of queries share G heads of keys and values",
    )
    d.box(
        "project", 24, 366, 104, 210, "in_proj", r"$(q, k, v) =$ | $x\,\W_{in}^\top$",
        r"$\dL x = (\dL q,$ | $\dL k,\;\dL v)\,\W_{in}$", "learned", 11,
    )
    d.box(
        "attend", 574, 366, 166, 210, "Attention",
        r"$s = q\,k^\top/\sqrt{d} + M$ | $\tilde p = m\;\mathrm{softmax}(s)$ | $y = \tilde p\,v$",
        r"$\dL k = \Sigma_j\,(\dL s_j)^\top q_j/\sqrt{d}$ | $\dL v = \Sigma_j\;\tilde p_j^\top g_j$"
        " | j: the heads of a group", size=11.5,
    )
    d.box("out", 818, 439, 62, 64, "out_proj", kind="learned", size=11)
    d.box("mask", 596, 312, 122, 24, "causal mask M", kind="tensor", size=11)
    inside = f"{at}.self_attn"
    for n, (name, heads) in enumerate((("q", "h"), ("k", "G"))):
        y = 366 + 74 * n
        d.box(f"norm_{name}", 216, y, 86, 62, "QK-norm,\noptional", kind="learned", size=11)
        d.box(
            f"turn_{name}", 374, y, 76, 62, "rotary", f"$A_t\\,{name}$", r"$A_t^\top g$", size=11.5,
        )
        d.arrow(
            f"project.right {(y + 31 - 366) / 210:.4f}", f"norm_{name}", f"{name}: N×T×{heads}×d",
            f"{inside}.{name}_norm:in",
        )
        d.arrow(f"norm_{name}", f"turn_{name}", f"N×T×{heads}×d", f"{inside}.{name}_norm")
    inside += ".attention"
    d.arrow("turn_q", f"attend.left {31 / 210:.4f}", "N·G×T·h/G×d", f"{inside}:in")
    d.arrow("turn_k", f"attend.left {105 / 210:.4f}", "N·G×T×d", f"{inside}:in1")
    d.arrow("project.right 0.88", "attend.left 0.88", "v: N·G×T×d", f"{inside}:in2")
    d.arrow("mask", "attend", "1×T·h/G×T", f"{inside}:in3", back=False)
    d.arrow("attend", "out", "N·G×\nT·h/G×d", inside)

    d.panel(
        "gate", 14, 610, 872, 182, "SwiGLU: one half of the hidden units is the gate of the other",
    )
    d.box(
        "linear1", 90, 644, 122, 130, "linear1", r"$(a, c) = x\,\W^\top$",
        r"$\dL x =$ | $(\dL a,\;\dL c)\,\W$", "learned",
    )
    d.box(
        "silu", 290, 644, 154, 72, "", r"$\mathrm{silu}(a) = a\;\mathrm{sigmoid}(a)$",
        r"$\dL a = g\,c\;\mathrm{silu}'(a)$",
    )
    d.box(
        "times", 516, 644, 124, 130, "", r"$y = \mathrm{silu}(a)\,c$",
        r"$\dL c = g\;\mathrm{silu}(a)$",
    )
    d.box("linear2", 706, 676, 84, 66, "Dropout,\nlinear2", kind="learned")
    d.arrow("gate.left 0.5440", "linear1.left", "N·T×D", f"{at}.linear1:in")
    d.arrow("linear1", "silu", "a: N·T×F", "a")
    d.arrow("linear1.right 0.84", "times.left 0.84", "c: N·T×F", "c")
    d.arrow("silu", "times", "N·T×F", "silu(a)")
    d.arrow("times", "linear2", "N·T×F", f"{at}.activation")
    d.arrow("linear2.right", "gate.right 0.5440", "N·T×D", f"{at}.linear2")
    return d
