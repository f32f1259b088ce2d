"""Convert AcousticBrainz documents, which Essentia computed, to vectors of 2669 named columns."""
