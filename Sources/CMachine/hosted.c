// What assembly does in an image, for hosted unit tests: there every address is valid.
#include "machine.h"
#if __STDC_HOSTED__
#include <string.h>
_Thread_local void *machine_hosted_thread;
size_t machine_copy_user(void *destination, const void *source, size_t count) {
  memmove(destination, source, count);
  return 0;
}
size_t machine_clear_user(void *destination, size_t count) {
  memset(destination, 0, count);
  return 0;
}
uint32_t machine_exchange_user_word(uint32_t *word, uint32_t expected, uint32_t desired, uint32_t *seen) {
  *seen = expected;
  __atomic_compare_exchange_n(word, seen, desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
  return 0;
}
// Tests keep the registers in memory: what was restored last is what is saved next.
static _Thread_local unsigned char vector_state[832];
void machine_save_vector_state(void *area) { memcpy(area, vector_state, sizeof vector_state); }
void machine_restore_vector_state(void *area) { memcpy(vector_state, area, sizeof vector_state); }
uint32_t machine_vector_state_size(void) { return sizeof vector_state; }
uint64_t machine_vector_state_features(void) { return 7; }
#endif
