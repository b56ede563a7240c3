"""Builds the parts of a run, for example its model, from the run's configuration.

A checkpoint from somebody else may name any class. Therefore only subclasses of a base class that live in the room of
that base class (vae_lightning.models, .losses, .recognition) are built, and no other module is imported.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from vae_lightning.runs.layout import RunError
from vae_lightning.system.names import LONGEST_REASON, shown
from vae_lightning.system.tensor_files import UNREADABLE

NAMES_SHOWN = 3  # in a message
Part = TypeVar("Part")


def find_class(base: type[Part], target: Any) -> type[Part]:
    """The class that a configuration's `_target_` names: `vae_lightning.models.ConvVAE`, or with its module's name.

    A file that was put into the room is found by `vae_lightning.models.my_file.MyVAE`, without being listed anywhere.

    Raises:
        RunError: it is not a subclass of `base` in the room of `base`.
    """
    room = base.__module__.rpartition(".")[0]
    if isinstance(target, str) and target.startswith(f"{room}."):
        *modules, name = target.removeprefix(f"{room}.").split(".")
        module = importlib.import_module(room)
        for each in modules:
            if each not in [found.name for found in pkgutil.iter_modules(getattr(module, "__path__", []))]:
                break
            module = importlib.import_module(f"{module.__name__}.{each}")
        else:
            found = getattr(module, name, None)
            is_part = isinstance(found, type) and issubclass(found, base) and not inspect.isabstract(found)
            if is_part and found.__module__.startswith(f"{room}."):
                return cast(type[Part], found)
    raise RunError(
        f"the run asks for {shown(str(target))!r}; only subclasses of {base.__name__} in {room} may be built: "
        f"put your own into a file in {room.replace('.', '/')}/, and name it {room}.FILE.CLASS"
    )


def build_part(base: type[Part], config: Any, **others: Any) -> Part:
    """An instance of the class that a configuration names; the random numbers of the caller stay as they are.

    Args:
        base: which kind of part.
        config: `_target_` and the arguments.
        others: arguments that replace those of `config`.

    Raises:
        RunError: the class may not be built, or it refuses the arguments.
    """
    target = config.get("_target_") if isinstance(config, dict) else config
    part = find_class(base, target)
    arguments = {name: value for name, value in config.items() if name != "_target_"}
    try:
        with torch.random.fork_rng(devices=[]):
            return part(**arguments | others)
    except UNREADABLE as error:
        raise RunError(f"{target} cannot be built from the run's settings: {first_line(error)}") from error


def load_weights(part: nn.Module, prefix: str, weights: Mapping[str, Tensor]) -> None:
    """Loads the weights of a part, which may be on the meta device, from a checkpoint.

    Raises:
        RunError: names, shapes or types differ, or several weights share the same bytes of the file.
    """
    own = {name.removeprefix(prefix): weights[name] for name in weights if name.startswith(prefix)}
    expected = part.state_dict()
    different = list(expected.keys() ^ own.keys())
    different = different or [name for name in expected if not _fits(own[name], expected[name])]
    if different:
        names = ", ".join(sorted(map(shown, different))[:NAMES_SHOWN])
        raise RunError(
            f"the weights are not those of the {type(part).__name__} that the run describes: {len(different)} of "
            f"{len(expected)} differ in name, shape or type ({names}, …)"
        )
    real = [tensor for tensor in own.values() if not tensor.is_meta]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in real}
    if sum(tensor.nbytes for tensor in real) > sum(storages.values()):
        raise RunError("several of the weights are the same part of the file, which no model of this framework has")
    # copied: tensors of a safetensors file start at any address, and sums depend on the alignment
    copies = {name: own[name].clone(memory_format=torch.contiguous_format).to(expected[name].dtype) for name in own}
    part.load_state_dict(copies, assign=True)


def _fits(tensor: Tensor, expected: Tensor) -> bool:
    """Floats may have another precision, as trainer.precision=bf16-true writes them."""
    is_float = tensor.is_floating_point() and expected.is_floating_point()
    return tensor.shape == expected.shape and (is_float or tensor.dtype == expected.dtype)


def check_can_be_loaded(part: nn.Module, base: type[Part], config: Any, *, on_meta: bool = False) -> None:
    """Refuses a part that could be trained but not loaded from its checkpoint.

    Args:
        part: will be trained.
        base: which kind of part.
        config: that it was built from.
        on_meta: it is built on the meta device when it is loaded, as models are.

    Raises:
        RunError: the message says why it could not be loaded.
    """
    name = type(part).__name__
    try:
        with torch.device("meta" if on_meta else "cpu"):
            again = build_part(base, config)
        assert isinstance(again, nn.Module)
        load_weights(again, "", part.state_dict())
    except RunError as error:
        raise RunError(f"{name} could not be loaded again after its training: {error}") from error
    for module in again.modules():
        lost = [key for key, value in {**vars(module), **module._buffers}.items() if _is_meta(value)]
        if lost:
            raise RunError(
                f"{name} could not be loaded again after its training: {type(module).__name__}.{lost[0]} is a tensor "
                "that its checkpoint does not hold; make it a buffer, register_buffer(…), which is persistent"
            )


def _is_meta(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_meta


def first_line(error: Exception) -> str:
    return shown(str(error).strip().split("\n")[0], LONGEST_REASON) or type(error).__name__
