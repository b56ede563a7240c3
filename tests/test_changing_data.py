"""Data that change or break between two runs: noticed, named, never trained on silently."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_images
from PIL import Image
from test_celeba import to_zip
from torch import Tensor
from written_sweeps import write_status

from vae_lightning.data import DataError, FaceDataModule, Preprocessing
from vae_lightning.data.decoded.decoding import CHUNK
from vae_lightning.data.sources import source
from vae_lightning.data.sources.source import FolderStore
from vae_lightning.data.sources.zip_store import ZipStore
from vae_lightning.launch.job import warn_of_changes
from vae_lightning.runs.data_record import has_same_images
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.runs.versions import made_with

Celeba = Callable[..., Path]
Edit = Callable[[Path], None]


def picture(root: Path, number: int) -> Path:
    return root / "img_align_celeba" / f"{number:06d}.jpg"


def overwrite_in_place(path: Path) -> None:
    """Another image of as many bytes."""
    size = path.stat().st_size
    Image.new("RGB", (178, 218), "teal").save(path, "JPEG", quality=30)
    assert path.stat().st_size < size
    with path.open("ab") as file:
        file.write(bytes(size - path.stat().st_size))


def opened(root: Path, data_dir: Path, **arguments: object) -> FaceDataModule:
    data = FaceDataModule(root=str(root), image_size=16, data_dir=str(data_dir), **arguments)  # type: ignore[arg-type]
    data.prepare_data()
    return data


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_image_overwritten_in_place_is_named(
    tiny_celeba: Celeba, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "STATTED_AT_ONCE", 7)
    root = tiny_celeba(30)
    before = opened(root, tmp_path)
    for number in (1, 24):  # both in the training split, the second one beyond the first piece
        overwrite_in_place(picture(root, number))
        caplog.clear()
        after = opened(root, tmp_path)
        (said,) = warnings(caplog)
        assert said.endswith(f"these train images have changed since an earlier run: {number:06d}.jpg")
        assert before.record()["content"]["train"] != after.record()["content"]["train"]
        assert before.record()["content"]["val"] == after.record()["content"]["val"]
        assert not has_same_images(before.record(), after.record())
        before = after
    teal = after.split("train").images[0]
    assert np.abs(teal.astype(int) - (0, 128, 128)).max() < 10


def test_files_that_were_only_touched_or_copied_are_the_same_images(
    tiny_celeba: Celeba, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tiny_celeba(30)
    before = opened(root, tmp_path / "data").record()
    for path in (root / "img_align_celeba").iterdir():
        os.utime(path, (1, 1))
    copied = shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    for other in (root, copied):
        after = opened(other, tmp_path / "data").record()
        assert has_same_images(before, after)
        for mark in ("content", "fingerprint", "annotation"):
            assert after[mark] == before[mark]
    zipped = opened(to_zip(copied), tmp_path / "data").record()
    assert zipped["content"] == before["content"]
    assert warnings(caplog) == []


def test_another_zip_in_its_place_is_noticed_and_its_images_named(
    tiny_celeba: Celeba, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tiny_celeba(30)
    shutil.copytree(root, tmp_path / "other")
    overwrite_in_place(picture(tmp_path / "other", 5))
    opened(to_zip(root), tmp_path / "data")
    shutil.copyfile(to_zip(tmp_path / "other") / "img_align_celeba.zip", root / "img_align_celeba.zip")
    opened(root, tmp_path / "data")
    (said,) = warnings(caplog)
    assert said.endswith("an earlier run: 000005.jpg")


def test_an_image_of_another_size_is_cropped_anew_or_refused(tiny_celeba: Celeba, tmp_path: Path) -> None:
    root = tiny_celeba(30)
    opened(root, tmp_path)
    write_images(root / "img_align_celeba", ["000003.jpg"], size=(400, 300))
    larger = opened(root, tmp_path).split("train").images[2]
    assert larger.shape == (16, 16, 3)
    write_images(root / "img_align_celeba", ["000003.jpg"], size=(100, 100))
    with pytest.raises(DataError, match=r"row 2 of .*000003\.jpg .*less than the crop of 148"):
        opened(root, tmp_path)


def while_decoding(act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Acts once, after an image of the second piece was decoded."""
    decode, decoded = Preprocessing.__call__, []

    def decode_and_act(preprocessing: Preprocessing, encoded: bytes) -> Tensor:
        decoded.append(encoded)
        if len(decoded) == CHUNK + 1:
            act()
        return decode(preprocessing, encoded)

    monkeypatch.setattr(Preprocessing, "__call__", decode_and_act)


def test_images_that_change_while_they_are_decoded_are_named_and_not_kept(
    tiny_celeba: Celeba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny_celeba(90)
    path = picture(root, 1)
    before, whole = path.stat(), path.read_bytes()
    with monkeypatch.context() as patch:
        while_decoding(lambda: overwrite_in_place(path), patch)
        with pytest.raises(DataError, match=r"these train images changed while they were read: 000001\.jpg\. Start"):
            opened(root, tmp_path)
    assert [each.name for each in (tmp_path / "cache").iterdir() if each.suffix != ".lock"] == []
    path.write_bytes(whole)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    restored = opened(root, tmp_path)
    other = FaceDataModule(root=str(root), image_size=16, data_dir=str(tmp_path / "other"))
    other.prepare_data()
    np.testing.assert_array_equal(restored.split("train").images, other.split("train").images)


def replace_by(source_file: Path, place: Path) -> None:
    shutil.copyfile(source_file, place.with_suffix(".new")).rename(place)


@pytest.mark.parametrize("put", [shutil.copyfile, replace_by])
def test_a_zip_that_is_exchanged_while_it_is_read_is_not_taken_for_the_old_one(
    put: Callable[[Path, Path], object], tiny_celeba: Celeba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, other = tiny_celeba(30), tmp_path / "other"
    shutil.copytree(root, other)
    overwrite_in_place(picture(other, 1))
    archive, others = (to_zip(folder) / "img_align_celeba.zip" for folder in (root, other))
    shutil.copyfile(archive, tmp_path / "whole.zip")
    fingerprint = ZipStore.fingerprint

    def exchange_after(store: ZipStore, names: list[str]) -> str:
        monkeypatch.setattr(ZipStore, "fingerprint", fingerprint)
        found = store.fingerprint(names)
        put(others, archive)
        return found

    monkeypatch.setattr(ZipStore, "fingerprint", exchange_after)
    opened(root, tmp_path)
    put(tmp_path / "whole.zip", archive)
    restored, fresh = opened(root, tmp_path), opened(root, tmp_path / "fresh")
    np.testing.assert_array_equal(restored.split("train").images, fresh.split("train").images)


def test_images_that_are_only_touched_while_they_are_decoded_are_kept(
    tiny_celeba: Celeba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny_celeba(90)
    while_decoding(lambda: os.utime(picture(root, 1), (1, 1)), monkeypatch)
    opened(root, tmp_path)
    monkeypatch.setattr(FolderStore, "read", lambda *_: pytest.fail("they are known"))
    opened(root, tmp_path)


def edit_line(name: str, line: int, old: str, new: str) -> Edit:
    def edit(root: Path) -> None:
        lines = (root / name).read_text().split("\n")
        assert old in lines[line]
        lines[line] = lines[line].replace(old, new, 1)
        (root / name).write_text("\n".join(lines))

    return edit


def swap_lines(name: str, *lines: int) -> Edit:
    def edit(root: Path) -> None:
        content = (root / name).read_text().split("\n")
        for one in lines:
            content[one], content[one + 1] = content[one + 1], content[one]
        (root / name).write_text("\n".join(content))

    return edit


def remove_identities(root: Path) -> None:
    (root / "identity_CelebA.txt").unlink()


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (edit_line("list_attr_celeba.txt", 5, " -1", "  1"), {"annotation"}),
        (edit_line("list_attr_celeba.txt", 1, "Attribute_03", "Smiling"), {"annotation"}),
        (edit_line("identity_CelebA.txt", 8, "104", "105"), {"annotation"}),
        (remove_identities, {"annotation"}),
        (swap_lines("list_attr_celeba.txt", 5), set()),  # they are joined by file name
        (
            edit_line("list_eval_partition.txt", 0, "jpg 0", "jpg 1"),
            {"annotation", "fingerprint", "content", "train_count", "val_count"},
        ),
        (swap_lines("list_eval_partition.txt", 3), {"annotation", "fingerprint", "content"}),
    ],
)
def test_an_edited_annotation_is_in_the_record(
    edit: Edit, changed: set[str], tiny_celeba: Celeba, tmp_path: Path
) -> None:
    root = tiny_celeba(30)
    before = opened(root, tmp_path)
    edit(root)
    after = opened(root, tmp_path)
    assert {name for name, value in before.record().items() if value != after.record()[name]} == changed
    marks = after.marks_now()
    assert {name: after.record()[name] for name in marks} == marks


def test_a_finished_job_says_that_its_annotation_has_changed(
    tiny_celeba: Celeba, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tiny_celeba(30)
    data = opened(root, tmp_path / "data")
    job = tmp_path / "job"
    job.mkdir()
    write_status(job, "done", identity="i", made_with=made_with())
    (job / "metrics.json").write_text('{"val/loss": 3.0}')
    (job / "data.json").write_text(json.dumps(data.record()))
    warn_of_changes(job, data.marks_now)
    assert warnings(caplog) == []
    edit_line("list_attr_celeba.txt", 5, " -1", "  1")(root)
    warn_of_changes(job, data.marks_now)
    (said,) = warnings(caplog)
    assert f"would not come out the same: the attributes or identities of {root} have changed" in said


@pytest.fixture
def rendered(tmp_path: Path) -> FaceDataModule:
    data = FaceDataModule("faces", image_size=16, faces_count=20, data_dir=str(tmp_path / "data"))
    data.prepare_data()
    return data


def again(data: FaceDataModule) -> FaceDataModule:
    other = FaceDataModule("faces", image_size=16, faces_count=20, data_dir=str(data.data_dir))
    other.prepare_data()
    return other


def test_rendered_faces_are_what_was_rendered(rendered: FaceDataModule) -> None:
    root = rendered.image_source.root
    whole, times = picture(root, 3).read_bytes(), picture(root, 3).stat()
    overwrite_in_place(picture(root, 3))
    os.utime(picture(root, 3), ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DataError, match=r"000003\.jpg is not as it was rendered.*Delete .*faces-20-seed0-v1,"):
        again(rendered)
    picture(root, 3).write_bytes(whole)
    assert again(rendered).record()["content"] == rendered.record()["content"]
    table = root / "factors.csv"
    table.write_text(table.read_text().replace("000001.jpg,", "000001.jpg,9"))
    with pytest.raises(DataError, match=r"factors\.csv is not as it was rendered.*Delete"):
        again(rendered)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("img_align_celeba/000003.jpg", "has 19 pictures of 20: rendering it again"),
        ("checksums.txt", "and no checksums.txt: rendering it again"),
    ],
)
def test_rendered_faces_that_are_not_whole_are_rendered_again_with_a_word(
    lost: str, words: str, rendered: FaceDataModule, caplog: pytest.LogCaptureFixture
) -> None:
    (rendered.image_source.root / lost).unlink()
    with caplog.at_level(logging.INFO, "vae_lightning"):
        assert again(rendered).record()["content"] == rendered.record()["content"]
    assert words in caplog.text


@pytest.mark.slow
def test_a_run_is_resumed_with_the_images_that_it_began_with(
    run_training: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir, root = run_training("run", "trainer.max_epochs=1"), tmp_path / "celeba"
    last = run_dir / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    os.utime(picture(root, 2))
    edit_line("identity_CelebA.txt", 8, "104", "105")(root)
    run_training("run", "trainer.max_epochs=1", "ckpt_path=last")
    (said,) = warnings(caplog)
    assert said == f"Not the data that {last} was trained on: other attributes or identities."

    last.write_bytes(content)
    overwrite_in_place(picture(root, 2))
    for refused in ("ckpt_path=last", "ckpt_path=last data.val_size=3", "ckpt_path=last data.crop=140"):
        with pytest.raises(DataError, match=r"are not those that .*last\.ckpt was trained on") as caught:
            run_training("run", "trainer.max_epochs=2", *refused.split())
        named = {"data.val_size=3": "val_count 6 then, 3 now", "data.crop=140": "crop 148 then, 140 now"}
        assert named.get(refused.split()[-1], "other train images: 000002.jpg.") in str(caught.value)
        assert last.read_bytes() == content
    caplog.clear()
    run_training("run", "trainer.max_epochs=2", f"ckpt_path='{last}'")  # asked for by its name
    assert f"Not the data that {last} was trained on: other train images: 000002.jpg" in caplog.text
    assert [row["epoch"] for row in read_metrics(run_dir / "metrics.csv")][-1] == 2


def test_the_same_run_on_other_images_is_refused_by_name(
    tiny_celeba: Celeba, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As when it goes on with ckpt_path=last; from a checkpoint that somebody names, it is only said."""
    root = tiny_celeba(30)
    before, last = opened(root, tmp_path).record(), Path("last.ckpt")
    for number in (1, 2, 3, 4, 5, 6, 7):
        overwrite_in_place(picture(root, number))
    after = opened(root, tmp_path)
    names = r"000001\.jpg, .*000005\.jpg and 2 more"
    with pytest.raises(DataError, match=rf"not those that last\.ckpt was trained on: other train images: {names}"):
        after.check_unchanged(before, last, is_same_run=True)
    caplog.clear()
    after.check_unchanged(before, last, is_same_run=False)
    (said,) = warnings(caplog)
    assert said.startswith("Not the data that last.ckpt was trained on: other train images: 000001.jpg")
    shutil.rmtree(tmp_path / "cache")  # what the files were cannot be known any more
    with pytest.raises(DataError, match=r"trained on: other train images\. "):
        after.check_unchanged(before, last, is_same_run=True)
