"""Check bundles at rest against the checksums in their manifests."""

from collections.abc import Iterator

from genre_ray.bundles.files import CARD, EXAMPLES, WEIGHTS, bundle_folders, read_file, read_manifest
from genre_ray.errors import GenreRayError
from genre_ray.runs.verify import Finding
from genre_ray.storage import objects


def verify_bundles(uri: str) -> Iterator[Finding]:
    """Check every bundle at or below `uri`."""
    for name in bundle_folders(objects.list_files(uri)):
        yield verify_bundle(objects.join(uri, name) if name else uri)


def verify_bundle(uri: str) -> Finding:
    """Read the manifest of a bundle and compare the other files with its checksums."""
    finding = Finding(uri, "bundle")
    try:
        finding.counts["bundle_id"], manifest = read_manifest(uri)
    except GenreRayError as error:
        finding.damage.append(str(error))
        return finding
    for name in (WEIGHTS, EXAMPLES, CARD):
        try:
            read_file(uri, name, manifest)
        except GenreRayError as error:
            finding.damage.append(str(error))
    return finding
