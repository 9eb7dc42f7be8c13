"""Contact sheets: every pixel where it belongs, read back by another reader of PNG."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from thetahat.errors import BadArgument
from thetahat.report.pictures import grid, png, tiled


def test_images_stand_row_by_row_with_white_between() -> None:
    """A sheet of three 1 × 2 images in two columns, by hand."""
    sheet = tiled(torch.tensor([[0, 1], [2, 3], [3, 0]]), (1, 2), levels=4, columns=2)
    assert sheet.tolist() == [[0, 85, 255, 170, 255], [255] * 5, [255, 0, 255, 255, 255]]


def test_colours_come_channel_by_channel() -> None:
    """One pixel of red 1, green 2, blue 3, as `Images` lays it out."""
    assert tiled(np.array([[1, 2, 3]]), (3, 1, 1)).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_the_png_is_what_other_software_reads(shape: tuple[int, ...]) -> None:
    image = pytest.importorskip("PIL.Image")
    sheet = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with image.open(io.BytesIO(png(sheet))) as read:
        assert np.array_equal(np.asarray(read), sheet)


def test_a_sheet_is_saved_small(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 2, (20, 784))
    grid(images, (28, 28), levels=2, scale=2).save(str(tmp_path / "sheet.svg"))
    assert 1000 < (tmp_path / "sheet.svg").stat().st_size < 100_000


@pytest.mark.parametrize(
    ("images", "shape", "settings", "says"),
    [
        (np.zeros((2, 5)), (2, 2), {}, r"\(2, 5\).*\(n, 4\)"),
        (np.full((1, 4), 2), (2, 2), {"levels": 2}, "image 0, pixel 0 is 2"),
        (np.full((1, 4), np.nan), (2, 2), {}, "pixel 0 is nan"),
        (np.zeros((1, 4)), (2, 2), {"columns": 0}, "columns=0"),
        (np.zeros((1, 4)), (4,), {}, r"shape=\(4,\)"),
        (np.zeros((1, 4)), (2, 2), {"scale": 0}, "scale=0"),
    ],
)
def test_what_is_no_sheet_is_named(
    images: np.ndarray, shape: tuple[int, ...], settings: dict[str, int], says: str
) -> None:
    with pytest.raises(BadArgument, match=says):
        grid(images, shape, **settings)
