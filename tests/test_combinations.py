"""Any model x any reconstruction term x any schedule x …: trains, or is refused at the start with a reason.

The choices are found in conf/, so that a new YAML file is tested with all the others.
"""

import re
from itertools import product
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException

from vae_lightning.launch import train
from vae_lightning.launch.configuration import first_cause, to_plain
from vae_lightning.runs.metrics_csv import read_metrics

TINY = [
    "data.image_size=32",
    "data.batch_size=4",
    "data.train_size=8",
    "data.val_size=3",
    "model.latent_dim=5",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.enable_progress_bar=false",
    "trainer.num_sanity_val_steps=0",
    "callbacks=[non_finite_loss]",
    "logger=[csv]",
]


POSTERIORS = ("gaussian", "deterministic")


# widths that take a moment; a model without them here keeps its own
NARROW = {
    "conv": "model.widths=[8,8]",
    "linear": "model.hidden_dim=16",
    "residual": "model.widths=[8,16]",
    "patch": "model.widths=[8,8] model.decoder_widths=[8,8]",
    "ladder": "model.sides=[2,4] model.widths=[8,8] model.blocks=[1,1] model.latent_channels=[2,1] "
    "model.latent_dim=null",
}


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (train.CONF_DIR / group).glob("*.yaml"))


def pairs(first: str, second: str) -> list[str]:
    return [f"{first}={one} {second}={other}" for one, other in product(choices(first), choices(second))]


EVERY_TERM_AND_EVERY_MODEL = [
    *(f"model=conv reconstruction={term}" for term in choices("reconstruction")),
    *(f"model={model} reconstruction=squared_error" for model in choices("model") if model != "conv"),
    "model=ladder reconstruction=logistic",
    "model=residual reconstruction=gaussian_per_pixel",
]
WITH_THE_REST = [
    *(pair for pair in pairs("model", "reconstruction") if pair not in EVERY_TERM_AND_EVERY_MODEL),
    *pairs("reconstruction", "beta_schedule"),
    *pairs("kl", "beta_schedule"),
    *pairs("lr_schedule", "optimizer"),
    *(f"{pair} posterior=deterministic" for pair in EVERY_TERM_AND_EVERY_MODEL),
    *(f"{pair} model.output_activation=tanh" for pair in EVERY_TERM_AND_EVERY_MODEL),
    *(f"reconstruction={term} callbacks=[ema]" for term in choices("reconstruction")),
    *(
        f"beta_schedule={schedule} beta_schedule.unit=step"
        for schedule in choices("beta_schedule")
        if schedule != "constant"
    ),
    "reconstruction=gaussian_shared reconstruction.variance=learned",
]
AT_NIGHT = [
    *pairs("kl", "model"),
    *pairs("perceptual", "model"),
    *pairs("optimizer", "model"),
    *(
        f"{pair} {other}"
        for pair in pairs("model", "reconstruction")
        if pair not in EVERY_TERM_AND_EVERY_MODEL
        for other in ("posterior=deterministic", "model.output_activation=tanh")
    ),
    *(f"{pair} data.color=gray" for pair in pairs("perceptual", "reconstruction")),
    *(f"model=ladder kl=per_level beta_schedule={schedule}" for schedule in choices("beta_schedule")),
    *(f"model=ladder kl=per_level optimizer={optimizer}" for optimizer in choices("optimizer")),
    *(f"model=ladder data.color=gray reconstruction={term}" for term in choices("reconstruction")),
    *(f"model=ladder perceptual=vgg16 reconstruction={term}" for term in choices("reconstruction")),
]


NOT_OF_VAES = ("attribute_classifier", "factor_regressor")
VAE_PRESETS = [preset for preset in choices("experiment") if preset not in NOT_OF_VAES]
LADDER_PRESETS = [preset for preset in VAE_PRESETS if preset.startswith("ladder")]
FLAT_PRESETS = [preset for preset in VAE_PRESETS if preset not in LADDER_PRESETS]
FLAT = [model for model in choices("model") if model != "ladder"]
CHANGED_PRESETS = [
    *(
        f"experiment={preset} {group}={choice}"
        for preset in VAE_PRESETS
        for group in ("model", "reconstruction", "kl", "beta_schedule", "perceptual", "optimizer")
        for choice in choices(group)
    ),
    *(f"experiment={preset} callbacks=[checkpoint]" for preset in VAE_PRESETS),
    *(f"experiment={preset} posterior={posterior}" for preset in VAE_PRESETS for posterior in POSTERIORS),
]
# what is a ladder's alone, and what no ladder has
REFUSED_OF_LADDERS = {
    **{f"experiment={preset} kl=per_level": "set model=ladder" for preset in FLAT_PRESETS},
    **{f"experiment={preset} model=ladder": "set model.latent_dim=null" for preset in FLAT_PRESETS},
    **{f"experiment={preset} posterior=deterministic": "set posterior=gaussian" for preset in LADDER_PRESETS},
    **{f"experiment=ladder model={model}": "set model=ladder" for model in FLAT},
    **{f"experiment=ladder_edit model={model}": "~model.sides" for model in FLAT},
    # their weights and free nats are of kl=per_level, and free nats keep the KL above 0 already
    **{f"experiment={preset} kl={term}": "~kl." for preset in LADDER_PRESETS for term in ("analytic", "free_bits")},
    "experiment=ladder beta_schedule=capacity": "or another beta_schedule",
    "experiment=linear_ae model=ladder": "~model.hidden_dim removes it",
}
PRESETS_THAT_REFUSE = {
    # linear_ae's 2,048 hidden units are another model's
    "experiment=linear_ae model=conv": "~model.hidden_dim removes it",
    "experiment=linear_ae model=patch": "~model.hidden_dim removes it",
    "experiment=linear_ae model=residual": "~model.hidden_dim removes it",
    # conv_low_beta's clamp is one of log-variances
    "experiment=conv_low_beta posterior=deterministic": "set model.logvar_clamp=null or posterior=gaussian",
    # beta_vae_128's pixels are in [-1, 1]
    "experiment=beta_vae_128 reconstruction=bce": "set model.output_activation=sigmoid",
}
# So that a refusal that spreads is noticed
REFUSED = [
    "kl=free_bits beta_schedule=capacity",
    *(f"kl=per_level beta_schedule={schedule}" for schedule in choices("beta_schedule")),
    *(f"kl=per_level model={model}" for model in choices("model") if model != "ladder"),
    *(f"model=ladder reconstruction={term} posterior=deterministic" for term in choices("reconstruction")),
    *(f"model={model} reconstruction=bce model.output_activation=tanh" for model in choices("model")),
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by all combinations, so that faces are rendered once."""
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize(
    "combination",
    [
        *EVERY_TERM_AND_EVERY_MODEL,
        *(pytest.param(pair, marks=pytest.mark.slow) for pair in WITH_THE_REST),
        *(pytest.param(pair, marks=pytest.mark.nightly) for pair in AT_NIGHT),
    ],
)
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_trains_or_is_refused_with_a_reason(combination: str, data_dir: Path, tmp_path: Path) -> None:
    fixed = ["data=faces", "data.faces_count=40", f"data.data_dir='{data_dir}'", f"run_dir='{tmp_path}'"]
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        model = dict(word.split("=", 1) for word in combination.split()).get("model", "conv")
        narrow = NARROW.get(model, "").split()
        config = compose("config", [*fixed, *TINY, *narrow, *combination.split()])
    plain = to_plain(config)
    if combination in REFUSED:
        with pytest.raises((ValueError, InstantiationException)) as caught:
            train.build(config, plain)
        assert re.search(r"\w+=\w+.*(set|take) \w+", first_cause(caught.value))
        return
    module, datamodule, trainer = train.build(config, plain)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    trainer.fit(module, datamodule)
    assert trainer.global_step == 4
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    assert not [name for name, parameter in module.named_parameters() if parameter.equal(before[name])]
    losses = [row["val/loss"] for row in read_metrics(tmp_path / "metrics.csv") if "val/loss" in row]
    assert len(losses) == 2
    assert torch.tensor(losses).isfinite().all()


@pytest.mark.parametrize(
    "combination",
    [
        pytest.param(changed, marks=() if changed in PRESETS_THAT_REFUSE else pytest.mark.nightly)
        for changed in CHANGED_PRESETS
    ],
)
def test_presets_can_be_changed(combination: str, tmp_path: Path) -> None:
    """Every choice can be made in every preset; what cannot be says how it can."""
    words = combination.split()
    latents = [] if "ladder" in combination else ["model.latent_dim=5"]
    fixed = [f"run_dir='{tmp_path}'", "data.image_size=32", *latents, "trainer.accelerator=cpu"]
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        config = compose("config", [*fixed, *words])
    refused = REFUSED_OF_LADDERS | PRESETS_THAT_REFUSE
    if combination in refused:
        with pytest.raises((ValueError, InstantiationException)) as caught:
            train.build(config, to_plain(config))
        assert refused[combination] in first_cause(caught.value)
    else:
        assert train.build(config, to_plain(config))
