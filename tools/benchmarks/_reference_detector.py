"""Reference training loops of the two detector libraries, as their own scripts have them.

detectron2's is the loop of its ``plain_train_net.py``, torchvision's that of its
``references/detection``: the library's own data loader, ``GeneralizedRCNN`` with its own
normalization and batching, its optimizer and schedule. Model parts, weights, order of images and
random draws are those of nasdet's training, so that the losses can be compared. There is no
augmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Sampler
from torchvision.ops import FeaturePyramidNetwork

from backbone.io.runtime import choose_device
from detection.data.dataset import CocoDataset, load_splits
from detection.engine.config import TrainDetectorConfig
from detection.engine.train import build_new_detector
from detection.engine.train_step import build_batches, seed_step
from detection.models.config import Detectron2FasterRCNNConfig
from detection.models.detector import Detector
from detection.structures import SIZE_DIVISOR

Step = Callable[[Any], Mapping[str, Tensor]]
"""Takes a batch as the library's loader gives it, returns the losses."""


def reference_steps(
    config: TrainDetectorConfig, *, memory_format: torch.memory_format = torch.contiguous_format
) -> Iterator[float]:
    """Train as the library of ``config.detector`` does and yield the loss of each step.

    Args:
        config: the training; its recipe is SGD with steps, without augmentation and clipping.
        memory_format: of weights and maps. The libraries' scripts leave it contiguous; in
            ``torch.channels_last``, as in nasdet, sums have the same order and round alike.
    """
    train, _ = load_splits(config.data, config.recipe)
    detector = build_new_detector(config, train.annotations).train()
    detector = detector.to(choose_device(config.accelerator)).to(memory_format=memory_format)
    maps = _Maps(detector, memory_format)
    if isinstance(config.detector, Detectron2FasterRCNNConfig):
        yield from _detectron2_steps(config, train, maps)
    else:
        yield from _torchvision_steps(config, train, maps)


class _Maps(nn.Module):
    """Backbone and neck: images (B, 3, H, W) in [0, 1] to feature maps by name."""

    def __init__(self, detector: Detector, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.body: nn.Module = detector.backbone
        self.neck: Any = detector.neck
        self.detector = (detector,)  # in a tuple: its other parts are not submodules
        self.memory_format = memory_format

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        images = images.contiguous(memory_format=self.memory_format)
        # torchvision's FPN takes maps; detectron2's, and a C4 neck, take images.
        takes_maps = isinstance(self.neck, FeaturePyramidNetwork)
        maps: dict[str, Tensor] = self.neck(self.body(images) if takes_maps else images)
        return maps


class _Order(Sampler[int]):
    """Indices of the training images in the order of nasdet's training."""

    def __init__(self, train: CocoDataset, config: TrainDetectorConfig) -> None:
        steps = config.recipe.iterations
        batches = build_batches(
            train, config.recipe, steps=steps, steps_done=lambda: 0, seed=config.seed
        )
        self._items = list(batches.sampler)

    def __iter__(self) -> Iterator[int]:
        return iter(item[0] for item in self._items)

    def __len__(self) -> int:
        return len(self._items)


def _detectron2_steps(
    config: TrainDetectorConfig, train: CocoDataset, maps: _Maps
) -> Iterator[float]:
    from detectron2.data import DatasetMapper, build_detection_train_loader
    from detectron2.data import transforms as T
    from detectron2.data.datasets import load_coco_json
    from detectron2.solver import build_lr_scheduler, build_optimizer
    from detectron2.utils.events import EventStorage

    from detection.models.detectron2.parts import known_warnings_hidden

    records = {
        record["image_id"]: record
        for record in load_coco_json(str(train.annotations.path), str(train.image_root))
    }
    labels = {
        category_id: label for label, category_id in enumerate(train.annotations.category_ids)
    }
    for record in records.values():
        for annotation in record["annotations"]:
            annotation["category_id"] = labels[annotation["category_id"]]
    sides = config.data.shortest_side_px, config.data.longest_side_px
    loader = build_detection_train_loader(
        [records[image_id] for image_id in train.image_ids],
        mapper=DatasetMapper(
            is_train=True,
            augmentations=[T.ResizeShortestEdge(sides[0], sides[1])],
            image_format="BGR",
        ),
        sampler=_Order(train, config),
        total_batch_size=config.recipe.batch_size,
        aspect_ratio_grouping=False,
        num_workers=config.num_workers,
    )
    model = _as_generalized_rcnn(maps)
    solver = _solver_config(config)
    optimizer = build_optimizer(solver, model)
    schedule = build_lr_scheduler(solver, optimizer)
    with EventStorage(0) as storage, known_warnings_hidden():

        def step(batch: Any) -> Mapping[str, Tensor]:
            losses: Mapping[str, Tensor] = model(batch)
            figures = {name: loss.item() for name, loss in losses.items()}
            storage.put_scalars(total_loss=sum(figures.values()), **figures)
            storage.put_scalar("lr", optimizer.param_groups[0]["lr"], smoothing_hint=False)
            storage.step()
            return losses

        yield from _loop(config, loader, step, optimizer, schedule)


def _as_generalized_rcnn(maps: _Maps) -> nn.Module:
    """Return detectron2's model of a detector's parts; its images are BGR, 0 to 255."""
    from detectron2.modeling.meta_arch import GeneralizedRCNN

    from detection.models.detectron2.parts import Detectron2Backbone

    class Bgr(Detectron2Backbone):  # type: ignore[misc]  # untyped package
        size_divisibility = SIZE_DIVISOR

        def __init__(self) -> None:
            super().__init__()
            self.maps = maps

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            named: dict[str, Tensor] = self.maps(images.flip(1) / 255)
            return named

    detector: Any = maps.detector[0]
    model: nn.Module = GeneralizedRCNN(
        backbone=Bgr(),
        proposal_generator=detector.rpn,
        roi_heads=detector.roi_heads,
        pixel_mean=(0.0, 0.0, 0.0),
        pixel_std=(1.0, 1.0, 1.0),
        input_format="BGR",
    )
    return model.to(next(detector.parameters()).device).train()


def _solver_config(config: TrainDetectorConfig) -> Any:
    """Return detectron2's config of a recipe with SGD and steps."""
    from detectron2.config import get_cfg

    recipe, cfg = config.recipe, get_cfg()
    cfg.SOLVER.BASE_LR = recipe.learning_rate
    cfg.SOLVER.WEIGHT_DECAY = recipe.weight_decay
    cfg.SOLVER.MAX_ITER = recipe.iterations
    cfg.SOLVER.STEPS = tuple(recipe.lr_milestones)
    cfg.SOLVER.GAMMA = recipe.lr_gamma
    cfg.SOLVER.WARMUP_ITERS = recipe.warmup_iterations
    return cfg


def _torchvision_steps(
    config: TrainDetectorConfig, train: CocoDataset, maps: _Maps
) -> Iterator[float]:
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    class Transform(GeneralizedRCNNTransform):  # type: ignore[misc]  # untyped package
        def torch_choice(self, sides: list[int]) -> int:
            return sides[0]  # the only one; the original draws, which would change later draws

    detector: Any = maps.detector[0]
    device = next(detector.parameters()).device
    model = GeneralizedRCNN(
        maps, detector.rpn, detector.roi_heads,
        Transform(
            config.data.shortest_side_px, config.data.longest_side_px,
            image_mean=[0.0] * 3, image_std=[1.0] * 3, size_divisible=SIZE_DIVISOR,
        ),
    ).to(device).train()  # fmt: skip
    loader: DataLoader[Any] = DataLoader(
        _CocoDetection(train),
        batch_size=config.recipe.batch_size,
        sampler=_Order(train, config),
        num_workers=config.num_workers,
        collate_fn=_columns,
    )
    recipe = config.recipe
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        parameters, recipe.learning_rate, momentum=0.9, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(
                optimizer, start_factor=1e-3, total_iters=max(recipe.warmup_iterations, 1)
            ),
            torch.optim.lr_scheduler.MultiStepLR(
                optimizer, list(recipe.lr_milestones), gamma=recipe.lr_gamma
            ),
        ],
        milestones=[max(recipe.warmup_iterations, 1)],
    )

    def step(batch: Any) -> Mapping[str, Tensor]:
        images, targets = batch
        losses: Mapping[str, Tensor] = model(
            [image.to(device) for image in images],
            [{name: value.to(device) for name, value in t.items()} for t in targets],
        )
        return losses

    yield from _loop(config, loader, step, optimizer, schedule)


def _columns(examples: list[tuple[Tensor, dict[str, Tensor]]]) -> tuple[Any, ...]:
    return tuple(zip(*examples, strict=True))


def _CocoDetection(train: CocoDataset) -> Any:  # noqa: N802  # it stands for a class
    from torchvision import datasets, transforms

    data = datasets.CocoDetection(str(train.image_root), str(train.annotations.path))
    data.ids = train.image_ids
    labels = {
        category_id: label for label, category_id in enumerate(train.annotations.category_ids, 1)
    }
    to_tensor = transforms.ToTensor()

    def prepare(image: Any, objects: list[dict[str, Any]]) -> tuple[Tensor, dict[str, Tensor]]:
        real = [o for o in objects if not o["iscrowd"]]
        boxes = torch.tensor([o["bbox"] for o in real], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        numbers = torch.tensor([labels[o["category_id"]] for o in real], dtype=torch.int64)
        return to_tensor(image), {"boxes": boxes, "labels": numbers}

    data.transforms = prepare
    return data


def _loop(
    config: TrainDetectorConfig,
    loader: Any,
    step: Step,
    optimizer: Optimizer,
    schedule: LRScheduler,
) -> Iterator[float]:
    device = choose_device(config.accelerator)
    for number, batch in zip(range(config.recipe.iterations), loader, strict=False):
        seed_step(config.seed, number, device=device)
        losses = step(batch)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise FloatingPointError(f"loss is {total.item()} at step {number}")
        optimizer.zero_grad()
        torch.autograd.backward(total)
        optimizer.step()
        schedule.step()
        yield total.item()
