"""Where the images under test run: as a process of Linux, or as a virtual machine above the exokernel."""
import functools
import os
import re
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SWIFTLET = os.path.join(ROOT, "bin", "swiftlet")
ALL = ("linux", "bare")

current = "linux"


def available():
    """The hosts that this machine has."""
    return [host for host in ALL if host == "linux" or shutil.which("qemu-system-x86_64")]


def is_bare():
    return current == "bare"


def is_emulated():
    """Instructions are translated one by one: everything takes ten to twenty times as long."""
    return is_bare() and not has_kvm()


@functools.cache
def has_kvm():
    said = subprocess.run([SWIFTLET, "doctor"], stdout=subprocess.PIPE, text=True).stdout
    return re.search(r"^KVM +yes", said, re.MULTILINE) is not None


def command(*options):
    """`swiftlet run` on the current host."""
    return [SWIFTLET, "run", *(["--host=bare"] if is_bare() else []), *options]


def seconds(limit):
    """How long something may take before it counts as hanging, which takes `limit` on Linux."""
    return limit * 8 if is_emulated() else limit


def share(amount):
    """How much of a heavy load is run: all of it, or a twentieth where instructions are emulated."""
    return max(1, amount // 20) if is_emulated() else amount
