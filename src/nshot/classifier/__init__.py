"""A classifier is a labelled matrix: built from prompts or from examples, asked, saved and opened."""
