"""From what a person names to a workbench: runs are loaded, what is missing is fitted, what cannot be is told."""

from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from vae_lightning.data import FaceDataModule
from vae_lightning.editing.attributes.directions import subject_directions
from vae_lightning.explorer.workbench import TEST_FACES, OpenedRun, Workbench, sayable
from vae_lightning.latents.directions import Directions
from vae_lightning.latents.priors import PRIORS
from vae_lightning.latents.statistics import LatentStatistics
from vae_lightning.report.sweep import Job, Sweep, read_sweep
from vae_lightning.runs.data_record import data_settings
from vae_lightning.runs.layout import checkpoint_file, checkpoint_path, is_sweep, run_folder
from vae_lightning.runs.load import load_run
from vae_lightning.runs.run import Run
from vae_lightning.runs.subject import open_subject
from vae_lightning.system.progress import Track, progress
from vae_lightning.system.terminal import command

MOST_RUNS = 24  # side by side
TestFaces = UInt8[Tensor, "faces channels height width"]


def open_workbench(path: str, checkpoint: str, device: str, *, fits: bool, shared: bool = False) -> Workbench:
    """With a progress bar.

    Args:
        path: a run folder, a checkpoint, an exported folder, a sweep's folder, or `last` for the newest run.
        checkpoint: of a run folder.
        device: as `load_run` takes it.
        fits: whether directions that nobody has fitted yet are fitted now.
        shared: as of `Workbench`.

    Raises:
        ValueError: nothing there that can be opened.
    """
    folder = Path(path).expanduser()
    with progress() as observer:
        opening = Opening(device, fits, shared, observer.track)
        if is_sweep(folder):
            return _open_sweep(opening, read_sweep(folder))
        run = opening.run(checkpoint_file(folder, checkpoint))
    return Workbench(run.label, [run], shared=shared)


@dataclass
class Opening:
    """Opens runs one after another; those on the same data share their test faces.

    Args:
        device: as `load_run` takes it.
        fits: whether directions that nobody has fitted yet are fitted now.
        shared: as of `Workbench`.
        track: shows progress.
    """

    device: str
    fits: bool
    shared: bool
    track: Track
    _data: dict[str, FaceDataModule] = field(default_factory=dict)

    def run(self, file: Path, label: str | None = None) -> OpenedRun:
        """
        Raises:
            ValueError: no checkpoint of ours, no such device, or weights that are no numbers.
        """
        vae = load_run(file, device=self.device)
        if not all(bool(weights.isfinite().all()) for weights in vae.model.parameters()):
            raise ValueError(f"{file}: its weights hold nan or inf, the training diverged")
        notes: list[str] = []
        faces = self._faces(vae, notes)
        place = self.place(vae.path)
        return OpenedRun(
            label or run_folder(file).resolve().name,
            vae,
            place,
            self._priors(vae, notes),
            faces,
            self._statistics(vae, notes),
            self._directions(vae, notes, has_data=faces is not None),
            tuple(notes),
        )

    def place(self, file: Path) -> Path:
        """What the page calls a checkpoint: of a shared one no more than its run folder's name."""
        whole = file.resolve()
        return whole.relative_to(run_folder(whole).parent) if self.shared else whole

    def told(self, error: Exception) -> str:
        return sayable(first_line(error), shared=self.shared)

    def _faces(self, vae: Run, notes: list[str]) -> TestFaces | None:
        settings = str(data_settings(vae.record))
        if settings in self._data:
            vae.data = self._data[settings]
        try:
            faces = vae.held_out_faces("test", TEST_FACES)
        except (ValueError, OSError) as error:
            notes.append(f"No test faces, only samples and your own photographs: {self.told(error)}")
            return None
        self._data[settings] = vae.data
        return faces

    def _directions(self, vae: Run, notes: list[str], *, has_data: bool) -> Directions | None:
        try:
            directions = vae.direction_file.read()
            if directions is None and self.fits and has_data:
                directions = subject_directions(open_subject(vae, track=self.track), vae.direction_file)
        except (ValueError, OSError) as error:
            notes.append(f"No sliders for attributes: {self.told(error)}")
            return None
        if directions is None:
            notes.append(
                "No sliders for attributes; this fits them: "
                + command(f"vae edit directions {run_folder(self.place(vae.path))}")
            )
        return directions

    def _priors(self, vae: Run, notes: list[str]) -> tuple[str, ...]:
        """Names of those that can be sampled."""
        names = ["normal"] if vae.model.has_prior else []
        try:
            names += [name for name in PRIORS if name != "normal" and vae.prior_file.read(name) is not None]
        except ValueError as error:
            notes.append(self.told(error))
        return tuple(names)

    def _statistics(self, vae: Run, notes: list[str]) -> LatentStatistics | None:
        try:
            return vae.latent_statistics(self.track)
        except (ValueError, OSError) as error:
            notes.append(
                "The sliders move the first latents, by their own unit: which ones are the most active could not be "
                f"measured: {self.told(error)}"
            )
            return None


def _open_sweep(opening: Opening, sweep: Sweep) -> Workbench:
    runs: list[OpenedRun] = []
    left_out = []
    for number in opening.track(range(len(sweep.jobs)), "Opening runs", len(sweep.jobs)):
        job = sweep.jobs[number]
        label = sweep.label(job, ", ").replace("beta=", "β=")
        try:
            if len(runs) == MOST_RUNS:
                raise ValueError(f"there is room for {MOST_RUNS} runs; open this one alone")
            runs.append(opening.run(_checkpoint(job), label))
        # a damaged checkpoint, arguments that a model refuses: one run does not stop the others
        except (ValueError, OSError, RuntimeError, LookupError, TypeError) as error:
            left_out.append(f"{label} ({job.status}) is left out: {opening.told(error)}")
    if not runs:
        raise ValueError(f"{sweep.folder}: none of its {len(sweep.jobs)} runs can be shown. " + "; ".join(left_out))
    return Workbench(sweep.folder.resolve().name, runs, left_out, shared=opening.shared)


def _checkpoint(job: Job) -> Path:
    if job.reads:
        raise ValueError("it reads faces and makes none")
    best = checkpoint_path(job.folder, "best")
    return best if best.is_file() else checkpoint_file(job.folder, "last")


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
