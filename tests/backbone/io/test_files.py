import errno
from pathlib import Path

import pytest

from backbone.io.files import replacing, write_json
from backbone.io.provenance import Provenance, fingerprint_folder


def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def fail_halfway():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    assert path.read_text() == '{\n  "old": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_nothing_and_names_the_file(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"cannot write .*a\.json: No space left on device"):
        write_json(tmp_path / "a.json", {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_writable_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*a\.json"):
        write_json(tmp_path / "file" / "a.json", {})


def test_nan_is_refused_since_it_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_the_key_depends_on_stage_arguments_inputs_and_data():
    base = {"stage": "s", "arguments": {"a": 1}, "inputs": {"i": "x"}, "data": {"d": "y"}}
    changes = ({"stage": "t"}, {"arguments": {"a": 2}}, {"inputs": {}}, {"data": {"d": "z"}})
    keys = {Provenance(**(base | change)).key for change in ({}, *changes)}
    assert len(keys) == 5
    assert Provenance(**base).key == Provenance(**base).key


def test_a_folder_s_fingerprint_depends_on_names_and_sizes(tmp_path):
    fingerprints = {fingerprint_folder(tmp_path)}
    (tmp_path / "a").write_text("1")
    fingerprints.add(fingerprint_folder(tmp_path))
    (tmp_path / "a").write_text("12")
    fingerprints.add(fingerprint_folder(tmp_path))
    (tmp_path / "a").rename(tmp_path / "b")
    fingerprints.add(fingerprint_folder(tmp_path))
    assert len(fingerprints) == 4
