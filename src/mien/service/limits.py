"""Limits of requests, so that no client can block the service for the others."""

from dataclasses import dataclass

from mien.base.errors import MienError


@dataclass(frozen=True)
class ServiceLimits:
    """The limits of a service; all are on by default.

    Args:
        request_bytes: Bytes of a request body.
        image_pixels: Pixels of an image, as its header states them; larger ones are not decoded.
        images: Images per request.
        faces: Faces per image, by detector score; further ones are counted and omitted.
        seconds: Time from the first byte of a request to the response.
        waiting_bytes: Total bytes of pending requests; above it, requests are rejected with "retry later".
    """

    request_bytes: int = 32_000_000
    image_pixels: int = 50_000_000
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
                "the largest allowed request could never be accepted"
            )
