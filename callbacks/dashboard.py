"""Pictures on their way to TensorBoard."""

from collections.abc import Iterable

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary


def show_picture(loggers: Iterable[Logger], tag: str, png: bytes, size: tuple[int, int], step: int) -> None:
    """Hands a PNG that is already encoded to every TensorBoard logger; `add_image` would encode it once more.

    Args:
        loggers: of the trainer; others than TensorBoard's are passed over.
        tag: the card's name; what stands before the slash groups cards.
        png: the encoded picture.
        size: (height, width) in pixels.
        step: number of optimizer steps done.
    """
    image = Summary.Image(height=size[0], width=size[1], colorspace=3, encoded_image_string=png)
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            writer = logger.experiment._get_file_writer()
            writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
