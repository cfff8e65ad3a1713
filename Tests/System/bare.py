"""The bare host: the same images booted as virtual machines of QEMU (mostly without KVM, so everything is short)."""
import os
import shutil
import signal
import subprocess
import time

# Four children of a process with 64 MiB in a machine of 160 MiB: data pages cannot have been copied.
FORK = """#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>
static long left(void){struct sysinfo i;sysinfo(&i);return i.freeram*i.mem_unit>>10;}
int main(){char*p=malloc(64<<20);memset(p,1,64<<20);long before=left();int pids[4];for(int i=0;i<4;i++){pids[i]=fork();
if(!pids[i]){p[i<<20]=2;sleep(1);_exit(p[i<<20]);}}usleep(500000);long gone=before-left();int s,sum=0;
for(int i=0;i<4;i++){waitpid(pids[i],&s,0);sum+=WEXITSTATUS(s);}
printf("%d %d %s\\n",sum,p[0],gone<4096?"shared":"COPIED");if(gone>=4096)printf("%ld KiB\\n",gone);return 0;}"""

# A child takes memory until it is refused; the parent lives on.
HOG = """#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
int main(){pid_t p=fork();if(!p){for(;;){char*q=malloc(1<<20);if(!q)_exit(3);memset(q,1,1<<20);}}
int s;waitpid(p,&s,0);puts(WIFSIGNALED(s)||WEXITSTATUS(s)==3?"refused":"?");return 0;}"""

SCRIPTS = [
    ("pipeline", "echo c b a | tr ' ' '\\n' | sort | tr '\\n' ' '"),
    ("status and subshell", "(exit 5); echo $?; x=1; (x=2; echo $x); echo $x"),
    ("background and wait", "(sleep 0.1; echo late) & wait; echo done; false & wait $!; echo $?"),
    ("files", "mkdir /tmp/d; cd /tmp/d; echo x >a; ln -s a b; cat b; mv a c; ls; rm -f c; cat b 2>/dev/null; echo $?"),
    ("long pipe", "head -c 300000 /dev/zero | tail -c 100000 | wc -c"),
    ("killed child", "sleep 10 & kill -9 $!; wait $! ; echo $?"),
    ("trap", "trap 'echo trapped' USR1; kill -USR1 $$; echo after"),
]


def run_all(work, tools):
    """`tools` are the functions and programs of `run`."""
    programs(work, tools)
    shells(work, tools)
    memory(work, tools)
    wild_calls(work, tools)
    scheduling(work, tools)
    answers(work, tools)
    plain_boot(work, tools)
    named_devices(work, tools)
    panics(work, tools)
    nginx(work, tools)


def bare(tools, *arguments, **options):
    return tools.run([tools.swiftlet, "run", "--host=bare", *arguments], seconds=90, **options)


def programs(work, tools):
    for name, expected in (("hello", 7), ("wild", 0), ("forks", 0), ("threads", 0), ("signals", 0), ("registers", 0)):
        text = tools.programs[name]
        program = tools.compile_c(work, f"bare-{name}", text, "-pthread", "-DFORKS=300")
        native = (0, b"alive\n") if name == "wild" else tools.run([program], seconds=60)[:2]
        for options in (["--cpus=1"], ["--cpus=2"], ["--cpus=2", "--machine=q35"], ["--isolation=paging"],
                        ["--isolation=mpk", "--cpus=2"]):
            if name not in ("hello", "forks") and "--machine=q35" in options:
                continue
            ours = bare(tools, *options, program)
            good = ours[0] == expected and ours[:2] == native
            tools.check(f"bare, {name} {' '.join(options)}", good, f"{ours}\nnative {native}")
    program = tools.compile_c(work, "bare-abort", tools.programs["abort"])
    tools.check("bare: abort ends with 128 + SIGABRT", bare(tools, program)[0] == 134)


def shells(work, tools):
    names = ["tr", "sort", "cat", "sleep", "mkdir", "ln", "mv", "ls", "rm", "head", "tail", "wc"]
    adds = [part for name in names for part in ("--add", shutil.which(name))]
    image = tools.build(work, "bare-bash", shutil.which("bash"), *adds)
    for name, script in SCRIPTS:
        subprocess.run(["rm", "-rf", "/tmp/d"])
        theirs = tools.run(["bash", "-c", script])
        for mode in ("none", "mpk"):
            ours = bare(tools, "--isolation=" + mode, image, "-c", script)
            tools.check(f"bare, bash, {mode}: {name}", ours[:2] == theirs[:2], f"ours   {ours}\nnative {theirs}")
    ours = bare(tools, "-i", image, "-c", "read a; echo got $a; cat | wc -c", stdin=b"line\n" + b"x" * 100000)
    tools.check("bare, bash: standard input to its end", ours[:2] == (0, b"got line\n100000\n"), str(ours))
    ours = bare(tools, image, "-c", "echo out; echo err >&2; exit 200")
    tools.check("bare: outputs apart, status above 127", ours == (200, b"out\n", b"err\n"), str(ours))
    slow = subprocess.Popen(
        [tools.swiftlet, "run", "--host=bare", image, "-c", "head -c 8000000 /dev/zero"], stdout=subprocess.PIPE)
    time.sleep(2)
    count = len(slow.communicate()[0])
    tools.check("bare: output waits for a reader that is slow", (slow.returncode, count) == (0, 8000000), str(count))
    machine = subprocess.Popen(
        [tools.swiftlet, "run", "--host=bare", image, "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done"],
        stdout=subprocess.PIPE)
    machine.stdout.readline()
    machine.send_signal(signal.SIGTERM)
    try:
        status = machine.wait(20)
    except subprocess.TimeoutExpired:
        machine.kill()
        status = None
    tools.check("bare: SIGTERM reaches pid 1", status == 9, str(status))


def memory(work, tools):
    program = tools.compile_c(work, "bare-fork64", FORK, "-static")
    ours = bare(tools, "-m", "160M", program)
    tools.check("bare: fork of 64 MiB copies no data pages", ours[:2] == (0, b"8 1 shared\n"), str(ours))
    program = tools.compile_c(work, "bare-hog", HOG, "-static")
    ours = bare(tools, "-m", "64M", program)
    tools.check("bare: who takes all memory is refused", ours[:2] == (0, b"refused\n"), str(ours))


def wild_calls(work, tools):
    """Without isolation a program can make the libOS's own calls: ring 0 answers with errors, whatever they are."""
    with open(os.path.join(tools.here, "exokernel", "wild-calls.c")) as file:
        program = tools.compile_c(work, "exokernel-calls", file.read(), "-static")
    image = tools.build(work, "exokernel-calls", program)
    libOS = os.path.join(os.path.dirname(tools.swiftlet), "unikernel.elf")
    symbols = tools.run(["nm", libOS])[1].decode()
    address = next(line.split()[0] for line in symbols.splitlines() if line.endswith(" bare_call"))
    for seed in os.environ.get("FUZZ_SEEDS", "1 2 3").split():
        ours = bare(tools, "--isolation=none", image, address, seed)
        # The libOS may be ruined: then it ends with a message of its own.
        good = b"in ring 0" not in ours[2] and ours[0] is not None and (b"alive" in ours[1] or ours[0] != 0)
        tools.check(f"bare: wild calls of the exokernel are no fault of ring 0, seed {seed}", good, str(ours))


def scheduling(work, tools):
    with open(os.path.join(tools.here, "exokernel", "scheduling.c")) as file:
        program = tools.compile_c(work, "scheduling", file.read(), "-static")
    ours = bare(tools, "--cpus=1", program)
    lines = [line for line in ours[1].decode().splitlines() if not line.startswith("#")]
    tools.check(
        "bare: policies and nice values reach the scheduler",
        lines == ["alike share", "batch shares", "nice 10 gets less", "SCHED_IDLE gets what is left",
                  "SCHED_FIFO goes before", "SCHED_RR goes before"], str(ours))


def answers(work, tools):
    """With every processor of this machine busy, what runs in the guest is interrupted anywhere."""
    with open(os.path.join(tools.here, "c", "answers.c")) as file:
        program = tools.compile_c(work, "answers", file.read(), "-static")
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(os.cpu_count() or 1)]
    input_end, silent_end = os.pipe()
    try:
        done = subprocess.run(
            [tools.swiftlet, "run", "--host=bare", "--cpus=2", "-i", program, "30000"], stdin=input_end,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
        tools.check("bare: no answer is missed between the lock and the wait", done.returncode == 0, str(done))
    except subprocess.TimeoutExpired as late:
        tools.check("bare: no answer is missed between the lock and the wait", False, str(late))
    finally:
        for descriptor in (input_end, silent_end):
            os.close(descriptor)
        for process in busy:
            process.kill()
            process.wait()


def plain_boot(work, tools):
    """QEMU alone, as anybody would start it: the serial port is the console."""
    program = tools.compile_c(work, "bare-plain", tools.programs["hello"], "-static")
    image = tools.build(work, "bare-plain", program)
    for machine in ("microvm", "q35"):
        ours = tools.run(
            ["qemu-system-x86_64", "-M", machine, "-cpu", "max", "-m", "128", "-nodefaults", "-display", "none",
             "-no-reboot", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0x501", "-kernel", image], seconds=60)
        tools.check(f"bare: the file boots as -M {machine} -kernel FILE", ours[0] == 15 and b"hello 1" in ours[1], str(ours))
    native = tools.run([image])
    tools.check("bare: the same file is a Linux process", native[:2] == (7, b"hello 1\n"), str(native))


def named_devices(work, tools):
    """The kernel command line names the devices, as Firecracker and microvm without ACPI have it."""
    directory = os.path.join(work, "named")
    os.mkdir(directory)
    wrapper = os.path.join(directory, "qemu-system-x86_64")
    with open(wrapper, "w") as file:
        file.write("#!/usr/bin/env python3\nimport os, sys\nwords = [w.replace('auto-kernel-cmdline=off', "
                   "'auto-kernel-cmdline=on,acpi=off') for w in sys.argv]\n"
                   f"os.execv({shutil.which('qemu-system-x86_64')!r}, words)\n")
    os.chmod(wrapper, 0o755)
    volume = os.path.join(work, "named.ext4")
    done = tools.run(
        ["env", f"PATH={directory}:{os.environ['PATH']}", tools.swiftlet, "run", "--host=bare", "-v", f"8m@{volume}:/data",
         shutil.which("busybox"), "sh", "-c", "echo named > /data/file"], seconds=90)
    told = subprocess.run(["/usr/sbin/debugfs", "-R", "cat file", volume], capture_output=True).stdout
    tools.check("bare: devices that the command line names", done[0] == 0 and told == b"named\n", f"{done} {told}")
    image = os.path.join(work, "bare-plain.img")
    ours = tools.run(
        ["qemu-system-x86_64", "-M", "microvm,auto-kernel-cmdline=off", "-cpu", "max", "-m", "128", "-nodefaults",
         "-display", "none", "-no-reboot", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0x501", "-global",
         "virtio-mmio.force-legacy=false", "-chardev", "null,id=c", "-device", "virtio-serial-device", "-device",
         "virtconsole,chardev=c", "-append", "virtio_mmio.device=4K@0xfeb00000:5 x=y", "-kernel", image], seconds=60)
    tools.check("bare: no others than those", ours[0] == 15 and b"hello 1" in ours[1], str(ours))


PANIC = """#include <unistd.h>
#include <sys/syscall.h>
int main(){write(1,"x",1);syscall(999);return 0;}"""


def panics(work, tools):
    program = tools.compile_c(work, "bare-panic", PANIC)
    for options in ([], ["--isolation=paging"]):
        done = tools.run(["env", "SWIFTLET_TEST_PANIC=999", tools.swiftlet, "run", "--host=bare", *options, program], seconds=60)
        text = done[2].decode(errors="replace")
        tools.check(f"bare: a panic {' '.join(options)} ends with status 70 and a symbolised backtrace",
                    done[0] == 70 and "a check failed in the libOS" in text and "libos_" in text
                    and text.count("  #") > 2, f"{done[0]} {text}")


def nginx(work, tools):
    site = os.path.join(work, "bare-site")
    os.mkdir(site)
    with open(os.path.join(site, "index.html"), "w") as file:
        file.write("<h1>hello</h1>\n")
    with open(os.path.join(site, "3M"), "wb") as file:
        file.write(os.urandom(3 << 20))
    image = os.path.join(work, "bare-nginx.img")
    subprocess.run([os.path.join(tools.here, "nginx-image"), image, site, "2"], check=True)
    for options in (["--cpus=2"], ["--machine=q35", "--cpus=1"], ["--isolation=mpk", "--cpus=2"]):
        port = tools.run([os.path.join(tools.here, "free-port")])[1].decode().strip()
        server = subprocess.Popen(
            [tools.swiftlet, "run", "--host=bare", *options, "-p", f"{port}:80", image], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            answer = b""
            while not answer and time.monotonic() < deadline:
                answer = tools.run(["curl", "-sf", "--max-time", "2", f"http://127.0.0.1:{port}/index.html"])[1]
            tools.check(f"bare, nginx {' '.join(options)}: answers", answer == b"<h1>hello</h1>\n", str(answer))
            out = os.path.join(work, "answer")
            tools.run(["curl", "-sf", "--max-time", "60", "-o", out, f"http://127.0.0.1:{port}/3M"], seconds=70)
            equal = subprocess.run(["cmp", "-s", out, os.path.join(site, "3M")]).returncode == 0
            tools.check(f"bare, nginx {' '.join(options)}: 3 MiB byte-exact", equal)
            server.send_signal(signal.SIGTERM)
            try:
                status = server.wait(20)
            except subprocess.TimeoutExpired:
                status = None
            tools.check(f"bare, nginx {' '.join(options)}: SIGTERM ends it with status 0", status == 0, str(status))
        finally:
            server.kill()
            server.wait()
