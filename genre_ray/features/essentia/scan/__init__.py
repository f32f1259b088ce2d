"""A compiled scanner of AcousticBrainz documents, which leaves all that it is not sure of to the parser."""
