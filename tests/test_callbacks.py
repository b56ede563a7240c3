import contextlib
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from stand_ins import tiny_ladder
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from callbacks import (
    ImageGrid,
    InterpolationGrid,
    LevelsGrid,
    MetricsCsv,
    ReconstructionGrid,
    TemperatureGrid,
    TraversalGrid,
    log_hyperparameters,
    say_where_to_look,
    select_callbacks,
)
from callbacks.loss_curves import draw_loss_curves
from vae_lightning.launch.sweep.progress import share_done
from vae_lightning.losses import Objective, SquaredError
from vae_lightning.models import ConvVAE
from vae_lightning.models.pixels import to_pixel_range, to_uint8
from vae_lightning.pictures.charts import draw_kl_per_latent
from vae_lightning.runs.metrics_csv import GrowingMetrics, read_last_metrics, read_metrics
from vae_lightning.training.vae_module import VAEModule


@pytest.fixture
def model() -> ConvVAE:
    torch.manual_seed(0)
    return ConvVAE(image_size=32, latent_dim=6).eval().requires_grad_(False)


def some_faces(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_reconstruction_rows_are_originals_and_decoded_means(model: ConvVAE) -> None:
    faces = some_faces(8)
    grid = ReconstructionGrid("run", num_faces=8).draw(model, faces)
    assert grid.images.shape == (2, 8, 3, 32, 32)
    assert torch.equal(grid.images[0], faces)
    decoded = model.decode(model.encode(to_pixel_range(faces, model.pixel_range)).mean)
    assert torch.equal(grid.images[1], to_uint8(decoded, model.pixel_range))


def test_interpolation_starts_and_ends_at_the_reconstructions(model: ConvVAE) -> None:
    faces = some_faces(6)
    grid = InterpolationGrid("run", num_pairs=3, num_steps=5).draw(model, faces)
    reconstruction = ReconstructionGrid("run").draw(model, faces).images[1]
    assert grid.images.shape == (3, 7, 3, 32, 32)
    assert torch.equal(grid.images[:, 0], faces[0::2])
    assert torch.equal(grid.images[:, -1], faces[1::2])
    assert (grid.images[:, 1].int() - reconstruction[0::2].int()).abs().max() <= 1
    assert (grid.images[:, -2].int() - reconstruction[1::2].int()).abs().max() <= 1
    assert len(grid.column_labels) == 7


def test_interpolation_leaves_out_a_face_without_a_partner(model: ConvVAE) -> None:
    assert len(InterpolationGrid("run", num_pairs=3).draw(model, some_faces(5)).images) == 2


def test_traversal_moves_the_chosen_latent_alone(model: ConvVAE) -> None:
    faces = some_faces(4)
    grid = TraversalGrid("run", dimensions=[4, 1], num_steps=3, limit=2).draw(model, faces)
    mean = model.encode(to_pixel_range(faces, model.pixel_range)).mean[0]
    by_hand = mean.clone()
    by_hand[1] = -2.0
    expected = to_uint8(model.decode(by_hand[None]), model.pixel_range)[0]
    assert grid.images.shape == (2, 4, 3, 32, 32)
    assert (grid.images[1, 1].int() - expected.int()).abs().max() <= 1
    assert [label.split("\n")[0] for label in grid.row_labels] == ["z[4]", "z[1]"]
    assert grid.column_labels == ["original", "-2", "0", "+2"]


def test_traversal_finds_the_most_active_latents(model: ConvVAE) -> None:
    with torch.no_grad():
        model.posterior_head.bias[:6] = torch.tensor([0.0, 0.0, 5.0, 0.0, 3.0, 0.0])  # means of latents 2 and 4
    grid = TraversalGrid("run", num_dimensions=2).draw(model, some_faces(16))
    assert [label.split("\n")[0] for label in grid.row_labels] == ["z[2]", "z[4]"]


def test_traversal_of_fewer_latents_than_asked_for() -> None:
    model = ConvVAE(image_size=32, latent_dim=2).eval().requires_grad_(False)
    assert len(TraversalGrid("run", num_dimensions=8).draw(model, some_faces(2)).images) == 2


def test_temperature_rows_share_their_noise(model: ConvVAE) -> None:
    grid = TemperatureGrid("run", temperatures=[0.0, 1.0, 1.0], num_samples=4).draw(model, some_faces(1))
    assert grid.images.shape == (3, 4, 3, 32, 32)
    assert grid.images[0].unique(dim=0).shape[0] == 1
    assert torch.equal(grid.images[1], grid.images[2])
    again = TemperatureGrid("run", temperatures=[1.0], num_samples=4).draw(model, some_faces(1))
    assert torch.equal(again.images[0], grid.images[1])


def test_a_ladder_has_rows_of_falling_temperatures_too() -> None:
    ladder = tiny_ladder()
    grid = TemperatureGrid("run", temperatures=[0.5, 1.0], num_samples=3).draw(ladder, some_faces(1))
    assert grid.row_labels == ["τ = 0.5", "τ = 1", "τ = 1 · 0.5", "τ = 1 · 0.1"]
    noise = torch.randn(3, 24, generator=torch.Generator().manual_seed(0))
    fallen = torch.cat([noise[:, :8], 0.1 * noise[:, 8:]], dim=1)
    torch.testing.assert_close(grid.images[0], to_uint8(ladder.decode(0.5 * noise), ladder.pixel_range), atol=1, rtol=0)
    torch.testing.assert_close(grid.images[3], to_uint8(ladder.decode(fallen), ladder.pixel_range), atol=1, rtol=0)
    assert not torch.equal(grid.images[1], grid.images[3])


@torch.inference_mode()
def test_levels_are_drawn_anew_from_the_finest_on() -> None:
    ladder, faces = tiny_ladder(), some_faces(2)[:, :1, :8, :8]
    grid = LevelsGrid("run", num_draws=3, temperature=0.8).draw(ladder, faces)
    mean = ladder.encode(to_pixel_range(faces, ladder.pixel_range)).mean.repeat_interleave(3, 0)
    drawn = 0.8 * torch.randn(6, 24, generator=torch.Generator().manual_seed(0))
    rows = [mean, torch.cat([mean[:, :8], drawn[:, 8:]], dim=1), drawn]
    decoded = to_uint8(ladder.decode(torch.cat(rows)), ladder.pixel_range).unflatten(0, (3, 6))
    assert torch.equal(grid.images[0], faces.repeat_interleave(3, 0))
    torch.testing.assert_close(grid.images[1:], decoded, atol=1, rtol=0)
    assert len(grid.images[2].unique(dim=0)) == 6
    assert grid.row_labels == [
        "original", "all levels kept\n(reconstruction)", "2x2 kept,\nfiner redrawn", "nothing kept"
    ]  # fmt: skip
    assert grid.column_labels[2:4] == ["face 1, draw 3", "face 2, draw 1"]
    four = tiny_ladder(sides=(1, 2, 4, 8), widths=(4,) * 4, blocks=(1,) * 4, latent_channels=(1,) * 4)
    labels = LevelsGrid("run", num_draws=1).draw(four, faces).row_labels[2:-1]
    assert [label.partition(" kept")[0] for label in labels] == ["1x1 to 4x4", "1x1 to 2x2", "1x1"]


def test_a_flat_model_has_no_levels_to_show(model: ConvVAE) -> None:
    module = VAEModule(model, Objective(SquaredError()), torch.optim.Adam)
    with pytest.raises(ValueError, match=r"`levels` .*model=ladder.* single level"):
        select_callbacks({"levels": LevelsGrid("run")}, module, {})


@pytest.mark.parametrize(
    ("grid", "of_test"),
    [
        (TemperatureGrid("run"), "Samples from N(0, τ²), each column from one draw of the noise · the tested weights"),
        (ReconstructionGrid("run"), "Reconstructions from the posterior mean · test split"),
    ],
)
def test_titles_say_what_is_shown(
    grid: ImageGrid, of_test: str, model: ConvVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    monkeypatch.setattr("callbacks.image_grids.labelled_grid", lambda *args: titles.append(args[-1]))
    monkeypatch.setattr("callbacks.image_grids.save_picture", Mock())
    monkeypatch.setattr("callbacks.image_grids.datamodule_of", lambda _: Mock(held_out_faces=lambda *_: some_faces(2)))
    module = VAEModule(model, Objective(SquaredError()), torch.optim.Adam)
    plugin = Mock(forward_context=contextlib.nullcontext)
    trainer = Mock(spec=L.Trainer, is_global_zero=True, current_epoch=2, precision_plugin=plugin)
    for split in ("val", "test"):
        grid._draw_and_save(trainer, module, split, "picture")
    assert titles == [f"{of_test.partition(' · ')[0]} · epoch 3", of_test]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReconstructionGrid("run", num_faces=0), "num_faces=0"),
        (lambda: ReconstructionGrid("run", every_n_epochs=0), "every_n_epochs=0"),
        (lambda: InterpolationGrid("run", num_steps=1), "num_steps=1"),
        (lambda: TraversalGrid("run", dimensions=[]), "dimensions=\\[\\]"),
        (lambda: TemperatureGrid("run", temperatures=[-1.0]), "-1.0"),
        (lambda: LevelsGrid("run", num_faces=0), "num_faces=0"),
        (lambda: LevelsGrid("run", num_draws=0), "num_draws=0"),
        (lambda: LevelsGrid("run", temperature=math.nan), "temperature=nan"),
    ],
)
def test_grids_without_sense_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_a_growing_file_of_metrics_is_read_from_where_it_was_left(tmp_path: Path) -> None:
    logger, growing = MetricsCsv(str(tmp_path)), GrowingMetrics(tmp_path / "metrics.csv")
    assert growing.read() == (True, [])
    first, again = ({"epoch": 1.0, "step": 1.0, "train/loss": loss} for loss in (3.0, 2.0))
    logger.log_metrics(first, 1)
    assert growing.read() == (True, [first])
    logger.log_metrics(again, 1)  # written in the place of the first
    second = {"epoch": 1.0, "step": 2.0, "train/loss": 1.0}
    logger.log_metrics(second, 2)
    assert growing.read() == (False, [again, second])
    assert growing.read() == (False, [second])  # the last row may still change
    validated = {"epoch": 1.0, "step": 3.0, "val/loss": 5.0}
    logger.log_metrics(validated, 3)  # a new column: another file
    assert growing.read() == (True, [again, second, validated])
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("2,4,0.")
    assert growing.read() == (False, [validated])
    assert read_metrics(tmp_path / "metrics.csv", lambda column: column.startswith("val/")) == [validated]


def test_the_end_of_long_metrics_is_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    rows = "".join(
        f"{1 + step // 5000},{step},{step / 7:.9f},{step if step % 5000 == 4999 else ''}\n" for step in range(9_999)
    )
    path.write_text(f"epoch,step,train/loss,val/loss\n{rows}2,9999,1")
    last = read_last_metrics(path)
    assert 100 < len(last) < 5000
    assert last == read_metrics(path)[-len(last) :]
    assert read_last_metrics(tmp_path / "none.csv") == []
    (tmp_path / "config.yaml").write_text("trainer: {max_epochs: 4}")
    assert share_done(tmp_path) == 0.25  # the second epoch is not validated yet


def test_metrics_of_one_step_share_a_row(tmp_path: Path) -> None:
    logger = MetricsCsv(str(tmp_path))
    logger.log_metrics({"train/loss": 3.0, "epoch": 0.0}, 1)
    logger.log_metrics({"train/loss": 2.0, "epoch": 0.0}, 2)
    logger.log_metrics({"val/loss": 2.5, "epoch": 0.0}, 2)
    logger.log_metrics({"train/loss": 1.0, "epoch": 1.0}, 3)
    assert read_metrics(tmp_path / "metrics.csv") == [
        {"epoch": 0.0, "step": 1.0, "train/loss": 3.0},
        {"epoch": 0.0, "step": 2.0, "train/loss": 2.0, "val/loss": 2.5},
        {"epoch": 1.0, "step": 3.0, "train/loss": 1.0},
    ]


def test_a_resumed_run_replaces_the_steps_that_it_trains_again(tmp_path: Path) -> None:
    first = MetricsCsv(str(tmp_path))
    for step in (1, 2, 3, 4):
        first.log_metrics({"train/loss": float(step), "epoch": 0.0}, step)
    resumed = MetricsCsv(str(tmp_path))
    resumed.log_metrics({"train/loss": 30.0, "epoch": 0.0}, 3)
    assert [row["train/loss"] for row in read_metrics(tmp_path / "metrics.csv")] == [1.0, 2.0, 30.0]


def test_half_a_line_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train/loss\n0,1,123.5\n0,2,12")
    assert read_metrics(path) == [{"epoch": 0.0, "step": 1.0, "train/loss": 123.5}]


def test_loss_curves_draw_what_is_there() -> None:
    rows = [{"step": float(step), "train/loss": 100.0 / step, "train/kl_nats": math.nan} for step in range(1, 30)]
    picture = draw_loss_curves(rows)
    assert picture.shape == (400, 1300, 3)
    empty = draw_loss_curves([{"step": 1.0}])
    assert np.abs(picture.astype(int) - empty.astype(int)).max() > 100


def test_kl_per_latent_is_drawn_largest_first() -> None:
    picture = draw_kl_per_latent(np.array([0.0, 5.0, 1.0], dtype=np.float32), "epoch 1")
    blue = (picture[:, :, 2].astype(int) - picture[:, :, 0]) > 60
    columns = blue.sum(0)
    left, middle, right = (columns[start : start + 180].max() for start in (90, 310, 530))
    assert left > 3 * middle > 0
    assert right == 0


def test_hparams_name_what_a_sweep_varies(tmp_path: Path) -> None:
    """TensorBoard's HParams page has the same runs and metrics as the report."""
    logger = TensorBoardLogger(tmp_path, name="", version="")
    trainer = Mock(spec=L.Trainer)
    trainer.loggers = [logger]
    plain = {
        "beta": 4.0,
        "seed": 0,
        "model": {"_target_": "vae_lightning.models.ConvVAE", "latent_dim": 64},
        "optimizer": {"lr": 1e-3},
        "reconstruction": {"_target_": "a.SquaredError"},
        "beta_schedule": {"_target_": "a.Constant"},
        "data": {"image_size": 64},
        "recognizer": None,
    }
    swept = {"beta": "4", "data.batch_size": "32", "model": "conv"}
    log_hyperparameters(plain, swept, trainer, {"test/loss": 3.0, "test/kl_nats": 1.0, "val/loss": 2.0})
    (events,) = tmp_path.glob("events.*")
    accumulator = EventAccumulator(str(events)).Reload()
    contents = accumulator.summary_metadata
    begun = HParamsPluginData.FromString(contents["_hparams_/session_start_info"].plugin_data.content)
    named = {name: value.string_value or value.number_value for name, value in begun.session_start_info.hparams.items()}
    assert named["data.batch_size"] == "32"
    assert (named["beta"], named["latent_dim"], named["model"]) == (4.0, 64.0, "ConvVAE")
    experiment = HParamsPluginData.FromString(contents["_hparams_/experiment"].plugin_data.content)
    metrics = {info.name.tag for info in experiment.experiment.metric_infos}
    assert metrics == {"test/loss", "test/kl_nats"}


def test_profile_counts_what_a_gpu_would_wait_for(run_training: Callable[..., Path]) -> None:
    settings = ["trainer.max_epochs=2", "callbacks=[checkpoint,profile]", "test=false"]
    summary = json.loads((run_training("run", *settings) / "profile" / "summary.json").read_text())
    assert (summary["steps"], summary["logging_steps"]) == (2, 1)
    assert summary["waits_in_steps"] == 0
    assert summary["milliseconds_per_step"] > 0
    assert "aten::convolution_backward" in summary["share_of_time"]


def test_profile_sees_a_callback_that_asks_in_every_step(run_training: Callable[..., Path]) -> None:
    """On the CPU the guard against losses that are no numbers looks at each."""
    settings = ["trainer.max_epochs=2", "callbacks=[checkpoint,non_finite_loss,profile]", "test=false"]
    assert json.loads((run_training("run", *settings) / "profile" / "summary.json").read_text())["waits_in_steps"] == 1


def test_profile_of_too_short_a_run_says_so(
    run_training: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    run_training("run", "trainer.max_epochs=1", "callbacks=[profile]", "trainer.log_every_n_steps=50", "test=false")
    assert "saw 1 logging windows and needs two" in caplog.text


@pytest.mark.parametrize(
    ("kept", "said", "uses"),
    [
        (["best", "last"], "test, best epoch:", "vae sample RUN  and  vae evaluate RUN  and"),
        (["last"], "test, last weights:", "vae sample RUN --checkpoint last  and  vae evaluate RUN --checkpoint last"),
        ([], "test, last weights:", "the run has kept no checkpoint"),
    ],
)
def test_a_run_without_validation_says_what_it_has_tested(
    kept: list[str], said: str, uses: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in kept:
        (tmp_path / "checkpoints" / f"{name}.ckpt").touch()
    with caplog.at_level(logging.INFO, "vae_lightning"):
        say_where_to_look(tmp_path, {"test/loss": 1.0, "test/mse": 0.1, "test/kl_nats": 2.0})
    assert said in caplog.text
    assert uses.replace("RUN", str(tmp_path)) in caplog.text
