"""The predictions table: score rows with a bundle, label them, relabel stored scores, and aggregate to recordings."""
