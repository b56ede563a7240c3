"""A model whose pixels are its latents: what amplification does can be seen, what goes with what is planted."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stand_ins import noise_images, subject_of
from torch import Tensor

from vae_lightning.data.loading import SplitImages
from vae_lightning.editing.attributes import amplification
from vae_lightning.editing.attributes.amplification import (
    amplify,
    best_dimensions,
    correlation_picture,
    correlations,
    rank_dimensions,
    subject_correlations,
)
from vae_lightning.models import Autoencoder
from vae_lightning.models.distributions import Deterministic, DiagonalGaussian
from vae_lightning.pictures.heat_map import draw_signed
from vae_lightning.runs.subject import Subject

NAMES = ("Second", "Third_not", "Coin", "Never")
SCALES = torch.tensor([0.5, 2.0, 1.0, 0.25])  # of the latents, whose standard deviations follow
SIGMAS = torch.tensor([1.0, 1.0, 0.1, 1.0])
ONE_PIXEL = np.zeros((1, 1, 3), np.uint8)


class Quarters(Autoencoder):
    """Four latents; each is the logit of the brightness of two columns of pixels, times its scale."""

    def __init__(self, posterior: str = "gaussian") -> None:
        super().__init__(image_size=8, color="gray", latent_dim=4, posterior=posterior)

    def encode(self, images: Tensor) -> DiagonalGaussian | Deterministic:
        mean = SCALES * torch.logit(images[:, 0, 0, ::2], eps=1e-6)
        if self.posterior == "deterministic":
            return Deterministic(mean)
        return DiagonalGaussian(mean, 2 * SIGMAS.log().expand_as(mean))

    def posterior_parameters(self, images: Tensor) -> Tensor:
        raise AssertionError("encode is all that is needed")

    def pixel_parameters(self, latents: Tensor) -> Tensor:
        return (latents / SCALES).repeat_interleave(2, dim=1)[:, None, None].expand(-1, 1, 8, 8)


def make_subject(posterior: str = "gaussian", images: int = 600) -> Subject:
    random = np.random.default_rng(0)
    levels = random.integers(5, 251, (images, 4), dtype=np.uint8)
    pixels = np.ascontiguousarray(np.broadcast_to(np.repeat(levels, 2, axis=1)[:, None, :, None], (images, 8, 8, 1)))
    labels = np.stack(
        [levels[:, 1] > 128, levels[:, 2] < 60, random.random(images) > 0.5, np.zeros(images, bool)], axis=1
    )
    subject = subject_of(Quarters(posterior), pixels)
    known = SplitImages(pixels, labels)
    subject.data = SimpleNamespace(split=lambda split: known, attribute_names=NAMES)
    return subject


@pytest.fixture(scope="module")
def subject() -> Subject:
    return make_subject()


def test_correlations_are_pearsons_with_their_sign() -> None:
    random = np.random.default_rng(1)
    latents = 50 + random.normal(size=(300, 5)).astype(np.float32)
    latents[:, 3] = 0.1  # its mean in float64 is not exactly 0.1
    attributes = latents[:, :4] + random.normal(size=(300, 4)) < 50
    attributes[:, 2] = True
    found = correlations(latents, attributes)
    for row in (0, 1):
        for column in (0, 1, 2, 4):
            expected = np.corrcoef(attributes[:, row], latents[:, column].astype(np.float64))[0, 1]
            assert found[row, column] == pytest.approx(expected, abs=1e-9)
    assert found[0, 0] < -0.4
    assert not found[2].any()
    assert not found[:, 3].any()


def test_the_best_latent_of_each_attribute_is_found(subject: Subject) -> None:
    rows = best_dimensions(subject_correlations(subject), NAMES)
    assert [row["attribute"] for row in rows] == ["Second", "Third_not", "Coin", "Never"]  # the strongest first
    assert [row["dimension"] for row in rows[:2]] == [1, 2]
    assert rows[0]["correlation"] > 0.7
    assert rows[1]["correlation"] < -0.5
    assert abs(rows[2]["correlation"]) < 0.15
    assert rows[3]["correlation"] == 0


def test_latents_are_ranked_by_the_variance_of_their_means(subject: Subject) -> None:
    rows = rank_dimensions(subject, "variance")
    assert [(row["rank"], row["dimension"]) for row in rows] == [(1, 1), (2, 2), (3, 0), (4, 3)]
    levels = subject.pixels("train", np.arange(600))[:, 0, 0, 2].double() / 255
    assert rows[0]["variance"] == pytest.approx(float((2 * torch.logit(levels)).var()), rel=1e-5)
    assert (rows[0]["best_attribute"], rows[1]["best_attribute"]) == ("Second", "Third_not")
    assert rows[1]["best_correlation"] < -0.5


def test_latents_are_ranked_by_their_kl(subject: Subject) -> None:
    rows = rank_dimensions(subject, "kl")
    means = subject.posterior("train", 1_000).mean
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(means, SIGMAS.expand_as(means)), torch.distributions.Normal(0.0, 1.0)
    ).mean(0)
    for row in rows:
        assert row["kl_nats"] == pytest.approx(float(expected[row["dimension"]]), rel=1e-5)
    assert [row["dimension"] for row in rows] == expected.argsort(descending=True).tolist()


def test_latents_are_ranked_by_their_correlation_with_an_attribute(subject: Subject) -> None:
    rows = rank_dimensions(subject, "correlation", attribute="Third_not")
    assert rows[0]["dimension"] == 2
    assert rows[0]["correlation_Third_not"] < -0.5  # by its size, with its sign
    sizes = [abs(row["correlation_Third_not"]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)


def test_fewer_images_give_another_ranking(subject: Subject) -> None:
    few, all_of_them = (rank_dimensions(subject, "variance", count)[0]["variance"] for count in (20, 600))
    rows = subject.rows("train", 20)
    means = subject.posterior("train", 600).mean
    assert few == pytest.approx(float(means[rows, 1].double().var()), rel=1e-6)
    assert few != all_of_them


def test_pictures_say_the_correlation_that_was_asked_for(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(
        "vae_lightning.editing.attributes.amplification.labelled_grid",
        lambda images, rows, columns, title: titles.append(title) or np.zeros((1, 1, 3), np.uint8),
    )
    (row,) = rank_dimensions(subject, "correlation", attribute="Coin")[:1]
    faces = subject.pixels("test", np.arange(1))
    amplify(subject, faces, ["face"], [int(row["dimension"])], num_steps=2, attribute="Coin")
    assert f"Coin r = {row['correlation_Coin']:+.2f}" in titles[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "varience"}, r"by=varience \(did you mean variance\?\): allowed are variance, kl, correlation"),
        ({"by": "variance", "attribute": "Coin"}, "attribute=Coin: by=variance"),
        ({"by": "correlation"}, "attribute=None: allowed are Second, Third_not, Coin, Never"),
        ({"by": "correlation", "attribute": "Secnd"}, r"attribute=Secnd \(did you mean Second\?\)"),
        ({"by": "variance", "count_images": 1}, "count_images=1: at least 2"),
    ],
)
def test_rankings_that_cannot_be_are_refused(subject: Subject, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_dimensions(subject, **arguments)


def test_a_plain_autoencoder_has_no_kl() -> None:
    subject = make_subject("deterministic", images=30)
    with pytest.raises(ValueError, match="by=kl: posterior=deterministic has no KL"):
        rank_dimensions(subject, "kl")
    assert all(row["kl_nats"] is None for row in rank_dimensions(subject, "variance"))


def test_data_without_attributes_are_ranked_without_them() -> None:
    subject = subject_of(Quarters(), noise_images(10))
    subject.data = SimpleNamespace(split=subject.data.split, attribute_names=())
    assert {row["best_attribute"] for row in rank_dimensions(subject, "variance")} == {None}
    with pytest.raises(ValueError, match="no attributes"):
        rank_dimensions(subject, "correlation", attribute="Coin")
    with pytest.raises(ValueError, match="no attributes"):
        subject_correlations(subject)
    amplify(subject, subject.pixels("test", np.arange(1)), ["face"], [0], num_steps=2)  # the title does without


def quarters(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Brightness of the four quarters of each image of 128 pixels, 3 apart, at the lower right."""
    grid = picture[-(rows * 131 - 3) - 10 : -10, -(columns * 131 - 3) - 10 : -10, 0]
    return np.stack([[grid[row * 131, column * 131 + np.arange(16, 128, 32)] for column in range(columns)]
                     for row in range(rows)]).astype(np.float64)  # fmt: skip


def test_amplification_adds_alpha_to_one_latent_alone(subject: Subject) -> None:
    faces = subject.pixels("test", np.arange(3))
    outcome = amplify(subject, faces, ["one", "two", "three"], [1, 3], limit=2.0, num_steps=5)
    assert list(outcome.pictures) == ["dim_001", "dim_003"]
    assert outcome.protocol["alphas"] == [-2.0, -1.0, 0.0, 1.0, 2.0]
    originals = faces[:, 0, 0, ::2].double()
    for dimension in (1, 3):
        found = quarters(outcome.pictures[f"dim_{dimension:03d}"], 3, 6)
        np.testing.assert_allclose(found[:, 0], originals)
        latents = torch.logit(originals / 255)
        for column, alpha in enumerate(outcome.protocol["alphas"], start=1):
            expected = latents.clone()
            expected[:, dimension] += alpha / float(SCALES[dimension])
            np.testing.assert_allclose(found[:, column], 255 * torch.sigmoid(expected), atol=0.51)
    changes = outcome.protocol["mean_absolute_pixel_change_from_end_to_end"]
    ends = quarters(outcome.pictures["dim_003"], 3, 6)[:, [1, 5]]
    assert changes["3"] == pytest.approx((ends[:, 1] - ends[:, 0]).mean() / 255, abs=1e-6)
    assert [row["dimension"] for row in outcome.protocol["dimensions"]] == [1, 3]


def test_a_wide_range_and_many_latents(tmp_path: Path, subject: Subject) -> None:
    faces = subject.pixels("test", np.arange(2))
    outcome = amplify(subject, faces, ["one", "two"], [0, 1, 2, 3, 0], limit=5.0)
    assert len(outcome.pictures) == 4
    assert (outcome.protocol["alphas"][0], outcome.protocol["alphas"][-1]) == (-5.0, 5.0)
    assert len(outcome.protocol["alphas"]) == 10
    assert (tmp_path / "dim_002.png") in outcome.write(tmp_path, {"limit": 5.0})


@pytest.mark.parametrize(
    ("dimensions", "others", "message"),
    [
        ([0, 4], {}, "dimension 4: this model has the latents 0 to 3"),
        ([-1], {}, "dimension -1: this model has the latents 0 to 3"),
        ([], {}, "at least one"),
        ([0], {"limit": 0.0}, "limit=0.0"),
        ([0], {"limit": float("inf")}, "limit=inf"),
        ([0], {"num_steps": 1}, "num_steps=1: at least 2"),
    ],
)
def test_amplifications_that_cannot_be_are_refused(
    subject: Subject, dimensions: list[int], others: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        amplify(subject, subject.pixels("test", np.arange(1)), ["face"], dimensions, **others)


def color_counts(picture: np.ndarray) -> tuple[int, int]:
    """Pixels that are clearly red, clearly blue."""
    red, _, blue = np.moveaxis(picture.astype(int), 2, 0)
    return int((red - blue > 60).sum()), int((blue - red > 60).sum())


def test_signs_have_colours_of_a_fixed_range() -> None:
    """The colour bar is in every picture; what the values add to it is counted."""
    nothing, more, less = (
        color_counts(draw_signed(np.full((2, 4), value), list("ab"), list("efgh"), "title", "across"))
        for value in (0.0, 0.6, -0.6)
    )
    assert more[0] > nothing[0] + 1_000
    assert abs(more[1] - nothing[1]) < 200
    assert less[1] > nothing[1] + 1_000
    assert abs(less[0] - nothing[0]) < 200
    assert nothing[0] > 0  # no range of the values' own


def test_the_correlation_picture_shows_the_forty_strongest_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {}
    monkeypatch.setattr(amplification, "draw_signed", lambda *given: drawn.update(enumerate(given)) or ONE_PIXEL)
    found = np.full((3, 60), 0.01) * np.arange(60)  # the last twenty are the strongest of the first attribute
    found[1] = 0
    found[2, :20] = -0.7
    correlation_picture(found, ("a", "b", "c"), 500)
    assert drawn[2] == [*map(str, range(59, 39, -1)), *map(str, range(20))]  # side by side by attribute, with signs
    np.testing.assert_array_equal(drawn[0][2, 20:], np.full(20, -0.7))
    assert "500 training images" in drawn[3]
    assert "40 of 60" in drawn[3]


def test_the_correlation_picture_is_drawn(subject: Subject) -> None:
    reds, blues = color_counts(correlation_picture(subject_correlations(subject), NAMES, 600))
    assert min(reds, blues) > 1_000
