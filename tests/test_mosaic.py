"""Many images as one, and films: read back with PIL and torchvision."""

import torch
import torchvision
from PIL import Image

from VAE.utils import film
from VAE.utils.mosaic import mosaic, save_png, to_picture


def test_a_mosaic_is_torchvisions_grid():
    images = torch.rand(6, 3, 5, 4)
    theirs = torchvision.utils.make_grid(images, nrow=3, padding=2, pad_value=1.0)
    # theirs has an outer border
    assert torch.equal(mosaic(images, columns=3), theirs.permute(1, 2, 0)[2:-2, 2:-2])


def test_a_last_row_that_is_not_full_stays_white():
    sheet = mosaic(torch.zeros(3, 1, 2, 2), columns=2)
    assert sheet.shape == (6, 6)
    assert sheet[:2, :2].sum() == 0 and sheet[4:, :2].sum() == 0
    assert (sheet[4:, 4:] == 1).all() and (sheet[2:4] == 1).all()


def test_a_picture_has_whole_pixels(tmp_path):
    sheet = torch.tensor([[0.0, 0.5], [1.0, 2.0]])
    save_png(tmp_path / "sheet.png", sheet, scale=3)
    with Image.open(tmp_path / "sheet.png") as kept:
        for picture in (to_picture(sheet, scale=3), kept):
            assert picture.size == (6, 6) and picture.mode == "L"
            corners = ((0, 0), (5, 0), (0, 5), (5, 5))
            assert [picture.getpixel(p) for p in corners] == [0, 128, 255, 255]


def test_frames_are_kept_of_more_of_the_beginning():
    kept = [epoch for epoch in range(1, 2_001) if film.is_filmed(epoch)]
    assert kept[:9] == list(range(1, 10)) and len(kept) == 38


def test_a_film_holds_its_frames_and_repeats(tmp_path):
    for epoch, value in ((1, 0.0), (2, 0.4), (10, 0.6), (11, 1.0)):
        film.keep_frame(tmp_path, epoch, torch.full((4, 6), value))
    kept = [int(path.stem) for path in sorted((tmp_path / "frames").iterdir())]
    assert kept == [1, 2, 11], "the tenth epoch is not filmed"
    film.make_film(tmp_path, milliseconds=50)
    with Image.open(tmp_path / "training.gif") as film_:
        assert film_.n_frames == 3 and film_.info["loop"] == 0 and film_.size == (6, 4 + film.STRIP)
        levels, times = [], []
        for k in range(3):
            film_.seek(k)
            levels.append(film_.convert("L").getpixel((2, film.STRIP + 2)))
            times.append(film_.info["duration"])
    assert levels == [0, 102, 255] and times == [50, 50, 500]

    Image.new("L", (9, 9)).save(tmp_path / "frames" / "cover.png")  # somebody else's
    film.make_film(tmp_path)
    with Image.open(tmp_path / "training.gif") as film_:
        assert film_.n_frames == 3


def test_a_run_without_frames_has_no_film(tmp_path):
    film.make_film(tmp_path)
    assert not list(tmp_path.iterdir())
