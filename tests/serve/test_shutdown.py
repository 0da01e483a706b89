"""SIGTERM and SIGINT end a server with code 0 while it starts; once it runs, `serving.stop_all` checks the same."""

import signal
import subprocess
import time

import pytest

from tests import serving


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_it_starts(checkpoint, number):
    process = subprocess.Popen(
        serving.command(checkpoint, "--port", serving.free_port()),
        env=serving.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(6)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(30) == 0
