"""Latents of held-out faces in TensorBoard's projector, each drawn as its face."""

import logging
import math
from pathlib import Path

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from google.protobuf import text_format  # type: ignore[import-untyped]
from jaxtyping import Float, UInt8
from tensorboard.plugins.projector import EmbeddingInfo, ProjectorConfig
from torch import Tensor

from callbacks.base import EveryNEpochs, datamodule_of
from callbacks.dashboard import event_folders
from vae_lightning.models.levels import coarse_levels, num_coarse_latents
from vae_lightning.pictures.grids import write_picture
from vae_lightning.runs.subject import Subject
from vae_lightning.system.whole_files import replacing
from vae_lightning.training.vae_module import VAEModule

log = logging.getLogger("vae_lightning")

CONFIG_NAME = "projector_config.pbtxt"  # where TensorBoard looks for it: beside the events
SPRITE_PATH, METADATA_PATH = "projector/faces.png", "projector/faces.tsv"
MOST_SPRITE_PIXELS = 8192  # a side; the largest texture that browsers can be relied on to take


class Projector(EveryNEpochs):
    """Shows the posterior means of validation faces in TensorBoard's projector when training ends.

    A sprite shows the faces, and a table the file, split, person and attributes, as far as the data have them. The
    means are computed in float32, with the weights of validation; of a hierarchical model they are those of its coarse
    levels. TensorBoard reads them only when it starts.

    Args:
        num_faces: evenly spaced over the split; all of them where there are fewer.
        every_n_epochs: how often before training ends; None: not before.
    """

    name = "projector"
    fits = VAEModule
    also_last = False  # training ends then anyway

    def __init__(self, num_faces: int = 1_000, every_n_epochs: int | None = None) -> None:
        super().__init__(every_n_epochs)
        if num_faces < 1:
            raise ValueError(f"callbacks.projector.num_faces={num_faces}: must be at least 1")
        self.num_faces = num_faces
        self._written_at_step: int | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero and not event_folders(trainer.loggers):
            log.warning("callbacks=[projector]: nothing to write to, logger=[…] has no tensorboard")

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.is_due(trainer):
            self._write(trainer, pl_module)

    # whether max_epochs or max_steps ended it; the mean of the weights (EMA) has replaced the raw ones by now
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._written_at_step != trainer.global_step:
            self._write(trainer, pl_module)

    def _write(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        folders = event_folders(trainer.loggers)
        if not trainer.is_global_zero or not folders:
            return
        assert isinstance(module, VAEModule)
        was_training = module.model.training
        subject = Subject(
            module.model.eval(), datamodule_of(trainer), module.objective.reconstruction, device=module.device
        )
        levels = [level.name for level in coarse_levels(module.model.latent_levels)]
        count = num_coarse_latents(module.model.latent_levels)  # a browser would not show all of thousands
        means = subject.posterior("val", self.num_faces).mean[:, :count].numpy()
        module.model.train(was_training)
        which = "" if module.model.is_flat else f" of {', '.join(levels)}"
        for folder in folders:
            if self._written_at_step is None:
                write_faces(folder, subject, self.num_faces)
            side = sprite_pixels(len(means), module.model.image_size)
            write_latents(folder, means, trainer.global_step, side, which)
        if self._written_at_step is None:
            log.info(
                f"TensorBoard's projector has the latents of {len(means):,} validation faces; start TensorBoard again "
                "if it is open already"
            )
        self._written_at_step = trainer.global_step


def sprite_pixels(num_faces: int, image_size: int) -> int:
    """The side of one face in the sprite: its own, unless the whole would be too large."""
    return min(image_size, MOST_SPRITE_PIXELS // math.ceil(math.sqrt(num_faces)))


def write_faces(folder: Path, subject: Subject, num_faces: int) -> None:
    """The sprite and the table that all projections of a run share."""
    rows = subject.rows("val", num_faces)
    write_picture(folder / SPRITE_PATH, draw_sprite(subject.pixels("val", rows).cpu()))
    columns = {"file": subject.data.image_names("val", torch.from_numpy(rows)), "split": ["val"] * len(rows)}
    identities = subject.data.identities("val")
    if identities is not None:
        columns["person"] = [str(person) for person in identities[rows]]
    attributes = subject.attributes("val", num_faces)
    if attributes is not None:
        # words: TensorBoard gives categories colours of their own, numbers a range of one
        words = np.where(attributes, "yes", "no").T.tolist()
        columns |= dict(zip(subject.data.attribute_names, words, strict=True))
    lines = [list(columns), *zip(*columns.values(), strict=True)]
    with replacing(folder / METADATA_PATH) as unfinished:
        text = "".join("\t".join(" ".join(cell.split()) for cell in line) + "\n" for line in lines)
        unfinished.write_text(text, encoding="utf-8")


def draw_sprite(faces: UInt8[Tensor, "faces channels size size"]) -> UInt8[np.ndarray, "side side 3"]:
    """All faces in one square, row by row, gray ones as RGB."""
    across, size = math.ceil(math.sqrt(len(faces))), sprite_pixels(len(faces), faces.shape[-1])
    if size < faces.shape[-1]:
        faces = F.interpolate(faces, (size, size), mode="bilinear", antialias=True)
    square = torch.zeros(across**2, 3, size, size, dtype=torch.uint8)
    square[: len(faces)] = faces
    cells = square.unflatten(0, (across, across)).permute(0, 3, 1, 4, 2)  # row, height, column, width, channel
    return cells.reshape(across * size, across * size, 3).numpy()


def write_latents(
    folder: Path, means: Float[np.ndarray, "faces latent"], step: int, face_pixels: int, which: str = ""
) -> None:
    """The latents, and a list of all projections, the newest first; `write_faces` has been called before.

    `which` latents they are stands in the projection's name: those of a hierarchical model's coarse levels.

    Not by SummaryWriter.add_embedding: after a run is resumed it forgets what was projected before, it writes a sprite
    and a table for every projection, and TensorBoard may read its files half-written.
    """
    path = f"projector/step={step:06d}.tsv"
    with replacing(folder / path) as unfinished:
        np.savetxt(unfinished, means, fmt="%.9g", delimiter="\t")
    newest = EmbeddingInfo(
        tensor_name=f"posterior means{which}, step {step}",
        tensor_shape=means.shape,
        tensor_path=path,
        metadata_path=METADATA_PATH,
        sprite={"image_path": SPRITE_PATH, "single_image_dim": [face_pixels, face_pixels]},
    )
    earlier = ProjectorConfig()
    if (folder / CONFIG_NAME).is_file():
        text_format.Parse((folder / CONFIG_NAME).read_text(encoding="utf-8"), earlier)
    # those of another number of faces no longer fit the table and the sprite
    kept = [each for each in earlier.embeddings if each.tensor_path != path and each.tensor_shape[0] == len(means)]
    with replacing(folder / CONFIG_NAME) as unfinished:
        config = ProjectorConfig(embeddings=[newest, *kept])
        unfinished.write_text(text_format.MessageToString(config), encoding="utf-8")
