// Places of the gate that hosts need the addresses of, and the change of stacks.
#pragma once
#include <stdint.h>
#include "../../CMachine/include/machine.h"

// Leaves the libOS with the frame of the current block.
void host_enter_program(void) __attribute__((noreturn));
// Goes on in `function` on another stack, and leaves the libOS when it returns.
void switch_stack(void *stack, void (*function)(void)) __attribute__((noreturn));

// Not 0: the address that leaves the libOS instead of the gate's own way.
void set_gate_leave(uint64_t address);

// The libOS (Syscalls), for threads that come in by the gate and by traps.
void libos_system_call(struct trap_frame *frame);
void libos_trap(struct trap_frame *frame);

extern char gate_answers[], gate_answers_thread[], gate_entry[], gate_entry_end[], gate_exit[], gate_exit_end[], trap_entry[];
// Where protection keys keep programs out (gate_keys.h).
extern char gate_entry_keys[], gate_keys_opened[], gate_keys_switched[], gate_keys_answer[], gate_keys_answer_end[];
extern char gate_keys_kicked[], gate_exit_keys[], gate_refuse[], gate_slot_fault[];
extern char user_copy_start[], user_copy_end[], user_copy_fault[];
extern char user_exchange_start[], user_exchange_end[], user_exchange_fault[];
extern char image_start[], image_end[], data_start[], data_end[];

#define ADDRESS_OF(name) \
  static inline uint64_t address_of_##name(void) { return (uint64_t)name; }
ADDRESS_OF(gate_entry)
ADDRESS_OF(gate_answers)
ADDRESS_OF(gate_answers_thread)
ADDRESS_OF(gate_entry_end)
ADDRESS_OF(gate_entry_keys)
ADDRESS_OF(gate_keys_opened)
ADDRESS_OF(gate_keys_switched)
ADDRESS_OF(gate_keys_answer)
ADDRESS_OF(gate_keys_answer_end)
ADDRESS_OF(gate_keys_kicked)
ADDRESS_OF(gate_exit_keys)
ADDRESS_OF(gate_refuse)
ADDRESS_OF(gate_slot_fault)
ADDRESS_OF(gate_exit)
ADDRESS_OF(gate_exit_end)
ADDRESS_OF(trap_entry)
ADDRESS_OF(user_copy_start)
ADDRESS_OF(user_copy_end)
ADDRESS_OF(user_copy_fault)
ADDRESS_OF(user_exchange_start)
ADDRESS_OF(user_exchange_end)
ADDRESS_OF(user_exchange_fault)
ADDRESS_OF(image_start)
ADDRESS_OF(image_end)
ADDRESS_OF(data_start)
ADDRESS_OF(data_end)
