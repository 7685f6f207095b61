"""Train a hand-written recurrent network: `python RNN_Manual/train.py` learns Shakespeare."""

import math
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

from common import cli
from common.device import autocast, seed_everything, select_device
from common.metrics import RunningMean
from common.run import Run
from RNN_Manual.dataset import load_training
from RNN_Manual.dataset.characters import Vocabulary
from RNN_Manual.dataset.text import EVALUATION_STREAMS, Text
from RNN_Manual.dataset.texts import or_help_topics
from RNN_Manual.model import CELLS, LanguageModel
from RNN_Manual.utils.carry import CarriedState
from RNN_Manual.utils.losses import SequenceCrossEntropy
from RNN_Manual.utils.optim import OPTIMIZERS, SCHEDULES, clip_gradients, make_schedule
from RNN_Manual.utils.sampling import add_sample, generate
from RNN_Manual.utils.writing import shown_loss

FOLDER = Path(__file__).resolve().parent

SHAKESPEARE = dict(
    epochs=4, batch_size=32, lr=5e-3, window=64, cell="lstm", embed_dim=64, hidden_size=256,
    num_layers=1, dropout=0.0, weight_dropout=0.0, optimizer="adam", weight_decay=0.0,
    schedule="one-cycle", warmup=0, clip=1.0, patience=0, label_smoothing=0.0, sample_length=500,
    refit=False,
)  # fmt: skip
CONTROLLED = {**SHAKESPEARE, "epochs": 10, "lr": 1e-2, "embed_dim": 16, "hidden_size": 64,
              "sample_length": 200}  # fmt: skip
RECIPES = {  # the defaults of each dataset: a few-minute version of what the README records
    "tiny-shakespeare": SHAKESPEARE,
    "help-topics": SHAKESPEARE,
    "text": SHAKESPEARE,
    "anbn": {**CONTROLLED, "epochs": 6, "hidden_size": 32},
    "echo": {**CONTROLLED, "batch_size": 16},
}


def make_parser() -> cli.Parser:
    parser = cli.train_parser(
        __doc__, RECIPES, batch="stretches of the text that are read side by side",
        subset="train on this many characters only",
    )  # fmt: skip
    add = parser.add_argument
    add("--window", type=cli.positive_int, help="steps that the gradient goes back through")
    add("--cell", choices=CELLS, help="what the recurrent layers are made of")
    add("--embed-dim", type=cli.positive_int, help="width of a character's embedding")
    add("--hidden-size", type=cli.positive_int, help="units of each recurrent layer")
    add("--num-layers", type=cli.positive_int, help="recurrent layers on top of each other")
    add("--dropout", type=cli.fraction, help="share of each layer's outputs dropped")
    add("--weight-dropout", type=cli.fraction, help="share of W_hh left out, anew in each window")
    add("--label-smoothing", type=cli.fraction, help="share of the target spread over all classes")
    add("--optimizer", choices=OPTIMIZERS, help="all written in utils/optim.py")
    add("--weight-decay", type=cli.non_negative, help="λ of the optimiser")
    add("--schedule", choices=SCHEDULES, help="how the learning rate moves")
    add("--warmup", type=cli.natural, help="steps of linear warm-up before the schedule")
    add("--clip", type=cli.non_negative, help="largest norm of all gradients together; 0: no limit")
    add("--patience", type=cli.natural, help="stop after so many epochs without progress; 0: never")
    add("--precision", choices=["float32", "bfloat16"], default="float32", help="of the products")
    add("--refit", action="store_true", help=cli.REFIT)
    add("--sample-length", type=cli.natural, help="characters written after each epoch; 0: none")
    return parser


def build_model(args, classes: list[str]) -> LanguageModel:
    """The network that the flags describe, for these characters."""
    return LanguageModel(
        len(classes), args.embed_dim, args.hidden_size, args.num_layers, args.cell,
        args.dropout, args.weight_dropout,
    )  # fmt: skip


def evaluate(
    model: LanguageModel, data: Text, streams: int = EVALUATION_STREAMS, window: int = 256
) -> dict[str, float]:
    """The mean loss over every character, nats (never smoothed); the state carried on."""
    model.eval()
    criterion, loss, state = SequenceCrossEntropy(), RunningMean(), None
    for tokens, labels in data.in_order(window, streams):
        logits = model.forward(tokens, state)
        state = model.state
        loss.add(criterion.forward(logits, labels), labels.numel())
    return {"loss": loss.value}


def write_sample(run: Run, model: LanguageModel, vocabulary: Vocabulary, metrics: dict) -> None:
    """What the network writes at this moment, for the run's samples.txt."""
    split, loss = shown_loss(metrics, run.train_loss.value)
    if run.args.sample_length and math.isfinite(loss):  # where not, log_epoch stops the run
        prompt = "\n" if "\n" in vocabulary.tokens else vocabulary.characters[0]
        words = generate(model.eval(), vocabulary, prompt, run.args.sample_length)
        about = f"{split} loss {loss:.4f}"
        add_sample(run.path / "samples.txt", run.epoch + 1, about, "".join(words).strip("\n"))


def main(argv=None):
    args = cli.parse_training(make_parser(), RECIPES, FOLDER / "runs", argv)
    device = select_device(args.device)
    named = args.resume or "dataset" in args.given
    cli.switch_dataset(args, RECIPES, or_help_topics(args.dataset, named, args.data_dir))
    train, validation = load_training(args.dataset, args.data_dir, args.refit)
    train, validation = train.subset(args.subset).to(device), validation and validation.to(device)
    num_batches = train.num_batches(args.batch_size, args.window)
    total_steps = cli.total_steps(args, num_batches)

    seed_everything(args.seed)
    model = build_model(args, train.classes).to(device=device)
    criterion = SequenceCrossEntropy(args.label_smoothing)
    optimizer = OPTIMIZERS[args.optimizer](model, lr=args.lr, weight_decay=args.weight_decay)
    carried, vocabulary = CarriedState(device), Vocabulary(train.classes)

    with Run(FOLDER, args, model, optimizer, train, carried=carried, vocabulary=vocabulary) as run:
        schedule = make_schedule(args.schedule, args.lr, total_steps, args.warmup)
        run.announce(train, validation)
        for _ in range(run.epoch, args.epochs):
            if run.should_stop(args.patience):
                break
            model.train()
            if run.batch == 0:
                carried.reset()
            windows = train.batches(args.batch_size, args.window, args.seed, run.epoch, run.batch)
            for tokens, labels in run.progress(windows, num_batches):
                optimizer.lr = schedule(run.step)

                with autocast(device, args.precision):  # of backward and Muon, too
                    logits = model.forward(tokens, carried.value)
                    carried.value = model.state
                    loss = criterion.forward(logits, labels)

                    model.backward(criterion.backward())
                    if args.clip:
                        clip_gradients(model, args.clip)
                    optimizer.step()
                run.log_step(loss, labels.numel(), lr=optimizer.lr)
            metrics = {} if validation is None else evaluate(model, validation)
            write_sample(run, model, vocabulary, metrics)
            run.log_epoch(**metrics)
        run.finish()


if __name__ == "__main__":
    cli.entry(main)
