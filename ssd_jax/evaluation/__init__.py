"""Detections and measurements of a whole split."""
