"""More of what everyday servers and tools do, from whole Debian packages as in servers.py."""
import hosts
import servers

PACKAGES = """bash coreutils diffutils grep sed util-linux procps openssl curl apache2-bin python3 gunicorn python3-venv
python3-pip postgresql-15 postgresql-client-15 git tmux vim ncurses-base""".split()

APACHE = r"""
mkdir -p www cgi; echo "<h1>event</h1>" > www/index.html; head -c 3000000 /dev/urandom > www/big
printf '#!/bin/sh\necho Content-type: text/plain\necho\necho shell $REQUEST_METHOD $HTTPS\ncat\necho\n' > cgi/t.sh; chmod 755 cgi/*
openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 2>/dev/null
M=/usr/lib/apache2/modules
cat > a.conf <<E
ServerRoot /tmp
Listen 443
$(for m in mpm_event authz_core ssl socache_shmcb cgid alias dir mime status; do echo LoadModule ${m}_module $M/mod_$m.so; done)
ServerName localhost
PidFile /tmp/a.pid
ScriptSock /tmp/cgid.sock
User www-data
Group www-data
DocumentRoot /tmp/www
ErrorLog /tmp/a.log
TypesConfig /dev/null
ScriptAlias /cgi/ /tmp/cgi/
SSLEngine on
SSLCertificateFile /tmp/c.pem
SSLCertificateKeyFile /tmp/k.pem
SSLSessionCache shmcb:/tmp/sessions(512000)
StartServers 2
ThreadsPerChild 8
MaxRequestWorkers 32
<Location /status>
SetHandler server-status
</Location>
E
chmod 777 /tmp /tmp/www
cat > load.py <<'E'
import collections, http.client, os, ssl, threading
trusted = ssl.create_default_context(cafile="/tmp/c.pem")
answers = collections.Counter()
# CGI programs are left out: while mod_cgid starts anew it answers 503, on Linux too.
def ask(path):
    while not os.path.exists("/tmp/enough"):
        connection = http.client.HTTPSConnection("127.0.0.1", context=trusted, timeout=60)
        for kept in (False, True):
            try:
                try:
                    connection.request("GET", path)
                    answer = connection.getresponse()
                except OSError:
                    # A server may close a connection that it keeps for more (RFC 9112, 9.3.1): it is asked anew then.
                    if not kept: raise
                    connection.close()
                    connection.request("GET", path)
                    answer = connection.getresponse()
                answers[answer.status, answer.read().strip()] += 1
                if sum(answers.values()) == 20: open("/tmp/loading", "w")
            except Exception as error:
                answers[repr(error)] += 1
        connection.close()
threads = [threading.Thread(target=ask, args=(path,)) for path in ["/"] * 4]
[t.start() for t in threads]; [t.join() for t in threads]
for answer in sorted(answers, key=str): print(answer)
print(sum(answers.values()) > 50)
E
fetch() { curl -s --cacert c.pem --retry 20 --retry-all-errors --retry-delay 1 "$@"; }
apache2 -f /tmp/a.conf; fetch https://127.0.0.1/; fetch -d posted https://127.0.0.1/cgi/t.sh
curl -s --tls-max 1.2 --cacert c.pem -o /dev/null https://127.0.0.1/ -w '%{http_code} %{ssl_verify_result}\n'
echo | openssl s_client -connect 127.0.0.1:443 -tls1_2 -reconnect 2>/dev/null | grep -c '^Reused, TLSv1.2'
fetch https://127.0.0.1/status?auto | grep ^ServerMPM
curl -s --cacert c.pem --limit-rate 1M -o big https://127.0.0.1/big & python3 load.py &
for i in $(seq 300); do [ -e loading ] && break; sleep 0.1; done
generation() { fetch https://127.0.0.1/status?auto | sed -n 's/^ParentServerConfigGeneration: //p'; }
for i in 1 2 3; do
  kill -USR1 $(cat a.pid); for j in $(seq 50); do [ "$(generation)" -gt $i ] && break; sleep 0.2; done
done
sleep 0.3; touch enough; wait; cmp big www/big && echo whole; generation; fetch https://127.0.0.1/cgi/t.sh
grep -cE '\[(error|crit|alert|emerg)|segfault|exit signal' a.log
kill -TERM $(cat a.pid); for i in $(seq 50); do [ -e a.pid ] || break; sleep 0.1; done; ls a.pid 2>&1; true
"""

GUNICORN = r"""
cat > app.py <<'E'
import os, time
from version import VERSION
def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        open("/tmp/asked", "w"); time.sleep(2)
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))])
    return [f"{environ['REQUEST_METHOD']} {VERSION} {len(body)}\n".encode()]
E
echo VERSION = 1 > version.py
fetch() { curl -s --retry 40 --retry-all-errors --retry-delay 1 "$@"; }
gunicorn --workers 3 --bind 127.0.0.1:8000 --pid g.pid --daemon --log-file g.log app:app
fetch http://127.0.0.1:8000/; head -c 100000 /dev/zero | fetch --data-binary @- http://127.0.0.1:8000/
workers() { pgrep -P $(cat g.pid) | tr '\n' ' '; }
until [ $(workers | wc -w) = 3 ]; do sleep 0.1; done; before=$(workers)
set -- $before; kill -9 $1
for i in $(seq 100); do now=$(workers); [ $(echo $now | wc -w) = 3 ] && [ "$now" != "$before" ] && break; sleep 0.1; done
echo $now | wc -w; for worker in $before; do case " $now " in *" $worker "*) ;; *) echo one replaced;; esac; done
(while [ ! -e enough ]; do curl -s http://127.0.0.1:8000/ || echo failed $?; done | sort | uniq -c | sed 's/^ *[0-9]* //') &
fetch http://127.0.0.1:8000/slow > slow & for i in $(seq 100); do [ -e asked ] && break; sleep 0.1; done
echo VERSION = 22 > version.py; kill -HUP $(cat g.pid)
for i in $(seq 100); do [ "$(curl -s http://127.0.0.1:8000/)" = 'GET 22 0' ] && break; sleep 0.1; done
for i in $(seq 100); do [ $(workers | wc -w) = 3 ] && break; sleep 0.1; done
touch enough; wait; cat slow; for i in 1 2 3 4 5 6; do fetch http://127.0.0.1:8000/; done | uniq
kill -TTIN $(cat g.pid); for i in $(seq 100); do [ $(workers | wc -w) = 4 ] && break; sleep 0.1; done; workers | wc -w
kill -TERM $(cat g.pid); for i in $(seq 100); do [ -e g.pid ] || break; sleep 0.1; done; ls g.pid 2>&1
grep -cE 'Traceback|ERROR|CRITICAL' g.log
true
"""

VENV = r"""
cat > wheel.py <<'E'
import base64, hashlib, zipfile
# A wheel is a zip file with its metadata and a record of hashes (PEP 427).
files = {"greeter/__init__.py": "import sys\ndef main():\n    print('hello from', __name__, sys.prefix)\n    return 3\n",
         "greeter-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: greeter\nVersion: 1.2\n",
         "greeter-1.2.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
         "greeter-1.2.dist-info/entry_points.txt": "[console_scripts]\ngreet = greeter:main\n"}
def line(name, text):
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(text)}\n"
record = "".join(line(*item) for item in files.items()) + "greeter-1.2.dist-info/RECORD,,\n"
with zipfile.ZipFile("greeter-1.2-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
    for name, text in [*files.items(), ("greeter-1.2.dist-info/RECORD", record)]: wheel.writestr(name, text)
E
python3 wheel.py; python3 -m venv env && . env/bin/activate
pip --disable-pip-version-check install --no-index greeter-1.2-py3-none-any.whl | tail -1
greet; echo $?
pip --disable-pip-version-check list --format=freeze | sed "s/==23.*//; /setuptools/d"
python -c 'import sys, greeter; print(sys.prefix != sys.base_prefix, greeter.__file__)'
pip --disable-pip-version-check check; pip uninstall -qy greeter; hash -r; greet 2>&1 | sed 's/.*: //'
"""

POSTGRES = r"""
mkdir -p /var/run/postgresql /var/lib/pg; chown postgres /var/run/postgresql /var/lib/pg
cat > go.sh <<'E'
cd /var/lib/pg; mkdir archive
initdb -D data --no-locale -E UTF8 -A trust >init.log 2>&1 || cat init.log
cat >> data/postgresql.conf <<'C'
archive_mode = on
archive_command = 'test ! -f /var/lib/pg/archive/%f && cp %p /var/lib/pg/archive/%f'
C
sql() { psql -qAt "$@" postgres; }
pg_ctl -D data -l log -w start >/dev/null
sql -c 'create table t(a int)' -c 'insert into t select generate_series(1,1000)'
pgbench -q -i -s 1 postgres >/dev/null 2>&1
cat > state.sql <<'C'
select count(*) > 10, sum(delta) = (select sum(abalance) from pgbench_accounts), sum(delta) = (select sum(bbalance) from pgbench_branches) from pgbench_history;
select count(*), sum(delta), max(mtime) from pgbench_history
C
pg_basebackup -D base -c fast -X none 2>/dev/null || echo no backup
pgbench -c 8 -j 2 -T 2 postgres 2>&1 | grep failed; sql -f state.sql > before
sql -c 'insert into t select generate_series(1001,5000)' -c "select pg_create_restore_point('good')" >/dev/null
sql -c 'delete from t' -c 'truncate pgbench_history' -c 'insert into t values (666)' -c 'select pg_switch_wal()' >/dev/null
for i in $(seq 100); do [ "$(sql -c 'select last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 1) from pg_stat_archiver')" = t ] && break; sleep 0.1; done
sql -c 'select failed_count from pg_stat_archiver' -c 'select a from t'
pg_ctl -D data -m immediate stop >/dev/null
cat >> base/postgresql.conf <<'C'
restore_command = 'cp /var/lib/pg/archive/%f %p'
recovery_target_name = 'good'
recovery_target_action = 'promote'
C
touch base/recovery.signal; chmod 700 base
pg_ctl -D base -l log2 -w start >/dev/null
for i in $(seq 100); do [ "$(sql -c 'select pg_is_in_recovery()')" = f ] && break; sleep 0.1; done
sql -c 'select count(*), max(a) from t' -c 'select timeline_id from pg_control_checkpoint()' -c 'insert into t values (0)' -c 'select count(*) from t'
sql -f state.sql > after; head -1 after; cmp before after && echo as before
grep -o 'recovery stopping at restore point "good"' log2; ls archive | grep -c history
pg_ctl -D base -m fast stop >/dev/null && echo stopped
E
setpriv --reuid postgres --regid postgres --clear-groups bash go.sh
"""

GIT = r"""
export HOME=/tmp GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z'
git config --global user.name n; git config --global user.email e@x; git config --global init.defaultBranch main
git init -q a; cd a; for i in $(seq 40); do mkdir -p d$((i%10)); seq $i $((i+300)) > d$((i%10))/f$i; done; git add .; git commit -qm one
git rev-parse HEAD; for i in 1 2 3; do echo x$i >> d1/f1; git commit -qam c$i; done
git log --oneline | wc -l; git gc -q; git fsck; git count-objects -v | grep -E 'in-pack|^count'; cd ..
git clone -q --bare a b.git
git daemon --base-path=/tmp --export-all --enable=receive-pack --detach --listen=127.0.0.1 --pid-file=/tmp/d.pid
git clone -q git://127.0.0.1/b.git c; cd c; git checkout -qb topic HEAD~2; echo x >> d2/f2; git commit -qam topic
git push -q origin topic; git checkout -q main; git merge -q --no-edit topic; git diff --stat HEAD~1 | tail -1
git -C ../b.git log -1 --format=%s topic; git worktree add -q ../w topic; git -C ../w status --short | wc -l
git bisect start HEAD HEAD~3 >/dev/null; git bisect run sh -c '! grep -q ^x3 d1/f1' | sed -n 's,^    ,bad: ,p'
kill $(cat ../d.pid)
"""

TMUX = r"""
export HOME=/tmp SHELL=/bin/bash TERM=screen
shows() { for i in $(seq 200); do tmux capture-pane -p -t s.$1 | grep -q "$2" && return; sleep 0.1; done; echo "$2 is not shown:"; tmux capture-pane -p -t s.$1; }
keys() { tmux send-keys -t s."$@"; }
tmux -f /dev/null new-session -d -s s -x 90 -y 25 'PS1="READY " bash --norc'; shows 0 ^READY
keys 0 'tty; stty size; echo $TERM; echo e"n"d' Enter; shows 0 ^end; tmux capture-pane -p -t s.0 | grep -A 2 ^/dev
tmux split-window -t s 'PS1="READY " bash --norc'; shows 1 ^READY; keys 1 'stty size; sleep 100' Enter; shows 1 '^12 90'
for i in $(seq 100); do [ "$(tmux display -p -t s.1 '#{pane_current_command}')" = sleep ] && break; sleep 0.1; done
keys 1 C-c; keys 1 'echo =$?' Enter; shows 1 '^=130'
tmux resize-window -t s -x 120 -y 41; keys 0 'until [ "$(stty size)" = "20 120" ]; do sleep 0.1; done; echo b"i"g' Enter; shows 0 ^big
keys 0 'vim -u NONE -N x.txt; echo sa"ved"' Enter; shows 0 '^~'; keys 0 ihello Escape yy5p :wq Enter; shows 0 ^saved; cat x.txt
tmux list-panes -s -F '#{pane_index} #{pane_width}x#{pane_height} #{pane_current_command}'
tmux kill-server; for i in $(seq 50); do pgrep bash | grep -qv ^$$ || break; sleep 0.1; done; tmux ls 2>&1; true
"""

# Name, script, what it prints.
CASES = [
    ("Apache event with TLS and CGI: graceful restarts under load, no request fails", APACHE,
     "<h1>event</h1>\nshell POST on\nposted\n200 0\n5\nServerMPM: event\n(200, b'<h1>event</h1>')\nTrue\n"
     "whole\n4\nshell GET on\n\n0\nls: cannot access 'a.pid': No such file or directory\n"),
    ("gunicorn: workers replaced, reloaded under load, added", GUNICORN,
     "GET 1 0\nPOST 1 100000\n3\none replaced\nGET 1 0\nGET 22 0\nGET 1 0\nGET 22 0\n4\n"
     "ls: cannot access 'g.pid': No such file or directory\n0\n"),
    ("Python: a virtual environment, pip installs a wheel, runs and removes it", VENV,
     "Successfully installed greeter-1.2\nhello from greeter /tmp/env\n3\ngreeter==1.2\npip\n"
     "True /tmp/env/lib/python3.11/site-packages/greeter/__init__.py\nNo broken requirements found.\n"
     "command not found\n"),
    ("PostgreSQL: an archive of its log, a backup, recovery to a point under load", POSTGRES,
     "number of failed transactions: 0 (0.000%)\n0\n666\n5000|5000\n2\n5001\nt|t|t\nas before\n"
     "recovery stopping at restore point \"good\"\n1\nstopped\n"),
    ("git: commits, packs, a daemon that is cloned from and pushed to, bisection", GIT,
     "43b4e3bddfc1059a915333609c7d8b165e170c85\n4\ncount: 0\nin-pack: 64\n 1 file changed, 1 insertion(+)\n"
     "topic\n0\nbad: c3\n"),
    ("tmux and vim: two shells on terminals of its own, control-C, a new size", TMUX,
     "/dev/pts/0\n25 90\ntmux-256color\nhello\nhello\nhello\nhello\nhello\nhello\n0 120x20 bash\n"
     "1 120x20 bash\nno server running on /tmp/tmux-0/default\n"),
]


def tests(runner, work):
    # pip unpacks and compiles itself into an environment: a minute where instructions are emulated.
    late = [VENV] if hosts.is_emulated() else []
    for name in [name for name, script, _ in CASES if script in late]:
        print("skipped  " + name)
    servers.carry_out(runner, work, PACKAGES, [case for case in CASES if case[1] not in late])
