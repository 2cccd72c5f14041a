"""Builds the page that needs no service: one HTML file with the runtime, both networks and mien's settings.

Run by `make page`, after `npm ci` in this folder. What the page needs to know of mien (sizes, thresholds, rules) comes
from the package here; the JavaScript states no number of its own.
"""

import argparse
import base64
import gzip
import hashlib
import io
import json
import re
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

from mien.base import labels
from mien.base.version import __version__
from mien.data import alignment, images
from mien.demo.sample import draw_sample
from mien.prediction import face_cropper, face_network, faces, quality, second_look
from mien.prediction.predict import SHIPPED_NOTICE, Predictor, shipped_model
from mien.weights import model_card

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "src" / "mien" / "service" / "page"
RUNTIME = HERE / "node_modules" / "onnxruntime-web" / "dist" / "ort-wasm-simd-threaded.wasm"


def constants(module: Any, *names: str) -> dict[str, Any]:
    """The constants of a module by their names in lower case, without the underscore of private ones."""
    return {name.strip("_").lower(): getattr(module, name) for name in names}


def settings() -> dict[str, Any]:
    """What the page knows of mien."""
    predictor = Predictor(threads=1)
    detector = shipped_detector()
    session = face_network.open_session(detector)
    rules = constants(face_network, "_AS_IT_IS", "_ENLARGED", "_SMALLEST", "_SAME")
    rules |= {"most_candidates": face_network._CANDIDATES, "turned": faces.TURNED}
    rules["second"] = constants(second_look, "SIDE", "_UPRIGHT", "_LIT", "_MOST_LIGHT")
    model = {"size": predictor.size, "margin": predictor.margin, "tasks": list(predictor.metadata["tasks"])}
    return {
        "images": constants(images, "MIN_SIDE", "MAX_PIXELS", "_LARGEST_SQUARE") | constants(alignment, "UPRIGHT"),
        "cropper": constants(face_cropper, "READ", "ENOUGH"),
        "quality": constants(quality, "SMALL", "BEYOND", "SHARPNESS", "UNIFORM", "SECOND_PEAK", "UNUSUAL", "_SIDE"),
        "detector": rules
        | face_network._metadata(session, detector)
        | {"batch": [1] * (len(session.get_inputs()[0].shape) - 3)},
        "model": model | {"unsure_below": predictor.metadata.get("unsure_below", 0.5)},
        "age_groups": {"names": labels.AGE_GROUPS, "ends": labels._BETWEEN_GROUPS.tolist()},
        "about": {
            "name": f"{predictor.name}, mien {__version__}",
            "columns": predictor.columns,
            "limits": {"image_pixels": images.MAX_PIXELS},
            "notice": SHIPPED_NOTICE,
            "card": True,
        },
    }


def shipped_detector() -> Path:
    """The file of the detector that ships."""
    return Path(str(resources.files("mien") / "weights" / face_network.FILE))


def sample() -> bytes:
    """The drawn sample as a PNG file."""
    file = io.BytesIO()
    draw_sample().save(file, "PNG", optimize=True)
    return file.getvalue()


def bundle(work: Path) -> str:
    """The page's modules and the runtime's as one."""
    (work / "settings.json").write_text(json.dumps(settings()))
    esbuild = HERE / "node_modules" / ".bin" / "esbuild"
    options = ["--bundle", "--minify", "--format=esm", "--target=es2022", "--charset=utf8", "--log-level=warning"]
    options.append(f"--alias:settings={work / 'settings.json'}")
    done = subprocess.run([esbuild, HERE / "main.js", *options], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.replace("</script", "<\\/script")


def embedded(name: str, content: bytes) -> str:
    """A block of data that is no script: packed, in base64."""
    text = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    return f'<script type="text/plain" id="data-{name}">{text}</script>\n'


def allowed(text: str) -> str:
    """A block of a content security policy that allows this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def build(out: Path) -> None:
    """Writes the page."""
    out.parent.mkdir(parents=True, exist_ok=True)
    script, style = bundle(out.parent), (PAGE / "page.css").read_text()
    policy = (
        f"default-src 'none'; script-src {allowed(script)} 'wasm-unsafe-eval'; style-src {allowed(style)}; "
        "img-src blob: data:; media-src blob:; connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
    data = "".join(
        embedded(name, content)
        for name, content in (
            ("runtime", RUNTIME.read_bytes()),
            ("detector", shipped_detector().read_bytes()),
            ("classifier", shipped_model().read_bytes()),
            ("sample", sample()),
        )
    )
    card = f'<script type="text/plain" id="data-card">{model_card()}</script>\n'
    page = (PAGE / "index.html").read_text()
    for old, new in (
        (
            '<meta charset="utf-8">',
            f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">',
        ),
        ('<link rel="stylesheet" href="page.css">', f"<style>{style}</style>"),
        ('<script type="module" src="server.js"></script>\n', ""),
        ("</body>", f'{card}{data}<script type="module">{script}</script>\n</body>'),
    ):
        if page.count(old) != 1:
            raise SystemExit(f"{PAGE / 'index.html'} has not exactly one {old!r}")
        page = page.replace(old, new)
    if re.search(r"""(?:src|href)=["'](?:https?:)?//""", page.replace(script, "")):
        raise SystemExit("the page refers to another host")
    out.write_text(page)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE.parent / "build" / "page" / "mien.html")
    build(parser.parse_args().out)
