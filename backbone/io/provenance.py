"""Provenance records, which make numbers traceable and let finished stages be skipped.

Every stage writes a record beside or inside its artifact. Two records have the same ``key`` if
stage, arguments, inputs and data are equal, so that the second run can be skipped.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("nasdet", "torch", "torchvision", "lightning", "timm", "optuna", "detectron2")
"""Distributions whose versions are recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Origin of an artifact."""

    stage: str
    """Name of the stage: ``search``, ``pretrain``, ``detector``, ..."""
    arguments: Mapping[str, Any]
    """Arguments of the stage; see ``to_builtins``. Without output paths."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Name of an input artifact -> fingerprint of its contents."""
    data: Mapping[str, str] = field(default_factory=dict)
    """Name of a dataset -> fingerprint."""

    @property
    def key(self) -> str:
        """64 hexadecimal digits, equal for records of the same artifact.

        Package versions are not included, so an upgrade does not invalidate finished stages.
        """
        origin = [self.stage, to_builtins(self.arguments), dict(self.inputs), dict(self.data)]
        return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-compatible values, with the installed versions."""
        return {
            "stage": self.stage,
            "key": self.key,
            "arguments": to_builtins(self.arguments),
            "inputs": dict(self.inputs),
            "data": dict(self.data),
            "python": platform.python_version(),
            "versions": dict(installed_versions()),
        }


def to_builtins(value: Any) -> Any:
    """Convert dataclasses, enums, paths and tuples inside ``value`` to JSON-compatible builtins."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__} | to_builtins(asdict(value))
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_builtins(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_builtins(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def installed_versions() -> Iterable[tuple[str, str]]:
    """Yield the name and version of each of ``PACKAGES`` that is installed."""
    for name in PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def fingerprint_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's contents, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_folder(root: str | Path) -> str:
    """Return a digest of the names and sizes of all files below ``root``.

    Contents are not read, which would take hours for ImageNet, so a change that keeps the size of a
    file is not detected.
    """
    root = Path(root)
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\n".encode())
    return digest.hexdigest()


def recorded_key(record: Any) -> str | None:
    """Return the key inside a JSON artifact's ``provenance`` member, or None if it has none."""
    if isinstance(record, Mapping) and isinstance(record.get("provenance"), Mapping):
        return record["provenance"].get("key")
    return None


def read_record(path: str | Path) -> Any:
    """Return a JSON artifact, or None if it is missing or not valid JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
