/*
 * What every file of taproot shares: the limits, the clocks, the log, the event loop's tokens, the spare descriptors.
 *
 * taproot is PID 1 (or a brain's parent and subreaper). It owns processes; the brain (PROTOCOL.md) decides.
 *
 * The rules that every line here keeps:
 *  - No allocation: all state is in fixed tables in .bss. An untouched page costs nothing, so generous limits are free.
 *  - No exit and no blocking: whatever may wait (mount, sync, exec, opening a file for a child) happens in a child;
 *    every descriptor in the loop is non-blocking.
 *  - Everything is O(what happened): nothing in the loop walks the table of processes.
 *  - When something runs out (table, descriptors, memory) the request is refused and the loop goes on.
 */
#ifndef TAPROOT_H
#define TAPROOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TAPROOT_VERSION "0.1.0"
/* The versions of the protocol that taproot speaks: PROTOCOL.md, "Compatibility". */
#define PROTOCOL_VERSION 2
#define PROTOCOL_OLDEST 2

/* How many processes, running or ended and not yet acknowledged. Tests build with a small one. */
#ifndef PROCESS_CAPACITY
#define PROCESS_CAPACITY 4096
#endif
/* Exits of orphans that nobody has claimed yet. */
#define ORPHANS_REMEMBERED 1024
/* Processes with a stdin stream (or terminal) at one time: each has INPUT_LONGEST bytes of buffer. */
#ifndef INPUT_CAPACITY
#define INPUT_CAPACITY 512
#endif
#define INPUT_LONGEST 65536
/* Processes with a terminal at one time: tee(2) does not work on them, so each has a buffer. */
#define TERMINAL_CAPACITY 256
#define TERMINAL_BUFFER 4096
#define OUTPUT_LONGEST 65536
#define LABEL_LONGEST 128

/* The settings of the command line (options.c); defaults in brackets. */
struct options {
    const char *lock;        /* file to flock, or NULL */
    bool private_mounts;     /* a mount namespace of our own */
    int lifeline;            /* descriptor whose end of file means SIGTERM, or -1 */
    int channel;             /* speak on this descriptor instead of starting a brain, or -1 */
    const char *guest;       /* name of the virtio-serial port whose other end is the brain's, or NULL */
    int64_t heartbeat_ms;    /* longest silence of a brain [2500] */
    int64_t hello_ms;        /* time a new brain has for HELLO [30000] */
    int64_t stop_ms;         /* time a brain has to stop the tree [60000] */
    uint32_t brain_failures; /* brains without HELLO in a row before giving up; 0 never [10, as PID 1 0] */
    const char *brain_cgroup; /* cgroup2 directory that brains start in, or NULL */
    uint64_t brain_memory;   /* most memory of that cgroup in bytes, or 0 */
    const char *brain_log;   /* file that brains get as stdout and stderr, or NULL: taproot's own */
    const char *watchdog;    /* device that resets the machine unless it is fed, or NULL */
    int64_t watchdog_patience_ms; /* longest time without a word of any brain before it is not fed [600000] */
    uint32_t rescue_after;   /* brains that end soon after their start, in a row, before the rescue brain is started [5] */
    char **brain;            /* argv of the brain, or NULL with a channel */
    char **rescue;           /* argv of the rescue brain, or NULL */
};
extern struct options options;

/* Fills `options`; on --help and --version prints and ends with 0. False: a mistake, which it has said. */
bool options_read(int count, char **arguments);

/* Nanoseconds since the Unix epoch: for people and records. Can jump. */
uint64_t clock_epoch_ns(void);
/* Milliseconds that only grow: for deadlines. Stands still while the machine sleeps. */
int64_t clock_ms(void);
/* The earlier of two deadlines, where -1 is none. */
int64_t earlier(int64_t one, int64_t other);

/*
 * One line to stderr, "taproot: …". Never blocks: a log nobody reads loses lines, and so does a storm (at most 40
 * lines in 10 seconds; the next line says how many are missing).
 */
void log_open(void);
void log_to_kernel(void); /* /dev/kmsg, for the machine's PID 1 */
void log_forget(void); /* in a fork: descriptors are about to become something else */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * The event loop. A token is what an event carries: one of these, or a process' id * 8 + one of `source` (ids are at
 * least PROCESS_CAPACITY, so the two never meet). Trap: a registration outlives close(2) while a fork holds a copy of
 * the descriptor, so descriptors of the loop are closed with loop_close() and nothing else.
 */
enum { TOKEN_SIGNAL = 1, TOKEN_CHANNEL = 2, TOKEN_LIFELINE = 3, TOKEN_BUTTON = 4, TOKEN_PORT = 5, TOKENS_FIXED = 8 };
enum source { SOURCE_STDOUT = 0, SOURCE_STDERR = 1, SOURCE_STDIN = 2, SOURCE_STATUS = 3, SOURCE_CONSOLE = 4 };
int loop_open(void);
bool loop_add(int descriptor, uint64_t token, uint32_t events); /* false: errno says why */
void loop_change(int descriptor, uint64_t token, uint32_t events);
void loop_close(int *descriptor); /* -1 is left alone; becomes -1 */
void loop_remove(int descriptor); /* it stays open */

/*
 * Descriptors held back so that the machinery that must not fail (reading /proc to reap, starting a brain) works when
 * all others are used up: let go, use, keep again. `spares_keep` is false while they cannot all be had: then requests
 * that need descriptors are refused.
 */
void spares_release(void);
bool spares_keep(void);
/* open(2) with O_CLOEXEC, with the help of a spare where there is no other. The caller closes, then spares_keep(). */
int open_surely(const char *path, int flags);

#endif
