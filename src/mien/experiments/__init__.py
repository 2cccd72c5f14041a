"""Experiments: studies and searches, that is, many runs; and the studies that ship (studies/*.yaml)."""
