"""Versions of the libraries and hashes of the code that a run's numbers depend on, and what has changed since."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
LIBRARIES = ("torch", "torchvision", "lightning")
# rooms whose code decides what a training computes; `callbacks/` beside the package counts too
ROOMS_OF_TRAINING = ("models", "losses", "data", "training", "recognition")


@cache
def made_with() -> dict[str, Any]:
    """Versions of the libraries, and a hash of each source file that takes part in a training."""
    top = PACKAGE.parent
    files = [path for room in ROOMS_OF_TRAINING for path in (PACKAGE / room).rglob("*.py")]
    files += (top / "callbacks").glob("*.py")
    code = {str(path.relative_to(top)): hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest() for path in files}
    return {"libraries": {name: version(name) for name in LIBRARIES}, "code": dict(sorted(code.items()))}


def changes_since(earlier: dict[str, Any]) -> list[str]:
    """Sentences about what has changed; empty where the same run would give the same numbers."""
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
