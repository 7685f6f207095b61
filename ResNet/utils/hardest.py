"""Learning from the hardest images of each batch alone, as a small network finds them."""

from argparse import Namespace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from common import distributed
from common.data import Split
from common.device import autocast
from common.errors import UserError
from ResNet.dataset.normalize import Normalize
from ResNet.model import PRESETS
from ResNet.utils.optim import make_optimizer
from ResNet.utils.predict import check_batch
from ResNet.utils.whitening import whiten


class Hardest:
    """Keeps the share `--hardest` of a batch: the images with the largest loss in the proxy, a
    small network that learns beside the large one, from whole batches (Jordan's airbench96, 2024).
    The large one need not see again what the small one knows, and its steps cost many times more.

    Of a mixed image no answer has a loss below the entropy of its target. That part is not counted:
    else images cut in the middle would be the hardest, however well the proxy knows them.

    The large network is asked nothing: Jiang et al. (2019, arXiv:1910.00762) ask it, which costs a
    forward pass of all images. With 0 all are learned, and there is no proxy. Raises UserError
    where too few would be left.
    """

    def __init__(self, args: Namespace, train: Split, normalize: Normalize):
        self.args, self.parts = args, {}  # what a checkpoint has to hold
        if not args.hardest:
            return
        N = distributed.check_batch(min(args.batch_size, len(train)))
        self.kept = round(args.hardest * N)
        if self.kept < 2 * args.accumulate or self.kept % args.accumulate:
            left = f"--hardest {args.hardest} leaves {self.kept} of {N} images"
            parts = f"{args.accumulate} equal part{'s' * (args.accumulate > 1)} of at least 2"
            raise UserError(f"{left}, which must make {parts}: change it or --batch-size")
        C, K = train.shape[0], len(train.classes)
        small = partial(PRESETS["resnet9-small"], num_classes=K, in_channels=C)
        its = {"model": "resnet9-small (of --hardest)", "accumulate": 1, "freeze": False}
        check_batch(small, Namespace(**{**vars(args), **its}), train)
        proxy = small().to(device=train.labels.device, memory_format=torch.channels_last)
        whiten(proxy, train, normalize)
        recipe = args.lr, args.weight_decay, args.precision
        optimizer = make_optimizer(args.optimizer, proxy, *recipe)
        self.parts = dict(proxy=proxy, proxy_optimizer=optimizer)
        self.network = distributed.parallel(proxy.train())

    def __call__(self, images: Tensor, targets: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) and targets (N,) or (N, K) -> those of the images that are kept, from
        the hardest to the easiest. The proxy takes a step at the learning rate `lr`. Raises
        UserError where it diverges: which images are hard is then unknown."""
        if not self.parts:
            return images, targets
        precision = self.args.precision
        precision = "float32" if precision == "float16" else precision  # that needs a scaler
        with autocast(images.device, precision):
            logits = self.network(images)
        losses = F.cross_entropy(
            logits.float(), targets, reduction="none", label_smoothing=self.args.label_smoothing
        )
        if not losses.isfinite().all():
            raise UserError("the small network of --hardest diverges: try a lower --lr")
        optimizer = self.parts["proxy_optimizer"]
        optimizer.zero_grad()
        losses.mean().backward()
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        for group in optimizer.param_groups:  # as a resumed run's is until its next step
            group["lr"] = self.args.lr
        rows = (losses.detach() - self.unavoidable(targets)).topk(self.kept).indices
        return images[rows], targets[rows]

    def unavoidable(self, targets: Tensor) -> Tensor | float:
        """The part of the losses that no answer avoids, in nats: of mixed targets (N, K) the
        entropies (N,). All labels (N,) have the same one, which changes no order: 0."""
        if targets.dim() == 1:
            return 0.0
        smoothing = self.args.label_smoothing
        return torch.special.entr(targets * (1 - smoothing) + smoothing / targets.shape[1]).sum(1)
