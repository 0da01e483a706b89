"""The dashboard of the handbook asks for metrics that the server has."""

import json
import re
from pathlib import Path

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana" / "control-llm.json"


def test_every_metric_of_the_dashboard_is_there(http, server):
    http.post("/v1/completions", json={"model": server.name, "prompt": "ab", "max_tokens": 2})
    http.post("/v1/completions", json={"model": "nobody", "prompt": "ab"})
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {name for panel in panels for target in panel["targets"] for name in _names(target["expr"])}
    assert len(asked) > 10
    # A sample's name, or that of a histogram's buckets, which have labels of their own.
    there = set(re.findall(r"^([a-z_:0-9]+)(?=[{ ])", http.get("/metrics").text, re.M))
    assert asked <= there, asked - there


def _names(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:vllm:|cllm_|process_)[a-z0-9_]+", expression))
