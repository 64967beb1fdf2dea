"""Models are built by one thread at a time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from safetydpo_kedro.threads import builds_models


def test_decorated_functions_never_run_together_but_may_call_each_other():
    inside, most = [0], [0]

    @builds_models
    def part():
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        inside[0] -= 1
        return threading.get_ident()

    @builds_models
    def whole():
        return part()

    with ThreadPoolExecutor(4) as pool:
        threads = {future.result() for future in [pool.submit(f) for f in (part, whole) * 4]}
    assert most[0] == 1 and len(threads) > 1
