"""Program: a Ray head node that ends as a whole. Its arguments are those of `ray start`.

When the head's process dies, the kernel ends its children, and workers miss their raylet within seconds. The raylet's
agents do not end for a minute: they try to tell the GCS, which is gone. So a process waits beside it for its end.
"""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Become the head."""
    gone, alive = os.pipe()  # nobody else has an end of it: what is executed does not inherit them
    if os.fork() == 0:
        os.close(alive)
        os.read(gone, 1)
        os.killpg(0, signal.SIGKILL)  # of a session that the harness began for it
    os.close(gone)

    from ray._private import services
    from ray.scripts.scripts import main as ray

    # It starts although there is to be no dashboard, and takes the processor when the first callers come.
    services.start_api_server = lambda *_, **__: (None, None)
    ray()


if __name__ == "__main__":
    main()
