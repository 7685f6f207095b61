"""What the tests on a GPU share. `pytest -m gpu` runs them; where there is none, they are skipped.

They need no network and no data but what code makes.
"""

import pytest
import torch

from tests.running import few_shapes, script, short_strings, small

KORNIA = ("GAN", "ResNet", "ViT")  # these folders augment their images with it


@pytest.fixture(scope="session")
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU that torch can use")
    return torch.device("cuda")


@pytest.fixture
def gpu(device) -> str:
    """The GPU's name."""
    return torch.cuda.get_device_name(device)


@pytest.fixture(autouse=True)
def same_arithmetic(monkeypatch):
    """Convolutions and recurrent layers in float32 (their default on a GPU is TF32, which has 10
    bits of mantissa instead of 23), and by algorithms that give the same sum each time."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.fixture(autouse=True)
def few_examples(monkeypatch):
    few_shapes(monkeypatch)
    short_strings(monkeypatch)


@pytest.fixture(scope="session")
def learn(tmp_path_factory):
    """A function (folder, device, *flags) -> the folder of a run on little data, made by code.

    With `task="lm"`, a Transformer learns to write, from a text file.
    """
    text = tmp_path_factory.mktemp("text")
    (text / "input.txt").write_text("".join(f"{n} {'abc' * (n % 3)}\n" for n in range(300)))
    of_text = ["--task", "lm", "--dataset", "text", "--data-dir", text, "--subset", 900,
               "--batch-size", 4, "--max-length", 16, "--sample-length", 10]  # fmt: skip

    def train(folder: str, device, *flags, task: str = "", epochs: int = 2):
        if folder in KORNIA:
            pytest.importorskip("kornia")
        argv = small(folder)
        if task == "lm":
            argv = [*of_text, *argv[argv.index("--embed-dim") :]]
        path = tmp_path_factory.mktemp(folder) / "run"
        argv = [*argv, "--epochs", epochs, "--device", device, "--run-dir", path, *flags]
        script(folder).main([*map(str, argv)])
        return path

    return train
