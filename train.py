"""Train, validate and test one VAE, or with -m one per point of a sweep: python train.py --help."""

import logging
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import yaml
from hydra.errors import CompactHydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from vae_lightning.configuration import (
    ConfigError,
    check_arguments,
    did_you_mean,
    prepare_command_line,
    register_configuration,
)

if TYPE_CHECKING:  # torch and numpy are imported inside the functions: --help and shell completion answer at once
    import lightning as L

    from vae_lightning.data import FaceDataModule
    from vae_lightning.module import VAEModule

CONF_DIR = Path(__file__).parent / "conf"
CTRL_C_EXIT_CODE = 130
SHOWN_METRICS = ("loss", "elbo_nats", "reconstruction_nats", "kl_nats", "bits_per_dim", "active_units", "mse")
log = logging.getLogger("vae_lightning")
register_configuration()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float | None:
    """One run. Returns the metric that a searching sweep optimises.

    Raises:
        CompactHydraException: a setting or the data cannot be used; hydra prints the message without a traceback.
    """
    from vae_lightning.data import DataError

    try:
        plain = to_plain(config)
        module, datamodule, trainer = build(config, plain)
    except (ValueError, InstantiationException) as error:
        raise CompactHydraException(first_cause(error)) from error
    try:
        return run(config, plain, module, datamodule, trainer)
    except DataError as error:
        raise CompactHydraException(str(error)) from error


def check_accelerator(accelerator: str) -> None:
    """Refuses a GPU that is not there, in words that name the way out.

    Raises:
        ConfigError: PyTorch sees no such device.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there["gpu"] = there["cuda"] or there["mps"]
    if not there.get(accelerator, True):
        raise ConfigError(
            f"trainer.accelerator={accelerator}: PyTorch sees no such device here; "
            "trainer=default takes the best there is"
        )


def check_optimized_metric(name: str, splits: tuple[str, ...]) -> None:
    """Refuses a name that the run will not measure: a sweep would search for nothing.

    Raises:
        ConfigError: with the names that there are.
    """
    measured = [f"{split}/{metric}" for split in splits for metric in SHOWN_METRICS]
    if name not in measured:
        hint = did_you_mean(name, measured)
        raise ConfigError(f"optimized_metric={name}{hint}: this run measures {', '.join(measured)}")


def to_plain(config: DictConfig) -> dict[str, Any]:
    """The resolved config as dicts, lists and numbers, with `trainer.precision=auto` made definite."""
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    check_optimized_metric(plain["optimized_metric"], ("val", "test") if plain["test"] else ("val",))
    check_accelerator(plain["trainer"].get("accelerator", "auto"))
    if plain["trainer"].get("precision") == "auto":
        plain["trainer"]["precision"] = best_precision(plain["trainer"].get("accelerator", "auto"))
    check_arguments(plain)
    return {str(name): value for name, value in plain.items()}


def best_precision(accelerator: str) -> str:
    """bf16-mixed where the accelerator that Lightning will choose computes in bfloat16, else 32-true."""
    import torch

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator == "cpu" or not torch.backends.mps.is_available():
        has_bfloat16 = torch.cpu._is_avx512_bf16_supported()
    else:
        has_bfloat16 = False  # Apple's GPUs: float32 is as fast
    return "bf16-mixed" if has_bfloat16 else "32-true"


def first_cause(error: BaseException) -> str:
    """The message at the root of hydra's `Error in call to target …`."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def build(config: DictConfig, plain: dict[str, Any]) -> "tuple[VAEModule, FaceDataModule, L.Trainer]":
    """Instantiates everything and checks what must fit each other; no data is read.

    Raises:
        ValueError: parts that do not fit each other, or an argument that its class refuses.
    """
    import lightning as L

    from callbacks import ImageGrid
    from vae_lightning.losses import Objective
    from vae_lightning.module import VAEModule

    quieten_lightning()
    L.seed_everything(config.seed, workers=True, verbose=False)
    model = instantiate(plain["model"])
    objective = Objective(
        reconstruction=instantiate(plain["reconstruction"]),
        beta=plain["beta"],
        beta_schedule=instantiate(plain["beta_schedule"]),
    )
    module = VAEModule(model, objective, instantiate(plain["optimizer"]), config.seed, run_record(plain))
    datamodule = instantiate(plain["data"])
    callbacks = [instantiate(node) for node in plain["callbacks"].values()]
    for callback in callbacks:
        if isinstance(callback, ImageGrid):
            callback.check_model(model)
    loggers = [instantiate(node) for node in plain["logger"].values()]
    trainer = instantiate(
        plain["trainer"], callbacks=callbacks, logger=loggers or False, default_root_dir=config.run_dir
    )
    return module, datamodule, trainer


def quieten_lightning() -> None:
    """Leaves Lightning's warnings, without its hints and advertisements and without those that mean nothing here."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()  # its own handler would print everything twice
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning 2.6 on torch 2.15 and later, nothing that a user can mend
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    # a resumed run is meant to go on in its own folder
    warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")
    # the end of an epoch is logged whatever the interval
    warnings.filterwarnings("ignore", message=r"The number of training batches \(\d+\) is smaller than the logging")


def run_record(plain: dict[str, Any]) -> dict[str, Any]:
    """What every checkpoint says about itself."""
    import lightning
    import torch

    from vae_lightning.runs import FORMAT

    return {
        "format": FORMAT,
        "config": {name: value for name, value in plain.items() if name not in ("callbacks", "logger")},
        "versions": {"torch": str(torch.__version__), "lightning": str(lightning.__version__)},
    }


def run(
    config: DictConfig,
    plain: dict[str, Any],
    module: "VAEModule",
    datamodule: "FaceDataModule",
    trainer: "L.Trainer",
) -> float | None:
    """Fits, tests the best checkpoint, writes what the run folder holds, says where to look."""
    from vae_lightning.files import replacing, write_json

    run_dir = Path(config.run_dir)
    resume_from = checkpoint_to_resume(config, run_dir)
    if trainer.is_global_zero:
        with replacing(run_dir / "config.yaml") as unfinished:
            unfinished.write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), encoding="utf-8")
    if trainer.local_rank == 0:
        datamodule.prepare_data()  # before Lightning announces the training: it may take a minute, and may fail
        describe(module, datamodule, trainer, run_dir)
    started = time.perf_counter()
    fit(trainer, module, datamodule, resume_from, run_dir)
    metrics: dict[str, Any] = {"seconds": time.perf_counter() - started, "epochs": trainer.current_epoch}
    metrics |= {**mean_throughput(trainer), **module.best_validation}
    if config.test:
        best = run_dir / "checkpoints" / "best.ckpt"
        trainer.test(module, datamodule, str(best) if best.is_file() else None, verbose=False, weights_only=True)
        tested = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics |= {name: value for name, value in tested.items() if name.startswith("test/")}
    if trainer.is_global_zero:
        write_json(run_dir / "data.json", datamodule.record())
        write_json(run_dir / "metrics.json", metrics)
        log_hyperparameters(plain, trainer, metrics)
        say_where_to_look(run_dir, metrics)
    return metrics.get(config.optimized_metric)


def describe(module: "VAEModule", datamodule: "FaceDataModule", trainer: "L.Trainer", run_dir: Path) -> None:
    """One line that says what is about to happen."""
    model, data = module.model, datamodule.record()
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    log.info(
        f"{type(model).__name__} ({num_parameters:,} parameters, {model.latent_dim} latents) on "
        f"{data['train_count']:,} {data['source']} images of {data['image_size']}x{data['image_size']} "
        f"({data['val_count']:,} for validation) · {trainer.strategy.root_device.type} {trainer.precision} · {run_dir}"
    )


def checkpoint_to_resume(config: DictConfig, run_dir: Path) -> Path | None:
    """The checkpoint that training starts from. `last` is the one in this run's own folder.

    Raises:
        CompactHydraException: the file is not there, or is no checkpoint of ours.
    """
    from vae_lightning.run_folders import RunError
    from vae_lightning.runs import read_checkpoint

    if config.ckpt_path is None:
        return None
    is_last = config.ckpt_path == "last"
    path = run_dir / "checkpoints" / "last.ckpt" if is_last else Path(config.ckpt_path).expanduser()
    if not path.is_file():
        raise CompactHydraException(f"ckpt_path={config.ckpt_path}: there is no file {path}")
    try:
        read_checkpoint(path)
    except RunError as error:
        raise CompactHydraException(f"ckpt_path={config.ckpt_path}: {error}") from error
    return path


def fit(
    trainer: "L.Trainer", module: "VAEModule", datamodule: "FaceDataModule", resume_from: Path | None, run_dir: Path
) -> None:
    """Trains; Ctrl-C leaves a checkpoint and says how to go on."""
    try:
        trainer.fit(module, datamodule, ckpt_path=resume_from, weights_only=True)
    except SystemExit:
        if not trainer.interrupted:
            raise
        last = run_dir / "checkpoints" / "last.ckpt"
        how = f"Go on with: python train.py ckpt_path=last hydra.run.dir={run_dir}" if last.is_file() else ""
        log.warning(f"Interrupted after {trainer.global_step} steps. {how}")
        raise SystemExit(CTRL_C_EXIT_CODE) from None


def mean_throughput(trainer: "L.Trainer") -> dict[str, float]:
    """Images per second over the whole training, validation left out."""
    from callbacks import Throughput

    timers = [callback for callback in trainer.callbacks if isinstance(callback, Throughput)]  # type: ignore[attr-defined]
    if not timers or not timers[0].seconds_spent:
        return {}
    return {"train/images_per_second": timers[0].images_seen / timers[0].seconds_spent}


def log_hyperparameters(plain: dict[str, Any], trainer: "L.Trainer", metrics: dict[str, Any]) -> None:
    """TensorBoard's HParams page: what a person varies against what came out."""
    from lightning.pytorch.loggers import TensorBoardLogger
    from torch.utils.tensorboard.summary import hparams

    def class_name(group: str) -> str:
        return str(plain[group]["_target_"]).rpartition(".")[2]

    # TensorBoard sorts them and shows the first five: those that a sweep is about
    varied = {
        "beta": plain["beta"],
        "latent_dim": plain["model"]["latent_dim"],
        "lr": plain["optimizer"]["lr"],
        "model": class_name("model"),
        "reconstruction": class_name("reconstruction"),
        "schedule": class_name("beta_schedule"),
        "seed": plain["seed"],
        "size": plain["data"]["image_size"],
    }
    split = "test" if "test/loss" in metrics else "val"
    final = {f"{split}/{name}": metrics[f"{split}/{name}"] for name in SHOWN_METRICS if f"{split}/{name}" in metrics}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            for summary in hparams(varied, final):  # the metrics themselves have been logged already
                logger.experiment._get_file_writer().add_summary(summary)
            logger.finalize("success")


def say_where_to_look(run_dir: Path, metrics: dict[str, Any]) -> None:
    """The last words of a run: the numbers that compare runs, and the commands that show the pictures."""
    for split, name in (("val", "validation, best epoch"), ("test", "test, best epoch")):
        if f"{split}/loss" in metrics:
            values = (f"{key} {metrics[f'{split}/{key}']:.4g}" for key in SHOWN_METRICS)
            log.info(f"{name + ':':24}{', '.join(values)}")
    here = Path.cwd()
    run_dir = run_dir.relative_to(here) if run_dir.is_relative_to(here) else run_dir
    log.info(
        f"\nPictures    {run_dir / 'images'}  and  {run_dir / 'loss_curves.png'}\n"
        f"Dashboard   tensorboard --logdir {run_dir.parent}\n"
        f"Use it      vae sample {run_dir}"
    )


if __name__ == "__main__":
    sys.argv[1:] = prepare_command_line(sys.argv[1:], CONF_DIR)
    try:
        main()
    except KeyboardInterrupt:  # before or after the fit, which handles it itself
        sys.stderr.write("Interrupted; what was half done is thrown away, the same command starts again.\n")
        sys.exit(CTRL_C_EXIT_CODE)
