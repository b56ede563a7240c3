"""Gives every part what the root configuration and the data decide, also where the part's YAML file leaves it out."""

from collections.abc import Mapping
from typing import Any

from vae_lightning.launch.signatures import ConfigError, taken_by

SHAPE = {"image_size": "data.image_size", "color": "data.color"}
OF_PARTS = {"model": {**SHAPE, "posterior": "posterior"}, "recognizer": SHAPE, "data": {"seed": "seed"}}
OF_EACH = {"callbacks": {"run_dir": "run_dir"}, "logger": {"run_dir": "run_dir"}}
DEFAULT_POSTERIOR = "gaussian"


def with_inherited(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved settings, completed by the arguments that constructors take and YAML files do not name.

    Raises:
        ConfigError: the posterior that is set does not reach the model.
    """
    complete = dict(plain)
    for group, settings in OF_PARTS.items():
        complete[group] = _completed(group, complete[group], settings, complete)
    for group, settings in OF_EACH.items():
        complete[group] = {
            name: _completed(f"{group}.{name}", node, settings, complete) for name, node in complete[group].items()
        }
    model, wanted = complete["model"], complete["posterior"]
    if model and wanted != DEFAULT_POSTERIOR and model.get("posterior") != wanted:
        is_fixed = "posterior" in model
        how = "write `posterior: ${posterior}` into its YAML file" if is_fixed else "its class has to take `posterior`"
        raise ConfigError(f"posterior={wanted} does not reach {model.get('_target_')}: {how}")
    return complete


def _completed(path: str, node: Any, settings: Mapping[str, str], plain: Mapping[str, Any]) -> Any:
    if not node or "_target_" not in node:
        return node
    _, taken = taken_by(node, path)
    found = {name: _at(plain, key) for name, key in settings.items() if name in taken and name not in node}
    return {**node, **{name: value for name, value in found.items() if value is not None}}


def _at(plain: Mapping[str, Any], key: str) -> Any:
    group, _, name = key.rpartition(".")
    return (plain[group] if group else plain).get(name)
