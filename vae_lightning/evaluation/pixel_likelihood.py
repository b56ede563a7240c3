"""log p(x|z) over 256 pixel levels: the one likelihood in which models with any pixel term compare."""

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.distributions import PixelPrediction, discretised_gaussian_nll
from vae_lightning.evaluation.subject import Images, Subject
from vae_lightning.pixels import mean_squared_error

CALIBRATION_IMAGES = 2_000


class PixelLikelihood:
    """A Gaussian's mass in each pixel's bin, with the model's own variance where its pixel term has one.

    A model of squared errors says nothing about the variance: it gets the one that makes its reconstructions of
    training images most likely, their mean squared error (Rybkin et al. 2021, equation 6, arXiv:2006.13202).
    """

    def __init__(self, subject: Subject) -> None:
        self.reconstruction = subject.reconstruction
        self.pixel_range = subject.model.pixel_range
        self.source = "the model's own variance"
        self._calibrated: Tensor | None = None
        probe = subject.predict(torch.zeros(1, subject.model.latent_dim))
        if self.reconstruction.pixel_variance(probe) is None:
            mse, count = calibrate(subject)
            self._calibrated = torch.tensor(mse, device=subject.device)
            self.source = f"one σ = {mse**0.5:.4f} of pixels in [0, 1], calibrated on {count:,} training images"

    @property
    def is_calibrated(self) -> bool:
        """Whether the variance was found after training: the encoder then knows of another one."""
        return self._calibrated is not None

    def nll(self, prediction: PixelPrediction, images: Images) -> Float[Tensor, " batch"]:
        """Nats, summed over pixels; `images` hold the 256 levels in the model's range."""
        return discretised_gaussian_nll(prediction.mean, images, self._variance(prediction), self.pixel_range)

    def _variance(self, prediction: PixelPrediction) -> Float[Tensor, "..."]:
        if self._calibrated is not None:
            return self._calibrated
        variance = self.reconstruction.pixel_variance(prediction)
        assert variance is not None
        low, high = self.pixel_range
        return variance / (high - low) ** 2


@torch.inference_mode()
def calibrate(subject: Subject) -> tuple[float, int]:
    """Mean squared error of sampled reconstructions of training images, pixels in [0, 1], and of how many."""
    rows = subject.rows("train", CALIBRATION_IMAGES)
    noise = subject.noise(len(rows), "calibration")
    total = 0.0
    for part in subject.batches(len(rows), "Calibrating σ on training images"):
        images = subject.model_input(subject.pixels("train", rows[part]))
        latents = subject.model.encode(images).sample(noise[part].to(subject.device))
        mse = mean_squared_error(subject.model.decode(latents), images, subject.model.pixel_range)
        total += float(mse.sum())
    return max(total / len(rows), 1e-8), len(rows)
