"""Weights of feature networks: where they are looked for, by what they are known, and how they are loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from stand_ins import CPU, random_weights
from torch import nn

from vae_lightning.evaluation.feature_networks import (
    ALEXNET,
    INCEPTION,
    FeatureNetwork,
    WeightsMissing,
    examine_weights,
    find_weights,
    load_inception,
    load_lpips,
    weights_digest,
)
from vae_lightning.evaluation.metric import EvaluationError


@pytest.fixture(scope="module")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory, ALEXNET, INCEPTION)


@pytest.mark.parametrize("name", INCEPTION.file_names)
def test_weights_are_found_by_name_in_a_folder_as_a_file_and_in_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "hub" / "checkpoints" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    (file.parent / ALEXNET.file_name).write_bytes(b"other weights")
    assert find_weights(INCEPTION, file.parent) == file
    assert find_weights(INCEPTION, file) == file
    with pytest.raises(WeightsMissing):
        find_weights(INCEPTION, None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert find_weights(INCEPTION, None) == file
    assert find_weights(INCEPTION, tmp_path) == file  # a folder without them does not hide the hub's


def test_missing_weights_say_where_they_come_from_and_belong(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsMissing, match=r"https://download\.pytorch\.org/models/alexnet-owt-7be5be79\.pth .*--wei"
    ):
        find_weights(ALEXNET, tmp_path)
    with pytest.raises(WeightsMissing, match=r"toshas.*put it at .*hub/checkpoints/weights-inception-2015-12-05-6726"):
        find_weights(INCEPTION, None)


def test_a_path_that_is_not_there_or_tells_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="nowhere does not exist"):
        find_weights(INCEPTION, tmp_path / "nowhere")
    (tmp_path / "mine.pth").write_bytes(b"weights")
    with pytest.raises(EvaluationError, match=r"mine\.pth: the file's name.*rename"):
        weights_digest(INCEPTION, str(tmp_path / "mine.pth"))


def test_official_weights_are_known_by_their_hash(tmp_path: Path) -> None:
    file = tmp_path / "net-12345678.pth"
    file.write_bytes(b"abc")
    network = FeatureNetwork("a network", "https://example.org/net-12345678.pth", (), 1)
    found = examine_weights(network, str(tmp_path))
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc", FIPS 180-2
    assert found.protocol() == {"file": file.name, "sha256": sha256, "official": False}
    assert "not the official weights" in found.warning()
    file.rename(tmp_path / "net-ba7816bf.pth")
    network = FeatureNetwork("a network", "https://example.org/net-ba7816bf.pth", (), 1)
    assert examine_weights(network, str(tmp_path)).official
    assert examine_weights(network, str(tmp_path)).warning() == ""


@pytest.mark.parametrize(("network", "load"), [(ALEXNET, load_lpips), (INCEPTION, load_inception)])
def test_damaged_and_other_weights_are_named(
    network: FeatureNetwork, load: Callable[..., nn.Module], weights_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / network.file_name
    file.write_bytes((weights_folder / network.file_name).read_bytes()[:100_000])
    with pytest.raises(EvaluationError, match=rf"{file} is damaged .*fetch https://"):
        load(file, CPU)
    torch.save({"layer.weight": torch.zeros(3)}, file)
    with pytest.raises(EvaluationError, match=rf"{file} .*does not hold the weights of {network.name}"):
        load(file, CPU)


def test_loading_changes_neither_the_hub_nor_the_random_state(
    weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, state = torch.hub.get_dir(), torch.get_rng_state()
    load_lpips(weights_folder / ALEXNET.file_name, CPU)
    assert torch.hub.get_dir() == before
    torch.testing.assert_close(torch.get_rng_state(), state)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert torch.hub.get_dir() == str(tmp_path / "hub")  # still read from the environment
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "set"))  # what set_dir() does, undone after the test
    load_lpips(weights_folder / ALEXNET.file_name, CPU)
    assert torch.hub.get_dir() == str(tmp_path / "set")
