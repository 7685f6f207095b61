"""ResNet/utils/hardest.py: which images of a batch are learned, and what the proxy learns."""

import copy
from argparse import Namespace

import pytest
import torch
from torch.nn import functional as F

from common import checkpoint
from common.data import Split
from common.errors import UserError
from ResNet import train as script
from ResNet.dataset import coloured_shapes
from ResNet.dataset.normalize import Normalize
from ResNet.model import ResNet
from ResNet.utils.hardest import Hardest
from tests.running import assert_one_line, call, history, small, torchrun
from tests.test_distributed import possible

pytestmark = pytest.mark.usefixtures("seeded")
N, K = 12, 16


@pytest.fixture(scope="module")
def shapes():
    return coloured_shapes.make("validation").subset(60)


def hardest_of(shapes, **changed):
    usual = dict(
        hardest=0.5, batch_size=N, accumulate=1, optimizer="nesterov", lr=0.1, weight_decay=0.01,
        precision="float32", label_smoothing=0.2,
    )  # fmt: skip
    args = Namespace(**{**usual, **changed})
    return Hardest(args, shapes, Normalize("shapes", torch.device("cpu")))


def smoothed_loss(logits, targets, smoothing=0.2):
    """The mean over classes of -target · log p, written out: (N,)."""
    shares = F.one_hot(targets, K).float() if targets.dim() == 1 else targets
    shares = shares * (1 - smoothing) + smoothing / K
    return -(shares * (logits - logits.logsumexp(1, keepdim=True))).sum(1)


def divergence(logits, targets, smoothing=0.2):
    """Of the targets from the answers, by PyTorch: the loss without what no answer avoids, (N,)."""
    shares = F.one_hot(targets, K).float() if targets.dim() == 1 else targets
    shares = shares * (1 - smoothing) + smoothing / K
    return F.kl_div(logits.log_softmax(1), shares, reduction="none").sum(1)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("share, kept", [(0.5, 6), (0.25, 3), (0.9, 11)])
def test_what_is_kept_is_farthest_from_its_target_in_the_proxy(shapes, share, kept, mixed):
    hardest = hardest_of(shapes, hardest=share)
    before = copy.deepcopy(hardest.parts["proxy"]).train()
    images = torch.randn(N, 3, 32, 32)
    targets = torch.rand(N, K).softmax(1) if mixed else torch.randint(K, (N,))
    kept_images, kept_targets = hardest(images, targets, 0.1)
    order = divergence(before(images), targets).argsort(descending=True)[:kept]
    assert len(order) == kept
    assert torch.equal(kept_images, images[order]) and torch.equal(kept_targets, targets[order])


def test_images_mixed_in_halves_that_the_proxy_knows_are_not_the_hardest(shapes, monkeypatch):
    """Their loss is larger than that of the others, which the proxy knows less well."""
    hardest = hardest_of(shapes, label_smoothing=0.1)
    targets = torch.eye(K)[:N]
    targets[6:] = (targets[6:] + targets[6:].roll(1, 0)) / 2
    logits = (targets * 0.9 + 0.1 / K).log()  # no answer is better
    logits[:6] += 0.3 * torch.randn(6, K)
    logits.requires_grad_()
    losses = smoothed_loss(logits, targets, 0.1)
    assert losses[:6].max() < losses[6:].min()
    monkeypatch.setattr(hardest, "network", lambda images: logits)
    images = torch.randn(N, 3, 32, 32)
    kept, _ = hardest(images, targets, 0.1)
    assert {int((images == image).flatten(1).all(1).nonzero()) for image in kept} == set(range(6))


def test_the_proxy_learns_from_whole_batches_at_the_rate_of_the_large_network(shapes):
    hardest = hardest_of(shapes, weight_decay=0.0)
    proxy = hardest.parts["proxy"]
    alone = copy.deepcopy(proxy).train()
    learned = [p for p in alone.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=1.0, momentum=0.9, nesterov=True)
    for lr in (0.1, 0.3, 0.02):
        images, labels = torch.randn(N, 3, 32, 32), torch.randint(K, (N,))
        hardest(images, labels, lr)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        smoothed_loss(alone(images), labels).mean().backward()
        optimizer.step()
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(proxy.state_dict()[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.smoke
def test_without_the_flag_there_is_no_proxy_and_all_is_learned(shapes):
    hardest = hardest_of(shapes, hardest=0.0)
    images, labels = torch.randn(N, 3, 32, 32), torch.randint(K, (N,))
    kept = hardest(images, labels, 0.1)
    assert hardest.parts == {} and kept[0] is images and kept[1] is labels


def test_the_large_network_sees_what_is_kept_and_the_checkpoint_holds_the_proxy(
    monkeypatch, tmp_path, capsys
):
    sizes, forward = [], ResNet.forward

    def note(self, images):
        if self.training and images.device.type == "cpu":  # not the check of shapes
            sizes.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(ResNet, "forward", note)
    flags = ["--model", "resnet20", "--hardest", 0.5, "--accumulate", 2, "--epochs", 1]
    call(capsys, script.main, *small("ResNet"), *flags, "--run-dir", tmp_path / "run")
    assert sizes == [4] * 8  # 64 images in batches of 16: 8 are kept, in two parts
    state = checkpoint.load(tmp_path / "run" / "last.safetensors")
    assert state["proxy"]["fc.weight"].shape == (16, 128) and state["proxy_optimizer"]["state"]


def test_a_network_learns_shapes_from_their_hardest_half(tmp_path, capsys):
    flags = ["--dataset", "shapes", "--subset", 2000, "--hardest", 0.5, "--epochs", 3]
    call(capsys, script.main, *flags, "--run-dir", tmp_path / "run")
    assert float(history(tmp_path / "run")[-1]["validation_accuracy"]) > 0.9


@pytest.mark.smoke
@pytest.mark.parametrize(
    "flags, parts",
    [
        ("--hardest 1", ["--hardest", "below 1"]),
        ("--hardest -0.5", ["--hardest", "at least 0"]),
        ("--hardest 0.05", ["--hardest 0.05 leaves 1 of 16 images"]),
        ("--hardest 0.5 --accumulate 8", ["leaves 8 of 16 images", "8 equal parts"]),
        ("--hardest 0.3 --accumulate 2", ["leaves 5 of 16 images", "2 equal parts"]),
    ],
)
def test_too_few_to_learn_from_is_one_line_and_leaves_nothing(flags, parts, tmp_path, capsys):
    argv = [*small("ResNet"), "--run-dir", tmp_path / "run", *flags.split()]
    assert_one_line(call(capsys, script.main, *argv), *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.smoke
def test_images_too_small_for_the_proxy_are_refused():
    """resnet9-small halves them three times, and then takes the largest of what is left."""
    for side in (8, 9):
        images = torch.zeros(20, 3, side, side, dtype=torch.uint8)
        split = Split(images, torch.arange(20) % K, [str(k) for k in range(K)], {})
        if side == 9:
            assert hardest_of(split).kept == N // 2
            continue
        with pytest.raises(UserError, match="resnet9-small .of --hardest. cannot learn .* 8 x 8"):
            hardest_of(split)


def test_a_proxy_that_diverges_is_one_line(shapes):
    """It would pick images by losses that mean nothing, and its checkpoint could not be resumed."""
    hardest = hardest_of(shapes)
    with torch.no_grad():
        hardest.parts["proxy"].fc.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="small network of --hardest diverges"):
        hardest(torch.randn(N, 3, 32, 32), torch.randint(K, (N,)), 0.1)


@pytest.mark.long
@pytest.mark.skipif(not possible, reason="torchrun with gloo")
def test_two_processes_each_keep_the_hardest_of_their_share(tmp_path):
    flags = ["--hardest", 0.5, "--epochs", 1, "--run-dir", tmp_path / "run"]
    result = torchrun("-m", "ResNet.train", *small("ResNet"), *flags)
    assert result.code == 0, result.err
    assert len(history(tmp_path / "run")) == 1
