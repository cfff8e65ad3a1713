"""The network for real: one end the unikernel's TCP/IP, the other end Linux's, over a tap in a network namespace."""
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import hosts
import nginx_control

HERE = os.path.dirname(os.path.abspath(__file__))
LINUX, OURS = "10.0.2.2", "10.0.2.15"

NGINX = """user root; worker_processes 1; daemon off; error_log stderr notice; pid {work}/linux-nginx.pid;
events {{ worker_connections 256; }}
http {{ access_log off; client_body_temp_path {work}/t1; proxy_temp_path {work}/t2; fastcgi_temp_path {work}/t3;
uwsgi_temp_path {work}/t4; scgi_temp_path {work}/t5; client_max_body_size 0;
server {{ listen {listen}:80; listen {listen}:443 ssl; ssl_certificate {work}/cert.pem;
ssl_certificate_key {work}/key.pem; root {site}; location /put/ {{ dav_methods PUT; root {work}; }} }} }}
"""

# An echo server: TCP port 7 echoes each connection in turn, UDP port 7 each datagram; TCP port 8 takes a byte and
# closes with unread data; TCP port 9 counts.
SERVER = r"""#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <unistd.h>
#include <signal.h>
#include <sys/socket.h>
static int tcp(int port){int s=socket(AF_INET,SOCK_STREAM,0),one=1;struct sockaddr_in a={.sin_family=AF_INET,
.sin_port=htons(port)};setsockopt(s,SOL_SOCKET,SO_REUSEADDR,&one,4);
if(bind(s,(void*)&a,sizeof a)||listen(s,64)){perror("listen");exit(1);}return s;}
static char buffer[1<<17];
int main(void){setvbuf(stdout,0,_IOLBF,0);signal(SIGCHLD,SIG_IGN);
int echo=tcp(7),closer=tcp(8),u=socket(AF_INET,SOCK_DGRAM,0);struct sockaddr_in a={.sin_family=AF_INET,
.sin_port=htons(7)};if(bind(u,(void*)&a,sizeof a)){perror("bind");return 1;}
puts("ready");
if(!fork())for(;;){socklen_t l=sizeof a;ssize_t n=recvfrom(u,buffer,sizeof buffer,0,(void*)&a,&l);
if(n>=0)sendto(u,buffer,n,0,(void*)&a,l);}
if(!fork())for(;;){int c=accept(closer,0,0);usleep(100000);read(c,buffer,1);close(c);}
for(;;){int c=accept(echo,0,0);if(c<0)continue;if(fork()){close(c);continue;}ssize_t n;
while((n=read(c,buffer,sizeof buffer))>0)for(ssize_t d=0;d<n;){ssize_t w=write(c,buffer+d,n-d);if(w<=0)_exit(1);d+=w;}
_exit(0);}}"""


class Namespace:
    """A network namespace with a tap that has Linux's address, and the processes started in it."""

    def __init__(self, suite, mtu=1500, tap="tap0"):
        self.name = f"swiftlet-{os.getpid()}-{tap}"
        self.suite, self.tap, self.children = suite, tap, []
        self.command("ip", "netns", "add", self.name)
        self.command("ip", "-n", self.name, "link", "set", "lo", "up")
        self.inside("ip", "tuntap", "add", tap, "mode", "tap")
        self.inside("ip", "link", "set", tap, "mtu", str(mtu))

    def address(self):
        self.inside("ip", "addr", "add", LINUX + "/24", "dev", self.tap)
        self.inside("ip", "link", "set", self.tap, "up")
        return self

    def command(self, *words):
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

    def prefix(self, words):
        return ["ip", "netns", "exec", self.name, *words]

    def inside(self, *words):
        self.command(*self.prefix(words))

    def start(self, words, log=None, **options):
        output = open(log, "wb") if log else subprocess.DEVNULL
        child = subprocess.Popen(
            self.prefix(words), stdout=output, stderr=output, stdin=subprocess.DEVNULL, **options)
        self.children.append(child)
        return child

    def run(self, words, stdin=None, seconds=60):
        return self.suite.run(self.prefix(words), stdin, seconds)

    def swiftlet(self, *words, net=None):
        return [*hosts.command(), "--net", net or f"tap:{self.tap}", *words]

    def stop(self, child):
        child.send_signal(signal.SIGTERM)
        try:
            return child.wait(hosts.seconds(10))
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()

    def connect(self, port, kind=socket.SOCK_STREAM, address=OURS):
        """A socket of the namespace: sockets stay in the namespace that their thread was in when it made them."""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        own, other = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            if libc.setns(other, 0x40000000):
                raise OSError(ctypes.get_errno(), "setns")
            made = socket.socket(socket.AF_INET, kind)
        finally:
            libc.setns(own, 0x40000000)
            os.close(own)
            os.close(other)
        made.settimeout(hosts.seconds(30))
        made.connect((address, port))
        return made

    def wait_for(self, port, address=OURS):
        for _ in range(hosts.seconds(100)):
            try:
                self.connect(port, address=address).close()
                return
            except OSError:
                time.sleep(0.1)

    def close(self):
        for child in self.children:
            if child.poll() is None:
                self.stop(child)
        subprocess.run(["ip", "netns", "del", self.name], check=False)


def echoed(connection, data):
    """What comes back of `data`, sent and received at once."""
    def send():
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    sender = threading.Thread(target=send)
    sender.start()
    answer = bytearray()
    try:
        while True:
            piece = connection.recv(1 << 20)
            if not piece:
                break
            answer += piece
    except OSError as error:
        answer += str(error).encode()
    sender.join()
    connection.close()
    return answer == data


def prepare(work):
    """A directory for uploads and a certificate."""
    os.makedirs(os.path.join(work, "put"), exist_ok=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=swiftlet", "-keyout",
         f"{work}/key.pem", "-out", f"{work}/cert.pem"], check=True, stderr=subprocess.DEVNULL)


def linux_nginx(place, work, site, listen=LINUX):
    path = os.path.join(work, f"linux-nginx-{listen}.conf")
    with open(path, "w") as file:
        file.write(NGINX.format(work=work, site=site, listen=listen))
    child = place.start(["nginx", "-c", path], os.path.join(work, "linux-nginx.log"))
    for _ in range(50):
        if place.run(["curl", "-sf", f"http://{listen}/index.html"])[0] == 0:
            break
        time.sleep(0.1)
    return child


def same_file(a, b):
    return subprocess.run(["cmp", "-s", a, b]).returncode == 0


def linux_fetches(suite, place, work, site):
    image = suite.nginx_image(work, site)
    wrong = "02:00:00:00:00:99"
    place.inside("ip", "neigh", "replace", OURS, "lladdr", wrong, "dev", "tap0", "nud", "stale")
    server = place.start(place.swiftlet("-m", "512M", image), os.path.join(work, "tap-nginx.log"))
    heard = any(time.sleep(0.1) or wrong not in place.run(["ip", "neigh"])[1].decode() for _ in range(hosts.seconds(100)))
    suite.check("tap: Linux hears at start who has the address now", heard)
    place.wait_for(80)
    for name in ("index.html", "1M", "big"):
        done = place.run(["curl", "-sf", "-o", out := os.path.join(work, "answer"), f"http://{OURS}/{name}"])
        suite.check(f"tap: Linux's curl fetches {name} byte-exact", done[0] == 0 and same_file(out, f"{site}/{name}"),
                    str(done))
    urls = [f"http://{OURS}/index.html"] * 500
    suite.check("tap: 500 requests on one connection", place.run(["curl", "-sf", *urls])[1] == b"<h1>hello</h1>\n" * 500)
    ping = place.run(["ping", "-c", "3", "-i", "0.2", "-W", "2", OURS])
    suite.check("tap: Linux pings the unikernel", ping[0] == 0, str(ping))
    ping = place.run(["ping", "-c", "2", "-i", "0.2", "-W", "2", "-s", "5000", OURS])
    suite.check("tap: a ping of 5000 bytes is cut and put together both ways", ping[0] == 0, str(ping))
    place.inside("ip", "neigh", "flush", "all")
    suite.check("tap: found again after Linux forgot the neighbour",
                place.run(["curl", "-sf", f"http://{OURS}/index.html"])[0] == 0)
    suite.check("tap: a closed port refuses", place.run(["curl", "-s", f"http://{OURS}:81/"])[0] == 7)
    suite.check("tap: SIGTERM ends nginx with status 0", place.stop(server) == 0)


def unikernel_fetches(suite, place, work, site):
    linux_nginx(place, work, site)
    image = suite.build(work, "tap-curl", shutil.which("curl"), "--add", shutil.which("openssl"))
    for name in ("index.html", "1M", "big"):
        done = place.run(place.swiftlet(image, "-s", f"http://{LINUX}/{name}"))
        with open(f"{site}/{name}", "rb") as file:
            suite.check(f"tap: the unikernel's curl fetches {name} byte-exact", done[:2] == (0, file.read()),
                        f"{done[0]} {len(done[1])} {done[2]}")
    done = place.run(place.swiftlet(image, "-sk", f"https://{LINUX}/1M"))
    with open(f"{site}/1M", "rb") as file:
        suite.check("tap: the unikernel's curl fetches over TLS", done[:2] == (0, file.read()), str(done[::2]))
    with open(f"{site}/big", "rb") as file:
        data = file.read()
    done = place.run(place.swiftlet("-i", "-m", "512M", image, "-sf", "-T", "-", f"http://{LINUX}/put/up"), data)
    suite.check("tap: the unikernel's curl sends a big file byte-exact",
                done[0] == 0 and same_file(f"{work}/put/up", f"{site}/big"), str(done))
    done = place.run(place.swiftlet(image, "-s", f"http://{LINUX}:81/"))
    suite.check("tap: Linux's closed port refuses", done[0] == 7, str(done))
    done = place.run(place.swiftlet(image, "-s", "--connect-timeout", "8", "http://10.0.2.99/"))
    suite.check("tap: an address that nobody has is unreachable", done[0] == 7, str(done))
    openssl = suite.build(work, "tap-openssl", shutil.which("openssl"), "--add", f"{work}/cert.pem:/cert.pem", "--add",
                          f"{work}/key.pem:/key.pem")
    request = b"GET /index.html HTTP/1.0\r\n\r\n"
    done = place.run(place.swiftlet("-i", openssl, "s_client", "-quiet", "-connect", f"{LINUX}:443"), request)
    suite.check("tap: the unikernel's openssl s_client speaks with Linux", b"<h1>hello</h1>" in done[1], str(done))
    server = place.start(place.swiftlet(
        openssl, "s_server", "-accept", "443", "-cert", "/cert.pem", "-key", "/key.pem", "-www"), f"{work}/s_server.log")
    place.wait_for(443)
    done = place.run(["curl", "-sk", f"https://{OURS}/"])
    suite.check("tap: Linux's curl speaks with the unikernel's openssl s_server", b"Cipher" in done[1], str(done))
    place.stop(server)


def sockets(suite, place, work, program, name):
    server = place.start(place.swiftlet("-m", "128M", program), f"{work}/echo.log")
    place.wait_for(7)
    data = os.urandom(1 << 20) * hosts.share(100)
    start = time.monotonic()
    good = echoed(place.connect(7), data)
    suite.check(f"{name}: {len(data) >> 20} MB there and back byte-exact", good)
    print(f"        {2 * (len(data) >> 20) / (time.monotonic() - start):.0f} MB/s")
    failures = [None] * 16

    def one(index):
        failures[index] = not echoed(place.connect(7), data[index * 4096:index * 4096 + (1 << 20) + index])

    threads = [threading.Thread(target=one, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    suite.check(f"{name}: 16 connections at once, 1 MB each, byte-exact", not any(failures))
    datagrams = place.connect(7, socket.SOCK_DGRAM)
    good = True
    for size in (0, 1, 1472, 1473, 9000, 60000):
        datagrams.send(data[:size])
        good = good and datagrams.recv(1 << 16) == data[:size]
    suite.check(f"{name}: UDP of 0 to 60000 bytes, cut where it must be", good)
    datagrams.close()
    reset = place.connect(8)
    reset.sendall(b"more than is read")
    try:
        reset.recv(1)
        suite.check(f"{name}: closing with unread data resets", False)
    except ConnectionResetError:
        suite.check(f"{name}: closing with unread data resets", True)
    aborted = place.connect(7)
    aborted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    aborted.sendall(b"x" * 100000)
    aborted.close()
    suite.check(f"{name}: serves on after Linux resets a connection", echoed(place.connect(7), data[:100000]))
    place.stop(server)


def through_passt(suite, place, work, site):
    linux_nginx(place, work, site, "127.0.0.1")
    image = suite.build(work, "user-curl", shutil.which("curl"))
    done = place.run(place.swiftlet("-m", "512M", image, "-s", f"http://{LINUX}/big", net="user"))
    with open(f"{site}/big", "rb") as file:
        suite.check("user: the unikernel's curl fetches a big file from this machine's loopback byte-exact",
                    done[:2] == (0, file.read()), f"{done[0]} {len(done[1])} {done[2]}")


def passt_dies(suite, place, work, program):
    log = f"{work}/passt-dies.log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = place.start([*hosts.command(), "-p", f"{port}:7", program], log)
    for _ in range(100):
        if place.run(["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"])[0] == 0:
            break
        time.sleep(0.1)
    passt = subprocess.run(["pgrep", "-f", f"passt.*{port}:7"], stdout=subprocess.PIPE).stdout.split()
    for pid in passt:
        os.kill(int(pid), signal.SIGKILL)
    time.sleep(1)

    def ticks():
        total = 0
        children = open(f"/proc/{server.pid}/task/{server.pid}/children").read().split()
        for pid in [server.pid, *map(int, children)]:
            fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total

    before = ticks()
    time.sleep(1)
    spent = ticks() - before
    with open(log, "rb") as file:
        text = file.read()
    # QEMU does not tell a virtual machine that the other end of its network has gone.
    said = 0 if hosts.is_bare() else 1
    suite.check("user: when passt dies the unikernel says so once and does not spin",
                bool(passt) and spent < 20 and text.count(b"passt has ended") == said, f"{spent} ticks, {text}, {passt}")
    place.stop(server)


def errors(suite, place, work, program):
    def refused(name, words, text, **options):
        done = subprocess.run(place.prefix(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20, **options)
        suite.check(name, done.returncode not in (0, None) and text in done.stderr and done.stderr.count(b"\n") == 1,
                    str(done))

    refused("a tap that is not there is refused", place.swiftlet(program, net="tap:none0"), b"no tap device none0")
    refused("an interface that is no tap is refused", place.swiftlet(program, net="tap:lo"), b"lo")
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]
    public = os.path.join(work, "public")
    os.makedirs(public)
    for name in ("swiftlet", "unikernel.elf"):
        shutil.copy(os.path.join(os.path.dirname(hosts.SWIFTLET), name), public)
    shutil.copy(program, f"{public}/program")
    refused("a tap without permission is refused",
            [*nobody, f"{public}/swiftlet", "run", "--net", f"tap:{place.tap}", f"{public}/program"], b"no permission")
    refused("a missing passt is told", ["env", "PATH=/nonexistent", hosts.SWIFTLET, "run", "--net", "user", program], b"passt")
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    done = suite.run([*hosts.command(), "-p", f"127.0.0.1:{port}:80", program])
    suite.check("a port in use is told", done[0] not in (0, None) and f"port {port} is already in use".encode() in done[2]
                and done[2].count(b"\n") == 1, str(done))
    taken.close()
    refused("a gateway outside the network is refused",
            place.swiftlet("--address", "10.9.0.2/24", "--gateway", "10.8.0.1", program), b"not in the network")


def impaired(suite, work, program):
    """Loss, delay, reordering and duplication between the two stacks."""
    for seed, segments in ((1, True), (2, False)):
        ours = Namespace(suite, tap="ours")
        theirs = Namespace(suite, tap="theirs")
        try:
            ours.inside("ip", "link", "set", "ours", "up")
            relay = ours.start([os.path.join(HERE, "impaired-link"), ours.name, theirs.name, "--seed", str(seed),
                                *(["--segments"] if segments else [])], f"{work}/relay.log")
            time.sleep(0.5)
            theirs.address()
            kind = "whole bursts" if segments else "single packets"
            server = ours.start(ours.swiftlet("-m", "128M", program), f"{work}/echo.log")
            theirs.wait_for(7)
            data = os.urandom(1 << 20) * max(2, hosts.share(8))
            good = echoed(theirs.connect(7), data)
            ours.stop(relay)
            with open(f"{work}/relay.log") as file:
                report = file.read()
            suite.check(f"{len(data) >> 20} MB there and back byte-exact through loss, delay, reordering, duplication ({kind})", good,
                        report)
            print("        " + report.strip())
            ours.stop(server)
        finally:
            ours.close()
            theirs.close()


def tests(suite, work):
    """`suite` has check, run, build and compile_c."""
    if os.geteuid() != 0:
        print("skipped  network: needs root for namespaces and taps")
        return
    prepare(work)
    site = suite.make_site(work)
    program = suite.compile_c(work, "echo-server", SERVER, "-static")
    place = Namespace(suite).address()
    try:
        linux_fetches(suite, place, work, site)
        nginx_control.tests(suite, place, work, site)
        unikernel_fetches(suite, place, work, site)
        sockets(suite, place, work, program, "tap")
        through_passt(suite, place, work, site)
        passt_dies(suite, place, work, program)
        errors(suite, place, work, program)
    finally:
        place.close()
    for mtu in (576, 9000):
        place = Namespace(suite, mtu=mtu).address()
        try:
            sockets(suite, place, work, program, f"MTU {mtu}")
        finally:
            place.close()
    impaired(suite, work, program)
