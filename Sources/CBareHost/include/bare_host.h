// The bare host's assembly: calls of the exokernel, and the start in ring 3.
#pragma once
#include <stdint.h>
#include "../../CExokernel/include/exokernel_calls.h"

long bare_call(long number, long a, long b, long c, long d);
extern uint32_t bare_device_word_storage;
static inline uint32_t *_Nonnull bare_device_word(void) { return &bare_device_word_storage; }
void bare_standby(void);
void bare_leave(void);
static inline uint64_t bare_leave_address(void) { return (uint64_t)bare_leave; }
static inline uint64_t bare_standby_address(void) { return (uint64_t)bare_standby; }
static inline uint64_t bare_time_stamp(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}
static inline int bare_random(uint64_t *value) {
  unsigned char done;
  __asm__ volatile("rdrand %0; setc %1" : "=r"(*value), "=qm"(done)::"cc");
  return done;
}
static inline int bare_has_random(void) {
  uint32_t a = 1, b, c = 0, d;
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  return c >> 30 & 1;
}
static inline void bare_write_fs_base(uint64_t value) { __asm__ volatile("wrfsbase %0" ::"r"(value)); }
static inline uint32_t bare_load(uint64_t address) { return *(volatile uint32_t *)address; }
static inline void bare_store(uint64_t address, uint32_t value) { *(volatile uint32_t *)address = value; }
static inline uint64_t bare_free_frames(const struct exokernel_information *_Nonnull information) {
  return *(const volatile uint64_t *)&information->free_frames;
}
static inline void bare_fence(void) { __asm__ volatile("mfence" ::: "memory"); }
static inline uint16_t bare_load16(uint64_t address) { return *(volatile uint16_t *)address; }
static inline uint8_t bare_load8(uint64_t address) { return *(volatile uint8_t *)address; }
static inline void bare_store8(uint64_t address, uint8_t value) { *(volatile uint8_t *)address = value; }
static inline void bare_store16(uint64_t address, uint16_t value) { *(volatile uint16_t *)address = value; }
