// The gate, the same on both hosts: entry, exit, traps, and copies of program memory that survive faults.
// Offsets are those of struct trap_frame and struct thread_block (CMachine/machine.h).
#define BLOCK_USER_RSP 8
#define BLOCK_FRAME 16
#define BLOCK_ATTENTION 24
#define F_RAX 96
#define F_RCX 104
#define F_R11 112
#define F_RIP 120
#define F_CS 128
#define F_RFLAGS 136
#define F_RSP 144
#define F_SS 152
#define F_KIND 160

// What both ways out restore alike: all but rcx, r11, rip, rflags and rsp.
.macro RESTORE_PRESERVED
  mov 0(%rsp), %r15
  mov 8(%rsp), %r14
  mov 16(%rsp), %r13
  mov 24(%rsp), %r12
  mov 32(%rsp), %rbp
  mov 40(%rsp), %rbx
  mov 48(%rsp), %r10
  mov 56(%rsp), %r9
  mov 64(%rsp), %r8
  mov 72(%rsp), %rdx
  mov 80(%rsp), %rsi
  mov 88(%rsp), %rdi
  mov F_RAX(%rsp), %rax
.endm

.section .text.gate, "ax"

// From a patched site: rax the number, rcx where to go on, arguments as `syscall` has them. Nothing of the program's
// stack is touched (red zone).
.balign 64
.globl gate_entry
gate_entry:
  mov %rsp, %gs:BLOCK_USER_RSP
  mov %gs:BLOCK_FRAME, %rsp
.globl gate_entry_switched
gate_entry_switched:
  mov %r15, 0(%rsp)
  mov %r14, 8(%rsp)
  mov %r13, 16(%rsp)
  mov %r12, 24(%rsp)
  mov %rbp, 32(%rsp)
  mov %rbx, 40(%rsp)
  mov %r10, 48(%rsp)
  mov %r9, 56(%rsp)
  mov %r8, 64(%rsp)
  mov %rdx, 72(%rsp)
  mov %rsi, 80(%rsp)
  mov %rdi, 88(%rsp)
  mov %rax, F_RAX(%rsp)
  mov %rcx, F_RCX(%rsp)
  mov %rcx, F_RIP(%rsp)
  mov %gs:BLOCK_USER_RSP, %rcx
  mov %rcx, F_RSP(%rsp)
  movq $0x202, F_RFLAGS(%rsp)
  movq $0, F_KIND(%rsp)
  cld
  mov %rsp, %rdi
  xor %ebp, %ebp
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
.globl gate_exit_end
gate_exit_end:

// Where only the host can let a program run (it takes the libOS out of sight): with the frame of the current block.
exit_by_host:
  jmp *gate_leave(%rip)

exit_slowly:
  mov %rsp, %rdi
  xor %ebp, %ebp
  call libos_attention
  jmp gate_exit

// The signal handler moved a trapped thread here; its frame is filled.
.globl trap_entry
trap_entry:
  mov %gs:BLOCK_FRAME, %rsp
  mov %rsp, %rdi
  xor %ebp, %ebp
  call libos_trap
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
  mov $-1, %eax
  mov $-1, %edx
  xsave64 (%rdi)
  ret
.globl machine_restore_vector_state
machine_restore_vector_state:
  mov $-1, %eax
  mov $-1, %edx
  xrstor64 (%rdi)
  ret
.globl machine_vector_state_features
machine_vector_state_features:
  xor %ecx, %ecx
  xgetbv
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
