"""Fidelity of proxy rewards: rank correlation with a reference reward, and which to search with.

The best cell of a search is only as good as the order that its reward gives. Random genotypes of
the space are rewarded by the reference and by each proxy, and Kendall's tau tells how often two
rewards order a pair of genotypes alike: tau = 2 x fraction - 1. The reference's agreement with
itself from another seed is an upper bound of what can be expected from a proxy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backbone.cells.genotype import Genotype
from backbone.io.files import write_json
from backbone.io.progress import progress_bar
from backbone.io.provenance import Provenance
from search.analysis.config import MIN_GENOTYPES, FidelityConfig
from search.analysis.rank_correlation import kendall_tau
from search.analysis.recommendation import (
    Comparison,
    compare,
    median_seconds,
    paired_values,
    recommend,
)
from search.analysis.reward_log import LOG_NAME, LoggedReward, RewardLog
from search.analysis.scatter import Panel, draw_scatter
from search.randomness import stream
from search.rewards.base import Reward
from search.space import SearchSpace, build_space

REFERENCE, REPEATED_REFERENCE = "reference", "reference again"
"""Names of the reference reward, and of the same reward from another seed."""
MAX_DRAWS_PER_GENOTYPE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FidelityResult:
    """Fidelity of each proxy, and a recommendation."""

    path: Path
    """``fidelity.json``."""
    confidence: float
    """Confidence level of the intervals."""
    reference_seconds: float | None
    """Median seconds of the reference per genotype; None if it always failed."""
    self_agreement: Comparison
    """The reference compared with itself from another seed."""
    proxies: list[Comparison]
    recommended: str | None
    """Name of the fastest proxy that reaches the wanted tau; None if none does."""
    advice: str
    """The recommendation as a sentence."""

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of text: the reference against itself, then each proxy."""
        interval = f"{self.confidence:.0%} interval"
        header = ["reward", "tau", interval, "genotypes", "failed", "seconds", "% of reference"]
        return header, [self._row(compared) for compared in (self.self_agreement, *self.proxies)]

    def _row(self, compared: Comparison) -> list[str]:
        correlation, seconds = compared.correlation, compared.seconds
        numbers = ["-", "-", "-"]
        if correlation is not None:
            interval = f"{correlation.low:.2f} to {correlation.high:.2f}"
            numbers = [f"{correlation.tau:.2f}", interval, str(correlation.num_genotypes)]
        cost = ["-", "-"]
        if seconds is not None and self.reference_seconds:
            cost = [f"{seconds:.3g}", f"{seconds / self.reference_seconds:.1%}"]
        return [compared.name, *numbers, str(compared.num_failed), *cost]


def measure_fidelity(
    config: FidelityConfig, out_dir: Path, *, reference: Reward, proxies: Mapping[str, Reward]
) -> FidelityResult:
    """Measure, and write ``fidelity.json`` and ``fidelity.png`` into ``out_dir``.

    Every reward is appended to ``measurements.jsonl`` when it is measured. A later run in the same
    folder reuses those of the same reward, data, seed and genotype, and measures the others: after
    an interruption, with more genotypes, or with another proxy.

    Args:
        config: the genotypes and the statistics.
        out_dir: output folder.
        reference: the reward that the proxies are to replace.
        proxies: name -> reward. A proxy on the same images shares their luck with the reference, as
            it does in a search.

    Raises:
        ValueError: if there is no proxy, one has the name of the reference, or the space has too
            few genotypes.
        BlockingIOError: if another process measures in ``out_dir``.
    """
    if not proxies or {REFERENCE, REPEATED_REFERENCE} & set(proxies):
        raise ValueError(
            f"give at least one proxy, with another name than {REFERENCE!r} and "
            f"{REPEATED_REFERENCE!r}; got {list(proxies)}"
        )
    genotypes = draw_genotypes(
        build_space(config.space), number=config.num_genotypes, seed=config.seed
    )
    with RewardLog.open(out_dir / LOG_NAME) as log:
        measured = _measure(config, genotypes, log, reference=reference, proxies=proxies)
    compared = {
        name: compare(name, measured[REFERENCE], measured[name], config)
        for name in (REPEATED_REFERENCE, *proxies)
    }
    reference_seconds = median_seconds(measured[REFERENCE])
    recommended, advice = recommend(
        [compared[name] for name in proxies],
        self_agreement=compared[REPEATED_REFERENCE],
        reference_seconds=reference_seconds,
        wanted_tau=config.wanted_tau,
    )
    result = FidelityResult(
        path=out_dir / "fidelity.json",
        confidence=config.confidence,
        reference_seconds=reference_seconds,
        self_agreement=compared[REPEATED_REFERENCE],
        proxies=[compared[name] for name in proxies],
        recommended=recommended,
        advice=advice,
    )
    _draw(result, measured)
    _write(result, config, genotypes, measured, {REFERENCE: reference, **proxies})
    return result


def draw_genotypes(space: SearchSpace, *, number: int, seed: int) -> list[Genotype]:
    """Return distinct random genotypes, canonical; a larger number begins with the same ones.

    Raises:
        ValueError: if ``MAX_DRAWS_PER_GENOTYPE`` draws per genotype do not give that many.
    """
    genotypes: dict[str, Genotype] = {}
    for draw in range(MAX_DRAWS_PER_GENOTYPE * number):
        if len(genotypes) == number:
            break
        decisions = space.sample(stream("fidelity", seed, draw))
        genotype = space.to_genotype(decisions).canonical()
        genotypes.setdefault(genotype.digest, genotype)
    if len(genotypes) < number:
        raise ValueError(
            f"{MAX_DRAWS_PER_GENOTYPE * number} draws gave {len(genotypes)} different genotypes; "
            f"the space is too small for num_genotypes={number}"
        )
    return list(genotypes.values())


def _measure(
    config: FidelityConfig,
    genotypes: Sequence[Genotype],
    log: RewardLog,
    *,
    reference: Reward,
    proxies: Mapping[str, Reward],
) -> dict[str, list[LoggedReward]]:
    """Return each reward's values in the order of the genotypes."""
    rewards = {
        REFERENCE: (reference, config.seed),
        REPEATED_REFERENCE: (reference, config.seed + 1),
        **{name: (proxy, config.seed + 1) for name, proxy in proxies.items()},
    }
    measured: dict[str, list[LoggedReward]] = {name: [] for name in rewards}
    with progress_bar(
        total=len(genotypes) * len(rewards), desc="fidelity", unit="reward",
        shown=config.progress,
    ) as bar:  # fmt: skip
        for genotype in genotypes:
            for name, (reward, seed) in rewards.items():
                measured[name].append(log.measure(name, reward, genotype, seed=seed))
                bar.update()
            bar.set_postfix_str(_taus_so_far(measured), refresh=False)
    return measured


def _taus_so_far(measured: Mapping[str, Sequence[LoggedReward]]) -> str:
    """Format tau of the best proxy and of the reference against itself, for the progress bar."""
    taus = {}
    for name in measured:
        first, second = paired_values(measured[REFERENCE], measured[name])
        tau = kendall_tau(first, second) if len(first) >= MIN_GENOTYPES else None
        if name != REFERENCE and tau is not None:
            taus[name] = tau
    own = taus.pop(REPEATED_REFERENCE, None)
    best = max(taus, key=taus.__getitem__, default=None)
    parts = [f"{best} {taus[best]:.2f}"] if best is not None else []
    parts += [f"{REPEATED_REFERENCE} {own:.2f}"] if own is not None else []
    return "tau: " + ", ".join(parts) if parts else ""


def _draw(result: FidelityResult, measured: Mapping[str, Sequence[LoggedReward]]) -> None:
    panels = []
    for compared in (result.self_agreement, *result.proxies):
        caption = str(compared.correlation) if compared.correlation else compared.problem
        if compared.seconds is not None:
            caption += f"; {compared.seconds:.3g} s"
        reference, other = paired_values(measured[REFERENCE], measured[compared.name])
        panels.append(Panel(title=compared.name, caption=caption, x=other, y=reference))
    draw_scatter(panels, result.path.with_suffix(".png"), y_label="reference reward")


def _write(
    result: FidelityResult,
    config: FidelityConfig,
    genotypes: Sequence[Genotype],
    measured: Mapping[str, Sequence[LoggedReward]],
    rewards: Mapping[str, Reward],
) -> None:
    provenance = Provenance(
        stage="fidelity",
        arguments={
            "space": config.space,
            "num_genotypes": config.num_genotypes,
            "seed": config.seed,
            "confidence": config.confidence,
            "num_resamples": config.num_resamples,
            "wanted_tau": config.wanted_tau,
            "rewards": {name: reward.arguments for name, reward in rewards.items()},
        },
        data={
            f"{name}/{split}": fingerprint
            for name, reward in rewards.items()
            for split, fingerprint in reward.data.items()
        },
    )
    rows: list[dict[str, Any]] = [
        {
            "genotype": genotype.to_dict(),
            "digest": genotype.digest,
            "rewards": {name: of[row].value for name, of in measured.items()},
            "seconds": {name: of[row].seconds for name, of in measured.items()},
            "failures": {n: of[row].failure for n, of in measured.items() if of[row].failure},
        }
        for row, genotype in enumerate(genotypes)
    ]
    write_json(
        result.path,
        {
            "recommended": result.recommended,
            "advice": result.advice,
            "confidence": result.confidence,
            "reference_seconds": result.reference_seconds,
            "self_agreement": asdict(result.self_agreement),
            "proxies": [asdict(proxy) for proxy in result.proxies],
            "genotypes": rows,
            "provenance": provenance.to_dict(),
        },
    )
