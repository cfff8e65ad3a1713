"""How a measured server ends."""
import os
import signal
import subprocess


def stop(server, seconds):
    """Ends a server that has a session of its own, with all that it started."""
    if server.poll() is not None:
        return
    os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
