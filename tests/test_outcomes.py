"""Guards the rejected row: stable codes with a meaning, and details that every table can store."""

from genre_ray.outcomes import DETAIL_CHARACTERS, REJECTED_ROW, Reason, Rejection, printable, rejections


def test_details_are_valid_text_on_one_line():
    rejection = Rejection(Reason.NOT_JSON, "a\nb\udcff" + "\x00" * 400, "id\udcff")
    assert rejection.detail.startswith("a\\nb\\udcff\\x00")
    assert rejection.detail.endswith("…")
    assert len(rejection.detail) == DETAIL_CHARACTERS
    assert (rejection.detail + rejection.recording_id).encode()


def test_every_reason_has_a_meaning_and_is_found_by_its_code():
    for reason in Reason:
        assert Reason(str(reason)) is reason
        assert reason.meaning


def test_rejections_become_rows_of_one_schema():
    rows = rejections(
        [("a.json", Rejection(Reason.EMPTY, "nothing", "a")), ("b.json", Rejection(Reason.NOT_JSON, "x"))]
    )
    assert rows.schema == rejections([]).schema == REJECTED_ROW
    assert rejections([]).num_rows == 0
    assert rows.to_pylist() == [
        {"source_uri": "a.json", "recording_id": "a", "reason": "empty", "detail": "nothing"},
        {"source_uri": "b.json", "recording_id": None, "reason": "not_json", "detail": "x"},
    ]


def test_printable_text_stays_and_other_text_is_escaped():
    assert printable("Blümchen — 한국") == "Blümchen — 한국"
    assert printable("a\nb\u2028c\ud800") == "a\\nb\\u2028c\\ud800"
