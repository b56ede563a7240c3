"""Checks and completes the command line before Hydra parses it: unknown keys, run folders, resuming the last run."""

import errno
import os
import re
import shlex
import string
import sys
import unicodedata
from collections.abc import Container, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException
from omegaconf import OmegaConf

from vae_lightning.launch.configuration import CONF_DIR, RootConfig
from vae_lightning.launch.explanations import elsewhere, places
from vae_lightning.launch.folders import MULTIRUN, OUTPUTS, new_folder
from vae_lightning.launch.kept_settings import keep_settings
from vae_lightning.launch.overrides import path_override, plainly_written, quote_paths, typed_path
from vae_lightning.launch.signatures import ConfigError
from vae_lightning.launch.stored_overrides import read_overrides
from vae_lightning.launch.words import options_first
from vae_lightning.runs.layout import (
    CHECKPOINTS,
    HYDRA,
    OVERRIDES_YAML,
    RunError,
    check_links,
    checkpoint_path,
    is_run_or_sweep,
    newest_run,
    runs_here,
)
from vae_lightning.system.extras import MissingExtraError
from vae_lightning.system.names import did_you_mean, explain_encoding
from vae_lightning.system.terminal import command
from vae_lightning.system.whole_files import check_writable

SWEEP_FLAGS = {"-m", "--multirun", "hydra.mode=MULTIRUN"}
QUESTIONS = {
    *("-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info"),
    *("-p", "--package", "-sc", "--shell-completion", "--version"),
}
UNRELATED = {"--hydra-help", "-i", "--info", "-sc", "--shell-completion", "--version"}  # to the settings
OF_THE_COMMAND = ("sweep", "hparams_search", "ckpt_path")  # where a job lies or starts from; not part of what it is
SWEEP_SIGNS = (",", "range(", "choice(", "interval(", "glob(")


def root_keys(conf_dir: Path) -> list[str]:
    """The keys and groups with which an override can begin."""
    groups = [path.name for path in conf_dir.iterdir() if path.is_dir()]
    return sorted({*groups, *(entry.name for entry in fields(RootConfig))})


def explain_unknown_key(arguments: Sequence[str], conf_dir: Path) -> str | None:
    """Names the root keys and groups, and the nearest of them, if an override has another key; else None."""
    known = root_keys(conf_dir)
    for argument in arguments:
        key = re.split(r"[./@=]", argument.lstrip("+~"))[0]
        if "=" in argument and not argument.startswith("-") and key not in known:
            hint = did_you_mean(key, known) if key not in places() else elsewhere(key)
            hint = hint or elsewhere(key)
            return f"{key}: there is no such key{hint}; the root keys and groups are {', '.join(known)}"
    return None


def is_sweep(arguments: Sequence[str]) -> bool:
    """Whether Hydra makes several jobs of this command line."""
    return bool(SWEEP_FLAGS & set(arguments)) and not is_a_question(arguments)


def is_a_question(arguments: Sequence[str], questions: Container[str] = QUESTIONS) -> bool:
    """Whether Hydra only prints something, and nothing runs."""
    return any(argument.split("=")[0] in questions for argument in arguments)


def choose_folder(arguments: Sequence[str]) -> list[str]:
    """Makes the folder of the run or the sweep, so that two commands of one second never share one, and adds it.

    Raises:
        ConfigError: `sweep=NAME` or a search without -m, a name that no folder can have, several processes
            without a folder's name, or `run_dir` without Hydra's own key.
    """
    values = dict(argument.lstrip("+").split("=", 1) for argument in arguments if "=" in argument)
    _check_folder_keys(arguments, values)
    if is_a_question(arguments) or ("hydra.sweep.dir" if is_sweep(arguments) else "hydra.run.dir") in values:
        return list(arguments)
    for variable in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        if int(os.environ.get(variable, 1)) > 1:
            raise ConfigError(
                f"started as one of {os.environ[variable]} processes ({variable}): they need one folder, "
                "hydra.run.dir=outputs/NAME"
            )
    if not is_sweep(arguments):
        return [*arguments, f"hydra.run.dir='{new_folder(OUTPUTS)}'"]
    if "sweep" not in values:
        return [*arguments, f"sweep='{new_folder(MULTIRUN).name}'"]
    name = str(typed_path(f"sweep={values['sweep']}"))
    if not re.fullmatch(r"\w[\w .+-]*", unicodedata.normalize("NFC", name)):  # accents may be characters of their own
        raise ConfigError(
            f"sweep={name}: must be the name of a folder in multirun/, made of letters, digits, space . + - _"
        )
    return list(arguments)


def _check_folder_keys(arguments: Sequence[str], values: Mapping[str, str]) -> None:
    if values.get("run_dir") != values.get("hydra.run.dir") and "run_dir" in values:
        instead = "hydra.sweep.dir" if is_sweep(arguments) else "hydra.run.dir"
        raise ConfigError(
            f"run_dir={values['run_dir']}: Hydra's log and settings would be written to another folder; "
            f"set {instead}={values['run_dir']}"
        )
    if not SWEEP_FLAGS & set(arguments):
        for key in ("sweep", "hparams_search"):
            if key in values:
                raise ConfigError(f"{key}={values[key]} needs a sweep of several jobs: add -m")


def name_jobs_by_what_is_swept(arguments: Sequence[str]) -> list[str]:
    """Adds to a `-m` command line the keys that all jobs share, so that Hydra leaves them out of folder names."""
    if not SWEEP_FLAGS & set(arguments):
        return list(arguments)
    assignments = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    try:
        overrides = OverridesParser.create().parse_overrides(assignments)
    except CompactHydraException:
        return list(arguments)  # Hydra parses them again and says what is wrong
    shared = [override.key_or_group for override in overrides if not override.is_sweep_override()]
    is_swept = len(shared) < len(overrides) or "hparams_search" in shared
    unnamed = [key for key in shared if not key.startswith("hydra") and (is_swept or key in OF_THE_COMMAND)]
    if not unnamed:
        return list(arguments)
    quoted = ",".join(f"'{key}'" for key in unnamed)
    return [*arguments, f"hydra.job.config.override_dirname.exclude_keys=[{quoted}]"]


def resume_last_run(arguments: Sequence[str]) -> list[str]:
    """Completes `ckpt_path=last` by the folder and the settings of the run that was started last.

    Overrides that are typed beside it (`trainer.max_epochs=20`) replace those that the run was started with. The run
    in hydra.run.dir is resumed by a checkpoint of its own that is named by its path as well.

    Raises:
        ConfigError: together with `-m`, or the named folder has no last checkpoint.
        RunError: there is no run to resume, or its settings cannot be taken from its folder.
    """
    named = [argument for argument in arguments if argument.startswith("hydra.run.dir=")]
    if "ckpt_path=last" not in arguments and not (named and _is_own_checkpoint(arguments, typed_path(named[-1]))):
        return list(arguments)
    if SWEEP_FLAGS & set(arguments):
        raise ConfigError("ckpt_path=last resumes one run, -m starts many: leave one of them out")
    run_dir = typed_path(named[-1]) if named else _last_started()
    if not checkpoint_path(run_dir).is_file():
        again = "; a run that has none yet is started again by its own command, without ckpt_path"
        hint = again if (run_dir / HYDRA).is_dir() else "; name another hydra.run.dir=…"
        raise ConfigError(f"ckpt_path=last: {run_dir} has no {CHECKPOINTS}/last.ckpt{hint}")
    typed = {argument.split("=")[0].lstrip("+~") for argument in arguments} | set(OF_THE_COMMAND)
    kept = read_overrides(run_dir, CONF_DIR, typed)
    folder = [] if named else [path_override("hydra.run.dir", run_dir)]
    return [*keep_settings(run_dir, kept, arguments, CONF_DIR), *arguments, *folder]


def _is_own_checkpoint(arguments: Sequence[str], run_dir: Path) -> bool:
    paths = [typed_path(argument) for argument in arguments if argument.startswith("ckpt_path=")]
    return bool(paths) and paths[-1].resolve().parent == (run_dir / CHECKPOINTS).resolve()


def _last_started() -> Path:
    """The run that has the newest checkpoint.

    Raises:
        RunError: no run has one, or a run without a checkpoint was started after it.
    """
    run = newest_run()
    saved_at = checkpoint_path(run).stat().st_mtime
    started = {other: (other / OVERRIDES_YAML).stat().st_mtime for other in runs_here(OVERRIDES_YAML)}
    newer = [other for other in started if started[other] > saved_at and other != run]
    without = [other for other in newer if not checkpoint_path(other).is_file()]
    if without:
        lost = max(without, key=started.__getitem__)
        raise RunError(
            f"ckpt_path=last: {lost} was started last and has no checkpoint to resume from. Start it again with its "
            f"own settings and hydra.run.dir={lost}, or resume the run before it: {resume_command(run)}"
        )
    return run


def resume_command(run_dir: Path | str) -> str:
    """What to type to resume a run."""
    return command(shlex.join(["python", "train.py", "ckpt_path=last", f"hydra.run.dir={run_dir}"]))


def check_place(arguments: Sequence[str]) -> None:
    """Checks, before anything is computed, that the run or the sweep can write to its folder.

    Raises:
        ConfigError: no folder can have that name.
        RunError: a run or sweep is there already, and a link in it leads elsewhere.
        StorageError: nothing can be written there.
    """
    if is_a_question(arguments):
        return
    key, default = ("hydra.sweep.dir", "multirun") if is_sweep(arguments) else ("hydra.run.dir", "outputs")
    named = [argument for argument in arguments if argument.startswith(f"{key}=")]
    sweeps = [argument for argument in arguments if argument.startswith("sweep=") and is_sweep(arguments)]
    folder = typed_path(named[-1]) if named else Path(default, *map(typed_path, sweeps[-1:]))
    if "${" not in str(folder):
        _check_is_no_file(folder, key)
        if is_run_or_sweep(folder):
            check_links(folder, folder)
        check_writable(folder)


def _check_is_no_file(folder: Path, key: str) -> None:
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.is_symlink() or path.exists())
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise ConfigError(f"{key}={folder}: this name is too long for a folder") from error
    if not there.is_dir():
        raise ConfigError(f"{there} is a file, and {key}={folder} needs a folder: name another, or rename the file")


def prepare_command_line(arguments: Sequence[str], conf_dir: Path) -> list[str]:
    """Returns the command line that Hydra gets; ends the program with one line if it cannot be run.

    Raises:
        StorageError: see `check_place`.
    """
    try:
        return _prepared(arguments, conf_dir)
    except (ConfigError, MissingExtraError, RunError) as error:
        sys.stderr.write(f"{error}\n")
    raise SystemExit(2)


def _prepared(arguments: Sequence[str], conf_dir: Path) -> list[str]:
    from vae_lightning.launch.composing import compose_command_line
    from vae_lightning.launch.sweep.engines import check_extras

    problem = explain_encoding([*arguments, str(Path.cwd())])
    in_order = [] if problem else options_first(arguments, root_keys(conf_dir))
    problem = problem or explain_unknown_key(arguments, conf_dir)
    if problem is not None:
        raise ConfigError(problem)
    plain = [plainly_written(word) for word in in_order]
    typed = quote_paths(plain, sweeps=is_sweep(plain))
    words = resume_last_run(typed)
    check_place(words)
    if not is_a_question(arguments, UNRELATED):
        check_extras(words)
        words = compose_command_line(words, typed, conf_dir, sweeps=bool(SWEEP_FLAGS & set(words)))
    return name_jobs_by_what_is_swept(choose_folder(words))


def complete_override(incomplete: str, conf_dir: Path) -> list[str]:
    """Completions of a word of the command line, for Tab."""
    from hydra._internal.core_plugins.bash_completion import BashCompletion
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_dir(str(conf_dir), version_base="1.3"):
        return BashCompletion(GlobalHydra.instance().config_loader())._query("config", incomplete)


def help_page(arguments: Sequence[str], conf_dir: Path) -> str:
    """The choices of every group, and the configuration that `arguments` give; swept overrides are left out.

    Raises:
        CompactHydraException: an override that Hydra refuses.
    """
    overrides = [
        argument
        for argument in arguments
        if "=" in argument and argument[0] != "-" and not any(sign in argument for sign in SWEEP_SIGNS)
    ]
    with initialize_config_dir(str(conf_dir), version_base="1.3"):
        config = compose("config", overrides, return_hydra_config=True)
    examples = config.hydra.help.template.replace("python train.py", command("python train.py"))
    settings = OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"])
    return string.Template(examples).substitute(CONFIG=OmegaConf.to_yaml(settings))
