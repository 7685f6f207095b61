"""The flags that every train.py and test.py shares, and errors as one clear line."""

import argparse
import functools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from common import folders
from common.device import PRECISIONS as PRECISIONS  # choices of a flag
from common.errors import UserError, printable
from common.errors import entry as entry  # what scripts end with

UNSET = object()
REFIT = "learn the validation split too, all choices being made; the last epoch counts"


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Says no default where there is none."""

    def _get_help_string(self, action: argparse.Action) -> str:
        own = action.default in (None, []) or "(default" in action.help
        return action.help if own else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line and which takes no abbreviated flags. `recipes`
    holds the defaults of each --dataset, `models` what each --model brings along."""

    def __init__(self, description: str, recipes: dict | None = None, models: dict | None = None):
        width = min(100, shutil.get_terminal_size().columns - 2)
        form = functools.partial(Help, width=width)
        super().__init__(description=description, allow_abbrev=False, formatter_class=form)
        self.recipes, self.models = recipes or {}, models or {}

    def parse_args(self, args=None, namespace=None):
        words = sys.argv[1:] if args is None else args
        if self.recipes and {"-h", "--help"} & set(words):  # of the --dataset that is asked for
            few = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
            for name in ("--dataset", "--model", "--task"):
                few.add_argument(name, nargs="?")
            asked = {k: v for k, v in vars(few.parse_known_args(words)[0]).items() if v}
            dataset = default_dataset(self.recipes, asked)
            dataset = dataset if dataset in self.recipes else next(iter(self.recipes))
            self.set_defaults(**{**self.defaults(dataset, asked.get("model")), **asked})
            self.epilog = f"The defaults are {dataset}'s; --dataset NAME --help shows NAME's."
        return super().parse_args(args, namespace)

    def error(self, message: str):
        self.exit(2, f"error: {printable(message)} (--help lists the flags)\n")

    def defaults(self, dataset: str, model=None) -> dict:
        """The flags of a run for which no more than these is given."""
        flags = {a.dest: a.default for a in self._actions if a.dest not in folders.PLACES}
        model = model if isinstance(model, str) else None
        recipe = with_model(self.recipes[dataset], model, self.models)
        return {**flags, **recipe, "dataset": dataset}

    def _print_message(self, message: str, file=None):  # argparse's own hides a full disk
        print(message, end="", file=file or sys.stderr)


def number(kind: type, low: float, high: float | None = None, open_low: bool = False) -> Callable:
    """A flag's type: a number in [low, high), or in (low, high) with `open_low`."""
    limit = high or (2**31 if kind is int else 3.4e38)  # where int32 and float32 end
    wanted = f"above {low:g}" if open_low else f"at least {low:g}"
    wanted += f" and below {high:,}" if high else ""

    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not (low < value if open_low else low <= value) or not value < limit:
            name = "whole number" if kind is int else "number"
            most = f" and below {limit:g}" if value >= limit and not high else ""
            raise argparse.ArgumentTypeError(f"expected a {name} {wanted}{most}, got {text[:40]!r}")
        return value

    parse.numeric = True  # in config.json too
    return parse


positive_int, natural = number(int, 1), number(int, 0)
positive, non_negative = number(float, 0, open_low=True), number(float, 0)
fraction = number(float, 0, 1)


def place(path: str) -> str:
    """A folder of data, also for those who read config.json from elsewhere."""
    return os.path.abspath(path) if path else ""


def train_parser(
    description: str, recipes: dict[str, dict], models: dict | None = None,
    batch: str = "examples per step", subset: str = "train on this many examples only",
) -> Parser:  # fmt: skip
    """The shared flags, to which the folder's train.py adds its own. `recipes` holds each dataset's
    defaults, of the first dataset to begin with; `models` what a --model brings along that is not
    the recipe's own; `batch` and `subset` say what those flags count."""
    parser, names = Parser(description, recipes, models), list(recipes)
    add = parser.add_argument
    add("--dataset", choices=names, default=names[0], help="what to learn")
    add("--data-dir", type=place, help="where the data lies; before $PLAYGROUND_DATA")
    add("--epochs", type=positive_int, help="passes over the training split")
    add("--batch-size", type=positive_int, help=batch)
    add("--lr", type=positive, help="learning rate, the schedule's peak")
    add("--seed", type=number(int, 0, 2**32), default=0, help="of everything random")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--run-dir", help="the run's folder (default: a new one under runs/)")
    add("--resume", action="store_true", help="go on with --run-dir or the latest")
    add("--subset", type=positive_int, help=subset)
    parser.set_defaults(**recipes[names[0]])
    return parser


def test_parser(description: str) -> Parser:
    """The flags of every test.py."""
    parser = Parser(description)
    add = parser.add_argument
    add("--run-dir", help="the run to evaluate (default: the latest)")
    add("--data-dir", type=place, help="where the data lies; before $PLAYGROUND_DATA")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--record", action="store_true", help="write the result into results/")
    add("--config", help="the record's name (default: the dataset's)")
    return parser


def parse_training(parser: Parser, recipes: dict[str, dict], runs: Path, argv=None):
    """Parse the flags: those given, then the dataset's recipe, or the resumed run's config.json.
    `args.given` holds the names of the flags on the command line. On --resume, `args.run_dir` is
    the run to continue; only --epochs, --device and where files lie may differ from its config."""
    blank = argparse.Namespace(**{action.dest: UNSET for action in parser._actions})
    given = {k: v for k, v in vars(parser.parse_args(argv, blank)).items() if v is not UNSET}
    if not given.get("resume"):
        dataset = default_dataset(recipes, given)
        parser.set_defaults(**parser.defaults(dataset, given.get("model")))
        args = parser.parse_args(argv)
    else:
        run_dir = folders.find_run(runs, given.get("run_dir"), "last.safetensors")
        config = folders.read_flags(run_dir, "last.safetensors", runs.parent, parser)
        for name in sorted((given.keys() & config.keys()) - folders.FREE):
            if given[name] != config[name]:
                flag = f"--{name.replace('_', '-')} {given[name]}".removesuffix(" True")
                why = f"contradicts the run in {run_dir}, which has {config[name]}"
                raise UserError(f"{flag} {why}: leave it out, or start without --resume")
        args = argparse.Namespace(**{**config, **given, "run_dir": str(run_dir)})
    args.given = sorted(set(given) | set(getattr(args, "given", [])))
    if getattr(args, "refit", False) and getattr(args, "patience", 0):
        raise UserError("--refit leaves no validation split that --patience could wait for")
    return args


def default_dataset(recipes: dict[str, dict], given: dict) -> str:
    """The --dataset that is given, or else the first one of the --task that its recipe names."""
    of_task = [name for name, recipe in recipes.items() if recipe.get("task") == given.get("task")]
    return given.get("dataset", (of_task or list(recipes))[0])


def with_model(recipe: dict, model: str | None, models: dict[str, dict]) -> dict:
    """A dataset's defaults for this --model (None: the recipe's own)."""
    return recipe if model in (None, recipe.get("model")) else {**recipe, **models.get(model, {})}


def switch_dataset(args, recipes: dict[str, dict], dataset: str, models: dict | None = None):
    """Go over to another dataset (a sample of the one asked for), with its recipe."""
    if dataset != args.dataset:
        model = args.model if "model" in args.given else None
        recipe = with_model(recipes[dataset], model, models or {})
        changed = {k: v for k, v in recipe.items() if k not in args.given}
        vars(args).update(changed, dataset=dataset, given=sorted([*args.given, "dataset"]))


def check_batch_norm(values: int) -> None:
    """Raises UserError for batches with fewer than 2 values per feature or channel."""
    if values < 2:
        raise UserError("batch normalisation needs batches of at least 2: raise --batch-size")


def total_steps(args: argparse.Namespace, num_batches: int) -> int:
    """The steps of the run. A recipe's warm-up becomes shorter where it is more than half of them;
    one that somebody typed must leave some of them for the schedule itself."""
    steps = args.epochs * num_batches
    if "warmup" not in args.given and not args.resume:
        args.warmup = min(args.warmup, steps // 2)
    if args.warmup >= steps:
        raise UserError(f"--warmup {args.warmup} does not fit into a run of {steps} steps")
    return steps
