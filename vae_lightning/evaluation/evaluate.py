"""Evaluates a run and writes its card."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import torch
from threadpoolctl import threadpool_limits

from vae_lightning.data.sources.source import Split
from vae_lightning.evaluation.card import Card, Section
from vae_lightning.evaluation.metric import EvaluationError, Metric
from vae_lightning.evaluation.request import Request
from vae_lightning.evaluation.store import ResultStore
from vae_lightning.runs.data_record import has_same_images
from vae_lightning.runs.fitted import digest_of
from vae_lightning.runs.layout import EVALUATION, results_folder, run_folder
from vae_lightning.runs.load import load_run
from vae_lightning.runs.run import Run
from vae_lightning.runs.subject import Subject, open_subject
from vae_lightning.runs.versions import made_with
from vae_lightning.scores.result import Result
from vae_lightning.system.progress import Observer


def evaluate_run(
    path: str | Path,
    request: Request | None = None,
    *,
    checkpoint: str = "best",
    out: Path | None = None,
    observer: Observer | None = None,
) -> Card:
    """Measures a run and writes `evaluation/card.json`, `card.md` and pictures into its folder.

    A result that was measured before with the same arguments, weights, data and code is read instead.

    Args:
        path: a run folder, a checkpoint file, or `last`.
        request: what to measure, and how.
        checkpoint: of a folder: "best", "last" or a file.
        out: another folder for the card.
        observer: shows progress.

    Raises:
        RunError: there is no run, or no checkpoint of this version.
        DataError: the data are not where they were, or the split has no images.
        EvaluationError: the request cannot be met by this run or these data.
        ValueError: the levels asked for are not the model's coarsest.
    """
    request, observer = request or Request(), observer or Observer()
    run = load_run(path, checkpoint, request.device)
    folder = out or results_folder(run.path, EVALUATION)
    subject = _subject_of(run, request, observer)
    folder.mkdir(parents=True, exist_ok=True)
    store = ResultStore(folder, _identity(run.path, subject))
    sections: list[Section] = []
    problems: dict[str, EvaluationError] = {}
    try:
        for metric in request.build():
            observer.metric(metric.title)
            sections.append(_section_of(metric, subject, store, problems))
    finally:  # also what was measured before Ctrl-C
        card = Card(_about(run, subject), sections)
        if sections:
            card.write(folder)
    for name in problems:
        if name in request.metrics:
            raise problems[name]
    return card


def _subject_of(run: Run, request: Request, observer: Observer) -> Subject:
    return open_subject(
        run,
        split=cast(Split, request.split),
        seed=request.seed,
        batch_size=request.batch_size,
        track=observer.track,
        levels=request.levels,
    )


def _section_of(metric: Metric, subject: Subject, store: ResultStore, problems: dict[str, EvaluationError]) -> Section:
    """The metric's section. A metric that cannot be measured goes into `problems`, so that the others are not lost."""
    try:
        return _read_or_measure(metric, subject, store)
    except EvaluationError as error:
        problems[metric.name] = error
        return Section(metric.name, metric.title, [], remarks=[f"Not measured: {error}"])


def _read_or_measure(metric: Metric, subject: Subject, store: ResultStore) -> Section:
    section = store.read(metric)
    if section is None:
        began = time.perf_counter()
        measured = measure(metric, subject)
        section = store.write(metric, measured, time.perf_counter() - began)
    return section


def _identity(file: Path, subject: Subject) -> dict[str, Any]:
    """All that a result depends on besides its metric. The batch size only changes the rounding."""
    return {
        "checkpoint": digest_of(file),
        "data": subject.data.record(),
        "split": subject.split,
        "seed": subject.seed,
        "levels": subject.level_names,
        "device": subject.device.type,
    }


def _about(run: Run, subject: Subject) -> dict[str, Any]:
    data = subject.data.record()
    parameters = sum(weights.numel() for weights in subject.model.parameters())
    return {
        "model": f"{type(subject.model).__name__} ({parameters:,} parameters, {subject.model.latent_dim} latents)",
        "checkpoint": run.path.name,
        "epoch": run.epoch,
        "beta": run.config.get("beta"),
        "run": str(run_folder(run.path)),
        "checkpoint_digest": digest_of(run.path),
        "split": subject.split,
        "count": len(subject.data.split(subject.split)),
        "data": data["source"],
        "data_root": data["root"],
        "data_fingerprint": data["fingerprint"],
        "same_files_as_in_training": has_same_images(data, run.record["data"]),
        "crop": data["crop"],
        "image_size": data["image_size"],
        "color": data["color"],
        "seed": subject.seed,
        "device": _device_name(subject.device),
        "precision": "float32",
        "versions": made_with()["libraries"],
        "date": f"{datetime.now():%Y-%m-%d %H:%M}",
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def measure(metric: Metric, subject: Subject) -> Result:
    """Measures in true float32, because NVIDIA's convolutions would round their inputs to 10 bits (TF32).

    Gradients are enabled, also within a validation, because a flow is fitted by gradient descent.
    """
    tf32, threads = torch.backends.cudnn.allow_tf32, torch.get_num_threads()
    torch.backends.cudnn.allow_tf32 = False
    few = 1 if metric.is_faster_in_one_thread else None
    try:
        with threadpool_limits(few), torch.autocast(subject.device.type, enabled=False):
            torch.set_num_threads(few or threads)
            with torch.inference_mode(False), torch.enable_grad():
                return metric.measure(subject)
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        torch.set_num_threads(threads)
