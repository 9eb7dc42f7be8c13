"""Images that cannot be scored are refused: the message says which image, which pixel or file, and what is
accepted."""

import struct
import zlib

import numpy as np
import pytest
import torch

from thetahat.errors import BadArgument, EmptyData, MalformedFile, NotFinite, OutOfSupport
from thetahat.generative import ConvNet, Shifts
from thetahat.generative.images import Images


def test_images_of_mixed_shape_are_refused_and_the_first_that_differs_is_named():
    """By the definition of a source: one shape for all."""
    with pytest.raises(BadArgument, match=r"image 1 has the shape \(3, 2\), image 0 \(2, 2\)"):
        Images([np.zeros((2, 2)), np.zeros((3, 2))])


@pytest.mark.parametrize(
    ("value", "error"),
    [(256.0, OutOfSupport), (-1.0, OutOfSupport), (0.5, OutOfSupport), (np.nan, NotFinite)],
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
    """IDX as LeCun describes it: a header of lengths, then so many bytes. Whole, it is read; a byte less,
    it is not."""
    values = np.arange(8, dtype=np.uint8)
    whole = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 2, 2)) + values.tobytes()
    (tmp_path / "whole").write_bytes(whole)
    assert Images(tmp_path / "whole").whole["y"].reshape(-1).tolist() == values.tolist()
    (tmp_path / "short").write_bytes(whole[:-1])
    (tmp_path / "text").write_text("no images here")
    for name, said in (
        ("short", "short is cut short"),
        ("text", "text is not an IDX file"),
        ("none", "none: there is no such file"),
    ):
        with pytest.raises(MalformedFile, match=said):
            Images(tmp_path / name)


def test_images_whose_channels_come_last_are_refused():
    """(n, H, W, 3) is how many libraries have them; read as (n, C, H, W) it would be another image, without a
    word."""
    with pytest.raises(
        BadArgument, match=r"\(8, 6, 3\): their channels come last. Give x.transpose\(0, 3, 1, 2\)"
    ):
        Images(np.zeros((5, 8, 6, 3), dtype=np.uint8))
    assert Images(np.zeros((5, 3, 8, 6), dtype=np.uint8)).shape == (3, 8, 6)
    assert Images(np.zeros((5, 3, 8, 3), dtype=np.uint8)).shape == (3, 8, 3), (
        "which might be either is read as it is defined"
    )


def test_a_network_of_images_and_its_shifts_refuse_another_order_of_pixels():
    """Of the 3 · 4 · 6 numbers only the order says which image they are."""
    net, shifts, g = ConvNet((3, 4, 6), 2, (4,)), Shifts((3, 4, 6), 1), torch.Generator()
    for x in (torch.zeros(2, 4, 6, 3), torch.zeros(2, 3, 6, 4), torch.zeros(2, 12, 6), torch.zeros(2, 71)):
        for read in (net, lambda x: shifts(x, g)):
            with pytest.raises(BadArgument, match=r"images of shape \(3, 4, 6\); received a batch of shape"):
                read(x)
    with pytest.raises(BadArgument, match=r"Channels come first: x.permute\(0, 3, 1, 2\)"):
        net(torch.zeros(2, 4, 6, 3))
    flat = torch.rand(2, 72)
    assert torch.equal(net.eval()(flat), net(flat.view(2, 3, 4, 6)))


def saved(folder, array, mode=None):
    PIL = pytest.importorskip("PIL.Image")
    folder.mkdir()
    PIL.fromarray(array, mode).save(folder / "a.png")
    return folder


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
def test_a_grey_picture_of_16_bits_is_read_as_it_is_or_refused_by_its_value(tmp_path):
    """The bytes that pillow wrote: 0, 1, 255, 256, 4000 and 65535, of which 8 bits hold three."""
    array = np.array([[0, 1, 255], [256, 4000, 65535]], dtype=np.uint16)
    folder = saved(tmp_path / "deep", array)
    with pytest.raises(OutOfSupport, match=r"pixel \(1, 0\) is 256 \(3 such pixels\).*0 … 255"):
        Images(folder, levels=256)
    assert Images(folder).levels == 65536
    assert Images(folder, levels=65536).whole["y"].tolist() == [[0, 1, 255, 256, 4000, 65535]]


def test_what_pillow_would_drop_from_a_picture_is_refused(tmp_path):
    """Transparency, all pictures of an animation but the first, and the lower 8 of 16 bits a colour (a PNG
    written by hand)."""
    PIL = pytest.importorskip("PIL.Image")
    seen = np.full((2, 2, 4), 255, dtype=np.uint8)
    assert Images(saved(tmp_path / "opaque", seen)).shape == (3, 2, 2)
    seen[0, 0, 3] = 10
    with pytest.raises(BadArgument, match=r"a\.png has transparent pixels"):
        Images(saved(tmp_path / "clear", seen))
    (tmp_path / "moving").mkdir()
    frames = [PIL.fromarray(np.full((2, 2), v, dtype=np.uint8)) for v in (0, 200)]
    frames[0].save(tmp_path / "moving" / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(BadArgument, match=r"a\.gif is an animation of 2 pictures"):
        Images(tmp_path / "moving")

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)  # one pixel, 16 bits, three colours
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" + bytes(6)))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "fine").mkdir()
    (tmp_path / "fine" / "a.png").write_bytes(png)
    with pytest.raises(BadArgument, match="16 bits a colour"):
        Images(tmp_path / "fine")
