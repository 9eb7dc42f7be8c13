"""`thetahat align PAIRS --network FOLDER`: a language model's low-rank adapters (LoRA), moved towards what is
preferred.

    dpo                          pairs of answers are the data: Bradley and Terry's likelihood, with r = β log π/π_ref
    ipo                          the same, with a normal likelihood around 1/2β
    kto, bco                     answers that are each desirable or not are the data: KTO's objective, BCO's likelihood of the labels
    reinforce, rloo, grpo, ppo   answers that the model draws are the data, weighted by a fitted reward less β log π/π_ref

Each method is its own settings: what does not apply to it is not offered.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from ..errors import BadArgument, DataError, EmptyData
from ..types import ModelLike, ObjectiveLike, Plain, SourceLike
from .pretrained import network_in, raw_tokenizer, tokenizer_in
from .rewards import reward_of
from .system import Schedule, Sizes, System, Trained

Method = Literal["dpo", "ipo", "kto", "bco", "reinforce", "rloo", "grpo", "ppo"]


@dataclass(frozen=True, kw_only=True)
class Align(System):
    """What the methods share."""

    name: ClassVar[str] = "align"
    pairs: Positional[Annotated[Path, arg(metavar="PAIRS")]]
    """Lines of JSON (.jsonl, .jsonl.gz) with chosen and rejected answers[, a prompt]; KTO: or labels; RLHF: prompts (or a .txt)."""
    network: Annotated[Path, arg(metavar="FOLDER")]
    """A causal language model of transformers with its tokenizer, or the run of a thetahat fit gpt."""
    method: Method = "dpo"
    """The options shown are those of one method; thetahat align --method grpo --help shows those of another."""
    context: int = 512
    """Tokens of prompt and answer together; a longer prompt loses its beginning."""
    beta: float = 0.1
    """Weight of the divergence from the model as it was (KL penalty; in DPO the scale of the implied reward)."""
    lora_rank: int = 8
    """Rank of the adapters on queries and values; nothing else is trained."""

    def _adapted(self) -> ModelLike:
        from ..language.adapters import add_lora
        from ..language.autoregressive import Autoregressive

        return Autoregressive(add_lora(network_in(self.network), self.lora_rank, seed=self.seed))

    def language(self, model: ModelLike, sizes: Sizes) -> tuple[Any, Any, int | None]:
        return model, tokenizer_in(self.network), self.context


@dataclass(frozen=True, kw_only=True)
class DPO(Align, Trained):
    """Pairs are the data."""

    method: Method = "dpo"
    label_smoothing: float = 0.0
    """Share of the pairs that was judged the wrong way round."""
    steps: int = 100
    batch_size: int = 8
    """Pairs of a gradient step."""
    learning_rate: float = 2e-4

    def read(self) -> tuple[Sizes, Any]:
        return {}, self.other(self.pairs, {})

    def other(self, path: Path, sizes: Sizes) -> Any:
        from ..preferences.pairs import Pairs
        from ..preferences.token_pairs import TokenPairs

        return TokenPairs(
            Pairs(path, identical="drop"), tokenizer_in(self.network), self.context, overlong="cut"
        )

    def model(self, sizes: Sizes) -> ModelLike:
        from .. import preferences

        return preferences.DPO(self._adapted(), beta=self.beta, label_smoothing=self.label_smoothing)

    def objective(self, model: ModelLike, source: SourceLike, sizes: Sizes) -> ObjectiveLike:
        return super().objective(
            model, model.referenced(source), sizes
        )  # log π_ref once, and not at every step

    def language(self, model: ModelLike, sizes: Sizes) -> tuple[Any, Any, int | None]:
        return super().language(model.policy, sizes)


@dataclass(frozen=True, kw_only=True)
class IPO(DPO):
    """Pairs are the data, and none of them makes the policy certain."""

    method: Method = "ipo"

    def model(self, sizes: Sizes) -> ModelLike:
        from .. import preferences

        if self.label_smoothing:
            raise BadArgument("--label-smoothing is an option of --method dpo alone. Accepted with ipo: 0.")
        return preferences.IPO(self._adapted(), beta=self.beta)


@dataclass(frozen=True, kw_only=True)
class BCO(DPO):
    """Answers that are each desirable or not are the data; of pairs, the chosen and the rejected ones."""

    method: Method = "bco"

    def other(self, path: Path, sizes: Sizes) -> Any:
        from ..preferences.labelled import Labelled
        from ..preferences.pairs import Pairs, rows_of

        tokenizer = tokenizer_in(self.network)
        _, first = next(iter(rows_of(path)), ("", {"label": None}))
        if "label" in first:
            return Labelled(path, tokenizer, self.context, overlong="cut")
        return Labelled.of_pairs(Pairs(path, identical="drop"), tokenizer, self.context, overlong="cut")

    def model(self, sizes: Sizes) -> ModelLike:
        from .. import preferences

        if self.label_smoothing:
            raise BadArgument(
                f"--label-smoothing: {self.method} has none. Leave it out, or use --method dpo."
            )
        return getattr(preferences, self.method.upper())(self._adapted(), beta=self.beta)


@dataclass(frozen=True, kw_only=True)
class KTO(BCO):
    """The same, and labels that the policy contradicts count little."""

    method: Method = "kto"
    desirable_weight: float = 1.0
    """Weight of the desirable answers."""
    undesirable_weight: float = 1.0
    """Weight of the others."""
    restore_best: bool = False
    """Keep the parameters of the best validation. It is by the labels' log-likelihood, which KTO does not maximise."""

    def objective(self, model: ModelLike, source: SourceLike, sizes: Sizes) -> ObjectiveLike:
        from .. import preferences
        from ..likelihood import LogLikelihood, Objective

        weights = preferences.Prospect(self.desirable_weight, self.undesirable_weight)
        return Objective([LogLikelihood(model, model.referenced(source), weights)])


@dataclass(frozen=True, kw_only=True)
class RLOO(Align):
    """Answers of its own are the data: each weighs its reward less the mean of the others to the same
    prompt."""

    method: Method = "rloo"
    reward: Annotated[tuple[str, ...], arg(metavar="REWARD [REWARD ...]")]
    """module:function or file.py:function of a prompt and an answer; a fit of thetahat fit reward --save; a reward model of transformers."""
    reward_weights: Annotated[
        tuple[float, ...], arg(metavar="WEIGHT [WEIGHT ...]", help_behavior_hint="(default: 1 each)")
    ] = ()
    """Weights of several rewards, which are summed."""
    temperature: float = 1.0
    """Temperature at which answers are drawn; training uses their probability at this temperature."""
    top_k: Annotated[int | None, arg(metavar="K", help_behavior_hint="")] = None
    """Draw from the K most probable tokens alone."""
    top_p: Annotated[float | None, arg(metavar="P", help_behavior_hint="")] = None
    """Draw from the fewest most probable tokens whose probabilities sum to P."""
    max_new_tokens: int = 32
    """Tokens of an answer, at most."""
    num_generations: int = 4
    """Answers to each prompt."""
    batch_size: int = 8
    """Answers drawn a pass."""
    steps: int = 100
    """Gradient steps."""
    learning_rate: float = 2e-4
    """Learning rate of the first step after the warm-up."""
    warmup_steps: int = 50
    """Steps in which the learning rate rises from 0; a tenth of a shorter run."""
    lr_schedule: Schedule = "cosine"
    """How the learning rate falls to 0 at the last step; constant: it does not."""
    max_grad_norm: Annotated[float | None, arg(metavar="NORM", help_behavior_hint="")] = None
    """A longer gradient is scaled down to this norm."""

    def advantage(self) -> Any:
        from .. import language

        return language.RLOO()

    def weighting(self) -> Any:
        from .. import rl

        return rl.Advantage()

    def read(self) -> tuple[Sizes, Any]:
        return {}, self._generations()

    def _generations(self, epochs: int | None = None) -> Any:
        from .. import language

        if self.batch_size < self.num_generations or self.num_generations < 2:
            raise BadArgument(
                f"--num-generations {self.num_generations}, --batch-size {self.batch_size}. Accepted: 2 or "
                "more, and no more than a batch."
            )
        if self.context <= self.max_new_tokens:
            raise BadArgument(
                f"--max-new-tokens {self.max_new_tokens} leaves no room for a prompt in --context "
                f"{self.context}."
            )
        tokenizer = tokenizer_in(self.network)
        return language.Generations(
            _prompts(self.pairs, tokenizer, raw_tokenizer(self.network), self.context - self.max_new_tokens),
            reward_of(self.reward, self.reward_weights, tokenizer),
            max_new_tokens=self.max_new_tokens,
            end=tokenizer.end,
            num_generations=self.num_generations,
            prompts_per_step=self.batch_size // self.num_generations,
            advantage=self.advantage(),
            reference="base",
            kl_coef=self.beta,
            seed=self.seed,
            epochs=epochs,
        )

    def model(self, sizes: Sizes) -> ModelLike:
        from .. import language

        policy = self._adapted()
        if (self.temperature, self.top_k, self.top_p) != (1.0, None, None):
            policy = language.Autoregressive(
                policy.network, sampling=language.Sampling(self.temperature, self.top_k, self.top_p)
            )
        policy.keeps = "free"  # of a saved fit: the adapters
        return policy

    def objective(self, model: ModelLike, source: SourceLike, sizes: Sizes) -> ObjectiveLike:
        from ..likelihood import LogLikelihood, Objective

        return Objective([LogLikelihood(model, source, self.weighting())])

    def solver(self) -> Any:
        from ..solvers import Stochastic

        return Stochastic(
            steps=self.steps,
            learning_rate=self.learning_rate,
            warmup_steps=min(self.warmup_steps, self.steps // 10),
            lr_schedule=self.lr_schedule,
            max_grad_norm=self.max_grad_norm,
            held_out=None,
            seed=self.seed,
        )

    def other(self, path: Path, sizes: Sizes) -> Any:
        raise BadArgument(
            f"{self.method} learns from answers of its own, and pairs are not data for it: thetahat sample "
            "RUN --prompt TEXT."
        )


@dataclass(frozen=True, kw_only=True)
class Reinforce(RLOO):
    """Each answer weighs its reward less the mean of all answers."""

    method: Method = "reinforce"

    def advantage(self) -> Any:
        from .. import language

        return language.RLOO(across=True)


@dataclass(frozen=True, kw_only=True)
class PPO(RLOO):
    """RLOO's advantages times clipped ratios, over several epochs of each pass."""

    method: Method = "ppo"
    epochs: int = 2
    """Times that each pass of answers is learnt from."""
    clip_coef: float = 0.2
    """Ratios of probabilities outside 1 ± this have no gradient."""
    clip_coef_high: Annotated[
        float | None, arg(metavar="COEF", help_behavior_hint="(default: --clip-coef)")
    ] = None
    """The same of the upper end alone; larger than --clip-coef lets improbable tokens grow (DAPO's clip-higher)."""

    def read(self) -> tuple[Sizes, Any]:
        return {}, self._generations(epochs=self.epochs)

    def weighting(self) -> Any:
        from .. import rl

        return rl.Clipped(self.clip_coef, clip_coef_high=self.clip_coef_high)


@dataclass(frozen=True, kw_only=True)
class GRPO(PPO):
    """Advantages relative to the answers of the same prompt, in units of their standard deviation."""

    method: Method = "grpo"
    scale_rewards: bool = True
    """Divide the advantages of a prompt by their standard deviation. Dr. GRPO leaves this and the next option out."""
    length_normalise: bool = True
    """Divide the weight of each token by the length of its answer: tokens of long answers then count less."""

    def advantage(self) -> Any:
        from .. import language

        return language.GroupRelative(self.scale_rewards, self.length_normalise)


METHODS: dict[str, type[Align]] = {
    "dpo": DPO,
    "ipo": IPO,
    "kto": KTO,
    "bco": BCO,
    "reinforce": Reinforce,
    "rloo": RLOO,
    "grpo": GRPO,
    "ppo": PPO,
}


def _prompts(path: Path, tokenizer: Plain, raw: Plain, room: int) -> list[list[int]]:
    """The prompts of a file as tokens, each once; their last tokens, where there is not room for all.

    Lines of JSON with a prompt (a text, or messages, which the chat template writes), or of a text file each line.
    """
    from ..language.chats import rows_of
    from ..language.tokens import read

    end = [] if tokenizer.end is None else [tokenizer.end]
    if path.suffix == ".txt":
        # at "\n" alone: U+2028 and its kin are characters of a prompt
        lines = [line for _, text in read(path) for line in text.removeprefix("\ufeff").split("\n")]
        given: list[Any] = [line for line in (text.removesuffix("\r") for text in lines) if line]
    else:
        given = []
        for row, where in rows_of(path):
            if not isinstance(row, dict) or not ({"prompt", "chosen"} & row.keys()):
                raise DataError(f"{where} has no prompt. Accepted: lines of JSON with a prompt, or of pairs.")
            given.append(row.get("prompt", ""))
    found: dict[tuple[int, ...], None] = {}
    for prompt in given:
        if isinstance(prompt, str):
            ids = [int(t) for t in tokenizer.encode(prompt)]
        elif raw is not None and raw.chat_template:
            ids = list(
                raw.apply_chat_template(prompt, tokenize=True, return_dict=True, add_generation_prompt=True)[
                    "input_ids"
                ]
            )
        else:
            raise BadArgument(
                f"{path} has prompts that are messages, and the tokenizer has no chat template."
            )
        found.setdefault(tuple(ids)[-room:] or tuple(end))
    if not found:
        raise EmptyData(f"{path} holds no prompts.")
    if () in found:
        raise BadArgument("a prompt is empty, and the tokenizer has no token for the beginning of a text.")
    return [list(prompt) for prompt in found]
