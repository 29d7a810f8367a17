# SPDX-License-Identifier: Apache-2.0
"""API keys, and what each may use up."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from manymind.errors import InvalidParameterError
from manymind.server.errors import retry_later
from manymind.validation import require, require_int, require_number

_QUOTAS = ("requests_per_minute", "tokens_per_minute", "max_concurrent_requests")
_FIELDS = {"name", "key", "sha256", *_QUOTAS, "priority", "weight"}
_MINUTE = 60.0
# What a script makes of a variable that is not set; requests without a key would have this one.
_DIGEST_OF_NOTHING = hashlib.sha256(b"").digest()


@dataclass(frozen=True)
class ApiKey:
    """One client's key, of which only the SHA-256 is kept.

    Attributes:
        name: for logs and metrics; also keeps the client's cached prefixes apart from others'.
        digest: SHA-256 of the key.
        requests_per_minute, tokens_per_minute: quotas; 0 = none. Tokens are those of prompts and
            answers.
        max_concurrent_requests: being answered or waiting for the engine; 0 = as many as all keys
            together may have.
        priority: highest that its requests may ask for, and what they get when they ask for none.
        weight: its share of the engine beside that of the other keys that wait.
    """

    name: str
    digest: bytes
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    max_concurrent_requests: int = 0
    priority: int = 0
    weight: float = 1.0


def api_key(name: str, key: str) -> ApiKey:
    """A key without quotas."""
    return ApiKey(name, hashlib.sha256(key.encode()).digest())


def read_keys(path: Path) -> list[ApiKey]:
    """Keys of a JSON file: a list of objects with "name", "key" or "sha256" (hexadecimal), and
    optionally what else ``ApiKey`` has.

    Raises InvalidParameterError.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidParameterError(f"api_keys: expected a JSON file, found {error}") from error
    require(isinstance(entries, list) and bool(entries), "api_keys", "a list of keys", entries)
    keys = [_read_key(index, entry) for index, entry in enumerate(entries)]
    names = [key.name for key in keys]
    require(len(set(names)) == len(names), "api_keys", "a different name for each key", names)
    # Of two that are the same only one could be found, with whose quotas nobody could tell.
    same = [key.name for key in keys if [other.digest for other in keys].count(key.digest) > 1]
    require(not same, "api_keys", "keys that differ", same)
    return keys


def _read_key(index: int, entry: object) -> ApiKey:
    where = f"api_keys[{index}]"
    require(isinstance(entry, Mapping), where, "an object", type(entry).__name__)
    assert isinstance(entry, Mapping)
    unknown = sorted(set(entry) - _FIELDS)
    require(not unknown, where, f"the fields {', '.join(sorted(_FIELDS))}", unknown)
    name = entry.get("name")
    require(isinstance(name, str) and bool(name), f"{where}.name", "a non-empty str", name)
    quotas = {}
    for field in _QUOTAS:
        quotas[field] = entry.get(field, 0)
        require_int(f"{where}.{field}", quotas[field], 0)
    priority = entry.get("priority", 0)
    require_int(f"{where}.priority", priority, -(2**31))
    weight = entry.get("weight", 1.0)
    require_number(f"{where}.weight", weight, 1e-3, 1e3)
    digest = _digest(where, entry)
    return ApiKey(str(name), digest, **quotas, priority=priority, weight=weight)


def _digest(where: str, entry: Mapping[str, object]) -> bytes:
    key, digest = entry.get("key"), entry.get("sha256")
    if isinstance(key, str) and key and digest is None:
        return hashlib.sha256(key.encode()).digest()
    try:
        value = bytes.fromhex(digest) if isinstance(digest, str) and key is None else b""
    except ValueError:
        value = b""
    if len(value) != 32:
        raise InvalidParameterError(f"{where}: expected either key or sha256 in hexadecimal")
    if value == _DIGEST_OF_NOTHING:
        raise InvalidParameterError(f"{where}.sha256: expected that of a key, found that of none")
    return value


class KeyRing:
    """Finds the key a request brought, in a time that tells nothing about it."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._keys = list(keys)

    @property
    def open(self) -> bool:
        """True if there are no keys: everybody may come in."""
        return not self._keys

    def find(self, headers: Mapping[bytes, bytes]) -> ApiKey | None:
        """The key of ``x-api-key`` or of ``authorization``: a bearer token, or the password of
        basic authentication, which is what browsers offer.
        """
        digest = hashlib.sha256(_presented(headers)).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def _presented(headers: Mapping[bytes, bytes]) -> bytes:
    if b"x-api-key" in headers:
        return headers[b"x-api-key"]
    scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""


class Allowance:
    """A token bucket that holds one minute's worth and may be overdrawn once.

    Source: the generic cell rate algorithm's leaky bucket (ITU-T I.371), kept as a level.
    """

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute / _MINUTE
        self._capacity = float(per_minute)
        self._level = self._capacity
        self._updated = time.monotonic()

    def wait_seconds(self, amount: float) -> float:
        """Seconds until ``amount`` (or all that the bucket can hold) is there; 0 = now."""
        if self._rate == 0:
            return 0.0
        missing = min(amount, self._capacity) - self.left()
        # Less than that is rounding.
        return missing / self._rate if missing > 1e-6 else 0.0

    def left(self) -> float:
        """What is there now; less than 0 while it is overdrawn."""
        if self._rate == 0:
            return math.inf
        now = time.monotonic()
        self._level = min(self._capacity, self._level + (now - self._updated) * self._rate)
        self._updated = now
        return self._level

    def take(self, amount: float) -> None:
        """Uses up ``amount``; less than 0 is given back."""
        self._level -= amount if self._rate else 0.0


class Reservation:
    """What a request has set aside of an allowance. What it uses beyond that is taken at once; what
    it leaves unused is given back when it is settled.
    """

    def __init__(self, allowance: Allowance, amount: float) -> None:
        self._allowance = allowance
        self._reserved = amount
        self._used = 0
        self._taken = 0.0
        self._take()

    def use(self, tokens: int) -> None:
        """Tokens have been computed; less than 0: had been counted, but are not."""
        self._used += tokens
        self._take()

    def settle(self) -> None:
        """The request needs no more, though it may yet ``use`` some. Idempotent."""
        self._reserved = 0.0
        self._take()

    def _take(self) -> None:
        due = max(self._reserved, self._used)
        self._allowance.take(due - self._taken)
        self._taken = due


class Quotas:
    """What every key has left."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._requests = {key.name: Allowance(key.requests_per_minute) for key in keys}
        self._tokens = {key.name: Allowance(key.tokens_per_minute) for key in keys}
        self._active = dict.fromkeys(self._requests, 0)

    def admit(self, key: ApiKey | None) -> None:
        """Counts a request, until ``release``; raises ApiError 429 if the key has used up its
        minute or has as many requests running as it may.
        """
        if key is None:
            return
        if 0 < key.max_concurrent_requests <= self._active[key.name]:
            expected = f"at most {key.max_concurrent_requests} requests of this key at once"
            raise retry_later(429, f"expected {expected}", "concurrency_quota_exceeded", 1)
        for kind, allowances in (("requests", self._requests), ("tokens", self._tokens)):
            _require(allowances[key.name], kind, 1)
        self._requests[key.name].take(1)
        self._active[key.name] += 1

    def release(self, key: ApiKey | None) -> None:
        """A request that was admitted is over."""
        if key is not None:
            self._active[key.name] -= 1

    def reserve(self, key: ApiKey | None, prompt: int, most: int) -> Reservation:
        """Sets aside the tokens of a request: as many as it can come to, ``most``, or a minute's
        worth if that is less. The key is in debt if there are not so many.

        Raises ApiError 429 unless its prompt's are there; a prompt of more than a minute's worth
        waits for a full minute. So requests at the same time cannot use the same tokens.
        """
        if key is None:
            return Reservation(Allowance(0), 0)
        allowance = self._tokens[key.name]
        _require(allowance, "tokens", prompt)
        return Reservation(allowance, max(prompt, min(most, key.tokens_per_minute)))


def _require(allowance: Allowance, kind: str, amount: int) -> None:
    wait = allowance.wait_seconds(amount)
    if wait > 0:
        left = max(0, int(allowance.left()))
        message = f"the quota of {kind} per minute of this key is used up: expected {amount} left"
        raise retry_later(429, f"{message}, found {left}", f"{kind}_quota_exceeded", wait)
