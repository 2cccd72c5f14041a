"""The page as one file, built once where npm's packages are there, and a browser that shows it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    if not (ROOT / "browser" / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("browser/node_modules is missing: make page installs it with npm, from its registry")
    file = tmp_path_factory.mktemp("page") / "mien.html"
    subprocess.run([sys.executable, ROOT / "browser" / "build.py", "--out", file], check=True)
    return file


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = os.environ.get("MIEN_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed (or named by MIEN_CHROMIUM)")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()
