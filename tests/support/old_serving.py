"""A serving process of an agent with one model: it speaks version 1 of the control API."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

from edgefleet.agent.supervisor import PID, SOCKET

_PROGRAM = """
import json, os, socket, socketserver, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
socket_path, port, status = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
class Handler(BaseHTTPRequestHandler):
    def answer(self, code, body):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        self.answer(200, {**status, "pid": os.getpid()})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(404, {"code": "not_found", "message": "There is no endpoint " + self.path + ".",
                          "party": "operator", "retry": "never"})
    def address_string(self): return "unix"
    def log_message(self, *_): pass
class Inference(HTTPServer):
    def server_bind(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()
inference = Inference(("127.0.0.1", port), Handler)
threading.Thread(target=inference.serve_forever, daemon=True).start()
control = socketserver.UnixStreamServer(socket_path, Handler)
print("ready", flush=True)
control.serve_forever()
"""


def old_status(release: str) -> dict[str, object]:
    """The answer to ``GET /control/status`` in version 1, without the pid."""
    return {
        "ready": True,
        "model": "digits",
        "release": release,
        "artifact_sha256": "0" * 64,
        "url": "",
        "stats": {"requests": 3, "errors": 0},
    }


@contextlib.contextmanager
def old_serving(
    data: Path, port: int, status: dict[str, object]
) -> "Generator[subprocess.Popen[str]]":
    """The process, in the data folder of an agent that has ended."""
    (data / SOCKET).unlink(missing_ok=True)
    arguments = [sys.executable, "-c", _PROGRAM, str(data / SOCKET), str(port), json.dumps(status)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
        (data / PID).write_text(f"{process.pid} {fields[19]}")
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
