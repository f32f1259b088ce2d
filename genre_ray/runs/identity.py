"""What makes two runs the same run: the settings that decide the result, the models used and the package's version."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import genre_ray

Identity = dict[str, Any]

ABSENT = object()


def make_identity(job: str, settings: dict[str, Any], **sources: Any) -> Identity:
    """The identity of a job's run.

    Args:
        job: the job's name.
        settings: the identity part of its configuration.
        sources: what the settings only point to, by content: ids of bundles, versions of tables.
    """
    return {"job": job, "version": genre_ray.__version__, "settings": settings, **sources}


def run_id(identity: Identity) -> str:
    """A name for the run, a hash of its identity."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def differences(theirs: Any, ours: Any, path: str = "") -> Iterator[str]:
    """Every key whose value differs, as `key: X there, Y here`."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*theirs, *ours}):
            yield from differences(theirs.get(key, ABSENT), ours.get(key, ABSENT), f"{path}.{key}" if path else key)
    elif theirs != ours:
        yield f"{path}: {_show(theirs)} there, {_show(ours)} here"


def _show(value: Any) -> str:
    return "nothing" if value is ABSENT else json.dumps(value, ensure_ascii=False)
