"""mien: classifiers of perceived gender and age from photographs of faces, with numbers that can be trusted."""

__version__ = "0.1.0"
