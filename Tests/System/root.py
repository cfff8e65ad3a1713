"""The root: ext4 in the image file, mounted in place; what --persist keeps; access control lists and capabilities."""
import os
import shutil
import signal
import struct
import subprocess
import time

import hosts
from volumes import PROGRAM, SWIFTLET, WRITER, difference

ACCESS = r"""#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
struct entry{unsigned short tag,permissions;unsigned identity;};
struct list{unsigned version;struct entry entries[8];};
static void say(const char*what,long value){printf("%s %ld\n",what,value<0?-(long)errno:value);fflush(stdout);}
static int set(const char*path,const char*kind,const char*text){struct list list={2};int n=0;unsigned tag,permissions,who;
char name[64];sprintf(name,"system.posix_acl_%s",kind);
while(sscanf(text,"%u:%u:%u",&tag,&permissions,&who)==3){list.entries[n++]=(struct entry){tag,permissions,who};
text=strchr(text,' ');if(!text)break;text++;}return setxattr(path,name,&list,4+8*n,0);}
static void show(const char*path,const char*kind){struct list list;char name[64];sprintf(name,"system.posix_acl_%s",kind);
long size=getxattr(path,name,&list,sizeof list);say(name,size);
for(int i=0;i<(size-4)/8;i++)printf(" %u:%u:%d",list.entries[i].tag,list.entries[i].permissions,(int)list.entries[i].identity);
struct stat s;stat(path,&s);printf(" mode %o\n",s.st_mode);}
static void as(int user,int group,const char*path){fflush(stdout);if(!fork()){setgroups(0,0);setgid(group);setuid(user);
printf("user %d group %d:",user,group);for(int i=0;i<3;i++){int f=open(path,i);printf(" %d",f<0?-errno:0);}
printf(" %d\n",access(path,X_OK)?-errno:0);fflush(stdout);_exit(0);}wait(0);}
int main(int n,char**v){if(chdir(v[1]))return 1;umask(022);chmod(".",0755);
close(open("f",O_CREAT|O_RDWR,0640));show("f","access");
say("set",set("f","access","1:6:0 2:4:1001 2:7:1002 4:0:0 8:6:77 16:6:0 32:0:0"));show("f","access");
as(1001,1,"f");as(1002,1,"f");as(1003,77,"f");as(1003,1,"f");as(1003,0,"f");
say("chmod",chmod("f",0604));show("f","access");as(1002,1,"f");as(1003,1,"f");
say("minimal",set("f","access","1:7:0 4:5:0 32:1:0"));show("f","access");
say("disorder",set("f","access","4:5:0 1:7:0 32:1:0"));say("no mask",set("f","access","1:7:0 2:1:5 4:5:0 32:1:0"));
say("default of a file",set("f","default","1:7:0 4:5:0 32:1:0"));
mkdir("d",0755);say("default",set("d","default","1:7:0 2:6:1001 4:5:0 16:7:0 32:0:0"));show("d","default");show("d","access");
close(open("d/f",O_CREAT|O_RDWR,0666));show("d/f","access");mkdir("d/d",0777);show("d/d","access");show("d/d","default");
mkfifo("d/p",0600);show("d/p","access");symlink("f","d/l");say("remove",removexattr("d/f","system.posix_acl_access"));
show("d/f","access");say("again",removexattr("d/f","system.posix_acl_access"));
char names[256];long size=listxattr("d",names,sizeof names);say("names",size);
unsigned capability[5]={0x02000001,1<<10,0,0,0};say("capability",setxattr("f","security.capability",capability,20,0));
chmod("f",0755);say("kept",getxattr("f","security.capability",names,256));say("chown",chown("f",5,5));
say("gone",getxattr("f","security.capability",names,256));return 0;}
"""
CAPABLE = r"""#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
int main(int n,char**v){if(n==1){unsigned capability[5]={0x02000001,(1<<10)|1,0,1,0};
if(setxattr(v[0],"security.capability",capability,20,0))perror("setxattr");
if(!fork()){setgid(1000);setuid(1000);execl(v[0],v[0],"show",(char*)0);_exit(1);}wait(0);return 0;}
char line[256];FILE*f=fopen("/proc/self/status","r");while(fgets(line,256,f))if(!strncmp(line,"Cap",3))fputs(line,stdout);}
"""


def merged(layer, image):
    """The root as the next run will see it: the image's blocks under those of the layer."""
    with open(layer, "rb") as file:
        magic, _, ready = struct.unpack("<8sII", file.read(16))
        identity, lower, blocks = file.read(16), *struct.unpack("<QQ", file.read(16))
        file.seek(4096)
        pages = (lower + 32767) // 32768
        bits = file.read(pages * 4096)
        start = 4096 * (1 + pages)
        output = layer + ".merged"
        with open(image, "rb") as lowest, open(output, "wb") as out:
            lowest.seek(-64, os.SEEK_END)
            offset = struct.unpack("<8sIIQQ", lowest.read(32))[3]
            for block in range(lower):
                source, place = (file, start) if bits[block >> 3] >> (block & 7) & 1 else (lowest, offset)
                source.seek(place + block * 4096)
                out.write(source.read(4096))
            # Past the image's end everything is the layer's; holes stay holes.
            place, end = start + lower * 4096, start + blocks * 4096
            while place < end:
                try:
                    data = os.lseek(file.fileno(), place, os.SEEK_DATA)
                except OSError:
                    break
                hole = os.lseek(file.fileno(), data, os.SEEK_HOLE)
                while data < hole:
                    part = os.pread(file.fileno(), min(1 << 20, hole - data), data)
                    os.pwrite(out.fileno(), part, data - start)
                    data += len(part)
                place = hole
            out.truncate(blocks * 4096)
    assert magic == b"SWLTLAYR" and ready == 1 and len(identity) == 16
    return output


def clean(suite, name, layer, image, *options):
    whole = merged(layer, image)
    done = subprocess.run(["/usr/sbin/e2fsck", *(options or ["-fn"]), whole], capture_output=True)
    suite.check(name, done.returncode in ((0, 1) if options else (0,)), (done.stdout + done.stderr).decode())
    os.unlink(whole)


def calls(suite, work):
    program = suite.compile_c(work, "filesystem", PROGRAM, "-w")
    directory = os.path.join(work, "calls")
    os.mkdir(directory)
    native = suite.run([program, directory], seconds=60)
    ours = suite.run([*hosts.command(), program, "/var/tmp"], seconds=60)
    suite.check("the root answers as Linux's file systems do", ours[:2] == native[:2], difference(ours, native))
    image = suite.build(work, "calls-root", program)
    layer = os.path.join(work, "calls.layer")
    ours = suite.run([*hosts.command(), "--persist", layer, image, "/var/tmp"], seconds=60)
    suite.check("a root that is kept does, too", ours[:2] == native[:2], difference(ours, native))
    clean(suite, "e2fsck finds it clean", layer, image)


def kept(suite, work):
    tools = [part for tool in ("cat", "cp", "ls", "mkdir", "mv", "rm", "wc") for part in ("--add", shutil.which(tool))]
    image = suite.build(work, "kept", shutil.which("bash"), *tools)
    layer = os.path.join(work, "kept.layer")

    def shell(script, *options):
        return suite.run([*hosts.command(), "-m", "128m", *(options or ["--persist", layer]), image, "-c", script], seconds=60)

    made = shell("mkdir -p /srv/a; i=0; while [ $i -lt 300 ]; do echo $i > /srv/a/$i; i=$((i+1)); done; "
                 "rm /srv/a/8; echo new > /etc/hosts; cp /etc/passwd /srv; rm /etc/group")
    suite.check("a run changes a root that is kept", made[0] == 0, str(made))
    clean(suite, "e2fsck finds the kept root clean", layer, image)
    again = shell("cat /srv/a/7 /etc/hosts; ls /srv/a | wc -l; cat /etc/group; cat /srv/passwd | wc -l")
    suite.check("the next run finds the changes", again[1] == b"7\nnew\n299\n3\n" and b"No such file" in again[2], str(again))
    plain = shell("cat /etc/hosts; ls /srv", "-i")
    suite.check("a run without --persist begins anew", b"localhost" in plain[1] and b"a" not in plain[1].split(), str(plain))
    other = suite.build(work, "other", shutil.which("bash"))
    refused = suite.run([*hosts.command(), "--persist", layer, other, "-c", "true"])
    suite.check("the changes of another image are refused with one line",
                refused[0] == 125 and b"another image" in refused[2] and refused[2].count(b"\n") == 1, str(refused))
    broken = os.path.join(work, "broken.layer")
    with open(broken, "wb") as file:
        file.write(b"x" * 100000)
    refused = suite.run([*hosts.command(), "--persist", broken, image, "-c", "true"])
    suite.check("a file that is none of ours is refused", refused[0] == 125 and b"swiftlet's" in refused[2], str(refused))
    holder = subprocess.Popen([*hosts.command(), "-i", "--persist", layer, image, "-c", "echo up; read x"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    refused = shell("true")
    suite.check("two runs cannot keep their changes in one file", refused[0] == 125 and b"in use" in refused[2], str(refused))
    holder.communicate(b"\n")


def crashes(suite, work):
    program = suite.compile_c(work, "writer", WRITER, "-w")
    empty = os.path.join(work, "empty")
    os.makedirs(empty, exist_ok=True)
    image = suite.build(work, "crash", program, "--add", f"{empty}:/data", "--add", shutil.which("cat"))
    layer = os.path.join(work, "crash.layer")
    for turn in range(4):
        writer = subprocess.Popen([*hosts.command(), "--persist", "256m@" + layer if turn == 0 else layer, image],
                                  stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        # Killed in the middle of its work, whatever the speed of the host.
        lines = [writer.stdout.readline() for _ in range(40 + turn * 25)]
        writer.send_signal(signal.SIGKILL)
        lines = [line for line in (b"".join(lines) + writer.communicate()[0]).split(b"\n")[:-1] if line.isdigit()]
        last = [int(line) for line in lines[:-1] if int(line) % 3][-1:]
        time.sleep(0.5)
        # What e2fsck's own replay of the journal finds, and what is there afterwards.
        whole = merged(layer, image)
        subprocess.run(["/usr/sbin/e2fsck", "-fy", whole], capture_output=True)
        check = subprocess.run(["/usr/sbin/e2fsck", "-fn", whole], capture_output=True)
        read = subprocess.run(["/usr/sbin/debugfs", "-R", f"cat data/f{(last or [1])[0] % 200}", whole], capture_output=True)
        os.unlink(whole)
        good = last and check.returncode == 0 and read.stdout.startswith(str(last[0]).encode())
        if not good:
            return suite.check("a kept root survives crashes", False, f"{last} {check.stdout} {read.stdout[:20]} {read.stderr}")
    suite.check("a kept root survives crashes", True)


def access(suite, work):
    program = suite.compile_c(work, "access", ACCESS, "-w")
    directory = os.path.join(work, "access-native")
    os.mkdir(directory)
    native = suite.run([program, directory], seconds=60)
    for place in ("/var/tmp", "/dev/shm"):
        ours = suite.run([*hosts.command(), program, place], seconds=60)
        suite.check(f"access control lists in {place} are Linux's", ours[:2] == native[:2], difference(ours, native))
    program = suite.compile_c(work, "capable", CAPABLE, "-w")
    ours = suite.run([*hosts.command(), program], seconds=60)
    wanted = {b"CapPrm:\t0000000100000401", b"CapEff:\t0000000100000401"}
    suite.check("a program gets the capabilities of its file", wanted <= set(ours[1].split(b"\n")), str(ours))


def trees(suite, work):
    """A tree of many files with odd names, long ones, deep directories and a 4 GB sparse file: packed, made by mke2fs, and
    written by us, read by Linux's tools and by us. SWIFTLET_LONG=1 makes 100,000 files."""
    count = 100000 if os.environ.get("SWIFTLET_LONG") else 3000
    program = os.path.join(work, "tree")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "root", "tree.c")
    subprocess.run(["gcc", "-O2", "-static", "-o", program, source], check=True)
    packed, tree = os.path.join(work, "packed"), os.path.join(work, "packed", "tree")
    os.makedirs(packed)
    subprocess.run([program, "make", tree, str(count)], check=True)
    native = suite.run([program, "walk", tree], seconds=300)
    image = os.path.join(work, "trees.img")
    shutil.copy(program, os.path.join(packed, "program"))
    subprocess.run([SWIFTLET, "build", "-o", image, "--root", packed, "--", "/program"], check=True)
    ours = suite.run([*hosts.command(), "-m", "1g", image, "walk", "/tree"], seconds=300)
    suite.check(f"a tree of {count} files in the image is as it was packed", ours[:2] == native[:2], f"{ours} {native}")
    volume = os.path.join(work, "trees.ext4")
    subprocess.run(["/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, "-N", str(count * 2 + 9000), volume,
                    f"{count * 16 // 1024 + 256}m"], check=True, capture_output=True)
    ours = suite.run([*hosts.command(), "-m", "1g", "-v", f"{volume}:/volume:ro", image, "walk", "/volume"], seconds=300)
    suite.check("and on a volume that mke2fs made", ours[:2] == native[:2], f"{ours} {native}")
    subprocess.run(["/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-N", str(count * 2 + 9000), volume,
                    f"{count * 16 // 1024 + 256}m"], check=True, capture_output=True)
    done = suite.run([*hosts.command(), "-m", "1g", "-v", f"{volume}:/volume", image, "copy", "/tree", "/volume"], seconds=300)
    check = subprocess.run(["/usr/sbin/e2fsck", "-fn", volume], capture_output=True)
    suite.check("we write it, and e2fsck finds the volume clean", done[0] == 0 and check.returncode == 0, f"{done} {check}")
    mounted = os.path.join(work, "mounted")
    os.mkdir(mounted)
    read = suite.run(["unshare", "-m", "sh", "-c", 'mount -o loop,ro "$0" "$1" && "$2" walk "$1"', volume, mounted, program],
                     seconds=300)
    if read[0] != 0:  # no loop devices: what debugfs takes out
        subprocess.run(["/usr/sbin/debugfs", "-R", f"rdump / {mounted}", volume], capture_output=True)
        read = suite.run([program, "walk", mounted], seconds=300)
    suite.check("and Linux reads what we wrote", read[:2] == native[:2], f"{read} {native}")


def tests(suite, work):
    calls(suite, work)
    kept(suite, work)
    crashes(suite, work)
    access(suite, work)
    if not hosts.is_emulated():
        trees(suite, work)
