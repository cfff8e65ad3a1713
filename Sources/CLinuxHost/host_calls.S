// The Linux host's own assembly: host calls, the start of threads, signals, and the start of the process.
// The libOS may be touched from here on. The check behind it keeps a program that jumps to the instruction from choosing
// what it does.
.macro OPEN_KEYS
  xor %eax, %eax
  xor %ecx, %ecx
  xor %edx, %edx
  wrpkru
  test %eax, %eax
  jnz gate_refuse
.endm

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
  mov host_secret(%rip), %r9
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
  mov host_secret(%rip), %r9
  mov $60, %eax
  syscall
  ud2

.globl host_signal_return
host_signal_return:
  mov $15, %eax
  mov host_secret(%rip), %r9
  syscall
  ud2

// long host_change_signal_stack(stack, old, place): sigaltstack(2), which Linux refuses on the signal stack itself; so from another one.
.globl host_change_signal_stack
host_change_signal_stack:
  mov %rsp, %r8
  mov %rdx, %rsp
  mov $131, %eax
  mov host_secret(%rip), %r9
  syscall
  mov %r8, %rsp
  ret

// rax = the thread's number; r10, rdi, rsi, r8 stay.
host_thread_number:
  mov host_secret(%rip), %r9
  mov $186, %eax
  syscall
  xor %r9d, %r9d
  jmp signal_thread_known
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

// The same where protection keys isolate (LinuxHost's KeyedSignals). Linux has closed the libOS's key. What comes with
// the signal lies on the thread's signal stack, which its program can write, or, where the libOS was interrupted, on its
// libOS stack; a program may also have jumped here. So whose thread this is, is told by the stack pointer and the GS base
// together, and a frame on the libOS stack is believed only while the thread is inside.
#define THREAD_BYTES 65536
#define BLOCK_OFFSET 3968
#define STACK_OFFSET 8192
#define SIGNAL_OFFSET 53248
#define BLOCK_FRAME 16
#define BLOCK_HOST_THREAD 64
#define BLOCK_INSIDE 84
.globl host_signal_entry_keys
host_signal_entry_keys:
  mov %rdx, %r8
  OPEN_KEYS
  cmpq $0, host_secret(%rip)  // of another host
  je gate_refuse
  mov %rsp, %r10
  and $-THREAD_BYTES, %r10
  add $BLOCK_OFFSET, %r10
  rdgsbase %rax
  cmp %rax, %r10
  jne 2f
1: mov %rsp, %rax
  and $THREAD_BYTES - 1, %eax
  cmp $SIGNAL_OFFSET, %eax
  jae 3f
  cmpl $0, BLOCK_INSIDE(%r10)
  je 4f
  // The libOS was interrupted.
  mov %r8, %rdx
  sub $8, %rsp
  cld
  call host_signal_inside
  add $8, %rsp
  ret
// The program has changed its GS base: Linux says which thread this is.
2: mov %r10, %rdx
  mov host_threads_base(%rip), %rcx
  sub %rcx, %rdx
  shr $16, %rdx
  cmp host_threads_count(%rip), %rdx
  jae gate_refuse
  mov host_threads(%rip), %rcx
  cmpb $0, (%rcx, %rdx)
  je gate_refuse
  jmp host_thread_number
signal_thread_known:
  cmp %rax, BLOCK_HOST_THREAD(%r10)
  jne gate_refuse
  wrgsbase %r10
  jmp 1b
// The program was interrupted: its libOS stack is free.
3: mov BLOCK_FRAME(%r10), %rsp
  mov %r8, %rdx
  xor %ebp, %ebp
  cld
  call host_signal_program
  mov %rax, %rsp
  jmp host_signal_return
// Its stack pointer lay in the libOS's stack, or it jumped here.
4: mov BLOCK_FRAME(%r10), %rsp
  movl $1, BLOCK_INSIDE(%r10)
  xor %ebp, %ebp
  cld
  call host_signal_stray
  jmp gate_slot_fault

// At start only, on a stack of the image's own thread: later a jump here dies with the check, for no program's GS base is 0.
.globl host_open_keys
host_open_keys:
  OPEN_KEYS
  cmpq $0, gate_leave(%rip)
  jne gate_refuse
  ret

// Where a handled signal goes on in the libOS, whatever PKRU its frame said: at r11.
.globl host_resume_keys
host_resume_keys:
  OPEN_KEYS
  cmpl $0, %gs:BLOCK_INSIDE
  je gate_refuse
  jmp *%r11
.globl host_signal_keys_end
host_signal_keys_end:

.section .data
.balign 8
.globl host_secret, host_threads, host_threads_base, host_threads_count
host_secret: .quad 0
host_threads: .quad 0
host_threads_base: .quad 0
host_threads_count: .quad 0

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
