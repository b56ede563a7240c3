"""Images per second of each part alone."""

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from vae_lightning.cli.bench.benched import Benched
from vae_lightning.data import open_cache
from vae_lightning.data.loading import BatchLoader, DeviceBatchLoader, DeviceSplit, TrainingOrder, choose_residence
from vae_lightning.losses import KLWeight
from vae_lightning.models.pixels import to_pixel_range, to_uint8

WARM_UP_BATCHES = 5
DECODED_IMAGES = 4096
SAMPLED_AT_ONCE = 256


def cache_build_speed(benched: Benched) -> float:
    """Decodes, crops, resizes and writes DECODED_IMAGES training images into a temporary folder."""
    data = benched.datamodule
    rows = data.image_source.split_rows("train")[:DECODED_IMAGES]
    with tempfile.TemporaryDirectory(prefix="vae-bench-") as folder:
        started = time.perf_counter()
        open_cache(data.image_source, rows, data.preprocessing, Path(folder), "some")
        return len(rows) / (time.perf_counter() - started)


def loader(benched: Benched) -> BatchLoader | DeviceBatchLoader:
    """The loader that the data module would make for this device."""
    data = benched.datamodule
    split = data.split("train")
    order = TrainingOrder(len(split), benched.batch_size, horizontal_flip=data.horizontal_flip)
    if choose_residence(data.residence, split.images.nbytes, benched.device) == "device":
        return DeviceBatchLoader(DeviceSplit(split, benched.device), order)
    return BatchLoader(split, order, benched.device)


def loader_speed(benched: Benched, seconds: float) -> float:
    """Moves the batches of whole epochs to the device, and does nothing else."""
    batches = loader(benched)
    next(iter(batches))
    count, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        for batch in batches:
            count += len(batch["images"].to(benched.device, non_blocking=True))
        _wait_for(benched.device)
    return count / spent if count else 0.0


def bare_loop_speed(benched: Benched, seconds: float, *, as_pytorch_comes: bool = False) -> float:
    """The model and nothing around it: gather, forward, backward, step; pixel term + KL.

    The ten lines that one would write by hand, in the run's precision, channels_last and with a fused optimizer; with
    `as_pytorch_comes` in float32, NCHW and with Adam's defaults.
    """
    channels_last = not as_pytorch_comes
    model, term = benched.new_model(channels_last=channels_last), benched.new_term()
    fused = None if as_pytorch_comes else True
    optimizer = torch.optim.Adam(model.parameters(), lr=float(benched.config["optimizer"]["lr"]), fused=fused)
    enabled = benched.dtype == torch.bfloat16 and not as_pytorch_comes
    precision = torch.autocast(benched.device.type, torch.bfloat16, enabled=enabled)

    def step(levels: Tensor) -> None:
        pixels = to_pixel_range(levels, model.pixel_range)
        pixels = pixels if channels_last else pixels.contiguous()
        with precision:
            noise = torch.randn(len(pixels), model.latent_dim, device=pixels.device)
            draw, prediction = model.draw_and_predict(pixels, noise)
        loss = (term(prediction, pixels) + draw.kl_per_latent.sum(1)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return _speed(_forever(benched), step, benched.device, seconds)


def validation_speed(benched: Benched, seconds: float) -> float:
    """The objective and the 256-level likelihood of validation batches."""
    module = benched.new_module().eval()
    data = benched.datamodule
    size = data.eval_batch_size
    images = data.split("val").gather(torch.arange(size).remainder(len(data.split("val"))).numpy()).to(benched.device)
    noise = torch.randn(size, module.model.latent_dim, device=benched.device)

    def validate(images: Tensor) -> None:
        with torch.inference_mode(), benched.autocast():
            module._add("val", module.evaluate(images, noise, KLWeight(1.0)), with_likelihood=True)

    return _speed(_repeat(images), validate, benched.device, seconds)


def sampling_speed(benched: Benched, seconds: float) -> float:
    """Noise to pictures of 256 levels, SAMPLED_AT_ONCE of them at a time; an autoencoder decodes the same noise."""
    model = benched.new_model().eval()
    latents = torch.randn(SAMPLED_AT_ONCE, model.latent_dim, device=benched.device)

    def draw(latents: Tensor) -> None:
        with torch.inference_mode(), benched.autocast():
            to_uint8(model.decode(latents), model.pixel_range)

    return _speed(_repeat(latents), draw, benched.device, seconds)


def _forever(benched: Benched) -> Iterable[Tensor]:
    batches = loader(benched)
    epoch = 0
    while True:
        batches.sampler.set_epoch(epoch)
        for batch in batches:
            yield batch["images"].to(benched.device, non_blocking=True)
        epoch += 1


def _repeat(batch: Tensor) -> Iterable[Tensor]:
    while True:
        yield batch


def _speed(batches: Iterable[Tensor], work: Callable[[Tensor], None], device: torch.device, seconds: float) -> float:
    """Images per second over at least `seconds` and two batches, after a warm-up."""
    count, started = 0, 0.0
    for number, batch in enumerate(batches):
        if number == WARM_UP_BATCHES:
            _wait_for(device)
            count, started = 0, time.perf_counter()
        work(batch)
        count += len(batch)
        if number > WARM_UP_BATCHES and time.perf_counter() - started > seconds:
            break
    _wait_for(device)
    return count / (time.perf_counter() - started)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
