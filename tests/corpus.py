"""Malformed and unusual images, tables and recipes, each with its expected outcome; made up here, none is downloaded.

The pictures are of scikit-image's astronaut or noise. `test_corpus.py` gives each to every command that can meet it.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageCms
from skimage import data

OK = frozenset({"ok"})
BROKEN = frozenset({"truncated", "not an image", "unreadable"})


@dataclass(frozen=True)
class Picture:
    """An image file: its kind, and the statuses that are right for it as a crop."""

    kind: str
    content: bytes | Callable[[Path], None]
    statuses: frozenset[str] = OK

    def write(self, path: Path) -> None:
        """Makes the file."""
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content)


@dataclass(frozen=True)
class Damaged:
    """A table's or a recipe's file, and words of the message that it is refused with (None: it is read)."""

    name: str
    content: bytes
    words: str | None


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def chunks(png: bytes) -> list[tuple[str, int, int]]:
    """Name, start and end of each chunk."""
    found, at = [], 8
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4])
        found.append((png[at + 4 : at + 8].decode(), at, end))
        at = end
    return found


def png(width: int, height: int, depth: int = 8, colour: int = 2, rows: bytes = bytes(100)) -> bytes:
    """A PNG whose header says what it likes."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def markers(jpeg: bytes) -> dict[str, int]:
    """Where the segments of a JPEG begin."""
    names = {0xD8: "SOI", 0xE0: "APP0", 0xDB: "DQT", 0xC0: "SOF", 0xC4: "DHT", 0xDA: "SOS"}
    found, at = {"SOI": 0}, 2
    while jpeg[at] == 0xFF:
        found.setdefault(names.get(jpeg[at + 1], hex(jpeg[at + 1])), at)
        if jpeg[at + 1] == 0xDA:
            break
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    return found


FACE = Image.fromarray(data.astronaut()[70:180, 175:285])


def pictures() -> dict[str, Picture]:
    """All images by file name."""
    found: dict[str, Picture] = {}
    for part in (_truncated, _hostile, _turned, _modes, _profiles, _moving, _empty, _named, _special):
        found |= part()
    return found


def _truncated() -> dict[str, Picture]:
    jpeg, image = encoded(FACE, "JPEG"), encoded(FACE, "PNG")
    cuts = {f"jpeg-after-{name}.jpg": jpeg[: at + 2] for name, at in markers(jpeg).items()}
    cuts |= {f"jpeg-in-{name}.jpg": jpeg[: at + 6] for name, at in markers(jpeg).items() if name != "SOI"}
    cuts["jpeg-mid-scan.jpg"] = jpeg[: len(jpeg) // 2]
    cuts["jpeg-progressive-mid-scan.jpg"] = encoded(FACE, "JPEG", progressive=True)[:2000]
    for name, start, end in chunks(image):
        if name != "IEND":
            cuts[f"png-in-{name}.png"] = image[: (start + end) // 2]
    cuts["png-after-IHDR.png"] = image[:33]
    for kind in ("GIF", "WEBP", "TIFF", "BMP", "PPM"):
        whole = encoded(FACE, kind)
        cuts[f"{kind.lower()}-header.{kind.lower()}"] = whole[:10]
        cuts[f"{kind.lower()}-half.{kind.lower()}"] = whole[: len(whole) // 2]
    return {name: Picture("truncated", content, BROKEN) for name, content in cuts.items()}


def _hostile() -> dict[str, Picture]:
    image, jpeg = encoded(FACE, "PNG"), encoded(FACE, "JPEG")
    at = markers(jpeg)["SOF"]
    huge = jpeg[: at + 5] + b"\xff\xff\xff\xff" + jpeg[at + 9 :]
    noise = np.random.default_rng(0).bytes(3000)
    large = frozenset({"too large"})
    bad = {
        "bomb-30000.png": (png(30_000, 30_000), large),
        "bomb-2-billion.png": (png(2**31 - 1, 2**31 - 1), large | BROKEN),
        "bomb-between-warning-and-error.png": (png(10_000, 10_000), large),
        "bomb-jpeg-65535.jpg": (huge, large),
        "bomb-gif.gif": (
            b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02L\x01\0;",
            large,
        ),
        "png-wrong-checksum.png": (image[:40] + b"\0\0\0" + image[43:], BROKEN),
        "png-zero-wide.png": (png(0, 10), BROKEN | {"too small"}),
        "png-one-pixel.png": (png(1, 1), frozenset({"too small"})),
        "png-too-few-rows.png": (png(64, 64), BROKEN),
        "jpeg-garbled-scan.jpg": (jpeg[:700] + noise, BROKEN | OK),  # libjpeg makes grey of what it cannot read
        "noise.jpg": (noise, BROKEN),
        "tiff-circle.tif": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", BROKEN),
        "svg.png": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", BROKEN),
        "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\n", BROKEN),
        "archive.jpg": (b"PK\x03\x04" + bytes(200), BROKEN),
        "html.jpg": (b"<!DOCTYPE html><script>alert(1)</script>", BROKEN),
    }
    found = {name: Picture("hostile", content, statuses) for name, (content, statuses) in bad.items()}
    found["really-a-png.jpg"] = Picture("wrong ending", image)
    found["really-a-jpeg.png"] = Picture("wrong ending", jpeg)
    found["really-a-gif.webp"] = Picture("wrong ending", encoded(FACE, "GIF"))
    return found


def _turned() -> dict[str, Picture]:
    found = {}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        found[f"exif-{orientation}.jpg"] = Picture("orientation", encoded(FACE, "JPEG", exif=exif))
    exif = Image.Exif()
    exif[0x0112] = 99
    found["exif-99.jpg"] = Picture("orientation", encoded(FACE, "JPEG", exif=exif))
    found["exif-garbled.jpg"] = Picture("orientation", encoded(FACE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"))
    return found


def _modes() -> dict[str, Picture]:
    grey16 = Image.fromarray(np.asarray(FACE.convert("L")).astype(np.uint16) * 257)
    found = {f"mode-{mode}.png": encoded(FACE.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")}
    found["mode-PA.tif"] = encoded(FACE.convert("P").convert("PA"), "TIFF")
    found["mode-I16.png"] = encoded(grey16, "PNG")
    found["mode-I16.tif"] = encoded(grey16, "TIFF")
    found["mode-CMYK.jpg"] = encoded(FACE.convert("CMYK"), "JPEG")
    found["mode-CMYK.tif"] = encoded(FACE.convert("CMYK"), "TIFF")
    found["mode-YCCK.jpg"] = _ycck()
    found["mode-LAB.tif"] = encoded(FACE.convert("LAB"), "TIFF")
    found["rgb-48-bit.png"] = png(16, 16, 16, 2, b"".join(b"\0" + bytes(16 * 6) for _ in range(16)))
    found["grey-4-bit.png"] = png(16, 16, 4, 0, b"".join(b"\0" + bytes(8) for _ in range(16)))
    found["transparent-palette.png"] = encoded(FACE.quantize(16), "PNG", transparency=0)
    modes = {name: Picture("colours", content) for name, content in found.items()}
    modes["mode-F.tif"] = Picture("colours", encoded(FACE.convert("F"), "TIFF"), frozenset({"unsupported"}))
    modes["mode-I.tif"] = Picture("colours", encoded(FACE.convert("I"), "TIFF"), frozenset({"unsupported"}))
    return modes


def _ycck() -> bytes:
    """A CMYK JPEG whose Adobe segment says YCCK."""
    plain = encoded(FACE.convert("CMYK"), "JPEG")
    at = plain.index(b"Adobe")
    return plain[: at + 11] + b"\x02" + plain[at + 12 :]


def _profiles() -> dict[str, Picture]:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    contents = {
        "profile-srgb.jpg": encoded(FACE, "JPEG", icc_profile=srgb),
        "profile-broken.jpg": encoded(FACE, "JPEG", icc_profile=srgb[:50] + b"\xff" * 90),
        "profile-broken.png": encoded(FACE, "PNG", icc_profile=b"\xff" * 20),
        "profile-large.jpg": encoded(FACE, "JPEG", icc_profile=bytes(200_000)),
    }
    bomb = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(50_000_000)))
    whole = encoded(FACE, "PNG")
    contents["comment-long.jpg"] = encoded(FACE, "JPEG", comment=b"x" * 60_000)
    found = {name: Picture("profile", content) for name, content in contents.items()}
    found["profile-bomb.png"] = Picture("profile", whole[:33] + bomb + whole[33:], OK | BROKEN)
    text = chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(100_000_000)))
    found["text-bomb.png"] = Picture("profile", whole[:33] + text + whole[33:], OK | BROKEN)
    return found


def _moving() -> dict[str, Picture]:
    more = [FACE.rotate(90), FACE.rotate(180)]
    found = {
        f"moving.{kind.lower()}": encoded(FACE, kind, save_all=True, append_images=more) for kind in ("GIF", "WEBP")
    }
    found["moving-apng.png"] = encoded(FACE, "PNG", save_all=True, append_images=more)
    found["pages.tif"] = encoded(FACE, "TIFF", save_all=True, append_images=more)
    return {name: Picture("animated", content) for name, content in found.items()}


def _empty() -> dict[str, Picture]:
    found = {"empty.jpg": Picture("empty", b"", frozenset({"empty"}))}
    found["newline.jpg"] = Picture("empty", b"\n", BROKEN)
    found["zeros.jpg"] = Picture("empty", bytes(5000), BROKEN)
    return found


NOT_TEXT = os.fsdecode(b"caf\xe9.png")
"""A name whose bytes are no UTF-8."""


def _named() -> dict[str, Picture]:
    names = (
        "two words.png",
        "line\nbreak.png",
        "carriage\rreturn.png",
        "tab\there.png",
        "=1+1.png",
        'quote".png',
        "comma,semicolon;.png",
        "[bold]markup.png",
        "\x1b[31mred.png",
        "<img src=x onerror=alert(1)>.png",
        "-rf.png",
        "ünï 顔 😀.png",
        "\u202egnp.png",
        "x" * 251 + ".png",
        NOT_TEXT,
    )
    return {name: Picture("name", encoded(FACE, "PNG")) for name in names}


def _special() -> dict[str, Picture]:
    missing = frozenset({"missing"})
    return {
        "dangling.jpg": Picture("no file", lambda path: path.symlink_to("nowhere.jpg"), missing),
        "circle.jpg": Picture("no file", lambda path: path.symlink_to(path.name), missing | BROKEN),
        "fifo.jpg": Picture("no file", lambda path: os.mkfifo(path), missing),
        "device.jpg": Picture("no file", lambda path: path.symlink_to("/dev/zero"), missing),
        "folder.jpg": Picture("no file", lambda path: path.mkdir(), missing),
        "denied.jpg": Picture("no file", encoded(FACE, "JPEG"), BROKEN),  # the test takes the permission away
    }


GOOD = "face,path,gender,age\n1,a.png,female,30\n2,b.png,male,40\n"
"""A table as it should be."""


def tables() -> list[Damaged]:
    """Tables, damaged or strange."""
    faces = pd.read_csv(io.StringIO(GOOD), dtype={"face": str})
    parquet = io.BytesIO()
    faces.to_parquet(parquet)
    whole = parquet.getvalue()
    wide = ",".join(["path", *(f"c{n}" for n in range(10_000))]) + "\n" + ",".join(["a.png"] + ["1"] * 10_000) + "\n"
    read = {
        "plain.csv": GOOD.encode(),
        "byte-order-mark.csv": b"\xef\xbb\xbf" + GOOD.encode(),
        "carriage-returns.csv": GOOD.replace("\n", "\r").encode(),
        "mixed-line-ends.csv": b"face,path,gender,age\r\n1,a.png,female,30\n2,b.png,male,40\r",
        "blank-lines.csv": GOOD.replace("\n", "\n\n").encode(),
        "no-last-line-end.csv": GOOD.rstrip().encode(),
        "quoted-line-break.csv": b'path,note\n"line\nbreak.png",x\na.png,y\n',
        "ten-thousand-columns.csv": wide.encode(),
        "huge-field.csv": b"path,note\na.png," + b"x" * 1_000_000 + b"\n",
        "formulas.csv": b'path,note\n=1+1.png,"=HYPERLINK(""http://x"",""y"")"\n@SUM(A1).png,+1\n',
        "scripts.csv": b"path,race\n<script>alert(1)</script>.png,<img src=x onerror=alert(1)>\na.png,b\n",
        "markup.csv": b"path,gender,[/red]\n[bold]a[/red].png,woman,[/x]\n",
        "terminal.csv": b"path,gender\n\x1b[31ma.png,Man\n",
        "numbers-as-paths.csv": b"path\n1\n2\n",
        "whole.parquet": whole,
        "semicolons.csv": GOOD.replace(",", ";").encode(),
        "tabs.csv": GOOD.replace(",", "\t").encode(),
        "bars.csv": GOOD.replace(",", "|").encode(),
        "utf-16.csv": GOOD.encode("utf-16"),
        "latin-1.csv": "face,path\n1,M\xfcller.png\n".encode("latin-1"),
    }
    refused = {
        "empty.csv": (b"", "cannot be read"),
        "byte-order-mark-alone.csv": (b"\xef\xbb\xbf", "cannot be read"),
        "header-only.csv": (b"face,path\n", "no face|without rows|no rows|empty|holds no|names no"),
        "empty-paths.csv": (b"face,path\n1,\n2,\n", "empty in 2 rows|no path"),
        "column-twice.csv": (b"path,age,path\na.png,1,b.png\n", "'path' occurs more than once"),
        "nul-bytes.csv": (b"face,path\n1,a\0b.png\n", "cannot be read|inside it|NUL"),
        "only-nul.csv": (bytes(1000), "cannot be read|NUL|absent|no column"),
        "unbalanced-quote.csv": (b'face,path\n1,"a.png\n2,b.png\n', "cannot be read"),
        "too-many-fields.csv": (b"path,age\na.png,1\nb.png,2,3,4\n", "cannot be read"),
        "absolute.csv": (b"face,path\n1,/etc/passwd\n", "must be relative"),
        "climbs.csv": (b"face,path\n1,a/../../secret.png\n", "must be relative"),
        "drive.csv": (b"face,path\n1,C:secret.png\n", "must be relative"),
        "is-a-parquet.csv": (whole, "cannot be read"),
        "no-path.csv": (b"face,file name\n1,a.png\n", "absent|no column 'path'"),
        "is-a-csv.parquet": (GOOD.encode(), "cannot be read"),
        "empty.parquet": (b"", "cannot be read"),
        "magic-alone.parquet": (b"PAR1PAR1", "cannot be read"),
        "wrong-magic.parquet": (b"PAR2" + whole[4:-4] + b"PAR2", "cannot be read"),
        "half.parquet": (whole[: len(whole) // 2], "cannot be read"),
        "footer-length.parquet": (whole[:-8] + b"\xff\xff\xff\x7fPAR1", "cannot be read"),
        "bomb.parquet": (_bomb(), "no table of faces"),
        "lists.parquet": (_lists(), "must be text|is not text|absent"),
    }
    return [Damaged(name, content, None) for name, content in read.items()] + [
        Damaged(name, content, words) for name, (content, words) in refused.items()
    ]


def _bomb() -> bytes:
    """Twenty million rows in a few kilobytes."""
    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000_000, np.int8)), ["a.png"])
    parquet.write_table(pa.table({"face": column, "path": column}), buffer, compression="zstd")
    return buffer.getvalue()


def _lists() -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame({"face": ["1"], "path": [["a.png", "b.png"]]}).to_parquet(buffer)
    return buffer.getvalue()


def yamls() -> list[Damaged]:
    """Recipes, studies and spaces that are damaged: none is read."""
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
    )
    contents = {
        "laughs": (laughs, "aliases are not read"),
        "circle": ("a: &a [*a]\n", "aliases are not read"),
        "tabs": ("optim:\n\tlr: 1\n", "not valid YAML"),
        "key-twice": ("seed: 1\nseed: 2\n", "occurs twice"),
        "nested-key-twice": ("optim: {lr: 1, lr: 2}\n", "occurs twice"),
        "python-tag": ("a: !!python/object/apply:os.system ['touch owned']\n", "not valid YAML"),
        "python-name": ("a: !!python/name:os.system\n", "not valid YAML"),
        "own-tag": ("a: !include /etc/passwd\n", "not valid YAML"),
        "deep-list": ("[" * 10_000, "more than 20 levels"),
        "deep-mapping": ("{a: " * 10_000, "more than 20 levels"),
        "long": ("# " + "x" * 500_000 + "\n", "more than 100,000 characters"),
        "many-keys": ("".join(f"k{n}: 1\n" for n in range(2000)), "more|key|axes"),
        "digits": ("a: " + "9" * 10_000, "not valid YAML"),
        "date": ("a: 2001-99-99", "not valid YAML"),
        "key-of-a-list": ("? [a]\n: b\n", "not valid YAML"),
        "key-of-a-date": ("? 2001-01-01\n: b\n", "is not a valid key"),
        "binary": ("a: !!binary 'abc'\n", "not valid YAML"),
        "nul": ("a: \0", "not valid YAML"),
        "list": ("[1, 2]", "must be a mapping"),
        "text": ("hello", "must be a mapping"),
        "nothing": ("", "must be a mapping"),
        "two-documents": ("a: 1\n---\nb: 2\n", "not valid YAML"),
        "surrogate": ('a: "\\ud800"\n', ""),
        "not-a-number": ("optim: {lr: .nan}\n", ""),
        "merge-key": ("<<: [1, 2]\n", "not valid YAML"),
    }
    found = [Damaged(f"{name}.yaml", content.encode(), words) for name, (content, words) in contents.items()]
    found.append(Damaged("utf-16.yaml", "a: 1\n".encode("utf-16"), "not UTF-8 text"))
    found.append(Damaged("latin-1.yaml", b"a: M\xfcller\n", "not UTF-8 text"))
    return found
