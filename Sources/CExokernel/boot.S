// PVH entry (32-bit, no paging, ebx = start_info) to long mode at the exokernel's own addresses; the processors that
// start later come through the trampoline. Linked at 0xffffffff80100000, loaded at 1 MiB.
#define PHYSICAL(x) ((x) - 0xffffffff80000000)

.section .text.boot, "ax"
.code32
.globl exokernel_start
exokernel_start:
  cli
  cld
  mov %ebx, %ebp
  mov $PHYSICAL(exokernel_bss_start), %edi
  mov $PHYSICAL(exokernel_end), %ecx
  sub %edi, %ecx
  shr $2, %ecx
  xor %eax, %eax
  rep stosl
  // The first GiB, at 0 and at 0xffffffff80000000.
  mov $PHYSICAL(boot_second) + 3, %eax
  mov %eax, PHYSICAL(boot_third)
  mov %eax, PHYSICAL(boot_third) + 510 * 8
  mov $PHYSICAL(boot_third) + 3, %eax
  mov %eax, PHYSICAL(exokernel_boot_table)
  mov %eax, PHYSICAL(exokernel_boot_table) + 511 * 8
  mov $PHYSICAL(boot_second), %edi
  mov $0x83, %eax
1: mov %eax, (%edi)
  add $8, %edi
  add $0x200000, %eax
  cmp $0x40000083, %eax
  jne 1b
  lgdt PHYSICAL(boot_descriptors_pointer)
  call enter_long_mode
  ljmp $8, $PHYSICAL(2f)
.code64
2: movabs $3f, %rax
  jmp *%rax
3: xor %eax, %eax
  mov %eax, %ss
  mov %eax, %ds
  mov %eax, %es
  lea boot_stack_top(%rip), %rsp
  mov %ebp, %edi
  xor %ebp, %ebp
  call exokernel_main
  ud2

.code32
enter_long_mode:
  mov $PHYSICAL(exokernel_boot_table), %eax
  mov %eax, %cr3
  mov %cr4, %eax
  or $0x20, %eax            // PAE
  mov %eax, %cr4
  mov $0xc0000080, %ecx     // EFER: LME, NXE, SCE
  rdmsr
  or $0x901, %eax
  wrmsr
  mov %cr0, %eax
  or $0x80000001, %eax      // PG, PE
  mov %eax, %cr0
  ret

// Copied to 0x8000: where a processor starts, in real mode.
.code16
.globl exokernel_trampoline
exokernel_trampoline:
  cli
  xor %ax, %ax
  mov %ax, %ds
  lgdtl 0x8000 + trampoline_descriptors_pointer - exokernel_trampoline
  mov %cr0, %eax
  or $1, %eax
  mov %eax, %cr0
  ljmpl $24, $0x8000 + trampoline_protected - exokernel_trampoline
.code32
trampoline_protected:
  mov $16, %ax
  mov %ax, %ds
  mov %ax, %ss
  mov $0x9000, %esp
  mov $PHYSICAL(enter_long_mode), %eax
  call *%eax
  ljmp $8, $PHYSICAL(4f)
.balign 8
trampoline_descriptors_pointer:
  .word 31
  .long PHYSICAL(boot_descriptors)
.globl exokernel_trampoline_end
exokernel_trampoline_end:
.code64
4: movabs $5f, %rax
  jmp *%rax
5: xor %eax, %eax
  mov %eax, %ss
  mov %eax, %ds
  mov %eax, %es
  mov exokernel_trampoline_stack(%rip), %rsp
  mov exokernel_trampoline_processor(%rip), %rdi
  xor %ebp, %ebp
  call exokernel_processor_main
  ud2

// Where the next processor finds its stack and record.
.globl exokernel_set_trampoline
exokernel_set_trampoline:
  mov %rdi, exokernel_trampoline_stack(%rip)
  mov %rsi, exokernel_trampoline_processor(%rip)
  ret

.section .data
.balign 8
boot_descriptors: .quad 0, 0x00209a0000000000, 0x00cf92000000ffff, 0x00cf9a000000ffff
boot_descriptors_pointer: .word 31
  .long PHYSICAL(boot_descriptors)
.balign 8
.globl exokernel_trampoline_stack, exokernel_trampoline_processor
exokernel_trampoline_stack: .quad 0
exokernel_trampoline_processor: .quad 0

.section .bss
.balign 4096
.globl exokernel_boot_table
exokernel_boot_table: .space 4096
boot_third: .space 4096
boot_second: .space 4096
.space 16384
boot_stack_top:
.section .note.GNU-stack, "", @progbits
