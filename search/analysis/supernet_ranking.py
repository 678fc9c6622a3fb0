"""Rank correlation of a supernet with stand-alone training, on a table of rewards."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from backbone.io.files import write_json
from backbone.io.progress import progress_bar
from backbone.io.provenance import Provenance, fingerprint_file
from search.analysis.config import MIN_GENOTYPES, SupernetRankingConfig
from search.analysis.rank_correlation import RankCorrelation, measure_rank_correlation
from search.analysis.scatter import Panel, draw_scatter
from search.randomness import stream
from search.rewards.config import CostConfig, SupernetConfig
from search.rewards.cost import genotype_cost
from search.rewards.supernet_reward import SupernetReward
from search.rewards.tabular import TableConfig, TableReward, TableRow

SUPERNET, MULT_ADDS = "supernet", "multiply-adds"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingComparison:
    """Rank correlation of one score with the table's rewards."""

    name: str
    overall: RankCorrelation
    """Over all genotypes."""
    best: RankCorrelation | None
    """Over the best by the table; None if they are too few or all equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetRankingResult:
    """Rank correlations of a supernet and of its baseline."""

    path: Path
    """``supernet_ranking.json``."""
    compared: list[RankingComparison]
    """The supernet, then the baseline, multiply-adds, which need no training."""
    confidence: float
    """Confidence level of the intervals."""
    best_fraction: float
    """Fraction of the genotypes that count as the best by the table."""
    training_seconds: float
    """Duration of the supernet's training."""
    score_seconds: float
    """Median duration of a genotype's score."""
    chosen_reward: float
    """Reward in the table of the genotype that the supernet ranks first."""
    best_reward: float
    """Highest reward in the table."""
    chosen_rank: int
    """Rank in the table of the genotype that the supernet ranks first, from 1."""

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of text."""
        header = ["order by", "genotypes", "number", "tau", f"{self.confidence:.0%} interval"]
        rows = []
        for compared in self.compared:
            for subset, correlation in (
                ("all", compared.overall),
                (f"best {self.best_fraction:.0%}", compared.best),
            ):
                numbers = ["-", "-", "-"]
                if correlation is not None:
                    interval = f"{correlation.low:.2f} to {correlation.high:.2f}"
                    numbers = [str(correlation.num_genotypes), f"{correlation.tau:.2f}", interval]
                rows.append([compared.name, subset, *numbers])
        return header, rows


def measure_supernet_ranking(
    config: SupernetRankingConfig, reward: SupernetConfig, out_dir: Path
) -> SupernetRankingResult:
    """Score a table's genotypes with a supernet, and compare the scores with the table's rewards.

    Writes ``supernet_ranking.json`` and ``supernet_ranking.png``.

    Args:
        config: the table and the statistics.
        reward: the supernet, trained first if its file does not exist; its ``space`` is replaced by
            the table's.
        out_dir: output folder.

    Raises:
        FileNotFoundError: if the table or the data are missing.
        ValueError: if the table or the supernet's file is damaged or does not match, or there are
            too few genotypes.
    """
    table = TableReward(TableConfig(path=config.table))
    reward = replace(reward, space=table.space)
    rows = _draw_rows(table.rows, config)
    supernet = SupernetReward(reward)
    training_seconds = supernet.prepare(progress=config.progress)
    scores, seconds = _score(rows, supernet, progress=config.progress)
    mult_adds = CostConfig(
        num_cells=reward.num_cells, first_filters=reward.first_filters, stem="cifar", side_px=32
    )
    costs = [genotype_cost(row.genotype, mult_adds).value for row in rows]
    rewards = [row.reward for row in rows]
    chosen = rewards[max(range(len(rows)), key=scores.__getitem__)]
    result = SupernetRankingResult(
        path=out_dir / "supernet_ranking.json",
        compared=[
            _compare(name, rewards, values, config)
            for name, values in ((SUPERNET, scores), (MULT_ADDS, costs))
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
        Panel(title=c.name, caption=str(c.overall), x=values, y=rewards)
        for c, values in zip(result.compared, (scores, costs), strict=True)
    ]
    draw_scatter(panels, result.path.with_suffix(".png"), y_label="stand-alone reward")
    _write(result, config, supernet, rows, scores=scores, costs=costs)
    return result


def _draw_rows(rows: Sequence[TableRow], config: SupernetRankingConfig) -> list[TableRow]:
    order = torch.randperm(len(rows), generator=stream("sharing", config.seed)).tolist()
    drawn = sorted(order[: config.num_genotypes or None])
    if len(drawn) < max(config.num_genotypes, MIN_GENOTYPES):
        raise ValueError(
            f"{config.table} has {len(rows)} genotypes; num_genotypes must be from {MIN_GENOTYPES} "
            f"to {len(rows)}, not {config.num_genotypes}"
        )
    return [rows[index] for index in drawn]


def _score(
    rows: Sequence[TableRow], supernet: SupernetReward, *, progress: bool
) -> tuple[list[float], list[float]]:
    """Return each row's score and its duration in seconds."""
    scores, seconds = [], []
    for row in progress_bar(rows, desc="scores", unit="cell", shown=progress):
        start = time.perf_counter()
        scores.append(supernet(row.genotype, seed=0, report=lambda _step, _value: None))
        seconds.append(time.perf_counter() - start)
    return scores, seconds


def _compare(
    name: str, rewards: Sequence[float], values: Sequence[float], config: SupernetRankingConfig
) -> RankingComparison:
    def correlate(indices: Sequence[int]) -> RankCorrelation:
        return measure_rank_correlation(
            [rewards[index] for index in indices],
            [values[index] for index in indices],
            confidence=config.confidence,
            num_resamples=config.num_resamples,
        )

    ranked = sorted(range(len(rewards)), key=lambda index: -rewards[index])
    best: RankCorrelation | None = None
    with suppress(ValueError):  # too few, or all equal, which is an error only for all genotypes
        best = correlate(ranked[: math.ceil(config.best_fraction * len(ranked))])
    return RankingComparison(name=name, overall=correlate(ranked), best=best)


def _write(
    result: SupernetRankingResult,
    config: SupernetRankingConfig,
    supernet: SupernetReward,
    rows: Sequence[TableRow],
    *,
    scores: Sequence[float],
    costs: Sequence[float],
) -> None:
    provenance = Provenance(
        stage="supernet_ranking",
        arguments={
            "reward": supernet.arguments,
            "num_genotypes": config.num_genotypes,
            "best_fraction": config.best_fraction,
            "seed": config.seed,
            "confidence": config.confidence,
            "num_resamples": config.num_resamples,
        },
        inputs={"table": fingerprint_file(config.table)},
        data=supernet.data,
    )
    record = asdict(result)
    del record["path"]
    genotypes = [
        {"digest": r.genotype.digest, "reward": r.reward, "score": score, "mult_adds": cost}
        for r, score, cost in zip(rows, scores, costs, strict=True)
    ]
    write_json(result.path, record | {"genotypes": genotypes, "provenance": provenance.to_dict()})
