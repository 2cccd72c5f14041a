"""MkDocs hooks of `make docs`: run the tutorial in an empty folder and include its reports in the pages.

The commands of the tutorial are fences of the form ```bash exec="on". markdown-exec runs them in WORK during the build,
and a command that fails also fails the build. With DOCS_EXECUTE=no they are shown without being run, which makes
previews fast.
"""

import html
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Link, Navigation
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "docs"
PAGE = ROOT / "build" / "page" / "mien.html"
EXECUTE = os.environ.get("DOCS_EXECUTE") != "no"
OUTSIDE = {
    "src/mien/weights/MODEL_CARD.md": "model-card.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""Pages that lie outside of docs/, and their names in the site."""

_FROM_REPORT = re.compile(
    r'<div data-report="(?P<report>[^"]+)"(?: data-figure="(?P<figure>[^"]+)")?(?: data-section="(?P<section>[^"]+)")?>'
    r"</div>"
)
_EXTERNAL = re.compile(
    r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"'](?:https?:)?//[^>]*>|url\([\"']?https?:[^)]*\)"
)
_reports: set[str] = set()


def on_pre_build(config: Any) -> None:
    """Empties the folder of the executed pages and sets the environment of their commands."""
    _reports.clear()
    if not EXECUTE:
        return
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    (WORK / "strict.sh").write_text("set -eo pipefail\n")
    os.environ |= {
        "BASH_ENV": str(WORK / "strict.sh"),  # a command that fails ends its block
        "MIEN_CACHE": str(WORK / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are outside docs/."""
    for source, name in OUTSIDE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_nav(nav: Navigation, config: Any, files: Files) -> Navigation:
    """Adds the page that needs no server, where `make page` has built it."""
    if PAGE.is_file():
        nav.items.append(Link("Try it", "try.html"))
    return nav


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Adapts links to pages outside docs/ and sets how the tutorial's commands and their output are shown."""
    for source, name in OUTSIDE.items():
        markdown = re.sub(rf"\]\((\.\./)+{re.escape(source)}", f"]({name}", markdown)
    if not page.file.src_uri.startswith("tutorial/"):
        return markdown
    shown = f'source="block" result="text" workdir="{WORK}"'
    return re.sub(
        r'^```(bash|python) exec="on"', rf'```\1 exec="on" {shown}' if EXECUTE else r"```\1", markdown, flags=re.M
    )


def on_page_content(content: str, page: Page, config: Any, files: Files) -> str:
    """Replaces <div data-report="FILE" data-figure="CAPTION"></div> by the figure or section of the report."""
    return _FROM_REPORT.sub(lambda found: _from_report(**found.groupdict()), content) if EXECUTE else content


def on_post_build(config: Any) -> None:
    """Copies the reports that pages show and checks that no page loads anything from another host."""
    site = Path(config["site_dir"])
    if PAGE.is_file():
        shutil.copyfile(PAGE, site / "try.html")
    for report in sorted(_reports):
        shutil.copyfile(WORK / report, site / "tutorial" / _flat(report))
    for file in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        if found := _EXTERNAL.search(file.read_text("utf-8")):
            raise PluginError(f"{file.relative_to(site)} loads a resource from another host: {found[0]}")


def _flat(report: str) -> str:
    return report.replace("/", "-")


def _from_report(report: str, figure: str | None, section: str | None) -> str:
    _reports.add(report)
    text = (WORK / report).read_text("utf-8")
    link = f'<p class="whole"><a href="{_flat(report)}">Complete report</a></p>'
    if figure is not None:
        captions = re.findall(r"<figcaption>(.*?)</figcaption>\s*(<svg.*?</svg>)", text, re.S)
        found = [f"<figcaption>{caption}</figcaption>{svg}" for caption, svg in captions if caption.startswith(figure)]
        kind, name, known = "figure", figure, [caption for caption, _ in captions]
    elif section is not None:
        sections = re.findall(r"<section[^>]*>\s*<h2>(.*?)</h2>(.*?)</section>", text, re.S)
        found = [body for title, body in sections if html.unescape(title) == html.unescape(section)]
        kind, name, known = "section", section, [title for title, _ in sections]
    else:
        return link
    if len(found) != 1:
        raise PluginError(f"{report}: {len(found)} matches for {kind} {name!r}; valid: {'; '.join(known)}")
    return f'<figure class="report">{found[0]}</figure>{link}'
