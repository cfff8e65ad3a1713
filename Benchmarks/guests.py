"""The image as a virtual machine beside a Linux guest: Debian's cloud kernel with the same programs in an initramfs.

Both run under QEMU's emulation with the same processor, number of processors, memory and machine; docs/performance.md
says what each measure means.
"""
import os
import re
import shutil
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(ROOT, "Tests", "System"))
import linux_guest
import processes

SWIFTLET = os.path.join(ROOT, "bin", "swiftlet")
PROCESSORS, MEBIBYTES = 2, 512
LINUX, OURS = "10.0.2.2", "10.0.2.15"
CONFIGURATION = """user root; worker_processes 1; daemon off; error_log stderr error; pid /run/nginx.pid;
events { worker_connections 256; }
http { access_log off; client_body_temp_path /tmp/1; proxy_temp_path /tmp/2; fastcgi_temp_path /tmp/3;
uwsgi_temp_path /tmp/4; scgi_temp_path /tmp/5; server { listen 80; keepalive_requests 1000000; root /site; } }
"""
# One instruction takes one nanosecond of the machine's clock: a program that measures time counts instructions.
COUNTING = ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]


def machine(command, *options):
    """QEMU's command line with other options: what stands later counts."""
    if options and options[0] == "-accel":
        at = command.index("-accel")
        command = command[:at] + command[at + 2:]
    return [*command, *options]


def output(command, seconds=240):
    """What the machine's console shows, and how long the machine ran; None if it does not end."""
    start = time.monotonic()
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                              timeout=seconds)
    except subprocess.TimeoutExpired:
        print(f"{' '.join(command)}: no end", file=sys.stderr)
        return None, None
    return done.stdout.decode(errors="replace"), time.monotonic() - start


def figure(command):
    """The number that a measured program prints on the console."""
    text, _ = output(command)
    found = re.findall(r"^([0-9.]+)\r?$", text or "", re.MULTILINE)
    return float(found[-1]) if found else None


def our_machine(image, kind, processors=PROCESSORS):
    """An image booted by QEMU alone, as `linux_guest.Guest` boots Linux."""
    exact = {"microvm": "microvm,auto-kernel-cmdline=off,rtc=on,pit=off,pic=off", "q35": "q35"}[kind]
    return ["qemu-system-x86_64", "-M", exact, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(processors), "-m",
            str(MEBIBYTES), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
            "-device", "isa-debug-exit,iobase=0x501", "-kernel", image]


class Guests:
    """The measures; `bench` collects them."""

    def __init__(self, bench):
        self.bench, self.work, self.repeats = bench, bench.work, bench.options.repeats

    def run(self):
        if not shutil.which("qemu-system-x86_64"):
            print("Linux guest: skipped, needs QEMU")
            return
        self.calls()
        self.hello()
        self.both_processors()
        self.nginx()

    def image(self, name, *arguments):
        """The program with fixed arguments, as an image."""
        path = os.path.join(self.work, f"guest-{name}.img")
        subprocess.run([SWIFTLET, "build", "-o", path, self.bench.program(name), "--", *arguments], check=True)
        return path

    def linux(self, name, arguments, **options):
        work = os.path.join(self.work, "guest-" + name)
        os.makedirs(work, exist_ok=True)
        program = self.bench.program(name)
        return linux_guest.Guest(work, [program, *arguments], [program], processors=PROCESSORS, mebibytes=MEBIBYTES,
                                 init=True, **options)

    # Calls -----------------------------------------------------------------------------------------------------

    def calls(self):
        for name, program, turns, counted, must, aim, limits in (
                ("empty system call", "system-call", 200000, 20000, None, None, (60, 30)),
                ("fork, exit and wait", "fork", 300, 100, 1 / 2, 1 / 4, None),
                ("pipe ping-pong, 1 byte", "pipe", 3000, 500, None, None, None)):
            if not self.bench.wanted(name + " guest"):
                continue
            peers, ours = [], []
            for _ in range(self.repeats):
                peers.append(figure(self.linux(program, [str(turns)]).command))
                ours.append(figure(our_machine(self.image(program, str(turns)), "microvm")))
            self.bench.row(name, "ns", peers, ours, must, aim, against="Linux guest")
            peer = figure(machine(self.linux(program, [str(counted)]).command, *COUNTING, "-smp", "1"))
            own = figure(machine(our_machine(self.image(program, str(counted)), "microvm"), *COUNTING, "-smp", "1"))
            self.bench.row(f"{name}, counted", "instructions", [peer], [own], None, None, against="Linux guest",
                           limits=limits)

    # Start-up --------------------------------------------------------------------------------------------------

    def hello(self):
        name = "power-on to hello's exit, microvm, guest"
        if not self.bench.wanted(name):
            return
        image, guest = self.image("hello"), self.linux("hello", [])
        peers, ours = [], []
        for _ in range(self.repeats):
            for command, times in ((guest.command, peers), (our_machine(image, "microvm"), ours)):
                text, seconds = output(command)
                if text and "hello" in text:
                    times.append(seconds * 1e9)
        self.bench.row(name, "ns", peers, ours, 1 / 8, 1 / 30, against="Linux guest")

    def both_processors(self):
        name = "two busy processes, guest"
        if not self.bench.wanted(name):
            return
        one, two, ours_one, ours_two = [], [], [], []
        for _ in range(self.repeats):
            one.append(figure(self.linux("busy", ["1"]).command))
            two.append(figure(self.linux("busy", ["2"]).command))
            ours_one.append(figure(our_machine(self.image("busy", "1"), "microvm")))
            ours_two.append(figure(our_machine(self.image("busy", "2"), "microvm")))
        self.bench.row("one busy process", "ns", one, ours_one, None, None, against="Linux guest")
        self.bench.row("two busy processes", "ns", two, ours_two, None, None, against="Linux guest")
        self.bench.row("two busy processes", "ns", ours_one, ours_two, None, None, against="one, ours")

    # nginx -----------------------------------------------------------------------------------------------------

    def nginx(self):
        names = ("power-on to the first answer of nginx, guest", "memory of an idle nginx, guest",
                 "nginx, small file, keep-alive, guest")
        if not any(self.bench.wanted(name) for name in names):
            return
        if os.geteuid() != 0 or not shutil.which("wrk"):
            print("nginx in guests: skipped, needs root and wrk")
            return
        space = f"bench-guest-{os.getpid()}"
        for line in (f"ip netns add {space}", f"ip -n {space} link set lo up",
                     f"ip netns exec {space} ip tuntap add tap0 mode tap vnet_hdr",
                     f"ip -n {space} addr add {LINUX}/24 dev tap0", f"ip -n {space} link set tap0 up"):
            subprocess.run(line.split(), check=True)
        try:
            commands = {"peer": self.linux_nginx(), "ours": self.our_nginx()}
            found = {key: {name: [] for name in names} for key in commands}
            for _ in range(self.repeats):
                for key, command in commands.items():
                    for name, value in zip(names, self.serve(space, command)):
                        found[key][name].append(value)
        finally:
            subprocess.run(["ip", "netns", "del", space], check=False)
        for name, unit, must, aim, higher in zip(
                names, ("ns", "MiB", "requests/s"), (1 / 5, 1 / 4, 1.7), (1 / 20, 1 / 10, 2.7), (False, False, True)):
            self.bench.row(name, unit, found["peer"][name], found["ours"][name], must, aim, higher, "Linux guest")

    def site(self):
        files = os.path.join(self.work, "guest-site")
        os.makedirs(files, exist_ok=True)
        for name, text in (("index.html", "<h1>hello</h1>\n"), ("nginx.conf", CONFIGURATION)):
            with open(os.path.join(files, name), "w") as file:
                file.write(text)
        return files

    def linux_nginx(self):
        files, work = self.site(), os.path.join(self.work, "guest-nginx")
        os.makedirs(work, exist_ok=True)
        add = [shutil.which("nginx"), (f"{files}/index.html", "/site/index.html"), (f"{files}/nginx.conf", "/nginx.conf"),
               "/etc/passwd", "/etc/group", "/etc/nginx/mime.types"]
        os.makedirs(os.path.join(self.work, "empty-directory"), exist_ok=True)
        for path in ("/var/log/nginx", "/var/lib/nginx"):
            add.append((os.path.join(self.work, "empty-directory"), path))
        return linux_guest.Guest(work, [shutil.which("nginx"), "-c", "/nginx.conf"], add, machine="q35",
                                 processors=PROCESSORS, mebibytes=MEBIBYTES,
                                 network="tap,ifname=tap0,script=no,downscript=no").command

    def our_nginx(self):
        files, image = self.site(), os.path.join(self.work, "guest-nginx.img")
        os.makedirs(os.path.join(self.work, "empty-directory"), exist_ok=True)
        subprocess.run([SWIFTLET, "build", "-o", image, shutil.which("nginx"), "--add",
                        f"{files}/index.html:/site/index.html", "--add", f"{files}/nginx.conf:/nginx.conf", "--add",
                        f"{os.path.join(self.work, 'empty-directory')}:/var/lib/nginx", "--", "-c", "/nginx.conf"], check=True)
        return [SWIFTLET, "run", "--host=bare", "--machine=q35", f"--cpus={PROCESSORS}", "-m", f"{MEBIBYTES}M", "--net",
                "tap:tap0", image]

    def serve(self, space, command):
        """Nanoseconds until the first answer, MiB of the machine's memory in use then, requests a second."""
        # Both answer at one address: who was there before must not be asked first.
        subprocess.run(["ip", "-n", space, "neigh", "flush", "dev", "tap0"], check=True)
        start = time.monotonic()
        process = subprocess.Popen(["ip", "netns", "exec", space, *command], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, process_group=0)
        try:
            answered = self.first_answer(space)
            if answered is None:
                return None, None, None
            time.sleep(2)
            return (answered - start) * 1e9, self.memory(process.pid), self.load(space)
        finally:
            processes.stop(process, 5)

    @staticmethod
    def first_answer(space):
        """When a request was first answered. Each attempt has a tenth of a second to be connected."""
        attempt = f"""import socket, sys, time
end = time.monotonic() + 120
while time.monotonic() < end:
    try:
        made = socket.socket()
        made.settimeout(0.1)
        made.connect(("{OURS}", 80))
        made.settimeout(20)
        made.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        if made.recv(4096).startswith(b"HTTP/1.1 200"):
            print(time.monotonic())
            sys.exit(0)
    except OSError:
        time.sleep(0.005)
"""
        # Linux's clock is the same in every process and namespace.
        done = subprocess.run(["ip", "netns", "exec", space, sys.executable, "-c", attempt], stdout=subprocess.PIPE)
        return float(done.stdout) if done.returncode == 0 and done.stdout else None

    @staticmethod
    def memory(process):
        """MiB of the machine's memory that this machine holds: the largest mapping of the QEMU below a process."""
        children = subprocess.run(["pgrep", "-P", str(process)], stdout=subprocess.PIPE, text=True).stdout.split()
        most = None
        for pid in [str(process), *children]:
            with open(f"/proc/{pid}/smaps") as file:
                sizes = re.findall(r"^Size: +(\d+) kB\n(?:.*\n)*?Rss: +(\d+) kB$", file.read(), re.MULTILINE)
            for size, resident in sizes:
                if int(size) >= MEBIBYTES << 10 and int(size) < (MEBIBYTES + 64) << 10:
                    most = max(most or 0, int(resident) / 1024)
        return most

    def load(self, space):
        wrk = ["ip", "netns", "exec", space, "wrk", "-t1", "-c16", f"-d{self.bench.options.seconds}s", f"http://{OURS}/"]
        done = subprocess.run(wrk, stdout=subprocess.PIPE, text=True)
        if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
            print(done.stdout, file=sys.stderr)
            return None
        found = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
        return float(found[1]) if found else None
