"""A prediction in parts: the map of one process, whoever made the parts, where, in which order, and how often."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from adcdnet.cluster.parts import Part, finish, predict_part
from adcdnet.cluster.store import store_at
from adcdnet.errors import InputError
from adcdnet.geo.scene import Scene
from adcdnet.mapping.predict import predict
from adcdnet.nn.architecture import Layout
from conftest import build_model

MEMORY = 2**31


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Of the 29 × 37 pixels: six tiles."""
    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 16)


@pytest.fixture
def make(tiny_model, tiny_scene, tmp_path):
    """make("3/4") makes a part at the usual place."""

    def run(text, *, model=tiny_model, scene=tiny_scene, place=tmp_path / "tiles", **options):
        return predict_part(model, scene, Part.read(text), place=str(place), memory=MEMORY, device="cpu", **options)

    return run


def map_of_one_process(model, scene, folder, **options):
    predict(model, scene, out=folder / "whole.tif", memory=MEMORY, device="cpu", **options)
    return (folder / "whole.tif").read_bytes()


def finished(model, scene, folder, place=None, **options):
    out = folder / "map.tif"
    finish(model, scene, place=str(place or folder / "tiles"), out=out, device="cpu", **options)
    return out.read_bytes()


@pytest.mark.parametrize("count", [1, 4, 11])
def test_shares_have_each_thing_once_and_differ_by_one_at_most(count):
    shares = [Part(k, count).share(6) for k in range(1, count + 1)]
    assert [i for share in shares for i in share] == list(range(6))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "3/0", "a/b", "-1/4", "1/4/5", ""])
def test_what_is_no_part(text):
    with pytest.raises(InputError, match="is no part; write 3/100 for the third of 100 parts"):
        Part.read(text)


@pytest.mark.parametrize("place", ["tiles", "memory://tiles-of-parts"])
def test_the_map_of_parts_in_any_order_and_twice_is_that_of_one_process(make, tiny_model, tiny_scene, tmp_path, place):
    place = tmp_path / place if "://" not in place else place
    assert [make(part, place=place) for part in ("3/4", "1/4", "3/4", "4/4", "2/4")] == [1, 1, 1, 2, 2]
    options = {"tau": 0.3, "sieved": 3}
    made = finished(tiny_model, tiny_scene, tmp_path, place, **options)
    assert made == map_of_one_process(tiny_model, tiny_scene, tmp_path, **options)
    assert sorted(file.name for file in tmp_path.iterdir() if file.name.startswith(".")) == []


def test_local_priors_are_summed_in_the_order_of_windows(tiny_scene, tmp_path, make):
    model = build_model(Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3), local_priors=0.75)
    for part in ("2/2", "1/2"):
        make(part, model=model)
    soft, whole = tmp_path / "p.tif", tmp_path / "q.tif"
    finished(model, tiny_scene, tmp_path, probabilities=soft)
    map_of_one_process(model, tiny_scene, tmp_path, probabilities=whole)
    assert soft.read_bytes() == whole.read_bytes()


def test_parts_on_other_mounts_at_other_times_serve_one_map(make, tiny_model, tiny_scene, tmp_path):
    make("1/2")
    elsewhere = tmp_path / "mount"
    elsewhere.mkdir()
    copies = [Path(shutil.copyfile(tmp_path / name, elsewhere / name)) for name in ("ms.tif", "pan.tif")]
    with Scene.open(*copies) as scene:
        make("2/2", scene=scene)
        assert finished(tiny_model, scene, tmp_path) == map_of_one_process(tiny_model, tiny_scene, tmp_path)


def test_the_first_part_decides_on_the_size_of_tiles(make, tiny_model, tiny_scene, tmp_path, monkeypatch):
    make("1/2")
    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 20)  # a machine with more memory
    make("2/2")
    made = finished(tiny_model, tiny_scene, tmp_path)
    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 16)
    assert made == map_of_one_process(tiny_model, tiny_scene, tmp_path)


def test_missing_parts_are_named_in_one_line_and_nothing_is_written(make, tiny_model, tiny_scene, tmp_path):
    make("2/4")
    with pytest.raises(InputError, match=r"^parts 1, 3, 4 of 4 are not there or not whole; run them$"):
        finished(tiny_model, tiny_scene, tmp_path)
    assert not (tmp_path / "map.tif").exists()


def test_without_any_part_nothing_is_finished(tiny_model, tiny_scene, tmp_path):
    with pytest.raises(InputError, match=r"^no part is at .*; run the same command with --part 1/N"):
        finished(tiny_model, tiny_scene, tmp_path)
    assert not (tmp_path / "tiles").exists()


def test_another_number_of_parts_is_refused(make):
    make("1/4")
    with pytest.raises(InputError, match=r"are made in 4 parts, and --part 1/5 is asked for; use 4 parts, or another"):
        make("1/5")


def test_a_part_of_another_model_is_refused(make):
    make("1/4")
    other = build_model(Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3), seed=1)
    with pytest.raises(InputError, match=r"are of another model; use what they were made with"):
        make("2/4", model=other)


def test_a_part_of_another_grid_is_refused(make, tiny_pair):
    make("1/4")
    with Scene.open(*tiny_pair()) as scene, pytest.raises(InputError, match="are of another grid"):
        make("2/4", scene=scene)


def test_a_part_of_other_images_is_refused(make, tiny_scene, tmp_path):
    make("1/4")
    content = bytearray((tmp_path / "ms.tif").read_bytes())
    content[-9] ^= 1
    (tmp_path / "ms.tif").write_bytes(content)
    with (
        Scene.open(tmp_path / "ms.tif", tmp_path / "pan.tif") as scene,
        pytest.raises(InputError, match="are of other images"),
    ):
        make("2/4", scene=scene)


def test_a_part_of_other_settings_is_refused(make):
    make("1/4")
    with pytest.raises(InputError, match=r"of other settings .*\(\['dense', .* there, \['patch', .* here\)"):
        make("2/4", engine="patch")


def test_a_part_of_other_versions_is_refused(make, tmp_path):
    make("1/4")
    head = tmp_path / "tiles" / "head.json"
    known = json.loads(head.read_text())
    known["made_of"]["versions"]["torch"] = "1.0"
    head.write_text(json.dumps(known))
    with pytest.raises(InputError, match=r"are of other versions \(.*1\.0.* there"):
        make("2/4")


@pytest.mark.parametrize("content", ["", "{}", '{"made_of": {}, "parts": 0, "tile": 1, "batch": 1}'])
def test_a_damaged_head_is_told(make, tmp_path, content):
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "head.json").write_text(content)
    with pytest.raises(InputError, match=r"head.json at .* is damaged; remove all of that folder"):
        make("1/4")


def test_a_damaged_tile_names_its_part_which_mends_it(make, tiny_model, tiny_scene, tmp_path):
    for part in ("1/2", "2/2"):
        make(part)
    last = sorted((tmp_path / "tiles").glob("*.npz"))[-1]
    last.write_bytes(last.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"^a tile of part 2 of 2 is damaged; run --part 2/2 again$"):
        finished(tiny_model, tiny_scene, tmp_path)
    make("2/2")
    assert finished(tiny_model, tiny_scene, tmp_path) == map_of_one_process(tiny_model, tiny_scene, tmp_path)


def test_a_tile_in_a_store_counts_when_its_mark_is_there_and_agrees(make, tiny_model, tiny_scene, tmp_path):
    place, folder = f"file://{tmp_path}/store", tmp_path / "store"
    for part in ("1/2", "2/2"):
        make(part, place=place)
    first, second = sorted(folder.glob("*.npz"))[:2]
    first.with_name(first.name + ".done").unlink()
    with pytest.raises(InputError, match=r"^part 1 of 2 is not there or not whole; run it$"):
        finished(tiny_model, tiny_scene, tmp_path, place)
    make("1/2", place=place)
    second.write_bytes(second.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"^a tile of part 1 of 2 is damaged"):
        finished(tiny_model, tiny_scene, tmp_path, place)
    make("1/2", place=place)
    assert finished(tiny_model, tiny_scene, tmp_path, place) == map_of_one_process(tiny_model, tiny_scene, tmp_path)
    assert not folder.exists()


@pytest.mark.parametrize("address", ["s3://bucket/tiles", "nothing://there"])
def test_a_store_that_cannot_be_read_is_told_in_one_line(make, address):
    with pytest.raises(InputError, match=rf"^tiles at {address} cannot be read or written: [^\n]+; check --tiles"):
        make("1/2", place=address)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_store_without_write_rights_is_told_in_one_line(make, tmp_path, scheme):
    (tmp_path / "tiles").write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"^tiles at .*tiles cannot be read or written: [^\n]+; check --tiles"):
        make("1/2", place=f"{scheme}{tmp_path}/tiles")
    assert (tmp_path / "tiles").read_text().startswith("a file")


def test_a_store_that_is_full_is_told_in_one_line_and_holds_no_half_tile(make, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    make("1/2")
    before = sorted((tmp_path / "tiles").iterdir())
    monkeypatch.setattr("adcdnet.files.move_into_place", full)
    with pytest.raises(InputError, match=r"^\S+\.npz cannot be written: No space left on device$"):
        make("2/2")
    assert sorted((tmp_path / "tiles").iterdir()) == before


def test_a_part_that_is_made_again_leaves_its_tiles_as_they_are(make, tmp_path, monkeypatch):
    make("1/2")
    monkeypatch.setattr("adcdnet.mapping.engine.logits_of", None)  # nothing is computed
    assert make("1/2") == 3


def test_an_object_that_is_not_what_its_mark_says_is_not_there(tmp_path):
    store = store_at(f"file://{tmp_path}/store")
    for name in ("whole", "half", "unmarked", "lost"):
        store.create(name, b"content")
    (tmp_path / "store" / "half").write_bytes(b"conte")
    (tmp_path / "store" / "unmarked.done").unlink()
    (tmp_path / "store" / "lost").unlink()
    assert [store.get(name) for name in ("whole", "half", "unmarked", "lost")] == [b"content", None, None, None]
    assert store.names() == {"whole", "half"}


def test_the_head_of_the_first_stays_where_two_write_at_once(tmp_path, monkeypatch):
    places = str(tmp_path / "folder"), f"file://{tmp_path}/store"
    stores = [store_at(place) for place in places]
    for store in stores:
        store.create("head.json", b"first")
    monkeypatch.setattr(Path, "exists", lambda path: False)  # the second has looked before the first wrote
    for store in stores:
        store.create("head.json", b"second")
        assert store.get("head.json") == b"first"
        assert store.names() == {"head.json"}


def test_sizes_depend_on_memory_alone_where_a_process_holds_little(tiny_model, monkeypatch):
    import torch

    from adcdnet.mapping import predict as predicting

    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 10**6)
    sizes = []
    for held in (100, 400, 600):
        monkeypatch.setattr(predicting, "resident", lambda held=held: held * 2**20)
        sizes.append(predicting.sizes_for(tiny_model, MEMORY, engine="dense", device=torch.device("cpu")))
    assert sizes[0] == sizes[1] != sizes[2]


def test_the_record_of_a_model_does_not_count(make, tiny_model, tiny_scene, tmp_path):
    make("1/2")
    renamed = replace(tiny_model, record=replace(tiny_model.record, name="another"))
    make("2/2", model=renamed)
