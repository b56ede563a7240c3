"""TensorBoard's events, where the run is."""

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger


class Events(TensorBoardLogger):
    """Lightning's logger, without subfolders. A `$` in a folder's name stays: Lightning would look up a variable.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, run_dir: str) -> None:
        super().__init__(run_dir, name="", version="", default_hp_metric=False)

    @property
    def log_dir(self) -> str:
        return str(Path(self.root_dir))
