"""Tells schemathesis how to make strings of the formats that /openapi.json names.

    pip install schemathesis
    cd crates/serve/tests/clients
    schemathesis run http://127.0.0.1:8080/openapi.json
"""

import json

import schemathesis
from hypothesis import strategies as st

names = st.text("abc", min_size=1, max_size=3)
arguments = st.dictionaries(names, st.none() | st.booleans() | st.integers(0, 9) | names, max_size=3)

schemathesis.openapi.format("json-object", arguments.map(json.dumps) | st.just(""))
schemathesis.openapi.format("rust-regex", st.sampled_from(["[a-z]+", "[0-9]{4}", "yes|no", "(ab)*c"]))
schemathesis.openapi.format("lark", st.sampled_from(['start: "yes" | "no"', "start: /[a-z]+/"]))
schemathesis.openapi.format("token-id", st.integers(0, 9).map(str))
