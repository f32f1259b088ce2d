"""What is known of recordings beside their features: annotations, identifiers and mappings between taxonomies."""
