"""Runs a contestant as `turnwise serve` runs its own: what is loaded by then is frozen, so that the
garbage collector does not scan it again. Bare servers gain by it, too.

    python serve.py module:app port [factory] [loop]
"""

from __future__ import annotations

import gc
import sys

import uvicorn


def main(app: str, port: str, factory: str = "", loop: str = "auto") -> None:
    config = uvicorn.Config(
        app,
        port=int(port),
        factory=bool(factory),
        loop=loop,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=900,
    )
    config.load()
    gc.collect()
    gc.freeze()
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
