"""Writes a run of this version, for later versions to read: python tests/old_runs/write.py tests/old_runs/format_2."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

SETTINGS = [
    *("hydra.run.dir=run", "run_dir=run", "data=celeba", "data.root=celeba", "data.data_dir=data"),
    *("data.image_size=32", "data.batch_size=8", "model.latent_dim=2", "model.widths=[8,8]"),
    *("trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.max_epochs=2", "trainer.log_every_n_steps=2"),
    *("trainer.enable_progress_bar=false", "callbacks=[checkpoint]", "logger=[csv]", "beta_schedule=warmup"),
]
VERBS = [
    ["evaluate", "run", "--metrics", "likelihood", "--device", "cpu"],
    ["edit", "directions", "run", "--device", "cpu"],
]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
KEPT = ("checkpoints", "evaluation/card.json", "config.yaml", "data.json", "metrics.csv", "metrics.json", "status.json")
TAKEN_ALONG = ("model.safetensors", "config.json", "model.priors.pt", "model.directions.pt")  # of the export


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        here = Path(place)
        os.chdir(here)
        _train(here)
        expected = _expected()
        _vae("export", "run", "exported")
        for name in KEPT:
            _copy(here / "run" / name, target / "run" / name)
        for name in TAKEN_ALONG:
            _copy(here / "exported" / name, target / "exported" / name)
    import torch

    torch.save(expected, target / "expected.pt")
    _forget_the_machine(target / "run")


def _train(here: Path) -> None:
    from conftest import write_celeba

    write_celeba(here / "celeba", 60)
    subprocess.run([sys.executable, str(ROOT / "train.py"), *SETTINGS], check=True, env=ENVIRONMENT)
    for words in VERBS:
        _vae(*words)


def _vae(*words: str) -> None:
    program = "from vae_lightning.cli.app import app; app()"
    subprocess.run([sys.executable, "-c", program, *words], check=True, env=ENVIRONMENT)


def _expected() -> dict[str, object]:
    import torch

    from vae_lightning import load_run
    from vae_lightning.latents.priors import fit_prior
    from vae_lightning.runs.fitted import prior_file

    run = load_run("run")
    run.latent_statistics()
    latents = run.sample_latents(48, seed=0)
    for name in ("gaussian", "gmm"):  # a flow has 300 KB
        prior_file(run.path).write(name, fit_prior(name, latents, seed=0))
    images = (torch.arange(2 * 3 * 32 * 32) * 7 % 256).to(torch.uint8).reshape(2, 3, 32, 32)
    return {"images": images, "reconstruction": run.reconstruct(images), "faces": run.sample(2, seed=0)}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if source.is_dir() else shutil.copy)(source, target)


def _forget_the_machine(run: Path) -> None:
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    (run / "status.json").write_text(json.dumps({**status, "host": "somewhere"}, indent=2) + "\n", encoding="utf-8")
    for file in run.rglob("*.*"):
        assert not re.search(rb"/(home|root|work)/", file.read_bytes()), file


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
