"""Export backbones and classifiers to files that run without this program."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbone.io.files import replacing

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
TOLERANCE = 1e-4
"""Maximum difference from the original's outputs, relative to their largest value."""


def export_network(
    network: nn.Module, path: Path, *, side_px: int, file_format: str
) -> dict[str, float]:
    """Write a network for any batch size and one image size; keep the file if its outputs agree.

    Args:
        network: takes images, (B, 3, H, W) in [0, 1], and returns a tensor or a dict of them; put
            into evaluation mode.
        path: the file.
        side_px: height and width of the images.
        file_format: ``onnx``, run by onnxruntime and others; ``torch``, by ``torch.export.load``.

    Returns:
        For each output the maximum difference from the original's on noise, relative to its
        largest value, at another batch size than the exported sample's.

    Raises:
        ValueError: if the format is unknown or the file's outputs are not the original's.
        ImportError: if ONNX's packages are not installed.
    """
    if file_format not in FORMATS:
        raise ValueError(f"unknown format {file_format!r}; choose from {sorted(FORMATS)}")
    network.eval()
    generator = torch.Generator().manual_seed(0)
    sample, other = (torch.rand(n, 3, side_px, side_px, generator=generator) for n in (2, 3))
    with torch.inference_mode():
        expected = _named(network(other))
    write, run = (_write_onnx, _run_onnx) if file_format == "onnx" else (_write_torch, _run_torch)
    with replacing(path) as temporary:
        with _quiet():
            write(network, sample, temporary, list(expected))
        outputs = run(temporary, other)
        errors = {
            name: float((outputs[name] - tensor).abs().max() / tensor.abs().max())
            for name, tensor in expected.items()
        }
        if max(errors.values()) > TOLERANCE:
            raise ValueError(f"the exported file differs from the original: {errors}")
    return errors


def _named(outputs: Any) -> dict[str, Tensor]:
    return outputs if isinstance(outputs, dict) else {"logits": outputs}


def _exported(network: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        return torch.export.export(network, (images,), dynamic_shapes=({0: batch},))


def _write_torch(network: nn.Module, images: Tensor, path: Path, _: list[str]) -> None:
    torch.export.save(_exported(network, images), path)


def _run_torch(path: Path, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return _named(torch.export.load(path).module()(images))


def _write_onnx(network: nn.Module, images: Tensor, path: Path, names: list[str]) -> None:
    require_onnx()
    torch.onnx.export(
        _exported(network, images),
        (),
        path,
        dynamo=True,
        external_data=False,
        input_names=["images"],
        output_names=names,
        verbose=False,
    )


def _run_onnx(path: Path, images: Tensor) -> dict[str, Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {"images": images.numpy()})
    return {name: torch.from_numpy(out) for name, out in zip(names, outputs, strict=True)}


def require_onnx() -> None:
    """Raise an ImportError that names the packages to install if ONNX's are missing."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ImportError(
            "export to ONNX needs onnxscript and onnxruntime; install them with: "
            "pip install onnx onnxruntime onnxscript"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's messages about versions and passes, which a user cannot act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
