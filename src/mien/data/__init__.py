"""Data: reading a data set into faces, corrections, splits, leaks, duplicates, image files and their pixels."""
