"""Priors, directions and statistics of latents belong to a checkpoint and to the data that they were fitted to."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import write_celeba, write_images
from explored_runs import write_explored_run
from test_changing_data import edit_line, overwrite_in_place, picture, warnings
from tiny_runs import fit_everything

from vae_lightning import load_run
from vae_lightning.data import FaceDataModule
from vae_lightning.editing.attributes.directions import subject_directions
from vae_lightning.explorer.opening import open_workbench
from vae_lightning.export.folder import export_run
from vae_lightning.latents.priors import fit_prior
from vae_lightning.runs import subject as evaluation
from vae_lightning.runs.checkpoints import read_checkpoint
from vae_lightning.runs.data_record import data_settings
from vae_lightning.runs.fitted import direction_file, prior_file, statistics_file
from vae_lightning.runs.layout import RECORD_KEY, RunError
from vae_lightning.runs.subject import Subject, open_subject

# rows 0, 8 of ten are for training and validation
TRAINING_IMAGE, VALIDATION_IMAGE = 1, 9


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Of a run that says which data it was trained on; they lie in `celeba` beside it."""
    run = write_explored_run(tmp_path / "run", write_celeba(tmp_path / "celeba", 30), tmp_path / "data")
    file = run / "checkpoints" / "best.ckpt"
    content = torch.load(file)
    data = FaceDataModule(**data_settings(content[RECORD_KEY]))
    data.prepare_data()
    content[RECORD_KEY]["data"] = data.record()
    torch.save(content, file)
    return file


@pytest.fixture
def root(checkpoint: Path) -> Path:
    return checkpoint.parents[2] / "celeba"


def opened(checkpoint: Path) -> Subject:
    return open_subject(load_run(checkpoint))


def directions_of(subject: Subject, checkpoint: Path) -> torch.Tensor:
    trained_on = read_checkpoint(checkpoint)[RECORD_KEY]["data"]
    return subject_directions(subject, direction_file(checkpoint, trained_on, subject.data.record())).means_with


def test_priors_are_fitted_anew_to_training_images_that_have_changed(
    checkpoint: Path, root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = opened(checkpoint).prior("gaussian").tensors()["mean"]
    opened(checkpoint).prior("gmm")
    for number in (*range(1, 9), VALIDATION_IMAGE):
        overwrite_in_place(picture(root, number))
    subject = opened(checkpoint)
    caplog.clear()
    after = subject.prior("gaussian").tensors()["mean"]
    assert [said.split("best.priors.pt: ")[1] for said in warnings(caplog)] == [
        "these fitted priors are not used, because they were fitted to other images"
    ]
    torch.testing.assert_close(after, fit_prior("gaussian", subject.fitting_latents(), seed=0).tensors()["mean"])
    assert not torch.equal(after, before)
    assert prior_file(checkpoint).names() == ["gaussian"]  # that of the mixture is of the other images

    monkeypatch.setattr(evaluation, "fit_prior", lambda *_, **__: pytest.fail("it was kept"))
    overwrite_in_place(picture(root, 10))  # a test image: nothing is fitted to it
    edit_line("list_attr_celeba.txt", 5, " -1", "  1")(root)  # nor to attributes
    assert torch.equal(opened(checkpoint).prior("gaussian").tensors()["mean"], after)


def test_directions_are_fitted_anew_to_attributes_that_have_changed(
    checkpoint: Path, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = directions_of(opened(checkpoint), checkpoint)
    assert torch.equal(directions_of(opened(checkpoint), checkpoint), before)
    assert warnings(caplog) == []
    edit_line("list_attr_celeba.txt", 5, " -1", "  1")(root)
    after = directions_of(opened(checkpoint), checkpoint)
    assert "directions are not used, because they were fitted to other attributes, identities or crops" in caplog.text
    assert not torch.equal(after, before)
    kept = direction_file(checkpoint).read()
    assert kept is not None
    assert torch.equal(kept.means_with, after)


def test_statistics_are_measured_anew_on_faces_that_have_changed(
    checkpoint: Path, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = load_run(checkpoint).latent_statistics().mean
    overwrite_in_place(picture(root, TRAINING_IMAGE))
    run = load_run(checkpoint)
    run.held_out_faces("test", 1)
    assert torch.equal(run.latent_statistics().mean, before)
    overwrite_in_place(picture(root, VALIDATION_IMAGE))
    run = load_run(checkpoint)
    assert torch.equal(run.latent_statistics().mean, before)  # photographs only: the data are not opened
    caplog.clear()
    faces = run.held_out_faces("val", 99)
    after = run.latent_statistics().mean
    torch.testing.assert_close(after, run.encode(faces).mean.mean(0))
    assert not torch.equal(after, before)
    assert "these statistics of latents are not used, because they were fitted to other images" in caplog.text
    caplog.clear()
    assert torch.equal(load_run(checkpoint).latent_statistics().mean, after)
    assert "were fitted to other images than the checkpoint was trained on" in caplog.text


@pytest.mark.parametrize("is_changed", [pytest.param(False, marks=pytest.mark.slow), True])
def test_an_export_carries_along_which_data_its_fitted_files_are_of(
    is_changed: bool,
    checkpoint: Path,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    subject = opened(checkpoint)
    subject.prior("gaussian")
    directions = directions_of(subject, checkpoint)
    weights = export_run(checkpoint, tmp_path / "exported").folder / "model.safetensors"
    for file_of in (prior_file, direction_file, statistics_file):
        assert file_of(weights).fitted_to() == file_of(checkpoint).fitted_to() is not None
    away = root.rename(tmp_path / "elsewhere")
    carried = load_run(weights)
    assert torch.equal(carried.sample(2, seed=0, prior="gaussian"), load_run(checkpoint).sample(2, 1, 0, "gaussian"))
    assert torch.equal(carried.directions().means_with, directions)
    carried.latent_statistics()
    assert warnings(caplog) == []

    monkeypatch.setenv("CELEBA_ROOT", str(away))
    monkeypatch.chdir(tmp_path)
    if is_changed:
        overwrite_in_place(picture(away, TRAINING_IMAGE))
    else:
        monkeypatch.setattr(evaluation, "fit_prior", lambda *_, **__: pytest.fail("it was carried along"))
    opened(weights).prior("gaussian")
    assert ("these fitted priors are not used" in caplog.text) == is_changed


def test_files_that_do_not_say_are_taken_to_be_of_the_checkpoints_data(
    checkpoint: Path, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directions, statistics = fit_everything(checkpoint.parents[1])
    assert prior_file(checkpoint).fitted_to() is None
    subject = opened(checkpoint)
    assert torch.equal(directions_of(subject, checkpoint), directions.means_with)
    run = load_run(checkpoint)
    run.held_out_faces("test", 1)
    assert torch.equal(run.latent_statistics().std, statistics.std)
    run.sample(1, prior="gmm")
    assert warnings(caplog) == []
    for number in (TRAINING_IMAGE, VALIDATION_IMAGE):
        overwrite_in_place(picture(root, number))
    subject = opened(checkpoint)
    assert len(directions_of(subject, checkpoint)) == 40
    assert prior_file(checkpoint, run.record["data"], subject.data.record()).names() == []
    run = load_run(checkpoint)
    run.held_out_faces("test", 1)
    assert not torch.equal(run.latent_statistics().std, statistics.std)
    run.sample(1, prior="gmm")  # without a word about data


@pytest.mark.slow
def test_the_explorer_offers_no_prior_or_slider_of_other_images(checkpoint: Path, root: Path) -> None:
    subject = opened(checkpoint)
    subject.prior("gaussian")
    directions_of(subject, checkpoint)
    (run,) = open_workbench(str(checkpoint), "best", "cpu", fits=False).runs
    assert run.priors == ("normal", "gaussian")
    assert run.directions is not None
    overwrite_in_place(picture(root, TRAINING_IMAGE))
    (run,) = open_workbench(str(checkpoint), "best", "cpu", fits=False).runs
    assert run.priors == ("normal",)
    assert run.directions is None
    shutil.rmtree(root)
    (run,) = open_workbench(str(checkpoint), "best", "cpu", fits=False).runs
    assert run.priors == ("normal", "gaussian")  # of which data they are cannot matter to photographs


def test_a_record_whose_images_are_no_table_is_refused(checkpoint: Path) -> None:
    content = torch.load(checkpoint)
    content[RECORD_KEY]["data"]["content"] = "other"
    torch.save(content, checkpoint)
    with pytest.raises(RunError, match="see 'content' in its record"):
        load_run(checkpoint)


def test_a_run_on_folders_of_splits_opens_the_same_splits_and_says_when_they_have_changed(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "folders"
    write_images(root, [f"{split}/{number}.png" for split in ("train", "test") for number in range(12)], size=(16, 16))
    content = torch.load(checkpoint)
    record = content[RECORD_KEY]
    record["config"]["data"] |= {"source": "folder", "root": str(root), "crop": None}
    trained_on = FaceDataModule(**record["config"]["data"])
    trained_on.prepare_data()
    record["data"] = trained_on.record()
    torch.save(content, checkpoint)
    assert load_run(checkpoint).data.record() == trained_on.record()
    assert warnings(caplog) == []
    write_images(root, ["train/new.png"], size=(16, 16))
    assert load_run(checkpoint).data.record()["test_count"] == 12
    (said,) = warnings(caplog)
    assert said == f"Not the data that {checkpoint} was trained on: train_count 11 then, 12 now."
