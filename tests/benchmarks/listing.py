"""Many inputs: what a driver holds of a million keys, and how fast keys are listed and small files read on S3."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS), str(TESTS.parent)]

import conftest  # noqa: E402 - settles the store's address before anything reads it
from botocore.awsrequest import AWSResponse  # noqa: E402
from documents import jittered_documents  # noqa: E402
from harness import Result, compare, figure, seconds  # noqa: E402

from genre_ray.runs.inventory import Inventory  # noqa: E402
from genre_ray.runs.plan import settle_plans  # noqa: E402
from genre_ray.runs.stages import ShardSize  # noqa: E402
from genre_ray.sources.documents.raw import is_document  # noqa: E402
from genre_ray.sources.documents.source import DocumentSource  # noqa: E402
from genre_ray.storage import objects, s3  # noqa: E402

KEYS, REAL_KEYS, SMALL_FILES, PAGE_KEYS, CONNECTIONS = 1_000_000, 20_000, 2_000, 1000, 16


def benchmarks(scratch: Path) -> Iterator[Result]:
    for keys in (KEYS // 10, KEYS):
        yield figure(
            f"memory that a driver takes to list and plan {keys:,} keys",
            lambda keys=keys: planned(keys)["mib"],
            unit="MiB",
            at_most=100,
            repetitions=1,
            note="paginated stub below boto3, beyond what it holds before",
        )
    with conftest.object_store() as server:
        yield from on_s3(server.bucket)


def on_s3(bucket: str) -> Iterator[Result]:
    tiny, documents = f"s3://{bucket}/tiny", f"s3://{bucket}/documents"
    put(tiny, ((f"{n:06d}.json", b"{}") for n in range(REAL_KEYS)))
    put(documents, jittered_documents(SMALL_FILES))

    def plain_listing() -> None:
        pages = s3.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="tiny/")
        assert sum(is_document(item["Key"]) for page in pages for item in page["Contents"]) == REAL_KEYS

    def listing() -> None:
        assert sum(1 for _ in DocumentSource((tiny,)).list_inputs()) == REAL_KEYS

    yield compare(
        f"list {REAL_KEYS:,} keys on S3, beside boto3's paginator",
        lambda: REAL_KEYS / seconds(listing),
        lambda: REAL_KEYS / seconds(plain_listing),
        unit="keys/s",
        repetitions=3,
    )
    source = DocumentSource((documents,))
    with Inventory(source.list_inputs()) as files:
        items = list(source.cut(files, SMALL_FILES))
    keys = [file.uri.removeprefix(f"s3://{bucket}/") for item in items for file in item.files]

    def get(key: str) -> int:
        return len(s3.client().get_object(Bucket=bucket, Key=key)["Body"].read())

    def transfer() -> None:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            deque(pool.map(get, keys), maxlen=0)

    def read() -> None:
        deque((rows for item in items for rows in source.read(item, ShardSize(SMALL_FILES))), maxlen=0)

    yield compare(
        f"read {SMALL_FILES:,} documents from S3, beside get_object of boto3 in {CONNECTIONS} threads",
        lambda: SMALL_FILES / seconds(read),
        lambda: SMALL_FILES / seconds(transfer),
        unit="documents/s",
        at_least=1.0,
        repetitions=3,
    )


def put(uri: str, files: Any) -> None:
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        deque(pool.map(lambda file: objects.write_bytes(objects.join(uri, file[0]), file[1]), files), maxlen=0)


def planned(keys: int) -> dict[str, float]:
    """What a process of its own tells of planning so many keys."""
    told = subprocess.run([sys.executable, __file__, str(keys)], check=True, stdout=subprocess.PIPE)
    return dict(json.loads(told.stdout))


def plan(keys: int) -> dict[str, float]:
    """Do what a driver does before it starts workers; tell how much more memory that took at most."""
    stub_listing(keys)
    source = DocumentSource(("s3://stub/catalog",))
    with tempfile.TemporaryDirectory() as output:
        before = reset_peak()
        with Inventory(source.list_inputs()) as inventory:
            plans = settle_plans(output, inventory, source.cut, 5000)
        tasks = [left for one in plans for left in one.remaining(lambda item: 0)]
        stored = sum(file.size for file in objects.list_files(output))
        return {"mib": peak_mib() - before, "tasks": len(tasks), "stored_mib": stored / 2**20}


def stub_listing(keys: int) -> None:
    """Let boto3 find so many keys: its own parser reads the pages, only the network is none."""

    def answer(request: Any, **_: Any) -> AWSResponse:
        start = int(request.url.partition("continuation-token=")[2].partition("&")[0] or 0)
        stop = min(start + PAGE_KEYS, keys)
        items = "".join(
            f"<Contents><Key>catalog/{n // 1000:06d}/{number}-0.json</Key><Size>{80_000 + n % 1000}</Size>"
            f"<ETag>&quot;{number}&quot;</ETag></Contents>"
            for n in range(start, stop)
            if (number := hashlib.md5(b"%d" % n, usedforsecurity=False).hexdigest())
        )
        more = f"<NextContinuationToken>{stop}</NextContinuationToken>" if stop < keys else ""
        truncated = "true" if more else "false"
        body = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{items}</ListBucketResult>"
        return AWSResponse(request.url, 200, {}, Body(body.encode()))

    s3.client().meta.events.register("before-send.s3.ListObjectsV2", answer)


class Body(io.BytesIO):
    """An answer's content as urllib3 gives it."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


def reset_peak() -> float:
    """Forget the highest memory so far; tell what is held now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "stub")
    print(json.dumps(plan(int(sys.argv[1]))))
