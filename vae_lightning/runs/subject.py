"""The class Subject: a trained model with its data, as metrics and edits use it; shared results are computed once."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vae_lightning.data import FaceDataModule
from vae_lightning.data.sources.source import Split
from vae_lightning.latents.priors import CoarsePrior, Prior, StandardNormal, fit_prior
from vae_lightning.latents.priors.file import PriorFile
from vae_lightning.losses.reconstruction import ReconstructionLoss
from vae_lightning.models import Autoencoder
from vae_lightning.models.distributions import (
    Deterministic,
    DiagonalGaussian,
    PixelPrediction,
    Posterior,
    PosteriorDraw,
)
from vae_lightning.models.levels import chosen_levels
from vae_lightning.models.pixels import to_pixel_range, to_uint8, to_unit_range
from vae_lightning.runs.run import Run
from vae_lightning.system.progress import Track, untracked

Images = Float[Tensor, "batch channels height width"]
Sampler = Callable[[slice, Tensor], tuple[Images, PosteriorDraw, PixelPrediction]]
PRIOR_SEED = 0
MOST_FITTED = 10_000  # training images that probes, predictors and priors are fitted to
BATCH_PIXELS = 2**20  # of images decoded at once: 256 at 64x64


class Subject:
    """A model with its data.

    Everything is computed in float32 on `device` and kept in CPU memory. Noise is drawn on the CPU, row by row of a
    split, so that results depend on device and batch size by rounding only.

    Args:
        model: in eval mode.
        data: opened; `split` is evaluated, and priors, probes and directions are fitted to the training split.
        reconstruction: the pixel term that the model was trained with, for its likelihood.
        split: of `data`.
        device: where the model is.
        seed: of all noise, resampling and fitting.
        batch_size: images at once; None = as many as have 2^20 pixels.
        track: shows progress.
        prior_file: keeps fitted priors; None keeps them in memory only.
        levels: names of the coarsest levels of a hierarchical model, which priors, probes, directions and bases are
            fitted to; None: as many as have at most 1,024 latents.

    Raises:
        ValueError: a batch size below 1, or as `chosen_levels`.
    """

    def __init__(
        self,
        model: Autoencoder,
        data: FaceDataModule,
        reconstruction: ReconstructionLoss,
        *,
        split: Split = "test",
        device: torch.device | str = "cpu",
        seed: int = 0,
        batch_size: int | None = None,
        track: Track = untracked,
        prior_file: PriorFile | None = None,
        levels: Sequence[str] | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: at least 1 is allowed")
        self.model = model
        self.data = data
        self.reconstruction = reconstruction.eval()
        self.split: Split = split
        self.device = torch.device(device)
        self.seed = seed
        self.batch_size = batch_size or max(1, BATCH_PIXELS // (model.image_size**2))
        self.track = track
        self.prior_file = prior_file
        self.levels = chosen_levels(model.latent_levels, levels)
        self._codes: dict[tuple[Split, int], Float[Tensor, "rows code"]] = {}
        self._posteriors: dict[tuple[Split, int], Posterior] = {}
        self._priors: dict[str, Prior] = {"normal": StandardNormal(model.latent_dim)}

    def rows(self, split: Split, at_most: int | None = None) -> Int64[np.ndarray, " rows"]:
        """All rows of a split, or at most so many, evenly spaced."""
        count = len(self.data.split(split))
        kept = count if at_most is None else min(count, at_most)
        return np.linspace(0, count - 1, kept).round().astype(np.int64)

    def batches(self, count: int, description: str) -> Iterator[slice]:
        """Slices that divide `count` rows into batches; shows progress."""
        firsts = range(0, count, self.batch_size)
        for first in self.track(firsts, description, len(firsts)):
            yield slice(first, min(first + self.batch_size, count))

    def pixels(self, split: Split, rows: Int64[np.ndarray, " batch"]) -> UInt8[Tensor, "batch channels height width"]:
        """uint8 images on the device."""
        return self.data.split(split).gather(rows).to(self.device)

    def model_input(self, pixels: UInt8[Tensor, "batch channels height width"]) -> Images:
        return to_pixel_range(pixels, self.model.pixel_range)

    @property
    def num_coarse(self) -> int:
        """Latents of `levels`, which come first: all latents of a flat model."""
        return sum(level.size for level in self.levels)

    @property
    def level_names(self) -> tuple[str, ...]:
        """Names of `levels`; none of a flat model."""
        return () if self.model.is_flat else tuple(level.name for level in self.levels)

    @property
    def which_latents(self) -> str:
        """Which latents codes and fitted priors are of, in words; empty for a flat model."""
        all_latents = f"{self.num_coarse:,} of {self.model.latent_dim:,} latents"
        return "" if self.model.is_flat else f" of the levels {', '.join(self.level_names)} ({all_latents})"

    def codes(self, split: Split | None = None, at_most: int | None = None) -> Float[Tensor, "rows code"]:
        """Posterior means of `levels` for `rows(split, at_most)`, on the CPU: what probes and scores read."""
        if self.model.is_flat:
            return self.posterior(split, at_most).mean
        split = split or self.split
        key = (split, len(self.rows(split, at_most)))
        if key in self._posteriors:
            return self._posteriors[key].mean[:, : self.num_coarse]
        if key not in self._codes:  # the finer levels of thousands of images would fill the memory
            parts = [part.mean[:, : self.num_coarse].clone() for part in self._encoded(split, at_most)]
            self._codes[key] = torch.cat(parts).cpu()
        return self._codes[key]

    def posterior(self, split: Split | None = None, at_most: int | None = None) -> Posterior:
        """q(z|x) of `rows(split, at_most)`, on the CPU."""
        split = split or self.split
        key = (split, len(self.rows(split, at_most)))
        if key not in self._posteriors:
            parts = list(self._encoded(split, at_most))
            kind, names = type(parts[0]), [one.name for one in fields(parts[0])]
            self._posteriors[key] = kind(*(torch.cat([getattr(part, name).cpu() for part in parts]) for name in names))
        return self._posteriors[key]

    def _encoded(self, split: Split, at_most: int | None) -> Iterator[Posterior]:
        rows = self.rows(split, at_most)
        for part in self.batches(len(rows), f"Encoding {split} images"):
            with torch.inference_mode():
                posterior = self.model.encode(self.model_input(self.pixels(split, rows[part])))
            yield posterior

    def draws(
        self, noise: Float[Tensor, "rows latent"], split: Split | None = None, at_most: int | None = None
    ) -> Iterator[tuple[slice, PosteriorDraw]]:
        """A draw from q(z|x) for each of `rows(split, at_most)`, on the CPU.

        In parts, because a hierarchical model's latents of thousands of images would fill the memory.
        """
        split = split or self.split
        if self.model.is_flat:
            every = slice(0, len(noise))
            yield every, _part_of(self.posterior(split, at_most), every).draw(noise)
            return
        rows = self.rows(split, at_most)
        for part in self.batches(len(rows), f"Drawing latents of {split} images"):
            with torch.inference_mode():
                images = self.model_input(self.pixels(split, rows[part]))
                draw = self.model.draw(images, noise[part].to(self.device))
            yield part, PosteriorDraw(draw.latents.cpu(), draw.kl_per_latent.cpu(), draw.log_ratio.cpu())

    def sampler(self, split: Split | None = None, at_most: int | None = None) -> Sampler:
        """Part of `rows(split, at_most)` and noise -> its images for the model, a draw for each, and p(x|z) there.

        A flat posterior is encoded once for all draws; a hierarchical one has to see the images in each.
        """
        split = split or self.split
        rows = self.rows(split, at_most)
        posterior = self.posterior(split, at_most) if self.model.is_flat else None

        @torch.inference_mode()
        def sample(part: slice, noise: Float[Tensor, "batch latent"]) -> tuple[Images, PosteriorDraw, PixelPrediction]:
            images = self.model_input(self.pixels(split, rows[part]))
            if posterior is None:
                return images, *self.model.draw_and_predict(images, noise.to(self.device))
            draw = _part_of(posterior, part).draw(noise)
            return images, draw, self.predict(draw.latents)

        return sample

    def noise(self, count: int, purpose: str, *numbers: int) -> Float[Tensor, "count latent"]:
        """Standard normal noise on the CPU; it depends on the seed, the purpose and the numbers only."""
        generator = torch.Generator().manual_seed(self.seed_of(purpose, *numbers))
        return torch.randn(count, self.model.latent_dim, generator=generator)

    def seed_of(self, purpose: str, *numbers: int) -> int:
        """A seed for each purpose, so that no two purposes share random numbers."""
        entropy = [self.seed, *purpose.encode(), *numbers]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])

    def predict(self, latents: Float[Tensor, "batch latent"]) -> PixelPrediction:
        return self.model.predict_pixels(latents.to(self.device))

    @torch.inference_mode()
    def decode(self, latents: Float[Tensor, "batch latent"]) -> Images:
        """Latents on any device -> images in [0, 1] on `device`."""
        return to_unit_range(self.model.decode(latents.to(self.device)), self.model.pixel_range)

    def decode_uint8(self, latents: Float[Tensor, "batch latent"]) -> UInt8[Tensor, "batch channels height width"]:
        """Rounded to 256 levels, as a picture file would hold them; on the device."""
        return to_uint8(self.decode(latents), (0.0, 1.0))

    def fitting_latents(self) -> Float[Tensor, "images code"]:
        """One sample of q(z|x) for each training image that priors are fitted to: the latents of `levels`.

        It does not depend on `seed`, so that a checkpoint has one set of fitted priors.
        """
        generator = torch.Generator().manual_seed(PRIOR_SEED)
        count = len(self.rows("train", MOST_FITTED))
        noise = torch.randn(count, self.model.latent_dim, generator=generator)
        draws = self.draws(noise, "train", MOST_FITTED)
        return torch.cat([draw.latents[:, : self.num_coarse].clone() for _, draw in draws])

    def prior(self, name: str) -> Prior:
        """A prior over the latents, fitted if it is not yet.

        Raises:
            ValueError: there is no prior of this name.
        """
        if name not in self._priors:
            kept = self.prior_file.read(name) if self.prior_file else None
            if isinstance(kept, CoarsePrior) and kept.levels != self.level_names:
                kept = None  # fitted to other levels than are asked for now
            self._priors[name] = kept or self._fit(name)
        return self._priors[name]

    def _fit(self, name: str) -> Prior:
        fitted = fit_prior(name, self.fitting_latents(), seed=PRIOR_SEED, track=self.track)
        names, latent_dim = self.level_names, self.model.latent_dim
        prior = fitted if self.model.is_flat else CoarsePrior(fitted, names, latent_dim)
        if self.prior_file:
            self.prior_file.write(name, prior)
        return prior

    def attributes(self, split: Split, at_most: int | None = None) -> Bool[np.ndarray, "rows attributes"] | None:
        """Attributes of `rows(split, at_most)`; None where the data have no attributes."""
        attributes = self.data.split(split).attributes
        return None if attributes is None else attributes[self.rows(split, at_most)]

    def people(self, split: Split, at_most: int | None = None) -> Int64[np.ndarray, " rows"]:
        """Identities on `rows(split, at_most)`; data without identities count as one person per image."""
        rows, identities = self.rows(split, at_most), self.data.identities(split)
        return np.arange(len(rows)) if identities is None else identities[rows]

    def factors(
        self, split: Split, at_most: int | None = None
    ) -> tuple[tuple[str, ...], Float[np.ndarray, "rows factors"]] | None:
        """Names and values of the factors of `rows(split, at_most)`; only rendered faces have them, else None."""
        known = self.data.factors(split)
        return None if known is None else (known[0], known[1][self.rows(split, at_most)])


def _part_of(posterior: Posterior, part: slice) -> DiagonalGaussian | Deterministic:
    """The posterior of a part of the images of a flat model."""
    if isinstance(posterior, Deterministic):
        return Deterministic(posterior.mean[part])
    assert isinstance(posterior, DiagonalGaussian), "a hierarchical model draws level by level"
    return DiagonalGaussian(posterior.mean[part], posterior.logvar[part])


def open_subject(
    run: Run,
    *,
    split: Split = "test",
    seed: int = 0,
    batch_size: int | None = None,
    track: Track = untracked,
    levels: Sequence[str] | None = None,
) -> Subject:
    """A run with its data; the model is a copy of the run's.

    Raises:
        ValueError: as `Subject`.
        DataError: the data have moved or changed.
        RunError: the checkpoint does not hold the state of its pixel term.
    """
    return Subject(
        deepcopy(run.model).to(memory_format=torch.channels_last),  # a third faster on CPUs
        run.data,
        run.reconstruction,
        split=split,
        device=run.device,
        seed=seed,
        batch_size=batch_size,
        track=track,
        prior_file=run.prior_file,
        levels=levels,
    )
