"""Real Ray: shards are the same bytes at any number of workers, on a folder and on S3, and are not made twice."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ecellm.config.schema import TASK_IDS
from ecellm.data.prepare import prepare, read_prompt_policy
from ecellm.data.shards import load_tokens
from ecellm.errors import DataError
from ecellm.model.base import base_folder
from ecellm.model.load import load_tokenizer
from ecellm.prompt import check
from ecellm.records import Row
from ecellm.session import ray_session
from ecellm.storage.base import Storage
from ecellm.storage.open import open_storage
from ecellm.train.launch import train
from tests.data.made import make_row, make_run, put_rows

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    """One Ray for the tests that do not count its workers."""
    with ray_session(make_run("unused"), cpus=2):
        yield


def contents(storage: Storage, prefix: str) -> dict[str, bytes]:
    return {key: storage.read(key) for key, _ in storage.list(prefix)}


def test_shards_do_not_depend_on_workers_or_storage(
    tmp_path: Path, s3: str, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECELLM_CACHE", str(tmp_path / "cache"))
    others = [make_row(n, setting="IND_Single_Instruction") for n in range(3)]
    rows = [*rows, *others, make_row(90, words=900)]
    outs, storages = [str(tmp_path / "one"), s3], []
    for workers, out in enumerate(outs, 1):
        storage = open_storage(out)
        put_rows(storage, rows)
        facts = prepare(make_run(out, cluster={"workers": workers}))
        storages.append(storage)
    assert contents(storages[0], "tokens/") == contents(storages[1], "tokens/")
    assert contents(storages[0], "base/") == contents(storages[1], "base/")
    made = facts["splits"]["train"]
    assert (made["rows"], made["cut"], made["left_out"], len(made["shards"])) == (26, 1, 0, 4)

    tokens = load_tokens(storages[1], "train", str(tmp_path / "cache"))
    again = load_tokens(storages[1], "train", str(tmp_path / "cache"))
    assert tokens.n == 26
    assert tokens.ids[:2] == ("train-0", "train-1")
    assert tokens.fingerprint == made["fingerprint"]
    folder = base_folder(make_run(s3), storages[1])
    tokenizer = load_tokenizer(folder)
    check(read_prompt_policy(storages[1]), tokenizer)
    prompt, answer = again.sample(1)
    assert tokenizer.decode(answer) == "yes</s>"
    assert tokenizer.decode(prompt).endswith("### Response:\n")
    assert np.array_equal(tokens.prompt_lengths + tokens.answer_lengths, np.diff(tokens.offsets))
    assert TASK_IDS[tokens.tasks[0]] == "MPC"
    assert TASK_IDS[tokens.tasks[1]] == "PM"
    assert load_tokens(storages[0], "val").n == 5
    [kept] = (tmp_path / "cache").glob("*.npy")
    data = kept.read_bytes()
    kept.unlink()  # it is mapped above
    kept.write_bytes(data[:-8])  # a disk that was full, or somebody else's file
    assert np.array_equal(load_tokens(storages[1], "train", str(tmp_path / "cache")).tokens, again.tokens)


def test_a_whole_artefact_is_left_alone_and_a_broken_one_refused(
    tmp_path: Path, rows: list[Row], session: None
) -> None:
    out = str(tmp_path)
    put_rows(open_storage(out), rows)
    first = prepare(make_run(out))
    shard = tmp_path / "tokens/train/part-00000.parquet"
    when = shard.stat().st_mtime_ns
    assert prepare(make_run(out)) == first | {"skipped": True}
    assert shard.stat().st_mtime_ns == when
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"part-00000.parquet is not what prepare wrote"):
        load_tokens(open_storage(out), "train")
    assert json.loads((tmp_path / "prompt.json").read_text())["template"] == "alpaca"


def test_a_task_or_all_tasks_may_lack_validation_rows(
    tmp_path: Path, session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Query-product ranking has too few queries for a split of its own; a build may ask for no such rows at all."""
    train_rows = [make_row(i) for i in range(12)]
    for name, val_rows in (("some", [make_row(1, "val"), make_row(2, "val")]), ("none", [])):
        out = str(tmp_path / name)
        put_rows(open_storage(out), [*train_rows, *val_rows])
        small = {"engine": "plain", "max_steps": 2, "batch_size": 4, "micro_batch_size": 2}
        run = make_run(out, train=small)
        assert prepare(run)["splits"]["val"]["rows"] == len(val_rows)
        assert ("no validation rows" in capsys.readouterr().err) == (not val_rows)
        assert train(run)["steps"] == 2
        last = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1])
        assert ("val_loss" in last) == bool(val_rows)


def test_nothing_that_fits_is_bad_data(tmp_path: Path, rows: list[Row], session: None) -> None:
    out = str(tmp_path)
    put_rows(open_storage(out), rows)
    with pytest.raises(DataError, match=r"no training row of .* fits"):
        prepare(make_run(out, prepare={"max_length": 24}))


def test_without_rows_build_is_the_mend(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ecellm build"):
        prepare(make_run(str(tmp_path)))
