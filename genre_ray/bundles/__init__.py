"""Bundles: folders with a trained network and everything that is needed to use it."""
