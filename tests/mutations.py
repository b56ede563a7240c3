"""Files that are nearly right: valid ones with bytes, length fields or values changed, the same for the same number."""

import copy
import io
import json
import random
import zipfile
from collections.abc import Callable
from typing import Any

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)
LENGTHS = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
JUNK: tuple[Any, ...] = (
    *(None, True, 0, -1, 10**9, 2**63, 10**400, 0.5, 1e308, float("nan"), float("inf")),
    *("", "x", "../../x", "/etc/passwd", "\x1b[31m\x07", "<script>", "$\\frac{", "\0", "é" * 300, "os.system", "nan"),
    *([], [1, "a", None], {}, {"_target_": "os.system"}, {"a": {"b": []}}, [[]] * 3, [[[[]]]]),
)


def mutated(content: bytes, number: int) -> bytes:
    """Up to eight changes; every twentieth file is cut short besides."""
    chance = random.Random(number)
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5, 8))):
        chance.choice((_flip, _set, _set_number, _remove, _repeat, _insert, _swap))(changed, chance)
    if chance.random() < 0.05:
        del changed[chance.randrange(len(changed) + 1) :]
    return bytes(changed)


def _place(changed: bytearray, chance: random.Random, room: int = 1) -> int:
    """Headers and directories, where the lengths stand, are at the ends."""
    last = max(len(changed) - room, 0)
    part = chance.choice((0, 64, -64, 400, -400))
    if part > 0:
        return chance.randint(0, min(part, last))
    return chance.randint(max(last + part, 0) if part else 0, last)


def _flip(changed: bytearray, chance: random.Random) -> None:
    if changed:
        changed[_place(changed, chance)] ^= 1 << chance.randrange(8)


def _set(changed: bytearray, chance: random.Random) -> None:
    if changed:
        changed[_place(changed, chance)] = chance.choice((*INTERESTING, chance.randrange(256)))


def _set_number(changed: bytearray, chance: random.Random) -> None:
    """A length that is too long, or none, in either order of bytes."""
    size = chance.choice((2, 4, 8))
    if len(changed) >= size:
        first = _place(changed, chance, size)
        number = chance.choice(LENGTHS) % 256**size
        changed[first : first + size] = number.to_bytes(size, chance.choice(("little", "big")))


def _remove(changed: bytearray, chance: random.Random) -> None:
    first = _place(changed, chance)
    del changed[first : first + chance.choice((1, 2, 4, 16, 100))]


def _repeat(changed: bytearray, chance: random.Random) -> None:
    first = _place(changed, chance)
    piece = bytes(changed[first : first + chance.choice((1, 4, 16, 200))])
    changed[first:first] = piece * chance.choice((1, 2, 20))


def _insert(changed: bytearray, chance: random.Random) -> None:
    first = _place(changed, chance)
    words = (
        b"\0",
        b"\n",
        b"\r",
        b'"',
        b",",
        b"../",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"9" * 30,
        b"-",
        chance.randbytes(9),
    )
    changed[first:first] = chance.choice(words)


def _swap(changed: bytearray, chance: random.Random) -> None:
    size = chance.choice((1, 4, 16))
    first, second = _place(changed, chance, size), _place(changed, chance, size)
    changed[first : first + size], changed[second : second + size] = (
        changed[second : second + size],
        changed[first : first + size],
    )


def mutated_plain(content: Any, number: int) -> Any:
    """Plain data of which one to three values are others, or gone."""
    chance = random.Random(number)
    changed = json.loads(json.dumps(content))
    for _ in range(chance.choice((1, 1, 2, 3))):
        places = list(_places(changed))
        if not places:
            return copy.deepcopy(chance.choice(JUNK))
        container, key = chance.choice(places)
        if chance.random() < 0.2:
            del container[key]
        elif isinstance(container, dict) and chance.random() < 0.1:
            container[chance.choice(("x", "_target_", "../x"))] = container.pop(key)
        else:
            container[key] = copy.deepcopy(chance.choice(JUNK))
    return changed


def _places(value: Any) -> Any:
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, each in pairs:
        yield value, key
        yield from _places(each)


def mutated_text(content: Any, number: int, write: Callable[[Any], str] = json.dumps) -> bytes:
    """A file of plain data: of other values, or damaged."""
    if number % 3:
        return write(mutated_plain(content, number)).encode()
    return mutated(write(content).encode(), number)


def mutated_torch_file(content: bytes, number: int) -> bytes:
    """What torch.save wrote, damaged; or its pickle alone, in a zip file whose checksums are right."""
    if number % 4 == 0:
        return mutated(content, number)
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(written, "w") as copy:
        for entry in archive.infolist():
            part = archive.read(entry)
            is_changed = entry.filename.endswith("/data.pkl") or (number % 4 == 1 and len(part) < 9)
            copy.writestr(entry.filename, mutated(part, number) if is_changed and part else part)
    return written.getvalue()
