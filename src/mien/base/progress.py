"""The type of progress callbacks."""

from collections.abc import Callable

ProgressCallback = Callable[[int, int], None]
"""Called with the number of finished items and the total."""
