r"""Measure how well a shared network orders cells as stand-alone training does.

Trains the network of a table's space, unless it is there, and scores the table's cells with it.
Writes sharing.json, sharing.png and supernet.safetensors.

python tools/measure_sharing.py table=docs/data/cifar10_648.jsonl reward.data_root=/data/cifar10 \
    reward.first_filters=8 reward.held_out_images=5000
python tools/measure_sharing.py table=table.jsonl reward.weights=runs/search/supernet.safetensors
"""

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import log_images, plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="measure_sharing")
def main(config: DictConfig) -> None:
    with plain_errors():
        run = start_run(config)

        from backbone.io.text_tables import text_table
        from search.analysis.supernet_ranking import measure_sharing

        result = measure_sharing(run.settings, run.settings.reward, run.out)
        for logger in run.loggers:
            logger.log_metrics({f"tau/{c.name}": c.overall.tau for c in result.compared})
        picture = result.path.with_suffix(".png")
        log_images(run.loggers, "sharing", [picture])
        run.finish()
        print(f"\n{text_table(*result.table())}\n")
        print(
            f"first by shared weights: reward {result.chosen_reward:.4f}, number "
            f"{result.chosen_rank} of the table, whose best is {result.best_reward:.4f}"
        )
        print(
            f"{result.training_seconds:.0f} s of training, then {result.score_seconds:.3g} s per "
            f"genotype\nscores: {result.path}\nplots: {picture}"
        )


if __name__ == "__main__":
    start_tool(main, about=__doc__)
