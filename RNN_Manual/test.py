"""Evaluate a run of the hand-written network on the test split, and draw what its units do."""

from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

from common import checkpoint, cli
from common.console import print_metrics
from common.device import select_device
from common.evaluation import find_trained, load_best
from common.metrics import bits_per_character, perplexity
from common.results.records import write_record
from RNN_Manual.dataset import load_test, load_training
from RNN_Manual.dataset.characters import Vocabulary
from RNN_Manual.train import build_model, evaluate, make_parser
from RNN_Manual.utils.memory import gradient_over_distance, streams
from RNN_Manual.utils.plots import draw_gates, draw_gradients, draw_neurons

FOLDER = Path(__file__).resolve().parent
CHARACTERS = 216  # of the picture of single units


def main(argv=None):
    args = cli.test_parser(__doc__).parse_args(argv)
    args.device = select_device(args.device)
    run_dir, config = find_trained(FOLDER, args, make_parser())
    test = load_test(config.dataset, config.data_dir).to(args.device)
    path = run_dir / "best.safetensors"
    vocabulary = checkpoint.load(path, "vocabulary")["vocabulary"]
    checkpoint.restore(Vocabulary(test.classes), vocabulary, path, "text")
    model = build_model(config, test.classes).to(device=args.device)
    load_best(model, run_dir, checksums=test.checksums)

    # one stream: the state is carried through the whole split, and every character scored once
    metrics = evaluate(model, test, streams=1, window=1024)
    metrics["perplexity"] = perplexity(metrics["loss"])
    metrics["bits_per_character"] = bits_per_character(metrics["loss"])
    print(f"{run_dir}: test split of {config.dataset}, {len(test):,} characters")
    print_metrics(metrics)

    title = f"{config.dataset}: test split, {config.cell}"
    tokens, labels = streams(test, CHARACTERS, most=1)
    hidden, _ = model.recurrent.forward(model.embedding.forward(tokens))  # (T, 1, H)
    text = "".join(test.classes[token] for token in tokens[:, 0].tolist())
    draw_neurons(run_dir / "neurons.png", text, hidden[:, 0], title)
    tokens, labels = streams(test, 100)
    model.recurrent.forward(model.embedding.forward(tokens))
    gates = [model.recurrent.gates(layer) for layer in range(config.num_layers)]
    if not gates[0]:  # an RNN has none; what a layer keeps ends with its states
        gates = [{"output h": saved[1][1:]} for saved in model.recurrent.saved]
    draw_gates(run_dir / "gates.png", gates, title)
    norms = gradient_over_distance(model, tokens, labels)
    draw_gradients(run_dir / "gradient.png", {config.cell: norms}, title)
    print(f"pictures in {run_dir}")

    if args.record:
        train, validation = load_training(config.dataset, config.data_dir, config.refit)
        splits = {"train": train.subset(config.subset), "validation": validation, "test": test}
        write_record(FOLDER, args, run_dir, config, model, splits, metrics)


if __name__ == "__main__":
    cli.entry(main)
