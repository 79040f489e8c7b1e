"""What S3's error codes mean to a person: an absence, a lost race, or something to mend. No client library here."""

from __future__ import annotations

from ecellm.storage.retry import PASSING

ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})
DENIED = frozenset({"AccessDenied", "403"})
TAKEN = frozenset({"PreconditionFailed", "412"})
SWEPT = ABSENT | {"NoSuchUpload"}
"""Replies to aborting an upload that say that it is gone, which is all that was wanted."""
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException"})
CHANGED = "the bytes changed on their way: run again, and check the network if it comes back"
_RIGHTS = (
    "give this identity s3:GetObject, PutObject, DeleteObject, AbortMultipartUpload, ListBucket and "
    "ListBucketMultipartUploads on the bucket (cluster/aws/worker-policy.json does)"
)
MENDS = {
    "NoSuchBucket": "create the bucket, or correct its name in the run file",
    "AccessDenied": _RIGHTS,
    "403": _RIGHTS,
    "InvalidAccessKeyId": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, to an identity that exists",
    "SignatureDoesNotMatch": "correct AWS_SECRET_ACCESS_KEY; behind a proxy, see that it keeps the Host header",
    "ExpiredToken": "renew the credentials; for long runs use a role that renews itself",
    "BadDigest": CHANGED,
}


def mend_of(code: str) -> str:
    """What to do about a refused call, by its code."""
    if code in PASSING:
        return "S3 kept failing: wait, or raise storage.attempts, then run the same command again"
    return MENDS.get(code, "check the bucket and the credentials, then run the same command again")


def code_of(trouble: Exception) -> str:
    """The code of a reply, or its status where it has none; empty where there was no reply."""
    reply = getattr(trouble, "response", None) or {}
    return str(reply.get("Error", {}).get("Code", ""))


def expired(trouble: Exception) -> bool:
    """Whether credentials expired on the way: their provider has new ones, but botocore does not try again."""
    code = code_of(trouble)
    if code == "400":  # a reply to HEAD has no body, so it cannot name its code
        return getattr(trouble, "operation_name", "") == "HeadObject"
    # boto3's own errors keep the code in their message only
    return code in EXPIRED or (not code and "ExpiredToken" in str(trouble))


def first_line(trouble: Exception) -> str:
    """What an error says, without what follows its first line."""
    return str(trouble).strip().splitlines()[0] if str(trouble).strip() else type(trouble).__name__
