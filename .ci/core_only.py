"""An export made with everything installed gives the same faces where only the core dependencies are.

Called twice by .ci/run: `core_only.py export FOLDER`, then with only the wheel installed `core_only.py load FOLDER`.
"""

import importlib.util
import sys
from pathlib import Path

import torch

from vae_lightning import load_run

TOLERANCE = 1e-5
OTHERS = ("gradio", "onnx", "onnxruntime", "huggingface_hub", "pytest", "beartype", "selenium", "ray")


def export(folder: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tiny_runs import write_run

    from vae_lightning.export import export_run

    write_run(folder / "run", image_size=64, latent_dim=128)
    vae = load_run(folder / "run")
    export_run(folder / "run", folder / "exported")
    faces = vae.sample(8, seed=0)
    torch.save({"faces": faces, "reconstruction": vae.reconstruct(faces)}, folder / "expected.pt")


def load(folder: Path) -> None:
    there = [name for name in OTHERS if importlib.util.find_spec(name)]
    assert not there, f"these belong to no core dependency: {there}"
    expected = torch.load(folder / "expected.pt")
    vae = load_run(folder / "exported")
    faces = vae.sample(8, seed=0)
    torch.testing.assert_close(faces, expected["faces"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(vae.reconstruct(faces), expected["reconstruction"], atol=TOLERANCE, rtol=0)


if __name__ == "__main__":
    {"export": export, "load": load}[sys.argv[1]](Path(sys.argv[2]))
