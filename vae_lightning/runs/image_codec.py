"""Encodes images of any size and type into latents, and decodes latents into images."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped, UInt8
from PIL import Image
from torch import Tensor

from vae_lightning.models import Autoencoder
from vae_lightning.models.distributions import PixelPrediction, Posterior
from vae_lightning.models.pixels import to_pil, to_pixel_range, to_unit_range
from vae_lightning.runs.photographs import as_in_training

Images = Shaped[Tensor, "*shape"] | Image.Image | Sequence[Image.Image]
Latents = Float[Tensor, "batch latent"]
Pictures = Any  # a tensor of floats in [0, 1], or with as_pil=True a list of PIL images
OF_PIXELS = 0x70697865  # changes the seed of pixels, so that their noise is not that of the latents


def generator_of(seed: int | None) -> torch.Generator:
    """Random numbers on the CPU, where a seed means the same for every device; None: other ones each time."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


class ImageCodec:
    """A trained model that takes and gives images as people have them.

    Input: PIL images, or tensors of any size, uint8 [0, 255] or float [0, 1], (C, H, W) or (B, C, H, W). Images of the
    model's size and channels are taken as they are, others are cropped and resized as in training (see `preprocess`).
    Output: float tensors in [0, 1] on the model's device, or PIL images with as_pil=True.

    Args:
        model: trained; it is set to eval mode, without gradients.
        record: what the checkpoint records: the run's resolved configuration, and which data it used.
    """

    def __init__(self, model: Autoencoder, record: dict[str, Any]) -> None:
        self.model = model.eval().requires_grad_(False)
        self.record = record

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration of the run."""
        config: dict[str, Any] = self.record["config"]
        return config

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights; outputs are always float32."""
        return next(self.model.parameters()).dtype

    @torch.inference_mode()
    def encode(self, images: Images) -> Posterior:
        """q(z|x); its `mean` is the best single guess of an image's latents."""
        return self.model.encode(self._as_model_input(images))

    @torch.inference_mode()
    def decode(
        self, latents: Latents, *, pixel_temperature: float = 0.0, seed: int | None = None, as_pil: bool = False
    ) -> Pictures:
        """The mean of p(x|z), or a sample of it.

        Args:
            latents: one vector for each image.
            pixel_temperature: factor on the spread of each pixel in a sample; 0 takes the mean, 1 is p(x|z) itself.
            seed: of the pixels' noise, the same on every device; None draws new noise.
            as_pil: PIL images instead of a tensor.

        Raises:
            ValueError: a pixel temperature below 0, or one above 0 for a model that predicts means alone.
        """
        prediction = self.model.predict_pixels(latents.to(self.device, self.dtype))
        decoded = prediction.mean
        if pixel_temperature != 0:
            generator = generator_of(None if seed is None else seed ^ OF_PIXELS)
            decoded = self._distribution(prediction).sample(generator, pixel_temperature)
        decoded = to_unit_range(decoded, self.model.pixel_range)
        return to_pil(decoded) if as_pil else decoded

    def _distribution(self, prediction: PixelPrediction) -> PixelPrediction:
        """p(x|z) where something beside the model knows of it."""
        return prediction

    def reconstruct(self, images: Images, *, as_pil: bool = False) -> Pictures:
        """Decoded posterior means."""
        return self.decode(self.encode(images).mean, as_pil=as_pil)

    def _as_model_input(self, images: Images) -> Float[Tensor, "batch channels height width"]:
        expected = (self.model.channels, self.model.image_size, self.model.image_size)
        pixels = images if isinstance(images, Tensor) else self.preprocess(images)
        pixels = pixels[None] if pixels.ndim == 3 else pixels
        if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or 0 in pixels.shape:
            raise ValueError(
                f"images of shape {tuple(pixels.shape)}: give (batch, channels, height, width), with 1 or 3 channels"
            )
        is_bytes = pixels.dtype == torch.uint8
        if not is_bytes and not (pixels.is_floating_point() and pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError(f"images of type {pixels.dtype}: give uint8 in [0, 255] or floats in [0, 1]")
        if tuple(pixels.shape[1:]) != expected:
            pixels, is_bytes = self.preprocess(to_pil(pixels / 255 if is_bytes else pixels)), True
        pixels = pixels.to(self.device)
        low, high = self.model.pixel_range
        values = to_pixel_range(pixels, (low, high)) if is_bytes else pixels.float() * (high - low) + low
        return values.to(self.dtype)

    def preprocess(self, images: Image.Image | Sequence[Image.Image]) -> UInt8[Tensor, "batch channels height width"]:
        """PIL images of any size and mode -> uint8, cropped and resized as in training.

        Models of CelebA and of rendered faces were trained on upright portraits of 178x218 pixels: the face centred,
        the eyes at half the height and a fifth of the width apart. A picture of another size is first scaled to cover
        178x218 and cut to it, centred; then the run's crop is taken. With crop=null it is the largest centred square.

        Raises:
            DataError: an image is smaller than the crop of a run on a folder of images.
            ValueError: an image without colours, see `upright_rgb`.
        """
        several = [images] if isinstance(images, Image.Image) else images
        return as_in_training(several, self.config["data"], self.record["data"]["source"])
