"""Verify the files of bundles by the checksums in their manifests."""

from collections.abc import Iterator

from genre_ray.bundles.files import CARD, EXAMPLES, WEIGHTS, bundle_folders, read_file, read_manifest
from genre_ray.errors import GenreRayError
from genre_ray.runs.verify import Finding
from genre_ray.storage import objects


def verify_bundles(uri: str) -> Iterator[Finding]:
    """Verify every bundle in the folder `uri`, which may be a bundle itself."""
    for name in bundle_folders(objects.list_files(uri)):
        yield verify_bundle(objects.join(uri, name) if name else uri)


def verify_bundle(uri: str) -> Finding:
    """Verify one bundle: read its manifest, and compare the other files with the checksums in it."""
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
