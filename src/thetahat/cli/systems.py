"""`thetahat fit gpt | classifier | vae | flow | diffusion`: what each reads, the model that it makes of it, and how it climbs.

A system is its settings. `read` makes the data, and the sizes that the model takes from them; `model` needs the sizes alone, so that a run
can be sampled and scored where its data are not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from tyro.conf import Positional, arg

from ..errors import BadArgument, BadSave
from .common import Common

Sizes = dict[str, Any]
Folder = Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: runs/SYSTEM, or the next that is free)")]


@dataclass(frozen=True, kw_only=True)
class System(Common):
    """What every climb has."""

    name: ClassVar[str]
    steps: int = 2000
    """Steps of the climb."""
    batch_size: int = 128
    """Rows a step."""
    learning_rate: float = 1e-3
    """Of the first step after the warm-up; a cosine takes it to 0."""
    held_out: float = 0.1
    """Fraction of the rows that is held out: θ is left where they were most probable."""
    average: float | None = None
    """Decay of an exponential average of θ, which then takes its place."""
    seed: int = 0
    """Of the network, of the order of the data, and of what is held out."""
    run: Folder = None
    """Configuration, metrics, TensorBoard files, checkpoint, fit and report."""
    resume: Annotated[bool, arg(help_behavior_hint="")] = False
    """Go on with the run, bit for bit, from its last checkpoint."""

    def read(self) -> tuple[Sizes, Any]:
        """The sizes of the model, and the data."""
        raise NotImplementedError

    def model(self, sizes: Sizes) -> Any:
        raise NotImplementedError

    def other(self, path: Path, sizes: Sizes) -> Any:
        """Other data, as the model reads them."""
        raise NotImplementedError

    def solver(self) -> Any:
        from ..solvers import Stochastic

        return Stochastic(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            held_out=self.held_out,
            average=self.average,
            seed=self.seed,
            warmup=min(50, self.steps // 10),
        )

    def about(self, sizes: Sizes) -> dict[str, Any]:
        """Plain values from which `again` makes the system again."""
        own = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("json", "traceback", "run", "resume")
        }
        return {
            "system": self.name,
            "settings": {k: str(v) if isinstance(v, Path) else v for k, v in own.items()},
            "sizes": sizes,
        }

    @classmethod
    def again(cls, settings: Mapping[str, Any]) -> Self:
        paths = {f.name for f in dataclasses.fields(cls) if "Path" in str(f.type)}
        given: Any = {}
        for name, value in settings.items():
            given[name] = (
                Path(value) if name in paths and value is not None else tuple(value) if isinstance(value, list) else value
            )
        return cls(**given)


# ---- text --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GPT(System):
    name: ClassVar[str] = "gpt"
    corpus: Positional[Annotated[Path, arg(metavar="CORPUS")]]
    """A text file, a folder of them, a .jsonl of documents, or a folder of token shards."""
    tokenizer: Literal["bytes", "characters"] = "characters"
    """What a token is."""
    context: int = 128
    """Tokens that a prediction sees."""
    layers: int = 4
    width: int = 128
    heads: int = 4
    steps: int = 1000
    batch_size: int = 8
    learning_rate: float = 0.015
    """Of hidden matrices, by Muon; the rest is moved by AdamW."""

    def read(self) -> tuple[Sizes, Any]:
        from ..data import Tokens

        tokens = Tokens(self.corpus, self.tokenizer, context=self.context)
        assert tokens.tokenizer is not None
        return {"tokenizer": tokens.tokenizer.to_config(), "vocabulary": tokens.vocabulary}, tokens

    def model(self, sizes: Sizes) -> Any:
        from ..models import Autoregressive
        from ..networks import Transformer

        layers, width, heads = self.layers, self.width, self.heads
        network = Transformer(sizes["vocabulary"], layers=layers, width=width, heads=heads, activation="relu2", seed=self.seed)
        return Autoregressive(network)

    def other(self, path: Path, sizes: Sizes) -> Any:
        from ..data import Tokens

        return Tokens(path, self.alphabet(sizes), context=self.context)

    def solver(self) -> Any:
        return dataclasses.replace(super().solver(), optimiser="muon", momentum=0.95, betas=(0.9, 0.95), decay="linear")

    @staticmethod
    def alphabet(sizes: Sizes) -> Any:
        from ..data.tokenizers import from_config

        return from_config(sizes["tokenizer"])


# ---- images ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class OfImages(System):
    """What models of images share."""

    images: Positional[Annotated[Path, arg(metavar="IMAGES")]]
    """An IDX file (MNIST's, also .gz), a .npy array (n, H, W), or a folder of pictures."""
    levels: int = 256
    """Values that a pixel may have, 0 … levels − 1."""

    def _images(self, path: Path) -> Any:
        from ..data import Images

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
    """Components of z."""
    width: int = 500
    """Of the two hidden layers of encoder and decoder."""
    K: int = 1
    """Draws inside the logarithm of the bound (IWAE)."""
    steps: int = 5000
    learning_rate: float = 2e-3

    def other(self, path: Path, sizes: Sizes) -> Any:
        found = self._images(path)
        return found.binarised(self.seed) if self.binarise else found

    def model(self, sizes: Sizes) -> Any:
        from math import prod

        from .. import models
        from ..families import Bernoulli, Categorical
        from ..networks import mlp

        d, levels = prod(sizes["shape"]), sizes["levels"]
        family, outputs = (Bernoulli(), d) if levels == 2 else (Categorical(levels), d * levels)
        encoder = mlp(d, (self.width, self.width), 2 * self.latent, seed=self.seed)
        decoder = mlp(self.latent, (self.width, self.width), outputs, seed=self.seed + 1)
        return models.VAE(encoder, decoder, family, latent=self.latent, K=self.K, dimensions=d)


@dataclass(frozen=True, kw_only=True)
class Diffusion(OfImages):
    name: ClassVar[str] = "diffusion"
    channels: tuple[int, ...] = (24, 48)
    """Of the U-net, at each size of the image."""
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 3e-3
    average: float | None = 0.99

    def model(self, sizes: Sizes) -> Any:
        from .. import models
        from ..networks import UNet

        network = UNet(tuple(sizes["shape"]), sizes["levels"], channels=self.channels, seed=self.seed)
        return models.Diffusion(network, levels=sizes["levels"], predict="levels")


@dataclass(frozen=True, kw_only=True)
class Classifier(OfImages):
    name: ClassVar[str] = "classifier"
    labels: Positional[Annotated[Path, arg(metavar="LABELS")]]
    """Their classes 0, 1, …: an IDX file, or a .npy array (n,)."""
    channels: tuple[int, ...] = (16, 32, 64)
    """Of the convolutions."""
    shift: int = 1
    """Images are moved at random by up to so many pixels in fitting."""
    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 0.01

    def read(self) -> tuple[Sizes, Any]:
        from ..data import Augmented, Shifts, Tensors

        x, y = self._images(self.images), _labels(self.labels)
        rows = self._joined(x, y)
        sizes = {"shape": list(x.shape), "levels": self.levels, "classes": int(y.max()) + 1}
        return sizes, Augmented(Tensors(rows), Shifts(x.shape, self.shift)) if self.shift else Tensors(rows)

    def _joined(self, x: Any, y: Any) -> dict[str, Any]:
        if len(y) != x.size:
            raise BadArgument(f"{self.labels} has {len(y)} labels, and {self.images} {x.size} images.")
        return {"x": x.whole["y"], "y": y}

    def model(self, sizes: Sizes) -> Any:
        from ..families import Categorical
        from ..models import Conditional
        from ..networks import ConvNet

        network = ConvNet(sizes["shape"], sizes["classes"], self.channels, levels=sizes["levels"], seed=self.seed)
        return Conditional(Categorical(sizes["classes"]), network)

    def other(self, path: Path, sizes: Sizes) -> Any:
        raise BadArgument("a classifier is scored on images and their labels: thetahat score RUN IMAGES --labels LABELS.")

    def labelled(self, images: Path, labels: Path) -> Any:
        from ..data import Tensors

        return Tensors(dataclasses.replace(self, images=images, labels=labels)._joined(self._images(images), _labels(labels)))


def _labels(path: Path) -> Any:
    import torch

    from ..data.images import read

    found = read(path)
    if found.ndim != 1 or found.dtype.kind not in "ui" or found.size == 0 or found.min() < 0:
        raise BadArgument(
            f"{path} holds an array of shape {found.shape} and type {found.dtype}. Labels are whole numbers 0, 1, …, (n,)."
        )
    return torch.from_numpy(found.astype("int64"))


# ---- tables ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Flow(System):
    name: ClassVar[str] = "flow"
    data: Positional[Annotated[Path, arg(metavar="TABLE")]]
    """Rows of numbers: .csv, .tsv or .parquet."""
    columns: tuple[str, ...] = ()
    """Those whose joint density is wanted; none named: all."""
    kind: Literal["spline", "affine"] = "spline"
    """How a component is bent."""
    transforms: int = 3
    """Maps in a row."""
    width: int = 64
    """Of their networks' two hidden layers."""
    learning_rate: float = 2e-3

    def read(self) -> tuple[Sizes, Any]:
        from ..data import Transformed

        names, rows = self._rows(self.data, list(self.columns))
        source = Transformed(rows, "standardise")
        learnt: Any = source.maps[0]
        return {"columns": names, "shift": learnt.mean.tolist(), "scale": learnt.scale.tolist()}, source

    def _rows(self, path: Path, columns: list[str]) -> tuple[list[str], Any]:
        import torch

        from ..data.frame import Frame
        from ..data.table import numeric_tensors
        from ..errors import UnknownColumn

        found = numeric_tensors(Frame(path))
        for name in columns:
            if name not in found:
                raise UnknownColumn.named(name, found, where="--columns")
        names = columns or list(found)
        return names, torch.stack([found[name].double() for name in names], -1)

    def model(self, sizes: Sizes) -> Any:
        from .. import models

        make = models.Flow.spline if self.kind == "spline" else models.Flow.affine
        return make(len(sizes["columns"]), transforms=self.transforms, hidden=(self.width, self.width), seed=self.seed)

    def other(self, path: Path, sizes: Sizes) -> Any:
        import torch

        from ..data import Transformed
        from ..data.maps import Standardise

        shift, scale = (torch.tensor(sizes[name], dtype=torch.float64) for name in ("shift", "scale"))
        return Transformed(self._rows(path, sizes["columns"])[1], Standardise(shift, scale))


# ---- runs --------------------------------------------------------------------------------------------------------------------

SYSTEMS: dict[str, tuple[type[System], str, str]] = {
    "gpt": (
        GPT,
        "Fit a language model to text.",
        """Examples:
  thetahat fit gpt shakespeare.txt --run runs/shakespeare
  thetahat sample runs/shakespeare --prompt "ROMEO:" --length 300""",
    ),
    "classifier": (
        Classifier,
        "Fit a convolutional classifier to images and their labels.",
        """Examples:
  thetahat fit classifier images.npy labels.npy --run runs/digits
  thetahat score runs/digits others.npy --labels their-labels.npy""",
    ),
    "vae": (
        VAE,
        "Fit a variational autoencoder to images.",
        """Examples:
  thetahat fit vae train-images-idx3-ubyte.gz --binarise --run runs/vae
  thetahat score runs/vae t10k-images-idx3-ubyte.gz --samples 100
  thetahat sample runs/vae -n 64 -o digits.png""",
    ),
    "flow": (
        Flow,
        "Fit a normalising flow to rows of numbers.",
        """Examples:
  thetahat fit flow measurements.csv --run runs/flow
  thetahat sample runs/flow -n 1000 -o new.csv""",
    ),
    "diffusion": (
        Diffusion,
        "Fit a diffusion model to images.",
        """Examples:
  thetahat fit diffusion digits.npy --levels 17 --run runs/diffusion
  thetahat sample runs/diffusion -n 64 -o digits.png""",
    ),
}


def again(folder: Path) -> tuple[System, Sizes, Any]:
    """The system of a run, its sizes, and the fit that it came to.

    Raises
    ------
    BadSave : the folder is no run of the command line, or its climb has not ended
    """
    from .. import runs
    from ..saving import load

    about = runs.read(folder)["about"]
    if about.get("system") not in SYSTEMS:
        raise BadSave(f"{folder} is a run of Python code: th.load({str(folder / runs.FIT)!r}, model=…) reads its fit.")
    if not (folder / runs.FIT).exists():
        raise BadSave(f"{folder} has not ended: go on with thetahat fit {about['system']} … --run {folder} --resume.")
    system, sizes = SYSTEMS[about["system"]][0].again(about["settings"]), about["sizes"]
    return system, sizes, load(folder / runs.FIT, model=system.model(sizes))


def free(name: str) -> Path:
    """runs/NAME, or runs/NAME-2, -3 … if that is taken."""
    first = Path("runs") / name
    return first if not first.exists() else next(p for k in range(2, 10**6) if not (p := Path("runs") / f"{name}-{k}").exists())
