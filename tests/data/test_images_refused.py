"""Images that cannot be scored are refused: the message says which image, which pixel or file, and what is accepted."""

import numpy as np
import pytest

from thetahat.data.images import Images
from thetahat.errors import BadArgument, EmptyData, MalformedFile, NotFinite, OutOfSupport


def test_images_of_mixed_shape_are_refused_and_the_first_that_differs_is_named():
    """By the definition of a source: one shape for all."""
    with pytest.raises(BadArgument, match=r"image 1 has the shape \(3, 2\), image 0 \(2, 2\)"):
        Images([np.zeros((2, 2)), np.zeros((3, 2))])


@pytest.mark.parametrize(
    ("value", "error"), [(256.0, OutOfSupport), (-1.0, OutOfSupport), (0.5, OutOfSupport), (np.nan, NotFinite)]
)
def test_a_pixel_that_is_no_level_is_named(value, error):
    """Levels are whole numbers 0 … 255; the bad pixel was put at image 1, row 0, column 1."""
    array = np.zeros((3, 2, 2))
    array[1, 0, 1] = value
    with pytest.raises(error, match=r"image 1, pixel \(0, 1\).*\(1 such pixels\).*0 … 255"):
        Images(array)


def test_no_images_are_refused():
    """An empty list, and an array of none."""
    with pytest.raises(EmptyData, match="no images"):
        Images([])
    with pytest.raises(EmptyData, match=r"\(0, 2, 2\)"):
        Images(np.zeros((0, 2, 2)))


def test_a_file_of_images_that_is_missing_cut_short_or_of_another_kind_is_named(tmp_path):
    """IDX as LeCun describes it: a header of lengths, then so many bytes. Whole, it is read; a byte less, it is not."""
    values = np.arange(8, dtype=np.uint8)
    whole = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 2, 2)) + values.tobytes()
    (tmp_path / "whole").write_bytes(whole)
    assert Images(tmp_path / "whole").whole["y"].reshape(-1).tolist() == values.tolist()
    (tmp_path / "short").write_bytes(whole[:-1])
    (tmp_path / "text").write_text("no images here")
    for name, said in (("short", "short is cut short"), ("text", "text is no IDX file"), ("none", "none: there is no such file")):
        with pytest.raises(MalformedFile, match=said):
            Images(tmp_path / name)
