"""A collector for the stories of traces: takes OTLP over HTTP and prints each span as a line of JSON.

    collector.py [PORT] [STATUS]

It prints `port N` first, where it listens, and answers every request with STATUS (200). Reads the official messages, and
fails loudly on what is none.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

printing = threading.Lock()


def say(line):
    with printing:
        print(line, flush=True)


def plain(value):
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


def named(attributes):
    names = [attribute.key for attribute in attributes]
    assert len(names) == len(set(names)), f"an attribute stands twice: {names}"
    return {attribute.key: plain(attribute.value) for attribute in attributes}


def told(span, resource, scope, headers):
    assert len(span.trace_id) == 16 and any(span.trace_id), span
    assert len(span.span_id) == 8 and any(span.span_id), span
    assert span.start_time_unix_nano <= span.end_time_unix_nano, span
    return {
        "name": span.name,
        "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        "trace": span.trace_id.hex(),
        "span": span.span_id.hex(),
        "parent": span.parent_span_id.hex() or None,
        "is_parent_remote": bool(span.flags & 0x200),
        "flags": span.flags & 0xFF,
        "state": span.trace_state,
        "began_ns": span.start_time_unix_nano,
        "ended_ns": span.end_time_unix_nano,
        "failed": span.status.code == Status.STATUS_CODE_ERROR,
        "attributes": named(span.attributes),
        "resource": resource,
        "scope": scope,
        "headers": headers,
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status = 200

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/traces", self.path
        assert self.headers["Content-Type"] == "application/x-protobuf", self.headers
        request = ExportTraceServiceRequest.FromString(body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.status == 200:
            for of_resource in request.resource_spans:
                resource = named(of_resource.resource.attributes)
                for of_scope in of_resource.scope_spans:
                    for span in of_scope.spans:
                        say(json.dumps(told(span, resource, of_scope.scope.name, headers)))
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        say(json.dumps({"fault": repr(sys.exc_info()[1])}))


def main():
    port, Handler.status = (int(word) for word in (sys.argv[1:] + ["0", "200"][len(sys.argv) - 1 :])[:2])
    server = Server(("127.0.0.1", port), Handler)
    say(f"port {server.server_port}")
    # Whoever started it has ended when its input does.
    threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
