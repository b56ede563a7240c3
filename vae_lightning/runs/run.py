"""The class Run: a trained model that encodes, decodes, samples, interpolates and edits, in four lines of Python."""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Float, UInt8
from torch import Tensor

from vae_lightning.latents.directions import DirectionFile, Directions
from vae_lightning.latents.finer import with_finer
from vae_lightning.latents.paths import latents_between
from vae_lightning.latents.priors import Prior, StandardNormal
from vae_lightning.latents.priors.file import PriorFile
from vae_lightning.latents.statistics import LatentStatistics, LatentStatisticsFile, latent_statistics
from vae_lightning.latents.temperature import Temperature, temperature_per_latent
from vae_lightning.losses import ReconstructionLoss
from vae_lightning.models import Autoencoder
from vae_lightning.models.distributions import PixelPrediction
from vae_lightning.models.pixels import to_pil
from vae_lightning.runs.checkpoints import build_reconstruction
from vae_lightning.runs.data_record import data_settings
from vae_lightning.runs.fitted import direction_file, prior_file, statistics_file
from vae_lightning.runs.image_codec import ImageCodec, Images, Pictures, generator_of
from vae_lightning.runs.layout import RECONSTRUCTION_PREFIX, RECORD_KEY, RunError, run_folder
from vae_lightning.system.progress import Track, untracked
from vae_lightning.system.terminal import command

if TYPE_CHECKING:
    from vae_lightning.data import FaceDataModule

log = logging.getLogger("vae_lightning")
FACES_FOR_STATISTICS = 1_000
FACES_AT_ONCE = 128


class Run(ImageCodec):
    """A trained model with its settings, its data, and the priors, directions and statistics that were fitted to it.

    >>> from vae_lightning import load_run
    >>> vae = load_run("outputs/2026-11-20_12-00-00")
    >>> vae.sample(16, temperature=0.7, seed=0).shape
    torch.Size([16, 3, 64, 64])
    >>> from PIL import Image
    >>> photograph = Image.new("RGB", (600, 800), "tan")
    >>> vae.encode(photograph).mean.shape
    torch.Size([1, 128])
    >>> vae.reconstruct(photograph, as_pil=True)[0].size
    (64, 64)
    >>> latents = vae.sample_latents(4, seed=0)
    >>> latents[:, 3] += 2
    >>> len(vae.decode(latents, as_pil=True))
    4
    """

    def __init__(self, model: Autoencoder, path: Path, content: Mapping[str, Any]) -> None:
        super().__init__(model, content[RECORD_KEY])
        self.path = path
        self.epoch: int = content["epoch"] + 1  # from 1; in Lightning's checkpoints from 0
        weights = content["state_dict"]
        of_the_term = {name: weights[name] for name in weights if name.startswith(RECONSTRUCTION_PREFIX)}
        self._term = {RECORD_KEY: self.record, "state_dict": of_the_term}

    @cached_property
    def reconstruction(self) -> ReconstructionLoss:
        """The pixel term that the model was trained with.

        Raises:
            RunError: the class is not one of the package's pixel terms, or the checkpoint does not hold its state.
        """
        return build_reconstruction(self._term).to(self.device)

    @cached_property
    def data(self) -> "FaceDataModule":
        """The data that the run was trained on, opened on first use; a warning says if they have changed since.

        Raises:
            DataError: the data have moved.
        """
        from vae_lightning.data import FaceDataModule  # Lightning, which takes longer to import than a model to load

        data = FaceDataModule(**data_settings(self.record))
        data.prepare_data()
        data.check_unchanged(self.record["data"], self.path, is_same_run=False)
        return data

    @property
    def _marks(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Records of the training's data, and of the data as they are now, if they have been opened."""
        return self.record["data"], self.data.record() if "data" in vars(self) else None

    @property
    def prior_file(self) -> PriorFile:
        return prior_file(self.path, *self._marks)

    @property
    def direction_file(self) -> DirectionFile:
        return direction_file(self.path, *self._marks)

    @property
    def statistics_file(self) -> LatentStatisticsFile:
        return statistics_file(self.path, *self._marks)

    def sample_latents(
        self, num_samples: int = 16, temperature: Temperature = 1.0, seed: int | None = None, prior: str = "normal"
    ) -> Float[Tensor, "samples latent"]:
        """Samples of a prior, on the CPU; arguments and errors as in `sample`."""
        scale = temperature_per_latent(temperature, self.model.latent_levels)
        return self.prior(prior).sample(num_samples, generator_of(seed), scale)

    def sample(
        self,
        num_samples: int = 16,
        temperature: Temperature = 1.0,
        seed: int | None = None,
        prior: str = "normal",
        *,
        pixel_temperature: float = 0.0,
        as_pil: bool = False,
    ) -> Pictures:
        """Decoded samples of a prior.

        Args:
            num_samples: how many.
            temperature: factor on the spread of the latents; 1 is the prior, less is closer to the average face. For a
                hierarchical model also by level: {"4x4": 1.0, "8x8": 0.6}, 1 for those that are not named. A fitted
                prior scales the levels that it was fitted to together.
            seed: the same seed gives the same faces on every device; None draws new ones.
            prior: "normal", the prior of the training, or a fitted one: "gaussian", "gmm", "flow".
            pixel_temperature: of the pixels given the latents, see `decode`.
            as_pil: PIL images instead of a tensor.

        Raises:
            RunError: the prior is not fitted yet, or it is "normal" and the run is a plain autoencoder.
            ValueError: there is no prior or level of this name, a temperature below 0, levels of a fitted prior at
                several temperatures, fewer than 1 sample, or no pixels to draw, see `decode`.
        """
        latents = self.sample_latents(num_samples, temperature, seed, prior)
        return self.decode(latents, pixel_temperature=pixel_temperature, seed=seed, as_pil=as_pil)

    def _distribution(self, prediction: PixelPrediction) -> PixelPrediction:
        return self.reconstruction.distribution(prediction)

    def prior(self, name: str) -> Prior:
        """A density of the latents to sample from.

        Raises:
            RunError: a plain autoencoder has no "normal" prior, or the prior was not fitted to this checkpoint.
            ValueError: there is no prior of this name.
        """
        if name == "normal":
            if not self.model.has_prior:
                raise RunError(
                    f"{self.path}: posterior=deterministic makes this a plain autoencoder, which has no prior to "
                    f"sample from. Fit one with {self._fit_priors}, then use prior=gmm"
                )
            return StandardNormal(self.model.latent_dim)
        prior = prior_file(self.path, self.record["data"]).read(name)
        if prior is None:
            raise RunError(f"prior={name} is not fitted to {self.path} yet; fit it with {self._fit_priors}")
        return prior

    @property
    def _fit_priors(self) -> str:
        return command(f"vae evaluate {run_folder(self.path)} --metrics samplers")

    def interpolate(
        self, first: Images, second: Images, num_steps: int = 9, path: str = "linear", *, as_pil: bool = False
    ) -> Pictures:
        """Decoded paths from each image of `first` to the image at the same place in `second`.

        Args:
            first: where the paths begin.
            second: as many images, where they end.
            num_steps: images on a path with both ends, 2 or more.
            path: "linear", or "spherical": round the origin of each level, with a length that changes linearly.
            as_pil: for each path a list of PIL images, instead of one tensor.

        Raises:
            ValueError: an unknown path, or fewer than 2 steps.
        """
        ends = self.encode(first).mean, self.encode(second).mean
        latents = latents_between(*ends, num_steps, path, self.model.latent_levels)
        paths = self.decode(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        return [to_pil(images) for images in paths] if as_pil else paths

    def edit(
        self,
        images: Images,
        attribute: str,
        strength: float = 1.0,
        method: str = "means",
        orthogonal_to: Sequence[str] = (),
        unit: str = "std",
        *,
        finer: str = "keep",
        seed: int = 0,
        as_pil: bool = False,
    ) -> Pictures:
        """Images with more of an attribute, or less with a negative strength.

        Args:
            images: of people.
            attribute: its name in the data: Smiling, Eyeglasses, …
            strength: 1 moves by one standard deviation of the training latents along the direction, as in `vae edit`,
                the explorer and the demo; with unit="class" by the difference of the class means.
            method: "means", the difference of the class means, or "probe", the normal of a linear probe.
            orthogonal_to: attributes that should not change.
            unit: of the strength, "std" or "class".
            finer: what becomes of a hierarchical model's levels that the direction does not move: "keep" the images'
                own, "redraw" them from N(0, I), or "mean": 0.
            seed: of finer="redraw".
            as_pil: PIL images instead of a tensor.

        Raises:
            RunError: no directions are fitted to this checkpoint yet.
            ValueError: an unknown attribute, method or unit, or there are no finer levels to change.
        """
        directions = self.directions()
        shift = directions.direction(attribute, method, orthogonal_to).shift(strength, unit)
        latents = with_finer(self.encode(images).mean, directions.num_moved, finer, seed)
        return self.decode(latents + shift.to(self.device), as_pil=as_pil)

    def directions(self) -> Directions:
        """The attribute directions that were fitted to the latents of this checkpoint.

        Raises:
            RunError: none are fitted yet.
        """
        directions = direction_file(self.path, self.record["data"]).read()
        if directions is None:
            raise RunError(
                f"no attribute directions are fitted to {self.path} yet; fit them with "
                + command(f"vae edit directions {run_folder(self.path)}")
            )
        return directions

    def latent_statistics(self, track: Track = untracked) -> LatentStatistics:
        """Mean, spread and KL of the latents of validation faces; measured on the first call, then kept in a file.

        They are measured again if the data have been opened (`held_out_faces`) and have changed since.

        Args:
            track: shows progress.

        Raises:
            DataError: they are not measured yet, and the data have moved.
        """
        statistics = self.statistics_file.read()
        if statistics is None:
            parts = self.held_out_faces("val", FACES_FOR_STATISTICS).split(FACES_AT_ONCE)
            numbers = track(range(len(parts)), "Measuring latents of held-out faces", len(parts))
            statistics = latent_statistics([self.encode(parts[number]) for number in numbers])
            file = self.statistics_file
            try:
                file.write(statistics)
            except OSError as error:  # no permission to write there
                log.warning(
                    f"{file.path} cannot be written ({error.strerror}): these statistics are measured again every time"
                )
        return statistics

    def held_out_faces(self, split: Literal["val", "test"], count: int) -> UInt8[Tensor, "batch channels height width"]:
        """Faces of the run's data, evenly spaced over a split that it was not trained on.

        Raises:
            DataError: the data have moved.
        """
        return self.data.held_out_faces(split, count)
