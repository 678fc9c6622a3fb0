"""Weights as safetensors files that hold a description of themselves.

The file's metadata hold one JSON object: the kind of weights, what is needed to build the network
again, and the provenance record. Nothing in the file is executed on loading.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from backbone.io.files import replacing
from backbone.io.provenance import Provenance, recorded_key

METADATA_KEY = "nasdet"


def save_weights(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write tensors and their metadata atomically.

    Args:
        path: the ``.safetensors`` file.
        tensors: tensors by name.
        metadata: JSON's types; must have the member ``kind``.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata={METADATA_KEY: json.dumps(metadata)})


def read_weights(path: str | Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file that ``save_weights`` wrote.

    Returns:
        The tensors by name, and the metadata.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated, is no safetensors file, was not written by this
            program or holds another kind of weights.
    """
    metadata = read_metadata(path, kind=kind)
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"weights file {path} is damaged: {error}") from None


def read_metadata(path: str | Path, *, kind: str | None = None) -> dict[str, Any]:
    """Read the metadata of a weights file without its tensors.

    Args:
        path: the ``.safetensors`` file.
        kind: the kind of weights that the file must hold; None accepts any.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as ``read_weights``.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    try:
        with safe_open(str(path), framework="pt") as file:
            texts = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"weights file {path} is damaged: {error}") from None
    try:
        metadata = json.loads(texts[METADATA_KEY])
    except (KeyError, ValueError):
        raise ValueError(f"weights file {path} was not written by this program") from None
    if kind is not None and metadata.get("kind") != kind:
        raise ValueError(f"weights file {path} holds a {metadata.get('kind')}, not a {kind}")
    return metadata


def read_current(path: str | Path, provenance: Provenance, *, kind: str) -> dict[str, Any] | None:
    """Return a weights file's metadata if the provenance is the file's own, else None."""
    try:
        metadata = read_metadata(path, kind=kind)
    except (FileNotFoundError, ValueError):
        return None
    return metadata if recorded_key(metadata) == provenance.key else None


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str | Path) -> None:
    """Copy tensors into a module; names and shapes must be the module's.

    Raises:
        ValueError: if one is missing, unexpected or of another shape; the message names it.
    """
    check_tensors(tensors, module.state_dict(), source=source)
    module.load_state_dict(dict(tensors))


def check_tensors(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: str | Path
) -> None:
    """Compare the names and shapes of tensors with those expected.

    Raises:
        ValueError: if one is missing, unexpected or of another shape; the message names it.
    """
    missing = sorted(expected.keys() - tensors.keys())
    extra = sorted(tensors.keys() - expected.keys())
    wrong = [n for n in expected.keys() & tensors.keys() if expected[n].shape != tensors[n].shape]
    if missing or extra or wrong:
        name = (missing + extra + sorted(wrong))[0]
        what = "is missing" if missing else "is not part of it" if extra else "has another shape"
        raise ValueError(
            f"weights file {source} belongs to another architecture: tensor {name!r} {what} "
            f"({len(missing)} missing, {len(extra)} unexpected, {len(wrong)} of another shape)"
        )


def select_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, under their names without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
