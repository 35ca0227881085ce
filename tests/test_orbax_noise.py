import logging
import sys

from cnnjax.runtime import backend


def test_it_is_quiet_unless_asked(monkeypatch):
    absl = logging.getLogger("absl")
    monkeypatch.setattr(absl, "level", logging.INFO)
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    backend.quieten()
    assert absl.level == logging.INFO
    assert sys.unraisablehook is sys.__unraisablehook__
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    backend.quieten()
    assert absl.level == logging.CRITICAL
    assert sys.unraisablehook is not sys.__unraisablehook__
