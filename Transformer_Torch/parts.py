"""What each part of a modern Transformer brings: `python Transformer_Torch/parts.py` (an hour).

Starts from the language model of 2017 and adds one part after the other. Every network makes as
many steps as should fit into the same time, by the time of a step, which is measured once before,
of all networks in turns. Rows are kept as they are found, so a study that was stopped goes on where
it was.
"""

import time
from argparse import Namespace
from itertools import count, product
from pathlib import Path
from statistics import median

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import nn

from common import cli
from common.device import autocast, machine, seed_everything, select_device
from common.errors import UserError, printable
from common.metrics import parameter_count
from common.plots import new_figure, save
from common.results import rows, tables
from common.results.report import mean_std
from common.schedules import make_schedule
from Transformer_Torch.dataset import lm
from Transformer_Torch.dataset.windows import Windows
from Transformer_Torch.model import LanguageModel
from Transformer_Torch.train import RECIPES
from Transformer_Torch.utils.evaluation import mean_loss
from Transformer_Torch.utils.parts import attention_kernel

FOLDER = Path(__file__).resolve().parent
RECORD = FOLDER / "results" / "compare_parts.json"
PARTS = {  # each is added to those above it
    "original": {},
    "RMSNorm": {"norm": "rms"},
    "rotary positions": {"positions": "rotary"},
    "SwiGLU": {"activation": "swiglu"},  # of ⅔ F hidden units: three matrices as large as two were
    "grouped queries": {"kv_heads": 2},
    "no biases": {"bias": False},
    "QK-norm": {"qk_norm": True},
}
TIMED = 20  # steps of each network, and 3 before these
QUICK = {"embed_dim": 32, "num_layers": 1, "feedforward_dim": 64, "max_length": 32}


def make_model(part: str, recipe: dict, vocab_size: int) -> LanguageModel:
    """The network with `part` and all before it."""
    changes = {}
    for name, change in PARTS.items():
        changes |= change
        if name == part:
            break
    D, F = recipe["embed_dim"], recipe["feedforward_dim"]
    if "activation" in changes:
        F = max(8, round(2 * F / 3 / 8) * 8)  # memory likes multiples of 8
    arguments = {"activation": recipe["activation"], "positions": recipe["positions"], **changes}
    return LanguageModel(
        vocab_size, D, recipe["num_heads"], recipe["num_layers"], F, recipe["dropout"],
        max_length=recipe["max_length"], **arguments,
    )  # fmt: skip


def fit(model: LanguageModel, train: Windows, steps: int, recipe: dict, args: Namespace, seed: int):
    """As train.py does it, for a number of steps; yields after each."""
    optimizer = torch.optim.AdamW(
        model.parameters(), args.lr, betas=(0.9, recipe["beta2"]),
        weight_decay=recipe["weight_decay"],
    )  # fmt: skip
    warmup = min(recipe["warmup"], steps // 2)
    schedule = make_schedule(recipe["schedule"], optimizer, args.lr, steps, warmup)
    size, model, device = recipe["batch_size"], model.train(), train.labels.device
    endless = (batch for epoch in count() for batch in train.batches(size, seed, epoch))
    for (tokens,), labels in (next(endless) for _ in range(steps)):
        optimizer.zero_grad()
        with autocast(device, args.precision), attention_kernel(device, args.precision):
            logits = model(tokens)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe["clip"])
        optimizer.step()
        schedule.step()
        if not loss.isfinite():  # also waits for a GPU, so that times are true
            raise UserError("the loss is not finite: take a smaller --lr")
        yield


def time_steps(train: Windows, recipe: dict, args: Namespace) -> dict[str, float]:
    """The median time of a step of each network, in turns, so that all meet the same machine."""
    steps, V = TIMED + 3, len(train.tokenizer)
    fits = {part: fit(make_model(part, recipe, V).to(train.labels.device), train, steps, recipe,
                      args, seed=0) for part in PARTS}  # fmt: skip
    times = {part: [] for part in PARTS}
    for _ in range(steps):
        for part, training in fits.items():
            start = time.perf_counter()
            next(training)
            times[part].append(time.perf_counter() - start)
    return {part: median(found[3:]) for part, found in times.items()}


def run(part: str, seed: int, study: dict, train, validation, recipe, args) -> dict:
    """What a row holds: one network from one seed."""
    seed_everything(seed)
    model = make_model(part, recipe, len(train.tokenizer)).to(train.labels.device)
    steps = max(2, round(args.seconds / study["step_seconds"][part]))
    start = time.perf_counter()
    for _ in fit(model, train, steps, recipe, args, seed):
        pass
    seconds, loss = time.perf_counter() - start, mean_loss(model, validation)
    return {"steps": steps, "seconds": round(seconds, 1), "parameters": parameter_count(model),
            "validation": {"loss": loss}}  # fmt: skip


def of_part(study: dict, part: str) -> list[dict]:
    return rows.matching(study, part=part)


def table(path: Path = RECORD) -> str:
    """The README's table, by common.results.report."""
    if not path.is_file():
        return "Nothing recorded yet."
    study = rows.read(path)
    lines = [["with", "validation loss, nats", "seeds", "steps", "ms per step", "seconds",
              "parameters"]]  # fmt: skip
    for part in [part for part in PARTS if of_part(study, part)]:
        found, loss = of_part(study, part), mean_std(losses(study, part), 1, 4)
        seconds = sum(row["seconds"] for row in found) / len(found)
        name = part if part == "original" else f"+ {part}"
        lines.append([name, loss, f"{len(found)}", f"{found[0]['steps']:,}",
                      f"{1000 * study['step_seconds'][part]:.1f}", f"{seconds:.0f}",
                      f"{found[0]['parameters']:,}"])  # fmt: skip
    where, settings = machine(study["environment"]), study["settings"]
    note = f"Each line adds a part to those above; {settings['dataset']}, {settings['precision']}, "
    note += f"learning rate {settings['lr']:g}. Mean ± standard deviation ({where})."
    return "\n".join([*tables.table(lines), "", note, "", f"`{study['command']}`"])


def losses(study: dict, part: str) -> list[float]:
    return [row["validation"]["loss"] for row in of_part(study, part)]


def draw(path: Path, study: dict) -> None:
    """The loss of every seed over the parts that were added."""
    figure, ((axis,),) = new_figure(size=(7, 3.8))
    parts = [part for part in PARTS if of_part(study, part)]
    for place, part in enumerate(parts):
        found = losses(study, part)
        axis.plot([place] * len(found), found, "o", color="C0", alpha=0.6)
    means = [sum(losses(study, part)) / len(losses(study, part)) for part in parts]
    axis.plot(range(len(parts)), means, color="C0")
    names = [part if part == "original" else f"+ {part}" for part in parts]
    axis.set_xticks(range(len(parts)), names, rotation=25, ha="right")
    settings = study["settings"]
    title = f"{settings['dataset']}, training planned for {settings['seconds']:g} s"
    axis.set(ylabel="validation loss, nats", title=title)
    axis.grid(alpha=0.3)
    save(figure, path)


def main(argv=None):
    parser = cli.Parser(__doc__)
    add, texts = parser.add_argument, [name for name in RECIPES if RECIPES[name]["task"] == "lm"]
    add("--dataset", choices=texts, help=f"the text to learn (default: {texts[0]})")
    add("--data-dir", type=cli.place, help="where the data lies; before $PLAYGROUND_DATA")
    add("--seconds", type=cli.positive, default=165, help="of training, for each network and seed")
    add("--seeds", type=cli.positive_int, default=3, help="trainings of each network: 0, 1, …")
    add("--lr", type=cli.positive, default=3e-3, help="learning rate, the schedule's peak")
    add("--precision", choices=["float32", "bfloat16"], default="bfloat16", help="of products")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--quick", action="store_true", help="a moment each on a small text, to see that it works")
    add("--output", metavar="FILE", help="the rows (default: runs/parts.json)")
    args = parser.parse_args(argv)
    device = select_device(args.device)
    path = Path(args.output or FOLDER / "runs" / ("quick" * args.quick) / "parts.json")
    if args.quick:
        args.dataset, args.seconds, args.seeds = "help-topics", 0.3, 2
    else:
        named, dataset = args.dataset is not None, args.dataset or texts[0]
        args.dataset = lm.or_offline(dataset, named, args.data_dir)
    recipe = {**RECIPES[args.dataset], **(QUICK if args.quick else {})}
    settings = {k: getattr(args, k) for k in ("dataset", "seconds", "lr", "precision")}
    data = Namespace(**{**recipe, **vars(args)})
    train, validation = (split.to(device) for split in lm.load_training(data))
    validation = validation.subset(5000 if args.quick else None)

    def make(part: str, seed: int) -> dict:
        row = run(part, seed, rows.read(path), train, validation, recipe, args)
        print(f"seed {seed}  + {part:16}  {row['steps']:6,} steps in {row['seconds']:5.1f} s  "
              f"validation loss {row['validation']['loss']:.4f}", flush=True)  # fmt: skip
        return row

    keys = [dict(part=part, seed=seed) for seed, part in product(range(args.seeds), PARTS)]
    words = ["--quick"] if args.quick else [f"--{k} {v}" for k, v in settings.items()]
    command = " ".join(["python Transformer_Torch/parts.py", *words])
    study = rows.collect(
        path, settings, command, device, keys, make,
        step_seconds=lambda: time_steps(train, recipe, args),
    )  # fmt: skip
    draw(path.with_name("parts.png"), study)
    print(f"\n{table(path)}\n\nrows in {printable(path)}, picture beside them")


if __name__ == "__main__":
    cli.entry(main)
