from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from torch import Tensor

from vae_lightning.editing.identity.bases import (
    identity_basis,
    pca_basis,
    person_covariances,
    person_share,
    rows_of_people,
)

LATENTS, TRAITS, POSES = 16, 3, 4


@dataclass(frozen=True)
class Planted:
    """z = traits @ A + poses @ B + noise, where poses vary more than traits; A and B are not orthogonal."""

    mixing: np.ndarray  # the rows of A, then those of B
    latents: np.ndarray
    people: np.ndarray

    def coordinates(self, latents: Tensor) -> tuple[np.ndarray, np.ndarray]:
        found = latents.double().numpy() @ np.linalg.pinv(self.mixing)
        return found[:, :TRAITS], found[:, TRAITS:]


def plant(seed: int, people: int = 250, pictures: int = 8) -> Planted:
    mixing = np.random.default_rng(0).normal(size=(TRAITS + POSES, LATENTS)) / 4
    random = np.random.default_rng([1, seed])
    traits = random.normal(size=(people, TRAITS)).repeat(pictures, axis=0)
    poses = 2.0 * random.normal(size=(people * pictures, POSES))
    noise = 0.05 * random.normal(size=(people * pictures, LATENTS))
    latents = np.concatenate([traits, poses], axis=1) @ mixing + noise
    return Planted(mixing, latents, np.arange(people).repeat(pictures))


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(0)


def test_identity_basis_finds_the_latents_in_which_people_differ(planted: Planted) -> None:
    basis = identity_basis(planted.latents, planted.people)
    traits, poses = planted.mixing[:TRAITS].T, planted.mixing[TRAITS:].T
    # not 0: the mean poses of 250 people correlate with their traits by chance
    assert np.rad2deg(subspace_angles(basis.loadings[:, :TRAITS], traits)).max() < 10
    pca = pca_basis(planted.latents)
    assert np.rad2deg(subspace_angles(pca.loadings[:, :TRAITS], traits)).max() > 45
    # what the first coordinates read is blind to pose
    assert np.abs(basis.readers[:TRAITS] @ poses).max() < 0.05 * np.abs(basis.readers[:TRAITS] @ traits).max()


def test_transfer_by_identity_keeps_pose_better_than_averaging_and_than_pca(planted: Planted) -> None:
    fresh = plant(1, people=30)  # other people than the bases are fitted to
    essences = torch.from_numpy(fresh.latents.reshape(30, 8, LATENTS).mean(1)).float()
    latents = torch.from_numpy(fresh.latents[::8]).float()
    essences = essences.roll(1, dims=0)
    goal, goal_pose = fresh.coordinates(essences)
    own, own_pose = fresh.coordinates(latents)
    by_identity = identity_basis(planted.latents, planted.people).transfer(latents, essences, TRAITS)
    by_pca = pca_basis(planted.latents).transfer(latents, essences, TRAITS)
    moved, kept = fresh.coordinates(by_identity)
    assert np.abs(moved - goal).mean() < 0.05 * np.abs(own - goal).mean()
    assert np.abs(kept - own_pose).mean() < 0.05 * np.abs(goal_pose - own_pose).mean()
    pca_moved, pca_kept = fresh.coordinates(by_pca)
    assert np.abs(pca_moved - goal).mean() > 10 * np.abs(moved - goal).mean()
    assert np.abs(pca_kept - own_pose).mean() > 10 * np.abs(kept - own_pose).mean()
    averaged, averaged_pose = fresh.coordinates((latents + essences) / 2)
    np.testing.assert_allclose(averaged - own, (goal - own) / 2, atol=1e-4)
    assert np.abs(averaged_pose - own_pose).mean() > 10 * np.abs(kept - own_pose).mean()


@pytest.mark.parametrize("name", ["pca", "identity"])
def test_no_components_give_the_image_and_all_of_them_the_essence(planted: Planted, name: str) -> None:
    latents = planted.latents + 100.0  # a mean that must cancel out
    basis = pca_basis(latents) if name == "pca" else identity_basis(latents, planted.people)
    images, essence = (torch.from_numpy(latents[rows]).float() for rows in ([0, 9, 80], [30]))
    assert torch.equal(basis.transfer(images, essence, 0), images)
    torch.testing.assert_close(basis.transfer(images, essence, LATENTS), essence.expand(3, -1), atol=1e-5, rtol=0)
    np.testing.assert_allclose(basis.readers @ basis.loadings, np.eye(LATENTS), atol=1e-8)
    assert basis.variance_share.sum() == pytest.approx(1)
    assert basis.variance_share.min() > 0
    for components in (-1, 17):
        with pytest.raises(ValueError, match=f"components={components}: of 16 latents, so 0 to 16"):
            basis.transfer(images, essence, components)


def test_pca_transfer_is_that_of_the_coordinates(planted: Planted) -> None:
    basis, pca = pca_basis(planted.latents), PCA().fit(planted.latents)
    image, essence = planted.latents[:1], planted.latents[8:9]
    coordinates = np.concatenate([pca.transform(essence)[:, :5], pca.transform(image)[:, 5:]], axis=1)
    found = basis.transfer(torch.from_numpy(image).float(), torch.from_numpy(essence).float(), 5)
    np.testing.assert_allclose(found, pca.inverse_transform(coordinates), atol=1e-5)
    variances = np.linalg.eigvalsh(np.cov(planted.latents.T))[::-1]
    np.testing.assert_allclose(basis.variance_share, variances / variances.sum(), atol=1e-9)


def test_share_between_people_is_the_intra_class_correlation() -> None:
    """Shrout & Fleiss 1979, tables 2 to 4: six targets, four judges, mean squares 11.24 and 6.26, ICC(1,1) = 0.17."""
    ratings = np.array([[9.0, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
    targets = np.arange(6).repeat(4)
    between, within = person_covariances(ratings.reshape(-1, 1), targets)
    assert within.item() == pytest.approx(6.26, abs=0.01)
    assert 4 * between.item() + within.item() == pytest.approx(11.24, abs=0.01)
    basis = pca_basis(ratings.reshape(-1, 1))
    assert person_share(basis, ratings.reshape(-1, 1), targets).item() == pytest.approx(0.17, abs=0.005)


def test_covariances_do_not_depend_on_how_many_pictures_people_have() -> None:
    random = np.random.default_rng(0)
    people = np.arange(20_000).repeat(random.integers(1, 9, 20_000))
    latents = 2.0 * random.normal(size=(20_000, 2))[people] + random.normal(size=(len(people), 2))
    between, within = person_covariances(latents, people)
    np.testing.assert_allclose(between, 4 * np.eye(2), atol=0.12)
    np.testing.assert_allclose(within, np.eye(2), atol=0.03)


def test_bases_need_images_and_people() -> None:
    latents = np.random.default_rng(0).normal(size=(20, 5))
    with pytest.raises(ValueError, match="4 training images are too few for 5 latents"):
        pca_basis(latents[:4])
    with pytest.raises(ValueError, match="4 training images"):
        identity_basis(latents[:4], np.array([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="two pictures or more of one"):
        identity_basis(latents, np.arange(20))


def test_people_are_taken_with_all_their_pictures_as_far_as_they_fit() -> None:
    identities = np.array([7, 8, 7, 9, 10, 8, 7, 11, 11, 12])
    everybody = rows_of_people(identities, 100, seed=0)
    assert everybody.tolist() == [0, 1, 2, 5, 6, 7, 8]  # 9, 10 and 12 have one picture
    for seed in range(5):
        chosen = identities[rows_of_people(identities, 4, seed)]
        numbers, counts = np.unique(chosen, return_counts=True)
        assert 1 <= len(chosen) <= 4
        assert all(count == (identities == number).sum() for number, count in zip(numbers, counts, strict=True))
    assert rows_of_people(identities, 1, seed=0).tolist() == []
