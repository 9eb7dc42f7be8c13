"""VAE: maximise Σ log ∫ p(y | z) N(z) dz, bounded below."""

from __future__ import annotations

from digits import GREY, LATENT, LEVELS, PIXELS, row_of, steps

import thetahat as th
from thetahat.tour.row import Row


def run(quick: bool = False) -> Row:
    encoder = th.networks.mlp(PIXELS, (256,), 2 * LATENT, seed=1)
    decoder = th.networks.mlp(LATENT, (256,), PIXELS * LEVELS, seed=2)
    model = th.generative.VAE(encoder, decoder, GREY, latent=LATENT)
    solver = steps(quick, 1500, batch_size=128, learning_rate=2e-3, warmup_steps=50)
    return row_of(
        "VAE", "Σ log ∫ p(y | z) N(z) dz, bounded below", model, solver, quick, samples=16 if quick else 128
    )


if __name__ == "__main__":
    print(run())
