"""notebooks/ are kept without outputs, use what the package has, and run from the first cell to the last."""

import ast
import base64
import importlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import train_tiny
from PIL import Image

from vae_lightning.data.rendering.dataset import render_faces

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PICTURES = {
    "1_first_steps": 7,
    "2_exploring_a_latent_space": 9,
    "3_reading_a_beta_sweep": 7,
    "4_editing_faces": 9,
    "5_questions_about_vaes": 11,
}
RUN_AT_NIGHT = ("2_exploring_a_latent_space", "4_editing_faces", "5_questions_about_vaes")
BETAS = ("0.01", "1", "10")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
PLACES = r"(?<![\w./])/(home|Users|root|work|tmp|mnt|data|content)\b|[A-Z]:\\"  # of one machine; /path/to/ is none
SMALL = [
    "model.latent_dim=8",
    "trainer.max_epochs=3",
    "callbacks=[checkpoint]",
    "logger=[csv]",
]

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def words_of(content: dict[str, Any]) -> str:
    return "\n".join("".join(cell["source"]) for cell in content["cells"])


def code_of(content: dict[str, Any]) -> ast.Module:
    return ast.parse("\n".join("".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"))


def test_there_is_a_notebook_for_each_of_the_names_below() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(PICTURES)


@each_notebook
def test_a_notebook_is_kept_without_what_it_once_showed(path: Path) -> None:
    """Nor with anything of the machine that it was last run on; written as one tool writes it, for small diffs."""
    text = path.read_text(encoding="utf-8")
    content = json.loads(text)
    assert text == json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert all(cell["metadata"] == {} for cell in content["cells"])
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
    assert set(content["metadata"]) == {"kernelspec", "language_info"}
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert not re.search(PLACES, words_of(content))


@each_notebook
def test_a_notebook_says_what_makes_its_runs_and_defines_nothing(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert "python train.py" in "".join(content["cells"][0]["source"])
    assert not [node.lineno for node in ast.walk(code_of(content)) if isinstance(node, DEFINITIONS)]


@each_notebook
def test_all_that_a_notebook_imports_is_there(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(code_of(content)) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if (node.module or "").startswith("vae_lightning")]
    assert ours
    for node in ours:
        module = importlib.import_module(str(node.module))
        assert not [name.name for name in node.names if not hasattr(module, name.name)], node.module


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`notebooks/`, and beside it a sweep over β in `multirun/beta` and a newer run in `outputs/vae`."""
    folder = tmp_path_factory.mktemp("desk")
    faces = render_faces(folder / "celeba", count=300, seed=1, num_workers=1)
    for beta in BETAS:
        overrides = [f"beta={beta}", *SMALL]
        run = train_tiny(faces, folder / "data", folder / "multirun" / "beta" / f"beta={beta}", *overrides)
        (run / ".hydra").mkdir()
        (run / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    shutil.copytree(folder / "multirun" / "beta" / "beta=1", folder / "outputs" / "vae", copy_function=shutil.copy)
    (folder / "notebooks").mkdir()
    return folder


@pytest.mark.extra
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=pytest.mark.nightly if path.stem in RUN_AT_NIGHT else pytest.mark.slow)
        for path in NOTEBOOKS
    ],
    ids=lambda path: path.stem,
)
def test_a_notebook_runs(path: Path, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, without a word on stderr; it shows pictures, none of them blank, and no nan."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    for variable in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(desk / "jupyter"))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],  # not that it listens on this machine
        resources={"metadata": {"path": str(desk / "notebooks")}},
    )
    client.execute()  # raises where a cell does
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = {output.text for output in outputs if output.output_type == "stream"}
    assert said <= {"last: outputs/vae\n"}  # which run was taken
    shown = [output.data for output in outputs if "data" in output]
    pictures = [base64.b64decode(data[kind]) for data in shown for kind in data if kind in ("image/png", "image/gif")]
    assert len(pictures) == PICTURES[path.stem]
    for picture in pictures:
        with Image.open(io.BytesIO(picture)) as opened:
            assert np.asarray(opened.convert("L")).std() > 2  # grey levels: faces of so short a run are faint
    words = [data["text/markdown"] for data in shown if "text/markdown" in data]
    assert words
    assert not [text for text in words if re.search(r"\bnan\b|\binf\b", text)]
