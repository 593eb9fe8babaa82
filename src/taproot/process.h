/*
 * The table of processes: one entry for each that was spawned or claimed, from SPAWNED until ACKNOWLEDGE.
 *
 * Found in constant time by id (the slot is in the id) and by pid (a hash); walked in order of id (a list), which
 * only a new brain's greeting and the final stop do. Beside it the exits of orphans that nobody has claimed yet.
 *
 * Trap: a pointer to an entry is good until process_free() of it; whatever outlives a turn of the loop keeps the id.
 */
#ifndef PROCESS_H
#define PROCESS_H

#include "taproot.h"

enum exit_how { EXIT_CODE = 0, EXIT_SIGNAL = 1, EXIT_CORE = 2, EXIT_NOT_EXECUTED = 3 };
enum stage {
    STAGE_NONE = 0,
    STAGE_CGROUP = 1,
    STAGE_RLIMIT = 2,
    STAGE_IDENTITY = 3,
    STAGE_DIRECTORY = 4,
    STAGE_STDIO = 5,
    STAGE_SESSION = 6,
    STAGE_EXEC = 7,
};

struct exit_record {
    uint8_t how;
    uint8_t stage;
    int32_t value; /* code, signal or errno */
    uint64_t time; /* nanoseconds since the epoch */
    uint64_t user_us;
    uint64_t system_us;
    uint64_t max_rss_kib;
};

/* What a brain still has to be told about an entry; see channel.c. */
enum due { DUE_EXIT = 1, DUE_STDOUT = 2, DUE_STDERR = 4, DUE_INPUT = 8, DUE_QUEUED = 128 };

/*
 * One output of a process. Offsets count bytes since the process started:
 *
 *     0 ........ confirmed ........ sent ........
 *     forgotten  | served, may be   | not seen yet
 *                | served again     |
 */
struct output {
    int descriptor; /* our end of the pipe or the terminal; -1: none, or ended */
    bool wanted;    /* a READ waits */
    bool ended;     /* its end has been told, with `time` */
    uint32_t limit; /* of that READ */
    uint32_t chunk; /* length of the chunk at `confirmed` when it has been served, else 0 */
    uint64_t confirmed;
    uint64_t sent;
    uint64_t time; /* of the last chunk */
};

struct input {
    int descriptor; /* -1: none, or closed */
    bool ending;    /* INPUT_END was said; close when the buffer is empty */
    bool shut;      /* the brain is owed the news that nobody reads any more */
    uint16_t buffer; /* index + 1 in the pool, or 0 */
    uint32_t start, length; /* what waits in that buffer */
    uint32_t taken; /* bytes the process' pipe took that INPUT_TAKEN has not told yet */
};

struct process {
    uint64_t id;
    uint64_t start_time;
    pid_t pid;
    bool exited;
    bool group_left; /* at its exit there were others in its process group */
    uint8_t due;
    uint16_t terminal; /* index + 1 of its buffer, or 0: no terminal */
    int console;       /* where it hands over a terminal: a listening socket, then the connection; -1: no more */
    int status;        /* read end of the pipe that tells why there was no exec, or -1 */
    struct output output[2];
    struct input input;
    struct exit_record exit;
    uint32_t by_pid, older, newer, next_due; /* links: slot + 1 */
    char label[LABEL_LONGEST + 1];
};

/* A fresh entry under a new id, at the end of the list; NULL when the table is full. */
struct process *process_new(pid_t pid, uint64_t start_time, const char *label);
void process_free(struct process *process);
bool process_table_full(void);
struct process *process_by_id(uint64_t id);
struct process *process_by_pid(pid_t pid); /* only of those that have not ended */
struct process *process_oldest(void);
struct process *process_after(const struct process *process);
/* Keeps the exit; from here on the pid belongs to whoever the kernel gives it to. */
void process_ended(struct process *process, const struct exit_record *record);

struct process_counts {
    uint32_t entries, exited, orphans_reaped;
};
extern struct process_counts process_counts;

/* The queue of entries with something due, each once, first in first out. */
void due_add(struct process *process, uint8_t what);
struct process *due_first(void);
void due_remove_first(void);

/* Exits of children that have no entry: the last ORPHANS_REMEMBERED. */
void orphan_remember(pid_t pid, uint64_t start_time, const struct exit_record *record);
/* The newest exit of that pid (and start time, unless 0), which is then forgotten; false: none. */
bool orphan_recall(pid_t pid, uint64_t *start_time, struct exit_record *record);

#endif
