import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, InstantiationException, MissingConfigException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from vae_lightning.data.rendering.factors import sample_pictures
from vae_lightning.launch import command_line, train
from vae_lightning.launch.command_line import explain_unknown_key, name_jobs_by_what_is_swept, resume_last_run
from vae_lightning.launch.configuration import first_cause, to_plain
from vae_lightning.launch.signatures import ConfigError, check_arguments
from vae_lightning.launch.sweep.engines import check_extras
from vae_lightning.runs.identity import folder_name
from vae_lightning.runs.layout import RunError
from vae_lightning.system.extras import MissingExtraError

EXPERIMENTS = sorted(path.stem for path in (train.CONF_DIR / "experiment").glob("*.yaml"))
CHOICES = sorted((path.parent.name, path.stem) for path in train.CONF_DIR.glob("*/*.yaml"))


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        return compose("config", [*overrides, "run_dir=/tmp/run"])


def override_for(group: str, choice: str) -> str:
    if group == "logger":
        return f"logger=[{','.join(sorted({'csv', choice}))}]"  # the default callbacks draw curves from csv's table
    return f"{group}=[{choice}]" if group == "callbacks" else f"{group}={choice}"


@pytest.mark.readme
@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_yaml_composes_and_instantiates(group: str, choice: str, tmp_path: Path) -> None:
    extra = {"ddp": ["trainer.accelerator=cpu", "trainer.devices=1"], "gpu": ["trainer.accelerator=cpu"]}
    folder = ["data.root=/somewhere"] if choice == "folder" else []
    if choice in ("recognition_scores", "resnet18"):  # not of VAEs
        folder = ["experiment=attribute_classifier"]
    if choice in ("levels", "per_level"):  # of hierarchical models
        folder = ["model=ladder"]
    try:
        check_extras([f"{group}={choice}"])
    except MissingExtraError as error:
        pytest.skip(str(error))
    config = composed(override_for(group, choice), *extra.get(choice, []), *folder)
    plain = to_plain(config)
    module, datamodule, trainer = train.build(config, plain)
    network = getattr(module, "model", None) or module.network
    assert network.image_size == datamodule.preprocessing.image_size
    assert trainer.precision in ("bf16-mixed", "32-true")


@pytest.mark.parametrize("override", ["beta=abc", "seed=x", "test=maybe"])
def test_root_keys_are_typed(override: str) -> None:
    with pytest.raises(ConfigCompositionException) as caught:
        composed(override)
    assert "could not be converted" in str(caught.value.__cause__) or "not a valid bool" in str(caught.value.__cause__)


def test_misspelt_choice_names_the_choices() -> None:
    with pytest.raises(MissingConfigException, match="conv"):
        composed("model=convv")


def test_misspelt_key_inside_a_group_is_refused() -> None:
    with pytest.raises(ConfigCompositionException, match="latent_dm"):
        composed("model.latent_dm=3")


@pytest.mark.parametrize(
    ("argument", "nearest"),
    [("bata=1", "beta"), ("modell=conv", "model"), ("traner.max_epochs=3", "trainer"), ("sed=1", "seed")],
)
def test_misspelt_root_key_is_explained(argument: str, nearest: str) -> None:
    problem = explain_unknown_key(["beta=1", argument], train.CONF_DIR)
    assert problem is not None
    assert f"did you mean {nearest}?" in problem


def test_known_keys_need_no_explanation() -> None:
    arguments = [
        "-m",
        "beta=1,4",
        "model=conv",
        "hydra.run.dir=/tmp",
        "hydra/launcher=basic",
        "+trainer.strategy=ddp",
        "~logger",
        "--cfg=job",
    ]
    assert explain_unknown_key(arguments, train.CONF_DIR) is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.latent_dim=many"], "model.latent_dim=many: ConvVAE takes a whole number"),
        (["model.latent_dim=1.5"], "model.latent_dim=1.5"),
        (["+model.latent_dims=3"], r"did you mean latent_dim\?"),
        (["data.batch_size=big"], "data.batch_size=big: FaceDataModule takes a whole number"),
        (["optimizer.lr=fast"], "optimizer.lr=fast"),
        (["trainer.max_epochs=some"], "trainer.max_epochs=some"),
        (["callbacks.temperature.temperatures=hot"], "temperatures=hot"),
    ],
)
def test_constructors_are_the_schema(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        to_plain(composed(*overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.image_size=100"], r"image_size=100: model=conv knows its widths for \(32, 64, 128, 256\)"),
        (["model.output_activation=tanh", "reconstruction=bce"], "output_activation=sigmoid"),
        (["model.pixel_range=[-1,1]"], "model.output_activation=tanh"),
        (["model.norm=layer"], "none, batch, group"),
        (["beta=-1"], "beta=-1"),
        (["callbacks.traversal.dimensions=[500]"], "latents 0 to 127"),
        (["data.source=celebb"], "celeba"),
    ],
)
def test_what_cannot_work_is_refused_before_data_is_read(overrides: list[str], message: str) -> None:
    config = composed(*overrides)
    with pytest.raises((ValueError, InstantiationException)) as caught:
        train.build(config, to_plain(config))
    assert re.search(message, first_cause(caught.value))


def plain_of(*overrides: str) -> dict[str, Any]:
    return to_plain(composed(*overrides))


@pytest.mark.parametrize("model", ["conv", "linear", "patch"])
def test_what_a_model_leaves_out_of_its_yaml_file_reaches_it(model: str) -> None:
    """As in a recipe whose YAML file names `_target_` and `latent_dim` alone."""
    left_out = ["~model.posterior", "~model.image_size", "~model.color", "~data.seed"]
    there = [f"model={model}", "posterior=deterministic", "data.image_size=32", "data.color=gray", "seed=7"]
    plain = plain_of(*left_out, *there)
    assert plain == plain_of(*there)
    built = train.build(OmegaConf.create({"run_dir": "/nowhere"}), plain)[0].model
    assert (built.posterior, built.image_size, built.channels) == ("deterministic", 32, 1)


def test_what_a_recognizer_leaves_out_of_its_yaml_file_reaches_it() -> None:
    there = ["experiment=attribute_classifier", "data.image_size=32", "data.color=gray"]
    assert plain_of("~recognizer.image_size", "~recognizer.color", *there) == plain_of(*there)


def test_pictures_and_tables_lie_in_the_run_folder_also_where_their_yaml_files_do_not_say_so() -> None:
    config = composed()
    OmegaConf.set_struct(config, False)
    del config.callbacks.traversal.run_dir, config.logger.csv.run_dir
    assert to_plain(config) == plain_of()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.posterior=gaussian", "posterior=deterministic"], r"posterior=deterministic does not reach .*ConvVAE"),
        (
            ["callbacks.kl_per_latent=null"],
            r"callbacks\.kl_per_latent=null: leave kl_per_latent out of .*=\[\] for none",
        ),
        (["logger.csv=off"], r"logger\.csv=off: .*allowed are csv, tensorboard; logger=\[\] for none"),
        (["~data"], "data: allowed are auto, celeba"),
        (["~optimizer"], "optimizer: allowed are adam, adamax, adamw"),
        (["~data.image_size"], r"model\.image_size: Interpolation key 'data\.image_size' not found"),
        (["model._target_=vae_lightning.models.ConvVEA"], r"did you mean vae_lightning\.models\.ConvVAE\?"),
        (["model._target_=vae_lightning.modells.ConvVAE"], "there is no module vae_lightning.modells"),
        (["optimizer._target_=torch.optim.Adamm"], r"did you mean torch\.optim\.Adam\?"),
        (["callbacks.traversal._target_=callbacks.TraversalGird"], r"did you mean callbacks\.TraversalGrid\?"),
        (["model._target_=os.system"], r"model\._target_=os\.system: must be the full name of a class"),
        (["model._target_=null"], r"model\._target_=None: must be the full name of a class"),
    ],
)
def test_a_group_holds_parts(overrides: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        plain_of(*overrides)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("group", ["callbacks", "logger", "trainer", "optimizer", "model"])
def test_a_preset_that_sets_a_group_to_one_value_is_refused(group: str) -> None:
    config = OmegaConf.to_container(composed())
    assert isinstance(config, dict)
    with pytest.raises(ConfigError, match=f"{group}=5: allowed are "):
        to_plain({**config, group: 5})


def test_settings_of_a_logger_that_is_not_chosen_do_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A preset may set them."""
    config = composed("logger=[csv]", "+logger.tensorboard.run_dir=/elsewhere")
    assert len(train.build(config, to_plain(config))[2].loggers) == 1
    assert "add tensorboard to logger=[…]" in caplog.text


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("override", ["trainer=gpu", "trainer.accelerator=cuda", "trainer.accelerator=mps"])
def test_a_gpu_that_is_not_there_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="trainer=default takes the best there is"):
        to_plain(composed(override))


@pytest.mark.parametrize("overrides", [["val/los"], ["loss"], ["train/loss"], ["test/loss", "test=false"]])
def test_optimized_metric_is_one_that_is_measured(overrides: list[str]) -> None:
    name, *others = overrides
    with pytest.raises(ConfigError, match=f"optimized_metric={name}.*allowed are val/loss"):
        to_plain(composed(f"optimized_metric={name}", *others))


def test_seed_zero_is_a_seed() -> None:
    config = composed("seed=0")
    plain = to_plain(config)
    first, second = (train.build(config, plain)[0].model for _ in range(2))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one.equal(other)


def test_precision_is_made_definite_and_recorded() -> None:
    assert to_plain(composed())["trainer"]["precision"] in ("bf16-mixed", "32-true")
    assert to_plain(composed("trainer.precision=bf16-mixed"))["trainer"]["precision"] == "bf16-mixed"


def test_jobs_are_named_by_what_is_swept() -> None:
    arguments = name_jobs_by_what_is_swept(
        ["-m", "beta=1,4,10", "trainer.max_epochs=2", "data.root=/faces", "model=conv"]
    )
    assert arguments[-1] == (
        "hydra.job.config.override_dirname.exclude_keys=['trainer.max_epochs','data.root','model']"
    )
    assert name_jobs_by_what_is_swept(["beta=1", "model=conv"]) == ["beta=1", "model=conv"]
    assert name_jobs_by_what_is_swept(["-m", "beta=1"]) == ["-m", "beta=1"]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("beta=4", "beta=4"),
        ("data.root=/a/b,beta=1", "data.root=-a-b,beta=1"),
        ("", "job"),
        (
            "beta=0.7342837482374823,optimizer.lr=1.234567e-05,model.latent_dim=64,data.root=v1.234567",
            "beta=0.73428,optimizer.lr=1.2346e-05,model.latent_dim=64,data.root=v1.234567",
        ),
        ("ä" * 200, "ä" * 75 + "… 012345"),
    ],
)
def test_folder_names_are_one_path_component(overrides: str, name: str) -> None:
    assert folder_name(overrides, "0123456789") == name


@pytest.fixture
def _stored_settings_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders without config.yaml: what it adds to the overrides is shown in test_kept_settings.py."""
    monkeypatch.setattr(command_line, "keep_settings", lambda run_dir, kept, *others: kept)


@pytest.mark.usefixtures("_stored_settings_only")
def test_ckpt_path_last_resumes_in_the_folder_of_the_newest_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="no run with a checkpoint"):
        resume_last_run(["ckpt_path=last"])
    run = tmp_path / "outputs" / "2026-01-01_00-00-00"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    (run / ".hydra").mkdir()
    (run / ".hydra" / "overrides.yaml").write_text("- beta=4\n- trainer.max_epochs=5\n")
    assert resume_last_run(["ckpt_path=last", "trainer.max_epochs=9"]) == [
        "beta=4",
        "ckpt_path=last",
        "trainer.max_epochs=9",
        "hydra.run.dir='outputs/2026-01-01_00-00-00'",
    ]
    by_path = [f"hydra.run.dir={run}", f"ckpt_path={run}/checkpoints/last.ckpt"]
    assert resume_last_run(by_path) == ["beta=4", "trainer.max_epochs=5", *by_path]
    elsewhere = ["hydra.run.dir=outputs/new", f"ckpt_path={run}/checkpoints/last.ckpt"]
    assert resume_last_run(elsewhere) == elsewhere
    with pytest.raises(ConfigError, match="-m starts many"):
        resume_last_run(["-m", "ckpt_path=last"])


def write_started(run: Path, started_at: float, saved_at: float | None) -> None:
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "overrides.yaml").write_text("- beta=4\n")
    os.utime(run / ".hydra" / "overrides.yaml", (started_at, started_at))
    if saved_at is not None:
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "last.ckpt").touch()
        os.utime(run / "checkpoints" / "last.ckpt", (saved_at, saved_at))


@pytest.mark.usefixtures("_stored_settings_only")
def test_an_older_run_is_not_taken_for_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_started(Path("outputs/monday"), 1000.0, 2000.0)
    assert "hydra.run.dir" in resume_last_run(["ckpt_path=last"])[-1]
    write_started(Path("outputs/tuesday"), 3000.0, None)
    with pytest.raises(RunError, match=r"outputs/tuesday was started last.*no checkpoint.*outputs/monday"):
        resume_last_run(["ckpt_path=last"])
    with pytest.raises(ConfigError, match=r"started again .*without ckpt_path"):
        resume_last_run(["ckpt_path=last", "hydra.run.dir=outputs/tuesday"])
    with pytest.raises(ConfigError, match="name another"):
        resume_last_run(["ckpt_path=last", "hydra.run.dir=outputs/nowhere"])
    write_started(Path("outputs/wednesday"), 4000.0, 5000.0)
    assert "outputs/wednesday" in resume_last_run(["ckpt_path=last"])[-1]


def test_check_arguments_reads_base_classes() -> None:
    node = {"_target_": "vae_lightning.models.ConvVAE", "latent_dim": 3, "logvar_clamp": [-4, 4], "widths": None}
    check_arguments({"model": node})
    assert instantiate(OmegaConf.create(node)).logvar_clamp == (-4.0, 4.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        (["experiment=beta_vae_128"], "trainer.max_epochs", 10),
        (["experiment=beta_vae_128", "beta=4"], "trainer.max_epochs", 5),
        (["experiment=beta_vae_128", "beta=10"], "trainer.max_epochs", 5),
        (["experiment=beta_vae_128", "beta=10", "trainer.max_epochs=7"], "trainer.max_epochs", 7),
        (["experiment=beta_vae_128", "debug=smoke"], "trainer.max_epochs", 2),
        (["experiment=beta_vae_128"], "callbacks.traversal.dimensions", [8, 25, 68]),
        (["experiment=conv_low_beta"], "callbacks.reconstruction.every_n_epochs", 1),
        (["experiment=conv_low_beta"], "callbacks.traversal.every_n_epochs", 5),
    ],
)
def test_presets_are_what_their_sources_say(overrides: list[str], key: str, value: object) -> None:
    assert OmegaConf.select(composed(*overrides), key) == value


@pytest.mark.slow  # draws the parameters of ten thousand faces
@pytest.mark.parametrize("overrides", [*([f"experiment={choice}"] for choice in EXPERIMENTS), ["debug=smoke"]])
def test_presets_ask_for_no_more_faces_than_are_rendered(overrides: list[str]) -> None:
    """Without CelebA a preset trains on rendered faces: its subsets have to fit into them."""
    data = to_plain(composed(*overrides))["data"]
    if data["train_size"] is None:
        return
    rendered = Counter(picture.partition for picture in sample_pictures(data["faces_count"], data["faces_seed"]))
    for partition, split in enumerate(("train", "val", "test")):
        assert data[f"{split}_size"] <= rendered[partition]
