import math
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture as Estimator
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from vae_lightning.latents.priors import (
    PRIORS,
    CoarsePrior,
    FittedGaussian,
    Flow,
    GaussianMixture,
    Prior,
    PriorError,
    StandardNormal,
    fit_prior,
    flow,
)
from vae_lightning.latents.priors.file import PriorFile
from vae_lightning.latents.priors.mixture import shrink_to_shared


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian_latents(count: int, seed: int = 0) -> Tensor:
    factor = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [-0.5, 0.2, 0.3]])
    return torch.randn(count, 3, generator=generator(seed)) @ factor.T + torch.tensor([1.0, -2.0, 0.5])


def clusters(count: int, seed: int = 0) -> Tensor:
    centres = torch.tensor([[0.0, 4.0], [4.0, -2.0], [-4.0, -2.0]])
    chosen = torch.randint(3, (count,), generator=generator(seed))
    return centres[chosen] + 0.5 * torch.randn(count, 2, generator=generator(seed + 1))


def banana(count: int, seed: int = 0) -> Tensor:
    """2-D: the second latent is near the square of the first."""
    noise = torch.randn(count, 2, generator=generator(seed))
    return torch.stack([noise[:, 0], noise[:, 0].square() + 0.3 * noise[:, 1]], dim=1)


def mixture_of_three() -> GaussianMixture:
    means = torch.tensor([[0.0, 1.0], [2.0, -1.0], [-2.0, 0.0]])
    choleskys = torch.tensor([[[1.0, 0.0], [0.3, 0.5]], [[0.4, 0.0], [0.0, 0.4]], [[0.7, 0.0], [-0.5, 0.6]]])
    return GaussianMixture(torch.tensor([0.2, 0.5, 0.3]), means, choleskys)


@pytest.fixture(scope="module")
def banana_flow() -> Flow:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "MOST_STEPS", 200)
        return Flow.fit(banana(3_000), seed=0)


def kept_priors(banana_flow: Flow) -> dict[str, Prior]:
    latents = banana(300)
    return {
        "normal": StandardNormal(2),
        "gaussian": FittedGaussian.fit(latents),
        "gmm": fit_prior("gmm", latents, seed=0),
        "flow": banana_flow,
    }


def integral(prior: Prior, power: int = 1) -> float:
    """Of a 2-D density to some power, summed over a grid; exact for smooth densities that vanish at its border."""
    columns, rows = torch.arange(-6, 6, 0.1), torch.arange(-6, 18, 0.1)
    densities = prior.log_prob(torch.cartesian_prod(columns, rows)).exp()
    return float(densities.pow(power).sum()) * 0.1**2


@pytest.mark.slow
def test_every_density_integrates_to_one(banana_flow: Flow) -> None:
    for prior in (*kept_priors(banana_flow).values(), mixture_of_three()):
        assert integral(prior) == pytest.approx(1.0, abs=2e-3), prior.name


def test_gaussians_equal_torch_distributions() -> None:
    latents = gaussian_latents(50)
    fitted = FittedGaussian.fit(latents)
    oracle = MultivariateNormal(fitted.mean, scale_tril=fitted.cholesky).log_prob(latents.double())
    torch.testing.assert_close(fitted.log_prob(latents), oracle)
    torch.testing.assert_close(StandardNormal(3).log_prob(latents), Normal(0.0, 1.0).log_prob(latents.double()).sum(1))


def test_fitted_gaussian_has_the_moments_of_many_latents() -> None:
    latents = gaussian_latents(5_000)
    fitted = FittedGaussian.fit(latents)
    covariance = torch.cov(latents.double().T)
    torch.testing.assert_close(fitted.mean, latents.double().mean(0))
    torch.testing.assert_close(fitted.cholesky @ fitted.cholesky.T, covariance, rtol=0.0, atol=0.02)


def test_gaussian_of_two_images_is_a_density() -> None:
    fitted = fit_prior("gaussian", torch.randn(2, 40, generator=generator()), seed=0)
    assert fitted.log_prob(torch.randn(5, 40, generator=generator(1))).isfinite().all()
    assert fitted.sample(3, generator()).isfinite().all()


def test_mixture_equals_torch_distributions() -> None:
    prior = mixture_of_three()
    tensors = prior.tensors()
    components = MultivariateNormal(tensors["means"], scale_tril=tensors["choleskys"])
    oracle = MixtureSameFamily(Categorical(prior.weights), components)
    points = torch.randn(100, 2, generator=generator()).double() * 3
    torch.testing.assert_close(prior.log_prob(points), oracle.log_prob(points))


def test_fitted_mixture_equals_scikit_learn_where_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_lightning.latents.priors.mixture.SHARED_IMAGES_PER_LATENT", 0)
    latents = clusters(1_000)
    whole = FittedGaussian.fit(latents)
    white = whole.whiten(latents).float().numpy()
    estimator = Estimator(10, reg_covar=0.01, random_state=3).fit(white)
    oracle = torch.from_numpy(estimator.score_samples(white)).double() - whole.log_volume
    torch.testing.assert_close(fit_prior("gmm", latents, seed=3).log_prob(latents), oracle, rtol=1e-4, atol=1e-3)


def test_covariances_are_averaged_with_the_shared_one() -> None:
    # 10 and 30 images of 1 latent, whose shared variance is 0.25 * 1 + 0.75 * 5 = 4 and counts 4 images
    covariances = torch.tensor([1.0, 5.0]).reshape(2, 1, 1)
    shrunk = shrink_to_shared(covariances, torch.tensor([0.25, 0.75]), 40)
    assert shrunk.flatten().tolist() == pytest.approx([(10 * 1 + 4 * 4) / 14, (30 * 5 + 4 * 4) / 34])


def test_mixture_samples_have_the_mixture_moments() -> None:
    prior = mixture_of_three()
    tensors = prior.tensors()
    samples = prior.sample(100_000, generator()).double()
    mean = prior.weights @ tensors["means"]
    within = tensors["choleskys"] @ tensors["choleskys"].transpose(1, 2)
    spread = tensors["means"] - mean
    covariance = torch.einsum("k,kij->ij", prior.weights, within + spread[:, :, None] * spread[:, None, :])
    torch.testing.assert_close(samples.mean(0), mean, rtol=0.0, atol=0.03)
    torch.testing.assert_close(torch.cov(samples.T), covariance, rtol=0.0, atol=0.04)


def test_gaussian_samples_have_its_moments() -> None:
    fitted = FittedGaussian.fit(gaussian_latents(500))
    samples = fitted.sample(100_000, generator()).double()
    torch.testing.assert_close(samples.mean(0), fitted.mean, rtol=0.0, atol=0.03)
    torch.testing.assert_close(torch.cov(samples.T), fitted.cholesky @ fitted.cholesky.T, rtol=0.0, atol=0.06)


def test_flow_samples_follow_its_density(banana_flow: Flow) -> None:
    densities = banana_flow.log_prob(banana_flow.sample(20_000, generator())).exp()
    error = float(densities.std()) / math.sqrt(20_000)
    assert float(densities.mean()) == pytest.approx(integral(banana_flow, 2), abs=4 * error)  # E[p] is that of p^2


@pytest.mark.parametrize("latent_dim", [2, 5])
def test_flow_inverts_and_counts_volumes(latent_dim: int) -> None:
    couplings = flow.Couplings.initial(latent_dim, generator()).double()
    for parameter in couplings.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator(1), dtype=torch.float64)
    points = torch.randn(4, latent_dim, generator=generator(2), dtype=torch.float64)
    noise, log_det = couplings(points)
    torch.testing.assert_close(couplings.inverse(noise), points)
    for point, one_log_det in zip(points, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda x: couplings(x[None])[0][0], point)
        torch.testing.assert_close(torch.linalg.slogdet(cast(Tensor, jacobian)).logabsdet, one_log_det)
    assert (log_det.abs() > 1e-3).all()


def test_every_latent_is_moved_by_some_coupling() -> None:
    for latent_dim in range(2, 8):
        couplings = flow.Couplings.initial(latent_dim, generator())
        places = torch.arange(latent_dim)
        moved: set[int] = set()
        for layer in couplings.layers[:2]:
            places = places[cast(flow.Coupling, layer).order]
            moved |= set(places[latent_dim // 2 :].tolist())
        assert moved == set(range(latent_dim))


def test_unfitted_flow_is_the_fitted_gaussian() -> None:
    latents = gaussian_latents(100)
    gaussian = FittedGaussian.fit(latents)
    prior = Flow(gaussian, flow.Couplings.initial(3, generator()), {})
    torch.testing.assert_close(prior.log_prob(latents), gaussian.log_prob(latents))


def test_mixture_beats_the_gaussian_on_clusters() -> None:
    held_out = clusters(1_000, seed=5)
    mixture, gaussian = (
        fit_prior(name, clusters(600), seed=0).log_prob(held_out).mean() for name in ("gmm", "gaussian")
    )
    assert mixture > gaussian + 1


def test_flow_beats_the_gaussian_on_a_banana(banana_flow: Flow) -> None:
    held_out = banana(2_000, seed=5)
    gain = banana_flow.log_prob(held_out).mean() - FittedGaussian.fit(banana(3_000)).log_prob(held_out).mean()
    true = Normal(0.0, 1.0).log_prob(held_out[:, 0]) + Normal(held_out[:, 0].square(), 0.3).log_prob(held_out[:, 1])
    assert gain > 1
    assert banana_flow.log_prob(held_out).mean() > true.mean() - 0.15  # as good as the truth, nearly
    assert banana_flow.settings()["held_out_gain_nats"] == pytest.approx(float(gain), abs=0.4)


@pytest.mark.slow
def test_flow_that_only_gets_worse_stays_the_gaussian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "LEARNING_RATE", 10.0)
    latents = gaussian_latents(200)
    prior = fit_prior("flow", latents, seed=0)
    assert prior.settings()["steps"] == 0
    torch.testing.assert_close(prior.log_prob(latents), FittedGaussian.fit(latents).log_prob(latents))


@pytest.mark.parametrize("name", PRIORS)
def test_the_same_seed_gives_the_same_prior_and_leaves_the_global_state(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "MOST_STEPS", 50)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]
    latents = clusters(200)
    first, second = fit_prior(name, latents, seed=7), fit_prior(name, latents, seed=7)
    assert first.settings() == second.settings()
    assert torch.equal(first.log_prob(latents), second.log_prob(latents))
    assert torch.equal(first.sample(9, generator(3)), second.sample(9, generator(3)))
    assert not torch.equal(first.sample(9, generator(3)), first.sample(9, generator(4)))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index,union-attr]


def test_temperature_scales_the_spread(banana_flow: Flow) -> None:
    gaussian, mixture = FittedGaussian.fit(banana(300)), mixture_of_three()
    torch.testing.assert_close(gaussian.sample(4, generator(), 0.0), gaussian.mean.float().expand(4, 2))
    whole, half = gaussian.sample(4, generator()), gaussian.sample(4, generator(), 0.5)
    torch.testing.assert_close(half - gaussian.mean.float(), 0.5 * (whole - gaussian.mean.float()))
    centres = {tuple(row) for row in mixture.sample(200, generator(), 0.0).tolist()}
    assert centres == {tuple(row) for row in mixture.tensors()["means"].float().tolist()}
    still = banana_flow.sample(4, generator(), 0.0)
    assert torch.equal(still, still[:1].expand(4, 2))
    assert torch.equal(StandardNormal(2).sample(4, generator(), 0.5), 0.5 * StandardNormal(2).sample(4, generator()))
    with pytest.raises(PriorError, match=r"temperature=-1.*0 \(no spread\) or more"):
        gaussian.sample(4, generator(), -1)
    with pytest.raises(PriorError, match="num_samples=0: must be at least 1"):
        gaussian.sample(0, generator())


def test_flow_is_fitted_with_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "MOST_STEPS", 30)
    seen: list[tuple[str, int]] = []

    def track(steps: Iterable[int], description: str, total: int) -> Iterable[int]:
        seen.append((description, total))
        return steps

    fit_prior("flow", banana(100), seed=0, track=track)
    assert seen == [("Fitting a flow", 30)]


def test_files_give_back_what_was_written(banana_flow: Flow, tmp_path: Path) -> None:
    file = PriorFile(tmp_path / "new" / "priors.pt", "digest")
    points = banana(20)
    priors = kept_priors(banana_flow)
    for name, prior in priors.items():
        assert file.read(name) is None
        file.write(name, prior)
    for name, prior in priors.items():
        read = file.read(name)
        assert type(read) is type(prior)
        assert read.settings() == prior.settings()
        assert torch.equal(read.log_prob(points), prior.log_prob(points))
        assert torch.equal(read.sample(5, generator()), prior.sample(5, generator()))
    assert [path.name for path in file.path.parent.iterdir()] == ["priors.pt"]


def test_a_prior_of_the_coarse_levels_is_completed_by_the_normal_one(tmp_path: Path) -> None:
    fitted = FittedGaussian.fit(banana(60))
    prior = CoarsePrior(fitted, ["4x4"], 5)
    samples = prior.sample(4_000, generator())
    assert torch.equal(samples[:, :2], fitted.sample(4_000, generator()))
    assert torch.corrcoef(samples.T)[2:].sub(torch.eye(5)[2:]).abs().max() < 0.08
    assert (samples[:, 2:].std(0) - 1).abs().max() < 0.05
    cold = prior.sample(1, generator(), temperature=0.0)[0]
    torch.testing.assert_close(cold, torch.cat([fitted.mean.float(), torch.zeros(3)]))
    by_level = prior.sample(9, generator(), temperature=torch.tensor([0.5, 0.5, 2.0, 2.0, 0.0]))
    assert torch.equal(by_level[:, :2], fitted.sample(9, generator(), 0.5))
    torch.testing.assert_close(by_level[:, 2:], prior.sample(9, generator())[:, 2:] * torch.tensor([2.0, 2.0, 0.0]))
    with pytest.raises(PriorError, match="several temperatures"):
        prior.sample(9, generator(), temperature=torch.tensor([0.5, 0.6, 1.0, 1.0, 1.0]))
    finer = torch.distributions.Normal(0.0, 1.0).log_prob(samples[:, 2:].double()).sum(1)
    torch.testing.assert_close(prior.log_prob(samples), fitted.log_prob(samples[:, :2]) + finer)
    file = PriorFile(tmp_path / "priors.pt", "digest")
    file.write("gaussian", prior)
    read = file.read("gaussian")
    assert isinstance(read, CoarsePrior)
    assert (read.levels, read.latent_dim, read.settings()) == (("4x4",), 5, prior.settings())
    assert torch.equal(read.log_prob(samples), prior.log_prob(samples))
    assert torch.equal(read.sample(5, generator()), prior.sample(5, generator()))
    with pytest.raises(PriorError, match="FittedGaussian cannot be kept as the prior 'flow'"):
        file.write("flow", prior)
    with pytest.raises(PriorError, match="of 2 latents does not fit a model that has 1"):
        CoarsePrior(fitted, ["4x4"], 1)


def test_priors_of_another_checkpoint_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "priors.pt"
    PriorFile(path, "old").write("normal", StandardNormal(2))
    PriorFile(path, "old").write("gaussian", FittedGaussian.fit(banana(30)))
    assert PriorFile(path, "old").read("normal") is not None
    assert PriorFile(path, "new").read("normal") is None
    PriorFile(path, "new").write("normal", StandardNormal(3))
    assert PriorFile(path, "new").read("gaussian") is None


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_damaged_files_are_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "priors.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"priors\.pt .*delete it"):
        PriorFile(path, "digest").read("flow")
    assert path.read_bytes() == content


def test_files_of_other_content_are_named(tmp_path: Path) -> None:
    path = tmp_path / "priors.pt"
    for content in (
        [1],
        {"weights": 1},
        {"format": 1, "checkpoint": "digest", "priors": {"gaussian": {"settings": {}}}},
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"priors\.pt .*delete it"):
            PriorFile(path, "digest").read("gaussian")


def test_errors_say_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(PriorError, match=r"prior=gausian \(did you mean gaussian\?\): allowed are normal, gauss"):
        fit_prior("gausian", banana(30), seed=0)
    with pytest.raises(PriorError, match="prior=vamp: allowed are normal, gaussian, gmm, flow"):
        PriorFile(tmp_path / "priors.pt", "digest").read("vamp")
    with pytest.raises(PriorError, match="19 latents are too few for the prior 'gmm': it needs 20 or more"):
        fit_prior("gmm", banana(19), seed=0)
    with pytest.raises(PriorError, match="nan or inf"):
        fit_prior("flow", torch.full((30, 2), math.nan), seed=0)
    with pytest.raises(PriorError, match="all 30 latents are the same"):
        fit_prior("gmm", torch.ones(30, 2), seed=0)
    with pytest.raises(PriorError, match="a flow needs 2 latents or more"):
        fit_prior("flow", torch.randn(30, 1, generator=generator()), seed=0)
    with pytest.raises(PriorError, match="StandardNormal cannot be kept as the prior 'flow'"):
        PriorFile(tmp_path / "priors.pt", "digest").write("flow", StandardNormal(2))
