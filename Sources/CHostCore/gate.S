// The gate, the same on both hosts: entry, exit, traps, and copies of program memory that survive faults.
// Offsets are those of struct trap_frame and struct thread_block (CMachine/machine.h).
#define BLOCK_USER_RSP 8
#define BLOCK_FRAME 16
#define BLOCK_ATTENTION 24
#define BLOCK_SLOT 88
#define BLOCK_PROCESS_NUMBER 96
#define BLOCK_THREAD_NUMBER 100
#define F_R9 56
#define F_R8 64
#define F_RDX 72
#define F_RSI 80
#define F_RDI 88
#define F_RAX 96
#define F_RCX 104
#define F_R11 112
#define F_RIP 120
#define F_CS 128
#define F_RFLAGS 136
#define F_RSP 144
#define F_SS 152
#define F_KIND 160
// The frame lies above the block (ThreadStack.swift): a field of it, by GS.
#define FRAME_ABOVE_BLOCK 49088
#define BLOCK_INSIDE 84
// PKRU: the libOS may touch everything, a program nothing but key 0 (Linux's own initial value).
#define KEYS_OPEN 0
#define PKRU_STATE 0x200    // PKRU in XCR0 and in masks of XSAVE
#define KEYS_CLOSED 0x55555554
// System calls whose answer lies in the thread's block.
#define CALL_GETPID 39
#define CALL_GETTID 186
// A thread's slot: eight words of program memory (ProgramSlots.swift).
#define SLOT_RDX 0
#define SLOT_RAX 8
#define SLOT_RCX 16
#define SLOT_RIP 24
#define SLOT_CS 32
#define SLOT_RFLAGS 40
#define SLOT_RSP 48
#define SLOT_SS 56

// What all ways out restore alike: all but rax, rcx, rdx, r11, rip, rflags and rsp.
.macro RESTORE_COMMON
  mov 0(%rsp), %r15
  mov 8(%rsp), %r14
  mov 16(%rsp), %r13
  mov 24(%rsp), %r12
  mov 32(%rsp), %rbp
  mov 40(%rsp), %rbx
  mov 48(%rsp), %r10
  mov 56(%rsp), %r9
  mov F_R8(%rsp), %r8
  mov F_RSI(%rsp), %rsi
  mov F_RDI(%rsp), %rdi
.endm
.macro RESTORE_PRESERVED
  RESTORE_COMMON
  mov F_RDX(%rsp), %rdx
  mov F_RAX(%rsp), %rax
.endm
// What all ways in save alike.
.macro SAVE_COMMON
  mov %r15, 0(%rsp)
  mov %r14, 8(%rsp)
  mov %r13, 16(%rsp)
  mov %r12, 24(%rsp)
  mov %rbp, 32(%rsp)
  mov %rbx, 40(%rsp)
  mov %r10, 48(%rsp)
  mov %r9, F_R9(%rsp)
  mov %r8, F_R8(%rsp)
  mov %rsi, F_RSI(%rsp)
  mov %rdi, F_RDI(%rsp)
  movq $0x202, F_RFLAGS(%rsp)
  movq $0, F_KIND(%rsp)
  cld
  mov %rsp, %rdi
  xor %ebp, %ebp
.endm

// Takes the libOS out of reach. The check behind it keeps a program that jumps to the instruction from choosing what it does.
.macro CLOSE_KEYS
  xor %ecx, %ecx
  xor %edx, %edx
  mov $KEYS_CLOSED, %eax
  wrpkru
  cmp $KEYS_CLOSED, %eax
  jne gate_refuse
.endm

.section .text.gate, "ax"

// From a patched site: rax the number, rcx where to go on, arguments as `syscall` has them. Nothing of the program's
// stack is touched (red zone). Up to gate_entry_end the thread still counts as one that runs its program.
.globl gate_answers
gate_answers:
1: mov %gs:BLOCK_PROCESS_NUMBER, %eax
  jmp *%rcx
.globl gate_answers_thread
gate_answers_thread:
2: mov %gs:BLOCK_THREAD_NUMBER, %eax
  jmp *%rcx
.balign 64
.globl gate_entry
gate_entry:
  cmp $CALL_GETPID, %eax
  je 1b
  cmp $CALL_GETTID, %eax
  je 2b
.globl gate_entry_end
gate_entry_end:
  mov %rsp, %gs:BLOCK_USER_RSP
  mov %gs:BLOCK_FRAME, %rsp
.globl gate_entry_switched
gate_entry_switched:
  mov %rax, F_RAX(%rsp)
  mov %rdx, F_RDX(%rsp)
  mov %rcx, F_RCX(%rsp)
  mov %rcx, F_RIP(%rsp)
  mov %gs:BLOCK_USER_RSP, %rcx
  mov %rcx, F_RSP(%rsp)
  SAVE_COMMON
  call libos_system_call

// Leaves the libOS with the thread's frame. A kick that lands between the check and the last instruction restarts it.
.globl host_enter_program
host_enter_program:
.globl gate_exit
gate_exit:
  mov %gs:BLOCK_FRAME, %rsp
  cmpl $0, %gs:BLOCK_ATTENTION
  jne exit_slowly
  cmpq $0, gate_leave(%rip)
  jne exit_by_host
  cmpq $0, F_KIND(%rsp)
  jne exit_with_everything
  RESTORE_PRESERVED
  mov F_RIP(%rsp), %rcx
  mov $0x202, %r11d
  mov F_RSP(%rsp), %rsp
  jmp *%rcx
exit_with_everything:
  RESTORE_PRESERVED
  mov F_RCX(%rsp), %rcx
  mov F_R11(%rsp), %r11
  movq $0x33, F_CS(%rsp)
  movq $0x2b, F_SS(%rsp)
  lea F_RIP(%rsp), %rsp
  iretq
#include "gate_keys.h"
.globl gate_exit_end
gate_exit_end:

// From a patched site, with keys: rax the number << 32, rcx and rdx the low and the high half of where to go on, each
// << 32, r11 the program's rdx. Up to gate_keys_switched a fault is the program's: its GS base need not be ours.
.balign 64
.globl gate_entry_keys
gate_entry_keys:
  wrpkru
.globl gate_keys_opened
gate_keys_opened:
  test %eax, %eax           // KEYS_OPEN
  jnz gate_refuse
  movl $1, %gs:BLOCK_INSIDE
  mov %rsp, %gs:F_RSP + FRAME_ABOVE_BLOCK
  mov %gs:BLOCK_FRAME, %rsp
.globl gate_keys_switched
gate_keys_switched:
  shr $32, %rcx
  or %rdx, %rcx
  shr $32, %rax
  mov %r11, F_RDX(%rsp)
  mov %rcx, F_RIP(%rsp)
  cmp $CALL_GETPID, %eax
  je 1f
  cmp $CALL_GETTID, %eax
  je 2f
  mov %rax, F_RAX(%rsp)
  mov %rcx, F_RCX(%rsp)
  SAVE_COMMON
  call libos_system_call
  jmp gate_exit
2: mov %gs:BLOCK_THREAD_NUMBER, %eax
  jmp 3f
1: mov %gs:BLOCK_PROCESS_NUMBER, %eax
3: mov %rax, F_RAX(%rsp)
// An answer from the block: no other register has changed, rdx, rax, rip and rsp are in the frame. A kick in here goes
// to gate_keys_kicked.
.globl gate_keys_answer
gate_keys_answer:
  cmpl $0, %gs:BLOCK_ATTENTION
  jne gate_keys_kicked
  mov %gs:BLOCK_SLOT, %rdx
  mov %r11, SLOT_RDX(%rdx)
  mov %rax, SLOT_RAX(%rdx)
  mov %rcx, SLOT_RCX(%rdx)
  mov F_RSP(%rsp), %rcx
  mov %rcx, SLOT_RSP(%rdx)
  mov %rdx, %rsp
  movl $0, %gs:BLOCK_INSIDE
  CLOSE_KEYS
  pop %rdx
  pop %rax
  pop %rcx
  mov SLOT_RSP - 24(%rsp), %rsp
  jmp *%rcx
.globl gate_keys_answer_end
gate_keys_answer_end:
.globl gate_keys_kicked
gate_keys_kicked:
  mov %gs:BLOCK_FRAME, %rsp
  SAVE_COMMON
  jmp gate_exit

// Where only the host can let a program run (it takes the libOS out of sight): with the frame of the current block.
exit_by_host:
  jmp *gate_leave(%rip)

exit_slowly:
  mov %rsp, %rdi
  xor %ebp, %ebp
  call libos_attention
  jmp gate_exit

// The thread's slot could not be written: there is no memory for the program.
.globl gate_slot_fault
gate_slot_fault:
  mov %gs:BLOCK_FRAME, %rsp
  mov %rsp, %rdi
  xor %ebp, %ebp
  call libos_slot_fault
  jmp gate_exit

// The signal handler moved a trapped thread here; its frame is filled.
.globl trap_entry
trap_entry:
  mov %gs:BLOCK_FRAME, %rsp
  mov %rsp, %rdi
  xor %ebp, %ebp
  call gate_trapped
  jmp gate_exit

.section .data
.balign 8
.globl gate_leave
gate_leave: .quad 0

// ---- copies ----------------------------------------------------------------------------------------------------
.section .text.gate, "ax"
.globl machine_copy_user
.globl user_copy_start
user_copy_start:
machine_copy_user:
  mov %rdx, %rcx
  cmp $64, %rdx
  ja 3f
1: cmp $8, %rcx
  jb 2f
  mov (%rsi), %rax
  mov %rax, (%rdi)
  add $8, %rsi
  add $8, %rdi
  sub $8, %rcx
  jmp 1b
2: test %rcx, %rcx
  jz user_copy_done
  mov (%rsi), %al
  mov %al, (%rdi)
  inc %rsi
  inc %rdi
  dec %rcx
  jmp 2b
3: rep movsb
user_copy_done:
  mov %rcx, %rax
  ret
.globl machine_clear_user
machine_clear_user:
  mov %rsi, %rcx
  xor %eax, %eax
  rep stosb
  mov %rcx, %rax
  ret
.globl user_copy_end
user_copy_end:
.globl user_copy_fault
user_copy_fault:
  mov %rcx, %rax
  ret

.globl machine_exchange_user_word
machine_exchange_user_word:
  mov %esi, %eax
.globl user_exchange_start
user_exchange_start:
  lock cmpxchg %edx, (%rdi)
.globl user_exchange_end
user_exchange_end:
  mov %eax, (%rcx)
  xor %eax, %eax
  ret
.globl user_exchange_fault
user_exchange_fault:
  mov $1, %eax
  ret

// ---- vector state ------------------------------------------------------------------------------------------------
.globl machine_save_vector_state
machine_save_vector_state:
  mov $~PKRU_STATE, %eax
  mov $-1, %edx
  xsave64 (%rdi)
  ret
// Who jumps to the XRSTOR with PKRU in the mask gets no further than the check.
.globl machine_restore_vector_state
machine_restore_vector_state:
  mov $~PKRU_STATE, %eax
  mov $-1, %edx
  xrstor64 (%rdi)
  test $PKRU_STATE, %eax
  jnz gate_refuse
  ret
.globl machine_vector_state_features
machine_vector_state_features:
  xor %ecx, %ecx
  xgetbv
  and $~PKRU_STATE, %eax
  shl $32, %rdx
  or %rdx, %rax
  ret
.globl machine_vector_state_size
machine_vector_state_size:
  push %rbx
  mov $0xd, %eax
  xor %ecx, %ecx
  cpuid
  mov %ebx, %eax
  pop %rbx
  ret

// ---- the C library's memory functions, for compiled code ---------------------------------------------------------
.section .text.memory, "ax"
// Up to 32 bytes everything is loaded before anything is stored, so overlapping does not matter.
.macro COPY_SMALL
  cmp $16, %rdx
  jae 4f
  cmp $8, %rdx
  jae 3f
  cmp $4, %rdx
  jae 2f
  test %rdx, %rdx
  jz 1f
  movzbl (%rsi), %ecx
  movzbl -1(%rsi,%rdx), %r8d
  cmp $3, %rdx
  jb 5f
  movzbl 1(%rsi), %r9d
  mov %r9b, 1(%rdi)
5: mov %cl, (%rdi)
  mov %r8b, -1(%rdi,%rdx)
1: ret
2: mov (%rsi), %ecx
  mov -4(%rsi,%rdx), %r8d
  mov %ecx, (%rdi)
  mov %r8d, -4(%rdi,%rdx)
  ret
3: mov (%rsi), %rcx
  mov -8(%rsi,%rdx), %r8
  mov %rcx, (%rdi)
  mov %r8, -8(%rdi,%rdx)
  ret
4: mov (%rsi), %rcx
  mov 8(%rsi), %r8
  mov -16(%rsi,%rdx), %r9
  mov -8(%rsi,%rdx), %r10
  mov %rcx, (%rdi)
  mov %r8, 8(%rdi)
  mov %r9, -16(%rdi,%rdx)
  mov %r10, -8(%rdi,%rdx)
  ret
.endm

.globl memcpy
memcpy:
  mov %rdi, %rax
  cmp $32, %rdx
  jbe copy_small
  mov %rdx, %rcx
  rep movsb
  ret
.globl memmove
memmove:
  mov %rdi, %rax
  cmp $32, %rdx
  jbe copy_small
  mov %rdx, %rcx
  mov %rdi, %r8
  sub %rsi, %r8
  cmp %rdx, %r8
  jb 1f
  rep movsb
  ret
  // Backwards, eight bytes at a time: the string instructions are slow that way.
1: cmp $8, %rcx
  jb 2f
  mov -8(%rsi,%rcx), %r8
  mov %r8, -8(%rdi,%rcx)
  sub $8, %rcx
  jmp 1b
2: test %rcx, %rcx
  jz 3f
  movzbl -1(%rsi,%rcx), %r8d
  mov %r8b, -1(%rdi,%rcx)
  dec %rcx
  jmp 2b
3: ret
copy_small:
  COPY_SMALL
.globl memset
memset:
  mov %rdi, %r8
  mov %esi, %eax
  mov %rdx, %rcx
  rep stosb
  mov %r8, %rax
  ret
.globl memcmp
memcmp:
  xor %eax, %eax
3: cmp $8, %rdx
  jb 4f
  mov (%rdi), %rcx
  cmp (%rsi), %rcx
  jne 1f
  add $8, %rdi
  add $8, %rsi
  sub $8, %rdx
  jmp 3b
4: test %rdx, %rdx
  jz 2f
1: movzbl (%rdi), %eax
  movzbl (%rsi), %ecx
  sub %ecx, %eax
  jne 2f
  inc %rdi
  inc %rsi
  dec %rdx
  jnz 1b
2: ret

// double ceil(double), as code compiled without SSE calls it (argument on the stack, result in st0): hash tables size
// themselves with it. Leaves the x87 registers that the program has as they are.
.globl ceil
ceil:
  fldl 8(%rsp)
  fnstcw -8(%rsp)
  movzwl -8(%rsp), %eax
  and $0xf3ff, %eax
  or $0x0800, %eax
  mov %ax, -16(%rsp)
  fldcw -16(%rsp)
  frndint
  fldcw -8(%rsp)
  ret

.section .text.gate, "ax"
.globl gate_leave
.globl set_gate_leave
set_gate_leave:
  mov %rdi, gate_leave(%rip)
  ret

// ---- stacks ------------------------------------------------------------------------------------------------------
.section .text.gate, "ax"
// void switch_stack(void *stack, void (*function)(void))
.globl switch_stack
switch_stack:
  mov %rdi, %rsp
  xor %ebp, %ebp
  call *%rsi
  jmp gate_exit

.section .note.GNU-stack, "", @progbits
