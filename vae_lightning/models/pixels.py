"""The only place where pixels change their scale: uint8 on disk, floats inside the model."""

import torch
from jaxtyping import Float, Shaped, UInt8
from PIL import Image
from torch import Tensor

PixelRange = tuple[float, float]
NUM_LEVELS = 256


def to_pixel_range(
    images: UInt8[Tensor, "batch channels height width"], pixel_range: PixelRange
) -> Float[Tensor, "batch channels height width"]:
    """uint8 [0, 255] -> float32 [low, high], on the device that the images are on."""
    low, high = pixel_range
    return images.to(torch.float32).mul_((high - low) / (NUM_LEVELS - 1)).add_(low)


def to_unit_range(images: Float[Tensor, "*shape"], pixel_range: PixelRange) -> Float[Tensor, "*shape"]:
    """float [low, high] -> float [0, 1], the scale in which `mse` and `bits_per_dim` are measured."""
    low, high = pixel_range
    return (images - low) / (high - low)


def to_uint8(images: Float[Tensor, "*shape"], pixel_range: PixelRange) -> UInt8[Tensor, "*shape"]:
    """float [low, high] -> uint8 [0, 255], rounded; values outside the range are clipped."""
    levels = to_unit_range(images.float(), pixel_range) * (NUM_LEVELS - 1)
    return levels.round().clamp(0, NUM_LEVELS - 1).to(torch.uint8)


def mean_squared_error(
    reconstruction: Float[Tensor, "batch *pixels"],
    images: Float[Tensor, "batch *pixels"],
    pixel_range: PixelRange,
) -> Float[Tensor, " batch"]:
    """Mean over the pixels of one image, in units of [0, 1] squared whatever the model's range."""
    low, high = pixel_range
    pixel_dims = tuple(range(1, images.ndim))  # no flatten: it would copy channels_last images
    return (reconstruction - images).square().mean(pixel_dims) / (high - low) ** 2


def as_level(images: Shaped[Tensor, "*shape"], pixel_range: PixelRange) -> Float[Tensor, "*shape"]:
    """float [low, high] -> the nearest of the 256 levels, as a float in [0, 255]."""
    return (to_unit_range(images, pixel_range) * (NUM_LEVELS - 1)).round()


def to_pil(images: Float[Tensor, "batch channels height width"]) -> list[Image.Image]:
    """float [0, 1] -> PIL images."""
    levels = to_uint8(images, (0.0, 1.0)).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image) for image in levels]
