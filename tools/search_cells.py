r"""Search for cells.

Writes cells.json, cells.png, trials.csv and report.html. The same command resumes an interrupted
search, and continues a finished one that is given more trials.

nasdet search-cells                                        # demonstration data
nasdet search-cells strategy=evolution num_trials=100 control=true
nasdet search-cells reward=proxy_paper reward.data_root=/data/cifar10 \
    reward.download=true num_trials=500
nasdet search-cells strategy=nsga2 cost.front=true    # accuracy and multiply-adds
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from _cli import Run, tool
from _logger_base import LoggerConfig
from _output import print_line
from search.rewards.config import ProxyConfig, ZeroCostConfig
from search.study.config import SearchConfig

if TYPE_CHECKING:
    from search.study.study import TrialRecord


@dataclass(kw_only=True, slots=True)
class Args(SearchConfig):
    """Settings of ``search_cells``."""

    out: str
    """The run's folder."""
    reward: Any
    """Settings of the reward of a genotype; see the choices of ``reward``."""
    zero_cost: ZeroCostConfig | None = None
    """A training-free score, where the reward is a proxy training: only the fraction
    ``pruning.keep_scored`` of the trials with the highest score is trained."""
    control: bool = False
    """Whether a random search with the same budget follows, in ``out``/control, for the report."""
    logger: LoggerConfig
    """Where metrics are logged."""

    def __post_init__(self) -> None:
        SearchConfig.__post_init__(self)
        if self.zero_cost is not None and not isinstance(self.reward, ProxyConfig):
            raise ValueError("zero_cost scores the network of a proxy; choose reward=proxy_quick")
        if (self.zero_cost is None) != (self.pruning.keep_scored == 1):
            raise ValueError(
                "zero_cost, a score such as zero_cost={score: naswot}, and pruning.keep_scored, "
                "the fraction of trials that are trained, must be given together"
            )


@tool(Args)
def main(run: Run[Args]) -> None:
    from _rewards import build_reward, build_score
    from search.analysis.report import write_report
    from search.study.study import run_search, search_control

    def log(trial: TrialRecord) -> None:
        if trial.reward is not None:
            run.log_metrics({"reward": trial.reward}, step=trial.number)

    args, out = run.args, run.out
    reward = build_reward(args.reward)
    score = build_score(args.zero_cost, args.reward)
    result = run_search(args, out, reward=reward, score=score, on_trial=log)
    searches, control = {"search": [out]}, None
    if args.control:
        control = search_control(args, out, reward=reward)
        searches["random control"] = [control.path.parent]
    page, drawing = write_report(searches, out / "report.html"), out / "cells.png"
    run.log_images("cells", [drawing])
    run.finish()
    run.report(
        **result.to_dict(),
        control=control.to_dict() if control else None,
        cells=result.path,
        drawing=drawing,
        report=page,
    )
    state = "already there" if result.skipped else f"{result.seconds:.0f} s of training"
    print_line("winner", result.describe(), note=state)
    print_line("cells", result.path)
    print_line("drawing", drawing)
    print_line("report", page)


if __name__ == "__main__":
    main()
