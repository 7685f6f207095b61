"""The tables of the study twins.py, for the README."""

from common.device import machine
from common.history import METRICS
from common.results import rows, tables
from common.results.compare_steps import PAIRS, TWINS
from common.results.report import mean_std
from studies import layer_times, verdict

SMALL = 0.02  # layers with less of both steps than this are part of the rest


def of_study(study: dict) -> str:
    """All of them, with what they are of."""
    settings = study["settings"]
    where = (
        f"Medians of {settings['steps']} steps in turns, from the same weights; in brackets the "
        f"quartiles. Memory: tensors, and in brackets how far the process grew. "
        f"({machine(study['environment'])}.)"
    )
    return "\n".join([
        *of_steps(study), "", where, "", f"`{study['command']}`", "", "![twins](results/twins.png)",
        "", *of_results(), "", *of_lines(), "",
        "<details><summary>Time by layer, in ms</summary>", "", *of_layers(study), "",
        "An optimiser's step stands under forward.", "", "</details>",
    ])  # fmt: skip


def of_pairs(study: dict, folder: str | None = None) -> str:
    """The verdict in one line for each pair, or for each that `folder` is one of."""
    lines = [["network", "time of a step: by hand divided by PyTorch, median (quartiles); "
              + machine(study["environment"]), "memory of a step, MB: by hand / PyTorch",
              "recorded results: by hand − PyTorch (± standard error)",
              "core lines: by hand / PyTorch"]]  # fmt: skip
    for name, pair in PAIRS.items():
        found = rows.matching(study, what="step", pair=name)
        if not found or folder not in (None, *pair[:2]):
            continue
        ratio = "**{1:.2f}** ({0:.2f}–{2:.2f})".format(*found[0]["ratio"])
        memory = [number(row["megabytes"]["tensors"])
                  for row in rows.matching(study, what="memory", pair=name)]  # fmt: skip
        results, lengths = "", ""
        if name not in TWINS:
            results = after_training(study, name)
        else:
            results = "; ".join(
                f"{of.config}: {difference(of)} ({METRICS[of.metric][0]}"
                f"{', one seed' * (of.standard_error is None)})"
                for of in verdict.differences(name) if not of.flags
            )  # fmt: skip
            counts = verdict.lines_of_twins(name).values()
            lengths = " / ".join(str(sum(count.core.values())) for count in counts)
        lines.append([name, ratio, " / ".join(memory), results, lengths])
    return "\n".join(tables.table(lines))


def after_training(study: dict, name: str) -> str:
    """By hand less PyTorch, where short trainings end; layers without a folder have no record."""
    of = [rows.matching(study, what="training", pair=name, twin=twin) for twin in layer_times.TWINS]
    losses = [[row["validation"]["loss"][-1] for row in found] for found in of if found]
    if len(losses) < 2:
        return ""
    found = verdict.Difference(name, "loss", *losses, {})
    seconds = f"{study['settings']['seconds']:g}"
    return f"validation loss after {seconds} s of training: {difference(found)} (nats)"


def difference(found: verdict.Difference) -> str:
    """By hand less PyTorch, with its standard error where there is one."""
    _, factor, decimals = METRICS[found.metric]
    text = f"{factor * found.mean:+.{decimals}f}"
    if found.standard_error is None:
        return text
    return f"{text} ± {factor * found.standard_error:.{decimals}f}"


def number(value: float) -> str:
    """With three figures, or all before the point."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def spread(quartiles: list[float]) -> str:
    low, middle, high = map(number, quartiles)
    return f"{middle} ({low}–{high})"


def of_steps(study: dict) -> list[str]:
    lines = [["a step of", "by hand, ms", "PyTorch, ms", "by hand / PyTorch", "forward", "backward",
              "optimiser", "by hand, MB", "PyTorch, MB"]]  # fmt: skip
    for name in PAIRS:
        for row in rows.matching(study, what="step", pair=name):
            parts = []
            for part in ("forward", "backward", "optimiser"):
                both = [row["parts"][twin].get(part) for twin in layer_times.TWINS]
                parts.append("" if None in both else " / ".join(map(number, both)))
            memory = rows.matching(study, what="memory", pair=name)
            lines.append([name, *map(spread, row["milliseconds"].values()),
                          "**{1:.2f}** ({0:.2f}–{2:.2f})".format(*row["ratio"]),
                          *parts, *(megabytes(of["megabytes"]) for of in memory)])  # fmt: skip
    width = len(lines[0])
    return tables.table([line + [""] * (width - len(line)) for line in lines])


def megabytes(found: dict) -> str:
    grown = found["process"]
    return number(found["tensors"]) + ("" if grown is None else f" ({number(grown)})")


def of_results() -> list[str]:
    lines = [["recorded result", "figure, on the test split", "by hand", "PyTorch", "difference",
              "seeds", "flags that differ"]]  # fmt: skip
    for name in TWINS:
        for found in verdict.differences(name):
            heading, factor, decimals = METRICS[found.metric]
            values = [mean_std(of, factor, decimals) for of in (found.manual, found.torch)]
            counts = list(dict.fromkeys([len(found.manual), len(found.torch)]))
            seeds = "one seed" if counts == [1] else " and ".join(map(str, counts))
            flags = "; ".join(f"{k} {a} / {b}" for k, (a, b) in found.flags.items())
            lines.append(
                [f"{name}, {found.config}", heading, *values, difference(found), seeds, flags]
            )
    note = "Behind ±: of a difference its standard error, else the standard deviation of seeds."
    return [*tables.table(lines), "", note]


def of_lines() -> list[str]:
    lines = [["lines of code", *verdict.ROLES, "core", "in both folders", "in this one alone"]]
    for folder, found in {f: n for name in TWINS for f, n in
                          verdict.lines_of_twins(name).items()}.items():  # fmt: skip
        core = sum(found.core.values())
        cells = [*found.core.values(), f"**{core}**", found.copied, found.alone]
        lines.append([folder, *map(str, cells)])
    return tables.table(lines)


def of_layers(study: dict) -> list[str]:
    lines = [["", "layer", "by hand: forward", "backward", "PyTorch: forward", "backward"]]
    for name in PAIRS:
        for row in rows.matching(study, what="profile", pair=name):
            for part, cells in layer_cells(row["layers"]):
                lines.append([name, part, *map(number_or_none, cells)])
                name = ""
    return tables.table(lines)


def number_or_none(value: float) -> str:
    return number(value) if value else ""


def layer_cells(layers: dict) -> list[tuple]:
    """(part, forward and backward by hand, then of PyTorch), the longest first, the rest at the
    end; an optimiser's step stands under forward."""
    whole = {twin: sum(sum(part.get(twin, {}).values()) for part in layers.values())
             for twin in layer_times.TWINS}  # fmt: skip
    cells, rest = {}, [0.0] * 4
    for part, found in layers.items():
        values, share = [], 0.0
        for twin in layer_times.TWINS:
            of = found.get(twin, {})
            values += [of.get("forward", 0) + of.get("optimiser", 0), of.get("backward", 0)]
            share = max(share, sum(values[-2:]) / whole[twin])
        if part == layer_times.REST or share < SMALL:
            rest = [a + b for a, b in zip(rest, values, strict=True)]
        else:
            cells[part] = values
    ordered = sorted(cells.items(), key=lambda item: -sum(item[1]))
    return [*ordered, *([(layer_times.REST, rest)] if any(rest) else [])]
