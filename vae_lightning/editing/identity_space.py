"""What of a picture's embedding says who it shows."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from scipy.linalg import eigh
from sklearn.covariance import ledoit_wolf

SMALLEST_SPREAD = 1e-6  # of an embedding's feature; what varies less is constant

Embeddings = Float[np.ndarray, "images features"]


@dataclass(frozen=True)
class IdentitySpace:
    """Where directions tell people apart."""

    centre: Float[np.ndarray, " features"]
    projection: Float[np.ndarray, "features dimensions"]
    basis: str  # how it was found, in words

    def coordinates(self, embeddings: Embeddings) -> Float[np.ndarray, "images dimensions"]:
        return (embeddings - self.centre) @ self.projection


def repeated_people(identities: Int64[np.ndarray, " rows"], at_most: int, seed: int) -> Int64[np.ndarray, " kept"]:
    """Rows of people with two pictures or more, of random ones of them with all their pictures where they are many."""
    _, of_row, counts = np.unique(identities, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(counts >= 2))
    kept = order[counts[order].cumsum() <= at_most]
    return np.flatnonzero(np.isin(of_row, kept))


def standardised_space(embeddings: Embeddings, reason: str) -> IdentitySpace:
    """Every feature with unit variance: tells people apart no better than what the judge was trained to read."""
    spread = embeddings.std(0)
    scale = np.where(spread > SMALLEST_SPREAD, spread, np.inf)
    return IdentitySpace(embeddings.mean(0), np.diag(1 / scale), f"standardised embeddings, as {reason}")


def fisher_space(embeddings: Embeddings, people: Int64[np.ndarray, " images"]) -> IdentitySpace:
    """What is expected of the person from one picture: each discriminant u with its share psi / (psi + 1) of identity.

    Discriminants are directions w in which people differ most and one person's pictures least, S_B w = lambda S_W w;
    S_W is shrunk (Ledoit & Wolf 2004). psi is the variance between people in units of that within people, unbiased;
    weighing by it tells people apart better than any number of discriminants that all count alike.
    Sources: Belhumeur et al. 1997, section 2.4, doi:10.1109/34.598228; Ioffe 2006, section 3, doi:10.1007/11744085_41.
    """
    plain = standardised_space(embeddings, "nothing in them tells training people apart")
    points = plain.coordinates(embeddings)
    _, of_image, counts = np.unique(people, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), points.shape[1]))
    np.add.at(means, of_image, points)
    means /= counts[:, None]
    images, persons, size = len(points), len(counts), points.shape[1]
    between = (means * counts[:, None]).T @ means / (persons - 1)
    within = ledoit_wolf(points - means[of_image], assume_centered=True)[0] * images / (images - persons)
    floor = SMALLEST_SPREAD * max(np.trace(between) / size, SMALLEST_SPREAD)  # pictures of a person can be all the same
    _, vectors = eigh(between, within + floor * np.eye(size))
    own = ((points - means[of_image]) @ vectors).var(0) * images / (images - persons) + floor
    effective_count = (images - (counts**2).sum() / images) / (persons - 1)  # pictures of a person
    among = np.square(means @ vectors).T @ counts / (persons - 1)
    psi = np.maximum((among - own) / effective_count, 0) / own
    if not (psi > 0).any():
        return plain
    basis = f"{(psi > 0).sum()} linear discriminants of {persons} people on {images} training reconstructions"
    return IdentitySpace(plain.centre, plain.projection @ vectors * (psi / (psi + 1) / np.sqrt(own)), basis)
