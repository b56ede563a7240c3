"""Runs a sweep: plans and checks all jobs, starts them by Hydra's launchers, and writes the report at the end."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.plugins.sweeper import Sweeper

from vae_lightning.launch.signatures import ConfigError
from vae_lightning.launch.sweep.plan import Check, SweepPlan, plan_sweep
from vae_lightning.launch.sweep.progress import progress_shown, read_progress
from vae_lightning.runs.layout import TRAIN_LOG, RunError
from vae_lightning.runs.status import read_status

FAILED_EXIT_CODE = 1
REFUSED_EXIT_CODE = 2
INTERRUPTED_EXIT_CODE = 130


def run_sweep(
    arguments: Sequence[str], typed: Sequence[str], conf_dir: Path, check: Check, start_hydra: Callable[[], object]
) -> int:
    """Runs a whole sweep and ends with its report.

    Args:
        arguments: of the command line, prepared for Hydra.
        typed: the same as a person typed them.
        conf_dir: with config.yaml.
        check: raises ValueError if a job's configuration cannot work.
        start_hydra: runs the jobs of `sys.argv`.

    Returns:
        The exit code, 0 if every job is done.
    """
    try:
        sweep = plan_sweep(arguments, typed, conf_dir, check)
    except (ConfigError, RunError) as error:
        _say(str(error))
        return REFUSED_EXIT_CODE
    now = read_progress(sweep.folder)
    _say(
        f"Sweep of {now.total} jobs in {sweep.folder} ({sweep.engine.name}, {sweep.engine.jobs_at_once} at once): {now}"
    )
    _say(f"To resume or extend it:  {sweep.command}")
    sys.argv[1:] = sweep.arguments
    ended_badly: object = None
    if sweep.jobs:  # are composed: Hydra would compose all of them again, in silence, before the first one starts
        Sweeper.validate_batch_is_legal = lambda self, batch: None  # type: ignore[method-assign]
    try:
        with progress_shown(sweep.folder, sweep.engine.name):
            start_hydra()
    except KeyboardInterrupt:
        _say(f"\nInterrupted. Resume it with:  {sweep.command}")
        return INTERRUPTED_EXIT_CODE
    except SystemExit as stopped:  # Hydra has said why
        if stopped.code not in (None, 0, FAILED_EXIT_CODE):  # a signal: stop at once
            _say(f"\n{read_progress(sweep.folder)}. Resume it with:  {sweep.command}")
            raise
        ended_badly = stopped.code
    return summarise(sweep) or int(bool(ended_badly))


def summarise(sweep: SweepPlan) -> int:
    """Lists the jobs that failed and writes the report; returns the exit code, 0 if none failed."""
    now = read_progress(sweep.folder)
    failed = [name for name, state in now.states.items() if state == "failed"]
    lost = {name: state for name, state in now.states.items() if state in ("interrupted", "not started")}
    _say(f"\n{now}")
    for name in failed:
        reason = read_status(sweep.folder / name).get("reason")
        _say(f"  failed  {name}: {reason}\n          {sweep.folder / name / TRAIN_LOG}")
    for name, how in lost.items():
        _say(f"  {how}  {name}: no process works on it any more")
    for name, state in now.states.items():
        changed = read_status(sweep.folder / name).get("changed")
        if state == "done" and changed and sweep.engine.name != "basic":  # whose jobs have logged it here already
            _say(f"  kept  {name}, which would not come out the same: {'; '.join(changed)}")
    if failed or lost:
        _say(f"Try these again with:  {sweep.command}")
    from vae_lightning.report import write_report
    from vae_lightning.report.front import find_front
    from vae_lightning.report.sweep import read_sweep

    try:
        content = read_sweep(sweep.folder)
        front = find_front(content)
        for sentence in front.sentences(content) if front else []:
            _say(sentence)
        _say(f"Report  {write_report(sweep.folder)}")
    except RunError as error:
        _say(f"No report: {error}")
    return FAILED_EXIT_CODE if failed or lost else 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
