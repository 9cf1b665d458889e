"""Vectors on disk, found again by what they are made of."""
