"""Reconstruction terms: nats, summed over pixels, one value per image."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_lightning.pixels import PixelRange


class ReconstructionLoss(nn.Module, ABC):
    """-log p(x|z) up to a constant."""

    def check_pixel_range(self, pixel_range: PixelRange) -> None:
        """Refuses a model whose pixels this term cannot measure; called before any data is read.

        Raises:
            ValueError: the range does not fit the term.
        """

    @abstractmethod
    def forward(
        self,
        reconstruction: Float[Tensor, "batch channels height width"],
        images: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, " batch"]: ...


class SquaredError(ReconstructionLoss):
    """Sum of squared errors: the negative log-likelihood of N(reconstruction, 1/2) without its constant."""

    def forward(
        self,
        reconstruction: Float[Tensor, "batch channels height width"],
        images: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, " batch"]:
        return (reconstruction - images).square().sum(dim=(1, 2, 3))


class BinaryCrossEntropy(ReconstructionLoss):
    """Cross-entropy of pixels in [0, 1], taken as probabilities.

    Args:
        clamp: images and reconstruction are clamped to [clamp, 1 - clamp], so that no logarithm is infinite (S4).
    """

    def __init__(self, clamp: float = 1e-6) -> None:
        super().__init__()
        if not 0 < clamp < 0.5:
            raise ValueError(f"reconstruction.clamp={clamp}: must lie between 0 and 0.5, for example 1e-6")
        self.clamp = clamp

    def check_pixel_range(self, pixel_range: PixelRange) -> None:
        if pixel_range != (0.0, 1.0):
            raise ValueError(
                f"reconstruction=bce reads pixels as probabilities in [0, 1], the model's are in {list(pixel_range)}: "
                "set model.output_activation=sigmoid or reconstruction=squared_error"
            )

    def forward(
        self,
        reconstruction: Float[Tensor, "batch channels height width"],
        images: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, " batch"]:
        # 1 - 1e-6 needs float32; bfloat16 would round it to 1
        probability = reconstruction.float().clamp(self.clamp, 1 - self.clamp)
        target = images.float().clamp(self.clamp, 1 - self.clamp)
        log_likelihood = target * torch.log(probability) + (1 - target) * torch.log1p(-probability)
        return -log_likelihood.sum(dim=(1, 2, 3))
