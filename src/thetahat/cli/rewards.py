"""What an answer is worth, for `thetahat align`: a function of yours, a reward that was fitted, a classifier of transformers; or
several, weighted.

    module:function, file.py:function    function(prompt, answer) → a number, of texts
    FIT.thetahat                         a reward of words and length, as thetahat fit reward --save writes it
    FOLDER                               a sequence classifier of transformers with one output: its logit
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import BadArgument, DataError, MissingExtra
from ..types import Plain
from .imported import function_of, named

Reward = Callable[[Sequence[Any], Sequence[Any]], Any]


def reward_of(asked: Sequence[str], weights: Sequence[float], tokenizer: Plain) -> Reward:
    """(prompts, answers), tokens of each, → the weighted sum of the rewards, (B,), float64.

    Raises
    ------
    BadArgument
        a reward that is none of the above, or another number of weights
    """
    import torch

    if weights and len(weights) != len(asked):
        raise BadArgument(
            f"--reward-weights has {len(weights)} numbers for {len(asked)} rewards. Give one each."
        )
    parts = [_one(text, tokenizer) for text in asked]
    each = list(weights) or [1.0] * len(parts)

    def reward(prompts: Sequence[Any], answers: Sequence[Any]) -> Any:
        texts = [[tokenizer.decode(t.tolist()) for t in side] for side in (prompts, answers)]
        found = [torch.as_tensor(part(*texts), dtype=torch.float64) for part in parts]
        return torch.stack([w * f for w, f in zip(each, found, strict=True)]).sum(0)

    return reward


def _one(text: str, tokenizer: Plain) -> Callable[[list[str], list[str]], Any]:
    """(prompts, answers), texts, → a number each."""
    function = named(text)
    if function is not None:
        return _of_function(*function)
    if Path(text).is_dir():
        return _of_classifier(Path(text))
    if Path(text).is_file():
        return _of_words(Path(text))
    raise BadArgument(
        f"--reward {text}: no such file or folder. Accepted: module:function or file.py:function, of a prompt and an answer; a "
        "fit of thetahat fit reward --save; a folder with a sequence classifier of transformers."
    )


def _of_function(path: str, name: str) -> Callable[[list[str], list[str]], Any]:
    function = function_of("--reward", path, name)

    def reward(prompts: list[str], answers: list[str]) -> list[float]:
        out = []
        for prompt, answer in zip(prompts, answers, strict=True):
            value = function(prompt, answer)
            try:
                number = float(value)
                finite = math.isfinite(number)
            except (TypeError, ValueError, OverflowError) as error:
                raise DataError(
                    f"--reward {path}:{name} gave {value!r} for the answer {answer[:60]!r}. Accepted: a number."
                ) from error
            if not finite:
                raise DataError(
                    f"--reward {path}:{name} gave {number} for the answer {answer[:60]!r}. Accepted: a finite number."
                )
            out.append(number)
        return out

    return reward


def _of_classifier(folder: Path) -> Callable[[list[str], list[str]], Any]:
    try:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
    except ImportError as error:
        raise MissingExtra.named("transformers", "llm") from error
    try:
        model: Plain = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True
        ).eval()
        own: Plain = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise BadArgument(
            f"--reward {folder} holds no sequence classifier that transformers reads: {error}"
        ) from error
    if model.config.num_labels != 1:
        raise BadArgument(
            f"--reward {folder} has {model.config.num_labels} outputs. Accepted: a reward model, with one."
        )

    def reward(prompts: list[str], answers: list[str]) -> Any:
        import torch

        out = []
        with torch.no_grad():
            for prompt, answer in zip(prompts, answers, strict=True):
                ids = own(prompt + answer, return_tensors="pt", truncation=True)
                out.append(float(model(**ids).logits[0, 0]))
        return out

    return reward


def _of_words(path: Path) -> Callable[[list[str], list[str]], Any]:
    """Of the answers' words and length."""
    import torch

    from ..io.reading import load
    from ..preferences.bradley_terry import BradleyTerry
    from ..preferences.features import Words

    fit = load(path)
    known = list((fit.model.features if isinstance(fit.model, BradleyTerry) else None) or ())
    words = Words([name.removeprefix("word ") for name in known if name.startswith("word ")])
    if not known or known != words.names:
        raise BadArgument(
            f"--reward {path} is not a reward of words and length: thetahat fit reward PAIRS --words 200 "
            "--save FIT."
        )
    slopes = torch.tensor(fit.estimates.to_numpy(copy=True))
    return lambda prompts, answers: torch.from_numpy(words(answers)) @ slopes
