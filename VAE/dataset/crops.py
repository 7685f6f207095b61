"""An image file as a network gets it: of one size."""

from pathlib import Path

from PIL import Image
from torch import Tensor

from .pictures import read_image

LONGEST = 4  # times the shorter side: what is further from the middle is cut off before scaling


def middle(image: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of an image, of at most `width` and `height` pixels."""
    width, height = min(width, image.width), min(height, image.height)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def fit(path: Path, size: int, content: bytes | None = None) -> Tensor:
    """Scale the shorter side to `size` and cut out the middle -> (3, size, size) uint8."""
    from torchvision.transforms.functional import pil_to_tensor  # slow to import

    image = read_image(path, content)
    longest = LONGEST * min(image.size)
    image = middle(image, longest, longest)
    width, height = image.size
    if (width, height) != (size, size):
        scale = size / min(width, height)
        scaled = max(size, round(width * scale)), max(size, round(height * scale))
        image = image.resize(scaled, Image.Resampling.BILINEAR, reducing_gap=3)
        image = middle(image, size, size)
    return pil_to_tensor(image)


def random_crop(path: Path, size: int) -> Tensor:
    """Scale a random part of the image, between 35 % and all of it -> (3, size, size) uint8.

    For training on large images, as Inception and ResNet were (Szegedy et al., 2014, section 6).
    """
    from torchvision.transforms import RandomResizedCrop  # slow to import
    from torchvision.transforms.functional import pil_to_tensor

    image = RandomResizedCrop(size, scale=(0.35, 1), antialias=True)(read_image(path))
    return pil_to_tensor(image)
