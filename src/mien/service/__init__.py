"""The predictor as a web service: a web page and an API for one model, in one process.

`limits` defines the limits of a request, `uploads` reads requests, `batches` predicts, `app` has the routes, and
`page/` is the web page.
"""

from typing import TYPE_CHECKING

from mien.base.errors import MissingExtra
from mien.base.messages import note

try:
    import fastapi  # noqa: F401
    import prometheus_client  # noqa: F401
    import python_multipart  # noqa: F401
    import uvicorn
except ImportError:
    raise MissingExtra("a service", "serve") from None

if TYPE_CHECKING:
    from mien.prediction.predict import Predictor
    from mien.service.limits import ServiceLimits


def run(predictor: "Predictor", host: str, port: int, limits: "ServiceLimits", api_key: str | None = None) -> None:
    """Serves until SIGINT or SIGTERM, then finishes the pending requests."""
    from mien.service.app import make_app

    note(f"mien serves http://{host}:{port} (press Ctrl-C to stop)")
    # No access log: client addresses are private, and /metrics has the counts.
    uvicorn.run(
        make_app(predictor, limits, api_key),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(limits.seconds) + 5,
    )
