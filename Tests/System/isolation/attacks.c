// Programs that attack the libOS and one another. Each attack runs in a process of its own and ends with a look at the
// libOS's memory: it has broken in (status 99), or dies by a signal, or finds that it got nowhere (status 0, errors all
// along). The parent prints how each ended, and that it lives on itself.
//
// Addresses of the libOS come from the image that is attacked: WRPKRUS, XRSTORS, SYSCALLS, GATES (isolation.py).
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define BROKE_IN 99
#define IMAGE 0x100000000000ul
#define ARENA 0x200000000000ul
static const unsigned long wrpkrus[] = {WRPKRUS 0}, xrstors[] = {XRSTORS 0}, syscalls[] = {SYSCALLS 0};
static const unsigned long gates[] = {GATES 0};
#ifdef BARE
static const unsigned long places[] = {IMAGE, IMAGE + 0x90000, ARENA, ARENA + 0x800000, 0x2d0000000000, 0x2e0000000000,
  0x2f0000000000, 0xffff800000200000, 0xffffffff80100000};
#else
static const unsigned long places[] = {IMAGE, IMAGE + 0x90000, ARENA, ARENA + 0x800000};
#endif
enum { PLACES = sizeof places / sizeof *places };

// Reads the libOS's memory: where this comes back, the attack has succeeded.
static void probe(void) {
  unsigned long value = *(volatile unsigned long *)ARENA;
  (void)value;
  _exit(BROKE_IN);
}

// In a child, so that there can be several in one attack. True: it died by a signal or found nothing.
static int repelled(void (*attack)(unsigned long), unsigned long argument) {
  pid_t child = fork();
  if (!child) {
    alarm(10);
    attack(argument);
    _exit(0);
  }
  int status;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) || WEXITSTATUS(status) == 0;
}
static void each(void (*attack)(unsigned long), const unsigned long *list) {
  for (; *list; list++)
    if (!repelled(attack, *list)) _exit(BROKE_IN);
}

// ---- memory by address ----------------------------------------------------------------------------------------------
static void read_place(unsigned long a) { *(volatile char *)a; _exit(BROKE_IN); }
static void write_place(unsigned long a) { *(volatile char *)a = 0x90; _exit(BROKE_IN); }
static void read_libos(void) { for (int i = 0; i < PLACES; i++) if (!repelled(read_place, places[i])) _exit(BROKE_IN); }
static void write_libos(void) { for (int i = 0; i < PLACES; i++) if (!repelled(write_place, places[i])) _exit(BROKE_IN); }

// Memory that the parent maps after the fork, at an address that both know.
static void other_process(void) {
  char *at = (char *)0x412300000000;
  int ready[2], done[2];
  pipe(ready), pipe(done);
  pid_t child = fork();
  if (!child) {
    char c;
    read(ready[0], &c, 1);
    // The parent's own user may look into it, as on Linux (ptrace(2)); another one may not.
    if (setresuid(65534, 65534, 65534)) _exit(BROKE_IN);
    struct iovec mine = {&c, 1}, theirs = {at, 1};
    if (process_vm_readv(getppid(), &mine, 1, &theirs, 1, 0) == 1) _exit(BROKE_IN);
    if (process_vm_writev(getppid(), &mine, 1, &theirs, 1, 0) == 1) _exit(BROKE_IN);
    char name[40];
    sprintf(name, "/proc/%d/mem", getppid());
    int file = open(name, O_RDWR);
    if (file >= 0 && pread(file, &c, 1, (off_t)at) == 1) _exit(BROKE_IN);
    if (file >= 0 && pwrite(file, &c, 1, (off_t)at) == 1) _exit(BROKE_IN);
    *(volatile char *)at;
    _exit(BROKE_IN);
  }
  if (mmap(at, 4096, 3, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != at) _exit(1);
  *at = 's';
  write(ready[1], "x", 1);
  int status;
  waitpid(child, &status, 0);
  if (!WIFSIGNALED(status) || *at != 's') _exit(BROKE_IN);
}

// ---- jumps ------------------------------------------------------------------------------------------------------------
static void jump(unsigned long a) { ((void (*)(void))a)(); }
static void jump_places(void) { for (int i = 0; i < PLACES; i++) repelled(jump, places[i]); }
// Into the gate and its surroundings, at every byte.
static void jump_everywhere(void) {
  for (const unsigned long *range = gates; *range; range += 2)
    for (unsigned long a = range[0]; a < range[1]; a++)
      if (!repelled(jump, a)) _exit(BROKE_IN);
}
static unsigned keys;
static void at_wrpkru(unsigned long a) {
  __asm__ volatile("lea 1f(%%rip), %%rbx\n push %%rbx\n xor %%ecx, %%ecx\n xor %%edx, %%edx\n mov %1, %%eax\n jmp *%0\n 1:"
    ::"r"(a), "r"(keys) : "rax", "rbx", "rcx", "rdx", "r11", "memory");
  probe();
}
static void jump_wrpkru(void) {
  static const unsigned values[] = {0, 0x55555550, 0x55555558, 1, 3, 0x55555554, 0xffffffff};
  for (unsigned i = 0; i < sizeof values / sizeof *values; i++) {
    keys = values[i];
    each(at_wrpkru, wrpkrus);
  }
}
static void at_xrstor(unsigned long a) {
  static char area[8192] __attribute__((aligned(64)));
  area[24] = 0x80, area[25] = 0x1f;
  *(unsigned long *)(area + 512) = 0x200;
  __asm__ volatile("lea 1f(%%rip), %%rbx\n push %%rbx\n mov %1, %%rdi\n mov $-1, %%eax\n mov $-1, %%edx\n jmp *%0\n 1:"
    ::"r"(a), "r"(area) : "rax", "rbx", "rcx", "rdx", "rdi", "memory");
  probe();
}
static void jump_xrstor(void) { each(at_xrstor, xrstors); }
// The libOS's own `syscall` instructions, with every call that it makes of its host.
static int host_call;
static void at_syscall(unsigned long a) {
  __asm__ volatile("lea 1f(%%rip), %%rbx\n push %%rbx\n mov %1, %%eax\n mov %2, %%rdi\n mov $0, %%esi\n mov $0, %%edx\n"
    "xor %%r10d, %%r10d\n xor %%r8d, %%r8d\n xor %%r9d, %%r9d\n jmp *%0\n 1:"
    ::"r"(a), "r"(host_call), "r"(host_call == 0 || host_call == 23 ? -1l : 1l) : "rax", "rbx", "rcx", "rdx", "rdi", "rsi", "r8", "r9", "r10", "r11", "memory");
}
static void jump_syscall(void) {
  for (host_call = 0; host_call < 32; host_call++)
    for (const unsigned long *list = syscalls; *list; list++) repelled(at_syscall, *list);
}

// ---- forbidden instructions of one's own ------------------------------------------------------------------------------
static void own_wrpkru(void) {
  __asm__ volatile("xor %%eax, %%eax\n xor %%ecx, %%ecx\n xor %%edx, %%edx\n .byte 0x0f, 0x01, 0xef":::"rax", "rcx", "rdx");
  probe();
}
static void misaligned_wrpkru(void) {
  __asm__ volatile("xor %%eax, %%eax\n xor %%ecx, %%ecx\n xor %%edx, %%edx\n jmp 1f + 1\n"
    "1: .byte 0xbb, 0x0f, 0x01, 0xef, 0x90":::"rax", "rbx", "rcx", "rdx");  // mov $0x90ef010f, %ebx
  probe();
}
static void prefixed_wrpkru(void) {
  __asm__ volatile("xor %%eax, %%eax\n xor %%ecx, %%ecx\n xor %%edx, %%edx\n .byte 0x2e, 0x48, 0x0f, 0x01, 0xef"
    :::"rax", "rcx", "rdx");
  probe();
}
static char state[8192] __attribute__((aligned(64)));
static void prepare_state(void) {
  memset(state, 0, sizeof state);
  state[0] = 0x7f, state[1] = 3, state[24] = 0x80, state[25] = 0x1f;
  *(unsigned long *)(state + 512) = 0x200;  // PKRU, as zero wherever its place is
}
static void own_xrstor(void) {
  prepare_state();
  __asm__ volatile("mov $0x200, %%eax\n xor %%edx, %%edx\n xrstor (%0)"::"r"(state) : "rax", "rdx", "memory");
  probe();
}
static void misaligned_xrstor(void) {
  prepare_state();
  __asm__ volatile("mov $0x200, %%eax\n xor %%edx, %%edx\n mov %0, %%rdi\n jmp 1f + 1\n"
    "1: .byte 0xbb, 0x0f, 0xae, 0x2f, 0x90"::"r"(state) : "rax", "rbx", "rdx", "rdi", "memory");
  probe();
}
static unsigned long gs_base;
static long plain_getuid(void) {
  long result;
  __asm__ volatile("mov $102, %%eax\n syscall" : "=a"(result)::"rcx", "r11", "memory");
  return result;
}
static void calls(void) { for (int i = 0; i < 10; i++) getpid(), getppid(), plain_getuid(); }
static void own_wrgsbase(unsigned long base) {
  calls();  // sites are patched now
  __asm__ volatile("wrgsbase %0"::"r"(base));
  calls();
  probe();
}
static void change_gs_base(void) {
  unsigned long block = 0;
  __asm__ volatile("rdgsbase %0" : "=r"(block));
  static char own[8192];
  if (!repelled(own_wrgsbase, (unsigned long)own + 4096)) _exit(BROKE_IN);
  if (!repelled(own_wrgsbase, block - 65536)) _exit(BROKE_IN);
  if (!repelled(own_wrgsbase, block + 65536)) _exit(BROKE_IN);
}
static void misaligned_gs(unsigned long base) {
  calls();
  __asm__ volatile("mov %0, %%rax\n jmp 1f + 2\n 1: .byte 0x48, 0xb9, 0xf3, 0x48, 0x0f, 0xae, 0xd8, 0x90, 0x90, 0x90"
    ::"r"(base) : "rax", "rcx");
  calls();
  probe();
}
static void change_gs_base_misaligned(void) {
  static char own[8192];
  if (!repelled(misaligned_gs, (unsigned long)own + 4096)) _exit(BROKE_IN);
}
static void gs_selector(unsigned long selector) {
  calls();
  __asm__ volatile("mov %0, %%gs"::"r"((unsigned)selector));
  calls();
}
static void load_gs(void) {
  repelled(gs_selector, 0);
  repelled(gs_selector, 0x2b);
}

// ---- executable memory ------------------------------------------------------------------------------------------------
// xor %eax, %eax; xor %ecx, %ecx; xor %edx, %edx; wrpkru; ret
static const unsigned char payload[] = {0x31, 0xc0, 0x31, 0xc9, 0x31, 0xd2, 0x0f, 0x01, 0xef, 0xc3};
static const unsigned char harmless[] = {0xb8, 7, 0, 0, 0, 0xc3};
static char *pages(int count, int protection) {
  char *at = mmap(0, count * 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) _exit(1);
  return at;
}
static int call(void *at) { return ((int (*)(void))at)(); }
static void jit_protect(void) {
  char *at = pages(1, 3);
  memcpy(at, payload, sizeof payload);
  mprotect(at, 4096, 5);
  call(at);
  probe();
}
static void jit_both(void) {
  char *at = pages(1, 7);
  memcpy(at, harmless, sizeof harmless);
  if (call(at) != 7) _exit(1);
  memcpy(at, payload, sizeof payload);
  call(at);
  probe();
}
// The instruction lies across a border of pages that become executable one after the other.
static void jit_border(void) {
  for (int split = 7; split < 9; split++)
    for (int first = 0; first < 2; first++) {
      char *at = pages(2, 3);
      memcpy(at + 4096 - split, payload, sizeof payload);
      at[4095 - split] = (char)0x90;
      pid_t child = fork();
      if (!child) {
        mprotect(at + first * 4096, 4096, 5);
        mprotect(at + !first * 4096, 4096, 5);
        call(at + 4096 - split);
        probe();
      }
      int status;
      waitpid(child, &status, 0);
      if (!WIFSIGNALED(status)) _exit(BROKE_IN);
    }
}
// Two mappings of one memory: one to write, one to execute.
static void jit_double(void) {
  int file = memfd_create("code", 0);
  ftruncate(file, 4096);
  char *w = mmap(0, 4096, 3, MAP_SHARED, file, 0);
  memcpy(w, harmless, sizeof harmless);
  char *x = mmap(0, 4096, 5, MAP_SHARED, file, 0);
  if (x == MAP_FAILED) {
    x = mmap(0, 4096, 1, MAP_SHARED, file, 0);
    if (mprotect(x, 4096, 5) != 0) _exit(0);
  }
  call(x);
  memcpy(w, payload, sizeof payload);
  call(x);
  probe();
}
static void jit_shared_anonymous(void) {
  char *x = mmap(0, 4096, 7, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (x == MAP_FAILED) _exit(0);
  memcpy(x, payload, sizeof payload);
  call(x);
  probe();
}
// A private mapping of a file that is written after it has been executed, and shown anew.
static void jit_file(void) {
  char name[] = "/tmp/codeXXXXXX";
  int file = mkstemp(name);
  ftruncate(file, 8192);
  pwrite(file, harmless, sizeof harmless, 0);
  char *x = mmap(0, 8192, 5, MAP_PRIVATE, file, 0);
  if (call(x) != 7) _exit(1);
  pwrite(file, payload, sizeof payload, 0);
  call(x);
  madvise(x, 8192, MADV_DONTNEED);
  call(x);
  probe();
}
static void jit_moved(void) {
  char *at = pages(3, 3), *other = pages(1, 3);
  memcpy(at + 4096 - 7, payload, 7);      // ends in 0f
  memcpy(other, payload + 7, 3);          // 01 ef ret
  mprotect(at, 4096, 5), mprotect(other, 4096, 5);
  if (mremap(other, 4096, 4096, MREMAP_FIXED | MREMAP_MAYMOVE, at + 4096) == MAP_FAILED) _exit(0);
  call(at + 4096 - 7);
  probe();
}
static volatile int stop;
static char *shared_code;
static void *writer(void *unused) {
  while (!stop) {
    memcpy(shared_code, payload, sizeof payload);
    memcpy(shared_code, harmless, sizeof harmless);
  }
  return unused;
}
// One thread writes code while the other executes it.
static sigjmp_buf again;
static void caught(int signal) { siglongjmp(again, signal); }
static void jit_race(void) {
  struct sigaction action = {.sa_handler = caught, .sa_flags = SA_NODEFER};
  sigaction(SIGILL, &action, 0), sigaction(SIGTRAP, &action, 0), sigaction(SIGSEGV, &action, 0);
  shared_code = pages(1, 7);
  memcpy(shared_code, harmless, sizeof harmless);
  pthread_t thread;
  pthread_create(&thread, 0, writer, 0);
  for (volatile int i = 0; i < 200; i++) {
    if (sigsetjmp(again, 1)) continue;
    call(shared_code);
    *(volatile long *)ARENA;
    _exit(BROKE_IN);
  }
  stop = 1;
  pthread_join(thread, 0);
}

// ---- mappings -----------------------------------------------------------------------------------------------------------
static void map_over(void) {
  int file = memfd_create("x", 0);
  ftruncate(file, 1 << 16);
  char *own = pages(1, 3);
  for (int i = 0; i < PLACES; i++) {
    void *at = (void *)places[i];
    if (mmap(at, 4096, 3, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) _exit(BROKE_IN);
    if (mmap(at, 4096, 3, MAP_FIXED | MAP_SHARED, file, 0) != MAP_FAILED) _exit(BROKE_IN);
    if (munmap(at, 4096) == 0 || mprotect(at, 4096, 7) == 0) _exit(BROKE_IN);
    if (madvise(at, 4096, MADV_DONTNEED) == 0) _exit(BROKE_IN);
    if (mremap(at, 4096, 8192, MREMAP_MAYMOVE) != MAP_FAILED) _exit(BROKE_IN);
    if (mremap(own, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, at) != MAP_FAILED) _exit(BROKE_IN);
    if (syscall(SYS_pkey_mprotect, at, 4096, 7, -1) == 0) _exit(BROKE_IN);
    // Ranges that only reach into it.
    if (munmap((char *)at - (1ul << 36), 1ul << 37) == 0 && i < PLACES - 2) _exit(BROKE_IN);
  }
  long key = syscall(SYS_pkey_alloc, 0, 0);
  if (key >= 0 && syscall(SYS_pkey_mprotect, ARENA, 4096, 3, key) == 0) _exit(BROKE_IN);
  if (syscall(SYS_pkey_mprotect, own, 4096, 3, 1) == 0) _exit(BROKE_IN);
  brk((void *)ARENA);
  probe();
}

// ---- the gate and other threads -------------------------------------------------------------------------------------------
#define SLOTS 0x6ffff0000000ul
static void *scribble(void *unused) {
  unsigned long value = 0;
  while (!stop)
    for (unsigned long *slot = (unsigned long *)SLOTS; slot < (unsigned long *)(SLOTS + 65536); slot++)
      *slot = IMAGE + (value++ & 0xfff);
  return unused;
}
// Another thread writes where the gate keeps what it hands back.
static void race_gate(void) {
  if (*gates == 0) _exit(0);
  pthread_t thread;
  pthread_create(&thread, 0, scribble, 0);
  for (int i = 0; i < 5000; i++) calls();
  stop = 1;
}
static void *stacks(void *start) {
  while (!stop) memset((char *)start - 4096, 0x41, 4000);
  return start;
}
static void race_stack(void) {
  char here;
  pthread_t thread;
  pthread_create(&thread, 0, stacks, &here);
  for (int i = 0; i < 5000; i++) calls();
}
static void race_kicks(void) {
  pid_t parent = getpid();
  signal(SIGUSR1, caught);
  pid_t child = fork();
  if (!child) {
    for (int i = 0; i < 500; i++) kill(parent, SIGUSR1), sched_yield();
    _exit(0);
  }
  for (volatile int i = 0; i < 5000; i++)
    if (!sigsetjmp(again, 1)) calls();
  probe();
}

// ---- signals ----------------------------------------------------------------------------------------------------------------
static void forge(unsigned long rip) {
  unsigned long f[128] __attribute__((aligned(64)));
  memset(f, 0, sizeof f);
  prepare_state();
  f[22] = rip, f[21] = (unsigned long)f + 512, f[29] = (unsigned long)state, f[24] = 0x002b000000000033;
  __asm__ volatile("mov %0, %%rsp\n mov $15, %%eax\n syscall"::"r"(f + 1));
}
static void forge_frame(void) {
  for (int i = 0; i < PLACES; i++) if (!repelled(forge, places[i] + 0x400)) _exit(BROKE_IN);
  each(forge, wrpkrus);
  each(forge, gates);
}
static void change_frame(int signal, siginfo_t *information, void *raw) {
  ucontext_t *context = raw;
  // PKRU in the registers that the kernel restores: every byte of the area that might be it is zero.
  char *area = (char *)context->uc_mcontext.fpregs;
  unsigned long *features = (unsigned long *)(area + 512);
  *features |= 0x200;
  unsigned size = *(unsigned *)(area + 480);
  if (size > 832 && size < 8192) memset(area + 832, 0, size - 832);
  (void)signal, (void)information;
}
static void keys_in_frame(void) {
  struct sigaction action = {.sa_sigaction = change_frame, .sa_flags = SA_SIGINFO};
  sigaction(SIGUSR1, &action, 0);
  raise(SIGUSR1);
  probe();
}
static void signal_stack(unsigned long place) {
  stack_t stack = {.ss_sp = (void *)place, .ss_size = 16384};
  sigaltstack(&stack, 0);
  struct sigaction action = {.sa_handler = caught, .sa_flags = SA_ONSTACK};
  sigaction(SIGUSR1, &action, 0);
  if (!sigsetjmp(again, 1)) raise(SIGUSR1);
}
static void signal_handler(unsigned long place) {
  struct sigaction action = {.sa_handler = (void (*)(int))place};
  sigaction(SIGUSR1, &action, 0);
  raise(SIGUSR1);
}
static void signals_into(void) {
  for (int i = 0; i < PLACES; i++)
    if (!repelled(signal_stack, places[i]) || !repelled(signal_handler, places[i])) _exit(BROKE_IN);
  each(signal_handler, gates);
}
static void bad_stack(unsigned long place) {
  __asm__ volatile("mov %0, %%rsp\n mov $39, %%eax\n syscall\n push %%rax"::"r"(place) : "rax", "rcx", "r11");
}
static void stack_in_libos(void) {
  for (int i = 0; i < PLACES; i++) repelled(bad_stack, places[i] + 2048);
}
static void flags(unsigned long set) {
  signal(SIGTRAP, SIG_IGN), signal(SIGBUS, caught);
  calls();
  __asm__ volatile("pushf\n orq %0, (%%rsp)\n popf\n mov $102, %%eax\n syscall\n mov $39, %%eax\n syscall\n"
    "pushf\n andq $~0x44500, (%%rsp)\n popf"::"r"(set) : "rax", "rcx", "r11", "memory");
}
static void bad_flags(void) {
  for (int i = 0; i < 3; i++) {
    repelled(flags, 0x400);    // direction
    repelled(flags, 0x4000);   // nested task
    repelled(flags, 0x40000);  // alignment check
    repelled(flags, 0x100);    // single step
  }
}

// ---- confused deputies --------------------------------------------------------------------------------------------------------
static void deputies(void) {
  int file = memfd_create("x", 0), pair[2];
  socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
  write(file, "0123456789", 10);
  for (int i = 0; i < PLACES; i++) {
    void *at = (void *)places[i];
    lseek(file, 0, SEEK_SET);
    struct iovec vector = {at, 8};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1}, nested = {.msg_iov = at, .msg_iovlen = 1};
    if (read(file, at, 8) >= 0 || write(file, at, 8) >= 0) _exit(BROKE_IN);
    if (readv(file, &vector, 1) >= 0 || writev(file, &vector, 1) >= 0) _exit(BROKE_IN);
    if (readv(file, at, 1) > 0 || writev(file, at, 1) > 0) _exit(BROKE_IN);
    if (sendmsg(pair[0], &message, 0) >= 0 || sendmsg(pair[0], &nested, 0) > 0) _exit(BROKE_IN);
    write(pair[0], "x", 1);
    if (recvmsg(pair[1], &message, MSG_DONTWAIT) >= 0) _exit(BROKE_IN);
    read(pair[1], &(char){0}, 1);
    if (open(at, O_RDONLY) >= 0 || getcwd(at, 64) != NULL || pipe(at) == 0) _exit(BROKE_IN);
    if (syscall(SYS_futex, at, 1 /* FUTEX_WAKE */, 1, 0, 0, 0) > 0) _exit(BROKE_IN);
    if (syscall(SYS_rt_sigprocmask, 0, 0, at, 8) == 0 || syscall(SYS_gettimeofday, at, 0) == 0) _exit(BROKE_IN);
    if (syscall(SYS_clone, 0x1200011, 0, 0, at, 0) == 0) _exit(0);
    if (process_vm_readv(getpid(), &(struct iovec){&message, 8}, 1, &vector, 1, 0) > 0) _exit(BROKE_IN);
    syscall(SYS_set_robust_list, at, 24);
    syscall(SYS_set_tid_address, at);
    syscall(SYS_arch_prctl, 0x1001, at), syscall(SYS_arch_prctl, 0x1002, at);
    syscall(SYS_rseq, at, 32, 0, 0x53053053);
    if (*(volatile char *)&(char){1} != 1) _exit(1);
  }
  while (waitpid(-1, 0, 0) > 0) continue;
}
static void memory_file(void) {
  int file = open("/proc/self/mem", O_RDWR);
  char c[8];
  for (int i = 0; i < PLACES; i++) {
    if (pread(file, c, 8, (off_t)places[i]) > 0) _exit(BROKE_IN);
    if (pwrite(file, c, 8, (off_t)places[i]) > 0) _exit(BROKE_IN);
  }
  probe();
}
static void old_calls(void) {
  long result = -ENOSYS;
  __asm__ volatile("int $0x80" : "+a"(result)::"memory");
  probe();
}

static const struct { const char *name; void (*attack)(void); } attacks[] = {
#define ATTACK(name) {#name, name}
  ATTACK(read_libos), ATTACK(write_libos), ATTACK(other_process), ATTACK(jump_places), ATTACK(jump_everywhere),
  ATTACK(jump_wrpkru), ATTACK(jump_xrstor), ATTACK(jump_syscall), ATTACK(own_wrpkru), ATTACK(misaligned_wrpkru),
  ATTACK(prefixed_wrpkru), ATTACK(own_xrstor), ATTACK(misaligned_xrstor), ATTACK(change_gs_base),
  ATTACK(change_gs_base_misaligned), ATTACK(load_gs), ATTACK(jit_protect), ATTACK(jit_both), ATTACK(jit_border),
  ATTACK(jit_double), ATTACK(jit_shared_anonymous), ATTACK(jit_file), ATTACK(jit_moved), ATTACK(jit_race),
  ATTACK(map_over), ATTACK(race_gate), ATTACK(race_stack), ATTACK(race_kicks), ATTACK(forge_frame),
  ATTACK(keys_in_frame), ATTACK(signals_into), ATTACK(stack_in_libos), ATTACK(bad_flags), ATTACK(deputies),
  ATTACK(memory_file), ATTACK(old_calls),
};

static void run(int index) {
  fflush(stdout);
  pid_t child = fork();
  if (!child) {
    alarm(200);
    attacks[index].attack();
    _exit(0);
  }
  int status;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) printf("%s: signal %d\n", attacks[index].name, WTERMSIG(status));
  else if (WEXITSTATUS(status) == BROKE_IN) printf("%s: BROKE IN\n", attacks[index].name);
  else printf("%s: status %d\n", attacks[index].name, WEXITSTATUS(status));
}

int main(int count, char **names) {
  for (unsigned i = 0; i < sizeof attacks / sizeof *attacks; i++) {
    int chosen = count == 1;
    for (int j = 1; j < count; j++) chosen |= !strcmp(names[j], attacks[i].name);
    if (chosen) run(i);
  }
  // The parent, and what it needs, live on.
  int ends[2];
  char text[6] = "";
  if (pipe(ends)) return 1;
  fflush(stdout);
  if (fork() == 0) {
    write(ends[1], "alive", 5);
    _exit(0);
  }
  read(ends[0], text, 5);
  wait(0);
  printf("%s\n", text);
  return strcmp(text, "alive") != 0;
}
