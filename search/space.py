"""Cell search space: genotypes as sequences of decisions (paper, section 3).

A block is five decisions, in the paper's order: its first hidden state, its second, the operation
on the first, the operation on the second, and the combination of the results. The normal cell's
blocks come first, then the reduction cell's. The spaces of PNASNet, AmoebaNet and DARTS are
special cases with other operations and a few restrictions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from backbone.cells.genotype import (
    COMBINATIONS,
    NASNET_OPERATIONS,
    NUM_INPUTS,
    OPERATION_NAMES,
    Block,
    CellSpec,
    Edge,
    Genotype,
)
from backbone.presets import Preset

if TYPE_CHECKING:
    import torch

CELLS = ("normal", "reduction")
CONCATENATIONS = ("unused", "all")
DECISIONS_PER_BLOCK = 5


@dataclass(kw_only=True, slots=True)
class SpaceConfig(Preset):
    """The genotypes to search: all whose cells have this many blocks of these operations."""

    preset_group: ClassVar[str] = "search/space"

    operations: list[str] = field(default_factory=lambda: list(NASNET_OPERATIONS))
    """Candidate operations; the paper's 13 by default."""
    num_blocks: int = 5
    """B: number of blocks per cell, at least 1 (paper, section 3: 5)."""
    combinations: list[str] = field(default_factory=lambda: list(COMBINATIONS))
    """Ways of combining the two results of a block, of ``add`` and ``concat``."""
    cells: list[str] = field(default_factory=lambda: list(CELLS))
    """``normal`` and ``reduction``, or ``normal`` alone, which then serves at both strides."""
    concat: str = "unused"
    """Blocks that a cell concatenates: those ``unused`` by other blocks, or ``all``."""
    distinct_sources: bool = False
    """Whether the two inputs of a block must differ."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A categorical variable of the space; a decision is the index of one of its options."""

    name: str
    """Name such as ``normal_2_left_source``; blocks are counted from 0."""
    kind: str
    """``source``, ``operation`` or ``combination``: decisions of one kind share their options."""
    num_options: int
    """Number of options; decisions are 0 to ``num_options - 1``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """All genotypes whose cells have ``num_blocks`` blocks; see ``SpaceConfig`` for the fields.

    Raises:
        ValueError: if the space is empty, or has an unknown operation, combination or cell.
    """

    operations: tuple[str, ...] = NASNET_OPERATIONS
    num_blocks: int = 5
    combinations: tuple[str, ...] = COMBINATIONS
    cells: tuple[str, ...] = CELLS
    concat: str = "unused"
    distinct_sources: bool = False
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)
    """The variables of a genotype, in order."""

    def __post_init__(self) -> None:
        if self.num_blocks < 1:
            raise ValueError(f"a cell needs at least 1 block, not {self.num_blocks}")
        for kind, chosen, known in (
            ("operation", self.operations, OPERATION_NAMES),
            ("combination", self.combinations, COMBINATIONS),
        ):
            if not chosen:
                raise ValueError(f"a space needs at least one {kind} of {known}")
            if len(set(chosen)) != len(chosen):
                raise ValueError(f"the space lists a {kind} twice: {list(chosen)}")
            for name in chosen:
                if name not in known:
                    raise ValueError(f"unknown {kind} {name!r} in the space; choose from {known}")
        self._check_shape()
        object.__setattr__(self, "choices", tuple(self._list_choices()))

    def _check_shape(self) -> None:
        if self.cells not in (CELLS, CELLS[:1]):
            raise ValueError(
                f"the cells of a space must be {list(CELLS)} or {list(CELLS[:1])}, not "
                f"{list(self.cells)}"
            )
        if self.concat not in CONCATENATIONS:
            raise ValueError(f"unknown concat {self.concat!r}; choose from {CONCATENATIONS}")

    def _list_choices(self) -> Iterator[Choice]:
        for cell in self.cells:
            for block in range(self.num_blocks):
                prefix, num_states = f"{cell}_{block}", NUM_INPUTS + block
                yield Choice(f"{prefix}_left_source", "source", num_states)
                yield Choice(f"{prefix}_right_source", "source", num_states - self.distinct_sources)
                for side in ("left", "right"):
                    yield Choice(f"{prefix}_{side}_operation", "operation", len(self.operations))
                yield Choice(f"{prefix}_combination", "combination", len(self.combinations))

    @property
    def num_sequences(self) -> int:
        """Number of sequences of decisions; several may compute the same function."""
        return math.prod(choice.num_options for choice in self.choices)

    def enumerate(self, limit: int = 1_000_000) -> Iterator[Genotype]:
        """Yield every distinct function of the space once, as its canonical genotype.

        Raises:
            ValueError: if there are more than ``limit`` sequences of decisions.
        """
        if self.num_sequences > limit:
            raise ValueError(
                f"the space has {self.num_sequences:.3g} sequences of decisions, too many to list; "
                f"the limit is {limit}"
            )
        seen: set[Genotype] = set()
        for decisions in itertools.product(*(range(c.num_options) for c in self.choices)):
            genotype = self.to_genotype(decisions).canonical()
            if genotype not in seen:
                seen.add(genotype)
                yield genotype

    def to_genotype(self, decisions: Sequence[int]) -> Genotype:
        """Return the genotype of a sequence of option indices, one per choice.

        Raises:
            ValueError: if there are too few or too many, or one is out of range.
        """
        if len(decisions) != len(self.choices):
            raise ValueError(
                f"a genotype of this space has {len(self.choices)} decisions, not {len(decisions)}"
            )
        for choice, decision in zip(self.choices, decisions, strict=True):
            if not 0 <= decision < choice.num_options:
                raise ValueError(
                    f"decision {choice.name} must be 0 to {choice.num_options - 1}, not {decision}"
                )
        blocks = [
            self._block(decisions[start : start + DECISIONS_PER_BLOCK])
            for start in range(0, len(decisions), DECISIONS_PER_BLOCK)
        ]
        normal = self._cell(blocks[: self.num_blocks])
        rest = blocks[self.num_blocks :]
        return Genotype(normal, self._cell(rest) if rest else None)

    def _cell(self, blocks: Sequence[Block]) -> CellSpec:
        if self.concat == "unused":
            return CellSpec.from_blocks(blocks)
        return CellSpec(tuple(blocks), tuple(range(NUM_INPUTS, NUM_INPUTS + len(blocks))))

    def _block(self, decisions: Sequence[int]) -> Block:
        left_source, right_source, left_operation, right_operation, combination = decisions
        if self.distinct_sources and right_source >= left_source:
            right_source += 1  # the options are the states other than the left one
        return Block(
            Edge(self.operations[left_operation], left_source),
            Edge(self.operations[right_operation], right_source),
            self.combinations[combination],
        )

    def to_decisions(self, genotype: Genotype) -> tuple[int, ...]:
        """Return the decisions of a genotype; the inverse of ``to_genotype``.

        Raises:
            ValueError: if the genotype is not in this space.
        """
        if tuple(genotype.cells) != self.cells:
            raise ValueError(
                f"the genotype has the cells {list(genotype.cells)}; genotypes of this space have "
                f"{list(self.cells)}"
            )
        decisions: list[int] = []
        for kind, cell in genotype.cells.items():
            if len(cell.blocks) != self.num_blocks:
                raise ValueError(
                    f"the {kind} cell has {len(cell.blocks)} blocks; this space has cells of "
                    f"{self.num_blocks}"
                )
            if cell.concat != self._cell(cell.blocks).concat:
                raise ValueError(
                    f"the {kind} cell concatenates {list(cell.concat)}; in this space a cell "
                    f"concatenates {self._concatenated}"
                )
            for block in cell.blocks:
                decisions += self._sources(block)
                decisions += (
                    _index(self.operations, edge.operation) for edge in (block.left, block.right)
                )
                decisions.append(_index(self.combinations, block.combine))
        return tuple(decisions)

    @property
    def _concatenated(self) -> str:
        return "all blocks" if self.concat == "all" else "the blocks that no block reads"

    def _sources(self, block: Block) -> tuple[int, int]:
        left, right = block.left.source, block.right.source
        if not self.distinct_sources:
            return left, right
        if left == right:
            raise ValueError(
                f"a block reads state {left} twice; in this space its inputs must differ"
            )
        return left, right - (right > left)

    def sample(self, generator: torch.Generator) -> tuple[int, ...]:
        """Draw every decision uniformly and independently."""
        import torch

        return tuple(
            int(torch.randint(choice.num_options, (), generator=generator))
            for choice in self.choices
        )


def build_space(config: SpaceConfig) -> SearchSpace:
    """Build the search space of a config; raises like ``SearchSpace``."""
    return SearchSpace(
        operations=tuple(config.operations),
        num_blocks=config.num_blocks,
        combinations=tuple(config.combinations),
        cells=tuple(config.cells),
        concat=config.concat,
        distinct_sources=config.distinct_sources,
    )


def _index(names: Sequence[str], name: str) -> int:
    if name not in names:
        raise ValueError(f"{name!r} is not in this space; it has {list(names)}")
    return names.index(name)
