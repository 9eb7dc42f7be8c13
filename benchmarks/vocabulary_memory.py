"""Memory of the last layer of a language model: the log-probability in blocks of the vocabulary beside transformers' loss.

    python benchmarks/vocabulary_memory.py [--results FILE]

One forward and backward pass from the hidden state (4, 512, 576) through a vocabulary of 49,152, as SmolLM2-135M has, in float32, each in a
process of its own; the most memory that the process held, less what it held before. The gradients are compared too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROWS, TOKENS, WIDTH, V = 4, 512, 576, 49152
KINDS = {"transformers": 0, "ours, in blocks of 8,192": 8192, "ours, in blocks of 2,048": 2048}


def one(chunk: int) -> dict[str, float]:
    """Memory in bytes, the mean log-probability, and the norms of the two gradients."""
    import resource

    import torch

    torch.manual_seed(0)
    h = torch.randn(ROWS, TOKENS, WIDTH, requires_grad=True)
    head = torch.nn.Linear(WIDTH, V, bias=False)
    y = torch.randint(V, (ROWS, TOKENS))
    if chunk:
        from thetahat.language.token_log_prob import token_log_prob
    else:
        from transformers.loss.loss_utils import ForCausalLMLoss
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if chunk:
        loss = -token_log_prob(h, head.weight, None, y, chunk).mean()
    else:
        loss = ForCausalLMLoss(head(h), None, V, shift_labels=y)
    loss.backward()
    assert h.grad is not None
    assert head.weight.grad is not None
    held = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return {
        "held": held,
        "loss": float(loss.detach()),
        "h": float(h.grad.norm()),
        "W": float(head.weight.grad.norm()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one", type=int)
    parser.add_argument("--results", type=Path)
    asked = parser.parse_args()
    if asked.one is not None:
        print(json.dumps(one(asked.one)))
        return
    found = {}
    for name, chunk in KINDS.items():
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(chunk)], capture_output=True, text=True, check=True
        )
        found[name] = json.loads(done.stdout.splitlines()[-1])
    first = found["transformers"]
    lines = [
        f"# Memory of the last layer: {ROWS} × {TOKENS} tokens, a vocabulary of {V:,}, float32",
        "",
        "Made by `python benchmarks/vocabulary_memory.py`.",
        "",
        "| | MB held | ratio | loss, and gradients' norms, away from transformers' |",
        "|---|---|---|---|",
    ]
    for name, each in found.items():
        away = max(abs(each[k] / first[k] - 1) for k in ("loss", "h", "W"))
        lines.append(
            f"| {name} | {each['held'] / 1e6:,.0f} | {each['held'] / first['held']:.2f} | {away:.0e} |"
        )
    print("\n".join(lines))
    if asked.results is not None:
        asked.results.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
