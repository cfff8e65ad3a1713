// The Linux host's assembly, and the layouts of Linux's own ABI that it uses.
#pragma once
#include <stdint.h>
#include "../../CHostCore/include/host_core.h"

long host_syscall(long number, long a, long b, long c, long d, long e, long f);
long host_clone(long flags, void *stack, void *block);
void host_exit_thread(uint32_t *word) __attribute__((noreturn));

// Where keys isolate: the value that the seal wants in a register of every host call, and the arena's 64 KiB pieces that
// are threads' memory, a byte each.
extern uint64_t host_secret, host_threads, host_threads_base, host_threads_count;
static inline uint64_t secret_of_host_calls(void) { return host_secret; }
static inline void set_host_secret(uint64_t secret) { host_secret = secret; }
static inline void set_host_threads(uint64_t map, uint64_t base, uint64_t count) {
  host_threads = map;
  host_threads_base = base;
  host_threads_count = count;
}
long host_change_signal_stack(void *stack, void *old, void *place);
extern char host_signal_entry_keys[], host_resume_keys[];
ADDRESS_OF(host_signal_entry_keys)
ADDRESS_OF(host_resume_keys)
// Opens the keys of the calling thread, at start.
void host_open_keys(void);

extern char thread_entry[], host_calls_start[], host_calls_end[], host_signal_entry[], host_signal_return[];
ADDRESS_OF(host_calls_start)
ADDRESS_OF(host_calls_end)
ADDRESS_OF(host_signal_entry)
ADDRESS_OF(host_signal_return)

// asm/sigcontext.h and asm/ucontext.h, x86-64
struct host_ucontext {
  uint64_t flags, link;
  uint64_t stack_pointer;
  uint32_t stack_flags, stack_padding;
  uint64_t stack_size;
  uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags;
  uint16_t cs, gs, fs, ss;
  uint64_t error, trap, old_mask, cr2, vector_state;
};
struct host_siginfo {
  int32_t signal, error, code, padding;
  uint64_t address;  // si_addr, si_call_addr
  int32_t system_call;
  uint32_t architecture;  // si_arch
};
struct host_sigaction { uint64_t handler, flags, restorer, mask; };
struct host_timespec { int64_t seconds, nanoseconds; };
struct host_pollfd { int32_t fd; int16_t events, revents; };
struct host_iovec { uint64_t base, length; };
struct host_sock_filter { uint16_t code; uint8_t jump_true, jump_false; uint32_t k; };
struct host_sock_fprog { uint16_t count; uint16_t padding[3]; uint64_t filter; };

static inline long host_call_clock(uint64_t function, long clock, struct host_timespec *time) {
  return ((int (*)(int, struct host_timespec *))function)((int)clock, time);
}
static inline uint64_t host_frame_address(void) { return (uint64_t)__builtin_frame_address(0); }
static inline void host_write_fs_base(uint64_t value) { __asm__ volatile("wrfsbase %0" ::"r"(value)); }
