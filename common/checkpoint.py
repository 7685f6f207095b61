"""Checkpoints: any nesting of dicts, lists, numbers and tensors in one safetensors file.

Tensors are stored under their dotted path ("model.layers.0.weight"), so other programs can read
them; the rest travels as JSON in the file's metadata. No pickle: loading runs no code.
"""

import json
import os
import re
import secrets
import textwrap
import time
import zlib
from contextlib import suppress
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from common.errors import UserError, reading

TEMPORARY = ".part"  # what the name of a file that is being written ends with


def save(path: Path, state: dict) -> None:
    """Write `state` to a temporary name, then rename: `path` is always a whole checkpoint. Raises
    UserError when it cannot be written (a full disk); what was at `path` stays."""
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(pack(state, "", tensors))
    metadata = {"state": skeleton, "crc32": checksum(skeleton, tensors)}
    write_atomically(path, safetensors.torch.save(tensors, metadata))


def load(path: Path, *parts: str) -> dict:
    """The state that `save` wrote, on the CPU.

    Raises UserError for a file that is missing, damaged, no checkpoint of ours, or without `parts`.
    """
    with reading(path, "is damaged or no checkpoint of this project"):
        content = path.read_bytes()  # once: a running training may replace the file
        header = content[8 : 8 + int.from_bytes(content[:8], "little")]
        metadata = json.loads(header)["__metadata__"]
        tensors = safetensors.torch.load(content)
        if checksum(metadata["state"], tensors) != metadata["crc32"]:
            raise ValueError("its checksum is wrong")
        state = unpack(json.loads(metadata["state"]), tensors)
        lacking = [part for part in parts if part not in state]
    if lacking:
        raise UserError(f"{path} is of another folder's network: it has no {', '.join(lacking)}")
    return state


def restore(part, state: dict, path: Path, what: str, stepped: bool = False) -> None:
    """`part.load_state_dict(state)`; one that is of another part, or not finite, is a UserError.
    So is an optimiser's from before its first step, if it must have `stepped`."""
    with reading(path, f"is of another {what}"):
        if isinstance(part, torch.optim.Optimizer):  # which trusts its state until the next step
            state = fitting(part, state, stepped)
        elif stepped and state.get("t") == 0:  # one that is written by hand
            raise ValueError("it has taken no step")
        part.load_state_dict(state)
        pack(state, "", given := {})
        pack(part.state_dict(), "", taken := {})
        for name, tensor in given.items():
            if tensor.dtype != taken.get(name, tensor).dtype or not tensor.isfinite().all():
                raise ValueError(f"{name} is not finite, or of {tensor.dtype}")


def fitting(optimizer: torch.optim.Optimizer, state: dict, stepped: bool) -> dict:
    """What `state` keeps of each parameter, with this optimiser's own lr, betas and so on. Raises
    ValueError unless that is what the optimiser keeps after a step, or nothing before its first.
    That step is taken by another like it, on the device "meta": tensors have shapes, no numbers."""
    own, groups = optimizer.state_dict(), [dict(group) for group in optimizer.param_groups]
    for group in groups:
        group["params"] = [torch.zeros_like(p, device="meta") for p in group["params"]]
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    like = type(optimizer)(groups, lr=0.0)
    like.step()
    shapes, needed = (
        {(index, name): torch.as_tensor(value).shape for index, kept in each["state"].items()
         for name, value in kept.items() if value is not None}
        for each in (state, like.state_dict())
    )  # fmt: skip
    params, wanted = ([g["params"] for g in each["param_groups"]] for each in (state, own))
    steps = [kept.get("step", kept.get("t", 0)) for kept in state["state"].values()]
    if params != wanted or (shapes != needed and (shapes or stepped)) or min(steps, default=0) < 0:
        raise ValueError("it does not keep what this one does")
    return {**own, "state": state["state"]}


def checksum(skeleton: str, tensors: dict[str, Tensor]) -> str:
    """CRC-32 of everything a checkpoint holds: safetensors itself has no checksum."""
    crc = zlib.crc32(skeleton.encode())
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.flatten().view(torch.uint8).numpy(), crc)
    return str(crc)


def pack(value, path: str, tensors: dict[str, Tensor]):
    """A JSON skeleton of `value`; its tensors go into `tensors` under their dotted path."""
    if isinstance(value, Tensor):
        while path in tensors:  # {"a": {"b": …}, "a.b": …}
            path += "'"
        tensors[path] = value.detach().cpu().clone().contiguous()  # views must not share memory
        return {"tensor": path}
    if isinstance(value, dict):  # as pairs: JSON keys are strings, torch.optim's are numbers too
        return {"dict": [[k, pack(v, f"{path}.{k}" if path else str(k), tensors)]
                         for k, v in value.items()]}  # fmt: skip
    if isinstance(value, (list, tuple)):
        return [pack(v, f"{path}.{i}", tensors) for i, v in enumerate(value)]
    return value


def unpack(skeleton, tensors: dict[str, Tensor]):
    """The inverse of `pack` (tuples come back as lists)."""
    if isinstance(skeleton, list):
        return [unpack(value, tensors) for value in skeleton]
    if isinstance(skeleton, dict):
        if "tensor" in skeleton:
            return tensors[skeleton["tensor"]]
        return {key: unpack(value, tensors) for key, value in skeleton["dict"]}
    return skeleton


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file for people to read; the folder that it lies in is made where needed."""
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it, so that no reader sees half of it. The
    name is nobody else's and cannot be guessed. Unlike mkstemp's, the file has usual rights."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        for seconds in (0.2, 2) if os.name == "nt" else ():  # a reader there keeps others out
            with suppress(PermissionError):
                return os.replace(temporary, path)
            time.sleep(seconds)
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            reason = f"cannot write {path}: {error.strerror}; what was there stays"
            raise UserError(reason) from None
        raise


def remove_leftovers(folder: Path, seconds: float = 0) -> None:
    """Remove what killed processes left of `write_atomically` in a folder and those right below it,
    if nobody has written into it for so many seconds."""
    for name in (f".*{TEMPORARY}", f"*/.*{TEMPORARY}"):
        for path in folder.glob(name):
            ours = re.fullmatch(rf"\..+\.[0-9a-f]{{16}}{re.escape(TEMPORARY)}", path.name)
            with suppress(OSError):  # another process was faster
                if ours and time.time() - path.stat().st_mtime >= seconds:
                    path.unlink()


def check_same(path: Path, state: dict, here: dict, instead: str) -> None:
    """Raises UserError where the data `here` are not what was learned; advises what `instead`."""
    known = {**here, **state.get("data", {})}  # older runs do not say
    check_classes(path, known.get("classes"), here.get("classes"))
    again = f"put back what it learned from, or {instead}"
    if known.get("examples") != here.get("examples", known.get("examples")):
        counts = f"{known['examples']:,} examples, and there are {here['examples']:,} now"
        raise UserError(f"{path} is of a run on {counts}: {again}")
    for name in sorted(known["checksums"].keys() & here["checksums"].keys()):
        if known["checksums"][name] != here["checksums"][name]:
            raise UserError(f"{path} is of a run on other content of {name}: {again}")


def check_classes(path: Path, known: list[str] | None, classes: list[str] | None) -> None:
    """Raises UserError for classes that are not those of a run, in its order. None is unknown."""
    if known is None or classes is None or list(known) == list(classes):
        return
    first = len(os.path.commonprefix([known, classes])) if max(len(known), len(classes)) > 10 else 0
    there, here = (
        f"{len(names)}: {'… ' if first else ''}{textwrap.shorten(', '.join(names[first:]), 80)}"
        for names in (known, classes)
    )
    raise UserError(f"{path} knows other classes, {there}; those of the data are {here}")
