// Layouts that the exokernel's assembly and Swift share, and the instructions that Swift cannot spell.
#pragma once
#include <stdint.h>
#include "exokernel_calls.h"
#include "../../CMachine/include/machine.h"

// What an entry stub saves; the first fifteen are in the order of struct trap_frame.
struct exokernel_registers {
  uint64_t r15, r14, r13, r12, rbp, rbx, r10, r9, r8, rdx, rsi, rdi, rax, rcx, r11;  // 0..112
  uint64_t vector, error;                                                            // 120, 128
  uint64_t rip, cs, rflags, rsp, ss;                                                 // 136..168
};

// A thread, at the start of a frame of its own; its vector registers lie 1 KiB into the frame.
struct exokernel_thread {
  struct exokernel_registers registers;  // 0..175: ring 0 is entered with the stack at its end
  uint64_t fs_base;
  uint64_t block;                 // GS base
  uint64_t space;                 // physical address of the top page table
  struct exokernel_thread *next;  // in the run queue, or among those that sleep on words of one bucket
  uint64_t park_address;
  uint64_t deadline;
  uint32_t timer_index;           // in the timer heap, ~0 if not there
  uint32_t state;
  uint32_t identifier;            // place in the table, and above bit 16 how often it was used
  uint32_t processor;             // where it ran last
  uint32_t is_kicked;
  uint32_t keys;                  // PKRU, where keys isolate
  uint32_t is_program;            // runs the program, not the libOS (known where programs do not see the libOS)
  uint64_t used, run_start;       // nanoseconds of processor time; when it was given the processor
  uint64_t key;                   // its place among others of its rank (see RunQueue)
  uint32_t rank, weight, is_round_robin;
};
static inline struct exokernel_thread **exokernel_next(struct exokernel_thread *thread) { return &thread->next; }
enum { THREAD_FREE, THREAD_READY, THREAD_RUNNING, THREAD_PARKED };

struct exokernel_processor {
  struct exokernel_processor *own;   // 0
  uint64_t stack_top;                // 8
  struct exokernel_thread *thread;   // 16
  uint64_t scratch;                  // 24
  uint64_t space;                    // whose tables are in CR3: all of them, or
  uint64_t table;                    // those that a program sees
  struct exokernel_thread *_Nullable *queue;  // a heap of those that are ready
  uint64_t floor;                    // where the clocks of its threads stand (see RunQueue)
  uint64_t slice_end, armed_deadline;
  uint64_t call_at;                  // when an idle processor is called to fetch a thread from here
  uint64_t dying;                    // the space of a thread that ended here; a reference to be given up
  uint32_t queue_count;
  uint64_t task_segment;             // address of the TSS
  uint32_t apic_identifier, index;
  uint32_t is_idle, flush_wanted;
  uint32_t has_keys;               // CR4.PKE is on
};

// boot.S, traps.S
extern char exokernel_text_start[], exokernel_text_end[], exokernel_rodata_start[], exokernel_rodata_end[];
extern char exokernel_data_start[], exokernel_end[];
extern char exokernel_vectors[], exokernel_system_call_entry[], exokernel_boot_table[];
extern char exokernel_trampoline[], exokernel_trampoline_end[];
void exokernel_set_trampoline(uint64_t stack, uint64_t processor);
void exokernel_load_tables(uint64_t table, uint64_t limit, uint64_t interrupt_table);
void exokernel_run(struct exokernel_thread *thread) __attribute__((noreturn));
void exokernel_wait_for_interrupt(void);

#define EXOKERNEL_ADDRESS_OF(name) \
  static inline uint64_t address_of_##name(void) { return (uint64_t)name; }
EXOKERNEL_ADDRESS_OF(exokernel_text_start)
EXOKERNEL_ADDRESS_OF(exokernel_text_end)
EXOKERNEL_ADDRESS_OF(exokernel_rodata_start)
EXOKERNEL_ADDRESS_OF(exokernel_rodata_end)
EXOKERNEL_ADDRESS_OF(exokernel_data_start)
EXOKERNEL_ADDRESS_OF(exokernel_end)
EXOKERNEL_ADDRESS_OF(exokernel_vectors)
EXOKERNEL_ADDRESS_OF(exokernel_system_call_entry)
EXOKERNEL_ADDRESS_OF(exokernel_boot_table)
EXOKERNEL_ADDRESS_OF(exokernel_trampoline)
EXOKERNEL_ADDRESS_OF(exokernel_trampoline_end)

static inline void cpu_out8(uint16_t port, uint8_t v) { __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port)); }
static inline void cpu_out16(uint16_t port, uint16_t v) { __asm__ volatile("outw %0, %1" ::"a"(v), "Nd"(port)); }
static inline void cpu_out32(uint16_t port, uint32_t v) { __asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port)); }
static inline uint8_t cpu_in8(uint16_t port) {
  uint8_t v;
  __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
  return v;
}
static inline uint32_t cpu_in32(uint16_t port) {
  uint32_t v;
  __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
  return v;
}
static inline void cpu_out8_run(uint16_t port, const void *bytes, uint64_t count) {
  __asm__ volatile("rep outsb" : "+S"(bytes), "+c"(count) : "d"(port) : "memory");
}
static inline uint64_t cpu_read_msr(uint32_t msr) {
  uint32_t low, high;
  __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
  return (uint64_t)high << 32 | low;
}
static inline void cpu_write_msr(uint32_t msr, uint64_t v) {
  __asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}
static inline uint64_t cpu_read_cr0(void) {
  uint64_t v;
  __asm__ volatile("mov %%cr0, %0" : "=r"(v));
  return v;
}
static inline void cpu_write_cr0(uint64_t v) { __asm__ volatile("mov %0, %%cr0" ::"r"(v) : "memory"); }
static inline uint64_t cpu_read_cr2(void) {
  uint64_t v;
  __asm__ volatile("mov %%cr2, %0" : "=r"(v));
  return v;
}
static inline void cpu_write_cr3(uint64_t v) { __asm__ volatile("mov %0, %%cr3" ::"r"(v) : "memory"); }
static inline uint64_t cpu_read_cr4(void) {
  uint64_t v;
  __asm__ volatile("mov %%cr4, %0" : "=r"(v));
  return v;
}
static inline void cpu_write_cr4(uint64_t v) { __asm__ volatile("mov %0, %%cr4" ::"r"(v) : "memory"); }
static inline void cpu_write_xcr0(uint64_t v) {
  __asm__ volatile("xsetbv" ::"c"(0), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)));
}
static inline uint32_t cpu_read_keys(void) {
  uint32_t v, high;
  __asm__ volatile("rdpkru" : "=a"(v), "=d"(high) : "c"(0));
  return v;
}
static inline void cpu_write_keys(uint32_t v) { __asm__ volatile("wrpkru" ::"a"(v), "c"(0), "d"(0) : "memory"); }
static inline void cpu_flush_page(uint64_t address) { __asm__ volatile("invlpg (%0)" ::"r"(address) : "memory"); }
static inline void cpu_identify(uint32_t leaf, uint32_t subleaf, uint32_t *out) {
  __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(subleaf));
}
static inline uint64_t cpu_time_stamp(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}
static inline uint64_t cpu_read_fs_base(void) {
  uint64_t v;
  __asm__ volatile("rdfsbase %0" : "=r"(v));
  return v;
}
static inline void cpu_write_fs_base(uint64_t v) { __asm__ volatile("wrfsbase %0" ::"r"(v)); }
static inline void cpu_save_vectors(void *area) {
  __asm__ volatile("xsave64 (%0)" ::"r"(area), "a"(-1), "d"(-1) : "memory");
}
static inline void cpu_restore_vectors(const void *area) {
  __asm__ volatile("xrstor64 (%0)" ::"r"(area), "a"(-1), "d"(-1) : "memory");
}
static inline struct exokernel_processor *cpu_current(void) {
  struct exokernel_processor *v;
  __asm__ volatile("mov %%gs:0, %0" : "=r"(v));
  return v;
}
static inline void cpu_clear_page(void *page) {
  uint64_t count = 512;
  __asm__ volatile("rep stosq" : "+D"(page), "+c"(count) : "a"(0) : "memory");
}
static inline void cpu_copy_page(void *to, const void *from) {
  uint64_t count = 512;
  __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count)::"memory");
}
// The first entry of a page table from `at` on that is not zero; 512 without. Most are: eight are looked at at once.
static inline long exokernel_next_entry(const uint64_t *_Nonnull entries, long at) {
  while (at < 512) {
    const uint64_t *some = entries + at;
    if ((at & 7) == 0 && !(some[0] | some[1] | some[2] | some[3] | some[4] | some[5] | some[6] | some[7])) {
      at += 8;
    } else if (*some) {
      return at;
    } else {
      at++;
    }
  }
  return 512;
}
static inline void cpu_halt(void) { __asm__ volatile("cli; hlt"); }
static inline uint32_t device_load(uint64_t address) { return *(volatile uint32_t *)address; }
static inline void device_store(uint64_t address, uint32_t v) { *(volatile uint32_t *)address = v; }
static inline void device_store8(uint64_t address, uint8_t v) { *(volatile uint8_t *)address = v; }
static inline uint16_t device_load16(uint64_t address) { return *(volatile uint16_t *)address; }
