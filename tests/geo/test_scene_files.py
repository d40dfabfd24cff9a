"""scenes.toml: paths beside the file, names of their own, one line for what is wrong."""

import pytest

from adcdnet.errors import InputError
from adcdnet.geo.scene_files import read_scenes

ONE = '[[scene]]\nms = "here/ms.tif"\npan = "/far/pan.tif"\nlabels = "here/l.gpkg"\n'


def write(tmp_path, text: str):
    path = tmp_path / "scenes.toml"
    path.write_text(text)
    return path


def test_paths_are_beside_the_file_unless_absolute(tmp_path):
    (scene,) = read_scenes(write(tmp_path, 'classes = "c.csv"\n' + ONE))
    assert (scene.ms, str(scene.pan), scene.classes) == (tmp_path / "here/ms.tif", "/far/pan.tif", tmp_path / "c.csv")
    assert scene.name == "here"


def test_a_scene_may_have_a_class_table_of_its_own(tmp_path):
    text = 'classes = "c.csv"\n' + ONE + 'classes = "own.csv"\n' + ONE + 'name = "second"\n'
    first, second = read_scenes(write(tmp_path, text))
    assert (first.classes, second.classes) == (tmp_path / "own.csv", tmp_path / "c.csv")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("scene = 3", "each \\[\\[scene\\]\\] needs ms, pan and labels"),
        ('[[scene]]\nms = "m"\npan = "p"\n', "scene '.*' has no labels"),
        (ONE + "colour = 3\n", "scene.0.colour"),
        ("scene = []", "names no scene"),
        (ONE + ONE, "each by a name of its own"),
        ("[[scene", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, text, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        read_scenes(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_and_a_layer_are_read(tmp_path):
    (scene,) = read_scenes(write(tmp_path, "\ufeff" + ONE + 'column = "c"\nlayer = "train"\n'))
    assert (scene.column, scene.layer) == ("c", "train")


def test_labels_may_be_several_files_and_say_how_they_are_read(tmp_path):
    text = ONE.replace('"here/l.gpkg"', '["2019.gpkg", "2020.gpkg"]') + "min_share = 0.7\n"
    (scene,) = read_scenes(write(tmp_path, text))
    assert scene.labels == (tmp_path / "2019.gpkg", tmp_path / "2020.gpkg")
    assert scene.min_share == 0.7
    assert scene.files()[2:] == list(scene.labels)
    with pytest.raises(InputError, match=r"scene\.0\.labels"):
        read_scenes(write(tmp_path, ONE.replace('"here/l.gpkg"', "[]")))


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_scenes(tmp_path / "none.toml")


def test_more_scenes_are_mapped_than_trained_on(tmp_path):
    path = tmp_path / "scenes.toml"
    path.write_text("".join(f'[[scene]]\nname = "{k}"\nms = "ms.tif"\npan = "pan.tif"\n' for k in range(1001)))
    assert len(read_scenes(path, labelled=False)) == 1001
    with pytest.raises(InputError, match="names 1001 scenes, 1000 at most are read"):
        read_scenes(path)
