"""Only a report about this very checkpoint is shown; ids mean what they say."""

import json

import pytest

from serve.ids import ModelIds
from serve.report import read_report


def test_a_report_is_found_in_the_directory_and_beside_it(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    assert read_report(model, "abc") is None
    (tmp_path / "report.json").write_text(json.dumps({"checkpoint": "abc", "place": "beside"}))
    assert read_report(model, "abc")["place"] == "beside"
    (model / "report.json").write_text(json.dumps({"checkpoint": "abc", "place": "inside"}))
    assert read_report(model, "abc")["place"] == "inside"


@pytest.mark.parametrize("text", ['{"checkpoint": "other"}', "{}", "[]", "not json"])
def test_other_reports_are_not_shown(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    assert read_report(tmp_path, "abc") is None


def test_ids():
    ids = ModelIds("name", 1.0)
    assert ids.listed == ["name", "name:base"]
    assert [ids.scale_of(i) for i in ids.listed] == [1.0, 0.0]
    for other in ("", "name:", ":base", "name:base ", "Name", "name@0.5", "name:base:base"):
        assert ids.scale_of(other) is None


@pytest.mark.parametrize("name", ["", "a:b", "a@b", "a/b", "a\nb"])
def test_names_that_ids_cannot_hold(name):
    with pytest.raises(ValueError, match="name"):
        ModelIds(name, 1.0)
