"""A run folder or a checkpoint -> a model that is ready to use, in four lines of Python."""

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from vae_lightning.checkpoints import build_model, read_checkpoint
from vae_lightning.data import FaceDataModule, Preprocessing
from vae_lightning.data.noise import SIZE as ALIGNED_SIZE
from vae_lightning.data.preprocessing import as_crop, upright_rgb
from vae_lightning.directions import DirectionFile
from vae_lightning.distributions import Posterior
from vae_lightning.latent_paths import latents_between
from vae_lightning.models import Autoencoder
from vae_lightning.module import MODEL_PREFIX
from vae_lightning.pixels import to_pixel_range, to_uint8, to_unit_range
from vae_lightning.priors import Prior, StandardNormal
from vae_lightning.priors.file import PriorFile
from vae_lightning.run_folders import RunError, checkpoint_file, run_folder
from vae_lightning.run_module import RECORD_KEY

WITH_A_ROOT = ("celeba", "folder")  # data sets that lie in a folder of the user's
ALIGNED_SOURCES = ("celeba", "faces", "noise")  # their images have ALIGNED_SIZE (width, height), faces in one place
Images = Shaped[Tensor, "*shape"] | Image.Image | Sequence[Image.Image]


class Run:
    """A trained model with the settings that made it.

    Images go in as uint8 [0, 255] or float [0, 1] tensors, (C, H, W) or (B, C, H, W), or as PIL images of any size
    (see `preprocess`). They come out as float tensors in [0, 1] on the run's device, whatever the
    model's own pixel range.

    >>> vae = load_run("outputs/2026-11-20_12-00-00")  # doctest: +SKIP
    >>> faces = vae.sample(16, temperature=0.7, seed=0)  # doctest: +SKIP
    """

    def __init__(self, model: Autoencoder, record: dict[str, Any], path: Path) -> None:
        self.model = model.eval().requires_grad_(False)
        self.record = record
        self.path = path

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration of the run."""
        config: dict[str, Any] = self.record["config"]
        return config

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def encode(self, images: Images) -> Posterior:
        """q(z|x); its `mean` is the best single guess of an image's latents."""
        return self.model.encode(self._as_model_input(images))

    @torch.inference_mode()
    def decode(self, latents: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch channels height width"]:
        return to_unit_range(self.model.decode(latents.to(self.device)), self.model.pixel_range)

    def reconstruct(self, images: Images) -> Float[Tensor, "batch channels height width"]:
        """Decoded posterior means."""
        return self.decode(self.encode(images).mean)

    def sample(
        self, num_samples: int = 16, temperature: float = 1.0, seed: int | None = None, prior: str = "normal"
    ) -> Float[Tensor, "batch channels height width"]:
        """Decoded samples of a prior.

        Args:
            num_samples: how many.
            temperature: factor on the spread of the latents; 1 is the prior, less is closer to the average face.
            seed: the same seed gives the same faces, on every device; None draws new ones.
            prior: "normal", what the run was trained with, or one fitted since: "gaussian", "gmm", "flow".

        Raises:
            RunError: the run is a plain autoencoder and no prior was named, or that one is not fitted yet.
            ValueError: no such prior, a temperature below 0, or fewer than 1 sample.
        """
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
        return self.decode(self.prior(prior).sample(num_samples, generator, temperature))

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
                    "to sample from; fit one (vae evaluate RUN --metrics samplers, then prior=gmm), or reconstruct"
                )
            return StandardNormal(self.model.latent_dim)
        prior = prior_file(self.path).read(name)
        if prior is None:
            raise RunError(
                f"prior={name}: not fitted to {self.path} yet; "
                f"this does it: vae evaluate {run_folder(self.path)} --metrics samplers"
            )
        return prior

    def interpolate(
        self, first: Images, second: Images, num_steps: int = 9, path: str = "linear"
    ) -> Float[Tensor, "batch steps channels height width"]:
        """Decoded ways from each image of `first` to the one at its place in `second`, both ends counted.

        Args:
            first: where the ways begin.
            second: as many images, where they end.
            num_steps: 2 or more.
            path: "linear", or "spherical": round the origin at a length that changes linearly.

        Raises:
            ValueError: no such path, or fewer than 2 steps.
        """
        latents = latents_between(self.encode(first).mean, self.encode(second).mean, num_steps, path)
        return self.decode(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])

    def edit(
        self,
        images: Images,
        attribute: str,
        strength: float = 1.0,
        method: str = "means",
        orthogonal_to: Sequence[str] = (),
        unit: str = "class",
    ) -> Float[Tensor, "batch channels height width"]:
        """Images with more of an attribute, or less with a negative strength.

        Args:
            images: of people.
            attribute: as the data call it: Smiling, Eyeglasses, …
            strength: 1 reaches the mean of those who have it, with unit="std" one standard deviation of the latents.
            method: "means", the difference of the class means, or "probe", the normal of a linear probe.
            orthogonal_to: attributes that shall stay as they are.
            unit: of the strength.

        Raises:
            RunError: no directions were fitted to this checkpoint yet.
            ValueError: no such attribute, method or unit.
        """
        directions = direction_file(self.path).read()
        if directions is None:
            raise RunError(
                f"no directions were fitted to {self.path} yet; this does it: "
                f"vae edit directions {run_folder(self.path)}"
            )
        shift = directions.direction(attribute, method, orthogonal_to).shift(strength, unit)
        return self.decode(self.encode(images).mean + shift.to(self.device, torch.float32))

    def held_out_faces(self, split: Literal["val", "test"], count: int) -> UInt8[Tensor, "batch channels height width"]:
        """Faces of the data that the run was trained on, evenly spaced over a split that it never saw.

        Raises:
            DataError: the data is not where it was.
        """
        datamodule = FaceDataModule(**data_settings(self.record))
        datamodule.prepare_data()
        return datamodule.held_out_faces(split, count)

    def _as_model_input(self, images: Images) -> Float[Tensor, "batch channels height width"]:
        pixels = images if isinstance(images, Tensor) else self.preprocess(images)
        pixels = pixels[None] if pixels.ndim == 3 else pixels
        expected = (self.model.channels, self.model.image_size, self.model.image_size)
        if tuple(pixels.shape[1:]) != expected:
            raise ValueError(
                f"images of shape {tuple(pixels.shape)}: this model takes (batch, {', '.join(map(str, expected))}); "
                "PIL images of any size are cropped and resized for you"
            )
        pixels = pixels.to(self.device)
        if pixels.dtype != torch.uint8:
            if not pixels.is_floating_point() or pixels.min() < 0 or pixels.max() > 1:
                raise ValueError(f"images of type {pixels.dtype}: give uint8 in [0, 255] or floats in [0, 1]")
            low, high = self.model.pixel_range
            return pixels.float() * (high - low) + low
        return to_pixel_range(pixels, self.model.pixel_range)

    def preprocess(self, images: Image.Image | Sequence[Image.Image]) -> UInt8[Tensor, "batch channels height width"]:
        """PIL images -> uint8, cropped and resized as in training, after `upright_rgb`.

        What a model of CelebA's or rendered faces knows is an upright portrait: the face centred, the eyes at half the
        height and a fifth of the width apart. These models were trained on pictures of 178x218 pixels, of which the
        run's crop was taken. A picture of another size is first scaled to cover 178x218 and cut to it, centred, so
        that the face takes the place of those in training. A run with crop=null takes the largest centred square.

        Raises:
            DataError: an image is smaller than the crop of a run on a folder of images.
            ValueError: an image that has no colours to show, see `upright_rgb`.
        """
        data = self.config["data"]
        preprocess = Preprocessing(as_crop(data["crop"]), data["image_size"], data["color"])
        fits = preprocess.crop is not None and self.record["data"]["source"] in ALIGNED_SOURCES
        pixels = []
        for image in [images] if isinstance(images, Image.Image) else images:
            upright = upright_rgb(image)
            if fits and upright.size != ALIGNED_SIZE:
                upright = ImageOps.fit(upright, ALIGNED_SIZE)
            encoded = io.BytesIO()
            upright.save(encoded, format="ppm")  # the same code as in training reads it
            pixels.append(preprocess(encoded.getvalue()).permute(2, 0, 1))
        return torch.stack(pixels)


def load_run(path: str | Path, checkpoint: str = "best", device: str | torch.device = "cpu") -> Run:
    """The model of a run folder or of a checkpoint file, in eval mode, without gradients.

    Args:
        path: a run folder (`outputs/…`, a job of a sweep) or a `.ckpt` file.
        checkpoint: which of a folder's checkpoints, "best", "last" or a file; without a best one yet, ask for "last".
        device: where the model goes.

    Raises:
        RunError: no run there, a file that is no checkpoint of ours, or one of a newer version.
    """
    file = checkpoint_file(Path(path).expanduser(), checkpoint)
    content = read_checkpoint(file)
    record = content[RECORD_KEY]
    model = build_model(record["config"]["model"])
    weights = content["state_dict"]
    model.load_state_dict(
        {name.removeprefix(MODEL_PREFIX): weights[name] for name in weights if name.startswith(MODEL_PREFIX)}
    )
    return Run(model.to(device), record, file)


def data_settings(record: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the data module that open the data that a run used.

    Where CelebA has gone from the place that it was trained from (another machine), CELEBA_ROOT says where it is now.
    Rendered faces are taken from where they were drawn, if they are still there.
    """
    settings = {name: value for name, value in record["config"]["data"].items() if name != "_target_"}
    settings.pop("num_workers", None)  # of runs before 2026-11-21
    used = record["data"]
    source, root = used["source"], Path(used["root"])
    if source == "faces" and root.is_dir():
        settings["data_dir"] = str(root.parent)
    moved = source == "celeba" and not root.is_dir() and bool(os.environ.get("CELEBA_ROOT"))
    return {**settings, "source": source, "root": str(root) if source in WITH_A_ROOT and not moved else None}


def prior_file(checkpoint: Path) -> PriorFile:
    """Where the priors that were fitted to a checkpoint are kept: beside it."""
    return PriorFile(checkpoint.with_suffix(".priors.pt"), digest_of(checkpoint))


def direction_file(checkpoint: Path) -> DirectionFile:
    """Where the attribute directions that were fitted to a checkpoint are kept: beside it."""
    return DirectionFile(checkpoint.with_suffix(".directions.pt"), digest_of(checkpoint))


def digest_of(file: Path) -> str:
    """A hash of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def to_pil(images: Float[Tensor, "batch channels height width"]) -> list[Image.Image]:
    """float [0, 1] -> PIL images."""
    levels = to_uint8(images, (0.0, 1.0)).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image) for image in levels]
