from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_ins import subject_of
from torch import Tensor

from vae_lightning.editing.identity.bases import encode_rows, find_person, fit_basis, people_with
from vae_lightning.editing.identity.scores import at_equal_identity, draw_transfer_scores, transfer_scores
from vae_lightning.editing.identity.transfer import choose_subjects, components_to_take, transfer
from vae_lightning.models import Autoencoder
from vae_lightning.recognition import Recognizer
from vae_lightning.runs.subject import Subject

LATENTS = 16


class LogitsAreLatents(Autoencoder):
    """4x4 gray pixels whose logits are the latents."""

    def __init__(self) -> None:
        super().__init__(image_size=4, color="gray", latent_dim=LATENTS, posterior="deterministic")

    def posterior_parameters(self, images: Tensor) -> Tensor:
        return torch.logit(images, eps=1e-3).flatten(1)

    def pixel_parameters(self, latents: Tensor) -> Tensor:
        return latents.reshape(-1, 1, 4, 4)


class FactorReader(Recognizer):
    """Two factors of each kind, each of which is one latent."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(32, "gray", "factors")
        self.names = ("age", "smile", "hat", "bald", "head_yaw", "beard")
        self.scale = scale

    def embed(self, images: Tensor) -> Tensor:
        return torch.logit(images.flatten(1))

    def read_features(self, features: Tensor) -> Tensor:
        return self.scale * features[:, [0, 2, 4, 1, 3, 5]]


# names of the same kinds among CelebA's attributes
AS_ATTRIBUTES = {"age": "Young", "smile": "Smiling", "hat": "Wearing_Hat", "head_yaw": "Narrow_Eyes", "bald": "Bald"}


MakeFaces = Callable[..., Subject]


@pytest.fixture
def make_faces(monkeypatch: pytest.MonkeyPatch) -> MakeFaces:
    """60 people with 6 pictures and two with 3 in all splits: latents 0 and 1 are theirs, the others the picture's."""

    def make(identities: np.ndarray | None = None) -> Subject:
        random = np.random.default_rng(0)
        known = np.concatenate([np.arange(100, 160).repeat(6), [200] * 3, [300] * 3])
        latents = random.normal(size=(len(known), LATENTS))
        latents[:, :2] = random.normal(size=(301, 2))[known]
        pixels = (255 / (1 + np.exp(-latents))).round().astype(np.uint8).reshape(-1, 4, 4, 1)
        subject = subject_of(LogitsAreLatents(), pixels)
        people = known if identities is None else identities
        monkeypatch.setattr(subject.data, "identities", lambda split: people)
        names = [f"{row:06d}.jpg" for row in range(len(known))]
        monkeypatch.setattr(subject.data, "image_names", lambda split, index: [names[row] for row in index.tolist()])
        return subject

    return make


def test_people_come_with_most_pictures_first(make_faces: MakeFaces) -> None:
    subject = make_faces()
    people = people_with(subject, "test", 3)
    assert [len(person.rows) for person in people] == [6] * 60 + [3, 3]
    assert [person.identity for person in people[-2:]] == [200, 300]
    assert people[-1].rows.tolist() == [363, 364, 365]
    assert find_person(subject, "test", 200, 3).rows.tolist() == [360, 361, 362]
    chosen = choose_subjects(subject, people[:60], 4)
    assert len(chosen) == 4
    assert set(chosen.tolist()) <= set(range(360, 366))


def test_errors_about_people_name_them_and_the_way_out(make_faces: MakeFaces, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = make_faces()
    with pytest.raises(ValueError, match=r"min_pictures=10.*person 100 has most, 6.*--min-pictures 6"):
        people_with(subject, "test")
    with pytest.raises(ValueError, match=r"person 200: 3 test pictures, and min_pictures=4; --min-pictures 3"):
        find_person(subject, "test", 200, 4)
    with pytest.raises(ValueError, match=r"person 7: not in the test split; nor in another"):
        find_person(subject, "test", 7)
    of_split = {"train": np.array([7]), "val": np.array([8]), "test": np.array([9])}
    monkeypatch.setattr(subject.data, "identities", of_split.get)
    with pytest.raises(ValueError, match=r"person 7: not in the test split; they are in train"):
        find_person(subject, "test", 7)
    with pytest.raises(ValueError, match=r"person 9: one test picture"):
        find_person(subject, "test", 9)
    monkeypatch.setattr(subject.data, "identities", lambda split: None)
    with pytest.raises(ValueError, match=r"identity_CelebA\.txt"):
        people_with(subject, "test")
    with pytest.raises(ValueError, match=r"identity_CelebA\.txt"):
        fit_basis(subject, "identity")


@pytest.mark.parametrize("basis", ["pca", "identity"])
def test_transfer_leaves_pictures_a_table_and_numbers(make_faces: MakeFaces, basis: str, tmp_path: Path) -> None:
    subject = make_faces()
    anchors = [find_person(subject, "test", identity, 3) for identity in (100, 300)]
    outcome = transfer(subject, anchors, np.array([12, 50, 70]), 2, basis, fitting_images=300)
    assert set(outcome.pictures) == {
        "sources_100",
        "sources_300",
        "identity_transfer",
        "components",
        "explained_variance",
    }
    rows = outcome.tables["components"]
    assert [row["component"] for row in rows] == list(range(1, LATENTS + 1))
    assert rows[-1]["cumulative_share"] == pytest.approx(1)
    assert outcome.protocol["variance_share"] == pytest.approx(rows[1]["cumulative_share"])
    assert outcome.protocol["images"] == ["000012.jpg", "000050.jpg", "000070.jpg"]
    assert outcome.protocol["anchors"][300] == ["000363.jpg", "000364.jpg", "000365.jpg"]
    assert 294 < outcome.protocol["fitting_images"] <= 300  # "identity" takes whole people, of 6 and 3 pictures
    if basis == "identity":  # two latents belong to people
        shares = [row["between_people_share"] for row in rows]
        assert min(shares[:2]) > 0.95
        assert max(shares[2:]) < 0.3
    assert outcome.pictures["identity_transfer"].shape[0] > 5 * 128  # two header rows and three images
    assert (tmp_path / "edit.json") in outcome.write(tmp_path, {})


@pytest.mark.parametrize(("latent_dim", "taken"), [(256, 64), (64, 16), (3, 1), (2, 1)])
def test_the_number_of_components_follows_the_model(latent_dim: int, taken: int) -> None:
    assert components_to_take(None, latent_dim) == taken


def test_one_latent_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match="1 latent"):
        components_to_take(None, 1)


def test_transfer_refuses_what_cannot_be(make_faces: MakeFaces) -> None:
    subject = make_faces()
    anchors, rows = [find_person(subject, "test", 100, 6)], np.array([12])
    for components in (-1, 0, 16, 64):
        with pytest.raises(ValueError, match=f"components={components}: of 16 latents.*1 to 15 are allowed"):
            transfer(subject, anchors, rows, components)
    with pytest.raises(ValueError, match=r"basis=identities .*did you mean identity"):
        transfer(subject, anchors, rows, 2, "identities")
    with pytest.raises(ValueError, match="10 training images are too few for 16 latents"):
        transfer(subject, anchors, rows, 2, "pca", fitting_images=10)
    with pytest.raises(ValueError, match="0 anchors and 1 images"):
        transfer(subject, [], rows, 2)


def test_scores_are_shares_of_the_way_to_the_anchor(make_faces: MakeFaces) -> None:
    subject = make_faces()
    rows = transfer_scores(subject, FactorReader(), 100, (0, 2, LATENTS), (0.25, 0.5, 1.0), min_pictures=6)
    scores = {(row["method"], row["amount"]): row for row in rows}
    for weight in (0.25, 0.5, 1.0):  # everything is linear, so that all groups move by the weight
        row = scores["averaging", weight]
        for group in ("identity", "pose and expression", "rest"):
            assert row[f"{group} share"] == pytest.approx(weight, abs=1e-4)
            assert row[f"{group} change"] == pytest.approx(
                weight * scores["averaging", 1.0][f"{group} change"], rel=1e-3
            )
    for method in ("transfer by pca", "transfer by identity"):
        assert scores[method, 0]["identity share"] == 0
        assert scores[method, LATENTS]["pose and expression share"] == pytest.approx(1, abs=1e-4)
    best = scores["transfer by identity", 2]
    assert best["identity share"] > 0.97
    assert abs(best["pose and expression share"]) < 0.1
    assert best["pose and expression change"] < 0.3 * scores["averaging", 0.5]["pose and expression change"]
    # pairs of N(0, 1) and the mean of 6 such: the mean of |difference| is that of a normal variable
    expected = np.sqrt(2 / np.pi) * np.sqrt(1 + 1 / 6)
    assert scores["averaging", 1.0]["pose and expression change"] == pytest.approx(expected, abs=0.15)
    assert draw_transfer_scores(rows).std() > 0
    halves = {row["method"]: row for row in at_equal_identity(rows)}
    assert halves["averaging"]["pose and expression share"] == pytest.approx(0.5, abs=1e-3)
    assert next(iter(halves)) == "transfer by identity"


def test_amounts_that_do_not_reach_half_the_identity_are_not_compared() -> None:
    """By hand: 0.5 lies a third of the way from 0.4 to 0.7; the other method ends at 0.3."""
    name = "pose and expression share"
    rows = [
        {"method": "a", "amount": 2.0, "identity share": 0.7, name: 0.5},
        {"method": "a", "amount": 1.0, "identity share": 0.4, name: 0.2},
        {"method": "b", "amount": 1.0, "identity share": 0.3, name: 0.1},
    ]
    assert at_equal_identity(rows) == [
        {"method": "a", "identity share": 0.5, name: pytest.approx(0.3)},
        {"method": "b", "identity share": 0.5, name: None},
    ]


def test_attributes_are_scored_in_their_own_standard_deviations(make_faces: MakeFaces) -> None:
    """Log-odds ten times as large give the same shares and changes."""
    small, large = FactorReader(), FactorReader(10.0)
    for reader in (small, large):
        reader.target = "attributes"
        reader.names = tuple(AS_ATTRIBUTES.get(name, name) for name in reader.names)
    found = [transfer_scores(make_faces(), reader, 50, (2,), (0.5,), min_pictures=6) for reader in (small, large)]
    for one, other in zip(*found, strict=True):
        assert one.pop("method") == other.pop("method")
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_scores_need_a_reader_of_identity_and_expression(make_faces: MakeFaces) -> None:
    reader = FactorReader()
    reader.target, reader.names = "factors", ("smile", "hat")
    with pytest.raises(ValueError, match="nothing of identity, only smile, hat"):
        transfer_scores(make_faces(), reader)
    with pytest.raises(ValueError, match="test split show person 1"):
        transfer_scores(make_faces(np.ones(366, np.int64)), FactorReader(), components=(2,))


def test_encoded_rows_are_those_asked_for(make_faces: MakeFaces) -> None:
    subject = make_faces()
    rows = np.array([70, 3, 200])
    torch.testing.assert_close(encode_rows(subject, "train", rows), subject.posterior("train").mean[rows])
