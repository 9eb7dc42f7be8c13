"""What every `thetahat fit SYSTEM` has: what it reads, the model that it makes of it, and how it is trained.

A system is its settings. `read` makes the data, and the sizes that the model takes from them; `model` needs the sizes alone, so that a run
can be sampled and scored where its data are not.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from tyro.conf import arg

from ..errors import BadSave
from ..types import ModelLike, Named, ObjectiveLike, Plain, Settings, SolverLike, SourceLike
from .common import Common

Sizes = Settings
Folder = Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: runs/SYSTEM, or the next that is free)")]


@dataclass(frozen=True, kw_only=True)
class System(Common, ABC):
    """What every run has."""

    name: ClassVar[str]
    draws_nothing: ClassVar[str] = ""
    """Why `thetahat sample` has nothing to draw, where it has not."""
    steps: int = 2000
    """Steps of the run."""
    batch_size: int = 128
    """Rows a step."""
    learning_rate: float = 1e-3
    """Of the first step after the warm-up; a cosine takes it to 0."""
    held_out: float = 0.1
    """Fraction of the rows that is held out: θ is left where they were most probable."""
    average: Annotated[float | None, arg(metavar="D", help_behavior_hint="")] = None
    """Decay of an exponential average of θ, which then takes its place."""
    seed: int = 0
    """Of the network, of the order of the data, and of what is held out."""
    run: Folder = None
    """Configuration, metrics, TensorBoard files, checkpoint, fit and report."""
    resume: Annotated[bool, arg(help_behavior_hint="")] = False
    """Go on with the run, bit for bit, from its last checkpoint."""

    @abstractmethod
    def read(self) -> tuple[Sizes, Any]:
        """The sizes of the model, and the data."""

    @abstractmethod
    def model(self, sizes: Sizes) -> Any: ...

    @abstractmethod
    def other(self, path: Path, sizes: Sizes) -> Any:
        """Other data, as the model reads them."""

    def language(self, model: ModelLike, sizes: Sizes) -> tuple[Any, Any, int | None] | None:
        """(language model, tokenizer, context) of what `thetahat sample` draws text from; None: it draws something else."""
        return None

    def solver(self) -> SolverLike:
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

    def objective(self, model: ModelLike, source: SourceLike, sizes: Sizes) -> ObjectiveLike:
        """What is maximised."""
        from ..likelihood import LogLikelihood, Objective

        return Objective([LogLikelihood(model, source)])

    def measure(self, model: ModelLike) -> dict[str, float]:
        """What else is to be known at each look, by name."""
        return {}

    @property
    def settings(self) -> Settings:
        """What was asked for, in plain values."""
        asked = (f.name for f in dataclasses.fields(self) if f.name not in ("json", "traceback", "run", "resume"))
        return {name: str(v) if isinstance(v := vars(self)[name], Path) else v for name in asked}

    def about(self, sizes: Sizes) -> Settings:
        """Plain values from which `again` makes the system again."""
        return {"system": self.name, "settings": self.settings, "sizes": sizes}

    def continues(self, folder: Path, about: Named) -> None:
        """Nothing, where what is asked for is what the run of a folder was asked for.

        Raises
        ------
        BadSave : it was another system, or another setting of it; the message names the option
        """
        if about.get("system") != self.name:
            raise BadSave(
                f"{folder} is the run of a {about.get('system') or 'training run in Python'}, and here a {self.name} is asked for."
            )
        known = about.get("settings")
        if not isinstance(known, dict):
            raise BadSave(f"the settings in {folder / 'config.json'} are damaged.")
        for name, value in json.loads(json.dumps(self.settings)).items():
            was = known.get(name, value)
            if was != value:
                option = f"--{name.replace('_', '-')}"
                raise BadSave(
                    f"{option} was {was} when {folder} began, and is {value} here. A run goes on as it began: ask for the same."
                )

    @classmethod
    def again(cls, settings: Named) -> Self:
        paths = {f.name for f in dataclasses.fields(cls) if "Path" in str(f.type)}
        given: Plain = {}
        for name, value in settings.items():
            given[name] = (
                Path(value) if name in paths and value is not None else tuple(value) if isinstance(value, list) else value
            )
        return cls(**given)
