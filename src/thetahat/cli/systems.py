"""The systems that `thetahat fit` knows by name, and the runs that it left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import BadArgument, BadSave, ThetahatError
from ..types import Data, ModelLike, SourceLike
from . import align, policies
from .finetune import Finetune
from .networks import GPT, VAE, Classifier, Diffusion, Flow
from .system import Sizes, System

# name → (its settings, or those of each method, the default first; one line; more)
SYSTEMS: dict[str, tuple[type[System] | dict[str, type[System]], str, str]] = {
    "gpt": (
        GPT,
        "Fit a language model to text.",
        """Examples:
  thetahat fit gpt shakespeare.txt --run runs/shakespeare
  thetahat sample runs/shakespeare --prompt ROMEO: -n 3""",
    ),
    "classifier": (
        Classifier,
        "Fit a convolutional classifier to images and their labels.",
        """Examples:
  thetahat fit classifier images.npy labels.npy --run runs/digits
  thetahat fit classifier pets/train --size 32 --flip
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
    "policy": (
        dict(policies.METHODS),
        "Fit a policy to what it does in an environment, by PPO, A2C or REINFORCE.",
        """Examples:
  thetahat fit policy --env CartPole-v1 --run runs/cartpole
  thetahat fit policy --env CartPole-v1 --seeds 16 --run runs/sixteen
  thetahat fit policy --env Pendulum-v1 --method a2c
  thetahat play runs/cartpole --episodes 100""",
    ),
    "align": (
        dict(align.METHODS),
        "Fit a language model's adapters to preferences between answers, by DPO or RLHF.",
        """Examples:
  thetahat align pairs.jsonl.gz --network smollm2 --run runs/smollm2
  thetahat score runs/smollm2 other-pairs.jsonl
  thetahat fit reward pairs.jsonl --words 200 --save r.thetahat
  thetahat align pairs.jsonl --network smollm2 --method rloo --reward r.thetahat
  thetahat sample runs/align --prompt 'Human: how are you?'""",
    ),
    "finetune": (
        Finetune,
        "Fine-tune a language model on conversations, completions or text.",
        """Of conversations and completions the answers alone are scored.

Examples:
  thetahat finetune smollm2 chats.jsonl --epochs 2 --packing --run runs/chat
  thetahat finetune smollm2 chats.jsonl --method full --learning-rate 2e-5
  thetahat sample runs/chat --prompt "Why is the sky blue?"
  thetahat export runs/chat -o merged""",
    ),
    "diffusion": (
        Diffusion,
        "Fit a diffusion model to images.",
        """Examples:
  thetahat fit diffusion digits.npy --levels 17 --run runs/diffusion
  thetahat sample runs/diffusion -n 64 -o digits.png""",
    ),
}


def again(folder: Path, data: Data = None, *, device: str = "cpu") -> tuple[Any, Sizes, Any]:
    """The system of a run (of Python code: `OfPython`), its sizes, and the fit that it came to, on a device.

    Raises
    ------
    BadSave
        the folder is not a run, its settings are damaged, or it has not ended
    """
    from ..io import runs
    from ..io.reading import described, load

    about, path = runs.read(folder)["about"], folder / runs.FIT
    of_python = about.get("system") is None
    if not of_python and about["system"] not in SYSTEMS:
        raise BadSave(f"{folder} is the run of a {about['system']!r}, which this library does not know.")
    if not path.exists():
        more = (
            "run the same call to continue it."
            if of_python
            else f"thetahat fit {about['system']} … --run {folder} --resume."
        )
        raise BadSave(f"{folder} has not ended. To continue it: {more}")
    if of_python:
        from ..protocols import levels_of, shape_of

        fit = load(path, data).to(device)
        source: SourceLike = fit.source
        return OfPython(fit), {"shape": shape_of(source), "levels": levels_of(source)}, fit
    try:
        kind = SYSTEMS[about["system"]][0]
        settings, sizes = about["settings"], about["sizes"]
        system = (kind[settings["method"]] if isinstance(kind, dict) else kind).again(settings)
        model = None if described(path) else system.model(sizes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ThetahatError):
            raise
        raise BadSave(f"the settings in {folder / runs.CONFIG} are damaged: {error!r}.") from error
    return system, sizes, load(path, data, model=model).to(device)


class OfPython:
    """A run that Python code began, as the commands see it: what its saved fit says of its data is what they
    know."""

    name = "Python"

    def __init__(self, fit: Any):
        self.fit = fit

    @property
    def draws_nothing(self) -> str:
        from ..protocols import levels_of

        known = self.fit.tokenizer is not None or levels_of(self.fit.source) is not None
        return "" if known else "whose data the file does not describe: th.load(RUN).sample(…) in Python"

    def language(self, model: ModelLike, sizes: Sizes) -> tuple[Any, Any, int | None] | None:
        return (
            (model, self.fit.tokenizer, self.fit.source.context) if self.fit.tokenizer is not None else None
        )

    def other(self, path: Path, sizes: Sizes) -> Any:
        from ..generative.images import Images
        from ..language.tokens import Tokens
        from ..protocols import levels_of

        if self.fit.tokenizer is not None:
            return Tokens(path, self.fit.tokenizer, context=self.fit.source.context)
        if levels_of(self.fit.source) is not None:
            return Images(path, levels=levels_of(self.fit.source))
        raise BadArgument(
            "the run is of Python code, and its file does not describe its data: th.load(RUN).score(data) in "
            "Python."
        )


def of_runs(command: Any) -> None:
    """Refuse --device of a saved fit of a table, which is computed in float64 on the CPU."""
    if command.device not in ("auto", "cpu"):
        raise BadArgument(
            f"--device {command.device} applies to runs; {command.fit} is a saved fit, which the CPU computes."
        )


def free(name: str) -> Path:
    """runs/NAME, or runs/NAME-2, -3 … if that is taken."""
    first = Path("runs") / name
    return (
        first
        if not first.exists()
        else next(p for k in range(2, 10**6) if not (p := Path("runs") / f"{name}-{k}").exists())
    )


__all__ = ["SYSTEMS", "Sizes", "System", "again", "free", "of_runs"]
