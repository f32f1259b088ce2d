"""Guards that depth that is decided from bytes alone is the depth of the values."""

import json

from hypothesis import given
from hypothesis import strategies as st

from genre_ray.sources.documents.nesting import is_deeper

JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='[]{}"\\a', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[]{}"\\b', max_size=4), inner),
    max_leaves=30,
)


def depth(value):
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if children is None else 1 + max(map(depth, children), default=0)


@given(JSON, st.integers(1, 6))
def test_depth_from_bytes_agrees_with_depth_from_values(value, limit):
    assert is_deeper(json.dumps(value).encode(), value, limit) == (depth(value) > limit)


def test_brackets_in_strings_do_not_hide_depth():
    # Closing brackets in strings would balance the opening ones, were only brackets counted.
    payload = b'["]",' * 70 + b"1" + b',"["]' * 70
    assert is_deeper(payload, json.loads(payload), 64)
    payload = b'["\\"]",' * 70 + b"1" + b',"\\"["]' * 70
    assert is_deeper(payload, json.loads(payload), 64)
