"""The classifier of LSTM: two readers, one from each end."""

# a call a line, like the rows of a table
# fmt: off
from docs.drawing import BACK, Diagram


def lstm() -> Diagram:
    d = Diagram("LSTM: a review is read from both ends", 576)
    d.box("words", 14, 92, 54, 56, "words", kind="tensor")
    d.box("embedding", 112, 52, 84, 136, "Embedding,\nDropout 0.5", kind="learned", size=11.5)
    d.box("forwards", 304, 52, 84, 44, "LSTM\nforwards", kind="learned")
    d.box("turn", 304, 144, 66, 44, "reverse\neach text", size=11)
    d.box("backwards", 434, 144, 84, 44, "LSTM\nbackwards", kind="learned")
    d.box("return", 588, 144, 66, 44, "reverse\nback", size=11)
    d.box("both", 588, 52, 66, 44, "side by\nside", size=11)
    d.box("pool", 720, 52, 70, 44, "max over\nthe words", size=11)
    d.box("mask", 838, 52, 48, 44, "mask", kind="tensor", size=11)
    d.box("output", 720, 144, 70, 44, "Dropout,\nLinear", kind="learned", size=11)
    d.box("loss", 834, 144, 52, 44, "cross-\nentropy", kind="loss", size=10.5)
    d.arrow("words", "embedding", "N×T", "embedding:in", back=False)
    d.arrow("embedding", "forwards", "N×T×64", "layers.0:in")
    d.arrow("embedding", "turn", "N×T×64", "layers.0:in")
    d.arrow("turn", "backwards", "N×T×64", "layers.0.backwards:in")
    d.arrow("backwards", "return", "N×T×128", "layers.0.backwards")
    d.arrow("forwards", "both", "N×T×128", "layers.0.forwards")
    d.arrow("return", "both", "N×T×128", "layers.0.backwards")
    d.arrow("both", "pool", "N×T×256", "layers.0")
    d.arrow("mask", "pool", "N×T", "pooling:in1", back=False)
    d.arrow("pool", "output", "N×256", "pooling")
    d.arrow("output", "loss", "N×2", "output")

    d.panel(
        "padding", 14, 212, 872, 180,
        "One text of 3 words in a batch of T = 5: padding changes no answer",
    )
    ways = (("forwards", "a great film"), ("backwards", "film great a"))
    for row, (name, words) in enumerate(ways):
        y = 246 + 74 * row
        d.text(118, y + 20, name, align="right", weight="bold")
        for n, word in enumerate([*words.split(), "<pad>", "<pad>"]):
            kind = "tensor" if word == "<pad>" else "learned"
            d.box(f"{name}{n}", 140 + 112 * n, y, 64, 40, word, kind=kind)
            if n:
                d.arrow(f"{name}{n - 1}", f"{name}{n}", back=n < 3)
    d.text(
        672, 304,
        "Each text is turned around alone,\nso padding comes last both ways.\n"
        "No word sees it, max leaves it\nout, and no gradient comes back.",
        align="left",
    )

    d.panel("pooling", 14, 404, 872, 134, "max over the words, one feature at a time")
    feature = (("a", "0.2", "0"), ("great", "0.9", "all"), ("film", "−0.4", "0"))
    for n, (word, value, gradient) in enumerate(feature):
        d.box(f"word{n}", 140 + 96 * n, 456, 88, 66, word, value, gradient, "tensor")
    d.box("largest", 520, 456, 88, 66, "", "0.9", "all", "tensor")
    d.arrow("word1", "largest", over=438)
    d.text(640, 490, "The largest value wins,\nand takes the whole gradient.", BACK, align="left")
    return d
