"""`erase`: remove given recordings from tables, and name the bundles that learnt from them.

A version of each table without them is committed at once; the parts that older versions name go when these are older
than the retention, by this or a later `erase` or `vacuum`. The log keeps its transactions: a `--resume` brings nothing
back. Plans keep the names of input files, and inputs keep the documents: those are the owner's to remove. The log names
the erased ids in the commit that erased them, until Delta removes that commit (after 30 days, by its default).
"""

import logging
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from genre_ray.bundles.examples import own_examples, read_examples
from genre_ray.bundles.files import bundle_folders
from genre_ray.config import JobConfiguration
from genre_ray.errors import InputError
from genre_ray.runs.compact import record_checksums
from genre_ray.runs.verify import roots
from genre_ray.sources.documents.names import identifier, identify
from genre_ray.storage import history, objects, tables
from genre_ray.storage.transactions import LOG

logger = logging.getLogger(__name__)

RUN_TSV = "run.tsv"


class EraseConfiguration(JobConfiguration):
    """Remove recordings from every table at or below the inputs."""

    inputs: tuple[str, ...] = Field(min_length=1, description="outputs or tables to remove them from")
    output: str = Field("", description="not used: tables are changed in place")
    recordings: tuple[str, ...] = Field((), description="ids of the recordings")
    recordings_file: str | None = Field(None, description="file with an id in each line, local or s3://")
    bundles: tuple[str, ...] = Field((), description="bundles to look for them in; below the inputs they are found")
    retention_hours: float = Field(168.0, ge=0, description="older versions stay readable so long; 0 removes them now")

    @model_validator(mode="after")
    def _some(self) -> "EraseConfiguration":
        if not self.recordings and self.recordings_file is None:
            raise ValueError("expected --recordings or --recordings-file; name what is to be erased")
        return self


def run(configuration: EraseConfiguration) -> int:
    """Carry the job out; return its exit code."""
    wanted = _wanted(configuration)
    learnt = list(configuration.bundles)
    for uri in configuration.inputs:
        files = objects.list_files(uri)
        found = [objects.join(uri, name) if name else uri for name in roots(files, f"{LOG}/")]
        if not found:
            raise InputError(f"{uri}: expected a table or an output with tables, found none; correct the address")
        learnt += [objects.join(uri, name) if name else uri for name in bundle_folders(files)]
        for table in found:
            _erase(table, wanted, configuration)
        for file in files:
            if file.name.rpartition("/")[2] == RUN_TSV and _in_run(file.uri, wanted):
                logger.warning("%s names some of them: predict into a new output, or remove it", file.uri)
    for uri in learnt:
        examples = read_examples(uri)
        count = len(wanted & set(examples["recording_id"].to_pylist()))
        if count:
            own = len(wanted & set(own_examples(examples)["recording_id"].to_pylist()))
            logger.warning(
                "bundle %s learnt from %d of the recordings (its own network from %d): train it again", uri, count, own
            )
    return 0


def _wanted(configuration: EraseConfiguration) -> frozenset[str]:
    given = list(configuration.recordings)
    if configuration.recordings_file is not None:
        try:
            given += objects.read_bytes(configuration.recordings_file).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{configuration.recordings_file}: expected ids in UTF-8, found: {error}") from None
    wanted = frozenset(identifier(recording) for recording in given if recording.strip())
    if not wanted:
        raise InputError(f"{configuration.recordings_file}: expected an id in each line, found none; correct the file")
    return wanted


def _erase(uri: str, wanted: frozenset[str], configuration: EraseConfiguration) -> None:
    going = _rows_of(wanted)
    if configuration.dry_run:
        columns = {field.name for field in tables.open_table(uri).schema().fields}
        names = [name for name in ("recording_id", "source_uri") if name in columns]
        batches = tables.read_batches(uri, names, batch_rows=65536)
        count = sum(pc.sum(going(pa.Table.from_batches([rows]))).as_py() or 0 for rows in batches)
        logger.info("%s: would erase %d rows", uri, count)
        return
    logger.info("%s: erased %d rows", uri, history.erase_rows(uri, going))
    table = tables.open_table(uri)
    if "run_id" in tables.properties_of(table):
        # An erasure that ended before this is completed by the next one.
        record_checksums(uri, table)
    removed = history.vacuum(uri, configuration.retention_hours, dry_run=False)
    logger.info("%s: removed %d parts of versions older than %g h", uri, removed, configuration.retention_hours)


def _rows_of(wanted: frozenset[str]) -> Callable[[pa.Table], pa.ChunkedArray]:
    def going(rows: pa.Table) -> pa.ChunkedArray:
        ids = rows["recording_id"].to_pylist()
        if "source_uri" in rows.column_names:
            # What was rejected before it was parsed has its id in its name alone.
            sources = rows["source_uri"].to_pylist()
            ids = [
                identify((source or "").rpartition("#")[2])[0] if own is None else own
                for own, source in zip(ids, sources, strict=True)
            ]
        return pa.chunked_array([[own in wanted for own in ids]], pa.bool_())

    return going


def _in_run(uri: str, wanted: frozenset[str]) -> bool:
    lines = objects.read_bytes(uri).decode(errors="replace").splitlines()
    return any(line.partition("\t")[0] in wanted for line in lines)
