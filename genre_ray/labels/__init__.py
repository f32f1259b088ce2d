"""Genres as labels: their taxonomy, names, spaces and splits."""
