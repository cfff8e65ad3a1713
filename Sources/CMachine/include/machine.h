// Layouts that assembly, the hosts and the libOS share, and the few instructions that Swift cannot spell.
#pragma once
#include <stddef.h>
#include <stdint.h>

// General registers of a thread that left its program. The gate and the trap entry fill it; offsets are known to
// assembly (LinuxHost's gate.S).
struct trap_frame {
  uint64_t r15, r14, r13, r12, rbp, rbx;  // 0..40
  uint64_t r10, r9, r8, rdx, rsi, rdi;    // 48..88
  uint64_t rax;                           // 96: system-call number on entry, result on exit
  uint64_t rcx, r11;                      // 104, 112
  uint64_t rip, cs, rflags, rsp, ss;      // 120..152: what iretq pops
  uint64_t kind;                          // 160: 0 entered by the gate, else a TRAP_ number
  uint64_t address;                       // 168: fault address
};

enum {
  TRAP_NONE = 0,
  TRAP_SYSTEM_CALL = 1,  // a `syscall` instruction that is not patched yet
  TRAP_FAULT = 2,        // memory fault; address is set, detail holds the signal's si_code
  TRAP_ILLEGAL = 3,
  TRAP_ARITHMETIC = 4,
  TRAP_BREAKPOINT = 5,
  TRAP_BUS = 6,
  TRAP_KICK = 7,
  TRAP_RETURN = 8,       // every register was replaced (sigreturn, a new thread): restore all of them
  TRAP_MEMORY = 9,       // there is no memory for a page that the program may touch
};

// What GS points at while a thread runs. Lives in the arena, in the thread's memory (HostCore's ThreadStack).
struct thread_block {
  struct thread_block *self;    // 0
  uint64_t user_rsp;            // 8: scratch of the gate
  struct trap_frame *frame;     // 16: where the gate puts the frame; the libOS stack grows down from it
  uint32_t attention;           // 24: not zero: leave the libOS by the slow path
  uint32_t park_word;           // 28: bumped by every unpark
  void *thread;                 // 32: the libOS's Thread object, unretained
  uint64_t trap_detail;         // 40
  uint64_t fs_base;             // 48: the program's
  uint64_t host_process;        // 56: host's process id
  uint64_t host_thread;         // 64: host's thread id
  void *signal_stack;           // 72
  uint32_t occupied;            // 80: a host thread runs on this memory; cleared by its last instruction
  uint32_t inside;              // 84: with keys: the thread runs the libOS, or is on its way in or out
  uint64_t slot;                // 88: the thread's slot in program memory, where the gate needs one
  uint32_t process_number;      // 96: what getpid answers
  uint32_t thread_number;       // 100: what gettid answers
};

// Always inlined: the importer's functions would otherwise be calls, for single instructions.
#define MACHINE_INLINE static inline __attribute__((always_inline))

#if __STDC_HOSTED__
extern _Thread_local void *machine_hosted_thread;
MACHINE_INLINE void *machine_current_thread(void) { return machine_hosted_thread; }
MACHINE_INLINE struct thread_block *machine_current_block(void) { return 0; }
MACHINE_INLINE void machine_set_current_thread(void *thread) { machine_hosted_thread = thread; }
size_t machine_copy_user(void *destination, const void *source, size_t count);
size_t machine_clear_user(void *destination, size_t count);
uint32_t machine_exchange_user_word(uint32_t *word, uint32_t expected, uint32_t desired, uint32_t *seen);
#else
MACHINE_INLINE void *machine_current_thread(void) {
  void *thread;
  __asm__ volatile("mov %%gs:32, %0" : "=r"(thread));
  return thread;
}
MACHINE_INLINE struct thread_block *machine_current_block(void) {
  struct thread_block *block;
  __asm__ volatile("mov %%gs:0, %0" : "=r"(block));
  return block;
}
// Copies and says how many bytes could NOT be copied because memory was not there: 0 is success.
size_t machine_copy_user(void *destination, const void *source, size_t count);
size_t machine_clear_user(void *destination, size_t count);
// Compare-and-exchange on a word of a program. Returns 0 and the old value in *seen, or 1 on a fault.
uint32_t machine_exchange_user_word(uint32_t *word, uint32_t expected, uint32_t desired, uint32_t *seen);
#endif
// The thread's vector registers, to and from an area of machine_vector_state_size() bytes at a multiple of 64:
// XSAVE's standard format (512 bytes of FXSAVE where there is no XSAVE) with every feature of
// machine_vector_state_features(), which is XCR0 (3 without XSAVE).
void machine_save_vector_state(void *area);
void machine_restore_vector_state(void *area);
uint32_t machine_vector_state_size(void);
uint64_t machine_vector_state_features(void);

MACHINE_INLINE uint32_t machine_load(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
MACHINE_INLINE void machine_store(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
MACHINE_INLINE uint32_t machine_add(uint32_t *word, uint32_t value) {
  return __atomic_add_fetch(word, value, __ATOMIC_ACQ_REL);
}
MACHINE_INLINE uint32_t machine_exchange(uint32_t *word, uint32_t value) {
  return __atomic_exchange_n(word, value, __ATOMIC_ACQ_REL);
}
MACHINE_INLINE int machine_compare_exchange(uint32_t *word, uint32_t expected, uint32_t desired) {
  return __atomic_compare_exchange_n(word, &expected, desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
// Memory that devices write.
MACHINE_INLINE void machine_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
MACHINE_INLINE uint16_t machine_load_device16(const uint16_t *word) { return *(const volatile uint16_t *)word; }
// The CPUID instruction: eax, ebx, ecx, edx.
MACHINE_INLINE void machine_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t *answer) {
  __asm__ volatile("cpuid"
                   : "=a"(answer[0]), "=b"(answer[1]), "=c"(answer[2]), "=d"(answer[3])
                   : "a"(leaf), "c"(subleaf));
}
MACHINE_INLINE void machine_pause(void) { __builtin_ia32_pause(); }
