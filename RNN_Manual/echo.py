"""Where the vanilla RNN forgets and the gates remember: `python RNN_Manual/echo.py` (minutes).

Trains each cell on the echo task with growing delays, from several seeds, and draws the share of
echoes that are right and, at the longest delay, the norm of the gradient over the distance in time.
"""

from itertools import count
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch

from common import cli
from common.device import seed_everything, select_device
from common.errors import printable
from common.files import picture_name
from RNN_Manual.dataset import strings
from RNN_Manual.dataset.text import Text
from RNN_Manual.model import CELLS, LanguageModel
from RNN_Manual.utils.losses import SequenceCrossEntropy
from RNN_Manual.utils.memory import gradient_over_distance, streams
from RNN_Manual.utils.optim import Adam, clip_gradients, make_schedule
from RNN_Manual.utils.plots import draw_memory

FOLDER = Path(__file__).resolve().parent
STREAMS = 16  # that are read side by side, in windows of 2 (delay + 3) characters
MOST_DELAY = (strings.SIZES_SEEDS["train"][0] + 1) // (2 * (STREAMS + 1)) - 3


def fit(model: LanguageModel, train: Text, steps: int, window: int, seed: int) -> None:
    """As train.py does it, for a number of steps: one-cycle Adam, the norm clipped to 1."""
    criterion, optimizer = SequenceCrossEntropy(), Adam(model, lr=1e-2)
    schedule, step, state = make_schedule("one-cycle", 1e-2, steps), 0, None
    while step < steps:
        for tokens, labels in train.batches(STREAMS, window, seed, epoch=step):
            if step == steps:
                break
            optimizer.lr = schedule(step)
            logits = model.forward(tokens, state)
            state = model.state
            criterion.forward(logits, labels)
            model.backward(criterion.backward())
            clip_gradients(model, 1.0)
            optimizer.step()
            step += 1
        state = None


def echo_accuracy(model: LanguageModel, data: Text) -> float:
    """The share of question marks after which the likeliest character is the right one."""
    right, asked, state = 0, 0, None
    for tokens, labels in data.in_order(window=256):
        predictions = model.forward(tokens, state).argmax(2)
        state = model.state
        question = tokens == data.classes.index("?")
        right += (predictions == labels)[question].sum().item()
        asked += question.sum().item()
    return right / asked


def main(argv=None):
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--delays", type=cli.number(int, 1, MOST_DELAY + 1), nargs="+", default=[5, 10, 15, 20, 25],
        help="characters of noise between a capital and its echo")  # fmt: skip
    add("--steps", type=cli.positive_int, default=2000, help="training steps of each network")
    add("--hidden-size", type=cli.positive_int, default=64, help="units of each network")
    add("--seeds", type=cli.positive_int, default=3, help="trainings of each kind: seeds 0, 1, …")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--output", type=picture_name, metavar="FILE",
        help="the picture (default: a new one under runs/)")  # fmt: skip
    args = parser.parse_args(argv)
    device, delays = select_device(args.device), sorted(set(args.delays))
    names = (FOLDER / "runs" / f"echo_memory-{number:03d}.png" for number in count(1))
    picture = args.output or next(name for name in names if not name.exists())
    picture.parent.mkdir(parents=True, exist_ok=True)

    accuracy: dict[str, dict[int, list[float]]] = {cell: {} for cell in CELLS}
    norms = {}
    for delay in delays:
        train = strings.make("echo", "train", delay=delay).to(device)
        validation = strings.make("echo", "validation", delay=delay).to(device)
        window = 2 * (delay + 3)  # in more than half of the echoes, the capital is in it
        for cell in CELLS:
            shares, gradients = [], []
            for seed in range(args.seeds):
                seed_everything(seed)
                model = LanguageModel(
                    len(train.classes), 16, args.hidden_size, 1, cell, dropout=0.0
                ).to(device=device)
                fit(model.train(), train, args.steps, window, seed)
                shares.append(echo_accuracy(model.eval(), validation))
                gradients.append(gradient_over_distance(model, *streams(validation, 60)))
            accuracy[cell][delay], norms[cell] = shares, torch.stack(gradients).mean(0)
            right = "  ".join(f"{share:7.2%}" for share in shares)
            print(f"{cell:>5}  delay {delay:3d}  echoes right {right}", flush=True)
    title = f"echo: {args.hidden_size} units, {args.steps} steps of training, {args.seeds} seeds"
    draw_memory(picture, accuracy, norms, title)
    print(f"picture in {printable(picture)}")


if __name__ == "__main__":
    cli.entry(main)
