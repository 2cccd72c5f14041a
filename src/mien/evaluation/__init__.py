"""Evaluation of a model: scores on faces, under degraded images, and the regions that predictions depend on."""
