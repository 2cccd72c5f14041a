"""Runs: the folder of a run, and models on the Hugging Face Hub."""
