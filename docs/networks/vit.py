"""The vision Transformer of ViT, with the stem of convolutions of its recorded run."""

# a call a line, like the rows of a table
# fmt: off
from docs.drawing import BACK, Diagram


def vit() -> Diagram:
    d = Diagram("ViT: an image becomes 64 tokens, and every token looks at all others", 700)
    d.box("images", 14, 50, 56, 64, "images", kind="tensor", size=11.5)
    for n, x in ((1, 120), (2, 256)):
        d.box(f"stem{n}", x, 50, 88, 64, "Conv2d,\nnorm, GELU,\nmax-pool", kind="learned", size=11)
    d.box("projection", 394, 50, 58, 64, "Conv2d\n3 × 3", kind="learned")
    d.box("flatten", 512, 50, 66, 64, "a token\na place", size=11.5)
    d.node("add", 646, 82, "+")
    d.box("blocks", 710, 50, 62, 64, "blocks,\n4", kind="learned")
    d.box("mean", 826, 50, 60, 64, "mean of\ntokens", size=10.5)
    d.box("positions", 596, 150, 100, 28, "positions", kind="learned", size=11.5)
    d.box("norm", 776, 134, 110, 28, "LayerNorm", kind="learned", size=11.5)
    d.box("head", 776, 196, 110, 28, "Linear", kind="learned", size=11.5)
    d.box("loss", 560, 196, 140, 28, "cross-entropy", kind="loss", size=11.5)
    d.arrow("images", "stem1", "N×3×\n32×32", "stem.layers.0:in", back=False)
    d.arrow("stem1", "stem2", "N×32×\n16×16", "stem.layers.3")
    d.arrow("stem2", "projection", "N×64×\n8×8", "stem.layers.7")
    d.arrow("projection", "flatten", "N×128×\n8×8", "stem")
    d.arrow("flatten", "add", "N×64×\n128", "dropout:in")
    d.arrow("add", "blocks", "N×64×\n128", "dropout:in")
    d.arrow("blocks", "mean", "N×64×\n128", "blocks.3")
    d.arrow("positions", "add", "1×64×128", "position_embedding")
    d.arrow("mean.bottom 0.2", "norm", "N×128", "norm:in")
    d.arrow("norm", "head", "N×128", "norm")
    d.arrow("head", "loss", "N×10", "head")
    d.text(14, 140, "Nothing else says where a token stands: its position is added.", align="left")
    d.text(
        14, 164, "The same position stands in every image, so its gradient is a sum over N.", BACK,
        align="left",
    )

    d.panel(
        "block", 14, 240, 872, 178, "One block: attention mixes the tokens, the MLP the channels",
    )
    for n, name in enumerate(("attention,\n4 heads", "MLP\n128 → 256 → 128")):
        x = 76 + 400 * n
        d.node(f"copy{n}", x, 380, "•")
        d.box(f"ln{n}", x + 26, 288, 74, 48, "LayerNorm", kind="learned", size=11)
        d.box(f"part{n}", x + 126, 288, 110, 48, name, kind="learned", size=11)
        d.box(f"scale{n}", x + 262, 288, 74, 48, "LayerScale", kind="learned", size=11)
        d.node(f"add{n}", x + 358, 380, "+")
        d.arrow(f"copy{n}.top", f"ln{n}.left")
        d.arrow(f"ln{n}", f"part{n}")
        d.arrow(f"part{n}", f"scale{n}")
        d.arrow(f"scale{n}.right", f"add{n}.top")
        d.arrow(f"copy{n}", f"add{n}", "N×64×128", f"blocks.0.norm{n + 1}:in")
    d.arrow("block.left 0.7865", "copy0.left")
    d.arrow("add0", "copy1")
    d.arrow("add1.right", "block.right 0.7865")

    d.panel(
        "attention", 14, 430, 872, 232,
        "Inside attention: no mask, and h = 4 heads of d = 32 channels",
    )
    d.box(
        "qkv", 32, 470, 120, 174, "Linear\n128 → 3 · 128", kind="learned", size=11.5,
    )
    d.box(
        "scores", 236, 470, 158, 70, "", r"$q\,k^\top/\sqrt{d}$",
        "gradients to $q$ and to $k$",
    )
    d.box(
        "softmax", 466, 470, 216, 70, "", r"$p$: the softmax of each row",
        r"$p\,(\dL p - \Sigma_j\; p_j\;\dL p_j)$",
    )
    d.box(
        "values", 490, 574, 168, 70, "", r"token $t$: $\;\Sigma_j\; p_{tj}\, v_j$",
        "gradients to $p$ and to $v$",
    )
    d.box("out", 744, 574, 124, 70, "Linear\n128 → 128", kind="learned", size=11.5)
    d.arrow("qkv.right 0.16", "scores.left", "q: N×h×T×d", "q")
    d.arrow("qkv.right 0.35", "scores.left", "k: N×h×T×d", "k")
    d.arrow("qkv.right 0.8", "values.left", "v: N×h×T×d", "v")
    d.arrow("scores", "softmax", "N×h×T×T", "s")
    d.arrow("softmax", "values", "N×h×T×T", "p")
    d.arrow("values", "out", "N×T×128", "blocks.0.attention.projection:in")
    return d
