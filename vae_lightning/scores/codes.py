"""Codes of images with their factors or attributes: the input of all scores of disentanglement."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64


@dataclass(frozen=True)
class CodedImages:
    codes: Float[np.ndarray, "images latents"]  # posterior means
    factors: Float[np.ndarray, "images factors"] | Bool[np.ndarray, "images factors"]
    # the person on each image: images of one person are not independent, which the intervals take into account
    known_people: Int64[np.ndarray, " images"] | None = None  # None: each image shows another person

    @property
    def people(self) -> Int64[np.ndarray, " images"]:
        return np.arange(len(self.codes)) if self.known_people is None else self.known_people

    @property
    def is_binary(self) -> bool:
        return self.factors.dtype == np.bool_

    def standardised_codes(self, like: "CodedImages") -> Float[np.ndarray, "images latents"]:
        """Standardised by the means and deviations of `like`; a latent that is constant there is only centred."""
        centre, scale = like.codes.mean(0), like.codes.std(0)
        return (self.codes - centre) / np.where(scale > 0, scale, 1.0)


def chosen(
    images: CodedImages, factors: Int64[np.ndarray, " kept"], latents: Int64[np.ndarray, " left"]
) -> CodedImages:
    """The images with these factors and latents only; codes in float64."""
    return CodedImages(images.codes[:, latents].astype(np.float64), images.factors[:, factors], images.known_people)


def active_latents(codes: Float[np.ndarray, "images latents"], least_variance: float) -> Int64[np.ndarray, " active"]:
    """Latents whose posterior mean has a variance above `least_variance` over the images.

    The means of a latent that has collapsed to the prior still differ in their last digits, and the order of these
    could carry information.
    Source: Burda et al. 2016, section 5.2, arXiv:1509.00519.
    """
    variances = codes.var(0, dtype=np.float64)
    return np.flatnonzero(variances > max(least_variance, 1e-12 * variances.max(initial=0.0)))
