"""What a network says of a whole split; and whether it can learn batches of this size."""

from argparse import Namespace
from collections.abc import Callable

import torch
from torch import Tensor, nn

from common import distributed
from common.data import Split
from common.device import autocast
from common.errors import UserError
from ViT.dataset.normalize import Normalize
from ViT.utils.views import judge

AT_ONCE = 1_000  # images of up to 64 x 64 pixels that are evaluated at the same time


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
