"""Part "surface" of the system tests: what Linux's interface offers beyond the everyday, as C programs that print the same
natively and in an image, and what must hold for every program: nothing is left behind by processes that end."""
import os
import signal
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))

# Programs of guests/ that must print the same natively and in an image.
SAME = ["other-memory"]


def compiled(work, name):
    program = os.path.join(work, name)
    subprocess.run(["gcc", "-O1", "-w", "-pthread", "-o", program, os.path.join(HERE, "guests", name + ".c")], check=True)
    return program


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def stopped(suite, work):
    """Linux goes on with waits that a stop interrupted by restart_syscall(2)."""
    image = suite.build(work, "sleeper", "/bin/bash", "--add", "/bin/sleep")
    unikernel = subprocess.Popen([suite.SWIFTLET, "run", image, "-c", "echo ready; sleep 2; echo done"], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    unikernel.stdout.readline()
    time.sleep(0.5)
    everybody = [unikernel.pid, *children(unikernel.pid)]
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in everybody:
            os.kill(pid, number)
        time.sleep(0.3)
    done = unikernel.communicate(timeout=20)
    suite.check("stopped and continued from outside, the unikernel goes on", done == (b"done\n", b""), str(done))


def tests(suite, work):
    for name in SAME:
        program = compiled(work, name)
        ours, native = suite.run([suite.SWIFTLET, "run", program], seconds=60), suite.run([program], seconds=60)
        suite.check(f"surface: {name} as natively", ours[:2] == native[:2], f"ours   {ours}\nnative {native}")
    # Something may still be ending while memory is counted on a busy machine; a leak is there every time.
    for _ in range(3):
        done = suite.run([suite.SWIFTLET, "run", "-m", "256m", compiled(work, "leaks")], seconds=200)
        if done[:2] == (0, b"done\n"):
            break
    suite.check("surface: processes that end leave no memory behind", done[:2] == (0, b"done\n"), str(done))
    stopped(suite, work)
