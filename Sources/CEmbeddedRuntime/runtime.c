// Counting of references without atomic operations, because objects are touched under the kernel lock only. The compiler
// calls the nonatomic functions (-assume-single-threaded), but what it specializes late the others, which replace the
// runtime's weak ones. The layout is that of Embedded Swift's runtime: the count in the second word,
// its highest bit set for objects on the stack, all other bits set for objects that are never freed.
#include "runtime.h"

#if !__STDC_HOSTED__
#include <stdint.h>

struct metadata {
  void *superclass;
  void __attribute__((swiftcall)) (*destroy)(__attribute__((swift_context)) void *object);
};

struct counted {
  const struct metadata *metadata;
  uintptr_t count;
};

#define COUNT (UINTPTR_MAX >> 1)

static inline int is_counted(const struct counted *object) {
  return (intptr_t)object > 0 && (object->count & COUNT) != COUNT;
}

void *swift_nonatomic_retain_n(void *object, uint32_t number) {
  struct counted *counted = object;
  if (is_counted(counted)) counted->count += number;
  return object;
}

void *swift_nonatomic_retain(void *object) { return swift_nonatomic_retain_n(object, 1); }

void swift_nonatomic_release(void *object) {
  struct counted *counted = object;
  if (!is_counted(counted)) return;
  if ((counted->count & COUNT) != 1) {
    counted->count--;
    return;
  }
  // What its destruction does with references to itself must not free it again.
  counted->count |= COUNT;
  counted->metadata->destroy(object);
}

void swift_nonatomic_release_n(void *object, uint32_t number) {
  struct counted *counted = object;
  if (!is_counted(counted) || number == 0) return;
  counted->count -= number - 1;
  swift_nonatomic_release(object);
}

void *swift_retain(void *object) { return swift_nonatomic_retain_n(object, 1); }
void *swift_retain_n(void *object, uint32_t number) { return swift_nonatomic_retain_n(object, number); }
void swift_release(void *object) { swift_nonatomic_release(object); }
void swift_release_n(void *object, uint32_t number) { swift_nonatomic_release_n(object, number); }

// Embedded Swift on this machine has no tagged pointers: a bridge object is the object.
void *swift_nonatomic_bridgeObjectRetain(void *object) { return swift_nonatomic_retain_n(object, 1); }
void swift_nonatomic_bridgeObjectRelease(void *object) { swift_nonatomic_release(object); }
#endif
