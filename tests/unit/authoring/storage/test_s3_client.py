"""What is done for S3 beside the minio client has the same results: signatures and listings."""

from datetime import datetime, timezone
from urllib.parse import quote, urlsplit

import pytest
from faulty_proxy import Answer
from hypothesis import given
from hypothesis import strategies as st
from minio.credentials import Credentials
from minio.signer import sign_v4_s3

from kfp_hybrid import storage
from kfp_hybrid.storage import StorageError, s3_client

WORDS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=20)
QUERIES = st.dictionaries(WORDS, st.text(max_size=10), max_size=4)
TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(timezone.utc))


@given(name=st.text(min_size=1), query=QUERIES, region=WORDS, access=WORDS, secret=WORDS, tag=WORDS, date=TIMES)
def test_a_signature_is_that_of_the_minio_client(name, query, region, access, secret, tag, date):
    parameters = "&".join(f"{key}={quote(value, safe='')}" for key, value in sorted(query.items()))
    url = urlsplit(f"http://store:9000/bucket/{quote(name, safe='/~')}{'?' if query else ''}{parameters}")
    headers = {"Host": url.netloc, "User-Agent": "any", "Range": "bytes=0-7", "If-Match": f'"{tag}"',
               "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": date.strftime("%Y%m%dT%H%M%SZ")}  # fmt: skip
    credentials = Credentials(access, secret)
    theirs = sign_v4_s3(
        method="GET", url=url, region=region, headers=dict(headers), credentials=credentials,
        content_sha256="UNSIGNED-PAYLOAD", date=date,
    )  # fmt: skip
    ours = s3_client._authorization(url, region, headers, credentials, date)
    assert ours == theirs["Authorization"]


def test_a_listing_of_many_pages_is_whole_and_in_order(s3, monkeypatch):
    names = sorted(
        [*(f"{number}/a" for number in range(5)), "a b", "a+b", "a%20b", "ü", "日本", "&<>\"'"], key=str.encode
    )
    store = storage.open_store(s3)
    for name in names:
        store.write_bytes(name, name.encode())
    monkeypatch.setattr(s3_client, "NAMES", 2)
    found = list(store.entries())
    assert [entry.key for entry in found] == names
    assert found == [
        storage.Entry(name, len(name.encode()), store.require(name).tag, entry.modified)
        for name, entry in zip(names, found, strict=True)
    ]
    age = datetime.now(timezone.utc) - found[0].modified
    assert 0 <= age.total_seconds() < 3600


ITEM = b"<Contents><Key>folder/a</Key><Size>1</Size><LastModified>2026-11-21T20:00:00.000Z</LastModified></Contents>"
NO_LISTINGS = {
    "a page of HTML": b"<html><p>Welcome",
    "no names": b"<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
    "no size": b"<ListBucketResult>" + ITEM.replace(b"<Size>1</Size>", b"") + b"</ListBucketResult>",
    "no time": b"<ListBucketResult>" + ITEM.replace(b"2026-", b"") + b"</ListBucketResult>",
    "no way to the next page": b"<ListBucketResult>" + ITEM + b"<IsTruncated>true</IsTruncated></ListBucketResult>",
}


@pytest.mark.parametrize("name", NO_LISTINGS)
def test_a_listing_that_is_none(faults, s3, name):
    faults.fault = lambda request: Answer(200, NO_LISTINGS[name])
    with pytest.raises(StorageError, match=r"HTTP status 200; .* check the endpoint"):
        list(storage.open_store(s3).entries())
