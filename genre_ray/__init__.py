"""Genre labels for large music catalogs, on Ray.

genre_ray reads AcousticBrainz documents and writes calibrated, taxonomy-aware genre labels. The same jobs run on a
laptop and on a cluster. README.md describes the jobs. CONTRIBUTING.md describes the packages inside this one.
"""

# A constant, not package metadata: a job package (`ray job submit --working-dir .`) is imported without being
# installed. pyproject.toml reads it from here.
__version__ = "0.2.0"
