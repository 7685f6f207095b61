"""The datasets that this folder learns; what is downloaded lies here too.

The reading itself is `common.vision`, which ResNet shares.
"""

from argparse import Namespace
from pathlib import Path

from common import vision
from common.data import Split

FOLDER = Path(__file__).resolve().parent.parent


def load_training(args: Namespace) -> tuple[Split, Split]:
    """The training and validation splits: uint8 images (N, C, H, W), labels (N,)."""
    return vision.load_training(args, FOLDER)


def load_test(args: Namespace) -> Split:
    """The test split, for test.py alone."""
    return vision.load_test(args, FOLDER)
