"""The job `erase`: remove recordings from tables, and name the bundles that were trained on them.

`erase` commits a version of each table without the recordings. The part files of older versions are deleted when they
are older than the retention, by this `erase`, a later one or Delta's `vacuum`. A later `--resume` does not add the
recordings again. `erase` does not touch the input documents or the plans, which contain names of input files. The Delta
log contains the erased ids in the commit that erased them, until Delta removes that commit (by default after 30 days).
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
    """Remove recordings from every table under the inputs, and name the bundles that were trained on them."""

    inputs: tuple[str, ...] = Field(min_length=1, description="tables, or folders that contain tables")
    output: str = Field("", description="not used: tables are changed in place")
    recordings: tuple[str, ...] = Field((), description="ids of the recordings to remove")
    recordings_file: str | None = Field(None, description="file with one recording id per line, local or s3://")
    bundles: tuple[str, ...] = Field((), description="more bundles to check; those under the inputs are always checked")
    retention_hours: float = Field(
        168.0, ge=0, description="keep older versions of the tables this long; 0 deletes now"
    )

    @model_validator(mode="after")
    def _some(self) -> "EraseConfiguration":
        if not self.recordings and self.recordings_file is None:
            raise ValueError("give the recordings to erase by --recordings or --recordings-file")
        return self


def run(configuration: EraseConfiguration) -> int:
    """Run the job and return its exit code."""
    wanted = _wanted(configuration)
    learnt = list(configuration.bundles)
    for uri in configuration.inputs:
        files = objects.list_files(uri)
        found = [objects.join(uri, name) if name else uri for name in roots(files, f"{LOG}/")]
        if not found:
            raise InputError(f"{uri}: no table found there; correct the path")
        learnt += [objects.join(uri, name) if name else uri for name in bundle_folders(files)]
        for table in found:
            _erase(table, wanted, configuration)
        for file in files:
            if file.name.rpartition("/")[2] == RUN_TSV and _in_run(file.uri, wanted):
                logger.warning(
                    "%s still contains some of the recordings; delete it, or predict into a new output", file.uri
                )
    for uri in learnt:
        examples = read_examples(uri)
        count = len(wanted & set(examples["recording_id"].to_pylist()))
        if count:
            own = len(wanted & set(own_examples(examples)["recording_id"].to_pylist()))
            logger.warning(
                "bundle %s was trained, validated or tested on %d of the recordings (its own network on %d); train it "
                "again without them",
                uri,
                count,
                own,
            )
    return 0


def _wanted(configuration: EraseConfiguration) -> frozenset[str]:
    given = list(configuration.recordings)
    if configuration.recordings_file is not None:
        try:
            given += objects.read_bytes(configuration.recordings_file).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{configuration.recordings_file}: cannot read this file as UTF-8 text: {error}") from None
    wanted = frozenset(identifier(recording) for recording in given if recording.strip())
    if not wanted:
        origin = configuration.recordings_file or "--recordings"
        raise InputError(f"{origin}: no recording ids found; give at least one id, in a file one per line")
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
        # If the job dies before this line, the next `erase` records the checksums.
        record_checksums(uri, table)
    removed = history.vacuum(uri, configuration.retention_hours, dry_run=False)
    logger.info("%s: deleted %d parts of versions older than %g h", uri, removed, configuration.retention_hours)


def _rows_of(wanted: frozenset[str]) -> Callable[[pa.Table], pa.ChunkedArray]:
    def going(rows: pa.Table) -> pa.ChunkedArray:
        ids = rows["recording_id"].to_pylist()
        if "source_uri" in rows.column_names:
            # A document that was rejected before it was parsed has its recording id only in its file name.
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
