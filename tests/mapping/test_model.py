"""A model file brings back the same model, is never half there, and anything else is refused in one line."""

import json
import os
import resource
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from adcdnet.errors import InputError
from adcdnet.files import write_whole
from adcdnet.mapping import memory
from adcdnet.mapping.device import pick_device
from adcdnet.mapping.model import Model
from adcdnet.mapping.record import RunRecord
from adcdnet.nn.architecture import Layout
from conftest import build_model

BIAS = "0.decision.classifier.bias"  # of the first member


@pytest.fixture
def saved(tiny_model, tmp_path):
    path = tmp_path / "model.safetensors"
    tiny_model.save(path)
    return path


@pytest.mark.parametrize("changes", [{}, {"backbone": "mobilenetv3", "dtm": False}, {"prior": False}])
def test_a_loaded_model_gives_the_same_logits_to_the_bit(tmp_path, changes):
    model = build_model(Layout(ms_bands=3, pan_bands=2, ratio=3, classes=4), **changes)
    model.save(tmp_path / "m.safetensors")
    loaded = Model.load(tmp_path / "m.safetensors")
    assert not loaded.network.training
    generator = torch.Generator().manual_seed(0)
    ms, pan = torch.randn(2, 3, 25, 25, generator=generator), torch.randn(2, 2, 75, 75, generator=generator)
    for mine, theirs in zip(loaded.network(ms, pan, branches=True), model.network(ms, pan, branches=True), strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or torch.equal(mine, theirs)


def test_all_else_comes_back_too(tiny_model, tmp_path):
    model = replace(
        tiny_model,
        members=(replace(tiny_model.first_network, name="Größe", weight=0.75),),
        record=RunRecord(name="Größe", pan_bands=("1", None), validation={"ok": [1, 2.5, None]}, steps=3),
        temperature=1.5,
        phase=(0.5, 0.25),
    )
    model.save(tmp_path / "m.safetensors")
    loaded = Model.load(tmp_path / "m.safetensors")
    assert loaded.network.config == model.network.config
    assert loaded.network.layout == model.network.layout
    for name in ("statistics", "classes", "label_shares", "record", "temperature", "answers", "phase"):
        assert getattr(loaded, name) == getattr(model, name), name
    for name in ("name", "statistics", "drawn_shares", "weight", "sensors"):
        assert getattr(loaded.first_network, name) == getattr(model.first_network, name), name


def test_one_model_one_file(tiny_model, tmp_path):
    for name in ("a", "b"):
        tiny_model.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_run_folder_stands_for_its_model(saved):
    assert Model.load(saved.parent).statistics == Model.load(saved).statistics


# ---- refusals


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        Model.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def rewrite(path, *, header=None, metadata=None, weights=None) -> None:
    """The same file with something changed: the parsed header, the whole metadata, or the weights."""
    tensors = load_file(path)
    with safe_open(path, framework="pt") as opened:
        text = opened.metadata()["adcdnet"]
    content = json.loads(text)
    if header is not None:
        header(content)
    if weights is not None:
        weights(tensors)
    save_file(tensors, path, {"adcdnet": json.dumps(content)} if metadata is None else metadata)


def test_files_that_are_no_models(tmp_path):
    assert "does not exist" in refusal(tmp_path / "none.safetensors")
    assert "does not exist" in refusal(tmp_path)  # a folder without a model
    for content in (b"", b"value,name\n1,water\n", bytes(1000), b"\xff" * 1000):
        path = tmp_path / "other"
        path.write_bytes(content)
        assert "not a model file" in refusal(path)


def test_a_model_of_another_program(tmp_path):
    for metadata in (None, {"format": "pt"}):
        save_file({"weight": torch.zeros(3)}, tmp_path / "foreign.safetensors", metadata)
        assert "not written by adcdnet" in refusal(tmp_path / "foreign.safetensors")


def test_a_file_cut_short_anywhere(saved):
    whole = saved.read_bytes()
    for length in (4, 8, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        assert "damaged" in refusal(saved)


def test_a_model_of_a_later_version(saved):
    rewrite(saved, header=lambda h: h.update(format=99))
    assert "format 99, this version reads 10" in refusal(saved)


@pytest.mark.parametrize("number", [8, 1])
def test_a_model_of_an_earlier_version(saved, number):
    rewrite(saved, header=lambda h: h.update(format=number))
    assert f"format {number}, this version reads 10" in refusal(saved)


def drop(key):
    return lambda content: content.pop(key)


def change(key, value):
    return lambda content: content.update({key: value})


def in_member(damage):
    """The same damage to what the header says of its only member."""
    return lambda content: damage(content["members"][0])


@pytest.mark.parametrize(
    "header",
    [
        *(drop(key) for key in ("format", "members", "layout", "statistics", "classes", "label_shares", "record")),
        *(
            in_member(drop(key))
            for key in ("name", "kind", "weight", "sensors", "statistics", "drawn_shares", "network")
        ),
        change("members", []),
        change("members", 3),
        lambda h: h["members"].append(h["members"][0]),  # one without weights
        in_member(change("kind", "perceptron")),  # not that of the weights
        in_member(change("kind", "oracle")),
        in_member(change("network", {"backbone": "vit"})),
        in_member(change("network", 3)),
        in_member(change("weight", None)),
        change("layout", {"ms_bands": 5}),
        change("layout", {"ms_bands": "five", "pan_bands": 1, "ratio": 2, "classes": 3}),
        change("layout", {"ms_bands": 5, "pan_bands": 1, "ratio": 2, "classes": 4}),  # not those of the weights
        change("statistics", {"ms_mean": 1}),
        change("statistics", []),
        in_member(change("statistics", [])),
        change("classes", {"values": [1, 1, 2], "names": ["a", "b", "c"], "colors": ["#000000"] * 3}),
        change("label_shares", None),
    ],
)
def test_a_damaged_header(saved, header):
    rewrite(saved, header=header)
    assert "damaged" in refusal(saved)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (change("temperature", 0), "temperature holds 0; a finite number above 0"),
        (change("temperature", -1), "temperature holds -1"),
        (change("temperature", float("nan")), "temperature holds nan"),
        (change("phase", [float("nan"), 0.0]), "phase holds nan"),
        (change("phase", [0.5]), "phase holds 1 numbers, 2 are needed"),
        (change("label_shares", [0.5, 0.5, 0.0]), "label_shares holds 0.0"),
        (in_member(change("drawn_shares", [0.5, 0.5])), "drawn_shares holds 2 numbers, 3 are needed"),
        (in_member(change("drawn_shares", [0.5, float("inf"), 0.5])), "drawn_shares holds inf"),
        (in_member(change("weight", float("nan"))), "weight holds nan"),
        (in_member(change("weight", -1)), "a member weighs -1; 0 or more is needed"),
        (in_member(change("weight", 0)), "the weights of all members are 0"),
        (lambda h: h["statistics"].update(ms_mean=[1.0]), "ms_mean holds 1 numbers, 5 are needed"),
        (lambda h: h["statistics"].update(pan_deviation=[0.0]), "pan_deviation holds 0.0"),
        (in_member(lambda m: m["statistics"].update(ms_mean=[1.0])), "ms_mean holds 1 numbers, 5 are needed"),
        (in_member(lambda m: m["statistics"].update(pan_deviation=[0.0])), "pan_deviation holds 0.0"),
        (lambda h: h["classes"].update(values=[1], names=["a"], colors=["#000000"]), "1 classes, the network 3"),
    ],
)
def test_numbers_that_would_make_a_wrong_map(saved, header, says):
    rewrite(saved, header=header)
    assert says in refusal(saved)


def test_weights_that_are_no_numbers_or_not_those_that_were_saved(saved):
    whole = saved.read_bytes()

    def spoil(value):
        def weights(tensors):
            tensors[BIAS][1] = value

        return weights

    for value, says in ((float("nan"), "no finite numbers"), (1e-3, "checksum")):
        saved.write_bytes(whole)
        rewrite(saved, weights=spoil(value))
        assert says in refusal(saved)
    saved.write_bytes(whole)
    rewrite(saved, weights=lambda w: w.update({BIAS: w[BIAS].double()}))
    assert "float64" in refusal(saved)


def test_a_small_file_cannot_ask_for_much_memory(saved):
    """Shapes are compared before anything of that size is made."""
    before = memory.peak()
    rewrite(saved, header=lambda h: h["layout"].update(ms_bands=50_000_000))
    assert "its settings need" in refusal(saved)
    assert memory.peak() - before < 200 * 2**20


def test_metadata_that_is_no_json(saved):
    rewrite(saved, metadata={"adcdnet": "{half"})
    assert "damaged" in refusal(saved)


def test_a_missing_an_additional_and_a_misshapen_tensor(saved):
    whole = saved.read_bytes()
    for weights, says in (
        (drop(BIAS), "decision.classifier.bias"),
        (change("0.more", torch.zeros(1)), "more"),
        (change("more", torch.zeros(1)), "more"),
        (change(BIAS, torch.zeros(99)), "decision.classifier.bias"),
    ):
        saved.write_bytes(whole)
        rewrite(saved, weights=weights)
        assert says in refusal(saved)


@pytest.mark.parametrize("number", ["1", "-1", "one"])
def test_a_tensor_of_a_member_that_is_not_there(saved, number):
    rewrite(saved, weights=change(f"{number}.decision.classifier.bias", torch.zeros(3)))
    assert "damaged" in refusal(saved)


# ---- written whole or not at all


def test_a_full_disk_leaves_the_older_file(tiny_model, saved):
    before = saved.read_bytes()
    tiny_model.record = replace(tiny_model.record, notes=("x" * 1000,))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # writing fails in the middle
    try:
        with pytest.raises(InputError, match="cannot be written"):
            tiny_model.save(saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_a_failure_at_any_step_leaves_the_older_file(monkeypatch, tmp_path, step):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, fail)
    with pytest.raises(InputError, match=r"file cannot be written: No space left on device$"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_an_interruption_leaves_the_older_file(monkeypatch, tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "none" / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="cannot be written"):
            write_whole(path, b"new")
    with pytest.raises(InputError, match="is a folder; name a file to write"):
        write_whole(tmp_path, b"new")


# ---- the device


def test_auto_takes_what_is_there(monkeypatch):
    for seen, expected in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda seen=seen: seen)
        assert pick_device("auto").type == expected


@pytest.mark.parametrize("name", ["quantum", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_in_one_line(name):
    with pytest.raises(InputError, match=f"device '{name}' cannot be used here: .*; try --device cpu$") as caught:
        pick_device(name)
    assert "\n" not in str(caught.value)
