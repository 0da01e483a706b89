"""Only a report about this very checkpoint is shown; ids mean what they say."""

import json

import pytest

from cllm_model.report import report_of
from serve.ids import ModelIds
from serve.settings import Settings


def test_a_report_is_found_in_the_directory_and_beside_it(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    assert report_of(model, "abc") is None
    (tmp_path / "report.json").write_text(json.dumps({"checkpoint": "abc", "place": "beside"}))
    assert report_of(model, "abc")["place"] == "beside"
    (model / "report.json").write_text(json.dumps({"checkpoint": "abc", "place": "inside"}))
    assert report_of(model, "abc")["place"] == "inside"


@pytest.mark.parametrize("text", ['{"checkpoint": "other"}', "{}", "[]", "not json"])
def test_other_reports_are_not_shown(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    assert report_of(tmp_path, "abc") is None


def test_ids():
    ids = ModelIds("name", 0.8, max_scale=1.5)
    assert ids.listed == ["name", "name:base"]
    scales = {"name": 0.8, "name:base": 0, "name@0.5": 0.5, "name@1.50": 1.5, "name@0": 0, "name@0.33336": 0.3334}
    assert {i: ids.scale_of(i) for i in scales} == scales
    for other in ("", "name:", ":base", "name:base ", "Name", "name:base:base", "name:base@1", "other@0.5", "@0.5"):
        assert ids.scale_of(other) is None


@pytest.mark.parametrize("scale", ["", "x", "1.6", "-1", "+1", "1e-1", "nan", "inf", "1_0", " 1", ".5", "0.00001", "٣"])
def test_ids_whose_scale_is_not_allowed(scale):
    with pytest.raises(ValueError, match="model"):
        ModelIds("name", 1.0, max_scale=1.5).scale_of(f"name@{scale}")


@pytest.mark.parametrize("name", ["", "a:b", "a@b", "a/b", "a\nb"])
def test_names_that_ids_cannot_hold(name):
    with pytest.raises(ValueError, match="name"):
        ModelIds(name, 1.0, 2.0)


def test_the_recommended_scale_is_applied_only_where_it_is_asked_for(tmp_path):
    assert Settings(tmp_path).with_report({"recommended_scale": 0.5}).ids.default_scale == 1
    asked = Settings(tmp_path, default_scale="recommended")
    assert asked.with_report({"recommended_scale": 0.5}).ids.default_scale == 0.5
    for report in (None, {}):
        with pytest.raises(ValueError, match="default_scale.*report"):
            asked.with_report(report)
    with pytest.raises(ValueError, match="default_scale: 1.5"):
        Settings(tmp_path, default_scale="recommended", max_scale=1).with_report({"recommended_scale": 1.5})
