"""Versions of everything that a run's numbers come from, and what has changed since."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIBRARIES = ("torch", "torchvision", "lightning")
# reads or starts runs, and changes none of their numbers
SHOWING = ("report", "bench", "cli.py", "grids.py", "face_grids.py", "charts.py", "pictures.py", "did_you_mean.py")
EDITING = ("editing", "editing_command.py", "directions.py", "latent_paths.py")
VERBS = ("verbs.py", "edit_verbs.py", "score_verb.py", "prepare_verb.py", "explore_verb.py", "export_verb.py")
USING = ("runs.py", "run_data.py", "image_codec.py", "photographs.py", "devices.py", "tracking.py")
SHIPPING = ("preparation", "explorer", "export", "fitted.py", "fitted_file.py", "latent_statistics.py")
MEASURING = ("evaluation", "evaluation_command.py", "priors")  # runs that are done
STARTING = ("sweep", "command_line.py", "typed_paths.py", "run_folders.py", "log_file.py")
WITHOUT_EFFECT = {*SHOWING, *EDITING, *VERBS, *USING, *SHIPPING, *MEASURING, *STARTING}


@cache
def made_with() -> dict[str, Any]:
    """Versions of the libraries, and a hash of each source file that takes part in a training."""
    package = Path(__file__).parent
    files = [path for path in package.rglob("*.py") if path.relative_to(package).parts[0] not in WITHOUT_EFFECT]
    files += (ROOT / "callbacks").glob("*.py")
    code = {
        str(path.relative_to(ROOT)): hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest() for path in files
    }
    return {"libraries": {name: version(name) for name in LIBRARIES}, "code": dict(sorted(code.items()))}


def changes_since(earlier: dict[str, Any]) -> list[str]:
    """What is not as it was, in words; empty where the same run would give the same numbers."""
    now = made_with()
    libraries = earlier.get("libraries", {})
    changed = [
        f"{name} {libraries.get(name, 'unknown')} then, {now['libraries'][name]} now"
        for name in LIBRARIES
        if libraries.get(name) != now["libraries"][name]
    ]
    code = earlier.get("code", {})
    files = [name for name in sorted({*code, *now["code"]}) if code.get(name) != now["code"].get(name)]
    if files:
        others = f" and {len(files) - 3} more" if len(files) > 3 else ""
        changed.append(f"code changed in {', '.join(files[:3])}{others}")
    return changed
