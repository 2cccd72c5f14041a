"""Every command of the README and of the docs: it runs on demonstration faces, or is checked as far as it can be.

Commands of the tutorial run when the site is built (`make docs`); here their verbs and options are parsed. Of the
others `RUN` names the verbs that run here, in a folder in which demonstration faces stand for the data (`world`), with
`SMALL` in place of hours of training. `study` and `tune` have their files and settings checked, `serve` its options. A
command that can do neither has a line `<!-- not run: REASON -->` above its fence, and is listed as skipped.
"""

import ast
import re
import shlex
import shutil
import sys
import tomllib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "src/mien/weights/MODEL_CARD.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))

STANDS_FOR = {
    "path/to/adience": "adience",
    "path/to/utkface": "utkface",
    "ADIENCE": "adience",
    "CELEBA": "celeba",
    "UTKFACE": "utkface",
    "ROOT": "utkface",
    "RECIPE": "my.yaml",
    "NETWORK": "test_resnet",
    "EPOCHS": "2",
}
"""A word of the docs -> the file or folder of `world` that stands for it."""

RUN = {"recipes", "studies", "faces", "eda", "predict", "explain", "evaluate", "export", "report", "publish", "preview"}
RUN |= {"train"}

SMALL = ["data.sample=40", "model.backbone=test_resnet", "model.image_size=32", "model.freeze=none"]
SMALL += ["init.weights=none", "trainer.epochs=1", "trainer.workers=0", "trainer.devices=1", "trainer.nodes=1"]
SMALL += [
    'trainer.precision="32"',
    "trainer.batch_size=16",
    "optim.warmup=0",
    "optim.layer_decay=1",
    "model.drop_path=0",
    "augment.mixup=0",
]
SMALL += ["split.near_duplicates=false"]
"""Settings that make any recipe train in seconds without network and without a GPU."""


@dataclass(frozen=True)
class Block:
    """A fence of a page: its language, its text, and why its commands are not run (empty: they are)."""

    page: Path
    line: int
    language: str
    executed: bool
    text: str
    skip: str

    @property
    def place(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page):
    """The fences of a page, and what is indented outside of them as such."""
    lines = page.read_text("utf-8").split("\n")
    at, skip = 0, ""
    while at < len(lines):
        fence = re.match(r"( *)(```+)(\w*)(.*)", lines[at])
        note = re.match(r"<!-- not run: (.+) -->", lines[at])
        first = at + 1
        if fence:
            end = next(n for n in range(first, len(lines)) if lines[n].strip() == fence[2])
            body = [line.removeprefix(fence[1]) for line in lines[first:end]]
            yield Block(page, first, fence[3], "exec=" in fence[4], "\n".join(body), skip)
            at = end
        elif lines[at].startswith("    ") and (at == 0 or not lines[at - 1]):
            end = next((n for n in range(first, len(lines)) if not lines[n].startswith("    ")), len(lines))
            yield Block(page, first, "bash", False, "\n".join(line[4:] for line in lines[at:end]), skip)
            at = end - 1
        if note or lines[at].strip():
            skip = note[1] if note else ""
        at += 1


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def commands_of(block):
    """The commands of a block as lists of words; of one that is executed, those of mien."""
    text = block.text.replace("\\\n", " ")
    if block.executed:
        text = re.sub(r"<<'(\w+)'.*?^\1$", "", text, flags=re.M | re.S)
    lines = text.split("\n")
    if block.language == "console":  # what stands there without a prompt is output
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        words = [] if block.executed and not line.startswith("mien ") else shlex.split(line, comments=True)
        while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] == "export"):
            words = words[1:]
        if words[:1] in (["srun"], ["torchrun"]):  # what starts the processes is no part of mien
            words = words[words.index("mien") :]
        if words:
            yield words[: next((n for n, word in enumerate(words) if word in (">", "|", "&&")), len(words))]


def collected():
    """Each different command once, with the first place where it stands."""
    found = {}
    for block in BLOCKS:
        if block.language in ("bash", "sh", "console"):
            for words in commands_of(block):
                found.setdefault((tuple(words), block.executed), block)
    ids = [f"{block.place} {shlex.join(words)}" for (words, _), block in found.items()]
    return [
        pytest.param(list(words), block, id=name) for ((words, _), block), name in zip(found.items(), ids, strict=True)
    ]


def verb_of(words):
    """The click command that `mien WORDS` means, and the words that are left for it."""
    import typer.main

    from mien.cli.program import app

    command, rest = typer.main.get_command(app), words
    while hasattr(command, "commands"):
        if not rest:
            break
        known = ", ".join(command.commands)
        assert rest[0] in command.commands, f"no verb {' '.join(words[:2])!r}; there are: {known}"
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def check_options(words):
    """The verb exists, and each option is one of its own; for synopses, which do not parse."""
    if words[0] in ("VERB", "[OPTIONS]"):
        return
    command, rest = verb_of([re.sub(r"[\[\]]", "", word) for word in words])
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
    given = {option for word in rest for option in re.findall(r"(?<!\w)--?[a-z][a-z-]*", word.partition("=")[0])}
    assert given <= known, f"mien {' '.join(words)}: no option {', '.join(sorted(given - known))}"


def check_script(words):
    """The script exists, and its text holds each option."""
    script = ROOT / words[0]
    assert script.is_file(), f"{words[0]} does not exist"
    text = script.read_text("utf-8")
    for word in words[1:]:
        if word.startswith("--"):
            assert word in text or word.removeprefix("--").replace("-", "_") in text, f"{words[0]} has no option {word}"


def check_pip(words):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    assert words[0] == "install" and words[1:]
    for option, word in pairwise(words):
        if option == "--group":
            assert word in project["dependency-groups"], f"--group {word}"
            continue
        named = re.fullmatch(r"(?:mien|\.)(?:\[([\w,]+)\])?", word)
        assert word.startswith("-") or named, f"pip install {word}"
        asked = set((named and named[1] or "").split(",")) - {""}
        assert asked <= set(extras), f"{word}: extras are {', '.join(extras)}"


def check_make(words):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for word in words:
        assert "=" in word or re.search(rf"^{word}:", makefile, re.M), f"make {word}: no such target"


def write_clip(path, picture):
    """A second of one picture."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.height, stream.width = picture.shape[:2]
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="session")
def world(tmp_path_factory, drawn):
    """A folder in which demonstration faces stand for the data of the docs, and two short runs for theirs."""
    from skimage import data as pictures
    from skimage.io import imsave

    from mien.demo.dataset import draw_faces
    from mien.training.fit import train

    root = tmp_path_factory.mktemp("world")
    shutil.copytree(drawn, root / "adience")
    draw_faces(root / "celeba", "celeba", subjects=60)
    for folder in ("utkface", "photos", "crops"):
        (root / folder).mkdir()
    rows = []
    for number, image in enumerate(sorted(drawn.rglob("*.jpg"))[:60]):
        gender, age = number % 2, 5 * (number % 12) + 2
        shutil.copy(image, root / "utkface" / f"{age}_{gender}_{number % 5}_20170116{number:09d}.jpg.chip.jpg")
        shutil.copy(image, root / "photos" / f"{number}.jpg")
        rows.append({"file": f"{number}.jpg", "sex": ("m", "f")[gender], "age": age, "person": f"p{number // 2}"})
    shutil.copy(image, root / "crops" / "a.jpg")
    for name in ("holiday.jpg", "a.jpg", "b.jpg"):
        imsave(root / name, pictures.astronaut())
    write_clip(root / "two.mp4", pictures.astronaut())
    (root / "holiday").mkdir()
    shutil.copy(root / "two.mp4", root / "clip.mp4")
    for name in ("two.mp4", "holiday.jpg"):
        shutil.copy(root / name, root / "holiday" / name)
    pd.DataFrame(rows).to_csv(root / "photos" / "labels.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        from mien.base.labels import GENDERS
        from mien.base.table import write_table
        from mien.data.sources import read_faces

        faces = read_faces("csv", "photos/labels.csv", map={"file": "path", "sex": "gender", "person": "subject"})
        write_table(faces, Path("faces.parquet"))
        write_table(faces, Path("faces.csv"))
        write_table(read_faces("adience", "adience", labels="masked"), Path("adience.parquet"))
        first = read_faces("utkface", "utkface").iloc[0]
        other = next(gender for gender in GENDERS if gender != first["gender"])
        corrections = [{"face": first["face"], "column": "gender", "old": first["gender"], "new": other, "why": "seen"}]
        pd.DataFrame(corrections).to_csv("corrections.csv", index=False)
        Path("space.yaml").write_text("optim.lr: {low: 1.0e-4, high: 1.0e-2, log: true}\n")
        Path("my.yaml").write_text(
            "base: demo-gender-age\ndata: {source: csv, labels: all, root: photos, faces: faces.parquet}\n"
            "split: {method: subjects}\ntasks: [gender, age_group, age]\naugment: {rotate: 5}\n"
        )
        for name in ("mine", "other"):
            train("my.yaml", SMALL[1:], out=f"runs/{name}")
    return root


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    """A copy of `world` to work in."""
    shutil.copytree(world, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def substituted(text):
    for theirs, ours in STANDS_FOR.items():
        text = re.sub(rf"\b{theirs}\b", ours, text)
    return text


def write_files(page, here):
    """The YAML files that a page shows."""
    for block in BLOCKS:
        name = re.match(r"# (\S+\.ya?ml)", block.text)
        if block.page == page and block.language == "yaml" and name:
            (here / name[1]).write_text(substituted(block.text))


def settings_of(words):
    return [value for word, value in zip(words, words[1:], strict=False) if word == "--set"]


def publish_to(hub):
    """A published run, as OWNER/NAME on the made-up Hub."""
    from mien.training.publish import publish

    publish("runs/mine", "published", None)
    hub.put("OWNER/NAME", {path.name: path.read_bytes() for path in Path("published").iterdir()})


_trained = set()


def seen(recipe):
    """Whether a recipe of that name, source and tasks has been trained already: with `SMALL` it would be the same."""
    key = (recipe.name, recipe.data.source, *recipe.tasks.named(), "hub:" in recipe.init.weights)
    known = key in _trained
    _trained.add(key)
    return known


def run_mien(words, capsys):
    """Runs a verb, or checks the files and settings of one that would take hours."""
    from mien.cli import main
    from mien.experiments.space import read_space
    from mien.experiments.study import load_study, make_cells
    from mien.recipe.load import load_recipe

    verb, arguments = words[0], list(words[1:])
    if verb in ("train", "preview", "tune"):
        recipe = load_recipe(arguments[0], settings_of(arguments))
        if verb == "tune":
            read_space(arguments[arguments.index("--space") + 1], recipe)
        if verb == "tune" or (verb == "train" and seen(recipe)):
            return
        small = [change for change in SMALL if "hub:" not in recipe.init.weights or "init.weights" not in change]
        arguments += [word for change in small for word in ("--set", change)]
    if verb == "study":
        quick = "--quick" in arguments
        assert make_cells(load_study(arguments[0], quick), settings_of(arguments), Path("drawn") if quick else None)
    if verb not in RUN:
        return
    if verb == "explain" and "--faces" in arguments:
        arguments += ["--limit", "2"]
    if "--quantize" in arguments:
        arguments += ["--max-loss", "100", "--max-age-loss", "100"]
    if "--out" in arguments:
        out = Path(arguments[arguments.index("--out") + 1])
        if out.is_dir():
            shutil.rmtree(out)
        out.unlink(missing_ok=True)
    with pytest.raises(SystemExit) as stop:
        main([verb, *arguments])
    assert not stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize(("words", "block"), collected())
def test_command(words, block, request, capsys):
    if block.skip:
        pytest.skip(block.skip)
    if words[0] == "mien":
        if len(words) > 1 and words[1].startswith("-"):
            return
        command, rest = verb_of(words[1:])
        command.make_context(command.name, list(rest))
        if not block.executed and words[1] in (*RUN, "study", "tune"):
            here = request.getfixturevalue("here")
            write_files(block.page, here)
            if any("hub:" in word for word in words):
                publish_to(request.getfixturevalue("hub"))
            run_mien([substituted(word) for word in words[1:]], capsys)
    elif words[0] in ("python", "python3"):
        check_script(words[1:])
    elif words[0] == "curl":
        check_request(words)
    else:
        check = {"pip": check_pip, "make": check_make, "rm": lambda words: None, "cp": lambda words: None}.get(words[0])
        assert check, f"{words[0]!r} is not checked here; a line <!-- not run: REASON --> above the fence skips it"
        check(words[1:])


def check_request(words):
    """The service has the path, the parameters and the field."""
    from mien.prediction.predict import Predictor
    from mien.service.app import make_app
    from mien.service.limits import ServiceLimits

    url = next(word for word in words if word.startswith("http"))
    path, _, query = re.sub(r"https?://[^/]+", "", url).partition("?")
    api = make_app(Predictor(), ServiceLimits()).openapi()
    assert path in api["paths"], f"{path}: there are {', '.join(api['paths'])}"
    operation = next(iter(api["paths"][path].values()))
    known = {parameter["name"] for parameter in operation.get("parameters", ())}
    assert {part.partition("=")[0] for part in query.split("&") if part} <= known


def inline_of(page):
    """The commands that sentences and tables of a page name."""
    prose = re.sub(r"^( *)```.*?^\1```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    return re.findall(r"`((?:mien|python|pip|make) [^`]+)`", prose)


INLINE = sorted({(found, page) for page in PAGES for found in inline_of(page)})


@pytest.mark.parametrize(("text", "page"), INLINE, ids=[f"{page.relative_to(ROOT)} {text}" for text, page in INLINE])
def test_inline_command(text, page):
    """Verbs, options, scripts, extras and targets that a sentence or a table names are there."""
    program, *words = shlex.split(text.replace("\\|", "|"))
    {"mien": check_options, "python": check_script, "pip": check_pip, "make": check_make}[program](words)


SYNOPSES = [block for block in BLOCKS if block.language == "text" and block.text.startswith("mien ")]


@pytest.mark.parametrize("block", SYNOPSES, ids=[block.place for block in SYNOPSES])
def test_synopsis(block):
    check_options(block.text.split()[1:])


FILES = [block for block in BLOCKS if block.language == "yaml"]


@pytest.mark.parametrize("block", FILES, ids=[block.place for block in FILES])
def test_yaml(block, tmp_path):
    """Recipes and studies that a page shows are valid."""
    from mien.experiments.study import load_study
    from mien.recipe.load import load_recipe
    from mien.recipe.settings import Recipe

    tree = yaml.safe_load(block.text)
    file = tmp_path / "shown.yaml"
    file.write_text(block.text)
    if "axes" in tree or "data_sets" in tree:
        load_study(file)
    elif set(tree) <= {*Recipe.model_fields, "base"}:
        load_recipe(file)


EXAMPLES = [block for block in BLOCKS if block.language == "python" and not block.executed]


@pytest.mark.parametrize("block", EXAMPLES, ids=[block.place for block in EXAMPLES])
def test_python(block, request, monkeypatch):
    ast.parse(block.text)
    if block.skip:
        pytest.skip(block.skip)
    from skimage.data import astronaut

    import mien

    request.getfixturevalue("here")
    if "hub:" in block.text:
        publish_to(request.getfixturevalue("hub"))
    names = {
        "array": astronaut()[:200, 150:350],
        "paths": ["a.jpg"],
        "faces": pd.read_parquet("faces.parquet"),
    }
    if "import mien" not in block.text:
        names["mien"] = mien
    from mien.api.arguments import as_changes

    train = mien.train
    monkeypatch.setattr(
        mien, "train", lambda recipe, set=None, out=None: train(recipe, [*SMALL, *as_changes(set)], out), raising=False
    )
    module = ModuleType("shown")  # what is registered by decorators is looked for in its module
    monkeypatch.setitem(sys.modules, "shown", module)
    vars(module).update(names)
    exec(compile(substituted(block.text), block.place, "exec"), vars(module))  # noqa: S102


def test_every_public_name_is_in_the_reference():
    import mien

    page = (ROOT / "docs" / "reference" / "python.md").read_text("utf-8")
    named = set(re.findall(r"^::: mien\.[\w.]*?(\w+)$", page, re.M))
    assert {name for name in mien.__all__ if name != "__version__"} <= named


def test_every_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").split("\ntheme:")[0]
    for page in sorted((ROOT / "docs").rglob("*.md")):
        assert page.relative_to(ROOT / "docs").as_posix() in nav, f"{page.name}: give it a line under nav in mkdocs.yml"
