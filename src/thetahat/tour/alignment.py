"""Alignment on a language whose sentences can be counted: RLHF and DPO, each beside the optimum π_ref
e^{r/β}/Z."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..data import Batch, Tensors
from ..fit import fit
from ..language.autoregressive import Autoregressive
from ..language.generations import Generations
from ..language.group_relative import RLOO
from ..preferences.dpo import DPO
from ..preferences.token_pairs import TokenPairs
from ..rl.advantage import Advantage
from ..solvers import LBFGS, Stochastic
from .row import Row

WORDS, LENGTH, BETA = 3, 3, 0.5
EVERY = torch.tensor(list(itertools.product(range(WORDS), repeat=LENGTH)))  # (27, 3)
START = WORDS  # the prompt, a token that no sentence has


class Table(nn.Module):
    """Logits of the next word for every beginning of a sentence."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.logits = nn.Parameter(
            torch.randn(LENGTH, WORDS**LENGTH, WORDS, generator=g, dtype=torch.float64)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        code, out = torch.zeros(len(tokens), dtype=torch.long), []
        for t in range(tokens.shape[1]):
            code = code * WORDS + tokens[:, t] if t else code
            out.append(self.logits[t, code])
        return torch.stack(out, 1)


def reward(sentences: Tensor) -> Tensor:
    """A word is worth its number, and a word said twice in a row costs one."""
    return sentences.double().mean(1) - (sentences[:, 1:] == sentences[:, :-1]).double().sum(1)


def log_probs(model: Autoregressive) -> Tensor:
    """log π of all 27 sentences."""
    whole = torch.cat([torch.full((len(EVERY), 1), START), EVERY], 1)
    with torch.no_grad():
        return model.log_prob(Batch({"input": whole[:, :-1], "target": whole[:, 1:]}, dims=2)).sum(1)


def _away(policy: Autoregressive, reference: Autoregressive) -> float:
    """KL(π ‖ π*), nats a sentence."""
    now, best = log_probs(policy), torch.log_softmax(log_probs(reference) + reward(EVERY) / BETA, 0)
    return float((now.exp() * (now - best)).sum())


def rlhf(quick: bool) -> Row:
    policy, reference = Autoregressive(Table()), Autoregressive(Table())
    before = _away(policy, reference)
    judged = lambda prompts, answers: reward(torch.stack(answers))  # noqa: E731
    draws = Generations(
        [[START]],
        judged,
        max_new_tokens=LENGTH,
        num_generations=256,
        advantage=RLOO(),
        reference=reference,
        kl_coef=BETA,
    )
    solver = Stochastic(steps=120 if quick else 300, learning_rate=0.1, lr_schedule="linear")
    after = _away(fit(policy, draws, weights=Advantage(), solver=solver).model, reference)
    return Row(
        "RLHF, by RLOO",
        "its own sentences, 27 of them possible",
        "Σ (R − R̄_others) log π(o),  R = r − β log π/π_ref",
        "−KL to the optimum, nats",
        -before,
        -after,
        f"stochastic: {solver.steps} passes of 256 sentences",
        f"optimum π_ref e^(r/β)/Z in closed form; found {after:.4f} nats away",
        None if quick else after < 0.01,
    )


def dpo(quick: bool) -> Row:
    policy, reference = Autoregressive(Table()), Autoregressive(Table())
    before = _away(policy, reference)
    near = [(a, (a + k) % len(EVERY)) for a in range(len(EVERY)) for k in (1, 5)]
    pairs = torch.tensor(
        near + [(b, a) for a, b in near]
    )  # each sentence is judged against four others, both ways round
    rows = [
        {"prompt": [START], "chosen": EVERY[a].tolist(), "rejected": EVERY[b].tolist()}
        for a, b in pairs.tolist()
    ]
    r = reward(EVERY)
    judged = TokenPairs(rows, context=LENGTH + 1).whole.with_count(
        torch.sigmoid(r[pairs[:, 0]] - r[pairs[:, 1]])
    )
    found = fit(
        DPO(policy, reference, BETA),
        Tensors(judged, target="preference"),
        solver=LBFGS(),
        on_failure="return",
    )
    after = _away(found.model.policy, reference)
    return Row(
        "DPO",
        "108 pairs of 27 sentences, as judged",
        "Σ w log σ(β log π/π_ref(a) − β log π/π_ref(b))",
        "−KL to the optimum, nats",
        -before,
        -after,
        f"L-BFGS, {found.certificate.steps} steps; logits of one beginning have a common constant that means "
        "nothing",
        f"optimum π_ref e^(r/β)/Z in closed form; found {after:.1e} nats away",
        after < 1e-3,
    )


SYSTEMS: dict[str, Callable[[bool], Row]] = {"RLHF, by RLOO": rlhf, "DPO": dpo}
