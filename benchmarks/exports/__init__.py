"""Comparison of exported files of several networks and formats with the original: detections, size and time."""
