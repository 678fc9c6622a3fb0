"""The backbones that a pipeline trains, and their sizes."""

import json

import pytest

import all_tools
from backbone.cells.published import PUBLISHED
from backbone.models.backbone import build_backbone
from backbone.profile.complexity import measure_cost
from run_pipeline import plan_runs


def planned(tmp_path, *overrides):
    settings = all_tools.settings("run_pipeline", "search.num_trials=1", "num_cells=1", *overrides)
    cells = tmp_path / "cells.json"
    cells.write_text(json.dumps(PUBLISHED["amoebanet_a"].to_dict()))
    return plan_runs(settings, cells, tmp_path)


def mult_adds(spec):
    return measure_cost(build_backbone(spec), side_px=192).mult_adds


def test_the_nearest_baseline_is_trained_beside_the_searched_backbone(tmp_path):
    runs = planned(tmp_path, "baselines=[timm:resnet18,timm:lcnet_035]", "first_filters=8")
    assert [run.name for run in runs] == ["searched", "timm:lcnet_035"]
    assert runs[0].spec.startswith(f"{tmp_path / 'cells.json'}:1@")


def test_cells_become_as_large_as_another_backbone(tmp_path):
    runs = planned(
        tmp_path,
        "baselines=[]",
        "size_of=timm:test_resnet",
        "extra_backbones=[nasnet_a,timm:test_resnet]",
    )
    assert [run.name for run in runs][2] == "timm:test_resnet"
    assert runs[1].spec.startswith("nasnet_a:1@")
    wanted = mult_adds("timm:test_resnet")
    for run in runs:
        assert mult_adds(run.spec) == pytest.approx(wanted, rel=0.12)
    assert len({run.out for run in runs}) == 3


def test_published_cells_become_as_large_as_the_searched_ones(tmp_path):
    runs = planned(tmp_path, "baselines=[]", "extra_backbones=[nasnet_a]", "first_filters=16")
    assert mult_adds(runs[1].spec) == pytest.approx(mult_adds(runs[0].spec), rel=0.15)
