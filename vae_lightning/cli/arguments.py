"""Arguments that several verbs of `vae` share, and errors that end a verb with one line."""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from typer.core import TyperGroup
from typer.models import ArgumentInfo, OptionInfo

from vae_lightning.cli.places import check_free
from vae_lightning.runs.layout import CHECKPOINTS, HYDRA, runs_here
from vae_lightning.system.names import LONGEST_REASON, explain_encoding, reason_of, shown
from vae_lightning.system.terminal import command, make_output_safe
from vae_lightning.system.whole_files import storage_error

P = ParamSpec("P")
PLACES = ("out", "data_dir", "folder")  # arguments that name where results are written
SIZES = (
    "count",
    "samples",
    "batch_size",
    "images",
    "frames",
    "steps",
)  # arguments that memory depends on
# names of the Python API -> of the arguments that a person types
OF_THE_API = {
    **{"num_steps": "steps", "count_images": "images", "max_images": "images", "target": "attribute"},
    **{f"data.{name}": name for name in ("crop", "color", "image_size", "data_dir")},
}
NAMELESS = Path("standard output, or a file of the result,")  # if an error names no file
SIGNS_OF_THE_CPU = (
    *("DefaultCPUAllocator", "alloc_cpu", "std::bad_alloc"),
    *("Storage size calculation overflowed", "integer multiplication overflow"),  # more than the address space holds
)
SIGNS_OF_NO_MEMORY = (
    *SIGNS_OF_THE_CPU,
    *("out of memory", "ALLOC_FAILED"),
)


def _starting(incomplete: str, candidates: Iterable[str]) -> list[str]:
    """The candidates that Tab offers; shells offer files if the list is empty."""
    return [candidate for candidate in candidates if candidate.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """`last`, and the run folders here, the newest first."""
    age = {run.as_posix(): (run / CHECKPOINTS).stat().st_mtime_ns for run in runs_here()}
    return _starting(incomplete, ["last", *sorted(age, key=lambda run: (age[run], run), reverse=True)])


def complete_sweep(incomplete: str) -> list[str]:
    """`last`, and the sweep folders here."""
    jobs = Path().glob(f"multirun/*/*/{HYDRA}")
    return _starting(incomplete, ["last", *sorted({path.parents[1].as_posix() for path in jobs})])


def complete_override(incomplete: str) -> list[str]:
    """Keys, groups and choices of a training's configuration."""
    from vae_lightning.launch.command_line import complete_override
    from vae_lightning.launch.configuration import CONF_DIR

    return complete_override(incomplete, CONF_DIR)


RunPath = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="Run folder, exported folder, .ckpt file, or `last` for the newest run.",
        autocompletion=complete_run,
    ),
]
RunOrSweep = Annotated[
    str,
    typer.Argument(
        metavar="RUN|SWEEP",
        help="As RUN, or a sweep's folder: all its runs.",
        autocompletion=lambda incomplete: [*dict.fromkeys(complete_run(incomplete) + complete_sweep(incomplete))],
    ),
]
Which = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        help="Which checkpoint of the folder: best, last, or a .ckpt file.",
        autocompletion=lambda incomplete: _starting(incomplete, ["best", "last"]),
    ),
]
Device = Annotated[str, typer.Option(help="auto (the best there is), cpu, cuda, mps, …")]
Photographs = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[IMAGE]...", help="Your own pictures, upright portraits. Default: test faces."),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]
Count = Annotated[int, typer.Option("--count", "-n", min=1, help="How many faces.")]


class Verbs(TyperGroup):
    """The verbs of `vae`. An empty word is refused: as a path it would be the working folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for before, word in zip(["vae", *args], args, strict=False):
            if not word.strip() or (word.startswith("--") and word.endswith("=")):
                typer.secho(
                    f"{word or repr(word)} after {before} is empty; if a shell variable stands there, is it set?",
                    fg="red",
                    err=True,
                )
                raise typer.Exit(2)
        return super().parse_args(ctx, args)


def example(line: str) -> str:
    """The last line of a verb's help."""
    return f"Example: {command(line)}"


def ends_with_one_line(verb: Callable[P, None]) -> Callable[P, None]:
    """Makes errors that a user can correct end the program with their message, without a traceback."""

    @wraps(verb)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        make_output_safe()
        try:
            for name, value in kwargs.items():
                kwargs[name] = _at_home(value)  # shells do not expand the ~ of --out=~/x
                _check_argument(typed_name(verb, name), name, kwargs[name])
            verb(*args, **kwargs)
        except (ValueError, OSError) as error:
            stuck = storage_error(error, NAMELESS)
            nameless = stuck is not None and stuck.filename == str(NAMELESS)
            words = f"{NAMELESS} cannot be written: {error}" if nameless else str(stuck or error)
            typer.secho(as_typed(words, verb), fg="red", err=True)
            raise typer.Exit(2 if stuck is None else 1) from error
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            typer.secho(_without_memory(error, verb, kwargs), fg="red", err=True)
            raise typer.Exit(1) from error

    return guarded


def _at_home(value: Any) -> Any:
    """A path with the home folder in place of `~`; any other value unchanged.

    Raises:
        ValueError: there is no user of this name.
    """
    if isinstance(value, list | tuple):
        return type(value)(_at_home(each) for each in value)
    if not isinstance(value, str | Path) or not str(value).startswith("~"):
        return value
    try:
        return type(value)(Path(value).expanduser())
    except RuntimeError as error:
        name = Path(value).parts[0]
        raise ValueError(f"{value}: there is no user {name[1:]} here; a folder of that name is ./{name}") from error


def _check_argument(typed: str, name: str, value: Any) -> None:
    """
    Raises:
        ValueError: a number is nan or infinite, a name is not UTF-8, a file stands in the way of a folder, or a result
            would be overwritten.
    """
    problem = explain_encoding(map(str, value if isinstance(value, list | tuple) else [value]))
    if problem is not None:
        raise ValueError(problem)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{typed} {value}: a finite number is expected")
    if name == "out" and isinstance(value, Path):
        check_free(value)
    if name in PLACES and isinstance(value, Path):
        for parent in value.absolute().parents:
            if parent.exists() and not parent.is_dir():
                raise ValueError(f"{value}: {parent} is a file, not a folder")


def typed_name(verb: Callable[..., None], name: str) -> str:
    """`--steps` for a verb's option; nothing for an argument without a name, as RUN."""
    annotation = inspect.signature(verb).parameters[name].annotation
    info = next(each for each in annotation.__metadata__ if isinstance(each, ArgumentInfo | OptionInfo))
    if isinstance(info, ArgumentInfo):
        return ""
    written = (info.default, *(info.param_decls or ()))  # typer keeps the first in `default`
    named = [str(each).partition("/")[0] for each in written if str(each).startswith("--")]
    return named[0] if named else f"--{name.replace('_', '-')}"


def as_typed(message: str, verb: Callable[..., None]) -> str:
    """The message of an error in the words of the command line: `num_steps=0` becomes `--steps 0`.

    A command for train.py, whose settings are written with `=`, stays as it is.
    """
    words, command_for_training, rest = message.partition("train.py")
    arguments = inspect.signature(verb).parameters
    spoken = {name: name for name in arguments} | {name: own for name, own in OF_THE_API.items() if own in arguments}
    for name, own in spoken.items():
        option = typed_name(verb, own)
        words = re.sub(rf"(?<![\w.-]){re.escape(name)}=(?=\S)", f"{option} " if option else "", words)
    return words + command_for_training + rest


def lacks_memory(error: BaseException) -> bool:
    """Whether the machine or an accelerator ran out of memory; found without torch, which may not be imported."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in SIGNS_OF_NO_MEMORY)


def _without_memory(error: BaseException, verb: Callable[..., None], arguments: Mapping[str, Any]) -> str:
    smaller = ", ".join(typed_name(verb, name) for name in SIZES if arguments.get(name) is not None)
    fixes = [f"a smaller {smaller}"] if smaller else []
    on_cpu = isinstance(error, MemoryError) or any(sign in str(error) for sign in SIGNS_OF_THE_CPU)
    fixes += ["--device cpu"] if "device" in arguments and not on_cpu else []
    reason = shown(reason_of(error), LONGEST_REASON)
    return f"There is not enough memory: {' or '.join(fixes) or 'a machine with more of it'} is needed ({reason})"


def split_by_comma(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def temperature_of(text: str) -> float | dict[str, float]:
    """`0.7` as a number, `4x4=1,8x8=0.6` by level.

    Raises:
        ValueError: other text, a level twice, or a number that is not 0 or more.
    """
    parts = [part.rpartition("=") for part in split_by_comma(text)]
    try:
        values = {name.strip(): float(value) for name, _, value in parts}
        if not values or len(values) < len(parts) or ("" in values and len(values) > 1):
            raise ValueError(text)
        if not all(0 <= value < math.inf for value in values.values()):
            raise ValueError(text)
    except ValueError as error:
        raise ValueError(
            f"--temperature {text}: a finite number is expected, 0 or more, or one for each level of a hierarchical "
            "model, as in --temperature 4x4=1,8x8=0.6"
        ) from error
    return values.get("", values)


def whole_numbers(name: str, text: str) -> list[int]:
    """
    Raises:
        ValueError: a part of the text is not a whole number.
    """
    try:
        return [int(part) for part in split_by_comma(text)]
    except ValueError as error:
        raise ValueError(f"--{name} {text}: allowed are whole numbers by comma, as in --{name} 8,25") from error
