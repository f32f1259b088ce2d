"""Evaluation reports as JSON and HTML, and the card of a bundle."""
