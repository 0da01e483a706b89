"""A stand-in for a server or a page: `stub.py PORT DELAY [EXIT_AFTER]`; answers 503 until ready, then 200.

It notes SIGTERM by writing `PORT.ended` beside its working directory's other files; with `stubborn` it ignores it.
"""

import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, DELAY, MODE = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""
BEGUN = time.monotonic()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if time.monotonic() - BEGUN > DELAY else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def end(*_: object) -> None:
    if MODE != "stubborn":
        Path(f"{PORT}.ended").touch()
        sys.exit(0)


signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, lambda *_: Path(f"{PORT}.interrupted").touch())
Path(f"{PORT}.started").touch()
server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
if MODE == "dies":
    time.sleep(1)
    sys.stderr.write("no memory left\n")
    sys.exit(3)
while True:
    time.sleep(0.1)
