"""The detectors by name. What they give is described in `faces`."""

from pathlib import Path

from mien.base.errors import MienError, choices
from mien.prediction.detector_files import DetectorFile
from mien.prediction.face_network import FaceNetwork, is_own
from mien.prediction.faces import DetectedFace, Detector, Picture, as_image, fitted, with_landmarks
from mien.runs import hub

DEFAULT = "mien"

NAMES = (DEFAULT, "centerface", "dlib", "FILE.onnx", "hub:OWNER/NAME/FILE.onnx")


def make_detector(name: str = DEFAULT, min_face: float | None = None) -> Detector:
    """The detector of that name.

    Args:
        name: mien, which ships with the package; centerface and dlib, of extras; or an ONNX file of YuNet, SCRFD or
            mien, on this machine or on the Hugging Face Hub.
        min_face: Side in pixels of the smallest face that is looked for; None: the detector's own choice. Only mien's
            detector can look closer.

    Raises:
        MienError: There is no such detector, its file or package is not there, or `min_face` is not for it.
    """
    if min_face is not None and not 1 <= min_face < float("inf"):
        raise MienError(f"min_face is {min_face!r}; valid: pixels, at least 1")
    if name == DEFAULT:
        return MienDetector(FaceNetwork(None, min_face))
    if name.startswith(hub.PREFIX) or name.endswith(".onnx"):
        return _from_file(Path(hub.one_file(name, ".onnx")), min_face, name)
    if min_face is not None:
        raise MienError(f"min_face is for the detector {DEFAULT!r}, which looks closer by it; {name!r} cannot")
    if name == "centerface":
        from mien.prediction.centerface import CenterFace

        return CenterFace()
    if name == "dlib":
        from mien.prediction.dlib_detector import Dlib

        return Dlib()
    raise MienError(choices("detector", name, NAMES))


def _from_file(path: Path, min_face: float | None, name: str) -> Detector:
    if is_own(path):
        return MienDetector(FaceNetwork(path, min_face))
    if min_face is not None:
        raise MienError(f"min_face is for mien's own detector, which looks closer by it; {name!r} cannot")
    return FileDetector(DetectorFile(path))


class MienDetector:
    """mien's own detector; `score` is the network's estimate, 0 to 1."""

    def __init__(self, network: FaceNetwork) -> None:
        self._network = network

    def __call__(self, picture: Picture) -> list[DetectedFace]:
        """See `Detector`."""
        faces = self._network.find(as_image(picture))
        return [
            with_landmarks((x - side / 2, y - side / 2, side, side), score, points)
            for (x, y, side), score, points in zip(
                faces.squares.tolist(), faces.scores.tolist(), faces.points, strict=True
            )
        ]

    def wants(self, longer: int) -> float:
        """See `Detector`."""
        return self._network.wants(longer)


class FileDetector:
    """A detector of the user's; `score` is the network's, 0 to 1."""

    def __init__(self, file: DetectorFile) -> None:
        self._file = file

    def __call__(self, picture: Picture) -> list[DetectedFace]:
        """See `Detector`."""
        raw = self._file.find(as_image(picture))
        return fitted(raw.boxes, raw.scores, raw.points)

    def wants(self, longer: int) -> float:
        """See `Detector`."""
        return self._file.SIDE
