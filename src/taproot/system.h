/*
 * What taproot asks the kernel about and does to processes and mounts, apart from starting them (spawn.h).
 *
 * Everything that may wait for a disk or a network runs in a helper: a forked child whose exit code is the answer.
 */
#ifndef SYSTEM_H
#define SYSTEM_H

#include "process.h"

/* Parent and start time of a process, zombies included; false: it is not there (or /proc is not mounted). */
bool system_process(pid_t pid, pid_t *parent, uint64_t *start_time);
/* How many descriptors taproot has open. */
uint32_t system_descriptors(void);
/* 0, or an errno. With `group` the whole process group, also after its leader has ended. */
int system_signal(struct process *process, int signal_number, bool group);
/* To every child of taproot and its process group; as PID 1 to every process there is. */
void system_signal_children(int signal_number);
bool system_has_children(void);

/* A helper's work; strings are used before helper_start() returns in the parent. */
enum helper_kind { HELPER_MOUNT, HELPER_UNMOUNT, HELPER_MODULE, HELPER_SETTLE };
struct helper_work {
    enum helper_kind kind;
    const char *source, *target, *type, *data, *directory; /* of a module: file in source, parameters in data */
    uint64_t flags;
    bool machine; /* of HELPER_SETTLE: it is the machine that ends, which a helper, not being PID 1, cannot find out */
};
/* 0, or an errno: EBUSY when HELPERS of them are at work. `request` is what the answer goes to. */
int helper_start(const struct helper_work *work, uint32_t request);
/* Takes a reaped pid; false: it was no helper's. */
bool helper_reaped(pid_t pid, int wait_status);
/* The next answer that is ready; false: none. `error` 0 is success. */
bool helper_answer(uint32_t *request, int *error, const char **text);
bool helper_settled(void); /* HELPER_SETTLE has ended */
/* Nobody waits for the answers any more. */
void helpers_forget_brain(void);

/* As PID 1, after everything was stopped: reboot(2) with a SHUTDOWN action. Returns when the kernel refuses. */
void system_power(uint8_t action);
/* How often the kernel has killed a process for want of memory, in all; 0 where it does not count. */
uint64_t system_memory_kills(void);
/* The memory of the machine in MiB. */
uint64_t system_memory(void);
/* PID 1 of the machine, not of a container. */
bool system_is_machine(void);

#endif
