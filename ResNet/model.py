"""Residual networks (He et al., 2015, arXiv:1512.03385; 2016, arXiv:1603.05027), bottom-up.

N is the batch, C channels, H W height and width, K classes. Names and shapes of ResNet-18, -34 and
-50 are torchvision's, so that its weights load as they are.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv3x3(C: int, O: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(C, O, kernel_size=3, stride=stride, padding=1, bias=False)


def conv1x1(C: int, O: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(C, O, kernel_size=1, stride=stride, bias=False)


class PaddedShortcut(nn.Module):
    """Option A of 2015, section 3.3: every `stride`-th pixel, and zeros as the new channels."""

    def __init__(self, C: int, O: int, stride: int):
        super().__init__()
        self.new_channels, self.stride = O - C, stride

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, O, H/stride, W/stride)
        x = x[:, :, :: self.stride, :: self.stride]
        before = self.new_channels // 2
        return F.pad(x, (0, 0, 0, 0, before, self.new_channels - before))


class BasicBlock(nn.Module):
    """y = relu(shortcut(x) + F(x)), F = [3x3 -> norm -> relu -> 3x3 -> norm] (2015, fig. 2)."""

    expansion = 1

    def __init__(self, C: int, width: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        self.conv1, self.bn1 = conv3x3(C, width, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv3x3(width, width), nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(shortcut + y)


class Bottleneck(nn.Module):
    """As `BasicBlock`, with 1x1 -> 3x3 -> 1x1 convolutions (2015, fig. 5).

    The stride is that of the 3x3, as torchvision has it: a little better than in the paper, where
    the first 1x1 throws three quarters of its input away.
    """

    expansion = 4

    def __init__(self, C: int, width: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        self.conv1, self.bn1 = conv1x1(C, width), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv3x3(width, width, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv1x1(width, 4 * width), nn.BatchNorm2d(4 * width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(shortcut + y)


class PreActivationBlock(nn.Module):
    """y = shortcut(x) + F(x), F = [norm -> relu -> 3x3 -> norm -> relu -> 3x3] (2016, fig. 4e).

    Within a stage nothing stands between one block's sum and the next: there the gradient meets no
    obstacle. A shortcut that changes the shape starts from the activated input, so that there the
    gradient passes a norm and a ReLU.
    """

    expansion = 1

    def __init__(self, C: int, width: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(C), conv3x3(C, width, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv3x3(width, width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(activated)
        y = self.conv1(activated)
        y = self.conv2(F.relu(self.bn2(y)))
        return shortcut + y


class ResNet(nn.Module):
    """Stem -> stages of residual blocks, each of half the size of the one before -> mean -> Linear.

    `depths` and `widths` are the blocks and channels of each stage. The "imagenet" stem (7x7 of
    stride 2, then max-pooling) makes 56 x 56 of 224 x 224 pixels; "cifar" is one 3x3, for small
    images. Shortcuts that change the shape are "projection" (1x1 and norm) or "padding".
    """

    not_hidden = ("conv1.", "fc.")  # Muon leaves them to AdamW

    def __init__(
        self,
        block: type[nn.Module] = BasicBlock,
        depths: tuple[int, ...] = (2, 2, 2, 2),
        widths: tuple[int, ...] = (64, 128, 256, 512),
        num_classes: int = 10,
        in_channels: int = 3,
        stem: str = "cifar",
        shortcut: str = "projection",
    ):
        super().__init__()
        self.block, self.shortcut = block, shortcut
        C = widths[0]
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(in_channels, C, kernel_size=7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        else:
            self.conv1, self.maxpool = conv3x3(in_channels, C), nn.Identity()
        pre_activation = block is PreActivationBlock  # each block activates what it gets
        self.bn1 = nn.Identity() if pre_activation else nn.BatchNorm2d(C)
        self.relu = nn.Identity() if pre_activation else nn.ReLU()
        for number, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            stride = 1 if number == 1 else 2
            setattr(self, f"layer{number}", self.stage(C, width, depth, stride))
            C = width * block.expansion
        self.stages = len(depths)
        last = [nn.BatchNorm2d(C), nn.ReLU()] if pre_activation else []
        self.last_block = nn.Sequential(*last)
        self.fc = nn.Linear(C, num_classes)
        self.initialise()

    def stage(self, C: int, width: int, depth: int, stride: int) -> nn.Sequential:
        """The first block changes the shape, the others keep it."""
        O = width * self.block.expansion
        downsample = None
        if stride != 1 or C != O:
            if self.shortcut == "padding":
                downsample = PaddedShortcut(C, O, stride)
            elif self.block is PreActivationBlock:
                downsample = conv1x1(C, O, stride)
            else:
                downsample = nn.Sequential(conv1x1(C, O, stride), nn.BatchNorm2d(O))
        first = self.block(C, width, stride, downsample)
        return nn.Sequential(first, *(self.block(O, width, 1, None) for _ in range(depth - 1)))

    def initialise(self) -> None:
        """Weights that keep the variance on the way back (He et al., 2015, arXiv:1502.01852)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, D, H', W')
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for number in range(1, self.stages + 1):
            x = getattr(self, f"layer{number}")(x)
        return self.last_block(x)

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K)
        return self.fc(self.features(images).mean(dim=(2, 3)))


def largest(x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C)
    """Over all pixels; the gradient goes to every pixel that equals the largest, in equal shares.

    A compiler computes x anew for that, in bfloat16 with other rounding: no pixel would equal it,
    and their share be 0/0.
    """
    return x.amax(dim=(2, 3))


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution of stride 1 that a processor computes as one matrix product where images
    are small: with 9 pixels the kernels outweigh the images, and PyTorch's own takes twice as long.
    """

    def __init__(self, C: int, O: int):
        super().__init__(C, O, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, O, H, W)
        _, _, H, W = x.shape
        if x.device.type != "cpu" or H * W > 16:
            return super().forward(x)
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (N, H+2, W+2, C)
        patches = torch.cat([x[:, i : i + H, j : j + W] for i in range(3) for j in range(3)], 3)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)  # (O, 9C)
        return F.linear(patches, weight).permute(0, 3, 1, 2)


class FastBlock(nn.Module):
    """conv -> max-pool -> norm -> GELU, then x + F(x), F = [conv -> norm -> GELU] `depth` times."""

    def __init__(self, C: int, O: int, depth: int):
        super().__init__()
        self.conv, self.norm = conv3x3(C, O), nn.BatchNorm2d(O)
        layers = [m for _ in range(depth) for m in (Conv3x3(O, O), nn.BatchNorm2d(O), nn.GELU())]
        self.residual = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, O, H/2, W/2)
        x = F.gelu(self.norm(F.max_pool2d(self.conv(x), 2)))
        return x + self.residual(x)


class FastResNet(nn.Module):
    """A wide and shallow network for speed, in the line of ResNet-9 (Page, 2018) and of airbench
    (Jordan, 2024, arXiv:2404.00498), whose whitening stem and scaled logits it takes.

    The first convolution's kernels are not learned: `whiten` sets them to the directions in which
    2x2 patches of the training images vary, scaled to about unit variance, and their negatives.
    """

    not_hidden = ("conv1.", "fc.")  # Muon leaves them to AdamW

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 256, 256),
        depth: int = 1,
        num_classes: int = 10,
        in_channels: int = 3,
    ):
        super().__init__()
        self.largest = torch.compiler.disable(largest)  # not as a decorator: slow to import
        C = 2 * in_channels * 2**2
        self.conv1 = nn.Conv2d(in_channels, C, kernel_size=2)
        self.conv1.weight.requires_grad_(False)
        blocks = []
        for width in widths:
            blocks.append(FastBlock(C, width, depth))
            C = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(C, num_classes, bias=False)
        for module in self.blocks.modules():
            if isinstance(module, nn.Conv2d):  # starts as the identity, as far as it can
                nn.init.dirac_(module.weight.detach()[: module.in_channels])

    @property
    def last_block(self) -> nn.Module:
        return self.blocks[-1]

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Set the first convolution from normalised images (N, C, H, W), and its bias to 0."""
        images = images.cpu()  # MPS has no float64
        patches = images.unfold(2, 2, 1).unfold(3, 2, 1)  # (N, C, H-1, W-1, 2, 2)
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1).double()
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        scaled = vectors / (values + 5e-4).sqrt()  # a column per direction
        weight = scaled.T.reshape(-1, *self.conv1.weight.shape[1:])
        self.conv1.weight.copy_(torch.cat([weight, -weight]))
        nn.init.zeros_(self.conv1.bias)

    def features(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, D, H', W')
        return self.blocks(F.gelu(self.conv1(images)))

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K)
        return self.fc(self.largest(self.features(images))) / 9


CIFAR = dict(widths=(16, 32, 64), shortcut="padding")  # the family of 2015, section 4.2
BOTTLENECKS = dict(block=Bottleneck, depths=(3, 4, 6, 3))
PRESETS = {  # name -> a function of num_classes and in_channels
    "resnet9": FastResNet,
    "resnet9-wide": partial(FastResNet, widths=(128, 384, 384), depth=2),
    "resnet9-small": partial(FastResNet, widths=(32, 64, 128)),
    "resnet18": partial(ResNet, depths=(2, 2, 2, 2), stem="imagenet"),
    "resnet34": partial(ResNet, depths=(3, 4, 6, 3), stem="imagenet"),
    "resnet50": partial(ResNet, **BOTTLENECKS, stem="imagenet"),
    "resnet18-cifar": partial(ResNet, depths=(2, 2, 2, 2)),
    "resnet20": partial(ResNet, depths=(3, 3, 3), **CIFAR),
    "resnet32": partial(ResNet, depths=(5, 5, 5), **CIFAR),
    "resnet56": partial(ResNet, depths=(9, 9, 9), **CIFAR),
    "preact-resnet18": partial(ResNet, block=PreActivationBlock, depths=(2, 2, 2, 2)),
    "preact-resnet20": partial(ResNet, block=PreActivationBlock, depths=(3, 3, 3), **CIFAR),
}
