"""How good predictions are: the official scores, ranking quality, baselines and confusions."""
