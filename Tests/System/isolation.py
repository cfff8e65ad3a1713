"""Attacks on the libOS and on other processes, in each mode of isolation on each host (isolation/attacks.c)."""
import os
import re
import shutil
import struct

import linux_guest

# Under `none` these must succeed, which shows that the attacks are ones and that success is seen. (On the bare host
# WRPKRU is no instruction then: nobody turned keys on.)
SUCCEED = ("read_libos", "map_over", "keys_in_frame", "memory_file")
SUCCEED_WITH_KEYS = ("own_wrpkru", "misaligned_wrpkru", "prefixed_wrpkru", "own_xrstor", "misaligned_xrstor", "jit_protect",
                     "jit_both", "jit_border", "jit_double", "jit_shared_anonymous", "jit_file", "jit_moved")
FORBIDDEN = rb"\x0f(?:\x01\xef|\xae[\x28-\x2f\x68-\x6f\xa8-\xaf])|\xf3\x48?\x0f\xae[\xd8-\xdf]"


class LibOS:
    """Addresses in the libOS that attacks aim at, from its ELF file."""

    def __init__(self, path, run):
        self.path, self.run = path, run
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

    def instructions(self, ranges):
        """Where instructions begin."""
        found = []
        for start, end in zip(ranges[::2], ranges[1::2]):
            text = self.run(["objdump", "-d", f"--start-address={start}", f"--stop-address={end}", self.path])[1].decode()
            found += [int(line, 16) for line in re.findall(r"^ *([0-9a-f]+):\t", text, re.MULTILINE)]
        return found

    def inside(self, address, *names):
        return any(self.symbols[a] <= address < self.symbols[b] for a, b in names)

    def defines(self, spares=False):
        """`spares`: only instructions as they are meant, and none that soon comes to an `iretq`. With a bad stack pointer
        QEMU 7.2 takes the fault of a far return for ring 0's own, and a Linux guest ends the process."""
        calls = self.find(rb"\x0f\x05")
        own = [a for a in calls if self.inside(a, ("bare_leave", "bare_calls_end"), ("host_calls_start", "host_calls_end"))]
        gates = [self.symbols[name] for name in (
            "gate_answers", "trap_entry", "host_signal_entry_keys", "host_signal_keys_end", "host_signal_return",
            "host_calls_end")]
        if spares:
            returns = self.find(rb"\x48\xcf")
            gates = [a for start in self.instructions(gates) for a in (start, start + 1)
                     if not any(start <= place < start + 64 for place in returns)]
        lists = {"WRPKRUS": self.find(rb"\x0f\x01\xef"), "XRSTORS": self.find(rb"\x0f\xae[\x28-\x2f]"),
                 "SYSCALLS": own, "GATES": gates}
        return [f"-D{name}=" + "".join(f"{address:#x}," for address in addresses) for name, addresses in lists.items()]


def run_all(work, tools):
    libos = LibOS(os.path.join(os.path.dirname(tools.swiftlet), "unikernel.elf"), tools.run)
    clean_text(libos, tools)
    if not shutil.which("qemu-system-x86_64"):
        print("skipped  isolation: no qemu-system-x86_64")
        return
    with open(os.path.join(tools.here, "isolation", "attacks.c")) as file:
        text = file.read()
    flags = ["-mfsgsbase", "-mxsave", "-pthread", "-w"]
    bare_host(work, tools, tools.compile_c(work, "attacks-bare", text, "-DBARE", *flags, *libos.defines()))
    linux_host(work, tools, tools.compile_c(work, "attacks", text, *flags, *libos.defines(spares=True)))
    kicks(work, tools)


def bare_host(work, tools, program):
    for mode in ("mpk", "paging"):
        for cpus in ("1", "2"):
            ours = bare(tools, f"--isolation={mode}", "--cpus=" + cpus, program)
            judge(tools, f"bare host, {mode}, {cpus} CPUs", ours)
    for name in SUCCEED:
        ours = bare(tools, "--isolation=none", program, name)
        tools.check(f"isolation none, bare host: {name} breaks in", b": BROKE IN" in ours[1], str(ours))


def linux_host(work, tools, program):
    """In a Linux guest: this machine's processor need not have keys."""
    ours = guest(work, tools, "mpk", program)
    judge(tools, "Linux host, mpk", ours)
    ours = guest(work, tools, "none", program, *SUCCEED, *SUCCEED_WITH_KEYS)
    for name in (*SUCCEED, *SUCCEED_WITH_KEYS):
        broken = f"{name}: BROKE IN".encode() in ours[1]
        tools.check(f"isolation none, Linux host: {name} breaks in", broken, str(ours))


def kicks(work, tools):
    """Signals that find a program in the gate, which is another one in each mode."""
    with open(os.path.join(tools.here, "c", "kicks.c")) as file:
        program = tools.compile_c(work, "kicks", file.read(), "-static")
    for mode in ("mpk", "paging"):
        ours = bare(tools, f"--isolation={mode}", program)
        tools.check(f"bare host, {mode}: signals in the gate", ours[:2] == (0, b"0 wrong, signals: many\n"), str(ours))
    ours = guest(work, tools, "mpk", program)
    tools.check("Linux host, mpk: signals in the gate", ours[0] == 0 and b"0 wrong, signals: many" in ours[1], str(ours))


def guest(work, tools, mode, program, *arguments):
    image = tools.build(work, f"{os.path.basename(program)}-image-{mode}", "--isolation=" + mode, program, "--", *arguments)
    # QEMU's emulation reads the stack of ring 3's `iretq` as ring 0 would, which SMAP refuses; on a microvm it gives Linux no
    # clock but the timer's ticks.
    machine = linux_guest.Guest(
        work, ["/image"], add=[(image, "/image")], machine="q35", mebibytes=1024,
        kernel_arguments="clearcpuid=smap tsc=reliable")
    return linux_guest.run(machine, seconds=500)


def bare(tools, *arguments):
    return tools.run([tools.swiftlet, "run", "--host=bare", *arguments], seconds=400)


def judge(tools, name, ours):
    """Each attack ended in a signal or in errors, and the parent lives on."""
    lines = ours[1].decode(errors="replace").replace("\r", "").split("\n")
    ended = [line for line in lines if ": signal" in line or line.endswith(": status 0")]
    bad = [line for line in lines if ": " in line and line not in ended]
    tools.check(
        f"isolation, {name}: {len(ended)} attacks end in signals and errors",
        ours[0] == 0 and not bad and len(ended) >= 36 and "alive" in lines, f"{bad}\n{ours}")


def clean_text(libos, tools):
    """What programs can jump into: the libOS has no WRPKRU, XRSTOR or WRGSBASE but those that are checked."""
    allowed = [("gate_exit", "gate_exit_end"), ("gate_entry_keys", "gate_keys_answer_end"),
               ("host_signal_entry_keys", "host_signal_keys_end"),
               ("machine_restore_vector_state", "machine_vector_state_features")]
    stray = [hex(a) for a in libos.find(FORBIDDEN) if not libos.inside(a, *allowed)]
    tools.check("isolation: the libOS's text holds no stray WRPKRU, XRSTOR or WRGSBASE", not stray, str(stray))
