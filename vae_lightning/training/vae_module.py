"""The LightningModule: one objective in training, validation and test; noise that does not depend on history."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.optim import Optimizer

from vae_lightning.losses import KLWeight, Objective
from vae_lightning.losses.process_means import mean_over_processes
from vae_lightning.models import Autoencoder
from vae_lightning.models.distributions import (
    RUNNING_WEIGHT,
    UNIFORM_PIXEL_VARIANCE,
    PixelPrediction,
    discretised_gaussian_nll,
)
from vae_lightning.models.pixels import mean_squared_error, to_pixel_range
from vae_lightning.training.lr_schedule import LRSchedule
from vae_lightning.training.run_module import RunModule
from vae_lightning.training.statistics import BatchSums, ObjectiveStatistics, batch_sums

Batch = Mapping[str, Tensor]
EVALUATION_NOISE_SEED = 20_140_416


@dataclass(frozen=True)
class Evaluated:
    """What one batch gives; only the loss has a gradient."""

    loss: Float[Tensor, ""]
    sums: BatchSums
    pixels: Float[Tensor, "batch channels height width"]  # in the model's pixel_range
    prediction: PixelPrediction


class VAEModule(RunModule):
    """Trains `model` on `objective`.

    Args:
        model: the autoencoder.
        objective: what is minimised; refuses a model whose pixels it cannot measure.
        optimizer: takes the parameters, returns the optimizer (a Hydra partial).
        seed: with the batch's number it fixes the training noise, so that a resumed run draws the same.
        record: plain data about the run, kept in every checkpoint; enough to build the model again.
        channels_last: memory layout of the convolutions; the faster one on CPU and GPU.
        compile: how training steps are compiled, a mode of `torch.compile` or "off"; evaluation is not.
        lr_schedule: how the learning rate moves; None keeps it.
    """

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
        objective.reconstruction.check_model(model.pixel_range, model.pixel_logvar)
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model
        self.objective = objective
        self.seed = seed
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
                )
                for stage in ("fit", "val", "test")
            }
        )

        # with the window of training batches that is not logged yet, a checkpoint within an epoch is whole
        self._statistics("fit").persistent(True)

    pixel_variance: Tensor

    def on_fit_start(self) -> None:
        self._weight_on_device = None  # the device may be another one now
        super().on_fit_start()

    @property
    def summary(self) -> str:
        num_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return f"{type(self.model).__name__} ({num_parameters:,} parameters, {self.model.latent_dim} latents)"

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        step = self.trainer.fit_loop.epoch_loop.total_batch_idx
        count = len(batch["images"])
        # of the whole batch, which the processes have parts of: the same training with any number of them
        noise = self._noise(count * self.trainer.world_size, self.seed, step)[count * self.global_rank :][:count]
        evaluated: Evaluated = self.evaluate_training_batch(batch["images"], noise, self._weigh())
        self._add("fit", evaluated, with_likelihood=self.logs_after_this_batch)
        self._calibrate(evaluated.sums, step)
        return evaluated.loss

    def _weigh(self) -> KLWeight:
        """This step's weight as tensors, filled there: sending them would wait, and numbers would be compiled in."""
        weight = self.objective.weight_at(self.current_epoch, self.global_step)
        if self._weight_on_device is None or self._weight != weight:
            numbers = (weight.beta, weight.capacity_nats)
            self._weight_on_device = KLWeight(*(torch.full((), float(each), device=self.device) for each in numbers))
            self._weight = weight
        return self._weight_on_device

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
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
        first = order.first + batch_idx * order.batch_size
        noise = self._evaluation_noise(first, len(batch["images"]), order.batch_size)
        evaluated = self.evaluate(batch["images"], noise, self.objective.final_weight)
        self._add(stage, evaluated, with_likelihood=True)

    def _add(self, stage: str, evaluated: Evaluated, with_likelihood: bool) -> None:
        """Counts a batch; in training the likelihood, which is slow, is that of one batch in each logging window."""
        statistics, prediction = self._statistics(stage), evaluated.prediction
        statistics.update(evaluated.sums)
        if with_likelihood and self.model.has_prior:
            variance = self._pixel_variance(prediction)
            nll = discretised_gaussian_nll(prediction.mean, evaluated.pixels, variance, self.model.pixel_range)
            statistics.update_likelihood(nll)

    def on_validation_epoch_end(self) -> None:
        self.remember_best(self._log_statistics("val", "val", self.objective.final_weight))

    def on_test_epoch_end(self) -> None:
        self._log_statistics("test", "test", self.objective.final_weight)

    def evaluate(
        self,
        images: UInt8[Tensor, "batch channels height width"],
        noise: Float[Tensor, "batch latent"],
        weight: KLWeight,
    ) -> Evaluated:
        """The model and its objective on one batch: a function of tensors, so that it can be compiled."""
        pixels = to_pixel_range(images, self.model.pixel_range)
        posterior = self.model.encode(pixels)
        prediction = self.model.predict_pixels(posterior.sample(noise))
        terms = self.objective(pixels, prediction, posterior, weight)
        with torch.no_grad():
            squared_error = self.objective.reconstruction.squared_error(terms.reconstruction_nats)
            if squared_error is None:
                mse = mean_squared_error(prediction.mean, pixels, self.model.pixel_range)
            else:  # two passes over all pixels less
                low, high = self.model.pixel_range
                mse = squared_error / (self.model.num_pixels * (high - low) ** 2)
        return Evaluated(terms.loss, batch_sums(terms, posterior.mean, mse), pixels, prediction.detach())

    def _pixel_variance(self, prediction: PixelPrediction) -> Float[Tensor, "..."]:
        """Of pixels in [0, 1]: the objective's own where it has one, else calibrated to the training error."""
        variance = self.objective.reconstruction.pixel_variance(prediction)
        if variance is None:
            return self.pixel_variance
        low, high = prediction.pixel_range
        return variance / (high - low) ** 2

    def _evaluation_noise(self, first: int, count: int, size: int) -> Float[Tensor, "count latent"]:
        """Noise of `count` rows of a split from `first` on, in blocks of `size`: whichever process has them."""
        blocks = range(first // size, (first + count - 1) // size + 1)
        noise = torch.cat([self._noise(size, EVALUATION_NOISE_SEED, block) for block in blocks])
        return noise[first - blocks[0] * size :][:count]

    def _noise(self, count: int, *seeds: int) -> Float[Tensor, "count latent"]:
        """Standard normal noise that depends on `seeds` only: not on history, not on what else draws noise."""
        generator = torch.Generator(self.device)
        mixed = 0
        for seed in seeds:
            mixed = (mixed * 1_000_003 + seed + 1) % 2**62
        generator.manual_seed((mixed * 1_000_003 + 1) % 2**62)
        return torch.randn(count, self.model.latent_dim, generator=generator, device=self.device)

    def _calibrate(self, sums: BatchSums, step: int) -> None:
        """Follows the training error: the variance that makes N(reconstruction, variance) most likely."""
        weight = max(1 / (step + 1), RUNNING_WEIGHT)
        self.pixel_variance.lerp_(mean_over_processes(sums.mse).clamp_min(1e-8), weight)

    def _statistics(self, stage: str) -> ObjectiveStatistics:
        statistics = self.statistics[stage]
        assert isinstance(statistics, ObjectiveStatistics)
        return statistics

    def _log_statistics(self, prefix: str, stage: str, weight: KLWeight) -> dict[str, float]:
        statistics = self._statistics(stage)
        values = statistics.compute()
        # torchmetrics makes a number of the vector of a single latent
        kl_nats_per_latent = values.pop("kl_nats_per_latent").reshape(self.model.latent_dim)
        if stage != "fit":
            self.kl_nats_per_latent = kl_nats_per_latent
        if self.model.has_prior:
            values["beta"] = torch.as_tensor(weight.beta)
        if self.model.has_prior and self.objective.has_capacity:
            values["capacity_nats"] = torch.as_tensor(weight.capacity_nats)
        sigma = self.objective.reconstruction.sigma(self.model.pixel_range)
        if sigma is not None:
            values["sigma"] = sigma
        statistics.reset()
        return self.log_now({f"{prefix}/{name}": value for name, value in values.items()})
