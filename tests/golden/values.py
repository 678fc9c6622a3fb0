"""Compute golden values with this tree; ``values_85cd897.py`` computes the same with that commit.

usage: python values.py DATA_FOLDER OUTPUT_FOLDER
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch

from _golden import STEPS, Recorder, cross_entropies, pattern
from backbone.cells.genotype import Genotype
from backbone.cells.published import PUBLISHED
from backbone.config import ClassifierRecipe, PretrainConfig
from backbone.models.backbone import BackboneSpec, build_backbone
from backbone.profile.complexity import measure_cost
from backbone.training.pretrain import run_pretraining
from detection.config import DetectionDataConfig, DetectorRecipe
from detection.data.coco import GroundTruth
from detection.engine.config import TrainDetectorConfig
from detection.engine.train import run_training
from detection.evaluation.report import ReportOptions, analyze_detections
from detection.evaluation.tables import DetectionTable
from detection.models.config import (
    Detectron2CascadeConfig,
    Detectron2FasterRCNNConfig,
    Detectron2RetinaNetConfig,
    TorchvisionFasterRCNNConfig,
    TorchvisionRetinaNetConfig,
)
from detection.reward import DetectionReward, DetectionRewardConfig
from search.rewards.config import CostConfig, ProxyConfig, SupernetConfig, ZeroCostConfig
from search.rewards.proxy import ProxyReward
from search.rewards.supernet_reward import SupernetReward
from search.rewards.zero_cost import ZeroCostReward
from search.space import SpaceConfig, build_space
from search.strategies.config import (
    ControllerConfig,
    EvolutionConfig,
    NsgaConfig,
    RandomConfig,
    TpeConfig,
)
from search.study.config import SearchConfig
from search.study.study import run_search

SPACE = SpaceConfig(
    operations=["identity", "conv_1x1", "sep_conv_3x3", "max_pool_3x3"], num_blocks=2
)
SMALL = {
    "anchor_sizes": [8, 16, 32, 64], "fpn_channels": 16, "box_head_dim": 32,
    "rpn_batch_size_per_image": 32, "rpn_pre_nms_top_n_train": 50, "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_train": 20,
    "rpn_post_nms_top_n_test": 20, "roi_batch_size_per_image": 16,
}  # fmt: skip
RETINANET = {"anchor_sizes": [8, 16, 32, 64], "fpn_channels": 16, "topk_candidates": 50}
C4 = {
    "neck": "c4",
    "roi_pool_size": 17,
    "roi_sampling_ratio": 1,
    "rpn_channels": 24,
    "frozen_stages": 2,
}
DETECTORS = {
    "torchvision": TorchvisionFasterRCNNConfig(**SMALL),
    "torchvision c4": TorchvisionFasterRCNNConfig(**SMALL | C4),
    "torchvision retinanet": TorchvisionRetinaNetConfig(**RETINANET),
}
DETECTRON2_DETECTORS = {
    "detectron2": Detectron2FasterRCNNConfig(**SMALL),
    "detectron2 c4": Detectron2FasterRCNNConfig(**SMALL | C4),
    "detectron2 cascade": Detectron2CascadeConfig(**SMALL),
    "detectron2 retinanet": Detectron2RetinaNetConfig(**RETINANET),
}
PLAIN = {
    "iterations": STEPS, "batch_size": 2, "optimizer": "sgd", "learning_rate": 0.01,
    "schedule": "multistep", "lr_milestones": [12, 16], "warmup_iterations": 4,
    "horizontal_flip": False,
}  # fmt: skip
AUGMENTED = {
    "multi-scale": {"optimizer": "adamw", "schedule": "cosine", "lr_milestones": [],
                    "accumulate_grad_batches": 2,
                    "learning_rate": 1e-3, "horizontal_flip": True, "vertical_flip": True,
                    "shortest_sides_px": [48, 64], "backbone_lr_mult": 0.5, "ema_decay": 0.9,
                    "iterations": STEPS // 2},
    "jitter": {"horizontal_flip": True, "scale_jitter": [0.5, 1.5], "jitter_side_px": 96,
               "group_by_aspect": True},
}  # fmt: skip


def published_networks():
    for name, genotype in PUBLISHED.items():
        spec = f"{name}:2@{genotype.penultimate_filters(32)}"
        for stem, side in (("imagenet", 224), ("cifar", 32)):
            cost = measure_cost(BackboneSpec.parse(spec, stem=stem), side_px=side)
            yield f"{spec} {stem} parameters", cost.parameters
            yield f"{spec} {stem} mult-adds", cost.mult_adds
        torch.manual_seed(0)
        small = f"{name}:1@{genotype.penultimate_filters(8)}"
        backbone = build_backbone(small).eval()
        with torch.no_grad():
            maps = backbone(pattern(64))
        yield f"{small} features", [float(m.double().abs().mean()) for m in maps.values()]


def pretraining(data, out):
    plain = {
        "epochs": 2, "batch_size": 9, "optimizer": "adamw", "learning_rate": 1e-3,
        "weight_decay": 0.05,
    }  # fmt: skip
    recipes = {
        "cosine": plain,
        "augmented": plain | {
            "epochs": 1, "optimizer": "rmsprop", "schedule": "exponential", "mixup_alpha": 0.2,
            "cutmix_alpha": 1.0, "trivial_augment": True, "cutout_side_px": 8, "dropout": 0.2,
            "drop_path_keep_prob": 0.6, "ema_decay": 0.9, "vertical_flip": True,
            "auxiliary_weight": 0.4, "image_side_px": 64, "random_crop_min_area": 0.3,
        },
    }  # fmt: skip
    for name, recipe in recipes.items():
        config = PretrainConfig(
            backbone="nasnet_a:1@96", data_root=f"{data}/images", accelerator="cpu",
            recipe=ClassifierRecipe(**recipe), stem="imagenet",
        )  # fmt: skip
        recorder = Recorder()
        result = run_pretraining(config, out / name, callbacks=[recorder])
        yield f"pretraining {name}: losses", recorder.losses
        yield f"pretraining {name}: accuracy", result.accuracy


def detection_data(data):
    return DetectionDataConfig(
        root=f"{data}/coco", train_annotations="train.json", train_images="train",
        val_annotations="val.json", val_images="val", shortest_side_px=64, longest_side_px=96,
    )  # fmt: skip


def detector_training(data, out):
    runs = {name: (detector, {}) for name, detector in DETECTORS.items()}
    if find_spec("detectron2"):
        runs |= {name: (detector, {}) for name, detector in DETECTRON2_DETECTORS.items()}
    for name, changes in AUGMENTED.items():
        runs[f"torchvision {name}"] = (DETECTORS["torchvision"], changes)
    for name, (detector, changes) in runs.items():
        config = TrainDetectorConfig(
            backbone="nasnet_a:1@96", detector=detector, data=detection_data(data),
            recipe=DetectorRecipe(**PLAIN | changes), accelerator="cpu",
        )  # fmt: skip
        recorder = Recorder()
        result = run_training(config, out / name.replace(" ", "_"), callbacks=[recorder])
        yield f"detector {name}: losses", recorder.losses
        yield f"detector {name}: AP", result.metrics.ap


def proxy(data, **changes):
    settings = {
        "data_root": f"{data}/images", "num_cells": 1, "first_filters": 4, "epochs": 3,
        "batch_size": 16, "learning_rate": 0.05, "weight_decay": 1e-4, "num_threads": 1,
        "held_out_images": 20, "device": "cpu",
    }  # fmt: skip
    return settings | changes


def silent(_step, _value):
    pass


def rewards(data, out):
    with cross_entropies() as losses:
        reward = ProxyReward(ProxyConfig(**proxy(data, epochs=5, rungs=[2])))
        reports = []
        reward(PUBLISHED["nasnet_a"], seed=0, report=lambda *pair: reports.append(pair))
    yield "proxy: losses", losses[:STEPS]
    yield "proxy: reports", reports
    space = SpaceConfig(operations=["identity", "conv_1x1"], num_blocks=1)
    genotypes = list(build_space(space).enumerate())[:4]
    supernet = SupernetReward(
        SupernetConfig(**proxy(data), weights=str(out / "supernet.safetensors"), space=space)
    )
    with cross_entropies() as losses:
        values = [supernet(genotype, seed=0, report=silent) for genotype in genotypes]
    yield "supernet: losses", losses
    yield "supernet: rewards", values
    for score in ("synflow", "naswot", "grad_norm", "snip", "num_parameters"):
        config = ZeroCostConfig(score=score, batch_size=16)
        zero_cost = ZeroCostReward(ProxyConfig(**proxy(data)), config)
        yield f"zero-cost {score}", zero_cost(PUBLISHED["darts_v2"], seed=0, report=silent)
    config = DetectionRewardConfig(
        num_cells=1, first_filters=4, detector=replace(DETECTORS["torchvision"]),
        data=detection_data(data), recipe=DetectorRecipe(**PLAIN | {"iterations": 10}),
        accelerator="cpu", report_every=5,
    )  # fmt: skip
    reports = []
    value = DetectionReward(config)(
        PUBLISHED["nasnet_a"], seed=0, report=lambda *pair: reports.append(pair)
    )
    yield "detection reward", [value, *reports]


def searches(data, out):
    strategies = {
        "random": RandomConfig(),
        "controller": ControllerConfig(batch_size=3, num_units=8),
        "evolution": EvolutionConfig(population_size=4, sample_size=2),
        "tpe": TpeConfig(num_startup_trials=4),
        "nsga2": NsgaConfig(population_size=4),
    }
    reward = ProxyReward(ProxyConfig(**proxy(data, epochs=1)))
    for name, strategy in strategies.items():
        cost = CostConfig(num_cells=1, first_filters=4, side_px=32, front=name == "nsga2")
        config = SearchConfig(
            strategy=strategy, num_trials=8, space=SPACE, num_reevaluated=2, progress=False,
            cost=cost,
        )  # fmt: skip
        trials = []
        result = run_search(config, out / f"search_{name}", reward=reward, on_trial=trials.append)
        genotype = Genotype.load(result.path)
        yield f"search {name}: genotypes", [t.architecture.digest for t in trials]
        yield f"search {name}: rewards", [t.reward for t in trials]
        yield f"search {name}: costs", [t.cost for t in trials]
        yield f"search {name}: winner", [
            genotype.digest, result.reward, result.reevaluated_reward, result.test_reward
        ]  # fmt: skip


def evaluation(data):
    truth = GroundTruth.load(data / "coco/val.json")
    found = DetectionTable.load(data / "coco/results.json", truth)
    result = analyze_detections(
        truth, found, images=truth.indices_of(None), options=ReportOptions()
    )
    for name, value in result.metrics.to_dict().items():
        yield f"evaluation {name}", value
    for member, values in result.errors.to_dict().items():
        yield f"evaluation errors {member}", values
    yield "evaluation confusion", result.confusion.to_dict()


def main():
    torch.set_num_threads(1)
    data, out = (Path(folder).resolve() for folder in sys.argv[1:3])
    values = {}
    for pairs in (
        published_networks(), evaluation(data), rewards(data, out), searches(data, out),
        pretraining(data, out), detector_training(data, out),
    ):  # fmt: skip
        values |= pairs
    (out / "values.json").write_text(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
