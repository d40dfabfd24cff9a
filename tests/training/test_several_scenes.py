"""Several scenes from the command line: trained together, mapped one by one, a failing one does not stop the others."""

import numpy as np
import pytest
import rasterio

from adcdnet.config import TrainConfig
from conftest import QUICK

pytestmark = pytest.mark.usefixtures("few_trials")


@pytest.fixture
def scenes(labelled_pair, tmp_path):
    """The pair, and it again elsewhere, as a file of scenes."""
    for name in ("ms", "pan", "labels"):
        with rasterio.open(getattr(labelled_pair, name)) as source:
            profile = source.profile | {"transform": rasterio.Affine.translation(90_000, 0) @ source.transform}
            with rasterio.open(tmp_path / f"{name}.tif", "w", **profile) as copy:
                copy.write(source.read())
    path = tmp_path / "scenes.toml"
    here = "\n".join(f'{name} = "{getattr(labelled_pair, name)}"' for name in ("ms", "pan", "labels"))
    there = "\n".join(f'{name} = "{name}.tif"' for name in ("ms", "pan", "labels"))
    path.write_text(
        f'classes = "{labelled_pair.classes}"\n[[scene]]\nname = "here"\n{here}\n'
        f'[[scene]]\nname = "there"\npart = "test"\n{there}\n'
    )
    return path


def test_train_and_map_several(call, scenes, tmp_path):
    config = tmp_path / "quick.toml"
    config.write_text(TrainConfig.of_profile("patch").replace(QUICK).to_toml())
    run, maps = tmp_path / "run", tmp_path / "maps"
    code, out, err = call("train", scenes, "--out", run, "--config", config)
    assert code == 0, err
    assert err.startswith("note: the training needs at least ")
    with rasterio.open(tmp_path / "labels.tif") as dataset:
        labelled = int((dataset.read() > 0).sum())
    assert f"  there: unused 22, test {labelled - 22}" in out  # 22 of them in the invalid corner
    assert "blocks of" not in out
    (tmp_path / "pan.tif").write_bytes(b"no raster")
    code, out, err = call("predict", run, scenes, "--out", maps)
    assert code == 1
    assert {path.name for path in maps.iterdir()} == {
        *("here.tif", "here.tif.aux.xml", "here.qml"),
        *("summary.json", ".scenes"),
    }
    assert "error: there: " in err
    assert "1 of 2 scenes could not be mapped" in err
    with rasterio.open(maps / "here.tif") as dataset:
        assert set(np.unique(dataset.read())) <= {0, 1, 2, 4}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "--out", "r"), "name a file of scenes, or --ms"),
        (("train", "s.toml", "--ms", "m.tif", "--out", "r"), "name a file of scenes, or --ms"),
        (("train", "--ms", "m.tif", "--out", "r"), "needs all of --ms, --pan and --labels"),
        (("train", "s.toml", "--column", "c", "--out", "r"), "masks and splits stand in the file of scenes"),
        (("train", "s.toml", "--layer", "l", "--out", "r"), "masks and splits stand in the file of scenes"),
    ],
)
def test_one_way_to_name_what_is_trained_on(call, arguments, says):
    code, _, err = call(*arguments)
    assert code == 2
    assert says in " ".join(err.replace("│", " ").split())


def test_a_file_in_the_place_of_the_folder_of_maps(call, scenes, quick_run, tmp_path):
    (tmp_path / "maps").write_text("")
    code, _, err = call("predict", quick_run.folder, scenes, "--out", tmp_path / "maps")
    assert code == 1
    assert "is no folder for the maps" in err


def test_chosen_bands_are_asked_for_again_and_a_mask_is_no_class(call, labelled_pair, tmp_path):
    with rasterio.open(labelled_pair.ms) as source:
        mask = np.zeros(source.shape, np.uint8)
        mask[20:30, 40:44] = 1
        with rasterio.open(tmp_path / "mask.tif", "w", **source.profile | {"count": 1, "dtype": "uint8"}) as file:
            file.write(mask, 1)
    config = tmp_path / "quick.toml"
    config.write_text(TrainConfig.of_profile("patch").replace(QUICK).to_toml())
    pair = "--ms", labelled_pair.ms, "--pan", labelled_pair.pan, "--mask", tmp_path / "mask.tif"
    labels = "--labels", labelled_pair.labels
    run, out = tmp_path / "run", tmp_path / "map.tif"
    code, _, err = call("train", *pair, *labels, "--ms-bands", "4,1", "--out", run, "--config", config)
    assert code == 0, err
    assert err.startswith("note: the training needs at least ")
    assert call("predict", run, *pair, "--out", out)[0] == 0
    with rasterio.open(out) as dataset:
        values = dataset.read(1)
    assert (values[mask == 1] == 0).all()
    assert (values == 0).sum() == mask.sum() + 24  # and the invalid corner
    code, _, err = call("predict", run, *pair, "--ms-bands", "1", "--out", out)
    assert code == 1
    assert "the scene has 1 MS bands, the model was trained with 2" in err
