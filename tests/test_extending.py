"""The recipes of docs/extending.md: each block is put into place in a copy of the project and used there."""

import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_RUN, write_images
from hydra import compose, initialize_config_dir
from processes import ROOT, run
from torch.distributions import Laplace, Normal, kl_divergence

from vae_lightning.launch.configuration import to_plain
from vae_lightning.launch.train import CONF_DIR, build
from vae_lightning.losses import AnalyticKL, BinaryCrossEntropy
from vae_lightning.models import LinearVAE
from vae_lightning.models.distributions import PixelPrediction
from vae_lightning.models.levels import level_slices
from vae_lightning.runs.layout import RunError
from vae_lightning.runs.metrics_csv import read_metrics

PAGE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(
    r"^```(?:python|yaml)\n((?:# @package \S+\n)?# (\S+\.(?:py|yaml))\n.*?)^```$", re.MULTILINE | re.DOTALL
)
EPSILON, NATS = 100.0, 1000.0  # so large that both terms of the loss are known without them
USED_TOGETHER = [
    *(
        "model=tiny",
        "reconstruction=charbonnier",
        f"reconstruction.epsilon={EPSILON}",
        "kl=free_nats",
        f"kl.nats={NATS}",
    ),
    *("data=class_folders", "callbacks=[checkpoint,gradient_norm,psnr]", "logger=[csv]", "beta=2", "data.color=gray"),
    *("data.batch_size=8", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.max_epochs=1"),
]
HIERARCHICAL = [
    *("model=two_levels", "reconstruction=discretised_laplace", "kl=per_level", "kl.free_nats=[500,0]"),
    *("data=class_folders", "callbacks=[checkpoint]", "logger=[csv]", "data.image_size=16", "data.color=gray"),
    *("data.batch_size=8", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.max_epochs=1"),
]
PROMISED = {
    *("vae_lightning/models/", "vae_lightning/losses/", "callbacks/", "vae_lightning/evaluation/metrics/"),
    *("vae_lightning/editing/attributes/", "vae_lightning/data/sources/"),
}
# run in the copy for one of its runs: everything after training, with what came out of it as JSON in the last line
AFTERWARDS = """
import json, sys
from pathlib import Path
import torch
from vae_lightning import load_run
from vae_lightning.cli.app import app

run, exported = Path(sys.argv[1]), Path("exported") / sys.argv[1]
for words in (
    ["evaluate", str(run), "--metrics", "sharpness"],
    ["edit", "attribute", str(run), "glasses", "--method", "medians", "--count", "2"],
    ["export", str(run), str(exported)],
):
    app(words, standalone_mode=False)
vae, again = load_run(run), load_run(exported)
faces = vae.held_out_faces("test", 3)
latents = vae.encode(faces).mean
print(json.dumps({
    "model": f"{type(again.model).__module__}.{type(again.model).__name__}",
    "shape": list(again.reconstruct(faces).shape),
    "same": torch.equal(vae.decode(latents), again.decode(again.encode(faces).mean)),
    "card": (exported / "README.md").read_text(),
}))
"""

# run in the copy for each command line of train.py: the first job of a sweep
BUILT = """
import sys
from vae_lightning.launch import train
from hydra import compose, initialize_config_dir
from vae_lightning.launch.configuration import to_plain

for line in sys.argv[1:]:
    words = [word if "[" in word else word.split(",")[0] for word in line.split() if word != "-m"]
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        config = compose("config", [*words, "run_dir=unused"])
    assert train.build(config, to_plain(config)), line
print("built", len(sys.argv) - 1)
"""


def blocks() -> dict[str, str]:
    """Path of the file -> the block, of the whole page."""
    return {path: block for block, path in BLOCK.findall(PAGE.read_text(encoding="utf-8"))}


def in_copy(copy: Path, *arguments: str) -> str:
    """Output of a Python process that imports the copy's packages."""
    return run(sys.executable, *arguments, cwd=copy, PYTHONPATH=str(copy), OMP_NUM_THREADS="1").stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with every recipe in its place, and four runs of all of them together."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("vae_lightning", "callbacks", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    for path, block in blocks().items():
        assert not (folder / path).exists(), f"{path}: a recipe must not replace a file"
        (folder / path).write_text(block, encoding="utf-8")
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for name in ("glasses", "no_glasses"):
            write_images(
                folder / "images" / split / name, [f"{name}_{number}.png" for number in range(count)], (40, 40)
            )
    sweep = ["-m", "posterior=gaussian,deterministic", "data.image_size=16,24", "hydra.sweep.dir=runs"]
    in_copy(folder, "train.py", *sweep, f"data.root={folder / 'images'}", *USED_TOGETHER)
    return folder


def run_of(copy: Path, posterior: str, image_size: int) -> Path:
    (found,) = (path for path in (copy / "runs").iterdir() if path.name.endswith(f"{image_size},posterior={posterior}"))
    return found


def part(path: str, name: str) -> Any:
    """A class of one of the page's blocks, in this process."""
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(blocks()[path], names)
    return names[name]


def test_every_kind_of_part_has_a_recipe() -> None:
    paths = blocks()
    assert {re.match(r".*/", path)[0] for path in paths if path.endswith(".py")} == PROMISED  # type: ignore[index]
    assert len([path for path in paths if path.endswith(".py")]) == 10
    assert all(
        re.search(rf"^_target_: {path[:-3].replace('/', '.')}\.", "\n".join(paths.values()), re.MULTILINE)
        for path in paths
        if path.startswith(("vae_lightning/models", "vae_lightning/losses", "callbacks"))
    )


@pytest.mark.parametrize(("log_scale", "mean"), [(-8.0, 0.3), (-2.0, 0.3), (-2.0, 0.0), (1.0, 0.998)])
@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_the_recipe_of_a_pixel_likelihood_adds_up_to_one(
    log_scale: float, mean: float, pixel_range: tuple[float, float]
) -> None:
    term = part("vae_lightning/losses/discretised_laplace.py", "DiscretisedLaplace")().double()
    torch.nn.init.constant_(term.log_scale, log_scale)
    low, high = pixel_range
    images = torch.arange(256).double().reshape(256, 1, 1, 1) / 255 * (high - low) + low
    prediction = PixelPrediction(torch.full_like(images, low + mean * (high - low)), None, pixel_range)
    nll = term(prediction, images)
    assert torch.exp(-nll).sum().item() == pytest.approx(1.0, abs=1e-9)
    scale = math.exp(log_scale) * (high - low)
    edges = Laplace(prediction.mean[0, 0, 0, 0], scale).cdf(
        low + (torch.arange(1, 256).double() - 0.5) / 255 * (high - low)
    )
    oracle = torch.cat([torch.zeros(1), edges, torch.ones(1)]).diff()
    torch.testing.assert_close(torch.exp(-nll), oracle, rtol=1e-6, atol=1e-12)
    nll.sum().backward()
    assert term.log_scale.grad.isfinite()


@torch.no_grad()
def test_the_recipe_of_a_model_with_levels_draws_what_it_decodes() -> None:
    model = part("vae_lightning/models/two_levels.py", "TwoLevelVAE")(image_size=8, color="gray")
    images, noise, prior = torch.rand(3, 1, 8, 8), torch.randn(3, 16), Normal(0.0, 1.0)
    draw, prediction = model.draw_and_predict(images, noise)
    assert model.decode(draw.latents).equal(prediction.mean)
    assert model.draw(images, torch.zeros(3, 16)).latents.equal(model.encode(images).mean)
    log_ratio = torch.zeros(3)
    for level in level_slices(model.latent_levels):
        ends = []
        for value in (0.0, 1.0):
            changed = noise.clone()
            changed[:, level] = value
            ends.append(model.draw(images, changed).latents[:, level])
        posterior = Normal(ends[0], ends[1] - ends[0])
        latents = draw.latents[:, level]
        log_ratio += (posterior.log_prob(latents) - prior.log_prob(latents)).sum(1)
        torch.testing.assert_close(draw.kl_per_latent[:, level], kl_divergence(posterior, prior), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(draw.log_ratio, log_ratio, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.process
def test_a_model_with_levels_and_a_likelihood_of_ones_own_are_trained_evaluated_edited_and_exported(
    copy: Path,
) -> None:
    in_copy(copy, "train.py", *HIERARCHICAL, f"data.root={copy / 'images'}", "hydra.run.dir=hierarchical")
    metrics = json.loads((copy / "hierarchical" / "metrics.json").read_text())
    assert metrics["val/kl_nats"] == pytest.approx(metrics["val/kl_nats_coarse"] + metrics["val/kl_nats_fine"])
    # what each level may say for nothing is in the loss, and not in bits per dimension, which are exact
    charged = 500 + metrics["val/kl_nats_fine"]
    assert metrics["val/loss"] == pytest.approx(metrics["val/reconstruction_nats"] + charged, rel=1e-3)
    nats = metrics["val/reconstruction_nats"] + metrics["val/kl_nats"]
    assert metrics["val/bits_per_dim"] == pytest.approx(nats / (16 * 16 * math.log(2)), rel=1e-4)
    found: dict[str, Any] = json.loads(in_copy(copy, "-c", AFTERWARDS, "hierarchical").splitlines()[-1])
    assert found["model"] == "vae_lightning.models.two_levels.TwoLevelVAE"
    assert found["same"]
    assert "the negative log-probability of each pixel's level under a Laplace distribution" in found["card"]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(("posterior", "image_size"), [("gaussian", 16), ("gaussian", 24), ("deterministic", 24)])
def test_a_run_is_trained_with_the_new_parts(posterior: str, image_size: int, copy: Path) -> None:
    run_dir = run_of(copy, posterior, image_size)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    for split in ("val", "test"):
        error = metrics[f"{split}/mse"]
        quadratic = error * image_size**2 / (2 * EPSILON)  # the Charbonnier distance of errors far below epsilon
        assert metrics[f"{split}/reconstruction_nats"] == pytest.approx(quadratic, rel=1e-2)
        charged = 2 * NATS if posterior == "gaussian" else 0.0
        assert metrics[f"{split}/loss"] == pytest.approx(quadratic + charged, rel=1e-2)
        assert metrics[f"{split}/psnr"] == pytest.approx(-10 * math.log10(error), abs=2)  # a mean of logarithms
    rows = read_metrics(run_dir / "metrics.csv")
    assert [row for row in rows if row.get("train/gradient_norm", 0) > 0 and "train/psnr" in row]
    data = json.loads((run_dir / "data.json").read_text())
    assert (data["source"], data["train_count"], data["val_count"], data["test_count"]) == ("class_folders", 24, 8, 8)


@pytest.mark.process
@pytest.mark.slow
def test_the_commands_of_the_page_compose_and_build(copy: Path) -> None:
    lines = re.findall(r"^python train\.py (.*?)(?: +#.*)?$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    commands = [line.replace("'", "") for line in lines]
    assert len(commands) >= 6
    assert in_copy(copy, "-c", BUILT, *commands).splitlines()[-1] == f"built {len(commands)}"


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(("posterior", "image_size"), [("gaussian", 16), ("deterministic", 24)])
def test_a_run_is_evaluated_edited_exported_and_loaded_again(posterior: str, image_size: int, copy: Path) -> None:
    run_dir = run_of(copy, posterior, image_size)
    found: dict[str, Any] = json.loads(in_copy(copy, "-c", AFTERWARDS, str(run_dir.relative_to(copy))).splitlines()[-1])
    assert found["model"] == "vae_lightning.models.tiny.TinyVAE"
    assert found["shape"] == [3, 1, image_size, image_size]
    assert found["same"]
    assert "the Charbonnier distance, summed over pixels" in found["card"]
    assert ("of which each image has an allowance free" in found["card"]) == (posterior == "gaussian")
    (section,) = json.loads((run_dir / "evaluation" / "card.json").read_text())["sections"]
    ((value,), protocol) = (section["values"], section["protocol"])
    assert (value["name"], protocol["images"]) == ("sharpness", 8)
    low, high = value["interval"]
    assert 0 < low <= value["value"] <= high < 1
    (edited,) = (run_dir / "edits").iterdir()
    assert json.loads((edited / "edit.json").read_text())["settings"]["method"] == "medians"
    assert list(edited.glob("*.png"))


class Foreign(LinearVAE):
    pass


class ForeignPixels(BinaryCrossEntropy):
    pass


class ForeignKL(AnalyticKL):
    pass


@pytest.mark.parametrize(
    ("override", "room"),
    [
        ("model._target_=test_extending.Foreign", "vae_lightning.models"),
        ("reconstruction._target_=test_extending.ForeignPixels", "vae_lightning.losses"),
        ("kl._target_=test_extending.ForeignKL", "vae_lightning.losses"),
    ],
)
def test_a_part_that_could_not_be_loaded_again_is_refused_before_training(
    override: str, room: str, tmp_path: Path
) -> None:
    words = [*TINY_RUN, f"run_dir='{tmp_path}'", "model=linear", override]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("config", words)
    with pytest.raises(RunError, match=rf"{override.rpartition('.')[2]}.*only subclasses of \w+ in {room}"):
        build(config, to_plain(config))


def test_a_tensor_that_a_checkpoint_would_not_hold_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(self: LinearVAE, hidden_dim: int = 512, activation: str = "relu", **others: Any) -> None:
        original(self, hidden_dim, activation, **others)
        self.shift = torch.zeros(1)

    original = LinearVAE.__init__
    monkeypatch.setattr(LinearVAE, "__init__", forgetful)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("config", [*TINY_RUN, f"run_dir='{tmp_path}'", "model=linear"])
    with pytest.raises(RunError, match=r"LinearVAE\.shift is a tensor .* make it a buffer"):
        build(config, to_plain(config))
