"""The command line before hydra sees it: misspelt keys, names of sweep folders, going on with the last run."""

import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException

from vae_lightning.configuration import ConfigError, RootConfig, did_you_mean
from vae_lightning.run_folders import RunError, newest_run


def explain_unknown_key(arguments: Sequence[str], conf_dir: Path) -> str | None:
    """The known root key or group nearest to a misspelt one, for the first override that names an unknown one."""
    groups = [path.name for path in conf_dir.iterdir() if path.is_dir()]
    known = sorted({*groups, *(entry.name for entry in fields(RootConfig))})
    for argument in arguments:
        key = re.split(r"[./@=]", argument)[0]
        if "=" in argument and not key.startswith(("-", "+", "~")) and key not in known:
            hint = did_you_mean(key, known)
            return f"{key}: there is no such key{hint}; the root keys and groups are {', '.join(known)}"
    return None


def name_jobs_by_what_is_swept(arguments: Sequence[str]) -> list[str]:
    """Adds to a `-m` command line the keys that all jobs share, so that hydra leaves them out of folder names."""
    if not {"-m", "--multirun"} & set(arguments):
        return list(arguments)
    assignments = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    try:
        overrides = OverridesParser.create().parse_overrides(assignments)
    except CompactHydraException:
        return list(arguments)  # hydra parses them again and says what is wrong
    shared = [override.key_or_group for override in overrides if not override.is_sweep_override()]
    if len(shared) == len(overrides) or not shared:
        return list(arguments)
    quoted = ",".join(f"'{key}'" for key in shared if not key.startswith("hydra"))
    return [*arguments, f"hydra.job.config.override_dirname.exclude_keys=[{quoted}]"]


def continue_last_run(arguments: Sequence[str]) -> list[str]:
    """Makes `ckpt_path=last` go on in the folder, and with the overrides, of the newest run that can be continued.

    What is typed beside it counts more than what the run was started with (`trainer.max_epochs=20`).

    Raises:
        ConfigError: `-m` is asked for at once, or the named folder has no last checkpoint.
        RunError: there is no run to continue.
    """
    if "ckpt_path=last" not in arguments:
        return list(arguments)
    if {"-m", "--multirun"} & set(arguments):
        raise ConfigError("ckpt_path=last continues one run, -m starts many: leave one of them out")
    named = [argument.split("=", 1)[1] for argument in arguments if argument.startswith("hydra.run.dir=")]
    run_dir = Path(named[0].strip("'\"")) if named else newest_run()
    if not (run_dir / "checkpoints" / "last.ckpt").is_file():
        raise ConfigError(f"ckpt_path=last: {run_dir} has no checkpoints/last.ckpt; name another hydra.run.dir=…")
    earlier = yaml.safe_load((run_dir / ".hydra" / "overrides.yaml").read_text()) or []
    typed = {argument.split("=")[0].lstrip("+~") for argument in arguments}
    kept = [override for override in earlier if override.split("=")[0].lstrip("+~") not in typed]
    folder = [] if named else [f"hydra.run.dir='{run_dir}'"]
    return [*kept, *arguments, *folder]


def prepare_command_line(arguments: Sequence[str], conf_dir: Path) -> list[str]:
    """The command line that hydra gets; ends the program with one clear line where it cannot be run."""
    problem = explain_unknown_key(arguments, conf_dir)
    if problem is None:
        try:
            return name_jobs_by_what_is_swept(continue_last_run(arguments))
        except (ConfigError, RunError) as error:
            problem = str(error)
    sys.stderr.write(f"{problem}\n")
    raise SystemExit(2)
