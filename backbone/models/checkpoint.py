"""Trained weights as safetensors files that say what they are and how they were made.

The file's metadata hold one JSON object: the format, a description from which the network is built
again, and the provenance record. Nothing in it is executed on loading.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from backbone.io.files import replacing
from backbone.io.provenance import Provenance, recorded_key
from backbone.models.backbone import Backbone, rebuild_backbone

METADATA_KEY = "nasdet"
BACKBONE_PREFIX, HEAD_PREFIX = "backbone.", "head."


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and what they are, whole or not at all.

    Args:
        path: the ``.safetensors`` file.
        tensors: by name.
        about: JSON's types; must have ``kind``.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata={METADATA_KEY: json.dumps(about)})


def read_weights(path: str | Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file that ``save_weights`` wrote.

    Returns:
        The tensors by name, and what they are.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated, is no safetensors file, was not written by this
            program or holds another kind of weights.
    """
    about = read_about(path, kind=kind)
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"weights file {path} is damaged: {error}") from None


def read_about(path: str | Path, *, kind: str | None = None) -> dict[str, Any]:
    """Read what a weights file says of itself, without its tensors; raises as ``read_weights``."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"weights file {path} is damaged: {error}") from None
    try:
        about = json.loads(metadata[METADATA_KEY])
    except (KeyError, ValueError):
        raise ValueError(f"weights file {path} was not written by this program") from None
    if kind is not None and about.get("kind") != kind:
        raise ValueError(f"weights file {path} holds a {about.get('kind')}, not a {kind}")
    return about


def read_current(path: str | Path, provenance: Provenance, *, kind: str) -> dict[str, Any] | None:
    """Return what a weights file says of itself if it was made from these things, else None."""
    try:
        about = read_about(path, kind=kind)
    except (FileNotFoundError, ValueError):
        return None
    return about if recorded_key(about) == provenance.key else None


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str | Path) -> None:
    """Copy tensors into a module; every one must be there and fit.

    Raises:
        ValueError: if one is missing, left over or of another shape; the message names it.
    """
    check_tensors(tensors, module.state_dict(), source=source)
    module.load_state_dict(dict(tensors))


def check_tensors(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, source: str | Path
) -> None:
    """See that tensors have the names and the shapes of those that are wanted.

    Raises:
        ValueError: if one is missing, left over or of another shape; the message names it.
    """
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    wrong = [n for n in wanted.keys() & tensors.keys() if wanted[n].shape != tensors[n].shape]
    if missing or extra or wrong:
        name = (missing + extra + sorted(wrong))[0]
        what = "is missing" if missing else "is not part of it" if extra else "has another shape"
        raise ValueError(
            f"weights file {source} belongs to another architecture: tensor {name!r} {what} "
            f"({len(missing)} missing, {len(extra)} left over, {len(wrong)} of another shape)"
        )


def select(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def save_classifier(
    path: str | Path,
    backbone: Backbone,
    head: nn.Module,
    *,
    classes: Sequence[str],
    metrics: Mapping[str, float],
    provenance: Mapping[str, Any],
) -> None:
    """Write a pretrained backbone and its classification head."""
    tensors = {BACKBONE_PREFIX + n: t for n, t in backbone.state_dict().items()}
    tensors |= {HEAD_PREFIX + n: t for n, t in head.state_dict().items()}
    about = {
        "kind": "backbone",
        "backbone": backbone.description,
        "classes": list(classes),
        "metrics": dict(metrics),
        "provenance": dict(provenance),
    }
    save_weights(path, tensors, about)


def load_backbone(path: str | Path, *, out: Sequence[str] | None = None) -> Backbone:
    """Build the backbone of a ``backbone.safetensors`` with its weights.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, of another kind, or its tensors do not fit its description.
    """
    tensors, about = read_weights(path, kind="backbone")
    backbone = rebuild_backbone(about["backbone"], out=out)
    load_tensors(backbone, select(tensors, BACKBONE_PREFIX), source=path)
    return backbone
