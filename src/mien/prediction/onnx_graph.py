"""Looks into an ONNX file before a runtime opens it: a network that loops, or grows when it is opened, is refused.

Only what decides over this is read, from the file's Protocol Buffers (onnx.proto of the ONNX project): the package onnx
is no part of the base install.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from mien.base.errors import MienError, shortened

_GRAPH, _FUNCTIONS = 7, 25  # of a model
_NODE = 1  # of a graph
_OPERATOR, _ATTRIBUTE = 4, 5  # of a node
_SUBGRAPH, _SUBGRAPHS = 6, 11  # of an attribute

_DEEPEST = 20
"""Graphs in graphs."""


class GraphError(MienError):
    """A network that mien does not run; the text says why."""


def check_graph(path: Path) -> None:
    """Refuses networks with loops, which may never end, and with functions, which may expand without end.

    What is no ONNX file passes: the runtime says more about it.

    Raises:
        GraphError: The network is refused.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return
        with content:
            for number, start, end in _parts(content, 0, len(content)):
                if number == _FUNCTIONS:
                    raise GraphError("it has functions of its own, which are not supported")
                if number == _GRAPH:
                    _check(content, start, end, 0)


def _check(content: mmap.mmap, start: int, end: int, depth: int) -> None:
    if depth > _DEEPEST:
        raise GraphError(f"it has more than {_DEEPEST} graphs in each other")
    for number, first, last in _parts(content, start, end):
        if number == _NODE:
            _check_node(content, first, last, depth)


def _check_node(content: mmap.mmap, start: int, end: int, depth: int) -> None:
    parts = list(_parts(content, start, end))
    names = [content[first:last] for number, first, last in parts if number == _OPERATOR]
    operator = names[-1] if names else b""  # of several the last one counts
    for number, first, last in parts:
        for inner, left, right in _parts(content, first, last) if number == _ATTRIBUTE else ():
            if inner not in (_SUBGRAPH, _SUBGRAPHS):
                continue
            if operator != b"If":
                name = shortened(operator.decode("utf-8", "replace"), 40)
                raise GraphError(f"it has the operator {name!r} with a graph of its own: loops may never end")
            _check(content, left, right, depth + 1)


def _parts(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Field number, start and end of the parts of a message that have a length; ends where it is damaged."""
    at = start
    while at < end:
        key, at = _number(content, at, end)
        if key & 7 == 0:
            _, at = _number(content, at, end)
        elif key & 7 in (1, 5):
            at += 8 if key & 7 == 1 else 4
        elif key & 7 == 2:
            length, at = _number(content, at, end)
            if at + length > end:
                return
            yield key >> 3, at, at + length
            at += length
        else:
            return


def _number(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends; beyond `end` where the message is damaged."""
    value = shift = 0
    while at < end and shift < 70:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    return 0, end + 1
