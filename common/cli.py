"""The flags that every train.py and test.py shares, and errors as one clear line."""

import argparse
import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from common import folders
from common.device import PRECISIONS
from common.errors import UserError

UNSET = object()
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)  # what a stream's end may say
REFIT = "learn the validation split too, all choices being made; the last epoch counts"


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """As wide as the terminal, 100 columns at most; says no default where there is none."""

    def __init__(self, prog: str):
        super().__init__(prog, width=min(100, shutil.get_terminal_size().columns - 2))

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default in (None, []) or "(default" in action.help:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line and which takes no abbreviated flags."""

    def __init__(self, description: str, models: dict[str, dict] | None = None):
        super().__init__(description=description, allow_abbrev=False, formatter_class=Help)
        self.models = models or {}  # what each --model brings along, where it brings anything
        self.recipes: dict[str, dict] = {}  # the defaults of each --dataset, where these differ

    def parse_args(self, args=None, namespace=None):
        words = sys.argv[1:] if args is None else args
        if self.recipes and {"-h", "--help"} & set(words):
            self.show_recipe(words)
        return super().parse_args(args, namespace)

    def show_recipe(self, words: list[str]) -> None:
        """Let --help show the defaults of the --dataset (--task, --model) that stand beside it."""
        few = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        for name in ("--dataset", "--model", "--task"):
            few.add_argument(name, nargs="?")
        named, _ = few.parse_known_args(words)
        dataset = default_dataset(self.recipes, named.task, named.dataset)
        if dataset in self.recipes:
            recipe = with_model(self.recipes[dataset], named.model, self.models)
            model = {"model": named.model} if named.model else {}
            self.set_defaults(**recipe, **{**model, "dataset": dataset})
            others = ", ".join(name for name in self.recipes if name != dataset)
            self.epilog = (
                f"Defaults are those of {dataset}; --dataset NAME --help shows {others}'s."
            )

    def error(self, message: str):
        self.exit(2, f"error: {message} (--help lists the flags)\n")

    def _print_message(self, message: str, file=None):  # argparse's own hides a full disk
        print(message, end="", file=file or sys.stderr)


def number(kind: type, low: float, high: float = float("inf"), open_low: bool = False) -> Callable:
    """A flag's type: a number in [low, high), or in (low, high) with `open_low`."""
    low_text = f"above {low:g}" if open_low else f"at least {low:g}"
    wanted = low_text + (f" and below {high:,}" if high != float("inf") else "")

    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not (low < value if open_low else low <= value) or not value < high:
            name = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"expected a {name} {wanted}, got {text!r}")
        return value

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
    """The shared flags. `recipes` holds each dataset's defaults; its first dataset is the default.
    `models` holds what a --model that is not the recipe's own brings along; `batch` and `subset`
    say what those flags count.

    The folder's train.py adds its own flags, and each recipe may name those too.
    """
    parser = Parser(description, models)
    parser.recipes, names = recipes, list(recipes)
    parser.add_argument("--dataset", choices=names, default=names[0], help="what to learn")
    parser.add_argument(
        "--data-dir", type=place, help="where the data lies; before $PLAYGROUND_DATA"
    )
    parser.add_argument("--epochs", type=positive_int, help="passes over the training split")
    parser.add_argument("--batch-size", type=positive_int, help=batch)
    parser.add_argument("--lr", type=positive, help="learning rate, the schedule's peak")
    parser.add_argument(
        "--seed", type=number(int, 0, 2**32), default=0, help="of everything random"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--run-dir", help="the run's folder (default: a new one under runs/)")
    parser.add_argument("--resume", action="store_true", help="go on with --run-dir or the latest")
    parser.add_argument("--subset", type=positive_int, help=subset)
    parser.set_defaults(**recipes[names[0]])
    return parser


def test_parser(description: str) -> Parser:
    """The flags of every test.py."""
    parser = Parser(description)
    parser.add_argument("--run-dir", help="the run to evaluate (default: the latest)")
    parser.add_argument(
        "--data-dir", type=place, help="where the data lies; before $PLAYGROUND_DATA"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--record", action="store_true", help="write the result into results/")
    parser.add_argument("--config", help="the record's name (default: the dataset's)")
    return parser


def add_scale_flags(parser: Parser) -> None:
    """The flags of folders that train on one or several GPUs."""
    add = parser.add_argument
    add("--precision", choices=PRECISIONS, default="float32", help="of the forward pass (AMP)")
    add("--compile", action="store_true", help="compile the model (torch.compile)")
    add("--accumulate", type=positive_int, default=1, help="parts that a batch is computed in")
    add("--sync-batch-norm", action="store_true", help="torchrun on GPUs: statistics of all")


def parse_training(parser: Parser, recipes: dict[str, dict], runs: Path, argv=None):
    """Parse the flags: those given, then the dataset's recipe, or the resumed run's config.json.

    `args.given` holds the names of the flags on the command line. On --resume, `args.run_dir` is
    the run to continue; only --epochs, --device and --data-dir may differ from its config. Where
    a folder has tasks, each recipe names its own, and --task alone stands for its first dataset.
    """
    blank = argparse.Namespace(**{action.dest: UNSET for action in parser._actions})
    given = {k: v for k, v in vars(parser.parse_args(argv, blank)).items() if v is not UNSET}
    if not given.get("resume"):
        dataset = default_dataset(recipes, given.get("task"), given.get("dataset"))
        recipe = with_model(recipes[dataset], given.get("model"), parser.models)
        parser.set_defaults(dataset=dataset, **recipe)
        args = parser.parse_args(argv)
    else:
        run_dir = folders.find_run(runs, given.get("run_dir"), "last.safetensors")
        config = folders.read_config(run_dir)
        for name in sorted((given.keys() & config.keys()) - {"epochs", "device", "data_dir"}):
            if given[name] != config[name]:
                raise UserError(
                    f"--{name.replace('_', '-')} {given[name]} contradicts the run in {run_dir}, "
                    f"which has {config[name]}: leave it out, or start without --resume"
                )
        args = argparse.Namespace(**{**vars(parser.parse_args([])), **config, **given})
        args.run_dir = str(run_dir)
    args.given = sorted(set(given) | set(getattr(args, "given", [])))
    if getattr(args, "refit", False) and getattr(args, "patience", 0):
        raise UserError("--refit leaves no validation split that --patience could wait for")
    return args


def default_dataset(recipes: dict[str, dict], task: str | None, dataset: str | None) -> str:
    """`dataset`, or else the first one of the task."""
    of_task = [name for name, recipe in recipes.items() if recipe.get("task") == task]
    return dataset or (of_task or list(recipes))[0]


def with_model(recipe: dict, model: str | None, models: dict[str, dict]) -> dict:
    """A dataset's defaults for this --model (None: the recipe's own)."""
    return recipe if model in (None, recipe.get("model")) else {**recipe, **models.get(model, {})}


def switch_dataset(
    args: argparse.Namespace, recipes: dict[str, dict], dataset: str, models: dict | None = None
) -> None:
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


def total_steps(steps: int, warmup: int) -> int:
    """`steps`, once it is sure that the warm-up leaves some of them for the schedule itself."""
    if warmup >= steps:
        raise UserError(f"--warmup {warmup} does not fit into a run of {steps} steps")
    return steps


def prepare_streams() -> None:
    """What an encoding lacks is printed as \\xe9; a closed stream (`<&-`) is an empty one."""
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "r" if name == "stdin" else "w")  # noqa: SIM115
            setattr(sys, name, stream)
        elif hasattr(stream, "reconfigure") and name != "stdin":
            stream.reconfigure(errors="backslashreplace")


def last_words(line: str, code: int) -> NoReturn:
    """End with a line on stderr, where there is room for one. What stdout still holds is lost."""
    for stream in (sys.stdout, sys.stderr):
        try:
            print(line if stream is sys.stderr else "", end="", file=stream, flush=True)
        except OSError:  # or its remainder would raise at exit, where nobody can catch it
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def entry(main: Callable) -> None:
    """Run a script's main(): a UserError is one line and exit code 2, Ctrl-C is exit code 130."""
    prepare_streams()
    try:
        try:
            main()
        finally:
            sys.stdout.flush()  # here, not at exit, where nobody would catch what it raises
    except UserError as error:
        last_words(f"error: {error}\n", 2)
    except KeyboardInterrupt as interruption:
        last_words(f"{str(interruption) or 'interrupted'}\n", 130)
    except BrokenPipeError:  # `… | head` closed our output
        last_words("", 141)
    except OSError as error:
        if error.errno not in FULL or error.filename is not None:
            raise
        last_words(f"error: the output cannot be written ({error.strerror})\n", 2)
