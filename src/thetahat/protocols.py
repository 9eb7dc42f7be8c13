"""Optional abilities of models, sources, families and networks: what each is, who asks for it, and a small
complete example.

A model needs `log_prob(batch)`, a source `size`, `fingerprint`, `units` and `batches(model)`. Everything here
is more than that: an object that has it is fitted faster, scored on another scale, saved or drawn from. The
library asks with `isinstance(thing, Ability)`, or for a plain fact with a default by the functions at the end
(`kind_of(model)`), and nowhere else.

Abilities are found in the class or the object's own attributes. A submodule of a `torch.nn.Module`, or what
`__getattr__` hands out, is not seen on every version of Python: declare a property.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import Protocol, runtime_checkable  # isinstance as in Python 3.12, which is faster

from .types import Data, Levels, ModelLike, Plain

if TYPE_CHECKING:
    from .data.batch import Batch
    from .data.source import Source
    from .models.regression import Predictor
    from .models.taylor import Taylor

T = TypeVar("T")

# ---- models: the maximum -----------------------------------------------------------------------------------


@runtime_checkable
class HasTaylor(Protocol):
    """A model that knows its own derivatives. `models.taylor` asks, for Newton's method; else automatic
    differentiation goes row by row.

    None in its place means that this one has not: automatic differentiation is taken.

    Examples
    --------
    >>> from thetahat.models.information import Information
    >>> from thetahat.models.taylor import Taylor
    >>> class Mean(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.m = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    ...     def log_prob(self, batch):
    ...         return -0.5 * (batch["y"] - self.m) ** 2
    ...     def taylor(self, batch, weight=None, order=2, precision=torch.float64):
    ...         r = batch["y"] - self.m.detach()
    ...         return Taylor(-0.5 * (r**2).sum(), r.sum()[None], Information(torch.eye(1, dtype=r.dtype) * len(r)))
    >>> isinstance(Mean(), HasTaylor)
    True
    """

    @property
    def taylor(self) -> Callable[..., Taylor] | None: ...


@runtime_checkable
class Steers(Protocol):
    """A model whose exact information costs many gradients, and which has another that steers
    (`taylor(…, precision=torch.float32)`): "cheap", as dear as a gradient, or "dear". `solvers.choose` asks.

    Examples
    --------
    >>> class Rows(torch.nn.Module):
    ...     steering = "cheap"
    >>> isinstance(Rows(), Steers)
    True
    """

    @property
    def steering(self) -> str: ...


@runtime_checkable
class HoldsConstants(Protocol):
    """A model some of whose parameters are constants that may run to the end of their range, where the family is a simpler
    one. `solvers.boundary` asks.

    Examples
    --------
    >>> import thetahat as th
    >>> fit = th.fit("y ~ 1", {"y": [0, 1, 3, 9]}, "negative_binomial")
    >>> [p.parameter for p in fit.model.constant_predictors], fit.model.holding("dispersion", 0.5).fixed
    (['mean', 'dispersion'], {'dispersion': 0.5})
    """

    @property
    def constant_predictors(self) -> Sequence[Predictor]:
        """Where each stands in θ."""

    def holding(self, parameter: str, value: float) -> ModelLike:
        """The same model, at its θ, with a constant held at a value: it leaves θ."""

    def freeing(self, parameter: str, eta: float) -> ModelLike:
        """The same model, at its θ, with a held constant in θ again, at that linear predictor."""
        ...


@runtime_checkable
class HasSums(Protocol):
    """A family whose Σ w log p, where its parameters are constants, follows from a few sums over the rows."""

    def sums(self, y: Tensor, weight: Tensor, *eta: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Σ w log p, its gradient (k,) and its information (k, k) in η, one number each parameter; None where
        it does not follow."""
        ...


@runtime_checkable
class HasScores(Protocol):
    """A model that knows ∂ log p_i / ∂θ, (n, p), of each row. `models.taylor.scores` asks, for robust and
    clustered standard errors.

    Examples
    --------
    >>> class Mean(torch.nn.Module):
    ...     def scores(self, batch):
    ...         return (batch["y"] - self.m.detach())[:, None]
    >>> isinstance(Mean(), HasScores)
    True
    """

    def scores(self, batch: Batch) -> Tensor: ...


@runtime_checkable
class HasStart(Protocol):
    """A model that knows a good θ from which to start. `solvers.optimise` asks; else the iterations start
    where the parameters stand.

    Examples
    --------
    >>> class Mean(torch.nn.Module):
    ...     def start(self, source):
    ...         return torch.cat([b["y"] for b in source.batches(self)]).mean()[None]
    >>> isinstance(Mean(), HasStart)
    True
    """

    def start(self, source: Source) -> Tensor: ...


@runtime_checkable
class HasRecession(Protocol):
    """A model that can prove that its likelihood has no maximum. `solvers.diagnose` asks once the iterations
    have ended.

    `recession` returns None, or the status ("no maximum"), the direction as name → coefficient, and the
    reason in words.

    Examples
    --------
    >>> class Chance(torch.nn.Module):
    ...     def recession(self, source):
    ...         y = torch.cat([b["y"] for b in source.batches(self)])
    ...         return ("no maximum", {"logit": 1.0}, "every y is 1.") if bool((y == 1).all()) else None
    >>> isinstance(Chance(), HasRecession)
    True
    """

    def recession(self, source: Source) -> tuple[str, dict[str, float], str] | None: ...


@runtime_checkable
class HasClosedForm(Protocol):
    """A component of a mixture whose maximum has a formula, given the rows' weights. `solvers.complete_data` asks,
    for EM's M-step.

    Examples
    --------
    >>> class Mean(torch.nn.Module):
    ...     def closed_form(self, source):
    ...         y, w = (torch.cat([b[name] for b in source.batches(self)]) for name in ("y", "count"))
    ...         return ((w * y).sum() / w.sum())[None]
    >>> isinstance(Mean(), HasClosedForm)
    True
    """

    def closed_form(self, source: Source) -> Tensor | None: ...


@runtime_checkable
class HasConcavity(Protocol):
    """A model that knows whether log p is concave in θ. `likelihood.Objective.concave` asks: then a
    stationary point is a global maximum.

    Examples
    --------
    >>> class Mean(torch.nn.Module):
    ...     concave = True
    >>> isinstance(Mean(), HasConcavity)
    True
    """

    @property
    def concave(self) -> bool: ...


@runtime_checkable
class HasLayout(Protocol):
    """A model whose information has a wide diagonal block (a category of many levels). Solvers and priors
    ask, to eliminate it."""

    @property
    def layout(self) -> Any: ...


@runtime_checkable
class HasEncoder(Protocol):
    """A model that remembers how a table becomes its tensors. Predictions for new rows ask. None: it reads
    tensors.

    Examples
    --------
    >>> class Mean(torch.nn.Module):
    ...     encoder = None
    >>> isinstance(Mean(), HasEncoder)
    True
    """

    @property
    def encoder(self) -> Any: ...


@runtime_checkable
class HasLogProb(Protocol):
    """Anything that says log p of a batch. Divergences ask, whether an object is a distribution.

    Examples
    --------
    >>> class Flat(torch.nn.Module):
    ...     def log_prob(self, batch):
    ...         return torch.zeros(len(batch))
    >>> isinstance(Flat(), HasLogProb)
    True
    """

    @property
    def log_prob(self) -> Callable[..., Tensor]: ...


@runtime_checkable
class HasFixed(Protocol):
    """A model some of whose family's parameters are held: name → value. Scores and curvatures leave those
    out.

    Examples
    --------
    >>> class Known(torch.nn.Module):
    ...     fixed = {"scale": 1.0}
    >>> isinstance(Known(), HasFixed)
    True
    """

    @property
    def fixed(self) -> Mapping[str, float]: ...


@runtime_checkable
class HasGradientRows(Protocol):
    """A model that knows the gradient of a function of each row's linear predictors, where a row depends on few of many
    coordinates. Intervals of predictions ask.

    Examples
    --------
    >>> import torch
    >>> class Line(torch.nn.Module):
    ...     def gradient_rows(self, batch, slopes):
    ...         return slopes[0][:, None] * batch["X"]
    >>> isinstance(Line(), HasGradientRows)
    True
    """

    def gradient_rows(self, batch: Batch, slopes: list[Tensor]) -> Tensor: ...


@runtime_checkable
class HasElementwise(Protocol):
    """A model that says whether each entry of natural(θ) depends on its own coordinate of θ alone. Intervals
    ask.

    Examples
    --------
    >>> class Shares(torch.nn.Module):
    ...     elementwise = False
    >>> isinstance(Shares(), HasElementwise)
    True
    """

    @property
    def elementwise(self) -> bool: ...


@runtime_checkable
class HasWeights(Protocol):
    """A network's model that says whether its θ is an average over the steps: "raw" or "EMA". Scores ask.

    A model whose `weights` is something else (a mixture's) is left as it is.
    """

    @property
    def weights(self) -> Any: ...


@runtime_checkable
class HasTrainingObjective(Protocol):
    """A model that is trained by something else than its log p, one value a term (β-VAE, free bits).
    `Stochastic` maximises `objective(batch)`; held-out data and scores are of log p, as ever. Other solvers
    refuse such a model, and the summary says what was maximised.

    `maximises` is that in words; empty: it is log p itself.

    Examples
    --------
    >>> class Tempered(torch.nn.Module):
    ...     maximises = "½ log p"
    ...     def log_prob(self, batch):
    ...         return -(batch["y"] ** 2)
    ...     def objective(self, batch):
    ...         return 0.5 * self.log_prob(batch)
    >>> isinstance(Tempered(), HasTrainingObjective)
    True
    """

    @property
    def maximises(self) -> str: ...

    def objective(self, batch: Batch) -> Tensor: ...


@runtime_checkable
class ChecksModel(Protocol):
    """A weighting that reads the terms of one kind of model (by the schedule of a diffusion), and raises for a model
    that it would misread. `likelihood.LogLikelihood` asks.

    Examples
    --------
    >>> class OfLevel:
    ...     def __call__(self, batch, log_prob):
    ...         return torch.ones(len(batch))
    ...     def check_model(self, model):
    ...         if not hasattr(model, "level"):
    ...             raise ValueError("a model without a level")
    >>> isinstance(OfLevel(), ChecksModel)
    True
    """

    def check_model(self, model: ModelLike) -> None: ...


@runtime_checkable
class Together(Protocol):
    """A family, or a model, whose log-likelihood is not a sum over rows: a row's part depends on all others (the
    risk sets of Cox's model). Tables yield such a model all rows as one batch, and whatever takes rows apart
    (minibatches, robust fits) refuses it.

    Examples
    --------
    >>> import thetahat as th
    >>> isinstance(th.families.Cox(), Together), isinstance(th.families.Normal(), Together)
    (True, False)
    """

    together: ClassVar[bool]


@runtime_checkable
class Compiled(Protocol):
    """A family whose value, score and curvature of a row stand in the compiled sums (`kernels.compiled.FAMILIES`).

    Examples
    --------
    >>> import thetahat as th
    >>> th.families.Poisson().compiled, th.families.Poisson(link="sqrt").compiled
    ('poisson', None)
    """

    @property
    def compiled(self) -> str | None:
        """Its name there; None: with these links it does not."""


@runtime_checkable
class InBlocks(Protocol):
    """A source that can yield more rows at a time than it does: `likelihood.LogLikelihood.taylor` asks for what its
    model says (`block_rows`)."""

    def in_blocks(self, rows: int) -> Source: ...


@runtime_checkable
class RowsAlone(Protocol):
    """A source that holds rows and no model, so that a copy of an objective need not look for one in it."""

    rows_alone: ClassVar[bool]


@runtime_checkable
class Sampled(Protocol):
    """A source that is read from a file, and holds a part of its rows, evenly spread: `data.source.Thinned` asks, for the
    start of Newton's method."""

    every: int  # it is about so many times as long as its sample
    sample: Batch | None


@runtime_checkable
class WantsBlocks(Protocol):
    """A model whose sums over rows are compiled: they are made in float64, and most readily of this many rows at a time.
    None: torch makes them, of rows as they come."""

    @property
    def block_rows(self) -> int | None: ...


class TaylorPass(Protocol):
    """One pass over batches in their order, at one θ."""

    def taylor(self, batch: Batch, weight: Tensor | None, order: int, precision: torch.dtype) -> Taylor: ...


@runtime_checkable
class ReadsInOrder(Protocol):
    """A model whose likelihood of a batch depends on the batches before it (risk sets of a file that is streamed):
    `begin_pass` gives a pass, which holds what is carried. `likelihood.LogLikelihood.taylor` asks.

    Examples
    --------
    >>> class Walk(torch.nn.Module):
    ...     def begin_pass(self):
    ...         return OneWalk(self)
    >>> isinstance(Walk(), ReadsInOrder)
    True
    """

    def begin_pass(self) -> TaylorPass: ...


@runtime_checkable
class ScoresTogether(Protocol):
    """A model whose rows' scores depend on what all rows weigh (score residuals of risk sets). `models.taylor.scores`
    asks.

    Examples
    --------
    >>> class Centred(torch.nn.Module):
    ...     def weighted_scores(self, batch, weight):
    ...         return (batch["y"] - (weight * batch["y"]).sum() / weight.sum())[:, None]
    >>> isinstance(Centred(), ScoresTogether)
    True
    """

    def weighted_scores(self, batch: Batch, weight: Tensor | None) -> Tensor: ...


@runtime_checkable
class ScoresInOrder(Protocol):
    """A model whose rows' scores depend on the batches before and after theirs (score residuals of a file that is streamed):
    `score_pass` reads all batches once, and gives the function that has the scores of each in turn.
    `inference.cluster_scores` asks.

    Examples
    --------
    >>> class Walk(torch.nn.Module):
    ...     def score_pass(self, source, weight):
    ...         total = sum(weight(batch).sum() for batch in source.batches(self))
    ...         return lambda batch, weight: batch["x"] / total
    >>> isinstance(Walk(), ScoresInOrder)
    True
    """

    def score_pass(
        self, source: Source, weight: Callable[[Batch], Tensor | None]
    ) -> Callable[[Batch, Tensor | None], Tensor]: ...


@runtime_checkable
class OfColumns(Protocol):
    """A weighting that reads columns alone, and not log p: `weights_of` gives a batch's weights without it.
    `likelihood.LogLikelihood.weight` asks.

    Examples
    --------
    >>> class Inverse:
    ...     def weights_of(self, batch):
    ...         return 1 / batch["probability"]
    >>> isinstance(Inverse(), OfColumns)
    True
    """

    def weights_of(self, batch: Batch) -> Tensor: ...


# ---- models: θ under its names -----------------------------------------------------------------------------


@runtime_checkable
class HasNames(Protocol):
    """A model that names the entries of natural(θ). `models.base.names_of` asks; else the names of the torch
    parameters are taken.

    Examples
    --------
    >>> class Scale(torch.nn.Module):
    ...     names = ["scale"]
    >>> isinstance(Scale(), HasNames)
    True
    """

    @property
    def names(self) -> Sequence[str]: ...


@runtime_checkable
class HasCoefficientNames(Protocol):
    """A model that names the coordinates of θ for priors. `models.base.coefficient_names` asks.

    Examples
    --------
    >>> class Scale(torch.nn.Module):
    ...     coefficient_names = ["log(scale)"]
    >>> isinstance(Scale(), HasCoefficientNames)
    True
    """

    @property
    def coefficient_names(self) -> Sequence[str]: ...


@runtime_checkable
class HasNatural(Protocol):
    """A model whose θ is reported through a constraint. Estimates, intervals and the delta method ask.

    `elementwise` (True unless it says otherwise) tells whether each entry depends on its own coordinate
    alone.

    Examples
    --------
    >>> class Scale(torch.nn.Module):
    ...     def natural(self, theta):
    ...         return theta.exp()
    >>> isinstance(Scale(), HasNatural)
    True
    """

    def natural(self, theta: Tensor) -> Tensor: ...


@runtime_checkable
class MapsIntervals(Protocol):
    """A model some of whose estimates live in a range of their own and are functions of several θ_j (a standard
    deviation, a correlation). Wald intervals ask, so that they stay inside.

    Examples
    --------
    >>> class Share(torch.nn.Module):
    ...     def interval(self, name, value, half):
    ...         return max(0.0, value - half), min(1.0, value + half)
    >>> isinstance(Share(), MapsIntervals)
    True
    """

    def interval(self, name: str, value: float, half: float) -> tuple[float, float]:
        """The ends, of value ± half."""
        ...


@runtime_checkable
class HasSlopes(Protocol):
    """A model that knows which coordinates of θ are coefficients of a column. A prior without on= asks, so
    that it spares intercepts.

    Examples
    --------
    >>> class Line(torch.nn.Module):
    ...     slopes = [False, True]
    >>> isinstance(Line(), HasSlopes)
    True
    """

    @property
    def slopes(self) -> Sequence[bool]: ...


# ---- models: data drawn, predicted and scored --------------------------------------------------------------


@runtime_checkable
class HasFamily(Protocol):
    """A model of one response with a family. Predictions, residuals and calibration ask.

    Examples
    --------
    >>> import thetahat as th
    >>> class Mean(torch.nn.Module):
    ...     family = th.families.Normal()
    >>> isinstance(Mean(), HasFamily)
    True
    """

    @property
    def family(self) -> Any: ...


@runtime_checkable
class Draws(Protocol):
    """A model of whole observations (images) that draws them. `Fit.sample(n)` and the report ask.

    Examples
    --------
    >>> class Coin(torch.nn.Module):
    ...     def draw(self, n, *, generator=None):
    ...         return torch.randint(0, 2, (n, 1), generator=generator)
    >>> isinstance(Coin(), Draws)
    True
    """

    def draw(self, n: int, *, generator: torch.Generator | None = None) -> Tensor: ...


@runtime_checkable
class HasClasses(Protocol):
    """A model of y given its class, `classes` of them, None: it has none. `Fit.sample(label=…)`, reports and
    `generative.class_probabilities` ask.

    Examples
    --------
    >>> class Digits(torch.nn.Module):
    ...     classes = 10
    >>> isinstance(Digits(), HasClasses)
    True
    """

    @property
    def classes(self) -> int | None: ...


@runtime_checkable
class Guides(Protocol):
    """A model whose draws can be led further towards a class than p(y | class) does. `Fit.sample(guidance=…)`
    asks.

    Examples
    --------
    >>> class Denoises(torch.nn.Module):
    ...     def guided(self, label, guidance):
    ...         return lambda z, log_snr: (z, z)
    >>> isinstance(Denoises(), Guides)
    True
    """

    @property
    def guided(self) -> Callable[..., Any]: ...


@runtime_checkable
class Samples(Protocol):
    """A model that draws a response for each row of a batch. `Fit.sample`, the parametric bootstrap and
    language models' generations ask.

    Examples
    --------
    >>> class Noise(torch.nn.Module):
    ...     def sample(self, batch, *, generator=None):
    ...         return torch.randn(len(batch), generator=generator)
    >>> isinstance(Noise(), Samples)
    True
    """

    @property
    def sample(self) -> Callable[..., Any]: ...


@runtime_checkable
class PredictsMean(Protocol):
    """A model that knows E[y] of each row, (n,). `Fit.predict` asks where the model has no family.

    Examples
    --------
    >>> class Level(torch.nn.Module):
    ...     def mean(self, batch):
    ...         return torch.zeros(len(batch))
    >>> isinstance(Level(), PredictsMean)
    True
    """

    def mean(self, batch: Batch) -> Tensor: ...


@runtime_checkable
class Tightened(Protocol):
    """A model whose value is a bound of K draws an observation. `Fit.score(samples=K)` asks for the same
    model with more of them.

    Examples
    --------
    >>> class Bound(torch.nn.Module):
    ...     K = 1
    ...     def tightened(self, K):
    ...         more = Bound()
    ...         more.K = K
    ...         return more
    >>> isinstance(Bound(), Tightened)
    True
    """

    def tightened(self, K: int) -> nn.Module: ...


@runtime_checkable
class Categories(Protocol):
    """A family, or a model, of a category: it has a probability for each. Predictions, calibration and
    encodings ask.

    Examples
    --------
    >>> import thetahat as th
    >>> isinstance(th.families.Categorical(3), Categories), isinstance(th.families.Normal(), Categories)
    (True, False)
    """

    @property
    def probabilities(self) -> Callable[..., Tensor]: ...


@runtime_checkable
class Working(Protocol):
    """A family whose density is a device for its estimates, and not a description of the data. Comparisons, checks and the
    summary say so.

    Examples
    --------
    >>> import thetahat as th
    >>> isinstance(th.families.AsymmetricLaplace(0.9), Working), isinstance(th.families.Laplace(), Working)
    (True, False)
    """

    @property
    def working(self) -> str:
        """What it is for, in a sentence."""
        ...


@runtime_checkable
class InOrder(Protocol):
    """A family of categories whose order is a part of the model: it may be given. The response asks.

    Examples
    --------
    >>> import thetahat as th
    >>> isinstance(th.families.Ordinal(3), InOrder), isinstance(th.families.Categorical(3), InOrder)
    (True, False)
    """

    @property
    def levels(self) -> Levels | None:
        """From the lowest to the highest; None: the column says it."""
        ...


@runtime_checkable
class Pairwise(Protocol):
    """A model of who is preferred to whom. `evaluation.calibration_error` asks it for the outcomes'
    probabilities.

    Examples
    --------
    >>> class Coin(torch.nn.Module):
    ...     pairwise = True
    ...     def probabilities(self, batch):
    ...         return torch.tensor([0.5, 0.0, 0.5]).expand(len(batch), 3)
    >>> isinstance(Coin(), Pairwise)
    True
    """

    pairwise: ClassVar[bool]

    def probabilities(self, batch: Batch) -> Tensor:
        """P(the first is preferred), P(a tie), P(the second is preferred), (n, 3)."""
        ...


@runtime_checkable
class ReadsData(Protocol):
    """A model that makes a source of an array or a table itself; None: as other models do. `th.fit(model,
    data)` asks.

    Examples
    --------
    >>> from thetahat.data import Tensors
    >>> class Mean(torch.nn.Module):
    ...     def source(self, data, weights=None):
    ...         return Tensors({"y": torch.as_tensor(data)})
    >>> isinstance(Mean(), ReadsData)
    True
    """

    def source(self, data: Data, weights: str | None) -> Source | None: ...


@runtime_checkable
class Binds(Protocol):
    """A model whose parameters depend on the data (how many columns a formula has): it makes the model that is fitted,
    and the source that this one reads. `th.fit(model, data)` asks; the model given stays as it is.

    Examples
    --------
    >>> import thetahat as th
    >>> isinstance(th.models.HMM(2, "poisson"), Binds)
    True
    """

    def bound(self, data: Data, weights: str | None = None) -> tuple[nn.Module, Source]: ...


@runtime_checkable
class Integrates(Protocol):
    """A model of one's own with latent variables, whose integral can be approximated by quadrature. `th.fit(…,
    quadrature=)` asks.

    Examples
    --------
    >>> class Counted(torch.nn.Module):
    ...     def with_points(self, points):
    ...         return self
    >>> isinstance(Counted(), Integrates)
    True
    """

    def with_points(self, points: int) -> nn.Module: ...


@runtime_checkable
class HasComponents(Protocol):
    """A model put together of components, each with a θ of its own: what an estimate of one is, the component knows.

    `places` are the slices of θ that belong to the components; `heads` estimates of the model itself (weights,
    transition probabilities) stand before theirs.

    Examples
    --------
    >>> import thetahat as th
    >>> th.models.Mixture("normal", 2).heads
    2
    """

    def get_submodule(self, target: str) -> Any:
        """ "components": torch's own, since no Protocol sees what is in a module."""

    @property
    def places(self) -> Sequence[slice]: ...

    @property
    def heads(self) -> int: ...


@runtime_checkable
class Checks(Protocol):
    """A model that inspects a batch before its compiled log p is called, since a compiled function raises no
    named errors.

    Examples
    --------
    >>> class Lookup(torch.nn.Module):
    ...     def check(self, batch):
    ...         if int(batch["y"].min()) < 0:
    ...             raise ValueError("a code is negative")
    >>> isinstance(Lookup(), Checks)
    True
    """

    def check(self, batch: Batch) -> None: ...


# ---- sources -----------------------------------------------------------------------------------------------


@runtime_checkable
class HasEpoch(Protocol):
    """A source that orders its own epochs (windows of a text). `solvers.minibatches` asks; else rows in
    memory are shuffled.

    Examples
    --------
    >>> class Windows:
    ...     size, observations = 10, 10.0
    ...     def epoch(self, size, generator):
    ...         yield from ()
    >>> isinstance(Windows(), HasEpoch)
    True
    """

    @property
    def size(self) -> int | None: ...

    @property
    def observations(self) -> float: ...

    def epoch(self, size: int, generator: torch.Generator) -> Iterator[Batch]: ...


@runtime_checkable
class HasOwnBatches(Protocol):
    """A source whose batches are a step's as they are, in an order that the run seeds (a DataLoader).
    `solvers.minibatches` asks.

    Examples
    --------
    >>> class Loader:
    ...     size = None
    ...     def loaded(self, generator):
    ...         yield from ()
    >>> isinstance(Loader(), HasOwnBatches)
    True
    """

    @property
    def size(self) -> int | None: ...

    def loaded(self, generator: torch.Generator) -> Iterator[Batch]: ...


@runtime_checkable
class Splits(Protocol):
    """A source that divides itself for held-out data (a text by documents). `Stochastic(held_out=0.1)` asks;
    else rows are divided.

    Examples
    --------
    >>> class Documents:
    ...     def split(self, fraction, generator):
    ...         return self, self
    >>> isinstance(Documents(), Splits)
    True
    """

    def split(self, fraction: float, generator: torch.Generator) -> tuple[Source, Source]: ...


@runtime_checkable
class HasMinibatches(Protocol):
    """A source drawn from the model that hands out each pass over several steps (PPO's epochs, a replay).
    `solvers.minibatches` asks.

    Examples
    --------
    >>> class Replayed:
    ...     def minibatches(self, model):
    ...         while True:
    ...             yield None
    >>> isinstance(Replayed(), HasMinibatches)
    True
    """

    def minibatches(self, model: ModelLike) -> Iterator[Batch]: ...


@runtime_checkable
class HasEqualBatches(Protocol):
    """A source drawn from the model that knows whether all its batches have as many terms: a compiled step is then one of
    fixed lengths. `solvers.compiled` asks.

    Examples
    --------
    >>> class Steady:
    ...     equal_batches = True
    >>> isinstance(Steady(), HasEqualBatches)
    True
    """

    @property
    def equal_batches(self) -> bool: ...


@runtime_checkable
class Restores(Protocol):
    """A source with a state of its own (environments, a memory). Checkpoints ask, so that a run goes on
    exactly.

    Examples
    --------
    >>> class Counting:
    ...     def state(self):
    ...         return {"at": torch.tensor(3)}
    ...     def restore(self, tensors):
    ...         self.at = int(tensors["at"])
    >>> isinstance(Counting(), Restores)
    True
    """

    def state(self) -> dict[str, Tensor]: ...

    def restore(self, tensors: dict[str, Tensor]) -> None: ...


@runtime_checkable
class Measured(Protocol):
    """A source that measures what it draws ("return", "reward"), or a weighting its weights ("clip_fraction"). A
    run's record asks at every line.

    Examples
    --------
    >>> class Played:
    ...     def measured(self):
    ...         return {"return": 21.0}
    >>> isinstance(Played(), Measured)
    True
    """

    def measured(self) -> Mapping[str, float]: ...


@runtime_checkable
class HasReplicas(Protocol):
    """A stack of independent models, each parameter a tensor (S, …): `Stochastic` moves each slice as a run of its own.

    Examples
    --------
    >>> class Stack(torch.nn.Module):
    ...     replicas = 4
    >>> isinstance(Stack(), HasReplicas)
    True
    """

    @property
    def replicas(self) -> int: ...

    def get_submodule(self, target: str) -> Any:
        """ "member": the stack as one model."""


@runtime_checkable
class Diagnoses(Protocol):
    """A model that says of each term besides log p what people ask of its kind ("accuracy" of a classifier), one number
    a term. A run's record asks at every evaluation, of the held-out data.

    Examples
    --------
    >>> class Guess:
    ...     def diagnostics(self, batch):
    ...         return {"accuracy": (batch["y"] == 0).double()}
    >>> isinstance(Guess(), Diagnoses)
    True
    """

    def diagnostics(self, batch: Batch) -> dict[str, Tensor]: ...


@runtime_checkable
class CountsBytes(Protocol):
    """A source of tokens that knows how many bytes of text each stands for, (B, T). A score asks, for bits
    per byte.

    Examples
    --------
    >>> class Letters:
    ...     def bytes(self, batch):
    ...         return torch.ones(batch.shape)
    >>> isinstance(Letters(), CountsBytes)
    True
    """

    @property
    def bytes(self) -> Callable[[Batch], Tensor | None]: ...


@runtime_checkable
class HasNote(Protocol):
    """A source, or a model, with something that a score is to say, such as that a tokenizer changes the text; "":
    nothing.

    Examples
    --------
    >>> class Lowered:
    ...     note = "of the text in lower case"
    >>> isinstance(Lowered(), HasNote)
    True
    """

    @property
    def note(self) -> str: ...


@runtime_checkable
class HasLogDeterminant(Protocol):
    """A source of transformed observations t = f(x). A score adds log |dt/dx| of each term, None: nothing,
    and a fit does not need it.

    Examples
    --------
    >>> class Logs:
    ...     def log_determinant(self, batch):
    ...         return -batch["y"]
    >>> isinstance(Logs(), HasLogDeterminant)
    True
    """

    def log_determinant(self, batch: Batch) -> Tensor | None: ...


@runtime_checkable
class OfRows(Protocol):
    """A prior that is made of the rows' information. `likelihood.Objective` asks, and gives it the source of its model's term.

    `of_rows` returns a `models.taylor.Taylor`.

    Examples
    --------
    >>> class Flat:
    ...     def of_rows(self, model, source, order=2):
    ...         return None
    >>> isinstance(Flat(), OfRows)
    True
    """

    def of_rows(self, model: nn.Module, source: Any, order: int = 2) -> Any: ...


@runtime_checkable
class HasObjective(Protocol):
    """Something that maximised an objective: a fit. `fit_tests.anova` asks.

    Examples
    --------
    >>> class Found:
    ...     objective = "ℓ(θ), standing at θ̂"
    >>> isinstance(Found(), HasObjective)
    True
    """

    @property
    def objective(self) -> Plain: ...


@runtime_checkable
class ScoredIn(Protocol):
    """A source that says what a density is per once its log-determinant has been added; else `units` does.

    Examples
    --------
    >>> class Logs:
    ...     scored_in = "y"
    >>> isinstance(Logs(), ScoredIn)
    True
    """

    @property
    def scored_in(self) -> str: ...


@runtime_checkable
class HasAlignment(Protocol):
    """A source that remembers which of the rows given it kept. Residuals, predictions and draws ask, to put
    each where it was.

    Examples
    --------
    >>> class Rows:
    ...     alignment = None
    >>> isinstance(Rows(), HasAlignment)
    True
    """

    @property
    def alignment(self) -> Any: ...


@runtime_checkable
class HasWhole(Protocol):
    """A source that holds all of its rows in memory, None: it does not. Training shuffles them, and errors
    name the row.

    Examples
    --------
    >>> from thetahat.data import Tensors
    >>> isinstance(Tensors({"y": torch.zeros(3)}), HasWhole)
    True
    """

    @property
    def whole(self) -> Batch | None: ...


@runtime_checkable
class Wraps(Protocol):
    """A source that changes another's rows, one for one. Errors name the row of the innermost.

    Examples
    --------
    >>> class Doubled:
    ...     def __init__(self, source):
    ...         self.source = source
    >>> isinstance(Doubled(None), Wraps)
    True
    """

    @property
    def source(self) -> Source: ...


@runtime_checkable
class Remarks(Protocol):
    """A drawn source that has something to say: of what it drew, in the certificate; and whether nothing more
    can be learnt from it.

    Examples
    --------
    >>> class Solved:
    ...     remark = "Every reward of a group was the same."
    ...     finished = True
    >>> isinstance(Solved(), Remarks)
    True
    """

    @property
    def remark(self) -> str: ...

    @property
    def finished(self) -> bool: ...


@runtime_checkable
class HasFractional(Protocol):
    """A table that counted how many of its frequency weights are not whole numbers. `th.fit` asks, and
    warns."""

    @property
    def fractional(self) -> int: ...


@runtime_checkable
class HasContext(Protocol):
    """A source of tokens that says how many of them a row holds. A saved language model keeps it."""

    @property
    def context(self) -> int: ...


# ---- networks ----------------------------------------------------------------------------------------------


@runtime_checkable
class HasJacobianDiagonal(Protocol):
    """A network of vectors, (z (n, d), λ (n,)) → f (n, d), that knows ∂f_j/∂z_j. `generative.ProbabilityFlow` asks, for its
    exact trace; else automatic differentiation takes d slopes.

    `jacobian_diagonal(z, log_snr, label)` returns f(z, λ) and ∂f_j/∂z_j, (n, d) each; a network with classes is given the
    label. None: not here, and automatic differentiation is taken.

    Examples
    --------
    >>> class Cubic(torch.nn.Module):
    ...     def forward(self, z, log_snr):
    ...         return z**3
    ...     def jacobian_diagonal(self, z, log_snr, label=None):
    ...         return z**3, 3 * z**2
    >>> isinstance(Cubic(), HasJacobianDiagonal)
    True
    """

    def jacobian_diagonal(
        self, z: Tensor, log_snr: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor] | None: ...


@runtime_checkable
class NamesOutput(Protocol):
    """A network that says which map leads to the vocabulary, as those of transformers do. `language.add_lora` asks, which
    leaves that map out of "all-linear".

    Examples
    --------
    >>> class Named:
    ...     def get_output_embeddings(self):
    ...         return torch.nn.Linear(2, 3)
    >>> isinstance(Named(), NamesOutput)
    True
    """

    def get_output_embeddings(self) -> Any: ...


@runtime_checkable
class Truncates(Protocol):
    """A language model that says how many tokens it leaves to be drawn from at each place, (B, T); None: all.
    `language.Generations` asks, and keeps it beside the draws.

    Examples
    --------
    >>> class TwoOf:
    ...     def kept(self, batch):
    ...         return torch.full(batch.shape, 2)
    >>> isinstance(TwoOf(), Truncates)
    True
    """

    def kept(self, batch: Batch) -> Tensor | None: ...


@runtime_checkable
class KnowsError(Protocol):
    """A model that draws, and knows from its draws how much their mean errs. A score asks: it then evaluates the model once,
    where others are evaluated twice to see how much two values differ.

    `log_prob_with_error(batch, generator)` returns log p and its standard error, of `batch.shape` each; None: the model's
    draws are too few to know it.

    Examples
    --------
    >>> class Model(torch.nn.Module):
    ...     def log_prob_with_error(self, batch, generator=None):
    ...         return -batch["y"], torch.full(batch.shape, 0.1)
    >>> isinstance(Model(), KnowsError)
    True
    """

    def log_prob_with_error(
        self, batch: Batch, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor] | None: ...


@runtime_checkable
class HasFeatures(Protocol):
    """A network of tokens that gives the vectors before its last layer, (B, T, d). Language models and reward
    models ask.

    Examples
    --------
    >>> class Network(torch.nn.Module):
    ...     def features(self, tokens, documents=None):
    ...         return torch.zeros(*tokens.shape, 8)
    >>> isinstance(Network(), HasFeatures)
    True
    """

    @property
    def features(self) -> Callable[..., Tensor]: ...


@runtime_checkable
class Extends(Protocol):
    """A network of tokens that reads on from a cache. `Autoregressive.sample` asks, so that each new token
    costs one step.

    Examples
    --------
    >>> class Network(torch.nn.Module):
    ...     def extend(self, tokens, cache):
    ...         return torch.zeros(*tokens.shape, 256), cache
    >>> isinstance(Network(), Extends)
    True
    """

    def extend(self, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]: ...


@runtime_checkable
class ReadsRows(Protocol):
    """A network of tokens that reads rows of unequal lengths together, and reads on from each row's own end.
    `language.ContinuousBatching` asks; else rows of one length are read together (`Extends`), or texts are read again.

    `read(tokens, lengths, None)` reads the first tokens of each row, (B, T), of which a row has the first `lengths`
    (B,), on the CPU; `read(tokens, lengths, cache)` the next tokens of all rows, T each. Both return logits of the token
    after each row's last, (B, V), and a `networks.aligned.Aligned`. `reads_rows` is False where this one cannot.

    Examples
    --------
    >>> import thetahat as th
    >>> isinstance(th.networks.Transformer(5, layers=1, width=8, heads=1), ReadsRows)
    True
    """

    @property
    def reads_rows(self) -> bool: ...

    def read(self, tokens: Tensor, lengths: Tensor, cache: Any) -> tuple[Tensor, Any]: ...


@runtime_checkable
class SharesPrompts(Protocol):
    """A network of tokens that reads a prompt once for all of its answers. `Autoregressive.log_prob` asks, where a batch has
    a tensor "prompt". `shares_prompts` is False where this one cannot.

    `features_after(prompts, lengths, answers, prompt_of)` reads prompts (P, p), of which a row has the first `lengths`
    (P,), on the CPU, and after each the answers (R, A) whose prompt it is, `prompt_of` (R,). It returns the features of the
    prompt's last token and of the answer's, (R, 1 + A, D): those of `features` of the whole row.

    Examples
    --------
    >>> import thetahat as th
    >>> isinstance(th.networks.Transformer(5, layers=1, width=8, heads=1), SharesPrompts)
    True
    """

    @property
    def shares_prompts(self) -> bool: ...

    def features_after(
        self, prompts: Tensor, lengths: Tensor, answers: Tensor, prompt_of: Tensor
    ) -> Tensor: ...


@runtime_checkable
class Sampler(Protocol):
    """What draws answers to prompts of unequal lengths from a language model: our own (`language.ContinuousBatching`), or a
    server's (`language.Server`). `language.Generations(…, sampler=…)` and `preferences.frontier` ask.

    `draw` returns a `language.Drawn`: tokens, the log-probability with which each was drawn, and how many tokens the
    sampling left to be drawn from. `exact` says that these are the model's own, to rounding.

    Examples
    --------
    >>> import thetahat as th
    >>> isinstance(th.language.ContinuousBatching(), Sampler)
    True
    """

    @property
    def exact(self) -> bool: ...

    def draw(
        self,
        model: ModelLike,
        prompts: Sequence[Tensor],
        *,
        num_generations: int = 1,
        max_new_tokens: int,
        end: int | None = None,
        seed: tuple[int, int] = (0, 0),
    ) -> Any: ...


@runtime_checkable
class Observes(Protocol):
    """A layer that learns from the states that a policy sees (running means). Rollouts ask, as they are
    drawn.

    Examples
    --------
    >>> class Running(torch.nn.Module):
    ...     def observe(self, states):
    ...         self.n = len(states)
    >>> isinstance(Running(), Observes)
    True
    """

    def observe(self, states: Tensor) -> None: ...


@runtime_checkable
class HasVocabulary(Protocol):
    """A network of tokens that says how many there are. A language model asks, to refuse a token outside.

    Examples
    --------
    >>> class Network(torch.nn.Module):
    ...     vocabulary = 256
    >>> isinstance(Network(), HasVocabulary)
    True
    """

    @property
    def vocabulary(self) -> int | None: ...


# ---- solvers -----------------------------------------------------------------------------------------------


@runtime_checkable
class HasFactor(Protocol):
    """A solver's state with the factor of the information at its θ, None: it is not positive definite.
    `solvers.diagnose` asks.

    Examples
    --------
    >>> class State:
    ...     factor = None
    >>> isinstance(State(), HasFactor)
    True
    """

    @property
    def factor(self) -> Any: ...


@runtime_checkable
class HasScale(Protocol):
    """A solver's state that remembers the largest √J_jj it has seen, (p,), None: it has seen none.
    `solvers.diagnose` asks.

    Examples
    --------
    >>> class State:
    ...     scale = torch.ones(2)
    >>> isinstance(State(), HasScale)
    True
    """

    @property
    def scale(self) -> Tensor | None: ...


@runtime_checkable
class HasEnded(Protocol):
    """A solver's state whose maximum is that of another objective (the rows kept by a trimmed fit), None:
    of its own."""

    @property
    def ended(self) -> Any: ...


@runtime_checkable
class Training(Protocol):
    """The state of a training run: the steps done, the terms seen, the evaluations of held-out data, the seconds it
    waited for data (None: not known), and what an accelerator is used for (`solvers.throughput`). The progress bar
    asks.

    Examples
    --------
    >>> class State:
    ...     step, seen, trace, evaluations, waited = 10, 640.0, (), (), 0.0
    ...     def used(self, terms_per_second):
    ...         return {}
    >>> isinstance(State(), Training)
    True
    """

    @property
    def step(self) -> int: ...

    @property
    def seen(self) -> float: ...

    @property
    def evaluations(self) -> Sequence[Any]: ...

    @property
    def waited(self) -> float | None: ...

    def used(self, terms_per_second: float) -> dict[str, float]: ...


@runtime_checkable
class ValuesStates(Protocol):
    """A value function: V(s), in the given shape. Advantages ask (`rl.GAE`).

    Examples
    --------
    >>> class Level:
    ...     def of(self, state, shape):
    ...         return torch.full(shape, 0.3)
    >>> isinstance(Level(), ValuesStates)
    True
    """

    def of(self, state: Tensor, shape: Sequence[int]) -> Tensor: ...


# ---- results -----------------------------------------------------------------------------------------------


@runtime_checkable
class Scored(Protocol):
    """A fit, or anything else whose log-likelihood of data can be asked for. `th.compare` and `th.kl` ask.

    Examples
    --------
    >>> class Known:
    ...     def score(self, data=None):
    ...         return None
    >>> isinstance(Known(), Scored)
    True
    """

    @property
    def score(self) -> Callable[..., Any]: ...


@runtime_checkable
class HasModel(Protocol):
    """A fit, seen as the model at its θ̂. Divergences ask."""

    @property
    def model(self) -> nn.Module: ...


@runtime_checkable
class Accumulates(Protocol):
    """A part of a sum over batches that adds another in its own memory. `likelihood.total` asks.

    Examples
    --------
    >>> from thetahat.models.taylor import Taylor
    >>> isinstance(Taylor(torch.zeros(()), torch.zeros(3)), Accumulates)
    True
    """

    def accumulate(self, other: Plain) -> Any: ...


@runtime_checkable
class Partitioned(Protocol):
    """A source whose rows stay elsewhere: a function goes to them, and what is made of all of them comes back.
    `likelihood.total` asks.

        fold(f, c) = c(… c(c(f(batch 0), f(batch 1)), f(batch 2)) …)

    `sample` is a batch of some rows, from which types and shapes are learnt, and a start.

    Examples
    --------
    >>> from thetahat.data import Tensors
    >>> isinstance(Tensors({"y": torch.ones(3)}), Partitioned)
    False
    """

    @property
    def sample(self) -> Batch: ...

    def fold(self, function: Callable[[Batch], T], combine: Callable[[T, T], T]) -> T: ...


# ---- plain facts, with what is taken where nothing is said -------------------------------------------------


def fact(thing: object, name: str, default: T) -> T:
    """A plain value that a model or a source of anybody's may carry; `default` where it does not, or where
    it is None."""
    found = getattr(thing, name, None)
    return default if found is None else found


def target_of(thing: object) -> str:
    """The name of the tensor that is scored: of a model, or of a source."""
    return fact(thing, "target", "y")


def measure_of(model: object) -> str:
    """ "density", "mass" or "mixed"."""
    return fact(model, "measure", "density")


def network_of(model: object) -> Any:
    """The one network of a model (its attribute `network`), of which an export writes the tensors; None: it has none.

    A submodule is not in the object's own attributes, so that no Protocol sees it.

    Examples
    --------
    >>> import thetahat as th
    >>> network_of(th.models.Conditional(th.families.Normal(), th.networks.mlp(3, 4, 2))).__class__.__name__
    'Sequential'
    """
    return getattr(model, "network", None)


def kind_of(model: object) -> str:
    """Of the value of log_prob: "exact", "lower bound", "estimate"."""
    return fact(model, "kind", "exact")


def maximised_of(model: object) -> str:
    """What a model is trained by in the place of its log p, in words; empty: by log p."""
    return model.maximises if isinstance(model, HasTrainingObjective) else ""


def is_concave(model: object) -> bool:
    """Whether the model says that log p is concave in θ."""
    return isinstance(model, HasConcavity) and bool(model.concave)


def is_separable(model: object) -> bool:
    """Whether log p of a batch is a sum over its rows: not where rows share random effects, or a risk set."""
    return bool(fact(model, "separable", True))


def is_padded(source: object) -> bool:
    """Whether a term with the count 0 is no observation but padding."""
    return bool(fact(source, "padded", False))


def is_drawn(source: object) -> bool:
    """Whether the source draws from the model as it stands: solvers must neither keep nor split what it
    yields."""
    return bool(fact(source, "drawn", False))


def units_of(source: Source) -> str:
    """What a density is per, as it is scored."""
    return source.scored_in if isinstance(source, ScoredIn) else source.units


def layout_of(model: object) -> Any:
    """How a model's information is laid out (`models.information.Layout`), None: dense."""
    return model.layout if isinstance(model, HasLayout) else None


def encoder_of(model: object) -> Any:
    """How a table becomes the model's tensors (`data.table.Encoder`), None: it reads tensors."""
    return model.encoder if isinstance(model, HasEncoder) else None


def taylor_of(model: object) -> Callable[..., Taylor] | None:
    """The model's own second-order expansion; None: automatic differentiation."""
    return model.taylor if isinstance(model, HasTaylor) else None


def log_determinant_of(source: object, batch: Batch) -> Tensor | None:
    """log |dt/dx| of each term of a source of transformed observations; None: nothing is to be added."""
    return source.log_determinant(batch) if isinstance(source, HasLogDeterminant) else None


def draws_of(model: object) -> int | None:
    """K, draws an observation, of a model whose value is a bound; None elsewhere."""
    return fact(model, "K", None)


def averaging_of(model: object) -> str:
    """ "EMA" where a network's θ is an average over the steps of its training, else "raw"."""
    return "EMA" if isinstance(model, HasWeights) and model.weights == "EMA" else "raw"


def classes_of(model: object) -> int | None:
    """C, of a model of y given its class; None: it has no classes."""
    return model.classes if isinstance(model, HasClasses) else None


def rows_kept(source: object) -> Any:
    """Which rows of a table are complete, (n,) boolean; None: all of them."""
    return fact(source, "kept", None)


def is_streamed(source: object) -> bool:
    """Whether a pass reads a file again."""
    return bool(fact(source, "streamed", False))


def levels_of(source: object) -> int | None:
    """How many values a pixel has, of images and of models of them; None: real numbers."""
    return fact(source, "levels", None)


def shape_of(source: object) -> tuple[int, ...] | None:
    """Of one image."""
    return fact(source, "shape", None)


def tokenizer_of(source: object) -> Any:
    """How text became tokens; None: it was no text."""
    return fact(source, "tokenizer", None)


def dimensions_of(network: object) -> int | None:
    """d, of a network of vectors (n, d)."""
    return fact(network, "dimensions", None)


def pixels_of(network: object) -> int | None:
    """d, of a network of images of d pixels."""
    return fact(network, "pixels", None)
