"""A convolutional network by hand (LeCun et al., 1998), with batch normalisation.

N is the batch, C channels, H W height and width, K classes.
"""

from torch import Tensor

from CNN_Manual.utils.layers import (
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
)  # fmt: skip


class CNN(Layer):
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
        layers: list[Layer] = []
        C, size = in_channels, image_size
        for out_channels in channels:
            layers += [
                Conv2d(C, out_channels, kernel_size=3, padding=1, needs_grad_input=bool(layers)),
                MaxPool2d(2),
                BatchNorm2d(out_channels),
                ReLU(),
            ]
            C, size = out_channels, size // 2
        self.features = Sequential(*layers)
        head: list[Layer] = [Flatten(), Dropout(dropout)]
        D = C * size**2
        if hidden_size:
            head += [Linear(D, hidden_size), ReLU(), Dropout(dropout)]
            D = hidden_size
        self.classifier = Sequential(*head, Linear(D, num_classes))
        self.not_hidden = ("features.0.", f"classifier.{len(head)}.")  # Muon leaves them to AdamW

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K)
        features = self.features.forward(images)  # (N, 128, 3, 3) for 28 x 28 images
        return self.classifier.forward(features).to(images.dtype)

    def backward(self, grad_logits: Tensor) -> None:  # (N, K) ->
        grad_features = self.classifier.backward(grad_logits)
        self.features.backward(grad_features)
        self.match_types()

    def match_types(self) -> None:
        """Give every gradient the type of its parameter: under autocast, products have fewer bits,
        and so has what is made of them."""
        for _, layer in self.modules():
            for name in layer.parameter_names:
                gradient = getattr(layer, "grad_" + name)
                setattr(layer, "grad_" + name, gradient.to(getattr(layer, name)))
