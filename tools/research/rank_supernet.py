r"""Measure the rank correlation of supernet scores with stand-alone training.

Trains the supernet of a table's space, unless its file exists, and scores the table's cells with
it. Writes supernet_ranking.json, supernet_ranking.png and supernet.safetensors.

nasdet research rank-supernet table=docs/data/cifar10_648.jsonl \
    reward.data_root=/data/cifar10 reward.first_filters=8 reward.held_out_images=5000
nasdet research rank-supernet table=table.jsonl \
    reward.weights=runs/search/supernet.safetensors
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # modules that all tools share

from _cli import Run, tool
from _logger_base import LoggerConfig
from _output import print_line, to_json
from search.analysis.config import SupernetRankingConfig
from search.rewards.config import SupernetConfig


@dataclass(kw_only=True, slots=True)
class Args(SupernetRankingConfig):
    """Settings of ``rank_supernet``."""

    out: str
    """The run's folder."""
    reward: SupernetConfig
    """The supernet; its space is the table's."""
    logger: LoggerConfig
    """Where metrics are logged."""


@tool(Args)
def main(run: Run[Args]) -> None:
    from backbone.io.text_tables import text_table
    from search.analysis.supernet_ranking import measure_supernet_ranking

    result = measure_supernet_ranking(run.args, run.args.reward, run.out)
    run.log_metrics({f"tau/{c.name}": c.overall.tau for c in result.compared})
    picture = result.path.with_suffix(".png")
    run.log_images("supernet_ranking", [picture])
    run.finish()
    figures = to_json(result)
    del figures["path"]
    run.report(**figures, scores=result.path, plots=picture)
    print(f"\n{text_table(*result.table())}\n")
    print(
        f"first by the supernet: reward {result.chosen_reward:.4f}, rank {result.chosen_rank} in "
        f"the table, whose best is {result.best_reward:.4f}"
    )
    seconds = f"{result.training_seconds:.0f} s of training"
    print(f"{seconds}, then {result.score_seconds:.3g} s per genotype")
    print_line("scores", result.path)
    print_line("plots", picture)


if __name__ == "__main__":
    main()
