"""What happened to both players, step by step: a part of the run, so that it survives a stop."""

import torch
from torch import Tensor

PLAYERS = ("discriminator", "generator")


class Diary:
    """For each player, rows of (step, loss, gradient's norm): (n, 3) in `rows()`."""

    def __init__(self):
        self.entries: dict[str, list[tuple[float, float, float]]] = {name: [] for name in PLAYERS}

    def add(self, player: str, step: int, loss: Tensor, norm: Tensor) -> bool:
        """Note a player's step. Returns whether both numbers are finite."""
        numbers = torch.stack([loss.detach().float(), norm.float()])
        self.entries[player].append((step, *numbers.tolist()))
        return bool(numbers.isfinite().all())

    def rows(self, player: str) -> Tensor:
        return torch.tensor(self.entries[player]).view(-1, 3)

    def state_dict(self) -> dict[str, Tensor]:
        return {player: self.rows(player) for player in PLAYERS}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        rows = {player: state[player].view(-1, 3).tolist() for player in PLAYERS}
        self.entries = {player: list(map(tuple, rows[player])) for player in PLAYERS}
