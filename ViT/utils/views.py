"""Looking at an image more than once to evaluate a trained network: test-time augmentation."""

from collections.abc import Callable

from torch import Tensor

UNSURE = 0.3  # --shift-test looks again where the two best probabilities differ by less


def seen_from(model: Callable, images: Tensor, flip: bool) -> Tensor:
    """Logits (N, K), with `flip` the mean of an image's and its mirror image's."""
    outputs = model(images).float()  # a mean in bfloat16 would make ties
    if flip:
        outputs = (outputs + model(images.flip(3)).float()) / 2
    return outputs


def look_again(model: Callable, images: Tensor, flip: bool) -> Tensor:
    """The mean of the logits (N, K) of images moved by a pixel, up left and down right (Jordan,
    2024, arXiv:2404.00498, section 3.5; there for every image)."""
    H, W = images.shape[2:]
    up, left = [*range(1, H), H - 2], [*range(1, W), W - 2]  # new borders mirror what is there
    down, right = [1, *range(H - 1)], [1, *range(W - 1)]
    up_left, down_right = images[:, :, up][:, :, :, left], images[:, :, down][:, :, :, right]
    return (seen_from(model, up_left, flip) + seen_from(model, down_right, flip)) / 2


def judge(model: Callable, images: Tensor, flip: bool, shift: bool) -> Tensor:
    """Logits (N, K): `seen_from`, and with `shift`, where that is unsure, the mean of it and of
    `look_again`. With one class there is no doubt, and in one pixel no room to move."""
    outputs = seen_from(model, images, flip)
    if not shift or min(outputs.shape[1], *images.shape[2:]) == 1:
        return outputs
    probabilities = (outputs - outputs.logsumexp(1, keepdim=True)).exp()
    best, second = probabilities.topk(2).values.unbind(1)
    unsure = (best - second < UNSURE).nonzero().squeeze(1)
    if len(unsure):  # GPUs' fused attention takes no empty batch (pytorch/pytorch#133780)
        moved = look_again(model, images[unsure], flip)
        outputs[unsure] = (outputs[unsure] + moved) / 2
    return outputs
