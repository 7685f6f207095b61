"""What is carried from one window of a text to the next."""

import torch


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
