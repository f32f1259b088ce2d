"""Labels: taxonomies, label names, label spaces, splits, and mappings between taxonomies."""
