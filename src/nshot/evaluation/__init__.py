"""Vectors and their true labels -> figures, files and a page."""
