"""A Linux guest: Debian's cloud kernel with an initramfs of given files, booted by QEMU.

    linux-guest [--machine microvm|q35] [-smp N] [-m MIB] [--add HOST[:GUEST]]... [--network NETDEV] COMMAND [ARGUMENT]...

A shell mounts what programs expect, brings up the network and executes the command; the machine ends with its status.
Standard input and output are the serial console (there is no end of input). With --init process 1 executes the command itself, a path, on nothing
but the bare kernel. A network needs --machine q35.
As a module: `Guest(...)` gives the command line for QEMU, `run` its status and output.
"""
import argparse
import functools
import glob
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile

PACKAGE = "linux-image-cloud-amd64"
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "swiftlet", "linux-guest")
# A byte written to the first is kept in a file, one to the second ends QEMU (isa-debugcon, isa-debug-exit).
STATUS_PORT, EXIT_PORT = 0x502, 0x501

# Process 1: runs its arguments (the kernel passes on what follows `--`) and ends the machine with their status.
LAUNCHER = """#include <sys/io.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
int main(int count, char **arguments) {
  struct termios settings;
  if (tcgetattr(1, &settings) == 0) {
    settings.c_oflag &= ~OPOST;
    settings.c_lflag &= ~ECHO;
    tcsetattr(1, TCSANOW, &settings);
  }
  pid_t ended, child = vfork();
  if (child == 0) {
    execv(arguments[1], arguments + 1);
    _exit(127);
  }
  int status;
  do ended = wait(&status); while (ended > 0 && ended != child);
  tcdrain(1);
  ioperm(EXIT_PORT, STATUS_PORT - EXIT_PORT + 1, 1);
  outb(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), STATUS_PORT);
  outb(0, EXIT_PORT);
}"""
SCRIPT = """PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/applets
export PATH HOME=/
mkdir -p /proc /sys /tmp /run
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /dev/shm /dev/pts
mount -t devpts devpts /dev/pts
chmod 1777 /tmp /dev/shm
for module in $(cat /modules/order); do insmod "/modules/$module"; done
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
  ip addr add @ADDRESS@ dev eth0
  ip link set eth0 up
  ip route add default via @GATEWAY@
fi
exec @COMMAND@
"""


def fetch():
    """The directory with the newest kernel package's boot/ and lib/modules/, downloaded through apt-get if need be."""
    found = sorted(glob.glob(os.path.join(CACHE, "*", "boot", "vmlinuz-*")))
    if not found:
        os.makedirs(CACHE, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            download(work)
            package = glob.glob(os.path.join(work, "*.deb"))[0]
            subprocess.run(["dpkg-deb", "-x", package, os.path.join(work, "root")], check=True)
            name = os.path.basename(package).removesuffix(".deb")
            os.replace(os.path.join(work, "root"), os.path.join(CACHE, name))
        found = glob.glob(os.path.join(CACHE, name, "boot", "vmlinuz-*"))
    return os.path.dirname(os.path.dirname(found[-1]))


def download(directory):
    """The package that PACKAGE stands for, into a directory. What apt knows of it may be older than the archive."""
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    for attempt in range(2):
        shown = subprocess.run(["apt-cache", "show", PACKAGE], stdout=subprocess.PIPE, text=True).stdout
        for name in re.findall(r"^Depends: (\S+)", shown, re.MULTILINE):
            done = subprocess.run(["apt-get", "download", "-qq", name], cwd=directory, stderr=subprocess.PIPE, text=True)
            if done.returncode == 0:
                return
        if attempt == 0:
            subprocess.run([*sudo, "apt-get", "update", "-qq"], check=True)
    sys.exit(f"linux-guest: {PACKAGE} cannot be downloaded")


def kernel():
    return glob.glob(os.path.join(fetch(), "boot", "vmlinuz-*"))[-1]


@functools.cache
def module_files():
    """Path by name; a name has underscores where the file may have hyphens."""
    paths = glob.glob(os.path.join(fetch(), "lib", "modules", "**", "*.ko"), recursive=True)
    return {os.path.basename(path).removesuffix(".ko").replace("-", "_"): path for path in paths}


def with_dependencies(names):
    """Modules in the order in which they can be loaded; a module's own `depends` says what it needs."""
    order = []

    def add(name):
        path = module_files()[name]
        with open(path, "rb") as file:
            needs = re.search(rb"\0depends=([^\0]*)\0", file.read())[1].decode()
        for needed in needs.split(","):
            if needed and needed not in order:
                add(needed)
        if name not in order:
            order.append(name)

    for name in names:
        add(name)
    return order


def launcher(work):
    """Process 1, compiled: a path here and the one in the guest."""
    source, program = os.path.join(work, "launcher.c"), os.path.join(work, "launcher")
    with open(source, "w") as file:
        file.write(LAUNCHER)
    subprocess.run(["gcc", "-Os", "-static", f"-DEXIT_PORT={EXIT_PORT}", f"-DSTATUS_PORT={STATUS_PORT}",
                    "-o", program, source], check=True)
    return program, "/init"


class Initramfs:
    """A cpio archive in the "newc" format (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self):
        self.entries = {}

    def directory(self, path):
        while path not in ("", "/"):
            self.entries.setdefault(path, (stat.S_IFDIR | 0o755, b""))
            path = os.path.dirname(path)

    def link(self, path, target):
        self.directory(os.path.dirname(path))
        self.entries[path] = (stat.S_IFLNK | 0o777, target.encode())

    def file(self, path, data, mode=0o755):
        self.directory(os.path.dirname(path))
        self.entries[path] = (stat.S_IFREG | mode, data)

    def add(self, host, guest=None):
        """A file with the shared libraries it needs, or a directory with all below it."""
        guest = guest or os.path.abspath(host)
        if os.path.isdir(host):
            self.directory(guest)
            for name in sorted(os.listdir(host)):
                below = os.path.join(host, name)
                if os.path.islink(below):
                    self.link(os.path.join(guest, name), os.readlink(below))
                elif os.path.isdir(below) or os.path.isfile(below):
                    self.add(below, os.path.join(guest, name))
            return
        with open(host, "rb") as file:
            data = file.read()
        self.file(guest, data, stat.S_IMODE(os.stat(host).st_mode))
        if data[:4] == b"\x7fELF":
            needs = subprocess.run(["ldd", host], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
            for library in re.findall(r"(/\S+) \(0x", needs):
                if library not in self.entries:
                    with open(library, "rb") as file:
                        self.file(library, file.read())

    def write(self, path):
        with open(path, "wb") as out:
            for number, name in enumerate(sorted(self.entries), 1):
                out.write(self.entry(number, name.lstrip("/"), *self.entries[name]))
            out.write(self.entry(0, "TRAILER!!!", 0, b""))

    @staticmethod
    def entry(number, name, mode, data):
        name = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


class Guest:
    """A machine to boot; `command` is QEMU's command line.

    `add` are paths, or pairs of a path here and one there. `network` is a value for QEMU's -netdev, without the identity
    (`user,hostfwd=tcp:127.0.0.1:8080-:80`, `tap,ifname=tap0,script=no,downscript=no`).
    """

    def __init__(self, work, arguments, add=(), machine="microvm", processors=2, mebibytes=512, network=None,
                 address="10.0.2.15/24", gateway="10.0.2.2", init=False, modules=(), kernel_arguments="", qemu=()):
        archive = Initramfs()
        for path in add:
            archive.add(*([path] if isinstance(path, str) else path))
        modules = with_dependencies([*modules, *(["virtio_pci", "virtio_net"] if network else [])])
        archive.add(*launcher(work))
        if init:
            arguments = [os.path.abspath(arguments[0]), *arguments[1:]]
        else:
            self.shell(archive, arguments, modules, address, gateway)
            arguments = ["/applets/sh", "/script"]
        initramfs = os.path.join(work, "initramfs")
        archive.write(initramfs)
        self.status_file = os.path.join(work, "status")
        # Without KVM this kernel finds no timer on a microvm with ACPI (which tells it that there is no PIT).
        kind = {"microvm": "microvm,acpi=off", "q35": "q35"}[machine]
        line = f"console=ttyS0 quiet loglevel=1 panic=-1 reboot=t {kernel_arguments} -- {' '.join(arguments)}"
        self.command = [
            "qemu-system-x86_64", "-M", kind, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(processors),
            "-m", str(mebibytes), "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
            "-device", f"isa-debug-exit,iobase={EXIT_PORT:#x},iosize=1",
            "-device", f"isa-debugcon,iobase={STATUS_PORT:#x},chardev=status", "-chardev",
            f"file,id=status,path={self.status_file}", "-kernel", kernel(), "-initrd", initramfs,
            "-append", line, *qemu]
        if network:
            if machine != "q35":
                raise ValueError("this kernel finds no virtio device on a microvm without ACPI")
            self.command += ["-netdev", f"{network},id=net0", "-device", "virtio-net-pci,netdev=net0"]

    @staticmethod
    def shell(archive, arguments, modules, address, gateway):
        """What process 1 executes is a script of busybox."""
        busybox = shutil.which("busybox")
        archive.add(busybox, "/applets/busybox")
        for name in subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split():
            if name != "busybox":
                archive.link(f"/applets/{name}", "busybox")
        for name in modules:
            with open(module_files()[name], "rb") as file:
                archive.file(f"/modules/{name}", file.read())
        archive.file("/modules/order", "\n".join(modules).encode())
        quoted = " ".join("'" + argument.replace("'", "'\\''") + "'" for argument in arguments)
        script = SCRIPT.replace("@ADDRESS@", address).replace("@GATEWAY@", gateway).replace("@COMMAND@", quoted)
        archive.file("/script", script.encode())

    def status(self):
        """Exit status of the command once QEMU has ended; None if it never came to that (a panic says why)."""
        with open(self.status_file, "rb") as file:
            written = file.read()
        return written[0] if written else None


def run(guest, seconds=120, stdin=b""):
    """Status (None if it did not end in time) and output."""
    try:
        done = subprocess.run(guest.command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds)
    except subprocess.TimeoutExpired as late:
        return None, late.stdout or b""
    return guest.status(), done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", choices=["microvm", "q35"], default="microvm")
    parser.add_argument("-smp", dest="processors", type=int, default=2)
    parser.add_argument("-m", dest="mebibytes", type=int, default=512)
    parser.add_argument("--add", action="append", default=[], metavar="HOST[:GUEST]")
    parser.add_argument("--network", metavar="NETDEV", help="a value for QEMU's -netdev, without id")
    parser.add_argument("--address", default="10.0.2.15/24")
    parser.add_argument("--gateway", default="10.0.2.2")
    parser.add_argument("--module", action="append", default=[], help="of the kernel's package, with what it depends on")
    parser.add_argument("--init", action="store_true", help="no shell, no mounts, no network: the command alone")
    parser.add_argument("--append", default="", help="more of the kernel's command line")
    parser.add_argument("--fetch", action="store_true", help="download the kernel and stop")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.fetch:
        print(kernel())
        return 0
    if not options.command:
        parser.error("a command is missing")
    add = [tuple(path.split(":", 1)) if ":" in path else path for path in options.add]
    arguments = options.command
    # A command of this machine comes along with its libraries.
    here = shutil.which(arguments[0])
    if here:
        add, arguments = [*add, here], [os.path.abspath(here), *arguments[1:]]
    with tempfile.TemporaryDirectory(prefix="linux-guest-") as work:
        guest = Guest(
            work, arguments, add, options.machine, options.processors, options.mebibytes, options.network, options.address,
            options.gateway, options.init, options.module, options.append)
        process = subprocess.Popen(guest.command, stdout=subprocess.PIPE)
        while chunk := process.stdout.read1(65536):
            sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
        process.wait()
        status = guest.status()
    return 1 if status is None else status


if __name__ == "__main__":
    sys.exit(main())
