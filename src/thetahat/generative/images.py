"""Images: arrays of whole numbers as a source, checked pixel by pixel; and binary images drawn anew from grey
ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch, split
from ..data.source import Tensors
from ..errors import BadArgument, EmptyData, NotFinite, OutOfSupport, WrongType
from ..types import Data, ModelLike
from .image_files import ImageFolder, Size, levels_of_type, read

CHANNELS = (1, 3, 4)  # of grey and of coloured pictures, and with transparency


class Images(Tensors):
    """Images in memory: y (n, d), whole numbers 0 … levels − 1, an image a row, d pixels (channels, rows,
    columns) one after the other.

    Every model of images scores this y, flat, so that their scores can stand in one table; a network that
    looks at neighbours is told `shape`.

    Parameters
    ----------
    data
        an array (n, H, W) or (n, C, H, W); a list of arrays of one shape; an IDX file (MNIST's, also .gz), a
        .npy file, a picture, a folder of pictures, or a folder of folders of them (needs the extra 'images'; grey
        ones (H, W), coloured ones (3, H, W)). `ImageFolder` reads a folder that is larger than memory
    levels
        how many values a pixel may have; None: as many as the numbers' type, 2 of bool and of black and white
        pictures, 65,536 of 16 bits, else 256
    labels
        the class of each image, whole numbers 0 … C − 1, (n,); "folders": the number of the folder in which a
        picture lies, in alphabetical order. Batches then hold it as label (n,), for models with `classes=C`
    size, colours
        of pictures, as of `ImageFolder`

    Raises
    ------
    BadArgument
        images of different shapes; an array of another number of dimensions, or whose channels come last;
        pictures that are read with a loss: transparent ones, animations, colours of 16 bits; labels that are not
        whole numbers from 0, or not one for each image
    OutOfSupport, NotFinite, WrongType
        the first pixel that is not one of the levels
    EmptyData, MalformedFile
        nothing there, or a file that cannot be read

    Examples
    --------
    >>> images = Images(np.zeros((5, 8, 8), dtype=np.uint8), levels=17, labels=[0, 1, 0, 1, 1])
    >>> images.size, images.shape, tuple(images.whole["y"].shape), images.classes
    (5, (8, 8), (5, 64), 2)
    """

    def __init__(
        self,
        data: Data,
        levels: int | None = None,
        labels: Data | None = None,
        *,
        size: Size | None = None,
        colours: str | None = None,
    ):
        if levels is not None and levels < 2:
            raise BadArgument(f"levels={levels}. Accepted: 2 or more.")
        of_file = isinstance(data, (str, Path))
        if not of_file and (size is not None or colours is not None):
            raise BadArgument("size= and colours= apply to files of pictures, not to arrays.")
        self.class_names: list[str] = []
        if isinstance(labels, str):
            folder = _class_folders(data, labels, size, colours)
            self.class_names, labels = folder.class_names, folder.labels
        array = read(data, size, colours) if of_file else _stacked(data)
        levels = levels_of_type(array.dtype) if levels is None else levels
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
        tensors = {"y": torch.from_numpy(_levelled(array, levels).reshape(len(array), -1))}
        if labels is not None:
            tensors["label"] = _labels(labels, len(array))
        super().__init__(Batch(tensors), block=4096)

    @property
    def dimensions(self) -> int:
        """d, pixels an image."""
        return int(np.prod(self.shape))

    @property
    def classes(self) -> int | None:
        """C: one more than the highest label; None: there are no labels."""
        return int(self.whole["label"].max()) + 1 if "label" in self.whole else None

    def take(self, rows: Any) -> Images:
        """Some of the images: a slice, or their indices."""
        some = self.whole[rows].tensors
        out = Images(some["y"].reshape(-1, *self.shape).numpy(), self.levels, some.get("label"))
        out.class_names = self.class_names
        return out

    def reduced(self, levels: int) -> Images:
        """The same images with fewer levels: ⌊y · levels / L⌋, levels that are evenly wide.

        Raises
        ------
        BadArgument
            more levels than there are, or fewer than 2
        """
        if not 2 <= levels <= self.levels:
            raise BadArgument(
                f"reduced({levels}) of images with {self.levels} levels. Accepted: 2 … {self.levels}."
            )
        some = self.whole.tensors
        y = (some["y"].long() * levels // self.levels).reshape(-1, *self.shape).numpy()
        out = Images(y, levels, some.get("label"))
        out.class_names = self.class_names
        return out

    def for_classifier(self) -> Tensors:
        """The same images as a classifier reads them: x (n, d) the pixels, y (n,) the class.

        Raises
        ------
        BadArgument
            there are no labels
        """
        if "label" not in self.whole:
            raise BadArgument("the images have no labels. Give Images(data, labels=…).")
        return Tensors(Batch({"x": self.whole["y"], "y": self.whole["label"]}), copy=False)

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
            some = rows[part].tensors
            yield Batch({**some, "y": self._draw(some["y"], generator)})

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
            every = self.images.whole.tensors
            y = self._draw(every["y"], torch.Generator().manual_seed(self.seed))
            self._drawn = Tensors(Batch({**every, "y": y}), block=self.block)
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


# ---- arrays -----------------------------------------------------------------------------------------------


def _class_folders(data: Data, labels: str, size: Size | None, colours: str | None) -> ImageFolder:
    if labels != "folders":
        raise BadArgument(f"labels={labels!r}. Accepted: an array (n,), or 'folders'.")
    if not isinstance(data, (str, Path)) or not Path(data).is_dir():
        raise BadArgument("labels='folders' needs a folder of class folders as data.")
    return ImageFolder(data, size=size, colours=colours, labels=True)


def _labels(labels: Data, n: int) -> Tensor:
    found = labels if isinstance(labels, Tensor) else torch.as_tensor(np.asarray(labels))
    if found.ndim != 1 or len(found) != n:
        raise BadArgument(f"labels have the shape {tuple(found.shape)} for {n} images. Accepted: ({n},).")
    wrong = (found < 0) | (found != torch.floor(found.double()))
    if bool(wrong.any()):
        at = int(torch.nonzero(wrong)[0])
        raise BadArgument(f"label {at} is {found[at].item()}. Labels are whole numbers 0, 1, ….")
    return found.to(torch.int64)


def _stacked(data: Data) -> np.ndarray:
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
            raise BadArgument(
                f"image {i} has the shape {part.shape}, image 0 {parts[0].shape}: all images have one shape."
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
