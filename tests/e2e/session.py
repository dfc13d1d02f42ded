# SPDX-License-Identifier: Apache-2.0
"""An operator's session: session.py server ADDRESS PORT | client ADDRESS PORT

The server plays sshd: it accepts one connection and runs commands as its children, named on standard input as JSON
{"argv": [...], "answer": TEXT or null, "env": {}}; with an answer, on a terminal. "ping" sends a byte, which the client
sends back. The client plays the operator's end and says when the connection ends."""
import errno
import json
import os
import pty
import socket
import subprocess
import sys


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def run_on_terminal(argv, env, answer):
    """Standard input and error are a terminal, on which somebody answers when asked."""
    ours, theirs = pty.openpty()
    said = ""
    with subprocess.Popen(argv, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, text=True, env=env) as child:
        os.close(theirs)
        try:
            while data := os.read(ours, 4096).decode():
                said += data
                if "[y/N]" in said and answer is not None:
                    os.write(ours, answer.encode() + b"\n")
                    answer = None
        except OSError as error:
            if error.errno != errno.EIO:  # nobody has it open any more
                raise
        out = child.stdout.read()
    os.close(ours)
    return child.returncode, out, said


def run(order):
    env = {k: v for k, v in os.environ.items() if k != "SSH_CONNECTION"} | order.get("env", {})
    if order.get("answer") is not None:
        rc, out, err = run_on_terminal(order["argv"], env, order["answer"])
    else:
        done = subprocess.run(order["argv"], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env,
                              check=False)
        rc, out, err = done.returncode, done.stdout, done.stderr
    say("ran", rc=rc, out=out, err=err)


def server(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family) as listener:
        say("ready")
        connection, _ = listener.accept()
    connection.settimeout(20)
    local, remote = connection.getsockname(), connection.getpeername()
    say("accepted", hint=f"{remote[0]} {remote[1]} {local[0]} {local[1]}")
    for line in sys.stdin:
        if line.strip() != "ping":
            run(json.loads(line))
            continue
        try:
            connection.sendall(b"x")
            say("pong", ok=connection.recv(1) == b"x")
        except OSError as error:
            say("pong", ok=False, errno=errno.errorcode[error.errno] if error.errno else "ETIMEDOUT")


def client(address, port):
    connection = socket.create_connection((address, port), 5)
    connection.settimeout(None)
    say("connected")
    try:
        while data := connection.recv(1):
            connection.sendall(data)
        say("ended", errno="EOF")
    except OSError as error:
        say("ended", errno=errno.errorcode[error.errno])


{"server": server, "client": client}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
