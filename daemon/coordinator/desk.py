"""Slow work off the coordinator's thread: reading models, making tokens of long prompts."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Desk:
    """One worker thread. What it finishes is handed back in the coordinator's own thread by
    `finish`, which is to be called when `wake` (a file descriptor) is readable."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "desk")
        self._done: deque[Callable[[], object]] = deque()
        self.wake, self._poke = os.pipe()
        self.waiting = 0

    def submit(
        self,
        work: Callable[[], Any],
        then: Callable[[Any], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        """In order of asking, one at a time. `then(result)` or `failed(error)` follows in the
        coordinator's thread.
        """

        def ended(future: Future[Any]) -> None:
            if future.cancelled():
                return
            error = future.exception()
            if error is not None:
                self._done.append(lambda: failed(error))
            else:
                self._done.append(lambda: then(future.result()))
            os.write(self._poke, b"x")

        self.waiting += 1
        self._pool.submit(work).add_done_callback(ended)

    def finish(self) -> None:
        os.read(self.wake, 4096)
        while self._done:
            self.waiting -= 1
            self._done.popleft()()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        os.close(self.wake)
        os.close(self._poke)
