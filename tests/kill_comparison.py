"""What must hold after a kill, and what must be equal in the end: for tests/kill_trials.py."""

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# times, also those of rendered files; how the command was typed; a note of Lightning's that it does not read again
LEFT_OUT = {
    *("seconds", "train/images_per_second", "seconds_spent", "fit_seconds", "started", "ended"),
    *("ckpt_path", "current_score", "date", "fingerprint"),
}
OF_A_SESSION = ("sweep.json", "hparams.yaml", "card.md")
UNFINISHED = re.compile(r"^\..+\.\d+$|\.partial$|\.outdated$|\.unfinished$|\.tmp$")


def half_files(folder: Path) -> list[str]:
    """Files under their final names that cannot be read."""
    broken = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        try:
            _read(path)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is what is looked for)
            broken.append(f"{path.relative_to(folder)} is no whole file: {type(error).__name__}: {error}")
    return broken


def _read(path: Path) -> None:
    if ".partial" in str(path):
        return
    if path.suffix in (".ckpt", ".pt"):
        torch.load(path, weights_only=True)
    elif path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.name == "config.yaml" and ".hydra" not in path.parts:
        assert yaml.safe_load(path.read_text(encoding="utf-8"))
    elif path.suffix in (".png", ".jpg"):
        with Image.open(path) as picture:
            picture.load()
    elif path.suffix == ".csv":
        text = path.read_text(encoding="utf-8")
        if path.name != "metrics.csv":  # a row is appended to that at a time; half a row is known and left out
            rows = list(csv.reader(text.splitlines()))
            assert text.endswith("\n")
            assert len({len(row) for row in rows}) == 1
    elif path.suffix == ".html":
        assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")


def leftovers(folder: Path) -> list[str]:
    """What nobody will finish any more."""
    found = [path for path in folder.rglob("*") if UNFINISHED.search(path.name)]
    temporary = [path for path in (folder / "tmp").rglob("*") if path.is_file()]
    return [f"{path.relative_to(folder)} is left over" for path in [*found, *temporary]]


def differences(whole: Path, resumed: Path) -> list[str]:
    """What differs between two folders in which the same command has ended, times left out."""
    found = []
    names = {path.relative_to(whole) for path in _results(whole)}
    others = {path.relative_to(resumed) for path in _results(resumed)}
    found += [f"{name} is missing" for name in sorted(names - others)]
    found += [f"{name} is too many" for name in sorted(others - names)]
    for name in sorted(names & others):
        found += [f"{name}: {each}" for each in _compare(whole / name, resumed / name, whole, resumed)]
    if _decoded(whole) != _decoded(resumed):
        found.append("data/cache: other pixels")
    runs = {path.parent for path in whole.rglob("status.json")}
    for run in sorted(runs):
        found += _compare_events(run, resumed / run.relative_to(whole))
    return found


def _decoded(folder: Path) -> list[str]:
    """The caches' content; their names hang on the times of the image files."""
    arrays = folder.glob("data/cache/*/images.npy")
    return sorted(hashlib.blake2b(path.read_bytes()).hexdigest() for path in arrays)


def _results(folder: Path) -> Iterator[Path]:
    """Files that come out the same each time; logs, locks, events and the records of sessions do not."""
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        is_aside = (
            parts[0] in ("tmp", "logs") or parts[:2] == ("data", "cache") or any(part.startswith(".") for part in parts)
        )
        is_of_a_session = path.suffix in (".log", ".lock", ".html") or path.name in OF_A_SESSION
        if path.is_file() and not (is_aside or is_of_a_session or path.name.startswith("events.out")):
            yield path


def _compare(one: Path, other: Path, whole: Path, resumed: Path) -> list[str]:
    if one.suffix in (".ckpt", ".pt"):
        contents = [torch.load(path, weights_only=True) for path in (one, other)]
    elif one.suffix == ".json":
        contents = [json.loads(path.read_text(encoding="utf-8")) for path in (one, other)]
    elif one.suffix == ".yaml":
        contents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (one, other)]
    elif one.suffix == ".csv":
        contents = [_rows(path) for path in (one, other)]
    else:
        return [] if one.read_bytes() == other.read_bytes() else ["other bytes"]
    if one.name == "status.json":
        contents = [{name: content[name] for name in ("state", "reason", "identity")} for content in contents]
    return list(_unequal(contents[0], contents[1], "", (str(whole), str(resumed))))[:5]


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not re.search("seconds|_second", name)} for row in rows]


def _unequal(one: Any, other: Any, place: str, folders: tuple[str, str]) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        one = {_placed(key, folders[0]): value for key, value in one.items() if key not in LEFT_OUT}
        other = {_placed(key, folders[1]): value for key, value in other.items() if key not in LEFT_OUT}
        if one.keys() != other.keys():
            yield f"{place}: keys differ: {sorted(map(str, one.keys() ^ other.keys()))}"
        for key in one.keys() & other.keys():
            yield from _unequal(one[key], other[key], f"{place}/{key}", folders)
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from _unequal(*pair, f"{place}/{number}", folders)
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if not (one.dtype == other.dtype and torch.equal(one, other)):
            yield f"{place}: tensors differ"
    elif not _same(_placed(one, folders[0]), _placed(other, folders[1])):
        yield f"{place}: {str(one)[:60]} and {str(other)[:60]}"


def _placed(value: Any, folder: str) -> Any:
    return value.replace(folder, "") if isinstance(value, str) else value


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other) or float(one) == float(other)  # 2 and 2.0 in a table
    except (TypeError, ValueError):
        return False


def _compare_events(run: Path, other: Path) -> list[str]:
    """The curves that TensorBoard shows: each step once, each with the same value."""
    found = []
    curves = [_curves(folder) for folder in (run, other)]
    if curves[0].keys() != curves[1].keys():
        found.append(f"{run.name}: TensorBoard has other tags: {sorted(curves[0].keys() ^ curves[1].keys())}")
    for tag in curves[0].keys() & curves[1].keys():
        points, others = curves[0][tag], curves[1][tag]
        steps = [step for step, _ in others]
        if len(set(others)) != len(set(steps)):  # what was tested twice stands there twice, and is the same
            found.append(f"{run.name}: TensorBoard shows a step of {tag} with two values: {others}")
        if tag != "train/images_per_second" and dict(points) != dict(others):
            found.append(f"{run.name}: TensorBoard's {tag} differs: {points} and {others}")
        elif {step for step, _ in points} != set(steps):
            found.append(f"{run.name}: TensorBoard's {tag} has other steps: {steps}")
    return found


def _curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 1, "tensors": 1})
    if not any(run.glob("events.out.tfevents.*")):
        return {}
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
