r"""Reward every genotype of a small space once, as a table on which strategies can be compared.

Writes rewards.jsonl. The same command resumes an interrupted table.

nasdet research tabulate-rewards                               # demonstration data
nasdet research tabulate-rewards reward.data_root=/data/cifar10 reward.epochs=2 \
    'space.operations=[identity,conv_3x3,sep_conv_3x3]'
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # modules that all tools share

from _cli import Run, tool
from _output import print_line
from search.execution.base import ExecutorConfig
from search.rewards.config import CostConfig
from search.space import SpaceConfig


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``tabulate_rewards``."""

    out: str
    """The folder for ``rewards.jsonl``; an existing table with the same settings is completed."""
    space: SpaceConfig
    """The space whose genotypes are rewarded, of at most a million sequences of decisions."""
    reward: Any
    """Settings of the reward of a genotype; see the choices of ``reward``."""
    executor: ExecutorConfig
    """Where trainings run."""
    cost: CostConfig = field(default_factory=CostConfig)
    """The cost that the table holds for each genotype."""
    seed: int = 0
    """Seed of every training."""
    progress: bool = True
    """Whether a progress bar is shown."""

    def __post_init__(self) -> None:
        if self.cost.target or self.cost.front:
            raise ValueError(
                "a table holds plain rewards and costs; cost.target and cost.front belong to a "
                "search"
            )


@tool(Args)
def main(run: Run[Args]) -> None:
    from _rewards import build_reward
    from search.analysis.reward_table import record_table
    from search.rewards.tabular import read_table

    args, path = run.args, run.out / "rewards.jsonl"
    num_failed = record_table(
        path,
        args.space,
        build_reward(args.reward),
        executor=args.executor,
        cost=args.cost,
        seed=args.seed,
        progress=args.progress,
    )
    run.record()
    rows = read_table(path)[1]
    run.report(num_genotypes=len(rows), num_failed=num_failed, table=path)
    print(f"{len(rows)} genotypes, {num_failed} left out because their training failed")
    if rows:
        best = max(rows, key=lambda row: row.reward)
        run.report(digest=best.genotype.digest, reward=best.reward, cost=best.cost)
        cost = f", {args.cost.measure} {best.cost:,.10g}" if best.cost is not None else ""
        print_line("best", f"{best.genotype.digest} with reward {best.reward:.4f}{cost}")
    print_line("table", path)


if __name__ == "__main__":
    main()
