"""Progress bars, which are shown on a terminal only."""

import io
import sys

import pytest

from backbone.io.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def drawn(stream, monkeypatch, **options):
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress_bar(range(3), desc="counting", **options)) == [0, 1, 2]
    return stream.getvalue()


def test_a_bar_is_drawn_on_a_terminal(monkeypatch):
    assert "counting: 100%" in drawn(Terminal(), monkeypatch)


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_bar_that_is_hidden_or_redirected_writes_nothing(monkeypatch, stream):
    assert drawn(stream(), monkeypatch, shown=stream is io.StringIO) == ""


def test_a_notebook_shows_bars_though_it_is_no_terminal(monkeypatch):
    notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})
    assert "counting: 100%" in drawn(notebook(), monkeypatch)


def test_a_process_without_standard_error_shows_no_bars(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert list(progress_bar(range(3))) == [0, 1, 2]
