"""Directions that add an attribute: fits them to the training images, applies them to faces and compares them."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from scipy.cluster.hierarchy import leaves_list, linkage
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from vae_lightning.editing.attributes.amplification import decode_steps, encode_faces, words_on_finer
from vae_lightning.editing.attributes.edit import Method
from vae_lightning.latents.directions import Direction, DirectionFile, Directions
from vae_lightning.pictures.charts import Chart
from vae_lightning.pictures.face_grids import Faces
from vae_lightning.pictures.grids import labelled_grid
from vae_lightning.pictures.heat_map import draw_signed
from vae_lightning.runs.subject import MOST_FITTED, Subject
from vae_lightning.scores.attribute_scores import has_both_classes
from vae_lightning.scores.codes import active_latents
from vae_lightning.scores.result import Result, Row
from vae_lightning.system.progress import Track, untracked

MOST_STEPS = 100  # of Newton's method; fewer than 10 are usual
METHOD_WORDS = {"means": "difference of means", "probe": "linear probe"}
UNIT_WORDS = {"class": "the mean of the class", "std": "one standard deviation of the training latents"}


def fit_directions(
    latents: Float[Tensor, "images latent"],
    attributes: Bool[np.ndarray, "images attributes"],
    names: Sequence[str],
    images_per_class: int | None = None,
    seed: int = 0,
    track: Track = untracked,
    probe_latents: Float[Tensor, "images latent"] | None = None,
) -> Directions:
    """Fits class means and probes, of which the directions of all attributes are made.

    Args:
        latents: posterior means.
        attributes: of the same images.
        names: of the attributes.
        images_per_class: take each mean over so many random images of the class; None takes all. Probes are always
            fitted to all images. An attribute with fewer images is refused when its direction is asked for.
        seed: of the random images.
        track: shows progress.
        probe_latents: of the same images, that the probes are fitted to; None: `latents`. One sample of q(z|x) each is
            best for a VAE. Encoded means of a latent with little KL vary little, so that even a small weight of
            their standardised values is a long step of the latent itself, which looks like noise to the decoder.

    Raises:
        ValueError: fewer than 2 images, latents that are not finite, images_per_class below 1, or a probe that does
            not converge.
    """
    codes = latents.double().numpy()
    if len(codes) < 2:
        raise ValueError(f"{len(codes)} training images: at least 2 are needed to fit directions")
    read = codes if probe_latents is None else probe_latents.double().numpy()
    if not (np.isfinite(codes).all() and np.isfinite(read).all()):
        raise ValueError("the latents hold nan or inf, so that no direction fits them; did the training diverge?")
    means_with, means_without = _class_means(codes, attributes, images_per_class, seed)
    counts_with = torch.from_numpy(attributes.sum(0, dtype=np.int64))
    return Directions(
        tuple(names),
        means_with,
        means_without,
        torch.from_numpy(_probe_normals(read, attributes, names, track)),
        torch.from_numpy(np.atleast_2d(np.cov(codes, rowvar=False, bias=True))),
        counts_with,
        len(codes) - counts_with,
        images_per_class,
    )


def _class_means(
    codes: Float[np.ndarray, "images latent"],
    attributes: Bool[np.ndarray, "images attributes"],
    images_per_class: int | None,
    seed: int,
) -> tuple[Float[Tensor, "attributes latent"], Float[Tensor, "attributes latent"]]:
    if images_per_class is not None and images_per_class < 1:
        raise ValueError(f"images_per_class={images_per_class}: at least 1, or None to take all images")
    means = np.zeros((2, attributes.shape[1], codes.shape[1]))
    for column, labels in enumerate(attributes.T):
        for side, members in enumerate((np.flatnonzero(labels), np.flatnonzero(~labels))):
            if images_per_class is not None:
                members = np.random.default_rng([seed, column, side]).permutation(members)[:images_per_class]
            if len(members):
                means[side, column] = codes[members].mean(0)
    return torch.from_numpy(means[0]), torch.from_numpy(means[1])


def _probe_normals(
    codes: Float[np.ndarray, "images latent"],
    attributes: Bool[np.ndarray, "images attributes"],
    names: Sequence[str],
    track: Track,
) -> Float[np.ndarray, "attributes latent"]:
    """A logistic regression on standardised latents z = (x - m) / s reads w·z: its gradient in latents x is w / s."""
    normals = np.zeros((attributes.shape[1], codes.shape[1]))
    varying = active_latents(codes, 0.0)
    if not len(varying):
        raise ValueError("no latent varies over the training images, so that no direction can be fitted")
    scale = codes[:, varying].std(0)
    standardised = (codes[:, varying] - codes[:, varying].mean(0)) / scale
    columns = np.flatnonzero(has_both_classes(attributes)).tolist()
    for column in track(columns, "Fitting probes", len(columns)):
        # on 8,000 images x 128 latents twice as fast as L-BFGS, and at the minimum itself
        probe = LogisticRegression(solver="newton-cholesky", max_iter=MOST_STEPS)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            probe.fit(standardised, attributes[:, column])
        if caught:
            raise ValueError(f"the probe of {names[column]} has not converged after {MOST_STEPS} steps")
        weights = probe.coef_[0] / scale
        normals[column, varying] = weights / np.linalg.norm(weights)
    return normals


def subject_directions(
    subject: Subject, file: DirectionFile | None = None, images_per_class: int | None = None, seed: int = 0
) -> Directions:
    """The directions that were fitted to this checkpoint and these levels before, or that are fitted now and stored.

    The file holds means of all images; those of `images_per_class` are taken anew each time.

    Raises:
        ValueError: the data have no attributes, no direction can be fitted to these latents, or the file is damaged.
    """
    attributes = subject.attributes("train", MOST_FITTED)
    if attributes is None:
        raise ValueError(
            "the data have no attributes, so no direction can be fitted; CelebA and rendered faces have some"
        )
    directions = file.read() if file else None
    if directions is None or directions.levels != subject.level_names:
        fitted = fit_directions(
            subject.codes("train", MOST_FITTED),
            attributes,
            subject.data.attribute_names,
            track=subject.track,
            probe_latents=subject.fitting_latents()[:, : subject.num_coarse],
        )
        finer = subject.model.latent_dim - subject.num_coarse
        directions = replace(fitted, levels=subject.level_names, finer=finer)
        if file:
            file.write(directions)
    if images_per_class is None:
        return directions
    codes = subject.codes("train", MOST_FITTED).double().numpy()
    means_with, means_without = _class_means(codes, attributes, images_per_class, seed)
    return replace(directions, means_with=means_with, means_without=means_without, images_per_class=images_per_class)


def apply_edit(
    subject: Subject,
    faces: Faces,
    face_labels: Sequence[str],
    attribute: str,
    edit: Method,
    strengths: Sequence[float],
    words: str,
    finer: str = "keep",
) -> Result:
    """A row per face: the original, then decoded from the edited latents; the title says `words` of the edit.

    Of a hierarchical model it also says what has become of the levels finer than the subject's, see `with_finer`.

    Raises:
        ValueError: no strengths, or one that the edit does not allow.
    """
    images = _edited_faces(subject, encode_faces(subject, faces, finer), attribute, edit, strengths)
    picture = labelled_grid(
        torch.cat([faces.to(images.device)[:, None], images], dim=1),
        face_labels,
        ["original", *(_strength_label(each, finer) for each in strengths)],
        f"{attribute} by {words}{words_on_finer(subject, finer)}",
    )
    return Result(protocol={"strengths": list(strengths)}, pictures={attribute: picture})


def edit_attribute(
    subject: Subject,
    faces: Faces,
    face_labels: Sequence[str],
    direction: Direction,
    strengths: Sequence[float],
    unit: str = "std",
    finer: str = "keep",
) -> Result:
    """A row per face: the original, then decoded from z + strength x direction.

    Raises:
        ValueError: no strengths, no such unit, or a strength that is not allowed.
    """
    words = f"{direction_words(direction)}; 1 = {UNIT_WORDS.get(unit)}"
    edit = _along(direction, unit)
    edited = apply_edit(subject, faces, face_labels, direction.attribute, edit, strengths, words, finer)
    return replace(edited, protocol={**edited.protocol, "unit": unit, "direction": _plain(subject, direction)})


def compare_directions(
    subject: Subject,
    face: Faces,
    directions: Sequence[Direction],
    strengths: Sequence[float],
    unit: str = "std",
    finer: str = "keep",
) -> Result:
    """A row per direction, all of the same attribute, from one face.

    Raises:
        ValueError: not one face, directions of several attributes, or as `edit_attribute`.
    """
    attributes = {direction.attribute for direction in directions}
    if len(attributes) != 1 or len(face) != 1:
        raise ValueError(f"directions of {len(attributes)} attributes and {len(face)} faces; one of each is compared")
    latents, attribute = encode_faces(subject, face, finer), attributes.pop()
    rows = [_edited_faces(subject, latents, attribute, _along(each, unit), strengths) for each in directions]
    images = torch.cat(rows)
    originals = face.to(images.device)[None].expand(len(directions), *[-1] * 4)
    picture = labelled_grid(
        torch.cat([originals, images], dim=1),
        [direction_words(direction).replace(", ", ",\n") for direction in directions],
        ["original", *(_strength_label(each, finer) for each in strengths)],
        f"{attribute} by {len(directions)} directions; 1 = {UNIT_WORDS[unit]}{words_on_finer(subject, finer)}",
    )
    plain = [_plain(subject, each) for each in directions]
    protocol = {"strengths": list(strengths), "unit": unit, "directions": plain}
    return Result(protocol=protocol, pictures={f"{attribute}_directions": picture})


def _along(direction: Direction, unit: str) -> Method:
    return lambda latents, strength: latents + direction.shift(strength, unit)


def _edited_faces(
    subject: Subject, latents: Float[Tensor, "faces latent"], attribute: str, edit: Method, strengths: Sequence[float]
) -> UInt8[Tensor, "faces steps channels height width"]:
    if not strengths:
        raise ValueError("strengths: name at least one; 0 is the reconstruction")
    edited = torch.stack([edit(latents, strength) for strength in strengths], dim=1)
    return decode_steps(subject, edited, f"Decoding {attribute}")


def direction_words(direction: Direction) -> str:
    words = METHOD_WORDS[direction.method]
    if direction.method == "means" and direction.images_per_class is not None:
        words += f" of {direction.images_per_class} images each"
    return words + (f", orthogonal to {', '.join(direction.orthogonal_to)}" if direction.orthogonal_to else "")


def _strength_label(strength: float, finer: str) -> str:
    return f"{strength:+g}" if strength else "0 (reconstruction)" if finer == "keep" else "0"


def _plain(subject: Subject, direction: Direction) -> dict[str, object]:
    return {
        "attribute": direction.attribute,
        "method": direction.method,
        "orthogonal_to": list(direction.orthogonal_to),
        "images_per_class": direction.images_per_class,
        "class_gap": direction.class_gap,
        "spread": direction.spread,
        "cosines_with_probe_normals": dict(direction.cosines),
        "vector": direction.vector[: subject.num_coarse].tolist(),
    }


def direction_table(directions: Directions) -> list[Row]:
    """A row per attribute, first those whose class means lie farthest apart; what could not be fitted comes last."""
    rows: list[Row] = []
    for row, name in enumerate(directions.names):
        counts = int(directions.counts_with[row]), int(directions.counts_without[row])
        cells: Row = {"attribute": name, "with": counts[0], "without": counts[1]}
        cells["share"] = counts[0] / sum(counts)
        found: Row = dict.fromkeys(("means_gap", "means_gap_std", "probe_gap", "probe_gap_std", "cosine"))
        if min(counts) >= (directions.images_per_class or 1):
            means, probe = (directions.direction(name, method) for method in ("means", "probe"))
            found |= {"means_gap": means.class_gap, "means_gap_std": means.class_gap / means.spread}
            found |= {"probe_gap": probe.class_gap, "probe_gap_std": probe.class_gap / probe.spread}
            found |= {"cosine": float(means.vector @ probe.vector)}
        rows.append(cells | found)
    return sorted(rows, key=lambda cells: -float(cells["means_gap_std"] or -1.0))


def normals_picture(directions: Directions) -> Chart:
    """Cosines between the probes' normals, similar ones side by side: these attributes change together unless held."""
    kept = torch.nonzero(directions.have_both_classes)[:, 0]
    normals = directions.normals[kept].numpy()
    order = leaves_list(linkage(normals, "average", metric="cosine")) if len(kept) > 2 else np.arange(len(kept))
    names = [directions.names[kept[place]] for place in order]
    return draw_signed(
        normals[order] @ normals[order].T,
        names,
        names,
        "Cosines between the normals of the attributes' linear probes, in hundredths",
        "",
    )
