"""ResNet's fast network, and the three residual blocks of the papers."""

# a call a line, like the rows of a table
# fmt: off
from docs.drawing import BACK, Diagram


def block(
    d: Diagram, name: str, x: float, y: float, parts: list[str], seen: str, shape: str,
    between: tuple[tuple[str, str], ...] = ((), ()), step: float = 142,
):
    """A shortcut from a copy to a sum, and on the branch above it one box for each part; `between`
    these, shapes and where they are seen."""
    width = 106
    end = x + 60 + step * len(parts)
    d.node(f"{name}copy", x, y, "•")
    d.node(f"{name}sum", end, y, "+")
    for n, part in enumerate(parts):
        d.box(f"{name}{n}", x + 36 + step * n, y - 84, width, 40, part, kind="learned", size=11.5)
        if n:
            d.arrow(f"{name}{n - 1}", f"{name}{n}", *between[n - 1])
    d.arrow(f"{name}copy.top", f"{name}0.left")
    d.arrow(f"{name}{len(parts) - 1}.right", f"{name}sum.top")
    d.arrow(f"{name}copy", f"{name}sum", shape, seen)


def resnet() -> Diagram:
    d = Diagram("ResNet: the shortcut hands on the whole gradient", 808)
    d.box("images", 14, 50, 58, 64, "images", kind="tensor", size=11.5)
    d.box(
        "conv1", 126, 50, 100, 64, "Conv2d 2 × 2,\nfixed kernels,\nGELU", kind="learned",
        size=10.5,
    )
    for n, x in enumerate((276, 400, 524), start=1):
        d.box(f"block{n}", x, 50, 62, 64, f"block {n}", kind="learned")
    d.box("largest", 648, 50, 62, 64, "largest\npixel")
    d.box("fc", 764, 50, 50, 64, "Linear,\n÷ 9", kind="learned", size=11)
    d.box("loss", 862, 50, 24, 64, "L", kind="loss")
    d.arrow("images", "conv1", "N×3×\n32×32", "conv1:in", back=False)
    d.arrow("conv1", "block1", "N×24×\n31×31", "blocks.0:in")
    d.arrow("block1", "block2", "N×128×\n15×15", "blocks.0")
    d.arrow("block2", "block3", "N×384×\n7×7", "blocks.1")
    d.arrow("block3", "largest", "N×384×\n3×3", "blocks.2")
    d.arrow("largest", "fc", "N×384", "fc:in")
    d.arrow("fc", "loss", "N×\n10", "logits")

    d.panel("zoom", 14, 128, 872, 206, "Inside block 2 of resnet9-wide: y = x + F(x)")
    d.box("conv", 76, 252, 76, 44, "Conv2d\n3 × 3", kind="learned", size=11.5)
    d.box("pool", 214, 252, 106, 44, "max-pool,\nnorm, GELU", kind="learned", size=11.5)
    block(
        d, "fast", 384, 274, 2 * ["Conv2d 3 × 3,\nnorm, GELU"], "blocks.1.residual:in",
        "N×384×7×7",
    )
    d.arrow("zoom.left 0.7087", "conv.left", "N×128×\n15×15", "blocks.1:in")
    d.arrow("conv", "pool", "N×384×\n15×15", "blocks.1.conv")
    d.arrow("pool", "fastcopy", "N×384×\n7×7", "blocks.1.residual:in")
    d.arrow("fastsum.right", "zoom.right 0.7087", "N×384×7×7", "blocks.1")
    d.text(
        557, 316, r"$\dL x = \dL y + (\partial F/\partial x)^\top\;\dL y$"
        ": the first part meets no weight",
        BACK,
    )

    d.panel("basic", 14, 346, 466, 228, "Basic block (2015): ReLU stands on the way")
    block(d, "b", 48, 494, ["conv1, bn1,\nReLU", "conv2, bn2"], "resnet18.layer1.0:in", "N×64×H×W")
    d.box("relu", 410, 474, 46, 40, "ReLU", size=11.5)
    d.arrow("basic.left 0.649", "bcopy.left")
    d.arrow("bsum", "relu")
    d.arrow("relu.right", "basic.right 0.649")
    d.text(247, 548, "Where the block's output is 0, no gradient comes back.", BACK)

    d.panel("pre", 492, 346, 394, 228, "Pre-activation block (2016): a free way")
    block(
        d, "p", 522, 494, ["bn1, ReLU,\nconv1", "bn2, ReLU,\nconv2"], "preact.layer1.0:in",
        "N×64×H×W",
    )
    d.arrow("pre.left 0.649", "pcopy.left")
    d.arrow("psum.right", "pre.right 0.649")
    d.text(689, 548, "Within a stage, the gradient arrives whole.", BACK)

    d.panel("bottleneck", 14, 586, 872, 184, "Bottleneck (2015): few channels for the 3 × 3")
    place = "bottleneck.layer1.1"
    block(
        d, "n", 84, 710,
        ["conv1 1 × 1,\nbn1, ReLU", "conv2 3 × 3,\nbn2, ReLU", "conv3 1 × 1,\nbn3"],
        f"{place}:in", "N×256×H×W",
        (("N×64×H×W", f"{place}.conv2:in"), ("N×64×H×W", f"{place}.conv3:in")), step=204,
    )
    d.box("relu3", 790, 690, 46, 40, "ReLU", size=11.5)
    d.arrow("bottleneck.left 0.6739", "ncopy.left")
    d.arrow("nsum", "relu3")
    d.arrow("relu3.right", "bottleneck.right 0.6739")
    d.text(
        450, 750, "With a quarter of the channels, the 3 × 3 has a sixteenth of the weights."
    )
    return d
