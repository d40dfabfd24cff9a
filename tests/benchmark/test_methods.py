"""The methods we compare with: what they may look at, that they learn, and that they are what they are said to be."""

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest

from adcdnet.benchmark.methods import METHODS, BandRoles, Classifier, Fit
from adcdnet.benchmark.methods.cnn import TWO_BRANCH_CNN
from adcdnet.benchmark.methods.dbaf import DBAF
from adcdnet.benchmark.methods.features import features
from adcdnet.benchmark.methods.loop import Recipe
from adcdnet.benchmark.methods.mft import MFT_METHOD
from adcdnet.benchmark.methods.resnet import DUAL_RESNET
from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import Labels
from adcdnet.geo.scene import Pixels
from adcdnet.split.parts import GUARD, TEST, TRAIN, UNUSED, VALIDATION, Split
from adcdnet.training.area import TrainingArea


def all_valid(ms, pan) -> Pixels:
    ms, pan = np.asarray(ms, np.float32), np.asarray(pan, np.float32)
    return Pixels(ms, pan, np.ones(ms.shape[1:], bool), np.ones(pan.shape[1:], bool))


# ---- features


def test_bands_are_found_by_their_names():
    assert BandRoles.of_descriptions(("B1 blue", "B2 green", "B3 red", "B4 nir")) == BandRoles(1, 2, 3)
    names = ("Green", "Red-Edge", "red edge 2", "RED", "SWIR1", "near-infrared", "nir")
    assert BandRoles.of_descriptions(names) == BandRoles(green=0, red=3, nir=5)
    assert BandRoles.of_descriptions((None, "", "infrared", "coloured")) == BandRoles(None, None, None)


def test_features_by_hand():
    ms = np.full((3, 5, 7), 2.0)
    ms[1] = 6  # near infrared; green and red are 2
    ms[0, 2, 3] = 11  # one bright pixel of the first band
    pan = np.ones((1, 10, 14))
    pan[0, 4:6, 6:8] = [[1, 3], [5, 7]]
    found = features(all_valid(ms, pan), BandRoles(green=2, red=2, nir=1))
    assert found.shape == (5, 7, 3 + 2 + 3 * 4 + 9)
    at = found[2, 3]
    assert at[:5] == pytest.approx([11, 6, 2, 0.5, 0.5])
    assert at[5] == pytest.approx(3)  # (8 · 2 + 11) / 9
    assert at[6] == pytest.approx(np.sqrt((8 * 4 + 121) / 9 - 9))
    assert at[17:21] == pytest.approx([4, np.sqrt(5), 1, 7])  # mean, deviation, minimum, maximum of 1 3 5 7
    window = np.ones(64)
    window[:4] = [1, 3, 5, 7]  # 4 MS pixels a side at ratio 2 are 8 × 8 PAN pixels
    assert at[21:23] == pytest.approx([window.mean(), window.std()])
    assert found[1, 3, 25] > 0  # the gradient is felt beside the bright cells
    assert found[0, 0, 25] == 0


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
def test_features_turn_with_the_scene(ratio):
    rng = np.random.default_rng(ratio)
    ms, pan = rng.random((2, 9, 13)), rng.random((1, 9 * ratio, 13 * ratio))
    upright = features(all_valid(ms, pan), BandRoles())
    turned = features(all_valid(ms[:, ::-1, ::-1], pan[:, ::-1, ::-1]), BandRoles())
    if ratio == 1:  # an even window of PAN pixels cannot lie evenly about one of them
        upright, turned = (np.delete(x, slice(14, 18), -1) for x in (upright, turned))
    assert np.allclose(turned[::-1, ::-1], upright, atol=1e-5)


def test_features_look_4_pixels_far():
    rng = np.random.default_rng(0)
    ms, pan = rng.random((2, 21, 23)), rng.random((1, 42, 46))
    before = features(all_valid(ms, pan), BandRoles(0, 0, 1))
    ms[:, 10, 11], pan[:, 20:22, 22:24] = 9, 9
    changed = np.argwhere((features(all_valid(ms, pan), BandRoles(0, 0, 1)) != before).any(-1)) - (10, 11)
    assert np.abs(changed).max() == 4


def test_invalid_pixels_make_no_edges():
    flat = all_valid(np.full((2, 9, 11), 5.0), np.full((1, 18, 22), 7.0))
    expected = features(flat, BandRoles(0, 0, 1))
    flat.ms_valid[3:5, 4] = flat.pan_valid[6:9, 8:11] = False
    flat.ms[:, ~flat.ms_valid] = flat.pan[:, ~flat.pan_valid] = 0
    assert np.array_equal(features(flat, BandRoles(0, 0, 1)), expected)


def test_a_band_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="band 2 is named as nir, but the MS image has bands 0 to 1; name one"):
        features(all_valid(np.ones((2, 5, 7)), np.ones((1, 5, 7))), BandRoles(nir=2))


# ---- all methods


QUICK: dict[str, Fit] = {
    "forest": partial(METHODS["forest"], trees=12, trees_to_choose=4),
    "boosting": partial(METHODS["boosting"], rounds=5),
    "mlp": partial(METHODS["mlp"], steps=60),
    "two-branch-cnn": partial(replace(TWO_BRANCH_CNN, batch=8).fit, steps=8),
    "dual-resnet": partial(replace(DUAL_RESNET, batch=16, recipe=Recipe(20, 3e-3)).fit),
    "mft": partial(replace(MFT_METHOD, batch=16, recipe=Recipe(40, 5e-3)).fit),
    "dbaf": partial(replace(DBAF, batch=8, recipe=Recipe(15, 3e-3)).fit),
    "unet": partial(METHODS["unet"], steps=40, side=12),
}
HEIGHT, WIDTH, RATIO = 39, 79, 2
COLOURS = np.array([[300, 500, 400, 100], [500, 300, 100, 400], [100, 400, 500, 300]])


def scene(*, garbage: bool = False) -> tuple[TrainingArea, Pixels]:
    """Three classes in fields of 13 × 12 pixels that colour alone tells apart, cut into parts from left to right.

    garbage: other values and labels on the test ground.
    """
    rng = np.random.default_rng(7)
    fields = (np.arange(HEIGHT)[:, None] // 13 + np.arange(WIDTH) // 12) % 3
    ms = COLOURS[fields].transpose(2, 0, 1) + rng.normal(0, 20, (4, HEIGHT, WIDTH))
    pan = np.array([[300, 400, 500]])[:, fields].repeat(RATIO, 1).repeat(RATIO, 2)
    pan = pan + rng.normal(0, 20, pan.shape)
    pixels = all_valid(ms, pan)
    pixels.ms_valid[3:5, 6] = pixels.ms_valid[30, 70:] = pixels.pan_valid[9, 9] = False
    pixels.ms[:, ~pixels.ms_valid] = pixels.pan[:, ~pixels.pan_valid] = 0
    part = np.full((HEIGHT, WIDTH), GUARD, np.uint8)
    part[:, :25], part[:, 37:48], part[:, 60:] = TRAIN, VALIDATION, TEST
    part[~pixels.valid] = UNUSED
    index = np.where((part == VALIDATION) & (rng.random(part.shape) < 0.85), -1, fields).astype(np.int16)
    if garbage:
        hidden = part == TEST
        pixels.ms[:, hidden] = rng.normal(9000, 3000, (4, hidden.sum()))
        fine = hidden.repeat(RATIO, 0).repeat(RATIO, 1)
        pixels.pan[:, fine] = rng.normal(9000, 3000, (1, fine.sum()))
        index = np.where(hidden, (index + 1) % 3, index)
    labels = Labels(index, ClassTable.numbered(["a", "b", "c"]))
    area = TrainingArea.of(
        pixels, labels, Split(part, block=12, notes=()), config=TrainConfig.of_profile("patch"), ratio=RATIO
    )
    return area, pixels


BANDS = BandRoles(green=1, red=2, nir=3)


@cache
def fitted(method: str, seed: int = 0) -> Classifier:
    return QUICK[method](*scene(), BANDS, seed=seed)


def test_every_method_is_tested():
    assert QUICK.keys() == METHODS.keys()


@pytest.mark.parametrize("method", QUICK)
def test_colours_are_learnt(method):
    area, pixels = scene()
    truth = area.validation_label
    where = truth >= 0
    answer = fitted(method).logits(pixels, where)[:, where].argmax(0)
    assert (answer == truth[where]).mean() > 0.75


@pytest.mark.parametrize("method", QUICK)
def test_test_ground_and_its_labels_change_nothing(method):
    """A second fit with one seed is the same to the last bit, whatever stands on the test ground."""
    _, pixels = scene()
    other = QUICK[method](*scene(garbage=True), BANDS, seed=0)
    where = np.zeros((HEIGHT, WIDTH), bool)
    where[::4, ::3] = True
    assert np.array_equal(other.logits(pixels, where), fitted(method).logits(pixels, where), equal_nan=True)
    assert other.drawn_shares == fitted(method).drawn_shares
    assert other.parameters == fitted(method).parameters


@pytest.mark.parametrize("method", QUICK)
def test_logits_are_nan_where_nothing_is_valid_or_asked_for(method):
    _, pixels = scene()
    small = Pixels(*(x[..., : 9 * k, : 11 * k] for x, k in zip(pixels, (1, 2, 1, 2), strict=True)))
    classifier = fitted(method)
    whole = classifier.logits(small)
    assert whole.shape == (3, 9, 11)
    assert whole.dtype == np.float32
    assert np.array_equal(np.isfinite(whole), np.broadcast_to(small.valid, whole.shape))
    where = np.zeros((9, 11), bool)
    where[2:5, 3:8] = True  # two of them are invalid
    part = classifier.logits(small, where)
    assert np.array_equal(np.isfinite(part[0]), where & small.valid)
    assert np.allclose(part, np.where(where, whole, np.nan), atol=1e-4, equal_nan=True)
    assert np.isnan(classifier.logits(small, np.zeros((9, 11), bool))).all()


@pytest.mark.parametrize("method", ["forest", "mlp"])
def test_another_seed_another_classifier(method):
    _, pixels = scene()
    where = np.zeros((HEIGHT, WIDTH), bool)
    where[::6, ::5] = True
    assert not np.allclose(
        fitted(method, 1).logits(pixels, where)[:, where], fitted(method).logits(pixels, where)[:, where]
    )


def test_shares_are_those_that_weights_leave():
    area, _ = scene()
    counts = area.class_counts**0.75
    assert fitted("forest").drawn_shares == pytest.approx(counts / counts.sum())
    assert sum(fitted("boosting").drawn_shares) == pytest.approx(1)


def test_no_vote_counts_a_tenth_of_a_tree():
    _, pixels = scene()
    logits = fitted("forest").logits(pixels)
    assert np.nanmin(logits) == pytest.approx(np.log(0.1 / 12), abs=1e-5)


def test_tuned_methods_do_without_a_validation_part():
    area, pixels = scene()
    split = replace(area.split, part=np.where(area.split.part == VALIDATION, GUARD, area.split.part))
    labels = Labels(np.maximum(area.label, -1).astype(np.int16), ClassTable.numbered(["a", "b", "c"]))
    area = TrainingArea.of(pixels, labels, split, config=TrainConfig.of_profile("patch"), ratio=RATIO)
    for method in ("forest", "boosting", "mlp"):
        classifier = QUICK[method](area, pixels, BandRoles(), seed=0)
        assert np.isfinite(classifier.logits(pixels, pixels.valid & (np.arange(WIDTH) % 9 == 0))).any()
