import pytest
import torch
from torch import nn

from backbone.models.backbone import build_backbone
from backbone.models.classifier import AuxiliaryHead, Classifier


def test_the_auxiliary_head_classifies_and_trains_what_lies_below_it():
    torch.manual_seed(0)
    backbone = build_backbone("nasnet_a:1@96")
    classifier = Classifier(backbone, num_classes=5, dropout=0.5, auxiliary_side_px=64)
    images = torch.rand(3, 3, 64, 64)
    logits, auxiliary = classifier.forward_with_auxiliary(images)
    assert logits.shape == auxiliary.shape == (3, 5)
    auxiliary.square().sum().backward()
    below = {name.split(".")[3] for name, p in backbone.named_parameters() if p.grad is not None}
    cells = {name for name in below if name.isdigit()}
    # Two stem cells, a stack, a reduction cell, a stack: nothing above the middle map.
    assert cells <= {"0", "1", "2", "3", "4"}
    assert all(p.grad is not None for p in classifier.auxiliary.parameters())
    assert classifier.head.weight.grad is None


def test_maps_below_the_pooling_window_are_averaged_whole():
    head = AuxiliaryHead(6, side=2, num_classes=3)
    assert head(torch.randn(2, 6, 2, 2)).shape == (2, 3)
    assert head.collect[1].kernel_size == (1, 1)


def test_an_auxiliary_head_refuses_images_of_another_size_and_none_says_so():
    backbone = build_backbone("nasnet_a:1@96")
    classifier = Classifier(backbone, num_classes=5, auxiliary_side_px=64)
    with pytest.raises(ValueError, match="built for maps of 4 x 4"):
        classifier.forward_with_auxiliary(torch.rand(2, 3, 96, 96))
    with pytest.raises(ValueError, match="without an auxiliary head"):
        Classifier(backbone, num_classes=5).forward_with_auxiliary(torch.rand(2, 3, 64, 64))


def test_dropout_is_for_training_only():
    torch.manual_seed(0)
    backbone = build_backbone("nasnet_a:1@96").eval()
    classifier = Classifier(backbone, num_classes=4, dropout=0.5)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        plain = Classifier(backbone, num_classes=4)
        plain.head = classifier.head
        expected = plain.eval()(images)
        torch.testing.assert_close(classifier.eval()(images), expected)
        classifier.dropout.train()
        assert not torch.allclose(classifier(images), expected)
    assert isinstance(classifier.dropout, nn.Dropout)
