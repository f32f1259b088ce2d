"""Objects, tables and bundles at rest, on a local disk or an S3 store alike."""
