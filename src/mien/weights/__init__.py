"""The model that ships, its model card, and the notice of its licence."""

from importlib import resources


def model_card() -> str:
    """The card of the model that ships, in Markdown: data, scores for each group, limits, and what it is not for."""
    return (resources.files("mien.weights") / "MODEL_CARD.md").read_text("utf-8")
