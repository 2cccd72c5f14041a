"""Audits of a model and of a data set; they compute results and draw nothing."""
