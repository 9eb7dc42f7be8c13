"""audit: an independent check of the likelihood that a published generative model claims."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict, dataclass

import torch

from ..errors import BadArgument
from ..evaluation.score import Score
from ..notebook import Printed
from ..printable import encoded
from ..types import Data, Plain, Settings
from .audited_model import Options, of_mass, opened
from .claims import (
    NO_NOISE,
    SCALING,
    Claim,
    Variant,
    claim_of,
    explained,
    faults_of,
    not_finite,
    number,
    of_model,
    variants,
)
from .evaluated import Evaluated, Values, evaluate, evaluating, finite
from .images import Images, _stacked
from .published import SDE
from .scaling import Fault, chosen, levelled, not_invertible, unused

WIDTH = 80


@dataclass(frozen=True, eq=False)
class Audit(Printed):
    """What `audit` found.

    Parameters
    ----------
    score
        log P of each image, in nats, and what kind of number it is; None where no number is true
    method
        how it was computed
    shape, levels, n
        of one image; values of a pixel; images
    scaling
        what the model saw of them; None of a model of whole numbers
    faults
        of images, scaling, model and claim, named; empty: none was found
    variants
        the figures that faults would have made of it, the audit's own first
    claim
        the published figure; None: none was given
    """

    score: Score | None
    method: str
    shape: tuple[int, ...]
    levels: int
    n: int
    scaling: str | None
    faults: tuple[Fault, ...]
    variants: tuple[Variant, ...]
    claim: Claim | None = None

    @property
    def bits_per_dimension(self) -> float:
        """−log P / (d log 2), a mean over images; NaN where no number is true."""
        return math.nan if self.score is None else self.score.bits_per_dimension

    @property
    def standard_error(self) -> float:
        """Of bits_per_dimension, over images."""
        if self.score is None:
            return math.nan
        return self.score.standard_error / (math.prod(self.shape) * math.log(2))

    @property
    def kind(self) -> str | None:
        """ "exact" or "lower bound" (of log P: the bits are an upper bound)."""
        return None if self.score is None else self.score.kind

    @property
    def measure(self) -> str:
        """Always "mass": a density of images of whole numbers is not reported."""
        return "mass"

    @property
    def draws(self) -> int | None:
        """Draws of noise an image; None where there is none."""
        return None if self.score is None else self.score.K

    @property
    def explanations(self) -> tuple[Variant, ...]:
        """The variants that agree with the claim and have the fewest faults."""
        return () if self.claim is None else explained(self.claim, self.variants)

    @property
    def ok(self) -> bool:
        """Whether no fault was found."""
        return not self.faults

    def to_dict(self) -> Settings:
        """Plain values, for JSON; None for what is not finite."""
        return {
            "bits_per_dimension": _plain(self.bits_per_dimension),
            "standard_error": _plain(self.standard_error),
            "kind": self.kind,
            "measure": self.measure,
            "method": self.method,
            "draws": self.draws,
            "n": self.n,
            "shape": list(self.shape),
            "levels": self.levels,
            "scaling": self.scaling,
            "claimed": None if self.claim is None else self.claim.value,
            "claimed_error": None if self.claim is None else self.claim.error,
            "explanations": [list(v.faults) for v in self.explanations],
            "faults": [asdict(f) | {"effect": _plain(f.effect)} for f in self.faults],
            "variants": [
                {"faults": list(v.faults), "bits": _plain(v.bits), "error": _plain(v.error)}
                for v in self.variants
            ],
            "score": None if self.score is None else self.score.to_dict(),
        }

    @encoded
    def __str__(self) -> str:
        lines = [self._first(), *self._rows(), ""]
        if self.ok:
            lines.append("No fault was found.")
        for fault in self.faults:
            effect = "" if fault.effect is None else f": {_signed(fault.effect)} bits per dimension"
            lines += [
                f"Fault: {fault.name}{effect}",
                *textwrap.wrap(fault.sentence, WIDTH - 2, initial_indent="  ", subsequent_indent="  "),
            ]
        shown = [v for v in self.variants[1:] if len(v.faults) == 1 or v.faults == (NO_NOISE, SCALING)]
        if shown:
            width = max(len(v.name) for v in shown) + 2
            lines += ["", "The same model would have been quoted at"]
            lines += [f"  {v.name:<{width}}{number(v.bits):>11}" for v in shown]
        return "\n".join(lines)

    def _first(self) -> str:
        if self.score is None:
            return "No number of bits per dimension is true of this model and these images."
        error = "" if math.isnan(self.standard_error) else f" ± {self.standard_error:.4f}"
        what = "exact log mass" if self.kind == "exact" else f"{self.kind} of the log mass"
        return f"{number(self.bits_per_dimension)}{error} bits per dimension: {what}"

    def _rows(self) -> list[str]:
        size = " × ".join(map(str, self.shape))
        rows = [("method", self.method), ("data", f"{self.n} images of {size} pixels, {self.levels} levels")]
        if self.scaling is not None:
            rows.append(("scaling", self.scaling))
        if self.score is not None and self.score.K is not None:
            noise = self.score.error / (self.score.n * math.prod(self.shape) * math.log(2))
            rows.append(("draws", f"{self.score.K} an image, whose noise is {noise:.4f} of the ±"))
        if self.claim is not None:
            rows.append(("claimed", self._claimed(self.claim)))
        return [
            line
            for label, text in rows
            for line in textwrap.wrap(text, WIDTH, initial_indent=f"  {label:<9}", subsequent_indent=" " * 11)
        ]

    def _claimed(self, claim: Claim) -> str:
        how = self.explanations
        error = f"{claim.rounding if claim.error is None else claim.error:.2g}"
        text = f"{number(claim.value)} ± {error} bits per dimension: "
        if not self.variants:
            return text + "not compared"
        if not how:
            return text + "not reproduced"
        if not how[0].faults:
            return text + "agrees"
        return text + " or ".join(f"reproduced by '{v.name}' ({number(v.bits)})" for v in how)


def audit(
    model: Plain,
    images: Data,
    *,
    levels: int | None = None,
    scaling: Plain = None,
    scheduler: Plain = None,
    sde: SDE | None = None,
    prediction_type: str | None = None,
    variance_type: str | None = None,
    method: str | None = None,
    claimed: float | str | None = None,
    claimed_error: float | None = None,
    draws: int = 2,
    times: int | None = None,
    probes: int | None = None,
    tolerance: float = 1e-5,
    batch_size: int = 100,
    seed: int = 0,
) -> Audit:
    """Bits per dimension of images under a published model, recomputed; and by which faults its claim differs.

        bits = −log P(y) / (d log 2),      log P(y) ≥ E_u [log p(x(y + u)) + log |dx/dy|],      u ~ Uniform[0, 1)^d

    of a density, by uniform dequantisation; by the variational bound and its discretised decoder of a
    diffusion of T steps. Always a mass of whole numbers, so that models can be compared.

    Parameters
    ----------
    model
        a network with `scheduler` (called as diffusers' UNet2DModel: model(x, t).sample) or with `sde` (as
        score_sde: model(x, t), t in [0, 1]); a flow of zuko; a distribution of torch, or any object with
        log_prob(x); a function x → log density; a model of this library. Densities see x (n, d), flat, unless
        a distribution has the shape of an image
    images
        whole numbers 0 … levels − 1: `Images`, or what `Images` takes
    levels
        L; None: that of `Images`, else 256
    scaling
        what the model sees of y: "[-1, 1]" (2y/(L − 1) − 1, the default with a scheduler or an SDE), "[0, 1]"
        (y/(L − 1)), "[-1, 1)" (2y/L − 1), "[0, 1)" (y/L), "none"; (slope, offset), numbers or arrays of an image's
        shape; or a function of torch, elementwise, of (n, *shape)
    scheduler
        an object with `.alphas_cumprod` and `.config` (prediction_type, variance_type, clip_sample), or ᾱ, (T,)
    sde
        `VP(beta_min, beta_max)`, `SubVP(beta_min, beta_max)` or `VE(sigma_min, sigma_max)`
    prediction_type
        what the network gives: "epsilon", "v_prediction", "sample"; with an SDE also "score", its default
    variance_type
        of p(z_{t−1} | z_t): "fixed_small" or "fixed_large"; None: the scheduler's, else "fixed_small"
    method
        "discrete" (default with a scheduler): the bound of its T steps. "flow" (default with an SDE): the
        probability flow. "bound": the variational bound in continuous time
    claimed
        the published bits per dimension, a number or its text ("3.70" has two decimal places)
    claimed_error
        within which a figure agrees with it; None: half a unit of its last place and two standard errors over
        images, as for other images of the same kind. Of the same images, give the rounding alone
    draws
        of noise for each image, 2 or more, of a model that needs any
    times
        "discrete": steps that are drawn for each image; None: all T
    probes
        "flow": of the trace (Hutchinson); 0: the exact trace; None: exact up to 256 dimensions, else 1
    tolerance
        "flow": of a step
    batch_size
        images at once
    seed
        of all draws; torch's global randomness is not touched

    Returns
    -------
    Audit

    Raises
    ------
    BadArgument, ModelError
        a model, an option or a shape that does not fit
    NotFinite, WrongType, EmptyData
        images that are none

    References
    ----------
    Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models; Ho, Jain and Abbeel
    (2020), Denoising diffusion probabilistic models; Song et al. (2021), Score-based generative modeling
    through stochastic differential equations.

    Examples
    --------
    >>> flat = torch.distributions.Uniform(torch.zeros(4), torch.ones(4))       # a density of y/256
    >>> images = torch.arange(12).reshape(3, 2, 2)
    >>> found = audit(flat, images, scaling="[0, 1)", claimed=0.0, claimed_error=1e-6)
    >>> found.bits_per_dimension, [fault.name for fault in found.faults]
    (8.0, ['scaling forgotten'])
    """
    claim = claim_of(claimed, claimed_error)
    options = Options(
        scheduler, sde, method, prediction_type, variance_type, draws, times, probes, tolerance, batch_size
    )
    held, faults = levelled(images, levels)
    if held is None:
        array = _stacked(images)
        shape = tuple(int(s) for s in array.shape[1:])
        return Audit(None, "not computed", shape, levels or 256, len(array), None, tuple(faults), (), claim)
    described = (held.shape, held.levels, held.size)
    faults += unused(held)
    used = None
    if not of_mass(model):
        cells = options.used != "discrete"
        used = chosen(scaling, held, network=options.network, cells=cells)
        broken = not_invertible(used, held, cells=cells)
        if broken is not None:
            return Audit(None, "not computed", *described, used.sentence, (*faults, broken), (), claim)
    elif scaling is not None or options.network:
        raise BadArgument(
            f"model: {type(model).__name__} is a model of whole numbers. Accepted: no scaling, scheduler or sde."
        )
    with evaluating(model):
        evaluated = opened(model, held, used, options)
        values = evaluate(evaluated, held, batch_size, seed)
    sentence = None if used is None else used.sentence
    lost = ~finite(values.mass)
    if bool(lost.any()):
        faults.append(not_finite(lost))
        return Audit(None, evaluated.sentence, *described, sentence, tuple(faults), (), claim)
    score = _score(values, evaluated, held)
    found = variants(values, held.shape, held.levels, used)
    faults += of_model(found, score, held.levels, spiky=options.used != "discrete")
    faults += () if claim is None else faults_of(claim, found)
    return Audit(score, evaluated.sentence, *described, sentence, tuple(faults), tuple(found), claim)


def _score(values: Values, model: Evaluated, images: Images) -> Score:
    noise = values.noise if values.noise is not None else torch.zeros_like(values.mass)
    return Score(
        per_observation=values.mass,
        kind=model.kind,
        measure="mass",
        dimensions=images.dimensions,
        fingerprint=images.fingerprint,
        K=model.draws if model.draws > 1 else None,
        error=float(noise.square().sum().sqrt()),
        log_determinant=0.0 if values.change is None else float(values.change.sum()),
    )


def _plain(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
