"""Memory taken back from a running image, on both hosts: `swiftlet update`, and QEMU's balloon."""
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SWIFTLET = os.path.join(os.path.dirname(os.path.dirname(HERE)), "bin", "swiftlet")
HOSTS = {"linux": []}
if shutil.which("qemu-system-x86_64"):
    HOSTS["bare"] = ["--host=bare"]
    HOSTS["bare, q35"] = ["--host=bare", "--machine=q35", "--cpus=1"]

# Keeps 80 MiB as a cache until memory is short, and has it again when it may.
CACHE = r"""#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static long total(void){char b[4096]={0};int f=open("/proc/meminfo",O_RDONLY);read(f,b,4095);close(f);
long v=0;sscanf(b,"MemTotal: %ld",&v);return v>>10;}
static char*fill(void){char*p=mmap(0,80<<20,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);if(p!=MAP_FAILED)memset(p,1,80<<20);return p;}
int main(void){setvbuf(stdout,0,_IOLBF,0);
int f=open("/proc/pressure/memory",O_RDWR|O_NONBLOCK);
printf("bad %d\n",(int)write(f,"some 1 2",9));
printf("trigger %d\n",(int)write(f,"some 100000 1000000",20));
char*p=fill();printf("filled %ld\n",total()/16*16);
struct pollfd e={f,POLLPRI,0};
printf("poll %d\n",poll(&e,1,60000));printf("events %d\n",!!(e.revents&POLLPRI));
munmap(p,80<<20);printf("gave back %d\n",total()<120);
char line[100];fgets(line,100,stdin);
p=mmap(0,80<<20,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);printf("refused %d\n",p==MAP_FAILED);
fgets(line,100,stdin);
p=fill();printf("again %d %ld\n",p!=MAP_FAILED,total()/16*16);
f=open("/proc/pressure/memory",O_RDONLY);char b[200]={0};read(f,b,199);
printf("counted %d\n",strstr(b,"total=0\nfull")==0);return 0;}
"""

# A child holds 80 MiB and does not listen.
STUBBORN = r"""#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void){setvbuf(stdout,0,_IOLBF,0);
pid_t p=fork();if(!p){char*q=mmap(0,80<<20,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);memset(q,1,80<<20);puts("filled");for(;;)pause();}
int s;waitpid(p,&s,0);printf("%d %d\n",WIFSIGNALED(s),WTERMSIG(s));return 0;}
"""


class Machine:
    """An image that runs, and how much memory of this machine it holds."""

    def __init__(self, options, *arguments, **pipes):
        self.process = subprocess.Popen(
            [SWIFTLET, "run", *options, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **pipes)

    def line(self):
        return self.process.stdout.readline().decode().strip()

    def update(self, size, grace=5):
        subprocess.run([SWIFTLET, "update", "-m", size, f"--grace={grace}", str(self.process.pid)], check=True)

    def resident(self):
        """MiB of this machine: private memory of the process and all below it, and the arena, which is a file."""
        sum, arena, waiting = 0, 0, [self.process.pid]
        while waiting:
            pid = waiting.pop()
            try:
                waiting += [int(c) for c in open(f"/proc/{pid}/task/{pid}/children").read().split()]
                text = open(f"/proc/{pid}/smaps_rollup").read()
                sum += int(text.split("Pss_Anon:")[1].split()[0])
                for descriptor in os.listdir(f"/proc/{pid}/fd"):
                    place = f"/proc/{pid}/fd/{descriptor}"
                    if os.readlink(place).startswith("/memfd:swiftlet "):
                        arena = max(arena, os.stat(place).st_blocks // 2)
            except OSError:
                pass
        return (sum + arena) >> 10

    def wait_for(self, condition, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.2)
        return condition()

    def end(self, seconds=30):
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
        return self.process.returncode, out, err


def cache(suite, work, name, options):
    program = suite.compile_c(work, "revocation-cache", CACHE, "-w", "-static")
    machine = Machine([*options, "-i", "-m", "192m"], program, stdin=subprocess.PIPE)
    seen = [machine.line() for _ in range(3)]
    suite.check(f"revocation, {name}: a trigger is made, a wrong one refused",
                seen[:2] == ["bad -1", "trigger 20"] and seen[2].startswith("filled"), str(seen))
    before = machine.resident()
    machine.update("64m", 20)
    seen = [machine.line() for _ in range(3)]
    suite.check(f"revocation, {name}: the program hears of it and gives its cache up",
                seen == ["poll 1", "events 1", "gave back 1"], str(seen))
    # The bare host hands over first what is free first, and that was never touched: the bound is the limit and QEMU.
    bound = before - 60 if name == "linux" else 64 + 64
    good = machine.wait_for(lambda: machine.resident() < bound)
    suite.check(f"revocation, {name}: the memory is this machine's again", good, f"{before} {machine.resident()} MiB")
    machine.process.stdin.write(b"\n")
    machine.process.stdin.flush()
    seen = machine.line()
    suite.check(f"revocation, {name}: the limit holds", seen == "refused 1", seen)
    machine.update("192m")
    time.sleep(2)
    machine.process.stdin.write(b"\n")
    status, out, err = machine.end()
    suite.check(f"revocation, {name}: what is given again can be used",
                status == 0 and out.startswith(b"again 1 ") and b"counted 1" in out, f"{status} {out} {err}")


def stubborn(suite, work, name, options):
    program = suite.compile_c(work, "revocation-stubborn", STUBBORN, "-w", "-static")
    machine = Machine([*options, "-m", "160m"], program, stdin=subprocess.DEVNULL)
    machine.line()
    before = machine.resident()
    machine.update("64m", 1)
    status, out, err = machine.end()
    suite.check(f"revocation, {name}: past the deadline the biggest ends, and the rest goes on",
                status == 0 and out == b"1 9\n" and b"out of memory: killed process 2" in err, f"{status} {out} {err} {before}")


def page_cache(suite, work, name, options):
    volume = os.path.join(work, "revocation-" + name.replace(", ", "-") + ".ext4")
    image = os.path.join(work, "revocation.img")
    machine = Machine(
        [*options, "-i", "-m", "160m", "-v", f"128m@{volume}:/data"], image, "-c",
        "dd if=/dev/zero of=/data/file bs=65536 count=1200 2>/dev/null; sync; cat /data/file | wc -c; read x; "
        "cat /data/file | wc -c", stdin=subprocess.PIPE)
    first = machine.line()
    before = machine.resident()
    machine.update("64m", 10)
    good = machine.wait_for(lambda: machine.resident() < before - 40)
    suite.check(f"revocation, {name}: the page cache is given up", good, f"{before} {machine.resident()} MiB")
    machine.process.stdin.write(b"\n")
    status, out, err = machine.end(60)
    suite.check(f"revocation, {name}: nobody ends for it, and the file is there",
                (first, status, out, err) == ("78643200", 0, b"78643200\n", b""), f"{first} {status} {out} {err}")


def server(suite, work, name, options):
    """nginx answers while its memory goes down to the last frame, and comes back."""
    image = os.path.join(work, "revocation-nginx.img")
    port = suite.run([os.path.join(HERE, "free-port")])[1].decode().strip()
    machine = Machine([*options, "-m", "192m", "-p", f"{port}:80"], image, stdin=subprocess.DEVNULL)
    fetch = ["curl", "-s", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{port}/index.html"]
    machine.wait_for(lambda: suite.run(fetch)[1] == b"200", 60)
    answers, stop = [], threading.Event()

    def load():
        while not stop.is_set():
            answers.append(suite.run(fetch)[1])

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    good = True
    try:
        for size in ("128m", "64m", "48m", "40m", "36m", "32m", "192m", "36m", "192m"):
            machine.update(size, 1)
            count = len(answers)
            good = machine.wait_for(lambda: len(answers) > count + 20) and good
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    wrong = [answer for answer in answers if answer != b"200"]
    suite.check(f"revocation, {name}: a server under load answers while its memory goes and comes", good and not wrong,
                f"{len(answers)} answers, wrong: {wrong[:20]}")
    # Less than it can live with: the unikernel ends loudly, it does not hang.
    machine.update("16m", 1)
    machine.wait_for(lambda: machine.process.poll() is not None, 15)
    if machine.process.poll() is None:
        alive = suite.run(fetch)[1]
        suite.check(f"revocation, {name}: at the least there is it lives on", alive == b"200", str(alive))
        machine.process.send_signal(signal.SIGTERM)
    status, out, err = machine.end()
    suite.check(f"revocation, {name}: its end is one", status is not None and b"panic" not in err, f"{status} {err}")


def monitor(suite, work):
    """QEMU's own command, as whoever runs virtual machines gives it."""
    program = suite.compile_c(work, "revocation-stubborn", STUBBORN, "-w", "-static")
    place = os.path.join(work, "qmp")
    directory = os.path.join(work, "wrapped")
    os.mkdir(directory)
    wrapper = os.path.join(directory, "qemu-system-x86_64")
    with open(wrapper, "w") as file:
        file.write(f"#!/bin/sh\nexec {shutil.which('qemu-system-x86_64')} \"$@\" -qmp unix:{place},server=on,wait=off\n")
    os.chmod(wrapper, 0o755)
    machine = subprocess.Popen(
        [SWIFTLET, "run", "--host=bare", "-m", "160m", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL, env={**os.environ, "PATH": directory + ":" + os.environ["PATH"]})
    machine.stdout.readline()
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(place)
        stream = control.makefile("rw")
        stream.readline()

        def ask(command, **arguments):
            stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            stream.flush()
            while True:
                answer = json.loads(stream.readline())
                if "return" in answer or "error" in answer:
                    return answer

        ask("qmp_capabilities")
        ask("balloon", value=64 << 20)
        out, err = machine.communicate(timeout=60)
    suite.check("revocation: QEMU's balloon command takes memory back, past the deadline by force",
                machine.returncode == 0 and out == b"1 9\n" and b"out of memory" in err, f"{machine.returncode} {out} {err}")


def refusals(suite):
    for arguments, text in ((["-m", "64m", str(os.getpid())], b"no running image"), (["-m", "1m", "1"], b"least is 16m"),
                            (["-m", "64m", "--grace=0", "1"], b"--grace")):
        done = suite.run([SWIFTLET, "update", *arguments])
        suite.check(f"revocation: swiftlet update {' '.join(arguments[:-1])} is refused", done[0] == 125 and text in done[2], str(done))


def tests(suite, work):
    refusals(suite)
    tools = [part for tool in ("cat", "dd", "sync", "wc") for part in ("--add", shutil.which(tool))]
    suite.build(work, "revocation", shutil.which("bash"), *tools)
    site = os.path.join(work, "revocation-site")
    os.mkdir(site)
    with open(os.path.join(site, "index.html"), "w") as file:
        file.write("<h1>hello</h1>\n")
    subprocess.run([os.path.join(HERE, "nginx-image"), os.path.join(work, "revocation-nginx.img"), site, "2"], check=True)
    for name, options in HOSTS.items():
        for function in (cache, stubborn, page_cache, server):
            if name != "bare, q35" or function is cache:
                function(suite, work, name, options)
    if "bare" in HOSTS:
        monitor(suite, work)
