// The gate where protection keys keep programs out of the libOS's memory. Part of gate.S, inside the way out.
//
// WRPKRU wants eax, and zeros in ecx and edx: what the program has there travels elsewhere. On the way in the
// trampoline has packed it (Trampolines.swift). On the way out nothing of the libOS can be read once the key is
// closed, so that the last registers come from the thread's slot, which is memory of the program: what other threads of
// the program write there changes registers of the program, and only after the key has been closed.
//
// Every WRPKRU is followed by a check that the value written is the one meant: a program may jump to it with another.

// The way out: with the frame of the current block.
.globl gate_exit_keys
gate_exit_keys:
  mov %gs:BLOCK_FRAME, %rsp
  cmpl $0, %gs:BLOCK_ATTENTION
  jne exit_slowly
  mov %gs:BLOCK_SLOT, %r11
  mov F_RDX(%rsp), %rcx
  mov %rcx, SLOT_RDX(%r11)
  mov F_RAX(%rsp), %rdx
  mov %rdx, SLOT_RAX(%r11)
  mov F_RIP(%rsp), %rcx
  mov F_RSP(%rsp), %rdx
  mov %rdx, SLOT_RSP(%r11)
  cmpq $0, F_KIND(%rsp)
  jne 1f
  mov %rcx, SLOT_RCX(%r11)
  RESTORE_COMMON
  mov %r11, %rsp
  movl $0, %gs:BLOCK_INSIDE
  CLOSE_KEYS
  pop %rdx
  pop %rax
  pop %rcx
  mov SLOT_RSP - 24(%rsp), %rsp
  jmp *%rcx
// With all registers.
1: mov %rcx, SLOT_RIP(%r11)
  mov F_RCX(%rsp), %rcx
  mov %rcx, SLOT_RCX(%r11)
  mov F_RFLAGS(%rsp), %rcx
  mov %rcx, SLOT_RFLAGS(%r11)
  movq $0x33, SLOT_CS(%r11)
  movq $0x2b, SLOT_SS(%r11)
  RESTORE_COMMON
  mov %r11, %rcx
  mov F_R11(%rsp), %r11
  mov %rcx, %rsp
  movl $0, %gs:BLOCK_INSIDE
  CLOSE_KEYS
  pop %rdx
  pop %rax
  pop %rcx
  iretq

// The end of a program that tried one of the above. Its rights first: with a key closed that the host needs to tell of
// the trap, Linux would end the whole host process.
.globl gate_refuse
gate_refuse:
  CLOSE_KEYS
  ud2
