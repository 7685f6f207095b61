"""Twelve folders, one idea each: the picture of the front page."""

# a call a line, like the rows of a table
# fmt: off
from docs.drawing import FIXED, Diagram

WIDTH, HEIGHT, GAP = 212, 188, 8  # of a card; between two


def mlp_manual(d: Diagram, n: str, x: float, y: float) -> None:
    for k in range(3):
        d.box(
            f"{n}{k}", x + 18 + 66 * k, y - 20, 44, 40, f"layer\n{k + 1}", kind="learned", size=11,
        )
        if k:
            d.arrow(f"{n}{k - 1}", f"{n}{k}")


def mlp_torch(d: Diagram, n: str, x: float, y: float) -> None:
    d.box(f"{n}model", x + 18, y - 20, 64, 40, "model", kind="learned", size=11.5)
    d.box(f"{n}loss", x + 112, y - 20, 82, 40, "loss", back=".backward()", kind="loss", size=11)
    d.arrow(f"{n}model", f"{n}loss")


def cnn_manual(d: Diagram, n: str, x: float, y: float) -> None:
    for k in range(16):
        row, column = divmod(k, 4)
        kind = "learned" if row < 3 and column > 0 else "tensor"
        d.box(f"{n}{k}", x + 28 + 18 * column, y - 35 + 18 * row, 17, 17, "", kind=kind)
    d.box(f"{n}y", x + 152, y - 18, 18, 18, "", kind="plain")
    d.arrow(f"{n}7", f"{n}y")


def cnn_torch(d: Diagram, n: str, x: float, y: float) -> None:
    for k, value in enumerate("ABABAB"):
        d.box(
            f"{n}{k}", x + 19 + 29 * k, y - 26, 28, 26, value,
            kind="plain" if value == "A" else "tensor",
        )
    d.text(x + 106, y + 18, "16 bits    32 bits", FIXED)


def resnet(d: Diagram, n: str, x: float, y: float) -> None:
    d.node(f"{n}copy", x + 40, y + 18, "•")
    d.node(f"{n}sum", x + 172, y + 18, "+")
    d.box(f"{n}F", x + 76, y - 36, 60, 30, "F(x)", kind="learned")
    d.arrow(f"{n}copy.top", f"{n}F.left")
    d.arrow(f"{n}F.right", f"{n}sum.top")
    d.arrow(f"{n}copy", f"{n}sum")


def vit(d: Diagram, n: str, x: float, y: float) -> None:
    for k, token in enumerate("1234"):
        row, column = divmod(k, 2)
        d.box(f"{n}{k}", x + 20 + 26 * column, y - 25 + 26 * row, 25, 25, token, kind="plain")
        d.box(f"{n}t{k}", x + 112 + 22 * k, y - 19, 20, 38, token, kind="learned")
    d.arrow(f"{n}1.right 0.96", f"{n}t0.left", back=False)


def rnn_manual(d: Diagram, n: str, x: float, y: float) -> None:
    for k, step in enumerate(("t−1", "t", "t+1")):
        d.box(f"{n}{k}", x + 18 + 66 * k, y - 32, 44, 30, "cell", kind="learned", size=11)
        d.box(f"{n}x{k}", x + 22 + 66 * k, y + 22, 36, 20, step, kind="tensor", size=11)
        d.arrow(f"{n}x{k}", f"{n}{k}")
        if k:
            d.arrow(f"{n}{k - 1}", f"{n}{k}")


def lstm(d: Diagram, n: str, x: float, y: float) -> None:
    for row in range(2):
        for k, word in enumerate(("not", "bad", "!")):
            place = f"{n}{row}{k}"
            d.box(place, x + 18 + 66 * k, y - 34 + 38 * row, 44, 28, word, kind="learned", size=11)
            if k:
                a, b = (f"{n}{row}{k - 1}", place) if row == 0 else (place, f"{n}{row}{k - 1}")
                d.arrow(a, b)


def transformer_manual(d: Diagram, n: str, x: float, y: float) -> None:
    for k, word in enumerate(("I", "saw", "it")):
        d.box(f"{n}{k}", x + 18 + 66 * k, y + 14, 44, 26, word, kind="tensor", size=11)
    d.box(f"{n}y", x + 18, y - 34, 176, 26, "attention of “it”", kind="plain", size=11)
    for k in range(3):
        d.arrow(f"{n}{k}", f"{n}y")


def transformer_torch(d: Diagram, n: str, x: float, y: float) -> None:
    d.box(f"{n}y", x + 12, y - 34, 124, 26, "attention", kind="plain", size=11)
    for k, word in enumerate(("I", "saw", "it")):
        d.box(f"{n}{k}", x + 12 + 42 * k, y + 14, 40, 26, word, kind="tensor", size=11)
        d.arrow(f"{n}{k}", f"{n}y", back=False)
    d.box(f"{n}next", x + 162, y - 34, 38, 26, "next", kind="plain", size=11)
    d.box(f"{n}3", x + 162, y + 14, 38, 26, "all", kind="tensor", size=11)
    d.arrow(f"{n}y", f"{n}next", back=False)
    d.arrow(f"{n}next", f"{n}3", back=False)


def vae(d: Diagram, n: str, x: float, y: float) -> None:
    d.box(f"{n}mu", x + 16, y - 36, 36, 26, r"$\mu$", kind="learned")
    d.box(f"{n}sigma", x + 16, y + 10, 36, 26, r"$\sigma$", kind="learned")
    d.node(f"{n}plus", x + 140, y - 23, "+")
    d.node(f"{n}times", x + 140, y + 23, "×")
    d.box(f"{n}z", x + 172, y - 36, 28, 26, "z", kind="tensor")
    d.box(f"{n}noise", x + 174, y + 10, 26, 26, r"$\varepsilon$", kind="tensor")
    d.arrow(f"{n}mu", f"{n}plus")
    d.arrow(f"{n}sigma", f"{n}times")
    d.arrow(f"{n}times.top", f"{n}plus.bottom")
    d.arrow(f"{n}plus.right", f"{n}z.left")
    d.arrow(f"{n}noise.left", f"{n}times.right", back=False)


def gan(d: Diagram, n: str, x: float, y: float) -> None:
    d.box(f"{n}z", x + 10, y - 14, 26, 28, "z", kind="tensor")
    d.box(f"{n}G", x + 62, y - 20, 34, 40, "G", kind="learned")
    d.box(f"{n}D", x + 124, y - 20, 34, 40, "D", kind="learned")
    d.box(f"{n}real", x + 166, y + 26, 38, 24, "real", kind="tensor", size=11)
    d.box(f"{n}loss", x + 182, y - 14, 22, 28, "L", kind="loss")
    d.arrow(f"{n}z", f"{n}G", back=False)
    d.arrow(f"{n}G", f"{n}D")
    d.arrow(f"{n}D", f"{n}loss")
    d.arrow(f"{n}real.left", f"{n}D.bottom", back=False)


CARDS = [  # folder, stage, its idea, its drawing
    ("MLP_Manual", "by hand", "The chain rule,\none layer at a time", mlp_manual),
    ("MLP_Torch", "PyTorch", "The same gradients\nfrom one call", mlp_torch),
    ("CNN_Manual", "by hand", "One small kernel\nserves every place", cnn_manual),
    ("CNN_Torch", "PyTorch", "Where values lie in memory,\nand in how many bits", cnn_torch),
    ("ResNet", "improved", "A shortcut hands on\nthe whole gradient", resnet),
    ("ViT", "improved", "An image is\na sentence of patches", vit),
    ("RNN_Manual", "by hand", "A gradient goes back\nthrough time", rnn_manual),
    ("LSTM", "PyTorch", "A text is read\nfrom both ends", lstm),
    ("Transformer_Manual", "by hand", "Every word looks at\nall words before", transformer_manual),
    ("Transformer_Torch", "PyTorch", "What was read is kept:\nwriting goes on", transformer_torch),
    ("VAE", "improved", "The gradient goes\naround the noise", vae),
    ("GAN", "improved", "Two networks learn\nfrom each other", gan),
]


def twelve() -> Diagram:
    d = Diagram("Twelve folders, one idea each", 40 + 3 * (HEIGHT + GAP) + 30)
    for n, (folder, stage, idea, drawing) in enumerate(CARDS):
        x, y = 14 + (WIDTH + GAP) * (n % 4), 40 + (HEIGHT + GAP) * (n // 4)
        d.panel(folder, x, y, WIDTH, HEIGHT, folder)
        d.text(x + 10, y + 31, stage, FIXED, align="left", size=11)
        drawing(d, folder, x, y + 90)
        d.text(x + WIDTH / 2, y + 160, idea, size=11.5)
    return d
