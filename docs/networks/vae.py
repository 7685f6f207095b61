"""The variational autoencoder of VAE: where the gradient passes the random draw."""

# a call a line, like the rows of a table
# fmt: off
from docs.drawing import BACK, Diagram


def vae() -> Diagram:
    d = Diagram("VAE: the gradient goes around the noise", 560)
    hidden = "Linear, norm,\nLeakyReLU,\ntwice"
    d.box("image", 14, 150, 54, 64, "images\nx", kind="tensor")
    d.box("encoder", 130, 150, 98, 64, hidden, kind="learned", size=11)
    d.box("statistics", 286, 76, 54, 212, "Linear", kind="learned")
    d.box("mu", 396, 76, 60, 40, r"$\mu$", kind="tensor", size=13)
    d.box(
        "kl", 376, 148, 184, 64, r"KL to the prior $p(z)$",
        back=r"$\dL\mu = \beta\,\mu\,/\,N$ | $\dL s = \beta\,(\sigma^2 - 1)\,/\,2N$", kind="loss",
        size=11.5,
    )
    d.box("s", 396, 248, 60, 40, r"$s = \log\sigma^2$", kind="tensor", size=11)
    d.box("sigma", 510, 246, 78, 44, r"$\sigma = e^{s/2}$")
    d.node("times", 640, 268, "×")
    d.node("plus", 640, 96, "+")
    d.box("noise", 596, 326, 88, 34, r"noise $\varepsilon$", kind="tensor")
    d.box("decoder", 726, 64, 90, 64, hidden, kind="learned", size=11)
    d.box("pixels", 836, 64, 50, 64, "Linear", kind="learned", size=11.5)
    d.box(
        "log_p", 706, 300, 180, 60, r"$-\log p(x \mid z)$",
        back=r"$\dL l = (\mathrm{sigmoid}(l) - x)\,/\,Nk$", kind="loss",
    )
    d.arrow("image", "encoder", "N×784", "encoder:in", back=False)
    d.arrow("encoder", "statistics", "N×512", "encoder.layers.5")
    d.arrow("statistics", "mu", "N×J", "mu")
    d.arrow("statistics", "s", "N×J", "s")
    d.arrow("mu", "kl", "N×J", "mu")
    d.arrow("s", "kl", "N×J", "s")
    d.arrow("mu", "plus", "N×J", "mu")
    d.arrow("s", "sigma", "N×J", "s")
    d.arrow("sigma", "times")
    d.arrow("times.top", "plus.bottom", "N×k×J", "scaled")
    d.arrow("noise", "times.bottom", "N×k×J", "noise", back=False)
    d.arrow("plus", "decoder", "z: N×k×J", "z")
    d.arrow("decoder", "pixels")
    d.arrow("pixels", "log_p", "N×k×784", "logits", shift=(-76, 0))
    d.arrow("image", "log_p", "N×784", "x", back=False, over=392)
    d.text(640, 54, r"$\dL z$ goes on to $\mu$ unchanged", BACK)
    d.text(658, 270, r"$\dL\sigma = \Sigma_k\;\varepsilon\;\dL z$", BACK, align="left")

    d.panel("models", 14, 408, 872, 114, "Three more models, one change each")
    for row, (name, change) in enumerate((
        ("ae", "no $\\sigma$, no noise and no KL: the code is $\\mu$"),
        ("iwae", "k codes of each image; the loss is minus the logarithm of their mean weight"),
        ("cvae", "the class is told to both halves, beside the image and beside the code"),
    )):
        d.text(80, 450 + 26 * row, name, align="right", weight="bold")
        d.text(100, 450 + 26 * row, change, align="left")
    return d
