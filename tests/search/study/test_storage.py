import subprocess
import sys
import time

import optuna
import pytest

from search.study.storage import JOURNAL_NAME, exclusive_lock, open_storage


def test_a_partially_written_last_line_is_dropped(tmp_path):
    study = optuna.create_study(storage=open_storage("", tmp_path), study_name="s")
    study.tell(study.ask(), 1.0)
    whole = (tmp_path / JOURNAL_NAME).read_bytes()
    (tmp_path / JOURNAL_NAME).write_bytes(whole + b'{"op_code":4,"wor')
    study = optuna.load_study(storage=open_storage("", tmp_path), study_name="s")
    assert (tmp_path / JOURNAL_NAME).read_bytes() == whole
    study.tell(study.ask(), 2.0)
    study = optuna.load_study(storage=open_storage("", tmp_path), study_name="s")
    assert [trial.value for trial in study.trials] == [1.0, 2.0]


def test_optuna_itself_opens_the_journal(tmp_path):
    study = optuna.create_study(storage=open_storage("", tmp_path), study_name="s")
    study.tell(study.ask(), 1.0)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL_NAME))
    reopened = optuna.load_study(storage=optuna.storages.JournalStorage(backend), study_name="s")
    assert reopened.best_value == 1.0


def test_a_damaged_journal_is_named_and_not_changed(tmp_path):
    (tmp_path / JOURNAL_NAME).write_text("not a journal\nat all\n")
    with pytest.raises(ValueError, match=JOURNAL_NAME):
        open_storage("", tmp_path)
    assert (tmp_path / JOURNAL_NAME).read_text() == "not a journal\nat all\n"


def test_a_database_is_a_storage_too(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=open_storage(url, tmp_path), study_name="s")
    study.tell(study.ask(), 1.0)
    assert optuna.load_study(storage=url, study_name="s").best_value == 1.0


def test_an_unreachable_url_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="cannot open storage 'nonsense://'"):
        open_storage("nonsense://", tmp_path)


def test_two_drivers_of_one_folder_are_refused_until_the_first_dies(tmp_path):
    code = (
        "import sys,time,pathlib; from search.study.storage import exclusive_lock\n"
        "with exclusive_lock(pathlib.Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"in\n"
        with (
            pytest.raises(RuntimeError, match="another process is searching"),
            exclusive_lock(tmp_path),
        ):
            pass
        other.kill()
        other.wait()
    start = time.monotonic()
    with exclusive_lock(tmp_path):
        assert time.monotonic() - start < 1
