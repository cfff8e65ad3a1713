"""Daemons of other kinds than those of servers.py and services.py, from whole Debian packages as there."""
import servers

PACKAGES = """bash coreutils diffutils grep sed procps curl socat haproxy lighttpd mosquitto mosquitto-clients""".split()

HAPROXY = r"""
mkdir -p www /run/haproxy /var/lib/haproxy; echo hello > www/index.html; head -c 3000000 /dev/urandom > www/big
printf 'server.document-root = "/tmp/www"\nserver.port = 8001\nserver.max-worker = 2\nindex-file.names = ("index.html")\n' > l.conf
lighttpd -f l.conf
cat > h.cfg <<E
global
  nbthread 2
  user haproxy
  group haproxy
  chroot /var/lib/haproxy
  stats socket /run/haproxy/s level admin expose-fd listeners
defaults
  mode http
  timeout connect 30s
  timeout client 30s
  timeout server 30s
frontend f
  bind 127.0.0.1:8000
  bind [::1]:8000
  default_backend b
backend b
  server one 127.0.0.1:8001
E
haproxy -W -D -f h.cfg -p h.pid 2>/dev/null; curl -s --retry 20 --retry-all-errors http://127.0.0.1:8000/ 'http://[::1]:8000/'
curl -s http://127.0.0.1:8000/big | cmp - www/big && echo whole
for i in 1 2; do
  (while [ ! -e enough ]; do curl -s http://127.0.0.1:8000/ || echo failed; done | sort | uniq -c | sed 's/^ *[0-9]* //') &
done
worker() { pgrep -P $(cat h.pid) haproxy | tail -n 1; }
for i in 1 2; do
  old=$(worker); kill -USR2 $(cat h.pid); for j in $(seq 100); do [ "$(worker)" != "$old" ] && break; sleep 0.1; done
  sleep 0.5
done
touch enough; wait
"""

MOSQUITTO = r"""
printf 'listener 1883 127.0.0.1\nlistener 0 /tmp/s\nallow_anonymous true\npersistence true\npersistence_location /tmp/\nuser root\n' > m.conf
start() {
  rm -f s; mosquitto -c m.conf 2>/dev/null & server=$!
  for i in $(seq 100); do mosquitto_pub --unix /tmp/s -t ping -n 2>/dev/null && return; sleep 0.1; done
}
start; timeout 60 mosquitto_sub -t 'a/#' -v -q 1 -C 300 > got & reader=$!; sleep 1
for p in 1 2 3; do seq 100 | mosquitto_pub -t a/$p -l -q 1 & done; wait $reader; sort -u got | wc -l
mosquitto_sub -i kept -c -q 1 -t k -E; mosquitto_pub -t r -m retained -r -q 1
for i in 1 2 3; do mosquitto_pub --unix /tmp/s -t k -m $i -q 1; done
kill $server; wait $server; start; timeout 20 mosquitto_sub -t r -C 1; timeout 20 mosquitto_sub -i kept -c -q 1 -t k -C 3
kill $server; wait
"""

# Name, script, what it prints.
CASES = [
    ("HAProxy before lighttpd: reloaded twice under load, no request fails", HAPROXY, "hello\nhello\nwhole\nhello\nhello\n"),
    ("mosquitto: messages of several publishers, retained and kept over a restart", MOSQUITTO,
     "300\nretained\n1\n2\n3\n"),
]


def tests(runner, work):
    servers.carry_out(runner, work, PACKAGES, CASES)
