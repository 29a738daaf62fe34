"""`kfp-hybrid doctor`: every check is named with what was found, and what to do about what is wrong."""

import pytest
from click.testing import CliRunner

from kfp_hybrid import targets
from kfp_hybrid.cli import main
from kfp_hybrid.errors import UserError
from kfp_hybrid.targets.doctor import Check, CheckWarning
from kfp_hybrid.targets.local import LocalTarget


def fails(error):
    def run():
        raise error

    return run


@pytest.fixture
def doctor(monkeypatch, tmp_path):
    """The command with a target whose checks a test chooses."""

    def call(*checks):
        target = LocalTarget(tmp_path)
        monkeypatch.setattr(target, "checks", lambda: list(checks))
        monkeypatch.setattr(targets, "open_target", lambda *arguments: target)
        return CliRunner().invoke(main, ["doctor", "local"], env={"COLUMNS": "200"})

    return call


def test_all_is_well(doctor):
    done = doctor(Check("the host answers", lambda: "in 3 ms"))
    assert done.exit_code == 0
    assert "the host answers │ ok │ in 3 ms" in done.output


def test_what_deserves_a_look_is_no_failure(doctor):
    done = doctor(Check("images", fails(CheckWarning("the registry wants a password; look there"))))
    assert done.exit_code == 0
    assert "look │ the registry wants a password; look there" in done.output


def test_what_is_wrong_says_what_to_do_and_later_checks_go_on(doctor):
    done = doctor(Check("token", fails(UserError("is expired; log in"))), Check("clock", lambda: "exact"))
    assert done.exit_code == 1
    assert "wrong │ is expired; log in" in done.output
    assert "clock │ ok" in done.output


def test_after_a_needed_check_the_rest_is_not_tried(doctor):
    done = doctor(
        Check("the host answers", fails(UserError("no; start it")), needed=True),
        Check("token", fails(AssertionError("must not be tried"))),
    )
    assert done.exit_code == 1
    assert "token" in done.output and "skipped" in done.output


def test_square_brackets_in_a_message_are_shown(doctor):
    done = doctor(Check("profile", fails(UserError("fill in [targets.onprem]"))))
    assert "fill in [targets.onprem]" in done.output


def test_a_cache_that_cannot_be_written_is_found():
    done = CliRunner().invoke(main, ["doctor", "local"], env={"KFP_HYBRID_CACHE": "/proc/cache", "COLUMNS": "200"})
    assert done.exit_code == 1
    assert "cannot write to /proc" in done.output
