"""The built-in data set: rendered faces with known factors, in CelebA's own file layout.

root/img_align_celeba/000001.jpg ...   178x218 pictures
root/list_attr_celeba.txt              40 attributes, 1 or -1
root/list_eval_partition.txt           0 train, 1 validation, 2 test; no person is in two of them
root/identity_CelebA.txt               who it is
root/factors.csv                       the continuous factors that draw each picture (rendering.factors.FaceFactors)
root/ATTRIBUTES.md                     how the attributes follow from the factors
root/checksums.txt                     of all of these
root/faces.json                        count, seed and version; written last
"""

import csv
import json
import logging
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

import numpy as np
from filelock import FileLock
from jaxtyping import Float
from PIL import Image

from vae_lightning.data.decoded.checksums import checksum_of, list_checksums, read_checksums
from vae_lightning.data.rendering.attributes import ATTRIBUTE_NAMES, describe_attributes, face_attributes
from vae_lightning.data.rendering.drawing import draw_face
from vae_lightning.data.rendering.factors import FACTOR_RANGES, FaceFactors, Picture, sample_pictures
from vae_lightning.data.sources.source import DataError
from vae_lightning.system.names import LONGEST_REASON, is_a_name, shown
from vae_lightning.system.processors import num_cores
from vae_lightning.system.progress import progress_of

logger = logging.getLogger("vae_lightning")

RENDERER_VERSION = 1  # raise whenever the same factors would give other bytes
JPEG_QUALITY = 92
SMALLEST_COUNT = 20  # one picture of each person of a block, so that all three splits have people
PICTURES_PER_CHUNK = 50
SMALLEST_COUNT_FOR_WORKERS = 600  # below, drawing takes less time than starting processes
MANIFEST, CHECKSUMS = "faces.json", "checksums.txt"
TABLES = ("list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt", "factors.csv")


def faces_folder_name(count: int = 10_000, seed: int = 0) -> str:
    """A name that tells data sets of different content apart."""
    return f"faces-{count}-seed{seed}-v{RENDERER_VERSION}"


def render_faces(root: Path, *, count: int = 10_000, seed: int = 0, num_workers: int | None = None) -> Path:
    """Writes the data set to `root`, unless it is there already, and returns `root`.

    The bytes depend on count, seed and the installed versions only; a smaller set holds the first pictures of a larger.
    `num_workers` None takes all cores for large sets; 1 draws in this process, for scripts whose `__main__` cannot be
    imported by worker processes.

    Raises:
        ValueError: count below 20, negative seed, or `root` holds something else, or tables that were edited.
        OSError: `root` cannot be written; nothing half is left there.
        RuntimeError: worker processes could not start or were killed.
    """
    root = Path(root).absolute()
    _check_arguments(count, seed, num_workers)
    manifest = {"count": count, "seed": seed, "renderer_version": RENDERER_VERSION}
    if _is_complete(root, manifest):
        _check_tables(root)
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.parent / f".{root.name}.lock"):
            if not _is_complete(root, manifest):
                _refuse_foreign_folder(root)
                if root.exists():
                    _say_why_again(root, manifest)
                _render_aside(root, manifest, num_workers)
    except OSError as error:
        message = f"{error.strerror or error}: cannot write the rendered faces; make room or choose another folder than"
        raise OSError(error.errno, message, str(root)) from error
    return root


def read_factors(root: Path) -> tuple[tuple[str, ...], Float[np.ndarray, "pictures factors"]]:
    """Names and values of the factors that drew the pictures of `root`, in the order of its tables.

    Raises: DataError for a damaged file.
    """
    path = root / "factors.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        first = header.index("identity") + 1  # a file name and a person stand before them
        values = np.array([row[first:] for row in rows], np.float64).reshape(len(rows), len(header) - first)
    except (OSError, ValueError, csv.Error) as error:
        reason = shown(str(error), LONGEST_REASON)
        raise DataError(f"{path} cannot be read ({reason}): delete {root}, and it is rendered again.") from error
    if not np.isfinite(values).all() or not all(map(is_a_name, header[first:])):
        raise DataError(f"{path} holds a value or a name that is not allowed: delete {root}, and it is rendered again.")
    return tuple(header[first:]), values


def _check_arguments(count: int, seed: int, num_workers: int | None) -> None:
    if count < SMALLEST_COUNT:
        raise ValueError(f"count={count}: a set of rendered faces has at least {SMALLEST_COUNT} pictures")
    if count > 999_999:
        raise ValueError(f"count={count}: CelebA's six-digit names allow at most 999999 pictures")
    if seed < 0:
        raise ValueError(f"seed={seed}: must be 0 or a positive whole number")
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"num_workers={num_workers}: must be at least 1, or None for all cores")


def _is_complete(root: Path, manifest: dict[str, int]) -> bool:
    """The manifest appeared with the rename, when the set was whole; the count notices pictures that were deleted."""
    try:
        if json.loads((root / MANIFEST).read_text()) != manifest:
            return False
        return _count_pictures(root) == manifest["count"] and (root / CHECKSUMS).is_file()
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return False


def _count_pictures(root: Path) -> int:
    folder = root / "img_align_celeba"
    if not folder.is_dir():
        return 0
    with os.scandir(folder) as pictures:
        return sum(1 for _ in pictures)


def _say_why_again(root: Path, manifest: dict[str, int]) -> None:
    lost = "" if (root / CHECKSUMS).is_file() else f" and no {CHECKSUMS}"
    logger.warning(f"{root} has {_count_pictures(root):,} pictures of {manifest['count']:,}{lost}: rendering it again.")


def _check_tables(root: Path) -> None:
    """Refuses tables that have changed since they were written; pictures are compared when they are decoded."""
    checksums = read_checksums(root / CHECKSUMS)
    for name in TABLES:
        path = root / name
        if not path.is_file() or checksum_of(path.read_bytes()) != checksums.get(name):
            raise ValueError(
                f"{path} is not as it was rendered: it was edited or damaged. Delete {root}, and the same command "
                "renders it again; data of your own go into another folder (data=celeba data.root=…)."
            )


def _refuse_foreign_folder(root: Path) -> None:
    if root.exists() and not (root / MANIFEST).is_file() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"{root} exists and holds no rendered faces: choose another folder, or move it away")


def _render_aside(root: Path, manifest: dict[str, int], num_workers: int | None) -> None:
    """Renders into a folder beside `root`, which is then renamed; the process that holds the lock owns that folder."""
    aside, outdated = root.parent / f".{root.name}.partial", root.parent / f".{root.name}.outdated"
    for leftover in (aside, outdated):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        (aside / "img_align_celeba").mkdir(parents=True)
        pictures = sample_pictures(manifest["count"], manifest["seed"])
        _write_tables(aside, pictures)
        _draw_all(aside / "img_align_celeba", pictures, num_workers)
        _write_checksums(aside)
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        if root.exists():
            root.rename(outdated)
        aside.rename(root)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(outdated, ignore_errors=True)


def _picture_name(index: int) -> str:
    return f"{index + 1:06d}.jpg"


def _write_tables(folder: Path, pictures: list[Picture]) -> None:
    names = [_picture_name(index) for index in range(len(pictures))]
    attributes, partitions, identities, factors = [], [], [], []
    for name, picture in zip(names, pictures, strict=True):
        attributes.append(name + " " + " ".join(" 1" if value else "-1" for value in face_attributes(picture.factors)))
        partitions.append(f"{name} {picture.partition}")
        identities.append(f"{name} {picture.identity}")
        factors.append(",".join([name, str(picture.identity), *map(str, astuple(picture.factors))]))
    _write_lines(folder / "list_attr_celeba.txt", [str(len(names)), " ".join(ATTRIBUTE_NAMES) + " ", *attributes])
    _write_lines(folder / "list_eval_partition.txt", partitions)
    _write_lines(folder / "identity_CelebA.txt", identities)
    _write_lines(folder / "factors.csv", [",".join(["filename", "identity", *FACTOR_RANGES]), *factors])
    (folder / "ATTRIBUTES.md").write_text(describe_attributes(), encoding="utf-8")


def _write_checksums(folder: Path) -> None:
    paths = [folder / name for name in TABLES] + sorted((folder / "img_align_celeba").iterdir())
    (folder / CHECKSUMS).write_text(list_checksums({path.name: checksum_of(path.read_bytes()) for path in paths}))


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _draw_all(folder: Path, pictures: list[Picture], num_workers: int | None) -> None:
    if num_workers is None:
        num_workers = num_cores() if len(pictures) >= SMALLEST_COUNT_FOR_WORKERS else 1
    chunks = [
        (folder, first, [picture.factors for picture in pictures[first : first + PICTURES_PER_CHUNK]])
        for first in range(0, len(pictures), PICTURES_PER_CHUNK)
    ]
    drawn = (draw_chunk(*chunk) for chunk in chunks) if num_workers == 1 else _draw_in_processes(chunks, num_workers)
    with progress_of("Rendering faces", len(pictures)) as advance:
        for num_drawn in drawn:
            advance(num_drawn)


def draw_chunk(folder: Path, first: int, factors: list[FaceFactors]) -> int:
    """Draws consecutive pictures from index `first` on; returns how many."""
    for index, one in enumerate(factors, start=first):
        Image.fromarray(draw_face(one)).save(folder / _picture_name(index), quality=JPEG_QUALITY)
    return len(factors)


def _draw_in_processes(chunks: list[tuple[Path, int, list[FaceFactors]]], num_workers: int) -> Iterator[int]:
    # A fork would copy the locks of threads that torch may have started; spawned processes start clean.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_start_worker)
    try:
        with _worker_environment():
            futures = [pool.submit(draw_chunk, *chunk) for chunk in chunks]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        hint = "protect the calling script by `if __name__ == '__main__':`, or pass num_workers=1"
        raise RuntimeError(f"a process that renders faces ended too early; {hint}") from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _worker_environment() -> Iterator[None]:
    """Environment that workers inherit: one thread each, and freed memory kept, which saves a fifth of the time.

    Ctrl-C, which a terminal sends to all processes, is blocked for them too: it may come while they still import.
    """
    settings = {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": str(2**28),
        "MALLOC_TRIM_THRESHOLD_": str(2**28),
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    signals_before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, signals_before)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent, and ends the worker when its parent ends, in whatever way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
