"""Images: arrays of whole numbers as a source, checked pixel by pixel; and binary images drawn anew from grey
ones."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch, split
from ..data.source import Tensors
from ..errors import BadArgument, EmptyData, MalformedFile, MissingExtra, NotFinite, OutOfSupport, WrongType
from ..files import usable
from ..types import Data, ModelLike, Plain

CHANNELS = (1, 3, 4)  # of grey and of coloured pictures, and with transparency
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


class Images(Tensors):
    """Images in memory: y (n, d), whole numbers 0 … levels − 1, an image a row, d pixels (channels, rows,
    columns) one after the other.

    Every model of images scores this y, flat, so that their scores can stand in one table; a network that
    looks at neighbours is told `shape`.

    Parameters
    ----------
    data
        an array (n, H, W) or (n, C, H, W); a list of arrays of one shape; an IDX file (MNIST's, also .gz), a
        .npy file, or a folder of pictures (needs the extra 'images'; grey ones (H, W), coloured ones (3, H,
        W); grey ones of 16 bits have levels=65536)
    levels
        how many values a pixel may have

    Raises
    ------
    BadArgument
        images of different shapes; an array of another number of dimensions, or whose channels come last;
        pictures that are read with a loss: transparent ones, animations, colours of 16 bits
    OutOfSupport, NotFinite, WrongType
        the first pixel that is not one of the levels
    EmptyData, MalformedFile
        nothing there, or a file that cannot be read

    Examples
    --------
    >>> images = Images(np.zeros((5, 8, 8), dtype=np.uint8), levels=17)
    >>> images.size, images.shape, tuple(images.whole["y"].shape)
    (5, (8, 8), (5, 64))
    """

    def __init__(self, data: Data, levels: int = 256):
        if levels < 2:
            raise BadArgument(f"levels={levels}. Accepted: 2 or more.")
        array = read(data) if isinstance(data, (str, Path)) else _stacked(data)
        if array.ndim not in (3, 4):
            raise BadArgument(
                f"images are (n, H, W) or (n, C, H, W); received an array of shape {array.shape}."
            )
        if array.size == 0:
            raise EmptyData(f"there are no images: the array has the shape {array.shape}.")
        if array.ndim == 4 and array.shape[3] in CHANNELS and array.shape[1] not in CHANNELS:
            raise BadArgument(
                f"{data if isinstance(data, (str, Path)) else 'the array'} holds images of shape "
                f"{array.shape[1:]}: their channels come last. "
                "Give x.transpose(0, 3, 1, 2)."
            )
        self.levels, self.shape = levels, tuple(int(s) for s in array.shape[1:])
        super().__init__(
            Batch({"y": torch.from_numpy(_levelled(array, levels).reshape(len(array), -1))}), block=4096
        )

    @property
    def dimensions(self) -> int:
        """d, pixels an image."""
        return int(np.prod(self.shape))

    def take(self, rows: Any) -> Images:
        """Some of the images: a slice, or their indices."""
        return Images(self.whole[rows].tensors["y"].reshape(-1, *self.shape).numpy(), self.levels)

    def binarised(self, seed: int = 0) -> Binarised:
        """Black and white images, drawn anew each time (see `Binarised`)."""
        return Binarised(self, seed)


class Binarised:
    """Binary images: each pixel is drawn with its intensity as probability, anew each epoch of a fit.

        y_j ~ Bernoulli(intensity_j),      intensity = level / (levels − 1)

    A pass for a score (`batches`) draws from the seed alone: it is one fixed set of images, with a
    fingerprint.

    References
    ----------
    Salakhutdinov and Murray (2008), On the quantitative analysis of deep belief networks, §6 (binarised
    MNIST).

    Examples
    --------
    >>> grey = Images(np.full((4, 2, 2), 3, dtype=np.uint8), levels=4)
    >>> next(grey.binarised().batches())["y"].float().mean()
    tensor(1.)
    """

    units, target, levels = "y", "y", 2

    def __init__(self, images: Images, seed: int = 0, *, batch_size: int = 1000):
        self.images, self.seed, self.block = images, seed, batch_size
        self._drawn: Tensors | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.images.shape

    @property
    def size(self) -> int:
        return self.images.size

    @property
    def observations(self) -> float:
        return float(self.size)

    @property
    def fingerprint(self) -> str:
        return self._fixed().fingerprint

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        """The fixed set of images."""
        return self._fixed().batches(model)

    def epoch(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Every image once, in an order and with pixels that the generator draws."""
        rows = self.images.whole
        for part in torch.randperm(len(rows), generator=generator).split(batch_size):
            yield Batch({"y": self._draw(rows[part].tensors["y"], generator)})

    def split(self, fraction: float, generator: torch.Generator) -> tuple[Binarised, Binarised]:
        """(what is left, what is held out) of the grey images; what is held out is then fixed."""
        rows = split(Batch({"row": torch.arange(self.size)}), fraction, generator)
        left, out = (Binarised(self.images.take(part["row"]), self.seed) for part in rows)
        return left, out

    def _draw(self, y: Tensor, generator: torch.Generator) -> Tensor:
        u = torch.rand(y.shape, generator=generator, dtype=torch.float32)
        return (u < y.to(torch.float32) / (self.images.levels - 1)).to(torch.uint8)

    def _fixed(self) -> Tensors:
        if self._drawn is None:
            y = self._draw(self.images.whole.tensors["y"], torch.Generator().manual_seed(self.seed))
            self._drawn = Tensors(Batch({"y": y}), block=self.block)
        return self._drawn


def check_shape(x: Tensor, shape: Sequence[int], who: str) -> None:
    """Images (n, …) come flat, or in their shape (C, H, W), or (H, W) of one channel: the same pixels in
    another order are another image.

    Raises
    ------
    BadArgument
    """
    full = (1, *shape) if len(shape) == 2 else tuple(shape)
    accepted = [(math.prod(full),), full, *([full[1:]] if full[0] == 1 else [])]
    if tuple(x.shape[1:]) not in accepted:
        last = (
            " Channels come first: x.permute(0, 3, 1, 2)."
            if tuple(x.shape[1:]) == (*full[1:], full[0])
            else ""
        )
        raise BadArgument(
            f"{who} images of shape {tuple(shape)}; received a batch of shape {tuple(x.shape)}. Accepted: "
            f"{' or '.join(str(('n', *each)) for each in accepted)}.{last}"
        )


# ---- reading -----------------------------------------------------------------------------------------------


def read(path: str | Path) -> np.ndarray:
    """The images of a file or a folder, (n, H, W) or (n, C, H, W); of an IDX file also labels, (n,).

    Raises
    ------
    EmptyData, MalformedFile, BadArgument
    """
    path = usable(path)
    if path.is_dir():
        return _stacked([_picture(p) for p in pictures(path)], [p.name for p in pictures(path)])
    if not path.is_file():
        raise MalformedFile(f"{path}: there is no such file.")
    if path.suffix == ".npy":
        try:
            out: np.ndarray = np.load(path, allow_pickle=False)
            return out
        except (ValueError, OSError, EOFError) as error:
            raise MalformedFile(f"{path} is no .npy file of numbers: {error}") from error
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise MalformedFile(f"{path} is damaged or cut short: {error}") from error
    return _idx(raw, path)


def pictures(folder: Path) -> list[Path]:
    """The picture files of a folder, by name."""
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES)
    if not found:
        raise EmptyData(f"{folder} holds no pictures ({', '.join(PICTURES)}).")
    return found


def _idx(raw: bytes, path: Path) -> np.ndarray:
    """LeCun's format: two zeros, the type (8: bytes), the number of dimensions, each length, the values."""
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise MalformedFile(
            f"{path} is no IDX file of bytes. Accepted: IDX (also .gz), .npy, a folder of pictures."
        )
    shape = struct.unpack(f">{raw[3]}I", raw[4 : 4 + 4 * raw[3]])
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if values.size != int(np.prod(shape)):
        raise MalformedFile(f"{path} is cut short: its header says {shape}, and {values.size} values follow.")
    return values.reshape(shape)


def _picture(path: Path) -> np.ndarray:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtra.named("pillow", "images") from error
    try:
        with Image.open(path) as image:
            _refuse_losses(image, path)
            deep = image.mode == "I" or image.mode.startswith(
                "I;"
            )  # more than 8 bits, which convert("L") would cut at 255
            array = np.asarray(
                image if deep else image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
            )
    except (UnidentifiedImageError, OSError) as error:
        raise MalformedFile(f"{path} is not a picture that can be read: {error}") from error
    return array if array.ndim == 2 else array.transpose(2, 0, 1)


def _refuse_losses(image: Plain, path: Path) -> None:
    """What pillow would drop without a word."""
    if getattr(image, "n_frames", 1) > 1:
        raise BadArgument(
            f"{path} is an animation of {image.n_frames} pictures. Accepted: one picture a file."
        )
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        raise BadArgument(
            f"{path} has transparent pixels, whose colour depends on what lies behind. Lay it on a "
            "background first."
        )
    if image.format == "PNG" and image.mode in ("RGB", "RGBA", "LA"):
        with path.open("rb") as file:
            bits = file.read(25)[24]  # of the header, which is the first part of every PNG
        if bits == 16:
            raise BadArgument(
                f"{path} has 16 bits a colour, of which pillow reads 8. Accepted: 8 bits a colour, or grey "
                "of 16 bits."
            )


def _stacked(data: Data, names: Sequence[str] | None = None) -> np.ndarray:
    """One array of images that must be of one shape."""
    if isinstance(data, Tensor):
        return data.detach().cpu().numpy()
    if isinstance(data, np.ndarray):
        return data
    parts = [np.asarray(each) for each in data]
    if not parts:
        raise EmptyData("there are no images.")
    for i, part in enumerate(parts):
        if part.shape != parts[0].shape:
            which, first = (f"{names[i]}", f"{names[0]}") if names else (f"image {i}", "image 0")
            raise BadArgument(
                f"{which} has the shape {part.shape}, {first} {parts[0].shape}: all images have one shape."
            )
    return np.stack(parts)


def _levelled(array: np.ndarray, levels: int) -> np.ndarray:
    """The same numbers as whole ones, in bytes where they fit; or which of them cannot be a level."""
    if array.dtype.kind not in "uifb":
        raise WrongType(f"images are numbers; received an array of type {array.dtype}.")

    def first(bad: np.ndarray) -> str:
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        return f"image {at[0]}, pixel {at[1:]} is {array[at]:g} ({int(bad.sum())} such pixels)"

    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise NotFinite(f"{first(~np.isfinite(array))}. Pixels are whole numbers 0 … {levels - 1}.")
    bad = (array < 0) | (array > levels - 1)
    if array.dtype.kind == "f":
        bad |= array != np.floor(array)
    if bad.any():
        hint = (
            " Intensities in [0, 1] become levels by (255 * x).round()."
            if array.dtype.kind == "f" and array.max() <= 1
            else ""
        )
        raise OutOfSupport(
            f"{first(bad)}. Pixels are whole numbers 0 … {levels - 1} (levels={levels}).{hint}"
        )
    return np.array(array, dtype=np.uint8 if levels <= 256 else np.int32)
