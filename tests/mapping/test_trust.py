"""The layer of trust beside a map, against a plain reading of the scene; and the commands that write and use it."""

from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio

import adcdnet as ad
from adcdnet.errors import InputError
from adcdnet.geo.raster import RasterReader
from adcdnet.mapping.applicability import Applicability
from adcdnet.mapping.members import feature_count_of, features_of
from adcdnet.mapping.model import Model
from adcdnet.mapping.trust import BANDS, write_trust
from adcdnet.nn.context import CONTEXT_REACH


@pytest.fixture
def area(tiny_model):
    """Any area of applicability that fits the bands of the tiny model."""
    rng, layout = np.random.default_rng(0), tiny_model.layout
    count = feature_count_of("both", layout.ms_bands, layout.pan_bands)
    return Applicability(
        rng.random(count).astype(np.float32),
        rng.normal(size=(7, count)).astype(np.float32),
        rng.integers(3, size=7),
        3.0,
        1.1,
        (-1.0, 0.7, -0.4, 0.2),
    )


def test_it_is_kept_in_the_model_file_and_in_its_digest(tiny_model, area, tmp_path):
    model = replace(tiny_model, applicability=area)
    model.save(tmp_path / "model.safetensors")
    again = Model.load(tmp_path).applicability
    assert again is not None
    for name, array in area.arrays().items():
        assert np.array_equal(again.arrays()[name], array), name
    assert model.digest == Model.load(tmp_path).digest != tiny_model.digest
    wrong = replace(tiny_model, applicability=replace(area, scale=area.scale[:-1], reference=area.reference[:, :-1]))
    wrong.save(tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match=r"its area of applicability is of \d+ statistics, these bands have \d+"):
        Model.load(tmp_path / "wrong.safetensors")


def test_the_layer_is_what_a_plain_reading_says(tiny_model, tiny_scene, area, tmp_path, monkeypatch):
    monkeypatch.setattr("adcdnet.mapping.trust._WINDOW", 16)
    model = replace(tiny_model, applicability=area)
    ad.predict(model, tiny_scene, out=tmp_path / "map.tif", probabilities=tmp_path / "p.tif", device="cpu")
    outside = write_trust(model, tiny_scene, tmp_path / "p.tif", tmp_path / "trust.tif")
    with RasterReader(tmp_path / "p.tif") as file:
        p = file.read(file.grid.window)
    pixels = tiny_scene.read(tiny_scene.grid.window.grow(CONTEXT_REACH), repeat_edge=True)
    features = features_of(*model.statistics.standardise(*pixels), np.ones(tiny_scene.grid.shape, bool), sensors="both")
    known = np.isfinite(p[0])
    apart = area.dissimilarity(features).reshape(known.shape)
    with rasterio.open(tmp_path / "trust.tif") as file:
        layers, names = file.read(), file.descriptions
    assert names == BANDS
    assert np.array_equal(np.isfinite(layers[0]), known)
    np.testing.assert_allclose(layers[0][known], (apart / 1.1)[known], rtol=1e-5)
    np.testing.assert_allclose(layers[1][known], area.expected_error(apart[known], p[:, known]), rtol=1e-5)
    assert outside == pytest.approx((apart[known] > 1.1).mean())


def test_a_scene_that_is_unlike_all_labels_is_warned_of_in_numbers(tiny_model, tiny_scene, area, tmp_path):
    """The squares cover all of so small a scene, so their share is that of all valid pixels."""
    statistics, shape = tiny_model.statistics, tiny_scene.grid.shape
    pixels = tiny_scene.read(tiny_scene.grid.window.grow(CONTEXT_REACH), repeat_edge=True)
    features = features_of(*statistics.standardise(*pixels), np.ones(shape, bool), sensors="both")
    apart = area.dissimilarity(features).reshape(shape)[tiny_scene.read(tiny_scene.grid.window).valid]
    record = replace(tiny_model.record, applicability={"inside": {"oa": 0.91}, "outside": {"oa": 0.634}})

    def warned(share: float) -> list[str]:
        own = replace(area, threshold=float(np.quantile(apart, 1 - share)))
        model = replace(tiny_model, applicability=own, record=record)
        return ad.predict(model, tiny_scene, out=tmp_path / "map.tif", device="cpu")

    (warning,) = warned(0.4)
    assert "about 40% of it is unlike all labels: 63% of held-out answers were right on such ground, 91% on" in warning
    assert warned(0.05) == []


def test_a_model_without_it_and_probabilities_of_another_map_are_refused(tiny_model, tiny_scene, area, tmp_path):
    ad.predict(tiny_model, tiny_scene, out=tmp_path / "map.tif", device="cpu")
    with pytest.raises(InputError, match="has no area of applicability: it was trained with one split"):
        write_trust(tiny_model, tiny_scene, tmp_path / "map.tif", tmp_path / "trust.tif")
    with pytest.raises(InputError, match="are not of this map: 1 bands"):
        write_trust(replace(tiny_model, applicability=area), tiny_scene, tmp_path / "map.tif", tmp_path / "trust.tif")
    assert not (tmp_path / "trust.tif").exists()


def test_a_run_of_folds_says_where_to_trust_and_what_to_label_next(labelled_pair, call, tmp_path):
    where = ("--ms", labelled_pair.ms, "--pan", labelled_pair.pan)
    labels = ("--labels", labelled_pair.labels, "--classes", labelled_pair.classes)
    run, trust = tmp_path / "run", tmp_path / "trust.tif"
    code, _, err = call("train", *where, *labels, "--members", "perceptron", "--folds", "3", "--out", run)
    assert code == 0, err
    code, out, err = call("predict", run, *where, "--out", tmp_path / "map.tif", "--trust", trust)
    assert code == 0, err
    assert "of the map lies outside the area of applicability" in out
    with rasterio.open(trust) as file, rasterio.open(tmp_path / "map.tif") as mapped:
        layers, values = file.read(), mapped.read(1)
    assert np.array_equal(np.isfinite(layers[1]), values > 0)
    wrong = (values != labelled_pair.truth)[values > 0].mean()
    assert np.nanmean(layers[1]) == pytest.approx(wrong, abs=0.1)
    code, out, err = call("suggest", run, "--n", "6", "--side", "1", "--out", tmp_path / "next.gpkg")
    assert code == 0, err
    assert "6)   fill in its column 'class'" in out
    frame = geopandas.read_file(tmp_path / "next.gpkg")
    assert len(frame) == 6
    assert frame["reason"].str.startswith("drawn at random").sum() == 3
    one = tmp_path / "one"
    code, _, err = call("train", *where, *labels, "--quick", "--out", one)
    assert code == 0, err
    code, _, err = call("predict", one, *where, "--out", tmp_path / "b.tif", "--trust", tmp_path / "t.tif")
    assert code == 1
    assert "has no area of applicability" in err
    assert not (tmp_path / "b.tif").exists()
