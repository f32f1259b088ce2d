"""Metrics of predictions: official scores, ranking, calibration, baselines and confusions."""
