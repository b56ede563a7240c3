"""Batches from host memory and from the device: what is in them, and in which order."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from vae_lightning.data import DataError, SplitImages, loading
from vae_lightning.data.loading import (
    BatchLoader,
    BatchRows,
    DeviceBatchLoader,
    DeviceSplit,
    EvaluationOrder,
    TrainingOrder,
    choose_residence,
    flip_on_device,
    free_memory,
)

GPU, CPU = torch.device("cuda"), torch.device("cpu")
COUNT = 103


@pytest.fixture
def split(tmp_path: Path) -> SplitImages:
    """103 images of 8x6x3, memory-mapped."""
    random = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", random.integers(0, 256, (COUNT, 8, 6, 3), dtype=np.uint8))
    return SplitImages(np.load(tmp_path / "images.npy", mmap_mode="r"), random.random((COUNT, 40)) < 0.5)


def rows_of(order: TrainingOrder | EvaluationOrder, epoch: int = 0) -> list[list[int]]:
    order.set_epoch(epoch)
    return [batch.rows.tolist() for batch in order]


def test_a_batch_holds_the_rows_that_were_asked_for(split: SplitImages) -> None:
    rows = np.array([5, 101, 0, 5])
    batch = BatchLoader(split, EvaluationOrder(COUNT, 4), CPU).load(BatchRows(rows))
    assert set(batch) == {"images", "index", "attributes"}
    assert batch["images"].dtype == torch.uint8
    assert batch["images"].shape == (4, 3, 8, 6)
    assert batch["images"].is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(batch["images"].permute(0, 2, 3, 1).numpy(), split.images[rows])
    assert split.attributes is not None
    np.testing.assert_array_equal(batch["attributes"].numpy(), split.attributes[rows])
    assert batch["index"].tolist() == rows.tolist()


def test_without_attributes_there_are_none(split: SplitImages) -> None:
    order = EvaluationOrder(COUNT, 20)
    for loader in (
        BatchLoader(SplitImages(split.images), order, CPU),
        DeviceBatchLoader(DeviceSplit(SplitImages(split.images), CPU), order),
    ):
        assert set(next(iter(loader))) == {"images", "index"}


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("kind", ["training", "evaluation", "sharded", "resumed"])
def test_from_the_device_come_the_batches_that_come_from_the_host(split: SplitImages, kind: str, flip: bool) -> None:
    def order() -> TrainingOrder | EvaluationOrder:
        if kind == "evaluation":
            return EvaluationOrder(COUNT, 20)
        shard = {"rank": 1, "world_size": 2} if kind == "sharded" else {}
        training = TrainingOrder(COUNT, 10, seed=3, horizontal_flip=flip, **shard)
        training.set_epoch(2)
        training.first_batch = lambda: 4 if kind == "resumed" else 0
        return training

    on_host = list(BatchLoader(split, order(), CPU))
    on_device = list(DeviceBatchLoader(DeviceSplit(split, CPU), order()))
    assert len(on_host) == len(on_device) == {"training": 10, "evaluation": 6, "sharded": 5, "resumed": 6}[kind]
    for one, other in zip(on_host, on_device, strict=True):
        assert one.keys() == other.keys()
        assert ("flip" in one) == (flip and kind != "evaluation")
        for name in one:
            assert torch.equal(one[name], other[name]), name
            assert one[name].stride() == other[name].stride()


def test_a_large_split_is_uploaded_in_pieces(split: SplitImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_lightning.data.loading.UPLOADED_AT_ONCE", 7 * 8 * 6 * 3 + 1)
    np.testing.assert_array_equal(DeviceSplit(split, CPU).images.numpy(), split.images)


def prefetching(split: SplitImages, order: TrainingOrder, monkeypatch: pytest.MonkeyPatch) -> BatchLoader:
    """The loader as it works for a GPU, but for the pinned memory, which only a GPU's driver gives."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    gather = SplitImages.gather
    monkeypatch.setattr(SplitImages, "gather", lambda split, rows, pinned: gather(split, rows))
    return BatchLoader(split, order, torch.device("cuda"))


def test_prefetched_batches_come_in_order(split: SplitImages, monkeypatch: pytest.MonkeyPatch) -> None:
    order = TrainingOrder(COUNT, 3, seed=3, horizontal_flip=True)
    expected = list(BatchLoader(split, order, CPU))
    for batch, other in zip(prefetching(split, order, monkeypatch), expected, strict=True):
        assert all(torch.equal(batch[name], other[name]) for name in other)


def test_prefetching_stops_with_the_epoch_and_hands_errors_on(
    split: SplitImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = prefetching(split, TrainingOrder(COUNT, 10), monkeypatch)
    batches = iter(loader)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]

    def broken(split: SplitImages, rows: np.ndarray, pinned: bool) -> torch.Tensor:
        raise OSError("the disk is gone")

    monkeypatch.setattr(SplitImages, "gather", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        next(iter(loader))


def test_images_go_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr("vae_lightning.data.loading.free_memory", lambda device: 100 if device == gpu else None)
    assert [choose_residence("auto", size, gpu) for size in (50, 51)] == ["device", "host"]
    assert choose_residence("device", 100, gpu) == "device"
    assert choose_residence("host", 1, gpu) == "host"
    assert choose_residence("auto", 1, CPU) == "host"
    assert choose_residence("device", 10**15, CPU) == "device"
    with pytest.raises(DataError, match=r"data\.residence=device: the images take .* Take data\.residence=host"):
        choose_residence("device", 101, gpu)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    first = rows_of(TrainingOrder(COUNT, 10, seed=1), epoch=2)
    torch.manual_seed(1)
    np.random.seed(1)
    assert rows_of(TrainingOrder(COUNT, 10, seed=1), epoch=2) == first
    assert rows_of(TrainingOrder(COUNT, 10, seed=1), epoch=3) != first
    assert rows_of(TrainingOrder(COUNT, 10, seed=2), epoch=2) != first
    assert rows_of(TrainingOrder(COUNT, 10, seed=0), epoch=0)[0][:5] == [36, 23, 43, 101, 92]  # known answer


def test_training_drops_the_last_incomplete_batch_only() -> None:
    order = TrainingOrder(COUNT, 10)
    batches = rows_of(order)
    assert len(batches) == len(order) == 10
    assert all(len(batch) == 10 for batch in batches)
    assert len({row for batch in batches for row in batch}) == 100


def test_a_split_smaller_than_one_batch_is_one_batch() -> None:
    (batch,) = rows_of(TrainingOrder(COUNT, 500))
    assert sorted(batch) == list(range(103))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_training_shards_are_disjoint_and_make_up_the_global_batch(world_size: int) -> None:
    whole = rows_of(TrainingOrder(COUNT, 6 * world_size), epoch=1)
    shards = [rows_of(TrainingOrder(COUNT, 6, rank=rank, world_size=world_size), 1) for rank in range(world_size)]
    assert len({len(shard) for shard in shards}) == 1
    for step, batch in enumerate(whole):
        assert [row for shard in shards for row in shard[step]] == batch


def test_small_split_is_dealt_out_evenly() -> None:
    shards = [rows_of(TrainingOrder(COUNT, 64, rank=rank, world_size=2)) for rank in range(2)]
    assert [len(batch) for shard in shards for batch in shard] == [51, 51]
    assert not set(shards[0][0]) & set(shards[1][0])


def test_fewer_images_than_processes() -> None:
    with pytest.raises(DataError, match="103 training images are too few for 104 processes"):
        TrainingOrder(COUNT, 1, world_size=104)
    with pytest.raises(DataError, match="103 images to evaluate on are too few for 104 processes"):
        EvaluationOrder(COUNT, 20, world_size=104)


@pytest.mark.parametrize("world_size", [1, 2, 4, 103])
def test_evaluation_keeps_order_drops_and_repeats_nothing(world_size: int) -> None:
    orders = [EvaluationOrder(COUNT, 20, rank=rank, world_size=world_size) for rank in range(world_size)]
    shards = [rows_of(order) for order in orders]
    assert [row for shard in shards for batch in shard for row in batch] == list(range(103))
    assert [len(shard) for shard in shards] == [len(order) for order in orders]
    sizes = [sum(map(len, shard)) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    assert all(batch.flip is None for batch in orders[0])


def test_flips_are_decided_by_seed_epoch_and_row() -> None:
    def flips(batch_size: int, epoch: int = 0, **arguments: int) -> dict[int, bool]:
        order = TrainingOrder(COUNT, batch_size, horizontal_flip=True, **arguments)
        order.set_epoch(epoch)
        return {row: flip for rows, mask in order for row, flip in zip(rows.tolist(), mask.tolist(), strict=True)}

    first = flips(103)
    assert flips(1) == first
    assert flips(1, rank=1, world_size=2).items() <= first.items()
    assert 30 < sum(first.values()) < 73
    assert flips(103, epoch=1) != first
    assert flips(103, seed=1) != first


def test_flip_mirrors_the_chosen_images(split: SplitImages) -> None:
    images = split.gather(np.arange(4))
    flip = torch.tensor([True, False, False, True])
    flipped = flip_on_device(images, flip)
    expected = np.stack(
        [np.fliplr(image) if chosen else image for image, chosen in zip(split.images[:4], flip.tolist(), strict=True)]
    )
    np.testing.assert_array_equal(flipped.permute(0, 2, 3, 1).numpy(), expected)
    assert flipped.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def gib_free(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(loading, "free_memory", lambda device: 2**31 if device == GPU else None)
    return 2**31


def test_auto_leaves_half_of_a_device_free(gib_free: int) -> None:
    assert choose_residence("auto", gib_free // 2, GPU) == "device"
    assert choose_residence("auto", gib_free // 2 + 1, GPU) == "host"
    assert choose_residence("auto", 1, CPU) == "host"


def test_what_is_asked_for_is_given_or_refused(gib_free: int) -> None:
    assert choose_residence("device", gib_free, GPU) == "device"
    assert choose_residence("device", 10 * gib_free, CPU) == "device"
    assert choose_residence("host", 10 * gib_free, GPU) == "host"
    with pytest.raises(DataError, match=r"images take 4\.0 GiB, cuda has 2\.0 GiB free\. Take data\.residence=host"):
        choose_residence("device", 2 * gib_free, GPU)


def test_only_devices_have_a_memory_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 10))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 10)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 4)
    assert [free_memory(torch.device(kind)) for kind in ("cpu", "cuda", "mps")] == [None, 7, 6]
