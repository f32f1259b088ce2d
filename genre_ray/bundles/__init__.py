"""Bundles: a trained network with everything that is needed to use it, in one folder."""
