"""torch.optim under the names of the flags: the twin of Transformer_Manual/utils/optim.py.

Its schedules' twins are in common/schedules.py.
"""

from torch import optim

OPTIMIZERS = {"adam": optim.Adam, "adamw": optim.AdamW}
