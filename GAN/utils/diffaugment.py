"""Changes that the discriminator sees everything through, so that few images last longer (Zhao et
al., 2020, arXiv:2006.10738, section 3.2). By kornia."""

from torch import Tensor

from common.errors import UserError

CHANGES = ("colour", "translation", "cutout")


class Augmentation:
    """Random changes of each image (N, C, H, W) in [-1, 1], drawn anew for every call.

    Real and generated images go through the same changes, in the steps of both players: then the
    generator is not asked to draw changed images, only ones that look real under the changes. In
    its step the gradient comes back through them, so they are differentiable: colour is arithmetic
    (and not cut off at white or black), translation and cutout move or drop pixels.
    """

    def __init__(self, names: list[str], shape: tuple[int, ...]):
        import kornia.augmentation as K  # slow to import

        if names and len(shape) != 3:
            raise UserError("--augment changes images; the ring has points")
        side = shape[-1]
        changes = {
            "colour": [
                K.RandomBrightness((0.5, 1.5), clip_output=False, p=1.0),
                K.RandomContrast((0.5, 1.5), clip_output=False, p=1.0),
            ],
            "translation": [  # by up to an eighth; what comes in is black
                K.RandomCrop((side, side), max(1, side // 8), cropping_mode="slice")
            ],
            "cutout": [K.RandomErasing(scale=(0.25, 0.25), ratio=(1.0, 1.0), p=1.0)],
        }
        self.changes = [change for name in CHANGES if name in names for change in changes[name]]

    def __call__(self, images: Tensor) -> Tensor:
        if not self.changes:
            return images
        images = (images + 1) / 2  # kornia's colours are in [0, 1]
        for change in self.changes:
            images = change(images)
        return images * 2 - 1
