"""Genre labels for large music catalogs, on Ray.

AcousticBrainz documents or audio go in; calibrated, taxonomy-aware genre labels come out, on one laptop or on
a cluster, through the same jobs. README.md shows the jobs, CONTRIBUTING.md how the rooms are laid out.
"""

# A constant, not package metadata: a job package (`ray job submit --working-dir .`) is imported without being
# installed. pyproject.toml reads it from here.
__version__ = "0.2.0"
