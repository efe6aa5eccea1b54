"""Looks like a server that is ready, for listing cases without running any."""

import http.server
import re
import sys

text = " ".join(sys.argv)


def port(name, default):
    found = re.search(rf"--{name}-port[= ](\d+)", text)
    return int(found.group(1)) if found else default


class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[]")

    do_POST = do_GET

    def log_message(self, *_):
        pass


# A taken port ends this program, as it ends a server.
servers = [http.server.ThreadingHTTPServer(("127.0.0.1", port(*one)), Ready)
           for one in (("http", 8000), ("grpc", 8001), ("metrics", 8002))]
servers[0].serve_forever()
