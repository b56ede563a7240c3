"""Writes encoder and decoder as ONNX files, with images in [0, 1], and keeps them only if they agree with PyTorch."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_lightning.models import Autoencoder
from vae_lightning.models.distributions import DiagonalGaussian
from vae_lightning.models.pixels import to_unit_range

OPSET = 18  # what the exporter writes without converting, and every runtime of today reads
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
LARGEST_DIFFERENCE = 1e-4  # that is accepted
BATCH_SIZES = (1, 5)  # that are checked
CHECK_SEED = 0
ENCODER = "encoder.onnx"
DECODER = "decoder.onnx"


class OnnxEncoder(nn.Module):
    """Images in [0, 1] -> mean and logvar of q(z|x), the codes of a plain autoencoder, or the means alone of a
    hierarchical model, whose levels' log-variances depend on what is drawn above.
    """

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model
        self.input_name = "images"
        # not "mean": the exporter calls inner values by their operators' names, and does not see that two are alike
        gaussian = ("posterior_mean", "posterior_logvar") if model.is_flat else ("posterior_mean",)
        self.output_names = gaussian if model.has_prior else ("codes",)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> tuple[Tensor, ...]:
        low, high = self.model.pixel_range
        posterior = self.model.encode(images * (high - low) + low)
        return (posterior.mean, posterior.logvar) if isinstance(posterior, DiagonalGaussian) else (posterior.mean,)


class OnnxDecoder(nn.Module):
    """Latents -> images in [0, 1]."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model
        self.input_name = "latents"
        self.output_names = ("images",)

    def forward(self, latents: Float[Tensor, "batch latent"]) -> tuple[Tensor, ...]:
        return (to_unit_range(self.model.decode(latents), self.model.pixel_range),)


@dataclass(frozen=True)
class OnnxFile:
    """One file, and how it was checked.

    Args:
        name: of the file.
        inputs: name -> shape; the first axis is the batch, of any size.
        outputs: likewise.
        opset: of its operators.
        largest_difference: to what PyTorch computes, over all outputs, at BATCH_SIZES.
    """

    name: str
    inputs: dict[str, list[str | int]]
    outputs: dict[str, list[str | int]]
    opset: int
    largest_difference: float


def write_onnx(model: Autoencoder, file: Path) -> OnnxFile:
    """Writes the encoder or the decoder, as the file's name says, and compares it with PyTorch.

    Args:
        model: in eval mode, float32, on the CPU.
        file: named ENCODER or DECODER.

    Raises:
        ValueError: onnxruntime computes something else; no file is left.
    """
    part = OnnxEncoder(model).eval() if file.name == ENCODER else OnnxDecoder(model).eval()
    try:
        _translate(part, file)
        difference = _largest_difference(part, file)
        if not difference <= LARGEST_DIFFERENCE:  # also true for nan
            raise ValueError(
                f"{file.name}: onnxruntime and PyTorch differ by {difference:.2g}, at most {LARGEST_DIFFERENCE:g} is "
                "accepted. Did the training diverge? Otherwise export without --onnx and report it"
            )
    except ValueError:
        file.unlink(missing_ok=True)
        raise
    return _described(file, difference)


def _translate(part: OnnxEncoder | OnnxDecoder, file: Path) -> None:
    import onnx

    program = torch.onnx.export(
        part,
        (_inputs(part, 2),),
        dynamo=True,
        opset_version=OPSET,
        input_names=[part.input_name],
        output_names=list(part.output_names),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    translated = program.model_proto
    for node in translated.graph.node:
        del node.metadata_props[:]  # stack traces, with the paths of this machine
    del translated.graph.metadata_props[:]
    onnx.checker.check_model(translated, full_check=True)
    onnx.save_model(translated, file)


def _inputs(part: OnnxEncoder | OnnxDecoder, batch_size: int) -> Float[Tensor, "batch *shape"]:
    """Latents of the prior, or faces that the model decodes from those: values as large as real ones."""
    generator = torch.Generator().manual_seed(CHECK_SEED + batch_size)
    latents = torch.randn(batch_size, part.model.latent_dim, generator=generator)
    if isinstance(part, OnnxDecoder):
        return latents
    with torch.no_grad():
        return to_unit_range(part.model.decode(latents), part.model.pixel_range)


def _largest_difference(part: OnnxEncoder | OnnxDecoder, file: Path) -> float:
    from onnxruntime import InferenceSession

    session = InferenceSession(file, providers=["CPUExecutionProvider"])
    differences = []
    for batch_size in BATCH_SIZES:
        inputs = _inputs(part, batch_size)
        with torch.no_grad():
            expected = part(inputs)
        found = session.run(list(part.output_names), {part.input_name: inputs.numpy()})
        differences += [
            (torch.from_numpy(there) - here).abs().max() for there, here in zip(found, expected, strict=True)
        ]
    return float(torch.stack(differences).max())


def _described(file: Path, difference: float) -> OnnxFile:
    import onnx

    translated = onnx.load(file)
    inputs, outputs = _shapes(translated.graph.input), _shapes(translated.graph.output)
    return OnnxFile(file.name, inputs, outputs, translated.opset_import[0].version, difference)


def _shapes(values: Iterable[Any]) -> dict[str, list[str | int]]:
    shapes: dict[str, list[str | int]] = {}
    for value in values:
        shapes[value.name] = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
    return shapes
