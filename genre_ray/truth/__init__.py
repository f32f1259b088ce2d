"""Data about recordings besides their features: ground truths, identifiers, mapping tables and run files."""
