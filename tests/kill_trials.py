"""Kills real processes of train.py and vae at random moments, types the same command again, and compares the end.

    python tests/kill_trials.py --kills 120 --seed 0                          # about 40 minutes on one core
    python tests/kill_trials.py --phases validation --trial 3 --seed 0        # one trial again

A trial is one command in a folder of its own: killed one to three times, then left alone. It is lost where the end is
not that of a run that nobody disturbed (weights, optimizer, schedules, mean of the weights, tables, curves, pictures,
data: bit by bit; times left out), where a half file stands under the name of a whole one, or where something is left.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from conftest import write_celeba
from kill_comparison import differences, half_files, leftovers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

ROOT = Path(__file__).parents[1]
TRAIN, VAE = str(ROOT / "train.py"), str(Path(sys.executable).with_name("vae"))
KINDS = ("kill -9", "SIGTERM", "Ctrl-C", "Ctrl-C twice", "Ctrl-C held")
CODES = {"kill -9": (-9,), "SIGTERM": (143, -15), "Ctrl-C": (130, -2), "Ctrl-C twice": (130, -2)}
HELD_SECONDS, PATIENCE_SECONDS = 2.0, 300.0


def words(text: str) -> list[str]:
    return text.split()


SMALL = words(
    "data.image_size=32 data.batch_size=8 model.latent_dim=6 trainer.accelerator=cpu trainer.precision=32-true "
    "trainer.log_every_n_steps=2 data.root=CELEBA"
)
EXACT = words(
    "+callbacks=[ema,projector] callbacks.ema.decay=0.9 callbacks.projector.num_faces=6 lr_schedule=decay "
    "beta_schedule=warmup beta_schedule.unit=step beta_schedule.duration=10"
)
OTHER = words("kl=free_bits reconstruction=gaussian_shared model.norm=batch data.horizontal_flip=true")
ONCE = words("hydra.run.dir=run trainer.max_epochs=3")
DRAWN = words("data=faces data.faces_count=600 data.train_size=32 data.val_size=8 data.test_size=8 data.root=null")
SWEEP = words("-m beta=1,4 sweep=s trainer.max_epochs=2 callbacks=[checkpoint,reconstruction]")
READER = words(
    "experiment=attribute_classifier data.image_size=32 data.batch_size=8 trainer.accelerator=cpu "
    "trainer.precision=32-true trainer.log_every_n_steps=2 data.root=CELEBA hydra.run.dir=run trainer.max_epochs=2"
)
MEASURED = "likelihood,reconstructions,latents,pictures"


@dataclass(frozen=True)
class Phase:
    """A command, and the moment of it that is aimed at; without one it is killed anywhere."""

    command: tuple[str, ...]
    moment: str | None = None
    most: int = 1  # calls of the moment to choose from
    least: int = 1
    made_by: tuple[str, ...] = ()  # the command whose end it starts from
    is_drawn: bool = False  # aimed at by the pictures that are there


def phase(words: list[str], moment: str | None = None, most: int = 1, **settings: object) -> Phase:
    return Phase((TRAIN, *words), moment, most, **settings)  # type: ignore[arg-type]


RUN, RUN_OTHERWISE = [*SMALL, *EXACT, *ONCE], [*SMALL, *EXACT, *OTHER, *ONCE]
PHASES = {
    "rendering the faces": phase([*SMALL, *DRAWN, "hydra.run.dir=run", "trainer.max_epochs=1"], is_drawn=True),
    "building the cache": phase([*SMALL, "hydra.run.dir=run", "trainer.max_epochs=1"], "decoding", 3),
    "first step": phase(RUN, "training step", 1),
    "mid-epoch": phase(RUN, "training step", 18, least=2),
    "validation": phase(RUN_OTHERWISE, "validation", 4),
    "test": phase(RUN, "test", 1),
    "a checkpoint is written": phase(RUN, "checkpoint", 6),
    "a picture is written": phase(RUN, "picture", 16),
    "a record is written": phase(RUN_OTHERWISE, "record", 8),
    "a file gets its name": phase(RUN_OTHERWISE, "rename", 60),
    "anywhere in a run": phase(RUN_OTHERWISE),
    "a network that reads faces": phase(READER, "training step", 12),
    "jobs of a sweep": phase([*SWEEP, *SMALL], "training step", 24),
    "anywhere in a sweep": phase([*SWEEP, *SMALL]),
    "the end of a sweep": phase([*SWEEP, *SMALL], "picture", 16, least=5),
    "vae report": Phase((VAE, "report", "multirun/s"), "picture", 8, made_by=(TRAIN, *SWEEP, *SMALL)),
    "vae evaluate": Phase((VAE, "evaluate", "run", "--metrics", MEASURED), "picture", 4, made_by=(TRAIN, *RUN)),
    "vae export": Phase((VAE, "export", "run", "exported", "--overwrite"), "rename", 12, made_by=(TRAIN, *RUN)),
    "a number of steps": phase([*RUN, "trainer.max_steps=15"], "training step", 15, least=2),
}


@dataclass
class Trial:
    """What was done to one command, and what was lost by it."""

    phase: str
    number: int
    kills: list[str] = field(default_factory=list)
    seconds_to_end: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


class Trials:
    """All trials of one seed, below one folder; the undisturbed runs are made once."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.celeba = folder / "celeba"
        if not self.celeba.exists():
            write_celeba(self.celeba, 60)
        self._seconds: dict[str, float] = {}
        self._environment = {"OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(folder / "matplotlib")}

    def reference(self, command: tuple[str, ...], made_by: tuple[str, ...] = ()) -> Path:
        """The folder in which a command ran undisturbed."""
        place = self.folder / "undisturbed" / f"{zlib.crc32(repr((command, made_by)).encode()):x}"
        if not place.exists():
            self._make_folder(place, made_by)
            started = time.monotonic()
            code = self._start(place, command).wait()
            self._seconds[str(command)] = time.monotonic() - started
            if code:
                raise SystemExit(f"undisturbed, {' '.join(command)} ends with {code}: {_log(place)}")
        return place

    def _make_folder(self, place: Path, made_by: tuple[str, ...]) -> None:
        if made_by:
            shutil.copytree(self.reference(made_by), place)
        (place / "tmp").mkdir(parents=True, exist_ok=True)
        (place / "logs").mkdir(exist_ok=True)

    def _start(self, place: Path, command: tuple[str, ...], aim: tuple[str, ...] = ()) -> "subprocess.Popen[bytes]":
        words = [word.replace("CELEBA", f"'{self.celeba}'") for word in command]
        pipe = (int(aim[2]),) if aim else ()
        program = [sys.executable, str(ROOT / "tests" / "kill_moments.py"), *aim] if aim else [sys.executable]
        with (place / "logs" / f"{len(list((place / 'logs').iterdir()))}.txt").open("wb") as log:
            return subprocess.Popen(
                [*program, *words],
                cwd=place,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                pass_fds=pipe,
                start_new_session=True,  # Ctrl-C goes to a whole group of processes, as from a terminal
                env={**os.environ, **self._environment, "TMPDIR": str(place / "tmp")},
            )

    def run(self, name: str, number: int) -> Trial:
        """One trial; its folder is kept where something was lost."""
        aimed, chance = PHASES[name], random.Random(f"{self.seed} {name} {number}")
        whole = self.reference(aimed.command, aimed.made_by)
        place = self.folder / f"{name.replace(' ', '-')}-{number}"
        shutil.rmtree(place, ignore_errors=True)
        self._make_folder(place, aimed.made_by)
        trial = Trial(name, number)
        for turn in range(chance.randint(1, 3)):
            kind = KINDS[(list(PHASES).index(name) + 2 * number + turn) % len(KINDS)]
            if not self._kill_once(place, aimed, kind, chance, trial):
                break
        code = self._start(place, aimed.command).wait(PATIENCE_SECONDS)
        if code:
            trial.lost.append(f"left alone, it ends with {code}: {_log(place)[-300:]}")
        else:
            trial.lost += [*differences(whole, place), *leftovers(place), *half_files(place)]
        if not trial.lost:
            shutil.rmtree(place)
        return trial

    def _kill_once(self, place: Path, aimed: Phase, kind: str, chance: random.Random, trial: Trial) -> bool:
        """Whether the process was still there to be killed."""
        reader, writer = os.pipe()
        try:
            call = str(chance.randint(aimed.least, aimed.most))
            aim = (aimed.moment, call, str(writer)) if aimed.moment else ()
            process = self._start(place, aimed.command, aim)
            os.close(writer)
            self._wait_for_moment(place, aimed, process, reader, chance)
        finally:
            os.close(reader)
        asked_at = time.monotonic()
        _send(process, kind, chance)
        try:
            code = process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            trial.lost.append(f"{kind}: the process does not end")
            return False
        trial.seconds_to_end.append(round(time.monotonic() - asked_at, 2))
        if code == 0:
            return False
        trial.kills.append(kind)
        if code not in CODES.get(kind, (130, -2)):
            trial.lost.append(f"{kind}: exit code {code}: {_log(place)[-300:]}")
        if "Traceback" in _log(place):
            trial.lost.append(f"{kind}: a traceback: {_log(place)[-600:]}")
        trial.lost += [*_survivors(process, kind), *half_files(place)]
        return True

    def _wait_for_moment(
        self, place: Path, aimed: Phase, process: "subprocess.Popen[bytes]", reader: int, chance: random.Random
    ) -> None:
        if aimed.moment:
            os.read(reader, 1)  # also returns when the process ends
            time.sleep(chance.uniform(0, 0.3))
        elif aimed.is_drawn:
            wanted = chance.randint(0, 599)
            while process.poll() is None and len(list(place.glob("data/.faces*/img_align_celeba/*"))) < wanted:
                time.sleep(0.02)
                if any(place.glob("data/faces-*")):
                    break
        else:
            until = time.monotonic() + chance.uniform(0.3, 0.8 * self._seconds.get(str(aimed.command), 15.0))
            while process.poll() is None and time.monotonic() < until:
                time.sleep(0.02)


def _send(process: "subprocess.Popen[bytes]", kind: str, chance: random.Random) -> None:
    if kind in ("kill -9", "SIGTERM"):
        process.send_signal(signal.SIGKILL if kind == "kill -9" else signal.SIGTERM)
        return
    pauses = {"Ctrl-C": [], "Ctrl-C twice": [chance.uniform(0, 1.5)], "Ctrl-C held": [0.04] * int(HELD_SECONDS / 0.04)}
    for pause in [0.0, *pauses[kind]]:
        time.sleep(pause)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)


def _survivors(process: "subprocess.Popen[bytes]", kind: str) -> list[str]:
    """Processes that the dead one has started and that go on without it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return []
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    return [f"{kind}: its processes live on"]


def _log(place: Path) -> str:
    newest = max((place / "logs").iterdir(), key=lambda path: int(path.stem))
    return newest.read_text(errors="replace")


def run_all(trials: Trials, names: list[str], kills: int, console: Console, done: list[Trial]) -> None:
    """Round and round through the phases and the kinds of signals, until there have been enough kills."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task("kills", total=kills)
        turn = 0
        while sum(len(trial.kills) for trial in done) < kills:
            name = names[turn % len(names)]
            bars.update(bar, description=name)
            trial = trials.run(name, turn // len(names))
            done.append(trial)
            turn += 1
            bars.update(bar, completed=sum(len(each.kills) for each in done))
            for line in trial.lost:
                console.print(f"LOST {name}, trial {trial.number}: {line}", markup=False)
            if trial.lost:
                again = f"--phases '{name}' --trial {trial.number} --seed {trials.seed}"
                console.print(f"  again: python tests/kill_trials.py {again} --folder {trials.folder}", markup=False)


def table(done: list[Trial]) -> str:
    """Markdown: how often each phase was killed in which way, and what was lost."""
    lines = [f"| killed while | {' | '.join(KINDS)} | lost |", f"|---|{'---|' * (len(KINDS) + 1)}"]
    for name in dict.fromkeys(trial.phase for trial in done):
        own = [trial for trial in done if trial.phase == name]
        counts = Counter(kind for trial in own for kind in trial.kills)
        lost = sum(bool(trial.lost) for trial in own)
        lines.append(f"| {name} | {' | '.join(str(counts[kind]) for kind in KINDS)} | {lost} |")
    counts = Counter(kind for trial in done for kind in trial.kills)
    lost = sum(bool(trial.lost) for trial in done)
    lines.append(f"| **all {counts.total()}** | {' | '.join(str(counts[kind]) for kind in KINDS)} | {lost} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=120, help="how many, over all phases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--phases", default=",".join(PHASES), help=f"by comma; all are {', '.join(PHASES)}")
    parser.add_argument("--trial", type=int, help="only this one of each phase")
    parser.add_argument("--folder", type=Path, help="where they run; what was lost stays there. Default: a new one")
    parser.add_argument("--json", type=Path, help="every trial goes to this file")
    asked = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let what they start behind them ignore Ctrl-C
    names = [name.strip() for name in asked.phases.split(",")]
    unknown = set(names) - set(PHASES)
    if unknown:
        parser.error(f"no such phase: {', '.join(sorted(unknown))}; allowed are {', '.join(PHASES)}")
    trials = Trials((asked.folder or Path(tempfile.mkdtemp(prefix="kills-"))).resolve(), asked.seed)
    console = Console(stderr=True)
    done: list[Trial] = []
    try:
        if asked.trial is None:
            run_all(trials, names, asked.kills, console, done)
        else:
            done += [trials.run(name, asked.trial) for name in names]
            console.print([line for trial in done for line in trial.lost])
    except KeyboardInterrupt:
        console.print("Interrupted: what was done so far follows.")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(trial) for trial in done], indent=2) + "\n")
    sys.stdout.write(table(done) + "\n")
    slowest = max((seconds for trial in done for seconds in trial.seconds_to_end), default=0.0)
    sys.stdout.write(f"Slowest end after a signal: {slowest:.1f} s\n")
    return int(any(trial.lost for trial in done))


if __name__ == "__main__":
    sys.exit(main())
