"""Terminals: programs that test pseudo-terminals inside, and dialogues with `run -t` from a terminal of this machine."""
import fcntl
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
SWIFTLET = os.path.join(os.path.dirname(os.path.dirname(HERE)), "bin", "swiftlet")
TOOLS = ["tty", "stty", "sleep", "cat", "seq", "head", "less", "script", "busybox", "yes", "sh"]
# Options of each host, and how much longer jobs take to start there.
HOSTS = {"linux": ([], 1)}
if shutil.which("qemu-system-x86_64"):
    HOSTS["bare"] = (["--host=bare"], 4)
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "TERM": "dumb", "HOME": "/", "PS1": "", "LESS": ""}


class Terminal:
    """A terminal of this machine with a command on it."""

    def __init__(self, command, rows=30, columns=100):
        self.master, self.slave = os.openpty()
        self.resize(rows, columns)
        self.settings = termios.tcgetattr(self.slave)
        self.text = b""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=self.slave, stdout=self.slave, stderr=self.slave, env=ENVIRONMENT)

    def resize(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text):
        os.write(self.master, text.encode())

    def expect(self, text, seconds=60):
        """Everything up to `text`, or what came in its place with a remark."""
        wanted = text.encode()
        end = time.monotonic() + seconds
        while wanted not in self.text:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                seen, self.text = self.text, b""
                return seen.decode(errors="replace") + f" [no {text!r}]"
            self.text += os.read(self.master, 65536)
        place = self.text.index(wanted) + len(wanted)
        seen, self.text = self.text[:place], self.text[place:]
        return seen.decode(errors="replace")

    def end(self, seconds=40):
        """The exit status; None if it does not end."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.05)[0]:
                self.text += os.read(self.master, 65536)
        return self.process.poll()

    def is_restored(self):
        return termios.tcgetattr(self.slave) == self.settings

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for descriptor in (self.master, self.slave):
            try:
                os.close(descriptor)
            except OSError:
                pass


# What is typed, and what happens before the next: True waits for the prompt, a number of seconds gives a job the time
# to start.
DIALOGUE = [
    ("stty -a\n", True), ("stty size\n", True), ("test -t 0 && test -t 1 && test -t 2 && echo terminal\n", True),
    ("sleep 100 & jobs\n", True), ("fg\n", 0.7), ("\x1a", True), ("jobs\n", True), ("bg\n", True),
    ("kill %1; wait %1; echo $?\n", True), ("sleep 100\n", 0.7), ("\x03", True), ("echo $?\n", True),
    ("cat\n", 0.7), ("ab\x7fc\n", 0.3), ("\x04", True), ("cat | cat\n", 0.7), ("\x1a", True), ("jobs\n", True),
    ("fg\n", 0.7), ("x\n", 0.3), ("\x03", True), ("echo $?\n", True), ("(sleep 100; echo no) | cat\n", 0.7),
    ("\x1c", True), ("cat & sleep 0.7\n", True), ("jobs\n", True), ("fg\n", 0.7), ("\x03", True),
    ("read x; echo got $x\n", 0.3), ("line\n", True), ("echo $-\n", True), ("exit 5\n", 0),
]


def typed(terminal, dialogue, slowness):
    """What a shell on the terminal shows while the keys of a dialogue are typed."""
    terminal.expect("# ")
    terminal.send("PS1='RE''ADY> '\n")
    terminal.expect("READY> ")
    seen = ""
    for keys, then in dialogue:
        terminal.send(keys)
        if then is True:
            seen += terminal.expect("READY> ")
        else:
            time.sleep(then * slowness)
    return seen


def transcript(command, slowness=1):
    """The dialogue's text, with numbers of processes left out."""
    terminal = Terminal(command)
    try:
        seen = typed(terminal, DIALOGUE, slowness)
        status = terminal.end()
        return re.sub(r"\[(\d)\] \d+", r"[\1] N", seen), status, terminal.is_restored()
    finally:
        terminal.close()


def image_of(suite, work):
    adds = [part for tool in TOOLS if shutil.which(tool) for part in ("--add", shutil.which(tool))]
    for path in ("/etc/passwd", "/lib/terminfo", "/usr/share/terminfo"):
        if os.path.exists(path):
            adds += ["--add", path]
    return suite.build(work, "terminal", shutil.which("bash"), *adds)


def conformance(suite, work):
    for name in ("discipline", "jobs"):
        with open(os.path.join(HERE, "terminals", name + ".c")) as file:
            program = suite.compile_c(work, name, file.read(), "-lutil")
        ours = suite.run([SWIFTLET, "run", program], seconds=120)
        native = suite.run([program], seconds=120)
        suite.check(f"terminals: {name} as on Linux", ours[:2] == native[:2], difference(ours[1], native[1]))


def difference(ours, native):
    import difflib
    return "\n".join(difflib.unified_diff(
        native.decode(errors="replace").split("\n"), ours.decode(errors="replace").split("\n"), "native", "ours", n=1))


def dialogue(suite, image):
    shell = ["--norc", "--noediting"]
    with ThreadPoolExecutor() as pool:
        native = pool.submit(transcript, ["bash", *shell])
        theirs = {host: pool.submit(
            transcript, [SWIFTLET, "run", *options, "-it", "-e", "TERM=dumb", image, *shell], slowness)
            for host, (options, slowness) in HOSTS.items()}
    native = native.result()
    for host in HOSTS:
        ours = theirs[host].result()
        suite.check(f"terminals, {host}: a dialogue with bash as on Linux", ours[0] == native[0],
                    difference(ours[0].encode(), native[0].encode()))
        suite.check(f"terminals, {host}: the shell's status is the command's", ours[1] == 5 == native[1], str(ours[1]))
        suite.check(f"terminals, {host}: settings are restored", ours[2])


class Shell(Terminal):
    """bash in an image on a terminal, with a prompt that its own echo does not contain."""

    def __init__(self, host, image, *options):
        options = [*HOSTS[host][0], *options]
        super().__init__([SWIFTLET, "run", "-it", *options, image, "--norc"])
        self.expect("# ")
        self.send("PS1='RE''ADY> '; bind 'set enable-bracketed-paste off'\n")
        self.expect("READY> ")

    def run(self, command, seconds=60):
        self.send(command + "\n")
        return self.expect("READY> ", seconds)


def programs(suite, image, host):
    terminal = Shell(host, image, "-e", "TERM=xterm")
    slowness = HOSTS[host][1]
    try:
        suite.check(f"terminals, {host}: names and devices", "/dev/pts/0\r\n1\r\n2\r\n" in terminal.run(
            "tty; echo 1 >/dev/tty; echo 2 >/dev/console"))
        seen = terminal.run("script -q -c 'tty; stty size' /dev/null")
        suite.check(f"terminals, {host}: script", "/dev/pts/1\r\n30 100\r\n" in seen, seen)
        terminal.send("busybox vi /tmp/x\n")
        terminal.expect("~")
        for keys in ("ihello", "\x1b", ":wq\n"):
            terminal.send(keys)
            time.sleep(0.6 * slowness)
        terminal.expect("READY> ")
        suite.check(f"terminals, {host}: vi", "hello\r\n" in terminal.run("cat /tmp/x"))
        terminal.send("seq 200 | less\n")
        terminal.expect("\n29\r\n:")
        terminal.send(" ")
        seen = terminal.expect("\n58\r\n:")
        terminal.send("q")
        suite.check(f"terminals, {host}: less", "no '" not in seen + terminal.expect("READY> "), seen)
        terminal.run("trap 'echo now $(stty size)' WINCH")
        terminal.resize(41, 101)
        terminal.send("\n")
        seen = terminal.expect("now 41 101")
        suite.check(f"terminals, {host}: the window's size follows", "no '" not in seen, seen)
        # Each of them ends a line.
        lines = 1500000 // slowness ** 2
        terminal.send(f"exec 3>&1; yes | head -c {2 * lines}; echo E''ND\n")
        time.sleep(2)
        seen = terminal.expect("END", 120)
        suite.check(f"terminals, {host}: a slow reader gets every byte", seen.count("y\r\n") >= lines, str(len(seen)))
        terminal.expect("READY> ")
        terminal.send("yes\n")
        time.sleep(slowness)
        terminal.send("\x03")
        seen = terminal.expect("READY> ", 60)
        suite.check(f"terminals, {host}: control-C stops a flood", "no '" not in seen[-40:], seen[-200:])
        terminal.send("exit 3\n")
        suite.check(f"terminals, {host}: programs: status", terminal.end() == 3)
    finally:
        terminal.close()


def ends(suite, image, host):
    for name, number, expected in (("SIGTERM", signal.SIGTERM, None), ("SIGHUP", signal.SIGHUP, 129)):
        terminal = Shell(host, image)
        try:
            terminal.process.send_signal(number)
            status = terminal.end(3 * HOSTS[host][1])
            if expected is None:  # an interactive shell ignores it
                suite.check(f"terminals, {host}: {name} reaches a shell that ignores it", status is None, str(status))
                terminal.send("exit 4\n")
                status, expected = terminal.end(), 4
            suite.check(f"terminals, {host}: {name}: status", status == expected, str(status))
            suite.check(f"terminals, {host}: {name}: settings are restored", terminal.is_restored())
        finally:
            terminal.close()
    terminal = Shell(host, image)
    try:
        pid = terminal.process.pid
        child = int(open(f"/proc/{pid}/task/{pid}/children").read().split()[0])
        suite.check(f"terminals, {host}: the terminal is raw meanwhile", not terminal.is_restored())
        os.kill(child, signal.SIGKILL)
        status = terminal.end()
        suite.check(f"terminals, {host}: a killed unikernel leaves the terminal in order",
                    status == 137 and terminal.is_restored(), str(status))
    finally:
        terminal.close()
    terminal = Shell(host, image)
    try:
        os.close(terminal.master)
        os.close(terminal.slave)
        status = terminal.process.wait(40)
        suite.check(f"terminals, {host}: the end of the terminal ends the shell", status in (129, 1), str(status))
    except subprocess.TimeoutExpired:
        suite.check(f"terminals, {host}: the end of the terminal ends the shell", False)
    finally:
        terminal.close()


def without(suite, image, host):
    """What `run` does about terminals without -t."""
    done = suite.run([SWIFTLET, "run", *HOSTS[host][0], "-t", image])
    suite.check(f"terminals, {host}: -t without one", done[0] == 125 and done[2].count(b"\n") == 1, str(done))
    terminal = Terminal([SWIFTLET, "run", *HOSTS[host][0], "-i", image, "-c", "tty; read x; echo got $x; sleep 100"])
    try:
        seen = terminal.expect("not a tty")
        terminal.send("line\n")
        seen += terminal.expect("got line")
        suite.check(f"terminals, {host}: -i alone passes a line", "no '" not in seen, seen)
        terminal.send("\x03")
        status = terminal.end()
        suite.check(f"terminals, {host}: control-C reaches a program without -t", status == 130, str(status))
    finally:
        terminal.close()
    terminal = Terminal([SWIFTLET, "run", *HOSTS[host][0], image, "-c", "read x; echo $?"])
    try:
        suite.check(f"terminals, {host}: neither -i nor -t: no input", "no '" not in terminal.expect("1\r\n"))
    finally:
        terminal.close()


def frozen(suite, image):
    """A QEMU that does nothing any more does not keep its user: a second signal ends it, or a third control-C."""
    def stop(terminal):
        waiting = [terminal.process.pid]
        while waiting:
            pid = waiting.pop()
            if b"qemu" in open(f"/proc/{pid}/cmdline", "rb").read():
                os.kill(pid, signal.SIGSTOP)
                return
            waiting += [int(child) for child in open(f"/proc/{pid}/task/{pid}/children").read().split()]

    for name, keys in (("SIGTERM", None), ("control-C", "\x03")):
        terminal = Shell("bare", image)
        try:
            stop(terminal)
            time.sleep(0.5)
            for _ in range(6):
                if keys:
                    terminal.send(keys)
                else:
                    terminal.process.send_signal(signal.SIGTERM)
                time.sleep(0.7)
            status = terminal.end(10)
            suite.check(f"terminals, bare: {name} again ends a machine that is frozen",
                        status in (130, 143) and terminal.is_restored(), f"{status} {terminal.text}")
        finally:
            terminal.close()


def tests(suite, work):
    image = image_of(suite, work)
    # What is typed here is typed by the clock: no other work beside it.
    dialogue(suite, image)
    # These mostly wait.
    jobs = [(conformance, suite, work)]
    jobs += [(function, suite, image, host) for host in HOSTS for function in (programs, ends, without)]
    if "bare" in HOSTS:
        jobs.append((frozen, suite, image))
    with ThreadPoolExecutor(max_workers=4) as pool:
        for future in [pool.submit(*job) for job in jobs]:
            future.result()
