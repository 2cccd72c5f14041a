"""The metadata of ONNX files."""

import json
from typing import Any

import onnx


def describe(model: onnx.ModelProto, metadata: dict[str, Any]) -> None:
    """Writes metadata under the key `mien`, and removes the exporter's, which quote source files with their paths."""
    graph = model.graph
    nodes = [*graph.node, *(node for function in model.functions for node in function.node)]
    for part in (graph, *nodes, *graph.initializer, *graph.value_info, *graph.input, *graph.output, *model.functions):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = "mien", json.dumps(metadata)


def description(model: onnx.ModelProto) -> dict[str, Any]:
    """Returns the metadata that `describe` wrote."""
    return json.loads({entry.key: entry.value for entry in model.metadata_props}["mien"])
