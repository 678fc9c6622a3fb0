"""Cost of a genotype, and the trade-off between reward and cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.optim.swa_utils import update_bn

from backbone.cells.architecture import Architecture
from backbone.io.runtime import choose_device, limited_threads
from backbone.models.backbone import Backbone, BackboneSpec
from backbone.profile.complexity import measure_cost
from search.rewards.config import CostConfig


@dataclass(frozen=True, slots=True)
class GenotypeCost:
    """Cost of the network built from a genotype."""

    value: float
    """In the unit of the measure: multiply-adds of one image, parameters, or the median of the
    milliseconds that a batch takes."""
    spread: float
    """Interquartile range of those milliseconds; 0 for measures that are counted."""


def genotype_cost(architecture: Architecture, config: CostConfig) -> GenotypeCost:
    """Return the cost of an architecture at the depth, width and image size of ``config``.

    Multiply-adds and parameters are counted on the meta device. Latency is measured on a network
    with random weights; torch's global generators are left unchanged.

    Raises:
        ValueError: if the measure is ``none``, or the device is not available.
        RuntimeError: if memory runs out while latency is measured.
    """
    spec = BackboneSpec.from_architecture(
        architecture, depth=config.num_cells, width=config.first_filters, stem=config.stem
    )
    match config.measure:
        case "mult_adds" | "parameters":
            cost = measure_cost(spec, side_px=config.side_px)
            return GenotypeCost(float(getattr(cost, config.measure)), 0.0)
        case "latency_ms":
            with torch.random.fork_rng(devices=[]):
                backbone = spec.build()
            return _latency(backbone, config)
        case _:
            raise ValueError(f"a cost cannot be measured by {config.measure!r}")


def _latency(backbone: Backbone, config: CostConfig) -> GenotypeCost:
    device = choose_device(config.device)
    backbone = backbone.to(device).to(memory_format=torch.channels_last)
    shape = (config.batch_size, 3, config.side_px, config.side_px)
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    seconds = []
    with limited_threads(config.num_threads), torch.inference_mode():
        # With the initial statistics, activations shrink with depth to denormals, which are slow.
        # Mirror images are added since a map of one pixel and one image has no variance.
        update_bn([torch.cat([images, images.flip(3)])], backbone)
        backbone.eval()
        for run in range(config.warmup_runs + config.timed_runs):
            start = time.perf_counter()
            backbone(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if run >= config.warmup_runs:
                seconds.append(time.perf_counter() - start)
    quartiles = torch.tensor(seconds, dtype=torch.float64).quantile(
        torch.tensor([0.25, 0.75], dtype=torch.float64)
    )
    return GenotypeCost(1000 * statistics.median(seconds), 1000 * float(quartiles.diff()))


def constrained_reward(reward: float, cost: float, config: CostConfig) -> float:
    """Return a reward weighted by its cost: reward * (target / cost) ** exponent.

    The exponent is ``exponent_within`` for a cost of at most the target, ``exponent_beyond`` for a
    greater one (Tan et al. 2019, MnasNet, equations 2 and 3).

    Args:
        reward: at least 0.
        cost: above 0, in the unit of the target.
        config: target and exponents.

    Raises:
        ValueError: if there is no target, or the cost is not above 0.
    """
    if config.target == 0:
        raise ValueError(f"target must be above 0 to constrain a reward, not {config.target}")
    if not cost > 0:
        raise ValueError(f"a cost must be above 0, not {cost}")
    within = cost <= config.target
    exponent = config.exponent_within if within else config.exponent_beyond
    return reward * (config.target / cost) ** exponent


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points on the Pareto front by ascending cost, in O(n log n).

    A point is dominated by one that is at least as good in both members and better in one. Equal
    points do not dominate each other, so all of them are returned.

    Args:
        points: (reward, cost) pairs; a higher reward and a lower cost are better.

    Raises:
        ValueError: if a member is NaN.
    """
    for index, point in enumerate(points):
        if any(value != value for value in point):  # noqa: PLR0124  # NaN alone differs
            raise ValueError(f"point {index}, {point}, contains NaN")
    order = sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0]))
    front: list[int] = []
    for index in order:
        # Earlier points cost no more, so only a higher reward or an equal point is on the front.
        if (
            not front
            or points[index][0] > points[front[-1]][0]
            or points[index] == points[front[-1]]
        ):
            front.append(index)
    return front
