"""Fields of configuration objects, without importing the libraries that define their classes."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any


def expand(value: Any) -> Any:
    """Return the fields of a configuration object.

    Args:
        value: Mapping, dataclass, ``argparse.Namespace``, named tuple, object of OmegaConf, pydantic, attrs or msgspec,
            or any other value.

    Returns:
        Fields by name, or a list for a list of OmegaConf or a root model of pydantic. Interpolations of OmegaConf are
        resolved if they can be; missing values are ``"???"``. Other values are returned unchanged.
    """
    kind = type(value)
    if isinstance(value, type):
        return value
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is not None and isinstance(value, omegaconf.DictConfig | omegaconf.ListConfig):
        return _expand_omegaconf(value, omegaconf)
    if isinstance(value, Mapping):
        return value
    if isinstance(value, Namespace | SimpleNamespace):
        return vars(value)
    if is_dataclass(value):
        return _attributes(value, [field.name for field in fields(value)])
    if isinstance(value, tuple) and hasattr(kind, "_fields") and hasattr(kind, "_asdict"):
        return _attributes(value, kind._fields)
    if hasattr(kind, "__attrs_attrs__"):
        return _attributes(value, [attribute.name for attribute in kind.__attrs_attrs__])
    if hasattr(kind, "__struct_fields__"):
        return _attributes(value, kind.__struct_fields__)
    if hasattr(kind, "model_fields") and hasattr(kind, "model_dump"):
        return value.model_dump(warnings=False)  # leaves out the fields that the class excludes, such as passwords
    if hasattr(kind, "keys") and hasattr(kind, "__getitem__") and not hasattr(kind, "shape"):
        return {key: value[key] for key in value.keys()}  # noqa: SIM118  # not every such object is iterable
    return value


def _attributes(value: Any, names: Any) -> dict[str, Any]:
    # A field without a value, such as one that __init__ does not set, is left out.
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _expand_omegaconf(value: Any, omegaconf: Any) -> Any:
    raw = omegaconf.OmegaConf.to_container(value, resolve=False)

    def resolve(key: Any, unresolved: Any) -> Any:
        try:
            return value[key]
        except omegaconf.errors.OmegaConfBaseException:
            return unresolved

    if isinstance(raw, dict):
        return {key: resolve(key, item) for key, item in raw.items()}
    if isinstance(raw, list):
        return [resolve(index, item) for index, item in enumerate(raw)]
    return raw
