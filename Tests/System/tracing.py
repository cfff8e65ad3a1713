"""Debian's strace, gdb and ltrace inside an image, against what they say on the machine's own Linux."""
import os
import re
import shutil
import subprocess

import hosts

PROGRAM = r"""
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int counter;
static int add(int a, int b) {
  int sum = a + b;
  return sum;
}
int work(int n) {
  int total = 0;
  for (int i = 0; i < n; i++) {
    total = add(total, i);
    counter = total;
  }
  return total;
}
static void *thread(void *p) {
  work(3);
  return p;
}
int main(int argc, char **argv) {
  pthread_t t;
  pthread_create(&t, 0, thread, 0);
  pthread_join(t, 0);
  int result = work(5);
  printf("%d %d\n", result, counter);
  if (argc < 2) return 0;
  if (!strcmp(argv[1], "fork")) { if (!fork()) { work(2); _exit(3); } usleep(200000); }
  if (!strcmp(argv[1], "crash")) *(volatile int *)16 = 1;
  if (!strcmp(argv[1], "sleep")) for (int i = 0; i < 100; i++) usleep(100000);
  return 0;
}
"""

# Registers and memory that a tracer must not give its tracee, nor see: each is refused, or has no effect.
GUARDS = r"""
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
static int bad;
static void refused(const char *what, long result, int error) {
  if (result >= 0 || errno != error) { bad++; printf("%s: %ld, %d\n", what, result, errno); }
}
int main(void) {
  pid_t pid = fork();
  if (pid == 0) { ptrace(PTRACE_TRACEME, 0, 0, 0); raise(SIGSTOP); _exit(3); }
  waitpid(pid, 0, 0);
  struct user_regs_struct r, old;
  ptrace(PTRACE_GETREGS, pid, 0, &old);
  unsigned long inside[] = {0x100000000000, 0x140000000000, 0x200000000000, 0xffffffff80000000, 0x800000000000};
  for (int i = 0; i < 5; i++) {
    r = old; r.rip = inside[i];
    refused("rip", ptrace(PTRACE_SETREGS, pid, 0, &r), EIO);
    refused("rip alone", ptrace(PTRACE_POKEUSER, pid, 8 * 16, inside[i]), EIO);
    errno = 0;
    ptrace(PTRACE_PEEKDATA, pid, inside[i], 0);
    refused("peek", errno ? -1 : 0, EIO);
    refused("poke", ptrace(PTRACE_POKEDATA, pid, inside[i], 0), EIO);
  }
  r = old; r.rsp = 0x8000000000000000;
  refused("rsp", ptrace(PTRACE_SETREGS, pid, 0, &r), EIO);
  r = old; r.gs_base = 0x1000;
  refused("gs_base", ptrace(PTRACE_SETREGS, pid, 0, &r), EIO);
  r = old; r.fs_base = 0x8000000000000000;
  refused("fs_base", ptrace(PTRACE_SETREGS, pid, 0, &r), EIO);
  r = old; r.cs = 0x10;
  refused("cs", ptrace(PTRACE_SETREGS, pid, 0, &r), EIO);
  r = old; r.eflags |= 0x3000 | 0x4000 | 0x20000 | 0x80000; r.eflags &= ~0x200ul;
  ptrace(PTRACE_SETREGS, pid, 0, &r);
  ptrace(PTRACE_GETREGS, pid, 0, &r);
  if ((r.eflags & 0xa7000) || !(r.eflags & 0x200)) { bad++; printf("eflags %llx\n", r.eflags); }
  static unsigned char area[16384];
  struct iovec all = {area, sizeof area};
  ptrace(PTRACE_GETREGSET, pid, 0x202, &all);
  area[513] |= 2;  // PKRU
  refused("PKRU", ptrace(PTRACE_SETREGSET, pid, 0x202, &all), EINVAL);
  area[513] &= ~2;
  area[527] = 0x80;  // compacted
  refused("compacted", ptrace(PTRACE_SETREGSET, pid, 0x202, &all), EINVAL);
  area[527] = 0; area[27] = 0xff;
  refused("MXCSR", ptrace(PTRACE_SETREGSET, pid, 0x202, &all), EINVAL);
  ptrace(PTRACE_CONT, pid, 0, 0);
  int status;
  waitpid(pid, &status, 0);
  printf("%d bad, exit %d\n", bad, WEXITSTATUS(status));
}
"""

GDB = ("gdb -nx -q -batch -iex 'set debug-file-directory /none' -ex 'set pagination off' "
       "-ex 'set debuginfod enabled off' ")

STRACE = [
    ("calls of a shell and its children",
     "strace -f -o F sh -c 'cat /etc/hostname >/dev/null | head -1; (exit 3); sleep 0.05 & wait'; "
     "grep -oE '(execve\\(.[a-z/]*|pipe2|exited with .)' F | sort"),
    ("a count", "strace -c -o F true; head -1 F; strace -c -f -o F sh -c 'ls /dev/null; true'; grep -cE 'execve|openat' F"),
    ("an error injected", "strace -o F -P /etc/hostname -e inject=openat:error=EACCES cat /etc/hostname; echo $?; grep -c INJECTED F"),
    ("a result injected", "strace -o F -e trace=write -e inject=write:retval=5 sh -c 'echo lost'; echo $?; cat F"),
    ("a signal injected", "strace -o F -e inject=write:signal=TERM sh -c 'echo x; echo y'; echo $?; tail -2 F"),
    ("signals", "strace -f -e trace=none -e signal=all -o F "
                "sh -c 'trap \"echo t\" USR1; kill -USR1 $$; sleep 5 & kill -9 $!; wait $!' 2>/dev/null; cat F"),
    ("a limit outside", "timeout 0.5 strace -o F sleep 5; echo $?; tail -1 F"),
    ("a limit inside", "strace -o F timeout 0.3 sleep 5; echo $?; tail -1 F"),
    ("attaching to a sleeper", "sleep 2 & p=$!; sleep 0.3; strace -p $p -o F; grep -oE '^[a-z_]+\\(.*<...>|^[a-z_]+\\(' F; tail -1 F"),
    ("letting go", "sleep 3 & p=$!; timeout 0.7 strace -p $p -o F; wait $p; echo $?"),
    ("stacks", "strace -k -o F -e trace=write sh -c 'echo k'; grep -c '^ > ' F | sed 's/[1-9][0-9]*/some/'"),
    ("a stop and SIGCONT", "strace -o F sh -c 'kill -STOP $$; echo on' & sleep 1; c=$(ps -o pid= --ppid $! | tr -d ' '); "
                           "ps -o s= -p $c; kill -CONT $c; wait; grep -E 'SIG|write' F"),
    ("jobs on a terminal", "strace -f -o F script -qc 'bash --norc -ic \"sleep 9 & jobs; kill %1; wait; echo done\"' /dev/null "
                           "</dev/null | tr -d '\\r' | tail -1"),
    ("threads of python", "strace -f -o F python3 -c 'import threading\n"
                          "t = [threading.Thread(target=lambda: sum(range(1000))) for i in range(8)]\n"
                          "[x.start() for x in t]; [x.join() for x in t]; print(\"joined\")'; "
                          "grep -cE 'clone3?\\(' F; grep -c 'exited with' F"),
    ("strace of strace", "strace -o F strace -o G true; echo $?; tail -1 F; tail -1 G"),
    ("files and times", "strace -ttt -T -y -o F cat /etc/hostname >/dev/null; grep -c 'hostname>' F; strace -D -o F true; sleep 0.3; tail -1 F"),
    ("ltrace", "ltrace -o F PROGRAM; echo $?; grep -oE '^(pthread_create|printf|pthread_join)' F; tail -1 F"),
]

DEBUGGER = [
    ("a breakpoint, a step, the end of a function",
     "-ex 'break add' -ex run -ex 'bt 2' -ex 'print a' -ex 'info threads' -ex step -ex finish -ex delete -ex c PROGRAM"),
    ("a watchpoint", "-ex 'break work' -ex run -ex 'watch counter' -ex c -ex c -ex 'info watchpoints' -ex kill PROGRAM"),
    ("a watchpoint in software", "-ex 'set can-use-hw-watchpoints 0' -ex 'break work' -ex run -ex 'watch counter' -ex 'delete 1' "
                                 "-ex 'set scheduler-locking on' -ex c -ex c -ex kill PROGRAM"),
    ("a breakpoint in hardware", "-ex start -ex 'hbreak add' -ex c -ex 'bt 1' -ex kill PROGRAM"),
    ("catching a call", "-ex 'catch syscall write' -ex run -ex 'bt 1' -ex c -ex c PROGRAM"),
    ("the child of a fork", "-ex 'set follow-fork-mode child' -ex 'break work' -ex 'run fork' -ex c -ex c -ex c PROGRAM; s=$?; sleep 0.5; exit $s"),
    ("both sides of a fork", "-ex 'set detach-on-fork off' -ex 'catch fork' -ex 'run fork' -ex c -ex 'inferior 2' -ex c PROGRAM"),
    ("a fault", "-ex 'run crash' -ex bt -ex 'print $_siginfo.si_signo' -ex 'print $_siginfo._sifields._sigfault.si_addr' "
                "-ex 'x/i $pc' PROGRAM"),
    ("arguments", "-ex run -ex kill --args PROGRAM crash"),
    ("calls into the program", "-ex 'break work' -ex run -ex 'print add(3,4)' -ex 'set var counter = 77' -ex 'print counter' "
                               "-ex 'print $xmm0.uint128' -ex 'info registers cs ss' -ex 'thread apply all bt 1' -ex return -ex delete -ex c PROGRAM"),
    ("single instructions", "-ex start -ex stepi -ex stepi -ex 'x/2i $pc' -ex next -ex 'tbreak 28' -ex c -ex 'info sharedlibrary' -ex kill PROGRAM"),
    ("vfork and exec", "-ex 'catch vfork' -ex 'catch exec' -ex run -ex c -ex c --args sh -c 'ls /dev/null; exit 3'"),
    ("signals", "-ex 'catch signal SIGUSR1' -ex run -ex c --args bash -c 'trap \"echo caught\" USR1; kill -USR1 $$; exit 4'"),
    ("a core file", "-ex 'break work' -ex run -ex 'generate-core-file C' -ex kill PROGRAM; " + GDB + "-ex 'bt 2' -ex 'print counter' PROGRAM C"),
    ("attaching", "-p $p -ex 'print counter' -ex 'break usleep' -ex c -ex finish -ex detach"),
]


def normal(text):
    """Without what differs from run to run: numbers of processes, addresses, the width of columns."""
    text = text.decode(errors="replace")
    text = "\n".join(line for line in text.split("\n") if not re.search("index cache|corefile section", line))
    text = re.sub(r"0x[0-9a-f]+", "ADDRESS", text)
    text = re.sub(r"(LWP|process|Process|pid=) ?\d+", r"\1 N", text)
    text = re.sub(r"(?m)^\d+ +", "", text)
    text = re.sub(r"(= |\()\d{1,7}(?=$|[ ,)])", r"\1N", text)
    return re.sub(r"[ \t]+", " ", text)


def image(suite, work, program):
    tools = ("bash sh ls cat sleep timeout kill ps true head grep tail sort wc sed uniq tr script strace gdb ltrace "
             "rm stty").split()
    adds = [part for tool in tools for part in ("--add", os.path.realpath(shutil.which(tool)) + ":" + shutil.which(tool))]
    libraries = "/lib/x86_64-linux-gnu/"
    for path in (libraries + "libthread_db.so.1", libraries + "gconv", "/usr/lib/locale/C.utf8", "/usr/share/gdb",
                 "/usr/lib/python3.11", "/etc/ld.so.cache", "/etc/hostname", program, program + ".c"):
        adds += ["--add", path]
    return suite.build(work, "tracing", "/bin/bash", *adds, "--add", "/usr/bin/python3.11:/usr/bin/python3")


def compare(suite, name, packed, script):
    environment = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "HOME": "/"}
    inside = [part for key, value in environment.items() for part in ("-e", f"{key}={value}")]
    native = suite.run(["env", "-i", *(f"{key}={value}" for key, value in environment.items()), "/bin/bash", "-c",
                        f"cd {os.path.dirname(packed)}; " + script])
    ours = suite.run([*hosts.command("-m", "1G", *inside), packed, "-c", "cd /tmp; " + script], seconds=60)
    ours, native = ([result[0], *map(normal, result[1:3])] for result in (ours, native))
    detail = f"ours {ours[0]}\n{ours[1]}{ours[2]}native {native[0]}\n{native[1]}{native[2]}"
    if name.startswith("gdb"):
        # What gdb and its programs say has no order between them.
        ours, native = ([result[0], *(sorted(text.split("\n")) for text in result[1:])] for result in (ours, native))
    suite.check("tracing: " + name, ours == native, detail)


def tests(suite, work):
    for tool in ("strace", "gdb", "ltrace", "script"):
        if not shutil.which(tool):
            suite.check(f"tracing: {tool} is installed", False)
            return
    program = suite.compile_c(work, "debugged", PROGRAM, "-g", "-O0", "-pthread")
    packed = image(suite, work, program)
    for name, script in STRACE:
        compare(suite, name, packed, script.replace("PROGRAM", program))
    for name, options in DEBUGGER:
        script = GDB + options
        if "$p" in options:
            script = f"{program} sleep & p=$!; sleep 0.5; {script} 2>&1; kill $p; wait $p; echo $?"
        compare(suite, "gdb: " + name, packed, script.replace("PROGRAM", program))
    guards = suite.compile_c(work, "guards", GUARDS)
    for isolation in ("none", "paging", "mpk") if hosts.is_bare() else ("none",):
        ours = suite.run([*hosts.command("--isolation=" + isolation), guards])
        suite.check(f"tracing: nothing new is in reach, {isolation}", ours[:2] == (0, b"0 bad, exit 3\n"), str(ours))
