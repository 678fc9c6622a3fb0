"""Each message of Hydra and OmegaConf that is rewritten, as it comes and as users see it."""

import pytest

from _messages import Vocabulary, refuse_renamed_choice, to_sentence

VOCABULARY = Vocabulary(
    tool="train_detector",
    settings=lambda: [
        "backbone",
        "data.root",
        "detector.rpn_pre_nms_top_n_train",
        "recipe.lr_milestones",
    ],
    options=lambda group: {"recipe": ["detector_1x", "smoke"], "data": ["coco"]}[group],
    renamed_settings={
        "rpn_candidates_train": "rpn_pre_nms_top_n_train",
        "decay_at": "lr_milestones",
        "rivals": "baselines",
    },
    renamed_choices={"reward=shared": "reward=supernet", "neck=none": "neck=c4"},
)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            "Could not override 'bakbone'.\nTo append to your config use +bakbone=x\n"
            "Key 'bakbone' is not in struct\n    full_key: bakbone",
            "train_detector has no setting 'bakbone'; did you mean 'backbone'?",
        ),
        (
            "Could not override 'zzz'.\nTo append to your config use +zzz=1",
            "train_detector has no setting 'zzz'; --help lists them",
        ),
        (
            "Could not override 'rpn_candidates_train'.",
            "train_detector's setting 'rpn_candidates_train' is now "
            "'detector.rpn_pre_nms_top_n_train'",
        ),
        (
            "Could not override 'detector.rpn_candidates_train'.",
            "train_detector's setting 'detector.rpn_candidates_train' is now "
            "'detector.rpn_pre_nms_top_n_train'",
        ),
        (
            "Could not override 'model'.\nTo append to your config use +model=x",
            "train_detector has no setting 'model'; did you mean 'backbone'?",
        ),
        (
            "Could not override 'epochs'.",  # of a tool without the settings of a recipe
            "train_detector has no setting 'epochs'; --help lists them",
        ),
        (
            "Could not find 'data/../mine/data.yaml'\n\nAvailable options in 'data'",
            "there is no data=../mine/data.yaml; choose from ['coco']; a folder goes into "
            "data.root=...",
        ),
        (
            # The tool never had it, under either name.
            "Could not override 'rivals'.",
            "train_detector has no setting 'rivals'; --help lists them",
        ),
        (
            "Could not find 'recipe/fast'\n\nAvailable options in 'recipe':\n\tdetector_1x",
            "there is no recipe=fast; choose from ['detector_1x', 'smoke']",
        ),
        (
            "In 'experiment/quickstart': ConfigKeyError raised while composing config:\n"
            "Key 'demonstration' not in 'TrainDetector'\n    full_key: demonstration",
            "experiment=quickstart is not for train_detector, which has no setting 'demonstration'",
        ),
        (
            "In 'recipe/mine': ConfigKeyError raised while composing config:\n"
            "Key 'decay_at' not in 'DetectorRecipe'\n    full_key: recipe.decay_at",
            "recipe=mine sets 'decay_at', which is now 'lr_milestones'",
        ),
        (
            "Error merging override detector.anchor_sizes=3\nInvalid value assigned: int is not a "
            "ListConfig, list or tuple.\n    full_key: detector.anchor_sizes",
            "detector.anchor_sizes takes a list: detector.anchor_sizes=[3]",
        ),
        (
            "Error merging override recipe.batch_size=many\nValue 'many' of type 'str' could not "
            "be converted to Integer\n    full_key: recipe.batch_size",
            "recipe.batch_size=many: Value 'many' of type 'str' could not be converted to Integer",
        ),
        (
            "Error merging override recipe={decay_at: [1]}\nKey 'decay_at' not in 'DetectorRecipe'",
            "recipe={decay_at: [1]}: Key 'decay_at' not in 'DetectorRecipe'; it is now "
            "'lr_milestones'",
        ),
        (
            "no viable alternative at input '[1'\nSee https://hydra.cc/docs/1.2/advanced",
            "no viable alternative at input '[1'",
        ),
    ],
)
def test_a_message_becomes_one_sentence(message, sentence):
    assert to_sentence(message, VOCABULARY) == sentence


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("reward=shared", "train_detector's choice reward=shared is now reward=supernet"),
        (
            "reward@search.reward=shared",
            "train_detector's choice reward@search.reward=shared is now "
            "reward@search.reward=supernet",
        ),
        (
            "detector.neck=none",
            "train_detector's choice detector.neck=none is now detector.neck=c4",
        ),
    ],
)
def test_a_choice_under_its_former_name_is_refused_with_the_current_one(override, sentence):
    with pytest.raises(ValueError, match="is now") as caught:
        refuse_renamed_choice(override, VOCABULARY)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("override", ["reward=proxy_quick", "neck=fpn", "seed=1", "~experiment"])
def test_current_choices_pass(override):
    refuse_renamed_choice(override, VOCABULARY)
