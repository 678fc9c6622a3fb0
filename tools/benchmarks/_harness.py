"""Harness of the benchmarks: entries that run in turns, and the machine they ran on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from backbone.io.progress import progress_bar
from backbone.io.runtime import usable_cores

ResultT = TypeVar("ResultT")


def measure(
    entries: Mapping[str, Callable[[], ResultT]], *, rounds: int, bar: bool = True
) -> dict[str, list[ResultT]]:
    """Run all entries in turns, so that a machine that changes its speed affects them alike.

    Args:
        entries: name -> function that does the work once and returns its measurement.
        rounds: runs of each entry.
        bar: whether a progress bar is shown; without, a line per run, for entries that show bars.
    """
    results: dict[str, list[ResultT]] = {name: [] for name in entries}
    with progress_bar(
        total=rounds * len(entries), desc="benchmark", unit="run", shown=bar
    ) as shown:
        for number in range(rounds):
            for name, run in entries.items():
                shown.set_postfix_str(name)
                if not bar:
                    print(f"round {number + 1} of {rounds}: {name}")
                results[name].append(run())
                shown.update()
    return results


def machine() -> dict[str, Any]:
    """Return the properties of this machine that measurements depend on."""
    import torch

    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpus": len(usable_cores()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
