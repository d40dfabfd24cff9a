"""The parts of a report by themselves: the pass over a map, what is chosen to be shown, words, drawings, masks."""

import re

import numpy as np
import pytest
import torch
from affine import Affine
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid, Window
from adcdnet.mapping.record import RunRecord
from adcdnet.report import attention, examples, pictures, survey, words
from adcdnet.report.drawings import confusion_heat_map, expected_error_diagram, reliability_diagram, style
from adcdnet.report.map_chapter import certainty
from conftest import PIXEL, UTM, write_tif_file

CLASSES = ClassTable.of([2, 5, 8], ["field", "wood", "lake"])


@pytest.mark.parametrize(("window", "side"), [(512, 1024), (16, 1024), (16, 20)])
def test_a_survey_says_what_the_whole_arrays_say(tmp_path, monkeypatch, window, side):
    monkeypatch.setattr(survey, "_WINDOW", window)
    monkeypatch.setattr(survey, "_SHOWN_SIDE", side)
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), (53, 37)).astype(np.float32).transpose(2, 0, 1)
    index = p.argmax(0)
    values = np.array([2, 5, 8], np.uint8)[index]
    values[:3, :5], p[:, :3, :5] = 0, np.nan
    values[20, 20] = {2: 5, 5: 8, 8: 2}[int(values[20, 20])]  # one pixel of the map that its probabilities belie
    truth = rng.integers(-1, 3, values.shape)
    grid = Grid(53, 37, Affine(PIXEL, 0, 500_000, 0, -PIXEL, 5_000_000), None)
    files = write_tif_file(tmp_path / "m.tif", values), write_tif_file(tmp_path / "p.tif", p, nodata=np.nan)
    found = survey.survey(*files, grid, CLASSES, truth, rng=rng)
    step = found.step
    assert step == (1 if side > 53 else 3)
    assert found.counts.tolist() == [(values == v).sum() for v in (2, 5, 8)]
    assert np.array_equal(found.index, np.where(values > 0, np.searchsorted([2, 5, 8], values) + 1, 0)[::step, ::step])
    assert np.array_equal(found.probabilities, np.rint(255 * np.nan_to_num(p[:, ::step, ::step])))
    assert found.disagree == pytest.approx(1 / (53 * 37 - 15) if step == 1 else 0)
    row, col = np.nonzero((truth >= 0) & (values > 0))
    seen = dict(zip(zip(found.judged.row, found.judged.col, strict=True), found.judged.probabilities, strict=True))
    assert set(seen) == set(zip(row, col, strict=True))
    assert all(np.array_equal(seen[r, c], p[:, r, c]) for r, c in zip(row, col, strict=True))
    assert np.array_equal(found.judged.truth, truth[found.judged.row, found.judged.col])


@pytest.mark.parametrize("classes", [2, 8, 200])
def test_what_a_page_carries_does_not_grow_with_the_scene(classes):
    grid = Grid(20_000, 19_000, Affine.identity())
    step = survey._step(grid, classes)
    rows, cols = -(-grid.height // step), -(-grid.width // step)
    assert max(rows, cols) <= 1024
    assert rows * cols * classes <= 1.02 * survey._SHOWN_VALUES


def test_only_so_many_pixels_are_judged(monkeypatch):
    monkeypatch.setattr(survey, "_JUDGED", 1000)
    truth = np.full((200, 300), -1)
    truth[:, 100:] = 1
    wanted = survey._thinned(truth, np.random.default_rng(0))
    assert not wanted[:, :100].any()
    assert 850 < wanted.sum() < 1150


def test_examples_are_the_surest_right_the_surest_wrong_and_the_least_sure():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.95, 0.05], [0.3, 0.7], [0.45, 0.55], [0.2, 0.8]], np.float32)
    truth = np.array([0, 0, 0, 0, 0, 1])
    row, col = np.array([0, 50, 4, 70, 90, 0]), np.array([0, 0, 4, 0, 0, 50])
    chosen = examples.choose(survey.Judged(row, col, truth, p), 0, 8)
    assert chosen == {"surest right": [2, 1], "surest wrong": [3, 4], "least sure": [4, 3]}  # 0 lies beside 2


def test_the_most_confused_pairs():
    confusion = np.array([[50, 7, 0, 9], [2, 30, 0, 0], [11, 0, 5, 0]])
    pairs = words.most_confused(confusion, ("a", "b", "c"))
    assert [tuple(p) for p in pairs] == [("c", "a", 11, 11 / 16), ("a", "b", 7, 7 / 66), ("b", "a", 2, 2 / 32)]
    assert words.most_confused(np.array([[5, 0, 0], [0, 3, 1]]), ("a", "b")) == []


def test_how_a_map_was_made_is_said_where_it_is_unusual():
    usual = {"ADCDNET_TAU": "1.0", "ADCDNET_PRIOR": "as labelled", "ADCDNET_SIEVED": "0"}
    assert words.of_making({}, CLASSES) == words.of_making(usual, CLASSES) == ""
    alike = words.of_making({"ADCDNET_PRIOR": " ".join(["0.333333333"] * 3)}, CLASSES)
    assert alike == "The map was made with all classes expected equally often."


def test_which_weights_the_model_is_of():
    assert "is the moving average of the weights at" in words.of_model(
        RunRecord(settings={"average": 0.99}), looked_at=True
    )
    published = words.of_model(RunRecord(settings={"average": 0.0}), looked_at=False)
    assert published == "The model is the weights at the end of stage II; there was no validation part."


def test_a_model_that_taught_itself_says_so():
    record = RunRecord(settings={"average": 0.99, "self_training": 0.75}, self_trained=12345)
    told = words.of_model(record, looked_at=False)
    assert "75% of its samples came from 12\u202f345 pixels without a label" in told


@pytest.mark.parametrize("share", [0, 40, 48, 50, 55, 62, 100])
def test_numbers_on_shades_have_contrast(share):
    figure = Figure()
    axes = figure.subplots()
    confusion_heat_map(axes, np.array([[share, 100 - share, 0], [0, 100, 0]]), ["a", "b"])
    (written,) = [t for t in axes.texts if t.get_position() == (0, 0)]
    shade = axes.images[0].cmap(share / 100)
    light, dark = sorted((luminance(shade), luminance(written.get_color())), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2.2, 1.4.3 AA


def luminance(colour):
    coded = np.asarray(to_rgb(colour))
    return float(np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def test_numbers_and_shares():
    assert words.number(1234567.6) == "1\u202f234\u202f568"
    assert words.share(0.8761, (0.84, 0.9)) == "0.876 [0.840, 0.900]"
    assert words.share(float("nan")) == "–"


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (("B1 blue", "B2 green", "B3 red", "B4 nir"), [2, 1, 0]),
        (("red", "green", "blue", "nir"), [0, 1, 2]),
        ((None, None, None, None), [2, 1, 0]),
        (("infrared", "greenish"), [0]),
    ],
)
def test_true_colours_where_bands_have_names(names, bands):
    assert pictures.composite_bands(names) == bands


def test_certainty():
    p = np.array([[[255, 85, 128]], [[0, 85, 127]], [[0, 85, 0]]], np.uint8)
    sure, entropy = certainty(p)
    assert sure[0] == pytest.approx([1, 1 / 3, 0.502], abs=1e-3)
    assert entropy[0] == pytest.approx([0, 1, np.log(2) / np.log(3)], abs=1e-3)


def test_a_drawing_keeps_names_as_text_and_takes_the_inks_of_the_page():
    names = ["a $x$ & <b>", "灌木", "c" * 200]
    confusion = np.array([[3, 1, 0, 0], [0, 5, 0, 2], [0, 0, 0, 0]])
    text = pictures.svg(lambda figure: confusion_heat_map(figure.subplots(), confusion, names), 4, 3)
    assert "a $x$ &amp; &lt;b&gt;" in text
    assert "灌木" in text
    assert "c" * 200 not in text
    assert "currentColor" in text
    assert "#1a1a1b" not in text
    assert "75%" in text  # 3 of 4
    one, two = (pictures.within_page(text, name) for name in ("one", "two"))
    ids = [set(re.findall(r'\bid="([^"]*)"', each)) for each in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for each, known in zip((one, two), ids, strict=True):
        assert {x or y for x, y in re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', each)} <= known


def test_reliability_by_hand():
    figure = Figure()
    axes = figure.subplots()
    p = np.array([[0.95, 0.05], [0.93, 0.07], [0.55, 0.45], [0.45, 0.55]])
    reliability_diagram(axes, p, np.array([0, 1, 0, 1]), bins=10)
    dots = axes.collections[0].get_offsets()
    assert np.allclose(dots, [[0.55, 1.0], [0.94, 0.5]])
    assert style()["text.parse_math"] is False


def test_the_expected_error_is_drawn_against_what_is_wrong():
    axes = Figure().subplots()
    expected_error_diagram(axes, [{"expected": 0.1, "wrong": 0.2}, {"expected": 0.5, "wrong": 0.4}])
    assert np.allclose(axes.collections[0].get_offsets(), [[0.1, 0.2], [0.5, 0.4]])
    assert axes.get_xlim() == pytest.approx((0, 0.54))


def test_masks_are_those_of_the_patch_around_each_pixel(tiny_model, tiny_scene):
    found = attention.masks(tiny_model, tiny_scene)
    assert set(found) == {"DIA mask, MS", "DIA mask, PAN", "prior mask, MS", "prior mask, PAN"}
    network, reach = tiny_model.network, tiny_model.network.config.before
    row, col = 17, 30
    pixels = tiny_scene.read(Window(row, col, 1, 1).grow(reach))
    ms, pan = (torch.from_numpy(x)[None] for x in tiny_model.statistics.standardise(*pixels))
    with torch.inference_mode():
        for name, encoder, image in (("MS", network.sensors.ms, ms), ("PAN", network.sensors.pan, pan)):
            cells = encoder.backbone(image)[-1]
            mask = encoder.attention.mask_of(cells.mean(1, keepdim=True), cells.amax(1, keepdim=True))
            middle = mask.shape[-1] // 2
            assert found[f"DIA mask, {name}"][row, col] == pytest.approx(mask[0, 0, middle, middle].item(), abs=1e-5)
        for name, features in zip(("MS", "PAN"), network.prior(ms, pan), strict=True):
            mean = torch.sigmoid(features[0, :, middle, middle]).mean().item()
            assert found[f"prior mask, {name}"][row, col] == pytest.approx(mean, abs=1e-5)
    assert np.isnan(found["prior mask, PAN"][:6, :9]).all()  # the scene's invalid corner


def test_overviews_are_means_of_what_they_cover(tiny_scene):
    whole, half = tiny_scene.read(tiny_scene.grid.window), tiny_scene.overview(37)
    assert np.array_equal(half.ms, whole.ms)
    assert half.pan.shape == (1, 29, 37)
    assert half.pan[0, 10, 12] == pytest.approx(whole.pan[0, 20:22, 24:26].mean(), abs=0.51)
    assert not half.ms_valid[:6, :9].any()


@pytest.mark.parametrize(("side", "said"), [(2, "0.32 ± 0.16 ha"), (50, "0.3 ± 0.2 ha"), (900, "0 ± 0 ha")])
def test_areas_of_small_maps_have_decimals(side, said):
    grid = Grid(side, side, Affine(40, 0, 500_000, 0, -40, 5_000_000), UTM)
    assert words.hectares(grid, 2, 1) == said
    assert words.hectares(Grid(side, side, grid.transform, None), 2) is None
