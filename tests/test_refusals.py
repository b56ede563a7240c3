"""What Lightning's Trainer offers: it works exactly, or is refused before any data is read."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import WHOLE_RUN
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from vae_lightning.launch import train
from vae_lightning.launch.configuration import to_plain
from vae_lightning.launch.signatures import ConfigError
from vae_lightning.runs.metrics_csv import read_metrics

REFUSED = [
    ("trainer.strategy=fsdp", "allowed are auto, ddp"),
    ("trainer.strategy=deepspeed", "allowed are auto, ddp"),
    ("trainer.strategy=ddp_spawn", "allowed are auto, ddp"),
    ("trainer.overfit_batches=2", "data.train_size"),
    ("trainer.fast_dev_run=true", "debug=smoke"),
    ("trainer.fast_dev_run=3", "debug=smoke"),
    ("trainer.barebones=true", "vae bench"),
    ("trainer.use_distributed_sampler=true", "leave it out"),
    ("trainer.reload_dataloaders_every_n_epochs=1", "leave it out"),
    ("trainer.logger=false", r"set logger=\[…\]"),
    ("trainer.default_root_dir=/elsewhere", "set hydra.run.dir"),
    ("trainer.accumulate_grad_batches=0", "at least 1"),
    ("trainer.log_every_n_steps=0", "at least 1"),
    ("trainer.check_val_every_n_epoch=-1", "at least 1"),
    ("seed=99999999999999999999", "=99999999999999999999: must be a whole number from 0 to 4294967295"),
    ("seed=-1", "=-1: must be a whole number from 0"),
    ("trainer.max_epochs=-2", "=-2: must be at least -1"),
    ("trainer.max_epochs=null", "would train for 1,000 epochs"),
    ("trainer.limit_val_batches=-1", "=-1: must be a number of batches, or a part of them"),
    ("trainer.limit_val_batches=.nan", "=nan: must be a number of batches, or a part of them"),
    ("trainer.limit_train_batches=1.5", r"=1\.5: must be a number of batches, or a part of them"),
    ("trainer.val_check_interval=0", "=0: must be above 0"),
    ("trainer.devices=0", "=0: must be how many"),
    ("trainer.devices=abc", "=abc: must be how many"),
    ("trainer.devices=[0,0]", r"=\[0, 0\]: must be how many"),
    ("trainer.accelerator=abc", "=abc: allowed are auto, cpu, gpu"),
    ("trainer.min_epochs=11", "trainer.max_epochs=10"),
    ("trainer.gradient_clip_algorithm=value", "trainer.gradient_clip_val"),
]


def changed(config: DictConfig, setting: str) -> DictConfig:
    config = config.copy()
    OmegaConf.set_struct(config, False)
    name, value = setting.split("=")
    OmegaConf.update(config, name, OmegaConf.create(f"value: {value}").value)
    return config


@pytest.fixture(scope="module")
def default_config() -> DictConfig:
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        return compose("config", ["run_dir=/nowhere", "trainer.accelerator=cpu"])


@pytest.mark.parametrize(("setting", "message"), REFUSED)
def test_what_a_run_cannot_use_is_refused(setting: str, message: str, default_config: DictConfig) -> None:
    with pytest.raises(ConfigError, match=f"{setting.split('=')[0]}.*{message}"):
        to_plain(changed(default_config, setting))


REFUSED_BY_PARTS = [
    ("optimizer.lr=-1", r"optimizer\.lr=-1: must be a finite number, 0 or larger"),
    ("optimizer.lr=.nan", r"optimizer\.lr=nan: must be a finite number, 0 or larger"),
    ("optimizer.lr=.inf", r"optimizer\.lr=inf: must be a finite number, 0 or larger"),
    ("optimizer.weight_decay=-1", r"optimizer\.weight_decay=-1: must be a finite number, 0 or larger"),
    ("optimizer.betas=[0.9,.nan]", r"optimizer\.betas=nan: must be a finite number"),
    ("optimizer.betas=[2,0.9]", r"optimizer=…: torch\.optim\.Adam refuses .* beta"),
    ("optimizer.betas=[0.9]", r"optimizer=…: torch\.optim\.Adam refuses"),
    ("optimizer.foreach=true", r"optimizer=…: .*`fused` and `foreach`"),
    ("model.latent_dim=1000000000000", r"model\.latent_dim=1000000000000, .*do not fit into memory \([^\[]*allocate"),
    ("model.latent_dim=99999999999999999999", r"model\.latent_dim=99999999999999999999, .*do not fit into memory"),
    ("trainer.gradient_clip_val=-1", r"trainer\.gradient_clip_val=-1: must be a number above 0"),
    ("trainer.profiler=abc", r"trainer=…: Lightning refuses .*`profiler`"),
    ("trainer.enable_checkpointing=false", r"trainer=…: Lightning refuses .*`enable_checkpointing=False`"),
]


@pytest.fixture(scope="module")
def small_config() -> DictConfig:
    places = ["run_dir=/nowhere", "data=faces", "data.data_dir=/nowhere", "trainer=cpu"]
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        return compose("config", [*places, "data.image_size=32", "model.latent_dim=2", "model.widths=[4,8]"])


@pytest.mark.parametrize(("setting", "message"), REFUSED_BY_PARTS)
def test_what_a_part_refuses_is_refused_alike_before_a_run_and_a_sweep(
    setting: str, message: str, small_config: DictConfig
) -> None:
    """A sweep holds each of its jobs against `check` before the first starts."""
    config = changed(small_config, setting)
    for refuse in (lambda: train.train(config), lambda: train.check(config, runs_here=True)):
        with pytest.raises(ConfigError, match=message):
            refuse()


REFUSED_COMBINATIONS = [
    ("model=ladder model.latent_dim=64", r"model\.latent_dim=64: .*set model\.latent_dim=null"),
    ("model=ladder posterior=deterministic", r"posterior=deterministic: .*set posterior=gaussian"),
    ("model=ladder model.widths=[8,8]", r"model\.widths=\[8, 8\]: give one whole number for each of model\.sides="),
    ("model=ladder model.blocks=[1,1,0,1]", r"model\.blocks=\[1, 1, 0, 1\]: .*at least 1"),
    ("model=ladder model.latent_channels=[4]", r"model\.latent_channels=\[4\]: give one whole number for each"),
    ("model=ladder model.sides=[4,8,16,24]", r"model\.sides=\[4, 8, 16, 24\]: .*a multiple of the one before"),
    ("model=ladder data.image_size=48", r"data\.image_size=48: must be a multiple of the finest map's side, 32"),
    ("kl=per_level", "kl=per_level weighs .*set model=ladder, or kl=analytic"),
    (
        "model=ladder kl=per_level kl.weights=[1,2]",
        r"kl\.weights=\[1, 2\]: 2 numbers for 4 levels; give one for each of 4x4, 8x8, 16x16, 32x32",
    ),
    ("model=ladder kl=per_level kl.free_nats=[9]", r"kl\.free_nats=\[9\]: 1 numbers? for 4 levels; give one for each"),
    ("model=ladder kl=per_level kl.weights=[1,1,1,-1]", r"kl\.weights=\[1, 1, 1, -1\]: must be finite numbers, 0 or"),
    (
        "model=ladder kl=per_level kl.free_nats=[9,9,9,9] beta_schedule=capacity",
        "kl=PerLevelKL and beta_schedule=capacity .*take kl=analytic or another beta_schedule",
    ),
    (
        "reconstruction=logistic model.pixel_logvar=true",
        r"model\.pixel_logvar=true: .*reconstruction=logistic sets both",
    ),
    ("reconstruction=logistic model.logistic_components=0", r"model\.logistic_components=0 .*reads at least 1"),
    ("model.logistic_components=3", r"model\.logistic_components=3 .*set it to 0, or reconstruction=logistic"),
    ("trainer.max_epochs=-1 lr_schedule=decay", r"trainer\.max_epochs=-1 never does: .*max_time"),
]


def combined(words: str) -> DictConfig:
    places = ["run_dir=/nowhere", "data=faces", "data.data_dir=/nowhere", "trainer=cpu"]
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        return compose("config", [*places, *words.split()])


@pytest.mark.parametrize(("words", "message"), REFUSED_COMBINATIONS)
def test_parts_that_do_not_fit_each_other_are_refused_in_one_line(words: str, message: str) -> None:
    """Before a run and before a sweep, and before any data is read."""
    config = combined(words)
    for refuse in (lambda: train.train(config), lambda: train.check(config, runs_here=True)):
        with pytest.raises(ConfigError, match=message) as refused:
            refuse()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "words",
    [
        "model=ladder reconstruction=squared_error",
        "model=ladder kl=per_level kl.weights=[1,1,2,2] beta_schedule=capacity",
        "reconstruction=logistic_mixture perceptual=vgg16",
        "trainer.max_epochs=-1 +trainer.max_time=00:00:10:00 lr_schedule=decay",
    ],
)
def test_parts_that_fit_each_other_are_not(words: str) -> None:
    train.check(combined(words), runs_here=True)


def test_what_another_machine_runs_is_not_held_against_this_one(
    small_config: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep may be started inside a SLURM job of four tasks."""
    for name, value in {"NTASKS": "4", "JOB_NAME": "outer", "JOB_ID": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    gpu = changed(changed(small_config, "trainer.accelerator=gpu"), "trainer.devices=[3]")
    train.check(gpu, runs_here=False)
    with pytest.raises(ConfigError, match=r"trainer\.gradient_clip_val=-1"):
        train.check(changed(gpu, "trainer.gradient_clip_val=-1"), runs_here=False)


def test_to_check_a_job_changes_nothing_for_the_others(small_config: DictConfig) -> None:
    train.check(changed(changed(small_config, "trainer.deterministic=true"), "trainer.benchmark=true"), runs_here=True)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark


def test_curves_of_numbers_that_nobody_keeps_are_refused() -> None:
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        config = compose("config", ["run_dir=/nowhere", "trainer.accelerator=cpu", "logger=[tensorboard]"])
    with pytest.raises(ConfigError, match=r"callbacks=\[loss_curves\] draws metrics.csv: add csv to logger"):
        to_plain(config)


# nothing of the training: how it is watched, checked and timed
WITHOUT_EFFECT = [
    "trainer.num_sanity_val_steps=0",
    "trainer.num_sanity_val_steps=-1",
    "+trainer.detect_anomaly=true",
    "+trainer.deterministic=true",
    "+trainer.benchmark=true",
    "+trainer.inference_mode=false",
    "+trainer.val_check_interval=2",
    "+trainer.val_check_interval=0.5",
    "+trainer.profiler=simple",
    "trainer.enable_model_summary=true",
    "trainer.enable_progress_bar=true",
    "trainer.log_every_n_steps=1",
    "trainer.limit_val_batches=0",
    "data.residence=host",
    "data.residence=device",
    "data.eval_batch_size=3",
    "logger=[csv]",
    "test=false",
]


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::UserWarning")  # anomaly detection is slow, it says
def test_how_a_run_is_watched_does_not_change_its_weights(run_training: Callable[..., Path]) -> None:
    expected = None
    for number, setting in enumerate(["seed=0", *WITHOUT_EFFECT]):
        run = run_training(
            f"run{number}", setting, "trainer.max_epochs=2", "data.horizontal_flip=true", fixed=WHOLE_RUN
        )
        weights = torch.load(run / "checkpoints" / "last.ckpt")["state_dict"]
        trained = {name: tensor for name, tensor in weights.items() if name.startswith("model.")}
        expected = expected or trained
        assert trained
        assert not [name for name in trained if not torch.equal(trained[name], expected[name])], setting


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ("trainer.accumulate_grad_batches=3", 4),
        ("trainer.accumulate_grad_batches=4 +callbacks=ema", 4),  # 6 batches: a step of four, and one of what is left
        ("trainer.max_epochs=-1 trainer.max_steps=7", 7),
        ("trainer.check_val_every_n_epoch=2", 12),
        ("trainer.gradient_clip_val=0.5 +trainer.gradient_clip_algorithm=value", 12),
        ("trainer.gradient_clip_val=0.5 trainer.precision=bf16-mixed lr_schedule=decay", 12),
    ],
)
def test_how_a_run_steps(settings: str, steps: int, run_training: Callable[..., Path]) -> None:
    run = run_training("run", "trainer.max_epochs=2", *settings.split())
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == steps
    rows = read_metrics(run / "metrics.csv")
    assert max(row["step"] for row in rows) == steps
    assert [row for row in rows if "val/loss" in row]


@pytest.mark.slow
def test_steps_of_several_batches_have_one_weight_of_the_kl_term_and_one_row(run_training: Callable[..., Path]) -> None:
    accumulate = "trainer.accumulate_grad_batches=4"  # 6 batches: a step of four, and one of what is left
    warmup = ["beta_schedule=warmup", "beta_schedule.unit=step", "beta_schedule.duration=4", "beta=8"]
    run = run_training("run", "trainer.max_epochs=3", accumulate, "trainer.log_every_n_steps=1", *warmup)
    rows = [row for row in read_metrics(run / "metrics.csv") if "train/loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["train/beta"] for row in rows] == [0, 2, 4, 6, 8, 8]
