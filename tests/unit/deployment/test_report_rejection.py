import pytest

from kfp_hybrid.components.deployment.report_rejection.rejection import report
from kfp_hybrid.step import StepError

LINE = "rejected by evaluate_model: AUC 0.61 is below 0.7; nothing was pushed"


def test_a_rejection_is_logged_in_one_line_and_written_as_markdown(tmp_path, caplog):
    report("AUC 0.61 is\nbelow 0.7.", "evaluate_model", False, str(tmp_path / "rejection.md"))
    assert caplog.messages == [LINE]
    assert LINE in (tmp_path / "rejection.md").read_text()


def test_strict_fails_the_run_with_the_same_line(tmp_path):
    with pytest.raises(StepError) as caught:
        report("AUC 0.61 is below 0.7", "evaluate_model", True, str(tmp_path / "rejection.md"))
    assert str(caught.value) == LINE
    assert LINE in (tmp_path / "rejection.md").read_text()


def test_markup_in_a_reason_is_shown_not_run(tmp_path):
    report("column <script>alert(1)</script> & co", "validate_statistics", False, str(tmp_path / "rejection.md"))
    text = (tmp_path / "rejection.md").read_text()
    assert "<script>" not in text
    assert "column &lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in text


def test_an_empty_reason_says_that_none_was_given(tmp_path, caplog):
    report(" ", "", False, str(tmp_path / "rejection.md"))
    assert caplog.messages == ["rejected by a gate: no reason was given; nothing was pushed"]
