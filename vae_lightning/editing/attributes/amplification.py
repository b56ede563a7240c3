"""Single latents: which vary most, have the largest KL or correlate with an attribute, and faces along them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from vae_lightning.latents.finer import finer_words, with_finer
from vae_lightning.pictures.charts import Chart
from vae_lightning.pictures.face_grids import Faces, encode_mean, latent_label
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


def subject_correlations(
    subject: Subject, count_images: int = COUNT_IMAGES, finer: Sequence[int] = ()
) -> Float[np.ndarray, "attributes chosen"]:
    """Correlations of attributes with the encoded means of so many training images, as in `_means`.

    Raises:
        ValueError: the data have no attributes, or fewer than 2 images.
    """
    attributes = subject.attributes("train", _checked(count_images))
    if attributes is None:
        raise ValueError("the data have no attributes to correlate with; CelebA and rendered faces do")
    return correlations(_means(subject, count_images, finer).numpy(), attributes)


def _means(subject: Subject, count_images: int, finer: Sequence[int]) -> Float[Tensor, "images chosen"]:
    """Of the latents in the subject's levels, and of these `finer` ones."""
    coarse = subject.codes("train", count_images)
    if not finer:
        return coarse
    return torch.cat([coarse, subject.posterior("train", count_images).mean[:, list(finer)]], dim=1)


def _finer(subject: Subject, dimensions: Sequence[int]) -> list[int]:
    """Those of the dimensions that are not in the subject's levels."""
    return [dimension for dimension in dict.fromkeys(dimensions) if dimension >= subject.num_coarse]


def rank_dimensions(
    subject: Subject,
    by: str,
    count_images: int = COUNT_IMAGES,
    attribute: str | None = None,
    named: Sequence[int] = (),
) -> list[Row]:
    """A row of statistics per latent, sorted by `by`, the largest first; of a hierarchical model those in its levels.

    Args:
        subject: the model with its data, whose training images are encoded.
        by: "variance" of the encoded means; "kl", the mean of KL(q(z_j|x) || N(0, 1)) in nats; or the absolute
            "correlation" with an attribute.
        count_images: how many of them; all where there are fewer.
        attribute: of by=correlation.
        named: latents that get a row wherever they are.

    Raises:
        ValueError: the order or attribute does not exist, or this model or these data do not have it.
    """
    _check_order(subject, by, attribute)
    posterior, model = subject.posterior("train", _checked(count_images)), subject.model
    dimensions = [*range(subject.num_coarse), *_finer(subject, named)]
    means = posterior.mean[:, dimensions].double().numpy()
    kl_nats = posterior.kl_per_latent()[:, dimensions].double().mean(0).numpy()
    has_attributes = subject.attributes("train", count_images) is not None
    found = subject_correlations(subject, count_images, dimensions[subject.num_coarse :]) if has_attributes else None
    names = subject.data.attribute_names
    rows: list[Row] = []
    for column, (dimension, variance) in enumerate(zip(dimensions, means.var(0, ddof=1), strict=True)):
        row: Row = {"dimension": dimension} | ({} if model.is_flat else {"place": latent_label(model, dimension)})
        row |= {"variance": float(variance), "kl_nats": float(kl_nats[column]) if model.has_prior else None}
        best = None if found is None else int(np.abs(found[:, column]).argmax())
        row["best_attribute"] = None if best is None else names[best]
        row["best_correlation"] = None if found is None else float(found[best, column])
        if attribute is not None and found is not None:
            row[correlation_column(attribute)] = float(found[names.index(attribute), column])
        rows.append(row)
    order = {"variance": "variance", "kl": "kl_nats"}.get(by, correlation_column(attribute))
    rows.sort(key=lambda row: -abs(float(row[order] or 0.0)))
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
    finer: str = "keep",
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
        finer: what becomes of the levels finer than the subject's, see `with_finer`.

    Raises:
        ValueError: a latent or the attribute does not exist, no latent is named, or a value of α is not allowed.
    """
    _check_steps(subject, dimensions, limit, num_steps)
    by = "variance" if attribute is None else "correlation"
    known = {row["dimension"]: row for row in rank_dimensions(subject, by, count_images, attribute, dimensions)}
    alphas = np.linspace(-limit, limit, num_steps).tolist()
    latents, words = encode_faces(subject, faces, finer), words_on_finer(subject, finer)
    pictures, changes = {}, {}
    for dimension in dict.fromkeys(dimensions):
        moved = latents[:, None].repeat(1, num_steps, 1)
        moved[:, :, dimension] += torch.tensor(alphas)
        images = decode_steps(subject, moved, f"Decoding latent {dimension}")
        pictures[f"dim_{dimension:03d}"] = labelled_grid(
            torch.cat([faces.to(images.device)[:, None], images], dim=1),
            face_labels,
            ["original", *(f"α = {_signed(alpha)}" for alpha in alphas)],
            f"{latent_label(subject.model, dimension)} + α · {_in_words(known[dimension], attribute)}{words}",
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
def encode_faces(subject: Subject, faces: Faces, finer: str = "keep") -> Float[Tensor, "faces latent"]:
    """Posterior means, on the host; levels finer than the subject's as `with_finer` makes them."""
    means = encode_mean(subject.model, faces.to(subject.device)).cpu()
    return with_finer(means, subject.num_coarse, finer, subject.seed)


def words_on_finer(subject: Subject, finer: str) -> str:
    """As `finer_words`, of the subject's levels."""
    return finer_words(subject.model.latent_levels, subject.num_coarse, finer, subject.seed)


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
    found = subject_correlations(subject, count_images)  # with the latents in the subject's levels
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
