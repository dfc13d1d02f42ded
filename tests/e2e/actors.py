# SPDX-License-Identifier: Apache-2.0
"""Actors: processes of a workload that do what no client of traffic.c does.

Each is a function marked @actor, where `actor = Actors(__file__)`. The file is started as a program, with the function's name
and arguments, in the workload's cgroup; there it calls actor.main()."""
import errno
import os
import socket
import sys


class Actors:
    def __init__(self, path):
        self.path, self.functions = os.path.abspath(path), {}

    def __call__(self, function):
        self.functions[function.__name__] = function
        return function

    def start(self, who, name, *args, netns=None):
        assert name in self.functions, name
        return who.spawn(["/usr/bin/python3", "-B", self.path, name, *[str(a) for a in args]], netns=netns)

    def main(self):
        self.functions[sys.argv[1]](*sys.argv[2:])


def outcome(process):
    return process.wait_event("outcome", seconds=10)["result"]


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def error_of(error):
    return errno.errorcode.get(error.errno, str(error))


def attempt(function, *args):
    """ "ok", or the error as the actor saw it."""
    try:
        function(*args)
    except TimeoutError:
        return "ETIMEDOUT"
    except OSError as error:
        return error_of(error)
    return "ok"
