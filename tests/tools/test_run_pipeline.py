"""Which backbones go the road, and how large they are."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from _schemas import register_schemas
from backbone.cells.published import PUBLISHED
from backbone.models.backbone import build_backbone
from backbone.profile.complexity import measure_cost
from run_pipeline import _roads


def roads(tmp_path, *overrides):
    register_schemas()
    conf = Path(__file__).parents[2] / "conf"
    with initialize_config_dir(version_base=None, config_dir=str(conf)):
        config = compose("run_pipeline", ["search.num_trials=1", "num_cells=1", *overrides])
    cells = tmp_path / "cells.json"
    cells.write_text(json.dumps(PUBLISHED["amoebanet_a"].to_dict()))
    return _roads(OmegaConf.to_object(config), cells, tmp_path)


def mult_adds(spec):
    return measure_cost(build_backbone(spec), side_px=192).mult_adds


def test_the_nearest_rival_goes_beside_the_searched_backbone(tmp_path):
    found = roads(tmp_path, "rivals=[timm:resnet18,timm:lcnet_035]", "first_filters=8")
    assert [road.name for road in found] == ["searched", "timm:lcnet_035"]
    assert found[0].spec.startswith(f"{tmp_path / 'cells.json'}:1@")


def test_cells_become_as_large_as_another_backbone(tmp_path):
    found = roads(
        tmp_path, "rivals=[]", "size_of=timm:test_resnet", "also=[nasnet_a,timm:test_resnet]"
    )
    assert [road.name for road in found][2] == "timm:test_resnet"
    assert found[1].spec.startswith("nasnet_a:1@")
    wanted = mult_adds("timm:test_resnet")
    for road in found:
        assert mult_adds(road.spec) == pytest.approx(wanted, rel=0.12)
    assert len({road.out for road in found}) == 3


def test_published_cells_become_as_large_as_the_searched_ones(tmp_path):
    found = roads(tmp_path, "rivals=[]", "also=[nasnet_a]", "first_filters=16")
    assert mult_adds(found[1].spec) == pytest.approx(mult_adds(found[0].spec), rel=0.15)
