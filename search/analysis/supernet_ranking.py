"""How well shared weights order genotypes as stand-alone training does, on a table of rewards."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from backbone.io.files import write_json
from backbone.io.provenance import Provenance, fingerprint_file
from search.analysis.config import MIN_GENOTYPES, SupernetRankingConfig
from search.analysis.rank_correlation import Agreement, measure_agreement
from search.analysis.recommendation import describe
from search.analysis.scatter import Panel, draw_scatter
from search.randomness import stream
from search.rewards.config import CostConfig, SupernetConfig, TableConfig
from search.rewards.cost import genotype_cost
from search.rewards.supernet_reward import SupernetReward
from search.rewards.tabular import TableReward, TableRow

SHARED, MULT_ADDS = "shared weights", "multiply-adds"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingComparison:
    """How one stand-in orders genotypes as the table does."""

    name: str
    overall: Agreement
    best: Agreement | None
    """Among the best by the table; None if they are too few or all alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetRankingResult:
    """What was measured."""

    path: Path
    """``sharing.json``."""
    compared: list[RankingComparison]
    """The shared network, then multiply-adds, which cost nothing and have to be beaten."""
    confidence: float
    best_fraction: float
    training_seconds: float
    """Of the shared network, once."""
    score_seconds: float
    """Median per genotype."""
    chosen_reward: float
    """The table's, of the genotype that shared weights rank first."""
    best_reward: float
    """The table's best."""
    chosen_rank: int
    """Of that genotype in the table, from 1."""

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return a head and rows of text."""
        interval = f"{self.confidence:.0%} interval"
        head = ["order by", "genotypes", "number", "tau", interval]
        rows = []
        for compared in self.compared:
            for which, found in (
                ("all", compared.overall),
                (f"best {self.best_fraction:.0%}", compared.best),
            ):
                numbers = ["-", "-", "-"]
                if found is not None:
                    between = f"{found.low:.2f} to {found.high:.2f}"
                    numbers = [str(found.num_genotypes), f"{found.tau:.2f}", between]
                rows.append([compared.name, which, *numbers])
        return head, rows


def measure_sharing(
    config: SupernetRankingConfig, reward: SupernetConfig, out_dir: Path
) -> SupernetRankingResult:
    """Score a table's genotypes with shared weights; write ``sharing.json`` and ``sharing.png``.

    Args:
        config: which table, and what to make of it.
        reward: the shared network, trained now if its file is not there. Its space is the table's.
        out_dir: the folder.

    Raises:
        FileNotFoundError: if the table or the data are missing.
        ValueError: if the table or the shared network's file is not what it should be, or there
            are too few genotypes.
    """
    table = TableReward(TableConfig(path=config.table))
    reward = replace(reward, space=table.space)
    rows = _draw_rows(table.rows, config)
    shared = SupernetReward(reward)
    training_seconds = shared.prepare(progress=config.progress)
    scores, seconds = _score(rows, shared, progress=config.progress)
    mult_adds = CostConfig(
        num_cells=reward.num_cells, first_filters=reward.first_filters, stem="cifar", side_px=32
    )
    costs = [genotype_cost(row.genotype, mult_adds).value for row in rows]
    rewards = [row.reward for row in rows]
    chosen = rewards[max(range(len(rows)), key=scores.__getitem__)]
    result = SupernetRankingResult(
        path=out_dir / "sharing.json",
        compared=[
            _compare(name, rewards, values, config)
            for name, values in ((SHARED, scores), (MULT_ADDS, costs))
        ],
        confidence=config.confidence,
        best_fraction=config.best_fraction,
        training_seconds=training_seconds,
        score_seconds=statistics.median(seconds),
        chosen_reward=chosen,
        best_reward=max(rewards),
        chosen_rank=1 + sum(value > chosen for value in rewards),
    )
    panels = [
        Panel(title=c.name, about=describe(c.overall), across=values, up=rewards)
        for c, values in zip(result.compared, (scores, costs), strict=True)
    ]
    draw_scatter(panels, result.path.with_suffix(".png"), up_label="stand-alone reward")
    _write(result, config, shared, rows, scores=scores, costs=costs)
    return result


def _draw_rows(rows: Sequence[TableRow], config: SupernetRankingConfig) -> list[TableRow]:
    order = torch.randperm(len(rows), generator=stream("sharing", config.seed)).tolist()
    drawn = sorted(order[: config.num_genotypes or None])
    if len(drawn) < max(config.num_genotypes, MIN_GENOTYPES):
        raise ValueError(
            f"{config.table} has {len(rows)} genotypes; num_genotypes can be {MIN_GENOTYPES} to as "
            f"many, not {config.num_genotypes}"
        )
    return [rows[index] for index in drawn]


def _score(
    rows: Sequence[TableRow], shared: SupernetReward, *, progress: bool
) -> tuple[list[float], list[float]]:
    """Return each row's score and the seconds that it took."""
    scores, seconds = [], []
    for row in tqdm(rows, desc="scores", unit="cell", disable=not progress):
        start = time.perf_counter()
        scores.append(shared(row.genotype, seed=0, report=lambda _step, _value: None))
        seconds.append(time.perf_counter() - start)
    return scores, seconds


def _compare(
    name: str, rewards: Sequence[float], values: Sequence[float], config: SupernetRankingConfig
) -> RankingComparison:
    def agreement(indices: Sequence[int]) -> Agreement:
        return measure_agreement(
            [rewards[index] for index in indices],
            [values[index] for index in indices],
            confidence=config.confidence,
            num_resamples=config.num_resamples,
        )

    ranked = sorted(range(len(rewards)), key=lambda index: -rewards[index])
    best: Agreement | None = None
    with suppress(ValueError):  # too few, or all alike; of all genotypes that is an error
        best = agreement(ranked[: math.ceil(config.best_fraction * len(ranked))])
    return RankingComparison(name=name, overall=agreement(ranked), best=best)


def _write(
    result: SupernetRankingResult,
    config: SupernetRankingConfig,
    shared: SupernetReward,
    rows: Sequence[TableRow],
    *,
    scores: Sequence[float],
    costs: Sequence[float],
) -> None:
    provenance = Provenance(
        stage="sharing",
        arguments={
            "reward": shared.arguments,
            "num_genotypes": config.num_genotypes,
            "best_fraction": config.best_fraction,
            "seed": config.seed,
            "confidence": config.confidence,
            "num_resamples": config.num_resamples,
        },
        inputs={"table": fingerprint_file(config.table)},
        data=shared.data,
    )
    found = asdict(result)
    del found["path"]
    genotypes = [
        {"digest": r.genotype.digest, "reward": r.reward, "score": score, "mult_adds": cost}
        for r, score, cost in zip(rows, scores, costs, strict=True)
    ]
    write_json(result.path, found | {"genotypes": genotypes, "provenance": provenance.to_dict()})
