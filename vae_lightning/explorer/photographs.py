"""Photographs that people put on the page: in memory, few of them, never on disk."""

import io
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vae_lightning.data import DataError
from vae_lightning.data.preprocessing import explained_decoding, upright_rgb
from vae_lightning.explorer.faces import ExplorerError
from vae_lightning.runs import Run

MOST_BYTES = 10 * 2**20
MOST_PIXELS = 40_000_000
MOST_KEPT = 64  # of all visitors together; the oldest goes
ADVICE = "Save it as JPEG or PNG in a program that shows it."

Pixels = UInt8[Tensor, "channels height width"]


class Photographs:
    """What the models see of each photograph; the photograph itself is forgotten at once.

    Args:
        runs: whose crops, sizes and colours count.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = {framing(run): run for run in runs}
        self._kept: OrderedDict[str, dict[str, Pixels]] = OrderedDict()
        self._lock = threading.Lock()  # requests come in several threads

    def keep(self, encoded: bytes) -> str:
        """The content of an image file -> a token that nobody can guess, to ask for its pixels with.

        Raises:
            ExplorerError: too many bytes or pixels, no image, or not one that all these runs can take.
        """
        image = open_photograph(encoded)
        try:
            pixels = {key: run.preprocess(image)[0] for key, run in self._runs.items()}
        except DataError as error:  # smaller than a crop
            raise ExplorerError(f"{error}.") from error
        token = secrets.token_urlsafe()
        with self._lock:
            self._kept[token] = pixels
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return token

    def pixels(self, token: str, run: Run) -> Pixels:
        """
        Raises:
            ExplorerError: none was uploaded, or so many since that it was forgotten.
        """
        if not token:
            raise ExplorerError("no photograph yet: choose a file")
        with self._lock:
            kept = self._kept.get(token)
            if kept is None:
                raise ExplorerError("the photograph is no longer in memory: choose the file again")
            self._kept.move_to_end(token)
        return kept[framing(run)]


def framing(run: Run) -> str:
    """Equal where two runs see the same of a photograph."""
    data = run.config["data"]
    return f"{data['crop']} {data['image_size']} {data['color']} {run.record['data']['source']}"


def open_photograph(encoded: bytes) -> Image.Image:
    """Upright RGB; sizes are looked at before a pixel is decoded.

    Raises:
        ExplorerError: too many bytes or pixels, or no image that can be decoded.
    """
    if len(encoded) > MOST_BYTES:
        raise ExplorerError(f"the file has more than {MOST_BYTES // 2**20} MB: make it smaller")
    try:
        with explained_decoding(), Image.open(io.BytesIO(encoded)) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise DataError(f"it has {width}x{height} pixels, more than {MOST_PIXELS // 10**6} million")
            return upright_rgb(image)
    except DataError as error:
        raise ExplorerError(f"{error}. {ADVICE}") from error
