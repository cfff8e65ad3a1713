/// Linux's system calls on x86-64 (asm/unistd_64.h) and what their arguments are: the one list that traces and
/// documents are made from.
///
/// A line is a number, a name, and a letter an argument: `f` descriptor, `D` directory descriptor or AT_FDCWD, `p` path
/// or other text, `d` decimal number, `s` size, `o` permissions in octal, `F` flags, `x` number in hexadecimal, `a`
/// address; `-` stands for no arguments.
enum CallTable {
  static let text: StaticString = """
    0 read fas
    1 write fas
    2 open pFo
    3 close f
    4 stat pa
    5 fstat fa
    6 lstat pa
    7 poll asd
    8 lseek fdd
    9 mmap asxFfx
    10 mprotect asx
    11 munmap as
    12 brk a
    13 rt_sigaction daas
    14 rt_sigprocmask daas
    15 rt_sigreturn -
    16 ioctl fxa
    17 pread64 fasd
    18 pwrite64 fasd
    19 readv fad
    20 writev fad
    21 access po
    22 pipe a
    23 select daaaa
    24 sched_yield -
    25 mremap assFa
    26 msync asF
    27 mincore asa
    28 madvise asd
    29 shmget dso
    30 shmat daF
    31 shmctl dda
    32 dup f
    33 dup2 fd
    34 pause -
    35 nanosleep aa
    36 getitimer da
    37 alarm d
    38 setitimer daa
    39 getpid -
    40 sendfile ffas
    41 socket dFd
    42 connect fas
    43 accept faa
    44 sendto fasFas
    45 recvfrom fasFaa
    46 sendmsg faF
    47 recvmsg faF
    48 shutdown fd
    49 bind fas
    50 listen fd
    51 getsockname faa
    52 getpeername faa
    53 socketpair dFda
    54 setsockopt fddas
    55 getsockopt fddaa
    56 clone Faaaa
    57 fork -
    58 vfork -
    59 execve paa
    60 exit d
    61 wait4 daFa
    62 kill dd
    63 uname a
    64 semget ddo
    65 semop das
    66 semctl ddda
    67 shmdt a
    68 msgget do
    69 msgsnd dasF
    70 msgrcv dasdF
    71 msgctl dda
    72 fcntl fda
    73 flock fd
    74 fsync f
    75 fdatasync f
    76 truncate pd
    77 ftruncate fd
    78 getdents fas
    79 getcwd as
    80 chdir p
    81 fchdir f
    82 rename pp
    83 mkdir po
    84 rmdir p
    85 creat po
    86 link pp
    87 unlink p
    88 symlink pp
    89 readlink pas
    90 chmod po
    91 fchmod fo
    92 chown pdd
    93 fchown fdd
    94 lchown pdd
    95 umask o
    96 gettimeofday aa
    97 getrlimit da
    98 getrusage da
    99 sysinfo a
    100 times a
    101 ptrace ddaa
    102 getuid -
    103 syslog das
    104 getgid -
    105 setuid d
    106 setgid d
    107 geteuid -
    108 getegid -
    109 setpgid dd
    110 getppid -
    111 getpgrp -
    112 setsid -
    113 setreuid dd
    114 setregid dd
    115 getgroups da
    116 setgroups da
    117 setresuid ddd
    118 getresuid aaa
    119 setresgid ddd
    120 getresgid aaa
    121 getpgid d
    122 setfsuid d
    123 setfsgid d
    124 getsid d
    125 capget aa
    126 capset aa
    127 rt_sigpending as
    128 rt_sigtimedwait aaas
    129 rt_sigqueueinfo dda
    130 rt_sigsuspend as
    131 sigaltstack aa
    132 utime pa
    133 mknod pox
    134 uselib aaaa
    135 personality x
    136 ustat aaaa
    137 statfs pa
    138 fstatfs fa
    139 sysfs aaaa
    140 getpriority dd
    141 setpriority ddd
    142 sched_setparam da
    143 sched_getparam da
    144 sched_setscheduler dda
    145 sched_getscheduler d
    146 sched_get_priority_max d
    147 sched_get_priority_min d
    148 sched_rr_get_interval da
    149 mlock as
    150 munlock as
    151 mlockall F
    152 munlockall -
    153 vhangup -
    154 modify_ldt aaaa
    155 pivot_root pp
    156 _sysctl aaaa
    157 prctl dxxxx
    158 arch_prctl xa
    159 adjtimex a
    160 setrlimit da
    161 chroot p
    162 sync -
    163 acct p
    164 settimeofday aa
    165 mount pppFa
    166 umount2 pF
    167 swapon pF
    168 swapoff p
    169 reboot xxxa
    170 sethostname as
    171 setdomainname as
    172 iopl aaaa
    173 ioperm aaaa
    174 create_module aaaa
    175 init_module aaaa
    176 delete_module aaaa
    177 get_kernel_syms aaaa
    178 query_module aaaa
    179 quotactl aaaa
    180 nfsservctl aaaa
    181 getpmsg aaaa
    182 putpmsg aaaa
    183 afs_syscall aaaa
    184 tuxcall aaaa
    185 security aaaa
    186 gettid -
    187 readahead fds
    188 setxattr ppasF
    189 lsetxattr ppasF
    190 fsetxattr fpasF
    191 getxattr ppas
    192 lgetxattr ppas
    193 fgetxattr fpas
    194 listxattr pas
    195 llistxattr pas
    196 flistxattr fas
    197 removexattr pp
    198 lremovexattr pp
    199 fremovexattr fp
    200 tkill dd
    201 time a
    202 futex adxaax
    203 sched_setaffinity dsa
    204 sched_getaffinity dsa
    205 set_thread_area aaaa
    206 io_setup da
    207 io_destroy x
    208 io_getevents xddaa
    209 io_submit xda
    210 io_cancel xaa
    211 get_thread_area aaaa
    212 lookup_dcookie aaaa
    213 epoll_create d
    214 epoll_ctl_old aaaa
    215 epoll_wait_old aaaa
    216 remap_file_pages aaaa
    217 getdents64 fas
    218 set_tid_address a
    219 restart_syscall -
    220 semtimedop dasa
    221 fadvise64 fddd
    222 timer_create daa
    223 timer_settime dFaa
    224 timer_gettime da
    225 timer_getoverrun d
    226 timer_delete d
    227 clock_settime da
    228 clock_gettime da
    229 clock_getres da
    230 clock_nanosleep dFaa
    231 exit_group d
    232 epoll_wait fadd
    233 epoll_ctl fdfa
    234 tgkill ddd
    235 utimes pa
    236 vserver aaaa
    237 mbind asdaxF
    238 set_mempolicy aaaa
    239 get_mempolicy aaaa
    240 mq_open pFoa
    241 mq_unlink p
    242 mq_timedsend aaaa
    243 mq_timedreceive aaaa
    244 mq_notify aaaa
    245 mq_getsetattr aaaa
    246 kexec_load aaaa
    247 waitid ddaFa
    248 add_key aaaa
    249 request_key aaaa
    250 keyctl aaaa
    251 ioprio_set aaaa
    252 ioprio_get aaaa
    253 inotify_init -
    254 inotify_add_watch fpF
    255 inotify_rm_watch fd
    256 migrate_pages aaaa
    257 openat DpFo
    258 mkdirat Dpo
    259 mknodat Dpox
    260 fchownat DpddF
    261 futimesat Dpa
    262 newfstatat DpaF
    263 unlinkat DpF
    264 renameat DpDp
    265 linkat DpDpF
    266 symlinkat pDp
    267 readlinkat Dpas
    268 fchmodat Dpo
    269 faccessat Dpo
    270 pselect6 daaaaa
    271 ppoll adaas
    272 unshare F
    273 set_robust_list as
    274 get_robust_list daa
    275 splice fafasF
    276 tee ffsF
    277 sync_file_range fddF
    278 vmsplice fadF
    279 move_pages ddaaaF
    280 utimensat DpaF
    281 epoll_pwait faddas
    282 signalfd fas
    283 timerfd_create dF
    284 eventfd d
    285 fallocate fFdd
    286 timerfd_settime fFaa
    287 timerfd_gettime fa
    288 accept4 faaF
    289 signalfd4 fasF
    290 eventfd2 dF
    291 epoll_create1 F
    292 dup3 fdF
    293 pipe2 aF
    294 inotify_init1 F
    295 preadv fadd
    296 pwritev fadd
    297 rt_tgsigqueueinfo ddda
    298 perf_event_open addfF
    299 recvmmsg fadFa
    300 fanotify_init aaaa
    301 fanotify_mark aaaa
    302 prlimit64 ddaa
    303 name_to_handle_at DpaaF
    304 open_by_handle_at aaaa
    305 clock_adjtime aaaa
    306 syncfs f
    307 sendmmsg fadF
    308 setns fF
    309 getcpu aaa
    310 process_vm_readv dadadF
    311 process_vm_writev dadadF
    312 kcmp dddxx
    313 finit_module aaaa
    314 sched_setattr daF
    315 sched_getattr dasF
    316 renameat2 DpDpF
    317 seccomp dFa
    318 getrandom asF
    319 memfd_create pF
    320 kexec_file_load aaaa
    321 bpf das
    322 execveat DpaaF
    323 userfaultfd F
    324 membarrier dFd
    325 mlock2 asF
    326 copy_file_range fafasF
    327 preadv2 faddxF
    328 pwritev2 faddxF
    329 pkey_mprotect asxd
    330 pkey_alloc Fx
    331 pkey_free d
    332 statx DpFxa
    333 io_pgetevents xddaaa
    334 rseq asFx
    424 pidfd_send_signal fdaF
    425 io_uring_setup da
    426 io_uring_enter fddFas
    427 io_uring_register fdad
    428 open_tree DpF
    429 move_mount DpDpF
    430 fsopen pF
    431 fsconfig aaaa
    432 fsmount aaaa
    433 fspick aaaa
    434 pidfd_open dF
    435 clone3 as
    436 close_range ddF
    437 openat2 Dpas
    438 pidfd_getfd fdF
    439 faccessat2 DpoF
    440 process_madvise fadxF
    441 epoll_pwait2 fadaas
    442 mount_setattr DpFas
    443 quotactl_fd aaaa
    444 landlock_create_ruleset aaaa
    445 landlock_add_rule aaaa
    446 landlock_restrict_self aaaa
    447 memfd_secret F
    448 process_mrelease aaaa
    449 futex_waitv adFad
    450 set_mempolicy_home_node asdF
    451 cachestat faaF
    452 fchmodat2 DpoF
    453 map_shadow_stack aaaa
    454 futex_wake aaaa
    455 futex_wait aaaa
    456 futex_requeue aaaa
    457 statmount aaaa
    458 listmount aaaa
    459 lsm_get_self_attr aaaa
    460 lsm_set_self_attr aaaa
    461 lsm_list_modules aaaa
    462 mseal asF
    """
}

/// Names and texts of Linux's error numbers (errno(3)).
enum ErrorTable {
  static let text: StaticString = """
    1 EPERM Operation not permitted
    2 ENOENT No such file or directory
    3 ESRCH No such process
    4 EINTR Interrupted system call
    5 EIO Input/output error
    6 ENXIO No such device or address
    7 E2BIG Argument list too long
    8 ENOEXEC Exec format error
    9 EBADF Bad file descriptor
    10 ECHILD No child processes
    11 EAGAIN Resource temporarily unavailable
    12 ENOMEM Cannot allocate memory
    13 EACCES Permission denied
    14 EFAULT Bad address
    15 ENOTBLK Block device required
    16 EBUSY Device or resource busy
    17 EEXIST File exists
    18 EXDEV Invalid cross-device link
    19 ENODEV No such device
    20 ENOTDIR Not a directory
    21 EISDIR Is a directory
    22 EINVAL Invalid argument
    23 ENFILE Too many open files in system
    24 EMFILE Too many open files
    25 ENOTTY Inappropriate ioctl for device
    26 ETXTBSY Text file busy
    27 EFBIG File too large
    28 ENOSPC No space left on device
    29 ESPIPE Illegal seek
    30 EROFS Read-only file system
    31 EMLINK Too many links
    32 EPIPE Broken pipe
    33 EDOM Numerical argument out of domain
    34 ERANGE Numerical result out of range
    35 EDEADLK Resource deadlock avoided
    36 ENAMETOOLONG File name too long
    37 ENOLCK No locks available
    38 ENOSYS Function not implemented
    39 ENOTEMPTY Directory not empty
    40 ELOOP Too many levels of symbolic links
    42 ENOMSG No message of desired type
    43 EIDRM Identifier removed
    44 ECHRNG Channel number out of range
    45 EL2NSYNC Level 2 not synchronized
    46 EL3HLT Level 3 halted
    47 EL3RST Level 3 reset
    48 ELNRNG Link number out of range
    49 EUNATCH Protocol driver not attached
    50 ENOCSI No CSI structure available
    51 EL2HLT Level 2 halted
    52 EBADE Invalid exchange
    53 EBADR Invalid request descriptor
    54 EXFULL Exchange full
    55 ENOANO No anode
    56 EBADRQC Invalid request code
    57 EBADSLT Invalid slot
    59 EBFONT Bad font file format
    60 ENOSTR Device not a stream
    61 ENODATA No data available
    62 ETIME Timer expired
    63 ENOSR Out of streams resources
    64 ENONET Machine is not on the network
    65 ENOPKG Package not installed
    66 EREMOTE Object is remote
    67 ENOLINK Link has been severed
    68 EADV Advertise error
    69 ESRMNT Srmount error
    70 ECOMM Communication error on send
    71 EPROTO Protocol error
    72 EMULTIHOP Multihop attempted
    73 EDOTDOT RFS specific error
    74 EBADMSG Bad message
    75 EOVERFLOW Value too large for defined data type
    76 ENOTUNIQ Name not unique on network
    77 EBADFD File descriptor in bad state
    78 EREMCHG Remote address changed
    79 ELIBACC Can not access a needed shared library
    80 ELIBBAD Accessing a corrupted shared library
    81 ELIBSCN .lib section in a.out corrupted
    82 ELIBMAX Attempting to link in too many shared libraries
    83 ELIBEXEC Cannot exec a shared library directly
    84 EILSEQ Invalid or incomplete multibyte or wide character
    85 ERESTART Interrupted system call should be restarted
    86 ESTRPIPE Streams pipe error
    87 EUSERS Too many users
    88 ENOTSOCK Socket operation on non-socket
    89 EDESTADDRREQ Destination address required
    90 EMSGSIZE Message too long
    91 EPROTOTYPE Protocol wrong type for socket
    92 ENOPROTOOPT Protocol not available
    93 EPROTONOSUPPORT Protocol not supported
    94 ESOCKTNOSUPPORT Socket type not supported
    95 EOPNOTSUPP Operation not supported
    96 EPFNOSUPPORT Protocol family not supported
    97 EAFNOSUPPORT Address family not supported by protocol
    98 EADDRINUSE Address already in use
    99 EADDRNOTAVAIL Cannot assign requested address
    100 ENETDOWN Network is down
    101 ENETUNREACH Network is unreachable
    102 ENETRESET Network dropped connection on reset
    103 ECONNABORTED Software caused connection abort
    104 ECONNRESET Connection reset by peer
    105 ENOBUFS No buffer space available
    106 EISCONN Transport endpoint is already connected
    107 ENOTCONN Transport endpoint is not connected
    108 ESHUTDOWN Cannot send after transport endpoint shutdown
    109 ETOOMANYREFS Too many references: cannot splice
    110 ETIMEDOUT Connection timed out
    111 ECONNREFUSED Connection refused
    112 EHOSTDOWN Host is down
    113 EHOSTUNREACH No route to host
    114 EALREADY Operation already in progress
    115 EINPROGRESS Operation now in progress
    116 ESTALE Stale file handle
    117 EUCLEAN Structure needs cleaning
    118 ENOTNAM Not a XENIX named type file
    119 ENAVAIL No XENIX semaphores available
    120 EISNAM Is a named type file
    121 EREMOTEIO Remote I/O error
    122 EDQUOT Disk quota exceeded
    123 ENOMEDIUM No medium found
    124 EMEDIUMTYPE Wrong medium type
    125 ECANCELED Operation canceled
    126 ENOKEY Required key not available
    127 EKEYEXPIRED Key has expired
    128 EKEYREVOKED Key has been revoked
    129 EKEYREJECTED Key was rejected by service
    130 EOWNERDEAD Owner died
    131 ENOTRECOVERABLE State not recoverable
    132 ERFKILL Operation not possible due to RF-kill
    """
}
