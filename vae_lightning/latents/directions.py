"""Directions in a latent space that add an attribute, kept beside a checkpoint."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vae_lightning.latents.fitted_file import FittedFile
from vae_lightning.system.names import did_you_mean, is_a_name, not_allowed

METHODS = ("means", "probe")
UNITS = ("class", "std")
LEAST_LEFT = 1e-3  # of a direction's length after projection: a shorter rest is rounding and noise
ROUNDING = 1e-9  # of the variance of all latents together


@dataclass(frozen=True, eq=False)
class Direction:
    """One direction.

    Args:
        attribute: the attribute that it adds.
        method: one of METHODS.
        orthogonal_to: attributes whose linear probes do not change along it.
        vector: of length 1, over all latents of the model; 0 in the finer levels of a hierarchical one.
        class_gap: distance along the vector from the mean of images without the attribute to the mean of those with it.
        spread: standard deviation of the training latents along the vector.
        cosines: with the normals of the other attributes' probes. A step of length 1 changes what a probe with
            unit normal n reads by vector·n.
        images_per_class: number of images in each mean; None: all.
    """

    attribute: str
    method: str
    orthogonal_to: tuple[str, ...]
    vector: Float[Tensor, " latent"]
    class_gap: float
    spread: float
    cosines: Mapping[str, float] = field(default_factory=dict)
    images_per_class: int | None = None

    def shift(self, strength: float, unit: str = "std") -> Float[Tensor, " latent"]:
        """The vector to add to latents; a negative strength takes the attribute away.

        Args:
            strength: 0 changes nothing.
            unit: of strength 1. "class": from the mean of images without the attribute to where the mean of those
                with it lies along the vector. "std": one standard deviation of the training latents along it.

        Raises:
            ValueError: unknown unit, infinite strength, or the classes do not differ in this direction.
        """
        if unit not in UNITS:
            raise ValueError(not_allowed("unit", unit, UNITS))
        if not math.isfinite(strength):
            raise ValueError(f"strength={strength}: must be a finite number")
        if unit == "class" and self.class_gap <= 0:
            raise ValueError(
                f"unit=class: along this direction, orthogonal to {', '.join(self.orthogonal_to) or 'nothing'}, the "
                f"mean of images with {self.attribute} is not beyond that of those without; set unit=std"
            )
        return strength * (self.class_gap if unit == "class" else self.spread) * self.vector


@dataclass(frozen=True, eq=False)
class Directions:
    """Means, probes and covariance of a latent space, from which every direction follows. float64.

    Of a hierarchical model it is the space of its coarse levels, which stand first in the vector of latents.

    Args:
        names: of the attributes.
        means_with: mean latents of images with the attribute; zeros where no image has it.
        means_without: mean latents of images without it.
        normals: of linear probes, length 1, towards the attribute; zeros where all images are of one class.
        covariance: of all training latents.
        counts_with: number of training images with the attribute.
        counts_without: number without it.
        images_per_class: number of images in each mean; None: all.
        levels: names of the levels of a hierarchical model that these latents are.
        finer: number of its latents in finer levels, which no direction moves.
    """

    names: tuple[str, ...]
    means_with: Float[Tensor, "attributes latent"]
    means_without: Float[Tensor, "attributes latent"]
    normals: Float[Tensor, "attributes latent"]
    covariance: Float[Tensor, "latent latent"]
    counts_with: Int64[Tensor, " attributes"]
    counts_without: Int64[Tensor, " attributes"]
    images_per_class: int | None = None
    levels: tuple[str, ...] = ()
    finer: int = 0

    def __post_init__(self) -> None:
        count, latent_dim = len(self.names), len(self.covariance)
        shapes = {
            **dict.fromkeys(("means_with", "means_without", "normals"), (count, latent_dim)),
            "covariance": (latent_dim, latent_dim),
            **dict.fromkeys(("counts_with", "counts_without"), (count,)),
        }
        wrong = [name for name, shape in shapes.items() if getattr(self, name).shape != shape]
        if wrong or not all(map(is_a_name, self.names)) or len(set(self.names)) < count:
            raise ValueError(f"{wrong[0] if wrong else 'names'}: not those of {count} attributes")
        if not all(map(is_a_name, self.levels)) or self.finer < 0:
            raise ValueError(f"{self.finer} latents in finer levels than {self.levels}")

    @property
    def num_moved(self) -> int:
        """Number of latents that directions move, the first ones of the model."""
        return len(self.covariance)

    @property
    def have_both_classes(self) -> Bool[Tensor, " attributes"]:
        return (self.counts_with > 0) & (self.counts_without > 0)

    @property
    def fitted_names(self) -> list[str]:
        """Names of the attributes that have a direction."""
        return [name for name, has in zip(self.names, self.have_both_classes.tolist(), strict=True) if has]

    def direction(self, attribute: str, method: str = "means", orthogonal_to: Sequence[str] = ()) -> Direction:
        """The direction that adds an attribute.

        Args:
            attribute: one of `names`.
            method: "means" moves along the difference of the two class means (Larsen et al. 2016, section 4.1,
                arXiv:1512.09300; White 2016, arXiv:1609.04468), "probe" along the normal of a linear probe
                (InterFaceGAN: Shen et al. 2020, section 3.1, arXiv:1907.10786).
            orthogonal_to: other attributes. The part of the direction that lies in the span of their probes' normals
                is taken out, so that these probes read the same before and after (Shen et al. 2020, section 3.2).

        Raises:
            ValueError: unknown attribute or method, an attribute without images of both classes, or nothing is left
                of the direction.
        """
        if method not in METHODS:
            raise ValueError(not_allowed("method", method, METHODS))
        target = self._row(attribute)
        self._check_images_per_class(target)
        others = tuple(dict.fromkeys(orthogonal_to))
        if attribute in others:
            raise ValueError(f"orthogonal_to={attribute}: this is the attribute to change; leave it out")
        gap = self.means_with[target] - self.means_without[target]
        whole = gap if method == "means" else self.normals[target]
        if not whole.norm() > 0:
            raise ValueError(f"{attribute}: latents with and without it do not differ (method={method})")
        whole = whole / whole.norm()
        left = without_span(whole, self.normals[[self._row(name) for name in others]])
        if left.norm() < LEAST_LEFT:
            raise ValueError(
                f"orthogonal_to={','.join(others)}: nothing is left of the direction of {attribute}; name fewer"
            )
        vector = left / left.norm()
        return Direction(
            attribute,
            method,
            others,
            F.pad(vector.float(), (0, self.finer)),
            float(gap @ vector),
            self._deviation(vector),
            self._cosines(vector, target),
            self.images_per_class,
        )

    def _deviation(self, vector: Float[Tensor, " latent"]) -> float:
        """Standard deviation of the training latents along a vector of length 1."""
        variance = float(vector @ self.covariance @ vector)
        if not variance >= -ROUNDING * float(self.covariance.diagonal().abs().sum()):
            raise ValueError(
                "the latents' covariance is not positive semi-definite: delete the file of directions to fit it again"
            )
        return math.sqrt(max(variance, 0.0))

    def _cosines(self, vector: Float[Tensor, " latent"], target: int) -> dict[str, float]:
        kept = self.have_both_classes.tolist()
        cosines = (self.normals @ vector).tolist()
        return {name: cosines[row] for row, name in enumerate(self.names) if kept[row] and row != target}

    def _row(self, attribute: str) -> int:
        if attribute not in self.names:
            raise ValueError(
                f"{attribute!r} is not an attribute of these data{did_you_mean(attribute, self.names)}; there are "
                + ", ".join(self.names)
            )
        row = self.names.index(attribute)
        if not self.have_both_classes[row]:
            count = int(self.counts_with[row] + self.counts_without[row])
            found = f"all {count:,} training images have it" if self.counts_with[row] else "no training image has it"
            raise ValueError(f"{attribute}: {found}, so that no direction can be fitted; choose another attribute")
        return row

    def _check_images_per_class(self, row: int) -> None:
        counts = (int(self.counts_with[row]), int(self.counts_without[row]))
        if self.images_per_class is not None and min(counts) < self.images_per_class:
            raise ValueError(
                f"images_per_class={self.images_per_class}: {counts[0]:,} training images have {self.names[row]}, "
                f"{counts[1]:,} do not; set at most {min(counts)}"
            )


def without_span(
    vector: Float[Tensor, " latent"], spanning: Float[Tensor, "_others latent"]
) -> Float[Tensor, " latent"]:
    """A vector minus its projection onto the span of others, which may be linearly dependent."""
    if not len(spanning):
        return vector
    # gelsd is the driver for matrices without full rank
    factors = torch.linalg.lstsq(spanning.T, vector[:, None], driver="gelsd").solution[:, 0]
    return vector - factors @ spanning


@dataclass(frozen=True)
class DirectionFile(FittedFile):
    """The directions of one checkpoint."""

    format: ClassVar[int] = 1
    holds: ClassVar[str] = "directions"
    error: ClassVar[type[ValueError]] = ValueError

    def read(self) -> Directions | None:
        """None where the file is not there, or belongs to another checkpoint.

        Raises:
            ValueError: the file is damaged.
        """
        with self.content() as content:
            return Directions(**content["directions"]) if content else None

    def write(self, directions: Directions) -> None:
        """Writes the file anew."""
        self.keep(directions={one.name: getattr(directions, one.name) for one in fields(directions)})
