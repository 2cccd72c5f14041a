"""The page in a real browser: uploads, faces, mistakes, what is saved, the camera, keys and looks."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("MIEN_CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (or named by MIEN_CHROMIUM)")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        opened = started.chromium.launch(executable_path=CHROMIUM, args=[*fake, "--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, served):
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    opened = context.new_page()
    opened.hosts, opened.mistakes = set(), []
    opened.on("request", lambda request: opened.hosts.add(request.url.split("/")[2]))
    opened.on("pageerror", lambda error: opened.mistakes.append(str(error)))
    opened.goto(served.address)
    yield opened
    assert opened.mistakes == []
    assert {host for host in opened.hosts if host} == {served.address.removeprefix("http://")}
    context.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    astronaut = data.astronaut()
    Image.fromarray(astronaut).save(folder / "astronaut.png")
    Image.fromarray(np.concatenate([astronaut, astronaut[:, ::-1]], axis=1)).save(folder / "two, faces.png")
    Image.fromarray(data.coffee()).save(folder / "coffee.jpg")
    (folder / "wrong.jpg").write_text("no image")
    Image.fromarray(astronaut[70:180, 175:285]).save(folder / "<img src=x onerror=alert(1)>.png")
    return folder


def upload(page, *files):
    page.set_input_files("#files", [str(file) for file in files])
    page.locator("#status").filter(has_text=f"in {len(files)} photograph").wait_for(timeout=30_000)
    return page.inner_text("#status")


def test_several_photographs_their_faces_and_mistakes(page, pictures, tmp_path):
    files = [pictures / name for name in ("two, faces.png", "coffee.jpg", "wrong.jpg")]
    assert upload(page, *files).startswith("2 faces in 3 photographs, 1 not read · ")
    assert page.locator(".box").count() == 2
    captions = page.locator("#photographs figcaption span").all_inner_texts()
    assert captions == ["two, faces.png", "coffee.jpg: no face", "wrong.jpg: not an image"]
    assert page.locator("tbody tr").all_inner_texts()[0].strip() == "two, faces.png"
    assert [cell.strip() for cell in page.locator("tbody td:first-child").all_inner_texts()] == ["0", "1"]
    with page.expect_download() as begun:
        page.click("#save-csv")
    begun.value.save_as(tmp_path / "faces.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "faces.csv").read_text("utf-8"))))
    assert [row["status"] for row in rows] == ["ok", "ok", "no face", "not an image"]
    assert rows[0]["file"] == "two, faces.png" and float(rows[0]["age"]) == pytest.approx(29.9, abs=2)
    with page.expect_download() as begun:
        page.click("#save-json")
    assert [row["status"] for row in json.loads(Path(begun.value.path()).read_text())] == [
        row["status"] for row in rows
    ]
    with page.expect_download() as begun:
        page.click("figcaption button")
    assert begun.value.suggested_filename == "two, faces-faces.png"
    with Image.open(begun.value.path()) as saved:
        assert saved.size == (1024, 512)
    page.click("#clear")
    assert page.locator("#photographs figure").count() == 0 and not page.is_visible("#results")


def test_a_face_is_explained_by_keyboard_alone_and_by_its_row(page, pictures):
    upload(page, pictures / "astronaut.png")
    page.locator(".box").focus()
    assert "Face 0 of astronaut.png: female" in page.locator(".box").get_attribute("aria-label")
    page.keyboard.press("Enter")
    page.locator("#maps canvas").nth(1).wait_for(timeout=60_000)
    assert "Perceived as female, confidence " in page.inner_text("#face-words")
    assert page.locator("#ages .age").count() == 8
    assert "Map of the regions" in page.locator("#maps canvas").first.get_attribute("aria-label")
    page.keyboard.press("Escape")
    assert not page.is_visible("#face")
    page.locator("tbody td").nth(2).click()
    assert page.inner_text("#face-title") == "Face 0 of astronaut.png"


def test_the_drawn_sample_has_labels_that_cover_no_face_and_no_other_label(page):
    page.click("#sample")
    page.locator("#status").filter(has_text="4 faces in 1 photograph").wait_for(timeout=30_000)
    spots = page.locator(".tag, .box").evaluate_all(
        "all => all.map((e) => e.getBoundingClientRect()).map((at) => [at.x, at.y, at.width, at.height])"
    )
    assert len(spots) == 8
    for index, (x, y, w, h) in enumerate(spots):
        for other, (left, top, wide, high) in enumerate(spots[:index]):
            assert x + w <= left + 1 or left + wide <= x + 1 or y + h <= top + 1 or top + high <= y + 1, (index, other)


def test_limits_and_card_are_a_click_away(page):
    page.click("#limits")
    assert page.locator("#card-text details[open] summary").all_inner_texts() == ["Limits"]
    assert "non-commercial" in page.inner_text("#model")


def test_a_name_that_is_a_script_stays_text(page, pictures):
    page.check("#crops")
    name = "<img src=x onerror=alert(1)>.png"
    upload(page, pictures / name)
    assert page.locator("#photographs figcaption span").inner_text() == name
    assert page.locator("img[src=x]").count() == 0 and page.locator(".box").count() == 1


def test_the_camera(page):
    page.context.grant_permissions(["camera"])
    page.click("#camera")
    page.click("#shoot")
    page.locator("#status").filter(has_text="in 1 photograph").wait_for(timeout=30_000)
    assert "camera" in page.locator("#photographs figcaption").inner_text()
    assert not page.is_visible("#viewfinder")


def test_drop_and_paste(page, pictures):
    for event in ("drop", "paste"):
        page.click("#clear") if page.is_visible("#clear") else None
        # A browser under test has no desktop to drop from; the events are those that one makes.
        page.locator("body").evaluate(
            """async (body, [event, data]) => {
                const bytes = Uint8Array.from(data);
                const transfer = new DataTransfer();
                transfer.items.add(new File([bytes], `${event}.png`, { type: "image/png" }));
                const init = { bubbles: true, cancelable: true };
                body.dispatchEvent(event === "drop"
                    ? new DragEvent("drop", { ...init, dataTransfer: transfer })
                    : new ClipboardEvent("paste", { ...init, clipboardData: transfer }));
            }""",
            [event, list((pictures / "coffee.jpg").read_bytes())],
        )
        page.locator("#photographs figcaption").filter(has_text=f"{event}.png: no face").wait_for(timeout=30_000)


def test_it_fits_a_telephone_in_the_dark_and_can_be_read(browser, served, pictures):
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme="dark")
    page = context.new_page()
    page.goto(served.address)
    upload(page, pictures / "astronaut.png")
    wide = page.locator("html").evaluate("root => root.scrollWidth")
    assert wide <= 360
    colours = page.locator("body").evaluate(
        "body => [body, document.querySelector('.hint')].map((e) => getComputedStyle(e).color)"
        ".concat(getComputedStyle(body).backgroundColor)"
    )
    light = [_luminance(colour) for colour in colours]
    assert light[2] < 0.05  # dark
    for words in light[:2]:
        assert (words + 0.05) / (light[2] + 0.05) >= 4.5  # WCAG AA
    nameless = page.locator("button, input, select, a").evaluate_all(
        "all => all.filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length"
    )
    assert nameless == 0
    context.close()


def _luminance(colour):
    """Relative luminance as WCAG defines it, of "rgb(r, g, b)"."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
