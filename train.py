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
from omegaconf import DictConfig

from vae_lightning.command_line import prepare_command_line
from vae_lightning.configuration import SHOWN_METRICS, first_cause, register_configuration, to_plain

if TYPE_CHECKING:  # torch and numpy are imported inside the functions: --help and shell completion answer at once
    import lightning as L

    from vae_lightning.data import FaceDataModule
    from vae_lightning.models import Autoencoder
    from vae_lightning.module import VAEModule

CONF_DIR = Path(__file__).parent / "conf"
CTRL_C_EXIT_CODE = 130
log = logging.getLogger("vae_lightning")
register_configuration()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float | None:
    """One run. Returns the metric that a searching sweep optimises.

    Raises:
        CompactHydraException: a setting or the data cannot be used; hydra prints the message without a traceback.
    """
    from callbacks import NonFiniteLossError
    from vae_lightning.data import DataError

    try:
        plain = to_plain(config)
        module, datamodule, trainer = build(config, plain)
    except (ValueError, InstantiationException) as error:
        raise CompactHydraException(first_cause(error)) from error
    try:
        return run(config, plain, module, datamodule, trainer)
    except (DataError, NonFiniteLossError) as error:
        raise CompactHydraException(str(error)) from error


def build(config: DictConfig, plain: dict[str, Any]) -> "tuple[VAEModule, FaceDataModule, L.Trainer]":
    """Instantiates everything and checks what must fit each other; no data is read.

    Raises:
        ValueError: parts that do not fit each other, or an argument that its class refuses.
    """
    import lightning as L

    from vae_lightning.losses import Objective
    from vae_lightning.module import VAEModule

    quieten_lightning()
    L.seed_everything(config.seed, workers=True, verbose=False)
    model = instantiate(plain["model"])
    objective = Objective(
        reconstruction=instantiate(plain["reconstruction"]),
        beta=plain["beta"],
        beta_schedule=instantiate(plain["beta_schedule"]),
        kl=instantiate(plain["kl"]),
        perceptual=instantiate(plain["perceptual"]),
    )
    warn_about_ignored(plain, model)
    module = VAEModule(model, objective, instantiate(plain["optimizer"]), config.seed, run_record(plain))
    datamodule = instantiate(plain["data"])
    callbacks = make_callbacks(plain["callbacks"], model)
    loggers = [instantiate(node) for node in plain["logger"].values()]
    trainer = instantiate(
        plain["trainer"], callbacks=callbacks, logger=loggers or False, default_root_dir=config.run_dir
    )
    return module, datamodule, trainer


def warn_about_ignored(plain: dict[str, Any], model: "Autoencoder") -> None:
    """One line about what was set and cannot do anything: an autoencoder has no KL to weigh."""
    if model.has_prior:
        return
    charges = {name: str(plain[name]["_target_"]).rpartition(".")[2] for name in ("kl", "beta_schedule")}
    ignored = [f"beta={plain['beta']:g}"] if plain["beta"] != 1.0 else []
    ignored += [f"{name} ({target})" for name, target in charges.items() if target not in ("AnalyticKL", "Constant")]
    if ignored:
        log.warning(f"posterior=deterministic has no KL, so this does nothing: {', '.join(ignored)}")


def make_callbacks(nodes: dict[str, Any], model: "Autoencoder") -> "list[L.Callback]":
    """The callbacks that fit the model, in the order in which they have to be called.

    Raises:
        ValueError: one was asked for what this model does not have.
    """
    from callbacks import EMA, ImageGrid

    for name in (name for name, node in nodes.items() if "_target_" not in node):
        log.warning(f"callbacks.{name} is set and not chosen, so it does nothing: add it to callbacks=[…]")
    callbacks = {name: instantiate(node) for name, node in nodes.items() if "_target_" in node}
    if not model.has_prior:
        without = [name for name, callback in callbacks.items() if getattr(callback, "needs_prior", False)]
        if without:
            log.info(f"posterior=deterministic: left out {', '.join(without)}, which a model without prior cannot have")
        callbacks = {name: callback for name, callback in callbacks.items() if name not in without}
    for callback in callbacks.values():
        if isinstance(callback, ImageGrid):
            callback.check_model(model)
    # the mean of the weights is exchanged back in the hook in which pictures are drawn: after them
    return sorted(callbacks.values(), key=lambda callback: isinstance(callback, EMA))


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
            shown = [key for key in SHOWN_METRICS if f"{split}/{key}" in metrics]
            values = (f"{key} {metrics[f'{split}/{key}']:.4g}" for key in shown)
            log.info(f"{name + ':':24}{', '.join(values)}")
    is_vae = "val/kl_nats" in metrics
    here = Path.cwd()
    run_dir = run_dir.relative_to(here) if run_dir.is_relative_to(here) else run_dir
    log.info(
        f"\nPictures    {run_dir / 'images'}  and  {run_dir / 'loss_curves.png'}\n"
        f"Dashboard   tensorboard --logdir {run_dir.parent}\n"
        f"Use it      vae {'sample' if is_vae else 'reconstruct'} {run_dir}"
    )


if __name__ == "__main__":
    sys.argv[1:] = prepare_command_line(sys.argv[1:], CONF_DIR)
    try:
        main()
    except KeyboardInterrupt:  # before or after the fit, which handles it itself
        sys.stderr.write("Interrupted; what was half done is thrown away, the same command starts again.\n")
        sys.exit(CTRL_C_EXIT_CODE)
