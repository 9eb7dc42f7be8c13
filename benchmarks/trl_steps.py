"""Steps of fine-tuning and of DPO beside TRL's trainers: tokens a second and the loss, at identical settings.

    pip install trl datasets peft accelerate
    python benchmarks/trl_steps.py [--layers 30] [--steps 6] [--results FILE]

The network has the shape of SmolLM2-135M (30 layers; --layers takes fewer) with random weights, in float32 on the CPU; one batch of 4 rows
of 128 tokens, again and again, so that the order of the data is the same; AdamW, a constant rate, no clipping, no dropout. Every
parameter is trained. Both are taken in turn, three times; the median of the ratios of their tokens a second is told, and the
largest difference of the losses of the steps.

GRPO draws its data, so that losses are not compared: 4 answers of at most 32 tokens to each of 2 prompts of unequal lengths a
step, no divergence to a reference, and the tokens are those of the answers. A random network draws its end seldom.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

import thetahat as th

ROWS, TOKENS, PROMPT, V = 4, 128, 32, 49152
GROUP, ANSWER, LENGTHS = 4, 32, (8, 40)  # answers to a prompt, tokens of each, tokens of the prompts
RATE = 1e-5


def network(layers: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=V, hidden_size=576, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def tokenizer() -> Any:
    """What TRL asks for; the data are tokens already."""
    from transformers import PreTrainedTokenizerFast

    own = th.language.BPE.train(["a"], 257)._own
    return PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<end>", pad_token="<end>")


def texts() -> list[str]:
    """Letters, of which the tokenizer makes a token each; a row and its end are TOKENS tokens."""
    g = torch.Generator().manual_seed(1)
    return [
        "".join(chr(97 + k) for k in row)
        for row in torch.randint(26, (2 * ROWS, TOKENS - 1), generator=g).tolist()
    ]


def rows() -> list[list[int]]:
    own = tokenizer()
    return [[*own(text)["input_ids"], own.eos_token_id] for text in texts()]


class Clock:
    """CPU seconds a step, of the steps after the first, which allocates."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def tick(self) -> None:
        self.at.append(time.process_time())

    def __call__(self) -> float:
        return (self.at[-1] - self.at[1]) / (len(self.at) - 2)


def common(folder: str, steps: int) -> dict[str, Any]:
    return {
        "output_dir": folder, "per_device_train_batch_size": ROWS, "max_steps": steps, "learning_rate": RATE,
        "lr_scheduler_type": "constant", "warmup_steps": 0, "weight_decay": 0.0, "max_grad_norm": 0.0, "logging_steps": 1,
        "report_to": [], "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "save_strategy": "no",
        "disable_tqdm": True, "max_length": TOKENS, "optim": "adamw_torch",
    }  # fmt: skip


def theirs(kind: str, model: Any, steps: int) -> tuple[float, list[float]]:
    """(seconds a step, the loss of each step)."""
    import trl
    from datasets import Dataset
    from transformers import TrainerCallback

    clock = Clock()

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not clock.at:
                clock.tick()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    data = rows()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = common(folder, steps)
        if kind == "SFT":
            mask = [0] * PROMPT + [1] * (TOKENS - PROMPT)
            given = Dataset.from_dict({"input_ids": data[:ROWS], "completion_mask": [mask] * ROWS})
            trainer: Any = trl.SFTTrainer(
                model,
                trl.SFTConfig(**settings, completion_only_loss=True),
                train_dataset=given,
                processing_class=tokenizer(),
                callbacks=[Watch()],
            )
        elif kind == "GRPO":
            settings |= {"per_device_train_batch_size": GROUP * len(LENGTHS)}
            del settings["max_length"]
            config = trl.GRPOConfig(
                **settings, num_generations=GROUP, max_completion_length=ANSWER, beta=0.0, loss_type="grpo", temperature=1.0,
                shuffle_dataset=False, disable_dropout=True,
            )  # fmt: skip
            trainer = trl.GRPOTrainer(
                model, lambda completion_ids, **_: [worth(ids) for ids in completion_ids], args=config,
                train_dataset=Dataset.from_dict({"prompt": [t[:n] for t, n in zip(texts(), LENGTHS, strict=False)]}),
                processing_class=tokenizer(), callbacks=[Watch()],
            )  # fmt: skip
        else:
            words = texts()
            given = Dataset.from_dict(
                {
                    "prompt": [t[:PROMPT] for t in words[:ROWS]],
                    "chosen": [t[PROMPT:] for t in words[:ROWS]],
                    "rejected": [t[PROMPT:] for t in words[ROWS:]],
                }
            )
            trainer = trl.DPOTrainer(
                model, copy.deepcopy(model), trl.DPOConfig(**settings, beta=0.1, precompute_ref_log_probs=False),
                train_dataset=given, processing_class=tokenizer(), callbacks=[Watch()],
            )  # fmt: skip
        trainer.train()
        losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        if kind == "GRPO":
            drawn = [line["completions/mean_length"] for line in trainer.state.log_history if "loss" in line]
            print(f"TRL draws {statistics.mean(drawn):.1f} tokens an answer", flush=True)
    return clock(), losses


def ours(kind: str, model: Any, steps: int) -> tuple[float, list[float]]:
    data = rows()
    policy = th.language.Autoregressive(model)
    if kind == "SFT":
        ids = torch.tensor(data[:ROWS])
        count = torch.zeros(ROWS, TOKENS - 1)
        count[:, PROMPT - 1 :] = 1
        batch = th.data.Batch({"input": ids[:, :-1], "target": ids[:, 1:]}, count=count, dims=2)
        objective = th.Objective([th.LogLikelihood(policy, th.data.Tensors(batch, target="target"))])
    elif kind == "GRPO":
        end = tokenizer().eos_token_id
        prompts = [row[:n] for row, n in zip(data, LENGTHS, strict=False)]
        draws = th.language.Generations(
            prompts, lambda prompts, answers: torch.tensor([worth(a.tolist()) for a in answers]), max_new_tokens=ANSWER,
            end=end, num_generations=GROUP, prompts_per_step=len(LENGTHS), advantage=th.language.GroupRelative(),
        )  # fmt: skip
        objective = th.Objective([th.LogLikelihood(policy, draws, th.rl.Advantage())])
    else:
        given = [
            {"prompt": a[:PROMPT], "chosen": a[PROMPT:], "rejected": b[PROMPT:]}
            for a, b in zip(data[:ROWS], data[ROWS:], strict=True)
        ]
        dpo = th.preferences.DPO(policy, th.language.Autoregressive(copy.deepcopy(model)), 0.1)
        objective = th.Objective([th.LogLikelihood(dpo, th.preferences.TokenPairs(given, context=TOKENS))])
    solver = th.Stochastic(
        steps=steps, batch_size=ROWS, learning_rate=RATE, lr_schedule="constant", held_out=None, in_place=True
    )
    clock, values = Clock(), []

    def watch(state: Any) -> None:
        clock.tick()
        if state.step:
            values.append(-state.value)

    th.maximize(objective, solver=solver, callback=watch)
    return clock(), values


def worth(answer: list[int]) -> float:
    """Of an answer: the share of its tokens whose number is even."""
    return sum(token % 2 == 0 for token in answer) / max(1, len(answer))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--only", choices=("SFT", "DPO", "GRPO"))
    parser.add_argument("--results", type=Path)
    asked = parser.parse_args()
    import trl

    lines = [
        f"# Steps beside TRL {trl.__version__}, torch {torch.__version__}, on {torch.get_num_threads()} threads of a CPU",
        "",
        f"A Llama of SmolLM2-135M's shape, {asked.layers} layers, float32, {ROWS} rows of {TOKENS} tokens. Made by `python benchmarks/trl_steps.py`.",
        "",
        "| | tokens a second, ours | TRL | ratio | largest difference of a step's loss |",
        "|---|---|---|---|---|",
    ]
    for kind in ("SFT", "DPO", "GRPO") if asked.only is None else (asked.only,):
        rows_, length = (GROUP * len(LENGTHS), ANSWER) if kind == "GRPO" else (ROWS, TOKENS)
        tokens = rows_ * length * (2 if kind == "DPO" else 1)
        pairs = []
        for _ in range(asked.times):
            a, own = ours(kind, network(asked.layers), asked.steps)
            b, other = theirs(kind, network(asked.layers), asked.steps)
            pairs.append((tokens / a, tokens / b))
            apart = (
                max(abs(x - y) for x, y in zip(own, other, strict=True)) if kind != "GRPO" else float("nan")
            )
        ratio = statistics.median(x / y for x, y in pairs)
        mine, trls = (statistics.median(side) for side in zip(*pairs, strict=True))
        lines.append(
            f"| {kind} | {mine:,.0f} | {trls:,.0f} | {ratio:.2f} | {'' if apart != apart else f'{apart:.1e}'} |"
        )
        print(lines[-1], flush=True)
    if asked.results is not None:
        asked.results.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
