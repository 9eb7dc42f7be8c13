"""What every command that trains has: what it reads, the model it makes of it, the objective, and the solver.

A command is its settings, one plain dataclass. `read` makes the data, and the sizes that the model takes from
them; `model` needs the sizes alone, so that a run can be sampled and scored where its data are not.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from tyro.conf import arg

from ..errors import BadSave
from ..types import ModelLike, Named, ObjectiveLike, Plain, Settings, SourceLike
from .common import Common, Device

Sizes = Settings
Folder = Annotated[
    Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: runs/SYSTEM, or the next that is free)")
]
Schedule = Literal["cosine", "linear", "wsd", "constant"]
LONGER = ("steps", "total_timesteps", "passes")  # of which a run that goes on may be asked for more


@dataclass(frozen=True, kw_only=True)
class System(Common, ABC):
    """A run that a folder records, and from which it goes on."""

    name: ClassVar[str]
    draws_nothing: ClassVar[str] = ""
    """Why `thetahat sample` has nothing to draw, where it has not."""
    seed: int = 0
    """Seed of the initial parameters, of the order of the data, and of every random draw."""
    init_from: Annotated[Path | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """Begin at the parameters of another run, of the same system and sizes."""
    wandb: Annotated[str | None, arg(metavar="PROJECT", help_behavior_hint="")] = None
    """Write the metrics to this project of Weights & Biases too."""
    run: Folder = None
    """Folder for the configuration, metrics, TensorBoard files, checkpoint, fit and report."""
    device: Device = "auto"
    """Where the model is trained; auto: on the accelerator that torch finds, else on the CPU."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of products of matrices; sums and logarithms stay in float32."""
    compile: Annotated[bool, arg(help_behavior_hint="")] = False
    """Compile the steps (torch.compile): the first takes long."""
    resume: Annotated[bool, arg(help_behavior_hint="")] = False
    """Continue the run of --run from its last checkpoint, bit for bit; with more steps, make it longer."""

    @abstractmethod
    def read(self) -> tuple[Sizes, Any]:
        """The sizes of the model, and the data."""

    @abstractmethod
    def model(self, sizes: Sizes) -> ModelLike: ...

    @abstractmethod
    def solver(self) -> Any:
        """How it is trained: a `solvers.Stochastic`."""

    def trainer(self, sizes: Sizes) -> Any:
        """`solver`, on the device and in the precision that were asked for. It trains the models that the command
        made, which nobody else has."""
        import torch

        precision = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.precision]
        return dataclasses.replace(
            self.solver(), in_place=True, device=self.device, precision=precision, compile=self.compile
        )

    @abstractmethod
    def other(self, path: Path, sizes: Sizes) -> Any:
        """Other data, as the model reads them."""

    def language(self, model: ModelLike, sizes: Sizes) -> tuple[Any, Any, int | None] | None:
        """(language model, tokenizer, context) of what `thetahat sample` draws text from; None: it draws
        something else."""
        return None

    def objective(self, model: ModelLike, source: SourceLike, sizes: Sizes) -> ObjectiveLike:
        """What is maximised."""
        from ..likelihood import LogLikelihood, Objective

        return Objective([LogLikelihood(model, source)])

    def measure(self, model: ModelLike) -> dict[str, float]:
        """What else is to be known at each evaluation, by name."""
        return {}

    def each(self, measured: Named) -> dict[str, float]:
        """Of several seeds what was last measured of each, by seed."""
        return {}

    @property
    def settings(self) -> Settings:
        """What was asked for, in plain values."""
        asked = (
            f.name
            for f in dataclasses.fields(self)
            if f.name not in ("json", "traceback", "run", "resume", "device", "wandb")
        )
        return {name: str(v) if isinstance(v := vars(self)[name], Path) else v for name in asked}

    def about(self, sizes: Sizes) -> Settings:
        """Plain values from which `again` makes the system again."""
        return {"system": self.name, "settings": self.settings, "sizes": sizes}

    def continues(self, folder: Path, about: Named) -> None:
        """Nothing, where what is asked for is what the run of a folder was asked for.

        Raises
        ------
        BadSave
            it was another system, or another setting of it; the message names the option
        """
        if about.get("system") != self.name:
            raise BadSave(
                f"{folder} is the run of a {about.get('system') or 'training run in Python'}, and here a "
                f"{self.name} is asked for."
            )
        known = about.get("settings")
        if not isinstance(known, dict):
            raise BadSave(f"the settings in {folder / 'config.json'} are damaged.")
        for name, value in json.loads(json.dumps(self.settings)).items():
            was = known.get(name, value)
            if was != value and not (name in LONGER and value > was):
                option = f"--{name.replace('_', '-')}"
                raise BadSave(
                    f"{option} was {was} when {folder} began, and is {value} here. A run goes on as it "
                    "began: ask for the same, or for more steps."
                )

    @classmethod
    def again(cls, settings: Named) -> Self:
        """The command of these settings."""
        paths = {f.name for f in dataclasses.fields(cls) if "Path" in str(f.type)}
        given: Plain = {}
        for name, value in settings.items():
            given[name] = (
                Path(value)
                if name in paths and value is not None
                else tuple(value)
                if isinstance(value, list)
                else value
            )
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class Trained(System):
    """Data that are there before the training, of which a part is held out. Each setting is that of
    `solvers.Stochastic`."""

    steps: int = 2000
    """Gradient steps."""
    batch_size: int = 128
    """Rows of a gradient step."""
    accumulation_steps: int = 1
    """Parts in which a batch is computed, to save memory; the step is the same."""
    learning_rate: float = 1e-3
    """Learning rate of the first step after the warm-up."""
    warmup_steps: int = 50
    """Steps in which the learning rate rises from 0; a tenth of a shorter run."""
    lr_schedule: Schedule = "cosine"
    """How the learning rate falls to 0 at the last step; wsd: over the last fifth; constant: it does not."""
    weight_decay: float = 0.0
    """Decoupled weight decay of the matrices, which shrink by learning rate × this at each step."""
    max_grad_norm: Annotated[float | None, arg(metavar="NORM", help_behavior_hint="")] = None
    """A longer gradient is scaled down to this norm."""
    ema_decay: Annotated[float | None, arg(metavar="DECAY", help_behavior_hint="")] = None
    """Decay of an exponential moving average of the parameters; the fit keeps that average."""
    held_out: float = 0.1
    """Fraction of the rows that is held out for validation."""
    restore_best: bool = True
    """Keep the parameters of the best validation, not those of the last step."""

    def solver(self) -> Any:
        from ..solvers import Stochastic

        return Stochastic(
            steps=self.steps,
            batch_size=self.batch_size,
            accumulation_steps=self.accumulation_steps,
            learning_rate=self.learning_rate,
            warmup_steps=min(self.warmup_steps, self.steps // 10),
            lr_schedule=self.lr_schedule,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            ema_decay=self.ema_decay,
            held_out=self.held_out,
            restore_best=self.restore_best,
            seed=self.seed,
        )
