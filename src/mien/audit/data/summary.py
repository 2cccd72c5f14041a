"""The summary of a data audit in plain words."""

from collections.abc import Sequence

import pandas as pd

from mien.audit.data.checks import Check


def summary(faces: pd.DataFrame, checks: Sequence[Check]) -> str:
    """Returns the verdict, the problems, and what was not checked, in plain words."""
    problems = [check.message for check in checks if check.level == "problem"]
    notices = sum(check.level == "notice" for check in checks)
    skipped = [check.name for check in checks if check.level == "not checked"]
    if problems:
        noun = "problem makes" if len(problems) == 1 else "problems make"
        text = f"{len(problems)} {noun} results on these {len(faces):,} faces unreliable. {' '.join(problems)}"
    else:
        text = f"No problem was found in these {len(faces):,} faces."
    text += f" Notices: {notices}." if notices else ""
    return text + (f" Not checked: {', '.join(skipped)}." if skipped else "")
