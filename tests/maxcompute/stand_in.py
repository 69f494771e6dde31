"""A stand-in for MaxCompute: the calls of its HTTP API that concern resources, and nothing else.

The client is the real one. What it gets here is what the service answers as far as its client
reads it; no claim is made beyond that.
"""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

KEY = "otto"


class StandIn(ThreadingHTTPServer):
    """Keeps the resources of one project, in memory."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.resources: dict[str, tuple[str, bytes]] = {}
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, data: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str, words: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>{words}</Message></Error>"
        self._answer(status, text.encode(), Content_Type="application/xml")

    def _serve(self) -> None:
        where = urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        if not self.headers.get("Authorization", "").startswith(f"ODPS {KEY}:"):
            self._refuse(401, "Unauthorized", "this key is not known")
            return
        parts = where.path.strip("/").split("/")
        query = parse_qs(where.query, keep_blank_values=True)
        if parts == ["api", "tenants"]:
            data = b'{"Tenant": {"Name": "t", "TenantMeta": {}, "Parameters": {}}}'
            self._answer(200, data, Content_Type="application/json")
        elif parts[:4] == ["api", "projects", "otto", "resources"]:
            self._resource(parts[4] if len(parts) > 4 else "", query, body)
        else:
            self._refuse(404, "NoSuchObject", f"the stand-in knows no {where.path}")

    def _resource(self, name: str, query: dict[str, list[str]], body: bytes) -> None:
        with self.server.lock:
            if self.command in ("POST", "PUT"):
                name = name or self.headers["x-odps-resource-name"]
                data = body
                if "rOpMerge" in query:  # a file that came in parts: their names follow its digest
                    parts = body.decode().partition("|")[2].split(",")
                    data = b"".join(self.server.resources.pop(part)[1] for part in parts)
                self.server.resources[name] = self.headers["x-odps-resource-type"], data
                self._answer(201)
                return
            found = self.server.resources.get(name)
            if found is None:
                self._refuse(404, "NoSuchObject", f"Resource not found - '{name}'")
            elif self.command == "DELETE":
                del self.server.resources[name]
                self._answer(204)
            else:
                kind, data = found
                start = int(query.get("rOffset", ["0"])[0])
                end = start + int(query["rSize"][0]) if "rSize" in query else len(data)
                part = data[start:end]
                self._answer(
                    200, part, x_odps_resource_type=kind, x_odps_resource_name=name,
                    x_odps_resource_size=str(len(data)),
                    x_odps_resource_has_remaining=str(end < len(data)).lower(),
                )  # fmt: skip

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve


if __name__ == "__main__":
    server = StandIn()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_address[1]}/api", flush=True)
    sys.stdin.read()
    server.shutdown()
