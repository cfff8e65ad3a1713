// The Linux host's own assembly: host calls, the start of threads, signals, and the start of the process.
.section .text.gate, "ax"
// A new thread's first instructions: rsp is its libOS stack, r12 its block (popped by start_thread_stack's layout).
.globl thread_entry
thread_entry:
  mov %rbx, %rdi
  xor %ebp, %ebp
  call host_thread_started
  jmp gate_exit

// ---- host calls: the only `syscall` instructions that the seal lets through -------------------------------------
.section .text.hostcalls, "ax"
.globl host_calls_start
host_calls_start:

// long host_syscall(long number, a, b, c, d, e, f)
.globl host_syscall
host_syscall:
  mov %rdi, %rax
  mov %rsi, %rdi
  mov %rdx, %rsi
  mov %rcx, %rdx
  mov %r8, %r10
  mov %r9, %r8
  mov 8(%rsp), %r9
  syscall
  ret

// long host_clone(flags, stack, block): the child goes on at thread_entry with rbx = block.
.globl host_clone
host_clone:
  push %rbx
  mov %rdx, %rbx
  mov $56, %eax
  xor %edx, %edx
  xor %r10d, %r10d
  xor %r8d, %r8d
  syscall
  test %rax, %rax
  jz 1f
  pop %rbx
  ret
1: jmp thread_entry

// void host_exit_thread(uint32_t *word): clears the word that says the stack is in use, then ends; no stack after that.
.globl host_exit_thread
host_exit_thread:
  movl $0, (%rdi)
  xor %edi, %edi
  mov $60, %eax
  syscall
  ud2

.globl host_signal_return
host_signal_return:
  mov $15, %eax
  syscall
  ud2
.globl host_calls_end
host_calls_end:

// ---- signals of the host -------------------------------------------------------------------------------------
.section .text.signal, "ax"
.globl host_signal_entry
host_signal_entry:
  sub $8, %rsp
  call host_signal
  add $8, %rsp
  ret

// ---- start -------------------------------------------------------------------------------------------------------
.section .text.start, "ax"
.globl _start
_start:
  xor %ebp, %ebp
  mov %rsp, %rdi
  and $-16, %rsp
  call image_main
  ud2

.section .note.GNU-stack, "", @progbits
