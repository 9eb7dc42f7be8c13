"""RLHF of a small language model against a fitted reward, a gold reward held apart: over-optimisation made
visible.

    python benchmarks/rlhf.py [--picture docs/rlhf.svg] [--results FILE]

The language model is a transformer of characters fitted to Python's own documentation. Gold is a rule that no
one who learns ever sees: an answer of 24 characters is worth the number of its different words that the
documentation has, of three letters or more. 3,000 pairs of answers of the model are judged by it, with
Bradley and Terry's noise; a reward model (a copy of the network with a head) is fitted to the judgements.
Then the model maximises the fitted reward by RLOO, at several β, and is looked at along the way: reward,
gold, KL to where it began, on answers of their own. Best-of-n takes the answer of the highest fitted reward
among n of the first model: its KL is at most log n − (n − 1)/n. One thread.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

import thetahat as th

LENGTH, PAIRS, LOOK = 24, 3000, 256
BETAS = (0.0, 0.1, 0.5)


def language() -> tuple[th.language.Characters, th.language.Autoregressive, set[str], float]:
    topics = import_module("pydoc_data.topics").topics
    texts = [topics[name].lower() for name in sorted(topics)]
    alphabet = th.language.Characters.of(*texts)
    train, held_out = th.language.Tokens(texts, alphabet, context=64).split(0.05)
    network = th.networks.Transformer(
        alphabet.vocabulary, layers=2, width=64, heads=4, activation="relu2", seed=0
    )
    solver = th.Stochastic(
        steps=500, batch_size=32, optimiser="muon", learning_rate=0.02, momentum=0.95, lr_schedule="linear", held_out=held_out, evaluate_every=500
    )  # fmt: skip
    fit = th.fit(th.language.Autoregressive(network), train, solver=solver)
    words = {w for text in texts for w in text.split() if w.isalpha() and len(w) >= 3}
    assert fit.certificate.trend is not None
    return alphabet, fit.model, words, fit.certificate.trend[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.process_time()
    alphabet, first, words, nats = language()
    prompt = torch.from_numpy(alphabet.encode(" ")).long()
    print(
        f"language model: {nats:.3f} nats a held-out character ({time.process_time() - begun:.0f} s)",
        flush=True,
    )

    def gold(answers: list[Tensor]) -> Tensor:
        texts = [alphabet.decode(a.numpy()) for a in answers]
        return torch.tensor([float(len({w for w in text.split() if w in words})) for text in texts])

    def drawn(model: th.language.Autoregressive, n: int, seed: int) -> Tensor:
        return model.sample(prompt.expand(n, -1), LENGTH, generator=torch.Generator().manual_seed(seed))

    # ---- a reward, fitted to judgements --------------------------------------------------------------------
    g = torch.Generator().manual_seed(1)
    answers = drawn(first, 2 * PAIRS, 1)
    a, b = answers.chunk(2)
    worth = gold(list(answers))
    better = torch.rand(PAIRS, generator=g) < torch.sigmoid(worth[:PAIRS] - worth[PAIRS:])
    rows = [
        {
            "prompt": prompt.tolist(),
            "chosen": (x if up else y).tolist(),
            "rejected": (y if up else x).tolist(),
        }
        for x, y, up in zip(a, b, better.tolist(), strict=True)
        if not torch.equal(x, y)
    ]
    whole = th.preferences.TokenPairs(rows, context=LENGTH + len(prompt)).whole
    pairs = th.data.Tensors(
        th.data.Batch(whole.tensors), target="preference"
    )  # one prompt: pairs of answers are what is independent
    scorer = th.preferences.Reward(copy.deepcopy(first.network))
    solver = th.Stochastic(
        steps=200, batch_size=64, learning_rate=5e-4, warmup_steps=20, held_out=0.2, evaluate_every=10
    )
    judge = th.fit(th.preferences.BradleyTerry(scorer), pairs, solver=solver)
    print(judge.certificate, f"({time.process_time() - begun:.0f} s)", flush=True)
    length = torch.tensor([LENGTH + len(prompt)])

    @torch.no_grad()
    def fitted(answers: list[Tensor]) -> Tensor:
        whole = torch.cat([prompt.expand(len(answers), -1), torch.stack(answers)], 1)
        return scorer(whole, length.expand(len(answers))).double()

    # ---- best of n -----------------------------------------------------------------------------------------
    found = []
    pool = drawn(first, 64 * LOOK, 2)
    scores, golds = fitted(list(pool)).view(LOOK, 64), gold(list(pool)).view(LOOK, 64).double()
    for n in (1, 2, 4, 8, 16, 32, 64):
        best = scores[:, :n].argmax(1, keepdim=True)
        kl = math.log(n) - (n - 1) / n
        found.append(("best of n", n, kl, scores.gather(1, best).mean().item(), golds.gather(1, best)))

    # ---- the run -------------------------------------------------------------------------------------------
    for beta in BETAS:
        policy = th.language.Autoregressive(copy.deepcopy(first.network))
        policy.requires_grad_(True)
        draws = th.language.Generations(
            [prompt], lambda prompts, answers: fitted(answers), max_new_tokens=LENGTH, num_generations=64,
            advantage=th.language.RLOO(), reference=first, kl_coef=beta, seed=int(100 * beta) + 1,
        )  # fmt: skip
        objective = th.Objective([th.LogLikelihood(policy, draws, th.rl.Advantage())])
        solver = th.Stochastic(
            steps=given.steps, learning_rate=1e-3, lr_schedule="constant", max_grad_norm=1.0, in_place=True
        )
        state = solver.start(objective)
        looks = sorted({0, 5, 10, 20, 40, 60, 80, 100, 125, given.steps})
        while True:
            if state.step in looks:
                policy.eval()
                answers = drawn(policy, LOOK, 3)
                whole = torch.cat([prompt.expand(LOOK, -1), answers], 1)
                batch = th.data.Batch({"input": whole[:, :-1], "target": whole[:, 1:]}, dims=2)
                with torch.no_grad():
                    kl = float(
                        (policy.log_prob(batch) - first.log_prob(batch))[:, len(prompt) - 1 :].sum(1).mean()
                    )
                found.append(
                    (
                        f"RLOO, β = {beta:g}",
                        state.step,
                        kl,
                        float(fitted(list(answers)).mean()),
                        gold(list(answers)).double(),
                    )
                )
            if solver.done(objective, state):
                break
            state = solver.step(objective, state)
        print(
            f"β = {beta:g}: {time.process_time() - begun:.0f} s",
            alphabet.decode(drawn(policy, 1, 5)[0].numpy()).__repr__(),
            flush=True,
        )

    lines = [
        "# RLHF of a small language model against a fitted reward, gold held apart",
        "",
        f"One thread, {time.process_time() - begun:.0f} s of CPU in all. {LOOK} answers a row; ± of gold "
        "over answers. KL in nats an answer of "
        f"{LENGTH} characters: for best of n its bound log n − (n − 1)/n.",
        "",
        f"The reward model: {judge.certificate.detail}",
        "",
        "| | n, or step | KL | fitted reward | gold | ± |",
        "|---|---|---|---|---|---|",
    ]
    table = []
    for name, step, kl, proxy, true in found:
        mean, error = float(true.mean()), float(true.std()) / true.numel() ** 0.5
        lines.append(f"| {name} | {step} | {kl:.2f} | {proxy:.2f} | {mean:.2f} | {error:.2f} |")
        table += [
            {"method": name, "√KL": max(kl, 0.0) ** 0.5, "what": w, "value": v}
            for w, v in (("fitted reward", proxy), ("gold", mean))
        ]
    print("\n".join(lines))
    if given.results is not None:
        given.results.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if given.picture is not None:
        import altair as alt
        import pandas as pd

        chart = (
            alt.Chart(pd.DataFrame(table))
            .mark_line(point=True)
            .encode(x="√KL:Q", y="value:Q", color="method:N", order="√KL:Q")
        )
        chart.properties(width=280, height=220).facet(column=alt.Column("what:N", title=None)).resolve_scale(
            y="independent"
        ).save(str(given.picture))


if __name__ == "__main__":
    main()
