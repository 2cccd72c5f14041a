"""What pyproject.toml, the changelog and the locked versions promise each other; `make wheel` tests what is built."""

import re
import tomllib
from pathlib import Path

import mien

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
LOCKS = sorted((ROOT / "constraints").glob("*.txt"))


def required(requirements):
    """The packages that a list of requirements names, those of mien's own extras and of included groups too."""
    for requirement in requirements:
        if isinstance(requirement, dict):
            yield from required(PROJECT["dependency-groups"][requirement["include-group"]])
        elif own := re.fullmatch(r"mien\[([\w,]+)\]", requirement):
            yield from (name for extra in own[1].split(",") for name in required(EXTRAS[extra]))
        else:
            yield canonical(re.match(r"[\w.-]+", requirement)[0])


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_changelog_begins_with_the_version():
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert heading[1] == mien.__version__


def test_all_holds_every_extra():
    named = set(required(EXTRAS["all"]))
    for extra, requirements in EXTRAS.items():
        assert set(required(requirements)) <= named, f"extra {extra!r} is not in 'all', and so is not tested"


def test_a_lock_names_each_package_once_and_nothing_of_a_machine():
    assert LOCKS
    for lock in LOCKS:
        lines = [line for line in lock.read_text("utf-8").splitlines() if not line.startswith("#")]
        assert all(re.fullmatch(r"[a-z0-9-]+==[\w.!]+", line) for line in lines), lock.name
        names = [line.partition("==")[0] for line in lines]
        assert len(set(names)) == len(names), lock.name
        wanted = {*required(PROJECT["project"]["dependencies"]), *required(["mien[all]"])}
        wanted |= set(required([{"include-group": "dev"}]))
        assert wanted <= set(names), f"{lock.name} has no {wanted - set(names)}: make lock"


def test_one_opencv_is_installed():
    """Its packages write the same folder: pip installs two of them over each other."""
    for lock in LOCKS:
        assert len(re.findall("^opencv-", lock.read_text("utf-8"), re.M)) == 1, lock.name


def test_links_of_the_package_page_lead_to_the_repository():
    """The address of the repository stands twice: as a link of its own, and in what README's relative links become."""
    readme = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    *_, absolute = readme["substitutions"]
    assert f"]({PROJECT['project']['urls']['Repository']}/blob/" in absolute["replacement"]
