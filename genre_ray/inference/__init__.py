"""From a bundle to scores, and from a catalog to the predictions table."""
