"""Everyday servers and tools from whole Debian packages, each driven by a shell script inside the unikernel: what the
script prints must be what it prints on Linux, written here line by line."""
import os
import subprocess

import hosts

PACKAGES = """bash coreutils findutils grep sed gawk tar gzip diffutils util-linux procps gcc make libc6-dev
openssh-server openssh-client nginx-light openssl curl postgresql-15 postgresql-client-15 redis-server redis-tools
memcached sqlite3 apache2-bin python3 hostname""".split()

PATH = "export PATH=/usr/lib/postgresql/15/bin:$PATH LC_ALL=C; cd /tmp; "

MAKE = r"""
mkdir p; cd p
for i in $(seq 1 12); do printf 'int f%d(int x){return x+%d;}\n' $i $i > f$i.c; done
printf 'int f1(int);int f12(int);\n#include <stdio.h>\nint main(){printf("%%d\\n",f1(1)+f12(2));return 0;}\n' > main.c
printf 'OBJS=main.o %s\nprog: $(OBJS)\n\tgcc -o $@ $^\n%%.o: %%.c\n\tgcc -O2 -c -o $@ $<\n' \
  "$(for i in $(seq 1 12); do printf 'f%d.o ' $i; done)" > Makefile
make -s -j4 && ./prog
seq 1 100 | xargs -P 4 -n 5 echo | tr ' ' '\n' | sort -n | md5sum
find . -name '*.o' | wc -l
tar czf ../p.tgz . && tar tzf ../p.tgz | grep -c '\.c$'
awk 'BEGIN{for(i=0;i<5;i++)print i*i}' | sed 's/^/x/' | paste -sd' '
diff f1.c f2.c | head -1
"""

NGINX = r"""
openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2 -subj /CN=localhost 2>/dev/null
mkdir -p /var/log/nginx /var/lib/nginx www; echo tls > www/i.html; head -c 100000 /dev/zero > www/z.txt
cat > n.conf <<'N'
worker_processes 2; pid /tmp/n.pid; error_log /tmp/err.log;
events {}
http { access_log /tmp/acc.log; gzip on; gzip_types text/plain; types { text/plain txt; }
server { listen 443 ssl; ssl_certificate /tmp/c.pem; ssl_certificate_key /tmp/k.pem; root /tmp/www; }
server { listen 81; location / { proxy_pass https://127.0.0.1:443; } } }
N
fetch() { curl -sk --retry 20 --retry-all-errors --retry-delay 1 "$@"; }
nginx -c /tmp/n.conf; cat err.log
fetch https://127.0.0.1/i.html; fetch http://127.0.0.1:81/i.html
fetch --compressed -o big -w '%{http_code}\n' https://127.0.0.1/z.txt; cmp big www/z.txt && echo same
mv acc.log acc.old; kill -USR1 $(cat n.pid); for i in 1 2 3 4 5 6 7 8 9 10; do [ -e acc.log ] && break; sleep 0.2; done
fetch https://127.0.0.1/i.html; wc -l < acc.log
nginx -c /tmp/n.conf -s quit 2>/dev/null; for i in $(seq 50); do [ -e n.pid ] || break; sleep 0.1; done; ls n.pid 2>&1; true
"""

APACHE = r"""
mkdir -p www cgi; echo "<h1>ap</h1>" > www/index.html
printf '#!/bin/sh\necho Content-type: text/plain\necho\necho shell $REQUEST_METHOD\ncat\necho\n' > cgi/t.sh
printf '#!/usr/bin/python3\nprint("Content-type: text/plain\\n\\npython", 6*7)\n' > cgi/t.py; chmod 755 cgi/*
M=/usr/lib/apache2/modules
cat > a.conf <<E
ServerRoot /tmp
Listen 80
LoadModule mpm_prefork_module $M/mod_mpm_prefork.so
LoadModule authz_core_module $M/mod_authz_core.so
LoadModule cgi_module $M/mod_cgi.so
LoadModule alias_module $M/mod_alias.so
LoadModule dir_module $M/mod_dir.so
LoadModule mime_module $M/mod_mime.so
ServerName localhost
PidFile /tmp/a.pid
User www-data
Group www-data
DocumentRoot /tmp/www
ErrorLog /tmp/a.log
TypesConfig /dev/null
ScriptAlias /cgi/ /tmp/cgi/
StartServers 3
E
chmod 777 /tmp /tmp/www
fetch() { curl -s --retry 20 --retry-all-errors --retry-delay 1 "$@"; }
apache2 -f /tmp/a.conf; fetch http://127.0.0.1/; fetch -d posted http://127.0.0.1/cgi/t.sh; fetch http://127.0.0.1/cgi/t.py
(for i in $(seq 200); do curl -s http://127.0.0.1/ || echo error; done | sort | uniq -c | tr -s ' ') & 
for i in 1 2 3; do kill -USR1 $(cat a.pid); sleep 0.3; done; wait %1
kill -TERM $(cat a.pid); for i in $(seq 50); do [ -e a.pid ] || break; sleep 0.1; done; ls a.pid 2>&1; true
"""

REDIS = r"""
cli() { redis-cli "$@" 2>&1; }
up() { for i in $(seq 50); do [ "$(cli -p $1 ping)" = PONG ] && break; sleep 0.1; done; }
redis-server --appendonly yes --dir /tmp --daemonize yes >/dev/null; up 6379
cli set a b; cli get a; cli eval 'return 6*7' 0
redis-benchmark -q -n 20000 -c 20 -t set >/dev/null & cli bgsave; wait
for i in $(seq 100); do cli info persistence | grep -q 'rdb_bgsave_in_progress:0' && break; sleep 0.1; done
cli info persistence | grep -o 'rdb_last_bgsave_status:ok'; cli bgrewriteaof
for i in $(seq 100); do cli info persistence | grep -q 'aof_rewrite_in_progress:0' && break; sleep 0.1; done
mkdir r; redis-server --port 6380 --dir /tmp/r --replicaof 127.0.0.1 6379 --daemonize yes >/dev/null; up 6380
for i in $(seq 100); do cli -p 6380 info replication | grep -q 'master_link_status:up' && break; sleep 0.1; done
cli set through replica >/dev/null; for i in $(seq 50); do [ "$(cli -p 6380 get through)" ] && break; sleep 0.1; done
cli -p 6380 get through
cli config set appendfsync always >/dev/null; cli set kept yes; kill -9 $(cli info server | tr -d '\r' | sed -n 's/^process_id://p'); sleep 0.2
redis-server --appendonly yes --dir /tmp --daemonize yes >/dev/null; up 6379; cli get kept
cli shutdown; cli -p 6380 shutdown nosave; true
"""

POSTGRES = r"""
mkdir -p /var/run/postgresql /var/lib/pg; chown postgres /var/run/postgresql /var/lib/pg
cat > go.sh <<'E'
cd /var/lib/pg
initdb -D data --no-locale -E UTF8 -A trust >init.log 2>&1 || cat init.log
pg_ctl -D data -l log -w start >/dev/null
psql -qAt -c 'create table t(a int primary key, b text); insert into t select i, md5(i::text) from generate_series(1,10000) i; select count(*), max(b) from t' postgres
psql -qAt -h 127.0.0.1 -c 'select sum(a) from t' postgres
pgbench -q -i -s 1 postgres >/dev/null 2>&1
pgbench -c 8 -j 2 -T 2 -S postgres 2>&1 | grep failed
pgbench -c 8 -j 2 -T 2 postgres 2>&1 | grep failed
psql -qAt -c 'set max_parallel_workers_per_gather=2; set min_parallel_table_scan_size=0; set parallel_setup_cost=0; select count(*) from pgbench_accounts' postgres
createdb copy; pg_dump postgres | psql -q copy >/dev/null; psql -qAt -c 'select count(*) from t' copy
(echo 'select pg_backend_pid();'; sleep 5) | psql -qAt postgres > backend & sleep 1
kill -9 $(cat backend); sleep 2; for i in $(seq 50); do psql -qAt -c 'select 1' postgres 2>/dev/null && break; sleep 0.2; done
grep -c 'was terminated by signal 9' log
pg_ctl -D data reload >/dev/null && echo reloaded
pg_ctl -D data -m immediate stop >/dev/null; pg_ctl -D data -l log -w start >/dev/null; psql -qAt -c 'select count(*) from t' postgres
pg_ctl -D data -m fast stop >/dev/null && echo stopped
E
setpriv --reuid postgres --regid postgres --clear-groups bash go.sh
"""

SSH = r"""
mkdir -p /run/sshd /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f hk; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id
cp /root/.ssh/id.pub /root/.ssh/authorized_keys
/usr/sbin/sshd -f /dev/null -h /tmp/hk -p 2222 -o UsePAM=no -o StrictModes=no -E /tmp/sshd.log
S="ssh -i /root/.ssh/id -p 2222 -o StrictHostKeyChecking=no -o LogLevel=ERROR -o ConnectionAttempts=20 127.0.0.1"
$S 'echo via ssh; id -u; tty; exit 3'; echo $?
$S -tt 'test -t 0 && echo on a terminal' | tr -d '\r'
"""

OTHERS = r"""
memcached -u root -d -l 127.0.0.1; for i in $(seq 50); do (exec 3<>/dev/tcp/127.0.0.1/11211) 2>/dev/null && break; sleep 0.1; done
exec 3<>/dev/tcp/127.0.0.1/11211; printf 'set a 0 0 2\r\nhi\r\nget a\r\nquit\r\n' >&3; tr -d '\r' <&3; exec 3>&-
sqlite3 x.db "create table t(a); insert into t values(1),(2); pragma journal_mode=wal; insert into t values(3); select sum(a) from t; pragma integrity_check"
cat <(echo one) <(echo two)
"""

PYTHON = r"""
cat > t.py <<'E'
import asyncio, multiprocessing, os, signal, socket, sqlite3, subprocess, threading
from multiprocessing import shared_memory
def square(x): return x * x
if __name__ == "__main__":
    print(subprocess.run(["sh", "-c", "echo out; exit 4"], capture_output=True).returncode)
    done = []
    threads = [threading.Thread(target=done.append, args=(i,)) for i in range(50)]
    [t.start() for t in threads]; [t.join() for t in threads]; print(len(done))
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(3) as pool: print(method, sum(pool.map(square, range(100))))
    memory = shared_memory.SharedMemory(create=True, size=4096)
    def child(name): other = shared_memory.SharedMemory(name); other.buf[0] = 42; other.close()
    p = multiprocessing.get_context("fork").Process(target=child, args=(memory.name,)); p.start(); p.join()
    print(memory.buf[0], p.exitcode); memory.close(); memory.unlink()
    lock = multiprocessing.Lock(); value = multiprocessing.Value("i", 0)
    def add():
        for _ in range(1000):
            with value.get_lock(): value.value += 1
    workers = [multiprocessing.get_context("fork").Process(target=add) for _ in range(4)]
    [w.start() for w in workers]; [w.join() for w in workers]; print(value.value)
    async def serve(reader, writer):
        writer.write((await reader.readline()).upper()); await writer.drain(); writer.close()
    async def ask(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello\n"); answer = await reader.read(); writer.close(); return answer
    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        print(len(await asyncio.gather(*[ask(port) for _ in range(50)])), await ask(port))
        p = await asyncio.create_subprocess_exec("echo", "sub", stdout=asyncio.subprocess.PIPE)
        print((await p.communicate())[0])
    asyncio.run(main())
    a, b = socket.socketpair(); socket.send_fds(a, [b"x"], [1]); print(len(socket.recv_fds(b, 1, 1)[1]))
    db = sqlite3.connect("/tmp/p.db"); db.execute("create table t(a)"); db.executemany("insert into t values(?)", [(i,) for i in range(1000)])
    db.commit(); print(db.execute("select sum(a) from t").fetchone())
    pid = os.fork()
    if pid == 0: signal.pause()
    os.kill(pid, signal.SIGUSR1); print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
E
python3 t.py
"""

# Name, script, what it prints.
CASES = [
    ("make -j4, xargs -P, find, tar, awk, sed, diff", MAKE,
     "16\nd632eba71107bf7bc3ec423eab256d78  -\n13\n13\nx0 x1 x4 x9 x16\n1c1\n"),
    ("nginx with TLS, proxying to itself, gzip, log rotation", NGINX,
     "tls\ntls\n200\nsame\ntls\n1\nls: cannot access 'n.pid': No such file or directory\n"),
    ("Apache prefork with CGI, graceful restarts under load", APACHE,
     "<h1>ap</h1>\nshell POST\nposted\npython 42\n 200 <h1>ap</h1>\n"
     "ls: cannot access 'a.pid': No such file or directory\n"),
    ("Redis: saving in the background, AOF, replication, killed", REDIS,
     "OK\nb\n42\nBackground saving started\nrdb_last_bgsave_status:ok\n"
     "Background append only file rewriting started\nreplica\nOK\nyes\n"),
    ("PostgreSQL: pgbench, dump and restore, a killed backend, crash recovery", POSTGRES,
     "10000|ffeed84c7cb1ae7bf4ec4bd78275bb98\n50005000\n" + "number of failed transactions: 0 (0.000%)\n" * 2
     + "100000\n10000\n1\n1\nreloaded\n10000\nstopped\n"),
    ("OpenSSH: a command and a terminal", SSH, "via ssh\n0\nnot a tty\n3\non a terminal\n"),
    ("memcached, SQLite, process substitution", OTHERS,
     "STORED\nVALUE a 0 2\nhi\nEND\nwal\n6\nok\none\ntwo\n"),
    ("Python: processes, threads, shared memory, asyncio, sqlite3", PYTHON,
     "4\n50\nfork 328350\nspawn 328350\nforkserver 328350\n42 0\n4000\n50 b'HELLO\\n'\nb'sub\\n'\n1\n(499500,)\n-10\n"),
]


def carry_out(runner, work, packages, cases):
    """Each case's script in an image of the packages must print what the case says, and end with status 0."""
    root = os.path.join(work, "debian")
    if not os.path.exists(root):
        subprocess.run([os.path.join(os.path.dirname(__file__), "debian-root"), root, *packages], check=True)
    image = runner.build(work, "debian", "--root", root, "--", "/bin/bash")
    for name, script, expected in cases:
        status, output, errors = runner.run([*hosts.command(), "-m", "2G", image, "-c", PATH + script], seconds=120)
        runner.check(name, (status, output) == (0, expected.encode()), f"status {status}\n{output.decode()}\n{errors.decode()}")


def tests(runner, work):
    carry_out(runner, work, PACKAGES, CASES)
