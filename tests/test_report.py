"""The report: a page that is whole, harmless and can be read, and its figures and pictures beside it."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from data_prep.arrays import write_matrix
from pipeline import factorize
from pipeline.factors import open_factors
from pipeline.report.page import _number, _percent
from pipeline.report.writing import _write, write_report
from tests.commands import nmf_batch
from tests.conftest import save_png
from tests.test_images import prep

HOSTILE = "<script>alert(1)</script>.png"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def store_of_images(tmp_path_factory):
    """30 images of 9 × 7 with transparency, one of them with a hostile name, factorized with d = 4 and 6."""
    home, rng = tmp_path_factory.mktemp("report"), np.random.default_rng(1)
    parts = rng.random((4, 9, 7, 4)) * (rng.random((4, 9, 7, 1)) < 0.5)
    for k in range(30):
        name = f'a"onerror="alert(1)" {k}.png' if k else HOSTILE.replace("/", "∕")
        save_png(home / "images" / name, np.uint8(np.tensordot(rng.dirichlet(np.ones(4)), parts, 1) * 255))
    save_png(home / "images" / "<script>alert(1)<" / "script>.png", np.uint8(parts[0] * 255))
    path = prep(home / "images", home / "images.zarr").path
    for d in (4, 6):
        factorize(path, d, max_iter=20)
    return home / "images.zarr"


@pytest.fixture(scope="module")
def page(store_of_images, tmp_path_factory):
    """The report on d = 4."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(open_factors(store_of_images, "d4"), out, out.parent / "sheets")
    return out


class Tags(HTMLParser):
    """Tags of a page with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def tags(page, name):
    return [attributes for tag, attributes in Tags(page.read_text(encoding="utf-8")).found if tag == name]


def test_names_are_text_whatever_they_hold(page):
    assert HOSTILE in json.dumps(json.loads(page.with_suffix(".json").read_text()))
    assert "&lt;script&gt;" in page.read_text(encoding="utf-8")
    assert not tags(page, "script")
    assert not any(name.startswith("on") for image in tags(page, "img") for name in image)


def test_all_pictures_are_in_the_page_and_say_what_they_show(page):
    images = tags(page, "img")
    assert len(images) > 30
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in images)


def test_nothing_may_be_loaded_from_elsewhere(page):
    (policy,) = [one["content"] for one in tags(page, "meta") if "http-equiv" in one]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert all(link["href"].startswith(("#", "data:")) for link in tags(page, "a") + tags(page, "link"))


def look(browser, page, width, scheme):
    """What a browser makes of a page: messages, requests and pictures that fail, its width and its background."""
    tab, heard = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme), []
    for event in ("console", "pageerror", "dialog"):
        tab.on(event, lambda what: heard.append(str(what)))
    tab.on("request", lambda request: None if request.url.startswith("data:") else heard.append(request.url))
    tab.goto(page.as_uri())
    heard += tab.evaluate("[...document.images].filter(one => !one.naturalWidth).map(one => one.alt)")
    width = tab.evaluate("document.documentElement.scrollWidth")
    return heard, width, tab.evaluate("getComputedStyle(document.body).backgroundColor")


@pytest.fixture(scope="module")
def seen(page):
    """The page on a desk by day, and on a phone by night."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield look(browser, page, 1280, "light"), look(browser, page, 390, "dark")
        browser.close()


def test_a_browser_shows_it_without_an_error_or_a_request(page, seen):
    assert [heard for heard, _, _ in seen] == [[page.as_uri()]] * 2


def test_it_is_as_wide_as_the_screen_and_as_dark_as_its_owner_has_it(seen):
    assert [width for _, width, _ in seen] == [1280, 390]
    assert [background for _, _, background in seen] == ["rgb(251, 251, 250)", "rgb(20, 23, 27)"]


def test_charts_have_no_background_and_the_colours_of_their_reader(page):
    charts = [image["src"] for image in tags(page, "img") if image["src"].startswith("data:image/svg+xml")]
    assert len(charts) == 7
    for chart in charts:
        text = base64.b64decode(chart.partition(",")[2]).decode()
        background = text[text.index('id="patch_1"') :].partition("</g>")[0]
        assert "fill: none" in background or "opacity: 0" in background
        assert {"var(--ink)", "prefers-color-scheme:dark"} <= set(re.findall(r"var\(--ink\)|prefers-[a-z:-]+", text))


def test_the_figures_beside_it_are_those_of_the_factorization(page, store_of_images):
    told = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    about = open_factors(store_of_images, "d4").attributes
    assert told["result"]["relative_error"] == about["relative_error"]
    assert told["provenance"]["fingerprint"] == about["fingerprint"]
    assert [len(kind) for kind in told["reconstructions"].values()] == [4, 4, 4, 4]


def test_sheets_are_pictures(page):
    sizes = {file.stem: np.asarray(Image.open(file)).shape[:2] for file in (page.parent / "sheets").iterdir()}
    assert {"basis", "panel", "reconstructions", "weights", "errors", "cosines", "correlations"} < sizes.keys()
    assert {"progress_iteration", "progress_passes", "progress_seconds"} < sizes.keys()
    assert min(min(size) for size in sizes.values()) > 20


def test_rows_with_names_are_told_in_tables(tmp_path, rng):
    counts = rng.poisson(rng.random((12, 2)) @ rng.random((2, 30)) * 9)
    write_matrix(tmp_path / "s.zarr", counts, features=[f"<b>word{i}" for i in range(12)])
    write_report(factorize(tmp_path / "s.zarr", 2, max_iter=10).factors, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;word3" in text
    assert "<b>word" not in text
    assert len(tags(tmp_path / "r.html", "table")) > 2 + 16


def test_a_matrix_of_zeros_has_a_report(tmp_path):
    write_matrix(tmp_path / "s.zarr", np.zeros((5, 6), np.float32))
    told = write_report(factorize(tmp_path / "s.zarr", 2, max_iter=3).factors, tmp_path / "r.html")
    assert told["errors"]["examined"] == 0
    assert tags(tmp_path / "r.html", "table")


def test_black_images_have_a_report_and_sheets(tmp_path):
    np.save(tmp_path / "black.npy", np.zeros((5, 4, 4), np.uint8))
    factors = factorize(prep(tmp_path / "black.npy", tmp_path / "s.zarr").path, 2, max_iter=2).factors
    told = write_report(factors, tmp_path / "r.html", tmp_path / "sheets")
    assert told["errors"]["examined"] == 0
    assert (tmp_path / "sheets" / "basis.png").exists()


def test_a_page_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    _write(tmp_path / "report.html", "before")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        _write(tmp_path / "report.html", "after")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["before"]


def report(*arguments):
    done = nmf_batch("report", *arguments)
    return done.returncode, done.stdout + done.stderr


def test_the_command_says_where_the_page_is_which_is_the_same_as_before(page, store_of_images, tmp_path):
    code, said = report("--zarr", store_of_images, "--name", "d4", "--out", tmp_path / "r.html")
    assert code == 0
    assert said.startswith(f"{tmp_path / 'r.html'}: d4 of {store_of_images}")
    assert (tmp_path / "r.html").read_bytes() == page.read_bytes()


@pytest.mark.parametrize(
    ("more", "words"),
    [(["--out", "r.html"], "d4, d6; say which with --name"), (["--name", "d4", "--out", "r.json"], "name it .html")],
)
def test_what_cannot_be_meant_is_a_mistake(store_of_images, more, words):
    code, said = report("--zarr", store_of_images, *more)
    assert (code, words in said) == (2, True)


def test_without_what_draws_it_the_command_says_what_to_install(store_of_images, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.commands.report.find_spec", lambda name: None)
    code, said = report("--zarr", store_of_images, "--name", "d4", "--out", tmp_path / "r.html")
    assert (code, "pip install 'nmf-batch[plots]'" in said) == (2, True)


def test_numbers_are_written_to_be_read():
    assert [_number(value) for value in (0.157912, 3.5, 1234567, 2.0)] == ["0.1579", "3.5", "1,234,567", "2"]
    assert [_percent(share) for share in (0, 0.00012, 0.0235, 1)] == ["0.0\xa0%", "0.01\xa0%", "2.4\xa0%", "100.0\xa0%"]
