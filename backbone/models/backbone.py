"""Backbones: images to multi-scale feature maps, named by one string everywhere.

nasnet_a:4@1056                      published cells at N @ F
runs/search/cells.json:2@96          cells that a search wrote
runs/pretrain/backbone.safetensors   a trained backbone, with its weights
timm:resnet50                        any timm model that provides feature maps
torchvision:resnet50                 any torchvision classification model that does

``BackboneSpec.parse`` reads such a string and ``BackboneSpec.build`` builds the ``Backbone``. Each
family of backbones is one module with a subclass of both, and one row of ``FAMILIES``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import rgb_to_grayscale

from backbone.cells.architecture import Architecture
from backbone.cells.genotype import Genotype
from backbone.config import MIN_SIDE_PX
from backbone.io.lazy import load_target
from backbone.io.provenance import Provenance, fingerprint_file
from backbone.io.text_tables import text_table
from backbone.io.weights import load_tensors, read_metadata, read_weights, select_prefix
from backbone.models.freezing import freeze_parameters, probe_stage_parameters
from backbone.models.measurement import MapShape, measuring
from backbone.models.normalization import NORMS, convert_norm

FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "cells": "backbone.models.cell_backbone:CellBackboneSpec",
        "timm": "backbone.models.timm_backbone:TimmBackboneSpec",
        "torchvision": "backbone.models.torchvision_backbone:TorchvisionBackboneSpec",
    }
)
"""Family of backbones -> its subclass of ``BackboneSpec``, imported when it is chosen. The family
is the part of a spec before the colon; specs without one name cells."""
DEFAULT_FAMILY = "cells"

LEVELS = ("c2", "c3", "c4", "c5")
"""Names of the maps at strides 4, 8, 16 and 32."""
SPLIT_STRIDE = 16
"""Stride of the map at which ``Backbone.c4_split`` splits."""
HALF = (0.5, 0.5, 0.5)
BACKBONE_KIND, BACKBONE_PREFIX = "backbone", "backbone."
"""Kind of a ``backbone.safetensors`` and prefix of the backbone's tensors in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec(ABC):
    """A backbone that can be built: family, architecture and size, input, normalization, weights.

    Subclasses, one per family, add the fields that name a network of the family.
    """

    family: ClassVar[str]
    """Key of this class in ``FAMILIES``."""

    grayscale: bool = False
    """Whether images are converted to gray first (ITU-R BT.601 luma in all three channels)."""
    norm: str = "batch"
    """Kind of normalization layers, one of ``NORMS``; see ``convert_norm``."""
    weights: Path | None = None
    """``backbone.safetensors`` whose weights ``build`` loads; None for random or released ones."""

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"unknown norm {self.norm!r}; choose from {NORMS}")

    @classmethod
    def parse(
        cls, text: str, *, grayscale: bool = False, stem: str = "imagenet", norm: str = "batch"
    ) -> BackboneSpec:
        """Read a backbone spec; files that it names are read, too.

        Args:
            text: the spec; the module's docstring lists the forms.
            grayscale: convert images to gray first. A ``.safetensors`` spec keeps its own.
            stem: of cells: ``imagenet``, or ``cifar``, which keeps the size of small images and
                gives maps ``c0`` to ``c2``. A ``.safetensors`` spec keeps its own.
            norm: ``batch``; ``frozen``: batch normalization that keeps its statistics, scale and
                shift; ``sync``: over all processes of a training; ``group``: group normalization,
                for a new backbone.

        Raises:
            ValueError: if the spec names nothing, with close matches; if norm or stem do not fit
                it; if F does not divide; if a file is damaged or holds something else.
            FileNotFoundError: if a file that the spec names does not exist.
        """
        if norm not in NORMS:
            raise ValueError(f"unknown norm {norm!r}; choose from {NORMS}")
        if text.endswith(".safetensors"):
            spec = BackboneSpec.from_file(text)
            if (norm == "group") != (spec.norm == "group"):
                raise ValueError(f"{text} was trained with another normalization than {norm!r}")
            return replace(spec, norm=norm)
        prefix, _, name = text.partition(":")
        kind = _spec_class(prefix if name and prefix in FAMILIES else DEFAULT_FAMILY)
        return replace(kind._parse(text, stem=stem), grayscale=grayscale, norm=norm)

    @classmethod
    def from_genotype(
        cls,
        genotype: Genotype,
        *,
        num_cells: int,
        filters: int,
        stem: str = "imagenet",
        grayscale: bool = False,
    ) -> BackboneSpec:
        """Return the spec of cells at N @ F.

        Args:
            genotype: the cells.
            num_cells: N, the normal cells per stack.
            filters: F, the filters of the penultimate layer.
            stem: ``imagenet`` or ``cifar``.
            grayscale: convert images to gray first.

        Raises:
            ValueError: if F does not divide, N is below 1, or the stem is unknown.
        """
        size = {"num_cells": num_cells, "filters": filters}
        spec = _spec_class(genotype.family)._from_architecture(genotype, size, stem=stem)
        return replace(spec, grayscale=grayscale)

    @classmethod
    def from_architecture(
        cls,
        architecture: Architecture,
        *,
        depth: int,
        width: int,
        stem: str = "imagenet",
        grayscale: bool = False,
    ) -> BackboneSpec:
        """Return the spec of any kind of architecture at a size.

        Args:
            architecture: its ``family`` chooses the row of ``FAMILIES``.
            depth: repetitions per stage; N of cells.
            width: filters of the first stage; of the first stack's cells.
            stem: ``imagenet`` or ``cifar``.
            grayscale: convert images to gray first.

        Raises:
            ValueError: if the size or the stem do not exist for this architecture.
        """
        size = {"depth": depth, "width": width}
        spec = _spec_class(architecture.family)._from_architecture(architecture, size, stem=stem)
        return replace(spec, grayscale=grayscale)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BackboneSpec:
        """Read what ``to_dict`` wrote.

        Raises:
            ValueError: if the data are no backbone spec.
        """
        kind = _spec_class(data.get("family"))
        return replace(
            kind._read(data),
            grayscale=bool(data.get("grayscale", False)),
            norm=data.get("norm", "batch"),
        )

    @classmethod
    def from_file(cls, path: str | Path) -> BackboneSpec:
        """Read the spec of a ``backbone.safetensors``; ``build`` then loads the file's weights.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is damaged or of another kind.
        """
        metadata = read_metadata(path, kind=BACKBONE_KIND)
        return replace(cls.from_dict(metadata["backbone"]), weights=Path(path))

    def to_dict(self) -> dict[str, Any]:
        """Return what the network's tensors depend on, as JSON's types; ``weights`` is left out.

        Frozen and synchronized batch normalization have batch normalization's tensors and are
        written as such.
        """
        return {
            "family": self.family,
            **self._members(),
            **({"grayscale": True} if self.grayscale else {}),
            **({"norm": "group"} if self.norm == "group" else {}),
        }

    def fingerprint(self) -> str:
        """Return 64 hexadecimal digits for the network and the weights that it starts from."""
        if self.weights is not None:
            return fingerprint_file(self.weights)
        return Provenance(stage="spec", arguments=self.to_dict()).key

    def build(self, *, pretrained: bool = False, out: Sequence[str] | None = None) -> Backbone:
        """Build the backbone, with the weights of its file or else with random ones.

        Args:
            pretrained: load the library's released weights, which downloads them; weights of a
                file take precedence.
            out: names of the maps to return; all by default, ``c2`` to ``c5`` of most backbones.

        Raises:
            ValueError: if the library has no such model, or none with feature maps for images of
                any size; if the backbone lacks a map of ``out``; if released weights are requested
                where there are none; if a file's weights do not fit.
        """
        is_released = pretrained and self.weights is None
        if is_released and self.norm == "group":
            raise ValueError("released weights are for batch normalization, not for norm 'group'")
        backbone = self._build(pretrained=is_released, out=out)
        if self.norm == "group":
            backbone.body = convert_norm(backbone.body, "group")
        if self.weights is not None:
            tensors, _ = read_weights(self.weights, kind=BACKBONE_KIND)
            load_tensors(backbone, select_prefix(tensors, BACKBONE_PREFIX), source=self.weights)
        if self.norm in ("frozen", "sync"):
            backbone.body = convert_norm(backbone.body, self.norm)
        return backbone

    def build_meta(self, *, out: Sequence[str] | None = None) -> Backbone:
        """Build on torch's meta device, in evaluation mode: shapes and costs without any work."""
        spec = replace(self, weights=None)
        try:
            with torch.device("meta"):
                return spec.build(out=out).eval()
        except RuntimeError:
            # Some library models, such as torchvision's RegNet, compute with values of tensors when
            # they are created.
            with measuring("cpu"):
                return spec.build(out=out).eval().to("meta")

    @property
    def architecture(self) -> Architecture | None:
        """The searched or published architecture; None if a library defines the network."""
        return None

    @classmethod
    @abstractmethod
    def _parse(cls, text: str, *, stem: str) -> Self:
        """Read a spec of this family, prefix included."""

    @classmethod
    def _from_architecture(
        cls, architecture: Architecture, size: Mapping[str, int], *, stem: str
    ) -> Self:
        raise ValueError(f"backbones of the family {cls.family!r} are not built from architectures")

    @classmethod
    @abstractmethod
    def _read(cls, data: Mapping[str, Any]) -> Self:
        """Read the family's own members of ``to_dict``."""

    @abstractmethod
    def _members(self) -> dict[str, Any]:
        """Return the family's own members of ``to_dict``."""

    @abstractmethod
    def _build(self, *, pretrained: bool, out: Sequence[str] | None) -> Backbone:
        """Build the network with batch normalization."""

    @abstractmethod
    def __str__(self) -> str:
        """Return the name of the network for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryBackboneSpec(BackboneSpec):
    """Base of specs that name a model of a library: ``FAMILY:NAME``."""

    name: str
    """The library's name of the model."""

    @classmethod
    def _parse(cls, text: str, *, stem: str) -> Self:
        if stem != "imagenet":
            raise ValueError(f"only cells can have another stem, not {text!r}")
        return cls(name=text.partition(":")[2])

    @classmethod
    def _read(cls, data: Mapping[str, Any]) -> Self:
        return cls(name=data["name"])

    def _members(self) -> dict[str, Any]:
        return {"name": self.name}

    def __str__(self) -> str:
        return f"{self.family}:{self.name}"


@contextmanager
def released_weights(spec: BackboneSpec, *, pretrained: bool) -> Iterator[None]:
    """Turn the errors of a library's download into one sentence.

    Raises:
        ConnectionError: if ``pretrained`` weights can neither be downloaded nor are in the cache.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        first = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise ConnectionError(
            f"cannot load the released weights of {spec}, which are downloaded once ({first}); "
            "without pretrained, weights are random"
        ) from error


def _spec_class(family: Any) -> type[BackboneSpec]:
    if family not in FAMILIES:
        raise ValueError(f"unknown family of backbones {family!r}; choose from {sorted(FAMILIES)}")
    return load_target(FAMILIES[family])


def build_backbone(
    spec: str,
    *,
    pretrained: bool = False,
    norm: str = "batch",
    grayscale: bool = False,
    stem: str = "imagenet",
    out: Sequence[str] | None = None,
) -> Backbone:
    """Parse a spec and build its backbone; see ``BackboneSpec.parse`` and ``BackboneSpec.build``.

    Raises:
        ValueError, FileNotFoundError: as these two.
    """
    parsed = BackboneSpec.parse(spec, grayscale=grayscale, stem=stem, norm=norm)
    return parsed.build(pretrained=pretrained, out=out)


class Backbone(nn.Module, ABC):
    """Images to feature maps; ``BackboneSpec.build`` builds one.

    A family overrides what it can do better than this class: what this class cannot do for any
    network, it refuses.

    Args:
        body: normalized images to a dict of maps.
        spec: what the backbone was built from.
        maps: shapes of the body's maps by level, finest first.
        mean: mean of the body's training images, one value per color, in [0, 1].
        std: standard deviation likewise.
        out: names of the maps to return; all by default.

    Shape:
        - images: (B, 3, H, W) in [0, 1]; H and W at least 32
        - output: ``{"c2": (B, C2, H/4, W/4), ..., "c5": (B, C5, H/32, W/32)}``; exact where the
          sides are multiples of 32, at most one row or column off elsewhere
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        spec: BackboneSpec,
        maps: Mapping[str, MapShape],
        mean: Sequence[float] = HALF,
        std: Sequence[float] = HALF,
        out: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        out = tuple(maps) if out is None else tuple(out)
        missing = [level for level in out if level not in maps]
        if missing:
            raise ValueError(f"{spec} has no maps {missing}; it has only {sorted(maps)}")
        self.body = body
        self.spec = spec
        self.out = out
        self.channels = {level: maps[level].channels for level in out}
        self.strides = {level: maps[level].stride for level in out}
        self.mean, self.std = tuple(mean), tuple(std)
        self.channels_last = frozenset(k for k, shape in maps.items() if shape.is_channels_last)
        """Levels whose maps the body returns as (B, H, W, C)."""
        self.inexact = frozenset(k for k, shape in maps.items() if not shape.is_exact)
        """Levels whose maps the body returns one row or column short."""
        self._mean: Tensor
        self._std: Tensor
        self.register_buffer("_mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(std).view(3, 1, 1), persistent=False)

    @property
    def grayscale(self) -> bool:
        """Whether images are converted to gray first."""
        return self.spec.grayscale

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.body(self.normalize(images))
        return {level: self._arranged(level, maps[level], images) for level in self.out}

    def _arranged(self, level: str, features: Tensor, images: Tensor) -> Tensor:
        """Return a map as (B, C, H / stride, W / stride): permuted, and padded if it is short."""
        if level in self.channels_last:
            features = features.permute(0, 3, 1, 2)
        if level in self.inexact:
            short = [
                max(image_side // self.strides[level] - side, 0)
                for image_side, side in zip(images.shape[2:], features.shape[2:], strict=True)
            ]
            features = F.pad(features, (0, short[1], 0, short[0]), mode="replicate")
        return features

    def normalize(self, images: Tensor) -> Tensor:
        """Convert images, (B, 3, H, W) in [0, 1], to the range that the body's weights expect."""
        if min(images.shape[-2:]) < MIN_SIDE_PX:
            raise ValueError(
                f"images must be at least {MIN_SIDE_PX} pixels high and wide, "
                f"not {tuple(images.shape[-2:])}"
            )
        if self.grayscale:
            images = rgb_to_grayscale(images, num_output_channels=3)
        return (images - self._mean) / self._std

    def map_sides(self, side_px: int) -> dict[str, int]:
        """Return the side of every map for a square image, without computing anything."""
        twin = self.spec.build_meta(out=self.out)
        maps = twin(torch.empty(1, 3, side_px, side_px, device="meta"))
        return {level: m.shape[-1] for level, m in maps.items()}

    def freeze_stages(self, num_stages: int) -> None:
        """Freeze the first stages: their parameters and their batch normalization's statistics.

        Stages are counted as by detectron2's ``MODEL.BACKBONE.FREEZE_AT``: the first is the stem,
        before stride 4; the second ends in ``c2``, the third in ``c3``, and so on. Tensors keep
        their names. Frozen batch normalization uses its running statistics in training, too.

        Args:
            num_stages: 0 freezes nothing, 1 the stem, 2 everything that ``c2`` depends on, ...

        Raises:
            ValueError: if the backbone has fewer stages.
        """
        if num_stages == 0:
            return
        freeze_parameters(self.body, self._stage_parameters(num_stages))

    def _stage_parameters(self, num_stages: int) -> set[int]:
        """Return the ids of the first stages' parameters."""
        return probe_stage_parameters(self.body, num_stages)

    def c4_split(self) -> C4Split:
        """Return the two parts before and after the map at stride 16.

        Raises:
            ValueError: if the backbone has no such two parts.
        """
        raise ValueError(
            f"{self.spec} cannot be split at stride {SPLIT_STRIDE}; cells can, and timm's models "
            "that are stages in a row, such as timm:resnet50"
        )

    def summary(self, *, side_px: int) -> str:
        """Return a table of the maps for square images: name, output shape, stride."""
        twin = self.spec.build_meta(out=self.out)
        maps = twin(torch.empty(1, 3, side_px, side_px, device="meta"))
        rows = [(k, shape_text(m), str(twin.strides[k])) for k, m in maps.items()]
        return text_table(("map", "output", "stride"), rows)

    def checkpoint_activations(self) -> None:
        """Keep few activations in training and recompute the rest in the backward pass.

        Gradients stay the same, for less memory and more time.

        Raises:
            ValueError: if the backbone does not support it.
        """
        raise ValueError(f"{self.spec} cannot save memory by activation checkpointing")

    def schedule_drop_path(self, *, keep: float, progress: float) -> None:
        """Set the rates of ScheduledDropPath; ``keep`` of 1 drops nothing and is always allowed.

        Args:
            keep: fraction of operations kept in the last cell at the end, above 0, at most 1.
            progress: fraction of the schedule that has passed; above 1 it stays at the end.

        Raises:
            ValueError: if the backbone does not have cells and ``keep`` is below 1.
        """
        if keep < 1:
            raise ValueError(f"drop_path_keep_prob is for cells, not for {self.spec}")


class C4Split(ABC):
    """The two parts of a backbone: images to the map at stride 16, and crops of it to ``c5``.

    Faster R-CNN without a feature pyramid proposes on the first part's map and uses the second
    part as its box head (Ren et al. 2015; for cells, Zoph et al. 2018, section 4.3, and the
    released code, ``faster_rcnn_nas_feature_extractor.py`` in TensorFlow's
    research/object_detection). Both run the backbone's own modules and have no weights themselves.
    """

    channels: int
    """Channels of the map between the parts."""
    out_channels: int
    """Channels of the second part's output."""

    @abstractmethod
    def forward_c4(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [0, 1] to (B, channels, H/16, W/16)."""

    @abstractmethod
    def forward_c5(self, crops: Tensor) -> Tensor:
        """Map crops (R, channels, h, w) to (R, out_channels, h/2, w/2), sides rounded up.

        The whole map gives the backbone's ``c5``.
        """


def shape_text(features: Tensor) -> str:
    """Return the shape of a map (B, C, H, W) as ``C x H x W``."""
    return " x ".join(str(size) for size in features.shape[1:])
