"""How near reconstructions come to their originals, image by image."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from vae_lightning.evaluation.feature_networks import (
    ALEXNET,
    SMALLEST_LPIPS_SIDE,
    Weights,
    WeightsMissing,
    examine_weights,
    load_lpips,
    weights_digest,
)
from vae_lightning.evaluation.metric import EvaluationError, Metric
from vae_lightning.models.pixels import mean_squared_error, to_pixel_range, to_uint8
from vae_lightning.pictures.grids import labelled_grid
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.resampling import bootstrap_interval
from vae_lightning.scores.result import Direction, Result, Value

SHOWN = 4  # of the best, of the median and of the worst each
UNIT_RANGE = (0.0, 1.0)


@dataclass(frozen=True)
class Reconstructions(Metric):
    """Decoded posterior means against the originals, float against uint8/255, both in [0, 1]."""

    title: ClassVar[str] = "Reconstructions"
    place: ClassVar[int] = 30

    weights: str | None = None  # folder or file of AlexNet's; None = torch.hub's cache alone

    def settings(self) -> dict[str, Any]:
        """The weights count by their hash, not by their path."""
        return {"lpips_sha256": weights_digest(ALEXNET, self.weights)}

    def measure(self, subject: Subject) -> Result:
        lpips, weights, why_not = self._lpips(subject)
        found = per_image(subject, lpips)
        values = [
            _mean("mse", found, "lower", "of decode(posterior mean), per pixel in [0, 1]"),
            _psnr(found),
            _mean("ssim", found, "higher", "Gaussian window of 11x11, sigma 1.5, borders mirrored and counted"),
            _sharpness(found),
        ]
        if weights is None:
            values.append(Value.missing("reconstruction_lpips", why_not))
        else:
            note = f"AlexNet, version 0.1, images at their own size{weights.warning()}"
            values.append(_mean("lpips", found, "lower", note))
        protocol = {
            "images": len(found["mse"]),
            "split": subject.split,
            "image_size": subject.model.image_size,
            "latents": "posterior means",
            "lpips_weights": why_not if weights is None else weights.protocol(),
        }
        return Result(values, protocol, pictures={"reconstruction_extremes": picture(subject, found["mse"])})

    def _lpips(self, subject: Subject) -> tuple[LearnedPerceptualImagePatchSimilarity | None, Weights | None, str]:
        """The network of LPIPS and its weights, or else the reason why there is none."""
        try:
            weights = examine_weights(ALEXNET, self.weights)
        except WeightsMissing as error:
            return None, None, str(error)
        if subject.model.image_size < SMALLEST_LPIPS_SIDE:
            side = subject.model.image_size
            return None, None, f"AlexNet needs {SMALLEST_LPIPS_SIDE} pixels a side or more, the images have {side}"
        return load_lpips(weights.file, subject.device), weights, ""


@torch.inference_mode()
def per_image(
    subject: Subject, lpips: LearnedPerceptualImagePatchSimilarity | None = None
) -> dict[str, Float[np.ndarray, " images"]]:
    """`mse`, `psnr` in dB, `ssim`, `sharpness` with that of the originals and, where there is a network, `lpips` of
    every image of the split; float64.
    """
    latents, rows = subject.posterior().mean, subject.rows(subject.split)
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for part in subject.batches(len(rows), "Reconstructions"):
        originals = to_pixel_range(subject.pixels(subject.split, rows[part]), UNIT_RANGE)
        made = decode_checked(subject, latents[part])
        for name, values in distances(made, originals, lpips).items():
            parts[name].append(values.cpu())
    return {name: torch.cat(each).double().numpy() for name, each in parts.items()}


def distances(
    made: Float[Tensor, "batch channels height width"],
    originals: Float[Tensor, "batch channels height width"],
    lpips: LearnedPerceptualImagePatchSimilarity | None = None,
) -> dict[str, Float[Tensor, " batch"]]:
    """One value per image and name; pixels in [0, 1], gray for LPIPS as three equal channels.

    Source: Wang et al. 2004 (SSIM, doi:10.1109/TIP.2003.819861); Zhang et al. 2018 (LPIPS, arXiv:1801.03924).
    """
    psnr = peak_signal_noise_ratio(made, originals, data_range=1.0, dim=(1, 2, 3), reduction="none")
    ssim = structural_similarity_index_measure(made, originals, data_range=1.0, reduction="none")
    assert isinstance(ssim, Tensor)
    found = {"mse": mean_squared_error(made, originals, UNIT_RANGE), "psnr": psnr, "ssim": ssim}
    found |= {"sharpness": laplacian_variance(made), "sharpness_of_originals": laplacian_variance(originals)}
    if lpips is not None:
        lpips.reset()
        lpips.update(*(images.expand(-1, 3, -1, -1) for images in (made, originals)))
        found["lpips"] = lpips.compute().reshape(len(made))  # of one image torchmetrics gives no dimension
    return found


def laplacian_variance(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """Variance over an image of the Laplacian of its mean over channels: small where nothing has sharp edges.

    Source: Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy", doi:10.1109/ICPR.2000.903548.
    """
    gray = images.mean(1)
    middle = gray[:, 1:-1, 1:-1]
    around = gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:]
    return (around - 4 * middle).var(dim=(1, 2), correction=0)


def decode_checked(subject: Subject, latents: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch _c _h _w"]:
    """Images in [0, 1] on the subject's device.

    Raises:
        EvaluationError: pixels are not finite numbers; as uint8 they would pass for black.
    """
    images = subject.decode(latents)
    if not images.isfinite().all():
        raise EvaluationError(
            "the pixels of the decoder are not finite numbers (nan or inf), so nothing can be measured: "
            "evaluate an earlier checkpoint, or train again with a smaller learning rate"
        )
    return images


def _sharpness(found: dict[str, Float[np.ndarray, " images"]]) -> Value:
    of_originals = found["sharpness_of_originals"].mean()
    if not of_originals > 0:
        return Value.missing("reconstruction_sharpness", "the originals are flat, or have fewer than 3 pixels a side")
    ratio = found["sharpness"] / of_originals
    note = "variance of the Laplacian, over that of the originals: 1 is as sharp, less is blurred, more is noisy"
    return Value("reconstruction_sharpness", float(ratio.mean()), note, bootstrap_interval(ratio))


def _psnr(found: dict[str, Float[np.ndarray, " images"]]) -> Value:
    exact = int(np.isinf(found["psnr"]).sum())
    if exact:
        return Value.missing("reconstruction_psnr", f"{exact} images are reconstructed exactly: their PSNR is infinite")
    return _mean("psnr", found, "higher", "dB, mean over images of 10 log10(1 / mse of the image)")


def _mean(name: str, found: dict[str, Float[np.ndarray, " images"]], better: Direction, note: str) -> Value:
    values = found[name]
    return Value(f"reconstruction_{name}", float(values.mean()), note, bootstrap_interval(values), better)


def choose_shown(mse: Float[np.ndarray, " images"]) -> Int64[np.ndarray, " shown"]:
    """Images of least, median and greatest error, in that order; all of them where they are few."""
    order = np.argsort(mse, kind="stable")
    middle = max(0, (len(mse) - SHOWN) // 2)
    places = [*range(SHOWN), *range(middle, middle + SHOWN), *range(len(mse) - SHOWN, len(mse))]
    return order[[place for place in sorted(set(places)) if 0 <= place < len(mse)]]


def picture(subject: Subject, mse: Float[np.ndarray, " images"]) -> UInt8[np.ndarray, "_height _width 3"]:
    """Originals above their reconstructions, the mean squared error over each pair."""
    shown = choose_shown(mse)
    originals = subject.pixels(subject.split, subject.rows(subject.split)[shown])
    made = to_uint8(decode_checked(subject, subject.posterior().mean[torch.from_numpy(shown)]), UNIT_RANGE)
    return labelled_grid(
        torch.stack([originals, made]),
        ["original", "reconstruction"],
        [f"{error:.4f}" for error in mse[shown].tolist()],
        "Best, median and worst reconstructions by mean squared error",
    )
