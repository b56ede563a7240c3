"""What each run makes of the same faces, from its checkpoint. One model is in memory at a time."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from vae_lightning.models.pixels import to_uint8
from vae_lightning.pictures.face_grids import latent_label
from vae_lightning.report.sweep import Job, Sweep
from vae_lightning.report.traversals import Latents, Match, match_latents, measure_latents, traversal_row
from vae_lightning.runs.data_record import data_settings
from vae_lightning.runs.layout import checkpoint_path
from vae_lightning.runs.load import load_run
from vae_lightning.runs.run import Run
from vae_lightning.system.names import reason_of

NUM_FACES = 8  # reconstructed, and as many samples
NUM_FACES_FOR_ACTIVITY = 64  # over which KL per latent is averaged
NUM_LATENTS = 4  # traversed
NUM_STEPS = 9  # of an interpolation
SAMPLE_SEED = 0
UNIT = (0.0, 1.0)
# of a data record: where two runs agree in these, their held-out faces are the same photographs, framed alike
SAME_FACES = ("source", "root", "partition", "subset_seed", "crop", "test_count")

# the underscores leave the sizes free: one exhibit holds pictures of different counts
Images = UInt8[Tensor, "_count _channels _height _width"]
Faces = dict[str, Images]  # by the settings of the data


@dataclass(frozen=True)
class TraversalRow:
    """One latent of one run, moved over `traversals.VALUES`."""

    name: str  # of the latent in its run
    match: Match
    images: Images


@dataclass(frozen=True)
class Exhibit:
    """Pictures of one run at its own image size; those of faces are None where the data is gone."""

    job: Job
    has_prior: bool
    data: str  # equal where two runs look at the same faces
    samples: Images | None = None
    originals: Images | None = None
    reconstructions: Images | None = None
    interpolation: Images | None = None
    matched: list[TraversalRow] = field(default_factory=list)  # one per latent of the reference
    by_index: list[TraversalRow | None] = field(default_factory=list)  # None: the run has no such latent


@dataclass(frozen=True)
class Exhibition:
    """All runs that could be loaded, in the sweep's order, and what was wrong with the others."""

    exhibits: list[Exhibit]
    problems: dict[str, str]  # by the job's name
    reference: Job | None = None  # whose latents the others are matched to
    latents: list[str] = field(default_factory=list)  # names of the reference's most active ones
    activities: list[float] = field(default_factory=list)


def exhibit_sweep(sweep: Sweep) -> Exhibition:
    """Loads every autoencoder that has a checkpoint; a run that cannot be used does not stop the others."""
    faces: Faces = {}
    exhibits: dict[str, Exhibit] = {}
    problems: dict[str, str] = {}
    reference: tuple[Job, Latents, list[str]] | None = None
    # the reference comes first: a VAE where there is one, since an autoencoder's latents have no KL
    for job in sorted(sweep.vaes, key=lambda job: (not job.has_prior, job.is_collapsed)):
        try:
            run = load(job)
            if run is None:
                continue
            exhibit = show_without_faces(run, job)
            exhibits[job.name] = exhibit
            seen = held_out_faces(run, faces)
            exhibit = show_faces(run, exhibit, seen[:NUM_FACES])
            latents = measure_latents(run, seen)
            exhibits[job.name] = exhibit
            if latents.is_active:
                numbers = latents.active[:NUM_LATENTS].tolist()
                reference = reference or (job, latents, [latent_label(run.model, number) for number in numbers])
                exhibits[job.name] = show_traversals(run, exhibit, latents, *reference[1:])
            else:
                problems[job.name] = "no traversals: none of its latents says anything about a face"
        # ValueError: a damaged checkpoint (RunError), lost data (DataError), arguments that a model refuses
        except (ValueError, OSError, RuntimeError, LookupError, TypeError, AttributeError) as error:
            problems[job.name] = reason_of(error)
    shown = [exhibits[job.name] for job in sweep.jobs if job.name in exhibits]
    if reference is None:
        return Exhibition(shown, problems)
    job, latents, names = reference
    return Exhibition(shown, problems, job, names, latents.activity[latents.active[:NUM_LATENTS]].tolist())


def load(job: Job) -> Run | None:
    """The run's best checkpoint, else its last; None where it has none.

    Raises:
        RunError: a checkpoint that cannot be read.
    """
    for name in ("best", "last"):
        if checkpoint_path(job.folder, name).is_file():
            return load_run(checkpoint_path(job.folder, name))
    return None


def held_out_faces(run: Run, known: Faces) -> Images:
    """Test faces of the run's data; opened once for all runs on the same data."""
    settings = data_settings(run.record)
    key = json.dumps(settings, sort_keys=True, default=str)
    if key not in known:
        known[key] = run.held_out_faces("test", NUM_FACES_FOR_ACTIVITY)
    return known[key]


def show_without_faces(run: Run, job: Job) -> Exhibit:
    """Samples, which need no data, where the model has a prior."""
    record = run.record["data"] or {}
    data = json.dumps([record.get(key) for key in SAME_FACES], default=str)
    has_prior = run.model.has_prior
    samples = to_uint8(run.sample(NUM_FACES, seed=SAMPLE_SEED), UNIT) if has_prior else None
    return Exhibit(job, has_prior, data, samples)


def show_faces(run: Run, exhibit: Exhibit, faces: Images) -> Exhibit:
    """Reconstructions, and the way from the first face to the last."""
    between = run.interpolate(faces[:1], faces[-1:], NUM_STEPS)[0]
    return replace(
        exhibit,
        originals=faces,
        reconstructions=to_uint8(run.reconstruct(faces), UNIT),
        interpolation=to_uint8(between, UNIT),
    )


def show_traversals(run: Run, exhibit: Exhibit, latents: Latents, reference: Latents, names: Sequence[str]) -> Exhibit:
    """The reference's most active latents: those that do the same here, and those of the same names."""
    matched = [_moved(run, latents, match) for match in match_latents(reference, latents, NUM_LATENTS)]
    numbers = reference.active[: len(names)].tolist()
    by_index = [
        _moved(run, latents, Match(number, 1, 1.0)) if has_latent(run, number, name) else None
        for number, name in zip(numbers, names, strict=True)
    ]
    return replace(exhibit, matched=matched, by_index=by_index)


def has_latent(run: Run, number: int, name: str) -> bool:
    """Whether the run has the latent; in a hierarchical model a number says nothing without level and place."""
    return number < run.model.latent_dim and latent_label(run.model, number) == name


def _moved(run: Run, latents: Latents, match: Match) -> TraversalRow:
    row = traversal_row(run, latents, match.latent, match.sign)
    return TraversalRow(latent_label(run.model, match.latent), match, row)


def fit_to(images: Images, size: int, num_columns: int) -> Images:
    """For display only: enlarged to `size` by the nearest pixel, gray as RGB, short rows filled with white."""
    height = images.shape[-1]
    nearest = torch.arange(size) * height // size
    enlarged = images.expand(len(images), 3, height, height)[:, :, nearest][:, :, :, nearest]
    white = torch.full((num_columns - len(images), 3, size, size), 255, dtype=torch.uint8)
    return torch.cat([enlarged, white])
