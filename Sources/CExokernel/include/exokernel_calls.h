// The calls of the exokernel: the whole list, and what each may be given. Ring 3 makes them with `syscall` from the
// libOS's own call site only: number in rax, arguments in rdi, rsi, rdx, r10, r8, result in rax (negative: an errno).
//
// A "range" is page aligned, not empty, and lies in the program's part of the address space: at or above 64 KiB, below
// 0x7000_0000_0000 and outside the libOS's own 0x1000_0000_0000 ..< 0x3000_0000_0000. An "arena range" is page aligned
// and lies in the arena. A "word" is a 4-byte aligned address in the arena or in the libOS's data. A "block" is a
// thread_block in the arena whose `frame` lies in the arena, 16-byte aligned. Anything else is EINVAL.
#pragma once
#include <stdint.h>

enum {
  // Memory of the caller's address space.
  EXOKERNEL_MAP = 1,        // range start, length, protection | kind << 8, arena offset; past the arena's end
                            // touching is SIGBUS
  EXOKERNEL_UNMAP = 2,      // range start, length
  EXOKERNEL_PROTECT = 3,    // range start, length, protection
  EXOKERNEL_MOVE = 4,       // range start, length, range start of the same length; they do not overlap
  EXOKERNEL_DISCARD = 5,    // range start, length
  EXOKERNEL_RELEASE = 6,    // arena range: offset, length
  // Threads.
  EXOKERNEL_START_THREAD = 7,   // block, address in the libOS or 0 to leave by the gate: gives the thread's number
  EXOKERNEL_START_PROCESS = 8,  // block: as above, in a copy of the address space
  EXOKERNEL_END_THREAD = 9,     // word, set to 0 when the thread is gone
  EXOKERNEL_PARK = 10,          // word, expected value, deadline in nanoseconds
  EXOKERNEL_UNPARK = 11,        // word, the most threads to wake
  EXOKERNEL_KICK = 12,          // a thread's number
  EXOKERNEL_ADOPT = 13,         // block
  EXOKERNEL_YIELD = 14,         // nothing
  // Devices and the end.
  EXOKERNEL_WRITE_CONSOLE = 15,  // stream (1 or 2), address in libOS memory, length; gives the bytes written
  EXOKERNEL_READ_CONSOLE = 16,   // address in libOS memory, length; gives the bytes read, EAGAIN with none
  EXOKERNEL_BIND = 17,           // arena range of one page: gives its physical address, for a device
  EXOKERNEL_EXIT = 18,           // status
  EXOKERNEL_LEAVE = 19,          // nothing: goes on with the program's registers in the caller's block; comes back
                                 // when the block asks for attention
  EXOKERNEL_ISOLATE = 20,        // EXOKERNEL_PAGING: from now on programs do not see the libOS, and leave it by LEAVE;
                                 // EXOKERNEL_KEYS: they cannot touch it while PKRU closes its key
  EXOKERNEL_TIME = 21,           // a thread's number, 1 for all of its address space: nanoseconds of processor time
  EXOKERNEL_MEMORY = 22,         // a thread's number: the frames of its address space's private pages, of shared ones its share
  EXOKERNEL_SCHEDULE = 24,       // a thread's number, policy as sched(7) numbers it, priority (1 to 100 for real-time
                                 // policies, else 0), nice value + 20
  // Revocation: frames leave the machine, and come back. Both write frame numbers of 32 bits to the start of an arena
  // range of one page, 1024 at most, and give how many.
  EXOKERNEL_SURRENDER = 23,      // arena offset of the page, the most frames: free ones that are nobody's now
  EXOKERNEL_TAKE_BACK = 25,      // arena offset of the page, the most frames: surrendered ones that are free again
  EXOKERNEL_GUARD = 26,          // arena offset of a page that is to fault until it is released: below a stack
};

// What a mapped range shows (bits 8 and up of MAP's third argument).
// IMAGE: the image file from that offset on, written to copies; the range lies in the archive.
enum { EXOKERNEL_ANONYMOUS = 1, EXOKERNEL_SHARED = 2, EXOKERNEL_COPY_ON_WRITE = 3, EXOKERNEL_IMAGE = 5 };

enum { EXOKERNEL_PAGING = 1, EXOKERNEL_KEYS = 2 };

// Protection: read 1, write 2, execute 4; 8: only the libOS may read and write, as its own memory.

// Fixed places of the address space.
#define EXOKERNEL_IMAGE_ADDRESS 0x100000000000ul    // the libOS, as linked
#define EXOKERNEL_ARENA_ADDRESS 0x200000000000ul
#define EXOKERNEL_DEVICE_ADDRESS 0x2d0000000000ul   // pages of devices, as `exokernel_information` lists them
#define EXOKERNEL_INFORMATION_ADDRESS 0x2e0000000000ul
#define EXOKERNEL_RECORD_ADDRESS 0x2e1000000000ul   // the launch record
#define EXOKERNEL_ARCHIVE_ADDRESS 0x2f0000000000ul  // the image's archive

// A page that ring 3 reads: what the machine has.
struct exokernel_information {
  uint64_t arena_bytes;
  uint64_t archive_bytes, record_bytes;
  uint64_t archive_file_offset;   // where the archive starts in the image file
  uint64_t processors;
  uint64_t free_frames;           // that programs may still have; changes all the time
  // nanoseconds = (tsc - time_stamp_base) * multiplier >> 32
  uint64_t time_stamp_base, multiplier;
  uint64_t realtime_base;         // nanoseconds since 1970 when monotonic time was 0
  uint64_t has_keys;              // the processors have protection keys for pages (CPUID 7, PKU)
  uint64_t is_emulated;           // QEMU without KVM
  uint64_t transport_count;
  uint64_t transports[32];        // addresses of virtio-mmio transports
  uint64_t command_line_bytes;
  uint8_t command_line[1024];
  // virtio-pci functions, with an interrupt each (MSI-X vector 0); addresses in ring 3.
  uint64_t function_count;
  struct exokernel_function {
    uint64_t type;                      // virtio device type
    uint64_t common, notify, device;    // its register blocks; `device` is 0 for one that has none
    uint64_t notify_multiplier;
  } functions[24];
};

// What the libOS tells the exokernel about itself: named by the ELF note "Swiftlet", type 1.
struct exokernel_entries {
  uint64_t start;                             // ring 3 begins here, rsp on a stack of its own
  uint64_t stack_top;
  uint64_t trap_entry;                        // a trapped thread goes on here, rsp its frame
  uint64_t gate_exit, gate_exit_end;          // a kick in here restarts the way out
  uint64_t calls_start, calls_end;            // `syscall` in here is a call of the exokernel
  uint64_t copy_start, copy_end, copy_fault;  // a fault in here goes on at copy_fault
  uint64_t exchange_start, exchange_end, exchange_fault;
  uint64_t device_word;                       // a word that the interrupts of devices count up: park on it
  uint64_t answers, answers_end;              // in here a thread still runs its program
  // With protection keys: what a fault in opened ..< switched, or at refuse, is the program's fault; a kick in
  // answer ..< answer_end goes on at kicked; a fault there or on the way out goes on at slot_fault.
  uint64_t keys_opened, keys_switched;
  uint64_t keys_answer, keys_answer_end, keys_kicked;
  uint64_t refuse, slot_fault;
};
