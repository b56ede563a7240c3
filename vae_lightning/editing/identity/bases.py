"""The people on the pictures, and bases of the latent space whose first components stand for identity."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.linalg import eigh
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA
from torch import Tensor

from vae_lightning.data.sources.source import SPLITS, Split
from vae_lightning.pictures.face_grids import encode_mean
from vae_lightning.runs.subject import Subject
from vae_lightning.system.names import not_allowed

BASES = ("pca", "identity")
FITTING_IMAGES = 5_000
MIN_PICTURES = 10
SHRINKAGE = 0.01  # of the mean variance, added to each: latents that hardly vary do not identify people
SMALLEST_SPREAD = 1e-6  # of an embedding's feature; below it the feature is constant
Embeddings = Float[np.ndarray, "images features"]


@dataclass(frozen=True)
class Person:
    identity: int
    rows: Int64[np.ndarray, " pictures"]  # of the split

    @property
    def label(self) -> str:
        return f"person {self.identity}"


@dataclass(frozen=True)
class LatentBasis:
    """Latents as sums of components: z = mean + loadings @ coordinates, coordinates = readers @ (z - mean).

    Of a hierarchical model z are the latents of coarse levels, which stand first in the whole vector.
    """

    name: str
    loadings: Float[np.ndarray, "latent components"]
    readers: Float[np.ndarray, "components latent"]  # the inverse of the loadings
    variance_share: Float[np.ndarray, " components"]  # of the fitted latents' variance; adds up to 1
    num_images: int

    def transfer(
        self, latents: Float[Tensor, "faces latent"], essences: Float[Tensor, "#faces latent"], components: int
    ) -> Float[Tensor, "faces latent"]:
        """The first components of the essences with the rest of the latents: all of them give the essence, 0 nothing.

        Finer levels of a hierarchical model stay those of the latents.

        Raises:
            ValueError: more components than there are, or less than 0.
        """
        check_components(components, len(self.readers))
        coarse, goal = (each[:, : len(self.loadings)].cpu().double() for each in (latents, essences))
        distance = (goal - coarse).numpy()  # the mean cancels out
        moved = distance @ self.readers[:components].T @ self.loadings[:, :components].T
        edited = (coarse + torch.from_numpy(moved)).float()
        return torch.cat([edited, latents[:, len(self.loadings) :].cpu()], dim=1)


@dataclass(frozen=True)
class IdentitySpace:
    """A space in which people are distinguished."""

    centre: Float[np.ndarray, " features"]
    projection: Float[np.ndarray, "features dimensions"]
    basis: str  # how it was found, in words

    def coordinates(self, embeddings: Embeddings) -> Float[np.ndarray, "images dimensions"]:
        return (embeddings - self.centre) @ self.projection


def check_components(components: int, latent_dim: int) -> None:
    if not 0 <= components <= latent_dim:
        raise ValueError(f"components={components}: of {latent_dim} latents, so 0 to {latent_dim} are allowed")


def pca_basis(latents: Float[np.ndarray, "images latent"]) -> LatentBasis:
    """Components by variance, largest first.

    Raises:
        ValueError: fewer images than latents.
    """
    _check_enough(*latents.shape)
    pca = PCA(svd_solver="full").fit(latents.astype(np.float64))
    return LatentBasis("pca", pca.components_.T, pca.components_, pca.explained_variance_ratio_, len(latents))


def identity_basis(
    latents: Float[np.ndarray, "images latent"], people: Int64[np.ndarray, " images"], shrinkage: float = SHRINKAGE
) -> LatentBasis:
    """Components by how much they differ between people compared with the pictures of one person, largest first.

    The generalised eigenvectors of S_b v = ratio S_w v. They are not orthogonal, but uncorrelated between people and
    within a person. With fewer people than latents the last ones are in no order.

    Raises:
        ValueError: fewer images than latents, or no person with two pictures.

    Source: Fisher 1936, Annals of Eugenics 7(2); Belhumeur, Hespanha & Kriegman 1997 (Fisherfaces), equation 4, IEEE
    PAMI 19(7).
    """
    _check_enough(*latents.shape)
    between, within = person_covariances(latents, people)
    within = within + shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    eigenvectors = eigh(between, within)[1][:, ::-1]  # V^T S_w V = 1
    loadings, readers = within @ eigenvectors, eigenvectors.T
    covariance = np.cov(latents.astype(np.float64), rowvar=False, ddof=0).reshape(within.shape)
    explained = np.einsum("lc,lm,cm->c", loadings, covariance, readers)  # adds up to the trace: V^-T V^T = 1
    return LatentBasis("identity", loadings, readers, explained / np.trace(covariance), len(latents))


def _check_enough(num_images: int, latent_dim: int) -> None:
    if num_images < latent_dim:
        raise ValueError(
            f"{num_images:,} training images are too few for {latent_dim} latents: give {latent_dim} or more "
            "images, or of a hierarchical model fewer levels"
        )


def person_covariances(
    latents: Float[np.ndarray, "images latent"], people: Int64[np.ndarray, " images"]
) -> tuple[Float[np.ndarray, "latent latent"], Float[np.ndarray, "latent latent"]]:
    """Covariances between and within people, neither of them biased by how many pictures a person has.

    Raises:
        ValueError: fewer than two people, or no person with two pictures.

    Source: Searle, Casella & McCulloch 1992, Variance Components, section 3.6 (analysis of variance, unequal groups).
    """
    _, of_image, counts = np.unique(people, return_inverse=True, return_counts=True)
    if len(counts) < 2 or counts.max() < 2:
        raise ValueError("a basis of identity needs two people or more, and two pictures or more of one of them")
    latents = latents.astype(np.float64)
    sums = np.zeros((len(counts), latents.shape[1]))
    np.add.at(sums, of_image, latents)
    means = sums / counts[:, None]
    residuals, centred = latents - means[of_image], means - latents.mean(0)
    within = residuals.T @ residuals / (len(latents) - len(counts))
    between_pictures = (centred.T * counts) @ centred / (len(counts) - 1)
    pictures_each = (len(latents) - (counts**2).sum() / len(latents)) / (len(counts) - 1)
    return (between_pictures - within) / pictures_each, within


def person_share(
    basis: LatentBasis, latents: Float[np.ndarray, "images latent"], people: Int64[np.ndarray, " images"]
) -> Float[np.ndarray, " components"]:
    """Of each component's variance, the part between people: the intra-class correlation, 0 to 1.

    On other people than the basis was fitted to; on those it comes out too high.

    Source: Shrout & Fleiss 1979, ICC(1,1), Psychological Bulletin 86(2).
    """
    between, within = (
        np.einsum("cl,lm,cm->c", basis.readers, covariance, basis.readers)
        for covariance in person_covariances(latents, people)
    )
    total = np.maximum(between, 0) + within
    return np.divide(np.maximum(between, 0), total, out=np.zeros_like(total), where=total > 0)


def identities_of(subject: Subject, split: Split) -> Int64[np.ndarray, " rows"]:
    """The person on each image of the split.

    Raises:
        ValueError: the data do not say who is on the pictures.
    """
    identities = subject.data.identities(split)
    if identities is None:
        raise ValueError(
            "these data do not say who is on which picture: CelebA does in identity_CelebA.txt, which belongs beside "
            "list_attr_celeba.txt, and data=faces does"
        )
    return identities


def people_with(subject: Subject, split: Split, min_pictures: int = MIN_PICTURES) -> list[Person]:
    """The people with so many pictures in a split, most pictures first.

    Raises:
        ValueError: no person has, or the data do not say who is on the pictures.
    """
    identities = identities_of(subject, split)
    numbers, counts = np.unique(identities, return_counts=True)
    most = int(counts.argmax())
    if counts[most] < min_pictures:
        raise ValueError(
            f"min_pictures={min_pictures}: no person has so many {split} pictures; person {numbers[most]} has most, "
            f"{counts[most]}. Ask for no more (--min-pictures {counts[most]}), or take another split"
        )
    order = np.argsort(-counts, kind="stable")
    return [
        Person(int(numbers[place]), np.flatnonzero(identities == numbers[place]))
        for place in order[counts[order] >= min_pictures]
    ]


def find_person(subject: Subject, split: Split, identity: int, min_pictures: int = MIN_PICTURES) -> Person:
    """
    Raises:
        ValueError: the person is not in the split, or has fewer pictures there.
    """
    rows = np.flatnonzero(identities_of(subject, split) == identity)
    if len(rows) == 0:
        others = [other for other in SPLITS if identity in identities_of(subject, other)]
        where = f"they are in {' and '.join(others)}" if others else "nor in another split"
        raise ValueError(f"person {identity}: not in the {split} split; {where}")
    if len(rows) == 1:
        raise ValueError(
            f"person {identity}: one {split} picture only, too few to see the person in it: name another person"
        )
    if len(rows) < min_pictures:
        raise ValueError(
            f"person {identity}: {len(rows)} {split} pictures, and min_pictures={min_pictures}; "
            f"--min-pictures {len(rows)} allows it"
        )
    return Person(identity, rows)


@torch.inference_mode()
def encode_rows(subject: Subject, split: Split, rows: Int64[np.ndarray, " images"]) -> Float[Tensor, "images latent"]:
    """Posterior means on the host."""
    parts = subject.batches(len(rows), f"Encoding {len(rows):,} {split} images")
    return torch.cat([encode_mean(subject.model, subject.pixels(split, rows[part])).cpu() for part in parts])


def fit_basis(subject: Subject, name: str = "pca", at_most: int = FITTING_IMAGES) -> LatentBasis:
    """Fitted to so many training images; "identity" takes all pictures of as many people as that allows.

    Raises:
        ValueError: there is no such basis, the images are too few, or the data do not say who is on them.
    """
    if name not in BASES:
        raise ValueError(not_allowed("basis", name, BASES))
    if name == "pca":
        return pca_basis(subject.codes("train", at_most).numpy())
    identities = identities_of(subject, "train")
    rows = rows_of_people(identities, at_most, subject.seed_of("people of the identity basis"))
    latents = encode_rows(subject, "train", rows)[:, : subject.num_coarse]
    return identity_basis(latents.numpy(), identities[rows])


def rows_of_people(identities: Int64[np.ndarray, " rows"], at_most: int, seed: int) -> Int64[np.ndarray, " chosen"]:
    """All pictures of people who have two at least, people in random order."""
    numbers, of_row, counts = np.unique(identities, return_inverse=True, return_counts=True)
    place = np.random.default_rng(seed).permutation(len(numbers))
    order = np.argsort(place[of_row], kind="stable")
    order = order[counts[of_row[order]] >= 2]
    ends = np.flatnonzero(np.diff(of_row[order], append=-1)) + 1  # where a person's pictures end
    return np.sort(order[: ends[ends <= at_most].max(initial=0)])


def repeated_people(identities: Int64[np.ndarray, " rows"], at_most: int, seed: int) -> Int64[np.ndarray, " kept"]:
    """Rows of people with two pictures or more; where there are many, of random people with all their pictures."""
    _, of_row, counts = np.unique(identities, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(counts >= 2))
    kept = order[counts[order].cumsum() <= at_most]
    return np.flatnonzero(np.isin(of_row, kept))


def standardised_space(embeddings: Embeddings, reason: str) -> IdentitySpace:
    """Every feature with unit variance: distinguishes people only by what the judge was trained to predict."""
    spread = embeddings.std(0)
    scale = np.where(spread > SMALLEST_SPREAD, spread, np.inf)
    return IdentitySpace(embeddings.mean(0), np.diag(1 / scale), f"standardised embeddings, as {reason}")


def fisher_space(embeddings: Embeddings, people: Int64[np.ndarray, " images"]) -> IdentitySpace:
    """What is expected of the person from one picture: each discriminant u with its share psi / (psi + 1) of identity.

    Discriminants are directions w in which people differ most and one person's pictures least, S_B w = lambda S_W w;
    S_W is shrunk (Ledoit & Wolf 2004). psi is the variance between people in units of that within people, unbiased;
    weighing by it distinguishes people better than any number of discriminants that all count alike.
    Sources: Belhumeur et al. 1997, section 2.4, doi:10.1109/34.598228; Ioffe 2006, section 3, doi:10.1007/11744085_41.
    """
    plain = standardised_space(embeddings, "no direction in them distinguishes the training people")
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
