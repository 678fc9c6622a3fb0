"""Backbones of timm: every model of it that provides feature maps for images of any size."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from backbone.io.runtime import hidden_package
from backbone.models.backbone import Backbone, C4Split, LibraryBackboneSpec, released_weights
from backbone.models.measurement import (
    DEVICES,
    MapShape,
    deepest_maps,
    measure_maps,
    measuring,
)
from backbone.models.normalization import recomputation

with hidden_package("wandb"):  # timm imports it where it is installed, unasked
    import timm
    from timm.data.config import resolve_model_data_config
    from timm.models._features import FeatureListNet

logger = logging.getLogger(__name__)

SIZE_OPTIONS: tuple[Mapping[str, Any], ...] = (
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {},
    {"dynamic_img_size": True},
    {"strict_img_size": False},
)
"""timm's options for images of other sizes than a model's own, in the order in which they are
tried; models refuse those that they do not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimmBackboneSpec(LibraryBackboneSpec):
    """A model of timm, without its head."""

    family: ClassVar[str] = "timm"

    def _build(self, *, pretrained: bool, out: Sequence[str] | None) -> TimmBackbone:
        measured = measure_model(self.name)
        # timm returns maps in the order of their indices.
        names = sorted(measured.indices, key=lambda level: measured.indices[level])
        with released_weights(self, pretrained=pretrained):
            model = timm.create_model(
                self.name,
                features_only=True,
                pretrained=pretrained,
                out_indices=tuple(measured.indices[level] for level in names),
                **measured.options,
            )
        settings = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
        return TimmBackbone(
            NamedMaps(model, tuple(names)),
            spec=self,
            maps=measured.shapes,
            mean=settings["mean"],
            std=settings["std"],
            out=out,
        )


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """How a model of timm is built and which maps it then returns."""

    options: Mapping[str, Any]
    """Options of ``timm.create_model`` for images of any size."""
    indices: Mapping[str, int]
    """Level -> index of its map among all of the model's."""
    shapes: Mapping[str, MapShape]
    """Level -> shape of its map, finest level first."""


@cache
def measure_model(name: str) -> MeasuredModel:
    """Measure the maps of a model of timm; once per process.

    Raises:
        ValueError: if timm has no such model, or it has no maps at strides 4, 8, 16 or 32 for
            images of any size.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(f"timm has no backbone {name!r}; close matches are {near}")
    problem = ""
    for device in DEVICES:
        for options in SIZE_OPTIONS:
            try:
                with measuring(device):
                    model, indices = _create_with_all_maps(name, options)
                shapes = measure_maps(partial(_numbered_maps, model.to("meta"), indices))
            except Exception as error:  # models raise anything where they fail
                if not options or not isinstance(error, TypeError):  # the model has the option
                    problem = str(error).partition("\n")[0] or type(error).__name__
                continue
            return _choose_maps(name, model, options, shapes)
        if _runs_at_own_size(name, device):
            break
    raise ValueError(
        f"timm:{name} gives no feature maps at strides 4, 8, 16 or 32 for images of any size "
        f"({problem}); choose another model, such as timm:resnet50"
    )


def _runs_at_own_size(name: str, device: str) -> bool:
    """Return whether a model created on a device can be measured with images of its own size."""
    size: Any = timm.get_pretrained_cfg(name)
    try:
        with measuring(device):
            model = timm.create_model(name, features_only=True).eval()
        with measuring("meta"), torch.no_grad():
            model.to("meta")(torch.zeros(1, *size.input_size))
    except Exception:  # models raise anything where they fail
        return False
    return True


def _create_with_all_maps(
    name: str, options: Mapping[str, Any]
) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a model that returns all the maps that it can, and their indices."""
    model = timm.create_model(name, features_only=True, **options)
    info: Any = model.feature_info
    every = tuple(range(len(info.info)))
    indices = tuple(index % len(every) for index in info.out_indices)
    if indices != every:
        with suppress(Exception):  # some models state maps that they cannot return
            model = timm.create_model(name, features_only=True, out_indices=every, **options)
            indices = every
    return model.eval(), indices


def _numbered_maps(model: nn.Module, indices: Sequence[int], images: Tensor) -> dict[int, Tensor]:
    return dict(zip(indices, model(images), strict=True))


def _choose_maps(
    name: str, model: nn.Module, options: Mapping[str, Any], shapes: Mapping[int, MapShape]
) -> MeasuredModel:
    maps = deepest_maps(shapes)
    for level, (index, shape) in maps.items():
        info: Any = model.feature_info
        stated = info.info[index]["reduction"], info.info[index]["num_chs"]
        if stated != (shape.stride, shape.channels):
            logger.warning(
                "timm:%s states stride %s and %s channels for the map %s; it has stride %d and "
                "%d channels", name, *stated, level, shape.stride, shape.channels,
            )  # fmt: skip
    return MeasuredModel(
        options=options,
        indices={level: index for level, (index, _) in maps.items()},
        shapes={level: shape for level, (_, shape) in maps.items()},
    )


class NamedMaps(nn.Module):
    """Return the list of a model's maps as a dict by level."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.names, self.model(images), strict=True))


class TimmBackbone(Backbone):
    """A model of timm as a backbone."""

    body: NamedMaps

    def checkpoint_activations(self) -> None:
        """Enable timm's activation checkpointing.

        Running statistics of batch normalization in recomputed segments are updated twice.

        Raises:
            ValueError: if the model does not support it.
        """
        model: Any = self.body.model
        try:
            model.set_grad_checkpointing(enable=True)
        except (AttributeError, AssertionError):
            super().checkpoint_activations()

    def c4_split(self) -> C4Split:
        is_sequential = isinstance(self.body.model, FeatureListNet)
        if not is_sequential or (self.channels_last | self.inexact) & {"c4", "c5"}:
            return super().c4_split()
        return TimmC4Split(self)


class TimmC4Split(C4Split):
    """The stages before and after ``c4`` of a model whose modules run one after another."""

    def __init__(self, backbone: TimmBackbone) -> None:
        self._backbone = backbone
        body = backbone.body
        model: Any = body.model
        channels = dict(zip(body.names, model.feature_info.channels(), strict=True))
        if not {"c4", "c5"} <= channels.keys():
            raise ValueError(f"{backbone.spec} has no maps c4 and c5 to be split between")
        self.channels, self.out_channels = channels["c4"], channels["c5"]
        ends = dict(zip(body.names, model.return_layers, strict=True))
        modules = list(model)
        split, end = (modules.index(ends[level]) + 1 for level in ("c4", "c5"))
        self._stages = modules[:split], modules[split:end]

    def forward_c4(self, images: Tensor) -> Tensor:
        return self._run_stages(self._stages[0], self._backbone.normalize(images))

    def forward_c5(self, crops: Tensor) -> Tensor:
        return self._run_stages(self._stages[1], crops)

    def _run_stages(self, names: Iterable[str], features: Tensor) -> Tensor:
        model: Any = self._backbone.body.model
        saves_memory = model.grad_checkpointing and torch.is_grad_enabled()
        for name in names:
            stage: nn.Module = model[name]
            if saves_memory and isinstance(stage, nn.Sequential):
                context = partial(_recomputation, stage)
                features = checkpoint(stage, features, use_reentrant=False, context_fn=context)
            else:
                features = stage(features)
        return features


def _recomputation(stage: nn.Module) -> tuple[Any, Any]:
    return nullcontext(), recomputation(stage)
