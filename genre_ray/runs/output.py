"""The output of a run (tables, a bundle or a report): one run claims it, a resume joins it, and it is completed once.

An output has *records* that contain the identity of its run: the properties of a table, or a JSON document. Only one
run can create a record. A document is written last, because it completes its output; until then a claim under
`OUTPUT/_run` takes its place. Guarantees: of several runs that claim the same output exactly one succeeds. The others
are refused, and the message lists the differences. Nothing is created in the output of another run.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from genre_ray.errors import OutputTakenError
from genre_ray.runs.identity import Identity, differences, run_id
from genre_ray.storage import objects, tables

logger = logging.getLogger(__name__)


class Record(Protocol):
    """A part of an output that contains the identity of the run that created it."""

    def owner(self) -> Identity | None:
        """Return the identity of the run that created the record; None if the record does not exist.

        Raises:
            OutputTakenError: another program wrote what exists there.
        """
        ...

    def create(self, identity: Identity) -> bool:
        """Create the record unless it exists. Of several concurrent creators exactly one gets True."""
        ...


@dataclass(frozen=True)
class TableRecord:
    """A table whose properties `run_id` and `identity` contain the run's identity.

    Attributes:
        uri: the table.
        schema: its schema.
        properties: its other properties, by names without `tables.PREFIX`.
    """

    uri: str
    schema: pa.Schema
    properties: Mapping[str, str] = field(default_factory=dict)

    def owner(self) -> Identity | None:
        """See `Record`."""
        if not tables.is_table(self.uri):
            return None
        try:
            return _identity(json.loads(tables.properties(self.uri)["identity"]))
        except (KeyError, TypeError, ValueError):
            raise OutputTakenError(
                f"{self.uri}: there is already a table that genre_ray did not write; choose another --output"
            ) from None

    def create(self, identity: Identity) -> bool:
        """See `Record`."""
        return tables.create_table(self.uri, self.schema, self.stated(identity))

    def stated(self, identity: Identity) -> dict[str, str]:
        """Return all properties of the table for a run."""
        return {**self.properties, "run_id": run_id(identity), "identity": json.dumps(identity)}


@dataclass(frozen=True)
class Document:
    """A JSON document that completes an output and contains the identity of its run.

    Attributes:
        output: folder of the output.
        name: name of the document in the folder.
        place: the keys of the identity in the document, from the outermost.
    """

    output: str
    name: str
    place: tuple[str, ...] = ("identity",)

    @property
    def uri(self) -> str:
        """The path of the document."""
        return objects.join(self.output, self.name)

    @property
    def is_written(self) -> bool:
        """Whether the document exists, which means that the output is complete."""
        return objects.exists(self.uri)

    def owner(self) -> Identity | None:
        """See `Record`."""
        # The document is read again after the claim, because the claim is deleted once the document exists.
        for uri, place in ((self.uri, self.place), (self._claim, ()), (self.uri, self.place)):
            if objects.exists(uri):
                return self._read(uri, place)
        return None

    def create(self, identity: Identity) -> bool:
        """See `Record`."""
        return objects.put_if_absent(self._claim, json.dumps(identity).encode()) and not self.is_written

    @property
    def _claim(self) -> str:
        return objects.join(scratch(self.output), "claim.json")

    def _read(self, uri: str, place: tuple[str, ...]) -> Identity:
        try:
            found = json.loads(objects.read_bytes(uri))
            for key in place:
                found = found[key]
            return _identity(found)
        except (ValueError, LookupError, TypeError):
            raise OutputTakenError(
                f"{uri}: there is already a file that genre_ray did not write; choose another --output"
            ) from None


@dataclass(frozen=True)
class Output:
    """The output of a run.

    Attributes:
        uri: folder of the output.
        identity: identity of the run.
        resume: whether the run may have started before.
    """

    uri: str
    identity: Identity
    resume: bool = False

    @property
    def run(self) -> str:
        """The id of the run."""
        return run_id(self.identity)

    def claim(self, *records: Record) -> None:
        """Claim the output for the run, or join the same run if `resume`.

        Raises:
            OutputTakenError: a record belongs to another run, or to this run without `resume`.
            ConfigurationError: the store does not support conditional writes.
        """
        for record in records:
            self._refuse_other(record.owner(), resume=self.resume)
        objects.require_preconditions(objects.join(scratch(self.uri), "probe"))
        resume = self.resume
        for record in records:
            if record.create(self.identity):
                resume = True  # the output is ours, so later records come from a driver that joined this run
            else:
                self._refuse_other(record.owner(), resume=resume)

    def is_complete(self, document: Document) -> bool:
        """Whether this run has already completed the output by writing its document.

        Raises:
            OutputTakenError: the document belongs to another run, to this run without `resume`, or to another program.
        """
        if not document.is_written:
            return False
        self._refuse_other(document.owner(), resume=self.resume)
        logger.info("%s: run %s is already complete", self.uri, self.run)
        return True

    def complete(self, document: Document, write: Callable[[], bool]) -> bool:
        """Write the document of a claimed output; return False if another driver of the run wrote it first.

        Args:
            document: the document.
            write: writes the document unless it exists, and returns whether it did.

        Raises:
            OutputTakenError: another run wrote its document first.
        """
        is_ours = write()
        if not is_ours:
            self._refuse_other(document.owner(), resume=True)
        objects.delete_folder(scratch(self.uri))
        return is_ours

    def _refuse_other(self, theirs: Identity | None, *, resume: bool) -> None:
        if theirs is None:
            return
        if run_id(theirs) != self.run:
            raise OutputTakenError(
                f"{self.uri} belongs to run {run_id(theirs)}, but this is run {self.run}; choose another --output, or "
                "use the same settings. These differ: " + "; ".join(differences(theirs, self.identity))
            )
        if not resume:
            raise OutputTakenError(f"{self.uri} already contains run {self.run}; pass --resume to continue it")


def scratch(output: str) -> str:
    """Return the folder of an output for internal files: claims, plans, attempt markers and checkpoints."""
    return objects.join(output, "_run")


def _identity(found: Any) -> Identity:
    if not isinstance(found, dict):
        raise TypeError(f"expected an object, found {type(found).__name__}")
    return found
