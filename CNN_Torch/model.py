"""A convolutional network in PyTorch (LeCun et al., 1998), with batch normalisation.

N is the batch, C channels, H W height and width, K classes.
"""

from torch import Tensor, nn


class CNN(nn.Module):
    """[Conv 3x3 -> MaxPool 2x2 -> BatchNorm -> ReLU] for each of `channels`, then Dropout, Linear.

    With a `hidden_size`, one more Linear -> ReLU -> Dropout stands before the last.

    Pooling comes first, so that normalisation and ReLU have a quarter of the work. This is not the
    usual order, Conv -> BatchNorm -> ReLU -> MaxPool: the batch statistics are those of the largest
    of four values here, not of all values. Without arguments, the network of the recipe for
    mnist-sample.
    """

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int = 28,
        num_classes: int = 10,
        channels: tuple[int, ...] = (32, 64, 128),
        dropout: float = 0.3,
        hidden_size: int = 0,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        C, size = in_channels, image_size
        for out_channels in channels:
            layers += [
                nn.Conv2d(C, out_channels, kernel_size=3, padding=1),
                nn.MaxPool2d(2),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(),
            ]
            C, size = out_channels, size // 2
        self.features = nn.Sequential(*layers)
        head: list[nn.Module] = [nn.Flatten(), nn.Dropout(dropout)]
        D = C * size**2
        if hidden_size:
            head += [nn.Linear(D, hidden_size), nn.ReLU(), nn.Dropout(dropout)]
            D = hidden_size
        self.classifier = nn.Sequential(*head, nn.Linear(D, num_classes))
        self.not_hidden = ("features.0.", f"classifier.{len(head)}.")  # Muon leaves them to AdamW

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K)
        features = self.features(images)  # (N, 128, 3, 3) for 28 x 28 images
        return self.classifier(features)
