"""Memory on the CPU: keeping freed blocks makes training there up to 1.7 times as fast."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # from glibc's malloc.h


def keep_freed_memory() -> None:
    """Lets glibc keep what is freed instead of giving it back to the system (nothing elsewhere).

    By default each large tensor is a new mapping, whose pages the system clears one by one: on tf_efficientnet_lite0
    at 128 pixels a training step takes 1.7 times as long.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 2**26)
