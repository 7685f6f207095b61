"""What happened to both players, step by step: a part of the run, so that it survives a stop."""

import torch
from torch import Tensor

from common.errors import UserError

PLAYERS = ("discriminator", "generator")


class Diary:
    """For each player, rows of (step, loss, gradient's norm): (n, 3) in `rows()`; and which `judge`
    measures the distances of the run, so that the history does not mix those of two."""

    def __init__(self, judge: str = ""):
        self.judge = judge
        self.entries: dict[str, list[tuple[float, float, float]]] = {name: [] for name in PLAYERS}

    def add(self, player: str, step: int, loss: Tensor, norm: Tensor) -> bool:
        """Note a player's step. Returns whether both numbers are finite."""
        numbers = torch.stack([loss.detach().float(), norm.float()])
        self.entries[player].append((step, *numbers.tolist()))
        return bool(numbers.isfinite().all())

    def rows(self, player: str) -> Tensor:
        return torch.tensor(self.entries[player]).view(-1, 3)

    def state_dict(self) -> dict[str, Tensor | str]:
        return {**{player: self.rows(player) for player in PLAYERS}, "judge": self.judge}

    def load_state_dict(self, state: dict[str, Tensor | str]) -> None:
        """Raises UserError for another judge's; older runs do not say whose they are."""
        if state.get("judge", self.judge) != self.judge:
            raise UserError(
                f"classifier {state['judge']} judged this run, and the one here is {self.judge}: "
                "put that one's file back, or start without --resume"
            )
        rows = {player: state[player].view(-1, 3).tolist() for player in PLAYERS}
        self.entries = {player: list(map(tuple, rows[player])) for player in PLAYERS}
