// Ways into ring 0 and out of it. From ring 3 the stack is the end of the thread's own register record, so that the
// registers are saved where they stay; the work is done on the processor's stack.
#define REGISTERS_SIZE 176
#define CPU_STACK 8
#define CPU_THREAD 16
#define CPU_SCRATCH 24

.macro SAVE
  push %r11
  push %rcx
  push %rax
  push %rdi
  push %rsi
  push %rdx
  push %r8
  push %r9
  push %r10
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
.endm
.macro RESTORE
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  pop %r10
  pop %r9
  pop %r8
  pop %rdx
  pop %rsi
  pop %rdi
  pop %rax
  pop %rcx
  pop %r11
  add $16, %rsp
.endm

.section .text.traps, "ax"
.balign 16
.globl exokernel_vectors
exokernel_vectors:
.set vector, 0
.rept 256
  .balign 16
  // Double fault, TSS, segment, stack, protection, page, alignment, control protection: an error number is there.
  .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
  .else
  push $0
  .endif
  push $vector
  jmp trap
  .set vector, vector + 1
.endr

trap:
  testb $3, 24(%rsp)
  jz trap_in_ring_0
  swapgs
  SAVE
enter:
  mov %rsp, %rdi
  mov %gs:CPU_STACK, %rsp
  cld
  xor %ebp, %ebp
  call exokernel_enter
  mov %rax, %rdi
.globl exokernel_run
exokernel_run:
  mov %rdi, %rsp
  RESTORE
  swapgs
  iretq

.balign 16
.globl exokernel_system_call_entry
exokernel_system_call_entry:
  swapgs
  mov %rsp, %gs:CPU_SCRATCH
  mov %gs:CPU_THREAD, %rsp
  lea REGISTERS_SIZE(%rsp), %rsp
  push $0x2b
  push %gs:CPU_SCRATCH
  push %r11
  push $0x33
  push %rcx
  push $0
  push $256
  SAVE
  jmp enter

// An interrupt while the processor was idle, or a mistake of the exokernel.
trap_in_ring_0:
  SAVE
  mov %rsp, %rdi
  mov %rsp, %rbx
  and $-16, %rsp
  cld
  call exokernel_trap_in_ring_0
  mov %rbx, %rsp
  RESTORE
  iretq

// Interrupts open for the time of one `hlt` only.
.globl exokernel_wait_for_interrupt
exokernel_wait_for_interrupt:
  sti
  hlt
  cli
  ret

// void exokernel_load_tables(descriptors, limit, interrupt_table): GDT, IDT (all 256 vectors) and the TSS at 0x38
.globl exokernel_load_tables
exokernel_load_tables:
  sub $24, %rsp
  mov %si, 6(%rsp)
  mov %rdi, 8(%rsp)
  lgdt 6(%rsp)
  movw $4095, 6(%rsp)
  mov %rdx, 8(%rsp)
  lidt 6(%rsp)
  add $24, %rsp
  pop %rax
  push $8
  push %rax
  xor %eax, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %fs
  mov %eax, %gs
  mov $0x10, %eax
  mov %eax, %ss
  mov $0x38, %eax
  ltr %ax
  lretq

.section .text.memory, "ax"
.globl memcpy, memmove, memset
memcpy:
  mov %rdi, %rax
  mov %rdx, %rcx
  rep movsb
  ret
memmove:
  mov %rdi, %rax
  mov %rdx, %rcx
  mov %rdi, %r8
  sub %rsi, %r8
  cmp %rdx, %r8
  jb 1f
  rep movsb
  ret
1: lea -1(%rdi,%rdx), %rdi
  lea -1(%rsi,%rdx), %rsi
  std
  rep movsb
  cld
  ret
memset:
  mov %rdi, %r8
  mov %esi, %eax
  mov %rdx, %rcx
  rep stosb
  mov %r8, %rax
  ret
.section .note.GNU-stack, "", @progbits
