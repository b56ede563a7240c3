"""Latents with planted structure: which way an attribute lies is known."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stand_ins import noise_images, subject_of
from torch import Tensor

from vae_lightning.data.loading import SplitImages
from vae_lightning.editing.attributes import directions as editing
from vae_lightning.editing.attributes.directions import (
    compare_directions,
    direction_table,
    edit_attribute,
    fit_directions,
    normals_picture,
    subject_directions,
)
from vae_lightning.latents.directions import Direction, DirectionFile, Directions, without_span
from vae_lightning.models import Autoencoder
from vae_lightning.models.distributions import DiagonalGaussian
from vae_lightning.runs.subject import Subject

NAMES = ("Smiling", "Male", "Never", "Always")
LATENT = 12
SMILING = torch.nn.functional.normalize(torch.linspace(-1, 1, LATENT, dtype=torch.float64), dim=0)
# at 60 degrees to SMILING: a face that moves along one also moves along the other
MALE = SMILING / 2 + 0.75**0.5 * torch.nn.functional.normalize(
    torch.ones(LATENT, dtype=torch.float64) - SMILING.sum() * SMILING, dim=0
)


def labels_of(latents: Tensor) -> np.ndarray:
    """Two half-spaces, and two attributes of one class only."""
    smiling, male = latents @ SMILING > 0.3, latents @ MALE > 0
    return torch.stack([smiling, male, torch.zeros_like(male), torch.ones_like(male)], dim=1).numpy()


def isotropic(images: int = 20_000) -> Tensor:
    return torch.randn(images, LATENT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def correlated(images: int = 20_000) -> Tensor:
    """Neighbouring latents correlate with 0.8."""
    places = torch.arange(LATENT, dtype=torch.float64)
    covariance = 0.8 ** (places[:, None] - places).abs()
    return isotropic(images) @ torch.linalg.cholesky(covariance).T


@pytest.fixture(scope="module")
def directions() -> Directions:
    latents = isotropic()
    return fit_directions(latents, labels_of(latents), NAMES)


def moved(latents: Tensor, direction: Direction, strength: float, unit: str) -> Tensor:
    return latents + direction.shift(strength, unit).double()


def test_means_find_the_planted_direction_where_latents_do_not_correlate(directions: Directions) -> None:
    found = directions.direction("Smiling", "means")
    assert found.vector.norm() == pytest.approx(1)
    assert found.vector.double() @ SMILING > 0.99


def test_the_probe_finds_it_also_where_they_correlate_and_the_means_do_not() -> None:
    latents = correlated() * torch.logspace(-1, 1, LATENT)  # nor do they have one scale
    labels = labels_of(correlated())
    truth = torch.nn.functional.normalize(SMILING / torch.logspace(-1, 1, LATENT), dim=0)
    fitted = fit_directions(latents, labels, NAMES)
    assert fitted.direction("Smiling", "probe").vector.double() @ truth > 0.99
    assert fitted.direction("Smiling", "means").vector.double() @ truth < 0.9


def test_orthogonal_to_another_attribute_leaves_its_probe_as_it_was(directions: Directions) -> None:
    """The means of smiling and the true read-out of male: cos 60 degrees of leakage, then none."""
    leaking = directions.direction("Smiling", "means")
    assert leaking.vector.double() @ MALE == pytest.approx(0.5, abs=0.02)
    assert leaking.cosines["Male"] == pytest.approx(0.5, abs=0.02)
    for method in ("means", "probe"):
        held = directions.direction("Smiling", method, ["Male"])
        assert held.orthogonal_to == ("Male",)
        assert abs(held.vector.double() @ directions.normals[1]) < 1e-6
        assert abs(held.cosines["Male"]) < 1e-6
        assert abs(held.vector.double() @ MALE) < 0.01
        assert held.vector.double() @ SMILING == pytest.approx(0.75**0.5, abs=0.01)  # and still adds a smile


def test_strength_one_goes_from_the_mean_without_to_the_mean_with(directions: Directions) -> None:
    latents = isotropic()
    smiling = labels_of(latents)[:, 0]
    without, with_it = latents[~smiling].mean(0), latents[smiling].mean(0)
    plain = directions.direction("Smiling", "means")
    torch.testing.assert_close(moved(without, plain, 1.0, "class"), with_it, atol=1e-6, rtol=0)
    torch.testing.assert_close(moved(with_it, plain, -1.0, "class"), without, atol=1e-6, rtol=0)
    held = directions.direction("Smiling", "probe", ["Male"])
    vector = held.vector.double()
    assert moved(without, held, 1.0, "class") @ vector == pytest.approx(float(with_it @ vector), abs=1e-6)
    assert not held.shift(0.0).any()


def test_no_deviation_may_be_rounded_below_zero_and_a_damaged_covariance_is_refused(directions: Directions) -> None:
    variances = torch.ones(LATENT, dtype=torch.float64)
    variances[0] = -1e-12
    assert replace(directions, covariance=variances.diag())._deviation(torch.eye(LATENT).double()[0]) == 0
    for damaged in (-directions.covariance, directions.covariance * torch.nan):
        with pytest.raises(ValueError, match="covariance is not positive semi-definite"):
            replace(directions, covariance=damaged).direction("Smiling", "means")


def test_strength_one_is_one_standard_deviation_of_the_latents() -> None:
    latents = correlated(5_000)
    found = fit_directions(latents, labels_of(latents), NAMES).direction("Male", "probe")
    vector = found.vector.double()
    along = latents @ vector / (found.shift(1.0, "std").double() @ vector)
    assert along.std(correction=0) == pytest.approx(1, abs=1e-6)


def test_dependent_attributes_span_one_direction_and_a_direction_within_it_is_refused() -> None:
    vector = torch.tensor([3.0, 4.0, 5.0])
    spanning = torch.tensor([[0.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
    torch.testing.assert_close(without_span(vector, spanning), torch.tensor([3.0, 0.0, 5.0]))
    latents = isotropic(500)
    smiling = labels_of(latents)[:, 0]
    twins = fit_directions(latents, np.stack([smiling, ~smiling], axis=1), ("Smiling", "Serious"))
    with pytest.raises(ValueError, match=r"orthogonal_to=Serious: nothing is left of the direction of Smiling"):
        twins.direction("Smiling", "probe", ["Serious"])


def test_class_means_that_lie_the_wrong_way_have_no_unit() -> None:
    backwards = Direction("Bald", "probe", ("Male", "Young"), torch.tensor([1.0, 0.0]), -0.2, 1.5)
    torch.testing.assert_close(backwards.shift(-2.0, "std"), torch.tensor([-3.0, 0.0]))
    with pytest.raises(ValueError, match=r"unit=class: .*orthogonal to Male, Young.*Bald.*set unit=std"):
        backwards.shift(1.0, "class")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("Smilling",),
            r"'Smilling' is not an attribute of these data \(did you mean Smiling\?\); there are Smiling, Male",
        ),
        (("Never",), "Never: no training image has it"),
        (("Smiling", "means", ["Always"]), "Always: all 20,000 training images have it"),
        (("Smiling", "mean"), r"method=mean \(did you mean means\?\): allowed are means, probe"),
        (("Smiling", "means", ["Male", "Smiling"]), "orthogonal_to=Smiling: this is the attribute to change"),
    ],
)
def test_what_cannot_be_is_refused(directions: Directions, arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        directions.direction(*arguments)


def test_units_and_strengths_that_cannot_be_are_refused(directions: Directions) -> None:
    found = directions.direction("Smiling")
    with pytest.raises(ValueError, match=r"unit=classes \(did you mean class\?\)"):
        found.shift(1.0, "classes")
    with pytest.raises(ValueError, match="strength=nan"):
        found.shift(float("nan"))


def test_means_of_few_images_are_drawn_by_the_seed_and_noisier() -> None:
    latents = isotropic(2_000)
    labels = labels_of(latents)
    labels[:, 2] = np.arange(2_000) < 7
    few, again, other = (fit_directions(latents, labels, NAMES, 10, seed) for seed in (0, 0, 1))
    torch.testing.assert_close(few.means_with, again.means_with, rtol=0, atol=0)
    assert not torch.equal(few.means_with, other.means_with)
    assert few.direction("Smiling").vector.double() @ SMILING < 0.97
    torch.testing.assert_close(few.normals, other.normals)  # probes always see all images
    assert few.direction("Smiling").images_per_class == 10
    with pytest.raises(ValueError, match=r"images_per_class=10: 7 training images have Never, 1,993 do not; .* 7"):
        few.direction("Never")
    with pytest.raises(ValueError, match="images_per_class=0"):
        fit_directions(latents, labels, NAMES, 0)


def test_a_mean_of_few_images_is_that_of_members_of_the_class() -> None:
    latents = torch.eye(6, dtype=torch.float64)
    labels = np.array([[True], [True], [True], [False], [False], [False]])
    found = fit_directions(latents, labels, ("Smiling",), images_per_class=2)
    assert sorted(found.means_with[0, :3].tolist()) == [0.0, 0.5, 0.5]
    assert sorted(found.means_without[0, 3:].tolist()) == [0.0, 0.5, 0.5]
    assert not found.means_with[0, 3:].any()


def test_probes_of_samples_do_not_follow_the_means_of_latents_that_say_nothing() -> None:
    """Half of the latents have collapsed: their means hardly vary, their samples are the prior's."""
    means = torch.cat([isotropic(4_000), 1e-4 * isotropic(4_000).flip(0)], dim=1)
    sigmas = torch.cat([torch.full((LATENT,), 0.2), torch.ones(LATENT)])
    samples = means + sigmas * isotropic(8_000).view(4_000, 2 * LATENT).flip(0, 1)
    labels = labels_of(means[:, :LATENT])
    of_means = fit_directions(means, labels, NAMES).direction("Smiling", "probe")
    assert of_means.vector[LATENT:].norm() > 0.99  # noise over a tiny standard deviation
    of_samples = fit_directions(means, labels, NAMES, probe_latents=samples).direction("Smiling", "probe")
    assert of_samples.vector[:LATENT].double() @ SMILING > 0.98
    gap = means[labels[:, 0]].mean(0) - means[~labels[:, 0]].mean(0)  # the classes are still those of the means
    assert of_samples.class_gap == pytest.approx(float(gap @ of_samples.vector.double()))


def test_latents_that_no_direction_fits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    latents = isotropic(200)
    labels = labels_of(latents)
    with pytest.raises(ValueError, match="nan or inf"):
        fit_directions(latents * float("inf"), labels, NAMES)
    with pytest.raises(ValueError, match="no latent varies"):
        fit_directions(torch.ones(200, 3), labels, NAMES)
    with pytest.raises(ValueError, match="at least 2"):
        fit_directions(latents[:1], labels[:1], NAMES)
    monkeypatch.setattr(editing, "MOST_STEPS", 1)
    with pytest.raises(ValueError, match="the probe of Smiling has not converged"):  # a warning would be an error too
        fit_directions(latents, labels, NAMES)


def test_the_file_gives_back_the_same_directions(directions: Directions, tmp_path: Path) -> None:
    file = DirectionFile(tmp_path / "checkpoints" / "best.directions.pt", "digest")
    assert file.read() is None
    file.write(directions)
    kept = file.read()
    assert kept is not None
    assert kept.names == NAMES
    found, expected = (each.direction("Male", "probe", ["Smiling"]) for each in (kept, directions))
    torch.testing.assert_close(found.vector, expected.vector, rtol=0, atol=0)
    assert (found.class_gap, found.spread, found.cosines) == (expected.class_gap, expected.spread, expected.cosines)
    assert DirectionFile(file.path, "another checkpoint").read() is None


def test_a_damaged_file_is_named(directions: Directions, tmp_path: Path) -> None:
    file = DirectionFile(tmp_path / "best.directions.pt", "digest")
    file.write(directions)
    whole = file.path.read_bytes()
    for content in (b"no directions", whole[: len(whole) // 2], b""):
        file.path.write_bytes(content)
        with pytest.raises(ValueError, match=r"best\.directions\.pt holds no directions .*; delete it to fit them"):
            file.read()
    torch.save({"format": 1, "checkpoint": "digest", "directions": {"names": NAMES}}, file.path)
    with pytest.raises(ValueError, match="holds no directions"):
        file.read()


class TwoNumbers(Autoencoder):
    """The left half of an image is as bright as its smile, the right half as the second latent."""

    def __init__(self) -> None:
        super().__init__(image_size=8, color="gray", latent_dim=2)

    def encode(self, images: Tensor) -> DiagonalGaussian:
        mean = torch.logit(images[:, 0, 0, ::4], eps=1e-6)
        return DiagonalGaussian(mean, torch.zeros_like(mean))

    def posterior_parameters(self, images: Tensor) -> Tensor:
        raise AssertionError("encode is all that is needed")

    def pixel_parameters(self, latents: Tensor) -> Tensor:
        return latents.repeat_interleave(4, dim=1)[:, None, None].expand(-1, 1, 8, 8)


def two_number_subject(images: int = 400) -> Subject:
    random = np.random.default_rng(0)
    levels = random.integers(20, 236, (images, 2), dtype=np.uint8)
    pixels = np.ascontiguousarray(np.broadcast_to(np.repeat(levels, 4, axis=1)[:, None, :, None], (images, 8, 8, 1)))
    subject = subject_of(TwoNumbers(), pixels)
    known = SplitImages(pixels, levels[:, :1] > 128)
    subject.data = SimpleNamespace(split=lambda split: known, attribute_names=("Bright",))
    return subject


def halves(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Brightness of both halves of each image of 128 pixels, 3 apart, at the lower right of a grid."""
    grid = picture[-10 - (rows * 131 - 3) :: 131, :, 0][:rows, -10 - (columns * 131 - 3) :].astype(np.float64)
    return np.stack([grid[:, 32::131][:, :columns], grid[:, 96::131][:, :columns]], axis=2)


def test_an_edit_shows_the_original_its_reconstruction_and_the_strengths() -> None:
    subject = two_number_subject()
    direction = Direction("Bright", "probe", (), torch.tensor([1.0, 0.0]), 2.0, 0.5, {"Other": 0.25})
    faces = subject.pixels("test", np.arange(2))
    strengths = [-2.0, -1.0, 0.0, 1.0, 2.0]
    outcome = edit_attribute(subject, faces, ["first", "second"], direction, strengths, "std")
    found = halves(outcome.pictures["Bright"], 2, 6)
    originals = faces[:, 0, 0, [0, 7]].numpy().astype(np.float64)
    np.testing.assert_allclose(found[:, 0], originals)
    left = torch.logit(torch.from_numpy(originals[:, 0]) / 255)
    for column, strength in enumerate(strengths, start=1):
        np.testing.assert_allclose(found[:, column, 0], 255 * torch.sigmoid(left + strength * 0.5), atol=0.51)
        np.testing.assert_allclose(found[:, column, 1], originals[:, 1], atol=0.51)
    kept = outcome.protocol["direction"]
    assert (kept["class_gap"], kept["spread"], kept["vector"]) == (2.0, 0.5, [1.0, 0.0])
    assert kept["cosines_with_probe_normals"] == {"Other": 0.25}
    with pytest.raises(ValueError, match="strengths"):
        edit_attribute(subject, faces, ["first", "second"], direction, [])


def test_directions_are_compared_on_one_face() -> None:
    subject = two_number_subject()
    left, right = (Direction("Bright", "means", (), vector, 1.0, 1.0) for vector in torch.eye(2))
    face = subject.pixels("test", np.arange(1))
    outcome = compare_directions(subject, face, [left, right], [0.0, 1.0], "class")
    found = halves(outcome.pictures["Bright_directions"], 2, 3)
    np.testing.assert_allclose(found[0, :2], found[1, :2])
    assert (found[0, 2] > found[0, 1] + [10, -1]).all()
    assert (found[1, 2] > found[1, 1] + [-1, 10]).all()
    other = Direction("Male", "means", (), torch.ones(2), 1.0, 1.0)
    with pytest.raises(ValueError, match="directions of 2 attributes"):
        compare_directions(subject, face, [left, other], [1.0])


def test_a_subjects_directions_are_fitted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = two_number_subject()
    file = DirectionFile(tmp_path / "best.directions.pt", "digest")
    fitted = subject_directions(subject, file)
    assert fitted.direction("Bright", "probe").vector[0] > 0.95
    means, labels = subject.posterior("train").mean, subject.attributes("train")
    of_samples = fit_directions(means, labels, ("Bright",), probe_latents=subject.fitting_latents())
    torch.testing.assert_close(fitted.normals, of_samples.normals)
    torch.testing.assert_close(fitted.means_with[0], means[labels[:, 0]].double().mean(0))
    monkeypatch.setattr(editing, "fit_directions", lambda *_, **__: pytest.fail("they were kept"))
    torch.testing.assert_close(subject_directions(subject, file).normals, fitted.normals)
    few = subject_directions(subject, file, images_per_class=5)
    assert few.images_per_class == 5
    assert not torch.equal(few.means_with, fitted.means_with)
    kept = file.read()
    assert kept is not None
    assert kept.images_per_class is None  # the file keeps the means of all images


def test_data_without_attributes_have_no_directions() -> None:
    with pytest.raises(ValueError, match="no attributes"):
        subject_directions(subject_of(TwoNumbers(), noise_images(10)))


def test_the_table_says_how_far_the_classes_lie_apart(directions: Directions) -> None:
    rows = direction_table(directions)
    assert [row["attribute"] for row in rows][2:] == ["Never", "Always"]
    assert rows[2]["means_gap"] is None
    assert rows[3]["share"] == 1.0
    smiling = next(row for row in rows if row["attribute"] == "Smiling")
    latents = isotropic()
    labels = labels_of(latents)[:, 0]
    gap = latents[labels].mean(0) - latents[~labels].mean(0)
    assert smiling["with"] == labels.sum()
    assert smiling["means_gap"] == pytest.approx(float(gap.norm()))
    assert smiling["cosine"] == pytest.approx(1, abs=0.01)
    # in an isotropic space one length is one standard deviation
    assert smiling["means_gap_std"] == pytest.approx(smiling["means_gap"], rel=0.1)


def test_normals_are_drawn_with_fixed_colours(directions: Directions) -> None:
    picture = normals_picture(directions)
    reddest = (np.abs(picture.astype(int) - [103, 0, 31]).max(2) < 3).sum()  # RdBu_r at 1: the diagonal
    assert reddest > 500
    alone = normals_picture(fit_directions(isotropic(200), labels_of(isotropic(200))[:, :1], ("Smiling",)))
    assert alone.shape[2] == 3
