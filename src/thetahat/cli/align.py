"""`thetahat align PAIRS --network FOLDER`: a language model's low-rank adapters, moved towards what is preferred.

dpo                          pairs of answers are the data: Bradley and Terry's likelihood, with r = β log π/π_ref
reinforce, rloo, grpo, ppo   answers that the model draws are the data, weighted by a fitted reward less β log π/π_ref
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from ..errors import BadArgument, MissingExtra
from ..types import Data, ModelLike, ObjectiveLike, Plain, Settings, SolverLike, SourceLike
from .system import Sizes, System


@dataclass(frozen=True, kw_only=True)
class Align(System):
    name: ClassVar[str] = "align"
    pairs: Positional[Annotated[Path, arg(metavar="PAIRS")]]
    """Lines of JSON with chosen and rejected answers[, and their prompt]: .jsonl, .jsonl.gz."""
    network: Annotated[Path, arg(metavar="FOLDER")]
    """A causal language model of transformers with its tokenizer, or the run of a thetahat fit gpt."""
    method: Literal["dpo", "reinforce", "rloo", "grpo", "ppo"] = "dpo"
    """dpo learns from the pairs; the others from answers of its own to their prompts, weighted by --reward."""
    reward: Annotated[Path | None, arg(metavar="FIT", help_behavior_hint="")] = None
    """Of words and length: what thetahat fit reward --save wrote."""
    context: int = 512
    """Tokens of prompt and answer; longer prompts lose their beginning."""
    beta: float = 0.1
    """Of the reward β log π/π_ref that a policy implies (dpo); of the KL penalty on the reward."""
    noise: float = 0.0
    """Share of the pairs that was judged the wrong way round (dpo)."""
    rank: int = 8
    """Of the adapters on queries and values: nothing else is moved."""
    length: int = 32
    """Tokens of an answer, at most."""
    group: int = 4
    """Answers to each prompt."""
    epochs: int = 2
    """Times that a pass of answers is learnt from (grpo, ppo)."""
    steps: int = 100
    batch_size: int = 8
    """Pairs a step; or answers drawn a pass."""
    learning_rate: float = 2e-4

    @property
    def draws(self) -> bool:
        """Whether it learns from answers of its own."""
        return self.method != "dpo"

    def read(self) -> tuple[Sizes, Any]:
        from .. import language
        from ..language.generations import Generations
        from ..preferences.pairs import Pairs

        if self.draws == (self.reward is None):
            raise BadArgument(
                f"--method {self.method} "
                + ("needs --reward FIT." if self.draws else "learns from pairs, and takes no --reward.")
            )
        pairs = Pairs(self.pairs, identical="drop")
        _, tokenizer = load_language_model(self.network)
        if not self.draws:
            return {}, self._tokens(pairs, tokenizer)
        assert self.reward is not None
        if self.batch_size < self.group or self.group < 2:
            raise BadArgument(
                f"--group {self.group}, --batch-size {self.batch_size}. Accepted: 2 or more, and no more than a batch."
            )
        if self.context <= self.length:
            raise BadArgument(f"--length {self.length} leaves no room for a prompt in --context {self.context}.")
        advantages: Settings = {"reinforce": language.RLOO(across=True), "grpo": language.GroupRelative()}
        return {}, Generations(
            _prompts(pairs, tokenizer, self.context - self.length),
            _reward(self.reward, tokenizer),
            length=self.length,
            end=tokenizer.end,
            group=self.group,
            prompts_per_step=self.batch_size // self.group,
            advantage=advantages.get(self.method, language.RLOO()),
            reference="base",
            kl=self.beta,
            epochs=self.epochs if self.method in ("grpo", "ppo") else None,
            seed=self.seed,
        )

    def _tokens(self, pairs: Data, tokenizer: Any) -> Any:
        from ..preferences.token_pairs import TokenPairs

        return TokenPairs(pairs, tokenizer, self.context, overlong="cut")

    def model(self, sizes: Sizes) -> Any:
        from ..language.adapters import adapt
        from ..language.autoregressive import Autoregressive
        from ..preferences.dpo import DPO

        policy = Autoregressive(adapt(load_language_model(self.network)[0], self.rank, seed=self.seed))
        if not self.draws:
            return DPO(policy, beta=self.beta, noise=self.noise)
        policy.keeps = "free"  # of a saved fit: the adapters
        return policy

    def objective(self, model: ModelLike, source: SourceLike, sizes: Sizes) -> ObjectiveLike:
        from .. import rl
        from ..likelihood import LogLikelihood, Objective

        if not self.draws:
            return super().objective(model, model.referenced(source), sizes)  # log π_ref once, and not at every step
        weighting = rl.Clipped() if self.method in ("grpo", "ppo") else rl.Advantage()
        return Objective([LogLikelihood(model, source, weighting)])

    def solver(self) -> SolverLike:
        own = super().solver()
        return dataclasses.replace(own, held_out=None) if self.draws else own

    def other(self, path: Path, sizes: Sizes) -> Any:
        from ..preferences.pairs import Pairs

        if self.draws:
            raise BadArgument(
                f"{self.method} learns from answers of its own, and pairs are not data for it: thetahat sample RUN --prompt TEXT."
            )
        return self._tokens(Pairs(path, identical="drop"), load_language_model(self.network)[1])

    def language(self, model: ModelLike, sizes: Sizes) -> tuple[Any, Any, int | None]:
        return model if self.draws else model.policy, load_language_model(self.network)[1], self.context


def _prompts(pairs: Data, tokenizer: Any, room: int) -> list[Any]:
    """The prompts of the pairs as tokens, each once; the last ones, where there is not room for all."""
    end = [] if tokenizer.end is None else [tokenizer.end]
    found = dict.fromkeys(tuple(int(t) for t in tokenizer.encode(str(pair.prompt)))[-room:] or tuple(end) for pair in pairs)
    if () in found:
        raise BadArgument("a prompt is empty, and the tokenizer has no token for the beginning of a text.")
    return [list(prompt) for prompt in found]


def _reward(path: Path, tokenizer: Any) -> Any:
    """(prompts, answers) → rewards of the answers' words and length, (B,)."""
    import torch

    from ..io.reading import load
    from ..preferences.features import Words

    fit = load(path)
    known = getattr(fit.model, "features", None) or ()
    words = Words([name.removeprefix("word ") for name in known if name.startswith("word ")])
    if not known or list(known) != words.names:
        raise BadArgument(
            f"--reward {path} is not a reward of words and length: thetahat fit reward PAIRS --words 200 --save FIT."
        )
    slopes = torch.tensor(fit.estimates.to_numpy(copy=True))

    def reward(prompts: Any, answers: Any) -> Any:
        return torch.from_numpy(words([tokenizer.decode(a.tolist()) for a in answers])) @ slopes

    return reward


def load_language_model(folder: Path) -> tuple[Any, Any]:
    """(network, tokenizer) of a folder of transformers, or of the run of a `thetahat fit gpt`.

    Raises
    ------
    BadArgument : it is neither
    """
    from ..io.runs import FIT

    if not (folder / FIT).exists():
        return language_model(folder), tokenizer_of(folder)
    from .systems import again

    system, sizes, fit = again(folder)
    if system.name != "gpt":
        raise BadArgument(f"--network {folder} is the run of a {system.name}. Accepted: of a gpt.")
    model, tokenizer, _ = system.language(fit.model, sizes) or (None, None, None)
    assert model is not None
    return model.network, tokenizer


def language_model(folder: Path) -> Any:
    """A causal language model of transformers from its folder.

    Raises
    ------
    MissingExtra : transformers is not installed;  BadArgument : no such folder, or no model in it
    """
    try:
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise MissingExtra.named("transformers", "llm") from error
    return _read(AutoModelForCausalLM, folder, "language model").eval()


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer that lies beside it."""
    from ..language.tokenizers import BPE

    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtra.named("transformers", "llm") from error
    own = _read(AutoTokenizer, folder, "tokenizer")
    return BPE(own, end=own.eos_token, special=True)  # pairs of a chat are written by its template


def _read(kind: Any, folder: Path, what: str) -> Plain:
    if not folder.is_dir():
        raise BadArgument(f"{folder} is not a folder of a language model.")
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise BadArgument(f"{folder} holds no {what} that transformers reads: {error}") from error
