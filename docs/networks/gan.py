"""The two players of GAN, and whose gradient reaches whom."""

# a call a line, like the rows of a table
# fmt: off
from docs.drawing import BACK, Diagram


def gan() -> Diagram:
    d = Diagram("GAN: two steps, and each changes the weights of one player alone", 720)
    d.panel(
        "first", 14, 40, 872, 190,
        "1. The discriminator's step: the generator only lends its images",
    )
    d.box("z1", 32, 80, 60, 36, "noise z", kind="tensor", size=11.5)
    d.box("G1", 148, 72, 100, 52, "generator G\nstands still", size=11.5)
    d.box("real", 148, 148, 100, 40, "real images", kind="tensor", size=11.5)
    d.box("D1", 344, 72, 110, 116, "discriminator D\nlearns", kind="learned", size=11.5)
    d.box(
        "loss1", 514, 72, 196, 116, "hinge loss",
        r"$\mathrm{max}(0,\; 1 + f(G(z)))$ | $+\;\mathrm{max}(0,\; 1 - f(x))$", kind="loss",
    )
    d.box("step1", 750, 106, 120, 48, "optimiser\nof D", size=11.5)
    d.arrow("z1", "G1", "N×64", "1:z", back=False)
    d.arrow("G1", "D1", "N×1×28×28", "1:fake", back=False)
    d.arrow("real", "D1", "N×1×28×28", "1:real", back=False)
    d.arrow("D1.right 0.22", "loss1.left 0.22", "f: N", "1:logits_fake")
    d.arrow("D1.right 0.82", "loss1.left 0.82", "f: N", "1:logits_real")
    d.arrow("step1", "D1", "", "1:D", forward=False, over=210)
    d.text(605, 221, "gradients of the weights of D", BACK, size=11)

    d.panel(
        "second", 14, 242, 872, 166,
        "2. The generator's step: the gradient passes the discriminator, which stands still",
    )
    d.box("z2", 32, 292, 60, 36, "noise z", kind="tensor", size=11.5)
    d.box("G2", 148, 284, 100, 52, "generator G\nlearns", kind="learned", size=11.5)
    d.box("D2", 344, 284, 110, 52, "discriminator D\nstands still", size=11.5)
    d.box(
        "loss2", 514, 284, 150, 52, "", r"$-\,f(G(z))$", "−1 / N to each logit",
        kind="loss",
    )
    d.box("step2", 750, 286, 120, 48, "optimiser\nof G", size=11.5)
    d.arrow("z2", "G2", "N×64", "2:z", back=False)
    d.arrow("G2", "D2", "N×1×28×28", "2:fake")
    d.arrow("D2", "loss2", "f: N", "2:logits")
    d.arrow("step2", "G2", "", "2:G", forward=False, over=372)
    d.text(510, 384, "gradients of the weights of G", BACK, size=11)

    d.panel(
        "layers", 14, 420, 872, 262,
        "The players of dcgan: one grows images, the other shrinks them",
    )
    grow, shrink = "norm, ReLU,\ntransposed\nconvolution", "convolution,\nleaky ReLU"
    d.box("z", 28, 460, 44, 76, "z", kind="tensor")
    d.box("g0", 132, 460, 60, 76, "Linear", kind="learned")
    for n, x in enumerate((272, 440, 608), start=1):
        d.box(
            f"g{n}", x, 460, 92, 76, grow + (",\ntanh" if n == 3 else ""), kind="learned",
            size=10.5,
        )
    d.box("fake", 786, 460, 84, 76, "generated\nimages", kind="tensor", size=11.5)
    d.arrow("z", "g0", "N×64", "2:z", back=False)
    d.arrow("g0", "g1", "N×192×\n3×3", "generator.layers.1")
    d.arrow("g1", "g2", "N×96×\n7×7", "generator.layers.4")
    d.arrow("g2", "g3", "N×48×\n14×14", "generator.layers.7")
    d.arrow("g3", "fake", "N×1×\n28×28", "generator.layers.11")
    d.box("f", 28, 594, 60, 64, "logits f", kind="tensor", size=11)
    d.box("d3", 148, 594, 60, 64, "Linear", kind="learned")
    for n, x in zip((2, 1, 0), (288, 450, 612), strict=True):
        d.box(f"d{n}", x, 594, 92, 64, shrink, kind="learned", size=11)
    d.arrow("fake.bottom", "d0.right", "N×1×28×28", "discriminator.layers.0:in", label=1)
    d.arrow("d0", "d1", "N×48×\n14×14", "discriminator.layers.1")
    d.arrow("d1", "d2", "N×96×\n7×7", "discriminator.layers.3")
    d.arrow("d2", "d3", "N×192×\n3×3", "discriminator.layers.5")
    d.arrow("d3", "f", "N", "2:logits")
    return d
