"""The identity of a run: the settings that decide the result, the inputs by content, and the version of genre_ray."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import genre_ray

Identity = dict[str, Any]

ABSENT = object()


def make_identity(job: str, settings: dict[str, Any], **sources: Any) -> Identity:
    """Make the identity of a run.

    Args:
        job: name of the job.
        settings: the settings that decide the result, see `JobConfiguration.identity`.
        sources: the content of inputs that the settings refer to: ids of bundles, versions of tables.
    """
    return {"job": job, "version": genre_ray.__version__, "settings": settings, **sources}


def run_id(identity: Identity) -> str:
    """Return the id of a run, a hash of its identity."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def differences(theirs: Any, ours: Any, path: str = "") -> Iterator[str]:
    """Yield each difference between two identities, as `key: X there, Y here`."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*theirs, *ours}):
            yield from differences(theirs.get(key, ABSENT), ours.get(key, ABSENT), f"{path}.{key}" if path else key)
    elif theirs != ours:
        yield f"{path}: {_show(theirs)} there, {_show(ours)} here"


def _show(value: Any) -> str:
    return "nothing" if value is ABSENT else json.dumps(value, ensure_ascii=False)
