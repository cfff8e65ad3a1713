"""Unikernels that serve each other, and logins from outside: two taps on one bridge, Linux on it too."""
import os
import re
import subprocess
import time

import hosts
import network
import terminals

HERE = os.path.dirname(os.path.abspath(__file__))
FIRST, SECOND = network.OURS, "10.0.2.16"
PACKAGES = """bash coreutils grep procps nginx-light redis-server redis-tools openssh-server
util-linux postgresql-15 postgresql-client-15""".split()

NGINX = """worker_processes 2; daemon off; user root; error_log stderr; pid /run/nginx.pid;
events {{ worker_connections 256; }}
http {{ access_log off; client_max_body_size 0; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; keepalive_timeout 600;
{server} }}
"""
# The one in front asks the one behind over a few connections that it keeps.
FRONT = NGINX.format(server="upstream behind {{ server {}; keepalive 4; }} server {{ listen 80; location / {{ "
                     "proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ''; "
                     "proxy_connect_timeout 3s; proxy_read_timeout 3s; }} }}".format(SECOND))
BEHIND = NGINX.format(server="server { listen 80; root /site; location /put/ { dav_methods PUT; create_full_put_path on; "
                      "root /tmp; } }")


class Bridge(network.Namespace):
    """A namespace with two taps on a bridge that has Linux's address: FIRST is on tap0, SECOND on tap1."""

    def __init__(self, suite):
        super().__init__(suite)
        for words in ("tuntap add tap1 mode tap", "link add br0 type bridge", "link set tap0 master br0",
                      "link set tap1 master br0", f"addr add {network.LINUX}/24 dev br0", "link set tap0 up",
                      "link set tap1 up", "link set br0 up"):
            self.inside("ip", *words.split())

    def launch(self, address, image, script, log, port, *options):
        """A unikernel at `address` that runs the shell script, once it answers at the port."""
        tap = {FIRST: "tap0", SECOND: "tap1"}[address]
        words = self.swiftlet("-m", "512M", "--address", address + "/24", *options, image, "-c", script, net="tap:" + tap)
        child = self.start(words, log)
        self.wait_for(port, address)
        return child


def make_image(suite, work, site):
    """One image for all, with what the servers are told, and its root directory."""
    root = os.path.join(work, "pairs-root")
    subprocess.run([os.path.join(HERE, "debian-root"), root, *PACKAGES], check=True)
    os.mkdir(f"{root}/site")
    for name in ("index.html", "1M"):
        os.link(f"{site}/{name}", f"{root}/site/{name}")
    for name, text in (("front", FRONT), ("behind", BEHIND)):
        with open(f"{root}/etc/{name}.conf", "w") as file:
            file.write(text)
    for path in ("run/sshd", "root/.ssh", "home/guest/.ssh", "var/lib/nginx", "var/log/nginx"):
        os.makedirs(f"{root}/{path}", exist_ok=True)
    with open(f"{root}/etc/passwd", "a") as file:
        file.write("guest:x:60000:60000::/home/guest:/bin/bash\n")
    with open(f"{root}/etc/group", "a") as file:
        file.write("guest:x:60000:\n")
    for key in (f"{work}/login", f"{root}/etc/host-key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    for home in ("root", "home/guest"):
        with open(f"{work}/login.pub") as key, open(f"{root}/{home}/.ssh/authorized_keys", "w") as file:
            file.write(key.read())
    return suite.build(work, "pairs", "--root", root, "--", "/bin/bash"), root


REDIS = ("exec redis-server --bind 0.0.0.0 --protected-mode no --save '' --dir /tmp --enable-debug-command yes "
         "--repl-diskless-sync-delay 0 --repl-ping-replica-period 1 ")


def redis(suite, place, work, image):
    def ask(address, *words, stdin=None):
        done = place.run(["redis-cli", "-h", address, *words], stdin)
        return done[1].decode().strip() if done[0] == 0 else str(done)

    def info(address, section, name):
        found = re.search(rf"^{name}:(.*?)\r?$", ask(address, "info", section), re.MULTILINE)
        return found and found[1]

    def becomes(address, section, name, value, seconds=20):
        deadline = time.monotonic() + hosts.seconds(seconds)
        while time.monotonic() < deadline:
            if info(address, section, name) == value:
                return True
            time.sleep(0.1)
        return False

    def caught_up(writer):
        """A write, and how many replicas have it: asked on one connection, which WAIT is about."""
        return ask(writer, stdin=b"set last %d\nwait 1 30000\n" % time.monotonic_ns())

    first = place.launch(FIRST, image, REDIS, f"{work}/redis1.log", 6379)
    fill = "for i=1,%d do redis.call('set','key:'..i,string.rep(i,30)) end return redis.call('dbsize')" % hosts.share(100000)
    filled = ask(FIRST, "eval", fill, "0")
    burst = place.start(["redis-benchmark", "-h", FIRST, "-q", "-l", "-t", "set,incr,hset", "-n", str(hosts.share(20000)), "-r",
                         "100000", "-c", "8"], f"{work}/burst.log")
    second = place.launch(SECOND, image, REDIS + f"--replicaof {FIRST} 6379", f"{work}/redis2.log", 6379)
    up = becomes(SECOND, "replication", "master_link_status", "up")
    time.sleep(0.5)
    amid = burst.poll() is None
    place.stop(burst)
    seen = (filled, up, amid, caught_up(FIRST), info(FIRST, "stats", "sync_full"))
    digests = [ask(address, "debug", "digest") for address in (FIRST, SECOND)]
    sizes = [int(ask(address, "dbsize")) for address in (FIRST, SECOND)]
    suite.check("Redis: a replica in another unikernel, synchronised during a burst of writes, has the same keys",
                seen == (str(hosts.share(100000)), True, True, "OK\n1", "1") and digests[0] == digests[1] and sizes[0] == sizes[1]
                > hosts.share(100000), f"{seen} {digests} {sizes}")
    ask(FIRST, "client", "kill", "type", "replica")
    seen = (becomes(FIRST, "stats", "sync_partial_ok", "1"), caught_up(FIRST), info(FIRST, "stats", "sync_full"))
    suite.check("Redis: a replica that lost its connection gets what it missed alone", seen == (True, "OK\n1", "1"), str(seen))
    refused = ask(SECOND, "set", "a", "b")
    ask(SECOND, "config", "set", "repl-timeout", "3")
    digest = ask(SECOND, "debug", "digest")
    first.kill()
    first.wait()
    down = becomes(SECOND, "replication", "master_link_status", "down")
    seen = (refused[:8], down, ask(SECOND, "replicaof", "no", "one"), ask(SECOND, "debug", "digest") == digest,
            ask(SECOND, "set", "a", "b"), ask(SECOND, "role").split("\n")[0])
    suite.check("Redis: the master killed, its replica is promoted and has everything",
                seen == ("READONLY", True, "OK", True, "OK", "master"), str(seen))
    ask(SECOND, "config", "set", "repl-timeout", "60")
    first = place.launch(FIRST, image, REDIS + f"--replicaof {SECOND} 6379", f"{work}/redis3.log", 6379)
    seen = (becomes(FIRST, "replication", "master_link_status", "up"), caught_up(SECOND), ask(FIRST, "get", "a"))
    digests = [ask(address, "debug", "digest") for address in (FIRST, SECOND)]
    suite.check("Redis: the old master comes back as a replica", seen == (True, "OK\n1", "b") and digests[0] == digests[1],
                f"{seen} {digests}")
    suite.check("Redis: SIGTERM ends both with status 0", [place.stop(first), place.stop(second)] == [0, 0])


def proxy(suite, place, work, image, site):
    def fetch(*options):
        return place.run(["curl", "-s", "--max-time", "60", *options])

    behind = place.launch(SECOND, image, "exec nginx -c /etc/behind.conf", f"{work}/behind.log", 80)
    front = place.launch(FIRST, image, "exec nginx -c /etc/front.conf", f"{work}/front.log", 80)
    for name in ("index.html", "1M"):
        done = fetch("-o", f"{work}/answer", f"http://{FIRST}/{name}")
        suite.check(f"nginx: {name} through a unikernel from another byte-exact",
                    done[0] == 0 and network.same_file(f"{work}/answer", f"{site}/{name}"), str(done))
    done = fetch("-f", "-T", f"{site}/1M", f"http://{FIRST}/put/copy")
    back = place.run(["curl", "-s", f"http://{SECOND}/put/copy", "-o", f"{work}/answer"])
    suite.check("nginx: 1 MB sent through a unikernel to another byte-exact",
                done[0] == back[0] == 0 and network.same_file(f"{work}/answer", f"{site}/1M"), f"{done} {back}")
    count = hosts.share(2000) // 4
    turns = [place.start(["curl", "-sf", f"http://{FIRST}/index.html?[1-{count}]"], f"{work}/turn{turn}") for turn in range(4)]
    statuses = [turn.wait(hosts.seconds(60)) for turn in turns]
    answers = [open(f"{work}/turn{turn}", "rb").read() == b"<h1>hello</h1>\n" * count for turn in range(4)]
    suite.check(f"nginx: {4 * count} requests through a unikernel, four at a time", statuses == [0] * 4 and all(answers),
                f"{statuses} {answers}")
    behind.kill()
    behind.wait()
    code = ["-o", "/dev/null", "-w", "%{http_code}", f"http://{FIRST}/index.html"]
    gone = fetch(*code)[1]
    behind = place.launch(SECOND, image, "exec nginx -c /etc/behind.conf", f"{work}/behind.log", 80)
    back = b""
    # A server that failed is left alone for ten seconds, but for an upstream's only one (ngx_http_upstream_module).
    for _ in range(hosts.seconds(30)):
        back = fetch(*code)[1]
        if back == b"200":
            break
        time.sleep(0.5)
    suite.check("nginx: answers 502 or 504 while the unikernel behind is gone, 200 when it is back",
                gone in (b"502", b"504") and back == b"200", f"{gone} {back}")
    suite.check("nginx: SIGTERM ends both with status 0", [place.stop(front), place.stop(behind)] == [0, 0])


POSTGRES = r"""
export PATH=/usr/lib/postgresql/15/bin:$PATH LC_ALL=C; cd /var/lib/pg; chown postgres .
as="setpriv --reuid postgres --regid postgres --clear-groups"
[ -e data ] || { $as initdb -D data --no-locale -E UTF8 -A trust && echo host all all 10.0.2.0/24 trust >> data/pg_hba.conf; sync; }
exec $as postgres -D data -k /tmp -h 0.0.0.0
"""
# Transactions of pgbench, and single rows, each of which is printed when the server has confirmed it.
CLIENTS = r"""
export PATH=/usr/lib/postgresql/15/bin:$PATH PGHOST=%s PGUSER=postgres
pgbench -n -c 4 -T 600 >/dev/null 2>&1 &
i=0; while :; do i=$((i+1)); echo "insert into rows values ($i) returning a;"; done | psql -qAt
""" % FIRST


def postgres(suite, place, work, image):
    tools = "/usr/lib/postgresql/15/bin/"

    def sql(*words):
        done = place.run([tools + "psql", "-h", FIRST, "-U", "postgres", "-qAt", "-c", *words])
        return done[1].decode().split() if done[0] == 0 else [str(done)]

    def start(log):
        server = place.launch(FIRST, image, POSTGRES, f"{work}/{log}", 5432, "-v", f"1G@{work}/pg.ext4:/var/lib/pg")
        for _ in range(hosts.seconds(100)):
            if sql("select 'up'") == ["up"]:
                break
            time.sleep(0.1)
        return server

    server = start("postgres1.log")
    made = place.run([tools + "pgbench", "-h", FIRST, "-U", "postgres", "-q", "-i", "postgres"])
    sql("create table rows(a int)")
    clients = place.start(place.swiftlet("--address", SECOND + "/24", image, "-c", CLIENTS, net="tap:tap1"), f"{work}/rows")
    confirmed = []
    for _ in range(hosts.seconds(100)):
        with open(f"{work}/rows") as file:
            confirmed = file.read().split("\n")[:-1]
        if len(confirmed) > 50 and int(sql("select count(*) from pgbench_history")[0]) > 50:
            break
        time.sleep(0.1)
    server.kill()
    server.wait()
    with open(f"{work}/rows") as file:
        confirmed = file.read().split("\n")[:-1]
    clients.kill()
    clients.wait()
    server = start("postgres2.log")
    rows = sql("select count(*), max(a) from rows")
    count, last = rows[0].split("|") if len(rows) == 1 and "|" in rows[0] else (None, 0)
    sums = sql("select count(*) > 50, sum(delta) = (select sum(abalance) from pgbench_accounts), sum(delta) = (select "
               "sum(tbalance) from pgbench_tellers) from pgbench_history")
    # One row may have been written whose confirmation was on its way.
    suite.check("PostgreSQL: on a volume, killed under another unikernel's load: what was confirmed is there",
                made[0] == 0 and len(confirmed) > 50 and count == last and int(last) in (len(confirmed), len(confirmed) + 1)
                and sums == ["t|t|t"], f"{made} {len(confirmed)} {confirmed[-1:]} {rows} {sums}")
    stopped = place.stop(server)
    server = start("postgres3.log")
    again = sql("select count(*), max(a) from rows")
    stopped = stopped, place.stop(server)
    checked = suite.run(["e2fsck", "-fn", f"{work}/pg.ext4"])
    suite.check("PostgreSQL: stopped and started again, it has the same",
                count and again == rows and stopped == (0, 0) and checked[0] == 0,
                f"{again} {rows} {stopped} {checked}")


SSHD = "/usr/sbin/sshd -D -e -f /dev/null -h /etc/host-key -o UsePAM=no -o StrictModes=no"
# What is typed, and what happens before the next: as in terminals.DIALOGUE.
LOGIN = [
    ("shopt -q login_shell && echo login; pwd; id -un; tty; stty size; echo $TERM $SHLVL\n", True),
    ("stat -c '%U %G %a' $(tty); set -- $SSH_CONNECTION; echo $# $4; test $SSH_TTY = $(tty); echo $?\n", True),
    ("stty -a | head -1\n", True), ("sleep 100\n", 0.7), ("\x03", True), ("echo $?\n", True), ("cat\n", 0.7), ("ab\x7fc\n", 0.5),
    ("\x04", True), ("sleep 100\n", 0.7), ("\x1a", True), ("jobs\n", True), ("bg; fg\n", 0.7), ("\x1c", True), ("echo $?\n", True),
    ("seq 5000 | sha256sum; seq 3000 | tail -1\n", True), ("read -s x; echo got $x\n", 0.7), ("secret\n", True),
]


def login(place, work, *words):
    return place.prefix(["ssh", "-i", f"{work}/login", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                         "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60", *words])


def dialogue(place, work, address, slowness):
    """What a login on a terminal shows, and the status of the client."""
    terminal = terminals.Terminal(login(place, work, "-tt", "root@" + address))
    try:
        seen = terminals.typed(terminal, LOGIN, slowness)
        terminal.resize(44, 133)
        time.sleep(slowness)
        terminal.send("stty size\n")
        seen += terminal.expect("READY> ")
        terminal.send("(exit 7); logout\n")
        return seen, terminal.end(), terminal.is_restored()
    finally:
        terminal.close()


def ssh(suite, place, work, image, root):
    slowness = 2 if hosts.is_emulated() else 1
    # The same server on Linux itself, in the same directory; its mounts end with it.
    native = place.start(
        ["sh", "-ec", f"cd {root}; mkdir -p dev proc; mount --bind /dev dev; mount -t devpts -o newinstance,gid=5,mode=620,"
         f"ptmxmode=666 devpts dev/pts; mount -t proc proc proc; exec chroot . {SSHD}"], f"{work}/sshd1.log")
    place.wait_for(22, network.LINUX)
    theirs = dialogue(place, work, network.LINUX, 1)
    place.stop(native)
    server = place.launch(FIRST, image, "exec " + SSHD, f"{work}/sshd2.log", 22)
    ours = dialogue(place, work, FIRST, slowness)
    same = ours[0].replace(FIRST, network.LINUX) == theirs[0]
    suite.check("OpenSSH: a login on a terminal as on Linux", same and "no '" not in ours[0], terminals.difference(
        ours[0].replace(FIRST, network.LINUX).encode(), theirs[0].encode()))
    suite.check("OpenSSH: logout's status is the client's, the terminal is restored", ours[1:] == (7, True) == theirs[1:],
                f"{ours[1:]} {theirs[1:]}")
    data = os.urandom(3 << 20)
    done = suite.run(login(place, work, "root@" + FIRST, "cat"), data)
    suite.check("OpenSSH: 3 MB there and back byte-exact", done[:2] == (0, data), str((done[0], len(done[1]), done[2])))
    done = suite.run(login(place, work, "-tt", "guest@" + FIRST,
                           "id -un; pwd; stat -c '%U %G %a' $(tty); cat /etc/host-key; kill -0 1"))
    suite.check("OpenSSH: a user other than root has a terminal and no more", done[:2] == (1, (
        "guest\r\n/home/guest\r\nguest tty 620\r\ncat: /etc/host-key: Permission denied\r\n"
        "bash: line 1: kill: (1) - Operation not permitted\r\n").encode()), str(done))
    lost = terminals.Terminal(login(place, work, "-tt", "root@" + FIRST))
    try:
        lost.expect("# ")
        lost.send("sleep 1234\n")
        time.sleep(slowness)
        count = login(place, work, "root@" + FIRST, "pgrep -fc '^sleep 1234'")
        before = suite.run(count)[1]
        lost.process.kill()
        for _ in range(20):
            after = suite.run(count)[1]
            if after == b"0\n":
                break
            time.sleep(0.2)
        suite.check("OpenSSH: a client that is killed takes what it ran along", (before, after) == (b"1\n", b"0\n"),
                    f"{before} {after}")
    finally:
        lost.close()
    suite.check("OpenSSH: SIGTERM ends the server", place.stop(server) in (0, 143, 255))


def tests(suite, work):
    if os.geteuid() != 0:
        print("skipped  pairs: needs root for namespaces and taps")
        return
    site = suite.make_site(work)
    image, root = make_image(suite, work, site)
    place = Bridge(suite)
    try:
        redis(suite, place, work, image)
        proxy(suite, place, work, image, site)
        postgres(suite, place, work, image)
        ssh(suite, place, work, image, root)
    finally:
        place.close()
