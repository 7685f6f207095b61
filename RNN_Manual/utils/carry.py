"""What a run of a language model keeps beside its network: both go into the checkpoints."""

import torch
from torch import Tensor


class CarriedState:
    """The hidden state between the windows of truncated BPTT: its value is carried on, its
    gradient is not (Williams & Peng, 1990)."""

    def __init__(self, device: torch.device):
        self.device, self.value = device, None

    def reset(self) -> None:
        """At the beginning of the text."""
        self.value = None

    def state_dict(self) -> dict:
        return {"value": self.value}

    def load_state_dict(self, state: dict) -> None:
        """Take back what a checkpoint holds, where an LSTM's pair came as a list."""
        value = state["value"]
        if isinstance(value, (list, tuple)):
            self.value = tuple(part.to(self.device) for part in value)
        else:
            self.value = value if value is None else value.to(self.device)


class Vocabulary:
    """The characters in the order of their tokens."""

    def __init__(self, characters: list[str]):
        self.characters = characters
        self.tokens = {character: token for token, character in enumerate(characters)}

    def encode(self, text: str) -> Tensor:
        """(n,) int64. Raises ValueError for an empty text, and naming characters unknown here."""
        if not text:
            raise ValueError("it is empty: there is nothing to go on from")
        unknown = sorted(set(text) - self.tokens.keys())
        if unknown:
            raise ValueError(f"not in the vocabulary: {' '.join(map(repr, unknown))}")
        return torch.tensor([self.tokens[character] for character in text], dtype=torch.int64)

    def state_dict(self) -> dict:
        return {"characters": "".join(self.characters)}

    def load_state_dict(self, state: dict) -> None:
        """Raises ValueError for another vocabulary: the weights belong to the characters."""
        if list(state["characters"]) != self.characters:
            raise ValueError(f"it has the characters {state['characters']!r}")
