"""Pictures: images side by side, as one chart."""

from __future__ import annotations

import io
import struct
import zlib
from base64 import b64encode

import altair as alt
import numpy as np
import torch

from ..errors import BadArgument
from ..types import Data

GAP = 1  # pixels between two images


def grid(
    images: Data, shape: tuple[int, ...], levels: int = 256, *, columns: int = 10, scale: int = 3
) -> alt.Chart:
    """A contact sheet: images in rows, from the upper left, black as level 0.

    Parameters
    ----------
    images
        (n, d), whole numbers 0 … levels − 1 or expectations between them
    shape
        (H, W), or (3, H, W) of red, green and blue
    levels
        how many values a pixel may have
    columns
        images a row
    scale
        the side of a pixel on the screen

    Returns
    -------
    alt.Chart
        An Altair chart of one picture, a PNG within; `.save("sheet.svg")`, `.save("sheet.png")`.

    Raises
    ------
    BadArgument
        d is not H·W (or 3·H·W); levels, columns or scale too small; a pixel that is no level

    Examples
    --------
    >>> grid(np.zeros((7, 4)), (2, 2), levels=2, columns=5).width
    42
    """
    sheet = tiled(images, shape, levels, columns)
    if scale < 1:
        raise BadArgument(f"scale={scale}. Accepted: 1 or more.")
    high, wide = (side * scale for side in sheet.shape[:2])
    url = "data:image/png;base64," + b64encode(png(sheet.repeat(scale, 0).repeat(scale, 1))).decode()
    chart = alt.Chart(alt.InlineData(values=[{"url": url}])).mark_image(
        width=wide, height=high, align="left", baseline="top"
    )
    placed = chart.encode(x=alt.value(0), y=alt.value(0), url="url:N")
    out: alt.Chart = placed.properties(width=wide, height=high).configure_view(strokeWidth=0)
    return out


def tiled(images: Data, shape: tuple[int, ...], levels: int = 256, columns: int = 10) -> np.ndarray:
    """The sheet itself, bytes (rows, columns) or (rows, columns, 3), white between the images."""
    array = images.detach().cpu().numpy() if isinstance(images, torch.Tensor) else np.asarray(images)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in (1, 3)):
        raise BadArgument(f"shape={shape}. Accepted: (H, W), (1, H, W), (3, H, W).")
    if levels < 2 or columns < 1:
        raise BadArgument(
            f"levels={levels}, columns={columns}. Accepted: 2 or more levels, 1 or more columns."
        )
    if array.ndim != 2 or len(array) == 0 or array.shape[1] != int(np.prod(shape)):
        raise BadArgument(
            f"images has the shape {array.shape}. Accepted: (n, {int(np.prod(shape))}) for images of shape "
            f"{shape}."
        )
    bad = ~((array >= 0) & (array <= levels - 1))
    if bad.any():
        i, j = (int(each) for each in np.argwhere(bad)[0])
        raise BadArgument(
            f"image {i}, pixel {j} is {array[i, j]:g}. Accepted: 0 … {levels - 1} (levels={levels})."
        )
    colours, (H, W) = (shape[0] if len(shape) == 3 else 1), shape[-2:]
    grey = (
        np.rint(array * (255 / (levels - 1)))
        .astype(np.uint8)
        .reshape(-1, colours, H, W)
        .transpose(0, 2, 3, 1)
    )
    columns = min(columns, len(grey))
    rows = -(-len(grey) // columns)
    sheet = np.full((rows * (H + GAP) - GAP, columns * (W + GAP) - GAP, colours), 255, dtype=np.uint8)
    for i, image in enumerate(grey):
        top, left = (i // columns) * (H + GAP), (i % columns) * (W + GAP)
        sheet[top : top + H, left : left + W] = image
    return sheet[..., 0] if colours == 1 else sheet


def png(sheet: np.ndarray) -> bytes:
    """A picture of bytes, (H, W) grey or (H, W, 3), as a PNG file."""
    high, wide = sheet.shape[:2]
    out = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    out.seek(0, io.SEEK_END)
    lines = np.concatenate(
        [np.zeros((high, 1), np.uint8), sheet.reshape(high, -1)], 1
    )  # 0: a line as it is, unfiltered
    header = struct.pack(">IIBBBBB", wide, high, 8, 0 if sheet.ndim == 2 else 2, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")):
        out.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return out.getvalue()
