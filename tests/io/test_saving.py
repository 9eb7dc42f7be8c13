"""A saved fit comes back to the last bit, holds no row of the data, runs no code, and says what is wrong
with a file that is not one."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from tests.families.examples import EXAMPLES

import thetahat as th
from thetahat.data.expressions import check_expression
from thetahat.errors import BadArgument, BadFormula, BadSave, DataError, FitError, NotWritten
from thetahat.evaluation.new_data import aligned
from thetahat.io import archive
from thetahat.io.values import plain, rich


@pytest.fixture(scope="module")
def frame():
    r = np.random.default_rng(0)
    n = 80
    out = pd.DataFrame(
        {
            "x": r.normal(size=n),
            "z": r.uniform(1, 2, n),
            "g": r.choice(list("abc"), n),
            "h": r.choice(["u", "v"], n),
        }
    )
    out["k"] = r.choice([1, 2, 3], n)
    out["cut"] = pd.cut(out["z"], [0.9, 1.2, 1.6, 2.1])
    out["count"] = r.poisson(np.exp(0.4 + 0.3 * out["x"]))
    out["y"] = out["x"] + r.normal(size=n)
    out["weight"] = r.integers(1, 4, n).astype(float)
    return out


def rows_of(fit, data):
    """New rows, as the fit's model reads them."""
    return aligned(fit.model, fit.source, data)[0]


def same_bits(fit, again, new):
    """Everything that a loaded fit can say, it says with the same bits."""
    assert again.names == fit.names
    assert again.certificate == fit.certificate
    assert again.trace == fit.trace
    assert again.call == fit.call
    assert again.log_likelihood == fit.log_likelihood
    assert again.observations == fit.observations
    assert np.array_equal(again.estimates, fit.estimates)
    assert (again.source.fingerprint, again.source.units, again.source.size) == (
        fit.source.fingerprint,
        fit.source.units,
        fit.source.size,
    )
    for statistic in (lambda f: f.standard_errors(), lambda f: f.covariance(), lambda f: f.intervals(0.9)):
        try:
            expected = np.asarray(statistic(fit))
        except FitError:
            with pytest.raises(FitError):
                statistic(again)
        else:
            assert np.array_equal(np.asarray(statistic(again)), expected, equal_nan=True)
    if new is not None:
        for one, other in zip(
            fit.model.parameters_at(rows_of(fit, new)),
            again.model.parameters_at(rows_of(again, new)),
            strict=True,
        ):
            assert torch.equal(one, other)
        asked = [
            lambda f: f.predict(new),
            lambda f: f.predict(new, level=0.9),
            lambda f: f.sample(3, new, seed=1),
        ]
        for ask in [*asked, lambda f: f.predict(new, "linear", level=0.9)]:
            assert repr(said(ask, again)) == repr(said(ask, fit))


def said(ask, fit):
    """What a fit answers, every digit of it, or what it says instead."""
    try:
        found = ask(fit)
    except th.errors.ThetahatError as error:
        return type(error), str(error)
    return np.asarray(found).tolist()


# ---- round trips -------------------------------------------------------------------------------------------

FORMULAS = [
    *(
        "1",
        "x + z",
        "x - 1",
        "g",
        "C(k) * x",
        "cut + x",
        "g:h",
        "g + x:h",
        "offset(log(z)) + x",
        "bs(x, df=5)",
        "cs(x, df=4) - 1",
    ),
    *(
        "poly(x, 2)",
        "center(x) + scale(z)",
        "standardize(x)",
        "bs(center(x), df=4)",
        "np.log(z) + I(x**2) + np.maximum(x, 0)",
    ),
    *(
        "C(g, contr.sum)",
        "C(g, contr.treatment(base='b'))",
        "C(k, contr.poly)",
        "C(g, contr.helmert):center(x)",
    ),
    *(
        "x:g:C(h, contr.sum) + log(z)",
        "g * bs(x, 4)",
        "C(g, Treatment('c')) + I(x > 0)",
        "C(g, levels=['c', 'b', 'a'])",
    ),
]


@pytest.mark.parametrize("right", FORMULAS)
def test_a_formula_encodes_new_rows_to_the_same_bits_after_it_was_saved(frame, tmp_path, right):
    """The fit itself is the oracle."""
    fit = th.fit(f"y ~ {right}", frame, missing="drop")
    again = th.load(fit.save(tmp_path / "a.thetahat"))
    same_bits(fit, again, frame.iloc[5:25].assign(x=lambda d: 0.9 * d["x"]))
    attached = th.load(tmp_path / "a.thetahat", frame)
    assert torch.equal(
        attached.objective.taylor(fit.theta).gradient, fit.objective.taylor(fit.theta).gradient
    )


MULTIVARIATE = ("multivariate_normal", "dirichlet", "independent")


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n not in MULTIVARIATE])
def test_a_fit_of_every_family_comes_back_to_the_last_bit(name, tmp_path):
    """60 draws of the family itself at its first example; what the fit says is the oracle, whatever its
    certificate."""
    family, parameters, extras = EXAMPLES[name][0]
    n = 60
    given = {k: torch.full((n,), v, dtype=torch.float64) for k, v in extras.items()}
    values = [torch.full((n,), p, dtype=torch.float64) for p in parameters]
    y = family.sample(*values, generator=torch.Generator().manual_seed(1), **given)
    frame = {"y": y.numpy(), "x": np.linspace(-1, 1, n)}
    response = "Surv(y, event)" if name == "censored" else "y"
    given = {} if name == "censored" else extras
    whole = frame | {key: np.full(n, v) for key, v in extras.items()}
    fit = th.fit(f"{response} ~ x", whole, family, on_failure="return", solver=th.Newton(steps=12), **given)
    same_bits(fit, th.load(fit.save(tmp_path / "a.thetahat")), {"x": [0.1, 0.7]})


@pytest.mark.parametrize("name", MULTIVARIATE)
def test_a_density_of_vectors_comes_back_to_the_last_bit(name, tmp_path):
    family, parameters, _ = EXAMPLES[name][1]
    values = [torch.full((60,), p, dtype=torch.float64) for p in parameters]
    y = family.sample(*values, generator=torch.Generator().manual_seed(1))
    fit = th.fit(family, y)
    same_bits(fit, th.load(fit.save(tmp_path / "a.thetahat")), None)
    assert th.load(tmp_path / "a.thetahat", y).observations == 60


@pytest.mark.parametrize(
    ("formula", "family", "arguments"),
    [
        ("count ~ x + g", "negative_binomial", {"dispersion": "~ z", "weights": "weight"}),
        ("count ~ x", "negative_binomial", {"dispersion": 0.5}),
        ("g ~ x + z", "categorical", {}),
        ("k ~ x + z", "ordinal", {}),
        ("h ~ x", "bernoulli", {"prior": th.priors.Normal(2.5)}),
        (
            "log(z) ~ x",
            "normal",
            {"prior": [th.priors.StudentT(1.0, df=3.0, on="x"), th.priors.Normal(10.0, on=["Int*"])]},
        ),
        ("y ~ x", "student_t", {"solver": th.LBFGS()}),
    ],
)
def test_weights_priors_levels_fixed_and_further_parameters_are_kept(
    frame, tmp_path, formula, family, arguments
):
    fit = th.fit(formula, frame, family, **arguments)
    again = th.load(fit.save(tmp_path / "a.thetahat"))
    same_bits(fit, again, frame.head(7))
    assert [p.prior for p in again.objective.priors] == [p.prior for p in fit.objective.priors]
    assert again.solver == fit.solver
    attached = th.load(tmp_path / "a.thetahat", frame)
    assert attached.objective.value(fit.theta) == fit.objective.value(fit.theta)


def test_a_category_of_hundreds_of_levels_stays_eliminated(tmp_path):
    """J is kept as A, E and D: 300 levels take 300·2 numbers, not 300²."""
    r = np.random.default_rng(0)
    frame = {
        "y": r.poisson(3.0, 3000),
        "x": r.normal(size=3000),
        "level": [f"l{i}" for i in r.integers(0, 300, 3000)],
    }
    fit = th.fit("y ~ x + level", frame, "poisson")
    same_bits(fit, th.load(fit.save(tmp_path / "a.thetahat")), {"x": [0.3], "level": ["l7"]})
    assert (tmp_path / "a.thetahat").stat().st_size < 60_000


def test_an_ill_conditioned_line_keeps_the_inverse_that_qr_gave(tmp_path):
    """Columns of condition 10⁷: J⁻¹ comes from QR of the rows, and is kept, since J alone would give fewer
    digits."""
    x = np.linspace(0, 1, 50)
    frame = {"y": np.sin(7 * x) + x, "x": x, "near": x + 1e-7 * np.cos(99 * x)}
    fit = th.fit("y ~ x + near", frame)
    again = th.load(fit.save(tmp_path / "a.thetahat"))
    assert again.objective.inverse is not None
    same_bits(fit, again, {"x": [0.5], "near": [0.5]})


def test_a_fit_that_failed_is_kept_with_its_certificate(tmp_path):
    fit = th.fit("y ~ x", {"y": [0, 0, 1, 1], "x": [0.0, 1, 2, 3]}, "bernoulli", on_failure="return")
    again = th.load(fit.save(tmp_path / "a.thetahat"))
    assert again.certificate == fit.certificate
    assert again.certificate.status == "no maximum"


def test_a_loaded_fit_can_be_saved_again_to_the_same_bytes(frame, tmp_path):
    fit = th.fit("y ~ x + g", frame)
    first = fit.save(tmp_path / "a.thetahat").read_bytes()
    assert th.load(tmp_path / "a.thetahat").save(tmp_path / "b.thetahat").read_bytes() == first


def test_the_score_of_new_rows_is_that_of_the_fit(frame, tmp_path):
    fit = th.fit("count ~ bs(x, df=4) + g", frame, "negative_binomial")
    ours, theirs = fit.score(frame.head(30)), th.load(fit.save(tmp_path / "a.thetahat")).score(frame.head(30))
    assert torch.equal(ours.per_observation, theirs.per_observation)
    assert ours.to_dict() == theirs.to_dict()
    interval = fit.predict(frame.head(3), level=0.9, kind="prediction")
    assert (
        th.load(tmp_path / "a.thetahat").predict(frame.head(3), level=0.9, kind="prediction").equals(interval)
    )


def test_a_wald_test_of_a_loaded_fit_is_that_of_the_fit(frame, tmp_path):
    fit = th.fit("y ~ x + z", frame)
    assert th.load(fit.save(tmp_path / "a.thetahat")).test("x = z") == fit.test("x = z")


def test_the_summary_of_a_loaded_fit_is_that_of_the_fit(frame, tmp_path):
    fit = th.fit("y ~ x + g", frame.assign(x=frame["x"].where(frame["x"] < 2)))
    assert str(th.load(fit.save(tmp_path / "a.thetahat")).summary()) == str(fit.summary())


def test_values_come_back_through_json_with_type_and_bits():
    """Every type that `plain` lists; repr tells 0.0 from −0.0 and 1 from 1.0 and True."""
    values = [
        0.1,
        -0.0,
        1,
        1.0,
        True,
        None,
        "é",
        float("inf"),
        float("nan"),
        (1, (2.0,)),
        {0: 0.5, 1: None},
        {"~": 1},
    ]
    values += [
        pd.Timestamp("2024-02-29 12:00"),
        pd.Timestamp("2024-02-29").date(),
        pd.Interval(0.0, 1.5, closed="left"),
    ]
    assert repr(rich(json.loads(json.dumps(plain(values), allow_nan=False)))) == repr(values)
    array = np.array([[0.1, np.inf], [-0.0, 2.0]])
    assert rich(plain(array)).tobytes() == array.tobytes()
    with pytest.raises(BadArgument, match="the offset is of type complex"):
        plain(1j, "the offset")


# ---- models that are code ----------------------------------------------------------------------------------


def decay():
    @th.model(rate=th.positive(1.0), shift=0.0)
    def model(batch, rate, shift):
        return torch.log(rate) - rate * (batch["y"] - shift * batch["x"]).abs()

    return model


def test_a_likelihood_of_ones_own_is_given_again_and_known_by_its_parameters(frame, tmp_path):
    data = {"y": frame["y"].to_numpy(), "x": frame["x"].to_numpy()}
    fit = th.fit(decay(), data, on_failure="return")
    path = fit.save(tmp_path / "a.thetahat")
    again = th.load(path, model=decay())
    same_bits(fit, again, None)
    assert th.load(path, data, model=decay()).log_likelihood == fit.log_likelihood
    with pytest.raises(BadArgument, match=r"holds a fit of 'model', which is code.*model=model"):
        th.load(path)

    @th.model(rate=1.0, shift=0.0)
    def other(batch, rate, shift):
        return rate * batch["y"]

    with pytest.raises(
        BadArgument, match=r"parameters rate \(positive\), shift; the model given has rate, shift"
    ):
        th.load(path, model=other)


def test_a_given_likelihood_keeps_its_own_parameters(frame, tmp_path):
    """One function serves several fits: loading one must not move another."""
    fit = th.fit(decay(), {"y": frame["y"].to_numpy(), "x": frame["x"].to_numpy()}, on_failure="return")
    given = decay()
    th.load(fit.save(tmp_path / "a.thetahat"), model=given)
    assert given.values()["rate"].item() == 1.0


def network(width=3):
    return th.models.Conditional(
        th.families.Poisson(),
        torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Tanh(), torch.nn.Linear(width, 1)),
    )


def test_a_network_gets_its_weights_back(frame, tmp_path):
    """Parameters and buffers bit for bit; a network of other shapes is refused by the name of the tensor."""
    x = torch.tensor(frame[["x", "z"]].to_numpy(), dtype=torch.float32)
    batch = th.data.Batch({"x": x, "y": torch.tensor(frame["count"].to_numpy(), dtype=torch.float32)})
    model = network()
    model.network[0].bias.requires_grad_(False)
    fit = th.fit(model, batch, solver=th.Stochastic(steps=5, held_out=None))
    path = fit.save(tmp_path / "a.thetahat")
    again = th.load(path, model=network())
    assert torch.equal(again.model.log_prob(batch), fit.model.log_prob(batch))
    assert torch.equal(again.theta, fit.theta)
    assert again.certificate == fit.certificate
    with pytest.raises(
        BadArgument, match=r"'network.0.weight' has the shape \[3, 2\]; that of the model given has \[4, 2\]"
    ):
        th.load(path, model=network(4))
    with pytest.raises(BadArgument, match="holds a fit of a Conditional; the model given is a Sequential"):
        th.load(path, model=model.network)


def described() -> dict[str, list[torch.nn.Module]]:
    """Models of the library, and those of several terms that share a layer."""
    N, M, F = th.networks, th.models, th.families
    norm = N.Normaliser(4)
    shared = [torch.nn.Sequential(norm, *N.mlp(4, 8, k, "tanh")) for k in (2, 1)]
    from thetahat.rl.actions import Discrete

    return {
        "gpt": [
            th.language.Autoregressive(
                N.Transformer(65, layers=1, width=16, heads=2, activation="relu2", ngrams=(7,))
            )
        ],
        "tied": [th.language.Autoregressive(N.Transformer(65, layers=1, width=16, heads=2, tied=True))],
        "classifier": [M.Conditional(F.Categorical(3), th.generative.ConvNet((8, 8), 3, (4, 8), levels=17))],
        "double": [M.Conditional(F.get("gumbel"), N.mlp(3, (4,), 2, dtype=torch.float64))],
        "vae": [th.generative.VAE.images((8, 8), 17, width=8, latent=2)],
        "flow": [th.generative.Flow.spline(2, transforms=1, hidden=(8,))],
        "diffusion": [
            th.generative.Diffusion(
                th.generative.UNet((8, 8), 17, channels=(4,)), levels=17, predict="levels"
            )
        ],
        "beta-VAE": [
            th.generative.BetaVAE(th.generative.VAE.images((8, 8), 2, width=8, latent=2), 4.0, free_bits=0.5)
        ],
        "flow matching": [
            th.generative.Diffusion(
                th.generative.Denoiser(2, width=8),
                predict="velocity",
                schedule=th.generative.ImportanceTimes(th.generative.Straight(8.0, -8.0), (0.5, 1.5)),
            )
        ],
        "policy and value": [th.rl.Policy(shared[0], Discrete(2)), th.rl.Value(shared[1])],
        "returns": [th.rl.QRDQN(N.mlp(4, 8, 10), levels=5)],
    }


@pytest.mark.parametrize("name", described())
def test_the_librarys_own_models_are_built_again_from_plain_values(name):
    """Names, shapes, types and sharing of every parameter and buffer are those of the model itself; layers
    too, as torch writes them."""
    from thetahat.io.modules import build, describe

    models = described()[name]
    again = build(json.loads(json.dumps(describe(models), allow_nan=False)))
    for model, other in zip(models, again, strict=True):
        assert repr(other) == repr(model)
        for a, b in (
            (model.state_dict(), other.state_dict()),
            (dict(model.named_parameters()), dict(other.named_parameters())),
        ):
            assert {n: (t.shape, t.stride()) for n, t in a.items()} == {
                n: (t.shape, t.stride()) for n, t in b.items()
            }
    if len(again) == 2:
        assert again[0].network[0] is again[1].network[0]


def test_a_model_that_was_changed_after_it_was_made_is_not_described():
    """Its call no longer says what it is: a saved fit of it asks for the model."""
    from thetahat.io.modules import describe

    vae = th.generative.VAE.images((8, 8), 2, width=8, latent=2)
    assert describe([vae]) is not None
    vae.K = 50
    assert describe([vae]) is None

    class Mine(th.language.Autoregressive):
        pass

    assert describe([Mine(th.networks.Transformer(9, layers=1, width=8, heads=2))]) is None


def test_a_fit_of_a_policy_keeps_its_value_function(tmp_path):
    """Two terms on one source, loaded without a line of code: θ of both, bit for bit."""
    advantage = th.rl.GAE(value := th.rl.Value(th.networks.mlp(4, 8, 1)))
    rollouts = th.rl.Rollouts("CartPole-v1", 2, num_steps=8, advantage=advantage)
    policy = th.rl.Policy(th.networks.mlp(4, 8, 2))
    objective = th.LogLikelihood(policy, rollouts, th.rl.Advantage()) + th.LogLikelihood(value, rollouts)
    fit = th.maximize(objective, solver=th.Stochastic(steps=3, held_out=None), run=tmp_path / "r")
    again = th.load(tmp_path / "r")
    assert torch.equal(again.theta, fit.theta)
    assert [type(t.model).__name__ for t in again.objective.terms] == ["Policy", "Value"]
    state = torch.randn(5, 4)
    for a, b in zip(fit.objective.terms, again.objective.terms, strict=True):
        assert torch.equal(a.model.network(state), b.model.network(state))
    assert str(again.summary()).splitlines()[0] == str(fit.summary()).splitlines()[0]


def test_a_repr_makes_no_pass_over_the_data(frame, tmp_path):
    """A source that counts its passes; and a loaded fit, which has no data, has a repr all the same."""
    passes = []

    class Counting(th.data.Tensors):
        def batches(self, model=None):
            passes.append(1)
            return super().batches(model)

    source = Counting({"x": torch.randn(40, 2), "y": torch.randn(40)})
    model = th.models.Conditional(th.families.Normal(), th.networks.mlp(2, 4, 2))
    fit = th.fit(model, source, solver=th.Stochastic(steps=3, held_out=None))
    before = len(passes)
    assert "stochastic" in repr(fit)
    assert len(passes) == before
    assert "stochastic" in repr(th.load(fit.save(tmp_path / "a.thetahat")))
    assert "log_likelihood=" in repr(th.fit("y ~ x", frame))
    assert f"log_likelihood={fit.log_likelihood:.6g}" in repr(fit)


# ---- what needs the data -----------------------------------------------------------------------------------


def test_what_needs_rows_says_that_it_needs_the_data(frame, tmp_path):
    again = th.load(th.fit("y ~ x", frame).save(tmp_path / "a.thetahat"))
    asked = [
        lambda f: f.standard_errors("sandwich"),
        lambda f: f.standard_errors("cluster", by="g"),
        lambda f: f.intervals(kind="profile"),
        lambda f: f.bootstrap(9),
        lambda f: f.profile("x"),
        lambda f: f.objective.value(f.theta + 1),
        lambda f: f.residuals(),
    ]
    for ask in asked:
        with pytest.raises(BadArgument, match=r"needs the data that the fit was fitted to.*data=…"):
            ask(again)
    attached = th.load(tmp_path / "a.thetahat", frame)
    for ask in asked[:2] + asked[4:]:
        ask(attached)


def test_data_are_attached_only_if_they_are_those_that_were_fitted(frame, tmp_path):
    path = th.fit("y ~ x", frame).save(tmp_path / "a.thetahat")
    with pytest.raises(DataError, match=r"other data than .*79 rows of fingerprint"):
        th.load(path, frame.iloc[1:])
    with pytest.raises(DataError, match=r"the responses are the same, but the objective"):
        th.load(path, frame.assign(x=frame["x"] + 0.01))


def test_no_row_of_the_data_is_in_the_file(tmp_path):
    """200 responses and predictors of 17 digits: none of their eight bytes, none of their digits, is
    anywhere in the file."""
    r = np.random.default_rng(3)
    frame = {"y": r.normal(size=200), "x": r.normal(size=200), "g": r.choice(list("abc"), 200)}
    fit = th.fit("y ~ poly(x, 2) + g", frame)
    fit.summary()
    content = fit.save(tmp_path / "a.thetahat").read_bytes()
    for column in ("y", "x"):
        for value in frame[column]:
            assert np.float64(value).tobytes() not in content
            assert repr(float(value)).encode() not in content
    assert b"pickle" not in content


# ---- files that are not as they were written ---------------------------------------------------------------


def test_every_changed_byte_is_found(tmp_path):
    """Each byte of the file in turn, one bit turned over: the checksum covers them all, and so does the
    container around it."""
    path = th.fit("y ~ x", {"y": [0.9, 2.1, 2.9, 4.2], "x": [0.0, 1, 2, 3]}).save(tmp_path / "a.thetahat")
    content = path.read_bytes()
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(BadSave):
            th.load(path)
    path.write_bytes(content)
    th.load(path)


def test_a_truncated_a_foreign_and_a_missing_file_are_told_apart(tmp_path):
    path = th.fit("y ~ 1", {"y": [0.9, 2.1, 2.9]}).save(tmp_path / "a.thetahat")
    content = path.read_bytes()
    for kept in (0, 4, 100, len(content) - 1):
        path.write_bytes(content[:kept])
        with pytest.raises(BadSave, match=r"is not a saved fit, or was cut short or damaged"):
            th.load(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(BadSave, match="cut short or damaged"):
        th.load(path)
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(BadSave, match="a safetensors file, but no saved fit"):
        th.load(path)
    with pytest.raises(BadSave, match="there is no file"):
        th.load(tmp_path / "b.thetahat")


def rewritten(path, change):
    """A file whose JSON was changed by who knows how the checksum is made."""
    content, tensors = archive.read(path, "test")
    path.unlink()
    change(content)
    archive.write(path, content, tensors, "test")


@pytest.mark.parametrize("version", [2, 0, "one", None, True])
def test_a_later_version_asks_for_an_upgrade(tmp_path, monkeypatch, version):
    monkeypatch.setattr(archive, "VERSION", version)
    path = th.fit("y ~ 1", {"y": [0.9, 2.1, 2.9]}).save(tmp_path / "a.thetahat")
    monkeypatch.undo()
    with pytest.raises(
        BadSave, match=rf"of version {version!r} \(written by thetahat {th.__version__}\).*Upgrade thetahat"
    ):
        th.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("model"),
        lambda c: c["model"].update(kind="pickle"),
        lambda c: c["model"].update(family={"family": "os.system"}),
        lambda c: c["model"]["encoder"].update(designs=[{}]),
        lambda c: c["model"]["encoder"]["designs"][0].update(required=3),
        lambda c: c["model"].update(slots=[]),
        lambda c: c["certificate"].update(colour="red"),
        lambda c: c.update(priors=[{"prior": "torch", "settings": {}}]),
        lambda c: c.update(solver={"solver": "exec", "settings": {}}),
        lambda c: c["data"].update(rows=[[1.0]]),
        lambda c: c.update(call={"~": "object", "v": "os.system"}),
    ],
)
def test_a_description_that_this_library_did_not_write_is_refused(tmp_path, change):
    path = th.fit("y ~ x", {"y": [0.9, 2.1, 2.9, 4.2], "x": [0.0, 1, 2, 3]}).save(tmp_path / "a.thetahat")
    rewritten(path, change)
    with pytest.raises(BadSave):
        th.load(path)


EVIL = [
    "__import__('os').system('true')",
    "open('/etc/passwd')",
    "x.__class__",
    "np.fromfile('a')",
    "np.load('a')",
    "np.add(x, 1, out=x)",
    "np.add.at(x, 0, 1)",
    "(lambda: 1)()",
    "[v for v in x]",
    "f'{x}'",
    "x[0]",
    "'a' * 10**9",
    "9**9**9",
    "np.lib.format",
    "contr.__class__",
    "I(x, **x)",
    "eval",
    "x if x else x",
    "(y := x)",
    "bs(x, df=breakpoint)",
]


@pytest.mark.parametrize("expression", EVIL)
def test_an_expression_that_could_run_anything_else_is_refused(tmp_path, expression):
    """Each is refused by itself, and in a file whose checksum holds."""
    with pytest.raises(BadFormula):
        check_expression(expression, ["x"])
    path = th.fit("y ~ log(x)", {"y": [0.9, 2.1, 2.9, 4.2], "x": [1.0, 2, 3, 4]}).save(
        tmp_path / "a.thetahat"
    )

    def change(content):
        dense = content["model"]["encoder"]["designs"][0]["dense"]
        dense["terms"][1][0][0] = expression
        dense["structure"][1]["term"] = [expression]
        dense["structure"][1]["scoped"][0][1][0][0] = expression

    rewritten(path, change)
    with pytest.raises(BadSave, match="a formula that is not loaded"):
        th.load(path)


def test_a_formula_that_could_not_be_loaded_is_not_saved(tmp_path):
    """The same check at both ends: no file is written that no reader takes."""
    fit = th.fit("y ~ I(x.clip(0))", {"y": [0.9, 2.1, 2.9, 4.2], "x": [1.0, 2, -3, 4]}, trusted=True)
    with pytest.raises(BadFormula, match=r"calls x.clip, which is none of the functions that formulas know"):
        fit.save(tmp_path / "a.thetahat")
    assert not list(tmp_path.iterdir())


def test_saving_overwrites_a_saved_fit_and_nothing_else(frame, tmp_path):
    fit = th.fit("y ~ x", frame)
    path = tmp_path / "claims.csv"
    path.write_text("x,y\n1,2\n")
    with pytest.raises(BadArgument, match="exists and is not a saved fit"):
        fit.save(path)
    assert path.read_text() == "x,y\n1,2\n"
    fit.save(fit.save(tmp_path / "a.thetahat"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.thetahat", "claims.csv"]
    with pytest.raises(BadArgument, match="cannot be written: No such file"):
        fit.save(tmp_path / "none" / "a.thetahat")


def test_a_crash_while_saving_leaves_the_old_file(frame, tmp_path, monkeypatch):
    path = th.fit("y ~ x", frame).save(tmp_path / "a.thetahat")
    before = path.read_bytes()

    def crash(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(NotWritten, match="cannot be written: No space left"):
        th.fit("y ~ z", frame).save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_fit_is_read_by_another_process(frame, tmp_path):
    """Nothing of this process is in the file: a fresh interpreter predicts the same bits."""
    fit = th.fit("count ~ bs(x, df=4) + g", frame, "poisson")
    path = fit.save(tmp_path / "a.thetahat")
    frame.head(5).drop(columns="cut").to_parquet(tmp_path / "new.parquet")
    code = (
        f"import thetahat as th; fit = th.load({str(path)!r}); "
        f"from thetahat.evaluation.new_data import aligned; "
        f"print([v.hex() for v in fit.model.mean(aligned(fit.model, fit.source, {str(tmp_path / 'new.parquet')!r})[0]).tolist()])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str([v.hex() for v in fit.model.mean(rows_of(fit, frame.head(5))).tolist()])


def test_a_fit_of_adapters_holds_the_adapters_alone_and_asks_for_the_weights_that_they_adapt(tmp_path):
    """Size: a few times the adapters' bytes, and far below the network's. Other frozen weights are another
    model, and refused."""

    def network(seed):
        torch.manual_seed(seed)
        return th.language.add_lora(
            th.networks.Transformer(2000, width=64, layers=2, heads=2, seed=seed), 2, seed=0
        )

    net = network(0)
    data = th.language.Tokens(np.random.default_rng(0).integers(0, 2000, 400), None, context=16)
    fit = th.fit(
        th.language.Autoregressive(net), data, solver=th.Stochastic(steps=3, batch_size=4, held_out=None)
    )
    path = fit.save(tmp_path / "a.thetahat")
    trained = sum(p.numel() * p.element_size() for p in fit.model.parameters() if p.requires_grad)
    whole = sum(p.numel() * p.element_size() for p in fit.model.parameters())
    assert path.stat().st_size < 4 * trained + 20_000 < whole / 2
    again = th.load(path, model=th.language.Autoregressive(network(0)))
    assert torch.equal(again.theta, fit.theta)
    with pytest.raises(BadArgument, match="frozen"):
        th.load(path, model=th.language.Autoregressive(network(1)))


def test_tied_tensors_are_in_the_file_once(tmp_path):
    """The embedding is the output matrix: the file is smaller than twice it."""
    net = th.networks.Transformer(3000, width=32, layers=1, heads=2, tied=True)
    data = th.language.Tokens(np.random.default_rng(0).integers(0, 3000, 300), None, context=16)
    fit = th.fit(
        th.language.Autoregressive(net), data, solver=th.Stochastic(steps=2, batch_size=4, held_out=None)
    )
    path = fit.save(tmp_path / "a.thetahat")
    assert path.stat().st_size < 1.7 * 3000 * 32 * 4
    again = th.load(path)
    assert torch.equal(again.theta, fit.theta)
    assert again.model.network.lm_head.weight is again.model.network.model["embed_tokens"].weight
