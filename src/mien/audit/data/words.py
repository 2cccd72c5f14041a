"""What an audit of a data set found, in words."""

from collections.abc import Sequence

import pandas as pd

from mien.audit.data.checks import Check


def lead(faces: pd.DataFrame, checks: Sequence[Check]) -> str:
    """The verdict in plain words."""
    problems = [check.says for check in checks if check.level == "problem"]
    notices = sum(check.level == "notice" for check in checks)
    unasked = [check.name for check in checks if check.level == "not checked"]
    if problems:
        words = "problem makes" if len(problems) == 1 else "problems make"
        said = f"{len(problems)} {words} results on these {len(faces):,} faces untrustworthy. {' '.join(problems)}"
    else:
        said = f"No problem was found in these {len(faces):,} faces that makes results on them untrustworthy."
    said += f" Worth a look: {notices}." if notices else ""
    return said + (f" Not checked: {', '.join(unasked)}." if unasked else "")
