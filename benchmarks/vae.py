"""Dynamically binarised MNIST: nats a test image of a VAE fitted in ten minutes on two cores, by importance
sampling with K = 1000.

    python benchmarks/vae.py path/to/mnist [--steps 12000] [--threads 2] [--validate] [--picture docs/vae.png]

The folder holds the four IDX files (also .gz). Every pixel of every image is drawn anew each epoch with its
grey level as probability; the test set is drawn once, from a seed. A recipe is chosen with `--validate`,
which never opens the test files: the last 5,000 training images take their place. Where pythae can be
imported its VAE is fitted beside it for as many seconds, with its own networks, optimiser and loop at their
defaults, to pixels that are drawn anew in the same way; both are scored on the same images by the same draws'
number. With one thread the seconds are of CPU time, on a machine that does other things besides.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import thetahat as th

PIXELS = 784


def model(width: int, latent: int, K: int, estimator: str, seed: int) -> th.generative.VAE:
    encoder = th.networks.mlp(PIXELS, (width, width), 2 * latent, seed=seed)
    decoder = th.networks.mlp(latent, (width, width), PIXELS, seed=seed + 1)
    return th.generative.VAE(encoder, decoder, latent=latent, K=K, estimator=estimator)


def images(folder: Path, name: str) -> th.generative.Images:
    return th.generative.Images(next(folder.glob(f"{name}-images-idx*")))


# ---- pythae ------------------------------------------------------------------------------------------------


class Drawn(torch.utils.data.Dataset):
    """Grey images as pythae reads data: pixels drawn anew each time."""

    def __init__(self, grey: th.generative.Images):
        self.y = grey.whole["y"]
        self.output = import_module("pythae.data.datasets").DatasetOutput

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> Any:
        return self.output(data=torch.bernoulli(self.y[i] / 255.0).view(1, 28, 28))


class Encoder(nn.Module):
    """pythae's encoder, its outputs where thetahat reads them: for the one score of both."""

    def __init__(self, own: nn.Module):
        super().__init__()
        self.own = own

    def forward(self, y: Tensor) -> Tensor:
        out = self.own(y.view(-1, 1, 28, 28))
        return torch.cat([out.embedding, 0.5 * out.log_covariance], -1)


class Decoder(nn.Module):
    """pythae's decoder gives probabilities: their logits."""

    def __init__(self, own: nn.Module):
        super().__init__()
        self.own = own

    def forward(self, z: Tensor) -> Tensor:
        p = self.own(z).reconstruction.reshape(-1, PIXELS).clamp(1e-7, 1 - 1e-7)
        return torch.logit(p)


def peer(
    grey: th.generative.Images, seconds: float, latent: int, clock: Any
) -> tuple[th.generative.VAE, float, int]:
    """(pythae's VAE after about so many seconds, how many they were, epochs): whole epochs, as many as the
    first one's time lets in."""
    models, trainers = import_module("pythae.models"), import_module("pythae.trainers")
    own = models.VAE(models.VAEConfig(input_dim=(1, 28, 28), latent_dim=latent, reconstruction_loss="bce"))
    data, spent, epochs = Drawn(grey), 0.0, 1
    with tempfile.TemporaryDirectory() as folder:
        for wanted in (1, None):
            epochs = 1 if wanted else max(1, int(seconds / spent))
            config = trainers.BaseTrainerConfig(
                output_dir=folder,
                num_epochs=epochs,
                learning_rate=1e-3,
                per_device_train_batch_size=128,
                no_cuda=True,
            )
            torch.manual_seed(0)
            own = models.VAE(
                models.VAEConfig(input_dim=(1, 28, 28), latent_dim=latent, reconstruction_loss="bce")
            )
            begun = clock()
            trainers.BaseTrainer(own, data, None, training_config=config).train()
            spent = clock() - begun
    return th.generative.VAE(Encoder(own.encoder), Decoder(own.decoder), latent=latent).eval(), spent, epochs


# ---- the run -----------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--latent", type=int, default=50)
    parser.add_argument("--rate", type=float, default=0.015)
    parser.add_argument("--average", type=float, default=0.99)
    parser.add_argument("--optimiser", default="muon")
    parser.add_argument("--draws", type=int, default=1, help="K while fitting")
    parser.add_argument("--estimator", default="iwae")
    parser.add_argument("--samples", type=int, default=1000, help="K of the score")
    parser.add_argument("--rows", type=int, help="score the first so many images only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--alone", action="store_true", help="without pythae")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--results", type=Path, help="a file for the table")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    grey = images(a.folder, "train")
    train, test = (
        (grey.take(slice(0, 55_000)), grey.take(slice(55_000, None)))
        if a.validate
        else (grey, images(a.folder, "t10k"))
    )
    scored = (test if a.rows is None else test.take(slice(0, a.rows))).binarised(seed=1)
    solver = th.Stochastic(
        steps=a.steps,
        batch_size=a.batch,
        learning_rate=a.rate,
        optimiser=a.optimiser,
        warmup_steps=min(200, a.steps // 10),
        ema_decay=a.average,
        held_out=None,
        restore_best=False,
        seed=a.seed,
    )
    clock = time.process_time if a.threads == 1 else time.perf_counter
    begun, cpu = clock(), time.process_time()
    fit = th.fit(model(a.width, a.latent, a.draws, a.estimator, a.seed), train.binarised(), solver=solver)
    taken, cpu = clock() - begun, time.process_time() - cpu
    found = {f"thetahat, K = {a.draws}": (fit.model, taken, a.steps * a.batch / train.size)}
    print(f"fitted in {taken:.0f} s, {cpu:.0f} s of CPU", flush=True)
    if find_spec("pythae") and not a.alone:
        found["pythae, VAE at its defaults"] = peer(train, taken, a.latent, clock)
    else:
        print("pythae is not installed, or was not asked for: thetahat alone")
    from thetahat.evaluation.score import score

    which = "last 5,000 training" if a.validate else "test"
    lines = [
        f"# Dynamically binarised MNIST, nats of the {which} images, importance sampling with K = "
        f"{a.samples}",
        "",
        f"{a.threads} threads, torch {torch.__version__}; {scored.size} images. ± is the standard error over "
        "images.",
        "",
        "| | −log p, nats an image | ± | epochs | seconds of the fit | seconds of the score |",
        "|---|---|---|---|---|---|",
    ]
    for name, (fitted, seconds, epochs) in found.items():
        begun = clock()
        s = score(fitted.tightened(a.samples), scored, generator=torch.Generator().manual_seed(0))
        spent = clock() - begun
        lines.append(
            f"| {name} | {-s.mean:.2f} | {s.standard_error:.2f} | {epochs:.0f} | {seconds:.0f} | {spent:.0f} "
            "|"
        )
        print(lines[-1], flush=True)
    print("\n".join(lines))
    if a.picture is not None:
        from thetahat.report.pictures import grid

        drawn = torch.stack([next(scored.batches())["y"][:20].long(), torch.from_numpy(fit.sample(20))]).view(
            -1, PIXELS
        )
        grid(drawn, (28, 28), 2, columns=20).save(str(a.picture))
    if a.results is not None:
        a.results.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
