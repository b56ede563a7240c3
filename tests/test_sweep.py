"""Sweeps without training: identity and folders of jobs, plans, refusals, states, progress."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf, open_dict
from written_sweeps import write_status

from vae_lightning.launch import building, train
from vae_lightning.launch.command_line import (
    choose_folder,
    is_sweep,
    prepare_command_line,
)
from vae_lightning.launch.folders import new_folder, no_empty_folder
from vae_lightning.launch.signatures import ConfigError
from vae_lightning.launch.sweep import engines
from vae_lightning.launch.sweep.composition import Composer
from vae_lightning.launch.sweep.engines import Engine, check_extras, choose_engine, ray_engine, slurm_engine
from vae_lightning.launch.sweep.plan import SweepPlan, plan_sweep
from vae_lightning.launch.sweep.progress import read_progress
from vae_lightning.runs.identity import identity_of, identity_of_settings, job_folder
from vae_lightning.runs.status import read_plan
from vae_lightning.system.extras import MissingExtraError


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        return compose("config", [*overrides, "sweep=s"], return_hydra_config=True)


def plan(*arguments: str) -> SweepPlan:
    typed = ["-m", *arguments]
    return plan_sweep(prepare_command_line(typed, train.CONF_DIR), typed, train.CONF_DIR, train.check)


# ---- which run a configuration stands for


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["beta=1"], ["beta=1.0"]),
        (["optimizer.lr=1e-3"], []),
        (["model.latent_dim=128", "beta=4"], ["beta=4"]),
        (["trainer.enable_progress_bar=false", "data.data_dir=/elsewhere", "logger=[csv]", "run_dir=x"], []),
        (["model=conv"], []),
        (["trainer.limit_train_batches=1.0"], []),
        (["ckpt_path=last"], []),
        (["ckpt_path=a.ckpt"], [f"ckpt_path='{Path.cwd()}/a.ckpt'"]),
    ],
)
def test_the_same_run_has_one_identity_however_it_is_typed(one: list[str], other: list[str]) -> None:
    assert identity_of(composed(*one)) == identity_of(composed(*other))


@pytest.mark.parametrize(
    "change",
    [
        *("beta=2", "seed=1", "+callbacks=ema", "trainer.max_epochs=11", "data.crop=178", "ckpt_path=a.ckpt"),
        *("trainer.limit_train_batches=1", "trainer.limit_val_batches=1"),  # one batch, where 1.0 are all of them
    ],
)
def test_other_runs_have_other_identities(change: str) -> None:
    assert identity_of(composed(change)) != identity_of(composed())


def test_a_job_lies_where_it_lay_before_and_never_where_another_lies(tmp_path: Path) -> None:
    def folder(*overrides: str) -> str:
        return job_folder("beta=4", composed(*overrides, f"hydra.sweep.dir={tmp_path}"))

    assert folder("beta=4") == "beta=4"
    (tmp_path / "beta=4.0").mkdir()
    write_status(tmp_path / "beta=4.0", "done", identity=identity_of(composed("beta=4")))
    assert folder("beta=4") == "beta=4.0"
    longer = folder("beta=4", "trainer.max_epochs=20")
    assert longer == "beta=4"
    (tmp_path / "beta=4").mkdir()
    write_status(tmp_path / "beta=4", "done", identity="another")
    assert folder("beta=4", "trainer.max_epochs=20").startswith("beta=4 ")


# ---- folders


def test_commands_of_one_second_get_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [new_folder(Path("multirun")) for _ in range(5)]
    assert len(set(folders)) == 5
    assert all(folder.is_dir() for folder in folders)
    arguments = choose_folder(["beta=4"])
    assert arguments[-1].startswith("hydra.run.dir='outputs/")
    with no_empty_folder(arguments, ["beta=4"]):
        pass
    assert not (tmp_path / "outputs").exists()
    assert choose_folder(["--cfg", "job"]) == ["--cfg", "job"]
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep=a"], "add -m"),
        (["hparams_search=beta_grid"], "add -m"),
        (["-m", "sweep=../a"], "name of a folder"),
        (["-m", "sweep=.hidden"], "name of a folder"),
        (["run_dir=xx"], r"run_dir=xx: .*set hydra\.run\.dir=xx"),
        (["++run_dir=xx", "hydra.run.dir=yy"], r"set hydra\.run\.dir=xx"),
        (["-m", "run_dir=xx"], r"set hydra\.sweep\.dir=xx"),
    ],
)
def test_names_of_folders_are_checked(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_folder(arguments)
    assert not is_sweep(["-m", "--cfg", "job"])


def test_processes_that_others_start_need_one_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"one of 4 processes.*hydra.run.dir"):
        choose_folder(["beta=4"])
    assert choose_folder(["beta=4", "hydra.run.dir=a"]) == ["beta=4", "hydra.run.dir=a"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hydra.run.dir=no.jpg"], r"no\.jpg is a file, and hydra\.run\.dir=no\.jpg needs a folder"),
        (["hydra.run.dir=no.jpg/x/y"], r"no\.jpg is a file, and hydra\.run\.dir=no\.jpg/x/y needs a folder"),
        (["hydra.run.dir=gone"], r"gone is a file"),  # a link to nowhere
        (["hydra.run.dir=" + "a" * 300], "a{300}: .*too long"),
        (["-m", "hydra.sweep.dir=no.jpg"], r"no\.jpg is a file, and hydra\.sweep\.dir=no\.jpg"),
        (["-m", "sweep=taken"], r"multirun/taken is a file"),
    ],
)
def test_a_file_where_the_folder_would_lie_is_refused_at_once(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no.jpg").write_text("x")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "multirun").mkdir()
    (tmp_path / "multirun" / "taken").write_text("x")
    with pytest.raises(SystemExit) as ended:
        prepare_command_line(arguments, train.CONF_DIR)
    assert ended.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gone", "multirun", "no.jpg"]


# ---- plans


def test_a_plan_has_every_job_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = plan("beta=1,4,1.0", "model=conv,linear", "debug=smoke", "sweep=s")
    assert [job.name for job in sweep.jobs] == [
        "beta=1,model=conv",
        "beta=1,model=linear",
        "beta=4,model=conv",
        "beta=4,model=linear",
    ]
    assert read_progress(sweep.folder).to_go == 4
    assert sweep.command == "vae train -m beta=1,4,1.0 model=conv,linear debug=smoke sweep=s"
    later = plan("beta=8", "model=conv,linear", "debug=smoke", "sweep=s")
    assert len(read_plan(later.folder)["jobs"]) == 6  # what was planned before stays planned
    assert read_progress(later.folder).total == 2
    assert plan("hparams_search=beta_grid", "beta=1,2").jobs[0].name == "beta=1"
    assert len(plan("hparams_search=beta_grid", "seed=range(0,2)", "beta=1,4").jobs) == 4


def test_jobs_that_cannot_work_are_all_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        plan("data.image_size=64,100", "beta=1,abc")
    message = str(refused.value)
    assert message.startswith("3 of 4 jobs cannot work, so nothing was started.")
    assert "data.image_size=100 beta=1\n    data.image_size=100: model=conv knows" in message
    assert "beta=abc: must be a number" in message
    assert not list(tmp_path.glob("multirun/*/*"))


@pytest.mark.parametrize(
    ("swept", "folders"),
    [
        (["model=conv,ladder"], ["model=conv", "model=ladder"]),
        (
            ["model=ladder", "model.latent_channels=[16,8,8,4],[32,8,8,4]"],
            ["model.latent_channels=[16,8,8,4]", "model.latent_channels=[32,8,8,4]"],
        ),
        (
            ["model=ladder", "kl=per_level", "kl.weights=[1,1,1,1],[2,1,1,0.5]", "kl.free_nats=[9,0,0,0],null"],
            [
                f"kl.free_nats={nats},kl.weights={weights}"
                for weights in ("[1,1,1,1]", "[2,1,1,0.5]")
                for nats in ("[9,0,0,0]", "null")
            ],
        ),
    ],
)
def test_lists_of_levels_are_swept(
    swept: list[str], folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As typed in quotes in a shell, where brackets mean something of their own."""
    monkeypatch.chdir(tmp_path)
    assert [job.name for job in plan(*swept, "debug=smoke").jobs] == folders


def test_a_sweep_names_the_models_that_a_choice_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"1 of 2 jobs cannot work.*\n *model=conv .*\n *kl=per_level .*set model=ladder"
    ):
        plan("model=conv,ladder", "kl=per_level", "debug=smoke")
    with pytest.raises(ConfigError, match=r"1 of 2 .*\n.*\n *kl\.weights=\[1, 1\]: 2 numbers for 4 levels"):
        plan("model=ladder", "kl=per_level", "kl.weights=[1,1,1,1],[1,1]", "debug=smoke")


@pytest.mark.parametrize(
    "overrides",
    [
        ("beta=4",),
        ("model=linear", "data.image_size=32", "+trainer.fast_dev_run=false", "~callbacks.loss_curves"),
        ("callbacks=[checkpoint]", "+callbacks=ema", "posterior=deterministic", "optimizer={lr:1e-2}"),
        ("experiment=conv_low_beta", "beta=0.5", "++callbacks.samples.count=3"),
    ],
)
def test_what_jobs_have_in_common_is_composed_once_and_comes_out_the_same(overrides: tuple[str, ...]) -> None:
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        composer = Composer("config", ["hydra.job.chdir=false"])
        composer.settings((*overrides, "beta=7"))  # leaves nothing behind
        settings = composer.settings((*overrides, "sweep=s"))
    config = composed(*overrides)
    with open_dict(config):
        del config["hydra"]
        config.run_dir = ""
    assert settings == OmegaConf.to_container(config, resolve=True)
    assert identity_of_settings(settings) == identity_of(config)


def test_what_is_equal_in_all_jobs_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    built: list[Any] = []

    def count(config: Any, **others: Any) -> Any:
        built.append(config.get("_target_") if config else None)
        return instantiate(config, **others)

    monkeypatch.setattr(building, "instantiate", count)
    plan("beta=0.1,0.2,0.3,0.4", "seed=1,2", "model.latent_dim=8,16", "debug=smoke")
    assert built.count("vae_lightning.models.ConvVAE") == 2
    assert built.count("lightning.Trainer") == 1
    assert max(map(built.count, {*built})) == 2


def test_weights_that_do_not_fit_into_memory_are_refused_without_allocating_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"1 of 2 .*\n.*\n.*latent_dim=100000000: .*do not fit into memory \(.* GiB"):
        plan("model.latent_dim=16,100000000", "debug=smoke")


def test_jobs_of_nearly_equal_values_get_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = (job.name for job in plan("beta=0.7342837482,0.7342837483", "debug=smoke").jobs)
    assert first == "beta=0.73428"
    assert second.startswith("beta=0.73428 ")


# ---- engines


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["trainer.devices=1,2", "trainer.devices=[0,1]", "trainer.num_nodes=2"])
def test_several_processes_per_job_are_refused(devices: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"whole sweep.*local_gpus"):
        plan("trainer=ddp", "trainer.accelerator=cpu", devices, "beta=1,4")


@pytest.mark.parametrize("devices", ["abc", "null", "0", "1.5", "[]"])
def test_what_is_no_number_of_devices_is_refused_with_its_key(devices: str) -> None:
    with pytest.raises(ConfigError, match=r"^trainer\.devices=.*must be how many"):
        engines.refuse_several_devices(OmegaConf.create(f"devices: {devices}"))


def test_one_process_per_job_is_none_too_many() -> None:
    config = composed("trainer=ddp", "trainer.accelerator=cpu")
    engines.refuse_several_devices(config.trainer)
    assert choose_engine(config, 3) == Engine("basic")


def find_nothing(name: str) -> None:
    if name.startswith("hydra_plugins"):
        raise ModuleNotFoundError(name)


@pytest.mark.parametrize("find_spec", [lambda name: None, find_nothing], ids=["plugin missing", "all plugins missing"])
def test_missing_extras_are_named(find_spec: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    for name in ("hydra_submitit_launcher", "hydra_ray_launcher"):
        monkeypatch.delitem(sys.modules, f"hydra_plugins.{name}", raising=False)
    with pytest.raises(MissingExtraError, match=r"hydra/launcher=slurm needs the extra `slurm`.*\[slurm\]"):
        check_extras(["-m", "hydra/launcher=slurm"])
    with pytest.raises(MissingExtraError, match="uv sync --extra ray"):
        check_extras(["-m", "hydra/launcher=local_gpus"])
    check_extras(["-m", "beta=1,4"])


def test_slurm_is_refused_where_it_is_not_or_would_not_requeue(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = OmegaConf.create({"timeout_min": 30, "array_parallelism": 8})
    monkeypatch.setattr(engines.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="no sbatch here"):
        slurm_engine(launcher)
    monkeypatch.setattr(engines.shutil, "which", lambda name: "/usr/bin/sbatch")
    with pytest.raises(ConfigError, match="timeout_min=30: must be 60 or more"):
        slurm_engine(launcher)
    launcher.timeout_min = 60
    assert slurm_engine(launcher) == Engine("slurm", runs_here=False, jobs_at_once=8)


@pytest.mark.parametrize(
    ("nodes", "share", "accelerator", "num_jobs", "given"),
    [
        ([{"GPU": 4, "CPU": 16}], None, "auto", 12, (1, 4, 4)),  # num_gpus, num_cpus, jobs at once
        ([{"GPU": 4, "CPU": 16}], 0.25, "auto", 12, (0.25, 1, 12)),
        ([{"GPU": 1, "CPU": 16}], 0.25, "auto", 12, (0.25, 4, 4)),
        ([{"CPU": 16}], None, "auto", 3, (0, 5, 3)),
        ([{"CPU": 2}], None, "auto", 12, (0, 1, 2)),
        ([{"GPU": 4, "CPU": 16}], None, "cpu", 2, (0, 8, 2)),
        ([{"GPU": 2, "CPU": 8}, {"GPU": 2, "CPU": 8}], None, "auto", 12, (1, 4, 4)),
        ([{"GPU": 4, "CPU": 16}], None, "auto", None, (1, 4, 4)),
    ],
)
def test_ray_shares_out_what_there_is(
    nodes: list[dict[str, float]],
    share: float | None,
    accelerator: str,
    num_jobs: int | None,
    given: tuple[float, int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vae_lightning.launch.sweep.engines.start_ray", lambda settings: nodes)
    settings = OmegaConf.create({"init": {"address": None}, "remote": {"num_gpus": share, "num_cpus": None}})
    engine = ray_engine(settings, OmegaConf.create({"accelerator": accelerator}), num_jobs)
    num_gpus, num_cpus, at_once = given
    assert engine.arguments == (
        f"++hydra.launcher.ray.remote.num_gpus={num_gpus:g}",
        f"++hydra.launcher.ray.remote.num_cpus={num_cpus}",
    )
    assert engine.jobs_at_once == at_once


@pytest.mark.parametrize(
    ("node", "remote", "message"),
    [
        ({"CPU": 8}, {"num_gpus": 1}, "Ray sees 0 GPUs"),
        ({"CPU": 8, "GPU": 1}, {"num_gpus": 2}, "Ray sees 1 GPUs"),
        ({"CPU": 8, "GPU": 1}, {"num_gpus": 0}, "first GPU"),
        ({"CPU": 8}, {"num_cpus": 16}, "8 cores"),
    ],
)
def test_ray_refuses_what_would_wait_for_ever(
    node: dict[str, float], remote: dict[str, int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vae_lightning.launch.sweep.engines.start_ray", lambda settings: [node])
    settings = OmegaConf.create({"init": {"address": None}, "remote": remote})
    with pytest.raises(ConfigError, match=message):
        ray_engine(settings, OmegaConf.create({"accelerator": "auto"}), 3)


@pytest.mark.extra
@pytest.mark.parametrize("choice", sorted(path.stem for path in (train.CONF_DIR / "hydra" / "launcher").glob("*.yaml")))
def test_every_launcher_composes(choice: str) -> None:
    argument = f"hydra/launcher={choice}"
    try:
        check_extras([argument])
    except MissingExtraError as error:
        pytest.skip(str(error))
    launcher = composed(argument).hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher" if choice == "slurm" else "RayLauncher")
    if choice == "slurm":
        assert launcher.gpus_per_node == 1
        assert launcher.timeout_min >= engines.SHORTEST_SLURM_MINUTES
    else:
        assert launcher.ray.remote.max_retries == -1
        assert (launcher.ray.init.address == "auto") == (choice == "ray_cluster")
