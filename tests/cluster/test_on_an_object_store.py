"""Images and tiles in an object store, by a server on this machine that speaks S3."""

import pytest
from object_store import ObjectStore

from adcdnet.cluster.parts import Part, finish, predict_part
from adcdnet.cluster.store import store_at
from adcdnet.errors import InputError
from adcdnet.geo.raster import headers_of
from adcdnet.geo.scene import Scene
from adcdnet.mapping.predict import predict
from conftest import serving

KINDS = ("/vsis3/", "s3://", "/vsigs/")


@pytest.fixture
def store(monkeypatch, tmp_path):
    """Where GDAL and s3fs look for S3, and GDAL for Google's storage."""
    server = ObjectStore()
    with serving(server):
        for name, value in {
            "AWS_S3_ENDPOINT": server.endpoint.removeprefix("http://"),
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_NO_SIGN_REQUEST": "YES",
            "CPL_GS_ENDPOINT": f"{server.endpoint}/",
            "GS_NO_SIGN_REQUEST": "YES",
            "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ACCESS_KEY_ID": "anyone",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_EC2_METADATA_DISABLED": "true",
            "HTTP_PROXY": "",
        }.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def pair(store, tiny_pair, request):
    """Puts a pair into a bucket of its own, for GDAL remembers objects; gives the addresses of its images."""
    bucket = f"bucket-{request.node.name.translate(dict.fromkeys(map(ord, '[]/:_-'), ''))}".lower()

    def put(kind):
        images = tiny_pair()
        for image in images:
            store.objects[f"/{bucket}/a/{image.name}"] = image.read_bytes()
        return [f"{kind}{bucket}/a/{image.name}" for image in images]

    return put


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_is_told_by_its_size_and_etag(store, kind):
    store.objects["/bucket/a.tif"] = b"content"
    said = headers_of(f"{kind}bucket/a.tif")
    assert (said["etag"], said["content-range"]) == ('"9a0364b9e99bb480dd25e1f0284c8555"', "bytes 0-6/7")
    assert headers_of(f"{kind}bucket/b.tif") == {}


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_images_in_a_store_serve_one_map(pair, tiny_model, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 8)
    made = {"place": str(tmp_path / "tiles"), "device": "cpu"}
    with Scene.open(*pair(kind)) as scene:
        for part in ("2/2", "1/2"):
            predict_part(tiny_model, scene, Part.read(part), memory=2**31, **made)
        finish(tiny_model, scene, out=tmp_path / "map.tif", **made)
        predict(tiny_model, scene, out=tmp_path / "whole.tif", device="cpu")
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_a_part_of_an_object_that_was_changed_is_refused(store, pair, tiny_model, tmp_path):
    images, made = pair("/vsis3/"), {"place": str(tmp_path / "tiles"), "device": "cpu", "memory": 2**31}
    with Scene.open(*images) as scene:
        predict_part(tiny_model, scene, Part(1, 2), **made)
    key = images[0].removeprefix("/vsis3")
    store.objects[key] = store.objects[key][:-1] + bytes([store.objects[key][-1] ^ 1])
    with Scene.open(*images) as scene, pytest.raises(InputError, match="are of other images"):
        predict_part(tiny_model, scene, Part(2, 2), **made)


def test_an_object_that_nobody_may_ask_about_is_named_in_a_line(store, pair, tiny_model, tmp_path):
    images = pair("/vsis3/")
    with Scene.open(*images) as scene:
        store.objects.clear()
        with pytest.raises(InputError, match=r"^/vsis3/\S+/a/ms.tif cannot be asked for its version; check the addr"):
            predict_part(tiny_model, scene, Part(1, 2), place=str(tmp_path / "tiles"), memory=2**31, device="cpu")


# ---- tiles


@pytest.fixture
def s3(store):
    """Also forgets connections of earlier tests."""
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()
    return store


def test_tiles_in_a_store_make_the_map_and_are_removed(s3, tiny_model, tiny_scene, tmp_path, monkeypatch):
    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 16)
    made = {"place": "s3://bucket/of/tiles", "device": "cpu"}
    for part in ("3/3", "1/3", "2/3", "1/3"):
        predict_part(tiny_model, tiny_scene, Part.read(part), memory=2**31, **made)
    assert len(s3.objects) == 2 * 7  # six tiles and the head, each with its mark
    s3.objects["/bucket/of/others"] = b"stays"
    finish(tiny_model, tiny_scene, out=tmp_path / "map.tif", **made)
    predict(tiny_model, tiny_scene, out=tmp_path / "whole.tif", device="cpu")
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert set(s3.objects) == {"/bucket/of/others"}


def test_the_first_head_stays_though_two_write_it(s3, monkeypatch):
    first, second = store_at("s3://bucket/tiles"), store_at("s3://bucket/tiles")
    first.create("head.json", b"first")
    monkeypatch.setattr(second, "get", lambda name: None)  # it has looked before the first wrote
    second.create("head.json", b"second")
    assert first.get("head.json") == b"first"


def test_a_store_that_may_not_be_written_is_told_in_one_line(s3):
    s3.closed.add("bucket")
    with pytest.raises(
        InputError,
        match=r"^tiles at s3://bucket/tiles cannot be read or written: [^\n]+; check --tiles and its rights$",
    ):
        store_at("s3://bucket/tiles").put("head.json", b"{}")
    assert s3.objects == {}
