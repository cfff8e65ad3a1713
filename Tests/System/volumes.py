"""Volumes: ext4 file systems that programs in an image use, checked by e2fsprogs from outside."""
import os
import random
import shutil
import signal
import struct
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SWIFTLET = os.path.join(os.path.dirname(os.path.dirname(HERE)), "bin", "swiftlet")
# Each host, and how long a run may take there.
HOSTS = {"linux": ([], 60)}
if shutil.which("qemu-system-x86_64"):
    HOSTS["bare"] = (["--host=bare"], 180)
    HOSTS["bare, q35"] = (["--host=bare", "--machine=q35", "--cpus=1"], 180)

# What a program may expect of a file system; run natively in a directory, and on a volume: the answers must agree.
PROGRAM = r"""#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
static char big[300000],back[300000];
static void say(const char*what,long value){printf("%s %ld\n",what,value<0?-(long)errno:value);}
int main(int n,char**v){if(chdir(v[1]))return 1;
for(int i=0;i<(int)sizeof big;i++)big[i]=i*7+i/251;
int f=open("file",O_RDWR|O_CREAT|O_EXCL,0640);say("open",f>=0);
say("write",write(f,big,sizeof big));say("fsync",fsync(f));
say("pread",pread(f,back,sizeof back,0));say("same",memcmp(big,back,sizeof big)==0);
say("hole",pwrite(f,"end",3,5000000));struct stat s;fstat(f,&s);say("size",s.st_size);say("mode",s.st_mode&07777);
say("sparse",s.st_blocks*512<1000000);say("zeros",pread(f,back,100,4000000)==100&&back[50]==0);
char*m=mmap(0,300000,PROT_READ|PROT_WRITE,MAP_SHARED,f,0);say("mmap",m!=MAP_FAILED);
say("mapped",memcmp(m,big,sizeof big)==0);memcpy(m+100000,"through the mapping",19);
say("msync",msync(m,300000,MS_SYNC));pread(f,back,19,100000);say("seen",memcmp(back,"through the mapping",19)==0);
pwrite(f,"write",5,200000);say("shown",memcmp(m+200000,"write",5)==0);
if(!fork()){memcpy(m+50,"child",5);_exit(0);}wait(0);say("child",memcmp(m+50,"child",5)==0);munmap(m,300000);
say("truncate",ftruncate(f,100010));say("grow",ftruncate(f,200000));pread(f,back,100,100000);
say("kept",memcmp(back,"through the",10)==0);say("cleared",back[60]==0);
say("punch",fallocate(f,3,4096,8192));pread(f,back,10000,4000);say("punched",back[200]==0&&back[9000]!=0);
say("allocate",fallocate(f,0,300000,100000));fstat(f,&s);say("size",s.st_size);
say("mkdir",mkdir("dir",0755));say("again",mkdir("dir",0755));say("rmdir",rmdir("."));
for(int i=0;i<500;i++){char name[64];sprintf(name,"dir/entry-%d",i);close(open(name,O_CREAT|O_WRONLY,0600));}
DIR*d=opendir("dir");long count=0;while(readdir(d))count++;say("entries",count);
rewinddir(d);struct dirent*e;count=0;while((e=readdir(d)))if(e->d_name[0]!='.')count+=!unlinkat(dirfd(d),e->d_name,0);
closedir(d);say("removed",count);stat("dir",&s);say("links",s.st_nlink);
say("link",link("file","dir/other"));fstat(f,&s);say("links",s.st_nlink);
say("symlink",symlink("file","soft"));say("readlink",readlink("soft",back,100));
say("rename",rename("dir/other","renamed"));say("missing",access("dir/other",0));
int a=open("new",O_CREAT|O_RDWR|O_APPEND,0644);write(a,"one",3);lseek(a,0,SEEK_SET);write(a,"two",3);
say("append",lseek(a,0,SEEK_END));say("over",rename("new","renamed"));fstat(f,&s);say("links",s.st_nlink);
say("unlink",unlink("file"));fstat(f,&s);say("links",s.st_nlink);say("alive",pread(f,back,10,100000));
say("rmdir",rmdir("dir"));say("gone",rmdir("dir"));say("long",close(open(memset(back,'n',255),O_CREAT|O_RDWR,0600)));
memset(back,'n',256);back[256]=0;say("longer",open(back,O_CREAT|O_RDWR,0600));
struct timespec t[2]={{1000,123456789},{2000,987654321}};say("utimens",futimens(a,t));fstat(a,&s);
say("seconds",s.st_mtim.tv_sec);say("nanoseconds",s.st_mtim.tv_nsec);say("chmod",fchmod(a,04711));fstat(a,&s);
say("mode",s.st_mode&07777);int dfd=open(".",O_RDONLY);say("directory",fsync(dfd));
say("fifo",mkfifo("fifo",0600));stat("fifo",&s);say("isfifo",S_ISFIFO(s.st_mode));say("sync",(sync(),0));return 0;}
"""

WRITER = r"""#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(void){char b[5000];memset(b,'x',sizeof b);for(int i=0;i<100000;i++){char n[40];sprintf(n,"/data/f%d",i%200);
int f=open(n,O_CREAT|O_TRUNC|O_WRONLY,0644);sprintf(b,"%d",i);write(f,b,sizeof b);fsync(f);close(f);
printf("%d\n",i);fflush(stdout);if(i%3==0)unlink(n);}return 0;}
"""

MAKE_DATABASE = """pragma journal_mode=%s; create table if not exists t(a integer primary key, b text);
with recursive c(x) as (select 1 union all select x+1 from c where x<2000)
insert into t(b) select hex(randomblob(50)) from c; delete from t where a%%3=0; update t set b=b||'x' where a%%5=0;
select count(*)>0 from t; pragma integrity_check;
"""


def clean(suite, name, volume):
    status, out, err = suite.run(["/usr/sbin/e2fsck", "-fn", volume])
    suite.check(name, status == 0, (out + err).decode())


def image_of(suite, work):
    tools = ["cat", "cp", "dd", "df", "ln", "ls", "mkdir", "mv", "rm", "sync", "tail", "tr", "wc"]
    adds = [part for tool in tools for part in ("--add", shutil.which(tool))]
    return suite.build(work, "volumes", shutil.which("bash"), *adds)


class Host:
    """Runs with volumes on one of the hosts."""

    def __init__(self, suite, work, name):
        self.suite, self.work, self.name = suite, work, name
        self.options, self.seconds = HOSTS[name]

    def check(self, name, good, detail=""):
        self.suite.check(f"volumes, {self.name}: {name}", good, detail)

    def clean(self, name, volume):
        clean(self.suite, f"volumes, {self.name}: {name}", volume)

    def file(self, name):
        return os.path.join(self.work, self.name.replace(", ", "-") + "-" + name)

    def command(self, *arguments):
        return [SWIFTLET, "run", *self.options, *arguments]

    def run(self, *arguments, **options):
        return self.suite.run(self.command(*arguments), seconds=self.seconds, **options)

    def shell(self, volume, script, option=""):
        image = os.path.join(self.work, "volumes.img")
        return self.run("-m", "128m", "-v", f"{volume}:/data{option}", image, "-c", script)


def calls(host):
    volume = host.file("calls.ext4")
    program = host.suite.compile_c(host.work, "filesystem", PROGRAM, "-w")
    native_directory = host.file("native")
    os.mkdir(native_directory)
    ours = host.run("-v", f"64m@{volume}:/data", program, "/data")
    native = host.suite.run([program, native_directory], seconds=60)
    host.check("answers as Linux's file systems do", ours[:2] == native[:2], difference(ours, native))
    host.clean("e2fsck finds the volume clean", volume)


def difference(ours, native):
    pairs = zip(ours[1].decode().splitlines(), native[1].decode().splitlines())
    return f"{ours[0]} {native[0]} {ours[2]}\n" + "\n".join(f"{a}, native {b}" for a, b in pairs if a != b)


def persistence(host):
    volume = host.file("data.ext4")
    script = ("cd /data; mkdir -p a/b; i=0; while [ $i -lt 300 ]; do echo $i > a/b/$i; i=$((i+1)); done; "
              "cp /bin/bash big || cp /usr/bin/bash big; ln -s a/b link; mv a/b/7 a/seven; rm a/b/8")
    made = host.shell("64m@" + volume, script)
    host.check("a shell writes to a volume", made[0] == 0, str(made))
    host.clean("e2fsck finds it clean afterwards", volume)
    told = subprocess.run(["/usr/sbin/debugfs", "-R", "cat a/seven", volume], capture_output=True).stdout
    host.check("debugfs reads what was written", told == b"7\n", str(told))
    again = host.shell(volume, "cat /data/a/seven /data/link/299; ls /data/a/b | wc -l; rm -r /data/a; ls /data")
    host.check("the next run finds it", again[:2] == (0, b"7\n299\n298\nbig\nlink\nlost+found\n"), str(again))
    host.clean("and leaves it clean", volume)
    refused = host.shell(volume, "echo x > /data/new; mkdir /data/d; cat /data/none; ls /data", ":ro")
    host.check("a read-only volume refuses to be written",
               refused[0] == 0 and refused[2].count(b"Read-only file system") == 2, str(refused))
    full = host.shell(volume, "cd /data; dd if=/dev/zero of=fill bs=65536 2>&1 | tail -1; rm fill; echo x > y && cat y")
    host.check("a full volume says so, and goes on", full[0] == 0 and full[1].endswith(b"x\n"), str(full))
    host.clean("and it is clean after that", volume)


def cached(host):
    """Pages of a volume's files can be given up: they count as available, as on Linux."""
    volume = host.file("cached.ext4")
    done = host.shell("64m@" + volume, "cat /proc/meminfo; dd if=/dev/zero of=/data/big bs=1M count=20 2>/dev/null; sync; "
                      "cat /proc/meminfo")
    values = [[int(line.split()[1]) for line in done[1].decode().splitlines() if line.startswith(name)]
              for name in ("MemAvailable:", "Cached:", "MemFree:")]
    good = all(len(pair) == 2 for pair in values) and values[1][1] - values[1][0] >= 20 << 10
    host.check("cached pages are told and count as available",
               good and values[0][0] - values[0][1] < 4 << 10 < values[2][0] - values[2][1], str(values))


def several(host):
    """Disks keep the order of their options, and a run keeps others off its files."""
    names = [host.file(f"several-{i}.ext4") for i in range(3)]
    mounts = [part for i, name in enumerate(names) for part in ("-v", f"8m@{name}:/disk{i}")]
    image = os.path.join(host.work, "volumes.img")
    made = host.run(*mounts, image, "-c", "for i in 0 1 2; do echo $i > /disk$i/name; done")
    told = [subprocess.run(["/usr/sbin/debugfs", "-R", "cat name", name], capture_output=True).stdout for name in names]
    host.check("each of three volumes is the one that was named", told == [b"0\n", b"1\n", b"2\n"], f"{made} {told}")
    holder = subprocess.Popen(host.command("-i", "-v", f"{names[0]}:/data", image, "-c", "echo here; read x"),
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    refused = host.run("-v", f"{names[0]}:/data", image, "-c", "true")
    host.check("a volume in use is refused", refused[0] == 125 and b"in use" in refused[2], str(refused))
    holder.communicate(b"\n")


def directories(host):
    tree = host.file("tree")
    os.makedirs(os.path.join(tree, "deep", "er"))
    with open(os.path.join(tree, "deep", "er", "file"), "w") as file:
        file.write("packed\n")
    busybox = shutil.which("busybox")
    packed = host.run("-v", f"{tree}:/tree:ro", busybox, "cat", "/tree/deep/er/file")
    host.check("a directory is packed at start", packed[:2] == (0, b"packed\n"), str(packed))
    refused = host.run("-v", f"{tree}:/tree", busybox, "true")
    host.check("a directory needs :ro", refused[0] == 125 and b":ro" in refused[2], str(refused))
    broken = host.file("broken")
    with open(broken, "wb") as file:
        file.write(b"x" * 1000000)
    refused = host.run("-v", f"{broken}:/data", busybox, "true")
    host.check("what is no file system is refused", refused[0] == 125 and b"ext4" in refused[2], str(refused))


def crashes(host):
    volume = host.file("crash.ext4")
    program = host.suite.compile_c(host.work, "writer", WRITER, "-w")
    good = True
    for turn in range(4):
        writer = subprocess.Popen(
            host.command("-v", f"32m@{volume}:/data", program), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        lines = [writer.stdout.readline() for _ in range(60 + 17 * turn)]
        writer.send_signal(signal.SIGKILL)
        lines += writer.communicate()[0].split(b"\n")[:-1]
        # The file of the last number but one was synchronised, and removed if 3 divides the number.
        last = [int(line) for line in lines[:-1] if line.strip().isdigit() and int(line) % 3][-1]
        read = host.shell(volume, f"cat /data/f{last % 200} | tr -d 'x\\000'; sync")
        good = good and read[0] == 0 and read[1].startswith(str(last).encode())
        if not good:
            host.check("files synchronised before a crash", False, f"{last} {read}")
            return
    host.check("files synchronised before a crash are there after it", good)
    host.clean("the volume is clean after crashes", volume)


def databases(host):
    sqlite = shutil.which("sqlite3")
    if not sqlite:
        return
    for mode in ("delete", "wal"):
        volume = host.file(f"{mode}.ext4")
        ours = host.run("-i", "-v", f"64m@{volume}:/data", sqlite, "/data/db", stdin=(MAKE_DATABASE % mode).encode())
        host.check(f"sqlite3, {mode} journal", ours[0] == 0 and ours[1].endswith(b"1\nok\n"), str(ours))
        host.clean(f"the volume after sqlite3, {mode} journal", volume)


# Writes until the device underneath has no room: the program must hear of it, and may go on.
FILLER = r"""#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(void){static char b[65536];memset(b,'x',sizeof b);int f=open("/data/fill",O_CREAT|O_WRONLY,0644);int bad=0;
for(int i=0;i<400&&!bad;i++){if(write(f,b,sizeof b)!=sizeof b)bad=errno;if(!bad&&fsync(f))bad=errno;}
printf("%s\n",bad==EIO||bad==ENOSPC||bad==EROFS?"told":"not told");return 0;}
"""


def full_device(host):
    """The file of the volume is sparse, and the file system below it is smaller."""
    place = host.file("small")
    os.mkdir(place)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", place], capture_output=True).returncode:
        return
    try:
        volume = os.path.join(place, "volume")
        program = host.suite.compile_c(host.work, "filler", FILLER, "-w")
        ours = host.run("-v", f"64m@{volume}:/data", program)
        host.check("a program hears that the device below is full", ours[:2] == (0, b"told\n"), str(ours))
    finally:
        subprocess.run(["umount", place])


def disk_log(data):
    """Writes (offset, bytes) and flushes (None) in order, of the first disk."""
    at = 0
    while at < len(data):
        kind, disk, offset, length = struct.unpack_from("<4Q", data, at)
        at += 32
        if disk == 0:
            yield (offset, data[at:at + length]) if kind == 1 else None
        at += length


def after_cut(work, image, events, cut, chance):
    """The disk when power is cut after `cut` events: unflushed blocks are lost or not, one by one. (A block is written
    whole or not at all: ext4's superblock, with its checksum at the end, needs that of a disk.)"""
    disk, waiting = bytearray(image), []
    for event in events[:cut]:
        if event is not None:
            waiting += [(event[0] + at, event[1][at:at + 4096]) for at in range(0, len(event[1]), 4096)]
            continue
        for offset, part in waiting:
            disk[offset:offset + len(part)] = part
        waiting = []
    for offset, part in waiting:
        if chance.random() < 0.5:
            disk[offset:offset + len(part)] = part
    path = os.path.join(work, "cut.ext4")
    with open(path, "wb") as file:
        file.write(disk)
    return path


def database_after(work, volume, sqlite):
    """What sqlite3 says of the database on a volume after a power cut, and how many rows it has."""
    checks = subprocess.run(["/usr/sbin/e2fsck", "-fy", volume], capture_output=True)
    if checks.returncode > 1:
        return "e2fsck: " + checks.stdout.decode(), 0
    directory = os.path.join(work, "cut")
    shutil.rmtree(directory, ignore_errors=True)
    os.mkdir(directory)
    commands = "".join(f"dump {name} {directory}/{name}\n" for name in ("db", "db-wal", "db-journal"))
    subprocess.run(["/usr/sbin/debugfs", "-f", "-", volume], input=commands.encode(), capture_output=True)
    for name in os.listdir(directory):
        # debugfs makes the file before it finds that there is none to dump.
        if os.path.getsize(os.path.join(directory, name)) == 0:
            os.unlink(os.path.join(directory, name))
    told = subprocess.run([sqlite, os.path.join(directory, "db"), "pragma integrity_check; select count(*) from t;"],
                          capture_output=True).stdout.decode().split()
    return (told[0], int(told[1])) if len(told) == 2 else (" ".join(told) or "nothing", 0)


def power_cuts(suite, work):
    """sqlite3 commits on a volume while all writes and flushes are recorded; then power is cut after every Nth of them.
    SWIFTLET_LONG=1 cuts after every one."""
    sqlite = shutil.which("sqlite3")
    if not sqlite:
        return
    for mode in ("delete", "wal"):
        volume, log = os.path.join(work, f"cut-{mode}.ext4"), os.path.join(work, f"cut-{mode}.log")
        subprocess.run(["/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", volume, "12m"], check=True)
        run = [SWIFTLET, "run", "-i", "-v", f"{volume}:/data", sqlite, "/data/db"]
        begin = f"pragma journal_mode={mode}; pragma wal_autocheckpoint=20; create table t(a integer primary key, b text);"
        suite.run(run, begin.encode(), seconds=60)
        with open(volume, "rb") as file:
            image = file.read()
        script = f"pragma synchronous=full; pragma wal_autocheckpoint=20;" + "".join(
            f"insert into t(b) values(hex(randomblob({40 + turn * 37 % 900}))); " +
            (f"update t set b=b||'x' where a%7=0;" if turn % 5 == 4 else "") for turn in range(40))
        with open(log, "wb") as file:
            done = subprocess.run(run, input=script.encode(), capture_output=True, pass_fds=[file.fileno()],
                                  env={**os.environ, "SWIFTLET_TEST_DISK_LOG": str(file.fileno())}, timeout=60)
        with open(log, "rb") as file:
            events = list(disk_log(file.read()))
        step = 1 if os.environ.get("SWIFTLET_LONG") else max(1, len(events) // 60)
        chance, rows, bad = random.Random(4), 0, []
        for cut in [*range(0, len(events), step), len(events)]:
            told, count = database_after(work, after_cut(work, image, events, cut, chance), sqlite)
            # What was committed before an earlier flush stays: rows never get fewer from cut to cut but for the last ones.
            if told != "ok" or count < rows - 1:
                bad.append((cut, told, count, rows))
            rows = max(rows, count)
        suite.check(f"sqlite3, {mode} journal: {len(events) // step + 1} of {len(events)} power cuts, each database is whole",
                    done.returncode == 0 and rows == 40 and not bad, f"{done} {rows} {bad[:5]}")


def tests(suite, work):
    image_of(suite, work)
    for name in HOSTS:
        host = Host(suite, work, name)
        for function in (calls, persistence, cached, several, directories, crashes, databases, full_device):
            # The other machine type differs in how a disk is attached, no more.
            if name != "bare, q35" or function in (calls, several):
                function(host)
    power_cuts(suite, work)
