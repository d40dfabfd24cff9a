"""The report in a real browser: the viewer reads and shows what the files hold, and nothing leaves the page."""

import io
import shutil

import numpy as np
import pytest
import rasterio
from PIL import Image

import adcdnet as ad
from adcdnet.geo.raster import read_band

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("few_trials")]
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


@pytest.fixture(scope="module")
def folder(quick_run, labelled_pair, tmp_path_factory):
    """A run with its map, probabilities and report."""
    folder = shutil.copytree(quick_run.folder, tmp_path_factory.mktemp("browser") / "run")
    with labelled_pair.open() as scene:
        ad.predict(folder, scene, out=folder / "map.tif", probabilities=folder / "probabilities.tif")
    ad.write_report(folder)
    return folder


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium here; install it, e.g. with apt-get install chromium")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, folder):
    """open_page(**context options) -> the report; afterwards nothing may have been complained of or asked for."""
    contexts, complaints, requests = [], [], []

    def open_one(**options):
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((folder / "report.html").as_uri())
        page.wait_for_selector("#viewer[data-ready]")
        page.locator("#canvas").scroll_into_view_if_needed()
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [(folder / "report.html").as_uri()] * len(
        contexts
    )


def spot(page, row, col, height=83, width=71):
    """Where the middle of an MS pixel lies in the window of the browser, with the whole scene shown."""
    page.locator("#canvas").scroll_into_view_if_needed()  # a button that took the focus may have scrolled it away
    box = page.locator("#canvas").bounding_box()
    scale = min(box["width"] / width, box["height"] / height)
    x = box["x"] + box["width"] / 2 + (col + 0.5 - width / 2) * scale
    return x, box["y"] + box["height"] / 2 + (row + 0.5 - height / 2) * scale


def colour_at(page, row, col):
    """[r, g, b] that the reader sees there."""
    x, y = spot(page, row, col)
    picture = page.screenshot(clip={"x": round(x), "y": round(y), "width": 1, "height": 1})
    return list(Image.open(io.BytesIO(picture)).convert("RGB").getpixel((0, 0)))


def slide(page, value):
    page.locator("#wipe").evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", value)


COLORS = {1: [0, 255, 0], 2: [128, 128, 128], 4: [0, 0, 255]}


def test_the_pointer_reads_what_the_files_hold(open_page, folder):
    page = open_page()
    mapped = read_band(folder / "map.tif")[0]
    with rasterio.open(folder / "probabilities.tif") as dataset:
        p, names = dataset.read(), dataset.descriptions
    for row, col in ((40, 20), (7, 60), (80, 3)):
        page.mouse.move(*spot(page, row, col))
        said = page.locator("#readout").inner_text()
        winner = names[p[:, row, col].argmax()]
        assert said.startswith(f"row {row}, column {col} (")
        assert f"map: {({1: 'meadow', 2: 'rock', 4: 'water'})[mapped[row, col]]}" in said
        assert f"{winner} {100 * p[:, row, col].max():.0f} %" in said or abs(100 * p[:, row, col].max() % 1 - 0.5) < 0.3
    page.mouse.move(*spot(page, 1, 1))
    assert "not mapped" in page.locator("#readout").inner_text()  # the invalid corner


def test_the_slider_wipes_between_image_and_map(open_page, folder):
    page = open_page()
    mapped = read_band(folder / "map.tif")[0]
    row, col = 40, 20
    slide(page, 0)
    assert colour_at(page, row, col) == COLORS[mapped[row, col]]
    slide(page, 1000)
    image = colour_at(page, row, col)
    assert image != COLORS[mapped[row, col]]
    page.locator("#under").select_option("pan")
    grey = colour_at(page, row, col)
    assert grey != image
    assert len(set(grey)) == 1
    slide(page, 0)
    page.locator("#over").select_option("entropy")
    assert colour_at(page, row, col) not in (COLORS[mapped[row, col]], grey)


def test_a_class_that_is_switched_off_shows_the_image(open_page, folder):
    page = open_page()
    mapped = read_band(folder / "map.tif")[0]
    slide(page, 0)
    value = int(mapped[40, 20])
    others = np.argwhere((mapped > 0) & (mapped != value))
    button = page.locator(".toggle").nth([1, 2, 4].index(value))
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert colour_at(page, 40, 20) != COLORS[value]
    if len(others):
        assert colour_at(page, *others[0].tolist()) == COLORS[mapped[tuple(others[0])]]
    button.click()
    assert colour_at(page, 40, 20) == COLORS[value]


def test_the_keyboard_moves_the_cross_and_zooms(open_page):
    page = open_page()
    page.locator("#canvas").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#readout").inner_text().startswith("row 41, column 36")
    page.keyboard.press("Shift+ArrowUp")
    assert page.locator("#readout").inner_text().startswith("row 31, column 36")
    before = colour_at(page, 5, 10)
    for _ in range(4):
        page.keyboard.press("+")
    zoomed = page.locator("#canvas").evaluate("e => e.style.touchAction")
    assert zoomed == "none"
    page.keyboard.press("0")
    assert page.locator("#canvas").evaluate("e => e.style.touchAction") == "pan-y"
    assert colour_at(page, 5, 10) == before


def test_side_by_side_shows_both(open_page, folder):
    page = open_page()
    page.locator("#beside").click()
    page.locator("#canvas").scroll_into_view_if_needed()
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + box["height"] / 2)
    left = page.locator("#readout").inner_text()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + box["height"] / 2)
    assert page.locator("#readout").inner_text() == left
    assert left.startswith("row 41, column 35")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_its_text_has_contrast(open_page, scheme):
    page = open_page(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    colours = page.evaluate(
        """['body', 'caption', 'a', '.toggle', 'summary', '.hint'].map((q) => {
          let paper = document.querySelector(q);
          const ink = getComputedStyle(paper).color;
          while (getComputedStyle(paper).backgroundColor === 'rgba(0, 0, 0, 0)') paper = paper.parentElement;
          return [ink, getComputedStyle(paper).backgroundColor];
        })"""
    )
    assert len(colours) == 6
    for pair in colours:
        light, dark = sorted((luminance(text) for text in pair), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, pair  # WCAG 2.2, 1.4.3 AA


def luminance(colour):
    """Relative luminance of WCAG from "rgb(r, g, b)"."""
    coded = np.array([float(v) for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_pictures_of_a_tall_scene_fit_the_screen(open_page):
    page = open_page()
    width = "document.getElementById('layer-map').getBoundingClientRect().width"
    shown = page.evaluate(width)
    page.evaluate("document.querySelector('main').style.setProperty('--shape', 0.1)")
    assert page.evaluate(width) == pytest.approx(0.1 * min(0.85 * 900, 640), abs=1)
    page.emulate_media(media="print")
    assert page.evaluate(width) == pytest.approx(0.1 * 100 / 25.4 * 96, abs=1)
    assert shown > 200


def test_tables_that_scroll_are_reached_by_the_keyboard(open_page):
    page = open_page(viewport={"width": 360, "height": 740})
    table = page.locator("#accuracy .wide").first
    table.focus()
    page.keyboard.press("ArrowRight")
    for _ in range(50):  # scrolling is animated; the page's policy lets nothing wait for it in the page itself
        if table.evaluate("element => element.scrollLeft") > 0:
            break
        page.wait_for_timeout(100)
    assert table.evaluate("element => element.scrollLeft") > 0


def test_it_prints_on_a4(open_page):
    page = open_page()
    page.emulate_media(media="print")
    assert not page.locator("#viewer").is_visible()
    assert page.locator("#layer-map").is_visible()
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
