"""Evaluation of a model: its scores on faces, under other conditions, and the regions that an answer depends on."""
