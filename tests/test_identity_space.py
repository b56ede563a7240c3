import numpy as np
import pytest
from scipy.linalg import subspace_angles
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from vae_lightning.editing.identity.bases import fisher_space, repeated_people, standardised_space


def test_discriminants_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 50)
    points = (random.normal(size=(40, 2)) @ random.normal(size=(2, 6)))[people]
    points = points + random.normal(size=(2_000, 6)) @ random.normal(size=(6, 6))
    ours = fisher_space(points, people)
    oracle = LinearDiscriminantAnalysis(n_components=2).fit(points, people)
    strongest = ours.projection[:, -2:]
    assert np.degrees(subspace_angles(strongest, oracle.scalings_[:, :2])).max() < 2


def test_discriminants_weigh_what_they_tell_of_a_person() -> None:
    """Variance 9, 1 and 0 between people and 1 within them: 9/10, 1/2 and nothing of a picture are the person's."""
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(2_000), 3)
    points = (random.normal(size=(2_000, 3)) * [3, 1, 0])[people] + random.normal(size=(6_000, 3))
    found = fisher_space(points, people)
    assert np.linalg.norm(found.projection, axis=1) == pytest.approx([0.9, 0.5, 0], abs=0.04)


def test_features_that_say_nothing_of_people_stay_plain() -> None:
    person = np.array([[1.0], [-1.0], [1.0], [-1.0]])  # the same two pictures of everybody
    found = fisher_space(np.tile(person, (10, 1)), np.repeat(np.arange(20), 2))
    assert "standardised embeddings, as" in found.basis


def test_constant_features_do_not_count() -> None:
    points = np.random.default_rng(0).normal(size=(50, 3)) * [2.0, 5.0, 0.0] + 7
    coordinates = standardised_space(points, "").coordinates(points)
    assert coordinates.std(0) == pytest.approx([1, 1, 0])


def test_people_with_one_picture_say_nothing() -> None:
    identities = np.array([5, 7, 5, 9, 7, 7, 8])
    assert repeated_people(identities, 100, 0).tolist() == [0, 1, 2, 4, 5]
    assert repeated_people(identities, 4, 0).tolist() in ([0, 2], [1, 4, 5])
