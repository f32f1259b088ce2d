"""Essentia's measurements of AcousticBrainz documents as vectors of 2669 named columns."""
