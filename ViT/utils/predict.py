"""What a network says of a whole split; and whether it can learn batches of this size."""

from argparse import Namespace
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import distributed
from common.data import Split
from common.device import autocast
from common.errors import UserError
from ViT.dataset.normalize import Normalize

AT_ONCE = 1_000  # images of up to 64 x 64 pixels that are evaluated at the same time
UNSURE = 0.3  # the two best classes' probabilities are nearer than this: --shift-test looks again


def share_buffers(model: nn.Module) -> None:
    """Give every process the first one's buffers: each has running statistics of its own."""
    if distributed.is_distributed():
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)


def check_batch(build: Callable, args: Namespace, train: Split) -> None:
    """Raises UserError when a batch cannot be dealt out evenly to the processes and the parts that
    it is computed in, or when the network that `build` makes cannot learn such a part."""
    N = distributed.check_batch(min(args.batch_size, len(train)), args.accumulate)
    try:
        with torch.device("meta"):  # shapes alone
            build().train(not args.freeze)(torch.empty(N, *train.shape))
    except (RuntimeError, ValueError) as error:
        H, W = train.shape[1:]
        raise UserError(
            f"--model {args.model} cannot learn batches of {N} images of {H} x {W} pixels "
            f"({str(error).splitlines()[0][:200]}): raise --batch-size or --image-size"
        ) from None


def seen_from(model: nn.Module, images: Tensor, flip: bool) -> Tensor:
    """Logits (N, K), with `flip` the mean of an image's and its mirror image's."""
    outputs = model(images).float()  # a mean in bfloat16 would make ties
    if flip:
        outputs = (outputs + model(images.flip(3)).float()) / 2
    return outputs


def look_again(model: nn.Module, images: Tensor, flip: bool) -> Tensor:
    """The mean of the logits (N, K) of images moved by a pixel, up left and down right (Jordan,
    2024, arXiv:2404.00498, section 3.5; there for every image)."""
    H, W = images.shape[2:]
    wide = F.pad(images, (1, 1, 1, 1), mode="reflect")
    up_left, down_right = wide[:, :, 2:, 2:], wide[:, :, :H, :W]
    return (seen_from(model, up_left, flip) + seen_from(model, down_right, flip)) / 2


def judge(model: nn.Module, images: Tensor, flip: bool, shift: bool) -> Tensor:
    """Logits (N, K): `seen_from`, and with `shift`, where that is unsure, the mean of it and of
    `look_again`. With one class there is no doubt, and in one pixel no room to move."""
    outputs = seen_from(model, images, flip)
    if not shift or min(outputs.shape[1], *images.shape[2:]) == 1:
        return outputs
    best, second = outputs.softmax(1).topk(2).values.unbind(1)
    unsure = (best - second < UNSURE).nonzero().squeeze(1)
    if len(unsure):  # GPUs' fused attention takes no empty batch (pytorch/pytorch#133780)
        moved = look_again(model, images[unsure], flip)
        outputs[unsure] = (outputs[unsure] + moved) / 2
    return outputs


@torch.no_grad()
def predict_all(model: nn.Module, data: Split, args: Namespace) -> tuple[Tensor, Tensor]:
    """Logits (N, K) in float32 and labels (N,) of a whole split; of several processes, a share."""
    model.eval()
    normalize, none = Normalize(args.dataset, data.labels.device), data.labels[:0]
    logits, labels = [none.new_empty(0, len(data.classes)).float()], [none]  # a share may be empty
    H, W = data.shape[1:]
    for images, batch_labels in data.in_order(max(1, min(AT_ONCE, AT_ONCE * 64**2 // (H * W)))):
        images = normalize(images)
        with autocast(images.device, args.precision):
            outputs = judge(model, images, args.flip_test, args.shift_test)
        logits.append(outputs)
        labels.append(batch_labels)
    return torch.cat(logits), torch.cat(labels)
