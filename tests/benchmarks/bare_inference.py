"""python bare_inference.py BUNDLE OUTPUT INPUT …

The best simple loop that predicts: read a batch, compute with torch, decide, write Parquet. It is one process's share;
nothing is planned, checked, committed or survived. Documents are read and flattened as the library does it.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

BATCH_ROWS = 1024
PART_ROWS = 5000


class Model:
    """S0's network with one branch."""

    def __init__(self, bundle: Path) -> None:
        description = json.loads((bundle / "model.json").read_text())
        (target,) = description["targets"].values()
        self.labels = pa.array(target["labels"])
        self.thresholds = np.array(target["policy"]["thresholds"], dtype=np.float32)
        self.clip = description["preprocessing"]["settings"]["clip_sd"]
        tensors = load_file(bundle / "model.safetensors")
        self.mean, self.scale = tensors["preparation.mean"], tensors["preparation.scale"]
        first, last = ("network.branches.0.0", "network.head.1")
        self.layers = [(tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in (first, last)]

    @torch.inference_mode()
    def scores(self, features: Any) -> Any:
        """(rows, columns) → (rows, labels)."""
        values = (torch.from_numpy(features) - self.mean).mul_(self.scale)
        values = values.nan_to_num_(0.0).clamp_(-self.clip, self.clip)
        (weight, bias), (head, head_bias) = self.layers
        hidden = torch.addmm(bias, values, weight.T).relu_()
        return torch.addmm(head_bias, hidden, head.T).sigmoid_().numpy()

    def table(self, rows: pa.RecordBatch) -> pa.Table:
        """The predictions of a batch with the columns `recording_id`, `submission`, `features`."""
        features = rows.column("features").flatten().to_numpy().reshape(rows.num_rows, -1)
        scores = self.scores(features)
        decided = scores >= self.thresholds
        empty = np.flatnonzero(~decided.any(axis=1))
        decided[empty, (scores[empty] / self.thresholds).argmax(axis=1)] = True
        offsets = pa.array(np.concatenate([[0], decided.sum(axis=1).cumsum()]), pa.int32())
        columns = {
            "recording_id": rows.column("recording_id"),
            "submission": rows.column("submission"),
            "item_kind": pa.array(["recording"] * rows.num_rows),
            "taxonomy": pa.array(["bench"] * rows.num_rows),
            "labels": pa.ListArray.from_arrays(offsets, self.labels.take(pa.array(decided.nonzero()[1]))),
            "scores": pa.ListArray.from_arrays(offsets, pa.array(scores[decided])),
            "abstained": pa.array([False] * rows.num_rows),
            "model_id": pa.array(["bench"] * rows.num_rows),
        }
        return pa.table(columns)


def feature_batches(part: str) -> Iterator[pa.RecordBatch]:
    yield from pq.ParquetFile(part).iter_batches(BATCH_ROWS, columns=["recording_id", "submission", "features"])


def document_batches(archive: str) -> Iterator[pa.RecordBatch]:
    from genre_ray.features.essentia.documents import ParseDocuments
    from genre_ray.runs.stages import ShardSize
    from genre_ray.sources.documents.source import DocumentSource

    source, parse = DocumentSource((archive,)), ParseDocuments().open()
    (item,) = source.cut(source.list_inputs(), PART_ROWS)
    for _, outcome, _ in source.read(item, ShardSize(PART_ROWS)):
        yield from parse(outcome.accepted).accepted.to_batches()


def main(bundle: str, output: str, *inputs: str) -> None:
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    model = Model(Path(bundle))
    for number, place in enumerate(inputs):
        batches = feature_batches(place) if place.endswith(".parquet") else document_batches(place)
        tables = [model.table(batch) for batch in batches]
        target = Path(output) / f"{Path(place).stem}-{number}.parquet"
        pq.write_table(pa.concat_tables(tables), target, compression="zstd")


if __name__ == "__main__":
    main(*sys.argv[1:])
