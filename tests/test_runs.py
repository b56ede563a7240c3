"""A run in four lines of Python: what goes in, what comes out, and from where it is loaded."""

import doctest
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_runs import LADDER, write_exported, write_run

from vae_lightning import load_run
from vae_lightning.latents.statistics import LatentStatistics, latent_statistics
from vae_lightning.models.levels import latent_name, num_coarse_latents
from vae_lightning.models.pixels import to_pil
from vae_lightning.runs import load, run
from vae_lightning.runs.checkpoints import checkpoint_to_resume
from vae_lightning.runs.fitted import statistics_file
from vae_lightning.runs.layout import RunError


def test_examples_in_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "outputs" / "2026-11-20_12-00-00", image_size=64, latent_dim=128)
    tried = [doctest.testmod(module) for module in (load, run)]
    assert sum(results.attempted for results in tried) >= 10
    assert not sum(results.failed for results in tried)


def test_an_exported_folder_is_loaded_like_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    folder = tmp_path / "exported"
    write_exported(folder, tmp_path / "run")
    expected = load_run(tmp_path / "run").sample(3, seed=0)
    for path in (folder, folder / "model.safetensors"):
        assert load_run(path).sample(3, seed=0).equal(expected)
    with pytest.raises(RunError, match=r"checkpoint=last: .*only one model"):
        load_run(folder, "last")


def test_a_ladders_latents_have_names_and_statistics_along_the_means(tmp_path: Path) -> None:
    write_run(tmp_path, "Logistic", **LADDER)
    vae = load_run(tmp_path)
    levels = vae.model.latent_levels
    assert [latent_name(levels, number) for number in (0, 31, 32 + 8 * 3 + 5, 96)] == [
        "4x4 map 0 (0, 0)", "4x4 map 1 (3, 3)", "8x8 map 0 (3, 5)", "32x32 map 0 (0, 0)",
    ]  # fmt: skip
    assert latent_name(levels[:1], 3) == "latent 3"
    assert num_coarse_latents(levels) == 32 + 64
    posterior = vae.encode(torch.rand(5, 3, 32, 32))
    statistics = latent_statistics([posterior])
    assert statistics.kl_nats is not None
    assert torch.allclose(statistics.kl_nats, posterior.kl_per_latent().mean(0))
    coarse = statistics.most_active(5, 96)
    assert coarse == statistics.kl_nats[:96].topk(5).indices.tolist() != statistics.most_active(5)


def test_pictures_come_as_asked_for(tmp_path: Path) -> None:
    write_run(tmp_path)
    vae = load_run(tmp_path)
    photographs = [Image.effect_noise((90, 120), 80), Image.new("RGBA", (300, 200), (200, 80, 40, 128))]
    latents = vae.sample_latents(2, seed=1)
    for tensors, pictures in (
        (vae.decode(latents), vae.decode(latents, as_pil=True)),
        (vae.sample(2, seed=1), vae.sample(2, seed=1, as_pil=True)),
        (vae.reconstruct(photographs), vae.reconstruct(photographs, as_pil=True)),
        (
            vae.interpolate(photographs[0], photographs[1], 4)[0],
            vae.interpolate(photographs[0], photographs[1], 4, as_pil=True)[0],
        ),
    ):
        assert [picture.tobytes() for picture in pictures] == [picture.tobytes() for picture in to_pil(tensors)]
        assert {picture.size for picture in pictures} == {(32, 32)}


def test_tensors_of_other_sizes_are_cropped_and_resized_as_pictures_are(tmp_path: Path) -> None:
    write_run(tmp_path)
    vae = load_run(tmp_path)
    photograph = Image.effect_noise((178, 218), 60).convert("RGB")
    pixels = torch.frombuffer(bytearray(photograph.tobytes()), dtype=torch.uint8).reshape(218, 178, 3).permute(2, 0, 1)
    expected = vae.encode(photograph).mean
    assert vae.encode(pixels).mean.equal(expected)
    assert vae.encode(pixels[None].float() / 255).mean.equal(expected)
    small = vae.preprocess(photograph)
    assert vae.encode(small).mean.equal(expected)
    gray = vae.encode(photograph.convert("L")).mean
    assert vae.encode(pixels.float().mean(0, keepdim=True) / 255).mean.shape == gray.shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_the_memory_for_nearly_the_same_pictures(dtype: torch.dtype, tmp_path: Path) -> None:
    write_run(tmp_path)
    exact, half = load_run(tmp_path), load_run(tmp_path, dtype=dtype)
    photograph = Image.effect_noise((178, 218), 60)
    assert half.dtype == dtype
    assert half.sample(4, seed=0).dtype == torch.float32
    assert not half.sample(4, seed=0).equal(exact.sample(4, seed=0))
    torch.testing.assert_close(half.sample(4, seed=0), exact.sample(4, seed=0), atol=0.02, rtol=0)
    torch.testing.assert_close(half.encode(photograph).mean, exact.encode(photograph).mean, atol=0.05, rtol=0.05)


def test_devices_and_dtypes_that_are_not_there_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert load_run(tmp_path, device="auto").device == load_run(tmp_path).device or torch.accelerator.is_available()
    with pytest.raises(ValueError, match="device=toaster"):
        load_run(tmp_path, device="toaster")
    with pytest.raises(ValueError, match=r"torch\.int8"):
        load_run(tmp_path, dtype=torch.int8)


def test_statistics_of_latents_belong_to_one_checkpoint(tmp_path: Path) -> None:
    write_run(tmp_path)
    checkpoint = tmp_path / "checkpoints" / "best.ckpt"
    file = statistics_file(checkpoint)
    kl_nats = torch.tensor([0.1, 3.0, 0.2, 2.0, 0.0, 1.0])
    file.write(LatentStatistics(torch.arange(6.0), torch.ones(6), kl_nats))
    assert load_run(tmp_path).latent_statistics().mean.equal(torch.arange(6.0))
    assert load_run(tmp_path).latent_statistics().most_active(3) == [1, 3, 5]
    content = torch.load(checkpoint)
    torch.save(content | {"epoch": 3}, checkpoint)
    assert statistics_file(checkpoint).read() is None
    file.path.write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="delete it to fit them again"):
        load_run(tmp_path).latent_statistics()


def test_what_to_start_from_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("the best face")
    (tmp_path / "empty").mkdir()
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    for path, words in {
        "notes.txt": r"notes\.txt is not a checkpoint that can be read safely: it is not a PyTorch file",
        "empty": r"empty is a folder; there is no last\.ckpt in it",
        "run": rf"run is a folder; name the checkpoint in it, ckpt_path={re.escape(str(last))}",
        "gone": r"there is no file",
    }.items():
        with pytest.raises(RunError, match=rf"ckpt_path={re.escape(str(tmp_path / path))}: .*{words}"):
            checkpoint_to_resume(str(tmp_path / path), tmp_path)


def test_a_run_that_was_never_validated_has_its_last_checkpoint(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "checkpoints" / "best.ckpt").rename(tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(RunError, match=r"there are checkpoints/last\.ckpt\. Take the last one: --checkpoint last"):
        load_run(tmp_path)
    assert load_run(tmp_path, checkpoint="last").sample(1, seed=0).shape[0] == 1
