"""A new family of backbones is one module and one row of ``FAMILIES``."""

import sys
import types
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from backbone.cells.architecture import Architecture
from backbone.cells.published import NASNET_A, PNASNET_5
from backbone.models import backbone as module
from backbone.models.backbone import Backbone, BackboneSpec, build_backbone
from backbone.models.measurement import MapShape
from backbone.profile.complexity import measure_cost


@dataclass(frozen=True, slots=True)
class Stages:
    """An architecture of another kind: so many convolutions per stage."""

    num_convolutions: int
    family: ClassVar[str] = "plain"

    @property
    def digest(self):
        return f"{self.num_convolutions:016x}"

    def canonical(self):
        return self

    def to_dict(self):
        return {"num_convolutions": self.num_convolutions}

    def spec_size(self, *, depth, width):
        return f"{self.num_convolutions * depth}x{width}"


class PlainBody(nn.Module):
    def __init__(self, depth, width):
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width if i else 3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width)
            )
            for i in range(depth)
        )

    def forward(self, images):
        maps = {}
        for index, convolution in enumerate(self.convolutions, start=1):
            images = convolution(images).relu()
            maps[f"c{index}"] = images
        return {level: maps[level] for level in ("c2", "c3")}


class PlainBackbone(Backbone):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainBackboneSpec(BackboneSpec):
    family: ClassVar[str] = "plain"

    depth: int
    width: int

    @classmethod
    def _parse(cls, text, *, stem):
        depth, width = text.partition(":")[2].split("x")
        return cls(depth=int(depth), width=int(width))

    @classmethod
    def _from_architecture(cls, architecture, size, *, stem):
        return cls(depth=architecture.num_convolutions * size["depth"], width=size["width"])

    @classmethod
    def _read(cls, data):
        return cls(depth=data["depth"], width=data["width"])

    def _members(self):
        return {"depth": self.depth, "width": self.width}

    def _build(self, *, pretrained, out):
        maps = {"c2": MapShape(self.width, 4), "c3": MapShape(self.width, 8)}
        return PlainBackbone(PlainBody(self.depth, self.width), spec=self, maps=maps, out=out)

    def __str__(self):
        return f"plain:{self.depth}x{self.width}"


@pytest.fixture(autouse=True)
def family(monkeypatch):
    new = types.ModuleType("plain_backbone")
    new.PlainBackboneSpec = PlainBackboneSpec
    monkeypatch.setitem(sys.modules, "plain_backbone", new)
    rows = {**module.FAMILIES, "plain": "plain_backbone:PlainBackboneSpec"}
    monkeypatch.setattr(module, "FAMILIES", rows)


def test_a_new_family_is_built_from_its_spec():
    backbone = build_backbone("plain:3x8", grayscale=True, norm="group")
    assert {k: tuple(m.shape) for k, m in backbone(torch.rand(1, 3, 64, 64)).items()} == {
        "c2": (1, 8, 16, 16),
        "c3": (1, 8, 8, 8),
    }
    assert backbone.grayscale
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())


def test_a_new_family_has_the_methods_of_all_backbones():
    backbone = build_backbone("plain:3x8")
    assert backbone.map_sides(96) == {"c2": 24, "c3": 12}
    assert "8 x 24 x 24" in backbone.summary(side_px=96)
    assert measure_cost(backbone, side_px=64).parameters == 224 + 2 * 584 + 3 * 16
    backbone.freeze_stages(2)
    frozen = {n.split(".")[2] for n, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"0", "1"}
    backbone.schedule_drop_path(keep=1, progress=0.5)
    with pytest.raises(ValueError, match="drop_path_keep_prob is for cells, not for plain:3x8"):
        backbone.schedule_drop_path(keep=0.5, progress=0.5)
    with pytest.raises(ValueError, match="plain:3x8 cannot be split at stride 16"):
        backbone.c4_split()
    with pytest.raises(ValueError, match="plain:3x8 cannot save memory"):
        backbone.checkpoint_activations()


def test_a_spec_of_a_new_family_is_written_and_read():
    spec = BackboneSpec.parse("plain:3x8", norm="group")
    assert spec.to_dict() == {"family": "plain", "depth": 3, "width": 8, "norm": "group"}
    assert BackboneSpec.from_dict(spec.to_dict()) == spec
    assert spec.fingerprint() != BackboneSpec.parse("plain:3x9", norm="group").fingerprint()


def test_another_kind_of_architecture_is_built_and_scaled_alike():
    architecture = Stages(3)
    assert isinstance(architecture, Architecture)
    spec = BackboneSpec.from_architecture(architecture, depth=1, width=8)
    assert spec == BackboneSpec.parse(f"plain:{architecture.spec_size(depth=1, width=8)}")
    assert spec.build().channels == {"c2": 8, "c3": 8}


@pytest.mark.parametrize("genotype", [NASNET_A, PNASNET_5])
def test_a_genotype_is_an_architecture(genotype):
    assert isinstance(genotype, Architecture)
    spec = BackboneSpec.from_architecture(genotype, depth=2, width=8)
    filters = genotype.penultimate_filters(8)
    assert spec == BackboneSpec.from_genotype(genotype, num_cells=2, filters=filters)
    assert genotype.spec_size(depth=2, width=8) == f"2@{filters}"
    assert spec.architecture == genotype


def test_an_unknown_family_in_a_file_is_named():
    with pytest.raises(ValueError, match="unknown family of backbones 'vit'; choose from"):
        BackboneSpec.from_dict({"family": "vit"})


@pytest.mark.parametrize("family", ["timm", "torchvision"])
def test_libraries_models_are_not_built_from_architectures(family):
    architecture = types.SimpleNamespace(family=family)
    with pytest.raises(ValueError, match=f"{family!r} are not built from architectures"):
        BackboneSpec.from_architecture(architecture, depth=1, width=8)
