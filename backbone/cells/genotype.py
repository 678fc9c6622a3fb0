"""Genotypes: searched cells as validated plain data.

A genotype is a pair of cells (Zoph et al. 2018, section 3, figure 2). A cell reads two hidden
states, the outputs of the two cells before it, and computes new ones block by block; a block
applies one operation to each of two earlier states and combines the results.

States are numbered in the order in which they are computed: 0 is the *older* input (``h_{i-1}``
of the paper), 1 the *newer* one (``h_i``), and block ``b`` (from 0) computes state ``b + 2``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbone.cells.architecture import Architecture

OLDER, NEWER = 0, 1
NUM_INPUTS = 2
"""Hidden states that a cell reads as inputs."""

COMBINATIONS = ("add", "concat")
"""Ways of combining the two results of a block (paper, section 3, step 5)."""

NUM_STACKS = 3
"""Stacks of N normal cells in a network (paper, section 3)."""

NASNET_OPERATIONS = (
    "identity",
    "conv_1x1",
    "conv_3x3",
    "conv_1x3_3x1",
    "conv_1x7_7x1",
    "dil_conv_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "avg_pool_3x3",
    "max_pool_3x3",
    "max_pool_5x5",
    "max_pool_7x7",
)
"""The 13 candidate operations (paper, section 3)."""

OPERATION_NAMES = (*NASNET_OPERATIONS, "dil_conv_5x5", "max_pool_2x2")
"""All operations: the paper's, and those that only DARTS's and AmoebaNet's spaces have."""

FORMAT = "nasdet.genotype"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Edge:
    """One operation applied to one hidden state."""

    operation: str
    source: int

    def __post_init__(self) -> None:
        if self.operation not in OPERATION_NAMES:
            raise ValueError(
                f"unknown operation {self.operation!r}; choose from {sorted(OPERATION_NAMES)}"
            )
        if isinstance(self.source, bool) or not isinstance(self.source, int) or self.source < 0:
            raise ValueError(f"an edge's source must be the index of a state, not {self.source!r}")


@dataclass(frozen=True, slots=True)
class Block:
    """Two edges and the combination of their results."""

    left: Edge
    right: Edge
    combine: str = "add"

    def __post_init__(self) -> None:
        if self.combine not in COMBINATIONS:
            raise ValueError(f"unknown combination {self.combine!r}; choose from {COMBINATIONS}")


@dataclass(frozen=True, slots=True)
class CellSpec:
    """The blocks of one cell and the states that its output concatenates, in order.

    The list of states is part of the genotype because published cells do not all follow the
    paper's rule (concatenate what no block reads); ``from_blocks`` applies that rule.

    Raises:
        ValueError: if there is no block, an edge reads a state that does not exist yet, or
            ``concat`` is empty, repeats a state or names one that the cell does not have.
    """

    blocks: tuple[Block, ...]
    concat: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.blocks:
            raise ValueError("a cell needs at least one block")
        for state, block in enumerate(self.blocks, start=NUM_INPUTS):
            for edge in (block.left, block.right):
                if edge.source >= state:
                    raise ValueError(
                        f"block {state - NUM_INPUTS} reads state {edge.source}, which does not "
                        f"exist yet; it can read states 0 to {state - 1}"
                    )
        self._check_concat()

    def _check_concat(self) -> None:
        if not self.concat:
            raise ValueError("a cell must concatenate at least one state")
        if len(set(self.concat)) != len(self.concat):
            raise ValueError(f"a cell concatenates a state twice: {list(self.concat)}")
        num_states = NUM_INPUTS + len(self.blocks)
        for state in self.concat:
            if isinstance(state, bool) or state not in range(num_states):
                raise ValueError(
                    f"a cell with {len(self.blocks)} blocks has states 0 to {num_states - 1}; "
                    f"it cannot concatenate {state!r}"
                )

    @classmethod
    def from_blocks(cls, blocks: Iterable[Block]) -> CellSpec:
        """Concatenate every block that no other block reads (paper, section 3)."""
        blocks = tuple(blocks)
        read = {edge.source for block in blocks for edge in (block.left, block.right)}
        computed = range(NUM_INPUTS, NUM_INPUTS + len(blocks))
        return cls(blocks, tuple(state for state in computed if state not in read))

    def canonical(self) -> CellSpec:
        """Return the one representative of all cells that compute the same function.

        The inputs of an addition are put in order, blocks are renumbered by what they compute and
        not by the order in which they were written, and the concatenation is sorted. A
        concatenating block keeps its order, which decides the order of channels.
        """
        keys: list[str] = ["0", "1"]
        for block in self.blocks:
            left, right = (f"{e.operation}({keys[e.source]})" for e in (block.left, block.right))
            if block.combine == "add" and right < left:
                left, right = right, left
            keys.append(f"{block.combine}[{left},{right}]")
        depth = [0, 0]
        for block in self.blocks:
            depth.append(1 + max(depth[block.left.source], depth[block.right.source]))
        # A block's depth exceeds that of all it reads, so sorting by it keeps the order legal.
        order = sorted(range(NUM_INPUTS, len(keys)), key=lambda s: (depth[s], keys[s]))
        number = {0: 0, 1: 1} | {old: new for new, old in enumerate(order, start=NUM_INPUTS)}

        def renumber(block: Block) -> Block:
            left, right = (
                Edge(edge.operation, number[edge.source]) for edge in (block.left, block.right)
            )
            if block.combine == "add":
                left, right = sorted((left, right), key=lambda e: (e.operation, e.source))
            return Block(left, right, block.combine)

        return CellSpec(
            tuple(renumber(self.blocks[old - NUM_INPUTS]) for old in order),
            tuple(sorted(number[state] for state in self.concat)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the cell as JSON's types; ``from_dict`` reads it back."""
        return {
            "blocks": [
                {
                    "left": [block.left.operation, block.left.source],
                    "right": [block.right.operation, block.right.source],
                    "combine": block.combine,
                }
                for block in self.blocks
            ],
            "concat": list(self.concat),
        }

    @classmethod
    def from_dict(cls, data: Any) -> CellSpec:
        """Read what ``to_dict`` wrote.

        Raises:
            ValueError: if the data have another form or describe a cell that cannot exist.
        """
        blocks = _member(data, "blocks", list)
        concat = _member(data, "concat", list)
        return cls(tuple(_read_block(index, b) for index, b in enumerate(blocks)), tuple(concat))


@dataclass(frozen=True, slots=True)
class Genotype:
    """A normal cell, which keeps the feature map's size, and a reduction cell, which halves it.

    Without a reduction cell the normal one serves at both strides (Liu et al. 2018, "Progressive
    neural architecture search", section 3.1).
    """

    normal: CellSpec
    reduction: CellSpec | None

    @property
    def cells(self) -> dict[str, CellSpec]:
        """The cells by name: ``normal``, and ``reduction`` if there is one."""
        return {"normal": self.normal} | ({"reduction": self.reduction} if self.reduction else {})

    def canonical(self) -> Genotype:
        """Return the representative of all genotypes that build the same function."""
        return Genotype(self.normal.canonical(), self.reduction and self.reduction.canonical())

    @property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for genotypes that compute the same function."""
        text = json.dumps(self.canonical().to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def family(self) -> str:
        """Key of the row of ``backbone.models.backbone.FAMILIES`` that builds its networks."""
        return "cells"

    def spec_size(self, *, depth: int, width: int) -> str:
        """Return N @ F as a backbone spec writes it, such as ``4@1056``.

        Args:
            depth: N, the normal cells per stack.
            width: filters of the first stack's cells.
        """
        return f"{depth}@{self.penultimate_filters(width)}"

    def penultimate_filters(self, width: int) -> int:
        """Return F of N @ F, given the filters of the first stack's cells.

        Every stack is twice as wide as the one before it, and the normal cell concatenates hidden
        states of that width (NASNet-A: F = 24 x width).
        """
        return 2 ** (NUM_STACKS - 1) * len(self.normal.concat) * width

    def to_dict(self) -> dict[str, Any]:
        """Return the genotype as JSON's types, with the format's name and version."""
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "normal": self.normal.to_dict(),
            "reduction": self.reduction and self.reduction.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Genotype:
        """Read what ``to_dict`` wrote; other members, such as provenance, are ignored.

        Raises:
            ValueError: if the data have another form or describe a cell that cannot exist.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ValueError(f'not a genotype: expected an object with "format": "{FORMAT}"')
        if data.get("version") != FORMAT_VERSION:
            raise ValueError(
                f"genotype of version {data.get('version')!r}; "
                f"this program reads version {FORMAT_VERSION}"
            )
        single = "reduction" in data and data["reduction"] is None
        return cls(_read_cell(data, "normal"), None if single else _read_cell(data, "reduction"))

    @classmethod
    def load(cls, path: str | Path) -> Genotype:
        """Read a ``cells.json``.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not JSON or holds no valid genotype; the message names the file.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, UnicodeDecodeError) as error:  # JSONDecodeError is a ValueError
            raise ValueError(f"{path}: {error}") from None


def _member(data: Any, key: str, kind: type) -> Any:
    if not isinstance(data, Mapping) or not isinstance(data.get(key), kind):
        raise ValueError(f"expected an object with {key!r}, a {kind.__name__.lower()}")
    return data[key]


def _read_cell(data: Any, kind: str) -> CellSpec:
    try:
        return CellSpec.from_dict(_member(data, kind, Mapping))
    except ValueError as error:
        raise ValueError(f"{kind} cell: {error}") from None


def _read_block(index: int, data: Any) -> Block:
    try:
        edges = [_member(data, side, list) for side in ("left", "right")]
        if any(len(edge) != 2 for edge in edges):
            raise ValueError("an edge is written [operation, source]")
        return Block(Edge(*edges[0]), Edge(*edges[1]), data.get("combine", "add"))
    except ValueError as error:
        raise ValueError(f"block {index}: {error}") from None


def require_cells(architecture: Architecture) -> Genotype:
    """Return an architecture that is a genotype, for code that handles cells only.

    Raises:
        TypeError: if it is of another kind.
    """
    if not isinstance(architecture, Genotype):
        raise TypeError(
            f"this needs cells, a Genotype, not an architecture of type "
            f"{type(architecture).__name__!r} (family {architecture.family!r})"
        )
    return architecture
