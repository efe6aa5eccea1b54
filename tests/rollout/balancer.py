"""HAProxy before two servers: a port of plain TCP and one of HTTP for the HTTP interface, one of plain TCP for gRPC. It
looks at readiness ten times a second and, so that nothing is hidden, tries no request twice."""
import contextlib
import socket
import subprocess
import time

from trireme_server import free_port


class Balancer:
    def __init__(self, folder, servers):
        """`servers` are pairs of ports, (HTTP, gRPC)."""
        self.tcp, self.http, self.grpc = free_port(), free_port(), free_port()
        check = "option httpchk GET /v2/health/ready\n  default-server inter 100ms fall 1 rise 1"
        http = "\n".join(f"  server s{i} 127.0.0.1:{one} check" for i, (one, _) in enumerate(servers))
        grpc = "\n".join(f"  server s{i} 127.0.0.1:{other} check port {one}" for i, (one, other) in enumerate(servers))
        text = f"""
global
  maxconn 1000
defaults
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  retries 0
listen tcp
  mode tcp
  bind 127.0.0.1:{self.tcp}
  {check}
{http}
listen http
  mode http
  bind 127.0.0.1:{self.http}
  {check}
{http}
listen grpc
  mode tcp
  bind 127.0.0.1:{self.grpc}
  {check}
{grpc}
"""
        self.config = folder / "haproxy.cfg"
        self.config.write_text(text)

    def __enter__(self):
        self.process = subprocess.Popen(["haproxy", "-db", "-f", self.config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        end = time.monotonic() + 10
        while True:
            assert self.process.poll() is None and time.monotonic() < end, "HAProxy did not start"
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.grpc), timeout=1).close()
                # One round of looks at both servers.
                time.sleep(0.5)
                return self
            time.sleep(0.02)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
