"""Batches from the memory map: what is in them, and in which order."""

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vae_lightning.data import BatchDataset, DataError, EvaluationOrder, TrainingOrder
from vae_lightning.data.loading import BatchRows, flip_on_device


@pytest.fixture
def dataset(tmp_path: Path) -> BatchDataset:
    """103 images of 8x6x3, memory-mapped."""
    random = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", random.integers(0, 256, (103, 8, 6, 3), dtype=np.uint8))
    return BatchDataset(np.load(tmp_path / "images.npy", mmap_mode="r"), random.random((103, 40)) < 0.5)


def rows_of(order: TrainingOrder | EvaluationOrder, epoch: int = 0) -> list[list[int]]:
    order.set_epoch(epoch)
    return [batch.rows.tolist() for batch in order]


def test_a_batch_holds_the_rows_that_were_asked_for(dataset: BatchDataset) -> None:
    rows = np.array([5, 101, 0, 5])
    batch = dataset[BatchRows(rows)]
    assert set(batch) == {"images", "index", "attributes"}
    assert batch["images"].dtype == torch.uint8
    assert batch["images"].shape == (4, 3, 8, 6)
    assert batch["images"].is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(batch["images"].permute(0, 2, 3, 1).numpy(), dataset.images[rows])
    np.testing.assert_array_equal(batch["attributes"].numpy(), dataset.attributes[rows])
    assert batch["index"].tolist() == rows.tolist()


def test_without_attributes_there_are_none(dataset: BatchDataset) -> None:
    assert set(BatchDataset(dataset.images)[BatchRows(np.arange(3))]) == {"images", "index"}


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_loader_gives_the_same_with_and_without_workers(dataset: BatchDataset, num_workers: int) -> None:
    order = TrainingOrder(dataset, 10, seed=3, horizontal_flip=True)
    loader = DataLoader(dataset, sampler=order, batch_size=None, num_workers=num_workers)
    for batch, expected in zip(loader, order, strict=True):
        assert batch["index"].tolist() == expected.rows.tolist()
        assert batch["flip"].tolist() == expected.flip.tolist()
        np.testing.assert_array_equal(batch["images"].numpy(), dataset.gather(expected.rows).numpy())
        assert batch["images"].is_contiguous(memory_format=torch.channels_last)


def test_a_copy_for_a_worker_carries_the_files_name_only(dataset: BatchDataset) -> None:
    sent = pickle.dumps(dataset)
    assert len(sent) < dataset.images.nbytes / 2
    received = pickle.loads(sent)
    assert isinstance(received.images, np.memmap)
    np.testing.assert_array_equal(received.images, dataset.images)
    assert multiprocessing.get_all_start_methods()  # spawn, on a Mac, is what needs this


def test_order_is_a_function_of_seed_and_epoch(dataset: BatchDataset) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    first = rows_of(TrainingOrder(dataset, 10, seed=1), epoch=2)
    torch.manual_seed(1)
    np.random.seed(1)
    assert rows_of(TrainingOrder(dataset, 10, seed=1), epoch=2) == first
    assert rows_of(TrainingOrder(dataset, 10, seed=1), epoch=3) != first
    assert rows_of(TrainingOrder(dataset, 10, seed=2), epoch=2) != first
    assert rows_of(TrainingOrder(dataset, 10, seed=0), epoch=0)[0][:5] == [36, 23, 43, 101, 92]  # known answer


def test_training_drops_the_last_incomplete_batch_only(dataset: BatchDataset) -> None:
    order = TrainingOrder(dataset, 10)
    batches = rows_of(order)
    assert len(batches) == len(order) == 10
    assert all(len(batch) == 10 for batch in batches)
    assert len({row for batch in batches for row in batch}) == 100


def test_a_split_smaller_than_one_batch_is_one_batch(dataset: BatchDataset) -> None:
    (batch,) = rows_of(TrainingOrder(dataset, 500))
    assert sorted(batch) == list(range(103))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_training_shards_are_disjoint_and_make_up_the_global_batch(dataset: BatchDataset, world_size: int) -> None:
    whole = rows_of(TrainingOrder(dataset, 6 * world_size), epoch=1)
    shards = [rows_of(TrainingOrder(dataset, 6, rank=rank, world_size=world_size), 1) for rank in range(world_size)]
    assert len({len(shard) for shard in shards}) == 1
    for step, batch in enumerate(whole):
        assert [row for shard in shards for row in shard[step]] == batch


def test_small_split_is_dealt_out_evenly(dataset: BatchDataset) -> None:
    shards = [rows_of(TrainingOrder(dataset, 64, rank=rank, world_size=2)) for rank in range(2)]
    assert [len(batch) for shard in shards for batch in shard] == [51, 51]
    assert not set(shards[0][0]) & set(shards[1][0])


def test_fewer_images_than_processes(dataset: BatchDataset) -> None:
    with pytest.raises(DataError, match="103 training images are too few for 104 processes"):
        TrainingOrder(dataset, 1, world_size=104)


@pytest.mark.parametrize("world_size", [1, 2, 4, 104])
def test_evaluation_keeps_order_drops_and_repeats_nothing(dataset: BatchDataset, world_size: int) -> None:
    orders = [EvaluationOrder(dataset, 20, rank=rank, world_size=world_size) for rank in range(world_size)]
    shards = [rows_of(order) for order in orders]
    assert [row for shard in shards for batch in shard for row in batch] == list(range(103))
    assert [len(shard) for shard in shards] == [len(order) for order in orders]
    sizes = [sum(map(len, shard)) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    assert all(batch.flip is None for batch in orders[0])


def test_flips_are_decided_by_seed_epoch_and_row(dataset: BatchDataset) -> None:
    def flips(batch_size: int, epoch: int = 0, **arguments: int) -> dict[int, bool]:
        order = TrainingOrder(dataset, batch_size, horizontal_flip=True, **arguments)
        order.set_epoch(epoch)
        return {row: flip for rows, mask in order for row, flip in zip(rows.tolist(), mask.tolist(), strict=True)}

    first = flips(103)
    assert flips(1) == first
    assert flips(1, rank=1, world_size=2).items() <= first.items()
    assert 30 < sum(first.values()) < 73
    assert flips(103, epoch=1) != first
    assert flips(103, seed=1) != first


def test_flip_mirrors_the_chosen_images(dataset: BatchDataset) -> None:
    images = dataset.gather(np.arange(4))
    flip = torch.tensor([True, False, False, True])
    flipped = flip_on_device(images, flip)
    expected = np.stack(
        [np.fliplr(image) if chosen else image for image, chosen in zip(dataset.images[:4], flip.tolist(), strict=True)]
    )
    np.testing.assert_array_equal(flipped.permute(0, 2, 3, 1).numpy(), expected)
    assert flipped.is_contiguous(memory_format=torch.channels_last)


def test_replaced_sampler_is_explained(dataset: BatchDataset) -> None:
    with pytest.raises(DataError, match=r"overfit_batches; use data\.train_size"):
        dataset[3]  # what a SequentialSampler would ask for
