"""Codes of images with what is known of the images: what all scores of disentanglement are computed from."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64


@dataclass(frozen=True)
class CodedImages:
    codes: Float[np.ndarray, "images latents"]  # posterior means
    factors: Float[np.ndarray, "images factors"] | Bool[np.ndarray, "images factors"]
    # who is on each image: a person's images share what the person has, so that they count as less than as many images
    known_people: Int64[np.ndarray, " images"] | None = None  # None: everybody is somebody else

    @property
    def people(self) -> Int64[np.ndarray, " images"]:
        return np.arange(len(self.codes)) if self.known_people is None else self.known_people

    @property
    def is_binary(self) -> bool:
        return self.factors.dtype == np.bool_

    def standardised_codes(self, like: "CodedImages") -> Float[np.ndarray, "images latents"]:
        """With the means and standard deviations of `like`; a latent that is constant there is only centred."""
        centre, scale = like.codes.mean(0), like.codes.std(0)
        return (self.codes - centre) / np.where(scale > 0, scale, 1.0)


def chosen(
    images: CodedImages, factors: Int64[np.ndarray, " kept"], latents: Int64[np.ndarray, " left"]
) -> CodedImages:
    """float64 codes of some latents with some of the factors."""
    return CodedImages(images.codes[:, latents].astype(np.float64), images.factors[:, factors], images.known_people)


def active_latents(codes: Float[np.ndarray, "images latents"], least_variance: float) -> Int64[np.ndarray, " active"]:
    """Those whose posterior mean varies over the images by more.

    A latent that has collapsed to the prior still has means that differ in the last digits, and their order could
    tell everything.
    Source: Burda et al. 2016, section 5.2, arXiv:1509.00519.
    """
    variances = codes.var(0, dtype=np.float64)
    return np.flatnonzero(variances > max(least_variance, 1e-12 * variances.max(initial=0.0)))
