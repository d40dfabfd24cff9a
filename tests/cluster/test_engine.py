"""What can go wrong with worker processes, on real ones: nothing is lost, and what cannot be done is said in a line."""

import os
import socket
import subprocess
import sys
from contextlib import contextmanager

import cluster_tasks as tasks
import pytest

from adcdnet.cluster import engine
from adcdnet.cluster.engine import Failed, Workers, run_all
from adcdnet.cluster.parts import Part, finish, place_of_tiles
from adcdnet.cluster.scenes import Work, make_part
from adcdnet.errors import InputError
from adcdnet.geo.scene import Scene
from adcdnet.geo.scene_files import SceneFiles
from adcdnet.mapping.predict import predict
from adcdnet.nn.architecture import Layout
from conftest import build_model

pytestmark = pytest.mark.slow


def results(function, calls, **how):
    return dict(run_all(Workers(**{"count": 2, "memory": 2**28, **how}), function, calls))


def test_every_call_is_made_once_and_its_result_has_its_number(tmp_path):
    told = []
    calls = [(tmp_path, number) for number in range(11)]
    workers = Workers(count=2, memory=2**28)
    made = dict(run_all(workers, tasks.square, calls, progress=lambda _, done, of, __: told.append((done, of))))
    assert made == {number: number**2 for number in range(11)}
    assert told == [(done, 11) for done in range(1, 12)]
    assert all(len(file.read_text().splitlines()) == 1 for file in tmp_path.glob("called-*"))


def test_threads_are_set_before_a_worker_begins_and_it_may_start_processes(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    workers = Workers(count=1, threads=3, memory=2**28)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    with workers.connected() as client:
        (told,) = client.run(tasks.environment, names).values()
        assert told == dict.fromkeys(names, "3")
        assert client.submit(tasks.start_a_process).result() == 0


def test_a_worker_that_is_killed_is_followed_by_another(tmp_path):
    made = results(tasks.die_once, [(tmp_path, number) for number in range(6)])
    assert made == {number: number for number in range(6)}
    assert len((tmp_path / "called-1").read_text().split()) == 2


def test_a_call_that_hangs_is_ended_and_made_again(tmp_path):
    made = results(tasks.hang_once, [(tmp_path, number) for number in range(4)], limit=2.0)
    assert made == {number: number for number in range(4)}


def test_a_call_that_always_hangs_fails_and_the_others_do_not(tmp_path):
    made = results(tasks.hang, [(tmp_path, number) for number in range(4)], limit=4.0, retries=1)
    assert made.pop(1) == Failed(
        "its worker died each time: it held more memory than a worker may, or took more than 4 s"
    )
    assert made == {0: 0, 2: 2, 3: 3}
    assert len((tmp_path / "called-1").read_text().split()) == 2


def test_a_worker_out_of_memory_is_killed_and_the_others_go_on(tmp_path):
    made = results(tasks.hold_too_much, [(tmp_path, number) for number in range(4)], memory=2**25, retries=1)
    assert made.pop(1).reason.startswith("its worker died each time: it held more memory than a worker may")
    assert made == {0: 0, 2: 2, 3: 3}


def test_variables_of_workers_are_not_those_of_this_process(tmp_path):
    before = dict(os.environ)
    assert len(results(tasks.die_once, [(tmp_path, number) for number in range(3)])) == 3  # one is started again
    assert dict(os.environ) == before


def test_storage_that_fails_now_and_then_is_asked_again(tmp_path):
    made = results(tasks.fail_now_and_then, [(tmp_path, number) for number in range(7)])
    assert made == {number: number for number in range(7)}


def test_what_fails_each_time_is_told_with_its_reason(tmp_path):
    assert results(tasks.fail, [(tmp_path, 5)], count=1, retries=2) == {0: Failed("no 5")}
    assert len((tmp_path / "called-5").read_text().split()) == 3


def test_few_calls_are_on_their_way_at_a_time(tmp_path, monkeypatch):
    most = []

    class Counted(engine._Running):
        def follow(self, client, todo):
            for number, future in super().follow(client, todo):
                most.append(len(self._futures))
                yield number, future

    monkeypatch.setattr(engine, "_Running", Counted)
    results(tasks.square, [(tmp_path, number) for number in range(40)])
    assert max(most) < 2 * engine._TIMES


# ---- a scheduler of others


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@contextmanager
def process(*words):
    started = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + words[0], *map(str, words[1:])],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def scheduler(port):
    return process("dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard", "--no-show")


def worker(port, *more):
    address = f"tcp://127.0.0.1:{port}"
    return process("dask_worker", address, "--nthreads", 1, "--no-dashboard", "--death-timeout", 20, *more)


def test_a_scheduler_that_is_not_there_is_told_in_a_line():
    with pytest.raises(
        InputError, match=r"^no scheduler answers at tcp://127.0.0.1:9; start one with `dask scheduler`"
    ):
        list(run_all(Workers(scheduler="tcp://127.0.0.1:9", patience=1.0), tasks.square, [("", 1)]))
    with pytest.raises(InputError, match=r"^no scheduler answers at not an address; "):
        list(run_all(Workers(scheduler="not an address"), tasks.square, [("", 1)]))


def test_a_scheduler_without_workers_is_told_in_a_line():
    port = free_port()
    with scheduler(port), pytest.raises(InputError, match=r"^no worker at tcp://127.0.0.1:\d+ within 1 s; start some"):
        list(run_all(Workers(scheduler=f"tcp://127.0.0.1:{port}", patience=1.0), tasks.square, [("", 1)]))


@pytest.mark.parametrize(
    ("more", "memory", "says"),
    [
        (("--nthreads", 2), 2**20, r"^the worker at .* has 2 threads, and GDAL's files belong to one"),
        (("--memory-limit", "300MB"), 2**30, r"^the worker at .* may hold 286 MB, less than --memory"),
    ],
)
def test_a_worker_of_another_kind_is_refused(more, memory, says):
    port = free_port()
    with scheduler(port), worker(port, *more), pytest.raises(InputError, match=says):
        list(run_all(Workers(scheduler=f"tcp://127.0.0.1:{port}", memory=memory), tasks.square, [("", 1)]))


def test_workers_of_other_versions_are_refused(monkeypatch):
    ours = engine.versions()
    monkeypatch.setattr(engine, "versions", lambda: {**ours, "torch": "1.0"})
    with pytest.raises(
        InputError, match=r"^the worker at tcp://\S+ has torch \S+, and 1.0 is needed; install the same"
    ):
        results(tasks.square, [("", 1)], count=1)


def test_a_worker_of_other_versions_that_came_later_makes_nothing():
    needed = {**engine.versions(), "numpy": "1.0"}
    with pytest.raises(InputError, match=r"^a worker has numpy \S+, and 1.0 is needed; install the same everywhere$"):
        engine._make(pytest.fail, ("called",), needed, None)


def test_what_is_finished_stays_where_the_scheduler_starts_again(tmp_path):
    port = free_port()
    address, calls = f"tcp://127.0.0.1:{port}", [(tmp_path, number) for number in range(8)]
    first, second = (scheduler(port), worker(port)), (scheduler(port), worker(port))
    made = {}
    following = run_all(Workers(scheduler=address, memory=2**28), tasks.wait_and_square, calls)
    with first[0] as started, first[1]:
        for _ in range(3):
            number, result = next(following)
            made[number] = result
        started.kill()
        started.wait()
    with second[0], second[1]:
        made |= dict(following)
    assert made == {number: number**2 for number in range(8)}
    for number in list(made)[:3]:
        assert len((tmp_path / f"called-{number}").read_text().split()) == 1


def test_a_scheduler_that_does_not_come_again_is_told_in_a_line(tmp_path):
    port = free_port()
    workers = Workers(scheduler=f"tcp://127.0.0.1:{port}", memory=2**28, patience=3.0)
    following = run_all(workers, tasks.wait_and_square, [(tmp_path, number) for number in range(8)])
    with scheduler(port), worker(port):
        next(following)
    with pytest.raises(InputError, match=r"went away and has not come again within 3 s; \d of 8 are finished and kept"):
        list(following)


# ---- the map


@pytest.fixture
def work(tmp_path, labelled_pair, monkeypatch):
    """What a map of the labelled pair is made of; its tiles are small."""
    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 16)
    model = build_model(Layout(ms_bands=4, pan_bands=1, ratio=2, classes=3))
    model.save(tmp_path / "model.safetensors")
    return Work(model=tmp_path / "model.safetensors", digest=model.digest, device="cpu")


def test_the_map_is_the_same_though_a_worker_is_killed_in_mid_tile(tmp_path, labelled_pair, work):
    files, out, model = SceneFiles(ms=labelled_pair.ms, pan=labelled_pair.pan), tmp_path / "map.tif", work.load()
    place = place_of_tiles(out)
    with Scene.open(labelled_pair.ms, labelled_pair.pan) as scene:
        # the head of a first part, by which workers make small tiles too
        make_part(work, files, Part(4, 4), place)
        calls = [(tmp_path, work, files, Part(k, 4), place) for k in (1, 2, 3)]
        made = results(tasks.make_part_killed_once, calls, count=1, memory=2**29)
        assert not [result for result in made.values() if isinstance(result, Failed)]
        finish(model, scene, place=place, out=out, device="cpu")
        predict(model, scene, out=tmp_path / "whole.tif", device="cpu")
    assert out.read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert len((tmp_path / "called-part-1").read_text().split()) == 2
