"""Starting from weights learned elsewhere, and training the last layer alone."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from common import checkpoint, cli
from common.errors import UserError
from common.evaluation import best_weights


def add_flags(parser: cli.Parser) -> None:
    add = parser.add_argument
    add("--pretrained", help="start from these weights: a checkpoint, .safetensors or .pth")
    add("--freeze", action="store_true", help="train the last layer alone")


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state_dict from a checkpoint of ours, a plain .safetensors or a PyTorch .pth file.

    Raises UserError for anything else. A .pth is read as weights alone: no code runs.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"--pretrained {path} cannot be read: it is no file")
    try:
        if path.suffix != ".safetensors":
            state = read_pth(path)
        else:
            with safetensors.safe_open(path, "pt") as file:
                is_ours = "crc32" in (file.metadata() or {})
            load = checkpoint.load if is_ours else safetensors.torch.load_file
            state = best_weights(load(path)) if is_ours else load(path)
    except OSError as error:
        raise UserError(f"--pretrained {path} cannot be read ({error.strerror or error})") from None
    except UserError:
        raise
    except Exception:  # torch.load lets its unpickler's errors through, of a dozen kinds
        state = None
    tensors = isinstance(state, dict) and all(isinstance(w, Tensor) for w in state.values())
    if not tensors or not all(isinstance(name, str) for name in state):
        raise UserError(
            f"--pretrained {path} is damaged, or holds more than a network's weights (state_dict)"
        )
    return state


def read_pth(path: Path):
    """What `torch.save` wrote of tensors, numbers and names; everything else raises some error.

    `weights_only` alone does not keep code from running: before torch 2.6 it does not hold for
    TorchScript (CVE-2025-32434), which torch tells by a member `constants.pkl`. A zip file names
    its members in plain bytes, so we look for these, whatever else the file may pretend to be.
    """
    content = path.read_bytes()  # once: what was looked at is what is loaded, and never as a tar
    if b"constants.pkl" in content:
        raise UserError(
            f"--pretrained {path} holds a program (TorchScript), which is not run: if you trust "
            "it, save its weights alone as .safetensors; this folder's README shows how"
        )
    if zipfile.is_zipfile(io.BytesIO(content)):
        members = zipfile.ZipFile(io.BytesIO(content)).infolist()
        if sum(member.file_size for member in members) > len(content):  # torch packs nothing
            raise ValueError("what is packed may be of any size")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def load_pretrained(
    model: nn.Module, path: str, head: str, fit: Callable | None = None
) -> list[str]:
    """Load weights from `path`; the layer named `head` is left as it is where its shape differs.

    `fit(weights, model)` first gives weights of other origin the model's names and sizes. Returns
    what was left out. Raises UserError when any other weight is missing or differs.
    """
    weights, own = read_weights(Path(path)), model.state_dict()
    weights = fit(weights, model) if fit else weights
    ours = [name for name in own if name.split(".")[0] == head]
    kept = [name for name in ours if name not in weights or weights[name].shape != own[name].shape]
    weights = {name: value for name, value in weights.items() if name.split(".")[0] != head} | {
        name: weights[name] for name in ours if name not in kept
    }
    checkpoint.restore(model, weights | {name: own[name] for name in kept}, Path(path), "network")
    return kept


def freeze(model: nn.Module, head: str) -> None:
    """Leave only the layer named `head` to be learned."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.split(".")[0] == head)
