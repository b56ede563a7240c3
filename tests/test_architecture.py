"""Holds the arrows between the parts: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vae_lightning"
LIGHTNING_ALLOWED = {
    "train.py",
    "vae_lightning/launch/building.py",
    "vae_lightning/training/run_module.py",
    "vae_lightning/training/vae_module.py",
    "vae_lightning/recognition/module.py",
    "vae_lightning/data/datamodule.py",
}
HYDRA_ALLOWED = {
    "train.py",
    "vae_lightning/launch/building.py",
    "vae_lightning/launch/configuration.py",
    "vae_lightning/launch/signatures.py",
    "vae_lightning/launch/command_line.py",
    "vae_lightning/launch/overrides.py",
    "vae_lightning/runs/identity.py",
    "vae_lightning/launch/sweep/plan.py",
    "vae_lightning/launch/sweep/ray_engine.py",
}
# what each part may import of ours, besides itself
MAY_IMPORT = {
    "pixels": set(),
    "files": set(),
    "names": set(),
    "plain_files": {"names"},
    "tensor_files": {"names"},
    "pictures": {"files"},
    "run_folders": set(),
    "did_you_mean": set(),
    "grids": set(),
    "metrics_csv": set(),
    "tracking": set(),
    "checkpoint_keys": set(),
    "run_data": {"run_folders"},
    "data": {"names"},
    "preparation": {"data", "files", "run_data", "tracking"},
    "processes": set(),
    "interruption": set(),
    "distributions": {"pixels"},
    "models": {"distributions", "pixels"},
    "losses": {"tensor_files", "distributions", "pixels", "processes"},
    "statistics": {"distributions", "losses"},
    "lr_schedule": set(),
    "best_so_far": set(),
    "run_module": {"best_so_far", "checkpoint_keys", "lr_schedule", "run_folders"},
    "recognition": {
        "names",
        "run_data",
        "tensor_files",
        "checkpoint_keys",
        "checkpoints",
        "run_folders",
        "run_module",
        "lr_schedule",
        "losses",
        "pixels",
        "charts",
        "data",
        "evaluation",
    },
    "building": {
        "configuration",
        "signatures",
        "models",
        "module",
        "run_module",
        "recognition",
        "checkpoints",
        "losses",
    },
    "fitted_file": {"tensor_files", "files"},
    "directions": {"names", "did_you_mean", "fitted_file"},
    "latent_paths": {"did_you_mean"},
    "photographs": {"data"},
    "editing": {
        "tracking",
        "statistics",
        "did_you_mean",
        "directions",
        "latent_paths",
        "evaluation",
        "recognition",
        "runs",
        "run_folders",
        "priors",
        "models",
        "distributions",
        "data",
        "pixels",
        "grids",
        "face_grids",
        "charts",
        "files",
        "pictures",
    },
    "module": {
        "checkpoint_keys",
        "run_module",
        "lr_schedule",
        "models",
        "losses",
        "distributions",
        "pixels",
        "processes",
        "statistics",
    },
    "made_with": set(),
    "priors": {"tracking", "did_you_mean", "fitted_file"},
    "charts": set(),
    "face_grids": {"latent_paths", "latent_statistics", "models", "pixels"},
    "checkpoints": {
        "names",
        "plain_files",
        "tensor_files",
        "checkpoint_keys",
        "models",
        "losses",
        "made_with",
        "run_folders",
    },
    "training_position": {"checkpoint_keys", "checkpoints", "run_folders"},
    "devices": set(),
    "latent_statistics": {"distributions", "fitted_file"},
    "fitted": {"directions", "fitted_file", "latent_statistics", "priors"},
    "image_codec": {"distributions", "models", "photographs", "pixels"},
    "runs": {
        "checkpoint_keys",
        "run_data",
        "tracking",
        "devices",
        "fitted",
        "image_codec",
        "latent_statistics",
        "directions",
        "latent_paths",
        "checkpoints",
        "data",
        "models",
        "priors",
        "distributions",
        "pixels",
        "run_folders",
    },
    "evaluation": {
        "names",
        "plain_files",
        "tensor_files",
        "checkpoint_keys",
        "run_data",
        "tracking",
        "checkpoints",
        "devices",
        "fitted",
        "did_you_mean",
        "runs",
        "run_module",
        "module",
        "models",
        "losses",
        "priors",
        "distributions",
        "statistics",
        "data",
        "pixels",
        "charts",
        "face_grids",
        "grids",
        "files",
        "pictures",
        "made_with",
        "run_folders",
    },
    "explorer": {
        "checkpoint_keys",
        "checkpoints",
        "data",
        "devices",
        "directions",
        "editing",
        "evaluation",
        "evaluation_command",
        "fitted",
        "latent_paths",
        "latent_statistics",
        "pixels",
        "priors",
        "report",
        "run_data",
        "run_folders",
        "runs",
        "tracking",
    },
    "export": {
        "names",
        "plain_files",
        "run_data",
        "checkpoint_keys",
        "tracking",
        "checkpoints",
        "data",
        "distributions",
        "evaluation",
        "files",
        "fitted",
        "grids",
        "latent_statistics",
        "models",
        "pictures",
        "pixels",
        "priors",
        "run_folders",
        "runs",
    },
    "run_status": {"names", "plain_files", "files", "run_folders"},
    "report": {
        "names",
        "plain_files",
        "run_data",
        "runs",
        "run_folders",
        "run_status",
        "metrics_csv",
        "grids",
        "charts",
        "files",
        "pictures",
        "pixels",
        "models",
        "evaluation",
    },
    "evaluation_command": {"names", "tracking", "evaluation", "report", "run_folders"},
    "identity": {"run_status"},
    "signatures": {"did_you_mean"},
    "hardware": {"did_you_mean", "signatures"},
    "trainer_settings": {"did_you_mean", "signatures"},
    "configuration": {"did_you_mean", "identity", "hardware", "signatures", "trainer_settings"},
    "help_page": set(),
    "stored_overrides": {"names", "plain_files", "run_folders"},
    "typed_paths": {"signatures"},
    "log_file": set(),
    "command_line": {
        "stored_overrides",
        "configuration",
        "did_you_mean",
        "files",
        "run_folders",
        "signatures",
        "typed_paths",
    },
    "sweep": {
        "trainer_settings",
        "plain_files",
        "command_line",
        "configuration",
        "signatures",
        "identity",
        "run_status",
        "run_folders",
        "made_with",
        "metrics_csv",
        "files",
        "data",
        "report",
    },
}
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "callbacks").glob("*.py"), ROOT / "train.py"])


def imports(path: Path) -> set[str]:
    """Full names of all modules imported anywhere in a file, relative ones resolved."""
    names = set()
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            names.add(".".join([*base, *([node.module] if node.module else [])]))
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    imported = imports(path)
    tops = {module.split(".")[0] for module in imported}
    if name not in LIGHTNING_ALLOWED and not name.startswith("callbacks/"):
        assert "lightning" not in tops
    if name not in HYDRA_ALLOWED:
        assert not {"hydra", "omegaconf"} & tops
    if not name.startswith("vae_lightning/"):
        return
    assert "callbacks" not in tops
    part = name.removeprefix("vae_lightning/").split("/")[0].removesuffix(".py")
    if part in MAY_IMPORT:
        ours = {module.split(".")[1] for module in imported if module.startswith("vae_lightning.")}
        assert ours <= MAY_IMPORT[part] | {part}


def test_no_module_is_a_drawer() -> None:
    names = {part for path in SOURCES for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not names & {"utils", "helpers", "common", "misc", "components"}


def test_functions_and_files_stay_small() -> None:
    for path in SOURCES:
        text = path.read_text()
        assert text.count("\n") <= 320, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno <= 50, f"{path}:{node.lineno} {node.name}"
