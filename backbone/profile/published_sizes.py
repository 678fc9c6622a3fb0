"""Sizes that papers and released code give for their networks, to hold ours against.

Parameters are those that learn; multiply-adds are those of convolutions and linear layers for one
image. Exact figures were counted from the released code's construction and confirmed where other
implementations or papers print them; printed ones stand in the papers' tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from backbone.models.backbone import build_backbone
from backbone.models.classifier import Classifier
from backbone.profile.complexity import count_mult_adds


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceSize:
    """One published network and what is known of its size."""

    name: str
    """As its paper writes it."""
    spec: str
    side_px: int
    num_classes: int = 1000
    stem: str = "imagenet"
    printed_parameters: str = ""
    printed_mult_adds: str = ""
    parameters: int | None = None
    with_statistics: int | None = None
    """Parameters and the running means and variances of batch normalization."""
    mult_adds: int | None = None
    auxiliary_parameters: int | None = None
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Size:
    """Measured size of one of our networks, with its classifier."""

    parameters: int
    with_statistics: int
    mult_adds: int
    auxiliary_parameters: int


def measure_size(reference: ReferenceSize) -> Size:
    """Build the reference's network without weights and count."""
    with torch.device("meta"):
        backbone = build_backbone(reference.spec, stem=reference.stem)
        classifier = Classifier(
            backbone,
            num_classes=reference.num_classes,
            auxiliary_side_px=reference.side_px,
        ).eval()
        images = torch.empty(1, 3, reference.side_px, reference.side_px)
    assert classifier.auxiliary is not None
    auxiliary = _count(classifier.auxiliary)
    parameters = _count(classifier) - auxiliary
    statistics = sum(b.numel() for name, b in backbone.body.named_buffers() if "running_" in name)
    mult_adds = count_mult_adds(classifier, images)
    return Size(parameters, parameters + statistics, mult_adds, auxiliary)


def tabulate_sizes() -> str:
    """Return the table "ours / published" of all references as Markdown."""
    lines = [
        "| network | spec | px | parameters: ours | printed | mult-adds: ours | printed | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    notes: list[str] = []
    for reference in REFERENCES:
        size = measure_size(reference)
        mark = ""
        if reference.note:
            if reference.note not in notes:
                notes.append(reference.note)
            mark = f" [{notes.index(reference.note) + 1}]"
        cells = (
            reference.name + mark,
            f"`{reference.spec}`",
            str(reference.side_px),
            f"{size.parameters:,}",
            reference.printed_parameters or "-",
            f"{size.mult_adds:,}",
            reference.printed_mult_adds or "-",
            reference.source,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"[{n}] {note}.  " for n, note in enumerate(notes, start=1))])


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


_NASNET = "Zoph et al. 2018"
_PNAS = "Liu et al. 2018"
_AMOEBA = "Real et al. 2019"
_ODD = (
    "our construction follows slim's rule for odd widths; a count that leaves one filter out gives "
    "34 fewer"
)

REFERENCES = (
    ReferenceSize(
        name="NASNet-A 4 @ 1056",
        spec="nasnet_a:4@1056",
        side_px=224,
        printed_parameters="5.3 M",
        printed_mult_adds="564 M",
        parameters=5_289_978,
        with_statistics=5_326_716,
        mult_adds=563_638_816,
        auxiliary_parameters=2_411_240,
        source=f"{_NASNET}, table 3",
    ),
    ReferenceSize(
        name="NASNet-A 6 @ 4032",
        spec="nasnet_a:6@4032",
        side_px=331,
        printed_parameters="88.9 M",
        printed_mult_adds="23.8 B",
        parameters=88_753_150,
        with_statistics=88_949_818,
        mult_adds=23_783_414_658,
        auxiliary_parameters=4_567_784,
        source=f"{_NASNET}, table 2",
    ),
    ReferenceSize(
        name="NASNet-A 6 @ 4032, 1001 classes",
        spec="nasnet_a:6@4032",
        side_px=331,
        num_classes=1001,
        parameters=88_757_183,
        with_statistics=88_953_851,
        mult_adds=23_783_418_690,
        auxiliary_parameters=4_568_553,
        source="released weights",
    ),
    ReferenceSize(
        name="NASNet-A 6 @ 768, CIFAR",
        spec="nasnet_a:6@768",
        side_px=32,
        num_classes=10,
        stem="cifar",
        printed_parameters="3.3 M",
        parameters=3_346_538,
        with_statistics=3_383_786,
        mult_adds=544_333_312,
        auxiliary_parameters=1_631_498,
        source=f"{_NASNET}, table 1",
    ),
    ReferenceSize(
        name="NASNet-A 5 @ 1538",
        spec="nasnet_a:5@1536",
        side_px=299,
        printed_parameters="10.9 M",
        printed_mult_adds="2.35 B",
        source=f"{_NASNET}, table 2",
        note="1538 is no multiple of 24; the released construction does not give this size",
    ),
    ReferenceSize(
        name="NASNet-A 7 @ 1920",
        spec="nasnet_a:7@1920",
        side_px=299,
        printed_parameters="22.6 M",
        printed_mult_adds="4.93 B",
        source=f"{_NASNET}, table 2",
        note="the released construction does not give this size",
    ),
    ReferenceSize(
        name="NASNet-A 7 @ 2304, CIFAR",
        spec="nasnet_a:7@2304",
        side_px=32,
        num_classes=10,
        stem="cifar",
        printed_parameters="27.6 M",
        source=f"{_NASNET}, table 1",
        note="the released construction does not give this size; N = 6 gives 28.2 M",
    ),
    ReferenceSize(
        name="PNASNet-5 (4, 216)",
        spec="pnasnet_5:4@4320",
        side_px=331,
        printed_parameters="86.1 M",
        printed_mult_adds="25.0 B",
        parameters=86_057_668,
        with_statistics=86_234_656,
        mult_adds=24_937_395_792,
        auxiliary_parameters=4_586_216,
        source=_PNAS,
    ),
    ReferenceSize(
        name="PNASNet-5 (3, 54)",
        spec="pnasnet_5:3@1080",
        side_px=224,
        printed_parameters="5.1 M",
        printed_mult_adds="588 M",
        parameters=5_064_487,
        with_statistics=5_098_151,
        mult_adds=587_293_200,
        auxiliary_parameters=2_412_776,
        source=_PNAS,
        note=_ODD,
    ),
    ReferenceSize(
        name="PNASNet-5 (3, 48), CIFAR",
        spec="pnasnet_5:3@960",
        side_px=32,
        num_classes=10,
        stem="cifar",
        printed_parameters="3.2 M",
        parameters=3_189_082,
        with_statistics=3_218_170,
        mult_adds=574_891_392,
        auxiliary_parameters=1_643_786,
        source=_PNAS,
    ),
    ReferenceSize(
        name="AmoebaNet-A (6, 190)",
        spec="amoebanet_a:6@3040",
        side_px=331,
        printed_parameters="86.7 M",
        printed_mult_adds="23.1 B",
        parameters=86_718_797,
        with_statistics=86_908_673,
        mult_adds=23_133_663_507,
        auxiliary_parameters=4_504_296,
        source=f"{_AMOEBA}, table 2",
        note=_ODD,
    ),
    ReferenceSize(
        name="AmoebaNet-A (6, 448)",
        spec="amoebanet_a:6@7168",
        side_px=299,
        printed_parameters="469 M",
        printed_mult_adds="104 B",
        parameters=468_151_184,
        with_statistics=468_598_856,
        mult_adds=103_887_693_968,
        source=f"{_AMOEBA}, table 2",
        note="the paper says 331 px, where this network has 126.5 B",
    ),
    ReferenceSize(
        name="AmoebaNet-A (4, 50)",
        spec="amoebanet_a:4@800",
        side_px=224,
        parameters=5_086_930,
        with_statistics=5_122_936,
        mult_adds=554_687_204,
        source="counted",
        note=_ODD,
    ),
    ReferenceSize(
        name="AmoebaNet-A (6, 32), CIFAR",
        spec="amoebanet_a:6@512",
        side_px=32,
        num_classes=10,
        stem="cifar",
        printed_parameters="2.6 M",
        parameters=2_567_754,
        source=f"{_AMOEBA}, table 1",
    ),
    ReferenceSize(
        name="AmoebaNet-A (6, 36), CIFAR",
        spec="amoebanet_a:6@576",
        side_px=32,
        num_classes=10,
        stem="cifar",
        printed_parameters="3.2 M",
        parameters=3_218_266,
        source=f"{_AMOEBA}, table 1",
    ),
    ReferenceSize(
        name="AmoebaNet-C (4, 50)",
        spec="amoebanet_c:4@1000",
        side_px=224,
        printed_parameters="6.4 M",
        printed_mult_adds="570 M",
        source=_AMOEBA,
        note="the printed multiply-adds do not belong to this construction",
    ),
)
"""In the order of the table in docs/backbones.md."""
