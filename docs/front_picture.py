"""The picture of the front page, docs/front.png: python -m docs.front_picture

Each panel is cut out of a picture that a folder's test.py drew of a recorded run.
"""

from pathlib import Path

from PIL import Image

from common.plots import new_figure, save

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "front.png"
HORSE_AND_SHIP = (650, 452, 978, 806)  # in pictures of sixteen test images
# folder, what you see, the picture, and the part of it: left, top, right and bottom in pixels
PANELS = [
    ("MLP_Manual", "a border between two spirals", "spirals_boundary", (86, 36, 499, 452)),
    ("CNN_Manual", "what the layers see of a boot", "fashion-mnist_feature_maps",
     (2, 44, 382, 396)),
    ("ResNet", "what speaks for horse and ship", "cifar10-jpeg_grad_cam", HORSE_AND_SHIP),
    ("ViT", "where attention looks", "cifar10-jpeg_rollout", HORSE_AND_SHIP),
    ("RNN_Manual", "three units that read Shakespeare", "tiny-shakespeare_neurons",
     (676, 296, 1046, 652)),
    ("Transformer_Manual", "each word, and what it translates", "multi30k_attention_cross",
     (0, 505, 312, 776)),
    ("VAE", "from digit to digit", "mnist-plane_latent_grid", (180, 180, 598, 598)),
    ("GAN", "digits that nobody wrote", "mnist-cgan_samples", (0, 0, 596, 596)),
]  # fmt: skip


def square(image: Image.Image) -> Image.Image:
    """The image in the middle of a white square, so that all panels are alike."""
    side = max(image.size)
    page = Image.new("RGB", (side, side), "white")
    page.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return page


def main(path: Path = PICTURE) -> None:
    figure, axes = new_figure(2, 4, (12, 6.7))
    for axis, (folder, text, name, part) in zip(axes.flat, PANELS, strict=True):
        with Image.open(ROOT / folder / "results" / f"{name}.png") as image:
            axis.imshow(square(image.convert("RGB").crop(part)), interpolation="lanczos")
        axis.set_title(f"{folder.replace('_Manual', ', by hand')}\n{text}", fontsize=11)
        axis.axis("off")
    save(figure, path)


if __name__ == "__main__":
    main()
