"""The LightningModule of autoencoders: from a batch of images to the objective, the same in every stage.

One training step from top to bottom: `training_step` draws noise and looks up the KL's weight, `evaluate` turns uint8
images into a prediction, and `losses/objective.py` turns that into the loss.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.optim import Optimizer

from vae_lightning.losses import KLWeight, Objective, ObjectiveTerms
from vae_lightning.losses.process_means import mean_over_processes
from vae_lightning.models import Autoencoder
from vae_lightning.models.distributions import (
    RUNNING_WEIGHT,
    UNIFORM_PIXEL_VARIANCE,
    PixelPrediction,
    PosteriorDraw,
    discretised_gaussian_nll,
)
from vae_lightning.models.levels import level_slices, level_words
from vae_lightning.models.pixels import mean_squared_error, to_pixel_range
from vae_lightning.training.lr_schedule import LRSchedule
from vae_lightning.training.noise import noise_of_rows, seeded_noise
from vae_lightning.training.run_module import RunModule
from vae_lightning.training.statistics import BatchSums, ObjectiveStatistics, batch_sums

Batch = Mapping[str, Tensor]
EVALUATION_NOISE_SEED = 20_140_416


@dataclass(frozen=True)
class Evaluated:
    """Model and objective on one batch; only the loss has a gradient."""

    loss: Float[Tensor, ""]
    sums: BatchSums
    pixels: Float[Tensor, "batch channels height width"]  # in the model's pixel_range
    draw: PosteriorDraw
    prediction: PixelPrediction  # of the draw


class VAEModule(RunModule):
    """Trains `model` on `objective`.

    Args:
        model: the autoencoder.
        objective: what is minimised; refuses a model whose pixels it cannot measure.
        optimizer: takes the parameters, returns the optimizer (a Hydra partial).
        seed: with the batch's number it fixes the training noise, so that a resumed run draws the same.
        record: plain data about the run, kept in every checkpoint; enough to build the model again.
        channels_last: memory layout of the convolutions; the faster one on CPU and GPU.
        compile: how training steps are compiled, a mode of `torch.compile` or "off"; evaluation is not compiled.
        lr_schedule: how the learning rate changes; None keeps it.
    """

    pixel_variance: Tensor

    def __init__(
        self,
        model: Autoencoder,
        objective: Objective,
        optimizer: Callable[[Iterable[torch.nn.Parameter]], Optimizer],
        seed: int = 0,
        record: dict[str, Any] | None = None,
        channels_last: bool = True,
        compile: str = "off",
        lr_schedule: LRSchedule | None = None,
    ) -> None:
        super().__init__(optimizer, record, compile, lr_schedule)
        objective.reconstruction.check_model(model.pixel_range, model.pixel_logvar, model.logistic_components)
        objective.kl.check_levels(model.latent_levels)
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model
        self.objective = objective
        self.seed = seed
        self.evaluated: Evaluated | None = None  # the batch under way, for callbacks
        self._weight = objective.final_weight  # of the KL term in the training step under way
        self._weight_on_device: KLWeight | None = None
        self.kl_nats_per_latent = torch.zeros(model.latent_dim)  # means over the split last validated or tested
        self.register_buffer("pixel_variance", torch.tensor(UNIFORM_PIXEL_VARIANCE))
        # "fit", not "train": a ModuleDict has a method of that name
        self.statistics = torch.nn.ModuleDict(
            {
                stage: ObjectiveStatistics(
                    model.latent_dim,
                    model.num_pixels,
                    has_kl=model.has_prior,
                    has_perceptual=objective.perceptual is not None,
                    has_means=model.is_flat or stage != "fit",
                )
                for stage in ("fit", "val", "test")
            }
        )
        # a checkpoint within an epoch has to hold the training batches that are not logged yet
        self._statistics("fit").persistent(True)

    @property
    def summary(self) -> str:
        num_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        latents = level_words(self.model.latent_levels)
        return f"{type(self.model).__name__} ({num_parameters:,} parameters, {latents})"

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        images, step = batch["images"], self.trainer.fit_loop.epoch_loop.total_batch_idx
        noise = self._training_noise(len(images), step)
        evaluated: Evaluated = self.evaluate_training_batch(images, noise, self._kl_weight())
        self._add("fit", evaluated, with_likelihood=self.logs_after_this_batch)
        self._calibrate(evaluated.sums, step)
        return evaluated.loss

    def evaluate(
        self,
        images: UInt8[Tensor, "batch channels height width"],
        noise: Float[Tensor, "batch latent"],
        weight: KLWeight,
    ) -> Evaluated:
        """Model and objective on one batch: a function of tensors, so that it can be compiled."""
        pixels = to_pixel_range(images, self.model.pixel_range)  # uint8 [0, 255] -> float32 in pixel_range
        draw, prediction = self.model.draw_and_predict(pixels, noise)  # from q(z|x), p(x|z)
        terms = self.objective(pixels, prediction, draw.kl_per_latent if self.model.has_prior else None, weight)
        sums = batch_sums(terms, draw.kl_per_latent, self._mean(pixels, draw), self._mse(terms, prediction, pixels))
        return Evaluated(terms.loss, sums, pixels, draw.detach(), prediction.detach())

    @torch.no_grad()
    def _mean(
        self, pixels: Float[Tensor, "batch channels height width"], draw: PosteriorDraw
    ) -> Float[Tensor, "batch latent"] | None:
        """The posterior means; those of a hierarchical posterior take a second pass, which training leaves out."""
        if draw.mean is not None or self.training:
            return draw.mean
        return self.model.encode(pixels).mean

    @torch.no_grad()
    def _mse(
        self, terms: ObjectiveTerms, prediction: PixelPrediction, pixels: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, " batch"]:
        """Mean squared error per image on the [0, 1] scale."""
        squared_error = self.objective.reconstruction.squared_error(terms.reconstruction_nats)
        if squared_error is None:
            return mean_squared_error(prediction.mean, pixels, self.model.pixel_range)
        low, high = self.model.pixel_range
        return squared_error / (self.model.num_pixels * (high - low) ** 2)  # saves two passes over all pixels

    def _training_noise(self, count: int, step: int) -> Float[Tensor, "count latent"]:
        """This process's part of the whole batch's noise: training is the same with any number of processes."""
        noise = seeded_noise(count * self.trainer.world_size, self.model.latent_dim, (self.seed, step), self.device)
        return noise[count * self.global_rank :][:count]

    def _kl_weight(self) -> KLWeight:
        """This step's weight, as tensors that are filled on the device: a transfer would wait for the device, and
        numbers would become constants of the compiled step.
        """
        weight = self.objective.weight_at(self.current_epoch, self.global_step)
        if self._weight_on_device is None or self._weight != weight:
            numbers = (weight.beta, weight.capacity_nats)
            self._weight_on_device = KLWeight(*(torch.full((), float(each), device=self.device) for each in numbers))
            self._weight = weight
        return self._weight_on_device

    def _calibrate(self, sums: BatchSums, step: int) -> None:
        """Moves `pixel_variance` towards the training error, which makes N(reconstruction, variance) most likely."""
        weight = max(1 / (step + 1), RUNNING_WEIGHT)
        self.pixel_variance.lerp_(mean_over_processes(sums.mse).clamp_min(1e-8), weight)

    def on_fit_start(self) -> None:
        self._weight_on_device = None  # the device may have changed
        super().on_fit_start()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.evaluated = None  # its pictures take memory
        if self.logs_after_this_batch:
            self._log_statistics("train", "fit", self._weight)

    def forget_window(self) -> None:
        self._statistics("fit").reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step(batch, batch_idx, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step(batch, batch_idx, "test")

    def _evaluation_step(self, batch: Batch, batch_idx: int, stage: str) -> None:
        loaders: dict[str, Any] = {"val": self.trainer.val_dataloaders, "test": self.trainer.test_dataloaders}
        order = loaders[stage].sampler  # of this process's part of the split
        first, count, size = order.first + batch_idx * order.batch_size, len(batch["images"]), order.batch_size
        noise = noise_of_rows(first, count, size, self.model.latent_dim, EVALUATION_NOISE_SEED, self.device)
        evaluated = self.evaluate(batch["images"], noise, self.objective.final_weight)
        self._add(stage, evaluated, with_likelihood=True)

    def on_validation_epoch_end(self) -> None:
        self.evaluated = None
        self.remember_best(self._log_statistics("val", "val", self.objective.final_weight))

    def on_test_epoch_end(self) -> None:
        self.evaluated = None
        self._log_statistics("test", "test", self.objective.final_weight)

    def _add(self, stage: str, evaluated: Evaluated, with_likelihood: bool) -> None:
        """Counts a batch. The likelihood is slow: training measures that of one batch in each logging window."""
        self.evaluated = evaluated
        statistics, prediction = self._statistics(stage), evaluated.prediction
        statistics.update(evaluated.sums)
        if self.objective.reconstruction.has_probability and self.model.has_prior:
            statistics.update_likelihood(*evaluated.sums.likelihood)
        elif with_likelihood and self.model.has_prior:
            variance = self._variance_in_unit_range(prediction)
            nll = discretised_gaussian_nll(prediction.mean, evaluated.pixels, variance, self.model.pixel_range)
            statistics.update_likelihood(nll.new_tensor(len(nll)), nll.sum())

    def _variance_in_unit_range(self, prediction: PixelPrediction) -> Float[Tensor, "..."]:
        """Of pixels in [0, 1]: the objective's own variance where it has one, else `pixel_variance`."""
        variance = self.objective.reconstruction.pixel_variance(prediction)
        if variance is None:
            return self.pixel_variance
        low, high = prediction.pixel_range
        return variance / (high - low) ** 2

    def _statistics(self, stage: str) -> ObjectiveStatistics:
        statistics = self.statistics[stage]
        assert isinstance(statistics, ObjectiveStatistics)
        return statistics

    def _log_statistics(self, prefix: str, stage: str, weight: KLWeight) -> dict[str, float]:
        statistics = self._statistics(stage)
        values = statistics.compute()
        # torchmetrics turns the vector of a single latent into a number
        kl_nats_per_latent = values.pop("kl_nats_per_latent").reshape(self.model.latent_dim)
        if stage != "fit":
            self.kl_nats_per_latent = kl_nats_per_latent
        if not self.model.is_flat:
            for level, part in zip(self.model.latent_levels, level_slices(self.model.latent_levels), strict=True):
                values[f"kl_nats_{level.name}"] = kl_nats_per_latent[part].sum()
        if self.model.has_prior:
            values["beta"] = torch.as_tensor(weight.beta)
        if self.model.has_prior and self.objective.has_capacity:
            values["capacity_nats"] = torch.as_tensor(weight.capacity_nats)
        sigma = self.objective.reconstruction.sigma(self.model.pixel_range)
        if sigma is not None:
            values["sigma"] = sigma
        statistics.reset()
        return self.log_now({f"{prefix}/{name}": value for name, value in values.items()})
