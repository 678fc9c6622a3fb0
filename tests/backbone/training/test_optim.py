import copy

import pytest
import timm.optim.muon as timm_muon
import torch

from backbone.config import OPTIMIZERS
from backbone.training.optim import (
    PortableMuon,
    build_optimizer,
    cosine_schedule,
    exponential_schedule,
)


def test_rmsprop_is_tensorflow_s():
    """v = 0.9 v + 0.1 g^2 from 1; m = 0.9 m + rate g / sqrt(v + epsilon); w -= m."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 1, bias=False)
    optimizer = build_optimizer([(layer, 0.1)], name="rmsprop", weight_decay=0.0)
    weight, square, moment = layer.weight.detach().double(), 1.0, 0.0
    for _ in range(4):
        inputs = torch.randn(5, 3)
        optimizer.zero_grad()
        layer(inputs).square().sum().backward()
        gradient = layer.weight.grad.double()
        square = 0.9 * square + 0.1 * gradient**2
        moment = 0.9 * moment + 0.1 * gradient / (square + 1.0).sqrt()
        weight = weight - moment
        optimizer.step()
    torch.testing.assert_close(layer.weight.detach().double(), weight, rtol=1e-5, atol=1e-6)


def test_the_exponential_schedule_falls_in_steps():
    parameter = torch.nn.Linear(1, 1)
    optimizer = build_optimizer([(parameter, 2.0)], name="sgd", weight_decay=0.0)
    schedule = exponential_schedule(optimizer, warmup_steps=1, gamma=0.5, step_size=2.4)
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [1.0, 2.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.5]


def test_an_unknown_optimizer_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"unknown optimizer 'adam'; choose from .*adamw.*sgd"):
        build_optimizer([(torch.nn.Linear(1, 1), 0.1)], name="adam", weight_decay=0.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_biases_and_normalization_do_not_decay(name):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    optimizer = build_optimizer([(module, 0.1)], name=name, weight_decay=0.5)
    decay = {p.ndim: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay == {4: 0.5, 1: 0.0}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_resumed_from_its_state_takes_the_same_steps(name):
    def steps(module, optimizer, numbers):
        for number in numbers:
            torch.manual_seed(number)
            optimizer.zero_grad()
            module(torch.rand(2, 3, 4, 4)).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    one = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    other = copy.deepcopy(one)
    first = build_optimizer([(one, 0.1)], name=name, weight_decay=0.1)
    steps(one, first, range(2))
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    second = build_optimizer([(other, 0.1)], name=name, weight_decay=0.1)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(one, first, range(2, 5))
    steps(other, second, range(2, 5))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_muon_updates_all_directions_of_a_filter_bank_equally():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(4, 16, 3, bias=False)
    before = layer.weight.detach().clone()
    # a gradient whose directions differ in strength by a factor of more than 30
    scales = torch.logspace(0, 1.5, 16).reshape(16, 1, 1, 1)
    optimizer = build_optimizer([(layer, 0.1)], name="muon", weight_decay=0.0)
    (layer.weight * torch.randn_like(layer.weight) * scales).sum().backward()
    optimizer.step()
    strengths = torch.linalg.svdvals((layer.weight.detach() - before).flatten(1))
    assert strengths.max() < 3 * strengths.min()


def test_the_cosine_schedule_rises_to_the_peak_and_falls_to_zero():
    parameter = torch.nn.Linear(1, 1)
    optimizer = build_optimizer([(parameter, 1.0)], name="sgd", weight_decay=0.0)
    schedule = cosine_schedule(optimizer, warmup_steps=3, total_steps=10)
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[10] == pytest.approx(0)


@pytest.mark.parametrize("is_emulated", [False, True])
def test_muon_orthogonalizes_in_float32_where_bfloat16_is_emulated(monkeypatch, is_emulated):
    monkeypatch.setattr(PortableMuon, "_is_emulated", lambda self: is_emulated)
    dtypes = []
    original = timm_muon.zeropower_via_newtonschulz

    def recording(*arguments, dtype, **options):
        dtypes.append(dtype)
        return original(*arguments, dtype=dtype, **options)

    monkeypatch.setattr(timm_muon, "zeropower_via_newtonschulz", recording)
    layer = torch.nn.Conv2d(8, 16, 3)
    optimizer = build_optimizer([(layer, 0.1)], name="muon", weight_decay=0.0)
    layer.weight.grad = torch.randn_like(layer.weight)
    before = layer.weight.detach().clone()
    optimizer.step()
    assert dtypes == [torch.float32 if is_emulated else torch.bfloat16]
    assert timm_muon.zeropower_via_newtonschulz is recording
    singular = torch.linalg.svdvals((layer.weight - before).detach().flatten(1))
    assert singular.max() / singular.min() < 2  # all directions are updated alike


def test_bfloat16_is_emulated_only_on_a_cpu_without_it():
    layer = torch.nn.Linear(8, 8)
    optimizer = build_optimizer([(layer, 0.1)], name="muon", weight_decay=0.0)
    supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert optimizer._is_emulated() == (not supported)
    layer.to("meta")
    on_meta = build_optimizer([(layer, 0.1)], name="muon", weight_decay=0.0)
    assert not on_meta._is_emulated()
