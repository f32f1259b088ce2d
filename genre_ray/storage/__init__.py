"""Files and Delta tables, on a local file system or in an S3 store."""
