"""The Python API of pretraining, and torch.hub's entry points."""

import runpy
from pathlib import Path

import pytest
import torch
from PIL import Image

from backbone import ClassifierRecipe, build_backbone, pretrain_backbone

ROOT = Path(__file__).parents[2]


@pytest.fixture
def images(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for index in range(24):
        split = "train" if index < 16 else "val"
        folder = tmp_path / "images" / split / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (32, 32, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{index}.png")
    return tmp_path / "images"


def test_a_pretraining_by_names_writes_a_backbone_with_its_weights(images, tmp_path):
    recipe = ClassifierRecipe.preset("classifier_quick", epochs=1, batch_size=8)
    result = pretrain_backbone("nasnet_a:1@96", images, out=tmp_path, recipe=recipe)
    assert 0 <= result.accuracy <= 1
    trained = build_backbone(str(result.path))
    other = build_backbone("nasnet_a:1@96")
    name, tensor = next(iter(trained.state_dict().items()))
    assert not torch.equal(tensor, other.state_dict()[name])
    again = pretrain_backbone("nasnet_a:1@96", images, out=tmp_path, recipe=recipe)
    assert again.skipped
    with pytest.raises(ValueError, match="no recipe=fast; choose from"):
        pretrain_backbone("nasnet_a:1@96", images, out=tmp_path, recipe="fast")


def test_the_hub_builds_a_backbone():
    backbone = torch.hub.load(str(ROOT), "backbone", "timm:lcnet_035", source="local")
    maps = backbone.eval()(torch.rand(1, 3, 64, 64))
    assert {name: m.shape[-1] for name, m in maps.items()} == {"c2": 16, "c3": 8, "c4": 4, "c5": 2}


def test_every_entry_point_of_the_hub_is_a_documented_function():
    hubconf = runpy.run_path(str(ROOT / "hubconf.py"))
    assert {"backbone", "predictor", "train_detector", "search_cells"} <= set(hubconf["__all__"])
    for name in hubconf["__all__"]:
        assert callable(hubconf[name]), name
        assert hubconf[name].__doc__, name
