"""The perceptron of MLP_Manual, and what autograd records of it in MLP_Torch."""

# a call a line, like the rows of a table
# fmt: off
from docs.drawing import BACK, Diagram


def overview(d: Diagram, y: float, dropout: str, linear: str, loss: str) -> None:
    """The whole network in one row."""
    d.box("x", 14, y, 62, 60, "images\nx", kind="tensor")
    d.box("input_dropout", 136, y, 88, 60, dropout)
    d.box("block1", 284, y, 88, 60, "block 1", kind="learned")
    d.box("block2", 440, y, 88, 60, "block 2", kind="learned")
    d.box("last", 596, y, 90, 60, linear, kind="learned")
    d.box("loss", 750, y, 136, 60, loss, kind="loss")
    d.box("labels", 768, y + 84, 100, 26, "labels", kind="tensor")
    d.arrow("x", "input_dropout", "N×784", "input_dropout:in", back=False)
    d.arrow("input_dropout", "block1", "N×784", "input_dropout", back=False)
    d.arrow("block1", "block2", "N×1024", "layers.3")
    d.arrow("block2", "last", "N×1024", "layers.7")
    d.arrow("last", "loss", "N×10", "layers.8")
    d.arrow("labels", "loss", "N", "labels", back=False)


def mlp_manual() -> Diagram:
    d = Diagram("MLP_Manual: each layer hands a gradient to the layer before it", 484)
    overview(d, 52, "Dropout\n0.2", "Linear", "softmax and\ncross-entropy")
    d.text(740, 130, r"$\dL z = (p - q)\,/\,N$", BACK, align="right")
    d.text(
        14, 130, "Nobody learns the images, so the first Linear returns no gradient.",
        align="left",
    )

    d.panel("zoom", 14, 176, 872, 272, "Inside block 2: every layer receives g = ∂L/∂y")
    d.box(
        "linear", 86, 222, 128, 94, "Linear", r"$y = x\,\W^\top + b$", r"$\dL x = g\,\W$",
        "learned",
    )
    d.box(
        "norm", 276, 222, 254, 94, "BatchNorm1d", r"$y = \gamma\,\hat x + \beta$",
        r"$\dL x = \gamma/\sigma\;(g - \mathrm{mean}(g) - \hat x\,\mathrm{mean}(g \hat x))$",
        "learned",
    )
    d.box("relu", 582, 222, 94, 94, "ReLU", r"$y = \max(x, 0)$", "$g$ if $x > 0$,\nelse 0")
    d.box(
        "dropout", 740, 222, 112, 94, "Dropout", r"$y = x \cdot \mathrm{mask}$",
        r"$\dL x = g \cdot \mathrm{mask}$",
    )
    d.arrow("zoom.left 0.342", "linear.left", "N×1024", "layers.4:in")
    d.arrow("linear", "norm", "N×1024", "layers.4")
    d.arrow("norm", "relu", "N×1024", "layers.5")
    d.arrow("relu", "dropout", "N×1024", "layers.6")
    d.arrow("dropout.right", "zoom.right 0.342")
    d.box(
        "weights", 86, 372, 128, 48, "", "", r"$\dL\W = g^\top x$ | $\dL b = \Sigma_n\, g_n$",
        "tensor",
    )
    d.box(
        "scales", 276, 372, 254, 48, "", "",
        r"$\dL\gamma = \Sigma_n\, g\,\hat x$ | $\dL\beta = \Sigma_n\, g$", "tensor",
    )
    d.box("optimizer", 584, 372, 246, 48, "optimiser: the next W, b, γ, β")
    d.arrow(
        "weights", "linear", "1024×1024 and 1024", "layers.4.weight layers.4.bias", forward=False,
    )
    d.arrow("scales", "norm", "1024 and 1024", "layers.5.weight layers.5.bias", forward=False)
    d.arrow("optimizer", "scales", forward=False)
    d.arrow("optimizer", "weights", forward=False, over=436)
    return d


def mlp_torch() -> Diagram:
    d = Diagram("MLP_Torch: autograd calls the same functions in the same order", 484)
    overview(d, 52, "nn.Dropout\n0.2", "nn.Linear", "nn.CrossEntropy-\nLoss")
    d.text(740, 130, "loss.backward() starts here, with g = 1", BACK, align="right")
    d.text(14, 130, "The images do not require a gradient: nothing is recorded.", align="left")

    d.panel(
        "zoom", 14, 176, 872, 272, "Inside block 2: what forward recorded is what backward calls",
    )
    d.box(
        "linear", 86, 222, 128, 94, "nn.Linear", r"$y = x\,\W^\top + b$", "AddmmBackward0",
        "learned",
    )
    d.box(
        "norm", 280, 222, 200, 94, "nn.BatchNorm1d", r"$y = \gamma\,\hat x + \beta$",
        "NativeBatchNormBackward0", "learned",
    )
    d.box("relu", 546, 222, 116, 94, "nn.ReLU", r"$y = \max(x, 0)$", "ReluBackward0")
    d.box(
        "dropout", 728, 222, 104, 94, "nn.Dropout", r"$y = x \cdot \mathrm{mask}$", "MulBackward0",
    )
    d.arrow("zoom.left 0.342", "linear.left", "N×1024", "layers.4:in")
    d.arrow("linear", "norm", "N×1024", "layers.4")
    d.arrow("norm", "relu", "N×1024", "layers.5")
    d.arrow("relu", "dropout", "N×1024", "layers.6")
    d.arrow("dropout.right", "zoom.right 0.342")
    d.box("weights", 60, 372, 180, 48, "AccumulateGrad", "", r"weight.grad += $\dL\W$", "tensor")
    d.box(
        "scales", 290, 372, 180, 48, "AccumulateGrad", "", r"weight.grad += $\dL\gamma$", "tensor",
    )
    d.box("optimizer", 546, 372, 286, 48, "optimizer.step() reads every .grad")
    seen = [f"layers.{n}.weight layers.{n}.bias" for n in (4, 5)]
    d.arrow("weights", "linear", "1024×1024 and 1024", seen[0], forward=False)
    d.arrow("scales", "norm", "1024 and 1024", seen[1], forward=False)
    d.arrow("optimizer", "scales", forward=False)
    d.arrow("optimizer", "weights", forward=False, over=436)
    return d
