"""The run-time checker behind jaxtyping's shape annotations: whole numbers pass as floats, as in Python's typing."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
