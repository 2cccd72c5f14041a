"""The audit of a model: for whom it fails."""
