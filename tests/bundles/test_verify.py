"""A bundle whose files are not what they were when it was written is damaged, and each damage is named."""

import pytest

from genre_ray.bundles.files import read_manifest, write_bundle
from genre_ray.bundles.verify import verify_bundles
from genre_ray.storage.schemas import EXAMPLES
from tests.manifests import make_manifest


@pytest.fixture
def bundle(tmp_path):
    assert write_bundle(str(tmp_path / "deep" / "bundle"), make_manifest(), {}, EXAMPLES.empty_table(), "card")
    return tmp_path / "deep" / "bundle"


def test_sound_bundles_are_found_below_a_folder(bundle, tmp_path):
    (finding,) = verify_bundles(str(tmp_path))
    assert finding.summary() == {
        "uri": str(bundle),
        "kind": "bundle",
        "state": "sound",
        "bundle_id": read_manifest(str(bundle))[0],
        "orphans": 0,
    }
    assert [found.uri for found in verify_bundles(str(bundle))] == [str(bundle)]
    assert not [*verify_bundles(str(bundle.parent / "nowhere"))]


@pytest.mark.parametrize("name", ["model.safetensors", "examples.parquet", "README.md", "model.json"])
def test_an_altered_file_is_damage(bundle, name):
    (bundle / name).write_bytes(b"{}")
    (finding,) = verify_bundles(str(bundle))
    (damage,) = finding.damage
    assert f"{bundle}/{name}: " in damage


def test_every_file_that_is_gone_is_damage(bundle):
    for name in ("model.safetensors", "examples.parquet"):
        (bundle / name).unlink()
    (finding,) = verify_bundles(str(bundle))
    assert [
        str(bundle / name) in damage
        for name, damage in zip(
            ("model.safetensors", "examples.parquet"), sorted(finding.damage, reverse=True), strict=True
        )
    ] == [True, True]
