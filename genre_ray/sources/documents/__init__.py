"""Read AcousticBrainz documents from files and archives.

A bad document becomes a `genre_ray.outcomes.Rejection`, so it cannot stop a run.
"""
