"""`vae edit …` and `vae interpolate` as a person types them, on a tiny trained run."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_RUN, train_tiny, write_celeba, write_images
from PIL import Image
from typer.testing import CliRunner

from vae_lightning.cli.app import app
from vae_lightning.runs.layout import RunError
from vae_lightning.runs.load import load_run

pytestmark = pytest.mark.slow  # test_directions, test_guidance and test_identity_transfer have the same from Python

FIXED = [override for override in TINY_RUN if "latent_dim" not in override]
TWO_PICTURES = ["--min-pictures", "2", "--split", "train"]  # of some people
LADDER = [
    *("model=ladder", "reconstruction=logistic", "kl=per_level", "model.sides=[2,4]", "model.blocks=[1,1]"),
    *("model.widths=[8,8]", "model.latent_channels=[2,1]"),
]
SMALL = ["trainer.max_epochs=1", "callbacks=[checkpoint]", "logger=[csv]", "test=false"]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE in `vae`, a ladder in `ladder`, two classifiers in `guide` and `judge`, a photograph."""
    folder = tmp_path_factory.mktemp("workshop")
    root = write_celeba(folder / "celeba", 400)
    train_tiny(root, folder / "data", folder / "vae", *SMALL)
    train_tiny(root, folder / "data", folder / "ladder", *SMALL, *LADDER, fixed=FIXED)
    for seed, name in enumerate(("guide", "judge")):
        settings = ["experiment=attribute_classifier", *SMALL, "data.train_size=8", f"seed={seed}"]
        train_tiny(root, folder / "data", folder / name, *settings, fixed=FIXED)
    write_images(folder, ["me.png"], (300, 400))
    return folder


def vae(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    return result.output


def read_settings(folder: Path) -> dict[str, object]:
    content = json.loads((folder / "edit.json").read_text())
    assert {"run", "checkpoint_digest", "data_fingerprint", "seed", "versions"} <= set(content["settings"])
    return content["settings"]  # type: ignore[no-any-return]


def test_amplify_writes_ranking_correlations_and_a_picture_per_latent(workshop: Path) -> None:
    output = vae("edit", "amplify", workshop / "vae", "--top", 2, "--steps", 3, "-n", 2, "--range", 5)
    folder = workshop / "vae" / "edits" / "amplify_variance"
    with (folder / "dimension_ranking.csv").open() as file:
        ranking = list(csv.DictReader(file))
    variances = [float(row["variance"]) for row in ranking]
    assert len(ranking) == 6
    assert variances == sorted(variances, reverse=True)
    for row in ranking[:2]:
        assert (folder / f"dim_{int(row['dimension']):03d}.png").is_file()
    assert len(list(folder.glob("dim_*.png"))) == 2
    assert (folder / "correlations.png").is_file()
    assert str(folder / "dimension_ranking.csv") in output
    assert read_settings(folder)["range"] == 5
    vae("edit", "amplify", workshop / "vae", workshop / "me.png", "--dimensions", "5,0", "--out", workshop / "out")
    assert {path.name for path in (workshop / "out").glob("dim_*.png")} == {"dim_000.png", "dim_005.png"}


def test_an_attribute_is_added_and_the_api_gives_the_same_faces(workshop: Path) -> None:
    """Before directions are fitted `edit` names the command; then it moves by what the command kept."""
    run = load_run(workshop / "vae")
    photograph = Image.open(workshop / "me.png")
    if not list((workshop / "vae" / "checkpoints").glob("*.directions.pt")):
        with pytest.raises(RunError, match="vae edit directions"):
            run.edit(photograph, "Attribute_03")
    vae("edit", "directions", workshop / "vae")
    settings = ["--method", "probe", "--orthogonal-to", "Attribute_01", "--strengths", "-1,0,1", "--unit", "std"]
    vae("edit", "attribute", workshop / "vae", "Attribute_03", workshop / "me.png", *settings)
    folder = workshop / "vae" / "edits" / "Attribute_03_probe_without_Attribute_01"
    content = json.loads((folder / "edit.json").read_text())
    shift = torch.tensor(content["direction"]["vector"]) * content["direction"]["spread"]
    edited = run.edit(photograph, "Attribute_03", 1.0, "probe", ["Attribute_01"], "std")
    assert edited.allclose(run.decode(run.encode(photograph).mean + shift), atol=1e-5)
    assert run.edit(photograph, "Attribute_03", 0.0).allclose(run.reconstruct(photograph), atol=1e-6)
    assert (folder / "Attribute_03.png").is_file()
    assert (folder / "Attribute_03_directions.png").is_file()
    vae("edit", "attribute", workshop / "vae", "Attribute_03", workshop / "me.png", "--method", "one_latent")
    assert (workshop / "vae" / "edits" / "Attribute_03_one_latent" / "Attribute_03.png").is_file()


def test_guidance_and_scores(workshop: Path) -> None:
    networks = ["--classifier", workshop / "guide"]
    vae("edit", "guide", workshop / "vae", "Attribute_03=no,Attribute_04", *networks, "--steps", 3, "-n", 2)
    folder = workshop / "vae" / "edits" / "guide_Attribute_03_no_Attribute_04_yes"
    assert read_settings(folder)["targets"] == {"Attribute_03": False, "Attribute_04": True}
    with (folder / "faces.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
    settings = ["--orthogonal-to", "Attribute_01", "--strengths", "1,2", "--images", 20, "--split", "train"]
    vae("edit", "score", workshop / "vae", "Attribute_03", "--judge", workshop / "judge", *settings)
    folder = workshop / "vae" / "edits" / "score_Attribute_03"
    with (folder / "at_equal_change.csv").open() as file:
        methods = [row["method"] for row in csv.DictReader(file)]
    assert sorted(methods) == sorted(
        ["one latent", "means of 10 images", "means", "probe"]
        + [f"{method}, orthogonal to Attribute_01" for method in ("means", "probe")]
    )
    assert {"trade_off.png", "leaks.png", "faces.png", "judge.csv"} <= {path.name for path in folder.iterdir()}


def test_transfer_takes_people_with_enough_pictures(workshop: Path) -> None:
    settings = ["--min-pictures", 2, "--components", 3, "--num-anchors", 1, "-n", 2, "--images", 100]
    vae("edit", "transfer", workshop / "vae", "--basis", "identity", "--split", "train", *settings)
    folder = workshop / "vae" / "edits" / "transfer_identity_3"
    assert (folder / "identity_transfer.png").is_file()
    assert len(list(folder.glob("sources_*.png"))) == 1
    assert "--min-pictures" in refused("edit", "transfer", workshop / "vae", "--split", "train")


def test_interpolation_moves_and_stands_still(workshop: Path) -> None:
    vae(
        "interpolate",
        workshop / "vae",
        "-n",
        3,
        "--frames",
        4,
        "--path",
        "spherical",
        "--loop",
        "--out",
        workshop / "way",
    )
    with Image.open(workshop / "way" / "spherical.gif") as animation:
        assert animation.n_frames <= 9
        assert animation.n_frames > 1
    picture = np.asarray(Image.open(workshop / "way" / "interpolation.png"))
    assert picture.std() > 10
    assert read_settings(workshop / "way")["loop"] is True


def test_edits_of_a_ladder_move_the_levels_that_directions_were_fitted_to(workshop: Path) -> None:
    run, networks = workshop / "ladder", ["--judge", workshop / "judge", "--classifier", workshop / "guide"]
    output = vae("edit", "directions", run, "--levels", "2x2")
    assert "Directions move latents of the levels 2x2 (8 of 24 latents)." in output
    vae("edit", "attribute", run, "Attribute_03", "--finer", "redraw", "--seed", 2, "-n", 2, "--strengths", "-1,1")
    content = json.loads((run / "edits" / "Attribute_03_means" / "edit.json").read_text())
    assert content["settings"]["levels"] == ["2x2"]
    assert (content["settings"]["finer"], content["settings"]["seed"]) == ("redraw", 2)
    assert len(content["direction"]["vector"]) == 8
    output = vae(
        "edit", "score", run, "Attribute_03", *networks, "--strengths", "1", "--images", 20, "--split", "train"
    )
    assert "Edits move latents of the levels 2x2 (8 of 24 latents), finer levels (4x4) kept." in output.replace(
        "\n", " "
    )
    vae("edit", "amplify", run, "--dimensions", "20,3", "--steps", 2, "-n", 1, "--finer", "mean", "--levels", "2x2")
    assert read_settings(run / "edits" / "amplify_20_3")["levels"] == ["2x2"]
    guide = ["--classifier", workshop / "guide", "--steps", 2, "-n", 2]
    vae("edit", "guide", run, "Attribute_03", *guide)
    assert read_settings(run / "edits" / "guide_Attribute_03_yes")["levels"] == ["2x2", "4x4"]
    vae("edit", "transfer", run, *TWO_PICTURES, "--num-anchors", 1, "-n", 2, "--levels", "2x2", "--finer", "redraw")
    assert (run / "edits" / "transfer_pca_2" / "identity_transfer.png").is_file()
    vae("interpolate", run, "-n", 2, "--frames", 2, "--path", "spherical", "--out", workshop / "ladders_way")
    vae("traverse", run, "--top", 2, "--steps", 2)


def test_an_edit_of_before_is_kept(workshop: Path) -> None:
    command = ["edit", "attribute", workshop / "vae", "Attribute_05", "--strengths", "0", "-n"]
    for count in (1, 2):
        vae(*command, count)
    folders = [workshop / "vae" / "edits" / f"Attribute_05_means{number}" for number in ("", "_2")]
    heights = []
    for folder in folders:
        with Image.open(folder / "Attribute_05.png") as picture:
            heights.append(picture.height)
    assert heights[0] < heights[1]
    output = refused(*command, 1, "--out", folders[0])
    assert f"{folders[0] / 'edit.json'} is there already" in output.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["guide", "{vae}", "Attribute_03", "--classifier", "{guide}", "--steps", "0"], "--steps 0: at least 1 step"),
        (
            ["transfer", "{vae}", "--components", "6", "--min-pictures", "2", "--split", "train"],
            "--components 6: of 6 latents",
        ),
        (["attribute", "{vae}", "Atribute_03"], "did you mean Attribute_0"),
        (["attribute", "{vae}", "Attribute_03", "--strengths", "1,x"], "--strengths 1,x: numbers by comma"),
        (["attribute", "{vae}", "Attribute_03", "--unit", "meters"], "class, std"),
        (["attribute", "{vae}", "Attribute_03", "--method", "one_laten"], "did you mean one_latent"),
        (["attribute", "{vae}", "Attribute_03", "--method", "one_latent", "--unit", "class"], "are for means, probe"),
        (["attribute", "{vae}", "Attribute_03", "{vae}/config.yaml"], "config.yaml"),
        (["amplify", "{vae}", "--dimensions", "6"], "latents 0 to 5"),
        (["amplify", "{vae}", "--by", "size"], "allowed are variance, kl, correlation"),
        (["amplify", "{judge}"], "not an autoencoder"),
        (["guide", "{vae}", "Attribute_03"], "--classifier RUN is needed"),
        (["guide", "{vae}", "Attribute_03=maybe", "--classifier", "{guide}"], "expected Attribute_03=yes"),
        (["guide", "{vae}", "Attribute_03", "--classifier", "{vae}"], "holds an autoencoder"),
        (["score", "{vae}", "Attribute_03", "--judge", "{guide}", "--classifier", "{guide}"], "must not have guided"),
        (["transfer", "{vae}", "--anchors", "7", "--min-pictures", "2"], "7"),
        (["attribute", "{vae}", "Attribute_03", "--finer", "redraw"], "--finer redraw: all 6 latents"),
        (["amplify", "{vae}", "--levels", "4x4"], "--levels 4x4: this model has a single level"),
        (["directions", "{ladder}", "--levels", "4x4"], "--levels 4x4: allowed are"),
        (["attribute", "{ladder}", "Attribute_03", "--finer", "drop"], "keep, redraw, mean"),
    ],
)
def test_what_cannot_be_edited_is_refused_in_words(arguments: list[str], message: str, workshop: Path) -> None:
    places = {name: str(workshop / name) for name in ("vae", "guide", "judge", "ladder")}
    output = refused("edit", *(argument.format(**places) for argument in arguments))
    assert message in output.replace("\n", " ")
