"""torch.optim under the names of the flags: the twin of CNN_Manual/utils/optim.py.

Its schedules' twins are in common/schedules.py.
"""

from functools import partial

from torch import optim

OPTIMIZERS = {
    "sgd": optim.SGD,
    "momentum": partial(optim.SGD, momentum=0.9),
    "nesterov": partial(optim.SGD, momentum=0.9, nesterov=True),
    "adagrad": optim.Adagrad,
    "rmsprop": optim.RMSprop,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
}
