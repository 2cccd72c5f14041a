"""Training: the only part of mien that imports torch."""
