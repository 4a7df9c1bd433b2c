"""A small proxy on the service registry. It sends each request to a healthy backend with low load.

Run it: python examples/registry_proxy.py backend        (in as many terminals as you like)
        python examples/registry_proxy.py proxy          (prints its port: curl that)
"""

import contextlib
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import coord


class Handler(BaseHTTPRequestHandler):
    services: coord.ServiceRegistry
    port: int

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Backend(Handler):
    def do_GET(self) -> None:
        self.answer(200, f"backend {self.port}\n".encode())


class Proxy(Handler):
    def do_GET(self) -> None:
        for _ in range(3):  # a killed backend stays in the registry for its ttl
            try:
                service = self.services.healthy_service("web", choose="spread")
                if service is None:
                    break
                url = f"http://{service['host']}:{service['port']}{self.path}"
                with urllib.request.urlopen(url, timeout=5) as reply:
                    return self.answer(reply.status, reply.read())
            except (coord.CoordError, urllib.error.URLError):
                continue
        return self.answer(503, b"no backend is healthy\n")


def main(part: str, url: str | None = None) -> None:
    handler = Backend if part == "backend" else Proxy
    with coord.connect(url) as c, ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Handler.services, Handler.port = c.services, server.server_port
        print(f"{part} on port {server.server_port}", flush=True)
        if part == "proxy":
            server.serve_forever()
        web = {"role": "web", "ttl": 2, "load": 0, "host": "127.0.0.1", "port": server.server_port}
        with coord.Heartbeat(c.services, web):
            server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
