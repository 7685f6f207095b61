"""Starting from weights learned elsewhere: torchvision's names, and another image size."""

import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCK = r"encoder\.layers\.encoder_layer_(\d+)\."
NAMES = {  # torchvision.models.VisionTransformer -> ours
    r"conv_proj\.(.+)": r"stem.projection.\1",
    r"class_token": r"class_token",
    r"encoder\.pos_embedding": r"position_embedding",
    BLOCK + r"ln_([12])\.(.+)": r"blocks.\1.norm\2.\3",
    BLOCK + r"self_attention\.in_proj_(.+)": r"blocks.\1.attention.qkv.\2",
    BLOCK + r"self_attention\.out_proj\.(.+)": r"blocks.\1.attention.projection.\2",
    BLOCK + r"mlp\.(?:0|linear_1)\.(.+)": r"blocks.\1.mlp.linear1.\2",
    BLOCK + r"mlp\.(?:3|linear_2)\.(.+)": r"blocks.\1.mlp.linear2.\2",
    r"encoder\.ln\.(.+)": r"norm.\1",
    r"heads\.head\.(.+)": r"head.\1",
}


def from_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state_dict of a torchvision ViT under our names; shapes and values are the same.

    `linear_1` and `linear_2` are the names in the published files, `0` and `3` those that
    torchvision itself has used since 0.13. Names that are in none of the rows stay as they are.
    """
    renamed = {}
    for name, value in state.items():
        matches = ((re.fullmatch(theirs, name), ours) for theirs, ours in NAMES.items())
        renamed[next((m.expand(ours) for m, ours in matches if m), name)] = value
    return renamed


def resize_positions(positions: Tensor, length: int) -> Tensor:
    """Learned positions (1, T, D) for another number of patches: (1, length, D).

    Positions stand for places in the image, so their grid is stretched (section 3.2): bicubically,
    corner to corner, as in torchvision. A class token's position stays as it is.
    """
    T, D = positions.shape[1:]
    sides = round(T**0.5), round(length**0.5)
    extra = T - sides[0] ** 2  # 1 with a class token
    if extra not in (0, 1) or length - sides[1] ** 2 != extra or length == T:
        return positions
    token, grid = positions[:, :extra], positions[:, extra:]
    grid = grid.view(1, sides[0], sides[0], D).permute(0, 3, 1, 2)  # (1, D, side, side)
    size = (sides[1], sides[1])
    grid = F.interpolate(grid, size=size, mode="bicubic", align_corners=True)
    return torch.cat([token, grid.flatten(2).transpose(1, 2)], dim=1)


def fit_weights(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Torchvision's names become ours, and positions are resized to the model's images."""
    weights, own = from_torchvision(weights), model.state_dict()
    if "position_embedding" in weights and "position_embedding" in own:
        length = own["position_embedding"].shape[1]
        weights["position_embedding"] = resize_positions(weights["position_embedding"], length)
    return weights
