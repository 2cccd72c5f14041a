"""The predictor as a web service: one page and one API over the same model, in one process.

`limits` says what a request may ask for, `uploads` reads it, `batches` answers it, `app` puts them together, `page/` is
what a browser shows.
"""

from mien.errors import MissingExtra

try:
    import fastapi  # noqa: F401
    import prometheus_client  # noqa: F401
    import python_multipart  # noqa: F401
except ImportError:
    raise MissingExtra("a service", "serve") from None
