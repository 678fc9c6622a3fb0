r"""Measure the rank correlation of proxy rewards with a reference reward, and recommend a proxy.

Writes fidelity.json, fidelity.png and measurements.jsonl. The same command resumes an interrupted
measurement.

nasdet research measure-fidelity                                # demonstration data
nasdet research measure-fidelity reward=proxy_paper reward.data_root=/data/cifar10 \
    'proxies=[{epochs: 5},{epochs: 1, max_train_images: 5000},{first_filters: 8}]'
nasdet research measure-fidelity num_genotypes=50 wanted_tau=0.6 'zero_cost=[naswot]'
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

sys.path.append(str(Path(__file__).parents[1]))  # modules that all tools share

from _cli import Run, tool
from _logger_base import LoggerConfig
from _output import print_line, to_json
from search.analysis.config import FidelityConfig
from search.rewards.config import ProxyConfig, SupernetConfig, ZeroCostConfig

if TYPE_CHECKING:
    from search.rewards.base import Reward


@dataclass(kw_only=True, slots=True)
class Args(FidelityConfig):
    """Settings of ``measure_fidelity``."""

    out: str
    """The run's folder."""
    reward: ProxyConfig
    """The reference reward, a proxy training."""
    proxies: list[dict[str, Any]]
    """Cheaper proxies: the settings of the reference that each changes, such as {epochs: 1}."""
    zero_cost: list[str]
    """Training-free scores, which are proxies too; see ``search/rewards/zero_cost.py``."""
    zero_cost_batch_size: int = 64
    """Images in the one batch that such a score uses."""
    logger: LoggerConfig
    """Where metrics are logged."""

    def __post_init__(self) -> None:
        FidelityConfig.__post_init__(self)
        if isinstance(self.reward, SupernetConfig):
            raise ValueError("a supernet is compared with a table: see rank_supernet")
        for score in self.zero_cost:
            ZeroCostConfig(score=score, batch_size=self.zero_cost_batch_size)


@tool(Args, renamed={"cheap": "proxies"})
def main(run: Run[Args]) -> None:
    args = run.args
    configs = {
        " ".join(f"{key}={value}" for key, value in changes.items()): changed(args.reward, changes)
        for changes in args.proxies
    }
    from backbone.io.text_tables import text_table
    from search.analysis.fidelity import measure_fidelity
    from search.rewards.proxy import ProxyReward

    reference = ProxyReward(args.reward)
    proxies: dict[str, Reward] = {name: ProxyReward(proxy) for name, proxy in configs.items()}
    result = measure_fidelity(
        args, run.out, reference=reference, proxies=proxies | zero_cost_rewards(args)
    )
    compared = (result.self_agreement, *result.proxies)
    run.log_metrics({f"tau/{c.name}": c.correlation.tau for c in compared if c.correlation})
    picture = result.path.with_suffix(".png")
    run.log_images("fidelity", [picture])
    run.finish()
    figures = to_json(result)
    del figures["path"]
    run.report(**figures, measurements=result.path, plots=picture)
    print(f"\n{text_table(*result.table())}\n")
    for problem in (f"{c.name}: {c.problem}" for c in compared if c.problem):
        print(problem)
    print(result.advice)
    print_line("measurements", result.path)
    print_line("plots", picture)


def changed(reference: ProxyConfig, changes: dict[str, Any]) -> ProxyConfig:
    """Return the reference training with some settings changed.

    Raises:
        ValueError: if there are no changes, no such setting, or it cannot have that value.
    """
    if not changes:
        raise ValueError("a proxy must change at least one setting, as {epochs: 1} does")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(reference), changes))  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ValueError(f"proxies={changes}: {str(error).splitlines()[0]}") from None


def zero_cost_rewards(args: Args) -> dict[str, Reward]:
    """Return the training-free scores that are asked for."""
    from search.rewards.zero_cost import ZeroCostReward

    return {
        score: ZeroCostReward(
            args.reward, ZeroCostConfig(score=score, batch_size=args.zero_cost_batch_size)
        )
        for score in args.zero_cost
    }


if __name__ == "__main__":
    main()
