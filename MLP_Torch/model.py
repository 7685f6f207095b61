"""A multi-layer perceptron in PyTorch (Rumelhart, Hinton & Williams, 1986).

N is the batch, D the features of an example, K the classes.
"""

from torch import Tensor, nn

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}


class MLP(nn.Module):
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
        super().__init__()
        self.input_dropout = nn.Dropout(input_dropout)
        layers: list[nn.Module] = []
        size = in_features
        for hidden_size in hidden_sizes:
            layers.append(nn.Linear(size, hidden_size))
            if batch_norm:
                layers.append(nn.BatchNorm1d(hidden_size))
            layers.append(ACTIVATIONS[activation]())
            layers.append(nn.Dropout(dropout))
            size = hidden_size
        layers.append(nn.Linear(size, num_classes))
        self.layers = nn.Sequential(*layers)
        self.not_hidden = ("layers.0.", f"layers.{len(layers) - 1}.")  # Muon leaves them to AdamW

    def forward(self, x: Tensor) -> Tensor:  # (N, D) -> (N, K)
        return self.layers(self.input_dropout(x))
