"""How something long says how far it is."""

from collections.abc import Callable

ProgressCallback = Callable[[int, int], None]
"""Called with how many items are done, and how many there are in all."""
