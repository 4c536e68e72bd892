"""Items in memory, of which the ones that were not used for the longest time are dropped."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class Recent(Generic[Key, Item]):
    """The items that were used last, for several threads.

    Args:
        limit: maximum size of all items together. The item that was added last is kept whatever its size.
        size: size of an item; by default 1, so that `limit` is a number of items.
    """

    def __init__(self, limit: int, size: Callable[[Item], int] = lambda item: 1) -> None:
        self._limit = limit
        self._size = size
        self._items: OrderedDict[Key, Item] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Key) -> Item | None:
        """Return an item, or None if there is none of this key."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
            return self._items.get(key)

    def add(self, key: Key, item: Item) -> None:
        """Add or replace an item, and drop the least recently used items above the limit."""
        with self._lock:
            if key in self._items:
                self._total -= self._size(self._items.pop(key))
            self._items[key] = item
            self._total += self._size(item)
            while self._total > self._limit and len(self._items) > 1:
                _, dropped = self._items.popitem(last=False)
                self._total -= self._size(dropped)
