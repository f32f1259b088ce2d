"""Calibration, thresholds and the other steps from scores to labels."""
