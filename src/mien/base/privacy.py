"""No usage statistics: the libraries that send some are told not to, before any of them is imported.

onnxruntime reads its variable while it is being imported, and writes a device id and a database of events below the
user's cache before anything could be disabled by a call. So the package sets all of them when it is imported itself.
"""

import os

NO_TELEMETRY = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime: events with process path, errors and a device id
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, which timm uses
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""The variables of libraries that report their use, and the values that switch it off. Processes inherit them."""


def disable_telemetry() -> None:
    """Sets the variables, also where the user set others: photographs of faces are no place for statistics."""
    os.environ.update(NO_TELEMETRY)
