"""Many images as one, and films: read back with PIL and torchvision."""

import pytest
import torch
import torchvision
from PIL import Image

from common.mosaic import mosaic, save_gif, to_picture


def test_a_mosaic_is_torchvisions_grid():
    images = torch.rand(6, 3, 5, 4)
    theirs = torchvision.utils.make_grid(images, nrow=3, padding=2, pad_value=1.0)
    ours = mosaic(images.permute(0, 2, 3, 1), columns=3)
    assert torch.equal(ours, theirs.permute(1, 2, 0)[2:-2, 2:-2])  # theirs has an outer border


def test_a_last_row_that_is_not_full_stays_white():
    sheet = mosaic(torch.zeros(3, 2, 2), columns=2)
    assert sheet.shape == (6, 6)
    assert sheet[:2, :2].sum() == 0 and sheet[4:, :2].sum() == 0
    assert (sheet[4:, 4:] == 1).all() and (sheet[2:4] == 1).all()


def test_a_picture_has_whole_pixels():
    picture = to_picture(torch.tensor([[0.0, 0.5], [1.0, 2.0]]), scale=3)
    assert picture.size == (6, 6) and picture.mode == "L"
    assert [picture.getpixel(p) for p in ((0, 0), (5, 0), (0, 5), (5, 5))] == [0, 128, 255, 255]


def test_a_film_holds_its_frames_and_repeats(tmp_path):
    frames = [torch.full((4, 6), value) for value in (0.0, 0.4, 1.0)]
    save_gif(tmp_path / "film.gif", frames, milliseconds=50, scale=1)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 3 and film.info["loop"] == 0 and film.size == (6, 4)
        levels, times = [], []
        for k in range(3):
            film.seek(k)
            levels.append(film.convert("L").getpixel((2, 2)))
            times.append(film.info["duration"])
    assert levels == [0, 102, 255] and times == [50, 50, 500]


def test_a_film_without_frames_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        save_gif(tmp_path / "film.gif", [])
    assert not list(tmp_path.iterdir())
