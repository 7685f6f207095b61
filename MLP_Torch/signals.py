"""What initial weights do to a deep network: `python MLP_Torch/signals.py` (ten minutes).

An MLP of many equal layers, before its first step: how large activations and gradients are in every
layer, how many units are dead, and how well the same network learns in a few hundred steps. Weights
are drawn from N(0, s²); biases are 0. Rows are kept as they are found, so a study that was stopped
goes on where it was.
"""

import math
from argparse import Namespace
from itertools import product
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import Tensor, nn

from common import cli
from common.data import Split
from common.device import machine, seed_everything, select_device
from common.errors import printable
from common.plots import new_figure, save
from common.results import rows, tables
from common.results.report import mean_std
from MLP_Torch.dataset import load_training, mnist
from MLP_Torch.model import MLP
from MLP_Torch.train import evaluate

FOLDER = Path(__file__).resolve().parent
RECORD = FOLDER / "results" / "compare_signals.json"
INITIALISATIONS = {  # s of a layer with so many inputs and outputs
    "He": lambda inputs, outputs: math.sqrt(2 / inputs),  # et al., 2015, arXiv:1502.01852, eq. 10
    "Glorot": lambda inputs, outputs: math.sqrt(2 / (inputs + outputs)),  # & Bengio, 2010, eq. 12
    "nn.Linear's": lambda inputs, outputs: math.sqrt(1 / (3 * inputs)),  # uniform, ±1/√inputs
    "too small": lambda inputs, outputs: 0.01,
    "too large": lambda inputs, outputs: 0.2,
    "zeros": lambda inputs, outputs: 0.0,
}
ACTIVATIONS = ["relu", "tanh"]
SLOPE = {"relu": lambda h: (h > 0).float(), "tanh": lambda h: 1 - h.square()}  # f′, by h = f(z)
EXAMPLES, MOMENTUM, BATCH = 1_000, 0.9, 128  # that signals are measured with; of training
QUICK = dict(dataset="mnist-sample", depth=6, width=32, steps=20, seeds=2)
SETTINGS = ("dataset", "depth", "width", "steps", "lr")


def growth(std: float, width: int) -> float:
    """The factor of the mean square from a ReLU layer of `width` inputs to the next, in the mean.

    E z² = width s² E h² for z = W h, and relu keeps half of it, as z is as often above 0 as below:
    E relu(z)² = ½ width s² E h², 1 for He's s. Gradients grow alike on their way back.
    """
    return 0.5 * width * std**2


@torch.no_grad()
def initialise(model: nn.Module, name: str) -> None:
    """Draw the weights of every linear layer from N(0, s²), s by `name`; biases become 0."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            std = INITIALISATIONS[name](layer.in_features, layer.out_features)
            layer.weight.normal_().mul_(std)
            layer.bias.zero_()


def make_model(key: dict, train: Split, args: Namespace) -> MLP:
    model = MLP(train.inputs.shape[1], (args.width,) * args.depth, len(train.classes),
                key["activation"], key["batch_norm"], dropout=0.0, input_dropout=0.0)  # fmt: skip
    initialise(model, key["initialisation"])
    return model


def measure(model: MLP, inputs: Tensor, labels: Tensor, activation: str) -> dict[str, list]:
    """Of every hidden layer: the root mean square of its outputs h (N, D) ("activations"), and that
    of N ∂loss/∂h ("gradients"); the norm of its weight's gradient ("weight_gradients"); the share
    of units whose slope is below 0.001 for all N ("dead")."""
    model.train()
    model.zero_grad()
    outputs, h = [], inputs
    for layer in model.layers:
        h = layer(h)
        if isinstance(layer, (nn.ReLU, nn.Tanh)):
            h.retain_grad()
            outputs.append(h)
    nn.functional.cross_entropy(h, labels).backward()
    linear = [layer for layer in model.layers if isinstance(layer, nn.Linear)]
    slopes = [SLOPE[activation](h.detach()) for h in outputs]
    return {
        "activations": [root_mean_square(h.detach()) for h in outputs],
        "gradients": [root_mean_square(len(inputs) * h.grad) for h in outputs],
        "weight_gradients": [layer.weight.grad.norm().item() for layer in linear[:-1]],
        "dead": [(slope < 1e-3).all(0).float().mean().item() for slope in slopes],
    }


def root_mean_square(values: Tensor) -> float:
    values = values.cpu().double()  # 1e-30 squared is nothing in float32; MPS has no more
    return values.square().mean().sqrt().item()


def learn(model: MLP, train: Split, args: Namespace, seed: int) -> None:
    """SGD with momentum, which takes every gradient as large as it is."""
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=MOMENTUM)
    model.train()
    epochs = range(1 + args.steps // train.num_batches(BATCH))
    batches = (batch for epoch in epochs for batch in train.batches(BATCH, seed, epoch))
    for _, (inputs, labels) in zip(range(args.steps), batches, strict=False):
        loss = nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def of(study: dict, activation: str, batch_norm: bool, name: str) -> list[dict]:
    key = dict(activation=activation, batch_norm=batch_norm, initialisation=name)
    return rows.matching(study, **key)


def geometric_mean(found: list[dict], signal: str) -> list[float]:
    """Over the seeds, of every layer."""
    return torch.tensor([row[signal] for row in found]).double().log().mean(0).exp().tolist()


def table(path: Path = RECORD) -> str:
    """The README's table, by common.results.report."""
    if not path.is_file():
        return "Nothing recorded yet."
    study = rows.read(path)
    settings, last = study["settings"], study["settings"]["depth"]
    lines = [["network", "initial weights", f"activations, layer {last} / layer 1",
              f"gradients, layer 1 / layer {last}", "dead units",
              f"validation accuracy after {settings['steps']} steps, %", "seeds"]]  # fmt: skip
    for activation, norm, name in product(ACTIVATIONS, (False, True), INITIALISATIONS):
        found = of(study, activation, norm, name)
        if found:
            h, gradient = (geometric_mean(found, s) for s in ("activations", "gradients"))
            dead = [sum(row["dead"]) / last for row in found]
            accuracy = [row["validation"]["accuracy"] for row in found]
            lines.append([activation + ", batch norm" * norm, name, ratio(h[-1], h[0]),
                          ratio(gradient[0], gradient[-1]), f"{sum(dead) / len(dead):.0%}",
                          mean_std(accuracy, 100, 1), f"{len(found)}"])  # fmt: skip
    note = f"{settings['dataset']}, {last} hidden layers of {settings['width']} units; ratios of "
    note += "root mean squares, geometric means of the seeds; accuracy: mean ± standard deviation "
    note += f"({machine(study['environment'])})."
    return "\n".join([*tables.table(lines), "", note, "", f"`{study['command']}`", "",
                      "![Activations, gradients, dead units](results/signals.png)"])  # fmt: skip


def ratio(above: float, below: float) -> str:
    return f"{above / below:.1e}" if above and below else "no signal"


def draw(path: Path, study: dict) -> None:
    """Activations and gradients over the layers: a column for each kind of network."""
    kinds = [*product(ACTIVATIONS, (False, True))]
    figure, axes = new_figure(3, len(kinds), (3 * len(kinds), 7.5), sharex=True, sharey="row")
    layers = range(1, study["settings"]["depth"] + 1)
    for column, (activation, norm) in enumerate(kinds):
        axes[0, column].set_title(activation + ", batch norm" * norm)
        for number, name in enumerate(INITIALISATIONS):
            found = of(study, activation, norm, name)
            for row, signal in enumerate(("activations", "gradients")):
                values = [value or math.nan for value in geometric_mean(found, signal)]
                axes[row, column].plot(layers, values, color=f"C{number}", label=name)
            dead = torch.tensor([found["dead"] for found in found]).mean(0)
            axes[2, column].plot(layers, (100 * dead).tolist(), color=f"C{number}")
            if activation == "relu" and not norm and name != "zeros":
                first, width = geometric_mean(found, "activations")[0], study["settings"]["width"]
                factor = growth(INITIALISATIONS[name](width, width), width) ** 0.5
                axes[0, column].plot(layers, [first * factor**n for n in range(len(layers))],
                                     "k:", lw=1)  # fmt: skip
        axes[2, column].set(xlabel="hidden layer", ylim=(-5, 105))
        for row in (0, 1):
            axes[row, column].set_yscale("log")
            axes[row, column].yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
            axes[row, column].xaxis.get_major_locator().set_params(integer=True)
    for row, name in enumerate(("activations, root mean square", "gradients, root mean square",
                                "dead units, %")):  # fmt: skip
        axes[row, 0].set_ylabel(name)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    axes[0, 0].plot([], [], "k:", lw=1, label="½ width s² in each layer")
    axes[0, 1].legend(*axes[0, 0].get_legend_handles_labels(), fontsize=7)  # there is room
    save(figure, path)


def main(argv=None):
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--dataset", choices=[*mnist.CLASSES], help="what to learn (default: mnist)")
    add("--data-dir", type=cli.place, help="where the data lies; before $PLAYGROUND_DATA")
    add("--depth", type=cli.positive_int, default=20, help="hidden layers")
    add("--width", type=cli.positive_int, default=256, help="units of each")
    add("--steps", type=cli.positive_int, default=200, help="of training")
    add("--lr", type=cli.positive, default=0.01, help="learning rate of SGD with momentum")
    add("--seeds", type=cli.positive_int, default=3, help="networks of each kind: 0, 1, …")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--quick", action="store_true", help="small networks, to see that it works")
    add("--output", metavar="FILE", help="the rows (default: runs/signals.json)")
    args = parser.parse_args(argv)
    device = select_device(args.device)
    if args.quick:
        vars(args).update(QUICK)
    else:
        named, dataset = args.dataset is not None, args.dataset or "mnist"
        args.dataset = mnist.or_sample(dataset, named, FOLDER, args.data_dir)
    path = Path(args.output or FOLDER / "runs" / ("quick" * args.quick) / "signals.json")
    train, validation = (s.to(device) for s in load_training(args.dataset, args.data_dir))
    some = train.subset(min(EXAMPLES, len(train)))  # in a shuffled order that never changes

    def make(**key) -> dict:
        seed_everything(key["seed"])
        model = make_model(key, train, args).to(device)
        found = measure(model, some.inputs, some.labels, key["activation"])
        learn(model, train, args, key["seed"])
        accuracy = evaluate(model, validation)["accuracy"]
        print(f"seed {key['seed']}  {key['activation']:4}{', batch norm' * key['batch_norm']:12}"
              f"  {key['initialisation']:12}  accuracy {accuracy:6.2%}", flush=True)  # fmt: skip
        return {**found, "validation": {"accuracy": accuracy}}

    names = ("seed", "activation", "batch_norm", "initialisation")
    kinds = product(range(args.seeds), ACTIVATIONS, (False, True), INITIALISATIONS)
    keys = [dict(zip(names, kind, strict=True)) for kind in kinds]
    settings = {name: getattr(args, name) for name in SETTINGS}
    words = ["--quick"] if args.quick else [f"--{name} {v}" for name, v in settings.items()]
    command = " ".join(["python MLP_Torch/signals.py", *words])
    study = rows.collect(path, settings, command, device, keys, make)
    draw(path.with_name("signals.png"), study)
    print(f"\n{table(path)}\n\nrows in {printable(path)}, picture beside them")


if __name__ == "__main__":
    cli.entry(main)
