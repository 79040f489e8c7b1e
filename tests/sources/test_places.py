"""Raw files wherever they are: a folder, S3, http(s), packed or not, through the same readers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecellm.config.schema import SourceFile
from ecellm.errors import DataError
from ecellm.sources.opening import digest_of, open_binary, size_of
from ecellm.sources.read import Tally, parts_of, read_source
from ecellm.storage.open import open_storage
from tests.conftest import FolderServer

REVIEWS = [{"reviewerID": f"U{i}", "asin": "P1", "overall": 5.0, "reviewText": "fine " * 300} for i in range(60)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Toys.json.gz").write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in REVIEWS).encode()))
    table = pa.Table.from_pylist(REVIEWS)
    pq.write_table(table, tmp_path / "Toys.parquet", row_group_size=10)
    (tmp_path / "Amazon.csv").write_bytes(b'"id","title","description","manufacturer","price"\n"a","caf\xe9",,,5\n')
    (tmp_path / "GoogleProducts.csv").write_text(
        '"id","name","description","manufacturer","price"\n"g","c","x","m",6\n'
    )
    (tmp_path / "Amzon_GoogleProducts_perfectMapping.csv").write_text('"idAmazon","idGoogleBase"\n"a","g"\n')
    return tmp_path


def _users(root: str, path: str) -> list[str]:
    source = SourceFile(format="amazon_reviews", path=path)
    return [record.user for record in read_source(source, root, Tally(path))]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["Toys.json.gz", "Toys.parquet"])
def test_one_file_in_four_places(folder: Path, s3: str, web: Callable[..., str], name: str) -> None:
    open_storage(s3).upload(str(folder / name), f"raw/{name}")
    wanted = [review["reviewerID"] for review in REVIEWS]
    for root in (str(folder), f"{s3}/raw", web(folder), web(folder, ranges=False)):
        assert _users(root, name) == wanted, root
    assert _users(web(folder), f"{name}?signature=SECRET") == wanted
    assert digest_of(f"{web(folder)}/{name}") == digest_of(f"{s3}/raw/{name}")
    assert size_of(f"{s3}/raw/{name}") == (folder / name).stat().st_size


@pytest.mark.parametrize("ranges", [True, False])
def test_an_address_that_is_signed_for_get_alone(folder: Path, web: Callable[..., str], ranges: bool) -> None:
    """S3 answers 403 to HEAD of such an address."""
    (folder / "empty.json").touch()
    address = web(folder, ranges=ranges, head=False)
    for name in ("Toys.json.gz", "Toys.parquet"):
        assert _users(address, f"{name}?signature=SECRET") == [review["reviewerID"] for review in REVIEWS]
        assert digest_of(f"{address}/{name}") == digest_of(f"{web(folder)}/{name}")
        assert size_of(f"{address}/{name}") == (folder / name).stat().st_size
    assert size_of(f"{address}/empty.json") == 0
    assert _users(address, "empty.json") == []
    with pytest.raises(DataError, match="cannot be read") as caught:
        _users(address, "Nothing.json")
    assert caught.value.found == "status 404"


def test_a_folder_on_s3(folder: Path, s3: str) -> None:
    storage = open_storage(s3)
    for path in folder.glob("*.csv"):
        storage.upload(str(path), f"shop/{path.name}")
    source = SourceFile(format="amazon_google", path="shop")
    assert len(list(read_source(source, s3, Tally("shop")))) == 3
    assert next(part.name for part in parts_of(source, s3)) == "shop/Amazon.csv"


def test_a_server_that_is_busy_is_asked_again(folder: Path, web: Callable[..., str]) -> None:
    address = web(folder)
    FolderServer.fails = 2
    assert len(_users(address, "Toys.json.gz")) == len(REVIEWS)
    assert FolderServer.fails == 0


def test_a_body_that_breaks_off_is_told(folder: Path, web: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderServer, "cut", 10)
    with pytest.raises(DataError, match=r"Toys\.json\.gz: cannot be read") as caught:
        _users(web(folder, ranges=False), "Toys.json.gz")
    assert "download the file" in str(caught.value.mend)


def test_what_is_not_there_is_told(folder: Path, web: Callable[..., str], s3: str) -> None:
    with pytest.raises(DataError, match=r"Nothing\.json: cannot be read") as caught:
        _users(web(folder), "Nothing.json")
    assert "status 404" in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        _users(f"{s3}/raw", "Nothing.json")
    with pytest.raises(DataError, match="no such file"):
        open_binary(str(folder / "nothing"))
    with pytest.raises(DataError, match="cannot be read"):
        _users("http://127.0.0.1:9", "Toys.json")


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with pytest.raises(DataError, match="round: cannot be opened") as caught:
        open_binary(str(tmp_path / "round"))
    assert "permissions" in str(caught.value.mend)
