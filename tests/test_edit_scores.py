from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import laplace
from sklearn.metrics import roc_auc_score
from torch.distributions import MultivariateNormal, Normal

from vae_lightning.data import FaceDataModule
from vae_lightning.data.loading import SplitImages
from vae_lightning.data.sources.source import FolderStore, ImageSource
from vae_lightning.editing.judging.judge import Judge
from vae_lightning.editing.judging.scores import EditScore, look, score_edit, sharpness
from vae_lightning.editing.judging.trade_off import choose_images, compare_methods, value_at
from vae_lightning.losses import SquaredError
from vae_lightning.models import Autoencoder
from vae_lightning.recognition import Recognizer
from vae_lightning.runs.subject import Subject

SIDE, LATENTS, COUNT = 8, 5, 120
PEOPLE = 30  # in each split
OFFSET = 0.01  # that the encoder is off by, in every latent
BASIS = np.linalg.qr(np.random.default_rng(3).normal(size=(SIDE**2, LATENTS)))[0]  # pixels = 0.5 + BASIS z
NAMES = ("Target", "Neighbour", "Steady", "Other")


class LinearFaces(Autoencoder):
    """Pixels that are linear in the latents, read back up to an offset; latents beyond 2 are not found again."""

    def __init__(self) -> None:
        super().__init__(image_size=SIDE, color="gray", latent_dim=LATENTS, posterior="gaussian")
        self.register_buffer("basis", torch.from_numpy(BASIS).float())

    def posterior_parameters(self, images: torch.Tensor) -> torch.Tensor:
        mean = ((images.flatten(1) - 0.5) @ self.basis).clamp(-2, 2) + OFFSET
        return torch.cat([mean, torch.full_like(mean, -10)], 1)

    def pixel_parameters(self, latents: torch.Tensor) -> torch.Tensor:
        return (0.5 + latents @ self.basis.T).unflatten(1, (1, SIDE, SIDE))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.pixel_parameters(latents)


class LinearJudge(Recognizer):
    """Reads the first, the second and the third latent, and a constant; its features are the latents."""

    def __init__(self, target: str = "attributes") -> None:
        super().__init__(32, "gray", target)
        self.names = NAMES
        self.register_buffer("basis", torch.from_numpy(BASIS).float())

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return (images.flatten(1) - 0.5) @ self.basis

    def read_features(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.stack([latents[:, 0], latents[:, 1], 0 * latents[:, 0] + 3, latents[:, 2]], 1)


def toy_subject(*, known_people: bool = True, attributes: bool = True, people: int = PEOPLE) -> Subject:
    """A person has the fourth and fifth latent; the others differ from picture to picture."""
    random = np.random.default_rng(0)
    identities = np.concatenate([np.arange(COUNT) % people + 1_000 * split for split in range(3)])
    data = FaceDataModule(source="noise")
    labels, partition = [], np.repeat(np.arange(3), COUNT).astype(np.int8)
    for number, split in enumerate(("train", "val", "test")):
        own = random.normal(size=(people, 2))[identities[partition == number] % 1_000]
        latents = np.concatenate([random.normal(size=(COUNT, 3)), own + 0.1 * random.normal(size=own.shape)], 1)
        pixels = (255 * (0.5 + 0.2 * latents @ BASIS.T)).round().clip(0, 255).astype(np.uint8)
        known = np.stack([latents[:, 0] > 0, latents[:, 1] > 0, latents[:, 2] > 9, latents[:, 2] > 0], 1)
        labels.append(known)
        images = pixels.reshape(COUNT, SIDE, SIDE, 1)
        data._splits[split] = SplitImages(images, known if attributes else None)  # type: ignore[index]
    data._image_source = ImageSource(
        kind="celeba",
        root=Path("nowhere"),
        filenames=tuple(str(row) for row in range(3 * COUNT)),
        partition=partition,
        images=FolderStore(Path("nowhere")),
        attribute_names=NAMES if attributes else (),
        attributes=np.concatenate(labels) if attributes else None,
        identities=identities if known_people else None,
    )
    return Subject(LinearFaces().eval(), data, SquaredError(), batch_size=50)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return toy_subject()


@pytest.fixture(scope="module")
def judge(subject: Subject) -> Judge:
    return Judge(LinearJudge(), subject)


def axis(number: int) -> torch.Tensor:
    return torch.eye(LATENTS)[number]


def score(judge: Judge, subject: Subject, shift: torch.Tensor, wanted: bool = True, **others: object) -> EditScore:
    start = subject.posterior().mean
    settings = {"people": subject.people("test"), "method": "shift", "strength": 1.0} | others
    return score_edit(judge, subject, "Target", wanted, start, start + shift, **settings)  # type: ignore[arg-type]


def spread(subject: Subject, latent: int) -> float:
    return float(subject.posterior().mean[:, latent].double().std(correction=0))


def test_an_edit_that_does_nothing_scores_nothing(judge: Judge, subject: Subject) -> None:
    found = score(judge, subject, torch.zeros(LATENTS))
    assert (found.target_change, found.leakage, found.systematic_leakage, found.success) == (0, 0, 0, 0)
    assert (found.identity_distance, found.normal_prior_nats, found.gaussian_prior_nats) == (0, 0, 0)
    assert (found.sharpness, found.reencoding) == (1, 1)
    assert found.images == COUNT


def test_changes_are_those_that_were_planted(judge: Judge, subject: Subject) -> None:
    found = score(judge, subject, 0.3 * axis(0) - 0.2 * axis(1))
    neighbour = 0.2 / spread(subject, 1)
    assert found.target_change == pytest.approx(0.3 / spread(subject, 0), rel=1e-4)
    assert found.mean_changes == pytest.approx({"Neighbour": -neighbour, "Other": 0}, abs=1e-5)  # "Steady" is constant
    assert found.leakage == pytest.approx(neighbour / 2, rel=1e-4)
    assert found.systematic_leakage == pytest.approx(neighbour / 2, rel=1e-4)
    assert (found.worst_leak, found.worst_leak_change) == ("Neighbour", pytest.approx(-neighbour, rel=1e-4))


def test_leaks_that_cancel_over_the_images_are_no_systematic_ones(judge: Judge, subject: Subject) -> None:
    signs = torch.tensor([1.0, -1.0]).repeat(COUNT // 2)
    found = score(judge, subject, 0.3 * signs[:, None] * axis(2))
    assert found.leakage == pytest.approx(0.3 / spread(subject, 2) / 2, rel=1e-4)
    assert found.systematic_leakage == pytest.approx(0, abs=1e-5)
    assert found.target_change == pytest.approx(0, abs=1e-5)


def test_removing_counts_downwards(judge: Judge, subject: Subject) -> None:
    found = score(judge, subject, -0.3 * axis(0), wanted=False)
    start = subject.posterior().mean[:, 0]
    had = start >= 0
    assert found.target_change == pytest.approx(0.3 / spread(subject, 0), rel=1e-4)
    assert found.success == pytest.approx(float((start[had] < 0.3).float().mean()))


def test_prior_nats_are_those_of_torch(judge: Judge, subject: Subject) -> None:
    start, shift = subject.posterior().mean.double(), 0.7 * axis(0) + 0.2 * axis(3)
    found = score(judge, subject, shift)
    fitted = subject.prior("gaussian")
    normal = Normal(0.0, 1.0)
    gaussian = MultivariateNormal(fitted.mean, scale_tril=fitted.cholesky)
    expected = (normal.log_prob(start) - normal.log_prob(start + shift)).sum(1).mean()
    assert found.normal_prior_nats == pytest.approx(float(expected), rel=1e-4)
    expected = (gaussian.log_prob(start) - gaussian.log_prob(start + shift)).mean()
    assert found.gaussian_prior_nats == pytest.approx(float(expected), rel=1e-4)


def test_reencoding_tells_latents_that_the_encoder_does_not_know(judge: Judge, subject: Subject) -> None:
    start = subject.posterior().mean
    moved = start + 5 * axis(4)
    found = score(judge, subject, 5 * axis(4))
    distance = (moved.clamp(-2, 2) + OFFSET - moved).norm(dim=1) / (OFFSET * LATENTS**0.5)
    assert found.reencoding == pytest.approx(float(distance.quantile(0.5)), rel=1e-3)
    assert found.reencoding > 50


def test_sharpness_is_the_variance_of_scipys_laplacian() -> None:
    images = torch.rand(3, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    gray = images.double().mean(1).numpy()
    expected = [laplace(image)[1:-1, 1:-1].var() for image in gray]
    assert sharpness(images).tolist() == pytest.approx(expected, rel=1e-5)


def test_intervals_are_over_people(judge: Judge, subject: Subject) -> None:
    shift = 0.3 * torch.rand(COUNT, LATENTS, generator=torch.Generator().manual_seed(0))
    alone = score(judge, subject, shift, people=np.arange(COUNT))
    row = alone.row()
    assert row["leakage low"] < row["leakage"] < row["leakage high"]  # type: ignore[operator]
    error = np.std(alone.resampled["leakage"])
    changes = np.abs(shift.numpy()[:, 1:3] / [spread(subject, 1), spread(subject, 2)]).mean(1)
    assert error == pytest.approx(changes.std() / COUNT**0.5, rel=0.15)
    one = score(judge, subject, shift, people=np.zeros(COUNT, np.int64))
    assert one.leakage == pytest.approx(alone.leakage)
    assert np.ptp(one.resampled["leakage"]) == pytest.approx(0, abs=1e-12)


def test_latents_that_are_no_numbers_are_refused(judge: Judge, subject: Subject) -> None:
    with pytest.raises(ValueError, match="shift at strength 1: not finite numbers"):
        score(judge, subject, torch.full((LATENTS,), torch.nan))


def test_different_people_are_1_apart_on_average(judge: Judge, subject: Subject) -> None:
    readings = look(judge, subject, subject.posterior().mean).readings.embeddings
    people = subject.people("test")
    first, second = np.triu_indices(COUNT, 1)
    distances = judge.identity_distance(readings[first], readings[second])
    same = people[first] == people[second]
    assert distances[~same].mean() == pytest.approx(1)
    assert judge.same_person_distance == pytest.approx(distances[same].mean())
    assert judge.same_person_auc == pytest.approx(roc_auc_score(same, -distances))
    assert judge.same_person_auc > 0.9
    assert judge.same_person_distance < 0.2


def test_the_judge_learns_what_differs_between_people(judge: Judge, subject: Subject) -> None:
    """The fourth and fifth latent are the person's: an edit of them changes who it is, one of the others does not."""
    assert "linear discriminants of 30 people on 120 training reconstructions" in judge.identity.basis
    person, picture = (score(judge, subject, 0.4 * axis(latent)).identity_distance for latent in (3, 0))
    assert person > 5 * picture


def test_unknown_people_leave_plain_features() -> None:
    subject = toy_subject(known_people=False)
    judge = Judge(LinearJudge(), subject)
    assert "do not say who" in judge.identity.basis
    assert judge.same_person_distance is None
    assert judge.same_person_auc is None
    assert judge.summary()["constant_outputs_left_out"] == ["Steady"]


def test_few_people_leave_plain_features() -> None:
    assert "only 10 people" in Judge(LinearJudge(), toy_subject(people=10)).identity.basis


def test_reliability_is_measured_against_the_truth(judge: Judge, subject: Subject) -> None:
    rows = {str(row["output"]): row for row in judge.reliability}
    assert rows["Target"]["originals"] == pytest.approx(1, abs=0.01)
    assert rows["Target"]["reconstructions"] == pytest.approx(1, abs=0.01)
    assert rows["Steady"]["originals"] is None  # no image has it
    assert rows["Target"]["standard_deviation"] == pytest.approx(spread(subject, 0), rel=1e-4)


def test_values_at_a_change_lie_on_the_line_between_two_strengths() -> None:
    changes = np.array([[0.0, 0.0, 0.0], [0.5, 0.2, 2.0], [1.5, 0.4, 0.5], [1.0, 0.6, 3.0]])
    values = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 8.0], [3.0, 2.0, 9.0], [9.0, 3.0, 9.0]])
    assert value_at(changes, values, 1.0).tolist() == pytest.approx([2.0, np.nan, 4.0], nan_ok=True)


def test_methods_are_compared_at_the_same_change(judge: Judge, subject: Subject) -> None:
    """Both move the target alike; one takes the neighbour along by half."""
    methods = {
        "leaking": lambda latents, strength: latents + strength * (axis(0) + 0.5 * axis(1)),
        "weak": lambda latents, strength: latents + 0.01 * strength * axis(0),
        "orthogonal": lambda latents, strength: latents + strength * axis(0),
    }
    outcome = compare_methods(judge, subject, "Target", True, methods, [0.5, 0.1, 0.2], max_images=40)
    rows = outcome.tables["at_equal_change"]
    assert [row["method"] for row in rows] == ["orthogonal", "leaking", "weak"]
    orthogonal, leaking, weak = rows
    unit = spread(subject, 0)
    planted = 0.5 * unit / spread(subject, 1) / 2
    assert leaking["strength"] == pytest.approx(unit, rel=1e-4)
    assert leaking["leakage"] == pytest.approx(planted, rel=1e-4)
    assert leaking["leakage low"] == pytest.approx(planted, rel=1e-4)  # all images move alike
    assert orthogonal["leakage"] == pytest.approx(0, abs=1e-5)
    assert weak["reached"] == "not reached"
    assert weak["leakage"] is None
    assert weak["largest_change"] == pytest.approx(0.005 / unit, rel=1e-3)
    assert [row["strength"] for row in outcome.tables["scores"]] == [0.1, 0.2, 0.5] * 3
    assert outcome.protocol["images"] == 40
    assert set(outcome.pictures) == {"trade_off", "leaks", "faces"}
    assert all(picture.std() > 5 for picture in outcome.pictures.values())
    judged, why = outcome.remarks
    assert judged == "The judge predicts Target with AUC 1.00 on originals, 1.00 on reconstructions."
    assert "with weak (+" in why  # why its cells are empty


def test_images_are_chosen_by_their_true_labels(subject: Subject) -> None:
    labels = subject.attributes("test")[:, 0]  # type: ignore[index]
    assert not labels[choose_images(subject, "attributes", "Target", True, 30)].any()
    assert labels[choose_images(subject, "attributes", "Target", False, 30)].all()
    with pytest.raises(ValueError, match="Steady: 0 images of the test split with it"):
        choose_images(subject, "attributes", "Steady", False, 30)
    with pytest.raises(ValueError, match="max_images=19"):
        choose_images(subject, "attributes", "Target", True, 19)
    with pytest.raises(ValueError, match="did you mean Target"):
        choose_images(subject, "attributes", "Tagret", True, 30)


def test_images_are_chosen_by_the_half_of_a_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = toy_subject(attributes=False)
    values = np.stack([np.arange(COUNT), np.arange(COUNT) % 4 == 0], 1).astype(np.float64)
    monkeypatch.setattr(subject, "factors", lambda split, at_most=None: (("smile", "glasses"), values))
    assert choose_images(subject, "factors", "smile", True, 200).tolist() == list(range(COUNT // 2))
    assert choose_images(subject, "factors", "smile", False, 200).tolist() == list(range(COUNT // 2, COUNT))
    assert len(choose_images(subject, "factors", "glasses", True, 200)) == 90
    assert choose_images(subject, "factors", "glasses", False, 200).tolist() == list(range(0, COUNT, 4))
    with pytest.raises(ValueError, match="no attributes"):
        choose_images(subject, "attributes", "Target", True, 30)


def test_factors_have_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = toy_subject()
    truth = subject.posterior().mean.double().numpy()[:, :2] ** 3
    monkeypatch.setattr(subject, "factors", lambda split, at_most=None: (("Target", "Neighbour"), truth))
    judge = Judge(LinearJudge("factors"), subject)
    assert score(judge, subject, 0.3 * axis(0)).success is None
    found = {str(row["output"]): row["reconstructions"] for row in judge.reliability}
    readings = subject.posterior().mean.double().numpy()[:, 0]
    assert found["Target"] == pytest.approx(np.corrcoef(readings, readings**3)[0, 1] ** 2, rel=1e-3)
    assert found["Other"] is None


@pytest.mark.parametrize("strengths", [[], [0.0], [1.0, -1.0], [1.0, 1.0], [float("inf")]])
def test_strengths_that_cannot_be_are_refused(judge: Judge, subject: Subject, strengths: list[float]) -> None:
    with pytest.raises(ValueError, match="of one sign"):
        compare_methods(judge, subject, "Target", True, {"none": lambda latents, strength: latents}, strengths)


def test_changes_are_in_units_that_do_not_depend_on_the_model(judge: Judge) -> None:
    """A model that draws everything half as strong has to go as far as the others."""

    class FaintFaces(LinearFaces):
        def pixel_parameters(self, latents: torch.Tensor) -> torch.Tensor:
            return super().pixel_parameters(latents / 2)

    subject = toy_subject()
    subject.model = FaintFaces().eval()
    np.testing.assert_allclose(Judge(LinearJudge(), subject).unit, judge.unit, rtol=1e-6, atol=1e-9)
    readings = LinearJudge().embed(subject.pixels("test", subject.rows("test")).float() / 255)
    assert judge.unit[0] == pytest.approx(readings[:, 0].std(correction=0).item(), rel=1e-4)


def test_targets_that_the_judge_cannot_measure_are_refused(judge: Judge) -> None:
    with pytest.raises(ValueError, match="did you mean Target"):
        judge.column("Tarket")
    with pytest.raises(ValueError, match="the same Steady for all images"):
        judge.column("Steady")
