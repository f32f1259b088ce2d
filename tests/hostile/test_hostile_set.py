"""Guards the answer to each known kind of bad input: a stable reason for a row, an exit code for what is no row.

The set is also documentation: `README.md` beside this file is its table, and this file, run as a program, writes it.
"""

import bz2
import gzip
import hashlib
import json
import logging
import os
import pickle
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
import zstandard

from genre_ray.bundles.files import write_bundle
from genre_ray.commands import ingest, predict
from genre_ray.commands.entry import run_job
from genre_ray.errors import GenreRayError
from genre_ray.features.essentia.columns import ESSENTIA, FEATURE_COLUMNS
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.features.spec import FeatureSpec
from genre_ray.outcomes import Reason
from genre_ray.runs.stages import ShardSize
from genre_ray.sources.documents.source import DocumentSource
from genre_ray.storage import schemas, tables
from genre_ray.storage.schemas import FEATURES
from genre_ray.truth.ground_truth import read_ground_truth

DATA = Path(__file__).parents[1] / "data"
TABLE = Path(__file__).parent / "README.md"
GOOD = next((DATA / "acousticbrainz").glob("*.json")).read_bytes()


@dataclass(frozen=True)
class Case:
    """A bad input: `make` gives the content, or writes below a folder; `expected` is a reason, or an exit code."""

    kind: str
    what: str
    expected: Reason | int
    make: Any
    name: str = ""


# Documents


def document(*path, value=..., gone=False):
    """A real document with the value at `path` replaced or gone."""
    root = orjson.loads(GOOD)
    inner = root
    for key in path[:-1]:
        inner = inner[key]
    if gone:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    # Python's writer, for it writes NaN.
    return json.dumps(root).encode()


def pipe(path):
    os.mkfifo(path)


def link_to(target):
    return lambda path: path.symlink_to(target)


ENERGY = ("lowlevel", "spectral_energy", "mean")
DOCUMENTS = [
    ("an empty file", Reason.EMPTY, b""),
    ("white space", Reason.EMPTY, b" \n\t"),
    ("zeros, as a crashed file system leaves them", Reason.NOT_JSON, bytes(4096)),
    ("a document cut in the middle", Reason.NOT_JSON, GOOD[: len(GOOD) // 2]),
    ("two documents in one file", Reason.NOT_JSON, GOOD + GOOD),
    ("a web page", Reason.NOT_JSON, b"<html><body>404 Not Found</body></html>"),
    ("UTF-16", Reason.NOT_UTF8, GOOD.decode().encode("utf-16")),
    ("a compressed document under the name of a plain one", Reason.NOT_UTF8, gzip.compress(GOOD)),
    ("a list", Reason.NOT_AN_OBJECT, b"[" + GOOD + b"]"),
    ("100,000 levels of lists", Reason.TOO_DEEP, b"[" * 100_000 + b"]" * 100_000),
    ("100,000 levels in a field that nobody reads", Reason.TOO_DEEP, GOOD.rstrip()[:-1] + b',"x":' + b"[" * 100_000),
    ("more than 8 MiB", Reason.TOO_LARGE, GOOD + b" " * 2**23),
    ("a high-level document", Reason.NO_LOWLEVEL, b'{"highlevel": {"mood": {"value": "happy"}}, "metadata": {}}'),
    ("an extractor that nobody knows", Reason.UNKNOWN_VERSION, b'{"lowlevel": {}, "rhythm": {}, "tonal": {}}'),
    ("a descriptor that is gone", Reason.MISSING_VALUE, document(*ENERGY[:2], gone=True)),
    ("a statistic that is null", Reason.MISSING_VALUE, document(*ENERGY, value=None)),
    ("a number in quotes", Reason.WRONG_TYPE, document(*ENERGY, value="0.5")),
    ("a truth value where a number belongs", Reason.WRONG_TYPE, document(*ENERGY, value=True)),
    ("a list that is one short", Reason.WRONG_SHAPE, document("lowlevel", "mfcc", "mean", value=[0.5] * 12)),
    ("a number where a list belongs", Reason.WRONG_SHAPE, document("lowlevel", "mfcc", "mean", value=0.5)),
    ("NaN", Reason.NOT_FINITE, document(*ENERGY, value=float("nan"))),
    ("a number beyond 32-bit floats", Reason.NOT_FINITE, document(*ENERGY, value=1e39)),
    ("a number of 5,000 digits", Reason.NOT_FINITE, document(*ENERGY, value="@").replace(b'"@"', b"9" * 5000)),
    ("the key of H", Reason.UNKNOWN_KEY, document("tonal", "key_key", value="H")),
    ("a named pipe, which would block for ever", Reason.UNREADABLE, pipe),
    ("a link to nothing", Reason.UNREADABLE, link_to("/nowhere/at/all")),
    ("a link to a device without end", Reason.UNREADABLE, link_to("/dev/zero")),
]

# Archives


def header(name, size=0, type=tarfile.REGTYPE, **more):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, type
    for attribute, value in more.items():
        setattr(info, attribute, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def member(name, content):
    return header(name, len(content)) + content + bytes(-len(content) % 512)


def backwards():
    block = bytearray(header("a.json"))
    block[124:136] = (-1024).to_bytes(12, "big", signed=True)
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 8 * 32)
    return bytes(block)


def bomb(path):
    with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as stream:
        stream.write(FIRST + header("a.json", 2**30))
        for _ in range(2**6):
            stream.write(bytes(2**24))
        stream.write(END)


def spoilt(payload):
    return payload[:-6] + bytes(byte ^ 255 for byte in payload[-6:-4]) + payload[-4:]


FIRST, END = member("first.json", GOOD), bytes(1024)
ARCHIVE = FIRST + END
EXTENSIONS = (header("x", 10, tarfile.XHDTYPE) + b"10 a=bcde\n".ljust(512, b"\0")) * 5000
DIGITS = header("x", 8_000_000, tarfile.XHDTYPE) + b"1" * 8_000_000
ARCHIVES = [
    *(
        (f"a member that is {what}", Reason.UNSAFE_MEMBER, FIRST + header("a.json", type=type, **more) + END)
        for what, type, more in [
            ("a symbolic link", tarfile.SYMTYPE, {"linkname": "/etc/passwd"}),
            ("a hard link", tarfile.LNKTYPE, {"linkname": "first.json"}),
            ("a device", tarfile.CHRTYPE, {"devmajor": 1, "devminor": 5}),
            ("a pipe", tarfile.FIFOTYPE, {}),
            ("of an unknown type", b"Z", {}),
        ]
    ),
    ("a member with an absolute name", Reason.UNSAFE_MEMBER, FIRST + member("/etc/a.json", GOOD) + END),
    ("a member whose name climbs out", Reason.UNSAFE_MEMBER, FIRST + member("x/../../a.json", GOOD) + END),
    (
        "a member whose name climbs out in Windows' way",
        Reason.UNSAFE_MEMBER,
        FIRST + member("x\\..\\a.json", GOOD) + END,
    ),
    ("a member that is no document", Reason.NOT_A_DOCUMENT, FIRST + member("README", b"text") + END),
    ("an archive in the archive", Reason.NOT_A_DOCUMENT, FIRST + member("inner.tar.gz", gzip.compress(ARCHIVE)) + END),
    ("a member with a name of 300 characters", Reason.ID_TOO_LONG, FIRST + member("x" * 300 + ".json", GOOD) + END),
    (
        "a member with a path of 5,000 characters",
        Reason.ID_TOO_LONG,
        FIRST + member("x/" * 2500 + "a.json", GOOD) + END,
    ),
    ("a member of more than 8 MiB", Reason.TOO_LARGE, FIRST + member("a.json", bytes(2**23 + 1)) + END),
    ("a tar without an end mark", Reason.ARCHIVE_TRUNCATED, FIRST),
    ("a tar cut in a member", Reason.ARCHIVE_TRUNCATED, FIRST + FIRST[:5000]),
    ("a member of 4 EiB, it says", Reason.ARCHIVE_TRUNCATED, FIRST + header("a.json", 2**62) + END),
    ("a gzip that is cut", Reason.ARCHIVE_TRUNCATED, gzip.compress(ARCHIVE)[:-9], ".tar.gz"),
    ("a bzip2 that is cut", Reason.ARCHIVE_TRUNCATED, bz2.compress(ARCHIVE)[:-9], ".tar.bz2"),
    ("a Zstandard that is cut", Reason.ARCHIVE_TRUNCATED, zstandard.compress(ARCHIVE)[:-9], ".tar.zst"),
    ("a gzip with a wrong checksum", Reason.ARCHIVE_UNREADABLE, spoilt(gzip.compress(ARCHIVE)), ".tar.gz"),
    ("an empty file", Reason.ARCHIVE_UNREADABLE, b""),
    ("text", Reason.ARCHIVE_UNREADABLE, b"this is no archive\n" * 1000),
    ("compressed text", Reason.ARCHIVE_UNREADABLE, gzip.compress(b"this is no archive\n" * 1000), ".tar.gz"),
    ("gzip under the name of Zstandard", Reason.ARCHIVE_UNREADABLE, gzip.compress(ARCHIVE), ".tar.zst"),
    ("a member with a size below zero (CVE-2025-8194)", Reason.ARCHIVE_UNREADABLE, FIRST + backwards() + END),
    ("an extension header of 8 GiB, it says", Reason.ARCHIVE_UNREADABLE, FIRST + header("x", 2**33, b"x") + END),
    ("5,000 extension headers in a row", Reason.ARCHIVE_UNREADABLE, FIRST + EXTENSIONS + END),
    ("an extension header of 8 million digits", Reason.ARCHIVE_UNREADABLE, FIRST + DIGITS + END),
    ("an extension header of a MiB of digits", Reason.ARCHIVE_UNREADABLE, FIRST + DIGITS[: 2**20] + END),
    ("members behind the end mark", Reason.ARCHIVE_UNREADABLE, ARCHIVE + ARCHIVE),
    ("a named pipe, which would block for ever", Reason.ARCHIVE_UNREADABLE, pipe),
    ("1,001 members where 1,000 are allowed", Reason.TOO_MANY_MEMBERS, header("a.json") * 1001 + END),
    ("a GiB of zeros in some KiB", Reason.EXPANDS_TOO_FAR, bomb, ".tar.zst"),
]

# Ground truths: tab-separated

HEADER, ROW = "recordingmbid\treleasegroupmbid\tgenre1\tgenre2\n", "A\tg\trock\trock---indie\n"
TRUTHS = [
    ("an empty file", ""),
    ("no header", ROW),
    ("a header alone", HEADER),
    ("a byte order mark", "\ufeff" + HEADER + ROW),
    ("columns in another order", "releasegroupmbid\trecordingmbid\tgenre1\tgenre2\n" + ROW),
    ("more fields than the header names", HEADER + "A\tg\tpop\t\t\n"),
    ("a recording without a genre", HEADER + "A\tg\t\t\n"),
    ("a recording without an id", HEADER + "\tg\trock\n"),
    ("a recording twice", HEADER + ROW + ROW),
    ("a label twice", HEADER + "A\tg\trock\trock\n"),
    ("a label of three levels", HEADER + "A\tg\ta---b---c\n"),
    ("a label with a zero byte", HEADER + "A\tg\tro\0ck\n"),
    ("Latin-1", (HEADER + "A\tg\tmúsica\n").encode("latin-1")),
    ("a bzip2 that is cut", bz2.compress((HEADER + ROW).encode())[:-9], "truth.tsv.bz2"),
    ("a bzip2 that is none", HEADER + ROW, "truth.tsv.bz2"),
]

# Configurations of `ingest`: arguments, with the content of a YAML file behind --config

LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
CONFIGURATIONS = [
    ("a file that is not there", ["--config", "nowhere.yaml"]),
    ("YAML that is none", "output: ["),
    ("a list", "- output\n- inputs\n"),
    ("not UTF-8", b"output: \xff\xfe\n"),
    ("a tag that would make a Python object", "output: !!python/object/apply:os.system [exit]\n"),
    ("aliases that grow to 31 thousand million values", LAUGHS + "output: x\ninputs: *a11\n"),
    ("a setting that is misspelt", "outptu: x\ninputs: [a]\n"),
    ("a setting inside of a group that is misspelt", "output: x\ninputs: [a]\nexecution: {worker: 2}\n"),
    ("no output", "inputs: [a]\n"),
    ("no inputs", "output: x\ninputs: []\n"),
    ("a number in words", "output: x\ninputs: [a]\nlimit: three\n"),
    ("a limit of nothing", ["--output=x", "--inputs", "a", "--limit=0"]),
    ("a time that is not a number", "output: x\ninputs: [a]\nexecution: {item_timeout_s: .nan}\n"),
    ("a time without end", "output: x\ninputs: [a]\nexecution: {item_timeout_s: .inf}\n"),
    ("inputs that are not there", ["--output=x", "--inputs", "nowhere"]),
    ("a flag that does not exist", ["--outputs=x"]),
    ("the output inside of the inputs", ["--output=in/out", "--inputs", "in"]),
]

# Bundles and tables, as `predict` is given them

COLUMNS = list(FEATURE_COLUMNS)


def bundle(folder, *, gone=None, append=b"", replace=None, without=None, spec=ESSENTIA):
    """A bundle in order, but for what is said."""
    from tests.manifests import make_manifest

    manifest = make_manifest(inputs={"audio": spec})
    weights = {"network.weight": np.zeros(3, np.float32)}
    write_bundle(str(folder / "bundle"), manifest, weights, schemas.EXAMPLES.empty_table(), "")
    if without:
        path = folder / "bundle" / "model.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != without}))
    if gone:
        (folder / "bundle" / gone).unlink()
    for name, content in (replace or {}).items():
        (folder / "bundle" / name).write_bytes(content)
    if append:
        with (folder / "bundle" / "model.safetensors").open("ab") as file:
            file.write(append)
    if not (folder / "features").exists():
        table(folder)


def disguised(content):
    """Weights that are something else, with the checksum of what they are."""

    def make(folder):
        bundle(folder)
        path = folder / "bundle" / "model.json"
        model = json.loads(path.read_text())
        model["sha256"]["model.safetensors"] = hashlib.sha256(content).hexdigest()
        bundle(folder, replace={"model.safetensors": content, "model.json": json.dumps(model).encode()})

    return make


class Attack:
    """What a pickle would do when it is read."""

    def __reduce__(self):
        return os._exit, (99,)


BUNDLES = [
    ("no folder", lambda folder: table(folder)),
    ("a bundle that was not completed", lambda folder: bundle(folder, gone="model.json")),
    ("a description that is cut", lambda folder: bundle(folder, replace={"model.json": b'{"labels": ['})),
    ("a description that is a list", lambda folder: bundle(folder, replace={"model.json": b"[]"})),
    ("a description without checksums", lambda folder: bundle(folder, replace={"model.json": b'{"labels": []}'})),
    ("a description without a taxonomy", lambda folder: bundle(folder, without="taxonomy")),
    ("a description without labels", lambda folder: bundle(folder, without="tasks")),
    ("a description without input columns", lambda folder: bundle(folder, without="inputs")),
    ("a description of another version", lambda folder: bundle(folder, replace={"model.json": b'{"version": 2}'})),
    ("a description nested 100,000 deep", lambda folder: bundle(folder, replace={"model.json": b"[" * 100_000})),
    ("weights that were altered", lambda folder: bundle(folder, append=b"\0")),
    ("weights that are gone", lambda folder: bundle(folder, gone="model.safetensors")),
    ("weights that are cut, and said to be so", disguised(b"\x40\0\0\0\0\0\0\0{")),
    ("weights that are a pickle, and said to be so", disguised(pickle.dumps(Attack()))),
    (
        "a bundle for other columns",
        lambda folder: bundle(folder, spec=FeatureSpec.of_columns(ESSENTIA.kind, COLUMNS[::-1])),
    ),
]


def table(folder, *, schema=FEATURES, columns=COLUMNS, rows=True, spoil=None):
    """A features table in order, but for what is said; `spoil` is done to its folder."""
    uri = folder / "features"
    properties = FeatureSpec.of_columns(ESSENTIA.kind, columns).properties() if columns else {}
    tables.create_table(str(uri), schema, properties)
    if rows:
        made = {field.name: pa.nulls(1, field.type) for field in schema}
        part = tables.write_part(str(uri), "part", pa.table(made, schema=schema))
        tables.append(tables.open_table(str(uri)), [tables.Append("a", [part])], schema)
    if spoil:
        spoil(uri)


def each(pattern, change):
    def spoil(folder):
        paths = list(folder.glob(pattern))
        assert paths
        for path in paths:
            change(path)

    return spoil


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


OTHER = pa.schema([("recording_id", pa.string())])
TABLES = [
    ("no folder", 2, lambda folder: None),
    ("a folder that is no table", 2, lambda folder: (folder / "features").mkdir()),
    ("a table without rows", 2, lambda folder: table(folder, rows=False)),
    ("a table of something else", 2, lambda folder: table(folder, schema=OTHER, columns=())),
    ("a table of other columns", 2, lambda folder: table(folder, columns=COLUMNS[:-1])),
    ("a log that is cut", 1, lambda folder: table(folder, spoil=each("_delta_log/*1.json", halve))),
    ("a log of text", 1, lambda folder: table(folder, spoil=each("_delta_log/*.json", lambda p: p.write_text("text")))),
    ("a part that is gone", 2, lambda folder: table(folder, spoil=each("*.parquet", Path.unlink))),
    ("a part that is cut", 1, lambda folder: table(folder, spoil=each("*.parquet", halve))),
    ("a part of zeros", 1, lambda folder: table(folder, spoil=each("*.parquet", lambda p: p.write_bytes(bytes(9999))))),
]

SET = [
    *(Case("document", what, reason, make, "song.json") for what, reason, make in DOCUMENTS),
    *(Case("archive", what, reason, make, "dump" + (*rest, ".tar")[0]) for what, reason, make, *rest in ARCHIVES),
    *(Case("ground truth", what, 2, make, (*rest, "truth.tsv")[0]) for what, make, *rest in TRUTHS),
    *(Case("configuration", what, 2, make, "job.yaml") for what, make in CONFIGURATIONS),
    *(Case("table", what, code, make) for what, code, make in TABLES),
    *(Case("bundle", what, 2, make) for what, make in BUNDLES),
]


def put(case, folder):
    path = folder / case.name
    if callable(case.make):
        case.make(path if case.name else folder)
    else:
        path.write_bytes(case.make.encode() if isinstance(case.make, str) else case.make)
    return path


def cases(*kinds):
    chosen = [case for case in SET if case.kind in kinds]
    return pytest.mark.parametrize("case", chosen, ids=lambda case: f"{case.kind}: {case.what}")


@cases("document", "archive")
def test_a_bad_row_has_its_reason_and_takes_no_other_with_it(case, tmp_path):
    (tmp_path / "in").mkdir()
    put(case, tmp_path / "in")
    (tmp_path / "in" / "zzz-good.json").write_bytes(GOOD)
    source = DocumentSource((str(tmp_path / "in"),), max_members=1000)
    read = [
        outcome
        for item in source.cut(source.list_inputs(), 10_000)
        for _, outcome, _ in source.read(item, ShardSize(10_000))
    ]
    parse = ParseDocuments().open()
    found = [*(parse(documents) for documents, _ in read), *read]
    rejected = pa.concat_tables(rows for _, rows in found)
    if case.expected is Reason.TOO_MANY_MEMBERS:  # its members are empty, too
        rejected = rejected.slice(rejected.num_rows - 1)
    assert rejected["reason"].to_pylist() == [case.expected]
    accepted = sum(rows.num_rows for rows, _ in found if rows.schema.equals(ParseDocuments.schema))
    assert accepted == 1 + _documents_before_the_fault(case)


def _documents_before_the_fault(case):
    """One in an archive, but where nothing is readable or the compression has all of it in one block that is not."""
    none = {"an empty file", "text", "compressed text", "gzip under the name of Zstandard", "a Zstandard that is cut"}
    return case.kind == "archive" and not (
        case.what in none or case.make is pipe or case.expected is Reason.TOO_MANY_MEMBERS
    )


@cases("ground truth")
def test_a_bad_ground_truth_is_refused(case, tmp_path):
    with pytest.raises(GenreRayError) as refused:
        read_ground_truth(str(put(case, tmp_path)))
    assert refused.value.exit_code == case.expected


@cases("configuration")
def test_a_bad_configuration_is_refused(case, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    argv = case.make if isinstance(case.make, list) else ["--config", str(put(case, tmp_path))]
    _end_in_words(case, caplog, ingest.IngestConfiguration, ingest.run, argv)


@cases("table", "bundle")
def test_a_bad_table_or_bundle_is_refused(case, tmp_path, caplog):
    if case.kind == "table":
        bundle(tmp_path)
        for path in sorted((tmp_path / "features").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (tmp_path / "features").rmdir()
    put(case, tmp_path)
    argv = [f"--{name}={tmp_path / name}" for name in ("bundle", "features", "output")]
    _end_in_words(case, caplog, predict.PredictConfiguration, predict.run, argv)
    assert not (tmp_path / "output").exists()


def _end_in_words(case, caplog, configuration, run, argv):
    """By the expected exit code and a message of a few lines, not by a traceback."""
    with caplog.at_level(logging.ERROR):
        assert run_job(configuration, run, argv) == case.expected
    assert not any(record.exc_info for record in caplog.records)
    assert all(len(record.getMessage()) < 4000 for record in caplog.records)


def describe() -> str:
    """The set as Markdown."""
    lines = [
        "# Bad inputs, and what becomes of them",
        "",
        "Each is made and tried by `test_hostile_set.py`, which also holds this table true; run as a program, it",
        "writes the table again. A *reason* stands in the rejected table, and all other rows come out; what is no row",
        "ends a job with an *exit code* and a message: 2 for what its user can correct, 1 for what storage broke.",
        "",
        f"{len(SET)} inputs.",
        "",
        "| kind | input | answer |",
        "|---|---|---|",
    ]
    answers = ((case, case.expected if isinstance(case.expected, Reason) else f"exit {case.expected}") for case in SET)
    lines += [f"| {case.kind} | {case.what} | `{answer}` |" for case, answer in answers]
    return "\n".join(lines) + "\n"


def test_the_table_in_the_documentation_is_this_set():
    assert TABLE.read_text() == describe()
    assert len(SET) >= 40
    assert len({(case.kind, case.what) for case in SET}) == len(SET)


def test_every_reason_about_content_has_a_case():
    by_computing = {Reason.CRASHED, Reason.TIMED_OUT, Reason.OUT_OF_MEMORY}  # tests/runs/test_isolation.py
    assert {case.expected for case in SET if isinstance(case.expected, Reason)} == set(Reason) - by_computing


if __name__ == "__main__":
    TABLE.write_text(describe())
    sys.stdout.write(f"{TABLE}: {len(SET)} inputs\n")
