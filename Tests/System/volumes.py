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


def shell(suite, work, volume, script, option=""):
    image = os.path.join(work, "volumes.img")
    return suite.run([SWIFTLET, "run", "-m", "128m", "-v", f"{volume}:/data{option}", image, "-c", script], seconds=60)


def calls(suite, work):
    volume = os.path.join(work, "calls.ext4")
    program = suite.compile_c(work, "filesystem", PROGRAM, "-w")
    native_directory = os.path.join(work, "native")
    os.mkdir(native_directory)
    ours = suite.run([SWIFTLET, "run", "-v", f"64m@{volume}:/data", program, "/data"], seconds=60)
    native = suite.run([program, native_directory], seconds=60)
    suite.check("a volume answers as Linux's file systems do", ours[:2] == native[:2],
                difference(ours, native))
    clean(suite, "e2fsck finds the volume clean", volume)


def difference(ours, native):
    pairs = zip(ours[1].decode().splitlines(), native[1].decode().splitlines())
    return f"{ours[0]} {native[0]} {ours[2]}\n" + "\n".join(f"{a}, native {b}" for a, b in pairs if a != b)


def persistence(suite, work):
    volume = os.path.join(work, "data.ext4")
    script = ("cd /data; mkdir -p a/b; i=0; while [ $i -lt 300 ]; do echo $i > a/b/$i; i=$((i+1)); done; "
              "cp /bin/bash big || cp /usr/bin/bash big; ln -s a/b link; mv a/b/7 a/seven; rm a/b/8")
    made = shell(suite, work, "64m@" + volume, script)
    suite.check("a shell writes to a volume", made[0] == 0, str(made))
    clean(suite, "e2fsck finds it clean afterwards", volume)
    told = subprocess.run(["/usr/sbin/debugfs", "-R", "cat a/seven", volume], capture_output=True).stdout
    suite.check("debugfs reads what was written", told == b"7\n", str(told))
    again = shell(suite, work, volume, "cat /data/a/seven /data/link/299; ls /data/a/b | wc -l; rm -r /data/a; ls /data")
    suite.check("the next run finds it", again[:2] == (0, b"7\n299\n298\nbig\nlink\nlost+found\n"), str(again))
    clean(suite, "and leaves it clean", volume)
    refused = shell(suite, work, volume, "echo x > /data/new; mkdir /data/d; cat /data/none; ls /data", ":ro")
    suite.check("a read-only volume refuses to be written",
                refused[0] == 0 and refused[2].count(b"Read-only file system") == 2, str(refused))
    full = shell(suite, work, volume, "cd /data; dd if=/dev/zero of=fill bs=65536 2>&1 | tail -1; rm fill; echo x > y && cat y")
    suite.check("a full volume says so, and goes on", full[0] == 0 and full[1].endswith(b"x\n"), str(full))
    clean(suite, "and it is clean after that", volume)


def directories(suite, work):
    tree = os.path.join(work, "tree")
    os.makedirs(os.path.join(tree, "deep", "er"))
    with open(os.path.join(tree, "deep", "er", "file"), "w") as file:
        file.write("packed\n")
    busybox = shutil.which("busybox")
    packed = suite.run([SWIFTLET, "run", "-v", f"{tree}:/tree:ro", busybox, "cat", "/tree/deep/er/file"])
    suite.check("a directory is packed at start", packed[:2] == (0, b"packed\n"), str(packed))
    refused = suite.run([SWIFTLET, "run", "-v", f"{tree}:/tree", busybox, "true"])
    suite.check("a directory needs :ro", refused[0] == 125 and b":ro" in refused[2], str(refused))
    broken = os.path.join(work, "broken")
    with open(broken, "wb") as file:
        file.write(b"x" * 1000000)
    refused = suite.run([SWIFTLET, "run", "-v", f"{broken}:/data", busybox, "true"])
    suite.check("what is no file system is refused", refused[0] == 125 and b"ext4" in refused[2], str(refused))


def crashes(suite, work):
    volume = os.path.join(work, "crash.ext4")
    program = suite.compile_c(work, "writer", WRITER, "-w")
    good = True
    for turn in range(4):
        command = [SWIFTLET, "run", "-v", f"32m@{volume}:/data", program]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        time.sleep(1.5 + turn * 0.3)
        writer.send_signal(signal.SIGKILL)
        lines = [line for line in writer.communicate()[0].split(b"\n")[:-1] if line.isdigit()]
        # The file of the last number but one was synchronised, and removed if 3 divides the number.
        last = [int(line) for line in lines[:-1] if int(line) % 3][-1]
        read = shell(suite, work, volume, f"cat /data/f{last % 200} | tr -d 'x\\000'; sync")
        good = good and read[0] == 0 and read[1].startswith(str(last).encode())
        if not good:
            suite.check("files synchronised before a crash", False, f"{last} {read}")
            return
    suite.check("files synchronised before a crash are there after it", good)
    clean(suite, "the volume is clean after crashes", volume)


def databases(suite, work):
    sqlite = shutil.which("sqlite3")
    if not sqlite:
        return
    for mode in ("delete", "wal"):
        volume = os.path.join(work, f"{mode}.ext4")
        command = [SWIFTLET, "run", "-i", "-v", f"64m@{volume}:/data", sqlite, "/data/db"]
        ours = suite.run(command, (MAKE_DATABASE % mode).encode(), seconds=60)
        suite.check(f"sqlite3, {mode} journal", ours[0] == 0 and ours[1].endswith(b"1\nok\n"), str(ours))
        clean(suite, f"the volume after sqlite3, {mode} journal", volume)


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
    for function in (calls, persistence, directories, crashes, databases, power_cuts):
        function(suite, work)
