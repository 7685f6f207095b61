"""A multi-layer perceptron by hand (Rumelhart, Hinton & Williams, 1986).

N is the batch, D the features of an example, K the classes.
"""

from torch import Tensor

from MLP_Manual.utils.layers import (
    GELU,
    BatchNorm1d,
    Dropout,
    Layer,
    Linear,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
)  # fmt: skip

ACTIVATIONS = {"relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid, "gelu": GELU}


class MLP(Layer):
    """[Linear -> BatchNorm -> activation -> Dropout] for each hidden layer, then Linear.

    With `input_dropout`, that share of the inputs is dropped first (Srivastava et al., 2014).

    Without arguments, the network that the README's MNIST results are of.
    """

    def __init__(
        self,
        in_features: int = 784,
        hidden_sizes: tuple[int, ...] = (1024, 1024),
        num_classes: int = 10,
        activation: str = "relu",
        batch_norm: bool = True,
        dropout: float = 0.4,
        input_dropout: float = 0.2,
    ):
        self.input_dropout = Dropout(input_dropout)
        layers: list[Layer] = []
        size = in_features
        for hidden_size in hidden_sizes:
            layers.append(Linear(size, hidden_size, needs_grad_input=bool(layers)))
            if batch_norm:
                layers.append(BatchNorm1d(hidden_size))
            layers.append(ACTIVATIONS[activation]())
            layers.append(Dropout(dropout))
            size = hidden_size
        layers.append(Linear(size, num_classes, needs_grad_input=bool(layers)))
        self.layers = Sequential(*layers)
        self.not_hidden = ("layers.0.", f"layers.{len(layers) - 1}.")  # Muon leaves them to AdamW

    def forward(self, x: Tensor) -> Tensor:  # (N, D) -> (N, K)
        return self.layers.forward(self.input_dropout.forward(x))

    def backward(self, grad_logits: Tensor) -> Tensor | None:  # (N, K) -> (N, D)
        """The gradient of the inputs, which the first layer leaves out (None) in training."""
        grad_x = self.layers.backward(grad_logits)
        return None if grad_x is None else self.input_dropout.backward(grad_x)
