"""Fuzzing with atheris (libFuzzer): `python tests/fuzz/fuzz.py TARGET [SECONDS [FOLDER]]`.

Each unexpected error is written down once a place, with the input that made it, and fuzzing goes on; what ends the
process (a crash in a decoder, more than 1 GB, more than 60 seconds for one input) is written down by libFuzzer, and the
rest of the time is used by a new process. Not run by pytest.
"""

import json
import os
import re
import struct
import subprocess
import sys
import time
import traceback
import zlib
from pathlib import Path

MEMORY = 1000  # MB; images are limited to what fits well into it
LONGEST = 60  # seconds for one input
LARGEST = 65536  # bytes of one input

_FOUND: set[str] = set()


def one(target, folder: Path):
    """The function that atheris calls."""

    def run(content: bytes) -> None:
        try:
            target(content)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in place if "mien" in frame.filename] or place
            name = f"{type(error).__name__}-{Path(ours[-1].filename).stem}-{ours[-1].lineno}"
            if name not in _FOUND:
                _FOUND.add(name)
                (folder / f"{name}.bin").write_bytes(content)
                (folder / f"{name}.txt").write_text(traceback.format_exc(), errors="replace")

    return run


def mend(content: bytes) -> bytes:
    """A PNG with right checksums: without them a decoder looks no further."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    out, at = bytearray(content), 8
    while at + 12 <= len(out):
        (length,) = struct.unpack(">I", out[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(out):
            break
        out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


def child(name: str, folder: Path, arguments: list[str]) -> None:
    """Fuzzes in this process; ends with it."""
    import atheris

    with atheris.instrument_imports(include=["mien", "PIL", "yaml"]):
        from targets import TARGETS, images, seeds

        for content in seeds(name):  # what is only imported when it is needed takes longer than an input may
            TARGETS[name](content)

    images.MAX_PIXELS = 4_000_000  # so many take a tenth of a second, the bound itself two to four seconds

    def mutate(content: bytes, most: int, seed: int) -> bytes:
        changed = atheris.Mutate(content, most)
        return mend(changed) if seed % 4 else changed

    options = {"custom_mutator": mutate} if name == "image" else {}
    atheris.Setup([sys.argv[0], *arguments], one(TARGETS[name], folder), **options)
    atheris.Fuzz()


def main(name: str, seconds: int = 1200, home: str = "fuzz") -> None:
    """Fuzzes for so long, and prints what was found."""
    from targets import seeds

    folder = Path(home) / name
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds(name)):
        (folder / "corpus" / f"seed-{number}").write_bytes(content)
    end = time.monotonic() + seconds
    executions = peak = processes = 0
    while (left := int(end - time.monotonic())) > 5:
        arguments = [
            str(folder / "corpus"),
            f"-max_total_time={left}",
            f"-rss_limit_mb={MEMORY}",
            f"-timeout={LONGEST}",
            f"-max_len={LARGEST}",
            f"-artifact_prefix={folder}/",
            "-print_final_stats=1",
        ]
        command = [sys.executable, __file__, "--child", name, str(folder), *arguments]
        log = folder / f"log-{time.strftime('%H%M%S')}.txt"
        with log.open("w") as file:
            subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONHASHSEED": "0"})
        text = log.read_text(errors="replace")
        executions += sum(map(int, re.findall(r"number_of_executed_units: (\d+)", text)))
        peak = max([peak, *map(int, re.findall(r"peak_rss_mb: +(\d+)", text))])
        processes += 1
    found = sorted(file.name for file in folder.iterdir() if file.suffix == ".bin" or "-" in file.name[:9])
    found = [file for file in found if not file.startswith("log-")]
    about = {"target": name, "seconds": seconds, "executions": executions, "peak_mb": peak, "processes": processes}
    print(json.dumps(about | {"findings": found}))


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
    else:
        main(sys.argv[1], *map(int, sys.argv[2:3]), *sys.argv[3:4])
