import copy
from dataclasses import replace

import pytest
import torch
from PIL import Image

from backbone.cells.published import NASNET_A
from backbone.io.runtime import choose_device, limited_threads
from search.randomness import stream
from search.rewards.base import Pruned, Reward
from search.rewards.config import ProxyConfig
from search.rewards.fit import ProxyNetwork, train_proxy
from search.rewards.image_tensors import ImageTensors, split_indices
from search.rewards.proxy import ProxyReward
from search.rewards.training_step import TrainingStep
from search.space import SearchSpace

SPACE = SearchSpace(operations=("identity", "conv_3x3", "max_pool_3x3"), num_blocks=1)
CELLS = SPACE.to_genotype([0, 1, 1, 1, 0] * 2)
CONFIG = ProxyConfig(
    data_root="", num_cells=1, first_filters=4, epochs=3, batch_size=16, learning_rate=0.05,
    weight_decay=1e-4, crop_padding_px=1, num_threads=1,
)  # fmt: skip


def striped(num_images, name, side=16):
    """Class 0 has horizontal stripes, class 1 vertical ones, on noise."""
    generator = stream(name)
    labels = torch.randint(2, (num_images,), generator=generator)
    phase = torch.randint(4, (num_images, 1, 1), generator=generator)
    rows = ((torch.arange(side)[None, :, None] + phase) % 4 < 2).expand(-1, -1, side)
    stripes = torch.where(labels[:, None, None] == 0, rows, rows.transpose(1, 2))
    noise = torch.randint(60, (num_images, 3, side, side), generator=generator)
    return ImageTensors((stripes[:, None] * 120 + noise).to(torch.uint8), labels, 2)


TRAIN, VAL = striped(160, "train"), striped(100, "val")


def no_report(_step, _value):
    pass


@pytest.mark.parametrize("stem_stride", [1, 2])
def test_a_task_that_can_be_learnt_is_learnt(stem_stride):
    config = replace(CONFIG, stem_stride=stem_stride)
    assert train_proxy(CELLS, TRAIN, VAL, config=config, seed=0) > 0.85


def test_grayscale_rewards_have_no_colors(tmp_path):
    for split in ("train", "val"):
        folder = tmp_path / split / "red"
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8), (255, 0, 0)).save(folder / "0.png")
    reward = ProxyReward(replace(CONFIG, data_root=str(tmp_path), grayscale=True))
    images, _ = reward.tensors
    assert set(images.images.unique().tolist()) == {76}  # 0.299 * 255
    assert reward.arguments["proxy"]["grayscale"]


def test_the_reward_is_a_function_of_genotype_and_seed():
    config = replace(CONFIG, epochs=1)
    torch.manual_seed(1)
    one = train_proxy(CELLS, TRAIN, VAL, config=config, seed=0)
    torch.manual_seed(2)
    assert train_proxy(CELLS, TRAIN, VAL, config=config, seed=0) == one


def test_looks_at_rungs_do_not_disturb_the_training():
    reported = []
    config = replace(CONFIG, rungs=[1, 2])
    report = lambda epoch, accuracy: reported.append((epoch, accuracy))  # noqa: E731
    looked_at = train_proxy(CELLS, TRAIN, VAL, config=config, seed=0, report=report)
    assert looked_at == train_proxy(CELLS, TRAIN, VAL, config=CONFIG, seed=0)
    assert [epoch for epoch, _ in reported] == [1, 2, 3]
    assert reported[-1][1] == looked_at


def test_a_training_stops_where_a_report_says_so():
    epochs = []

    def stop(epoch, _accuracy):
        epochs.append(epoch)
        raise Pruned

    with pytest.raises(Pruned):
        train_proxy(CELLS, TRAIN, VAL, config=replace(CONFIG, rungs=[2]), seed=0, report=stop)
    assert epochs == [2]


@pytest.mark.parametrize("rungs", [[0], [3], [2, 1], [1, 1]])
def test_rungs_that_are_no_epochs_before_the_last_are_refused(rungs):
    with pytest.raises(ValueError, match=r"increasing epochs from 1 to 2, not \["):
        replace(CONFIG, rungs=rungs)


def test_automatic_precision_is_said_as_what_it_is(tmp_path):
    write_folder(tmp_path, "train", 4)
    config = replace(CONFIG, data_root=str(tmp_path), held_out_images=2, device="cpu")
    assert ProxyReward(config).arguments["proxy"]["precision"] == "float32"


def test_training_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    train_proxy(CELLS, TRAIN, VAL, config=replace(CONFIG, epochs=1), seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_training_that_diverges_says_so():
    config = replace(CONFIG, learning_rate=1e38, gradient_clip=0)
    with pytest.raises(FloatingPointError, match="the loss became"):
        train_proxy(CELLS, TRAIN, VAL, config=config, seed=0)


@pytest.mark.parametrize("genotype", [NASNET_A, SearchSpace().to_genotype([1] * 50)])
def test_the_network_has_the_first_width_that_was_asked_for(genotype):
    network = ProxyNetwork(genotype, replace(CONFIG, first_filters=8), TRAIN)
    assert network.trunk.stem[0].out_channels == 24
    with limited_threads(1):
        assert network(TRAIN.images[:2]).shape == (2, 2)


def write_folder(root, split, num_per_class, side=16):
    data = striped(2 * num_per_class, split, side)
    for label in (0, 1):
        (root / split / f"class{label}").mkdir(parents=True)
    for index, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
        pixels = image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(root / split / f"class{int(label)}" / f"{index}.png")


def test_proxy_accuracy_reads_an_image_folder_and_reports(tmp_path):
    write_folder(tmp_path, "train", 30)
    write_folder(tmp_path, "val", 20)
    config = replace(CONFIG, data_root=str(tmp_path), epochs=1, max_train_images=32)
    reward: Reward = ProxyReward(config)
    reported = []
    value = reward(CELLS, seed=0, report=lambda step, score: reported.append((step, score)))
    assert 0 <= value <= 1
    assert reported == [(1, value)]
    assert set(reward.data) == {"train", "val"}
    assert str(tmp_path) not in str(reward.arguments)  # moved data are the same data
    assert reward.arguments["proxy"]["first_filters"] == 4


def test_held_out_images_come_from_the_training_split_and_are_not_trained_on(tmp_path):
    write_folder(tmp_path, "train", 30)
    config = replace(CONFIG, data_root=str(tmp_path), held_out_images=20)
    train, val = ProxyReward(config).tensors
    assert (len(train), len(val)) == (40, 20)
    both = {image.numpy().tobytes() for image in torch.cat([train.images, val.images])}
    assert len(both) == 60


def test_splits_are_the_same_every_time():
    assert split_indices(50, 10) == split_indices(50, 10)
    first, others = split_indices(50, 10)
    assert sorted(first + others) == list(range(50))


def test_what_cannot_be_trained_on_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ProxyReward(replace(CONFIG, data_root=str(tmp_path / "none")))
    write_folder(tmp_path, "train", 4)
    with pytest.raises(FileNotFoundError, match=r"no folder val .* it contains \['train'\]"):
        ProxyReward(replace(CONFIG, data_root=str(tmp_path)))
    with pytest.raises(ValueError, match="held_out_images is 8"):
        ProxyReward(replace(CONFIG, data_root=str(tmp_path), held_out_images=8))
    Image.new("RGB", (7, 9)).save(tmp_path / "train/class0/odd.png")
    reward = ProxyReward(replace(CONFIG, data_root=str(tmp_path), held_out_images=2))
    with pytest.raises(ValueError, match="images of one size"):
        reward(CELLS, seed=0, report=no_report)


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="at least 4, not 3"):
        replace(CONFIG, first_filters=3)
    with pytest.raises(ValueError, match="float16"):
        replace(CONFIG, precision="float16")
    with pytest.raises(ValueError, match="stem_stride"):
        replace(CONFIG, stem_stride=3)
    with pytest.raises(ValueError, match="unknown device 'gpu0'"):
        choose_device("gpu0")


def test_mixed_precision_learns_as_well():
    config = replace(CONFIG, precision="bfloat16")
    assert train_proxy(CELLS, TRAIN, VAL, config=config, seed=0) > 0.85


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_learns_as_well(precision):
    train, val = (
        ImageTensors(s.images.cuda(), s.labels.cuda(), 2) for s in (TRAIN, VAL)
    )  # fmt: skip
    config = replace(CONFIG, precision=precision)
    assert train_proxy(CELLS, train, val, config=config, seed=0) > 0.85


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_step_has_the_gradients_of_an_uncaptured_one():
    train = ImageTensors(TRAIN.images.cuda(), TRAIN.labels.cuda(), 2)
    network = ProxyNetwork(CELLS, CONFIG, train).cuda().to(memory_format=torch.channels_last)
    twin = copy.deepcopy(network)
    captured = TrainingStep(network, use_graph=True, num_steps=1000)
    plain = TrainingStep(twin, use_graph=False, num_steps=1000)
    for part in (slice(0, 16), slice(16, 32), slice(32, 40), slice(40, 56)):
        batch = train.images[part], train.labels[part]
        assert float(captured(*batch)) == pytest.approx(float(plain(*batch)), rel=1e-4)
        for one, other in zip(network.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5)
