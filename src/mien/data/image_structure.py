"""Counts the parts of an image file before it is decoded: a small file can state work without end."""

import re
from typing import BinaryIO

from mien.base.errors import MienError

MAX_SCANS = 100
"""Scans of a JPEG; each passes over all pixels. Progressive files have about ten."""

MAX_SEGMENTS = 5_000
"""Segments of a JPEG, of at most 64 kB each."""

MAX_CHUNKS = 100_000
"""Chunks of a PNG; frames of an animation are two each."""

MAX_PROFILES = 4
"""Colour profiles of a PNG; each may expand a thousandfold, and a valid file has one."""

MAX_JPEG_BYTES = 1 << 29
"""No JPEG of `images.MAX_PIXELS` needs more bytes."""

# A marker: in coded data FF 00 is a byte FF, FF D0 to D7 restart the decoder, and FF FF is padding.
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
_SCAN, _END = 0xDA, 0xD9
_WITHOUT_LENGTH = {*range(0x02, 0xC0), 0x01, 0xD8}


class StructureError(MienError):
    """A file that states more parts than are decoded; the text names them."""


def check_structure(file: BinaryIO) -> None:
    """Counts scans, segments and chunks; the position in the file is where it was.

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
    file.seek(0)


def _check_jpeg(content: bytes) -> None:
    scans, segments, at = 0, 0, 2
    while found := _MARKER.search(content, at):
        marker, at = content[found.end() - 1], found.end()
        if marker == _END:
            return  # pictures and clips that follow are not decoded
        segments += 1
        scans += marker == _SCAN
        if scans > MAX_SCANS:
            raise StructureError(f"a JPEG of more than {MAX_SCANS} scans")
        if segments > MAX_SEGMENTS:
            raise StructureError(f"a JPEG of more than {MAX_SEGMENTS:,} segments")
        if marker not in _WITHOUT_LENGTH:
            at += int.from_bytes(content[at : at + 2])


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
