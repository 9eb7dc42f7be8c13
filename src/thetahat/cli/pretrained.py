"""The language model and the tokenizer of a folder: of transformers, or of the run of a `thetahat fit
gpt`. Each is read by itself."""

from __future__ import annotations

from pathlib import Path

from ..errors import BadArgument, MissingExtra
from ..types import ModelLike, Plain, Settings


def network_in(folder: Path) -> ModelLike:
    """The network.

    Raises
    ------
    MissingExtra
        transformers is not installed
    BadArgument
        no such folder, or no language model in it
    """
    from ..io.runs import FIT

    if _run_of_gpt(folder) is None:
        return causal_model(folder)
    from ..io.reading import load

    return load(folder / FIT).model.network


def tokenizer_in(folder: Path) -> Plain:
    """The tokenizer that lies beside it."""
    sizes = _run_of_gpt(folder)
    if sizes is None:
        return pretrained_tokenizer(folder)
    from ..language.fast_tokenizers import from_config

    return from_config(sizes["tokenizer"])


def _run_of_gpt(folder: Path) -> Settings | None:
    """The sizes of a run of ours that has ended; None: the folder is no run."""
    from ..io import runs

    if not (folder / runs.FIT).exists():
        return None
    about = runs.read(folder)["about"]
    if about.get("system") != "gpt":
        raise BadArgument(
            f"--network {folder} is the run of a {about.get('system') or 'training in Python'}. Accepted: of "
            "a gpt."
        )
    sizes: Settings = about["sizes"]
    return sizes


def causal_model(folder: Path) -> ModelLike:
    """A causal language model of transformers."""
    try:
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise MissingExtra.named("transformers", "llm") from error
    return _read(AutoModelForCausalLM, folder, "language model").eval()


def is_pretrained_folder(folder: Path) -> bool:
    """Whether it holds a model of transformers: its config.json says which."""
    import json

    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "model_type" in found


def raw_tokenizer(folder: Path) -> Plain:
    """The tokenizer as transformers has it, with its chat template; None: the folder is a run of ours."""
    if _run_of_gpt(folder) is not None:
        return None
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtra.named("transformers", "llm") from error
    return _read(AutoTokenizer, folder, "tokenizer")


def pretrained_tokenizer(folder: Path) -> Plain:
    """The tokenizer of a model of transformers."""
    from ..language.fast_tokenizers import tokenizer_of

    own = raw_tokenizer(folder)
    return tokenizer_of(own, end=own.eos_token, special=True)  # pairs of a chat are written by its template


def _read(kind: Plain, folder: Path, what: str) -> Plain:
    if not folder.is_dir():
        raise BadArgument(f"{folder} is not a folder of a language model.")
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise BadArgument(f"{folder} holds no {what} that transformers reads: {error}") from error
