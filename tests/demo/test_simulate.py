import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier

from adcdnet.demo import landscape, sensors
from adcdnet.demo.landscape import BANDS, CLASSES
from adcdnet.demo.sensors import PAN_WEIGHTS
from adcdnet.demo.simulate import simulate, simulate_tiles
from adcdnet.errors import InputError


def block_mean(fine, ratio):
    height, width = fine.shape
    return fine.reshape(height // ratio, ratio, width // ratio, ratio).mean(axis=(1, 3))


def same(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("ms", "pan", "labels", "labels_fine")
    )


@pytest.fixture(scope="module")
def scene():
    return simulate(61, 47, seed=5)


def test_a_seed_gives_one_scene(scene):
    assert same(scene, simulate(61, 47, seed=5))
    other = simulate(61, 47, seed=6)
    for name in ("ms", "pan", "labels", "labels_fine"):
        assert not np.array_equal(getattr(scene, name), getattr(other, name))


@pytest.mark.parametrize("ratio", range(1, 9))
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 13), (23, 17)])
def test_any_size_and_ratio(height, width, ratio):
    got = simulate(height, width, ratio=ratio, seed=2)
    assert got.ms.shape == (len(BANDS), height, width)
    assert got.pan.shape == (1, height * ratio, width * ratio)
    assert got.labels.shape == (height, width)
    assert got.labels_fine.shape == (height * ratio, width * ratio)
    assert got.ms.dtype == got.pan.dtype == np.uint16
    assert got.labels.dtype == got.labels_fine.dtype == np.uint8
    assert got.ms.min() > 0
    assert got.pan.min() > 0
    assert set(np.unique(got.labels_fine)) <= set(got.class_table.values)
    assert (got.ratio, got.pixel_size, got.band_names, got.class_table.names) == (ratio, 4.0, BANDS, CLASSES)


@pytest.mark.parametrize("ratio", [1, 2, 3, 5, 8])
def test_every_ratio_shows_the_same_ground(scene, ratio):
    got = simulate(61, 47, ratio=ratio, seed=5)
    both = (got.labels > 0) & (scene.labels > 0)
    np.testing.assert_array_equal(got.labels[both], scene.labels[both])
    for band in range(len(BANDS)):
        # one sample for each ms pixel cannot hold crowns and roofs
        likeness = np.corrcoef(got.ms[band].ravel(), scene.ms[band].ravel())[0, 1]
        assert likeness > (0.8 if ratio == 1 else 0.95)


@pytest.mark.parametrize("ratio", [3, 5, 7])
def test_ground_does_not_move_with_the_ratio(ratio):
    # at odd ratios one pan pixel has the centre of the ms pixel, so the classes there are those of ratio 1
    coarse, fine = simulate(61, 47, ratio=1, seed=5), simulate(61, 47, ratio=ratio, seed=5)
    differ = coarse.labels_fine != fine.labels_fine[ratio // 2 :: ratio, ratio // 2 :: ratio]
    assert differ.sum() <= 2  # centres rounded across an edge


@pytest.mark.parametrize("ratio", [1, 3, 4])
def test_an_ms_pixel_is_labelled_when_wholly_of_one_class(ratio):
    got = simulate(31, 26, ratio=ratio, seed=1)
    for row_ms, col_ms in np.ndindex(got.labels.shape):
        rows, cols = (slice(i * ratio, (i + 1) * ratio) for i in (row_ms, col_ms))
        inside = np.unique(got.labels_fine[rows, cols])
        assert got.labels[row_ms, col_ms] == (inside[0] if len(inside) == 1 else 0)
    assert (got.labels == 0).any() == (ratio > 1)


@pytest.mark.parametrize("ratio", [2, 4, 7])
def test_pan_sees_the_same_ground_as_ms_at_the_same_place(ratio):
    got = simulate(61, 47, ratio=ratio, seed=5)
    grey = np.tensordot(PAN_WEIGHTS, got.ms.astype(float), axes=1)
    pan = block_mean(got.pan[0].astype(float), ratio)
    assert np.corrcoef(pan.ravel(), grey.ravel())[0, 1] > 0.95
    # the match is best where it lies: a shift by one ms pixel is worse
    for axis in (0, 1):
        assert np.corrcoef(np.roll(pan, 1, axis).ravel(), grey.ravel())[0, 1] < 0.85


@pytest.mark.parametrize("seed", range(6))
def test_every_class_occurs_throughout(seed):
    got = simulate(160, 160, seed=seed)
    shares = np.bincount(got.labels_fine.ravel(), minlength=10)[1:] / got.labels_fine.size
    assert shares.min() > 0.02
    assert shares.max() > 1.5 * shares.min()
    for half in (got.labels[:80], got.labels[80:], got.labels[:, :80], got.labels[:, 80:]):
        assert np.bincount(half.ravel(), minlength=10)[1:].min() > 100


@pytest.mark.parametrize("seed", range(4))
def test_every_class_occurs_from_100_pixels_on(seed):
    assert set(np.unique(simulate(100, 100, seed=seed, ratio=2).labels)) == set(range(10))


@pytest.mark.parametrize("seed", [0, 1])
def test_classes_are_alike_in_one_sensor_and_apart_in_the_other(seed):
    scene = simulate(200, 200, seed=seed)
    number = {name: value for value, name in zip(scene.class_table.values, CLASSES, strict=True)}

    def spread(image, labels, *names):
        """Largest over smallest mean (over band) of these classes."""
        means = np.array([image[:, labels == number[name]].mean(axis=1) for name in names])
        return means.max(axis=0) / means.min(axis=0)

    def apart(*names):
        return spread(scene.ms, scene.labels, *names).max(), spread(scene.pan, scene.labels_fine, *names).max()

    colour, brightness = apart("meadow", "cropland", "bare soil")
    assert brightness < 1.15
    assert colour > 2
    colour, brightness = apart("water", "paved")
    assert brightness < 1.15
    assert colour > 2
    colour, _ = apart("forest", "orchard", "shrubland")
    assert colour < 1.5
    # and crowns show in pan: much rougher than any meadow of the same sunlight
    roughness = ndimage.generic_gradient_magnitude(scene.pan[0].astype(float), ndimage.sobel)
    rough = {name: np.median(roughness[scene.labels_fine == number[name]]) for name in CLASSES}
    assert min(rough["forest"], rough["orchard"], rough["shrubland"]) > 2 * rough["meadow"]


def context(image, ratio):
    """Features (h, w, n) at ms pixels: mean, standard deviation and gradient around each, 1, 3 and 7 ms pixels wide."""
    features = []
    for band in image.astype(float):
        slope = np.hypot(ndimage.sobel(band, 0), ndimage.sobel(band, 1))
        for size in (ratio, 3 * ratio, 7 * ratio):
            mean, square, steepness = (
                ndimage.uniform_filter(z, size)[ratio // 2 :: ratio, ratio // 2 :: ratio]
                for z in (band, band**2, slope)
            )
            features += [mean, np.sqrt(np.maximum(square - mean**2, 0)), steepness]
    return np.stack(features, axis=-1)


def test_both_sensors_together_beat_each_alone():
    scene = simulate(120, 140, seed=0)
    ms, pan = context(scene.ms, 1), context(scene.pan, scene.ratio)
    # features look 3 ms pixels far; the guard between the parts is wider
    train, test = np.s_[:, :66], np.s_[:, 74:]
    learn, judge = scene.labels[train] > 0, scene.labels[test] > 0
    some = np.random.default_rng(0).permutation(learn.sum())[:1500]

    def accuracy(features):
        forest = RandomForestClassifier(40, min_samples_leaf=2, random_state=0)
        forest.fit(features[train][learn][some], scene.labels[train][learn][some])
        return forest.score(features[test][judge], scene.labels[test][judge])

    both, ms_alone, pan_alone = accuracy(np.dstack([ms, pan])), accuracy(ms), accuracy(pan)
    assert both > ms_alone + 0.05
    assert both > pan_alone + 0.1


def test_a_post_casts_its_shadow_away_from_the_sun():
    # 6 m high, sun at azimuth 150° and 48° up: the shadow is 6 / tan 48° = 5.4 m long and points to 330°
    post = np.zeros((41, 41), np.float32)
    post[30, 30] = 6
    shadow = np.argwhere(sensors._sunshine(post, 0.5) == 0)
    north, east = (30 - shadow[:, 0]) * 0.5, (shadow[:, 1] - 30) * 0.5
    length = np.hypot(north, east)
    assert length.max() == pytest.approx(6 / np.tan(np.deg2rad(48)), abs=0.5)
    far = length > 2
    np.testing.assert_allclose(np.rad2deg(np.arctan2(east[far], north[far])), -30, atol=8)


def test_level_open_ground_is_fully_lit():
    np.testing.assert_array_equal(sensors._sunshine(np.zeros((3, 5), np.float32), 1.0), 1)


def test_slopes_facing_the_sun_are_brighter():
    eaves = np.tile(np.array([0, 1, 2, 3, 2, 1, 0], np.float32) * 0.3, (9, 1))
    sunshine = sensors._sunshine(eaves, 1.0)
    assert sunshine[4, 5] > 1 > sunshine[4, 1] > 0  # the sun stands in the south-east


def test_sensor_noise_grows_with_the_signal():
    # by hand: variance = read² + per_signal · DN + 1/12 from rounding
    rng = np.random.default_rng(4)
    dim, bright = sensors.sense(rng, np.stack([np.full((300, 300), v) for v in (0.02, 0.5)]), 0.4, (3.0, 0.2), 2)
    assert dim.shape == (150, 150)
    assert dim.mean() == pytest.approx(200, abs=0.3)
    assert bright.mean() == pytest.approx(5000, abs=1)
    assert dim.var() == pytest.approx(9 + 0.2 * 200 + 1 / 12, rel=0.04)
    assert bright.var() == pytest.approx(9 + 0.2 * 5000 + 1 / 12, rel=0.04)


@pytest.mark.parametrize("mtf", [0.3, 0.5])
def test_optics_pass_the_stated_share_of_contrast_at_nyquist(mtf):
    # pixels of 8 fine pixels: the Nyquist wave is 16 long; its mean over a pixel is 2 / π of the crest
    wave = 0.3 + 0.1 * np.sin(2 * np.pi * np.arange(320) / 16)
    seen = sensors.sense(np.random.default_rng(0), np.tile(wave, (1, 8, 1)), mtf, (0.0, 0.0), 8)[0, 0, 5:-5]
    contrast = (int(seen.max()) - int(seen.min())) / 2 / 1000
    assert contrast == pytest.approx(mtf * 2 / np.pi, rel=0.02)


def test_noise_surface_has_its_scale_and_spread():
    metres = np.arange(0.5, 600, dtype=np.float32)
    surface = landscape.noise(np.random.default_rng(0), metres, metres, 6)
    assert surface.std() == pytest.approx(1, abs=0.05)
    assert np.corrcoef(surface[:, :-1].ravel(), surface[:, 1:].ravel())[0, 1] > 0.9
    assert abs(np.corrcoef(surface[:, :-40].ravel(), surface[:, 40:].ravel())[0, 1]) < 0.1


def test_memory_per_pan_pixel_is_as_stated():
    tracemalloc.start()
    try:
        simulate(100, 80)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / (400 * 320) < 140


def test_mosaic_covers_the_scene_once():
    count = np.zeros((53, 38), int)
    for window, part in simulate_tiles(53, 38, ratio=2, seed=4, tile=20):
        assert part.labels.shape == (window.height, window.width)
        assert part.pan.shape == (1, 2 * window.height, 2 * window.width)
        count[window.slices] += 1
    assert (count == 1).all()


def test_tiles_differ_and_depend_on_their_place_alone():
    def parts(height, width, seed):
        return {
            (window.row, window.col): part
            for window, part in simulate_tiles(height, width, ratio=2, seed=seed, tile=16)
        }

    small, large, other = parts(32, 32, 4), parts(48, 64, 4), parts(32, 32, 5)
    places = list(small)
    assert len(places) == 4
    assert all(same(small[place], large[place]) for place in places)
    for i, place in enumerate(places):
        assert not np.array_equal(small[place].ms, other[place].ms)
        for later in places[i + 1 :]:
            assert not np.array_equal(small[place].ms, small[later].ms)


@pytest.mark.parametrize(
    ("height", "width", "options", "message"),
    [
        (0, 5, {}, "0 × 5 ms pixels"),
        (5, -1, {}, "5 × -1 ms pixels"),
        (5, 5, {"ratio": 33}, "ratio is 33"),
        (5, 5, {"ratio": 0}, "ratio is 0"),
        (5, 5, {"seed": -3}, "seed is -3"),
        (5, 5, {"seed": (1, -3)}, r"seed is \(1, -3\)"),
    ],
)
def test_impossible_scenes_are_refused(height, width, options, message):
    with pytest.raises(InputError, match=message):
        simulate(height, width, **options)


def test_a_mosaic_without_tiles_is_refused():
    with pytest.raises(InputError, match="tile is 0"):
        next(simulate_tiles(5, 5, tile=0))
