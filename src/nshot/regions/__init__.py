"""Where in an image: heatmaps of what a classifier sees, boxes by tiles, and boxes by a detector."""
