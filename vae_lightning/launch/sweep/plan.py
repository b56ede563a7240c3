"""Plans a sweep: lists its jobs from the command line, and checks each before the first one starts."""

import logging
import os
import shlex
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae_lightning.launch.configuration import optimized_metrics
from vae_lightning.launch.parts_in_common import parts_in_common
from vae_lightning.launch.signatures import ConfigError
from vae_lightning.launch.sweep.composition import FOLDER, Composer
from vae_lightning.launch.sweep.engines import Engine, choose_engine, refuse_several_devices
from vae_lightning.launch.sweep.progress import read_progress
from vae_lightning.launch.words import read_line
from vae_lightning.runs.identity import folders_by_identity, identity_of_settings, new_job_folder
from vae_lightning.runs.layout import SWEEP_JSON
from vae_lightning.runs.status import FORMAT, read_plan
from vae_lightning.system.progress import progress
from vae_lightning.system.terminal import command
from vae_lightning.system.whole_files import write_json

Check = Callable[[Any, bool], None]  # raises ValueError if a job with these settings cannot work
MOST_REFUSALS = 12  # jobs that cannot work and are listed, each with its reason


@dataclass(frozen=True)
class PlannedJob:
    """A job of the sweep."""

    name: str  # of its folder
    identity: str
    overrides: tuple[str, ...]  # as Hydra passes them to the job


@dataclass(frozen=True)
class SweepPlan:
    """A sweep before it starts."""

    folder: Path
    jobs: tuple[PlannedJob, ...]  # empty for a search, which chooses one after another
    engine: Engine
    arguments: tuple[str, ...]  # that Hydra gets
    typed: tuple[str, ...]  # as typed

    @property
    def command(self) -> str:
        """What to type to resume this sweep."""
        is_named = any(word.startswith(("sweep=", "hydra.sweep.dir=")) for word in self.typed)
        named = () if is_named else (f"sweep={self.folder.name}",)
        return command(shlex.join(["python", "train.py", *self.typed, *named]))


def plan_sweep(arguments: Sequence[str], typed: Sequence[str], conf_dir: Path, check: Check) -> SweepPlan:
    """Composes and checks every job, and writes the plan into the sweep's folder.

    Args:
        arguments: of the command line, the sweep's folder among them.
        typed: the same as a person typed them.
        conf_dir: with config.yaml.
        check: raises ValueError if a job's configuration cannot work.

    Raises:
        ConfigError: the engine cannot be used here, or jobs cannot work; the message has the reason for each.
    """
    try:
        return _plan(arguments, typed, conf_dir, check)
    except HydraException as error:
        raise ConfigError(_in_words(error)) from error


def _plan(arguments: Sequence[str], typed: Sequence[str], conf_dir: Path, check: Check) -> SweepPlan:
    line, search_path = read_line(arguments)
    with initialize_config_dir(str(conf_dir), version_base="1.3"):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        parsed = parser.parse_overrides([*line.overrides, *search_path])
        fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
        base = compose(line.config_name, fixed, return_hydra_config=True)
        own = _overrides_of_jobs(base, parsed, parser)
        engine = choose_engine(base, len(own) if own is not None else None)
        of_hydra = [word for word in fixed if word.lstrip("+~").startswith("hydra")]
        candidates = own if own is not None else [[word for word in fixed if word not in of_hydra]]
        jobs = _check_all(Composer(line.config_name, of_hydra), candidates, base.hydra, check, engine)
    if str(base.hydra.sweeper._target_).endswith("OptunaSweeper"):
        from vae_lightning.launch.sweep.search import with_trials_left

        engine = with_trials_left(engine, base.hydra, line.overrides)  # writes to the folder, so only after the checks
    folder = Path(base.hydra.sweep.dir)
    planned = tuple(jobs) if own is not None else ()
    _write_plan(folder, planned, engine, _goals(base) if own is None else {})
    return SweepPlan(folder, planned, engine, (*arguments, *engine.arguments), tuple(typed))


def _overrides_of_jobs(base: Any, parsed: Sequence[Override], parser: OverridesParser) -> list[list[str]] | None:
    """The overrides of each job that Hydra's sweeper will start; None for a search."""
    sweeper = base.hydra.sweeper
    if not str(sweeper._target_).endswith("BasicSweeper"):
        return None
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    of_jobs = [override for override in parsed if not (override.key_or_group or "").startswith("hydra")]
    overrides = [*parser.parse_overrides(params), *of_jobs]
    return [job for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]


def _check_all(
    composer: Composer, candidates: Sequence[list[str]], hydra: Any, check: Check, engine: Engine
) -> list[PlannedJob]:
    """Composes and checks each job; jobs of one identity are one job.

    Raises:
        ConfigError: names the jobs that cannot work.
    """
    jobs: dict[str, PlannedJob] = {}
    refused = []
    folders = _Folders(composer, hydra)
    with parts_in_common(), _unlogged(), progress() as observer:
        for number in observer.track(range(len(candidates)), "checking the jobs", len(candidates)):
            own = tuple(candidates[number])
            try:
                settings = composer.settings(own)
                identity = identity_of_settings(settings)  # before the check, which completes the settings
                refuse_several_devices(settings["trainer"])
                check(settings, engine.runs_here)
                jobs.setdefault(identity, PlannedJob(folders.name(own, identity), identity, own))
            except (ValueError, HydraException, OmegaConfBaseException) as error:
                shown = " ".join(word for word in own if not word.startswith("sweep="))
                reason = composer.explained(error, own) if isinstance(error, HydraException) else _in_words(error)
                refused.append(f"  {shown}\n    {reason}")
    if refused:
        how = "Leave them out; several commands with one sweep=NAME fill one sweep." if jobs else ""
        more = [f"  and {len(refused) - MOST_REFUSALS} more"] if len(refused) > MOST_REFUSALS else []
        listed = "\n".join(refused[:MOST_REFUSALS] + more)
        raise ConfigError(
            f"{len(refused)} of {len(candidates)} jobs cannot work, so nothing was started. {how}\n{listed}"
        )
    return list(jobs.values())


class _Folders:
    """The folders of a sweep's jobs, those of earlier commands among them; what lies on disk is read once."""

    def __init__(self, composer: Composer, hydra: Any) -> None:
        self._composer = composer
        self._sweep_dir = Path(hydra.sweep.dir)
        self._naming = hydra.job.config.override_dirname
        self._is_ours = OmegaConf.to_container(hydra.sweep, resolve=False)["subdir"] == FOLDER  # type: ignore[index, call-overload]
        self._by_identity = folders_by_identity(self._sweep_dir)

    def name(self, overrides: Sequence[str], identity: str) -> str:
        if not self._is_ours:
            return self._composer.folder_by_hydra(overrides)
        if identity not in self._by_identity:
            words = self._composer.named_by_overrides(overrides, self._naming)
            self._by_identity[identity] = new_job_folder(self._sweep_dir, words, identity, self._by_identity.values())
        return self._by_identity[identity]


@contextmanager
def _unlogged() -> Iterator[None]:
    """Without the log lines of a job, which it writes into its own log."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _in_words(error: Exception) -> str:
    """Hydra's message says where, its cause what."""
    cause = str(error.__cause__).splitlines()[:1] if error.__cause__ is not None else []
    return ": ".join([str(error), *cause]) if isinstance(error, HydraException) else str(error)


def _goals(base: Any) -> dict[str, str]:
    """What a search looks for: minimize or maximize, by metric."""
    directions = base.hydra.sweeper.get("direction", "minimize")
    named = [directions] if isinstance(directions, str) else directions
    # a direction is an enumeration of Hydra's or its name
    words = [str(getattr(direction, "name", direction)) for direction in named]
    return dict(zip(optimized_metrics(base), words, strict=False))


def _write_plan(folder: Path, jobs: Sequence[PlannedJob], engine: Engine, goals: Mapping[str, str]) -> None:
    """Writes the plan; it keeps the jobs of earlier commands for this sweep."""
    new = [{"name": job.name, "identity": job.identity, "overrides": list(job.overrides)} for job in jobs]
    identities = {job.identity for job in jobs}
    earlier = [job for job in read_plan(folder).get("jobs", []) if job.get("identity") not in identities]
    plan = {
        "format": FORMAT,
        "session": uuid.uuid4().hex[:12],  # names this command in the status of the jobs that it starts
        "started": time.time(),
        "process": os.getpid(),
        "host": socket.gethostname(),
        "engine": engine.name,
        "jobs_at_once": engine.jobs_at_once,
        "trials": engine.trials,
        "goals": dict(goals),
        "in_session": [job.name for job in jobs],
        "jobs": [*earlier, *new],
    }
    write_json(folder / SWEEP_JSON, plan)
    write_json(folder / SWEEP_JSON, {**plan, "work_at_start": read_progress(folder).work_left})
