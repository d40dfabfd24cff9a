"""A training that begins from another: all weights are taken over, classifiers by the names of their classes."""

import json
from dataclasses import replace

import pytest
import torch

from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.mapping.model import Model
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.architecture import Layout
from adcdnet.nn.networks import network_of
from adcdnet.training.committee.cross_fit import members_of
from adcdnet.training.run import train
from adcdnet.training.transfer import begin_from, notes_of, settings_of
from conftest import QUICK, build_model

pytestmark = pytest.mark.usefixtures("few_trials")
LAYOUT = Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3)


def fresh(layout: Layout, model) -> ADCDNet:
    with torch.random.fork_rng():
        torch.manual_seed(99)
        return ADCDNet(model.network.config, layout)


def test_the_same_classes_take_everything_over():
    model = build_model(LAYOUT)
    network = fresh(LAYOUT, model)
    assert begin_from(network, model, model.classes) == ()
    for name, value in network.state_dict().items():
        assert torch.equal(value, model.network.state_dict()[name]), name


def test_classes_of_one_name_keep_their_rows_wherever_they_stand():
    model = build_model(LAYOUT)
    classes = ClassTable.numbered(["new", "class 2", "class 0", "newer"])
    layout = replace(LAYOUT, classes=4)
    network, untouched = fresh(layout, model), fresh(layout, model).state_dict()
    assert begin_from(network, model, classes) == ("new", "newer")
    old = model.network.state_dict()
    for name, value in network.state_dict().items():
        if "classifier" in name:
            assert torch.equal(value[1], old[name][2])
            assert torch.equal(value[2], old[name][0])
            assert torch.equal(value[[0, 3]], untouched[name][[0, 3]])
        else:
            assert torch.equal(value, old[name]), name


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (replace(LAYOUT, ms_bands=4), "the scene has ms bands 4, the model to begin from 5"),
        (replace(LAYOUT, ratio=3), "the scene has ratio 3, the model to begin from 2"),
    ],
)
def test_another_sensor_is_refused(layout, says):
    model = build_model(LAYOUT)
    with pytest.raises(InputError, match=says):
        begin_from(fresh(layout, model), model, model.classes)


def test_another_network_is_refused():
    model, other = build_model(LAYOUT), build_model(LAYOUT, attention="none")
    with pytest.raises(InputError, match="attention dia against none"):
        begin_from(fresh(LAYOUT, model), other, model.classes)


@pytest.mark.parametrize("profile", ["default", "plain", "patch"])
def test_the_network_of_a_model_to_begin_from_is_a_member_with_all_its_parts(profile):
    layout = Layout(ms_bands=4, pan_bands=1, ratio=4, classes=3)
    network = network_of(TrainConfig.of_profile(profile).network, layout)
    statistics = BandStatistics((0.0,) * 4, (1.0,) * 4, (0.0,), (1.0,))
    classes = ClassTable.numbered(["meadow", "rock", "water"])
    model = Model.of_network(network, statistics, classes, (1 / 3,) * 3, (1 / 3,) * 3)
    config = settings_of(model)
    first = members_of(config)[0]
    own = config if first == "adcdnet" else config.without_parts()
    assert own.network == network.config
    assert begin_from(network_of(own.network, layout), model, classes) == ()


def test_bands_far_from_those_of_the_model_are_named():
    model = build_model(LAYOUT)
    assert notes_of(model, model.statistics, ("a", "b")) == ["began from tiny; new classes: a, b"]
    mean = model.statistics.pan_mean[0] + 3.5 * model.statistics.pan_deviation[0]
    (_, note) = notes_of(model, replace(model.statistics, pan_mean=(mean,)), ())
    assert "lies 3.5 standard deviations" in note


def test_a_run_goes_on_from_another(labelled_pair, quick_run, tmp_path):
    """Without a step of either stage, and with the same split, the weights are those it began from."""
    config = (
        TrainConfig.of_profile("patch")
        .replace(QUICK)
        .replace({"stage1": {"steps": 0}, "stage2": {"steps": 1, "learning_rate": 1e-9}})
    )
    with labelled_pair.open() as scene:
        labels = labelled_pair.read_labels(scene)
        run = train(scene, labels, out=tmp_path / "run", config=config, init=quick_run.folder, device="cpu")
    old = quick_run.model.network.state_dict()
    for name, value in run.model.network.state_dict().items():
        if value.is_floating_point() and "running" not in name and name not in ("prior.mean", "prior.deviation"):
            assert torch.allclose(value, old[name], atol=1e-6), name
    assert run.model.statistics == quick_run.model.statistics
    assert "began from run" in json.loads((run.folder / "metrics.json").read_text())["notes"]
