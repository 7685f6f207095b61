"""The language model of RNN_Manual with an LSTM, and the two other cells."""

# a call a line, like the rows of a table
# fmt: off
from docs.drawing import BACK, Diagram


def rnn_manual() -> Diagram:
    d = Diagram("RNN_Manual: the gradient goes back through time", 736)
    d.box("tokens", 14, 50, 56, 56, "tokens", kind="tensor", size=11.5)
    d.box("embedding", 118, 50, 62, 56, "Embed-\nding", kind="learned")
    d.box("layer1", 244, 50, 62, 56, "LSTM\nlayer 1", kind="learned")
    d.box("drop1", 370, 50, 62, 56, "Dropout\n0.5")
    d.box("layer2", 496, 50, 62, 56, "LSTM\nlayer 2", kind="learned")
    d.box("drop2", 622, 50, 62, 56, "Dropout\n0.5")
    d.box("linear", 734, 50, 54, 56, "Linear", kind="learned")
    d.box("loss", 832, 50, 54, 56, "cross-\nentropy", kind="loss", size=11)
    d.arrow("tokens", "embedding", "T×N", "embedding:in", back=False)
    d.arrow("embedding", "layer1", "T×N×64", "embedding")
    d.arrow("layer1", "drop1", "T×N×512", "recurrent.dropouts.0:in")
    d.arrow("drop1", "layer2", "T×N×512", "recurrent.dropouts.0")
    d.arrow("layer2", "drop2", "T×N×512", "recurrent")
    d.arrow("drop2", "linear", "T×N×\n512", "dropout")
    d.arrow("linear", "loss", "T×N×\nV", "logits")

    d.panel("time", 14, 120, 872, 212, "Layer 1, unrolled: the same weights at each of T steps")
    d.box("before", 32, 210, 100, 52, "window\nbefore", kind="tensor")
    d.box("after", 800, 210, 72, 52, "window\nafter", kind="tensor")
    d.box("more", 510, 210, 40, 52, "…", kind="tensor")
    for step, x in (("1", 210), ("2", 366), ("T", 630)):
        d.box(f"cell{step}", x, 210, 80, 52, f"LSTM cell\nstep {step}", kind="learned", size=11.5)
        d.box(f"output{step}", x + 10, 154, 60, 22, f"$h_{step}$", kind="tensor")
        d.box(f"input{step}", x + 10, 298, 60, 22, f"$x_{step}$", kind="tensor")
        d.arrow(f"input{step}", f"cell{step}", "N×64", "x_t")
        d.arrow(f"cell{step}", f"output{step}", "N×512", "h_t")
    d.arrow("before", "cell1", "N×512,\nN×512", "h_0 c_0", back=False)
    d.arrow("cell1", "cell2", "N×512,\nN×512", "h_t c_t")
    d.arrow("cell2", "more")
    d.arrow("more", "cellT")
    d.arrow("cellT", "after", "N×512,\nN×512", "h_T c_T", back=False)
    d.text(32, 306, "No gradient leaves\nthe window.", BACK, align="left")

    d.panel("cell", 14, 344, 872, 356, "Inside one LSTM cell, at step t")
    d.box("c0", 32, 400, 60, 36, "$c_{t-1}$", kind="tensor")
    d.box("c1", 812, 400, 60, 36, "$c_t$", kind="tensor")
    d.node("keep", 300, 418, "×")
    d.node("write", 492, 472, "×")
    d.node("add", 492, 418, "+")
    d.node("copy", 668, 418, "•")
    d.node("show", 784, 538, "×")
    formulas = {
        "f": (226, 148, r"$f = \mathrm{sigmoid}(a_f)$", r"$\delta^c_t\; c_{t-1}\; f\,(1 - f)$"),
        "i": (382, 112, r"$i = \mathrm{sigmoid}(a_i)$", r"$\delta^c_t\; n\; i\,(1 - i)$"),
        "n": (500, 106, r"$n = \tanh(a_n)$", r"$\delta^c_t\; i\,(1 - n^2)$"),
        "o": (616, 140, r"$o = \mathrm{sigmoid}(a_o)$", r"$\delta_t\,\tanh(c_t)\; o\,(1 - o)$"),
    }
    for gate, (x, w, forward, back) in formulas.items():
        d.box(gate, x, 512, w, 52, "", forward, back)
    d.box("tanh", 592, 446, 152, 44, "", r"$\tanh(c_t)$", r"$\delta_t\; o\,(1 - \tanh^2(c_t))$")
    d.box("h_t", 826, 520, 46, 36, "$h_t$", kind="tensor")
    d.box("h_before", 32, 610, 60, 28, "$h_{t-1}$", kind="tensor")
    d.box("x", 32, 656, 60, 28, "$x_t$", kind="tensor")
    d.box(
        "a", 178, 608, 694, 78, "",
        r"$a_t = \W_{ih}\, x_t + b_{ih} + \W_{hh}\, h_{t-1} + b_{hh}$",
        r"to $h_{t-1}$:  $\W_{hh}^\top\; \dL a_t$        to $x_t$:  "
        r"$\W_{ih}^\top\; \dL a_t$        to $\W_{hh}$, summed over all steps:  "
        r"$\dL a_t\; h_{t-1}^\top$", "learned",
    )
    d.arrow("c0", "keep", "N×512", "c_t")
    d.arrow("keep", "add", "N×512", "c_t")
    d.arrow("add", "copy", "N×512", "c_t")
    d.arrow("copy", "c1", "N×512", "c_t")
    d.arrow("f.top", "keep.bottom", "N×512", "f")
    d.arrow("i.top", "write.left")
    d.arrow("n.top", "write.right")
    d.arrow("write.top", "add.bottom")
    d.arrow("copy.bottom", "tanh.top")
    d.arrow("tanh.right", "show.top", "N×512", "h_t")
    d.arrow("o.right", "show.left")
    d.arrow("show.right", "h_t.left")
    d.arrow("a", "f", "N×512", "a_f")
    d.arrow("a", "i", "N×512", "a_i")
    d.arrow("a", "n", "N×512", "a_n")
    d.arrow("a", "o", "N×512", "a_o")
    d.arrow("h_before", "a", "N×512", "h_t")
    d.arrow("x", "a", "N×64", "x_t")
    d.text(104, 446, r"$\delta^c_{t-1} = f\;\delta^c_t$: no matrix", BACK, align="left")
    return d


def cells() -> Diagram:
    d = Diagram("RNN_Manual: the two other cells, at step t", 640)
    d.panel("rnn", 14, 40, 872, 154, "RNN: every step back is a product with the same matrix")
    d.box("rh0", 32, 88, 60, 28, "$h_{t-1}$", kind="tensor")
    d.box("rx", 32, 144, 60, 28, "$x_t$", kind="tensor")
    d.box(
        "ra", 190, 80, 300, 96, "", r"$a_t = \W_{ih}\, x_t + b_{ih} + \W_{hh}\, h_{t-1} + b_{hh}$",
        r"to $h_{t-1}$:  $\W_{hh}^\top\;\dL a_t$ | to $x_t$:  $\W_{ih}^\top\;\dL a_t$", "learned",
    )
    d.box(
        "rtanh", 572, 96, 150, 64, "", r"$h_t = \tanh(a_t)$", r"$\dL a_t = \delta_t\,(1 - h_t^2)$",
    )
    d.box("rh1", 812, 110, 60, 36, "$h_t$", kind="tensor")
    d.arrow("rh0", "ra", "N×H", "rnn:h")
    d.arrow("rx", "ra", "N×D", "rnn:x")
    d.arrow("ra", "rtanh", "N×H", "rnn:a")
    d.arrow("rtanh", "rh1", "N×H", "rnn:h")

    d.panel(
        "gru", 14, 206, 872, 398, "GRU: where the gate z is near 1, the gradient passes as it is",
    )
    d.box("h0", 32, 270, 60, 36, "$h_{t-1}$", kind="tensor")
    d.box(
        "mix", 280, 256, 350, 64, "", r"$h_t = (1 - z)\,n + z\,h_{t-1}$",
        r"to $h_{t-1}$:  $\delta_t\,z$",
    )
    d.box("h1", 812, 270, 60, 36, "$h_t$", kind="tensor")
    d.box(
        "z", 180, 374, 250, 50, "", r"$z = \mathrm{sigmoid}(a_z)$",
        r"$\dL a_z = \delta_t\,(h_{t-1} - n)\;z\,(1 - z)$",
    )
    d.box(
        "n", 490, 374, 240, 50, "", r"$n = \tanh(\W_{in}\,x_t + b_{in} + r\,q)$",
        r"$\dL a_n = \delta_t\,(1 - z)\,(1 - n^2)$",
    )
    d.box(
        "r", 330, 448, 200, 50, "", r"$r = \mathrm{sigmoid}(a_r)$",
        r"$\dL a_r = \dL a_n\; q\; r\,(1 - r)$",
    )
    d.node("gate", 610, 473, "×")
    d.box("x", 32, 562, 60, 28, "$x_t$", kind="tensor")
    d.box(
        "a", 190, 534, 682, 62, "",
        r"rows of $r$ and $z$:  $a_r, a_z = \W_{ih}\, x_t + b_{ih} + \W_{hh}\, h_{t-1} + b_{hh}$"
        r" | rows of $n$:  $\W_{in}\, x_t + b_{in}$  and  $q = \W_{hn}\, h_{t-1} + b_{hn}$",
        r"to $h_{t-1}$:  $\W_{hh}^\top\,(\dL a_r,\;\dL a_z,\;\dL q)$", "learned",
    )
    d.arrow("h0", "mix", "N×H", "gru:h")
    d.arrow("mix", "h1", "N×H", "gru:h")
    d.arrow("z.top", "mix.bottom 0.0715")
    d.arrow("n.top", "mix.bottom 0.9")
    d.arrow("a", "z", "N×H", "gru:a_z")
    d.arrow("a", "r", "N×H", "gru:a_r")
    d.arrow("r", "gate")
    d.arrow("gate.top", "n.bottom")
    d.arrow("a", "gate.bottom", "N×H", "gru:q")
    d.arrow("a", "n.bottom 0.85", "N×H", "gru:a_n")
    d.arrow("h0.bottom", "a.left 0.3", "N×H", "gru:h")
    d.arrow("x", "a.left 0.72", "N×D", "gru:x")
    return d
