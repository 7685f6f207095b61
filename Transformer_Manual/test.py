"""Evaluate a run of a Transformer on the test split, and draw where its heads look."""

import time
from argparse import Namespace
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

from common import checkpoint, cli
from common.console import print_metrics
from common.device import select_device
from common.errors import reading
from common.evaluation import find_trained, load_best
from common.metrics import bits_per_character, perplexity
from common.results.records import write_record
from Transformer_Manual.dataset import load_test, load_training, pair_files, restore_tokenizer
from Transformer_Manual.train import build_model
from Transformer_Manual.train import make_parser as train_parser
from Transformer_Manual.utils import bleu
from Transformer_Manual.utils.attention_plots import draw_attention, draw_positions, draw_schedule
from Transformer_Manual.utils.evaluation import ONE_ANSWER, mean_loss, shortened, translate
from Transformer_Manual.utils.looks import over_text, over_translation
from Transformer_Manual.utils.optim import learning_rate

FOLDER = Path(__file__).resolve().parent
CHARACTERS = 32  # of a text in the picture of the attention
TOKENS = 14  # and about so many of a sentence


def make_parser() -> cli.Parser:
    parser = cli.test_parser(__doc__)
    add = parser.add_argument
    add("--beam", type=cli.positive_int, default=5, help="translations that compete; 1: greedy")
    penalty = cli.number(float, 0, 10)  # beyond it, scores vanish in float32
    add("--length-penalty", type=penalty, default=1.0, help="α, in favour of longer ones")
    pair_files.add_flags(parser)
    return parser


def translator_results(model, test, args: Namespace, config: Namespace, run_dir: Path):
    """Metrics, how they were counted, and where the heads look; translations go into `run_dir`."""
    source, target = test.sentences.source, test.sentences.target
    start = time.perf_counter()
    translations = translate(model, test.tokenizer, source, args.beam, args.length_penalty)
    seconds = time.perf_counter() - start
    loss = mean_loss(model, test.up_to(config.max_length))
    scores, signatures = bleu.score(translations, target)
    if config.dataset in ONE_ANSWER:  # of which n-grams say nothing
        scores, signatures = {"exact_match": scores["exact_match"]}, {}
    how = f"beam {args.beam}, length penalty {args.length_penalty:g}"
    signatures = {name: f"{signature}, {how}" for name, signature in signatures.items()}
    lines = zip(source, target, translations, strict=True)
    texts = ["{}\n  is      {}\n  became  {}\n".format(*line) for line in lines]
    text = f"{how}\n\n" + "\n".join(texts)
    checkpoint.write_atomically(run_dir / "translations.txt", text.encode())
    telling = bleu.from_worst_to_best(translations, target)
    samples = "\n".join(f"==== {place} ====\n\n{texts[i]}" for place, i in telling.items())
    checkpoint.write_atomically(run_dir / "samples.txt", samples.encode())

    row = int((test.lengths - TOKENS).abs().argmin())
    sentence = shortened(test.source.sequence(row).long()[None], config.max_length)[0]
    written = test.tokenizer.encode(translations[row])[: config.max_length - 1]
    looks = over_translation(model, test.tokenizer, sentence, written)
    metrics = {"loss": loss, "perplexity": perplexity(loss), **scores}
    return {**metrics, "translation_seconds": round(seconds, 2)}, signatures, looks


def writer_results(model, test, config: Namespace):
    """A language model's metrics, which need no signatures, and where its heads look."""
    loss = mean_loss(model, test)
    metrics = {"perplexity": perplexity(loss), "bits_per_character": bits_per_character(loss)}
    tokens = test.stretch.inputs[: min(CHARACTERS, config.max_length)]
    return {"loss": loss, **metrics}, None, over_text(model, test.tokenizer, tokens)


def main(argv=None):
    args = make_parser().parse_args(argv)
    args.device = select_device(args.device)
    run_dir, config = find_trained(FOLDER, args, train_parser())
    pair_files.take_moved(config, args)
    path = run_dir / "best.safetensors"
    with reading(path):
        state = checkpoint.load(path, "tokenizer")
        tokenizer = restore_tokenizer(config, state["tokenizer"])
        steps = state["step"] // state["epoch"] * config.epochs
    test = load_test(config, tokenizer).to(args.device)
    model = build_model(config, test.tokenizer).to(device=args.device)
    load_best(model, run_dir, checksums=test.checksums)

    if config.task == "translate":
        metrics, signatures, looks = translator_results(model, test, args, config, run_dir)
    else:
        metrics, signatures, looks = writer_results(model, test, config)
    unit = "sentences" if config.task == "translate" else "characters"
    print(f"{run_dir}: test split of {config.dataset}, {len(test):,} {unit}")
    print_metrics(metrics)
    print("".join(f"{name}: {how}\n" for name, how in (signatures or {}).items()), end="")

    for name, (title, *weights) in looks.items():
        draw_attention(run_dir / f"{name}.png", *weights, f"{config.dataset}: {title}")
    if config.positions != "rotary":  # of which nothing is added to the tokens
        title = f"{config.dataset}: {config.positions} positions"
        draw_positions(run_dir / "positions.png", model.positions.weight, title)
    schedule = learning_rate(config.schedule, config.lr, steps, config.warmup)
    rates = [schedule(step) for step in range(steps)]
    draw_schedule(run_dir / "schedule.png", rates, f"{config.dataset}: learning rate")
    print(f"pictures in {run_dir}")

    if args.record:
        train, validation = load_training(config)
        splits = {"train": train.subset(config.subset), "validation": validation, "test": test}
        write_record(FOLDER, args, run_dir, config, model, splits, metrics, signatures)


if __name__ == "__main__":
    cli.entry(main)
