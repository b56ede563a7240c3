"""The names of files in run folders and sweep folders, and finding runs. Imports neither torch nor Hydra."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from vae_lightning.system.terminal import command

# in a run folder
CONFIG_YAML, DATA_JSON, STATUS_JSON, TRAIN_LOG = "config.yaml", "data.json", "status.json", "train.log"
METRICS_CSV, METRICS_JSON = "metrics.csv", "metrics.json"
CHECKPOINTS, IMAGES, EVALUATION, EDITS = "checkpoints", "images", "evaluation", "edits"
LOSS_CURVES_PNG, RATE_DISTORTION_PNG = "loss_curves.png", "rate_distortion.png"
HYDRA = ".hydra"
OVERRIDES_YAML = f"{HYDRA}/overrides.yaml"
CARD_JSON = "card.json"  # in the folder of an evaluation
EDIT_JSON = "edit.json"  # in the folder of an edit
# in a sweep folder, beside one run folder for each job
SWEEP_JSON = "sweep.json"
# in an exported folder
EXPORTED_WEIGHTS = "model.safetensors"
EXPORTED_CONFIG = "config.json"
MODEL_PREFIX = "model."  # of the model's weights in the state_dict
RECONSTRUCTION_PREFIX = "objective.reconstruction."
RECORD_KEY = "run_record"
BEST_KEY = "best_validation"
LONGEST_CONFIG = 2**18  # letters of a config.yaml
SIGNS_OF_A_RUN = (CHECKPOINTS, HYDRA, METRICS_JSON)


class RunError(ValueError):
    """A path does not name a run, or names one that this version cannot read."""


def checkpoint_path(run_dir: Path, name: str = "last") -> Path:
    """The path of a run's checkpoint: `best` is that of the epoch with the lowest val/loss, `last` the newest."""
    return run_dir / CHECKPOINTS / f"{name}.ckpt"


def runs_here(file: str = CHECKPOINTS) -> list[Path]:
    """The run folders below outputs/ and multirun/ that hold a file or folder of this name."""
    candidates = [*Path("outputs").glob("*/"), *Path("multirun").glob("*/*/")]
    return [folder for folder in candidates if (folder / file).exists()]


def newest_run(recognizer: bool | None = None) -> Path:
    """The run folder below outputs/ and multirun/ whose last checkpoint is the newest.

    Args:
        recognizer: True takes attribute classifiers and factor regressors only, False autoencoders only, None all runs.

    Raises:
        RunError: no such run exists.
    """
    checkpoints = [
        checkpoint_path(folder)
        for folder in runs_here()
        if checkpoint_path(folder).is_file() and recognizer in (None, has_recognizer(folder))
    ]
    if not checkpoints:
        kind = {None: "run", False: "run of an autoencoder", True: "run of an attribute classifier"}[recognizer]
        raise RunError(f"last: no {kind} with a checkpoint in outputs/ or multirun/ here; name its folder instead")
    return _newest(checkpoints, 1)


def has_recognizer(folder: Path) -> bool:
    """Whether a run's config.yaml names an attribute classifier or a factor regressor."""
    file = folder / CONFIG_YAML
    if not file.is_file():
        return False
    with file.open(encoding="utf-8", errors="replace") as opened:
        return bool(re.search(r"^recognizer:\s*\n +\w", opened.read(LONGEST_CONFIG), re.MULTILINE))


def newest_sweep() -> Path:
    """The sweep folder in multirun/ in which a job was started most recently.

    Raises:
        RunError: multirun/ holds no sweep.
    """
    started = list(Path("multirun").glob(f"*/*/{OVERRIDES_YAML}"))  # a report written later does not touch these
    if not started:
        raise RunError(
            "last: no sweep in multirun/ here; name its folder, or make one: "
            + command("python train.py -m beta=1,4,10")
        )
    return _newest(started, 2)


def _newest(files: Sequence[Path], levels: int) -> Path:
    """Prints and returns the folder so many levels above the newest file; among files of one moment names decide."""
    folder = max(files, key=lambda path: (path.stat().st_mtime_ns, path.as_posix())).parents[levels]
    sys.stderr.write(f"last: {folder}\n")
    return folder


def checkpoint_file(path: Path, checkpoint: str = "best", *, recognizer: bool = False) -> Path:
    """The checkpoint file that a path stands for.

    Args:
        path: a checkpoint file, a run folder, an exported folder (which holds one model), or `last`, the newest run.
        checkpoint: `best`, `last`, or another file, in the folder or anywhere.
        recognizer: `last` is the newest attribute classifier or factor regressor instead of the newest autoencoder.

    Raises:
        RunError: the message says which checkpoints exist instead.
    """
    if str(path) == "last" and not path.exists():
        path = newest_run(recognizer)
    if path.is_file():
        return path
    if checkpoint not in ("best", "last"):
        places = [Path(checkpoint).expanduser(), path / checkpoint, path / CHECKPOINTS / checkpoint]
        named = next((place for place in places if place.is_file()), None)
        if named is None:
            raise RunError(f"checkpoint={checkpoint}: there is no such file; allowed are best, last, or a .ckpt")
        return named
    file = checkpoint_path(path, checkpoint)
    if file.is_file():
        return file
    if (path / EXPORTED_WEIGHTS).is_file():
        if checkpoint == "best":
            return path / EXPORTED_WEIGHTS
        raise RunError(
            f"checkpoint={checkpoint}: {path} is an exported folder, which holds only one model; leave it out"
        )
    if not path.exists():
        raise RunError(f"{path}: there is no such file or folder; a run is a folder in outputs/ or multirun/<sweep>/")
    others = sorted(str(other.relative_to(path)) for other in path.glob("**/*.ckpt"))[:5]
    there = f"there are {', '.join(others)}" if others else "there are no checkpoints in it"
    if checkpoint_path(path).is_file():
        there += ". Take the last one: --checkpoint last, in Python checkpoint='last'"
    raise RunError(f"{path} has no {CHECKPOINTS}/{checkpoint}.ckpt; {there}")


def run_folder(file: Path) -> Path:
    """The folder of the run that a checkpoint belongs to."""
    return file.parent.parent if file.parent.name == CHECKPOINTS else file.parent


def results_folder(file: Path, *names: str) -> Path:
    """The folder below a checkpoint's run where the results of a verb are kept; it may be missing.

    Raises:
        RunError: see `check_links`.
    """
    folder = Path(run_folder(file), *names)
    check_links(folder, run_folder(file))
    return folder


def check_links(folder: Path, root: Path) -> None:
    """Checks that files written to a folder, which may be a stranger's, land in it.

    Args:
        folder: that will be written to; it may be missing.
        root: the folder of the run or the sweep that it belongs to.

    Raises:
        RunError: it is or holds a link that leads out of `root`, or something that is neither a file nor a folder.
        OSError: a folder in it cannot be read.
    """
    home = os.path.realpath(root)
    paths = [folder]
    for place, folders, files in os.walk(folder, onerror=_raise) if folder.is_dir() else ():
        paths += [path for path in (Path(place, name) for name in (*folders, *files)) if not _is_plain(path)]
    for path in paths:
        target = os.path.realpath(path)
        if os.path.commonpath([home, target]) != home:
            raise RunError(
                f"{path} leads out of {root}, to {target}, and what is written there would land in that place: delete "
                "the link, or put what it leads to in its place"
            )
        if path.exists() and not (path.is_dir() or path.is_file()):
            raise RunError(f"{path} is a pipe, a socket or a device, which no run makes: delete it")


def _is_plain(path: Path) -> bool:
    return (path.is_dir() or path.is_file()) and not path.is_symlink()


def _raise(error: OSError) -> None:
    raise error


def is_run_or_sweep(path: Path) -> bool:
    return any((path / sign).exists() for sign in (*SIGNS_OF_A_RUN, SWEEP_JSON)) or is_sweep(path)


def is_sweep(path: Path) -> bool:
    """Whether a folder holds run folders and is not a run folder itself."""
    return (
        path.is_dir()
        and not any((path / sign).exists() for sign in SIGNS_OF_A_RUN)
        and any((child / sign).exists() for child in path.iterdir() for sign in SIGNS_OF_A_RUN)
    )
