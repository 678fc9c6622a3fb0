import pytest
import torch
from torch import nn

from backbone.classifier import AuxiliaryHead, Classifier
from backbone.specs import build_backbone, describe_spec, rebuild_backbone


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("spec", "stem", "side", "num_classes", "parameters"),
    [
        ("nasnet_a:4@1056", "imagenet", 224, 1000, 2_411_240),
        ("nasnet_a:6@4032", "imagenet", 331, 1000, 4_567_784),
        ("nasnet_a:6@4032", "imagenet", 331, 1001, 4_568_553),
        ("nasnet_a:6@768", "cifar", 32, 10, 1_631_498),
        ("pnasnet_5:4@4320", "imagenet", 331, 1000, 4_586_216),
        ("pnasnet_5:3@1080", "imagenet", 224, 1000, 2_412_776),
        ("pnasnet_5:3@960", "cifar", 32, 10, 1_643_786),
        ("amoebanet_a:6@3040", "imagenet", 331, 1000, 4_504_296),
    ],
)
def test_auxiliary_heads_have_the_published_number_of_parameters(
    spec, stem, side, num_classes, parameters
):
    with torch.device("meta"):
        backbone = rebuild_backbone(describe_spec(spec, stem=stem))
        classifier = Classifier(backbone, num_classes=num_classes, auxiliary_side_px=side)
    assert count(classifier.auxiliary) == parameters


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
