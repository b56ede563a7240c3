"""The card of an exported model: front matter that hubs read, and a page that people read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from vae_lightning.data.sources.celeba_files import CELEBA_PAGE
from vae_lightning.data.sources.resolution import data_sources
from vae_lightning.evaluation.card import Card, read_card, to_markdown
from vae_lightning.export.carried import Carried
from vae_lightning.export.contents import DEMO, SAMPLES
from vae_lightning.export.onnx_files import OnnxFile
from vae_lightning.losses import KLTerm, ReconstructionLoss
from vae_lightning.models.levels import level_words
from vae_lightning.runs.fitted import digest_of
from vae_lightning.runs.layout import (
    BEST_KEY,
    CARD_JSON,
    EVALUATION,
    EXPORTED_CONFIG,
    EXPORTED_WEIGHTS,
    METRICS_JSON,
    checkpoint_path,
    run_folder,
)
from vae_lightning.runs.parts import find_class
from vae_lightning.runs.run import Run
from vae_lightning.system.plain_files import read_plain
from vae_lightning.system.templates import markdown_template

ABOUT = (  # of an evaluation: what says how the numbers came about, and nothing of the machine
    *("model", "checkpoint", "epoch", "split", "count", "data", "data_fingerprint", "crop", "image_size", "color"),
    *("seed", "device", "precision", "versions", "date"),
)
NUM_SHOWN = 8  # attributes at each end of the list of frequencies
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")


def model_card(
    vae: Run, config: Mapping[str, Any], carried: Carried, onnx: Sequence[OnnxFile], folder: Path, hub_name: str | None
) -> str:
    """
    Args:
        vae: that was exported.
        config: what config.json says, without this machine's paths.
        carried: what went along.
        onnx: files beside the weights.
        folder: that the card will lie in, with everything else in it.
        hub_name: OWNER/NAME, where the folder will be found.
    """
    _check_numbers(config)
    record, data = config["record"], config["record"]["data"]
    scores = _scores(vae)
    split, numbers = ("", {}) if scores else _numbers_of_training(vae, config)
    often, seldom = _frequencies(carried.attributes)
    attribute = "Smiling" if "Smiling" in carried.attributes else next(iter(carried.attributes), None)
    return markdown_template(TEMPLATE).render(
        **_words_of_the_data(vae, data),
        samples=SAMPLES if (folder / SAMPLES).is_file() else "",
        place=f'snapshot_download("{hub_name}")' if hub_name else '"path/to/this/folder"',
        prior="" if vae.model.has_prior else next(iter(carried.priors), None),
        attribute=attribute and json.dumps(attribute, ensure_ascii=False),  # a stranger's name stays a word of Python
        weights=EXPORTED_WEIGHTS,
        config=EXPORTED_CONFIG,
        carried=carried.in_words(),
        onnx=[(file, f"{_shapes(file.inputs)} → {_shapes(file.outputs)}") for file in onnx],
        demo=DEMO if (folder / DEMO).is_dir() else "",
        objective=_objective(vae, record["config"]),
        is_flat=vae.model.is_flat,
        is_exact=_reconstruction(record["config"]).has_probability,
        settings=_settings(vae, config),
        scores=scores,
        split=split,
        numbers=numbers,
        often=often,
        seldom=seldom,
        version=version("vae-lightning"),
        made_with=", ".join(f"{name} {number}" for name, number in record["versions"].items()),
    )


def _check_numbers(config: Mapping[str, Any]) -> None:
    """
    Raises:
        TypeError: a value that the card shows as a number is not a number.
    """
    run, data = config["record"]["config"], config["record"]["data"]
    numbers = {name: data[name] for name in ("train_count", "val_count", "test_count", "image_size")}
    numbers |= {"beta": run["beta"], **{f"{BEST_KEY} {name}": value for name, value in config[BEST_KEY].items()}}
    for name, value in numbers.items():
        if not isinstance(value, int | float):
            raise TypeError(f"{name} is {value!r}, which is not a number")


def _words_of_the_data(vae: Run, data: Mapping[str, Any]) -> dict[str, Any]:
    """Title, front matter, and what the source of the images says of them."""
    source, size = data_sources()[data["source"]], f"{data['image_size']}×{data['image_size']}"
    kind, licence = "VAE" if vae.model.has_prior else "autoencoder", {"license": "unknown"}
    if data["source"] == "celeba":
        licence = {"license": "other", "license_name": "celeba-non-commercial-research", "license_link": CELEBA_PAGE}
    fields = {
        "library_name": "vae-lightning",
        "pipeline_tag": "unconditional-image-generation",
        **licence,
        **({"datasets": ["CelebA"]} if data["source"] == "celeba" else {}),
        "tags": ["vae", "variational-autoencoder", "autoencoder", "faces", "pytorch"],
    }
    crop = "the largest centred square" if data["crop"] is None else f"crop {data['crop']}"
    return {
        "front_matter": yaml.safe_dump(fields, sort_keys=False),
        "title": f"{type(vae.model).__name__}: {kind} of {source.title}, {size}",
        "source": source,
        "licence": source.licence if data["source"] == "celeba" else "",
        "size": size,
        "facts": f"{source.title}: {data['train_count']:,} images for training, {data['val_count']:,} for "
        f"validation, {data['test_count']:,} for testing ({data['partition']}); {crop}, {size} pixels, "
        f"{data['color']}. Fingerprint of the files: {data['fingerprint']}.",
    }


def _frequencies(shares: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """The attributes that most and fewest of the training images have, in words; empty where nobody has counted."""
    ordered = sorted(shares, key=lambda name: shares[name], reverse=True)
    often, seldom = ordered[:NUM_SHOWN], ordered[NUM_SHOWN:][-NUM_SHOWN:][::-1]
    return [f"{name} ({shares[name]:.1%})" for name in often], [f"{name} ({shares[name]:.1%})" for name in seldom]


def _shapes(side: Mapping[str, Sequence[str | int]]) -> str:
    return ", ".join(f"{name} [{', '.join(map(str, axes))}]" for name, axes in side.items())


def _settings(vae: Run, config: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of the table; None where the model has no such setting."""
    run, data = config["record"]["config"], config["record"]["data"]
    parameters = sum(weights.numel() for weights in vae.model.parameters())
    return {
        "architecture": _described(run["model"]),
        "parameters": f"{parameters:,}",
        "latents": _latents(vae),
        "pixels": f"{data['image_size']}×{data['image_size']}, {data['color']}",
        "β": run["beta"] if vae.model.has_prior else None,
        "schedule of β": _described(run["beta_schedule"]) if vae.model.has_prior else None,
        "pixel term": _described(run["reconstruction"]),
        "KL term": _described(run["kl"]) if vae.model.has_prior else None,
        "perceptual term": _described(run["perceptual"]) if run.get("perceptual") else None,
        "optimizer": _described(run["optimizer"]),
        "learning rate": _described(run["lr_schedule"]) if "lr_schedule" in run else None,
        "batch size": run["data"]["batch_size"],
        "epochs": f"{config['epoch'] + 1} (of {run['trainer']['max_epochs']})",
        "precision": run["trainer"]["precision"],
        "seed": run["seed"],
    }


def _latents(vae: Run) -> str:
    """How many of which kind; of a hierarchical model also how many each level has, coarse first."""
    kind = "Gaussian" if vae.model.has_prior else "deterministic"
    if vae.model.is_flat:
        return f"{vae.model.latent_dim}, {kind}"
    levels = ", ".join(f"{level.name} {level.size:,}" for level in vae.model.latent_levels)
    return f"{level_words(vae.model.latent_levels)}, {kind} given the levels above, in units of their prior: {levels}"


def _objective(vae: Run, run: Mapping[str, Any]) -> str:
    pixel_term = _words(ReconstructionLoss, run["reconstruction"])
    perceptual = ", and a distance between features of VGG16" if run.get("perceptual") else ""
    if not vae.model.has_prior:
        return f"A plain autoencoder, without a prior of its own. Training minimised {pixel_term}{perceptual}."
    kl = _words(KLTerm, run["kl"])
    is_capacity = _class_name(run["beta_schedule"]) == "Capacity"
    weighed = f"the distance of {kl} from a capacity" if is_capacity else kl
    return (
        f"Training minimised {pixel_term}, plus β = {run['beta']:g} times {weighed}{perceptual}: "
        "sums over pixels and latents, means over images, in nats."
    )


def _described(config: Mapping[str, Any]) -> str:
    """A class and its arguments."""
    arguments = {name: value for name, value in config.items() if not name.startswith("_") and value is not None}
    listed = ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
    return _class_name(config) + (f" ({listed})" if listed else "")


def _words(base: type[ReconstructionLoss | KLTerm], config: Mapping[str, Any]) -> str:
    """What a term of the objective says of itself; a term that says nothing is called by its name."""
    return find_class(base, config["_target_"]).words or _class_name(config)


def _reconstruction(run: Mapping[str, Any]) -> type[ReconstructionLoss]:
    return find_class(ReconstructionLoss, run["reconstruction"]["_target_"])


def _class_name(config: Mapping[str, Any]) -> str:
    return str(config["_target_"]).rpartition(".")[2]


def _scores(vae: Run) -> str:
    """Of an evaluation of this very checkpoint: values, with intervals and what they are; empty where there is none.

    No pictures, because they show the data, and no paths.
    """
    file = run_folder(vae.path) / EVALUATION / CARD_JSON
    card = read_card(file) if file.is_file() else None
    if card is None or card.about.get("checkpoint_digest") != digest_of(vae.path):
        return ""
    if missing := [name for name in ABOUT if name not in card.about]:
        raise ValueError(f"{file} does not say {', '.join(missing)} of what was evaluated; evaluate the run again")
    measured = [
        replace(section, values=values, protocol={}, remarks=[], tables={}, pictures=[])
        for section in card.sections
        if (values := [value for value in section.values if value.value is not None])
    ]
    return to_markdown(Card({name: card.about[name] for name in ABOUT}, measured), level=3).rstrip()


def _numbers_of_training(vae: Run, config: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """Of the test that ends a run, which takes the best checkpoint; else of the validation that chose it."""
    file = run_folder(vae.path) / METRICS_JSON
    if vae.path == checkpoint_path(run_folder(vae.path), "best") and file.is_file():
        measured = read_plain(file)
        numbers = measured.items() if isinstance(measured, dict) else ()
        tested = {name: value for name, value in numbers if name.startswith("test/") and isinstance(value, int | float)}
        if tested:
            return "test", tested
    return "validation", config[BEST_KEY]
