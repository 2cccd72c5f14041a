"""Counts the parts of an image file before it is decoded: a small file can state work without end."""

import re
from typing import BinaryIO

from mien.base.errors import MienError

MAX_SCANS = 100
"""Scans of a JPEG. Progressive files have about ten."""

MAX_WORK = 16 * 89_478_485
"""Pixels that the scans of a JPEG pass over in all, each over the whole picture: 16 scans of the largest picture."""

MAX_SEGMENTS = 5_000
"""Segments of a JPEG, of at most 64 kB each."""

MAX_CHUNKS = 100_000
"""Chunks of a PNG; frames of an animation are two each."""

MAX_PROFILES = 4
"""Colour profiles of a PNG; each may expand a thousandfold, and a valid file has one."""

MAX_COMMENTS = 100
"""Comments of a PPM file that is text; each takes as long as a copy of a megabyte."""

MAX_TEXT_BYTES = 1 << 26
"""Bytes of a PPM file that is text, which is decoded slowly."""

MAX_JPEG_BYTES = 1 << 29
"""No JPEG of `images.MAX_PIXELS` needs more bytes."""

# A marker: in coded data FF 00 is a byte FF, FF D0 to D7 restart the decoder, and FF FF is padding.
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
_SCAN, _END = 0xDA, 0xD9
_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # segments with the picture's height and width
_WITHOUT_LENGTH = {*range(0x02, 0xC0), 0x01, 0xD8}


class StructureError(MienError):
    """A file that states more parts than are decoded; the text names them."""


def check_structure(file: BinaryIO) -> None:
    """Counts scans, segments, chunks and comments; the position in the file is where it was.

    Raises:
        StructureError: There are more than this module allows.
    """
    head = file.read(8)
    if head.startswith(b"\xff\xd8\xff"):
        file.seek(0)
        content = file.read(MAX_JPEG_BYTES + 1)
        if len(content) > MAX_JPEG_BYTES:
            raise StructureError(f"a JPEG of more than {MAX_JPEG_BYTES:,} bytes")
        _check_jpeg(content)
    elif head == b"\x89PNG\r\n\x1a\n":
        _check_png(file)
    elif head[:2] in (b"P1", b"P2", b"P3"):
        _check_text(head + file.read(MAX_TEXT_BYTES))
    file.seek(0)


def _check_jpeg(content: bytes) -> None:
    scans, segments, pixels, at = 0, 0, 0, 2
    while found := _MARKER.search(content, at):
        marker, at = content[found.end() - 1], found.end()
        if marker == _END:
            return  # pictures and clips that follow are not decoded
        segments += 1
        scans += marker == _SCAN
        if scans > MAX_SCANS:
            raise StructureError(f"a JPEG of more than {MAX_SCANS} scans")
        if marker in _SIZES:
            pixels = max(pixels, int.from_bytes(content[at + 3 : at + 5]) * int.from_bytes(content[at + 5 : at + 7]))
        if scans > 1 and scans * pixels > MAX_WORK:  # what one scan takes is bounded by the size of the image
            raise StructureError(f"a JPEG whose {scans} scans pass over more than {MAX_WORK:,} pixels")
        if segments > MAX_SEGMENTS:
            raise StructureError(f"a JPEG of more than {MAX_SEGMENTS:,} segments")
        if marker not in _WITHOUT_LENGTH:
            at += int.from_bytes(content[at : at + 2])


def _check_text(content: bytes) -> None:
    if len(content) > MAX_TEXT_BYTES:
        raise StructureError(f"a PPM file of more than {MAX_TEXT_BYTES:,} bytes of text")
    if content.count(b"#") > MAX_COMMENTS:
        raise StructureError(f"a PPM file of more than {MAX_COMMENTS} comments")


def _check_png(file: BinaryIO) -> None:
    profiles = 0
    for _ in range(MAX_CHUNKS):
        start = file.read(8)
        if len(start) < 8 or start[4:] == b"IEND":
            return
        profiles += start[4:] == b"iCCP"
        if profiles > MAX_PROFILES:
            raise StructureError(f"a PNG of more than {MAX_PROFILES} colour profiles")
        file.seek(int.from_bytes(start[:4]) + 4, 1)
    raise StructureError(f"a PNG of more than {MAX_CHUNKS:,} chunks")
