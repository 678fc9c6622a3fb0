"""The Python examples of the documentation run as printed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from detection import DetectorRecipe, ShapesConfig, make_shapes
from detection.data.shapes.config import SPLITS, STAGES

ROOT = Path(__file__).parents[1]
PAGES = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
         if "```python" in p.read_text()]  # fmt: skip


def blocks(page):
    """Return the Python blocks of a page, each at its own line, for tracebacks."""
    text = page.read_text()
    for match in re.finditer(r"```python\n(.*?)```", text, flags=re.DOTALL):
        line = text[: match.start(1)].count("\n")
        yield "\n" * line + match[1]


@pytest.mark.slow
@pytest.mark.ci
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


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.timeout(600)
def test_the_notebook_runs_as_committed(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    output = "".join(
        o.text
        for cell in notebook.cells
        for o in cell.get("outputs", ())
        if o.output_type == "stream" and o.name == "stdout"
    )
    assert re.search(r"^accuracy \d+\.\d %$", output, flags=re.MULTILINE)
    assert re.search(r"^timm:lcnet_050 .* AP \d+\.\d$", output, flags=re.MULTILINE)
    assert (tmp_path / "tour" / "comparison" / "report.html").is_file()


QUICK = {
    "train-detector": ["recipe.iterations=2", "recipe.batch_size=2", "recipe.evaluate_every=0"],
    "pretrain-backbone": ["recipe.epochs=1"],
    "compare-backbones": ["training.recipe.iterations=2", "training.recipe.batch_size=2"],
    "search-cells": ["num_trials=2", "num_reevaluated=0", "executor=inline"],
}
"""Verb -> settings that shorten it; appended to the command as printed."""


def readme_commands():
    """Return the README's commands that run without COCO, CIFAR-10 and several processes."""
    text = (ROOT / "README.md").read_text()
    sections = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = "\n".join(sections).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    return [
        words
        for words in commands
        if words[:1] == ["nasdet"] and not re.search(r"/data/(coco|cifar)", " ".join(words))
    ]


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.timeout(1200)
def test_the_commands_of_the_readme_run_as_printed(tmp_path):
    """But for shorter trainings, the user's folder of data, and weights that are downloaded."""

    def run(*words):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, str(ROOT / "tools"), *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, " ".join(words) + "\n" + done.stdout + done.stderr
        return done.stdout

    # In place of `make quickstart`, the same at a smaller size, and a user's data set.
    quickstart = ("experiment=quickstart_smoke", "out=runs/quickstart")
    run("run-pipeline", *quickstart, "demonstration_root=data/shapes", "num_parallel=1")
    user = tmp_path / "user"
    run("convert-annotations", "source=data/shapes/detection", "source_format=coco",
        "target_format=yolo", f"out={user}/yolo", "images=copy")  # fmt: skip
    shutil.copytree(tmp_path / "data/shapes/detection/val", user / "photos")

    commands = readme_commands()
    assert len(commands) >= 12
    for _, verb, *settings in commands:
        words = [w.replace("/data/", f"{user}/") for w in settings if w != "pretrained=true"]
        if "--help" in words or "--dry-run" in words:
            run(verb, *words)
        else:
            run(verb, *words, *QUICK.get(verb, []))
    assert (tmp_path / "runs/mine/detector.safetensors").is_file()
    assert (tmp_path / "runs/photos/predictions.json").is_file()
    assert (tmp_path / "runs/evolution/report.html").is_file()


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.timeout(600)
def test_the_python_example_of_the_readme_runs_as_printed(tmp_path, monkeypatch, capsys):
    """But for a shorter training on less data."""
    monkeypatch.chdir(tmp_path)
    counts = {f"num_{stage}_{split}": 4 for stage in STAGES for split in SPLITS}
    make_shapes(ShapesConfig(**counts), "data/shapes")
    preset = DetectorRecipe.preset
    short = {"iterations": 2, "batch_size": 2, "evaluate_every": 0}
    monkeypatch.setattr(DetectorRecipe, "preset", lambda name, **own: preset(name, **own | short))
    (example,) = blocks(ROOT / "README.md")
    exec(compile(example, "README.md", "exec"), {})
    assert "runs/python/detector.safetensors" in capsys.readouterr().out
