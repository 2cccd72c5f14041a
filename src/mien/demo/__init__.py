"""Drawn faces for demonstrations and tests."""
