"""The contact sheet in a real browser: keys, marks, the download, and names that are scripts."""

import os
import shutil

import pandas as pd
import pytest
from PIL import Image
from skimage import data

from mien.audit.data.label_errors import COLUMNS
from mien.base.ledger import Ledger
from mien.base.table import check_faces
from mien.data.corrections import apply_corrections
from mien.reports.label_review import write_review

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("MIEN_CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (or named by MIEN_CHROMIUM)")

NASTY = '</script><img src=x onerror="document.title=1">, "a"\'.jpg'
NAMES = ["one.jpg", NASTY, "three.jpg", "=4.jpg"]


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    """A review of four genders and one age; the second face has a script for a name, the last no picture."""
    root = tmp_path_factory.mktemp("review")
    Image.fromarray(data.astronaut()).crop((160, 20, 300, 160)).save(root / "face.jpg")
    paths = ["face.jpg", "face.jpg", "face.jpg", "nothing.jpg"]
    faces = check_faces(pd.DataFrame({"face": NAMES, "path": paths, "gender": "male", "age": [20, 30, 40, 50]}))
    rows = [
        ("gender", at + 1, name, path, "male", "female", 0.1, True, 0.1, 0.9, 1)
        for at, (name, path) in enumerate(zip(NAMES, paths, strict=True))
    ]
    rows.append(("age", 1, "one.jpg", "face.jpg", "20", "46", 0.2, True, None, None, 1))
    suggestions = pd.DataFrame(rows, columns=list(COLUMNS))
    assert write_review(faces, suggestions, root, root / "review.html") == 5
    assert write_review(faces, suggestions, root, root / "short.html", sheet=2) == 3
    return root, faces


@pytest.fixture
def page(sheet):
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_context(accept_downloads=True).new_page()
        requests, mistakes = [], []
        opened.on("request", lambda request: requests.append(request.url))
        opened.on("pageerror", lambda error: mistakes.append(str(error)))
        opened.on("console", lambda message: mistakes.append(message.text) if message.type == "error" else None)
        opened.goto((sheet[0] / "review.html").as_uri())
        yield opened
        assert mistakes == []
        assert {url.split(":")[0] for url in requests} <= {"file", "data", "blob"}
        browser.close()


def download(page, path):
    with page.expect_download() as started:
        page.click("#download")
    started.value.save_as(path)
    return path


def test_a_review_by_keys_becomes_corrections(page, sheet, tmp_path):
    assert page.locator(".card").count() == 4
    assert "4 of 4 suggestions shown: 0 wrong, 0 keep, 0 not sure, 4 remaining" in page.inner_text("#count")
    for key in ("k", "w", "n", "w"):  # a mark moves on
        page.keyboard.press(key)
    page.keyboard.press("e")
    page.keyboard.press("End")  # the last choice: not known
    page.keyboard.press("Enter")
    assert "2 wrong, 1 keep, 1 not sure, 0 remaining" in page.inner_text("#count")
    page.click("#columns button[value=age]")
    page.locator(".card input").fill("45.5")
    page.locator(".marks button[value=wrong]").click()
    # Marks are still there after a reload.
    page.reload()
    assert "2 wrong, 1 keep, 1 not sure, 0 remaining" in page.inner_text("#count")
    path = download(page, tmp_path / "corrections.csv")
    ledger = Ledger("made")
    fixed = apply_corrections(sheet[1], path, ledger)
    assert fixed["gender"].astype("object").where(fixed["gender"].notna(), None).tolist() == [
        "male",
        "female",
        "male",
        None,
    ]
    assert fixed["age"].tolist() == [45.5, 30, 40, 50]
    assert sum(entry.rows for entry in ledger.entries) == 3
    assert "marked wrong in a review; out-of-fold prediction female (90.0%)" in path.read_text()


def test_a_mark_can_be_taken_back_and_arrows_move(page):
    page.keyboard.press("w")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.card.face") == "one.jpg"
    page.keyboard.press("x")
    assert "0 wrong" in page.inner_text("#count")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.card.face") == NASTY


def test_a_name_that_is_a_script_stays_text(page):
    assert page.title() == "Likely label errors"
    assert page.locator(".name").nth(1).inner_text() == NASTY
    assert page.locator("img[src=x]").count() == 0
    assert page.locator(".none").inner_text() == "cannot be read"


def test_a_telephone_shows_it_without_scrolling_sideways(page):
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
