"""The audit of a data set: whether results on it can be trusted."""
