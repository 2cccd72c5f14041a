"""What one request may ask for, so that no request can take the service from the others."""

from dataclasses import dataclass

from mien.base.errors import MienError


@dataclass(frozen=True)
class Limits:
    """The limits of a service; all are on by default.

    Args:
        request_bytes: Bytes of a request's body.
        image_pixels: Pixels of an image, as its header states them; larger ones are not decoded.
        images: Images of a request.
        faces: Faces of an image, the surest ones; further ones are counted and left out.
        seconds: From the first byte of a request to its answer.
        waiting_bytes: Bodies held at once, of all requests together; beyond it a request is asked to come again.
    """

    request_bytes: int = 32_000_000
    image_pixels: int = 40_000_000
    images: int = 64
    faces: int = 100
    seconds: float = 60.0
    waiting_bytes: int = 512_000_000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise MienError(f"limit {name}={value!r}: must be more than 0")
        if self.waiting_bytes < self.request_bytes:
            raise MienError(
                f"limit waiting_bytes={self.waiting_bytes} is less than request_bytes={self.request_bytes}: "
                "no full request would ever be taken"
            )
