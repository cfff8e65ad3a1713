// System calls in every way that compilers write them, often enough that the sites are rewritten: each must stay what it is.
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

// Behind the return is padding, as C libraries have it: room for a jump.
#define WRAPPER(name, body)                                                                                            \
  long name(long, long, long);                                                                                         \
  __asm__(".text\n.balign 16\n" #name ":\n" body "\nsyscall\ncmp $-4096, %rax\nja 1f\nret\n.balign 16\n1: ret\n");

WRAPPER(number_last, "mov $39, %eax")
WRAPPER(number_from_extended, "mov $39, %r8d\nmov $500, %eax\nmov %r8d, %eax")
WRAPPER(number_from_register, "mov $39, %esi\nmov $500, %eax\nmov %esi, %eax")
WRAPPER(zero_last, "xor %eax, %eax")
WRAPPER(zero_extended, "mov $39, %eax\nxor %r8d, %r8d")
WRAPPER(argument_last, "mov %rdi, %rsi\nmov $0, %edx\nmov $257, %eax\nmov $-100, %edi")
WRAPPER(extended_constant, "mov $9, %eax\nxor %edi, %edi\nmov $4096, %esi\nmov $3, %edx\nmov $0x22, %r10d\nxor %r9d, %r9d\n"
                           "mov $0xffffffff, %r8d")
WRAPPER(other_constant, "mov %rdi, %rsi\nmov $1, %edi\nmov $20, %eax\nmov $1, %edx")

int main(void) {
  long good = 0;
  char byte;
  int zero = open("/dev/zero", O_RDONLY);
  for (int turn = 0; turn < 6; turn++) {
    good += number_last(0, 0, 0) == getpid();
    good += number_from_extended(0, 0, 0) == getpid();
    good += number_from_register(0, 0, 0) == getpid();
    good += zero_last(zero, (long)&byte, 1) == 1;
    good += zero_extended(0, 0, 0) == getpid();
    long opened = argument_last((long)"/dev/null", 0, 0);
    good += opened > 0 && close(opened) == 0;
    long mapped = extended_constant(0, 0, 0);
    good += mapped > 0 && munmap((void *)mapped, 4096) == 0;
    struct { const void *base; unsigned long length; } part = {"-", 1};
    good += other_constant((long)&part, 0, 0) == 1;
  }
  printf("\n%ld\n", good);
  return good != 48;
}
