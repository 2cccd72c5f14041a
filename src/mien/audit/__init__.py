"""Audits: for whom a model fails (`model`), and whether the data is sound; no torch."""
