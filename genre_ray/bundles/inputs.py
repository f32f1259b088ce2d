"""Check that features have the specification that a bundle was trained with."""

from collections.abc import Sequence

from genre_ray.bundles.files import Bundle
from genre_ray.errors import InputError
from genre_ray.features.spec import FeatureSpec
from genre_ray.systems.description import AUDIO

_SHOWN = 5


def check_input(bundle: Bundle, found: FeatureSpec, origin: str, modality: str = AUDIO) -> None:
    """Check that features have the specification of a bundle's input.

    Args:
        bundle: the bundle.
        found: the specification of the features.
        origin: the file or table of the features, for the message.
        modality: the input of the bundle that the features are for.

    Raises:
        InputError: the specifications differ; the message says how.
    """
    expected = bundle.manifest.inputs.get(modality)
    if expected is None:
        raise InputError(
            f"{origin}: the bundle {bundle.uri} was trained on {', '.join(bundle.manifest.inputs)}, not on {modality}; "
            "use a bundle trained on such features"
        )
    if found.hash != expected.hash:
        raise InputError(
            f"{origin}: the features differ from those that the bundle {bundle.uri} was trained on: "
            f"{'; '.join(_differences(expected, found))}; use a bundle trained on such features"
        )


def _differences(expected: FeatureSpec, found: FeatureSpec) -> list[str]:
    differences = []
    for name in ("kind", "dtype"):
        if (wanted := getattr(expected, name)) != (own := getattr(found, name)):
            differences.append(f"{name} {own} instead of {wanted}")
    if found.shape != expected.shape:
        differences.append(f"shape {_shape(found)} instead of {_shape(expected)}")
    if missing := sorted({*expected.columns} - {*found.columns}):
        differences.append(f"missing columns: {_some(missing)}")
    if added := sorted({*found.columns} - {*expected.columns}):
        differences.append(f"unknown columns: {_some(added)}")
    if found.columns != expected.columns and not missing and not added:
        differences.append("the same columns in another order")
    for name in sorted({*expected.parameters} | {*found.parameters}):
        wanted, own = expected.parameters.get(name), found.parameters.get(name)
        if wanted != own:
            differences.append(f"{name} {own} instead of {wanted}")
    return differences


def _shape(spec: FeatureSpec) -> str:
    return f"({', '.join(f'{axis.size} {axis.name}' for axis in spec.shape)})"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
