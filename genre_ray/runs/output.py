"""The output of a run, be it tables, a bundle or a report: claimed by one run, joined by its resume, completed once.

An output has *records*, places that state whose it is and that one run alone can create: the properties of a table, or
a JSON document. A document completes its output, so it is written last; until then a claim under `OUTPUT/_run` stands
for it. Guarantees: of several runs that want an output one gets it, and the others are refused with every difference
between their settings and its; nothing is created beside a record of another run.
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
    """A place in an output that states the identity of the run that created it."""

    def owner(self) -> Identity | None:
        """The identity of the run that created the record; None where there is no record.

        Raises:
            OutputTakenError: what is there is not genre_ray's.
        """
        ...

    def create(self, identity: Identity) -> bool:
        """Create the record; False when there is one. Of several creators at once exactly one gets True."""
        ...


@dataclass(frozen=True)
class TableRecord:
    """A table whose properties `run_id` and `identity` state whose it is.

    Attributes:
        uri: the table.
        schema: its columns.
        properties: what its properties state besides, by names without `tables.PREFIX`.
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
                f"{self.uri}: expected no table, or one of this run, found one that genre_ray did not write; "
                "choose another --output"
            ) from None

    def create(self, identity: Identity) -> bool:
        """See `Record`."""
        return tables.create_table(self.uri, self.schema, self.stated(identity))

    def stated(self, identity: Identity) -> dict[str, str]:
        """All properties of the table of a run."""
        return {**self.properties, "run_id": run_id(identity), "identity": json.dumps(identity)}


@dataclass(frozen=True)
class Document:
    """A JSON object that completes an output and holds the identity of its run.

    Attributes:
        output: the output's folder.
        name: of the document in the folder.
        place: the keys that lead to the identity in the document.
    """

    output: str
    name: str
    place: tuple[str, ...] = ("identity",)

    @property
    def uri(self) -> str:
        """Where the document is, once the output is complete."""
        return objects.join(self.output, self.name)

    @property
    def is_written(self) -> bool:
        """Whether the document is there, and with it all that the run writes."""
        return objects.exists(self.uri)

    def owner(self) -> Identity | None:
        """See `Record`."""
        # Twice: the claim goes once the document is there, which may be just now.
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
                f"{uri}: expected a document of genre_ray or nothing, found another file; choose another --output"
            ) from None


@dataclass(frozen=True)
class Output:
    """The output of a run.

    Attributes:
        uri: its folder.
        identity: the run's.
        resume: whether the run may have begun before.
    """

    uri: str
    identity: Identity
    resume: bool = False

    @property
    def run(self) -> str:
        """The id of the run."""
        return run_id(self.identity)

    def claim(self, *records: Record) -> None:
        """Take the output for the run, or join the same run when `resume`.

        Raises:
            OutputTakenError: a record is another run's, or this run's and the run is not to be resumed.
            ConfigurationError: the store cannot keep two runs apart.
        """
        for record in records:
            self._refuse_other(record.owner(), resume=self.resume)
        objects.require_preconditions(objects.join(scratch(self.uri), "probe"))
        resume = self.resume
        for record in records:
            if record.create(self.identity):
                resume = True  # the output is ours: what is there by now is of a driver that joined
            else:
                self._refuse_other(record.owner(), resume=resume)

    def is_complete(self, document: Document) -> bool:
        """Whether this run has written the document that completes the output.

        Raises:
            OutputTakenError: the document is another run's, or this run's without `resume`, or not genre_ray's.
        """
        if not document.is_written:
            return False
        self._refuse_other(document.owner(), resume=self.resume)
        logger.info("%s: nothing to do, run %s is complete", self.uri, self.run)
        return True

    def complete(self, document: Document, write: Callable[[], bool]) -> bool:
        """Write the document of a claimed output; return whether this call, not another driver of the run, did.

        Args:
            document: the document.
            write: writes it unless it is there; returns whether it did.

        Raises:
            OutputTakenError: another run's document was there first.
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
                f"{self.uri} belongs to run {run_id(theirs)}, this is run {self.run}; choose another --output or make "
                "the settings equal: " + "; ".join(differences(theirs, self.identity))
            )
        if not resume:
            raise OutputTakenError(f"{self.uri} already holds run {self.run}; pass --resume to go on with it")


def scratch(output: str) -> str:
    """The folder of an output for what only runs read: claims, plans, attempt markers, checkpoints."""
    return objects.join(output, "_run")


def _identity(found: Any) -> Identity:
    if not isinstance(found, dict):
        raise TypeError(f"expected an object, found {type(found).__name__}")
    return found
