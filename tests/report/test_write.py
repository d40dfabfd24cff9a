"""The report of a run: what it says, that it is whole by itself, and what it refuses."""

import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import rasterio

import adcdnet as ad
from adcdnet.cli import main
from adcdnet.geo.raster import read_band
from adcdnet.report import findings
from adcdnet.report import write as write_module
from conftest import QUICK, write_tif_file

NAMES = ("</script><b onclick=\"x('1')\">&amp; $a$", "水体 – 湖", "long " * 40)  # the last one of 200 characters
pytestmark = pytest.mark.usefixtures("few_trials")


class Page(HTMLParser):
    """What a browser would make of a page: tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.inside = [], "", ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def run(labelled_pair, few_trials, tmp_path_factory):
    """A run in a folder of an odd name, of classes of odd names, with its map and probabilities."""
    folder = tmp_path_factory.mktemp("page") / "a <b> & 'c' \"d\""
    table = ad.ClassTable((1, 2, 4), tuple(name.strip() for name in NAMES), ("#d62828", "#1b5e20", "#0000ff"))
    with labelled_pair.open() as scene:
        labels = ad.read_labels(labelled_pair.labels, scene.grid, classes=table)
        made = ad.train(
            scene, labels, out=folder, config=ad.TrainConfig.of_profile("patch").replace(QUICK), device="cpu"
        )
        ad.predict(made, scene, out=folder / "map.tif", probabilities=folder / "probabilities.tif")
    return made


@pytest.fixture(scope="module")
def page(run):
    return Page(ad.write_report(run))


def test_the_page_is_whole_by_itself(page, run):
    for tag, attribute in (("img", "src"), ("link", "href")):
        assert all(attrs[attribute].startswith("data:") for attrs in page.all(tag)), tag
    assert all(attrs["href"].startswith("#") for attrs in page.all("a"))
    assert all("src" not in attrs for attrs in page.all("script"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for attrs in page.all("a")} <= set(ids)
    assert all(attrs["alt"] for attrs in page.all("img"))
    assert all(attrs["aria-label"] for _, attrs in page.tags if attrs.get("role") == "img")
    assert len(page.all("h1")) == 1
    assert (run.folder / "report.html").stat().st_size < 3e6
    drawings = {path.name for path in (run.folder / "report").iterdir()}
    assert {"confusion.svg", "classes.svg", "reliability.svg", "kappa.svg", "tokens_ms.svg"} <= drawings


def test_no_script_but_its_own_may_run_in_it(page, run):
    """By the policy that it gives to browsers: the hash of the one script, and nothing from anywhere else."""
    (policy,) = (a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    text = (run.folder / "report.html").read_text("utf-8")
    assert text.index("Content-Security-Policy") < text.index("<script")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{digest}'",
    }
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_its_script_makes_no_markup_of_texts():
    script = Path(write_module.__file__).with_name("viewer.js").read_text("utf-8")
    makes = "innerHTML|outerHTML|insertAdjacentHTML|document.write|createContextualFragment|eval|Function|srcdoc|import"
    assert re.findall(rf"\b({makes})\b", script) == []


def test_what_it_shows_lies_beside_it_as_files(page, run):
    beside = {path.name: path for path in (run.folder / "report").iterdir()}
    for name in ("map", "ms", "pan", "probability", "entropy"):
        (source,) = [attrs["src"] for attrs in page.all("img") if attrs.get("id") == f"layer-{name}"]
        assert base64.b64encode(beside[f"{name}.png"].read_bytes()).decode() == source.split(",")[1]
    assert {"split.png", "dia_mask_ms.png", "prior_mask_pan.png"} <= set(beside)


def test_heads_are_compared_with_the_main_head(page):
    cells = re.findall(r"(MS|PAN) head, which sees \1 alone\s*(\d\.\d{3})\s*(\d\.\d{3})", page.text)
    assert [sensor for sensor, *_ in cells] == ["MS", "PAN"]
    assert re.search(r"main head, which sees both\s*\d\.\d{3}\s*1\.000", page.text)


def test_odd_names_stay_text(page, run):
    assert len(page.all("script")) == 2
    assert not any("onclick" in attrs for _, attrs in page.tags)
    for name in NAMES:
        assert name.strip() in page.text
    assert run.folder.name in page.text
    data = re.search(r'id="data">(.*?)</script>', (run.folder / "report.html").read_text("utf-8"))[1]
    assert json.loads(data)["names"] == [name.strip() for name in NAMES]


def test_its_figures_are_those_of_evaluate(page, run, labelled_pair):
    where = {"split": run.folder / "split.tif", "part": "test"}
    found = ad.evaluate(run.folder / "map.tif", labelled_pair.labels, **where)
    assert f"{found.scores.oa:.1%} are mapped right: overall accuracy {found.scores.oa:.3f}" in page.text
    assert f"kappa {found.scores.kappa:.3f}" in page.text
    mapped = read_band(run.folder / "map.tif")[0]
    for value in (1, 2, 4):
        hectares = (mapped == value).sum() * 12 * 12 / 1e4
        assert f"{hectares:.2f} ha" in page.text
    assert "no test pixel has a training pixel within the width of the guard band" in page.text
    assert "were in sight of the network while it made this map" in page.text  # no mask hid them


def test_hashes_and_settings_are_those_of_the_files(page, run, labelled_pair):
    import hashlib

    for path in (labelled_pair.ms, labelled_pair.pan, labelled_pair.labels, run.folder / "model.safetensors"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in page.text
    assert (run.folder / "config.toml").read_text() in page.text


def test_two_colours_too_alike_are_warned_of(page):
    assert "(#d62828) and 水体 – 湖 (#1b5e20) are hard to tell apart for readers without red cones" in page.text


@pytest.fixture
def copy(run, labelled_pair, tmp_path):
    """The run in a folder of its own, with the images it was trained on beside it, gone from their old place."""
    folder = shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("report*"))
    inputs = json.loads((folder / "inputs.json").read_text())
    for role in ("ms", "pan", "labels"):
        shutil.copy(inputs[role]["path"], folder)
        inputs[role]["path"] = f"/gone/{role}.tif"
    (folder / "inputs.json").write_text(json.dumps(inputs))
    return folder


def test_images_are_found_beside_the_run_and_changed_ones_told(copy):
    assert "differs" not in Page(ad.write_report(copy)).text
    with rasterio.open(copy / "ms.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.update_tags(touched="yes")
    text = Page(ad.write_report(copy)).text
    assert "ms.tif is not the file that the run was trained with: its SHA-256 differs" in text
    assert "nothing is said of accuracy" in text  # the labels of training lie on its own scene


def test_it_says_how_an_unusual_map_was_made_and_what_no_label_judges(copy, labelled_pair):
    with rasterio.open(copy / "map.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.update_tags(ADCDNET_PRIOR="0.25 0.25 0.5", ADCDNET_TAU="0.5", ADCDNET_SIEVED="7")
    labels, _, _ = read_band(labelled_pair.labels)
    with rasterio.open(copy / "split.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        part = dataset.read(1)
        part[(part == 3) & (labels == 2)] = 0
        dataset.write(part, 1)
    found = Page(ad.write_report(copy)).text
    names = [name.strip() for name in NAMES]
    assert f"with classes expected as {names[0]} 25.0%, {names[1]} 25.0%, {names[2]} 50.0%" in found
    assert "the operating point tau 0.5; patches of fewer than 7 pixels given to their largest neighbour." in found
    assert f"no pixel that judges the map is of {names[1]}: nothing is said of how well" in found


def test_it_says_how_accurate_answers_are_inside_and_outside_the_area_of_applicability(copy):
    assert "Where to trust it" not in Page(ad.write_report(copy)).text  # of one split nothing is known
    told = {
        "inside": {"pixels": 1234, "oa": 0.912, "interval": [0.881, 0.934]},
        "outside": {"pixels": 57, "oa": 0.614, "interval": None},
        "reliability": [{"expected": 0.1, "wrong": 0.2, "pixels": 645}, {"expected": 0.3, "wrong": 0.4, "pixels": 646}],
    }
    model = ad.Model.load(copy)
    replace(model, record=replace(model.record, applicability=told)).save(copy / "model.safetensors")
    text = Page(ad.write_report(copy)).text
    assert re.search(r"inside\s*1\u202f234\s*0\.912 \[0\.881, 0\.934\]\s*–", text)
    assert re.search(r"outside\s*57\s*0\.614\s*–", text)
    assert "share of pixels that are wrong" in (copy / "report" / "expected_error.svg").read_text()


def test_without_images_it_says_which_option_names_them(copy):
    (copy / "pan.tif").unlink()
    with pytest.raises(ad.InputError, match=r"no PAN image .*/gone/pan.tif is gone; name it with --pan"):
        ad.write_report(copy)
    (copy / "inputs.json").unlink()
    with pytest.raises(ad.InputError, match=r"no MS image .* does not say which .*--ms"):
        ad.write_report(copy)


def test_a_map_is_made_where_there_is_none(copy):
    for name in ("map.tif", "probabilities.tif"):
        (copy / name).unlink()
    text = Page(ad.write_report(copy)).text
    assert "one was made for this page and not kept" in text
    assert not (copy / "map.tif").exists()


def test_a_large_scene_needs_a_map_and_does_without_probabilities(copy, monkeypatch):
    monkeypatch.setattr(findings, "PREDICTED", 100)
    (copy / "probabilities.tif").unlink()
    found = Page(ad.write_report(copy))
    assert "nothing is said of how sure the map is" in found.text
    assert not any(attrs.get("id") == "layer-entropy" for attrs in found.all("img"))
    (copy / "map.tif").unlink()
    with pytest.raises(ad.InputError, match=r"is large .*make one with adcdnet predict and name it with --map"):
        ad.write_report(copy)


def test_maps_of_other_ground_or_other_classes_are_refused(copy):
    mapped, _, _ = read_band(copy / "map.tif")
    write_tif_file(copy / "map.tif", mapped[:-1])
    with pytest.raises(ad.InputError, match="does not lie on the map"):
        ad.write_report(copy)
    write_tif_file(copy / "map.tif", np.where(mapped > 0, 7, mapped))
    with pytest.raises(ad.InputError, match=r"other values than this run.s classes \[1, 2, 4\]"):
        ad.write_report(copy)
    assert not (copy / "report.html").exists()


def test_what_cannot_be_a_page(run, tmp_path):
    with pytest.raises(ad.InputError, match=r"must end in \.html"):
        ad.write_report(run, out=tmp_path / "report.pdf")
    with pytest.raises(ad.InputError, match="is not a run"):
        ad.write_report(tmp_path)


def test_the_command(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["adcdnet", "report", str(run.folder), "--out", str(tmp_path / "x.html")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    assert capsys.readouterr().out.startswith(f"report: {tmp_path}/x.html (")
    assert (tmp_path / "x.html").exists()


def test_a_run_shows_itself_in_a_notebook(run):
    shown = run._repr_html_()
    assert "水体" in shown
    assert "<b>" not in shown
    assert "validation kappa" in shown
