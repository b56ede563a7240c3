"""The card of an exported model: front matter that hubs read, and a page that people read."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from vae_lightning.data.sources.resolution import data_sources
from vae_lightning.evaluation.card import Card, read_card, to_markdown
from vae_lightning.export.carried import Carried
from vae_lightning.export.contents import DEMO, SAMPLES
from vae_lightning.export.data_statement import data_front_matter, data_section
from vae_lightning.export.onnx_files import OnnxFile
from vae_lightning.losses import KLTerm, ReconstructionLoss
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
from vae_lightning.runs.load import Run
from vae_lightning.runs.parts import find_class
from vae_lightning.system.names import as_markdown
from vae_lightning.system.plain_files import read_plain

ABOUT = (  # of an evaluation: what says how the numbers came about, and nothing of the machine
    *("model", "checkpoint", "epoch", "split", "count", "data", "data_fingerprint", "crop", "image_size", "color"),
    *("seed", "device", "precision", "versions", "date"),
)
INTENDED = """Intended for {uses}: reconstructions, interpolations, edits along attributes, samples.

Not for telling who somebody is or what somebody is like, for decisions about people, or for passing pictures off as
photographs of real people. An edit shows what goes together in the data: what it changes besides the attribute (age,
sex, skin) is no fact about people."""
LIMITS = """- Only upright portraits that lie as in training, at {size}×{size} pixels. Other pictures are cropped and
  resized; what the model has not seen comes out as the nearest face that it knows.
- The decoder averages what the latents leave open: fine structure is blurred.
- A reconstruction is still a picture of the person: latents are personal data where the picture was."""


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
    record, size = config["record"], vae.model.image_size
    data = record["data"]
    sections = {
        "": f"![unselected samples of the model]({SAMPLES})" if (folder / SAMPLES).is_file() else "",
        "Use": "\n".join([_code(vae, carried, hub_name), "", *_contents(carried, onnx, (folder / DEMO).is_dir())]),
        "Model": _model(vae, config),
        "Scores": _scores(vae, config),
        "Data": data_section(data, carried.attributes),
        "Intended use": INTENDED.format(uses=data_sources()[data["source"]].uses),
        "Limits": LIMITS.format(size=size),
        "Versions": _versions(record),
    }
    lines = [_front_matter(data["source"]), f"# {_title(vae, data)}", ""]
    for title, text in sections.items():
        lines += [f"## {title}", ""] if title else []
        lines += [text, ""] if text else []
    return "\n".join(lines)


def _check_numbers(config: Mapping[str, Any]) -> None:
    """
    Raises:
        TypeError: what is shown as a number is none.
    """
    run, data = config["record"]["config"], config["record"]["data"]
    numbers = {name: data[name] for name in ("train_count", "val_count", "test_count", "image_size")}
    numbers |= {"beta": run["beta"], **{f"{BEST_KEY} {name}": value for name, value in config[BEST_KEY].items()}}
    for name, value in numbers.items():
        if not isinstance(value, int | float):
            raise TypeError(f"{name} is {value!r}, no number")


def _front_matter(source: str) -> str:
    fields = {
        "library_name": "vae-lightning",
        "pipeline_tag": "unconditional-image-generation",
        **data_front_matter(source),
        "tags": ["vae", "variational-autoencoder", "autoencoder", "faces", "pytorch"],
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n"


def _title(vae: Run, data: Mapping[str, Any]) -> str:
    kind = "VAE" if vae.model.has_prior else "autoencoder"
    title = data_sources()[data["source"]].title
    return f"{type(vae.model).__name__}: {kind} of {title}, {data['image_size']}×{data['image_size']}"


def _code(vae: Run, carried: Carried, hub_name: str | None) -> str:
    place = f'snapshot_download("{hub_name}")' if hub_name else '"path/to/this/folder"'
    lines = [
        *(["from huggingface_hub import snapshot_download"] if hub_name else []),
        "from vae_lightning import load_run",
        "",
        f"vae = load_run({place})",
    ]
    if vae.model.has_prior or carried.priors:
        prior = "" if vae.model.has_prior else f', prior="{carried.priors[0]}"'
        lines.append(f"faces = vae.sample(16, temperature=0.7, seed=0{prior}, as_pil=True)")
    lines += [
        "latents = vae.encode(photograph).mean  # a PIL image of any size, or a tensor",
        "reconstruction = vae.decode(latents, as_pil=True)[0]",
    ]
    if carried.attributes:
        attribute = "Smiling" if "Smiling" in carried.attributes else next(iter(carried.attributes))
        quoted = json.dumps(attribute, ensure_ascii=False)  # a stranger's name stays a word of Python
        lines.append(f"edited = vae.edit(photograph, {quoted}, strength=1.0, as_pil=True)")
    return "\n".join(["```python", *lines, "```"])


def _contents(carried: Carried, onnx: Sequence[OnnxFile], has_demo: bool) -> list[str]:
    items = [
        f"`{EXPORTED_WEIGHTS}`: the weights; `{EXPORTED_CONFIG}`: all settings. With them: {carried.in_words()}.",
        "Every verb of `vae` takes this folder as its run: `vae explore`, `vae sample`, `vae evaluate`, …",
    ]
    for file in onnx:
        ways = " → ".join(
            ", ".join(f"{name} [{', '.join(map(str, axes))}]" for name, axes in side.items())
            for side in (file.inputs, file.outputs)
        )
        items.append(
            f"`{file.name}`: {ways}; float32, images in [0, 1]; opset {file.opset}; "
            f"at most {file.largest_difference:.1g} from PyTorch."
        )
    if has_demo:
        items.append(f"`{DEMO}/` draws faces in a browser: `python -m http.server --directory {DEMO}`.")
    return [f"- {item}" for item in items]


def _model(vae: Run, config: Mapping[str, Any]) -> str:
    run, data = config["record"]["config"], config["record"]["data"]
    parameters = sum(weights.numel() for weights in vae.model.parameters())
    rows = {
        "architecture": _described(run["model"]),
        "parameters": f"{parameters:,}",
        "latents": f"{vae.model.latent_dim}, {'Gaussian' if vae.model.has_prior else 'deterministic'}",
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
    table = [
        "| | |",
        "|---|---|",
        *(f"| {name} | {as_markdown(str(value))} |" for name, value in rows.items() if value is not None),
    ]
    return "\n".join([_objective(vae, run), "", *table])


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


def _class_name(config: Mapping[str, Any]) -> str:
    return str(config["_target_"]).rpartition(".")[2]


def _scores(vae: Run, config: Mapping[str, Any]) -> str:
    """Of an evaluation of this very checkpoint, or the numbers that training left, or how to get some."""
    file = run_folder(vae.path) / EVALUATION / CARD_JSON
    card = read_card(file) if file.is_file() else None
    if card is not None and card.about.get("checkpoint_digest") == digest_of(vae.path):
        if missing := [name for name in ABOUT if name not in card.about]:
            raise ValueError(f"{file} does not say {', '.join(missing)} of what was evaluated; evaluate the run again")
        return _as_section(card)
    text = "Not evaluated yet: `vae evaluate` on this folder measures likelihood, faces, latents and samplers."
    split, numbers = _numbers_of_training(vae, config)
    if not numbers:
        return text
    rows = [f"| {as_markdown(name)} | {value:.5g} |" for name, value in numbers.items()]
    words = f"What training itself measured on the {split} split:"
    return "\n".join([text, "", words, "", "| | |", "|---|---:|", *rows])


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


def _as_section(card: Card) -> str:
    """What was measured, with intervals and what it is; no pictures, for they show the data, and no paths."""
    measured = [
        replace(section, values=values, protocol={}, remarks=[], tables={}, pictures=[])
        for section in card.sections
        if (values := [value for value in section.values if value.value is not None])
    ]
    page = to_markdown(Card({name: card.about[name] for name in ABOUT}, measured))
    return re.sub(r"^## ", "### ", page.removeprefix("# "), flags=re.MULTILINE).rstrip()


def _versions(record: Mapping[str, Any]) -> str:
    made = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return f"Exported by vae-lightning {version('vae-lightning')}. Trained with {as_markdown(made)}."
