"""`thetahat fit gpt | classifier | vae | flow | diffusion`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from ..errors import BadArgument, DataError, UnknownColumn
from ..types import ModelLike, Plain
from .system import Schedule, Sizes, Trained

# ---- text --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GPT(Trained):
    name: ClassVar[str] = "gpt"
    corpus: Positional[Annotated[Path, arg(metavar="CORPUS")]]
    """A text file, a folder of them, a .jsonl of documents, or a folder of token shards."""
    tokenizer: Literal["bytes", "characters"] = "characters"
    """Unit of the text that a token stands for."""
    context: int = 128
    """Tokens that a prediction sees."""
    layers: int = 4
    """Blocks of the transformer."""
    width: int = 128
    """Components of a token's vector."""
    heads: int = 4
    """Attention heads of a block."""
    ngrams: tuple[int, ...] = ()
    """Rows of embedding tables for the last 2, 3, … tokens together: 4356 16384 lets 65 characters learn sooner."""
    steps: int = 1000
    batch_size: int = 8
    learning_rate: float = 0.01
    """Learning rate of the hidden matrices, trained by Muon; AdamW trains the rest."""
    lr_schedule: Schedule = "linear"

    def read(self) -> tuple[Sizes, Any]:
        from ..language.tokens import Tokens

        tokens = Tokens(self.corpus, self.tokenizer, context=self.context)
        assert tokens.tokenizer is not None
        return {"tokenizer": tokens.tokenizer.to_config(), "vocabulary": tokens.vocabulary}, tokens

    def model(self, sizes: Sizes) -> Any:
        from ..language.autoregressive import Autoregressive
        from ..networks import Transformer

        shape: Any = {"layers": self.layers, "width": self.width, "heads": self.heads, "ngrams": self.ngrams}
        network = Transformer(sizes["vocabulary"], activation="relu2", seed=self.seed, **shape)
        return Autoregressive(network)

    def other(self, path: Path, sizes: Sizes) -> Any:
        from ..language.tokens import Tokens

        return Tokens(path, self.alphabet(sizes), context=self.context)

    def language(self, model: ModelLike, sizes: Sizes) -> tuple[Any, Any, int | None]:
        return model, self.alphabet(sizes), self.context

    def solver(self) -> Any:
        return dataclasses.replace(super().solver(), optimiser="muon", momentum=0.95, betas=(0.9, 0.95))

    @staticmethod
    def alphabet(sizes: Sizes) -> Any:
        from ..language.fast_tokenizers import from_config

        return from_config(sizes["tokenizer"])


# ---- images ------------------------------------------------------------------------------------------------


FEW_LEVELS = 32  # up to which a diffusion gives each level of a pixel a logit of its own


@dataclass(frozen=True, kw_only=True)
class OfImages(Trained):
    """What models of images share."""

    images: Positional[Annotated[Path, arg(metavar="IMAGES")]]
    """An IDX file (MNIST's, also .gz), a .npy array (n, H, W) or (n, C, H, W), a folder of pictures, or a folder of folders of them."""
    levels: Annotated[int | None, arg(metavar="LEVELS", help_behavior_hint="(default: as the file's)")] = None
    """Values that a pixel may have, 0 … LEVELS − 1; a file of bytes has 256, of 16 bits 65,536, a black and white one 2."""
    size: Annotated[int | None, arg(metavar="PIXELS", help_behavior_hint="")] = None
    """Height and width of the images: pictures are cut to a square around their middle and scaled."""
    colours: Annotated[Literal["grey", "rgb"] | None, arg(help_behavior_hint="(default: as they are)")] = None
    """What every picture becomes."""
    stream: Annotated[bool, arg(help_behavior_hint="")] = False
    """Read each picture of a folder when a step needs it: for folders larger than memory."""
    flip: Annotated[bool, arg(help_behavior_hint="")] = False
    """Augmentation: each image is mirrored left to right with probability 1/2."""

    def _images(self, path: Path, sizes: Sizes, labels: Any = None) -> Any:
        """`Images`, or with --stream an `ImageFolder`, of the shape and levels that the model was made for."""
        from ..generative.image_files import ImageFolder
        from ..generative.images import Images

        if self.stream:
            found: Any = ImageFolder(path, size=self.size, colours=self.colours, labels=labels == "folders")
            if self.levels not in (None, found.levels):
                raise BadArgument(f"--levels {self.levels}: the pictures of {path} have {found.levels}.")
        else:
            levels = sizes.get("levels", self.levels)
            found = Images(path, levels=levels, labels=labels, size=self.size, colours=self.colours)
        shape = tuple(sizes.get("shape", found.shape))
        if found.shape != shape:
            raise DataError(
                f"{path} holds images of shape {found.shape}, and the model was fitted to images of shape {shape}."
            )
        names = sizes.get("names", found.class_names)
        if found.class_names not in ([], names):
            raise DataError(
                f"{path} holds the folders {', '.join(found.class_names)}, and the model knows the classes "
                f"{', '.join(names)}."
            )
        return found

    def _augmented(self, source: Any, shape: Any, inputs: str, *more: Any) -> Any:
        """The source, its images changed at random as --flip and the others ask."""
        from ..generative.augmented import Augmented, Flips

        changes = [*([Flips(shape)] if self.flip else []), *more]
        if changes and self.stream:
            raise BadArgument("--stream reads the pictures as they are: leave --flip and --shift out.")
        return Augmented(source, changes, inputs=inputs) if changes else source


@dataclass(frozen=True, kw_only=True)
class Generates(OfImages):
    """A model of images, or with --labels of images given their class."""

    labels: Annotated[str | None, arg(metavar="FILE|folders", help_behavior_hint="")] = None
    """The class of each image, 0, 1, …, an IDX or .npy file; or the word folders: the folders in IMAGES are the classes."""

    def read(self) -> tuple[Sizes, Any]:
        found = self._labelled(self.images, self.labels, {})
        sizes = {"shape": list(found.shape), "levels": self._levels(found)}
        if self.labels is not None:
            sizes["classes"] = len(found.class_names) if found.class_names else found.classes
            if found.class_names:
                sizes["names"] = found.class_names
        return sizes, self._augmented(self._seen(found), found.shape, "y")

    def other(self, path: Path, sizes: Sizes) -> Any:
        if sizes.get("classes") and not path.is_dir():
            raise BadArgument(
                "the model is of images given their class: give --labels too, the class of each image."
            )
        return self.labelled(path, "folders" if sizes.get("classes") else None, sizes)

    def labelled(self, images: Path, labels: Any, sizes: Sizes) -> Any:
        """The source of other images and their classes."""
        return self._seen(self._labelled(images, labels, sizes))

    def _labelled(self, images: Path, labels: Any, sizes: Sizes) -> Any:
        if labels is not None and str(labels) != "folders":
            if self.stream:
                raise BadArgument("--stream takes the classes from the folders' names: --labels folders.")
            labels = _labels(Path(labels))
            if labels.ndim != 1:
                raise BadArgument("--labels: the class of each image, (n,).")
        found = self._images(images, self._kept(sizes), None if labels is None else labels)
        return found

    def _kept(self, sizes: Sizes) -> Sizes:
        """Sizes that the files are read with."""
        return sizes

    def _levels(self, found: Any) -> int:
        """Of what the model sees."""
        return int(found.levels)

    def _seen(self, found: Any) -> Any:
        """What the model sees of the images."""
        return found


@dataclass(frozen=True, kw_only=True)
class VAE(Generates):
    name: ClassVar[str] = "vae"
    binarise: Annotated[bool, arg(help_behavior_hint="")] = False
    """Black and white pixels, drawn anew each epoch with their grey level as probability."""
    latent: int = 32
    """Components of the latent variable."""
    width: int = 500
    """Units of each hidden layer of the encoder, and of the decoder where pixels are black or white."""
    K: int = 1
    """Draws inside the logarithm of the bound: more than 1 is the IWAE."""
    steps: int = 5000
    learning_rate: float = 2e-3

    def _kept(self, sizes: Sizes) -> Sizes:
        return {**sizes, "levels": self.levels} if self.binarise else sizes

    def _levels(self, found: Any) -> int:
        return 2 if self.binarise else int(found.levels)

    def _seen(self, found: Any) -> Any:
        if not self.binarise:
            return found
        if self.stream or self.flip:
            raise BadArgument(
                "--binarise draws the pixels of images in memory: leave --stream and --flip out."
            )
        return found.binarised(self.seed)

    def model(self, sizes: Sizes) -> Any:
        from ..generative.vae import VAE

        shape, levels = sizes["shape"], sizes["levels"]
        return VAE.images(
            shape,
            levels,
            latent=self.latent,
            width=self.width,
            K=self.K,
            seed=self.seed,
            classes=sizes.get("classes"),
        )


@dataclass(frozen=True, kw_only=True)
class Diffusion(Generates):
    name: ClassVar[str] = "diffusion"
    channels: Annotated[tuple[int, ...], arg(help_behavior_hint="(default: by the size of the images)")] = ()
    """Channels of the U-net at each resolution, each half of the one before."""
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 3e-3
    ema_decay: float | None = 0.99

    def model(self, sizes: Sizes) -> Any:
        from .. import generative
        from ..generative.unet import UNet

        shape, levels = tuple(sizes["shape"]), sizes["levels"]
        # a logit for each level of each pixel, as long as there are few; else v, one number a pixel
        few = levels <= FEW_LEVELS
        channels = self.channels or ((24, 48) if max(shape[-2:]) < 24 else (32, 64, 64))
        classes = sizes.get("classes")
        network = UNet(shape, levels if few else 1, channels=channels, seed=self.seed, classes=classes)
        return generative.Diffusion(network, levels=levels, predict="levels" if few else "v", classes=classes)


@dataclass(frozen=True, kw_only=True)
class Classifier(OfImages):
    name: ClassVar[str] = "classifier"
    draws_nothing: ClassVar[str] = "which draws labels of images and no images"
    labels: Positional[Annotated[Path | None, arg(metavar="LABELS", help_behavior_hint="")]] = None
    """The class of each image, 0, 1, …: an IDX or .npy file (n,), or shares of classes (n, K). Without it: the folders in IMAGES."""
    multi_label: Annotated[bool, arg(help_behavior_hint="")] = False
    """LABELS are 0 or 1, (n, K): any number of the K labels of an image may be true."""
    label_noise: float = 0.0
    """Share of the labels that was replaced by a class at random: the likelihood of labels with such errors."""
    channels: tuple[int, ...] = (16, 32, 64)
    """Channels of each convolution."""
    shift: int = 1
    """Augmentation: images are shifted at random by up to so many pixels."""
    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 0.01

    def read(self) -> tuple[Sizes, Any]:
        from ..generative.augmented import Shifts

        found, rows = self._read(self.images, self.labels, {})
        y = rows.whole["y"] if not self.stream else found.labels
        if y.ndim == 1:
            self._numbered(y)
        many = int(y.shape[1]) if y.ndim == 2 else int(y.max()) + 1
        sizes = {"shape": list(found.shape), "levels": found.levels, "classes": many}
        if found.class_names:
            sizes["names"] = found.class_names
        shifts = [Shifts(found.shape, self.shift)] if self.shift and not self.stream else []
        return sizes, self._augmented(rows, found.shape, "x", *shifts)

    def _numbered(self, y: Any) -> None:
        """Nothing, where the classes are 0, 1, … and all of them are there."""
        distinct, most = len(y.unique()), int(y.max())
        if distinct < 2:
            raise BadArgument(f"{self.labels} holds one class only, {most}: a classifier needs two or more.")
        if distinct == most and int(y.min()) == 1:
            raise BadArgument(
                f"{self.labels} holds the classes 1 … {most}, and no 0. Number them from 0: labels − 1."
            )
        if most >= 100 + 10 * distinct:
            raise BadArgument(
                f"{self.labels} holds {distinct} classes, and labels up to {most}. Number the classes 0, 1, "
                "…."
            )

    def _read(self, images: Path, labels: Path | None, sizes: Sizes) -> tuple[Any, Any]:
        """(the images, the rows of a classifier)."""
        from ..data import Tensors

        if labels is not None:
            if self.stream:
                raise BadArgument("--stream takes the classes from the folders' names: leave LABELS out.")
            y, x = _labels(labels, self.multi_label), self._images(images, sizes)
            if len(y) != x.size:
                raise BadArgument(f"{labels} has {len(y)} labels, and {images} {x.size} images.")
            return x, Tensors({"x": x.whole["y"], "y": y}, copy=False)
        if not images.is_dir() or self.multi_label:
            raise BadArgument(
                f"a classifier of {images} needs LABELS too, the class of each image"
                + (
                    ", with --multi-label a row of 0 and 1 for each."
                    if self.multi_label
                    else "; or a folder of class folders."
                )
            )
        found = self._images(images, sizes, "folders")
        return found, found.for_classifier()

    def model(self, sizes: Sizes) -> Any:
        from ..families import Bernoulli, Categorical, Independent
        from ..generative.convnet import ConvNet
        from ..models import Conditional

        many = sizes["classes"]
        network = ConvNet(sizes["shape"], many, self.channels, levels=sizes["levels"], seed=self.seed)
        family = Independent(Bernoulli(), many) if self.multi_label else Categorical(many)
        return Conditional(family, network, label_noise=self.label_noise)

    def other(self, path: Path, sizes: Sizes) -> Any:
        if path.is_dir():
            return self.labelled(path, None, sizes)
        raise BadArgument(
            "a classifier is scored on images and their labels: thetahat score RUN IMAGES --labels LABELS."
        )

    def inputs(self, images: Path, sizes: Sizes) -> Any:
        """The source of images alone."""
        from ..data import Tensors

        found = dataclasses.replace(self, stream=False)._images(images, sizes)
        return Tensors({"x": found.whole["y"]}, target="x", copy=False)

    def labelled(self, images: Path, labels: Path | None, sizes: Sizes) -> Any:
        """The source of other images and their labels."""
        return self._read(images, labels, sizes)[1]


def _labels(path: Path, multi_label: bool = False) -> Any:
    """Codes (n,), int64; shares of classes (n, K), or 0 and 1 of several labels, float32."""
    import numpy as np
    import torch

    from ..generative.image_files import read

    found = read(path)
    shown = f"{path} holds an array of shape {found.shape} and type {found.dtype}."
    if multi_label:
        if found.ndim != 2 or found.size == 0 or not np.isin(found, (0, 1)).all():
            raise BadArgument(f"{shown} --multi-label accepts 0 and 1, (n, K).")
        return torch.from_numpy(found.astype("float32"))
    if found.ndim == 2 and found.dtype.kind == "f" and found.shape[1] > 1:
        sums = found.sum(1)
        if not ((found >= 0).all() and np.allclose(sums, 1, atol=1e-3)):
            raise BadArgument(f"{shown} Shares of classes are 0 or more, and those of an image sum to 1.")
        return torch.from_numpy((found / sums[:, None]).astype("float32"))
    if found.ndim != 1 or found.dtype.kind not in "ui" or found.size == 0 or found.min() < 0:
        hint = (
            ""
            if found.ndim != 2
            else " Of one-hot rows: labels.argmax(1); of several labels an image: --multi-label."
            if found.shape[1] > 1
            else " Give labels[:, 0]."
        )
        raise BadArgument(f"{shown} Labels are whole numbers 0, 1, …, (n,).{hint}")
    return torch.from_numpy(found.astype("int64"))


# ---- tables ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Flow(Trained):
    name: ClassVar[str] = "flow"
    data: Positional[Annotated[Path, arg(metavar="TABLE")]]
    """Rows of numbers: .csv, .tsv or .parquet."""
    columns: tuple[str, ...] = ()
    """Columns whose joint density is fitted; without it all of them."""
    kind: Literal["spline", "affine"] = "spline"
    """Kind of transform of each component."""
    transforms: int = 3
    """Transforms, one after the other."""
    width: int = 64
    """Of the two hidden layers of each transform's network."""
    learning_rate: float = 2e-3

    def read(self) -> tuple[Sizes, Any]:
        from ..data import Transformed

        names, rows = self._rows(self.data, list(self.columns))
        for name, constant, value in zip(
            names, (rows == rows[0]).all(0).tolist(), rows[0].tolist(), strict=True
        ):
            if constant:
                raise DataError(
                    f"column {name!r} of {self.data} is {value:g} in every row: it has no scale. Leave it "
                    "out (--columns)."
                )
        source = Transformed(rows, "standardise")
        learnt: Plain = source.maps[0]
        return {"columns": names, "shift": learnt.mean.tolist(), "scale": learnt.scale.tolist()}, source

    def _rows(self, path: Path, columns: list[str]) -> tuple[list[str], Any]:
        import torch

        from ..data.frame import Frame
        from ..data.table import numeric_tensors

        frame = Frame(path)
        for name in columns:
            if name not in frame.columns:
                raise UnknownColumn.named(name, frame.columns, where="--columns")
            if columns.count(name) > 1:
                raise BadArgument(f"--columns names {name!r} twice.")
        found = numeric_tensors(frame, columns)
        names = columns or list(found)
        return names, torch.stack([found[name].double() for name in names], -1)

    def model(self, sizes: Sizes) -> Any:
        from .. import generative

        make = generative.Flow.spline if self.kind == "spline" else generative.Flow.affine
        return make(
            len(sizes["columns"]), transforms=self.transforms, hidden=(self.width, self.width), seed=self.seed
        )

    def other(self, path: Path, sizes: Sizes) -> Any:
        import torch

        from ..data import Transformed
        from ..data.maps import Standardise

        shift, scale = (torch.tensor(sizes[name], dtype=torch.float64) for name in ("shift", "scale"))
        return Transformed(self._rows(path, sizes["columns"])[1], Standardise(shift, scale))
