"""Checkpoints, models and fitted files from strangers: nothing in them runs, nothing grows."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_runs import checkpoint, fit_everything, write_exported, write_run

from callbacks.continuation import WholeCheckpoints
from vae_lightning import load_run
from vae_lightning.evaluation.feature_networks import load_lpips
from vae_lightning.evaluation.metric import EvaluationError
from vae_lightning.losses.perceptual import load_vgg16_features
from vae_lightning.recognition.load import load_recognizer
from vae_lightning.recognition.network import load_weights
from vae_lightning.runs.checkpoints import EXPORT_FORMAT, build_reconstruction, checkpoint_to_resume, read_checkpoint
from vae_lightning.runs.data_record import data_settings
from vae_lightning.runs.fitted import direction_file, prior_file, statistics_file
from vae_lightning.runs.layout import RECORD_KEY, RunError

Damage = Callable[[dict[str, Any]], object]
MODEL, RECORD = "vae_lightning.models.", RECORD_KEY


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def change(run: Path, damage: Damage) -> Path:
    content = torch.load(checkpoint(run))
    damage(content)
    torch.save(content, checkpoint(run))
    return run


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.path}'",)


READERS: dict[str, Callable[[Path], object]] = {
    "checkpoint": lambda run: load_run(run),
    "recognizer": lambda run: load_recognizer(checkpoint(run)),
    "priors": lambda run: prior_file(checkpoint(run)).read("gmm"),
    "directions": lambda run: direction_file(checkpoint(run)).read(),
    "statistics": lambda run: statistics_file(checkpoint(run)).read(),
    "VGG16": lambda run: load_vgg16_features(checkpoint(run), 2),
    "AlexNet": lambda run: load_lpips(checkpoint(run), torch.device("cpu")),
    "ResNet18": lambda run: load_weights(torch.nn.Linear(1, 1), checkpoint(run)),
}


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("reader", READERS)
def test_a_malicious_pickle_is_refused_and_does_not_run(reader: str, old_format: bool, run: Path) -> None:
    fit_everything(run)
    written, proof = io.BytesIO(), run / "it_ran"
    torch.save({"state_dict": Touch(proof)}, written, _use_new_zipfile_serialization=not old_format)
    beside = {"priors": "best.priors.pt", "directions": "best.directions.pt", "statistics": "best.latents.pt"}
    (run / "checkpoints" / beside.get(reader, "best.ckpt")).write_bytes(written.getvalue())
    with pytest.raises(ValueError, match="more than plain data"):
        READERS[reader](run)
    assert not proof.exists()
    if not old_format:
        with zipfile.ZipFile(io.BytesIO(written.getvalue())) as archive:
            pickle.loads(next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")))
        assert proof.exists()  # it is as malicious as it should be


NODE = {"_target_": "os.system", "command": "true"}
NAMED: dict[str, Damage] = {
    "model": lambda content: content[RECORD]["config"].update(model=NODE),
    "a function of ours": lambda content: content[RECORD]["config"]["model"].update(
        _target_="vae_lightning.data.sources.source.os.system"
    ),
    "widths": lambda content: content[RECORD]["config"]["model"].update(widths=NODE),
    "list": lambda content: content[RECORD]["config"]["model"].update(widths=[NODE, NODE]),
    "blocks": lambda content: content[RECORD]["config"].update(
        model={"_target_": f"{MODEL}ResidualVAE", "num_blocks": NODE}
    ),
    "data": lambda content: content[RECORD]["config"].update(data={**content[RECORD]["config"]["data"], "crop": NODE}),
    "target of data": lambda content: content[RECORD]["config"]["data"].update(_target_="os.system"),
}


@pytest.mark.parametrize("place", NAMED)
def test_a_configuration_that_names_a_program_is_refused(
    place: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(os, "system", ran.append)
    change(run, NAMED[place])
    if place == "target of data":  # whatever it says, the data module is ours
        assert "_target_" not in data_settings(load_run(run).record)
    else:
        with pytest.raises(RunError, match=r"asks for|cannot be built|cannot open"):
            load_run(run)
    assert not ran


def test_terms_and_classifiers_are_built_from_their_rooms_only(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(os, "system", ran.append)
    change(run, lambda content: content[RECORD]["config"].update(reconstruction=NODE, recognizer=NODE))
    with pytest.raises(RunError, match=r"os\.system.*may be built"):
        build_reconstruction(read_checkpoint(checkpoint(run)))
    with pytest.raises(ValueError, match=r"os\.system.*may be built"):
        load_recognizer(run)
    assert not ran


LARGE: dict[str, dict[str, Any]] = {
    "latents": {"latent_dim": 10**9},
    "widths": {"widths": [10**7, 10**7]},
    "image": {"image_size": 2**40},
    "blocks": {"_target_": f"{MODEL}ResidualVAE", "num_blocks": 10**9, "widths": [8, 8]},
    "hidden": {"_target_": f"{MODEL}LinearVAE", "hidden_dim": 10**8, "widths": None},
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("what", LARGE)
def test_a_model_larger_than_its_file_is_refused_before_it_is_allocated(what: str, run: Path) -> None:
    def claim(content: dict[str, Any]) -> None:
        model = content[RECORD]["config"]["model"] | LARGE[what]
        content[RECORD]["config"]["model"] = {name: value for name, value in model.items() if value is not None}

    with pytest.raises(RunError, match=r"cannot be built|differ in name, shape or type"):
        load_run(change(run, claim))


def shared(content: dict[str, Any]) -> None:
    """Every weight is the same few bytes."""
    numbers = torch.zeros(max(weights.numel() for weights in content["state_dict"].values()))
    for name, weights in content["state_dict"].items():
        content["state_dict"][name] = numbers[: weights.numel()].view(weights.shape)


def expand(content: dict[str, Any]) -> None:
    content["state_dict"]["model.encoder.0.weight"] = torch.zeros(1).expand(10**12)


def replace_weight(change_of: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    def damage(content: dict[str, Any]) -> None:
        name = "model.encoder.0.weight"
        content["state_dict"][name] = change_of(content["state_dict"][name])

    return damage


MALFORMED: dict[str, Damage] = {
    "format": lambda content: content[RECORD].update(format="x"),
    "no format": lambda content: content[RECORD].pop("format"),
    "record": lambda content: content.update({RECORD: [1]}),
    "no config": lambda content: content[RECORD].pop("config"),
    "config of numbers": lambda content: content[RECORD].update(config={1: 2}),
    "no target": lambda content: content[RECORD]["config"]["model"].pop("_target_"),
    "target": lambda content: content[RECORD]["config"]["model"].update(_target_=["os.system"]),
    "argument": lambda content: content[RECORD]["config"]["model"].update(unknown=1),
    "weights": lambda content: content.update(state_dict="x"),
    "no weights": lambda content: content.pop("state_dict"),
    "a weight": lambda content: content["state_dict"].update({"model.encoder.0.weight": 3}),
    "missing weight": lambda content: content["state_dict"].pop("model.encoder.0.weight"),
    "expanded weight": expand,
    "shared weights": shared,
    "sparse weight": replace_weight(torch.Tensor.to_sparse),
    "weight without content": replace_weight(lambda weights: weights.to("meta")),
    "complex weight": replace_weight(lambda weights: weights.to(torch.complex64)),
    "epoch": lambda content: content.update(epoch="x"),
    "epoch before the first": lambda content: content.update(epoch=-5),
    "no data": lambda content: content[RECORD].update(data=None),
    "data": lambda content: content[RECORD]["config"].update(data="x"),
    "crop": lambda content: content[RECORD]["config"]["data"].update(crop="x"),
    "source": lambda content: content[RECORD]["data"].update(source="\x1b[31m"),
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor", "ignore:Sparse invariant checks")
@pytest.mark.parametrize("what", MALFORMED)
def test_a_checkpoint_that_is_not_as_it_should_be_ends_in_one_line(what: str, run: Path) -> None:
    with pytest.raises(RunError) as caught:
        load_run(change(run, MALFORMED[what]))
    assert str(caught.value).isprintable()
    assert str(checkpoint(run)) in str(caught.value)


def test_weights_of_another_precision_are_weights_all_the_same(run: Path) -> None:
    def halve(content: dict[str, Any]) -> None:
        content["state_dict"] = {name: each.bfloat16() for name, each in content["state_dict"].items()}

    expected = {name: each.bfloat16().float() for name, each in load_run(run).model.state_dict().items()}
    loaded = load_run(change(run, halve)).model.state_dict()
    assert all(loaded[name].dtype == torch.float32 and loaded[name].equal(expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [("unknown", 1), ("batch_size", "x"), ("seed", -1), ("seed", 2**60), ("horizontal_flip", 0.5), ("data_dir", 3)],
)
def test_settings_of_data_are_those_of_the_data_module(name: str, value: object, run: Path) -> None:
    loaded = load_run(change(run, lambda content: content[RECORD]["config"]["data"].update({name: value})))
    with pytest.raises(RunError, match=rf"{name}={value}"):
        data_settings(loaded.record)


def test_zip_files_that_pytorch_does_not_write_are_refused(run: Path) -> None:
    with zipfile.ZipFile(checkpoint(run), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(40 * 2**20))  # a bomb, which must not be unpacked
    with pytest.raises(RunError, match="compressed or encrypted"):
        load_run(run)
    with zipfile.ZipFile(checkpoint(run), "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.comment = bytes(5000)
    with pytest.raises(RunError, match="finds no table of its parts"):
        load_run(run)


@pytest.mark.usefixtures("little_memory")
def test_parts_that_claim_more_than_the_file_are_refused(run: Path) -> None:
    content = bytearray(checkpoint(run).read_bytes())
    first = content.index(b"PK\x01\x02")  # of the directory: sizes stand 20 and 24 bytes further on
    struct.pack_into("<II", content, first + 20, 2**31, 2**31)
    checkpoint(run).write_bytes(content)
    with pytest.raises(RunError, match=r"its parts claim 2,147,\d{3},\d{3} bytes"):
        load_run(run)


@pytest.mark.usefixtures("little_memory")
def test_exported_models_from_strangers(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    described = write_exported(folder, run)
    config, weights = folder / "config.json", folder / "model.safetensors"
    whole = weights.read_bytes()
    for text in ("[" * 100_000, "[]", json.dumps({**described, "record": 3}), json.dumps({**described, "format": [1]})):
        config.write_text(text)
        with pytest.raises(RunError, match=r"exported|config\.json"):
            load_run(folder)
    config.write_text(json.dumps({**described, "format": EXPORT_FORMAT + 1}))
    with pytest.raises(RunError, match="update vae-lightning"):
        load_run(folder)
    config.unlink()
    with pytest.raises(RunError, match=r"config\.json"):
        load_run(folder)
    config.write_text(json.dumps(described))
    header = b'{"a":{"dtype":"F32","shape":[1000000000,1000],"data_offsets":[0,4]}}'
    too_large = struct.pack("<Q", len(header)) + header + b"1234"
    sizes = [struct.pack("<Q", size) + b"{}" for size in (2**60, 99_000_000)]
    for content in (b"", *sizes, whole[:-9], too_large):
        weights.write_bytes(content)
        with pytest.raises(RunError, match="exported model"):
            load_run(folder)
    weights.write_bytes(whole)
    assert load_run(folder).sample(1, seed=0).equal(load_run(run).sample(1, seed=0))


@pytest.mark.usefixtures("little_memory")
def test_fitted_files_from_strangers(run: Path) -> None:
    fit_everything(run)
    priors, directions = prior_file(checkpoint(run)), direction_file(checkpoint(run))
    large = {"settings": {"layers": 1, "hidden": 40_000}, "tensors": {"couplings.layers.0.order": torch.arange(6)}}
    large["tensors"] |= {"whitening.mean": torch.zeros(6), "whitening.cholesky": torch.eye(6)}
    unequal = {"weights": torch.ones(2), "means": torch.zeros(2, 6), "choleskys": torch.zeros(2, 5, 5)}
    for name, kept in (
        ("flow", large),
        ("gmm", {"settings": {}, "tensors": unequal}),
        ("gmm", {"settings": {}, "tensors": {**unequal, "weights": torch.full((2,), torch.nan)}}),
        ("gaussian", {"settings": {}, "tensors": {"mean": torch.zeros(6), "cholesky": torch.full((6, 6), torch.nan)}}),
    ):
        priors.keep(priors={name: kept})
        with pytest.raises(ValueError, match=r"holds no fitted priors.*delete it to fit them again"):
            load_run(run).prior(name)
    whole = torch.load(directions.path)["directions"]
    for changed in ({"names": ("Smiling", "\x1b[2J")}, {"names": ("a", "a")}, {"normals": torch.zeros(2, 5)}):
        directions.keep(directions=whole | changed)
        with pytest.raises(ValueError, match=r"holds no directions.*delete it"):
            load_run(run).directions()


def test_nothing_is_written_where_a_strangers_checkpoint_says(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    elsewhere.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    change(run, lambda content: content[RECORD]["config"]["data"].update(data_dir=str(elsewhere)))
    assert data_settings(load_run(run).record)["data_dir"] == "data"
    (elsewhere / "cache").mkdir()  # where images were decoded before, they may be decoded again
    assert data_settings(load_run(run).record)["data_dir"] == str(elsewhere)


@pytest.mark.parametrize(("error", "load"), [(ValueError, "VGG16"), (EvaluationError, "AlexNet")])
def test_weights_of_other_networks_are_named(error: type[ValueError], load: str, run: Path) -> None:
    with pytest.raises(error, match=r"best\.ckpt"):
        READERS[load](run)


def test_a_model_with_weights_that_are_no_numbers_is_loaded_with_a_word(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change(run, lambda content: content["state_dict"]["model.encoder.0.weight"].fill_(torch.nan))
    assert load_run(run).encode(Image.new("RGB", (200, 300))).mean.isnan().all()
    assert "its weights hold nan or inf" in caplog.text


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("name", ["best", "last"])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: b"", "it is empty"),
        (lambda content: bytes(len(content)), "begins with zeros, as after a power failure"),
        (half, "its end is missing, as after a full disk"),
        (lambda content: half(content) + bytes(len(content) // 2), "its end is missing"),
        (lambda content: b"hello", "not a PyTorch file, or a damaged one"),
        (lambda content: pickle.dumps({"state_dict": {}}), "not a PyTorch file"),
        (lambda content: foreign(), "does not say how its model is built"),
    ],
)
def test_a_damaged_checkpoint_names_what_to_take_instead(
    damage: Callable[[bytes], bytes], reason: str, name: str, run: Path
) -> None:
    best = checkpoint(run)
    last = best.with_name("last.ckpt")
    last.write_bytes(best.read_bytes())
    damaged = best if name == "best" else last
    damaged.write_bytes(damage(damaged.read_bytes()))
    with pytest.raises(RunError, match=reason) as caught:
        load_run(run, name)
    words = str(caught.value)
    assert ("--checkpoint last" if name == "best" else f"best epoch is in {best}") in words
    assert words.isprintable()
    assert not any(advice in words for advice in ("weights_only", "trust", "add_safe_globals", "torch.load"))
    if name == "last":
        with pytest.raises(RunError, match=rf"best epoch is in {best}.* copy it to {last} to resume"):
            checkpoint_to_resume("last", run)
        best.unlink()
        with pytest.raises(RunError, match="or delete it: the command that started the run then starts it from the"):
            checkpoint_to_resume("last", run)
        with pytest.raises(RunError, match="last\\.ckpt"):
            WholeCheckpoints().load_checkpoint(last)


def foreign() -> bytes:
    written = io.BytesIO()
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.0"}, written)
    return written.getvalue()
