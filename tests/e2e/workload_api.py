# SPDX-License-Identifier: Apache-2.0
"""A SPIFFE Workload API for the tests, by gRPC's own library and Google's protobuf: nothing of it is ours but what it says.

As a program: workload_api.py SOCKET; reads commands as JSON, one a line, and writes what happens in the same way:
{"bundles": {TRUST-DOMAIN-ID: BASE64}}, {"deny": true}, {"close": true}; {"ready": true}, {"called": {metadata}}, {"gone": true},
{"told": NUMBER} of what the client took.
As a module: the handle that starts this program and talks to it."""
import base64
import json
import os
import subprocess
import sys
import threading


def serve(path):
    import grpc
    from concurrent import futures
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    # As spiffe/spiffe standards/workloadapi.proto has it.
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="workload.proto", syntax="proto3")
    file.message_type.add(name="X509BundlesRequest")
    response = file.message_type.add(name="X509BundlesResponse")
    response.field.add(name="crl", number=1, type=field.TYPE_BYTES, label=field.LABEL_REPEATED)
    entry = response.nested_type.add(name="BundlesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=field.TYPE_BYTES, label=field.LABEL_OPTIONAL)
    response.field.add(name="bundles", number=2, type=field.TYPE_MESSAGE, label=field.LABEL_REPEATED,
                       type_name=".X509BundlesResponse.BundlesEntry")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    factory = message_factory.MessageFactory(pool)
    request_type, response_type = (factory.GetPrototype(pool.FindMessageTypeByName(name))
                                   for name in ("X509BundlesRequest", "X509BundlesResponse"))
    changed = threading.Condition()
    state = {"bundles": {}, "deny": False, "round": 0, "close": 0}

    def tell(**what):
        print(json.dumps(what), flush=True)

    def fetch(_request, context):
        metadata = {k: v for k, v in context.invocation_metadata() if isinstance(v, str)}
        tell(called=metadata)
        if metadata.get("workload.spiffe.io") != "true":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        seen, closed = None, state["close"]
        while context.is_active():
            with changed:
                changed.wait_for(lambda: state["round"] != seen, 0.2)
                if state["round"] == seen:
                    continue
                seen, denied = state["round"], state["deny"]
                bundles = dict(state["bundles"])
                ended = state["close"] != closed
            if denied:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
            if ended:
                context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
            yield response_type(bundles={k: base64.b64decode(v) for k, v in bundles.items()})
            tell(told=seen)
        tell(gone=True)

    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", {
        "FetchX509Bundles": grpc.unary_stream_rpc_method_handler(
            fetch, request_deserializer=request_type.FromString,
            response_serializer=response_type.SerializeToString)}),))
    server.add_insecure_port(f"unix:{path}")
    server.start()
    os.chmod(path, 0o777)
    tell(ready=True)
    for line in sys.stdin:
        command = json.loads(line)
        with changed:
            state["deny"] = bool(command.get("deny"))
            state["close"] += bool(command.get("close"))
            state["bundles"] = command.get("bundles", state["bundles"])
            state["round"] += 1
            changed.notify_all()
    server.stop(None)


class WorkloadApi:
    """The program, running."""

    def __init__(self, path):
        self.path = path
        self.events = []
        self.process = subprocess.Popen(["/usr/bin/python3", os.path.abspath(__file__), path], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        assert json.loads(self.process.stdout.readline()) == {"ready": True}
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def calls(self):
        return [e["called"] for e in self.events if "called" in e]

    def told(self):
        return sum("told" in e for e in self.events)

    def tell(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def bundles(self, **bundles):
        """Trust domain -> DER; in names of arguments _ stands for a dot."""
        self.tell(bundles={f"spiffe://{name.replace('_', '.')}": base64.b64encode(der).decode()
                           for name, der in bundles.items()})

    def close(self):
        self.process.kill()
        self.process.wait()
        if os.path.exists(self.path):
            os.remove(self.path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


if __name__ == "__main__":
    serve(sys.argv[1])
