"""Measures where the time of a training step goes, and whether the host waits for the device."""

import logging
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import lightning as L
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import profile, record_function

from vae_lightning.system.whole_files import write_json
from vae_lightning.training.run_module import RunModule

log = logging.getLogger("vae_lightning")
OPERATIONS_SHOWN = 12
# On a GPU these wait until it has finished. On a CPU nothing waits: counted is what would wait on a GPU.
WAITS_ON_GPU = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "Pageable")
WAITS_ON_CPU = ("aten::_local_scalar_dense",)


class Profile(L.Callback):
    """Traces the steps of one whole logging window, logging included, after another one to warm up.

    Writes `profile/trace.json.gz` (open it in chrome://tracing or Perfetto) and `profile/summary.json`.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, run_dir: str) -> None:
        self.folder = Path(run_dir) / "profile"
        self._profiler: profile | None = None
        self._step: AbstractContextManager[Any] | None = None
        self._windows = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, RunModule)
        self._end_step()
        if self._windows == 1 and self._profiler is None:
            self._profiler = profile(acc_events=True)  # one cycle; PyTorch before 2.12 warns without it
            self._profiler.start()
        if self._windows == 1:
            self._step = record_function("step that logs" if pl_module.logs_after_this_batch else "step")
            self._step.__enter__()

    def _end_step(self) -> None:
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, RunModule)
        if not pl_module.logs_after_this_batch:
            return
        self._windows += 1
        if self._profiler is not None:
            self._end_step()
            self._profiler.stop()
            self._write(self._profiler, pl_module.device.type)
            self._profiler = None

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._windows < 2:
            log.warning(
                f"callbacks.profile saw {self._windows} logging windows and needs two: take a smaller "
                "trainer.log_every_n_steps or more epochs"
            )

    def _write(self, profiler: profile, device: str) -> None:
        summary = summarise(profiler.events() or [], device)
        self.folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self.folder / "trace.json.gz"))
        write_json(self.folder / "summary.json", summary)
        log.info(
            f"Profile of {summary['steps']} steps, {summary['milliseconds_per_step']:.2f} ms each: "
            f"the host waited {summary['waits_in_steps']} times in them, "
            f"{summary['waits_in_logging_steps']} times in the {summary['logging_steps']} that log · {self.folder}"
        )


def summarise(events: list[FunctionEvent], device: str) -> dict[str, Any]:
    """Counts what makes the host wait, per kind of step. Times are the host's on a CPU, otherwise the device's."""
    steps = [event for event in events if event.name in ("step", "step that logs") and event.cpu_parent is None]
    logging_steps = [event for event in steps if event.name == "step that logs"]
    names = WAITS_ON_CPU if device == "cpu" else WAITS_ON_GPU
    waits = [event for event in events if any(name in event.name for name in names)]
    if device == "cpu":  # a fused optimizer reads its step counters, which lie on the device on a GPU
        optimizer = [event for event in events if event.name.startswith("aten::_fused_")]
        waits = [wait for wait in waits if not _is_inside(wait, optimizer)]

    def inside(ranges: list[FunctionEvent]) -> int:
        return sum(_is_inside(wait, ranges) for wait in waits)

    times: Counter[str] = Counter()
    for event in events:
        if event not in steps:
            times[event.name] += event.self_cpu_time_total if device == "cpu" else event.self_device_time_total
    milliseconds = sum(event.time_range.elapsed_us() for event in steps) / 1e3
    return {
        "device": device,
        "steps": len(steps),
        "logging_steps": len(logging_steps),
        "milliseconds_per_step": milliseconds / max(1, len(steps)),
        "waits_in_steps": inside([event for event in steps if event not in logging_steps]),
        "waits_in_logging_steps": inside(logging_steps),
        "share_of_time": {name: time / 1e3 / milliseconds for name, time in times.most_common(OPERATIONS_SHOWN)},
    }


def _is_inside(event: FunctionEvent, ranges: list[FunctionEvent]) -> bool:
    return any(each.time_range.start <= event.time_range.start < each.time_range.end for each in ranges)
