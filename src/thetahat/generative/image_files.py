"""Files of images: IDX (MNIST's), .npy, pictures of any usual kind, folders of them, and folders of class folders.

read(path)          an array: images (n, H, W) or (n, C, H, W), or labels (n,)
ImageFolder(path)   the pictures of a folder as a source, of which a batch is read when it is asked for
"""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ..data.loaded import Items
from ..errors import BadArgument, EmptyData, MalformedFile, MissingExtra
from ..files import usable
from ..types import Plain

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
COLOURS = ("grey", "rgb")
Size = int | tuple[int, int]


def read(path: str | Path, size: Size | None = None, colours: str | None = None) -> np.ndarray:
    """The numbers of a file, or the images of a folder, (n, H, W) or (n, C, H, W); of an IDX file also labels, (n,).

    Parameters
    ----------
    size, colours
        of pictures, as of `ImageFolder`

    Raises
    ------
    EmptyData, MalformedFile, BadArgument
    """
    path = usable(path)
    if path.is_dir():
        return _together(_Pictures(pictures(path), size, colours))
    if not path.is_file():
        raise MalformedFile(f"{path}: there is no such file.")
    if path.suffix.lower() in PICTURES:
        return _together(_Pictures([path], size, colours))
    if size is not None or colours is not None:
        raise BadArgument(f"size= and colours= apply to pictures; {path} is an array of numbers.")
    if path.suffix == ".npy":
        try:
            out: np.ndarray = np.load(path, allow_pickle=False)
            return out
        except (ValueError, OSError, EOFError) as error:
            raise MalformedFile(f"{path} is not a .npy file of numbers: {error}") from error
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise MalformedFile(f"{path} is damaged or cut short: {error}") from error
    return _idx(raw, path)


def pictures(folder: Path) -> list[Path]:
    """The picture files of a folder by name; of a folder that holds none, those of the folders in it."""
    found = _in(folder) or [p for inner in _folders(folder) for p in _in(inner)]
    if not found:
        raise EmptyData(f"{folder} holds no pictures ({', '.join(PICTURES)}).")
    return found


def classes_of(folder: Path) -> list[str]:
    """Names of the class folders in a folder, in alphabetical order: class k is the k-th.

    Raises
    ------
    BadArgument
        pictures lie beside the class folders, or there are fewer than two class folders
    """
    names = [inner.name for inner in _folders(folder) if _in(inner)]
    if _in(folder):
        raise BadArgument(
            f"{folder} holds pictures itself, whose class is not known. Accepted: a folder with one folder a class."
        )
    if len(names) < 2:
        raise BadArgument(
            f"{folder} holds {len(names)} folders with pictures. Accepted: two or more, one a class."
        )
    return names


def _in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES and p.is_file())


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir())


class ImageFolder(Items):
    """The pictures of a folder, each read when a batch asks for it: data larger than memory.

    Batches hold y (n, d), as `Images` has it; with `labels=True` also label (n,), the number of the class folder in
    which a picture lies, in alphabetical order.

    Parameters
    ----------
    folder
        pictures, or folders of pictures (needs the extra 'images')
    size
        height and width of every image: a picture is cut to this shape around its middle and scaled. None: as they
        are, and then all are of one size
    colours
        "grey" or "rgb": what every picture becomes. None: as they are
    labels
        whether the folders in `folder` are classes
    workers
        processes that read beside the training

    Raises
    ------
    EmptyData, MalformedFile, BadArgument
        as of `Images`; a picture of another shape than the first is found when it is read

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i, name in enumerate(("cat", "dog")):
    ...         Path(folder, name).mkdir()
    ...         Image.new("L", (8, 6), 100 * i).save(Path(folder, name, "1.png"))
    ...     images = ImageFolder(folder, labels=True)
    ...     batch = next(images.batches())
    >>> images.shape, images.levels, images.class_names, batch["y"].shape, batch["label"].tolist()
    ((6, 8), 256, ['cat', 'dog'], torch.Size([2, 48]), [0, 1])
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        size: Size | None = None,
        colours: str | None = None,
        labels: bool = False,
        workers: int = 0,
        fingerprint: str | None = None,
    ):
        folder = usable(folder)
        if not folder.is_dir():
            raise MalformedFile(f"{folder} is not a folder.")
        self.class_names = classes_of(folder) if labels else []
        found = _Pictures(pictures(folder), size, colours, self.class_names)
        super().__init__(found, workers=workers, fingerprint=fingerprint)
        first = found.array(0)
        self.shape, self.levels = tuple(int(n) for n in first.shape), levels_of_type(first.dtype)

    @property
    def dimensions(self) -> int:
        """d, pixels an image."""
        return math.prod(self.shape)

    @property
    def labels(self) -> Tensor:
        """(n,), the class of each picture."""
        found: Any = self.dataset
        names = (found.paths[int(i)].parent.name for i in self._rows)
        return torch.tensor([found.label[name] for name in names])

    def for_classifier(self) -> Items:
        """The same pictures as a classifier reads them: x (n, d), y (n,) the class.

        Raises
        ------
        BadArgument
            there are no labels
        """
        if not self.class_names:
            raise BadArgument("the images have no labels. Give ImageFolder(…, labels=True).")
        out = self._part(torch.arange(self.size))
        out.collate = _renamed
        return out


def _renamed(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {{"y": "x", "label": "y"}[name]: value for name, value in default_collate(items).items()}


def levels_of_type(kind: Any) -> int:
    """Values that a pixel of this type of numbers may have: 2 of bool, 65,536 of 16 bits, else 256."""
    return {"bool": 2, "uint16": 65536}.get(str(kind), 256)


class _Pictures(Dataset[dict[str, Tensor]]):
    """Pictures by place: item i is {"y": (d,)}, of class folders also its "label"."""

    def __init__(
        self, paths: list[Path], size: Size | None, colours: str | None, classes: Sequence[str] = ()
    ):
        if colours not in (None, *COLOURS):
            raise BadArgument(f"colours={colours!r}. Accepted: 'grey', 'rgb'; None: as the pictures are.")
        whole = (size, size) if isinstance(size, int) else size
        if whole is not None and (
            len(whole) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in whole)
        ):
            raise BadArgument(f"size={size!r}. Accepted: a number of pixels, or (height, width).")
        self.paths, self.size, self.colours = paths, whole, colours
        self.label = {name: k for k, name in enumerate(classes)}
        self._first: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def array(self, i: int) -> np.ndarray:
        """(H, W) or (3, H, W), of the shape and type of the first."""
        out = _picture(self.paths[i], self.size, self.colours)
        if self._first is None:
            self._first = out if i == 0 else self.array(0)
        if out.shape != self._first.shape or out.dtype != self._first.dtype:
            here, there = (f"{each.shape} of type {each.dtype}" for each in (out, self._first))
            hint = ' size= makes them of one shape, colours="grey" or "rgb" of one kind.'
            raise BadArgument(
                f"{self.paths[i].name} has the shape {here}, and {self.paths[0].name} {there}: all images have one "
                f"shape.{hint}"
            )
        return out

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        array = self.array(i).reshape(-1)
        y = torch.from_numpy(
            array.astype(np.int32 if array.dtype.itemsize > 1 else np.uint8, copy=not array.flags.writeable)
        )
        if not self.label:
            return {"y": y}
        return {"y": y, "label": torch.tensor(self.label[self.paths[i].parent.name])}


def _together(found: _Pictures) -> np.ndarray:
    first = found.array(0)
    out = np.empty((len(found), *first.shape), first.dtype)
    for i in range(len(found)):
        out[i] = found.array(i)
    return out


def _idx(raw: bytes, path: Path) -> np.ndarray:
    """LeCun's format: two zeros, the type (8: bytes), the number of dimensions, each length, the values."""
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise MalformedFile(
            f"{path} is not an IDX file of bytes. Accepted: IDX (also .gz), .npy, a picture, a folder of pictures."
        )
    shape = struct.unpack(f">{raw[3]}I", raw[4 : 4 + 4 * raw[3]])
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if values.size != int(np.prod(shape)):
        raise MalformedFile(f"{path} is cut short: its header says {shape}, and {values.size} values follow.")
    return values.reshape(shape)


def _picture(path: Path, size: tuple[int, int] | None = None, colours: str | None = None) -> np.ndarray:
    """(H, W) of bool, uint8 or uint16, or (3, H, W) of uint8."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtra.named("pillow", "images") from error
    try:
        with Image.open(path) as image:
            _refuse_losses(image, path)
            # more than 8 bits, which convert("L") would cut at 255
            deep = image.mode == "I" or image.mode.startswith("I;")
            if deep and (size is not None or colours == "rgb"):
                raise BadArgument(
                    f"{path} has more than 8 bits a pixel, which pillow neither scales nor colours. Leave size= and "
                    "colours= out."
                )
            picture: Plain = image
            grey = image.mode in ("1", "L", "LA")
            if not deep and (colours is not None or image.mode not in ("1", "L", "RGB")):
                wanted = {"grey": "L", "rgb": "RGB", None: "L" if grey else "RGB"}[colours]
                picture = image.convert(wanted)
            if size is not None:
                if picture.mode == "1":
                    raise BadArgument(
                        f"{path} is black and white, and would become grey where it is scaled. Give colours='grey' too."
                    )
                picture = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.LANCZOS)
            array = np.asarray(picture)
    except (UnidentifiedImageError, OSError) as error:
        raise MalformedFile(f"{path} is not a picture that can be read: {error}") from error
    if deep:
        array = array.astype(np.uint16) if array.min() >= 0 and array.max() < 65536 else array
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
                f"{path} has 16 bits a colour, and pillow reads only 8 of them. Accepted: 8 bits a colour, or grey "
                "of 16 bits."
            )
