"""Reconstruction terms: nats, summed over pixels, one value per image."""

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_lightning.losses.process_means import mean_over_processes
from vae_lightning.models.distributions import (
    RUNNING_WEIGHT,
    UNIFORM_PIXEL_VARIANCE,
    PixelPrediction,
    floored_logvar,
    gaussian_nll,
)
from vae_lightning.models.logistic import LogisticPrediction
from vae_lightning.models.pixels import NUM_LEVELS, PixelRange, as_level
from vae_lightning.system.names import not_allowed

Images = Float[Tensor, "batch channels height width"]


class ReconstructionLoss(nn.Module, ABC):
    """-log p(x|z) per image, for some terms up to a constant.

    `uses_pixel_logvar` says whether the term reads the log-variance of each pixel from the decoder, `uses_logistic`
    whether it reads logistic distributions. `has_probability` says that it is -log of a probability over 256 levels,
    so that bits per dimension are exactly those of the training. `words` is what a model card says that training
    minimised; without it the card has the name of the class.
    """

    uses_pixel_logvar = False
    uses_logistic = False
    has_probability = False
    words: ClassVar[str] = ""

    def check_model(self, pixel_range: PixelRange, pixel_logvar: bool, logistic_components: int = 0) -> None:
        """Refuses a model whose pixels this term cannot measure; called before any data is read.

        Raises:
            ValueError: range, log-variances or logistic distributions do not fit the term.
        """
        if self.uses_logistic != bool(logistic_components):
            raise ValueError(
                f"model.logistic_components={logistic_components} does not fit reconstruction={type(self).__name__}: "
                + (
                    "it reads at least 1; reconstruction=logistic or logistic_mixture sets it"
                    if self.uses_logistic
                    else "set it to 0, or reconstruction=logistic, which reads the distributions"
                )
            )
        if self.uses_pixel_logvar and not pixel_logvar:
            raise ValueError(
                f"reconstruction={type(self).__name__} reads a log-variance per pixel, and the decoder gives none: "
                "set model.pixel_logvar=true, or take reconstruction=gaussian_shared"
            )
        if pixel_logvar and not self.uses_pixel_logvar:
            raise ValueError(
                f"model.pixel_logvar=true: {type(self).__name__} does not read the decoder's log-variances, so that "
                "they would stay untrained; set model.pixel_logvar=false or reconstruction=gaussian_per_pixel"
            )

    @abstractmethod
    def forward(self, prediction: PixelPrediction, images: Images) -> Float[Tensor, " batch"]: ...

    def squared_error(self, nats: Float[Tensor, " batch"]) -> Float[Tensor, " batch"] | None:
        """The sum of squared errors where it follows from the term's value; None where it has to be computed."""
        return None

    def pixel_variance(self, prediction: PixelPrediction) -> Float[Tensor, "..."] | None:
        """The variance of pixels in this term, in the prediction's range; None where it has no variance."""
        return None

    def distribution(self, prediction: PixelPrediction) -> PixelPrediction:
        """The prediction with what the term itself knows of p(x|z)."""
        return prediction

    def sigma(self, pixel_range: PixelRange) -> Float[Tensor, ""] | None:
        """The standard deviation that all pixels share, on the [0, 1] scale; None without one."""
        return None


class SquaredError(ReconstructionLoss):
    """Sum of squared errors: the negative log-likelihood of N(mean, 1/2) without its constant."""

    words = "the sum of squared errors over pixels"

    def forward(self, prediction: PixelPrediction, images: Images) -> Float[Tensor, " batch"]:
        return (prediction.mean - images).square().sum(dim=(1, 2, 3))

    def squared_error(self, nats: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        return nats


class AbsoluteError(ReconstructionLoss):
    """Sum of absolute errors: the negative log-likelihood of Laplace(mean, 1) without its constant."""

    words = "the sum of absolute errors over pixels"

    def forward(self, prediction: PixelPrediction, images: Images) -> Float[Tensor, " batch"]:
        return (prediction.mean - images).abs().sum(dim=(1, 2, 3))


class BinaryCrossEntropy(ReconstructionLoss):
    """Cross-entropy of pixels in [0, 1], taken as probabilities.

    Args:
        clamp: images and reconstruction are clamped to [clamp, 1 - clamp], so that no logarithm is infinite.
    """

    words = "the cross-entropy of the pixels, taken as probabilities"

    def __init__(self, clamp: float = 1e-6) -> None:
        super().__init__()
        if not 0 < clamp < 0.5:
            raise ValueError(f"reconstruction.clamp={clamp}: must lie between 0 and 0.5, for example 1e-6")
        self.clamp = clamp

    def check_model(self, pixel_range: PixelRange, pixel_logvar: bool, logistic_components: int = 0) -> None:
        super().check_model(pixel_range, pixel_logvar, logistic_components)
        if pixel_range != (0.0, 1.0):
            raise ValueError(
                f"reconstruction=bce reads pixels as probabilities in [0, 1], the model's are in {list(pixel_range)}: "
                "set model.output_activation=sigmoid or reconstruction=squared_error"
            )

    def forward(self, prediction: PixelPrediction, images: Images) -> Float[Tensor, " batch"]:
        # 1 - 1e-6 needs float32; bfloat16 would round it to 1
        probability = prediction.mean.float().clamp(self.clamp, 1 - self.clamp)
        target = images.float().clamp(self.clamp, 1 - self.clamp)
        log_likelihood = target * torch.log(probability) + (1 - target) * torch.log1p(-probability)
        return -log_likelihood.sum(dim=(1, 2, 3))


class GaussianPerPixel(ReconstructionLoss):
    """-log N(x; mean, exp(logvar)) with both from the decoder, per pixel. A density: it may be negative."""

    words = "a Gaussian density whose mean and variance the decoder gives pixel by pixel"
    uses_pixel_logvar = True

    def forward(self, prediction: PixelPrediction, images: Images) -> Float[Tensor, " batch"]:
        assert prediction.logvar is not None  # by check_model
        return gaussian_nll((prediction.mean - images).square(), prediction.logvar)

    def pixel_variance(self, prediction: PixelPrediction) -> Float[Tensor, "..."]:
        assert prediction.logvar is not None
        return prediction.logvar.exp()


class GaussianDiscretised(GaussianPerPixel):
    """-log of the Gaussian's mass in each pixel's bin: a probability of the 256 levels, never negative."""

    words = "the negative log-probability of each pixel's level under a Gaussian of the decoder"
    has_probability = True

    def forward(self, prediction: PixelPrediction, images: Images) -> Float[Tensor, " batch"]:
        """The numbers of `discretised_gaussian_nll`, with a gradient wherever the level lies."""
        assert prediction.logvar is not None  # by check_model
        low, high = prediction.pixel_range
        level, bin_width = as_level(images, prediction.pixel_range), (high - low) / (NUM_LEVELS - 1)
        precision = torch.exp(-0.5 * prediction.logvar)
        distance = (images - prediction.mean).abs()  # by symmetry the bin may lie above the mean
        near, far = (torch.special.log_ndtr((-distance + side) * precision) for side in (bin_width / 2, -bin_width / 2))
        is_open = (level == 0) | (level == NUM_LEVELS - 1)  # on its far side, since the mean is inside the range
        log_mass = near + torch.log1p(-torch.exp(far - near).clamp_max(1 - 1e-7)).masked_fill(is_open, 0.0)
        return -log_mass.sum(dim=(1, 2, 3))


class Logistic(ReconstructionLoss):
    """-log of the probability of each pixel's level under the decoder's logistic distributions, one or a mixture.

    Source: Salimans et al. 2017, section 2.1 and 2.2, arXiv:1701.05517.
    """

    words = "the negative log-probability of each pixel's level under logistic distributions of the decoder"
    uses_logistic = True
    has_probability = True

    def forward(self, prediction: PixelPrediction, images: Images) -> Float[Tensor, " batch"]:
        assert isinstance(prediction, LogisticPrediction)  # by check_model
        return prediction.nll(images)


class GaussianShared(ReconstructionLoss):
    """-log N(x; mean, sigma^2) with one variance for all pixels. A density: it may be negative.

    Args:
        variance: "optimal" sets sigma^2 to the batch's mean squared error, which is its maximum-likelihood value, in
            each training step; evaluation uses the running mean of those. "learned" makes it a parameter.

    Source: Rybkin, Daniilidis & Levine 2021 (sigma-VAE), equations 4 to 6, arXiv:2006.13202.
    """

    words = "a Gaussian density with one variance for all pixels"
    logvar: Tensor
    num_updates: Tensor

    def __init__(self, variance: str = "optimal") -> None:
        super().__init__()
        if variance not in ("optimal", "learned"):
            raise ValueError(not_allowed("reconstruction.variance", variance, ("optimal", "learned")))
        self.is_learned = variance == "learned"
        initial = torch.tensor(math.log(UNIFORM_PIXEL_VARIANCE))
        if self.is_learned:
            self.logvar = nn.Parameter(initial)
        else:
            self.register_buffer("logvar", initial)
            self.register_buffer("num_updates", torch.tensor(0))

    def forward(self, prediction: PixelPrediction, images: Images) -> Float[Tensor, " batch"]:
        squared_error = (prediction.mean - images).square()
        if self.training and not self.is_learned:
            logvar = self._optimum(mean_over_processes(squared_error.detach().mean()), prediction.pixel_range)
        else:
            logvar = floored_logvar(self.logvar, prediction.pixel_range)
        return gaussian_nll(squared_error, logvar.expand(1, 1, 1, 1))

    def _optimum(self, mse: Float[Tensor, ""], pixel_range: PixelRange) -> Float[Tensor, ""]:
        """The batch's own optimum. It needs no gradient: at the optimum the loss does not change with it."""
        logvar = torch.log(mse.to(self.logvar.dtype).clamp_min(1e-12))
        self.num_updates += 1
        self.logvar.lerp_(logvar, torch.clamp(1 / self.num_updates, min=RUNNING_WEIGHT))
        return floored_logvar(logvar, pixel_range)

    def pixel_variance(self, prediction: PixelPrediction) -> Float[Tensor, "..."]:
        return floored_logvar(self.logvar.detach(), prediction.pixel_range).exp()

    def distribution(self, prediction: PixelPrediction) -> PixelPrediction:
        return replace(prediction, logvar=self.pixel_variance(prediction).log().expand_as(prediction.mean))

    def sigma(self, pixel_range: PixelRange) -> Float[Tensor, ""]:
        low, high = pixel_range
        return floored_logvar(self.logvar.detach(), pixel_range).mul(0.5).exp() / (high - low)
