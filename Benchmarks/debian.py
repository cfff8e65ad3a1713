"""Rows of make bench: servers and tools from Debian packages, natively in a network namespace behind a veth pair and in a
unikernel behind a tap, driven by the same clients from the same namespace. Higher is better."""
import csv
import os
import re
import shutil
import subprocess
import sys
import time

import processes

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PACKAGES = "bash coreutils util-linux gcc make libc6-dev postgresql-15 redis-server apache2-bin python3".split()
POSTGRES = "/usr/lib/postgresql/15/bin/"
NATIVE, OURS = "10.0.3.2", "10.0.2.15"
AS_POSTGRES = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
REDIS = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--appendonly", "no", "--dir", "/tmp"]
APACHE = """ServerRoot {place}
Listen 80
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
ServerName localhost
PidFile {place}/apache.pid
DefaultRuntimeDir {place}
User www-data
Group www-data
DocumentRoot {place}/site
ErrorLog {place}/apache.log
KeepAlive On
MaxKeepAliveRequests 0
StartServers 8
MinSpareServers 8
MaxRequestWorkers 32
"""
# Prints the nanoseconds of one turn; /bench is the directory to work in.
PYTHON = "/usr/bin/python3 -c pass; s=${EPOCHREALTIME/./}; for i in {1..20}; do /usr/bin/python3 -c pass; done; echo $(((${EPOCHREALTIME/./}-s)*50))"
MAKE = r"""
d=$(mktemp -d); cd $d
for i in $(seq 1 24); do
  printf '#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\nint f%d(int x){char b[64];snprintf(b,64,"%%d",x);return strlen(b)+atoi(b)*%d;}\n' $i $i > f$i.c
done
{ echo '#include <stdio.h>'; for i in $(seq 1 24); do echo "int f$i(int);"; done; echo 'int main(){int s=0;'
  for i in $(seq 1 24); do echo "s+=f$i(s);"; done; echo 'printf("%d\n",s);return 0;}'; } > main.c
printf 'OBJS=main.o %s\nprog: $(OBJS)\n\tgcc -o $@ $^\n%%.o: %%.c\n\tgcc -O1 -c -o $@ $<\n' "$(for i in $(seq 1 24); do printf 'f%d.o ' $i; done)" > Makefile
s=${EPOCHREALTIME/./}; make -s -j2 >&2; ./prog >&2; e=${EPOCHREALTIME/./}; rm -rf $d; echo $(((e-s)*1000))
"""


def run(*words, **options):
    return subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)


class Servers:
    """One image of all packages, two namespaces, and what runs in them."""

    def __init__(self, bench, swiftlet, own, peer):
        self.bench, self.swiftlet, self.own, self.peer = bench, swiftlet, own, peer
        self.work, self.seconds = bench.work, bench.options.seconds
        self.image = os.path.join(self.work, "servers.img")
        root = os.path.join(self.work, "root")
        run(os.path.join(ROOT, "Tests", "System", "debian-root"), root, *PACKAGES)
        self.site(os.path.join(root, "bench"))
        os.makedirs(os.path.join(root, "var/run/postgresql"), exist_ok=True)
        run(swiftlet, "build", "-o", self.image, "--root", root, "--", "/bin/bash")

    def site(self, place):
        os.makedirs(os.path.join(place, "site"), exist_ok=True)
        with open(os.path.join(place, "site", "index.html"), "w") as file:
            file.write("<h1>hello</h1>\n")
        with open(os.path.join(place, "apache.conf"), "w") as file:
            file.write(APACHE.format(place=place if place.startswith(self.work + "/native") else "/bench"))

    def client(self, *words):
        done = subprocess.run(["ip", "netns", "exec", self.own, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            print(f"{' '.join(words)}: {done.stderr[-500:]}", file=sys.stderr)
        return done.stdout

    def started(self, command, address, port, measure):
        """What `measure` gives while the server runs."""
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                                  start_new_session=True)
        try:
            for _ in range(150):
                if server.poll() is not None:
                    print(f"{' '.join(command)}: status {server.returncode}", file=sys.stderr)
                    return {}
                if subprocess.run(["ip", "netns", "exec", self.own, "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"],
                                  stderr=subprocess.DEVNULL).returncode == 0:
                    break
                time.sleep(0.1)
            time.sleep(0.5)
            return measure(address)
        finally:
            processes.stop(server, 20)

    def both(self, native, ours, port, measure, options=()):
        """Results of `measure` natively and here, in turn: lists of dictionaries."""
        results = ([], [])
        for _ in range(self.bench.options.repeats):
            results[0].append(self.started(["ip", "netns", "exec", self.peer, *native], NATIVE, port, measure))
            command = ["ip", "netns", "exec", self.own, self.swiftlet, "run", "-m", "1G", "--net", "tap:tap0", *options, self.image]
            results[1].append(self.started([*command, "-c", ours], OURS, port, measure))
        return results

    def rows(self, results, unit, goals):
        for name, (must, aim) in goals.items():
            if self.bench.wanted(name):
                self.bench.row(name, unit, *[[one.get(name) for one in side] for side in results], must, aim, higher=True)

    # PostgreSQL ----------------------------------------------------------------------------------------------

    def postgres(self):
        goals = {"pgbench select-only, 8 clients": (0.7, 1.2), "pgbench TPC-B, 8 clients, ext4 volume": (0.8, 1.2)}
        if not any(self.bench.wanted(name) for name in goals):
            return
        data, mounted = os.path.join(self.work, "data"), os.path.join(self.work, "cluster")
        os.makedirs(mounted)
        self.prepare_postgres(data)
        volumes = [os.path.join(self.work, name + ".ext4") for name in ("native", "ours")]
        for volume in volumes:
            run("mke2fs", "-q", "-t", "ext4", "-d", data, volume, "1500M")
        run("mount", "-o", "loop", volumes[0], mounted)
        server = ["postgres", "-c", "listen_addresses=*", "-c", "unix_socket_directories=/tmp"]
        try:
            native = [*AS_POSTGRES, POSTGRES + server[0], "-D", mounted + "/pg", *server[1:]]
            ours = f"exec {' '.join(AS_POSTGRES)} {POSTGRES}postgres -D /data/pg -c listen_addresses='*' -c unix_socket_directories=/tmp"
            results = self.both(native, ours, 5432, self.pgbench, ["-v", volumes[1] + ":/data"])
        finally:
            run("umount", mounted)
        self.rows(results, "transactions/s", goals)

    def prepare_postgres(self, data):
        os.makedirs(data)
        shutil.chown(data, "postgres", "postgres")
        cluster = data + "/pg"
        run(*AS_POSTGRES, POSTGRES + "initdb", "-D", cluster, "-A", "trust", "--no-locale", "-E", "UTF8")
        with open(cluster + "/pg_hba.conf", "a") as file:
            file.write("host all all 0.0.0.0/0 trust\n")
        options = f"-c listen_addresses= -c unix_socket_directories={data} -c fsync=off"
        run(*AS_POSTGRES, POSTGRES + "pg_ctl", "-D", cluster, "-w", "-o", options, "-l", data + "/log", "start")
        run(*AS_POSTGRES, "pgbench", "-q", "-i", "-s", "10", "-h", data, "postgres")
        run(*AS_POSTGRES, POSTGRES + "pg_ctl", "-D", cluster, "-w", "stop")

    def pgbench(self, address):
        found = {}
        # What is measured is not how the tables come into memory.
        self.client("pgbench", "-h", address, "-U", "postgres", "-n", "-c", "8", "-j", "2", "-T", "3", "-S", "postgres")
        for name, flags in (("pgbench select-only, 8 clients", ["-S"]), ("pgbench TPC-B, 8 clients, ext4 volume", [])):
            text = self.client("pgbench", "-h", address, "-U", "postgres", "-n", "-c", "8", "-j", "2", "-T", str(self.seconds), *flags,
                               "postgres")
            rate = re.search(r"tps = ([0-9.]+) \(without", text)
            if rate and "failed transactions: 0 " in text:
                found[name] = float(rate[1])
        return found

    # Redis -----------------------------------------------------------------------------------------------------

    def redis(self):
        goals = {f"redis {what}, 50 clients, pipeline {depth}": goal for depth, goal in ((1, (0.8, 1.3)), (16, (1.0, 1.5)))
                 for what in ("SET", "GET")}
        if not any(self.bench.wanted(name) for name in goals):
            return
        ours = " ".join("''" if word == "" else word for word in REDIS)
        self.rows(self.both(REDIS, "exec " + ours, 6379, self.redis_benchmark), "requests/s", goals)

    def redis_benchmark(self, address):
        found = {}
        for depth, count in ((1, 12000 * self.seconds), (16, 100000 * self.seconds)):
            text = self.client("redis-benchmark", "-h", address, "-c", "50", "-n", str(count), "-t", "set,get", "-P", str(depth), "--csv")
            for line in csv.reader(text.splitlines()):
                if line and line[0] in ("SET", "GET"):
                    found[f"redis {line[0]}, 50 clients, pipeline {depth}"] = float(line[1])
        return found

    # Apache ----------------------------------------------------------------------------------------------------

    def apache(self):
        name = "Apache prefork, small file"
        if not self.bench.wanted(name):
            return
        place = os.path.join(self.work, "native")
        self.site(place)

        def wrk(address):
            text = self.client("wrk", "-t1", "-c16", f"-d{self.seconds}s", f"http://{address}/index.html")
            rate = re.search(r"Requests/sec:\s+([0-9.]+)", text)
            return {name: float(rate[1])} if rate and "Non-2xx" not in text else {}

        native = ["apache2", "-f", place + "/apache.conf", "-D", "FOREGROUND"]
        self.rows(self.both(native, "exec apache2 -f /bench/apache.conf -D FOREGROUND", 80, wrk), "requests/s", {name: (0.7, 1.3)})

    # Tools -----------------------------------------------------------------------------------------------------

    def tools(self):
        """Times inside a running system; the table has how many in a second."""
        for name, script, must, aim in (("make -j2, 25 C files", MAKE, 0.7, 0.95), ("python3 -c pass", PYTHON, 0.8, 1.1)):
            if not self.bench.wanted(name):
                continue
            native, ours = [], []
            for _ in range(self.bench.options.repeats):
                for rates, command in ((native, ["bash", "-c", script]), (ours, [self.swiftlet, "run", "-m", "1G", self.image, "-c", script])):
                    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
                    text = done.stdout.split()
                    rates.append(1e9 / float(text[0]) if done.returncode == 0 and text else None)
            self.bench.row(name, "a second", native, ours, must, aim, higher=True)


def measure(bench, swiftlet, own, peer):
    """All rows of this file."""
    servers = Servers(bench, swiftlet, own, peer)
    for part in (servers.postgres, servers.redis, servers.apache, servers.tools):
        part()


NAMES = ["pgbench select-only TPC-B ext4 volume", "redis SET GET pipeline", "Apache prefork, small file", "make -j2, 25 C files",
         "python3 -c pass"]
