"""IPv6, DHCP and what asks about interfaces: over loopback, over a tap with Linux at the other end, through passt."""
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import hosts
import network

# Waits for an address of IPv6, says it, and answers every request with the address of its sender.
SERVER = r"""#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
static void tell(void){for(int n=0;n<30;n++){struct ifaddrs*l,*i;getifaddrs(&l);
for(i=l;i;i=i->ifa_next){char t[64];struct sockaddr_in6*a=(void*)i->ifa_addr;
if(!a||(i->ifa_flags&IFF_LOOPBACK)||a->sin6_family!=AF_INET6)continue;
printf("address %s\n",inet_ntop(AF_INET6,&a->sin6_addr,t,sizeof t));}freeifaddrs(l);usleep(500000);}}
int main(void){setvbuf(stdout,0,_IOLBF,0);signal(SIGCHLD,SIG_IGN);static char b[65536];
int s=socket(AF_INET6,SOCK_STREAM,0),u=socket(AF_INET6,SOCK_DGRAM,0);
struct sockaddr_in6 a={.sin6_family=AF_INET6,.sin6_port=htons(80)};
if(bind(s,(void*)&a,sizeof a)||listen(s,64)||bind(u,(void*)&a,sizeof a)){perror("listen");return 1;}
if(!fork())for(;;){socklen_t l=sizeof a;ssize_t n=recvfrom(u,b,sizeof b,0,(void*)&a,&l);
if(n>=0)sendto(u,b,n,0,(void*)&a,l);}
if(!fork()){tell();return 0;}
for(;;){socklen_t l=sizeof a;int c=accept(s,(void*)&a,&l);if(c<0)continue;char t[64],o[200];read(c,b,sizeof b);
inet_ntop(AF_INET6,&a.sin6_addr,t,sizeof t);
write(c,o,snprintf(o,sizeof o,"HTTP/1.0 200 OK\r\nContent-Length: %zu\r\n\r\n%s\n",strlen(t)+1,t));close(c);}}"""

# Answers router solicitations on the interface it is given.
ROUTER = """import socket, struct, sys
index = socket.if_nametoindex(sys.argv[1])
link = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)
link.setsockopt(41, 18, 255)
link.setsockopt(41, 17, index)
link.setsockopt(41, 20, socket.inet_pton(10, "ff02::2") + struct.pack("i", index))
answer = bytes([134, 0, 0, 0, 64, 0]) + struct.pack(">HII", 1800, 0, 0)
answer += bytes([3, 4, 64, 0xc0]) + struct.pack(">III", 86400, 14400, 0) + socket.inet_pton(10, "fd00:53::")
answer += bytes([25, 3, 0, 0]) + struct.pack(">I", 3600) + socket.inet_pton(10, "fd00:53::1")
while True:
    if link.recv(2000)[0] == 133:
        link.sendto(answer, ("ff02::1", 0, 0, index))
"""

LEASES = """start 10.0.2.50
end 10.0.2.60
interface {tap}
lease_file {work}/leases
pidfile {work}/udhcpd.pid
option subnet 255.255.255.0
option router 10.0.2.2
option dns 10.0.2.2 9.9.9.9
option lease 600
"""


def addresses(log, pattern, seconds=20):
    """The first address in a server's log that matches, None if none appears."""
    end = time.monotonic() + hosts.seconds(seconds)
    while time.monotonic() < end:
        with open(log) as file:
            found = re.findall(r"^address (" + pattern + ")$", file.read(), re.M)
        if found:
            return found[0]
        time.sleep(0.2)
    return None


def loopback(suite, work):
    def inside(program, *arguments, **options):
        return suite.run([*hosts.command(), "-m", "256M", program, *arguments], **options)

    done = inside(shutil.which("ip"), "-br", "addr")
    words = b" ".join(done[1].split())
    suite.check("ip addr tells of lo with both families", words == b"lo UNKNOWN 127.0.0.1/8 ::1/128", str(done))
    ping = shutil.which("ping")
    for target in ("127.0.0.1", "::1") if ping else ():
        done = inside(ping, "-c", "3", "-i", "0.2", target)
        suite.check(f"ping {target} inside", done[0] == 0 and b"3 received" in done[1], str(done))
    redis = shutil.which("redis-server")
    if redis:
        child = subprocess.Popen([*hosts.command(), "-m", "256M", redis], stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT)
        time.sleep(hosts.seconds(4))
        child.send_signal(signal.SIGTERM)
        text = child.communicate(timeout=hosts.seconds(20))[0]
        suite.check("redis-server listens on :: too", b"Ready to accept" in text and b"errno" not in text, str(text))


def over_tap(suite, place, work, program):
    router = f"{work}/router.py"
    with open(router, "w") as file:
        file.write(ROUTER)
    log = f"{work}/ipv6-server.log"
    place.start(["python3", router, place.tap])
    server = place.start(place.swiftlet("-m", "128M", program), log)
    ours = addresses(log, "fd00:53::.*")
    link = addresses(log, "fe80::.*")
    suite.check("IPv6: a router's prefix becomes an address", ours is not None and link is not None, open(log).read())
    if ours is None or link is None:
        return
    for name, url, expected in (("the global address", f"http://[{ours}]/", "fd00:53::1"),
                                ("the link-local address", f"http://[{link}%25{place.tap}]/", "fe80::"),
                                ("IPv4 on the same listener", f"http://{network.OURS}/", "::ffff:10.0.2.2")):
        done = place.run(["curl", "-s", "-m", "10", "-g", url])
        suite.check(f"IPv6: curl reaches {name}", done[0] == 0 and done[1].decode().startswith(expected), str(done))
    done = place.run(["ping", "-6", "-c", "3", "-i", "0.2", ours])
    suite.check("IPv6: Linux pings the unikernel", done[0] == 0, str(done))
    done = place.run(["ping", "-6", "-c", "2", "-i", "0.2", "-s", "5000", ours])
    suite.check("IPv6: a ping of 5000 bytes is cut and put together both ways", done[0] == 0, str(done))
    done = place.run(["curl", "-s", "-m", "10", "-g", f"http://[{ours}]:81/"])
    suite.check("IPv6: a closed port refuses", done[0] == 7, str(done))
    script = f"""import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect(("{ours}", 80))
for size in (0, 1, 1452, 1453, 9000, 60000):
    s.send(b"x" * size)
    assert len(s.recv(65536)) == size, size
"""
    done = place.run(["python3", "-c", script])
    suite.check("IPv6: UDP of 0 to 60000 bytes, cut where it must be", done[0] == 0, str(done))
    place.inside("ip", "-6", "neigh", "flush", "all")
    done = place.run(["curl", "-s", "-m", "10", "-g", f"http://[{ours}]/"])
    suite.check("IPv6: found again after Linux forgot the neighbour", done[0] == 0, str(done))
    place.stop(server)


def transfers(suite, place, work):
    """Large transfers both ways, with segmentation left to the tap."""
    site = suite.make_site(work)
    path = f"{work}/ipv6-nginx.conf"
    with open(path, "w") as file:
        file.write(f"user root; daemon off; worker_processes 1; error_log {work}/ipv6-error.log; pid {work}/ipv6.pid;\n"
                   f"events {{}} http {{ access_log off; server {{ listen [::]:8080; root {site}; }} }}\n")
    place.start(["nginx", "-c", path])
    # The tap has a carrier, and Linux's link-local address its end of the check, while a unikernel runs.
    image = suite.build(work, "ipv6-curl", shutil.which("curl"))
    done = place.run(place.swiftlet("-m", "512M", image, "-s", "-g", "--retry", "9", "--retry-all-errors",
                                    "http://[fd00:53::1]:8080/big"), seconds=120)
    with open(f"{site}/big", "rb") as file:
        suite.check("IPv6: the unikernel's curl fetches a big file byte-exact", done[:2] == (0, file.read()),
                    f"{done[0]} {len(done[1])} {done[2]}")


def leases(suite, place, work):
    if not shutil.which("busybox"):
        return print("skipped  DHCP: no busybox")
    path = f"{work}/udhcpd.conf"
    with open(path, "w") as file:
        file.write(LEASES.format(tap=place.tap, work=work))
    open(f"{work}/leases", "w").close()
    server = place.start(["busybox", "udhcpd", "-f", path], f"{work}/udhcpd.log")
    time.sleep(0.5)
    dhcp = ["--address", "dhcp"]
    done = place.run(place.swiftlet(*dhcp, shutil.which("ip"), "-4", "route"))
    suite.check("DHCP: an address and a router over the tap", b"default via 10.0.2.2 dev eth0" in done[1]
                and re.search(rb"src 10\.0\.2\.(5\d|60)", done[1]) is not None, str(done))
    image = suite.build(work, "dhcp-cat", shutil.which("cat"))
    done = place.run(place.swiftlet(*dhcp, image, "/etc/resolv.conf"))
    suite.check("DHCP: name servers go to /etc/resolv.conf",
                done[1].startswith(b"nameserver 10.0.2.2\nnameserver 9.9.9.9\n"), str(done))
    place.stop(server)
    done = place.run(place.swiftlet(*dhcp, shutil.which("ip"), "-br", "link"))
    suite.check("DHCP: without a server the program begins all the same, after a message",
                done[0] == 0 and b"no DHCP server" in done[2], str(done))
    done = place.run(place.swiftlet(*dhcp, shutil.which("ip"), "-4", "-br", "addr", net="user"))
    suite.check("DHCP: passt answers", b"10.0.2.15/24" in done[1], str(done))


def through_passt(suite, work, program):
    route = subprocess.run(["ip", "-6", "route", "show", "default"], stdout=subprocess.PIPE).stdout
    if not route.strip():
        return print("skipped  IPv6 through passt: this machine has no IPv6 route")
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.close()
    log = f"{work}/ipv6-passt.log"
    with open(log, "wb") as output:
        server = subprocess.Popen([*hosts.command(), "-p", f"{port}:80", program], stdout=output, stderr=output)
    try:
        ours = addresses(log, "(?!fe80).*")
        suite.check("IPv6: passt's advertisement becomes an address", ours is not None, open(log).read())
        for url in (f"http://[::1]:{port}/", f"http://127.0.0.1:{port}/"):
            done = suite.run(["curl", "-s", "-m", "10", "-g", url])
            suite.check(f"IPv6: curl from the host to {url.rsplit(':', 1)[0]}", done[0] == 0, str(done))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(hosts.seconds(10))


def on_a_silent_link(suite, place, work):
    """Nothing comes from outside that would start anything."""
    place.inside("sysctl", "-qw", f"net.ipv6.conf.{place.tap}.disable_ipv6=1")
    image = suite.build(work, "silent", shutil.which("bash"), *[
        part for tool in ("ip", "sleep") for part in ("--add", shutil.which(tool))])
    script = "for i in {1..100}; do sleep 0.1; a=$(ip -6 -o addr show dev eth0); [[ $a == *tentative* ]] || break; done; echo $a"
    done = place.run(place.swiftlet(image, "-c", script))
    suite.check("IPv6: an address is taken on a silent link", b"inet6 fe80" in done[1] and b"tentative" not in done[1], str(done))


def tests(suite, work):
    """`suite` has check, run, build and compile_c."""
    loopback(suite, work)
    program = suite.compile_c(work, "ipv6-server", SERVER, "-static")
    through_passt(suite, work, program)
    if os.geteuid() != 0:
        return print("skipped  IPv6 over a tap: needs root for namespaces and taps")
    place = network.Namespace(suite, tap="tap6").address()
    try:
        place.inside("ip", "-6", "addr", "add", "fd00:53::1/64", "dev", place.tap, "nodad")
        over_tap(suite, place, work, program)
        transfers(suite, place, work)
        leases(suite, place, work)
        on_a_silent_link(suite, place, work)
    finally:
        place.close()
