"""The Python examples of the documentation run as printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
         if "```python" in p.read_text()]  # fmt: skip


def blocks(page):
    """Return the Python blocks of a page, each at its own line, for tracebacks."""
    text = page.read_text()
    for match in re.finditer(r"```python\n(.*?)```", text, flags=re.DOTALL):
        line = text[: match.start(1)].count("\n")
        yield "\n" * line + match[1]


def test_the_api_page_runs_as_printed(tmp_path, monkeypatch):
    page = ROOT / "docs" / "python.md"
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__", "checkout": str(ROOT)}
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), names)
    assert Path("detections.png").is_file()
    assert Path("runs/comparison/report.html").is_file()
    assert names["metrics"] == names["same"]
    exports = {
        line.split("`")[1] for line in page.read_text().splitlines() if line.startswith("| `")
    }
    assert exports == {"backbone", "search", "detection"}


SCRIPT = '''
"""Train a detector on a folder, and list what it detects in one image."""

from pathlib import Path

import numpy as np

from backbone import BackboneSpec, Genotype, build_backbone
from detection import DetectorRecipe, Predictor, evaluate, train_detector
from search import SearchResult, search_cells


def detect(root: Path, image: Path) -> list[tuple[str, float]]:
    found: SearchResult = search_cells(out=root / "search", num_trials=20)
    genotype: Genotype = found.genotype
    spec: BackboneSpec = BackboneSpec.from_genotype(genotype, num_cells=1, filters=96)
    channels: dict[str, int] = build_backbone(f"{found.path}:1@96").channels
    steps: int = channels["c5"] + spec.build().channels["c5"]
    recipe = DetectorRecipe.preset("detector_cpu", iterations=steps)
    trained = train_detector(f"{found.path}:1@96", root, out=root / "run", recipe=recipe)
    ap: float = evaluate(trained.path, root / "val.json", root / "val").ap
    detections = Predictor.load(trained.path, score_threshold=0.5 if ap > 20 else 0.1)(image)
    areas: np.ndarray = np.prod(detections.boxes[:, 2:] - detections.boxes[:, :2], axis=1)
    return [(str(n), float(s)) for n, s in zip(detections.names, detections.scores) if areas.size]
'''


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("", "", None),
        ("out=root / ", "output=root / ", "Unexpected keyword argument"),
        ("ap: float", "ap: str", "Incompatible types in assignment"),
        ("Predictor, evaluate", "Predictor, evaluated", 'has no attribute "evaluated"'),
    ],
)
def test_a_script_of_a_user_is_checked_by_mypy(tmp_path, old, new, complaint):
    (tmp_path / "script.py").write_text(SCRIPT.replace(old, new, 1) if old else SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache"),
         "script.py"],
        cwd=tmp_path, env=os.environ | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if complaint is None:
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        assert complaint in done.stdout, done.stdout + done.stderr
