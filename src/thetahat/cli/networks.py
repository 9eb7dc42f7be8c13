"""`thetahat fit gpt | classifier | vae | flow | diffusion`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from ..errors import BadArgument, DataError, UnknownColumn
from ..types import Data, ModelLike, Plain, Settings
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
        from ..language.tokenizers import from_config

        return from_config(sizes["tokenizer"])


# ---- images ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class OfImages(Trained):
    """What models of images share."""

    images: Positional[Annotated[Path, arg(metavar="IMAGES")]]
    """An IDX file (MNIST's, also .gz), a .npy array (n, H, W), or a folder of pictures."""
    levels: int = 256
    """Values that a pixel may have, 0 … levels − 1."""

    def _images(self, path: Path) -> Any:
        from ..generative.images import Images

        return Images(path, levels=self.levels)

    def read(self) -> tuple[Sizes, Any]:
        found = self.other(self.images, {})
        return {"shape": list(found.shape), "levels": found.levels}, found

    def other(self, path: Path, sizes: Sizes) -> Any:
        return self._images(path)


@dataclass(frozen=True, kw_only=True)
class VAE(OfImages):
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

    def other(self, path: Path, sizes: Sizes) -> Any:
        found = self._images(path)
        return found.binarised(self.seed) if self.binarise else found

    def model(self, sizes: Sizes) -> Any:
        from ..generative.vae import VAE

        shape, levels = sizes["shape"], sizes["levels"]
        return VAE.images(shape, levels, latent=self.latent, width=self.width, K=self.K, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class Diffusion(OfImages):
    name: ClassVar[str] = "diffusion"
    channels: tuple[int, ...] = (24, 48)
    """Channels of the U-net at each resolution."""
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 3e-3
    ema_decay: float | None = 0.99

    def model(self, sizes: Sizes) -> Any:
        from .. import generative
        from ..generative.unet import UNet

        network = UNet(tuple(sizes["shape"]), sizes["levels"], channels=self.channels, seed=self.seed)
        return generative.Diffusion(network, levels=sizes["levels"], predict="levels")


@dataclass(frozen=True, kw_only=True)
class Classifier(OfImages):
    name: ClassVar[str] = "classifier"
    draws_nothing: ClassVar[str] = "which draws labels of images and no images"
    labels: Positional[Annotated[Path, arg(metavar="LABELS")]]
    """The class of each image, 0, 1, …: an IDX file, or a .npy array (n,)."""
    channels: tuple[int, ...] = (16, 32, 64)
    """Channels of each convolution."""
    shift: int = 1
    """Augmentation: images are shifted at random by up to so many pixels."""
    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 0.01

    def read(self) -> tuple[Sizes, Any]:
        from ..data import Tensors
        from ..generative.augmented import Augmented, Shifts

        x, y = self._images(self.images), _labels(self.labels)
        rows = self._joined(x, y)
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
        sizes = {"shape": list(x.shape), "levels": self.levels, "classes": int(y.max()) + 1}
        return sizes, Augmented(Tensors(rows), Shifts(x.shape, self.shift)) if self.shift else Tensors(rows)

    def _joined(self, x: Data, y: Data) -> Settings:
        if len(y) != x.size:
            raise BadArgument(f"{self.labels} has {len(y)} labels, and {self.images} {x.size} images.")
        return {"x": x.whole.tensors["y"], "y": y}

    def model(self, sizes: Sizes) -> Any:
        from ..families import Categorical
        from ..generative.convnet import ConvNet
        from ..models import Conditional

        network = ConvNet(
            sizes["shape"], sizes["classes"], self.channels, levels=sizes["levels"], seed=self.seed
        )
        return Conditional(Categorical(sizes["classes"]), network)

    def other(self, path: Path, sizes: Sizes) -> Any:
        raise BadArgument(
            "a classifier is scored on images and their labels: thetahat score RUN IMAGES --labels LABELS."
        )

    def labelled(self, images: Path, labels: Path) -> Any:
        from ..data import Tensors

        return Tensors(
            dataclasses.replace(self, images=images, labels=labels)._joined(
                self._images(images), _labels(labels)
            )
        )


def _labels(path: Path) -> Any:
    import torch

    from ..generative.images import read

    found = read(path)
    if found.ndim != 1 or found.dtype.kind not in "ui" or found.size == 0 or found.min() < 0:
        hint = (
            ""
            if found.ndim != 2
            else " Of one-hot rows: labels.argmax(1)."
            if found.shape[1] > 1
            else " Give labels[:, 0]."
        )
        raise BadArgument(
            f"{path} holds an array of shape {found.shape} and type {found.dtype}. Labels are whole numbers "
            f"0, 1, …, (n,).{hint}"
        )
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
