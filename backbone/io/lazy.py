"""Objects that are imported when they are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def load_target(target: str) -> Any:
    """Import an object by its path, ``package.module:name``."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def lazy_exports(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package (PEP 562).

    Args:
        package: its ``__name__``.
        modules: name of an export -> the module that defines it.
    """

    def get_attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return load_target(f"{modules[name]}:{name}")

    return get_attribute
