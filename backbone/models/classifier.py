"""Classification heads for backbones (paper, section 3 and appendix A.7)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from backbone.io.weights import load_tensors, read_weights, select_prefix
from backbone.models.backbone import BACKBONE_KIND, Backbone
from backbone.models.checkpoint import HEAD_PREFIX, load_backbone
from backbone.models.normalization import BatchNorm
from backbone.models.operations import conv_norm

AUXILIARY_POOL_PX, AUXILIARY_POOL_STRIDE = 5, 3
AUXILIARY_WIDTHS = (128, 768)


class Classifier(nn.Module):
    """A backbone with the paper's classification head: ReLU, global mean, dropout, linear.

    Args:
        backbone: any backbone; its last map is classified.
        num_classes: number of classes.
        dropout: fraction of the features dropped in training, 0 to 1 (paper's code: 0.5).
        auxiliary_side_px: side of the square training images for which an auxiliary head is built
            on the second-last map; 0 builds none.

    Shape:
        - images: (B, 3, H, W) in [0, 1]
        - output: (B, num_classes), logits
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int,
        dropout: float = 0.0,
        auxiliary_side_px: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        *_, self.middle, self.last = backbone.out
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.channels[self.last], num_classes)
        self.auxiliary: AuxiliaryHead | None = None
        if auxiliary_side_px:
            side = backbone.map_sides(auxiliary_side_px)[self.middle]
            self.auxiliary = AuxiliaryHead(
                backbone.channels[self.middle], side=side, num_classes=num_classes
            )

    def forward(self, images: Tensor) -> Tensor:
        return self._classify(self.backbone(images)[self.last])

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the auxiliary head's, both (B, num_classes); for training.

        Raises:
            ValueError: if there is no auxiliary head, or it was built for images of another size.
        """
        if self.auxiliary is None:
            raise ValueError("this classifier was built without an auxiliary head")
        maps = self.backbone(images)
        return self._classify(maps[self.last]), self.auxiliary(maps[self.middle])

    def _classify(self, features: Tensor) -> Tensor:
        return self.head(self.dropout(F.relu(features).mean(dim=(2, 3))))


def load_classifier(path: str | Path) -> Classifier:
    """Build the classifier of a ``backbone.safetensors`` that a pretraining wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, of another kind, or has no classification head.
    """
    tensors, metadata = read_weights(path, kind=BACKBONE_KIND)
    head = select_prefix(tensors, HEAD_PREFIX)
    if not head:
        raise ValueError(f"weights file {path} has a backbone without a classification head")
    classifier = Classifier(load_backbone(path), num_classes=len(metadata["classes"]))
    load_tensors(classifier.head, head, source=path)
    return classifier


class AuxiliaryHead(nn.Module):
    """A second classifier at two thirds of the network's depth, for training only (appendix A.7).

    As in the paper's released code: ReLU, average over 5x5 at stride 3, a 1x1 convolution to 128
    channels, one to 768 over the whole map, a linear layer. Maps below 5x5 are averaged
    as a whole.

    Shape:
        - features: (B, channels, side, side)
        - output: (B, num_classes), logits
    """

    def __init__(self, channels: int, *, side: int, num_classes: int) -> None:
        super().__init__()
        self.side = side
        kernel = min(AUXILIARY_POOL_PX, side)
        pooled = (side - kernel) // AUXILIARY_POOL_STRIDE + 1
        narrow, wide = AUXILIARY_WIDTHS
        self.pool = nn.AvgPool2d(kernel, AUXILIARY_POOL_STRIDE)
        self.project = conv_norm(channels, narrow, 1, relu=False, norm=BatchNorm)
        self.collect = nn.Sequential(
            nn.ReLU(), nn.Conv2d(narrow, wide, pooled, bias=False), BatchNorm(wide), nn.ReLU()
        )
        self.head = nn.Linear(wide, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[-2:] != (self.side, self.side):
            raise ValueError(
                f"the auxiliary head was built for maps of {self.side} x {self.side}, "
                f"not {tuple(features.shape[-2:])}"
            )
        collected = self.collect(self.project(self.pool(F.relu(features))))
        return self.head(collected.flatten(1))
