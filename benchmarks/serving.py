"""Measures the service against the predictor that it serves, and loads it with many clients.

    python benchmarks/serving.py [--seconds 60] [--clients 64] [--faces 960]

- Throughput: crops in requests of 16, from 4 clients at once, as a share of what `Predictor.stream` does with the same
  bytes; in turn, the best of three.
- Load: so many clients at once, each request one crop, every tenth not an image. Each answer is compared with the
  predictor's own; the largest memory of the process is read after 5 seconds and at the end.

Faces are those of UTKFace where MIEN_SHARED_DATA names a folder with them, else drawn ones. Clients run on the same
cores as the service.
"""

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from mien import Predictor
from mien.demo.dataset import draw_faces

BATCH = 16


def main() -> None:
    """Prints one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--faces", type=int, default=960)
    options = parser.parse_args()
    faces = _faces(options.faces)
    predictor = Predictor()
    process, address = _serve()
    try:
        own, served = 0.0, 0.0
        for _ in range(3):
            begin = time.perf_counter()
            expected = list(predictor.stream(faces, crops=True))
            own = max(own, len(faces) / (time.perf_counter() - begin))
            served = max(served, len(faces) / asyncio.run(_batched(address, faces)))
        print(f"throughput: {served:.0f} crops/s, {served / own:.2f} of the predictor's {own:.0f}", flush=True)
        asyncio.run(_load(address, faces, expected, options.seconds, options.clients, process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        print(f"exit status after SIGTERM: {process.wait(60)}")


def _faces(count: int) -> list[bytes]:
    home = os.environ.get("MIEN_SHARED_DATA")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(home) / "utkface" if home else Path(folder)
        if home is None:
            draw_faces(source, seed=0)
        found = sorted(path for path in source.rglob("*") if path.suffix in (".jpg", ".png"))
        return [found[index % len(found)].read_bytes() for index in range(count)]


def _serve() -> tuple["subprocess.Popen[bytes]", str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "mien", "serve", "--port", str(port)], stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            if httpx.get(f"{address}/readyz").status_code == 200:
                return process, address
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit("the service did not start")


async def _batched(address: str, faces: list[bytes]) -> float:
    """Seconds for all faces in requests of `BATCH`, four at a time; the clients write their forms before."""
    waiting = []
    for start in range(0, len(faces), BATCH):
        files = [("images", ("face", face)) for face in faces[start : start + BATCH]]
        request = httpx.Request("POST", address, files=files)
        waiting.append((request.read(), {"content-type": request.headers["content-type"]}))
    async with httpx.AsyncClient(timeout=60) as client:

        async def work() -> None:
            while waiting:
                content, headers = waiting.pop()
                answer = await client.post(f"{address}/v1/predict?crops=true", content=content, headers=headers)
                answer.raise_for_status()

        begin = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(4)))
        return time.perf_counter() - begin


async def _load(
    address: str, faces: list[bytes], expected: list[dict[str, object]], seconds: float, clients: int, pid: int
) -> None:
    counts = dict.fromkeys(("right", "refused rightly", "told to retry later", "wrong", "lost"), 0)
    end = time.monotonic() + seconds
    memory = []
    farthest = 0.0
    limits = httpx.ServiceLimits(max_connections=clients)
    headers = {"content-type": "application/octet-stream"}
    async with httpx.AsyncClient(timeout=90, limits=limits) as client:

        async def work(first: int) -> None:
            nonlocal farthest
            step = first
            while time.monotonic() < end:
                index, bad = step % len(faces), step % 10 == 9
                step += clients + 1
                content = b"not an image" if bad else faces[index]
                try:
                    answer = await client.post(f"{address}/v1/predict?crops=true", content=content, headers=headers)
                except httpx.HTTPError:
                    counts["lost"] += 1
                    continue
                if answer.status_code == 503:
                    counts["told to retry later"] += 1
                elif bad:
                    counts["refused rightly" if answer.status_code == 422 else "wrong"] += 1
                else:
                    row = answer.json()["rows"][0] if answer.status_code == 200 else {}
                    away = abs(row.get("p_female", 9) - expected[index]["p_female"])  # type: ignore[operator]
                    farthest = max(farthest, away)
                    # Batches of other sizes round the last bits otherwise.
                    counts["right" if away < 2e-3 else "wrong"] += 1

        async def watch() -> None:
            await asyncio.sleep(min(5, seconds / 2))
            memory.append(_peak(pid))

        begin = time.monotonic()
        await asyncio.gather(watch(), *(work(first) for first in range(clients)))
        memory.append(_peak(pid))
    told = ", ".join(f"{word} {count:,}" for word, count in counts.items())
    print(f"load: {clients} clients, {time.monotonic() - begin:.0f} s: {told}; farthest p_female {farthest:.4f}")
    print(f"memory: {memory[0]:.0f} MB after 5 s, {memory[-1]:.0f} MB at the end", flush=True)


def _peak(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
