"""What comes in: documents, archives, ground truths and runs, read so that no bad item can stop a run.

A bad item becomes a `genre_ray.outcomes.Rejection`; only an input that is unusable as a whole, such
as a malformed ground truth, raises `genre_ray.errors.InputError`.
"""
