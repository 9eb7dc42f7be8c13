"""The systems that `thetahat fit` knows by name, and the runs that it left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import BadSave
from .align import Align
from .networks import GPT, VAE, Classifier, Diffusion, Flow
from .policies import Policy
from .system import Sizes, System

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
    "policy": (
        Policy,
        "Fit a policy to what it does in an environment, by PPO, A2C or REINFORCE.",
        """Examples:
  thetahat fit policy --env CartPole-v1 --run runs/cartpole
  thetahat play runs/cartpole --episodes 100""",
    ),
    "align": (
        Align,
        "Fit a language model's adapters to preferences between answers, by DPO or RLHF.",
        """Examples:
  thetahat align pairs.jsonl.gz --network smollm2 --run runs/smollm2
  thetahat score runs/smollm2 other-pairs.jsonl
  thetahat fit reward pairs.jsonl --words 200 --save r.thetahat
  thetahat align pairs.jsonl --network smollm2 --method rloo --reward r.thetahat
  thetahat sample runs/align --prompt 'Human: how are you?'""",
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


__all__ = ["SYSTEMS", "Sizes", "System", "again", "free"]
