"""The data that a run was trained on, found again."""

import os
from pathlib import Path
from typing import Any

CELEBA_PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
DATA_NAMES = {"celeba": "CelebA", "faces": "rendered faces", "folder": "a folder of images", "noise": "noise"}
WITH_A_ROOT = ("celeba", "folder")  # data sets that lie in a folder of the user's


def data_settings(record: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the data module that open the data that a run used.

    Where CelebA has gone from the place that it was trained from (another machine), CELEBA_ROOT says where it is now.
    Rendered faces are taken from where they were drawn, if they are still there.
    """
    settings = {name: value for name, value in record["config"]["data"].items() if name != "_target_"}
    settings.pop("num_workers", None)  # of runs before 2026-11-21
    used = record["data"]
    source, root = used["source"], Path(used["root"])
    if source == "faces" and root.is_dir():
        settings["data_dir"] = str(root.parent)
    moved = source == "celeba" and not root.is_dir() and bool(os.environ.get("CELEBA_ROOT"))
    return {**settings, "source": source, "root": str(root) if source in WITH_A_ROOT and not moved else None}
