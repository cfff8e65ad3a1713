"""Readers of /proc and /sys: shells, procps, lsof and python3 in an image, against the machine's own Linux."""
import os
import re
import shutil
import subprocess

import hosts

# Must print and answer exactly what they do on Linux.
EQUAL = [
    ("process substitution", "cat <(echo a) <(echo b)"),
    ("process substitution for writing", "echo through > >(cat); sleep 0.2"),
    ("/dev/stderr", "echo hi 2>&1 >/dev/null > /dev/stderr; echo hi > /dev/stdout"),
    ("/dev/stdin", "echo x | cat /dev/stdin"),
    ("/dev/fd", "cat /dev/fd/3 3<<<here"),
    ("own descriptors", "exec 5</dev/null; ls /proc/self/fd | tail -n +4 | wc -l; ls -l /proc/self/fd/5 | sed 's/.*5 ->/5 ->/'"),
    ("exe", "readlink /proc/self/exe"),
    ("cwd and root", "cd /usr; readlink /proc/self/cwd /proc/self/root /proc/$$/cwd"),
    ("command line", "tr '\\0' '|' < /proc/self/cmdline"),
    ("environment", "env -i A=1 B=2 cat /proc/self/environ | tr '\\0' '|'"),
    ("comm", "echo other > /proc/self/comm; cat /proc/$$/comm"),
    ("parent", "[ $(grep PPid /proc/self/status | tr -cd 0-9) = $$ ] && echo yes"),
    ("nproc", "nproc"),
    ("names of status", "cut -d: -f1 /proc/self/status | grep -v x86_ | head -9"),
    ("limits", "ulimit -n 77; grep -c . /proc/self/limits; grep 'open files' /proc/self/limits | tr -s ' ' | cut -d' ' -f4"),
    ("sysctl", "cat /proc/sys/kernel/ostype /proc/sys/fs/pipe-max-size /proc/sys/vm/overcommit_memory"),
    ("uuid", "cat /proc/sys/kernel/random/uuid | tr 0-9a-f x"),
    ("writing what is not there", "(echo x > /proc/none) 2>/dev/null; echo $?"),
    ("killed by pgrep", "sleep 77 & sleep 0.2; kill $(pgrep -P $$ sleep); wait $! ; echo $?"),
    ("ps of itself", "ps -o comm= -p $$; true"),
    ("ps of a zombie and a sleeper", "(sleep 9 & exec sleep 9) & sleep 0.3; ps -o s=,comm= --ppid $! ; kill $!"),
]

# Must have a form.
SHAPES = [
    ("maps", "cat /proc/self/maps", rb"(?m)^[0-9a-f]+-[0-9a-f]+ rw-p .* \[stack\]$"),
    ("pipes", "ls -l /proc/self/fd", rb"1 -> pipe:\[\d+\]"),
    ("ps -ef", "ps -ef; true", rb"UID +PID +PPID .*\n\S+ +1 +0 .*bash"),
    ("free", "free", rb"Mem: +\d{6}"),
    ("uptime", "uptime", rb"up .*load average: "),
    ("top", "TERM=dumb top -b -n1", rb"(?s)Tasks:.*PID USER.*top"),
    ("lsof", "lsof -p $$; true", rb"(?s)bash.*cwd.*DIR"),
    ("stat", "cat /proc/stat", rb"(?s)cpu  \d+ .*cpu0 .*btime \d+\nprocesses \d+"),
    ("cpuinfo", "cat /proc/cpuinfo", rb"(?s)processor\t: 0\nvendor_id.*flags\t\t: fpu .*sse2"),
    ("mountinfo", "cat /proc/self/mountinfo", rb"(?m)^\d+ \d+ \d+:\d+ / /proc rw.* - proc proc rw"),
    ("df", "df /", rb"Mounted on\n\S+ +\d+ +\d+ +\d+ +\d+% /"),
    ("network", "cat /proc/net/dev /proc/net/route", rb"(?s)lo: .*Iface\tDestination"),
    ("interfaces", "cat /sys/class/net/lo/address /sys/class/net/lo/mtu", rb"00:00:00:00:00:00\n65536"),
    ("huge pages", "cat /sys/kernel/mm/transparent_hugepage/enabled", rb"\[\w+\]"),
]

PYTHON = """
import os, socket, resource
n = len(os.sched_getaffinity(0))
assert n == os.cpu_count(), (n, os.cpu_count())
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()
line = [l.split() for l in open('/proc/net/tcp')][1:]
assert any(l[1] == '0100007F:%04X' % s.getsockname()[1] and l[3] == '0A' for l in line), line
assert os.readlink('/proc/self/fd/%d' % s.fileno()) == 'socket:[%d]' % os.fstat(s.fileno()).st_ino
try: open('/proc/self/fd/%d' % s.fileno()); assert 0
except OSError as e: assert e.errno == 6, e
for i in range(3000000): pass
assert sum(map(int, open('/proc/self/stat').read().rsplit(')', 1)[1].split()[11:13])) > 0
assert os.path.exists('/proc/%d/task/%d/status' % (os.getpid(), os.getpid()))
for root, dirs, files in os.walk('/proc/sys'):
    for f in files: open(os.path.join(root, f)).read()
for root, dirs, files in os.walk('/sys'):
    for f in files: open(os.path.join(root, f)).read()
for f in os.listdir('/proc/self'):
    p = '/proc/self/' + f
    if os.path.isfile(p) and f != 'mem' and not os.path.islink(p): open(p, 'rb').read()
print('good')
"""


def tests(suite, work):
    tools = (
        "cat tail wc ls sed tr readlink env grep cut nproc head sleep pgrep ps free uptime top lsof df".split())
    for tool in ("ps", "lsof"):
        if not shutil.which(tool):
            suite.check(f"procfs: {tool} is installed", False)
            return
    adds = [part for tool in tools for part in ("--add", os.path.realpath(shutil.which(tool)) + ":" + shutil.which(tool))]
    adds += ["--add", "/lib/terminfo/d/dumb"]
    image = suite.build(work, "procfs", shutil.which("bash"), *adds)
    for name, script in EQUAL:
        suite.same("procfs: " + name, image, ["-c", script], ["bash", "-c", script])
    for name, script, shape in SHAPES:
        ours = suite.run([*hosts.command(), image, "-c", script])
        suite.check("procfs: " + name, ours[0] == 0 and re.search(shape, ours[1]) is not None, str(ours))
    library = subprocess.run(
        ["/usr/bin/python3", "-c", "import os; print(os.path.dirname(os.__file__))"], stdout=subprocess.PIPE, check=True
    ).stdout.decode().strip()
    image = suite.build(work, "python", "/usr/bin/python3", "--add", library)
    ours = suite.run([*hosts.command(), "-m", "512M", image, "-c", PYTHON], seconds=60)
    suite.check("procfs: python3", ours[:2] == (0, b"good\n"), str(ours))
