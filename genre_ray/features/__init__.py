"""Feature tables: what their values are, how they are computed from documents, and how they are scaled."""
