"""`predict` in parts, over lists of scenes and with helpers, and `benchmark` with helpers: by the command line."""

import json
import shutil

import cluster_tasks
import numpy as np
import pytest

from adcdnet.benchmark import pool
from adcdnet.benchmark.cell import Cell
from adcdnet.cli import many
from adcdnet.cli.benchmark import _elsewhere
from adcdnet.cli.helpers import Helpers
from adcdnet.cluster import engine
from adcdnet.errors import InputError
from adcdnet.files import sha256
from adcdnet.geo.scene_files import SceneFiles
from adcdnet.mapping.predict import predict
from conftest import PIXEL, UTM, write_tif_file

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 32)


@pytest.fixture
def pair(labelled_pair):
    return ["--ms", labelled_pair.ms, "--pan", labelled_pair.pan, "--device", "cpu"]


@pytest.fixture
def scenes(labelled_pair, tmp_path):
    """Four scenes; the PAN of the third is missing."""
    for name in "abcd":
        (tmp_path / name).mkdir()
        for image in (labelled_pair.ms, labelled_pair.pan):
            shutil.copy(image, tmp_path / name)
    (tmp_path / "c" / "pan.tif").unlink()
    file = tmp_path / "scenes.toml"
    file.write_text("".join(f'[[scene]]\nname = "{n}"\nms = "{n}/ms.tif"\npan = "{n}/pan.tif"\n' for n in "abcd"))
    return file


def states(folder):
    known = json.loads((folder / "summary.json").read_text())
    assert {state: known[state] for state in ("done", "failed", "open")} == {
        state: sum(scene["state"] == state for scene in known["scenes"]) for state in ("done", "failed", "open")
    }
    return {scene["scene"]: scene["state"] for scene in known["scenes"]}


def test_parts_and_finish_make_the_map_and_its_probabilities(call, quick_run, pair, tmp_path):
    made = "--out", tmp_path / "map.tif", "--probabilities", tmp_path / "p.tif"
    for part in ("2/3", "1/3"):
        code, out, err = call("predict", quick_run.folder, *pair, *made, "--part", part)
        assert (code, err) == (0, "")
        assert out.startswith(f"part {part.replace('/', ' of ')}: ")
    code, out, err = call("predict", quick_run.folder, *pair, *made, "--finish")
    assert (code, out, err) == (1, "", "adcdnet: part 3 of 3 is not there or not whole; run it\n")
    assert call("predict", quick_run.folder, *pair, *made, "--part", "3/3")[0] == 0
    code, out, _ = call("predict", quick_run.folder, *pair, *made, "--finish")
    assert code == 0
    assert out.startswith(f"map: {tmp_path / 'map.tif'} (5893 MS pixels in ")
    whole = "--out", tmp_path / "whole.tif", "--probabilities", tmp_path / "q.tif"
    assert call("predict", quick_run.folder, *pair, *whole)[0] == 0
    assert sha256(tmp_path / "map.tif") == sha256(tmp_path / "whole.tif")
    assert sha256(tmp_path / "p.tif") == sha256(tmp_path / "q.tif")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--part", "1/2", "--finish"], "give one of the two"),
        (["--part", "1/2", "--workers", "2"], "leave out --part and --finish"),
        (["--workers", "2", "--scheduler", "tcp://there:1"], "give one of the two"),
        (["--tiles", "there"], "give --part, --finish or --workers too"),
    ],
)
def test_options_that_contradict_each_other(call, quick_run, pair, tmp_path, words, says):
    code, _, err = call("predict", quick_run.folder, *pair, "--out", tmp_path / "map.tif", *words)
    assert code == 2
    assert says in " ".join(err.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_part_is_told_in_a_line(call, quick_run, pair, tmp_path):
    code, out, err = call("predict", quick_run.folder, *pair, "--out", tmp_path / "map.tif", "--part", "4/3")
    assert (code, out) == (1, "")
    assert err.startswith("adcdnet: '4/3' is no part; write 3/100")


def test_a_scheduler_that_is_not_there_is_told_in_a_line(call, quick_run, pair, tmp_path):
    out = tmp_path / "map.tif"
    code, _, err = call("predict", quick_run.folder, *pair, "--out", out, "--scheduler", "tcp://127.0.0.1:9")
    assert code == 1
    assert err.startswith("adcdnet: no scheduler answers at tcp://127.0.0.1:9; start one")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_scenes_are_dealt_to_parts_and_a_summary_says_what_became_of_each(call, quick_run, scenes, tmp_path):
    maps = tmp_path / "maps"
    of = "predict", quick_run.folder, scenes, "--out", maps, "--device", "cpu"
    code, out, err = call(*of, "--part", "1/2")
    assert code == 1
    assert "error: c: " in err
    assert "1 of 2 scenes could not be mapped" in err
    assert states(maps) == {"a": "done", "b": "open", "c": "failed", "d": "open"}
    assert [line.split() for line in out.splitlines()[-3:]] == [["done", "1"], ["failed", "1"], ["open", "2"]]
    code, out, err = call(*of, "--finish")
    assert code == 1
    assert "open: b, d" in err
    assert call(*of, "--part", "2/2")[0] == 0
    assert states(maps) == {"a": "done", "b": "done", "c": "failed", "d": "done"}
    shutil.copy(tmp_path / "a" / "pan.tif", tmp_path / "c" / "pan.tif")
    assert call(*of, "--part", "1/2", "--resume")[0] == 0
    code, out, err = call(*of, "--finish")
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [["scenes"], ["done", "4"], ["failed", "0"], ["open", "0"]]


def test_resume_leaves_out_scenes_whose_map_is_of_the_same_content(call, quick_run, scenes, tmp_path, monkeypatch):
    maps = tmp_path / "maps"
    of = "predict", quick_run.folder, scenes, "--out", maps, "--device", "cpu", "--resume"
    call(*of)
    (tmp_path / "a" / "ms.tif").touch()  # the same, at another time
    changed = bytearray((tmp_path / "b" / "ms.tif").read_bytes())
    changed[-9] ^= 1
    (tmp_path / "b" / "ms.tif").write_bytes(changed)
    (maps / "d.tif").write_bytes(b"something else")
    write_tif_file(tmp_path / "c" / "pan.tif", np.ones((166, 142), np.uint16), pixel=PIXEL / 2, crs=UTM)
    mapped = []
    monkeypatch.setattr(
        "adcdnet.cluster.scenes.predict",
        lambda model, scene, **o: mapped.append(scene.name) or predict(model, scene, **o),
    )
    code, _, err = call(*of)
    assert code == 0
    assert mapped == ["b/ms.tif", "c/ms.tif", "d/ms.tif"]
    assert "note: a: its map is there" in err
    assert states(maps) == dict.fromkeys("abcd", "done")
    mapped.clear()
    call(*of, "--tau", "0.5", "--part", "1/2")
    assert mapped == ["a/ms.tif", "c/ms.tif"]
    assert states(maps) == {"a": "done", "b": "open", "c": "done", "d": "open"}


def test_helpers_make_the_same_map(call, quick_run, pair, tmp_path, monkeypatch):
    monkeypatch.setattr(many, "_PIXELS_OF_PART", 2000)  # three parts
    code, _, err = call("predict", quick_run.folder, *pair, "--out", tmp_path / "map.tif", "--workers", 1)
    assert code == 0, err
    assert "watch it at http://127.0.0.1:" in err
    # workers know nothing of smaller tiles
    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 512)
    assert call("predict", quick_run.folder, *pair, "--out", tmp_path / "whole.tif")[0] == 0
    assert sha256(tmp_path / "map.tif") == sha256(tmp_path / "whole.tif")
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".qml", ".qml", ".tif", ".tif", ".xml", ".xml"]


def test_helpers_map_the_scenes_of_a_list(call, quick_run, scenes, tmp_path):
    maps = tmp_path / "maps"
    code, out, err = call("predict", quick_run.folder, scenes, "--out", maps, "--device", "cpu", "--workers", 1)
    assert code == 1
    assert "error: c: " in err
    assert states(maps) == {"a": "done", "b": "done", "c": "failed", "d": "done"}
    assert [line.split() for line in out.splitlines()[-3:]] == [["done", "3"], ["failed", "1"], ["open", "0"]]


def test_a_large_scene_of_a_list_is_dealt_in_parts_and_its_map_is_the_same(
    call, quick_run, scenes, tmp_path, monkeypatch
):
    write_tif_file(tmp_path / "a" / "ms.tif", np.ones((4, 9, 8), np.uint16), pixel=PIXEL, crs=UTM)
    write_tif_file(tmp_path / "a" / "pan.tif", np.ones((18, 16), np.uint16), pixel=PIXEL / 2, crs=UTM)
    run, asked = Helpers.run, []

    def counted(helpers, function, calls, *, what, **how):
        asked.append((what, len(calls)))
        return run(helpers, function, calls, what=what, **how)

    monkeypatch.setattr(Helpers, "run", counted)
    monkeypatch.setattr(many, "_LARGE", 83 * 71)  # b and d, and not a
    monkeypatch.setattr(many, "_PIXELS_OF_PART", 3000)
    of = "predict", quick_run.folder, scenes, "--device", "cpu"
    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 512)  # as workers have it
    code, _, err = call(*of, "--out", tmp_path / "maps", "--workers", 1)
    assert asked == [("parts", 2), ("parts", 2), ("scenes", 2)]
    assert (code, err.count("error:")) == (1, 1)
    assert states(tmp_path / "maps") == {"a": "done", "b": "done", "c": "failed", "d": "done"}
    call(*of, "--out", tmp_path / "alone")
    for name in "abd":
        assert sha256(tmp_path / "maps" / f"{name}.tif") == sha256(tmp_path / "alone" / f"{name}.tif")
    assert not list((tmp_path / "maps").glob(".*.parts"))


def test_a_task_that_hangs_is_ended_after_the_seconds_that_were_given_and_made_again(tmp_path):
    calls = [(tmp_path, number) for number in range(3)]
    made = Helpers(1, None, 2**28, seconds=2).run(cluster_tasks.hang_once, calls, what="tasks", hours=1)
    assert dict(made) == {number: number for number in range(3)}
    assert len((tmp_path / "called-1").read_text().split()) == 2


@pytest.mark.parametrize(("given", "limit"), [((), 3600), (("--task-seconds", 7), 7)])
def test_the_command_says_how_long_a_task_may_take(call, quick_run, pair, tmp_path, monkeypatch, given, limit):
    limits = []
    monkeypatch.setattr(engine, "run_all", lambda workers, *_, **__: limits.append(workers.limit) or iter([]))
    call("predict", quick_run.folder, *pair, "--out", tmp_path / "map.tif", "--workers", 1, *given)
    assert limits == [limit]


def test_a_scheduler_that_is_not_there_is_told_in_a_line_and_nothing_is_written(call, quick_run, pair, tmp_path):
    code, out, err = call(
        "predict", quick_run.folder, *pair, "--out", tmp_path / "map.tif", "--scheduler", "tcp://127.0.0.1:9"
    )
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("adcdnet: no scheduler answers at tcp://127.0.0.1:9; start one with `dask scheduler`")
    assert list(tmp_path.iterdir()) == []


def test_seconds_of_tasks_without_workers_are_refused(call, quick_run, pair, tmp_path):
    code, _, err = call("predict", quick_run.folder, *pair, "--out", tmp_path / "map.tif", "--task-seconds", 7)
    assert code == 2
    assert "is for tasks of workers; give --workers" in err


@pytest.fixture
def cells(labelled_pair):
    """Two trainings, one of which is read in two ways."""
    scene = SceneFiles(name="one", ms=labelled_pair.ms, pan=labelled_pair.pan, labels=labelled_pair.labels)
    kinds = (("mlp", 0), ("mlp-alike", 0), ("mlp", 1))
    return [Cell((scene,), method, 0, fold, 0, folds=2) for method, fold in kinds]


def test_cells_of_a_benchmark_are_computed_by_helpers(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_compute_alone", cluster_tasks.note_cells)
    told = []
    elsewhere = _elsewhere(Helpers(1, None, 2**28))
    pool.run_cells(cells, tmp_path, elsewhere=elsewhere, progress=lambda _, done, of, __: told.append((done, of)))
    assert sorted(file.name for file in tmp_path.glob("called-*")) == ["called-0 mlp mlp-alike", "called-1 mlp"]
    assert told[-1] == (3, 3)


def test_cells_that_fail_elsewhere_are_told_when_the_others_are_done(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_compute_alone", cluster_tasks.fail_of_fold_1)
    with pytest.raises(
        InputError, match=r"^1 of 2 trainings failed: no fold 1; the same command makes only these again"
    ):
        pool.run_cells(cells, tmp_path, elsewhere=_elsewhere(Helpers(1, None, 2**28)))
    assert (tmp_path / "called-0 mlp mlp-alike").exists()
