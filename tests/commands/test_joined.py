"""Two real taxonomies of the same recordings, learnt by one network from a YAML file, answer in one of them."""

import json

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from genre_ray.bundles.examples import read_examples
from genre_ray.bundles.files import read_bundle
from genre_ray.bundles.predictor import Predictor
from genre_ray.commands import pipeline
from genre_ray.config import load_configuration
from genre_ray.features.essentia.columns import FEATURE_COLUMNS
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.labels.names import normalise
from genre_ray.runs.stages import ShardSize
from genre_ray.sources.documents.source import DocumentSource
from genre_ray.storage import tables
from genre_ray.truth.run_file import read_run

PIPELINE = """
output: {output}
common:
  features: "{features}"
  all_scores: true
steps:
  - train:
      system: melband
      sources:
        folder: {{ground_truth: {sample}/emotify/folder.tsv}}
        tags: {{ground_truth: {sample}/emotify/tags.tsv}}
      taxonomy: tags
      unlabelled: masked
      split: {{group_by: artist, fractions: [0.6, 0.2, 0.2], least_train: 5, least_other: 2, seed: 10}}
      network: {{filters: [16, 32]}}
      rules: {{batch: 32, max_epochs: 5}}
      output: "{{output}}/bundle"
  - predict:
      bundle: "{{output}}/bundle"
      target: folder
      run_tsv: true
      output: "{{output}}/predictions"
  - evaluate:
      predictions: "{{output}}/predictions/predictions"
      examples: "{{output}}/bundle"
      output: "{{output}}/report"
"""


@pytest.fixture
def features(sample, write_features):
    """The features table of the sample, made without a job."""
    documents = DocumentSource((str(sample / "emotify" / "documents.tar.zst"),))
    parse = ParseDocuments().open()
    (item,) = documents.cut(documents.list_inputs(), 1000)
    read = [outcome for _, outcome, _ in documents.read(item, ShardSize(1000))]
    (rows, rejected) = zip(*(parse(outcome.accepted) for outcome in read), strict=True)
    assert not pa.concat_tables([*rejected, *(outcome.rejected for outcome in read)])
    columns = pa.concat_tables(rows).combine_chunks()
    values = tables.vectors(columns["features"])
    kept = {name: columns[name].to_pylist() for name in columns.column_names if name != "features"}
    return write_features(values, names=FEATURE_COLUMNS, **kept)


@pytest.fixture
def output(ray_cluster, tmp_path, sample, features):
    """What the pipeline leaves."""
    (tmp_path / "joined.yaml").write_text(PIPELINE.format(output=tmp_path / "output", sample=sample, features=features))
    configuration = load_configuration(pipeline.PipelineConfiguration, ["--config", str(tmp_path / "joined.yaml")])
    assert pipeline.run(configuration) == 0
    return tmp_path / "output"


def read_rows(uri, columns):
    """Rows by recording; the sample has one submission of each."""
    rows = [row for batch in tables.read_batches(uri, columns) for row in batch.to_pylist()]
    by_recording = {row["recording_id"]: row for row in rows}
    assert len(by_recording) == len(rows) > 0
    return by_recording


def test_one_network_answers_in_the_target_that_was_asked_for(output, features):
    bundle = read_bundle(str(output / "bundle"))
    manifest = bundle.manifest
    assert manifest.taxonomy == "tags"
    folder, tags = manifest.targets["folder"], manifest.targets["tags"]
    shared = {*folder.labels} & {*tags.labels}
    assert shared
    assert len(manifest.labels) == len({*folder.labels, *tags.labels}) < len(folder.labels + tags.labels)

    uri = str(output / "predictions" / "predictions")
    properties = tables.properties(uri)
    assert (properties["taxonomy"], json.loads(properties["labels"])) == ("folder", list(folder.labels))
    rows = read_rows(uri, ["recording_id", "taxonomy", "labels", "all_scores"])
    run = read_run(str(output / "predictions" / "run.tsv"), vocabulary=set(folder.labels), recording_ids=rows)
    assert {row["taxonomy"] for row in rows.values()} == {"folder"}
    assert {recording: set(labels) for recording, labels in run.items()} == {
        recording: set(row["labels"]) for recording, row in rows.items()
    }

    # The network's own scores, of the columns that the target says its labels are.
    given = read_rows(features, ["recording_id", "features"])
    assert given.keys() == rows.keys()
    predictor = Predictor.of(bundle, "cpu")
    scores = predictor.scores(np.array([given[recording]["features"] for recording in rows], dtype=np.float32))
    columns = [manifest.labels.index(normalise(label)) for label in folder.labels]
    stored = np.array([row["all_scores"] for row in rows.values()])
    np.testing.assert_allclose(stored, scores[:, columns], rtol=1e-4, atol=1e-6)

    (found,) = json.loads((output / "report" / "report.json").read_text())["evaluations"]
    examples = read_examples(str(output / "bundle")).to_pylist()
    test = {
        row["recording_id"]: row["labels"] for row in examples if (row["taxonomy"], row["part"]) == ("folder", "test")
    }
    assert (found["taxonomy"], found["coverage"]["evaluated"]) == ("folder", len(test))
    truth = [[label in labels for label in folder.labels] for labels in test.values()]
    answers = [rows[recording]["all_scores"] for recording in test]
    assert found["system"]["roc_auc"]["macro"] == pytest.approx(roc_auc_score(truth, answers, average="macro"))
