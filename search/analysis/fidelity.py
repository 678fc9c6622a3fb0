"""Whether a cheap reward orders genotypes as a dear one does, and which to search with.

The best cell of a search is only as good as the order that its reward gives. Random genotypes of
the space are rewarded by the dear reward and by each cheap one, and Kendall's tau says how often
two rewards order a pair of genotypes alike: tau = 2 x share - 1. The dear reward, measured again
from another seed, agrees with itself only so far; no cheap one can be expected to agree better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from backbone.cells.genotype import Genotype
from backbone.io.files import write_json
from backbone.io.provenance import Provenance
from search.analysis.config import MIN_GENOTYPES, FidelityConfig
from search.analysis.rank_correlation import kendall_tau
from search.analysis.recommendation import (
    Comparison,
    both_values,
    compare,
    describe,
    median_seconds,
    recommend,
)
from search.analysis.reward_log import Measurement, MeasurementLog
from search.analysis.scatter import Panel, draw_scatter
from search.randomness import stream
from search.rewards.base import Reward
from search.space import SearchSpace, build_space

LOG_NAME = "measurements.jsonl"
DEAR, CEILING = "dear", "dear again"
"""Names of the dear reward, and of the same from another seed: the ceiling."""
MAX_DRAWS = 200
"""Per genotype, for one that differs from those before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FidelityResult:
    """What was measured."""

    path: Path
    """``fidelity.json``."""
    confidence: float
    """Of the intervals."""
    dear_seconds: float | None
    """Median per genotype; None if there is no dear reward."""
    ceiling: Comparison
    """The dear reward against itself from another seed."""
    cheap: list[Comparison]
    recommended: str | None
    """Name of the cheapest reward that keeps the wanted tau; None if none does."""
    advice: str
    """The recommendation as a sentence."""

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return a head and rows of text, one per reward, the ceiling first."""
        interval = f"{self.confidence:.0%} interval"
        head = ["reward", "tau", interval, "genotypes", "failed", "seconds", "share of dear"]
        return head, [self._row(comparison) for comparison in (self.ceiling, *self.cheap)]

    def _row(self, compared: Comparison) -> list[str]:
        found, seconds = compared.agreement, compared.seconds
        numbers = ["-", "-", "-"]
        if found is not None:
            interval = f"{found.low:.2f} to {found.high:.2f}"
            numbers = [f"{found.tau:.2f}", interval, str(found.num_genotypes)]
        cost = ["-", "-"]
        if seconds is not None and self.dear_seconds:
            cost = [f"{seconds:.3g}", f"{seconds / self.dear_seconds:.1%}"]
        return [compared.name, *numbers, str(compared.num_failed), *cost]


def measure_fidelity(
    config: FidelityConfig, out_dir: Path, *, dear: Reward, cheap: Mapping[str, Reward]
) -> FidelityResult:
    """Measure, and write ``fidelity.json`` and ``fidelity.png`` into ``out_dir``.

    Every reward is saved in ``measurements.jsonl`` as it is measured. A later run in the same
    folder takes from there what was made from the same reward, data, seed and genotype, and
    measures the rest: after an interruption, with more genotypes, or with one cheap reward more.

    Args:
        config: how many genotypes of which space, and what to make of them.
        out_dir: the folder.
        dear: the reward to be stood in for.
        cheap: the others by name. Those that share images with the dear one share its luck with
            them, as they do in a search.

    Raises:
        ValueError: if there is no cheap reward, one has the dear one's name, or the space has too
            few genotypes.
        BlockingIOError: if another process measures in ``out_dir``.
    """
    if not cheap or {DEAR, CEILING} & set(cheap):
        raise ValueError(
            f"there must be cheap rewards, and none may be called {DEAR!r} or {CEILING!r}: "
            f"{list(cheap)}"
        )
    genotypes = draw_genotypes(
        build_space(config.space), number=config.num_genotypes, seed=config.seed
    )
    with MeasurementLog.open(out_dir / LOG_NAME) as log:
        measured = _measure(config, genotypes, log, dear=dear, cheap=cheap)
    compared = {
        name: compare(name, measured[DEAR], measured[name], config) for name in (CEILING, *cheap)
    }
    dear_seconds = median_seconds(measured[DEAR])
    recommended, advice = recommend(
        [compared[name] for name in cheap],
        ceiling=compared[CEILING],
        dear_seconds=dear_seconds,
        wanted_tau=config.wanted_tau,
    )
    result = FidelityResult(
        path=out_dir / "fidelity.json",
        confidence=config.confidence,
        dear_seconds=dear_seconds,
        ceiling=compared[CEILING],
        cheap=[compared[name] for name in cheap],
        recommended=recommended,
        advice=advice,
    )
    _draw(result, measured)
    _write(result, config, genotypes, measured, {DEAR: dear, **cheap})
    return result


def draw_genotypes(space: SearchSpace, *, number: int, seed: int) -> list[Genotype]:
    """Return different random genotypes, canonical; a larger number begins with the same ones.

    Raises:
        ValueError: if the space does not seem to have that many.
    """
    found: dict[str, Genotype] = {}
    for draw in range(MAX_DRAWS * number):
        if len(found) == number:
            break
        decisions = space.sample(stream("fidelity", seed, draw))
        genotype = space.to_genotype(decisions).canonical()
        found.setdefault(genotype.digest, genotype)
    if len(found) < number:
        raise ValueError(
            f"{MAX_DRAWS * number} draws gave {len(found)} different genotypes; the space is too "
            f"small for num_genotypes={number}"
        )
    return list(found.values())


def _measure(
    config: FidelityConfig,
    genotypes: Sequence[Genotype],
    log: MeasurementLog,
    *,
    dear: Reward,
    cheap: Mapping[str, Reward],
) -> dict[str, list[Measurement]]:
    """Return each reward's measurements in the order of the genotypes."""
    rewards = {DEAR: (dear, config.seed), CEILING: (dear, config.seed + 1)}
    rewards |= {name: (reward, config.seed + 1) for name, reward in cheap.items()}
    measured: dict[str, list[Measurement]] = {name: [] for name in rewards}
    with tqdm(
        total=len(genotypes) * len(rewards), desc="fidelity", unit="reward",
        disable=not config.progress,
    ) as bar:  # fmt: skip
        for genotype in genotypes:
            for name, (reward, seed) in rewards.items():
                measured[name].append(log.measure(name, reward, genotype, seed=seed))
                bar.update()
            bar.set_postfix_str(_taus_so_far(measured), refresh=False)
    return measured


def _taus_so_far(measured: Mapping[str, Sequence[Measurement]]) -> str:
    """Say how well the best cheap reward does, and the dear one."""
    taus = {}
    for name in measured:
        first, second = both_values(measured[DEAR], measured[name])
        tau = kendall_tau(first, second) if len(first) >= MIN_GENOTYPES else None
        if name != DEAR and tau is not None:
            taus[name] = tau
    ceiling = f"{CEILING} {taus.pop(CEILING):.2f}" if CEILING in taus else ""
    best = max(taus, key=taus.__getitem__, default=None)
    words = [f"{best} {taus[best]:.2f}" if best else "", ceiling]
    return "tau: " + ", ".join(filter(None, words)) if any(words) else ""


def _draw(result: FidelityResult, measured: Mapping[str, Sequence[Measurement]]) -> None:
    panels = []
    for compared in (result.ceiling, *result.cheap):
        about = describe(compared.agreement) if compared.agreement else compared.problem
        if compared.seconds is not None:
            about += f"; {compared.seconds:.3g} s"
        dear, other = both_values(measured[DEAR], measured[compared.name])
        panels.append(Panel(title=compared.name, about=about, across=other, up=dear))
    draw_scatter(panels, result.path.with_suffix(".png"), up_label="dear reward")


def _write(
    result: FidelityResult,
    config: FidelityConfig,
    genotypes: Sequence[Genotype],
    measured: Mapping[str, Sequence[Measurement]],
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
    table: list[dict[str, Any]] = [
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
            "dear_seconds": result.dear_seconds,
            "ceiling": asdict(result.ceiling),
            "cheap": [asdict(comparison) for comparison in result.cheap],
            "genotypes": table,
            "provenance": provenance.to_dict(),
        },
    )
