"""Shared by all tests: shapes are checked at run time, and small data sets are written to temporary folders."""

import io
import math
import os
import pickle
import resource
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

# without bytecode files every process that tests start compiles PyTorch anew, which takes ten seconds or more
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# ruff: noqa: E402
import jaxtyping
import numpy as np
import pytest
import torch
from chromium import browser, chromium  # noqa: F401 (fixtures)
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

jaxtyping.install_import_hook(
    ("vae_lightning", "callbacks"), "shape_checking.check"
)  # before anything imports the package

# tests run side by side, one thread each: two processes with two threads on two cores wait for each other
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start

# commands are printed as in an activated environment, however the tests were started
os.environ.pop("UV_RUN_RECURSION_DEPTH", None)
os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), *os.get_exec_path()])

_load = OmegaConf.load
_parsed: dict[str, bytes] = {}  # by the text of a YAML file


def _load_once(file: Any) -> Any:
    """Half of the time of a composition is PyYAML's; the suite makes a thousand of the same files."""
    if not isinstance(file, io.TextIOBase):
        return _load(file)
    text = file.read()
    if text not in _parsed:
        file.seek(0)
        _parsed[text] = pickle.dumps(_load(file))
    return pickle.loads(_parsed[text])


OmegaConf.load = _load_once  # type: ignore[assignment,method-assign]

ATTRIBUTE_NAMES = [f"Attribute_{number:02d}" for number in range(40)]


@cache
def encoded_image(number: int, width: int, height: int, file_format: str) -> bytes:
    """A smooth colour gradient with a little noise, another one for each number; made once per test process."""
    horizontal, vertical = np.linspace(0, 1, width)[None, :, None], np.linspace(0, 1, height)[:, None, None]
    random = np.random.default_rng(number)
    corners = random.uniform(0, 255, (3, 3))
    pixels = corners[0] * horizontal * vertical + corners[1] * (1 - horizontal) + corners[2] * 0.5 * vertical
    pixels = np.clip(pixels + random.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, quality=90)
    return file.getvalue()


def write_images(folder: Path, names: list[str], size: tuple[int, int] = (178, 218)) -> None:
    """Writes one image of width x height pixels per name."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded_image(number, *size, "PNG" if path.suffix == ".png" else "JPEG"))


def write_celeba(root: Path, count: int = 30, *, newline: str = "\n") -> Path:
    """CelebA's text layout: of every ten images eight are for training, one for validation, one for testing."""
    names = [f"{number:06d}.jpg" for number in range(1, count + 1)]
    signs = np.where(np.random.default_rng(0).random((count, 40)) < 0.5, 1, -1)
    write_images(root / "img_align_celeba", names)
    attributes = [str(count), " ".join(ATTRIBUTE_NAMES) + " "]
    attributes += [f"{name} " + " ".join(f"{sign:2d}" for sign in row) for name, row in zip(names, signs, strict=True)]
    partition = [f"{name} {max(0, row % 10 - 7)}" for row, name in enumerate(names)]
    identities = [f"{name} {row // 2 + 100}" for row, name in enumerate(names)]
    for file, lines in (
        ("list_attr_celeba.txt", attributes),
        ("list_eval_partition.txt", partition),
        ("identity_CelebA.txt", identities),
    ):
        (root / file).write_bytes((newline.join(lines) + newline).encode())
    return root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole processes first: a long file that comes last would keep one of two workers waiting."""
    items.sort(key=lambda item: item.get_closest_marker("process") is None)


@pytest.fixture(autouse=True)
def _no_celeba_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELEBA_ROOT", raising=False)


@pytest.fixture
def tiny_celeba(tmp_path: Path) -> Callable[..., Path]:
    """`tiny_celeba(count)` writes a CelebA of that many images and returns its folder."""

    def write(count: int = 30, *, newline: str = "\n", name: str = "celeba") -> Path:
        return write_celeba(tmp_path / name, count, newline=newline)

    return write


@pytest.fixture(scope="session")
def torch_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torch cache with random weights under the name of VGG16's: the convolutions up to relu3_3."""
    shapes = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256)}
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for position, (after, before) in shapes.items():
        kernel = torch.randn(after, before, 3, 3, generator=generator) / math.sqrt(4.5 * before)
        weights |= {f"features.{position}.weight": kernel, f"features.{position}.bias": torch.zeros(after)}
    weights["classifier.0.weight"] = torch.zeros(1)  # the real file holds these too
    home = tmp_path_factory.mktemp("torch")
    checkpoints = home / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save(weights, checkpoints / "vgg16-397923af.pth")
    return home


@pytest.fixture(autouse=True)
def _stand_in_for_vgg16(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(torch_home))


WHOLE_RUN = [
    "data.image_size=32",
    "data.batch_size=8",
    "model.latent_dim=6",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.log_every_n_steps=2",
    "trainer.enable_progress_bar=false",
]
# pictures, TensorBoard's files and a test take more than half of the time of so short a run
TINY_RUN = [*WHOLE_RUN, "callbacks=[checkpoint]", "logger=[csv]", "test=false"]
# a ladder of 24 latents, its likelihood and its KL; sizes alone are not a preset's
TINY_LADDER = [
    *("model=ladder", "model.latent_dim=null", "model.sides=[2,4]", "model.widths=[8,8]", "model.blocks=[1,1]"),
    *("model.latent_channels=[2,1]", "reconstruction=logistic", "kl=per_level"),
]


def key_of(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def train_tiny(root: Path, data_dir: Path, run_dir: Path, *overrides: str, fixed: Sequence[str] = TINY_RUN) -> Path:
    """Trains on the CelebA at `root` and returns the run folder; `overrides` replace those of `fixed`."""
    from vae_lightning.launch import train
    from vae_lightning.launch.configuration import to_plain
    from vae_lightning.launch.job import session_of
    from vae_lightning.runs.identity import identity_of
    from vae_lightning.runs.status import claimed, recorded
    from vae_lightning.runs.versions import made_with

    places = [f"run_dir='{run_dir}'", f"data.data_dir='{data_dir}'", f"data.root='{root}'"]
    given = {key_of(override) for override in overrides}
    kept = [override for override in fixed if key_of(override) not in given]
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        config = compose("config", [*kept, *places, *overrides])
    plain = to_plain(config)
    with claimed(run_dir), recorded(run_dir, identity_of(config), session_of(run_dir), made_with()):
        train.run(config, plain, *train.build(config, plain))
    return run_dir


@pytest.fixture
def run_training(tiny_celeba: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """`run_training("name", "trainer.max_epochs=2")` trains on 60 tiny images and returns the run folder.

    Only the checkpoints and metrics.csv are written; `fixed=WHOLE_RUN` has every callback and tests the model.
    """
    root = tiny_celeba(60)

    def run(name: str, *overrides: str, fixed: Sequence[str] = TINY_RUN) -> Path:
        return train_tiny(root, tmp_path / "data", tmp_path / name, *overrides, fixed=fixed)

    return run


CELEBA_ROOT = os.environ.get("CELEBA_ROOT") or str(Path(__file__).parents[2] / "shared" / "celeba")


@pytest.fixture(scope="session")
def celeba_root() -> Path:
    """The real CelebA sample."""
    root = Path(CELEBA_ROOT)
    if not (root / "list_eval_partition.txt").is_file():
        pytest.skip(f"no CelebA in {root}; set CELEBA_ROOT")
    return root


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Fails where the process grew by more than 300 MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before < 300 * 2**20
