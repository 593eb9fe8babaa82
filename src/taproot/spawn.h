/*
 * Starting a process: everything between SPAWN and execve(2).
 *
 * The child is made with clone3, straight inside its cgroup where that is cgroup2; it does the rest itself, so that
 * nothing slow (a file on a dead network mount, a frozen cgroup) can hold taproot up. What fails in it before exec is
 * written to a close-on-exec pipe as a `struct spawn_failure`; the end of that pipe without one means exec succeeded
 * (or that the child was killed).
 */
#ifndef SPAWN_H
#define SPAWN_H

#include "process.h"

#define SPAWN_ARGUMENTS 4096
#define SPAWN_GROUPS 64
#define SPAWN_RLIMITS 16
#define SPAWN_CGROUPS 16

enum stdio_kind {
    STDIO_NULL = 0,
    STDIO_FILE = 1,
    STDIO_STREAM = 2,
    STDIO_TERMINAL = 3,
    STDIO_STDOUT = 4,
    STDIO_INHERIT = 5,
    STDIO_CONSOLE = 6,
};

struct spawn_request {
    const char *label;
    char **arguments;
    char **environment;
    const char *directory;
    bool has_identity;
    bool session;
    uint32_t uid, gid, group_count;
    uint32_t groups[SPAWN_GROUPS];
    uint32_t rlimit_count;
    struct {
        uint64_t soft, hard; /* the layout of the kernel's rlimit64 */
    } rlimits[SPAWN_RLIMITS];
    uint8_t rlimit_resources[SPAWN_RLIMITS];
    uint32_t cgroup_count;
    const char *cgroups[SPAWN_CGROUPS];
    struct {
        uint8_t kind;
        uint32_t flags, mode;
        const char *path;
    } stdio[3];
    uint16_t rows, columns;
};

struct spawned {
    pid_t pid;
    int status;    /* read end of the failure pipe */
    int input;     /* our ends, non-blocking, or -1. A terminal: two descriptors of it */
    int output[2];
};

struct spawn_failure {
    int32_t stage;
    int32_t error;
};

/* Once, at start: raises the soft limit of descriptors for taproot; children get the old one back. */
void spawn_prepare(void);
/* 0, or an errno and nothing was made. */
int spawn_child(const struct spawn_request *request, struct spawned *made);
/* fork(2) without libc's part: 0 in the child. For the brain and for helpers. */
pid_t spawn_fork(int cgroup);
/* In a forked child: default signals and mask, taproot's first limits, ordinary oom score. */
void spawn_restore_defaults(void);
/* execve(2) with argv[0] looked up in the PATH of `environment`. Returns only when it fails: errno. */
void spawn_execute(char **arguments, char **environment);

#endif
