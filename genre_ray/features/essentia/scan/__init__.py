"""A compiled scanner of AcousticBrainz documents. It leaves documents that it is not certain about to the parser."""
