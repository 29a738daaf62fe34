"""Secrets of Secret Manager can be read in this image; how, is tested in tests/contract."""

import pytest

from kfp_hybrid import secret_manager
from kfp_hybrid.step import StepError


def test_the_image_has_what_reading_a_secret_takes(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    with pytest.raises(StepError, match="no Google Cloud credentials"):
        secret_manager.resolve({"KEY": "secretmanager://projects/ml-production/secrets/s3/versions/3"})
