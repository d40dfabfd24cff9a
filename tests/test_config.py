"""Settings: profiles, TOML there and back, and what is refused."""

import tomllib
from dataclasses import fields
from typing import get_args

import pytest
from pydantic import ValidationError

from adcdnet.config import AnswerConfig, Profile, TrainConfig
from adcdnet.errors import InputError
from adcdnet.nn.architecture import PatchArchitecture


def test_reach_by_hand():
    patch = TrainConfig.of_profile("patch")
    assert patch.reach == 10  # 4 pixels of patch, 4 of halo and the two neighbours that are averaged
    assert patch.replace({"answers": {"smooth": 0}}).reach == patch.network.reach == 8
    assert patch.replace({"network": {"patch": 17}, "answers": {"smooth": 0.5}}).reach == 13
    paper = TrainConfig.of_profile("paper").network
    assert (paper.before, paper.after, paper.reach) == (7, 8, 8)  # the target is at index 7 of 16


def test_the_guard_is_all_that_a_network_over_patches_sees_and_a_setting_of_one_over_tiles():
    for changes in ({}, {"answers": {"smooth": 0}}, {"network": {"patch": 17, "grid": "fine"}}):
        patch = TrainConfig.of_profile("patch").replace(changes)
        assert patch.guard == patch.reach
    paper = TrainConfig.of_profile("paper")
    assert paper.guard == paper.reach == 8
    default = TrainConfig()
    assert default.guard == default.network.guard + 2 == 10  # and the two neighbours that are averaged
    assert default.reach == default.network.reach + 2
    wider = default.replace({"network": {"guard": 20}, "answers": {"smooth": 0}})
    assert (wider.guard, wider.reach) == (20, default.network.reach)


def test_each_profile_is_a_network_of_its_form():
    forms = {name: TrainConfig.of_profile(name).network.form for name in get_args(Profile)}
    assert forms == {"default": "tile", "plain": "tile", "patch": "patch", "paper": "patch", "paper-code": "patch"}
    assert isinstance(TrainConfig.of_profile("patch").network, PatchArchitecture)


def test_the_paper_profile_is_as_published():
    paper = TrainConfig.of_profile("paper")
    network = paper.network
    assert (network.widths, network.patch, network.padding) == ((128, 256, 128), 16, "zeros")
    assert (network.backbone, network.squeeze_excite, network.hard_swish) == ("mobilenetv3", True, True)
    assert (network.head, network.token, network.token_dims, network.dropout) == ("flatten", "flatten", (256, 512), 0.5)
    assert network.shared_decision
    assert not network.learn_prior_token
    assert network.prior_mask == "raw"
    assert paper.branch_weight == 0.8
    for stage in (paper.stage1, paper.stage2):
        assert (stage.optimizer, stage.learning_rate, stage.weight_decay) == ("adam", 5e-4, 5e-4)
        assert (stage.schedule, stage.batch) == ("exponential", 32)


def test_the_code_of_the_article_departs_from_it_in_its_backbone_alone():
    paper, code = (TrainConfig.of_profile(name).model_dump() for name in ("paper", "paper-code"))
    assert code == paper | {
        "profile": "paper-code",
        "network": paper["network"] | {"backbone": "conv", "squeeze_excite": False},
    }


def test_the_plain_profile_is_the_default_without_the_parts_of_the_paper():
    default, plain = (TrainConfig.of_profile(name).model_dump() for name in ("default", "plain"))
    off = {"attention": "none", "dtm": False, "prior": False}
    changed = {"profile": "plain", "branch_weight": 0.0, "network": default["network"] | off}
    assert plain == default | changed
    assert all(default["network"][part] != value for part, value in off.items())


@pytest.mark.parametrize("profile", get_args(Profile))
def test_toml_brings_back_the_same_settings(tmp_path, profile):
    settings = TrainConfig.of_profile(profile).replace({"seed": 7, "split": {"block": 31}, "network": {"dtm": False}})
    path = tmp_path / "config.toml"
    path.write_text(settings.to_toml())
    assert TrainConfig.read(path) == settings


def test_what_a_file_does_not_name_comes_from_its_profile(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('profile = "paper"\nseed = 3\n[stage2]\nsteps = 5\n')
    settings = TrainConfig.read(path)
    expected = TrainConfig.of_profile("paper")
    assert settings == expected.replace({"seed": 3, "stage2": {"steps": 5}})
    assert settings.stage2.batch == expected.stage2.batch == 32


def test_another_form_of_network_begins_with_its_own_settings():
    """Nothing of the other form is taken along, not even settings that go by the same name."""
    default = TrainConfig().replace({"network": {"hidden": 5}})
    other = default.replace({"network": {"form": "patch", "patch": 17}})
    assert other.network == PatchArchitecture(patch=17)
    assert other.replace({"network": {"form": "patch", "hidden": 6}}).network == PatchArchitecture(patch=17, hidden=6)
    back = other.replace({"network": {"form": "tile", "stream": 8}}).network
    assert back == TrainConfig().replace({"network": {"stream": 8}}).network


def test_replacing_leaves_the_original_alone():
    settings = TrainConfig()
    changed = settings.replace({"network": {"widths": [8, 8, 16]}})
    assert changed.network.widths == (8, 8, 16)
    assert settings == TrainConfig()
    with pytest.raises(ValidationError):
        settings.seed = 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sead": 1}, "sead"),
        ({"network": {"patch": 16}}, "patch 16"),  # even, without padding
        ({"network": {"patch": 19}}, "patch 19"),  # odd, but its 4×4 windows would not lie on whole cells
        ({"network": {"padding": "zeros", "patch": 17, "head": "flatten"}}, "even"),
        ({"network": {"padding": "zeros", "patch": 16}}, "head"),
        ({"network": {"stem": False}}, "stem"),
        ({"network": {"attention": "cbam"}}, "attention"),
        ({"network": {"squeeze_excite": True}}, "mobilenetv3"),
        ({"network": {"backbone": "resnet"}}, "backbone"),
        ({"network": {"dropout": 1.0}}, "dropout"),
        ({"stage2": {"steps": -1}}, "stage2.steps"),
        ({"stage2": {"learning_rate": 0}}, "learning_rate"),
        ({"split": {"test": 1.0}}, "split.test"),
        ({"split": {"folds": 0}}, "split.folds"),
        ({"split": {"folds": 21}}, "split.folds"),
        ({"members": []}, "members"),
        ({"members": ["adcdnet", "oracle"]}, "members"),
        ({"precision": "float16"}, "precision"),
        ({"network": 3}, "network"),
    ],
)
def test_refusals_name_the_setting_in_one_line(changes, says):
    refused(TrainConfig.of_profile("patch"), changes, says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sead": 1}, "sead"),
        ({"network": {"patch": 9}}, "network.tile.patch"),  # of the other form
        ({"network": {"form": "patch", "stream": 8}}, "network.patch.stream"),
        ({"network": {"form": "round"}}, "network"),
        ({"network": {"widths": []}}, "widths"),
        ({"network": {"attention": "cbam"}}, "attention"),
        ({"network": {"dropout": 1.0}}, "dropout"),
        ({"network": {"guard": -1}}, "guard"),
        ({"anchors": 1.5}, "anchors"),
        ({"jitter": -0.1}, "jitter"),
        ({"network": 3}, "network"),
    ],
)
def test_refusals_of_a_network_over_tiles_too(changes, says):
    refused(TrainConfig(), changes, says)


def refused(settings, changes, says):
    with pytest.raises(InputError) as caught:
        settings.replace(changes)
    message = str(caught.value)
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["seed = ", 'profile = "big"', "profile = 3", "seed = 'x'"])
def test_a_settings_file_that_cannot_be_used_is_named(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        TrainConfig.read(path)
    assert "\n" not in str(caught.value)
    if "seed = '" not in text:
        assert "config.toml" in str(caught.value)


def test_a_missing_and_a_binary_settings_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        TrainConfig.read(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(bytes(range(128, 256)))
    with pytest.raises(InputError, match="cannot be read"):
        TrainConfig.read(tmp_path / "binary.toml")


def test_only_networks_that_see_the_same_everywhere_are_sharable():
    assert PatchArchitecture().sharable
    assert not PatchArchitecture(backbone="mobilenetv3", squeeze_excite=True).sharable
    assert not TrainConfig.of_profile("paper").network.sharable


@pytest.mark.parametrize("profile", get_args(Profile))
def test_toml_holds_every_setting(profile):
    settings = TrainConfig.of_profile(profile)
    written = tomllib.loads(settings.to_toml())
    assert set(written) == set(TrainConfig.model_fields)
    assert set(written["network"]) == {field.name for field in fields(settings.network)}
    assert set(written["answers"]) == set(AnswerConfig.model_fields)


@pytest.mark.parametrize("profile", get_args(Profile))
def test_a_profile_that_is_named_for_its_network_trains_that_network(profile):
    """The default alone leaves out the paper's parts, as `plain` does; others would be something else without them."""
    config = TrainConfig.of_profile(profile)
    named = "adcdnet" if profile in ("patch", "paper", "paper-code") else "plain"
    assert config.members == (named, "boosting", "perceptron")
    assert config.plain == (profile == "plain")
    assert config.over_patches().members == config.members
