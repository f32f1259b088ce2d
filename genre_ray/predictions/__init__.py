"""The predictions table: rows scored by a bundle, relabelled, and aggregated to recordings."""
