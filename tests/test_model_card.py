"""The card of an exported model says what it is, how good it is, what its data are and how to use it."""

import ast
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import pytest
import torch
import yaml
from PIL import Image
from tiny_runs import LADDER, PRIVATE, checkpoint, fit_everything, write_run

from vae_lightning.export import export_run
from vae_lightning.losses import KLTerm, ReconstructionLoss
from vae_lightning.runs.fitted import digest_of, direction_file
from vae_lightning.runs.layout import BEST_KEY, RECORD_KEY
from vae_lightning.runs.parts import find_class


def front_matter(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])  # type: ignore[no-any-return]


def card_of(run: Path, folder: Path) -> str:
    return (export_run(run, folder).folder / "README.md").read_text()


def test_the_card_says_what_the_model_is_and_its_lines_of_python_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    fit_everything(run)
    card = card_of(run, tmp_path / "exported")
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0]
    there = {"photograph": Image.new("RGB", (300, 400), "tan")}
    exec(code.replace("path/to/this/folder", str(tmp_path / "exported")), there)
    assert len(there["faces"]) == 16
    assert there["reconstruction"].size == (32, 32)
    assert there["edited"][0].size == (32, 32)

    fields = front_matter(card)
    assert (fields["license"], fields["datasets"]) == ("other", ["CelebA"])
    assert fields["pipeline_tag"] == "unconditional-image-generation"
    assert "non-commercial" in card
    assert "Smiling (75.0%), Rare (25.0%)" in card
    assert "| β | 4.0 |" in card
    assert "LinearWarmup (duration 2" in card
    assert "| val/loss | 12.5 |" in card
    assert not re.search(r"\bS[0-4]\b", card)
    drawn = card_of(write_run(tmp_path / "drawn", source="faces"), tmp_path / "faces")
    assert "CelebA" not in drawn
    assert front_matter(drawn)["license"] == "unknown"


def test_the_card_of_a_ladder_has_its_levels_and_an_exact_likelihood(tmp_path: Path) -> None:
    card = card_of(write_run(tmp_path / "run", "Logistic", **LADDER), tmp_path / "exported")
    assert "| latents | 1,120 latents in 3 levels, Gaussian given the levels above" in card
    assert "4x4 32, 8x8 64, 32x32 1,024 |" in card
    assert "the negative log-probability of each pixel's level under logistic distributions" in card
    assert "bits_per_dim is exact" in card
    assert "Reconstructions are sharp" in card
    flat = card_of(write_run(tmp_path / "flat"), tmp_path / "flat exported")
    assert "| latents | 6, Gaussian |" in flat
    assert "bits_per_dim is exact" not in flat
    assert "fine structure is blurred" in flat


def test_scores_are_those_of_this_checkpoint(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_evaluation(run, digest_of(checkpoint(run)))
    card = card_of(run, tmp_path / "first")
    assert "| mse ↓ | 0.01230 | 0.01200 to 0.01260 | per pixel |" in card
    assert "945 test images" in card
    assert "fid" not in card
    assert PRIVATE not in card
    write_evaluation(run, "another")
    card = card_of(run, tmp_path / "second")
    assert "0.0123" not in card
    assert "not evaluated yet" in card


def write_evaluation(
    run: Path, digest: str, *, note: str = "per pixel", title: str = "Reconstructions", **others: str
) -> None:
    values = [
        {"name": "mse", "value": 0.0123, "note": note, "interval": [0.0120, 0.0126], "better": "lower"},
        {"name": "fid", "value": None, "note": f"no weights in {PRIVATE}", "interval": None, "better": "lower"},
    ]
    words = dict.fromkeys(("data_fingerprint", "color", "device", "precision", "versions", "date"), "x")
    about = {**words, "model": "ConvVAE", "checkpoint": "best.ckpt", "epoch": 3, "split": "test", "count": 945}
    about |= {"data": "celeba", "crop": 148, "image_size": 32, "seed": 0, "run": PRIVATE, "checkpoint_digest": digest}
    about |= others
    section = {"name": "reconstructions", "title": title, "values": values, "remarks": [PRIVATE]}
    (run / "evaluation").mkdir(exist_ok=True)
    card = {"format": 1, "about": about, "sections": [{**section, "pictures": ["faces.png"]}]}
    (run / "evaluation" / "card.json").write_text(json.dumps(card))


MALICIOUS = "1 |\n\n# Owned\n<script>alert(1)</script> [click](javascript:alert(1)) ``` \\[x](http://evil)"


def test_a_strangers_words_are_words_on_the_card(tmp_path: Path) -> None:
    """No tag, heading, link, code or column of the card comes out of a checkpoint, its directions or its evaluation."""
    run = write_run(tmp_path / "run")
    attribute = '"); import os; os.abort() #<b>['
    rewrite(run, lambda config: config["optimizer"].update(betas=MALICIOUS), {MALICIOUS: MALICIOUS}, {MALICIOUS: 1.0})
    rewrite(run, lambda config: config["trainer"].update(precision=MALICIOUS), fingerprint=MALICIOUS, color=MALICIOUS)
    directions, _ = fit_everything(run)
    direction_file(checkpoint(run)).write(replace(directions, names=(attribute, "Rare")))
    cards = [card_of(run, tmp_path / "trained")]
    about = {"data_fingerprint": MALICIOUS, "device": MALICIOUS, "model": MALICIOUS}
    write_evaluation(run, digest_of(checkpoint(run)), note=MALICIOUS, title=MALICIOUS, **about)
    cards.append(card_of(run, tmp_path / "measured"))
    plain = card_of(write_run(tmp_path / "other"), tmp_path / "plain")
    for card in cards:
        body = re.sub(r"```python\n.*?```", "", card, count=1, flags=re.DOTALL)
        assert "Owned" in body
        assert not re.search(r"^# Owned|<|(?<!\\)\[(?!unselected)|(?<!\\)```", body, re.MULTILINE)
        code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0]
        assert {node.value.id for node in ast.walk(ast.parse(code)) if is_attribute_of_a_name(node)} == {"vae"}
    assert cards[0].count("\n| ") == plain.count("\n| ")


def is_attribute_of_a_name(node: ast.AST) -> TypeGuard[Any]:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)


def rewrite(
    run: Path,
    change: Callable[[dict[str, Any]], object] = lambda config: None,
    versions: dict[str, Any] | None = None,
    best: dict[str, Any] | None = None,
    **data: Any,
) -> None:
    """Another configuration, record of the data, versions or numbers in a run's checkpoint."""
    content = torch.load(checkpoint(run), weights_only=True)
    record = content[RECORD_KEY]
    change(record["config"])
    record["data"].update(data)
    record["versions"] = versions or record["versions"]
    content[BEST_KEY] = best or content[BEST_KEY]
    torch.save(content, checkpoint(run))


def test_numbers_that_are_words_are_named(tmp_path: Path) -> None:
    for number, (change, message) in enumerate(
        [
            (lambda run: rewrite(run, lambda config: config.update(beta="<b>")), "beta is '<b>'"),
            (lambda run: rewrite(run, best={"val/loss": "low"}), "val/loss is 'low'"),
            (lambda run: rewrite(run, train_count="many"), "train_count is 'many'"),
        ]
    ):
        run = write_run(tmp_path / str(number))
        change(run)
        with pytest.raises(ValueError, match=f"does not say of itself.*{message}"):
            export_run(run, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_an_evaluation_that_does_not_say_of_what_is_not_quoted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_evaluation(run, digest_of(checkpoint(run)))
    file = run / "evaluation" / "card.json"
    card = json.loads(file.read_text())
    for gone in ("checkpoint_digest", "device"):
        file.write_text(
            json.dumps({**card, "about": {name: card["about"][name] for name in card["about"] if name != gone}})
        )
        if gone == "device":
            with pytest.raises(ValueError, match=r"card\.json does not say device"):
                export_run(run, tmp_path / gone)
        else:
            assert "not evaluated yet" in card_of(run, tmp_path / gone)
    file.write_text(json.dumps({**card, "about": {**card["about"], "count": "many"}}))
    with pytest.raises(ValueError, match=r"card\.json cannot be read as a card"):
        export_run(run, tmp_path / "exported")


def test_the_test_that_ended_training_is_quoted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "metrics.json").write_text(json.dumps({"test/mse": 0.0625, "val/mse": 0.5}))
    card = card_of(run, tmp_path / "exported")
    assert "| test/mse | 0.0625 |" in card
    assert "val/mse" not in card


def test_every_choice_of_the_objective_has_words() -> None:
    for group, base in (("kl", KLTerm), ("reconstruction", ReconstructionLoss)):
        for file in Path(__file__).parents[1].glob(f"conf/{group}/*.yaml"):
            settings = yaml.safe_load(file.read_text())
            assert "_target_" not in settings or find_class(base, settings["_target_"]).words, file


def test_an_autoencoder_without_priors_has_no_samples(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", posterior="deterministic")
    plain = export_run(run, tmp_path / "plain")
    assert "samples.png" not in plain.files
    assert "vae.sample(" not in (plain.folder / "README.md").read_text()
    fit_everything(run)
    fitted = export_run(run, tmp_path / "fitted")
    assert "samples.png" in fitted.files
    assert 'prior="gaussian"' in (fitted.folder / "README.md").read_text()
