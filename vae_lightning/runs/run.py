"""The class Run: a trained model that encodes, decodes, samples, interpolates and edits, in four lines of Python."""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vae_lightning.latents.directions import DirectionFile, Directions
from vae_lightning.latents.paths import latents_between
from vae_lightning.latents.priors import Prior, StandardNormal
from vae_lightning.latents.priors.file import PriorFile
from vae_lightning.latents.statistics import LatentStatistics, LatentStatisticsFile, latent_statistics
from vae_lightning.losses import ReconstructionLoss
from vae_lightning.models import Autoencoder
from vae_lightning.models.pixels import to_pil
from vae_lightning.runs.checkpoints import build_reconstruction
from vae_lightning.runs.data_record import data_settings
from vae_lightning.runs.fitted import direction_file, prior_file, statistics_file
from vae_lightning.runs.image_codec import ImageCodec, Images, Pictures
from vae_lightning.runs.layout import RECONSTRUCTION_PREFIX, RECORD_KEY, RunError, run_folder
from vae_lightning.system.progress import Track, untracked
from vae_lightning.system.terminal import command

if TYPE_CHECKING:
    from vae_lightning.data import FaceDataModule

log = logging.getLogger("vae_lightning")
FACES_FOR_STATISTICS = 1_000
FACES_AT_ONCE = 128


class Run(ImageCodec):
    """A trained model with the settings that made it, and with what was fitted to it since.

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
        self.epoch: int = content["epoch"]  # from 0
        weights = content["state_dict"]
        of_the_term = {name: weights[name] for name in weights if name.startswith(RECONSTRUCTION_PREFIX)}
        self._term = {RECORD_KEY: self.record, "state_dict": of_the_term}

    @cached_property
    def reconstruction(self) -> ReconstructionLoss:
        """The pixel term that the model was trained with.

        Raises:
            RunError: the checkpoint names a class that is not one of ours, or does not hold the term's state.
        """
        return build_reconstruction(self._term).to(self.device)

    @cached_property
    def data(self) -> "FaceDataModule":
        """The data that the run was trained on, opened when they are first asked for.

        Raises:
            DataError: the data are not where they were.
        """
        from vae_lightning.data import FaceDataModule  # Lightning, which takes longer to import than a model to load

        data = FaceDataModule(**data_settings(self.record))
        data.prepare_data()
        return data

    @property
    def _marks(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The data of the training, and those at hand now where they have been opened."""
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
        self, num_samples: int = 16, temperature: float = 1.0, seed: int | None = None, prior: str = "normal"
    ) -> Float[Tensor, "samples latent"]:
        """Samples of a prior, on the CPU; arguments and errors as of `sample`."""
        if temperature < 0 or num_samples < 1:
            raise ValueError(
                f"temperature={temperature}, num_samples={num_samples}: needed are a temperature of 0 or more "
                "and at least 1 sample"
            )
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        return self.prior(prior).sample(num_samples, generator, temperature)

    def sample(
        self,
        num_samples: int = 16,
        temperature: float = 1.0,
        seed: int | None = None,
        prior: str = "normal",
        *,
        as_pil: bool = False,
    ) -> Pictures:
        """Decoded samples of a prior.

        Args:
            num_samples: how many.
            temperature: factor on the spread of the latents; 1 is the prior, less is closer to the average face.
            seed: the same seed gives the same faces, on every device; None draws new ones.
            prior: "normal", what the run was trained with, or one fitted since: "gaussian", "gmm", "flow".
            as_pil: PIL images instead of a tensor.

        Raises:
            RunError: the run is a plain autoencoder and no prior was named, or that one is not fitted yet.
            ValueError: no such prior, a temperature below 0, or fewer than 1 sample.
        """
        latents = self.sample_latents(num_samples, temperature, seed, prior)
        return self.decode(latents, as_pil=as_pil)

    def prior(self, name: str) -> Prior:
        """A density of the latents to sample from.

        Raises:
            RunError: a plain autoencoder has no "normal" one, or this one was not fitted to this checkpoint.
            ValueError: no such prior.
        """
        if name == "normal":
            if not self.model.has_prior:
                raise RunError(
                    f"{self.path}: posterior=deterministic made this a plain autoencoder, without a prior of its own "
                    f"to sample from. Fit one ({command('vae evaluate RUN --metrics samplers')}), then take "
                    "prior=gmm, or reconstruct"
                )
            return StandardNormal(self.model.latent_dim)
        prior = prior_file(self.path, self.record["data"]).read(name)
        if prior is None:
            raise RunError(
                f"prior={name}: not fitted to {self.path} yet; "
                f"this does it: {command(f'vae evaluate {run_folder(self.path)} --metrics samplers')}"
            )
        return prior

    def interpolate(
        self, first: Images, second: Images, num_steps: int = 9, path: str = "linear", *, as_pil: bool = False
    ) -> Pictures:
        """Decoded ways from each image of `first` to the one at its place in `second`, both ends counted.

        Args:
            first: where the ways begin.
            second: as many images, where they end.
            num_steps: 2 or more.
            path: "linear", or "spherical": round the origin at a length that changes linearly.
            as_pil: for each way a list of PIL images, instead of one tensor.

        Raises:
            ValueError: no such path, or fewer than 2 steps.
        """
        latents = latents_between(self.encode(first).mean, self.encode(second).mean, num_steps, path)
        ways = self.decode(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        return [to_pil(way) for way in ways] if as_pil else ways

    def edit(
        self,
        images: Images,
        attribute: str,
        strength: float = 1.0,
        method: str = "means",
        orthogonal_to: Sequence[str] = (),
        unit: str = "class",
        *,
        as_pil: bool = False,
    ) -> Pictures:
        """Images with more of an attribute, or less with a negative strength.

        Args:
            images: of people.
            attribute: as the data call it: Smiling, Eyeglasses, …
            strength: 1 reaches the mean of those who have it, with unit="std" one standard deviation of the latents.
            method: "means", the difference of the class means, or "probe", the normal of a linear probe.
            orthogonal_to: attributes that shall stay as they are.
            unit: of the strength.
            as_pil: PIL images instead of a tensor.

        Raises:
            RunError: no directions were fitted to this checkpoint yet.
            ValueError: no such attribute, method or unit.
        """
        shift = self.directions().direction(attribute, method, orthogonal_to).shift(strength, unit)
        latents = self.encode(images).mean + shift.to(self.device)
        return self.decode(latents, as_pil=as_pil)

    def directions(self) -> Directions:
        """What was fitted to the latents of this checkpoint: ways that add an attribute.

        Raises:
            RunError: nothing yet.
        """
        directions = direction_file(self.path, self.record["data"]).read()
        if directions is None:
            raise RunError(
                f"no directions were fitted to {self.path} yet; this does it: "
                + command(f"vae edit directions {run_folder(self.path)}")
            )
        return directions

    def latent_statistics(self, track: Track = untracked) -> LatentStatistics:
        """Where the latents of held-out faces lie; measured on the first call, and kept beside the checkpoint.

        Measured again where the data have been opened (`held_out_faces`) and are others than those measured.

        Args:
            track: shows progress.

        Raises:
            DataError: not measured yet, and the data is not where it was.
        """
        statistics = self.statistics_file.read()
        if statistics is None:
            parts = self.held_out_faces("val", FACES_FOR_STATISTICS).split(FACES_AT_ONCE)
            numbers = track(range(len(parts)), "Measuring latents of held-out faces", len(parts))
            statistics = latent_statistics([self.encode(parts[number]) for number in numbers])
            file = self.statistics_file
            try:
                file.write(statistics)
            except OSError as error:  # a folder of somebody else's
                log.warning(f"{file.path} cannot be written ({error.strerror}): they are measured anew each time")
        return statistics

    def held_out_faces(self, split: Literal["val", "test"], count: int) -> UInt8[Tensor, "batch channels height width"]:
        """Faces of the data that the run was trained on, evenly spaced over a split that it never saw.

        Raises:
            DataError: the data is not where it was.
        """
        return self.data.held_out_faces(split, count)
