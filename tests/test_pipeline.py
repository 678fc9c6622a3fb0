"""The tools as a user runs them, in processes of their own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_USUAL = {"OMP_NUM_THREADS": "1"}


def run(tool, *arguments, check=True, launcher=(sys.executable,), **environment):
    done = subprocess.run(
        [*launcher, str(ROOT / "tools" / f"{tool}.py"), *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | _USUAL | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    out = tmp_path_factory.mktemp("pipeline")
    arguments = (
        "experiment=quickstart_smoke",
        f"out={out}",
        f"demonstration_root={out}/data",
        "baselines=[timm:lcnet_035]",
    )
    return out, arguments, run("run_pipeline", *arguments)


def data_arguments(pipeline):
    out = pipeline[0]
    return [f"data.root={out}/data/detection", "recipe=smoke"]


@pytest.mark.parametrize("wrong", ["backbone=timm:resnet5000", "data.root=/missing"])
def test_a_refused_run_leaves_an_earlier_one_in_its_folder_as_it_is(pipeline, tmp_path, wrong):
    config = tmp_path / "config.yaml"
    config.write_text("seed: 0")
    done = run("train_detector", *data_arguments(pipeline), f"out={tmp_path}", wrong, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [config]
    assert config.read_text() == "seed: 0"


def test_a_run_says_when_it_replaces_another(pipeline, tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0")
    annotations = f"{pipeline[0]}/data/detection/annotations/instances_val.json"
    results = tmp_path / "results.json"
    results.write_text("[]")
    arguments = (f"annotations={annotations}", f"results={results}", f"out={tmp_path}")
    assert "files are replaced" in run("evaluate_detector", *arguments).stdout
    assert "files are replaced" not in run("evaluate_detector", *arguments).stdout


def test_the_pipeline_ends_with_a_table_and_a_self_contained_page(pipeline):
    out, _, done = pipeline
    assert re.search(r"searched \d+@\d+ .* timm:lcnet_035 ", " ".join(done.stdout.split()))
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r'(src|href)="(?!data:)', page)
    results = json.loads((out / "comparison.json").read_text())
    assert [c["name"].split()[0] for c in results] == ["searched", "timm:lcnet_035"]


def test_every_artifact_of_the_pipeline_records_how_it_was_made(pipeline):
    out = pipeline[0]
    for name in (
        "search/cells.json",
        "searched/detector/metrics.json",
        "baseline/detector/metrics.json",
    ):
        record = json.loads((out / name).read_text())["provenance"]
        assert len(record["key"]) == 64
        assert record["versions"]["torch"]


def test_a_complete_pipeline_is_not_run_again(pipeline):
    out, arguments, _ = pipeline
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    again = run("run_pipeline", *arguments, "--json")
    assert again.stderr.count("already there") == 6
    figures = json.loads(again.stdout)
    assert figures["backbones"] == json.loads((out / "comparison.json").read_text())
    assert figures["cells"] == f"{out}/search/cells.json"
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")} == before


@pytest.mark.slow
@pytest.mark.ci
def test_a_pipeline_killed_at_any_stage_resumes_to_the_same_result(pipeline, tmp_path):
    arguments = [
        a.replace(str(pipeline[0]), str(tmp_path))
        for a in pipeline[1]
        if not a.startswith("demonstration")
    ]
    arguments.append(f"demonstration_root={pipeline[0]}/data")
    for sign_of_life in (
        "search/study.journal",
        "search/cells.json",
        "*/pretrain/*.ckpt",
        "*/detector/*.ckpt",
    ):
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "tools/run_pipeline.py"), *arguments],
            cwd=ROOT,
            env=os.environ | _USUAL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not list(tmp_path.glob(sign_of_life)):
            time.sleep(0.02)
        process.kill()
        process.wait()
    run("run_pipeline", *arguments)
    for name in ("search/cells.json", "searched/pretrain/metrics.json"):
        interrupted, whole = (json.loads((o / name).read_text()) for o in (tmp_path, pipeline[0]))
        for figure in ("reward", "normal", "accuracy"):
            assert interrupted.get(figure) == whole.get(figure)
    interrupted, whole = (
        json.loads((o / "comparison.json").read_text()) for o in (tmp_path, pipeline[0])
    )
    assert [c["metrics"] for c in interrupted] == [c["metrics"] for c in whole]


@pytest.mark.slow
@pytest.mark.ci
def test_a_training_whose_process_is_killed_ends_the_pipeline_in_one_sentence(pipeline, tmp_path):
    arguments = [a.replace(f"out={pipeline[0]}", f"out={tmp_path}") for a in pipeline[1]]
    shutil.copytree(pipeline[0] / "search", tmp_path / "search")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools/run_pipeline.py"), *arguments, "num_parallel=2"],
        cwd=ROOT,
        env=os.environ | _USUAL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(tmp_path.glob("*/pretrain/*.ckpt")):
        time.sleep(0.02)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "spawn_main"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    os.kill(int(children[0]), signal.SIGKILL)
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error: a training's process ended without an exception" in complaint
    assert "Traceback" not in complaint
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(int(child), 0)


@pytest.mark.slow
@pytest.mark.ci
def test_evaluating_the_file_and_its_results_gives_the_figures_of_the_training(pipeline, tmp_path):
    out = pipeline[0]
    data, trained = out / "data/detection", out / "searched/detector"
    annotations = f"annotations={data}/annotations/instances_val.json"
    run(
        "evaluate_detector",
        f"weights={trained}/detector.safetensors",
        f"images={data}/val",
        annotations,
        f"out={tmp_path}/file",
    )
    run("evaluate_detector", f"results={trained}/results.json", annotations, f"out={tmp_path}/json")
    expected = json.loads((trained / "metrics.json").read_text())
    for way in ("file", "json"):
        found = json.loads((tmp_path / way / "metrics.json").read_text())
        for name in ("ap", "ap50", "ar_100"):
            assert found[name] == pytest.approx(expected[name], abs=1e-6)


def test_predictions_are_drawn_and_written(pipeline, tmp_path):
    out = pipeline[0]
    run(
        "predict",
        f"weights={out}/searched/detector/detector.safetensors",
        f"images={out}/data/detection/val/*.png",
        "score_threshold=0.1",
        f"out={tmp_path}",
    )
    records = json.loads((tmp_path / "predictions.json").read_text())
    assert len(records) == 8
    assert all((tmp_path / record["drawing"]).is_file() for record in records)


@pytest.mark.slow
@pytest.mark.ci
def test_backbones_are_compared_in_one_table(pipeline, tmp_path):
    out = pipeline[0]
    done = run(
        "compare_backbones",
        f"backbones=[{out}/searched/pretrain/backbone.safetensors,timm:lcnet_035]",
        f"training.data.root={out}/data/detection",
        "recipe@training.recipe=smoke",
        f"out={tmp_path}",
        "--json",
    )
    assert "timm:lcnet_035" in done.stderr
    results = json.loads((tmp_path / "comparison.json").read_text())
    assert json.loads(done.stdout)["backbones"] == results
    assert len(results) == 2


@pytest.mark.slow
@pytest.mark.ci
def test_two_processes_train_one_detector_that_one_process_scores_alike(pipeline, tmp_path):
    out = pipeline[0]
    done = run(
        "train_detector",
        *data_arguments(pipeline),
        "backbone=timm:lcnet_035",
        f"out={tmp_path}/two",
        "--json",
        launcher=(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
    )
    data = out / "data/detection"
    run(
        "evaluate_detector",
        f"weights={tmp_path}/two/detector.safetensors",
        f"images={data}/val",
        f"annotations={data}/annotations/instances_val.json",
        f"out={tmp_path}/one",
    )
    two, one = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("two", "one"))
    assert json.loads(done.stdout)["ap"] == two["ap"]
    assert {k: v for k, v in two.items() if k.startswith(("ap", "ar"))} == pytest.approx(
        {k: v for k, v in one.items() if k.startswith(("ap", "ar"))}, abs=1e-6
    )


@pytest.mark.skipif(not find_spec("wandb"), reason="wandb is not installed")
@pytest.mark.slow
@pytest.mark.ci
def test_wandb_logs_offline_without_an_account(pipeline, tmp_path):
    environment = {"HOME": str(tmp_path), "WANDB_API_KEY": "", "WANDB_MODE": ""}
    run(
        "train_detector",
        *data_arguments(pipeline),
        "backbone=timm:lcnet_035",
        "logger=wandb",
        f"out={tmp_path}/run",
        **environment,
    )
    folders = list((tmp_path / "run").glob("wandb/offline-run-*"))
    assert len(folders) == 1
    log = next(folders[0].glob("*.wandb")).read_bytes()
    for name in (b"loss", b"AP50", b"learning_rate", b"lcnet_035"):
        assert name in log
    assert list(folders[0].rglob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.root=/nowhere"], "error: data root /nowhere does not exist"),
        (["backbone=nasnet_a:2@100"], "the nearest are 96 and 120"),
        (["backbone=no.safetensors"], "error: weights file no.safetensors does not exist"),
        (["out=/proc/nowhere"], "error: "),
    ],
)
def test_what_a_user_gets_wrong_is_one_sentence(pipeline, tmp_path, arguments, message):
    done = run(
        "train_detector", *data_arguments(pipeline), f"out={tmp_path}", *arguments, check=False
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.skipif(bool(find_spec("detectron2")), reason="detectron2 is installed")
def test_without_detectron2_its_engine_is_one_sentence(pipeline, tmp_path):
    done = run(
        "train_detector",
        *data_arguments(pipeline),
        "detector=detectron2",
        f"out={tmp_path}",
        check=False,
    )
    assert done.returncode == 1
    assert "install it as" in done.stderr
    assert "Traceback" not in done.stderr
