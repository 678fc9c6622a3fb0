"""Genotypes in the notations of DARTS (tuples), ENAS (strings) and NNI (dicts).

All three number states as this project does: 0 is the older input, 1 the newer, block b computes
b + 2. In all three a block adds its two results. A genotype that a notation cannot express is an
error, never converted to another network.

DARTS (quark0/darts and its descendants): ``Genotype(normal=[('sep_conv_3x3', 1), ...],
normal_concat=[2, 3, 4, 5], reduce=[...], reduce_concat=[...])``, two tuples per block.

ENAS (melodyguan/enas, micro search): four integers per block, input, operation, input, operation;
the normal cell's, then the reduction cell's. A cell concatenates every state that no block reads,
its inputs among them.

NNI (microsoft/nni 3, nni.nas.hub.pytorch): ``{"normal/op_2_0": "sep_conv_3x3",
"normal/input_2_0": [0], ...}``. Which blocks are concatenated belongs to NNI's spaces and not to
the dict: ``all`` in its DARTS space, ``loose_end`` (those that no block reads) in others.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from backbone.cells.genotype import NUM_INPUTS, OPERATION_NAMES, Block, CellSpec, Edge, Genotype

FORMATS = ("json", "darts", "enas", "nni")
EXTERNAL_NAMES = MappingProxyType(
    {"identity": "skip_connect", "conv_1x3_3x1": "conv_3x1_1x3", "conv_1x7_7x1": "conv_7x1_1x7"}
)
"""Operation -> its name in DARTS and NNI, where it differs."""
NATIVE_NAMES = MappingProxyType({external: name for name, external in EXTERNAL_NAMES.items()})
ENAS_OPERATIONS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity")
"""ENAS's operations by index."""
DARTS_MEMBERS = ("normal", "normal_concat", "reduce", "reduce_concat")
NNI_MERGES = ("all", "loose_end")


def parse_genotype(text: str, *, merge: str = "all") -> Genotype:
    """Read a genotype in any notation, ``cells.json`` included; the format is detected.

    Args:
        text: the file's contents.
        merge: which blocks NNI concatenates; see the module's docstring.

    Raises:
        ValueError: if the text is none of them, or describes a cell that cannot exist.
    """
    if re.fullmatch(r"[\d\s]+", text):
        return from_enas(text)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return from_darts(text)
    is_native = isinstance(data, Mapping) and "format" in data
    return Genotype.from_dict(data) if is_native else from_nni(data, merge=merge)


def format_genotype(genotype: Genotype, notation: str, *, merge: str = "all") -> str:
    """Return a genotype in a notation of ``FORMATS``, as a file's contents.

    Raises:
        ValueError: if the notation is unknown or cannot express this genotype.
    """
    match notation:
        case "json":
            return json.dumps(genotype.to_dict(), indent=1) + "\n"
        case "darts":
            return to_darts(genotype) + "\n"
        case "enas":
            return to_enas(genotype) + "\n"
        case "nni":
            return json.dumps(to_nni(genotype, merge=merge), indent=1) + "\n"
        case _:
            raise ValueError(f"unknown notation {notation!r}; choose from {FORMATS}")


def to_darts(genotype: Genotype) -> str:
    """Return DARTS's notation.

    Raises:
        ValueError: if a block concatenates or there is no reduction cell.
    """
    members = []
    for name, cell in zip(("normal", "reduce"), _two_cells(genotype, "DARTS"), strict=True):
        edges = [(_external_name(e.operation), e.source) for e in _edges(cell)]
        members += [f"{name}={edges}", f"{name}_concat={list(cell.concat)}"]
    return f"Genotype({', '.join(members)})"


def from_darts(text: str) -> Genotype:
    """Read DARTS's notation; lists, tuples and ``range`` are understood, nothing is executed.

    Raises:
        ValueError: if the text is no such expression or describes a cell that cannot exist.
    """
    try:
        # As in DARTS's files, a name and an equals sign may come first.
        expression = re.sub(r"^\s*\w+\s*=\s*", "", text).strip()
        call = ast.parse(expression, mode="eval").body
        assert isinstance(call, ast.Call)
        members = {k.arg: _literal(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, AssertionError, RecursionError, MemoryError, TypeError):
        raise ValueError("not a DARTS genotype: expected Genotype(normal=[...], ...)") from None
    missing = [name for name in DARTS_MEMBERS if name not in members]
    if missing:
        raise ValueError(f"not a DARTS genotype: {missing[0]} is missing")

    def cell(name: str) -> CellSpec:
        return _cell(_pairs(members[name], name), concat=_integers(members[f"{name}_concat"]))

    return Genotype(cell("normal"), cell("reduce"))


def to_enas(genotype: Genotype) -> str:
    """Return ENAS's notation.

    Raises:
        ValueError: if a block concatenates, a cell concatenates other states than those that no
            block reads, an operation is none of ENAS's, or there is no reduction cell.
    """
    numbers: list[int] = []
    for cell in _two_cells(genotype, "ENAS"):
        if cell.concat != _unread(cell, first=0):
            raise ValueError(
                f"ENAS's notation concatenates every state that no block reads, here "
                f"{list(_unread(cell, first=0))}, not {list(cell.concat)}"
            )
        for edge in _edges(cell):
            if edge.operation not in ENAS_OPERATIONS:
                raise ValueError(f"ENAS's notation has no operation {edge.operation!r}")
            numbers += [edge.source, ENAS_OPERATIONS.index(edge.operation)]
    if len(genotype.cells["normal"].blocks) != len(genotype.cells["reduction"].blocks):
        raise ValueError("ENAS's notation needs as many blocks in both cells")
    return " ".join(map(str, numbers))


def from_enas(text: str) -> Genotype:
    """Read ENAS's notation: a multiple of 8 integers.

    Raises:
        ValueError: if the text is something else or describes a cell that cannot exist.
    """
    words = text.split()
    if not words or len(words) % 8 or not all(re.fullmatch(r"\d{1,4}", w, re.ASCII) for w in words):
        raise ValueError("not an ENAS string: expected 4 integers per block for each of two cells")
    numbers = [int(word) for word in words]
    if max(numbers[1::2]) >= len(ENAS_OPERATIONS):
        raise ValueError(f"ENAS's operations are 0 to 4, not {max(numbers[1::2])}")
    pairs = [(ENAS_OPERATIONS[o], s) for s, o in zip(numbers[::2], numbers[1::2], strict=True)]
    half = len(pairs) // 2
    return Genotype(_cell(pairs[:half], first=0), _cell(pairs[half:], first=0))


def to_nni(genotype: Genotype, *, merge: str) -> dict[str, Any]:
    """Return NNI's notation for a space that concatenates ``all`` or ``loose_end`` blocks.

    Raises:
        ValueError: if the cells concatenate other states than ``merge`` implies, a block
            concatenates, or there is no reduction cell.
    """
    choices: dict[str, Any] = {}
    for name, cell in zip(("normal", "reduce"), _two_cells(genotype, "NNI"), strict=True):
        if cell.concat != _merged(cell, merge):
            raise ValueError(
                f"NNI's {merge!r} concatenates {list(_merged(cell, merge))}, "
                f"not {list(cell.concat)}"
            )
        for number, edge in enumerate(_edges(cell)):
            key = f"{NUM_INPUTS + number // 2}_{number % 2}"
            choices[f"{name}/op_{key}"] = _external_name(edge.operation)
            choices[f"{name}/input_{key}"] = [edge.source]
    return choices


def from_nni(data: Any, *, merge: str) -> Genotype:
    """Read NNI's notation; inputs may be integers or lists of one. Other keys are ignored.

    Raises:
        ValueError: if the data have another form or describe a cell that cannot exist.
    """
    if not isinstance(data, Mapping):
        raise ValueError("not an NNI architecture: expected an object")
    return Genotype(_nni_cell(data, "normal", merge), _nni_cell(data, "reduce", merge))


def _nni_cell(data: Mapping[Any, Any], name: str, merge: str) -> CellSpec:
    own = [key for key in data if isinstance(key, str) and key.startswith((f"{name}/op_",))]
    pairs = []
    for number in range(max(len(own), 2)):
        slot = f"{NUM_INPUTS + number // 2}_{number % 2}"
        operation, source = (data.get(f"{name}/{part}_{slot}") for part in ("op", "input"))
        if isinstance(source, list) and len(source) == 1:
            source = source[0]
        if operation is None or source is None or isinstance(source, list):
            raise ValueError(
                f"not an NNI architecture: it needs one {name}/op_{slot} and "
                f"one {name}/input_{slot}"
            )
        pairs.append((operation, source))
    cell = _cell(pairs)
    return CellSpec(cell.blocks, _merged(cell, merge))


def _merged(cell: CellSpec, merge: str) -> tuple[int, ...]:
    if merge not in NNI_MERGES:
        raise ValueError(f"unknown merge {merge!r}; choose from {NNI_MERGES}")
    if merge == "loose_end":
        return _unread(cell, first=NUM_INPUTS)
    return tuple(range(NUM_INPUTS, NUM_INPUTS + len(cell.blocks)))


def _two_cells(genotype: Genotype, notation: str) -> tuple[CellSpec, CellSpec]:
    if genotype.reduction is None:
        raise ValueError(f"{notation}'s notation needs a reduction cell")
    for cell in genotype.cells.values():
        if any(block.combine != "add" for block in cell.blocks):
            raise ValueError(f"{notation}'s notation cannot express a block that concatenates")
    return genotype.normal, genotype.reduction


def _edges(cell: CellSpec) -> list[Edge]:
    return [edge for block in cell.blocks for edge in (block.left, block.right)]


def _unread(cell: CellSpec, *, first: int) -> tuple[int, ...]:
    read = {edge.source for edge in _edges(cell)}
    return tuple(s for s in range(first, NUM_INPUTS + len(cell.blocks)) if s not in read)


def _cell(
    pairs: Sequence[tuple[Any, Any]], *, concat: Sequence[int] | None = None, first: int = 2
) -> CellSpec:
    """Build a cell from two (operation, source) pairs per block.

    Without ``concat`` it concatenates the states from ``first`` on that no block reads.
    """
    if not pairs or len(pairs) % 2:
        raise ValueError(f"a cell needs two operations per block, not {len(pairs)} in all")
    edges = [Edge(_native_name(operation), source) for operation, source in pairs]
    blocks = tuple(map(Block, edges[::2], edges[1::2]))
    if concat is None:
        everything = CellSpec(blocks, tuple(range(NUM_INPUTS + len(blocks))))
        concat = _unread(everything, first=first)
    return CellSpec(blocks, tuple(concat))


def _native_name(operation: Any) -> str:
    name = NATIVE_NAMES.get(operation, operation) if isinstance(operation, str) else None
    if name not in OPERATION_NAMES:
        raise ValueError(f"unknown operation {operation!r}")
    return name


def _external_name(operation: str) -> str:
    return EXTERNAL_NAMES.get(operation, operation)


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        bounds = [ast.literal_eval(bound) for bound in node.args]
        if all(isinstance(b, int) and abs(b) < 1000 for b in bounds):
            return list(range(*bounds))
    return ast.literal_eval(node)


def _pairs(value: Any, name: str) -> list[tuple[Any, Any]]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in value
    ):
        raise ValueError(f"not a DARTS genotype: {name} must be a list of (operation, input)")
    return [(operation, source) for operation, source in value]


def _integers(value: Any) -> list[int]:
    if not isinstance(value, list | tuple) or any(type(n) is not int for n in value):
        raise ValueError("not a DARTS genotype: the concatenated states must be a list of integers")
    return list(value)
