"""Attacks on the libOS and on other processes, in each mode of isolation (isolation/attacks.c)."""
import os
import re
import shutil
import struct

# Under `none` these must succeed, which shows that success is seen. (WRPKRU is no instruction there: nobody turned keys on.)
SUCCEED_WITHOUT = ("read_libos", "map_over", "keys_in_frame", "memory_file")
FORBIDDEN = re.compile(rb"\x0f(?:\x01\xef|\xae[\x28-\x2f\x68-\x6f\xa8-\xaf])|\xf3\x48?\x0f\xae[\xd8-\xdf]")


class LibOS:
    """Addresses in the libOS that attacks aim at, from its ELF file."""

    def __init__(self, path, run):
        with open(path, "rb") as file:
            self.bytes = file.read()
        lines = run(["nm", path])[1].decode().split("\n")
        self.symbols = {line.split()[2]: int(line.split()[0], 16) for line in lines if len(line.split()) == 3}
        offset, count = struct.unpack_from("<Q", self.bytes, 32)[0], struct.unpack_from("<H", self.bytes, 56)[0]
        for i in range(count):
            kind, flags, start, address, _, length = struct.unpack_from("<IIQQQQ", self.bytes, offset + 56 * i)
            if kind == 1 and flags & 1:
                self.text, self.address = self.bytes[start:start + length], address

    def find(self, pattern):
        return [self.address + match.start() for match in re.finditer(pattern, self.text, re.DOTALL)]

    def inside(self, address, *names):
        return any(self.symbols[a] <= address < self.symbols[b] for a, b in names)

    def defines(self):
        calls = self.find(rb"\x0f\x05")
        own = [a for a in calls if self.inside(a, ("bare_leave", "bare_calls_end"), ("host_calls_start", "host_calls_end"))]
        gates = [self.symbols[name] for name in ("gate_answers", "trap_entry")]
        lists = {"WRPKRUS": self.find(rb"\x0f\x01\xef"), "XRSTORS": self.find(rb"\x0f\xae[\x28-\x2f]"),
                 "SYSCALLS": own, "GATES": gates}
        return [f"-D{name}=" + "".join(f"{address:#x}," for address in addresses) for name, addresses in lists.items()]


def run_all(work, tools):
    libos = LibOS(os.path.join(os.path.dirname(tools.swiftlet), "unikernel.elf"), tools.run)
    clean_text(libos, tools)
    if not shutil.which("qemu-system-x86_64"):
        print("skipped  isolation on the bare host: no qemu-system-x86_64")
        return
    with open(os.path.join(tools.here, "isolation", "attacks.c")) as file:
        text = file.read()
    program = tools.compile_c(
        work, "attacks", text, "-mfsgsbase", "-mxsave", "-pthread", "-w", "-DBARE", "-DSTEP=1", *libos.defines())
    for mode in ("mpk", "paging"):
        for cpus in ("1", "2"):
            ours = bare(tools, f"--isolation={mode}", "--cpus=" + cpus, program)
            judge(tools, f"bare host, {mode}, {cpus} CPUs", ours)
    for name in SUCCEED_WITHOUT:
        ours = bare(tools, "--isolation=none", program, name)
        tools.check(f"isolation none, bare host: {name} breaks in", b": BROKE IN" in ours[1], str(ours))


def bare(tools, *arguments):
    return tools.run([tools.swiftlet, "run", "--host=bare", *arguments], seconds=400)


def judge(tools, name, ours):
    """Each attack ended in a signal or in errors, and the parent lives on."""
    lines = ours[1].decode(errors="replace").split("\n")
    ended = [line for line in lines if ": signal" in line or line.endswith(": status 0")]
    bad = [line for line in lines if ": " in line and line not in ended]
    tools.check(
        f"isolation, {name}: {len(ended)} attacks end in signals and errors",
        ours[0] == 0 and not bad and len(ended) >= 36 and "alive" in lines, f"{bad}\n{ours}")


def clean_text(libos, tools):
    """What programs can jump into: the libOS has no WRPKRU, XRSTOR or WRGSBASE but those that are checked."""
    allowed = [("gate_exit", "gate_exit_end"), ("gate_entry_keys", "gate_keys_answer_end"),
               ("machine_restore_vector_state", "machine_vector_state_features")]
    stray = [hex(a) for a in libos.find(FORBIDDEN.pattern) if not libos.inside(a, *allowed)]
    tools.check("isolation: the libOS's text holds no stray WRPKRU, XRSTOR or WRGSBASE", not stray, str(stray))
