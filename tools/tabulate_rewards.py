r"""Reward every genotype of a small space once, as a table that strategies can be compared on.

Writes rewards.jsonl. Run again, it goes on.

python tools/tabulate_rewards.py                                    # demonstration data
python tools/tabulate_rewards.py reward.data_root=/data/cifar10 reward.epochs=2 \
    'space.operations=[identity,conv_3x3,sep_conv_3x3]'
"""

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="tabulate_rewards")
def main(config: DictConfig) -> None:
    with plain_errors():
        run = start_run(config)
        settings, path = run.settings, run.out / "rewards.jsonl"

        from _rewards import build_reward
        from search.analysis.reward_table import record_table
        from search.rewards.tabular import read_table

        num_failed = record_table(
            path,
            settings.space,
            build_reward(settings.reward),
            executor=settings.executor,
            cost=settings.cost,
            seed=settings.seed,
            progress=settings.progress,
        )
        run.record()
        rows = read_table(path)[1]
        print(f"{len(rows)} genotypes, {num_failed} left out because their training failed")
        if rows:
            best = max(rows, key=lambda row: row.reward)
            cost = f", {settings.cost.measure} {best.cost:,.10g}" if best.cost is not None else ""
            print(f"best: {best.genotype.digest} with reward {best.reward:.4f}{cost}")
        print(f"table: {path}")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
