"""The predictor as a web service: a web page and an API for one model, in one process.

`limits` defines the limits of a request, `connections` those of a connection, `hosts` addresses and names, `uploads`
reads requests, `turns` and `batches` predict, `app` has the routes, and `page/` is the web page.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mien.base.errors import MissingExtra
from mien.base.messages import note

try:
    import fastapi  # noqa: F401
    import h11  # noqa: F401
    import prometheus_client  # noqa: F401
    import python_multipart  # noqa: F401
    import uvicorn
except ImportError:
    raise MissingExtra("a service", "serve") from None

if TYPE_CHECKING:
    from mien.prediction.predict import Predictor
    from mien.service.limits import ServiceLimits


def run(
    predictor: "Predictor",
    host: str,
    port: int,
    limits: "ServiceLimits",
    api_key: str | None = None,
    allowed_hosts: Sequence[str] = (),
) -> None:
    """Serves until SIGINT or SIGTERM, then finishes the pending requests.

    Raises:
        MienError: The API key is empty or cannot be sent, the address cannot be used, or the model fails on an image.
    """
    import numpy as np

    from mien.service.app import make_app
    from mien.service.connections import AnnouncingServer, FewMessages, server_settings
    from mien.service.hosts import address, check_api_key, is_loopback, listening

    check_api_key(api_key)
    predictor.predict_pixels(np.zeros((1, predictor.size, predictor.size, 3), np.uint8))
    sockets = listening(host, port)
    if api_key is None and not is_loopback(host):
        note(
            f"{host!r} accepts other machines, and no API key is set: set MIEN_API_KEY, or serve 127.0.0.1",
            warning=True,
        )
    # No access log: client addresses are private, and /metrics has the counts.
    config = uvicorn.Config(
        make_app(predictor, limits, api_key, (host, *allowed_hosts)),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(limits.seconds) + 5,
        **server_settings(),
    )
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it logs characters of requests
    for name in ("asyncio", "uvicorn.error", "mien.service"):
        logging.getLogger(name).addFilter(FewMessages())
    server = AnnouncingServer(
        config, lambda: note(f"mien serves http://{address(host, sockets)} (press Ctrl-C to stop)")
    )
    try:
        server.run(sockets=sockets)
    except KeyboardInterrupt:
        pass  # the server has stopped by then
    finally:
        for listener in sockets:
            listener.close()
