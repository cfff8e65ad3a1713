"""Part "abuse" of the system tests: programs that take all they can get, wild calls, ways around the gate, panics."""
import os
import re
import subprocess
import time

import hosts

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SWIFTLET = hosts.SWIFTLET
LIBOS = os.path.join(ROOT, "bin", "unikernel.elf")

# What `limits` is asked for, -m, and what it must print.
LIMITS = [
    ("limited-forks", "128M", "limited EAGAIN\nagain 5\n"),
    ("forks", "64M", "many (EAGAIN|ENOMEM)\nagain 5\n"),
    ("descriptors", "128M", "1 EMFILE\nrefused\n0\n"),
    ("threads", "64M", "many EAGAIN\n"),
    ("hog", "128M", "(ENOMEM|killed)\nbrother 7\ngiven back\n"),
    ("toucher", "128M", "killed\nbrother 7\ngiven back\n"),
    ("tmpfs", "64M", "much ENOSPC\n1 -1 EFBIG\nrefused\nagain\n"),
    ("recursion", "64M", "SIGSEGV\n"),
    ("mappings", "128M", "many ENOMEM\n"),
    ("bomb", "64M", "survived\n"),
]


def processes():
    """Numbers of the host processes that are images."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if "memfd:swiftlet" in os.readlink(f"/proc/{name}/exe"):
                    found.add(int(name))
            except OSError:
                pass
    return found


def tree(pid):
    """A process and its children: every host process of a unikernel is a child of the first."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [pid] + [int(child) for child in file.read().split()]
    except OSError:
        return [pid]


def host_memory(pid):
    """Bytes that Linux holds for a unikernel: shares of pages, the arena's once."""
    total = 0
    for process in tree(pid):
        try:
            with open(f"/proc/{process}/smaps_rollup") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) << 10
        except OSError:
            pass
    return total


def tests(suite, work):
    """Every test of the part; `suite` is the module `run`."""
    run, check = suite.run, suite.check
    programs = {}
    for name in ("fuzz", "limits", "mapping", "attack", "giver"):
        programs[name] = os.path.join(work, "abuse-" + name)
        subprocess.run(
            ["gcc", "-O1", "-w", "-pthread", "-o", programs[name], os.path.join(HERE, "abuse", name + ".c")], check=True)
    before = processes()
    for what, memory, expected in LIMITS:
        done = run([*hosts.command(), "-m", memory, programs["limits"], what], seconds=90)
        ok = done[0] == 0 and re.fullmatch(expected, done[1].decode()) is not None
        check(f"abuse: {what}", ok, str(done))
    copies = run([*hosts.command(), "-m", "128M", programs["limits"], "copies", "70"], seconds=60)
    check("abuse: copies after fork count against -m, shared pages once",
          copies[1] == b"shared 4\ncopied -9\n" and b"out of memory" in copies[2], str(copies))
    mapping = run([*hosts.command(), programs["mapping"]], seconds=60)
    check("abuse: the mmap family follows its man pages", mapping[:2] == (0, b"done\n"), str(mapping))
    for seed in os.environ.get("FUZZ_SEEDS", "1 2").split():
        done = run([*hosts.command(), "-m", "64M", programs["fuzz"], seed], seconds=300)
        check(f"abuse: wild calls, seed {seed}", done[0] == 0 and done[1].endswith(b"alive\n"), str(done)[-2000:])
    too_small(suite, work, programs["limits"])
    if not hosts.is_bare():
        # A virtual machine without a balloon keeps what it had.
        given_back(programs["giver"], check)
    attacks(work, programs["attack"], run, check)
    panics(work, run, check)
    time.sleep(0.5)
    left = processes() - before
    check("abuse: no host process is left", not left or os.environ.get("SHARED_MACHINE"), str(left))


def too_small(suite, work, program):
    """Files of the image take no memory, but what a program writes does: the least is small and enough."""
    big, image = os.path.join(work, "big"), os.path.join(work, "big.img")
    with open(big, "wb") as file:
        file.write(bytes(30 << 20))
    subprocess.run([SWIFTLET, "build", "-o", image, program, "--add", f"{big}:/big"], check=True)
    done = suite.run([*hosts.command(), "-m", "4M", image])
    line = re.fullmatch(rb"swiftlet: .* the least is (\d+)m\n", done[2])
    suite.check("abuse: -m too small is one line that says the least", done[0] == 125 and line is not None, str(done))
    if line:
        enough = suite.run([*hosts.command(), "-m", line[1].decode() + "M", image, "recursion"])
        suite.check("abuse: the least that was said is enough", enough[:2] == (0, b"SIGSEGV\n"), str(enough))


def given_back(program, check):
    """What munmap, MADV_DONTNEED, exit and unlink give back is given back to Linux."""
    unikernel = subprocess.Popen([*hosts.command(), "-i", "-m", "512M", program], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    figures = {}
    try:
        for _ in range(10):
            line = unikernel.stdout.readline().decode().strip()
            if not line or line == "end":
                break
            figures[line] = host_memory(unikernel.pid) >> 20
            unikernel.stdin.write(b"\n")
            unikernel.stdin.flush()
    finally:
        unikernel.kill()
        unikernel.wait()
    start = figures.get("start", 0)
    ok = len(figures) == 9 and all(
        value < start + 12 if name.startswith("without") or name == "start" else value > start + 95
        for name, value in figures.items())
    check(f"abuse: memory goes back to Linux (MiB: {figures})", ok, str(figures))


def attacks(work, program, run, check):
    secret = os.path.join(work, "secret")
    with open(secret, "w") as file:
        file.write("secret of the host\n")
    for way in ("int80", "x32", "raw"):
        done = run([*hosts.command(), program, way, secret])
        check(f"attack: {way} reaches no host file", b"REACHED" not in done[1] and done[0] is not None, str(done))
        check(f"attack: {way} is answered", b"refused" in done[1], str(done))
    symbols = subprocess.run(["nm", LIBOS], stdout=subprocess.PIPE, check=True).stdout.decode()
    address = next(line.split()[0] for line in symbols.splitlines() if line.endswith(" host_syscall"))
    for name, number in (("open", 2), ("openat", 257), ("socket", 41), ("execve", 59), ("ptrace", 101), ("mmap", 9)):
        done = run([*hosts.command(), program, "host", secret, address, str(number)])
        # The bare host's exokernel takes it for the program's own call.
        held = b"REACHED" not in done[1] and (hosts.is_bare() or done[0] == 70 and b"the seal refuses" in done[2])
        check(f"attack: the host's own call instruction does no {name}", held, str(done))
    image = os.path.join(work, "policy.img")
    subprocess.run([SWIFTLET, "build", "-o", image, program], check=True)
    policy = run([SWIFTLET, "inspect", "--policy", image])
    lines = policy[1] + policy[2]
    check("inspect --policy says what the seal lets through",
          policy[0] == 0 and b"no call opens a file" in lines and b"clone: host processes" in lines, str(policy))


PANIC = r"""#include <unistd.h>
#include <sys/syscall.h>
int main(){getpid();write(1,"x",1);write(1,"y",1);syscall(999);return 0;}"""


def panics(work, run, check):
    source = os.path.join(work, "panic.c")
    with open(source, "w") as file:
        file.write(PANIC)
    program, image = os.path.join(work, "panic"), os.path.join(work, "panic.img")
    subprocess.run(["gcc", "-w", "-o", program, source], check=True)
    subprocess.run([SWIFTLET, "build", "-o", image, program], check=True)
    check("panic: not reachable without the test's environment", run([image])[0] == 0)
    done = run(["env", "SWIFTLET_TEST_PANIC=999", image])
    text = done[2].decode(errors="replace")
    check("panic: status 70, registers, a symbolised backtrace, the process and its last calls",
          done[0] == 70 and "check failed in the libOS" in text and ("libos_system_call" in text or "libos_trap" in text)
          and re.search(r"#\d+ 0x[0-9a-f]+ \S+", text) and "process 1, thread 1 (panic)" in text
          and "latest first: 999, 1 = 1, 1 = 1" in text, text)
    trace = run([*hosts.command(), "--trace=syscalls", program])[2].decode(errors="replace")
    check("trace: a line a call as strace has it", "write(1, 0x" in trace and ", 1) = 1\n" in trace
          and re.search(r'openat\(AT_FDCWD, "[^"]+", 0x[0-9a-f]+, 0\d+\) = \d', trace)
          and "exit_group(0) = ?" in trace and "-1 ENOENT (No such file or directory)" in trace
          and "-1 ENOSYS (Function not implemented)" in trace, trace[-3000:])
    missing = run([*hosts.command(), "--trace=missing", program])[2].decode(errors="replace")
    check("trace: who called what is missing",
          "swiftlet: panic (1) called an unknown system call (999), which is missing\n" in missing, missing)
