from itertools import pairwise

import pytest
import torch
from matplotlib.image import imread

from backbone.cells.drawing import _lay_out, draw_genotype
from backbone.cells.published import NASNET_A, PNASNET_5


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_is_written_in_the_format_of_its_suffix(tmp_path, suffix):
    path = tmp_path / f"cells{suffix}"
    draw_genotype(NASNET_A, path, title="NASNet-A")
    start = path.read_bytes()[:60]
    assert start.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert list(tmp_path.iterdir()) == [path]


def test_a_single_cell_is_drawn_alone(tmp_path):
    draw_genotype(PNASNET_5, tmp_path / "one.png")
    draw_genotype(NASNET_A, tmp_path / "two.png")
    one, two = (imread(tmp_path / f"{name}.png") for name in ("one", "two"))
    assert one.shape[1] < 0.7 * two.shape[1]


def test_a_picture_is_large_enough_for_its_text_and_not_blank(tmp_path):
    draw_genotype(NASNET_A, tmp_path / "cells.png")
    pixels = torch.from_numpy(imread(tmp_path / "cells.png"))
    assert pixels.shape[0] > 600
    assert pixels.shape[1] > 1500
    assert 0.01 < float((pixels[..., :3].mean(dim=-1) < 0.9).float().mean()) < 0.5


@pytest.mark.parametrize("cell", [NASNET_A.normal, NASNET_A.reduction])
def test_columns_of_a_layer_do_not_overlap(cell):
    layout = _lay_out(cell)
    for layer in layout.layers:
        for left, right in pairwise(layer):
            assert left.x + left.width / 2 < right.x - right.width / 2
        assert layer[0].x - layer[0].width / 2 > 0
        assert layer[-1].x + layer[-1].width / 2 < layout.width


def test_a_state_that_is_read_above_the_next_layer_has_a_column_in_it():
    layout = _lay_out(NASNET_A.reduction)  # its last block reads the newer input and block 0
    lanes = [item.state for item in layout.layers[1] if item.is_edge]
    assert lanes == [1]


def test_an_unknown_format_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="choose a suffix"):
        draw_genotype(NASNET_A, tmp_path / "cells.docx")
    assert not list(tmp_path.iterdir())
