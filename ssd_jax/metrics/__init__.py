"""Numbers and reasons from detections."""
