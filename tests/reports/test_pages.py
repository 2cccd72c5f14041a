"""Pages hold any text, and escape it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import HOSTILE, check_page

from mien.base.errors import MienError
from mien.reports import figures
from mien.reports.page import Chart, Section, Table, write_report


def test_pages_hold_any_text(tmp_path: Path) -> None:
    rows = pd.DataFrame({HOSTILE: [HOSTILE, "a & b"], "n": [1234, 5], "share": [0.5, np.nan], "yes": [True, False]})
    counts = pd.DataFrame({HOSTILE: [1, 2], 'x" id="y': [3, 4]}, index=["$a_1$", "fill: #0072b2"])
    section = Section(
        HOSTILE,
        [HOSTILE],
        [HOSTILE],
        [Table(HOSTILE, rows), Table("empty", rows.head(0))],
        [Chart(figures.bars(counts), HOSTILE, counts)] * 2,
    )
    path = write_report(HOSTILE, "{{ 1 }}", [section, section], tmp_path / "page.html")
    text = path.read_text("utf-8")
    page = check_page(text)
    assert "y" not in page.ids
    assert "{{ 1 }}" in text and ">1,234<" in text and ">yes<" in text and "fill: #0072b2<" in text
    again = write_report(HOSTILE, "{{ 1 }}", [section, section], tmp_path / "again.html")
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(MienError, match="is a folder"):
        write_report("", "", [], tmp_path)
    with pytest.raises(MienError, match="is not a folder"):
        write_report("", "", [], path / "below.html")
