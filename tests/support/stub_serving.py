"""A serving process that only reports a status, for the tests of its supervision."""

from typing import Final

import msgspec

from edgefleet.agent.effect import Apply, WantedModel, WantedRelease
from edgefleet.agent.state import InstalledRelease
from support.agent_world import manifest, serving

_MANIFEST = manifest("1")
_INSTALLED: Final = InstalledRelease.of(_MANIFEST, "0" * 64, _MANIFEST.variants[0])
WANTED: Final = Apply(
    job=1,
    generation=7,
    models=(WantedModel(model="digits", confirmed=WantedRelease(slot="a", installed=_INSTALLED)),),
)
"""The release that the process reports as active."""

LATE: Final = "late"
"""A file in the folder of the socket. It makes the next status late: until the client is gone."""

DEAF: Final = "deaf"
"""A file in the folder of the socket. With it the process answers no Apply."""

DEAD: Final = "dead"
"""The same. With it the process answers nothing from the next Apply on."""

_PROGRAM = f"""
import json, os, socketserver, sys, time
from http.server import BaseHTTPRequestHandler
status = json.loads(sys.argv[1])
folder = os.path.dirname(sys.argv[-1])
late, deaf, dead = (os.path.join(folder, name) for name in ("{LATE}", "{DEAF}", "{DEAD}"))
dying = []
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status["generation"] = wanted["generation"]
        if os.path.exists(dead):
            dying.append(1)
        if os.path.exists(deaf) or dying:
            time.sleep(600)
        self.do_GET()
    def do_GET(self):
        if dying:
            time.sleep(600)
        if os.path.exists(late):
            os.remove(late)
            self.rfile.read(1)
            return
        body = json.dumps({{**status, "pid": os.getpid()}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self): return "unix"
    def log_message(self, *_): pass
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
Server(sys.argv[-1], Handler).serve_forever()
"""
SERVING: Final = (_PROGRAM, msgspec.json.encode(serving("1")).decode())
"""The arguments of ``python -c``."""
