"""What makes two runs the same run: the settings that decide the result, the models used and the package's version."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import genre_ray
from genre_ray.errors import OutputTakenError
from genre_ray.storage import objects

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


def refuse_other(output: str, theirs: Identity, ours: Identity, *, resume: bool) -> None:
    """Let a run go on only over its own output, and only when it is asked to.

    Raises:
        OutputTakenError: the output is another run's (with every difference), or this run's without `resume`.
    """
    if run_id(theirs) != run_id(ours):
        raise OutputTakenError(
            f"{output} belongs to run {run_id(theirs)}, this is run {run_id(ours)}; choose another --output or make "
            "the settings equal: " + "; ".join(differences(theirs, ours))
        )
    if not resume:
        raise OutputTakenError(f"{output} already holds run {run_id(ours)}; pass --resume to go on with it")


def documented(uri: str, output: str, identity: Identity, *, resume: bool) -> bool:
    """Whether a run has written the document that says it is complete, a JSON object that holds its identity.

    Raises:
        OutputTakenError: the document is another run's, or this run's without `resume`, or none of ours.
    """
    if not objects.exists(uri):
        return False
    try:
        theirs = json.loads(objects.read_bytes(uri))["identity"]
    except (ValueError, LookupError, TypeError):
        raise OutputTakenError(
            f"{uri}: expected a document of genre_ray or nothing, found another file; choose another --output"
        ) from None
    refuse_other(output, theirs, identity, resume=resume)
    return True


def claim(uri: str, output: str, identity: Identity, *, resume: bool) -> None:
    """Take `output` for a run by a record at `uri` that one run alone can put there.

    Raises:
        OutputTakenError: the output is another run's, or this run's without `resume`.
        ConfigurationError: the store cannot keep two runs apart.
    """
    objects.require_preconditions(uri.rpartition("/")[0] + "/probe")
    if objects.put_if_absent(uri, json.dumps(identity).encode()):
        return
    refuse_other(output, json.loads(objects.read_bytes(uri)), identity, resume=resume)


def _show(value: Any) -> str:
    return "nothing" if value is ABSENT else json.dumps(value, ensure_ascii=False)
