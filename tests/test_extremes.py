"""Settings and data at their edges: finite numbers, or one clear line and the last good checkpoint."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import WHOLE_RUN, train_tiny, write_celeba
from PIL import Image

from callbacks import NonFiniteLossError, TemperatureGrid
from vae_lightning.latents.priors import PriorError, fit_prior
from vae_lightning.launch.hardware import check_precision
from vae_lightning.launch.signatures import ConfigError
from vae_lightning.launch.trainer_settings import check_trainer
from vae_lightning.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    Capacity,
    FreeBits,
    GaussianPerPixel,
    GaussianShared,
    Objective,
    ReconstructionLoss,
    SquaredError,
)
from vae_lightning.models import ConvVAE
from vae_lightning.models.distributions import PixelPrediction
from vae_lightning.pictures.face_grids import interpolation_grid
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.training.vae_module import VAEModule

Train = Callable[..., Path]
DRAWN = "callbacks=[checkpoint,kl_per_latent,traversal]"
BARE = ["callbacks=[checkpoint,non_finite_loss]", "logger=[csv]", "test=false"]


def assert_all_numbers_are_finite(run_dir: Path) -> None:
    metrics = json.loads((run_dir / "metrics.json").read_text())
    rows = [*read_metrics(run_dir / "metrics.csv"), {name: float(value) for name, value in metrics.items()}]
    assert [name for row in rows for name, value in row.items() if not math.isfinite(value)] == []
    assert any("val/loss" in row for row in rows)


def weights(run_dir: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


# ---- refused at the start


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_allowances_are_finite_numbers(value: float) -> None:
    with pytest.raises(ValueError, match=r"kl\.nats_per_latent="):
        FreeBits(value)
    with pytest.raises(ValueError, match=r"beta_schedule\.capacity_nats="):
        Capacity(value)


@pytest.mark.parametrize("clamp", [[math.nan, 4.0], [-4.0, math.nan], [4.0, 4.0]])
def test_a_clamp_of_what_is_no_number_is_refused(clamp: list[float]) -> None:
    with pytest.raises(ValueError, match=r"logvar_clamp=.*low < high"):
        ConvVAE(image_size=32, latent_dim=2, logvar_clamp=clamp)


@pytest.mark.parametrize("temperature", [math.nan, math.inf, -1.0])
def test_a_temperature_is_a_finite_factor(temperature: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"callbacks\.temperature: temperatures="):
        TemperatureGrid(str(tmp_path), temperatures=[0.0, temperature])


@pytest.mark.parametrize("clip", [-1.0, math.nan, math.inf])
def test_a_clip_that_would_turn_the_gradient_round_is_refused(clip: float) -> None:
    module = VAEModule(ConvVAE(image_size=32, latent_dim=2), Objective(SquaredError()), torch.optim.Adam)
    trainer = L.Trainer(accelerator="cpu", gradient_clip_val=clip, logger=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match=r"trainer\.gradient_clip_val="):
        check_trainer(module, trainer, sync_batchnorm=False)


@pytest.mark.parametrize(
    ("precision", "words"),
    [
        ("16-true", "allowed are auto, 32-true, bf16-mixed, 16-mixed"),
        ("bf16-true", r"did you mean bf16-mixed\?"),
        ("64-true", "allowed are auto, 32-true"),
        ("16-mixed", "CPUs cannot compute in float16"),
    ],
)
def test_a_precision_that_no_model_trains_in_is_refused(precision: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"trainer\.precision={precision}.*{words}"):
        check_precision(precision, "cpu", runs_here=True)


@pytest.mark.parametrize("precision", ["32", "32-true", "bf16", "bf16-mixed"])
def test_the_precisions_of_a_cpu_are_taken(precision: str) -> None:
    check_precision(precision, "cpu", runs_here=True)


# ---- data without any variety


@pytest.mark.parametrize(
    "term",
    [
        SquaredError(),
        AbsoluteError(),
        BinaryCrossEntropy(),
        GaussianPerPixel(),
        GaussianShared(),
        GaussianShared("learned"),
    ],
    ids=lambda term: type(term).__name__,
)
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_perfect_reconstruction_of_one_colour_is_finite(term: ReconstructionLoss, level: float) -> None:
    """An error of exactly 0, which the logarithm of a variance would take to minus infinity."""
    mean = torch.full((2, 3, 4, 4), level, requires_grad=True)
    logvar = torch.full_like(mean, -20.0).requires_grad_() if term.uses_pixel_logvar else None
    for _ in range(3):
        nats = term.train()(PixelPrediction(mean, logvar), torch.full((2, 3, 4, 4), level))
        nats.sum().backward()
        assert nats.isfinite().all()
        assert mean.grad is not None
        assert mean.grad.isfinite().all()
    assert term.eval()(PixelPrediction(mean, logvar), torch.full((2, 3, 4, 4), level)).isfinite().all()


def test_a_lone_face_is_interpolated_with_itself() -> None:
    model = ConvVAE(image_size=32, latent_dim=2).eval()
    face = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        grid = interpolation_grid(model, face, num_steps=3)
    assert grid.images.shape == (1, 5, 3, 32, 32)
    assert grid.images[0, 0].equal(grid.images[0, 4])


def test_a_mixture_of_thousands_of_latents_is_refused_before_it_takes_hours() -> None:
    with pytest.raises(PriorError, match=r"1,025 latents takes hours.*take the prior 'gaussian'"):
        fit_prior("gmm", torch.zeros(20, 1025), seed=0)


# ---- whole runs


def test_a_single_latent_trains_and_is_drawn(run_training: Train) -> None:
    run_dir = run_training(
        "run", "model.latent_dim=1", "trainer.max_epochs=1", "beta=0", DRAWN, "test=false", fixed=WHOLE_RUN
    )
    assert_all_numbers_are_finite(run_dir)
    assert (run_dir / "images" / "kl_per_latent" / "epoch=0001.png").is_file()


@pytest.mark.slow
def test_epochs_without_validation_leave_a_checkpoint(run_training: Train) -> None:
    run_dir = run_training("run", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=5", *BARE)
    assert torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 1


def test_weights_that_an_epochs_last_step_spoils_never_replace_good_ones(
    run_training: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The loss before that step was a number, and the next one comes after the checkpoint."""
    original = VAEModule.on_train_batch_end

    def poison(self: VAEModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        original(self, outputs, batch, batch_idx)
        if self.current_epoch == 1 and self.trainer.is_last_batch:
            with torch.no_grad():
                next(self.model.parameters()).fill_(float("nan"))

    monkeypatch.setattr(VAEModule, "on_train_batch_end", poison)
    with pytest.raises(NonFiniteLossError, match=r"weights are not finite in epoch 2, after step 11\. .*last\.ckpt"):
        run_training("run", "trainer.max_epochs=3", *BARE)
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    for name in ("best", "last"):
        assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run", name).values())


@pytest.mark.slow
def test_a_validation_loss_that_is_no_number_stops_the_run(
    run_training: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = VAEModule._log_statistics

    def explode(self: VAEModule, prefix: str, *arguments: Any) -> dict[str, float]:
        if prefix == "val" and self.current_epoch == 1:
            self.statistics["val"].scalars[1] = math.inf
        return original(self, prefix, *arguments)

    monkeypatch.setattr(VAEModule, "_log_statistics", explode)
    with pytest.raises(NonFiniteLossError, match=r"validation loss is inf in epoch 2\. .*last\.ckpt holds the last"):
        run_training("run", "trainer.max_epochs=3", *BARE)
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 0


@pytest.fixture(scope="module")
def plain_colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets without variety: all black, all one and the same picture; and one with an image a split."""
    folder = tmp_path_factory.mktemp("edges")
    for name, colour in (("black", "black"), ("same", "")):
        root = write_celeba(folder / name, 30)
        first = (root / "img_align_celeba" / "000001.jpg").read_bytes()
        for path in (root / "img_align_celeba").iterdir():
            if colour:
                Image.new("RGB", (178, 218), colour).save(path)
            else:
                path.write_bytes(first)
    write_celeba(folder / "varied", 60)
    lone = write_celeba(folder / "lone", 3)
    (lone / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n")
    return folder


NARROW = "model.widths=[8,16]"
TRAINS = [
    *(
        f"{data} reconstruction={term}"
        for data in ("black", "same")
        for term in ("squared_error", "absolute_error", "bce", "gaussian_shared", "gaussian_per_pixel")
    ),
    "black reconstruction=gaussian_shared reconstruction.variance=learned optimizer.lr=0.1",
    "black model=linear",
    "black model=patch",
    f"black model=residual {NARROW}",
    "lone",
    "lone model.norm=batch",
    "lone model=patch",
    "varied data.train_size=1",
    "varied data.batch_size=1 model.norm=batch",
    "varied data.batch_size=1 model.norm=group",
    "varied data.batch_size=1 reconstruction=gaussian_shared",
    "varied data.batch_size=1 kl=free_bits +callbacks=ema",
    "varied data.batch_size=7 data.eval_batch_size=4",
    "varied model.latent_dim=1 posterior=deterministic",
    "varied model.latent_dim=4096",
    "varied beta=1e6",
    "varied beta=1e30",
    "varied kl=free_bits kl.nats_per_latent=1e9",
    "varied kl=free_bits kl.nats_per_latent=1e-9",
    "varied data.image_size=8 model=linear",
    "varied trainer.accumulate_grad_batches=100",
    "varied trainer.gradient_clip_val=1e-9",
    "varied callbacks.temperature.temperatures=[0,1e6]",
    "varied optimizer.lr=0",
]


@pytest.mark.nightly
@pytest.mark.parametrize("settings", TRAINS)
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_an_extreme_run_logs_finite_numbers_and_draws(settings: str, plain_colours: Path, tmp_path: Path) -> None:
    data, *overrides = settings.split()
    root, whole = plain_colours / data, ["trainer.max_epochs=1", *overrides]
    run_dir = train_tiny(root, plain_colours / "data", tmp_path / "run", *whole, fixed=WHOLE_RUN)
    assert_all_numbers_are_finite(run_dir)
    for name in ("best", "last"):
        assert all(tensor.isfinite().all() for tensor in weights(run_dir, name).values())
    for path in run_dir.rglob("*.png"):
        with Image.open(path) as picture:
            assert max(picture.size) < 3000
    assert len(list((run_dir / "images" / "reconstruction").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        "optimizer.lr=100",
        "optimizer.lr=100 reconstruction=bce +callbacks=ema",
        "optimizer.lr=1e30 data.batch_size=48",  # a step an epoch: the weights are spoilt when it validates
        "model=patch model.initial_logvar=1e4",  # a KL beyond all numbers
    ],
)
def test_a_run_that_explodes_ends_with_a_clear_line(settings: str, run_training: Train, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match=r"in epoch 1.*No epoch was finished yet.*a smaller optimizer\.lr"):
        run_training("run", "trainer.max_epochs=2", *settings.split(), fixed=WHOLE_RUN)
    kept = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert kept in ([], ["before_non_finite_loss.ckpt"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ("trainer.max_steps=1", ["best.ckpt", "last.ckpt"]),
        ("trainer.max_epochs=-1 trainer.max_steps=7", ["best.ckpt", "last.ckpt"]),
        ("trainer.limit_val_batches=0 trainer.max_epochs=1", ["last.ckpt"]),
        ("trainer.limit_test_batches=0 trainer.max_epochs=1", ["best.ckpt", "last.ckpt"]),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_hardly_any_training_at_all(settings: str, kept: list[str], run_training: Train) -> None:
    run_dir = run_training("run", *settings.split(), fixed=WHOLE_RUN)
    folder = run_dir / "checkpoints"
    assert (sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []) == kept
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert all(math.isfinite(value) for value in metrics.values())
