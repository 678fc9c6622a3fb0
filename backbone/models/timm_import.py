"""Import released weights of NASNet-A and PNASNet-5, under the names of timm and Cadene.

timm's ``nasnetalarge`` and ``pnasnet5large`` and Cadene's ``nasnetalarge``, ``nasnetamobile`` and
``pnasnet5large`` name their tensors alike (timm, models/nasnet.py and models/pnasnet.py;
Cadene/pretrained-models.pytorch). timm's networks count the zeros of the padding in strided
average pooling; ``NetworkConfig.average_counts_padding`` makes a ``CellNetwork`` do so too.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from backbone.io.provenance import Provenance, fingerprint_file
from backbone.io.runtime import hidden_package
from backbone.io.weights import check_tensors
from backbone.models.backbone import BackboneSpec
from backbone.models.cell import Cell
from backbone.models.cell_backbone import CellBackboneSpec
from backbone.models.cell_network import CellNetwork
from backbone.models.checkpoint import save_backbone
from backbone.models.operations import FactorizedReduction, SamePool2d

with hidden_package("wandb"):  # timm imports it where it is installed, unasked
    import timm

HEAD_PREFIX = "last_linear."
"""Prefix of the classifier's tensors, which a backbone does not have."""
_CELLS_PER_STACK = 6
"""NASNet-A's normal cells are numbered as in the large network, where a stack has six; the mobile
network's stacks of four skip numbers."""

Names = Iterator[tuple[str, str]]
"""Pairs of prefixes of names: this project's and the released one."""


def import_weights(
    source: str, path: Path, *, spec: str, average_counts_padding: bool = False
) -> None:
    """Write a ``backbone.safetensors`` with released weights.

    Args:
        source: a state dict's file (``.pth`` or ``.safetensors``), or ``timm:`` and the name of a
            model of timm's, whose weights are downloaded.
        path: the file to write.
        spec: cells at N @ F of the weights, such as ``nasnet_a:6@4032``.
        average_counts_padding: see ``NetworkConfig``; True for weights from timm and Keras.

    Raises:
        FileNotFoundError: if the source is a file that does not exist.
        ValueError: if the source is damaged or no state dict, the spec names no cells, or a tensor
            is missing, unexpected or of another shape.
    """
    parsed = BackboneSpec.parse(spec)
    if not isinstance(parsed, CellBackboneSpec) or parsed.weights is not None:
        raise ValueError(f"released weights are imported into cells at N @ F, not into {spec!r}")
    network = replace(parsed.network, average_counts_padding=average_counts_padding)
    backbone = replace(parsed, network=network).build()
    body: CellNetwork = backbone.body  # type: ignore[assignment]
    model = source.removeprefix("timm:")
    is_file = model == source
    tensors = _read_state_dict(Path(source)) if is_file else _timm_state_dict(model)
    load_released(body, tensors, source=source)
    provenance = Provenance(
        stage="import",
        arguments={"backbone": backbone.spec.to_dict()},
        inputs={"weights": fingerprint_file(source) if is_file else source},
    )
    save_backbone(path, backbone, provenance=provenance.to_dict())


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        first_line = str(error).partition("\n")[0]
        raise ValueError(f"weights file {path} cannot be read: {first_line}") from None
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise ValueError(f"weights file {path} holds no state dict, a mapping of names to tensors")
    return tensors


def _timm_state_dict(name: str) -> dict[str, Tensor]:
    if name not in timm.list_models(pretrained=True):
        raise ValueError(f"timm has no released weights for a model {name!r}")
    return timm.create_model(name, pretrained=True).state_dict()


def load_released(
    network: CellNetwork, tensors: Mapping[str, Tensor], *, source: str | Path
) -> None:
    """Copy released tensors into a network, except the classifier's.

    Args:
        network: NASNet-A or PNASNet-5 with an ImageNet stem.
        tensors: by the released names.
        source: their origin, for messages.

    Raises:
        ValueError: if one is missing, unexpected or of another shape, by its released name.
    """
    names = released_names(network)
    own = network.state_dict()
    features = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(HEAD_PREFIX) and not _counts_batches(name)
    }
    expected = {released: own[name] for name, released in names.items()}
    check_tensors(features, expected, source=source)
    # Some files have the numbers of batches seen and some do not; nothing depends on them.
    tensors = {name: features[released] for name, released in names.items()}
    network.load_state_dict(tensors, strict=False)


def released_names(network: CellNetwork) -> dict[str, str]:
    """Return the released name of each of a network's tensors."""
    beginnings = dict(_network_names(network))
    names = {}
    for name in network.state_dict():
        if not _counts_batches(name):
            ours = next(b for b in beginnings if name.startswith(f"{b}."))
            names[name] = beginnings[ours] + name.removeprefix(ours)
    return names


def _network_names(network: CellNetwork) -> Names:
    has_reduction = network.genotype.reduction is not None
    yield from _conv_norm_names("stem", "conv0" if has_reduction else "conv_0", first=0)
    num_cells = network.config.num_cells
    num_reductions = num_normal = 0
    for index, (cell, step) in enumerate(zip(network.cells, network.plan, strict=True)):
        assert isinstance(cell, Cell)
        if index < 2:
            name = f"cell_stem_{index}"
        elif step.reduces and has_reduction:
            name = f"reduction_cell_{num_reductions}"
            num_reductions += 1
        else:
            stack, index_in_stack = divmod(num_normal, num_cells)
            cells_per_stack = _CELLS_PER_STACK if has_reduction else num_cells
            name = f"cell_{stack * cells_per_stack + index_in_stack}"
            num_normal += 1
        # PNASNet keeps a factorized reduction in a module of its own.
        reduction = name if has_reduction else f"{name}.conv_prev_1x1"
        yield from _cell_names(cell, f"cells.{index}", name, reduction)


def _cell_names(cell: Cell, ours: str, theirs: str, reduction: str) -> Names:
    yield from _conv_norm_names(f"{ours}.align_newer", f"{theirs}.conv_1x1", first=1)
    older = cell.align_older
    if isinstance(older, nn.Sequential) and isinstance(older[1], FactorizedReduction):
        yield f"{ours}.align_older.1.even", f"{reduction}.path_1.conv"
        yield f"{ours}.align_older.1.odd", f"{reduction}.path_2.conv"
        yield f"{ours}.align_older.1.norm", f"{reduction}.final_path_bn"
    elif isinstance(older, nn.Sequential):
        yield from _conv_norm_names(f"{ours}.align_older", f"{theirs}.conv_prev_1x1", first=1)
    for side, operations in (("left", cell.left), ("right", cell.right)):
        for block, operation in enumerate(operations):
            yield from _operation_names(
                operation, f"{ours}.{side}.{block}", f"{theirs}.comb_iter_{block}_{side}"
            )


def _operation_names(operation: nn.Module, ours: str, theirs: str) -> Names:
    if not isinstance(operation, nn.Sequential):
        return  # pooling or identity
    if isinstance(operation[0], nn.Sequential):  # a separable convolution, applied twice
        for half in (0, 1):
            separable = f"{theirs}.separable_{half + 1}"
            yield f"{ours}.{half}.1", f"{separable}.depthwise_conv2d"
            yield f"{ours}.{half}.2", f"{separable}.pointwise_conv2d"
            yield f"{ours}.{half}.3", f"{theirs}.bn_sep_{half + 1}"
    elif isinstance(operation[0], SamePool2d):
        yield from _conv_norm_names(f"{ours}.1", theirs, first=0)
    else:
        yield from _conv_norm_names(ours, theirs, first=1)


def _conv_norm_names(ours: str, theirs: str, *, first: int) -> Names:
    """Yield the names of a convolution, at index ``first``, and of its normalization."""
    yield f"{ours}.{first}", f"{theirs}.conv"
    yield f"{ours}.{first + 1}", f"{theirs}.bn"


def _counts_batches(name: str) -> bool:
    return name.endswith("num_batches_tracked")
