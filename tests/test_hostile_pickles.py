"""PyTorch files of a few kilobytes that stand for gigabytes or for hours: refused before anything is built."""

import codecs
import collections
import io
import pickle
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import checkpoint, fit_everything, write_run

from vae_lightning import load_run
from vae_lightning.runs.checkpoints import checkpoint_to_resume, read_checkpoint
from vae_lightning.runs.fitted import direction_file, prior_file, statistics_file
from vae_lightning.runs.layout import RECORD_KEY, RunError
from vae_lightning.system.tensor_files import TensorFileError, read_tensors

GIB = 2**30


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class Numbers:
    """A storage of the file."""

    def __init__(self, key: str, count: int, kind: Any = torch.FloatStorage) -> None:
        self.identifier = ("storage", kind, key, "cpu", count)


class Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.identifier if isinstance(obj, Numbers) else None


def pickled(content: Any) -> bytes:
    written = io.BytesIO()
    Pickler(written, protocol=2).dump(content)
    return written.getvalue()


def write_zip(path: Path, pickle_bytes: bytes, parts: dict[str, bytes] | None = None) -> Path:
    """What torch.save writes, with any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle_bytes)
        for name, part in {"version": b"3\n", "byteorder": b"little", **(parts or {})}.items():
            archive.writestr(f"archive/{name}", part)
    return path


def tensor(
    storage: Numbers, shape: tuple[int, ...], stride: tuple[int, ...] = (1,), offset: int = 0, hooks: Any = None
) -> Calls:
    hooks = Calls(collections.OrderedDict) if hooks is None else hooks
    return Calls(torch._utils._rebuild_tensor_v2, storage, offset, shape, stride, False, hooks)


def nested(times: int, inner: Any, make: Callable[[list[Any]], Any] = list) -> Any:
    value = inner
    for _ in range(times):
        value = make([value, value])
    return value


def itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def twice(codec: str, times: int) -> Any:
    value: Any = Calls(codecs.encode, "00", "latin1")
    for _ in range(times):
        value = Calls(codecs.encode, value, codec)
    return value


FILE_OF_TWO = {"data/0": struct.pack("<ff", 1, 2)}
PAIRS: list[list[Any]] = [[str(number), number] for number in range(1_200)]
HUGE: dict[str, Callable[[], Any]] = {
    "bytearray": lambda: Calls(bytearray, 3 * GIB),
    "bytes": lambda: Calls(bytes, 3 * GIB),
    "encoders": lambda: twice("hex", 34),
    "list": lambda: Calls(list, Calls(range, GIB)),
    "set": lambda: Calls(set, [1, 2]),
    "counter": lambda: Calls(collections.Counter, ["a"]),
    "size": lambda: Calls(torch.Size, tuple(range(1_000))),
    "tensor": lambda: Calls(torch.Tensor, GIB),
    "typed tensor": lambda: Calls(torch.FloatTensor, GIB),
    "parameter": lambda: Calls(torch.nn.Parameter, Calls(torch.Tensor, GIB)),
    "storage": lambda: Calls(torch.UntypedStorage, 3 * GIB),
    "typed storage": lambda: Calls(torch.storage.TypedStorage, 3 * GIB),
    "meta tensor": lambda: Calls(torch._utils._rebuild_meta_tensor_no_storage, torch.float32, (GIB,), (1,), False),
    "quantized": lambda: Calls(torch._utils._rebuild_qtensor, Numbers("0", 2), 0, (GIB,), (1,), (), False, ()),
    "storage's count": lambda: tensor(Numbers("0", GIB), (GIB,)),
    "storage's type": lambda: tensor(Numbers("0", 2, torch.DoubleStorage), (2,)),
    "storage that is missing": lambda: tensor(Numbers("../0", 2), (2,)),
    "tensor beyond its storage": lambda: tensor(Numbers("0", 2), (2,), offset=1),
    "stride": lambda: tensor(Numbers("0", 2), (2,), (2**40,)),
    "negative stride": lambda: tensor(Numbers("0", 2), (2,), (-1,)),
    "repeated": lambda: tensor(Numbers("0", 2), (GIB,), (0,)),
    "dimensions": lambda: tensor(Numbers("0", 2), (1,) * 1_000, (1,) * 1_000),
    "hooks": lambda: tensor(Numbers("0", 2), (2,), hooks=[[1]]),
    "lists in themselves": lambda: nested(28, "x"),
    "dicts in themselves": lambda: nested(28, {}, lambda pair: dict(enumerate(pair))),
    "a list that holds itself": itself,
    "levels": lambda: nested_once(400),
    "a long text, often": lambda: ["x" * 100_000] * 1_000,
    "copies": lambda: [Calls(collections.OrderedDict, PAIRS) for _ in range(900)],
    "colliding keys": lambda: {number * (2**61 - 1): 0 for number in range(2, 3_000)},
}
OPERATIONS = {
    "bytearray of protocol 5": b"\x80\x05\x96" + struct.pack("<Q", 3 * GIB),
    "bytes of protocol 4": b"\x80\x04\x8e" + struct.pack("<Q", 3 * GIB),
    "a long number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1),
    "a long text": b"\x80\x02X" + struct.pack("<I", 2**32 - 1),
    "a number in the memory": b"\x80\x02]r\xff\xff\xff\x7f]j\xff\xff\xff\x7fq",
    "levels": b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b".",
    "a key of tuples": b"\x80\x02}N" + b"q\x01h\x01\x86" * 40 + b"Ns.",
    "a class": b"\x80\x02ctorch\nTensor\n)\x81.",
    "no end": b"\x80\x02]",
    "too many marks": b"\x80\x02t.",
    "an empty stack": b"\x80\x02a.",
    "a large pickle": b"\x80\x02" + b"N0" * 2**21 + b"N.",
}


def nested_once(times: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(times):
        value = [value]
    return value


@pytest.fixture
def quickly() -> Iterator[None]:
    started = time.process_time()
    yield
    assert time.process_time() - started < 5


@pytest.mark.usefixtures("little_memory", "quickly")
@pytest.mark.parametrize("what", HUGE)
def test_a_small_file_that_stands_for_much_is_refused_before_it_is_built(what: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.ckpt", pickled({"kept": HUGE[what]()}), FILE_OF_TWO)
    with pytest.raises(TensorFileError) as caught:
        read_tensors(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.usefixtures("little_memory", "quickly")
@pytest.mark.parametrize("what", OPERATIONS)
def test_operations_of_a_pickle_that_pytorch_does_not_write_are_refused(what: str, tmp_path: Path) -> None:
    with pytest.raises(TensorFileError):
        read_tensors(write_zip(tmp_path / "a.ckpt", OPERATIONS[what]))
    (tmp_path / "old.ckpt").write_bytes(OPERATIONS[what])
    with pytest.raises(TensorFileError):
        read_tensors(tmp_path / "old.ckpt")


PLACES: dict[str, Callable[[dict[str, Any], Any], object]] = {
    "a key that nobody reads": lambda content, value: content.update(other=value),
    "target": lambda content, value: content[RECORD_KEY]["config"]["model"].update(_target_=value),
    "argument": lambda content, value: content[RECORD_KEY]["config"]["model"].update(widths=value),
    "data": lambda content, value: content[RECORD_KEY]["config"]["data"].update(crop=value),
    "record": lambda content, value: content[RECORD_KEY].update(versions=value),
    "weights": lambda content, value: content["state_dict"].update(other=value),
    "attributes of the weights": lambda content, value: setattr(content["state_dict"], "_metadata", {"": value}),
}


@pytest.mark.usefixtures("little_memory", "quickly")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("what", ["bytearray", "lists in themselves"])
def test_wherever_it_stands_in_a_checkpoint(what: str, place: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    content = torch.load(checkpoint(run))
    content["state_dict"] = collections.OrderedDict(content["state_dict"])
    PLACES[place](content, HUGE[what]())
    torch.save(content, checkpoint(run))
    for read in (load_run, lambda path: checkpoint_to_resume(str(checkpoint(path)), path)):
        with pytest.raises(RunError, match=r"best\.ckpt") as caught:
            read(run)
        assert str(caught.value).isprintable()


@pytest.mark.usefixtures("little_memory", "quickly")
def test_fitted_files_are_bounded_alike(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    fit_everything(run)
    for file, read in (
        (prior_file(checkpoint(run)), lambda file: file.read("gmm")),
        (direction_file(checkpoint(run)), lambda file: file.read()),
        (statistics_file(checkpoint(run)), lambda file: file.read()),
    ):
        content = torch.load(file.path)
        for what in ("bytearray", "lists in themselves"):
            torch.save({**content, "other": HUGE[what]()}, file.path)
            with pytest.raises(ValueError, match="delete it to fit them again"):
                read(file)


@pytest.mark.usefixtures("little_memory")
def test_a_file_of_the_old_format_holds_what_its_tensors_claim(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    kept = collections.OrderedDict(a=torch.arange(6.0), b=torch.ones(2, 3).t(), c=torch.tensor(3))
    torch.save(kept, path, _use_new_zipfile_serialization=False)
    read = read_tensors(path)
    assert all(read[name].equal(value) for name, value in kept.items())
    content = path.read_bytes()
    count = content.index(b"cpu") + 3
    assert content[count + 2 : count + 4] == b"K\x06"  # after the memo's number
    claims = content[: count + 2] + b"J" + struct.pack("<i", 2**30) + content[count + 4 :]
    path.write_bytes(claims)
    with pytest.raises(TensorFileError, match=r"claim 4,294,967,\d{3} bytes, and the file has \d\d"):
        read_tensors(path)


def test_two_readers_of_one_file_see_the_same_parts(tmp_path: Path) -> None:
    """Python measures from the end of a zip file, PyTorch follows the numbers there."""
    harmless, other = (pickled({"kept": value}) for value in (1, Calls(bytearray, 3 * GIB)))
    torch.save({"kept": torch.ones(2)}, tmp_path / "long.ckpt")
    assert read_tensors(tmp_path / "long.ckpt")["kept"].equal(torch.ones(2))
    behind = write_zip(tmp_path / "a.ckpt", other).read_bytes() + write_zip(tmp_path / "b.ckpt", harmless).read_bytes()
    (tmp_path / "two.ckpt").write_bytes(behind)
    with pytest.raises(TensorFileError, match="finds no table"):
        read_tensors(tmp_path / "two.ckpt")
    long = bytearray((tmp_path / "long.ckpt").read_bytes())
    struct.pack_into("<Q", long, len(long) - 34, 0)
    (tmp_path / "elsewhere.ckpt").write_bytes(long)
    with pytest.raises(TensorFileError, match="finds no table"):
        read_tensors(tmp_path / "elsewhere.ckpt")
    with zipfile.ZipFile(tmp_path / "same.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", other)
        archive.writestr("archive/DATA.pkl", harmless)
    with pytest.raises(TensorFileError, match="two of its parts have one name"):
        read_tensors(tmp_path / "same.ckpt")


def test_all_that_training_writes_is_read(tmp_path: Path) -> None:
    """Weights of every type, an optimizer's state, parameters, views, empty tensors and plain data."""
    types = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
    tensors = {str(each): torch.ones(3, 2).to(each) for each in (*types, torch.int8, torch.uint8, torch.bool)}
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    content: dict[str, Any] = {
        **tensors,
        "weights": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "view": torch.arange(12.0).view(3, 4)[1:, ::2].t(),
        "channels_last": torch.ones(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "none": torch.zeros(0, 5),
        "scalar": torch.tensor(2.5),
        "plain": [1, -1, 2**60, 1.5, True, None, "ä", (1, (2,)), {"a": {}, 3: []}, float("inf")],
        "size": torch.Size([1, 2]),
    }
    torch.save(content, tmp_path / "a.ckpt")
    read = read_tensors(tmp_path / "a.ckpt")
    assert read["plain"] == content["plain"]
    assert all(read[name].equal(value) for name, value in content.items() if isinstance(value, torch.Tensor))
    assert read["optimizer"]["state"].keys() == content["optimizer"]["state"].keys()
    with pytest.raises(RunError, match="does not say how its model is built"):
        read_checkpoint(tmp_path / "a.ckpt")
