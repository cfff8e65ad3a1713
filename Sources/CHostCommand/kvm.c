// Is there a KVM that works? Some machines have /dev/kvm but cannot run every instruction in it: so a virtual machine
// of a few instructions is run, those that restore vector registers among them (Documentation/virt/kvm/api.rst).
#include "host_command.h"
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

// Real mode: CR4.OSFXSR, OSXMMEXCPT, OSXSAVE; xsave and xrstor at 0x3000 with eax:edx = 3; hlt.
static const unsigned char program[] = {
    0x0f, 0x20, 0xe0,                                // mov %cr4, %eax
    0x66, 0x0d, 0x00, 0x06, 0x04, 0x00,              // or $0x40600, %eax
    0x0f, 0x22, 0xe0,                                // mov %eax, %cr4
    0x66, 0xb8, 0x03, 0x00, 0x00, 0x00,              // mov $3, %eax
    0x66, 0x31, 0xd2,                                // xor %edx, %edx
    0xbb, 0x00, 0x30,                                // mov $0x3000, %bx
    0x0f, 0xae, 0x27,                                // xsave (%bx)
    0x0f, 0xae, 0x2f,                                // xrstor (%bx)
    0xf4};                                           // hlt

static int set_processor(int device, int processor) {
  struct kvm_cpuid2 *features = calloc(1, sizeof *features + 128 * sizeof(struct kvm_cpuid_entry2));
  if (!features) return -1;
  features->nent = 128;
  int result = ioctl(device, KVM_GET_SUPPORTED_CPUID, features);
  if (result == 0) result = ioctl(processor, KVM_SET_CPUID2, features);
  free(features);
  struct kvm_sregs segments;
  if (result != 0 || ioctl(processor, KVM_GET_SREGS, &segments) != 0) return -1;
  segments.cs.base = 0;
  segments.cs.selector = 0;
  struct kvm_regs registers;
  memset(&registers, 0, sizeof registers);
  registers.rip = 0x1000;
  registers.rflags = 2;
  if (ioctl(processor, KVM_SET_SREGS, &segments) != 0) return -1;
  return ioctl(processor, KVM_SET_REGS, &registers);
}

static int run(int device, int machine, void *memory) {
  memcpy((char *)memory + 0x1000, program, sizeof program);
  struct kvm_userspace_memory_region region = {.memory_size = 0x10000, .userspace_addr = (unsigned long)memory};
  if (ioctl(machine, KVM_SET_USER_MEMORY_REGION, &region) != 0) return 0;
  int processor = ioctl(machine, KVM_CREATE_VCPU, 0);
  int size = ioctl(device, KVM_GET_VCPU_MMAP_SIZE, 0);
  if (processor < 0 || size <= 0) return 0;
  struct kvm_run *state = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, processor, 0);
  int works = state != MAP_FAILED && set_processor(device, processor) == 0 && ioctl(processor, KVM_RUN, 0) == 0 &&
              state->exit_reason == KVM_EXIT_HLT;
  if (state != MAP_FAILED) munmap(state, size);
  close(processor);
  return works;
}

int kvm_usable(void) {
  int device = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (device < 0) return 0;
  int machine = ioctl(device, KVM_CREATE_VM, 0);
  void *memory = mmap(0, 0x10000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  int works = machine >= 0 && memory != MAP_FAILED && run(device, machine, memory);
  if (memory != MAP_FAILED) munmap(memory, 0x10000);
  if (machine >= 0) close(machine);
  close(device);
  return works;
}
