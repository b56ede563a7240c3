"""Resumes a search by Optuna: counts the trials that are left, and queues interrupted ones again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vae_lightning.launch.signatures import ConfigError
from vae_lightning.launch.sweep.engines import Engine

SEARCH_LOCK = ".search.lock"
_held: dict[Path, FileLock] = {}  # until the process ends


def with_trials_left(engine: Engine, hydra: Any, typed: Sequence[str]) -> Engine:
    """The engine with the arguments that make it run what is missing of `hydra.sweeper.n_trials`.

    Raises:
        ConfigError: as `hold_search`.
    """
    folder, sweeper = Path(hydra.sweep.dir), hydra.sweeper
    hold_search(folder)
    finished = requeue_interrupted(sweeper.storage, sweeper.study_name) if sweeper.storage else 0
    trials = max(0, sweeper.n_trials - finished)
    arguments = [*engine.arguments, f"hydra.sweeper.n_trials={trials}"]
    seed = sweeper.get("sampler", {}).get("seed")
    if seed is not None:  # with the same seed the sampler would draw the first trials again
        arguments.append(f"hydra.sweeper.sampler.seed={seed + finished}")
    if not any(word.startswith("hydra.sweeper.n_jobs=") for word in typed):
        arguments.append(f"hydra.sweeper.n_jobs={engine.jobs_at_once}")
    return replace(engine, trials=trials, arguments=tuple(arguments))


def hold_search(folder: Path) -> None:
    """Keeps other processes from searching in this folder until this one ends.

    Raises:
        ConfigError: another process searches there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / SEARCH_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"{folder}: another process searches there; give this one another sweep=NAME") from None
    _held[folder] = lock


def requeue_interrupted(storage_url: str, study_name: str) -> int:
    """Queues the trials of ended processes again, with the values that they had.

    Returns:
        How many trials have ended, well or badly.
    """
    from optuna.storages import RDBStorage
    from optuna.trial import TrialState

    storage = RDBStorage(storage_url)
    studies = {study.study_name: study._study_id for study in storage.get_all_study_summaries()}
    if study_name not in studies:
        return 0
    trials = storage.get_all_trials(studies[study_name])
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            storage.set_trial_state(trial._trial_id, TrialState.WAITING)
    return sum(trial.state.is_finished() for trial in trials)
