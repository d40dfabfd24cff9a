"""A STAC API: its items over an area, and tokens for its files. Needs the extra `acquire`."""

from __future__ import annotations

import json
import re
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from adcdnet.acquire.area import Area, Days
from adcdnet.acquire.catalogue import Api
from adcdnet.acquire.items import Item
from adcdnet.errors import InputError

if TYPE_CHECKING:
    from pystac_client.stac_api_io import StacApiIO

MOST_ITEMS = 500  # of one search; more are a sign of dates or an area to be narrowed
_TIMEOUT = (10.0, 60.0)  # seconds: to connect, and between two pieces of an answer
_TRIES = 5
_BACK_OFF = 0.5  # seconds, doubled at each further try
_LONGEST_WAIT = 60  # seconds that a server may ask for with Retry-After
_EARLY = 300.0  # seconds before its end at which a token is renewed


class Catalogue:
    """An API that answers. Any thread may ask it for tokens. InputError where it cannot be reached, in one line."""

    def __init__(self, api: Api) -> None:
        try:
            from pystac_client import Client
            from pystac_client.stac_api_io import StacApiIO
            from urllib3 import Retry
        except ImportError as error:
            raise InputError('searching needs pystac-client; install it with pip install "adcdnet[acquire]"') from error
        self.api = api
        again = Retry(
            total=_TRIES - 1,
            backoff_factor=_BACK_OFF,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=None,
            retry_after_max=_LONGEST_WAIT,
        )
        self._io: StacApiIO = StacApiIO(max_retries=again)
        self._lock = threading.Lock()
        self._tokens: dict[str, tuple[str, float]] = {}  # by collection: token, and when to renew it
        with self._asking():
            self._client = Client.open(
                api.address, stac_io=self._io, timeout=_TIMEOUT
            )  # or it would take away the other

    def has(self, collection: str) -> bool:
        """Whether there is a collection of this name."""
        with self._asking():
            found = self._client.get_collection(collection)
        return found is not None and found.id == collection

    def search(
        self, collection: str, *, area: Area | None = None, days: Days | None = None, ids: Sequence[str] | None = None
    ) -> tuple[list[Item], tuple[str, ...]]:
        """The items of a collection that touch the area in these days, or those of these names; and notes."""
        with self._asking():
            search = self._client.search(
                collections=[collection],
                datetime=None if days is None else days.interval,
                ids=None if ids is None else list(ids),
                max_items=MOST_ITEMS,
                limit=100,
                intersects=None if area is None else area.outline,
            )
            given = list(search.items_as_dicts())
        read = [Item.of(one) for one in given]
        found = [item for item in read if item is not None]
        notes: tuple[str, ...] = ()
        if len(given) == MOST_ITEMS:
            notes += (f"only the first {MOST_ITEMS} items of {collection} are looked at; narrow the dates",)
        if len(found) < len(given):
            notes += (f"{len(given) - len(found)} items of {collection} lack what an item must have; left out",)
        return found, notes

    def signed(self, address: str, collection: str, *, refused: str = "") -> str:
        """An address with a token, if its host needs one. refused: what was given before and is of no use any more."""
        host = urlsplit(address).hostname or ""
        if not self.api.token or not any(host == own or host.endswith(f".{own}") for own in self.api.token_hosts):
            return address
        with self._lock:
            token, until = self._tokens.get(collection, ("", 0.0))
            if time.time() >= until or (refused and refused.endswith(token)):  # otherwise another thread has renewed it
                token, until = self._tokens[collection] = self._new_token(collection)
        return f"{address}{'&' if '?' in address else '?'}{token}"

    def _new_token(self, collection: str) -> tuple[str, float]:
        now = time.time()
        with self._asking("tokens of "):
            given = json.loads(self._io.request(self.api.token.format(collection=collection)))
            token = str(given["token"])
            end = datetime.fromisoformat(str(given["msft:expiry"]).replace("Z", "+00:00")).timestamp()
        life = end - now
        return token, now + max(life - _EARLY, life / 2)

    @contextmanager
    def _asking(self, what: str = "") -> Iterator[None]:
        from pystac.errors import STACError
        from pystac_client.exceptions import APIError

        of_library = (APIError, STACError, Warning, NotImplementedError)
        of_content = (LookupError, TypeError, ValueError, AttributeError)  # what is no catalogue ends in any of these
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what an API does not claim to know; its answer says more
                yield
        except (*of_library, *of_content) as error:
            raise InputError(f"{what}{self.api.address} cannot be used: {_why(error)}") from error


def _why(error: Exception) -> str:
    """One line without addresses that may hold a token."""
    code = getattr(error, "status_code", None)
    text = re.sub(r"\?\S+", "", " ".join(str(error).split()))
    cause = re.search(r"Caused by (.+)", text)
    if cause:
        text = cause[1]
    status = f"status {code}, " if code else ""
    return f"{status}{text[:160] or type(error).__name__}; check the address, or try again later"


def of_day(items: Sequence[Item]) -> dict[str, list[Item]]:
    """Items by the day on which they were taken."""
    days: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: (item.day, item.id)):
        days.setdefault(item.day, []).append(item)
    return days
