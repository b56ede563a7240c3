"""Keeps the photographs that people upload: in memory, a limited number, never on disk."""

import io
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vae_lightning.data import DataError
from vae_lightning.data.decoded.image_files import check_size, explained_decoding
from vae_lightning.data.decoded.preprocessing import upright_rgb
from vae_lightning.runs.run import Run

MOST_BYTES = 10 * 2**20
MOST_KEPT = 256  # of all visitors together; the oldest goes
MOST_OF_ONE = 64  # of them from one address; its oldest goes
# not those for which Pillow starts another program (EPS), nor those that hardly anybody has
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MOST_SCANS = 100  # of a progressive JPEG, which has about ten; each takes as long as a picture of its own
START_OF_SCAN = b"\xff\xda"
ADVICE = "Save it as JPEG or PNG in a program that shows it."

Pixels = UInt8[Tensor, "channels height width"]


class Photographs:
    """Keeps what the models see of each photograph, not the photograph itself.

    Args:
        runs: whose crops, sizes and colours count.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = {framing(run): run for run in runs}
        self._kept: OrderedDict[str, tuple[str, dict[str, Pixels]]] = OrderedDict()
        self._lock = threading.Lock()  # requests come in several threads
        # one picture at a time, since 50 million pixels take up to 800 MB, which each thread that had them would keep
        self._decoder = ThreadPoolExecutor(1)

    def keep(self, encoded: bytes, sender: str = "") -> str:
        """The content of an image file -> a token that nobody can guess, to ask for its pixels with.

        Args:
            encoded: the content.
            sender: whose photographs go first when there are too many: an address.

        Raises:
            ValueError: too many bytes or pixels, no image, or not one that all these runs can take.
        """
        pixels = self._decoder.submit(self._decode, encoded).result()
        token = secrets.token_urlsafe()
        with self._lock:
            self._kept[token] = sender, pixels
            of_sender = [kept for kept, (whose, _) in self._kept.items() if whose == sender]
            if len(of_sender) > MOST_OF_ONE:
                del self._kept[of_sender[0]]
            elif len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return token

    def _decode(self, encoded: bytes) -> dict[str, Pixels]:
        image = open_photograph(encoded)
        try:
            return {key: run.preprocess(image)[0] for key, run in self._runs.items()}
        except DataError as error:  # smaller than a crop
            raise ValueError(f"{error}.") from error

    def pixels(self, token: str, run: Run) -> Pixels:
        """
        Raises:
            ValueError: no photograph was uploaded, or so many after it that it was dropped.
        """
        if not token:
            raise ValueError("no photograph yet: choose a file")
        with self._lock:
            kept = self._kept.get(token)
            if kept is None:
                raise ValueError("the photograph is no longer in memory: choose the file again")
            self._kept.move_to_end(token)
        return kept[1][framing(run)]


def framing(run: Run) -> str:
    """Equal where two runs see the same of a photograph."""
    data = run.config["data"]
    return f"{data['crop']} {data['image_size']} {data['color']} {run.record['data']['source']}"


def open_photograph(encoded: bytes) -> Image.Image:
    """Decodes to upright RGB; the size is checked before a pixel is decoded.

    Raises:
        ValueError: too many bytes or pixels, or no image that can be decoded.
    """
    if len(encoded) > MOST_BYTES:
        raise ValueError(f"the file has more than {MOST_BYTES // 2**20} MB: make it smaller")
    try:
        if encoded.count(START_OF_SCAN) > MOST_SCANS and encoded.startswith(b"\xff\xd8"):
            raise DataError(f"it is a JPEG of more than {MOST_SCANS} scans")
        with explained_decoding(), Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            check_size(image.size)
            return upright_rgb(image)
    except DataError as error:
        raise ValueError(f"{error}. {ADVICE}") from error
