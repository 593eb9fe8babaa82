/* See printer.h. */
#define _GNU_SOURCE
#include "printer.h"
#include "taproot.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <time.h>
#include <unistd.h>

enum {
    PACKET = 4096, /* the most that is read at once from a pipe of packets */
    LINE = 900,    /* the kernel takes entries of about a thousand bytes and refuses longer ones */
    ROOM = 1 << 20, /* a page for each packet: 256 of them */
    STACK = 65536,
    SLOW_MS = 400, /* for one entry: a line at 9600 baud takes a tenth */
    SLOW_IN_A_ROW = 3,
    STUCK_MS = 5000, /* for one: no more of them are needed. With an emulated processor on a busy machine a line can take a minute */
    SILENT_MS = 60000,
    DRAIN_STEP_MS = 20,
    DRAIN_STEPS = 15,
    CONSOLE_LEVEL = 8, /* of syslog(2) */
    SILENT = 1,        /* as level: emergencies only */
};

static int kernel_log = -1;
static int pipe_out = -1, pipe_in = -1;

/* ---- a console that does not take what it is sent ---- */

static struct {
    int slow;         /* entries in a row */
    int level;        /* what it was before it was silenced; 0: it is not */
    int64_t again_at; /* when it is tried again */
} console;

static int console_level(void)
{
    char text[32] = "";
    const int file = open("/proc/sys/kernel/printk", O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    if (read(file, text, sizeof text - 1) < 0) text[0] = '\0';
    close(file);
    return text[0] >= '0' && text[0] <= '9' ? text[0] - '0' : 0;
}

/*
 * Waits until the consoles have what is in the log: whoever reads this takes their lock. The kernel has one writer print for all,
 * and who came last takes over from who printed before, like the brain when a link comes up; it would print for us for as long as we
 * add to it, while our own writes are done at once.
 */
static void await_consoles(void)
{
    char names[64];
    const int file = open("/sys/class/tty/console/active", O_RDONLY | O_CLOEXEC);
    if (file < 0) return; /* not mounted yet, or there is none */
    if (read(file, names, sizeof names) < 0) names[0] = '\0';
    close(file);
}

/* How long that took the consoles, in milliseconds. */
static int64_t enter(const char *text, size_t length)
{
    const int64_t began = clock_ms();
    if (write(kernel_log, text, length) < 0) return 0; /* too long or no memory: nobody else could be told */
    await_consoles();
    return clock_ms() - began;
}

static int64_t enter_word(const char *text)
{
    return enter(text, strlen(text));
}

/* The processor that prints does nothing else meanwhile, whoever it works for: the kernel shall print no more. */
static void judge(int64_t took_ms)
{
    console.slow = took_ms >= STUCK_MS ? SLOW_IN_A_ROW : took_ms >= SLOW_MS ? console.slow + 1 : 0;
    if (console.slow < SLOW_IN_A_ROW || console.level != 0) return;
    const int level = console_level();
    if (level <= SILENT) return;
    enter_word("<3>taproot: the console does not take what it is sent; nothing is printed on it for a minute\n");
    if (klogctl(CONSOLE_LEVEL, NULL, SILENT) != 0) return;
    console.level = level;
    console.again_at = clock_ms() + SILENT_MS;
}

static void try_again(void)
{
    if (console.level == 0 || clock_ms() < console.again_at) return;
    const int level = console.level;
    console.level = 0;
    console.slow = SLOW_IN_A_ROW - 1; /* one is enough this time */
    if (console_level() == SILENT) klogctl(CONSOLE_LEVEL, NULL, level);
    judge(enter_word("<3>taproot: the console is tried again\n"));
}

/* ---- printing ---- */

/* Each line is an entry, and has the level that the text began with. */
static void print(const char *text, size_t length)
{
    const size_t head = length > 3 && text[0] == '<' && text[2] == '>' ? 3 : 0;
    char entry[LINE + 8];
    memcpy(entry, text, head);
    for (size_t at = head; at < length;) {
        const char *end = memchr(text + at, '\n', length - at);
        size_t line = end ? (size_t)(end - (text + at)) : length - at;
        if (line > LINE) line = LINE;
        memcpy(entry + head, text + at, line);
        entry[head + line] = '\n';
        try_again();
        if (line > 0) judge(enter(entry, head + line + 1));
        at += line;
        if (at < length && text[at] == '\n') at++;
    }
}

static void *run(void *nothing)
{
    static char text[PACKET];
    for (;;) {
        const ssize_t length = read(pipe_out, text, sizeof text);
        if (length > 0) print(text, (size_t)length);
        else if (length == 0 || errno != EINTR) return nothing;
    }
}

static bool start_thread(void)
{
    sigset_t all, before;
    pthread_t thread;
    pthread_attr_t attributes;
    sigfillset(&all); /* signals are for the one that waits for them */
    sigprocmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    const bool started = pthread_create(&thread, &attributes, run, NULL) == 0;
    sigprocmask(SIG_SETMASK, &before, NULL);
    return started;
}

int printer_open(void)
{
    int ends[2];
    kernel_log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    if (kernel_log < 0) return -1;
    if (pipe2(ends, O_CLOEXEC | O_DIRECT) != 0) return kernel_log;
    pipe_out = ends[0];
    fcntl(ends[1], F_SETPIPE_SZ, ROOM);
    if (fcntl(ends[1], F_SETFL, O_NONBLOCK | O_DIRECT) == 0 && start_thread()) return pipe_in = ends[1];
    close(ends[0]);
    close(ends[1]);
    return kernel_log; /* then whoever says something waits for the console */
}

int printer_copy(void)
{
    char path[32];
    if (pipe_in < 0) return -1;
    snprintf(path, sizeof path, "/proc/self/fd/%d", pipe_in);
    const int copy = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (copy >= 0) fcntl(copy, F_SETFL, O_NONBLOCK | O_DIRECT);
    return copy;
}

void printer_drain(void)
{
    const struct timespec step = {.tv_sec = 0, .tv_nsec = DRAIN_STEP_MS * 1000000};
    int waiting = 1;
    for (int i = 0; pipe_in >= 0 && i < DRAIN_STEPS && waiting > 0; i++) {
        if (ioctl(pipe_in, FIONREAD, &waiting) != 0) return;
        nanosleep(&step, NULL); /* also for the one that has been read and is being printed */
    }
}
