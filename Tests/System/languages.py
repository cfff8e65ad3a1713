"""Part "languages" of the system tests: programs of the runtimes people write services in. Each does what such programs
do and prints what it finds, and is asked from the network as a server."""
import os
import shutil
import subprocess


HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
GUESTS = os.path.join(HERE, "guests")
JAVA = "/usr/lib/jvm/java-17-openjdk-amd64/bin/"

NODE = """threads 4000
http 1 GET e3b0c442
cluster worker 1, worker 2
ECONNRESET
died with 3
true
a b /
piped
SIGTERM
watched file 1000000
[ 'file' ]
1000000
87c5081b
echo
true true true true
true true true
signalled
"""
JVM = """[POST /a 10000
]
1600000
5999999
allocated 300
null
overflow
/ by zero
memory
1 5000
got line 5
made
true
true
later
hook
"""
GO = """map[POST 2cf24dba:200]
collected
1000
runtime error: invalid memory address or nil pointer dereference
child
exit status 3
user defined signal 1
true
<nil> dial tcp 127.0.0.1:1: connect: connection refused
"""
RUST = "1000\n8 8000\n2997000\ntrue\nthrough cat\nNotFound\n100000\ntrue\ntrue\n"


def skip(name, reason):
    print(f"skipped {name}: {reason}", flush=True)


def free_port():
    return subprocess.run([os.path.join(HERE, "free-port")], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def asked(suite, image, arguments, requests):
    """The answers of a server in `image` to curl's requests through passt, and its status after SIGTERM."""
    port = free_port()
    server = subprocess.Popen([suite.SWIFTLET, "run", "-m", "1g", "-p", f"127.0.0.1:{port}:8080", image, *arguments],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        answers = []
        for options, path in requests:
            answers.append(suite.run(["curl", "-s", "--retry", "30", "--retry-all-errors", "--retry-delay", "1", *options,
                                      f"http://127.0.0.1:{port}{path}"], seconds=60)[1])
        server.terminate()
        try:
            return answers, server.wait(20)
        except subprocess.TimeoutExpired:
            return answers, None
    finally:
        server.kill()
        server.wait()


def node(suite, work):
    if not shutil.which("node"):
        return skip("Node.js", "node is not installed")
    image = suite.build(work, "node", shutil.which("node"), "--add", f"{GUESTS}/node.mjs:/node.mjs", "--add", "/bin/sh", "--add",
                        "/bin/cat", "--add", "/bin/sleep")
    done = suite.run([suite.SWIFTLET, "run", "-m", "2g", image, "/node.mjs"], seconds=120)
    suite.check("Node.js: worker threads, cluster, HTTP, processes, files", done[:2] == (0, NODE.encode()), str(done))
    found = asked(suite, image, ["/node.mjs", "serve"], [([], "/"), (["-d", "x"], "/")])
    suite.check("Node.js: asked from the network", found[0] == [b"node GET\n", b"node POST\n"], str(found))


def java(suite, work):
    if not os.path.exists(JAVA + "javac"):
        return skip("OpenJDK", f"{JAVA}javac is not installed (openjdk-17-jdk-headless)")
    root = os.path.join(work, "java-root")
    subprocess.run([os.path.join(HERE, "debian-root"), root, "openjdk-17-jre-headless", "bash"], check=True)
    subprocess.run([JAVA + "javac", "-d", root, os.path.join(GUESTS, "Server.java")], check=True)
    image = os.path.join(work, "java.img")
    subprocess.run([suite.SWIFTLET, "build", "-o", image, "--root", root, "--", JAVA + "java", "-Xmx256m", "-cp", "/", "Server"],
                   check=True)
    done = suite.run([suite.SWIFTLET, "run", "-m", "2g", image], seconds=180)
    suite.check("OpenJDK: HTTP server and client, threads, collector, exceptions of the machine, processes",
                done[:2] == (7, JVM.encode()), str(done))
    found = asked(suite, image, ["-cp", "/", "Server", "serve"], [(["-d", "four"], "/path")])
    suite.check("OpenJDK: asked from the network", found == ([b"POST /path 4\n"], 143), str(found))


def go(suite, work):
    if not shutil.which("go"):
        return skip("Go", "go is not installed (golang-go)")
    program = os.path.join(work, "go-server")
    environment = dict(os.environ, CGO_ENABLED="0", GO111MODULE="off", GOCACHE=os.path.join(work, "go-cache"))
    subprocess.run(["go", "build", "-o", program, os.path.join(GUESTS, "server.go")], check=True, env=environment)
    image = suite.build(work, "go", program, "--add", "/bin/sh")
    for turn in range(3):
        done = suite.run([suite.SWIFTLET, "run", "-m", "1g", image], seconds=60)
        if done[:2] != (4, GO.encode()):
            break
    suite.check("Go, static: HTTP, preemption by signals, collector, nil pointer, three times", done[:2] == (4, GO.encode()), str(done))
    found = asked(suite, image, ["serve"], [(["-d", "hello"], "/")])
    suite.check("Go, static: asked from the network", found[0][0].startswith(b"POST 2cf24dba"), str(found))


def rust(suite, work):
    if not shutil.which("rustc"):
        return skip("Rust", "rustc is not installed")
    for kind, flags in (("static", ["-C", "target-feature=+crt-static"]), ("dynamic", [])):
        program = os.path.join(work, "rust-" + kind)
        subprocess.run(["rustc", "-O", *flags, "-o", program, os.path.join(GUESTS, "server.rs")], check=True)
        image = suite.build(work, "rust-" + kind, program, "--add", "/bin/cat")
        done = suite.run([suite.SWIFTLET, "run", "-m", "1g", image], seconds=60)
        suite.check(f"Rust, {kind}: sockets, threads, locks, channels, a panic, processes", done[:2] == (6, RUST.encode()), str(done))


def swift(suite, work):
    """Hummingbird and SwiftNIO with the Swift runtime linked in. Building them takes ten minutes: when it is asked for, or
    was done before."""
    scratch = os.path.join(ROOT, ".build-service")
    program = os.path.join(scratch, "release", "Service")
    if not os.path.exists(program) and not os.environ.get("SWIFT_SERVICE"):
        return skip("Swift service", "not built; SWIFT_SERVICE=1 builds Hummingbird (ten minutes)")
    command = ["swift", "build", "-c", "release", "--static-swift-stdlib", "--package-path", os.path.join(GUESTS, "service"),
               "--scratch-path", scratch, "--product", "Service"]
    built = suite.run(command, seconds=3000)
    if built[0] != 0:
        return skip("Swift service", "Hummingbird cannot be built here: " + built[1].decode()[-300:])
    image = suite.build(work, "service", program)
    body = os.path.join(work, "service-body")
    with open(body, "wb") as file:
        file.write(os.urandom(300000))
    with open(body, "rb") as file:
        sent = file.read()
    found = asked(suite, image, [], [([], "/"), (["--data-binary", "@" + body], "/echo"), ([], "/sum/100000"),
                                     (["-o", "/dev/null", "-w", "%{http_code}"], "/nothing")])
    suite.check("Swift: a Hummingbird service, linked statically", found == (
        [b"hello from hummingbird\n", sent, b'{"process":1,"total":4999950000}', b"404"], 0), str(found)[-500:])


def tests(suite, work):
    for one in (node, java, go, rust, swift):
        one(suite, work)
