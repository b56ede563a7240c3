"""`vae bench`: measures the speed of each part, and compares it with the limit of the device."""

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from vae_lightning.cli.bench.benched import Benched, open_benched
from vae_lightning.cli.bench.comparison import compare, read_report, tables
from vae_lightning.cli.bench.full_stack import full_stack_speed, sharing_speeds
from vae_lightning.cli.bench.limits import Limits, measure_limits
from vae_lightning.cli.bench.parts import (
    bare_loop_speed,
    cache_build_speed,
    loader_speed,
    sampling_speed,
    validation_speed,
)
from vae_lightning.cli.bench.peer import peer_speed

__all__ = ["FORMAT", "bench", "compare", "read_report", "tables"]
FORMAT = 1
CELEBA_TRAINING_IMAGES = 162_770


def bench(
    overrides: Sequence[str],
    models: Sequence[str],
    *,
    repeats: int,
    seconds: float,
    with_peer: bool = False,
    sharing: Sequence[int] = (),
    progress: Callable[[str], None] = lambda part: None,
) -> dict[str, Any]:
    """Measures everything and returns plain values.

    Full stack and bare loop alternate, so that changes of the machine's speed cancel in their ratio.

    Args:
        overrides: as for train.py.
        models: choices of `model=`, each measured.
        repeats: of each measurement; medians are reported beside all values.
        seconds: of each measurement.
        with_peer: also measures the best-known repository's network with its own data loading.
        sharing: numbers of runs that train on the device at the same time.
        progress: called with the name of the next measurement.

    Raises:
        ValueError: train.py refuses the overrides.
    """
    all_benched = {model: open_benched([*overrides, f"model={model}"]) for model in models}
    first = next(iter(all_benched.values()))
    progress("limits of the device")
    limits = measure_limits(first.device, first.dtype)
    report: dict[str, Any] = {
        "format": FORMAT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(first.device),
        "overrides": list(overrides),
        "limits": {**asdict(limits), "precision": first.precision},
        "data": _measure_data(first, limits, repeats, seconds, progress),
        "models": {},
    }
    for name, benched in all_benched.items():
        report["models"][name] = _measure_model(name, benched, limits, repeats, seconds, progress)
    if with_peer:
        progress("peer")
        speeds = [peer_speed(first, seconds) for _ in range(repeats)]
        report["peer"] = _part(speeds)
    if sharing:
        progress("sharing the device")
        batches = _num_batches(first, report["models"][models[0]]["parts"]["bare_loop"], seconds)
        report["sharing"] = sharing_speeds(first, sharing, batches)
    return report


def machine(device: torch.device) -> dict[str, Any]:
    """Hardware and versions that the figures depend on."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "kind": device.type,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "shares_by_mps": bool(os.environ.get("CUDA_MPS_PIPE_DIRECTORY")),
    }


def _processor() -> str:
    """The processor's model from Linux, elsewhere what the platform module knows."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _measure_data(
    benched: Benched, limits: Limits, repeats: int, seconds: float, progress: Callable[[str], None]
) -> dict[str, Any]:
    bytes_per_image = benched.datamodule.split("train").images[0].nbytes
    limit = limits.copied_bytes_per_second / bytes_per_image
    measured = {}
    for name, measure in (
        ("cache_build", lambda: cache_build_speed(benched)),
        ("loader", lambda: loader_speed(benched, seconds / 2)),
    ):
        progress(name.replace("_", " "))
        measured[name] = _part([measure() for _ in range(repeats)], limit)
    return {**benched.datamodule.record(), "bytes_per_image": bytes_per_image, "parts": measured}


def _measure_model(
    name: str, benched: Benched, limits: Limits, repeats: int, seconds: float, progress: Callable[[str], None]
) -> dict[str, Any]:
    flops = benched.count_flops()
    in_training, forward, decoding = (
        limits.matrix_flops_per_second / flops[kind] for kind in ("training", "forward", "decoding")
    )
    speeds: dict[str, list[float]] = {"bare_loop": [], "full_stack": [], "whole_fit": [], "plain_loop": []}
    progress(f"{name}: bare loop")
    batches = _num_batches(benched, _part([bare_loop_speed(benched, seconds)]), seconds)
    for pair in range(repeats):
        progress(f"{name}: full stack beside bare loop, {pair + 1} of {repeats}")
        full = full_stack_speed(benched, batches)
        speeds["full_stack"].append(full.training)
        speeds["whole_fit"] += [] if full.whole_fit is None else [full.whole_fit]
        speeds["bare_loop"].append(bare_loop_speed(benched, seconds))
        speeds["plain_loop"].append(bare_loop_speed(benched, seconds, as_pytorch_comes=True))
    parts = {part: _part(values, in_training) for part, values in speeds.items() if values}
    progress(f"{name}: validation and sampling")
    parts["validation"] = _part([validation_speed(benched, seconds / 2) for _ in range(repeats)], forward)
    parts["sampling"] = _part([sampling_speed(benched, seconds / 2) for _ in range(repeats)], decoding)
    config = benched.config
    return {
        "precision": benched.precision,
        "batch_size": benched.batch_size,
        "compile": config["compile"],
        "image_size": config["data"]["image_size"],
        "flops_per_image": flops,
        "parts": parts,
        "ratios": {
            "full stack / bare loop": _ratio(speeds["full_stack"], speeds["bare_loop"]),
            "bare loop / as PyTorch comes": _ratio(speeds["bare_loop"], speeds["plain_loop"]),
        },
        "seconds_per_celeba_epoch": CELEBA_TRAINING_IMAGES / parts["full_stack"]["images_per_second"],
    }


def _num_batches(benched: Benched, bare_loop: dict[str, Any], seconds: float) -> int:
    return max(1, round(float(bare_loop["images_per_second"]) * seconds / benched.batch_size))


def _part(values: Sequence[float], limit: float | None = None) -> dict[str, Any]:
    """Median, all values, and the share of the device's limit, if there is one."""
    median = statistics.median(values)
    share = {} if limit is None else {"share_of_limit": median / limit}
    return {"images_per_second": median, "all": list(values), **share}


def _ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
    pairs = [one / other for one, other in zip(above, below, strict=True)]
    return {"median": statistics.median(pairs), "all": pairs}
