"""Compare what commit 85cd897 and this tree compute, number by number, on this machine.

Losses of short trainings, rewards and genotypes of short searches, the figures of an evaluation,
sizes and features of the published networks. Takes about four minutes on one core.

usage: python tests/golden/compare.py --reference FOLDER

FOLDER is a checkout of 85cd897 (``git worktree add FOLDER 85cd897``), which also needs
faster-coco-eval==1.8.0. Exits with 1 if any number differs by more than 1e-6 of its size.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _golden import write_data

HERE = Path(__file__).resolve().parent
RELATIVE_TOLERANCE = 1e-6


def compute(driver: str, *, tree: Path, data: Path, out: Path) -> dict[str, Any]:
    """Run a driver with the packages of ``tree`` and return what it computed."""
    out.mkdir()
    environment = os.environ | {
        "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    command = [sys.executable, str(HERE / driver), str(data), str(out)]
    done = subprocess.run(
        command, cwd=tree, env=environment, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{driver} failed in {tree}:\n{done.stderr[-4000:]}")
    return json.loads((out / "values.json").read_text())


def largest_difference(reference: Any, value: Any) -> float:
    """Return the largest relative difference; infinite where structures or words differ."""
    if isinstance(reference, dict) and isinstance(value, dict):
        if reference.keys() != value.keys():
            return math.inf
        return max((largest_difference(reference[k], value[k]) for k in reference), default=0.0)
    if isinstance(reference, list) and isinstance(value, list):
        if len(reference) != len(value):
            return math.inf
        pairs = zip(reference, value, strict=True)
        return max((largest_difference(*pair) for pair in pairs), default=0.0)
    numbers = (int, float)
    if isinstance(reference, numbers) and isinstance(value, numbers) and reference != value:
        return abs(reference - value) / max(abs(reference), abs(value))
    return 0.0 if reference == value else math.inf


def write(line: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Compare, print a table, and exit with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True, help="checkout of 85cd897")
    reference_tree = parser.parse_args().reference.resolve()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = root / "data"
        write_data(data)
        reference = compute(
            "values_85cd897.py", tree=reference_tree, data=data, out=root / "reference"
        )
        values = compute("values.py", tree=HERE.parents[1], data=data, out=root / "this")
    different = []
    for name in sorted(reference.keys() | values.keys()):
        if name not in reference or name not in values:
            difference = math.inf
        else:
            difference = largest_difference(reference[name], values[name])
        state = "equal" if difference <= RELATIVE_TOLERANCE else "DIFFERENT"
        write(f"{state:<10} {difference:>9.1e}  {name}")
        if state == "DIFFERENT":
            different.append(name)
    for name in different:
        write(f"\n{name}\n  85cd897:   {reference.get(name)}\n  this tree: {values.get(name)}")
    write(f"\n{len(reference.keys() | values.keys())} values, {len(different)} different")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
