r"""Measure how well cheap rewards order cells as a dear one does, and say which to search with.

Writes fidelity.json, fidelity.png and measurements.jsonl. Run again, it goes on.

python tools/measure_fidelity.py                                    # demonstration data
python tools/measure_fidelity.py reward=proxy_paper reward.data_root=/data/cifar10 \
    'cheap=[{epochs: 5},{epochs: 1, max_train_images: 5000},{first_filters: 8}]'
python tools/measure_fidelity.py num_genotypes=50 wanted_tau=0.6 'zero_cost=[naswot]'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from _entry import start_tool
from _run import log_images, plain_errors, start_run
from _search_schemas import MeasureFidelity

if TYPE_CHECKING:
    from search.rewards.base import Reward
    from search.rewards.config import ProxyConfig


@hydra.main(version_base=None, config_path="../conf", config_name="measure_fidelity")
def main(config: DictConfig) -> None:
    with plain_errors():
        run = start_run(config)
        settings: MeasureFidelity = run.settings
        proxies = {
            " ".join(f"{key}={value}" for key, value in changes.items()): changed(
                settings.reward, changes
            )
            for changes in settings.cheap
        }
        from backbone.io.text_tables import text_table
        from search.analysis.fidelity import measure_fidelity
        from search.rewards.proxy import ProxyReward

        dear = ProxyReward(settings.reward)
        cheap: dict[str, Reward] = {name: ProxyReward(proxy) for name, proxy in proxies.items()}
        result = measure_fidelity(
            settings, run.out, dear=dear, cheap=cheap | zero_cost_rewards(settings)
        )
        compared = (result.ceiling, *result.cheap)
        for logger in run.loggers:
            taus = {f"tau/{c.name}": c.agreement.tau for c in compared if c.agreement}
            logger.log_metrics(taus)
        picture = result.path.with_suffix(".png")
        log_images(run.loggers, "fidelity", [picture])
        run.finish()
        print(f"\n{text_table(*result.table())}\n")
        for problem in (f"{c.name}: {c.problem}" for c in compared if c.problem):
            print(problem)
        print(f"{result.advice}\nmeasurements: {result.path}\nplots: {picture}")


def changed(proxy: ProxyConfig, changes: dict[str, Any]) -> ProxyConfig:
    """Return a proxy training with some settings changed.

    Raises:
        ValueError: if there are no changes, no such setting, or it cannot have that value.
    """
    if not changes:
        raise ValueError("a cheap reward has to change something, as {epochs: 1} does")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(proxy), changes))  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ValueError(f"cheap={changes}: {str(error).splitlines()[0]}") from None


def zero_cost_rewards(settings: MeasureFidelity) -> dict[str, Reward]:
    """Return the scores without training that are asked for."""
    from search.rewards.config import ZeroCostConfig
    from search.rewards.zero_cost import ZeroCostReward

    return {
        score: ZeroCostReward(
            settings.reward,
            ZeroCostConfig(score=score, batch_size=settings.zero_cost_batch_size),
        )
        for score in settings.zero_cost
    }


if __name__ == "__main__":
    start_tool(main, about=__doc__)
