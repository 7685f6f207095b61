"""The convolutional network of CNN_Manual and CNN_Torch."""

# a call a line, like the rows of a table
# fmt: off
from docs.drawing import BACK, FORWARD, Diagram


def overview(d: Diagram, y: float, head: str, linear: str, loss: str, ends: str = "") -> None:
    """The network for mnist-sample in one row; `ends` is written below each shape."""
    d.box("images", 14, y, 56, 64, "images", kind="tensor", size=11.5)
    for n, x in enumerate((134, 264, 394), start=1):
        d.box(f"block{n}", x, y, 66, 64, f"block {n}", kind="learned")
    d.box("head", 524, y, 76, 64, head)
    d.box("last", 660, y, 66, 64, linear, kind="learned")
    d.box("loss", 784, y, 102, 64, loss, kind="loss")
    d.box("labels", 792, y + 88, 86, 26, "labels", kind="tensor")
    d.arrow("images", "block1", "N×1×\n28×28", "features.0:in", back=False)
    d.arrow("block1", "block2", f"N×32×\n14×14{ends}", "features.3")
    d.arrow("block2", "block3", f"N×64×\n7×7{ends}", "features.7")
    d.arrow("block3", "head", f"N×128×\n3×3{ends}", "features.11")
    d.arrow("head", "last", f"N×1152{ends}", "classifier.1")
    d.arrow("last", "loss", f"N×10{ends}", "classifier.2")
    d.arrow("labels", "loss", "N", "labels", back=False)


def cnn_manual() -> Diagram:
    d = Diagram("CNN_Manual: convolutions forward, and their gradients back", 560)
    overview(d, 56, "Flatten,\nDropout", "Linear", "softmax and\ncross-\nentropy")

    d.panel("zoom", 14, 188, 872, 186, "Inside block 2: every layer receives g = ∂L/∂y")
    d.box(
        "conv", 92, 232, 190, 124, "Conv2d 3 × 3",
        r"$y = b + \Sigma_{ij}\; x_{ij}\,\W_{ij}^\top$",
        r"$\dL x_{ij}$ += $g\,\W_{ij}$ | $\dL\W_{ij} = g^\top x_{ij}$ | $\dL b = \Sigma g$",
        "learned",
    )
    d.box(
        "pool", 354, 232, 126, 124, "MaxPool2d 2", "the largest of\n2 × 2 pixels",
        "$g$ to that pixel,\n0 to the others",
    )
    d.box(
        "norm", 544, 232, 130, 124, "BatchNorm2d", r"$y = \gamma\,\hat x + \beta$",
        "as in the MLP,\nfor each channel", "learned",
    )
    d.box("relu", 738, 232, 90, 124, "ReLU", r"$y = \max(x, 0)$", "$g$ if $x > 0$,\nelse 0")
    d.arrow("zoom.left 0.57", "conv.left", "N×32×\n14×14", "features.4:in")
    d.arrow("conv", "pool", "N×64×\n14×14", "features.4")
    d.arrow("pool", "norm", "N×64×\n7×7", "features.5")
    d.arrow("norm", "relu", "N×64×\n7×7", "features.6")
    d.arrow("relu.right", "zoom.right 0.57")

    d.panel("tap", 14, 386, 466, 138, "One tap (i, j) of nine is a matrix product")
    d.box("shifted", 32, 424, 128, 60, "images, shifted\nby (i, j)", kind="tensor")
    d.box("product", 248, 424, 90, 60, r"$x_{ij}\,\W_{ij}^\top$", kind="learned")
    d.box("sum", 392, 424, 70, 60, "add up\n9 taps")
    d.arrow("shifted", "product", "N·H·W×32", "x_ij")
    d.arrow("product", "sum")
    d.text(
        32, 506, r"one pixel of one image a row; $\W_{ij}$ has the shape 64×32", align="left",
        size=11.5,
    )

    d.panel("window", 492, 386, 394, 138, "Max-pooling: one pixel takes it all")
    d.box("pixels", 540, 418, 76, 92, "", "1   7\n3   2", "0   $g$\n0   0", "tensor", size=13)
    d.box("largest", 770, 418, 76, 92, "", "7", "$g$", "tensor", size=13)
    d.arrow("pixels", "largest")
    d.text(693, 448, "the largest of four", FORWARD)
    d.text(693, 482, "0 for the other three", BACK)
    return d


def cnn_torch() -> Diagram:
    d = Diagram("CNN_Torch: 16 bits on the way, 32 bits where sums grow", 572)
    overview(
        d, 62, "Flatten,\nDropout", "nn.\nLinear", "nn.Cross-\nEntropy-\nLoss", "\n16 bits"
    )

    d.panel("zoom", 14, 196, 872, 186, "Inside block 2 with --precision bfloat16 (torch.autocast)")
    d.box(
        "conv", 92, 240, 190, 124, "nn.Conv2d 3 × 3", r"rounds $x$ and $\W$ to 16 bits",
        r"$\dL\W$: 32 bits | the update of $\W$: 32 bits", "learned",
    )
    d.box("pool", 354, 240, 126, 124, "nn.MaxPool2d 2", "16 bits", "16 bits")
    d.box(
        "norm", 544, 240, 130, 124, "nn.Batch-\nNorm2d", r"$\mu$, $\sigma$: 32 bits",
        r"$\dL\gamma$: 32 bits", "learned",
    )
    d.box("relu", 738, 240, 90, 124, "nn.ReLU", "16 bits", "16 bits")
    d.arrow("zoom.left 0.57", "conv.left", "N×32×\n14×14\n16 bits", "features.4:in")
    d.arrow("conv", "pool", "N×64×\n14×14\n16 bits", "features.4")
    d.arrow("pool", "norm", "N×64×\n7×7\n16 bits", "features.5")
    d.arrow("norm", "relu", "N×64×\n7×7\n16 bits", "features.6")
    d.arrow("relu.right", "zoom.right 0.57")

    d.panel(
        "memory", 14, 394, 872, 142,
        "One image of 2 × 2 pixels and 2 channels (A, B), as it lies in memory",
    )
    for row, (name, values) in enumerate(LAYOUTS.items()):
        y = 426 + 54 * row
        d.text(150, y + 18, name, align="right", weight="bold")
        for n, value in enumerate(values):
            d.box(
                f"{name}{n}", 168 + 52 * n, y, 48, 36, value,
                kind="plain" if value[0] == "A" else "tensor",
            )
    d.text(600, 444, "channel after channel", align="left")
    d.text(600, 490, "pixel after pixel: the channels that a", align="left")
    d.text(600, 506, "convolution multiplies are neighbours", align="left")
    return d


LAYOUTS = {  # how PyTorch keeps an image (1, 2, 2, 2), by the names of channel and pixel
    "NCHW": ["A1", "A2", "A3", "A4", "B1", "B2", "B3", "B4"],
    "channels_last": ["A1", "B1", "A2", "B2", "A3", "B3", "A4", "B4"],
}
