/* See system.h. */
#define _GNU_SOURCE
#include "system.h"
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- processes ---- */

bool system_process(pid_t pid, pid_t *parent, uint64_t *start_time)
{
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    const int file = open_surely(path, O_RDONLY);
    if (file < 0) return false;
    const ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    spares_keep();
    if (length <= 0) return false;
    text[length] = '\0';
    /* "PID (name) state ppid …": the name may hold anything, so fields are counted from the last parenthesis. */
    char *at = strrchr(text, ')');
    for (int field = 2; at; field++) {
        if (field == 4) *parent = (pid_t)strtol(at, NULL, 10);
        if (field == 22) {
            *start_time = strtoull(at, NULL, 10);
            return true;
        }
        at = strchr(at, ' ');
        if (at) at++;
    }
    return false;
}

uint64_t system_memory_kills(void)
{
    static char text[16384];
    static const char name[] = "\noom_kill ";
    const int file = open_surely("/proc/vmstat", O_RDONLY);
    if (file < 0) return 0;
    const ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    spares_keep();
    text[length > 0 ? length : 0] = '\0';
    const char *at = strstr(text, name);
    return at ? strtoull(at + sizeof name - 1, NULL, 10) : 0;
}

uint64_t system_memory(void)
{
    struct sysinfo information;
    return sysinfo(&information) == 0 ? (uint64_t)information.totalram * information.mem_unit >> 20 : 0;
}

struct directory_entry {
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

/* Calls `visit` with every name in a directory that is a number; readdir(3) would allocate. */
static void for_each_number(const char *path, void (*visit)(int number, void *with), void *with)
{
    static char entries[8192] __attribute__((aligned(8)));
    const int directory = open_surely(path, O_RDONLY | O_DIRECTORY);
    if (directory < 0) return;
    for (;;) {
        const long length = syscall(SYS_getdents64, directory, entries, sizeof entries);
        if (length <= 0) break;
        for (long at = 0; at < length;) {
            const struct directory_entry *entry = (const struct directory_entry *)(const void *)(entries + at);
            if (entry->name[0] >= '0' && entry->name[0] <= '9') visit((int)strtol(entry->name, NULL, 10), with);
            at += entry->length;
        }
    }
    close(directory);
    spares_keep();
}

static void count_one(int number, void *with)
{
    (void)number;
    (*(uint32_t *)with)++;
}

uint32_t system_descriptors(void)
{
    uint32_t count = 0;
    for_each_number("/proc/self/fd", count_one, &count);
    return count > 0 ? count - 1 : 0; /* without the one that did the counting */
}

/* While a child is not reaped its pid cannot belong to another, so kill(2) is as safe where there is no pidfd. */
static int signal_one(pid_t pid, int signal_number)
{
    const int descriptor = (int)syscall(SYS_pidfd_open, pid, 0);
    if (descriptor < 0) return kill(pid, signal_number) == 0 ? 0 : errno;
    const long sent = syscall(SYS_pidfd_send_signal, descriptor, signal_number, NULL, 0);
    const int error = sent == 0 ? 0 : errno;
    close(descriptor);
    return error;
}

int system_signal(struct process *process, int signal_number, bool group)
{
    if (process->exited) {
        /*
         * The group lives on without its leader. Its number cannot be given to a new process while somebody is in it;
         * a process that has the number now shows that the group had become empty.
         */
        if (!group || !process->group_left || kill(process->pid, 0) == 0) return ESRCH;
        return kill(-process->pid, signal_number) == 0 ? 0 : errno;
    }
    if (group) {
        const pid_t of = getpgid(process->pid);
        /* Still taproot's own group: it has not come as far as leaving it, so it is alone. */
        if (of > 1 && of != getpgrp()) return kill(-of, signal_number) == 0 ? 0 : errno;
    }
    return signal_one(process->pid, signal_number);
}

static void signal_child(int pid, void *with)
{
    const int *signal_number = with;
    pid_t parent = 0;
    uint64_t start_time = 0;
    if (!system_process(pid, &parent, &start_time) || parent != getpid()) return;
    struct process *process = process_by_pid(pid);
    if (process) system_signal(process, *signal_number, true);
    else signal_one(pid, *signal_number);
}

void system_signal_children(int signal_number)
{
    if (getpid() == 1) kill(-1, signal_number);
    else for_each_number("/proc", signal_child, &signal_number);
}

bool system_has_children(void)
{
    siginfo_t info;
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 || errno != ECHILD;
}

/* ---- helpers ---- */

enum { HELPERS = 16, HELPER_CHDIR_FAILED = 0x80 };

static struct helper {
    pid_t pid; /* 0: free, or ended */
    bool ended;
    bool forgotten;
    bool settles;
    uint8_t code;
    uint32_t request;
} helpers[HELPERS];

bool system_is_machine(void)
{
    struct stat space;
    const ino_t first_pid_namespace = 0xEFFFFFFCu; /* PROC_PID_INIT_INO, part of the kernel's interface */
    return getpid() == 1 && stat("/proc/self/ns/pid", &space) == 0 && space.st_ino == first_pid_namespace;
}

/* Octal escapes of /proc/self/mounts, in place. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *at = text; *at;) {
        if (at[0] == '\\' && at[1] && at[2] && at[3]) {
            *to++ = (char)((at[1] - '0') * 64 + (at[2] - '0') * 8 + (at[3] - '0'));
            at += 4;
        } else {
            *to++ = *at++;
        }
    }
    *to = '\0';
}

/*
 * In a helper at the very end: everything to disk and every file system read-only and, where it can be, unmounted, the youngest
 * first.
 * In a container's namespace only sync: remounting would hit file systems that belong to the machine.
 */
static void settle(bool machine)
{
    static char mounts[262144];
    size_t length = 0;
    sync();
    if (!machine) return;
    const int file = open("/proc/self/mounts", O_RDONLY | O_CLOEXEC);
    for (ssize_t got; file >= 0 && (got = read(file, mounts + length, sizeof mounts - 1 - length)) > 0;)
        length += (size_t)got;
    mounts[length] = '\0';
    while (length > 0) {
        mounts[--length] = '\0'; /* the line's end */
        while (length > 0 && mounts[length - 1] != '\n') length--;
        char *target = strchr(mounts + length, ' ');
        char *after = target ? strchr(target + 1, ' ') : NULL;
        if (!after) continue;
        *after = '\0';
        unescape(++target);
        /* Read-only first: what else still holds the file system (a namespace that is being torn down) does not keep it dirty. */
        const bool clean = mount(NULL, target, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0;
        const int because = errno;
        if (umount2(target, 0) != 0 && !clean && strncmp(mounts + length, "/dev/", 5) == 0)
            say("cannot unmount %s: %s", target, strerror(because));
    }
    sync();
}

static _Noreturn void help(const struct helper_work *work)
{
    int failed = 0;
    syscall(SYS_close_range, 3, ~0u, 0); /* it may hang for long: no pipe and no lock shall hang with it */
    spawn_restore_defaults();
    setsid();
    if (work->kind == HELPER_MOUNT) {
        if (*work->directory && chdir(work->directory) != 0) _exit(HELPER_CHDIR_FAILED | (errno & 0x7f));
        failed = mount(work->source, work->target, *work->type ? work->type : NULL, (unsigned long)work->flags,
                       *work->data ? work->data : NULL);
    } else if (work->kind == HELPER_UNMOUNT) {
        failed = umount2(work->target, (int)work->flags);
    } else if (work->kind == HELPER_MODULE) {
        const int module = open(work->source, O_RDONLY | O_CLOEXEC);
        failed = module < 0 ? -1 : (int)syscall(SYS_finit_module, module, work->data, 0);
    } else {
        settle(work->machine);
    }
    _exit(failed == 0 ? 0 : errno & 0x7f);
}

int helper_start(const struct helper_work *work, uint32_t request)
{
    struct helper *helper = NULL;
    for (int i = 0; i < HELPERS && !helper; i++)
        if (helpers[i].pid == 0 && !helpers[i].ended) helper = &helpers[i];
    if (!helper) return EBUSY;
    const pid_t pid = spawn_fork(-1);
    if (pid == 0) help(work);
    if (pid < 0) return errno;
    *helper = (struct helper){.pid = pid, .request = request, .settles = work->kind == HELPER_SETTLE};
    return 0;
}

bool helper_reaped(pid_t pid, int wait_status)
{
    for (int i = 0; i < HELPERS; i++) {
        struct helper *helper = &helpers[i];
        if (helper->pid != pid) continue;
        helper->pid = 0;
        helper->ended = !helper->forgotten;
        helper->code = WIFEXITED(wait_status) ? (uint8_t)WEXITSTATUS(wait_status) : EINTR;
        return true;
    }
    return false;
}

bool helper_answer(uint32_t *request, int *error, const char **text)
{
    for (int i = 0; i < HELPERS; i++) {
        struct helper *helper = &helpers[i];
        if (!helper->ended || helper->settles) continue;
        helper->ended = false;
        *request = helper->request;
        *error = helper->code & 0x7f;
        *text = helper->code & HELPER_CHDIR_FAILED ? "the directory" : "";
        return true;
    }
    return false;
}

bool helper_settled(void)
{
    for (int i = 0; i < HELPERS; i++)
        if (helpers[i].settles && helpers[i].ended) return true;
    return false;
}

void helpers_forget_brain(void)
{
    for (int i = 0; i < HELPERS; i++) {
        if (helpers[i].settles) continue;
        helpers[i].forgotten = true;
        helpers[i].ended = false;
    }
}

/* ---- power ---- */

void system_power(uint8_t action)
{
    enum { KEXEC = 0x45584543 }; /* LINUX_REBOOT_CMD_KEXEC */
    if (action == 4) reboot(KEXEC); /* comes back when no kernel is loaded: restart the long way */
    if (action == 2 || action == 4) reboot(RB_AUTOBOOT);
    if (action == 3) reboot((int)RB_HALT_SYSTEM);
    reboot(RB_POWER_OFF);
}
