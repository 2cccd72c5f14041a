"""The predictor as a web service: one page and one API over the same model, in one process.

`limits` says what a request may ask for, `uploads` reads it, `batches` answers it, `app` puts them together, `page/` is
what a browser shows.
"""

from typing import TYPE_CHECKING

from mien.base.errors import MissingExtra

try:
    import fastapi  # noqa: F401
    import prometheus_client  # noqa: F401
    import python_multipart  # noqa: F401
    import uvicorn
except ImportError:
    raise MissingExtra("a service", "serve") from None

if TYPE_CHECKING:
    from mien.prediction.predict import Predictor
    from mien.service.limits import Limits


def run(predictor: "Predictor", host: str, port: int, limits: "Limits", api_key: str | None = None) -> None:
    """Serves until SIGINT or SIGTERM, and then finishes what it has taken."""
    from mien.service.app import make_app

    print(f"mien serves http://{host}:{port} (Ctrl-C ends it)", flush=True)
    # No access log: an address and a time are nobody's business, and /metrics counts.
    uvicorn.run(
        make_app(predictor, limits, api_key),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(limits.seconds) + 5,
    )
