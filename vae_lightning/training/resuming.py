"""Resuming: where a checkpoint's training got, what may have changed, and whether its best epoch remains comparable."""

import math
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from torch import Tensor

from vae_lightning.runs.checkpoints import read_checkpoint
from vae_lightning.runs.layout import RECORD_KEY, RunError
from vae_lightning.runs.settings import differences, named

PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")  # in the state of Lightning's ModelCheckpoint
AS_A_WHOLE = ("model", "posterior", "reconstruction", "beta", "kl")
IN_PART = {"beta_schedule": "capacity_nats", "recognizer": "target", "trainer": "limit_val_batches"}


# settings that decide which images the batches of an epoch hold
OF_THE_ORDER = (
    *("seed", "batch_size", "train_size", "subset_seed", "source"),
    *("faces_count", "faces_seed", "noise_count"),
)
PARTS = ("model", "recognizer", "reconstruction")
WITHOUT_WEIGHTS = (("model", "initial_logvar"), ("model", "logvar_clamp"))  # and without another function
STATISTICS = "statistics."  # of batches that are not logged yet


class Position(NamedTuple):
    """Finished epochs, and finished batches of the epoch under way: None at an epoch's end."""

    epochs: int
    batches: int | None


def position_in(loops: Mapping[str, Any]) -> Position:
    """Corrects Lightning's counters, which count an epoch that `max_steps` or a time limit cut short as processed."""
    epoch = loops["fit_loop"]["epoch_progress"]["current"]
    batch = loops["fit_loop"]["epoch_loop.batch_progress"]
    was_cut = epoch["processed"] > epoch["completed"] and not batch["is_last_batch"]
    epochs = epoch["processed"] - was_cut
    return Position(epochs, batch["current"]["completed"] if epoch["ready"] > epochs else None)


class Start(NamedTuple):
    """Where a training resumes from a checkpoint."""

    path: Path
    position: Position
    step: int  # optimizer steps done
    settings: Mapping[str, Any]  # of the run that wrote it
    data: dict[str, Any]  # that it was trained on
    num_processes: int | None  # of that run
    weights: Mapping[str, Any]

    def is_at_the_end(self, trainer: Mapping[str, Any]) -> bool:
        """Whether these settings of the trainer leave nothing to train."""
        max_epochs, max_steps = (_limit(trainer.get(name)) for name in ("max_epochs", "max_steps"))
        return (self.position.batches is None and self.position.epochs >= max_epochs) or self.step >= max_steps

    def in_words(self, trainer: Mapping[str, Any]) -> str:
        epochs, batches = self.position
        last = trainer.get("max_epochs")
        of = f" of {last}" if last is not None and last >= 0 else ""
        within = f", after {batches} of its batches" if batches else ""
        where = f"in epoch {epochs + 1}{of}{within}"
        if self.is_at_the_end(trainer):
            where = f"at its end, after epoch {epochs if batches is None else epochs + 1}: nothing is left to train"
        return f"Resuming {self.path} {where} ({self.step:,} steps done)"


def _limit(value: int | None) -> float:
    return math.inf if value is None or value == -1 else value


def read_start(path: Path) -> Start:
    """Reads from a checkpoint where its training had got.

    Raises:
        RunError: it does not say that.
    """
    content = read_checkpoint(path)
    record = content[RECORD_KEY]
    try:
        position, step = position_in(content["loops"]), int(content["global_step"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} does not say how far its training had got, so that training cannot resume from it"
        ) from error
    data, processes = record.get("data") or {}, record.get("processes")
    return Start(path, position, step, record["config"], data, processes, content["state_dict"])


def check_start(start: Start, settings: Mapping[str, Any], *, is_own: bool, num_processes: int) -> None:
    """Checks that training with these settings can resume from a checkpoint as if it had never stopped.

    Args:
        start: of the checkpoint.
        settings: resolved, of the run that starts.
        is_own: whether that run wrote the checkpoint.
        num_processes: that train together now.

    Raises:
        RunError: the checkpoint has more epochs or steps than are asked for, another run would train nothing, or the
            rest of the epoch under way would not be the images that are left of it.
    """
    trainer, epochs = settings["trainer"], start.position.epochs
    for name, done, unit in (("max_epochs", epochs, "epochs"), ("max_steps", start.step, "steps")):
        if done > _limit(trainer.get(name)):
            raise RunError(
                f"trainer.{name}={trainer[name]}: {start.path} has finished {done} {unit}; ask for that or more"
            )
    if not is_own and start.is_at_the_end(trainer):
        raise RunError(
            f"ckpt_path={start.path}: it has finished {epochs} epochs and {start.step} steps, so with "
            f"trainer.max_epochs={trainer.get('max_epochs')} and max_steps={trainer.get('max_steps')} nothing would be "
            "trained; ask for more"
        )
    if start.position.batches is not None:
        _check_order(start, settings, num_processes)


def _check_order(start: Start, settings: Mapping[str, Any], num_processes: int) -> None:
    """Checks that the rest of an epoch is drawn as its beginning was.

    Raises:
        RunError: its images would come in another order, some twice and some never.
    """
    before, today = start.settings.get("data") or {}, settings["data"]
    was, now = ({f"data.{name}": data.get(name) for name in OF_THE_ORDER} for data in (before, today))
    was["number of processes"], now["number of processes"] = start.num_processes, num_processes
    changed = [name for name in was if was[name] != now[name] and (name.startswith("data.") or was[name] is not None)]
    if changed:
        name, (epochs, batches) = changed[0], start.position
        raise RunError(
            f"{name}={now[name]}: {start.path} lies after {batches} batches of {before.get('batch_size')} images in "
            f"epoch {epochs + 1}, drawn with {name}={was[name]}; with another, the rest of the epoch would hold some "
            f"images twice. Resume with {name}={was[name]} to the end of the epoch (trainer.max_epochs={epochs + 1}), "
            f"then with {now[name]}"
        )


def check_architecture(start: Start, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Checks that a checkpoint holds the weights of the network and the pixel term that are asked for.

    Args:
        start: of the checkpoint.
        settings: resolved, of the run that starts.
        weights: of the module that was built from them.

    Raises:
        RunError: names the settings that differ, or the weights.
    """
    asked, found = ({part: config.get(part) for part in PARTS} for config in (settings, start.settings))
    differ = [each for each in differences(found, asked) if each.path not in WITHOUT_WEIGHTS]
    of_the_model = [each for each in differ if each.path[0] != "reconstruction"]
    other = [
        name
        for name in dict.fromkeys([*weights, *start.weights])
        if not name.startswith(STATISTICS) and _shape(weights, name) != _shape(start.weights, name)
    ]
    if not of_the_model and not other:
        return
    classes = [each for each in differ if each.path[-1] == "_target_" or len(each.path) == 1]
    words = named(classes or differ, "in the checkpoint", "asked for")
    words = (
        words or f"{other[0]} has shape {_shape(start.weights, other[0])} in it, {_shape(weights, other[0])} is asked"
    )
    raise RunError(
        f"ckpt_path={start.path}: {words}. Training resumes with the checkpoint's own architecture; leave ckpt_path "
        "out to start anew"
    )


def _shape(weights: Mapping[str, Any], name: str) -> tuple[int, ...] | None:
    return tuple(weights[name].shape) if name in weights else None


def changes_of_the_loss(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the settings that make validation losses incomparable, from two records of checkpoints.

    Most schedules are left out: they change training only, and validation uses their end.
    """
    then, today = _meaning(before), _meaning(now)
    return [name for name in today if then[name] != today[name]]


def _meaning(record: Mapping[str, Any]) -> dict[str, Any]:
    config, data = record.get("config", {}), record.get("data") or {}
    perceptual = dict(config.get("perceptual") or {})
    perceptual.pop("weights_path", None)  # the folder does not matter
    return {
        **{name: config.get(name) for name in AS_A_WHOLE},
        "perceptual": perceptual,
        **{f"{group}.{key}": (config.get(group) or {}).get(key) for group, key in IN_PART.items()},
        "validation images": (data.get("content") or {}).get("val"),
        "annotation": data.get("annotation") if config.get("recognizer") else None,
    }


def moved(state: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """A ModelCheckpoint's state after its folder was moved or copied to `folder`.

    Files elsewhere are left out, because ModelCheckpoint deletes files that are no longer among the best.
    """

    def here(path: str) -> str:
        inside = PurePath(path)
        if not inside.is_relative_to(state["dirpath"]):
            return ""
        inside = inside.relative_to(state["dirpath"])
        return "" if ".." in inside.parts else str(Path(folder, inside))

    scores = {here(path): score for path, score in state["best_k_models"].items() if here(path)}
    return {**state, "dirpath": folder, "best_k_models": scores, **{name: here(state[name]) for name in PATHS}}
