"""Steps through the pickle of a PyTorch file before PyTorch builds anything from it.

`torch.load(weights_only=True)` runs no program, but it allocates what the pickle asks for (`bytearray(2**40)`), joins
what was made before (an encoder applied to its own result), and hashes keys that hold each other: some hundred bytes
take all memory, or all time. Here only those operations and functions are known that `torch.save` writes for plain data
and dense tensors; tensors are places in the file's storages.
"""

import math
import pickletools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from vae_lightning.system.plain_files import DEEPEST, LARGEST_NUMBER, MOST_LETTERS

MOST_BYTES = 4 * 2**20  # of the pickle; the one of a model with 62 weights and their Adam has 13 KB
MOST_VALUES = 1_000_000  # in it, where what is repeated counts each time
MOST_ATTRIBUTES = 8  # of an OrderedDict: a state_dict has `_metadata`
MOST_DIMENSIONS = 16
ORDERED_DICT = "collections OrderedDict"
TENSORS = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor")
PARAMETER = "torch._utils _rebuild_parameter"
SIZE = "torch Size"
BYTES_OF = {  # of one number in a storage
    **dict.fromkeys(("torch ByteStorage", "torch CharStorage", "torch BoolStorage"), 1),
    **dict.fromkeys(("torch HalfStorage", "torch BFloat16Storage", "torch ShortStorage"), 2),
    **dict.fromkeys(("torch FloatStorage", "torch IntStorage"), 4),
    **dict.fromkeys(("torch DoubleStorage", "torch LongStorage", "torch ComplexFloatStorage"), 8),
    "torch ComplexDoubleStorage": 16,
}


class PickleError(ValueError):
    """A pickle that PyTorch does not write for plain data and tensors; the message is the reason."""


class Name(NamedTuple):
    """A class or function, which is not looked up."""

    name: str


class Storage(NamedTuple):
    """Numbers in the file, by their name there."""

    key: str
    bytes_each: int
    numel: int


class Extent(NamedTuple):
    values: int
    letters: int
    levels: int


TOO_MUCH = Extent(MOST_VALUES + 1, 0, 0)
TENSOR = object()  # in the place of every tensor


def check_pickle(file: Any, may_repeat: bool) -> dict[str, int]:
    """Steps through one pickle.

    Args:
        file: bytes, or a file that is read from its position to the end of the pickle.
        may_repeat: allows tensors that are larger than their storage because they repeat values.

    Returns:
        The bytes that each storage claims.

    Raises:
        PickleError: the pickle does what `torch.save` does not write, or stands for more than MOST_VALUES values.
    """
    steps = _Steps(may_repeat)
    try:
        start = 0 if isinstance(file, bytes) else file.tell()
        for operation, argument, position in pickletools.genops(file):
            if (position or 0) - start > MOST_BYTES:
                raise PickleError(f"its pickle has more than {MOST_BYTES:,} bytes")
            steps.take(operation.name, argument)
        steps.extent_of([*steps.stack, *steps.attributes])
    except PickleError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise PickleError("it is not a PyTorch file, or a damaged one") from error
    return steps.storages


class _Steps:
    """A pickle machine that calls nothing: containers are made, tensors and classes are named."""

    def __init__(self, may_repeat: bool) -> None:
        self.may_repeat = may_repeat
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, int] = {}
        self.attributes: list[dict[str, Any]] = []
        self.num_copied = 0
        self.extents: dict[int, Extent] = {}  # of finished containers, by their id

    def take(self, operation: str, argument: Any) -> None:
        if operation in PUSHED:
            self.stack.append(argument)
        elif operation in MADE:
            self.stack.append(MADE[operation]())
        else:
            KNOWN.get(operation, _refuse)(self, argument)

    def extent_of(self, value: Any, level: int = 0) -> Extent:
        """Counts what is repeated each time, and looks at it once.

        Raises:
            PickleError: more than MOST_VALUES values, MOST_LETTERS letters or DEEPEST levels.
        """
        if isinstance(value, str):
            return Extent(1, len(value), 0)
        if not isinstance(value, list | tuple | dict):
            return Extent(1, 0, 0)
        if id(value) not in self.extents and level <= DEEPEST:
            children = [*value, *value.values()] if isinstance(value, dict) else value
            parts = [self.extent_of(each, level + 1) for each in children]
            values, letters = (sum(counts) for counts in ([part[0] for part in parts], [part[1] for part in parts]))
            self.extents[id(value)] = Extent(1 + values, letters, 1 + max((part.levels for part in parts), default=0))
        extent = self.extents.get(id(value), TOO_MUCH)
        if extent.values > MOST_VALUES or extent.letters > MOST_LETTERS or level + extent.levels > DEEPEST:
            raise PickleError(
                f"it stands for more than {MOST_VALUES:,} values, {MOST_LETTERS:,} letters or {DEEPEST} levels"
            )
        return extent

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def extend(self, items: Sequence[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise PickleError("it appends to what is no list")
        self.stack[-1].extend(items)

    def set_items(self, items: Sequence[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise PickleError("it sets items of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            is_number = isinstance(key, int | float) and abs(key) <= LARGEST_NUMBER
            if not (isinstance(key, str) or is_number or key is None):
                raise PickleError("a dict in it has a key that is neither a text nor a number")
            target[key] = value

    def call(self, arguments: Any) -> None:
        """Puts the result in the place of the function."""
        function = self.stack.pop().name
        if function == ORDERED_DICT:
            self.stack.append({})
            self.set_items(self.copied_pairs(*arguments))
        elif function in TENSORS:
            self.check_tensor(*arguments)
            self.stack.append(TENSOR)
        elif function == PARAMETER and arguments[0] is TENSOR:
            self.stack.append(TENSOR)
        elif function == SIZE and len(arguments) == 1 and len(_whole(arguments[0])) <= MOST_DIMENSIONS:
            self.stack.append(arguments[0])
        else:
            raise PickleError(f"it holds more than plain data: it calls {function.replace(' ', '.')[:80]!r}")

    def copied_pairs(self, pairs: Sequence[list[Any]] = ()) -> list[Any]:
        """Keys and values by turns; Python 2 made an OrderedDict of a list of pairs, which a pickle might use often."""
        self.num_copied += len(pairs)
        if self.num_copied > MOST_VALUES:
            raise PickleError(f"it copies more than {MOST_VALUES:,} values")
        return [each for key, value in pairs for each in (key, value)]

    def check_tensor(
        self, storage: Storage, offset: int, shape: Any, strides: Any, requires_grad: bool = False, *hooks: Any
    ) -> None:
        if not isinstance(storage, Storage) or any(hooks) or len(_whole(shape)) != len(_whole(strides)):
            raise PickleError("a tensor in it is not described as PyTorch describes dense tensors")
        count = math.prod(shape)
        last = _whole((offset,))[0] + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        is_larger = count > storage.numel and not self.may_repeat
        if len(shape) > MOST_DIMENSIONS or (count and last >= storage.numel) or is_larger:
            raise PickleError(
                f"a tensor of shape {shape[:MOST_DIMENSIONS]} claims {count * storage.bytes_each:,} bytes, and the "
                f"file has {storage.numel * storage.bytes_each:,} for it"
            )

    def open_storage(self, identifier: Any) -> None:
        kind, numbers, key, _, count, *views = identifier
        if kind != "storage" or numbers.name not in BYTES_OF or any(views) or not isinstance(key, str):
            raise PickleError("a tensor's storage in it is not described as PyTorch describes dense tensors")
        storage = Storage(key, BYTES_OF[numbers.name], _whole((count,))[0])
        claimed = storage.bytes_each * storage.numel
        if self.storages.setdefault(key, claimed) != claimed:
            raise PickleError(f"its storage {key[:80]!r} has two sizes")
        self.stack.append(storage)

    def set_attributes(self, state: Any) -> None:
        if type(self.stack[-1]) is not dict or type(state) is not dict or len(state) > MOST_ATTRIBUTES:
            raise PickleError("it sets attributes of what is no OrderedDict")
        self.attributes.append(state)


def _whole(numbers: Any) -> Sequence[int]:
    """The numbers, if they are a tuple of whole numbers of 0 or more."""
    if not isinstance(numbers, tuple) or not all(type(number) is int and number >= 0 for number in numbers):
        raise PickleError("a tensor in it has a size that is no whole number")
    return numbers


def _refuse(steps: _Steps, argument: Any) -> NoReturn:
    raise PickleError("it holds more than plain data")


def _remember(steps: _Steps, number: int) -> None:
    steps.memo[number] = steps.stack[-1]


def _join(count: int) -> Callable[[_Steps, Any], None]:
    def join(steps: _Steps, _: Any) -> None:
        steps.stack[-count:] = [tuple(steps.stack[-count:])]

    return join


PUSHED = {"NONE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
MADE: Mapping[str, Callable[[], Any]] = {
    **{"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple},
    **{"NEWTRUE": lambda: True, "NEWFALSE": lambda: False},
}
KNOWN: Mapping[str, Callable[[_Steps, Any], object]] = {
    "PROTO": lambda steps, _: None,
    "STOP": lambda steps, _: None,
    "MARK": lambda steps, _: steps.marks.append(len(steps.stack)),
    "GLOBAL": lambda steps, name: steps.stack.append(Name(name)),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _remember),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda steps, number: steps.stack.append(steps.memo[number])),
    "TUPLE": lambda steps, _: steps.stack.append(tuple(steps.since_mark())),
    **{"TUPLE1": _join(1), "TUPLE2": _join(2), "TUPLE3": _join(3)},
    "APPEND": lambda steps, _: steps.extend([steps.stack.pop()]),
    "APPENDS": lambda steps, _: steps.extend(steps.since_mark()),
    "SETITEM": lambda steps, _: steps.set_items([steps.stack.pop(-2), steps.stack.pop()]),
    "SETITEMS": lambda steps, _: steps.set_items(steps.since_mark()),
    "BINPERSID": lambda steps, _: steps.open_storage(steps.stack.pop()),
    "REDUCE": lambda steps, _: steps.call(steps.stack.pop()),
    "BUILD": lambda steps, _: steps.set_attributes(steps.stack.pop()),
}
