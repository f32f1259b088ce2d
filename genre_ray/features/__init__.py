"""Numbers from documents: the columns, and the way from a parsed document to a vector of them."""
