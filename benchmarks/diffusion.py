"""8 × 8 digits of 17 levels: a diffusion model beside a flow, a VAE, a mixture and models of one pixel after
another, in one table.

    python benchmarks/diffusion.py [--quick] [--picture docs/diffusion.png]

scikit-learn's digits, the first 1400 to fit, the other 397 to score. Every model is fitted by `th.fit`;
nothing of the held-out images decides when a run ends: a tenth of the 1400 is held out for that. Seconds are
of the process's CPU time, one thread. `--quick` tries it with few steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import altair as alt
import pandas as pd
import torch
from sklearn.datasets import load_digits

import thetahat as th

L = 17
PIXEL = th.families.Categorical(L)


def diffusion(predict: str) -> th.generative.Diffusion:
    network = th.generative.UNet((8, 8), L if predict == "levels" else 1, channels=(24, 48))
    return th.generative.Diffusion(network, levels=L, predict=predict)


def mixture() -> th.models.Mixture:
    return th.models.Mixture(
        [
            th.generative.FullyVisible(PIXEL, th.generative.MaskedMLP(64, L - 1, hidden=None, seed=k))
            for k in range(30)
        ]
    )


def vae() -> th.generative.VAE:
    encoder, decoder = th.networks.mlp(64, (256, 256), 32), th.networks.mlp(16, (256, 256), 64 * L, seed=1)
    return th.generative.VAE(encoder, decoder, PIXEL, latent=16)


def flow() -> th.generative.Dequantised:
    return th.generative.Dequantised(
        th.generative.Flow.spline(64, transforms=3, hidden=(128,)), levels=L, maps=["logit"]
    )


Build = Callable[[], torch.nn.Module]
DIFFUSION = {"steps": 1600, "batch_size": 64, "learning_rate": 3e-3, "ema_decay": 0.995, "warmup_steps": 30}
DRAWS = {"diffusion": 64, "VAE": 500}  # an image and look, for the score
MODELS: dict[str, tuple[Build, dict[str, object]]] = {
    "diffusion, levels": (lambda: diffusion("levels"), DIFFUSION),
    "diffusion, perceptron": (
        lambda: th.generative.Diffusion(
            th.generative.Denoiser(64, 64 * L, blocks=2, dropout=0.3), levels=L, predict="levels"
        ),
        {"steps": 2500, "batch_size": 128, "learning_rate": 1e-3, "ema_decay": 0.999, "warmup_steps": 100},
    ),
    "diffusion, v": (lambda: diffusion("v"), DIFFUSION),
    "autoregressive: transformer": (
        lambda: th.generative.FullyVisible(PIXEL, th.generative.PixelTransformer((8, 8), levels=L)),
        {"steps": 600, "batch_size": 32, "learning_rate": 2e-3, "warmup_steps": 50},
    ),
    "autoregressive: MADE": (
        lambda: th.generative.FullyVisible(PIXEL, th.generative.MaskedMLP(64, L - 1, hidden=256, levels=L)),
        {"steps": 800, "batch_size": 128, "learning_rate": 3e-3},
    ),
    "VAE": (vae, {"steps": 2000, "batch_size": 128, "learning_rate": 1e-3}),
    "flow": (flow, {"steps": 800, "batch_size": 128, "learning_rate": 2e-3}),
    "mixture of 30": (mixture, {"steps": 500, "batch_size": 128, "learning_rate": 0.1}),
}


def picture(fit: th.Fit, images: torch.Tensor, path: Path) -> None:
    """Ten digits, and below them ten draws of each sampler."""
    g = torch.Generator().manual_seed(0)
    rows = [
        images[:10],
        *(fit.model.draw(10, steps=100, method=m, generator=g) for m in ("ancestral", "ddim", "heun")),
    ]
    pixels = pd.DataFrame(
        [
            {"x": 9 * i + j % 8, "y": 9 * r + j // 8, "level": int(image[j])}
            for r, row in enumerate(rows)
            for i, image in enumerate(row)
            for j in range(64)
        ]
    )
    apart = {
        "x": alt.Scale(domain=list(range(90))),
        "y": alt.Scale(domain=list(range(36))),
    }  # a gap between two digits
    at = {"x": alt.X("x:O", axis=None, scale=apart["x"]), "y": alt.Y("y:O", axis=None, scale=apart["y"])}
    colour = alt.Color("level:Q", scale=alt.Scale(scheme="greys"), legend=None)
    alt.Chart(pixels).mark_rect().encode(**at, color=colour).properties(width=540, height=210).save(str(path))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", help="names of models")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "diffusion.md")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    digits = load_digits().images.astype(int)
    train, test = (th.generative.Images(part, levels=L) for part in (digits[:1400], digits[1400:]))
    scores, seconds, sizes = {}, {}, {}
    for name, (build, settings) in MODELS.items():
        if chosen.only and name not in chosen.only:
            continue
        if chosen.quick:
            settings = settings | {"steps": 10, "ema_decay": None}
        begun = time.process_time()
        fit = th.fit(build(), train, solver=th.Stochastic(**settings))  # type: ignore[arg-type]
        seconds[name], sizes[name] = time.process_time() - begun, len(fit.theta)
        draws = (
            {}
            if not hasattr(fit.model, "tightened")
            else {"samples": 2 if chosen.quick else DRAWS.get(name.split(",")[0], 32)}
        )
        scores[name] = fit.score(test, **draws)
        print(f"{name}: {seconds[name]:.0f} s, {scores[name]}", flush=True)
        if chosen.picture is not None and name == "diffusion, levels":
            picture(fit, test.whole["y"], chosen.picture)
    if len(scores) < 2:
        return
    table = th.compare(scores)
    print(table)
    lines = [
        "# 8 × 8 digits of 17 levels: 1400 fitted, 397 held out",
        "",
        f"One thread, torch {torch.__version__}. ± is the standard error over images; a difference's is "
        "paired.",
        "",
        "| | bits per dimension | ± | of which the model's own noise | difference, nats an image | kind | "
        "parameters | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in table.table.iterrows():
        s = table.scores[str(name)]
        bits = s.bits_per_dimension / abs(s.mean)
        apart = f"{row['difference'] / s.n:.2f} ± {row['difference_error'] / s.n:.2f}".replace("-", "−")
        cells = [
            f"{s.bits_per_dimension:.4f}",
            f"{s.standard_error * bits:.4f}",
            f"{s.error / s.n * bits:.4f}",
            apart,
            row["kind"],
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {sizes[str(name)]} | {seconds[str(name)]:.0f} |")
    if not chosen.quick:
        chosen.results.parent.mkdir(exist_ok=True)
        chosen.results.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
