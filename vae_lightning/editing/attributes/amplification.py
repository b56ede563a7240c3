"""Single latents: which vary most, have the largest KL or correlate with an attribute, and faces along them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from vae_lightning.models.distributions import DiagonalGaussian
from vae_lightning.pictures.charts import Chart
from vae_lightning.pictures.face_grids import Faces, encode_mean
from vae_lightning.pictures.grids import labelled_grid
from vae_lightning.pictures.heat_map import draw_signed
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.result import Result, Row
from vae_lightning.system.names import not_allowed

ORDERS = ("variance", "kl", "correlation")
COUNT_IMAGES = 1_000  # training images that latents are ranked by
MOST_LATENTS = 40  # columns of a picture, so that their numbers can be read


def correlations(
    latents: Float[np.ndarray, "images latent"], attributes: Bool[np.ndarray, "images attributes"]
) -> Float[np.ndarray, "attributes latent"]:
    """Pearson correlations, -1 to 1; 0 where the attribute or the latent is the same for all images."""
    return _standardised(attributes.astype(np.float64)).T @ _standardised(latents.astype(np.float64)) / len(latents)


def _standardised(columns: Float[np.ndarray, "images columns"]) -> Float[np.ndarray, "images columns"]:
    varies = np.ptp(columns, axis=0) > 0  # the standard deviation of equal numbers is not always exactly 0
    return np.where(varies, columns - columns.mean(0), 0.0) / np.where(varies, columns.std(0), 1.0)


def best_dimensions(found: Float[np.ndarray, "attributes latent"], names: Sequence[str]) -> list[Row]:
    """For each attribute the latent that correlates with it most; the strongest first."""
    best = np.abs(found).argmax(1)
    rows: list[Row] = [
        {"attribute": name, "dimension": int(best[row]), "correlation": float(found[row, best[row]])}
        for row, name in enumerate(names)
    ]
    return sorted(rows, key=lambda row: -abs(float(row["correlation"] or 0.0)))


def subject_correlations(subject: Subject, count_images: int = COUNT_IMAGES) -> Float[np.ndarray, "attributes latent"]:
    """Correlations of attributes with the encoded means of so many training images.

    Raises:
        ValueError: the data have no attributes, or fewer than 2 images.
    """
    attributes = subject.attributes("train", _checked(count_images))
    if attributes is None:
        raise ValueError("the data have no attributes to correlate with; CelebA and rendered faces do")
    return correlations(subject.posterior("train", count_images).mean.numpy(), attributes)


def rank_dimensions(
    subject: Subject, by: str, count_images: int = COUNT_IMAGES, attribute: str | None = None
) -> list[Row]:
    """A row of statistics per latent, sorted by `by`, the largest first.

    Args:
        subject: the model with its data, whose training images are encoded.
        by: "variance" of the encoded means; "kl", the mean of KL(q(z_j|x) || N(0, 1)) in nats; or the absolute
            "correlation" with an attribute.
        count_images: how many of them; all where there are fewer.
        attribute: of by=correlation.

    Raises:
        ValueError: the order or attribute does not exist, or this model or these data do not have it.
    """
    _check_order(subject, by, attribute)
    posterior = subject.posterior("train", _checked(count_images))
    means = posterior.mean.double().numpy()
    has_kl = isinstance(posterior, DiagonalGaussian)
    kl_nats = posterior.kl_per_latent().double().mean(0).numpy()
    has_attributes = subject.attributes("train", count_images) is not None
    found = subject_correlations(subject, count_images) if has_attributes else None
    names = subject.data.attribute_names
    rows: list[Row] = []
    for dimension, variance in enumerate(means.var(0, ddof=1)):
        row: Row = {"dimension": dimension, "variance": float(variance)}
        row["kl_nats"] = float(kl_nats[dimension]) if has_kl else None
        best = None if found is None else int(np.abs(found[:, dimension]).argmax())
        row["best_attribute"] = None if best is None else names[best]
        row["best_correlation"] = None if found is None else float(found[best, dimension])
        if attribute is not None and found is not None:
            row[correlation_column(attribute)] = float(found[names.index(attribute), dimension])
        rows.append(row)
    column = {"variance": "variance", "kl": "kl_nats"}.get(by, correlation_column(attribute))
    rows.sort(key=lambda row: -abs(float(row[column] or 0.0)))
    return [{"rank": rank, **row} for rank, row in enumerate(rows, start=1)]


def correlation_column(attribute: str | None) -> str:
    """The column of `rank_dimensions` for by=correlation."""
    return f"correlation_{attribute}"


def _check_order(subject: Subject, by: str, attribute: str | None) -> None:
    if by not in ORDERS:
        raise ValueError(not_allowed("by", by, ORDERS))
    if by == "kl" and not subject.model.has_prior:
        raise ValueError("by=kl: posterior=deterministic has no KL; take by=variance")
    if by != "correlation" and attribute is not None:
        raise ValueError(f"attribute={attribute}: by={by} does not use it; set by=correlation or leave it out")
    if by == "correlation":
        names = subject.data.attribute_names
        if not names:
            raise ValueError("by=correlation: the data have no attributes, CelebA and rendered faces do; by=variance")
        if attribute not in names:
            raise ValueError(f"by=correlation, {not_allowed('attribute', attribute, names)}")


def _checked(count_images: int) -> int:
    if count_images < 2:
        raise ValueError(f"count_images={count_images}: at least 2, so that something can vary")
    return count_images


def amplify(
    subject: Subject,
    faces: Faces,
    face_labels: Sequence[str],
    dimensions: Sequence[int],
    limit: float = 3.0,
    num_steps: int = 10,
    count_images: int = COUNT_IMAGES,
    attribute: str | None = None,
) -> Result:
    """Faces along single latents: z_j + α for evenly spaced α, all other latents as they are.

    Args:
        subject: the model.
        faces: one row of each picture.
        face_labels: words for each.
        dimensions: one picture each, `dim_017`.
        limit: the largest α, in the latents' own scale (their prior has standard deviation 1); the smallest is -limit.
        num_steps: values of α, both ends among them.
        count_images: training images that the titles' variances, KL and correlations are of.
        attribute: titles say each latent's correlation with it, too.

    Raises:
        ValueError: a latent or the attribute does not exist, no latent is named, or a value of α is not allowed.
    """
    _check_steps(subject, dimensions, limit, num_steps)
    by = "variance" if attribute is None else "correlation"
    known = {row["dimension"]: row for row in rank_dimensions(subject, by, count_images, attribute)}
    alphas = np.linspace(-limit, limit, num_steps).tolist()
    latents = encode_faces(subject, faces)
    pictures, changes = {}, {}
    for dimension in dict.fromkeys(dimensions):
        moved = latents[:, None].repeat(1, num_steps, 1)
        moved[:, :, dimension] += torch.tensor(alphas)
        images = decode_steps(subject, moved, f"Decoding latent {dimension}")
        pictures[f"dim_{dimension:03d}"] = labelled_grid(
            torch.cat([faces.to(images.device)[:, None], images], dim=1),
            face_labels,
            ["original", *(f"α = {_signed(alpha)}" for alpha in alphas)],
            f"z[{dimension}] + α · {_in_words(known[dimension], attribute)}",
        )
        ends = images[:, [0, -1]].float() / 255
        changes[str(dimension)] = float((ends[:, 1] - ends[:, 0]).abs().mean())
    numbers: dict[str, Any] = {
        "alphas": alphas,
        "dimensions": [known[dimension] for dimension in dict.fromkeys(dimensions)],
        "mean_absolute_pixel_change_from_end_to_end": changes,  # of pixels in [0, 1]
    }
    return Result(protocol=numbers, pictures=pictures)


def _check_steps(subject: Subject, dimensions: Sequence[int], limit: float, num_steps: int) -> None:
    latent_dim = subject.model.latent_dim
    if not dimensions:
        raise ValueError("dimensions: name at least one latent")
    for dimension in dimensions:
        if not 0 <= dimension < latent_dim:
            raise ValueError(f"dimension {dimension}: this model has the latents 0 to {latent_dim - 1}")
    if not 0 < limit < math.inf:
        raise ValueError(f"limit={limit}: needs a finite number above 0")
    if num_steps < 2:
        raise ValueError(f"num_steps={num_steps}: at least 2, both ends")


def _in_words(row: Row, attribute: str | None) -> str:
    words = "" if attribute is None else f"{attribute} r = {row[correlation_column(attribute)]:+.2f}, "
    words += f"variance {row['variance']:.3g}"
    if row["kl_nats"] is not None:
        words += f", KL {row['kl_nats']:.3g} nats"
    if row["best_attribute"] is not None:
        words += f", correlates most with {row['best_attribute']} (r = {row['best_correlation']:+.2f})"
    return words


def _signed(value: float) -> str:
    """Two decimals at most; zero has no sign."""
    return f"{round(value, 2) or 0.0:+g}" if round(value, 2) else "0"


@torch.inference_mode()
def encode_faces(subject: Subject, faces: Faces) -> Float[Tensor, "faces latent"]:
    """Posterior means, on the host."""
    return encode_mean(subject.model, faces.to(subject.device)).cpu()


def decode_steps(
    subject: Subject, latents: Float[Tensor, "faces steps latent"], description: str
) -> UInt8[Tensor, "faces steps channels height width"]:
    """On the subject's device, in its batches."""
    flat = latents.flatten(0, 1)
    parts = [subject.decode_uint8(flat[part]) for part in subject.batches(len(flat), description)]
    return torch.cat(parts).unflatten(0, latents.shape[:2])


def correlation_results(subject: Subject, count_images: int, shown: Sequence[int]) -> Result:
    """Tables and a picture of all correlations, with the latents `shown` in it; empty without attributes."""
    names = subject.data.attribute_names
    if not names:
        return Result()
    found = subject_correlations(subject, count_images)
    rows: list[Row] = [
        {"attribute": name, **{str(latent): float(value) for latent, value in enumerate(row)}}
        for name, row in zip(names, found, strict=True)
    ]
    picture = correlation_picture(found, names, min(count_images, len(subject.rows("train"))), shown)
    return Result(
        tables={"best_dimensions": best_dimensions(found, names), "correlations": rows},
        pictures={"correlations": picture},
    )


def correlation_picture(
    found: Float[np.ndarray, "attributes latent"], names: Sequence[str], images: int, shown: Sequence[int] = ()
) -> Chart:
    """Attributes by the latents `shown` and those that correlate most, each next to those of the same attribute."""
    strength = np.abs(found)
    first = np.isin(np.arange(found.shape[1]), shown)
    most = np.sort(np.lexsort((-strength.max(0), ~first))[:MOST_LATENTS])
    columns = most[np.lexsort((-strength[:, most].max(0), strength[:, most].argmax(0)))]
    return draw_signed(
        found[:, columns],
        names,
        [str(column) for column in columns],
        f"Correlation of attributes with latents in hundredths, {images:,} training images\n"
        f"{len(columns)} of {found.shape[1]} latents",
        "latent",
    )
