#define EXOKERNEL_LEAVE 19
// The bare host in ring 3: notes for the hypervisor and the exokernel, calls of the exokernel, and the start.

// Where a hypervisor that follows PVH enters: the exokernel's first instruction, at 1 MiB.
.section .note.Xen, "a", @note
.balign 4
.long 4, 4, 18            // name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
.asciz "Xen"
.long 0x100000

.section .note.Swiftlet, "a", @note
.balign 4
.long 9, 8, 1
.asciz "Swiftlet"
.balign 4
.quad bare_entries

.section .rodata.bare, "a"
.balign 64
bare_entries:             // struct exokernel_entries
  .quad bare_start, bare_stack_top, trap_entry
  .quad gate_exit, gate_exit_end, bare_calls_start, bare_calls_end
  .quad user_copy_start, user_copy_end, user_copy_fault
  .quad user_exchange_start, user_exchange_end, user_exchange_fault
  .quad bare_device_word_storage
  .quad gate_answers, gate_entry_end
  .quad gate_keys_opened, gate_keys_switched
  .quad gate_keys_answer, gate_keys_answer_end, gate_keys_kicked
  .quad gate_refuse, gate_slot_fault

.section .text.bare, "ax"
bare_start:
  xor %ebp, %ebp
  call bare_main
  ud2

bare_calls_start:
// Leaves the libOS for the program of the current block.
.globl bare_leave
bare_leave:
  mov $EXOKERNEL_LEAVE, %eax
  syscall
  jmp gate_exit             // something waits: the slow way out

// long bare_call(number, a, b, c, d)
.globl bare_call
bare_call:
  mov %rdi, %rax
  mov %rsi, %rdi
  mov %rdx, %rsi
  mov %rcx, %rdx
  mov %r8, %r10
  syscall
bare_calls_end:
  ret

.section .bss
.balign 16
.space 65536
bare_stack_top:
.globl bare_device_word_storage
bare_device_word_storage: .long 0
.section .note.GNU-stack, "", @progbits
