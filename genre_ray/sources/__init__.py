"""Sources of rows: documents, archives and tables. A source lists inputs, makes work items and reads them."""
