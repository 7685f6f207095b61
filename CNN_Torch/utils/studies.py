"""What CNN_Torch/tune.py needs: Optuna's store, and the pictures of a search."""

from itertools import count
from pathlib import Path
from urllib.parse import quote

from common.errors import UserError
from common.plots import new_figure, save

LIMITS = {"lr": (1e-4, 1e-1), "weight_decay": (1e-3, 1.0)}  # of what is drawn on a log axis


def open_store(name: str, store: Path):
    """The Optuna study of this name in an SQLite file, which is made where there is none."""
    try:
        import optuna  # slow to import
        from sqlalchemy.exc import DatabaseError
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is missing: pip install -r requirements.txt") from None

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = f"sqlite:///{quote(str(store.resolve()))}"
    try:
        return optuna.create_study(
            storage=place, study_name=name, direction="maximize", load_if_exists=True
        )
    except DatabaseError as error:
        raise UserError(f"{store} is damaged ({error.orig}): remove it") from None


def release(study) -> None:
    """Give up the trials that a killed process began: they count as failed, and for nothing."""
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name == "RUNNING":
            study.tell(trial.number, state=type(trial.state).FAIL)


def free_seed(study, first: int) -> int:
    """The lowest seed from `first` on that no trial has but failed ones, which are done again."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.state.name != "FAIL"]
    taken = {trial.user_attrs.get("seed") for trial in trials}
    return next(seed for seed in count(first) if seed not in taken)


def spent(study, epochs: int, before: float = float("inf")) -> int:
    """Epochs of all trials `before` this number but failed ones; a trial that runs may come to need
    all of its own."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.state.name != "FAIL"]
    trials = [trial for trial in trials if trial.number < before]
    running = sum(trial.state.name == "RUNNING" for trial in trials)
    done = sum(len(t.intermediate_values) for t in trials if t.state.name != "RUNNING")
    return done + running * epochs


def trials_of(study) -> list[dict]:
    """All trials but failed ones, for a record: parameters, and the accuracy after each epoch."""
    return [
        {"number": t.number, "state": t.state.name.lower(), "parameters": t.params,
         "accuracies": [round(v, 5) for _, v in sorted(t.intermediate_values.items())]}
        for t in study.get_trials(deepcopy=False) if t.state.name != "FAIL"
    ]  # fmt: skip


def importances(study) -> dict[str, float]:
    """The share of each parameter in the variance of the accuracy, as a random forest sees it
    (functional ANOVA; Hutter et al., 2014). Empty where the trials are too few, or all alike."""
    import optuna

    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError):
        return {}
    return {name: round(share, 4) for name, share in found.items()}


def draw_history(path: Path, record: dict) -> None:
    """The accuracy of each trial over the epochs spent so far, and the best until then."""
    figure, ((axis,),) = new_figure(size=(7, 4))
    for number, (name, trials) in enumerate(record["searches"].items()):
        spent, highest, best, colour = 0, 0.0, [], f"C{number}"
        for trial in trials:
            if not trial["accuracies"]:
                continue
            spent += len(trial["accuracies"])
            last, pruned = 100 * trial["accuracies"][-1], trial["state"] == "pruned"
            axis.plot(spent, last, "x" if pruned else "o", color=colour, alpha=0.5, ms=5)
            highest = highest if pruned else max(highest, last)
            best.append((spent, highest))
        axis.step(*zip(*best, strict=True), where="post", color=colour, label=f"{name}: the best")
    axis.set(xlabel="epochs spent (× pruned, ● trained to the end)", ylabel="accuracy, %")
    axis.set(title=f"{record['settings']['dataset']}: two searches of one budget")
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)


def draw_importance(path: Path, record: dict) -> None:
    """A bar for each parameter of the search space and each search."""
    figure, ((axis,),) = new_figure(size=(6, 4))
    names = list(record["hand"])
    for number, (search, shares) in enumerate(record["importance"].items()):
        places = [place + 0.4 * number - 0.2 for place in range(len(names))]
        axis.barh(places, [shares.get(name, 0) for name in names], 0.4, label=search)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set(xlabel="share of the variance of the accuracy", title="what matters (fANOVA)")
    axis.legend()
    save(figure, path)


def draw_slices(path: Path, record: dict) -> None:
    """Accuracy over each parameter, of all trials; the vertical line is the recipe by hand."""
    names = list(record["hand"])
    figure, axes = new_figure(-(-len(names) // 3), 3, (11, 9), sharey=True)
    for axis, name in zip(axes.flat, names, strict=False):
        if name in LIMITS:
            axis.set(xscale="log", xlim=LIMITS[name])
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter("")
        for number, (search, trials) in enumerate(record["searches"].items()):
            for pruned, marker in ((True, "x"), (False, "o")):
                shown = [
                    t for t in trials if (t["state"] == "pruned") == pruned and t["accuracies"]
                ]
                x = [t["parameters"][name] for t in shown]
                y = [100 * t["accuracies"][-1] for t in shown]
                label = None if pruned else search
                axis.plot(x, y, marker, color=f"C{number}", alpha=0.6, ms=5, label=label)
        axis.axvline(record["hand"][name], color="0.5", ls=":")
        axis.set(xlabel=name)
        axis.grid(alpha=0.3)
    axes[0, 0].legend()
    figure.supylabel("accuracy, % (× pruned; dotted: by hand)")
    save(figure, path)
