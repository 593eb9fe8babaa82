/* The floor under the other files: clocks, the log, epoll, spare descriptors. See taproot.h. */
#define _GNU_SOURCE
#include "printer.h"
#include "taproot.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

uint64_t clock_epoch_ns(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int64_t clock_ms(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t earlier(int64_t one, int64_t other)
{
    if (one < 0) return other;
    if (other < 0) return one;
    return one < other ? one : other;
}

/* ---- the log ---- */

static int log_descriptor = -1;
static bool log_is_kernel;

/*
 * A pipe or terminal is opened anew, so that it can be non-blocking without changing the description that others write
 * to as well. A file must stay the same description, or each would write over the other's lines; it does not block.
 */
void log_open(void)
{
    struct stat error_output;
    if (!log_is_kernel && fstat(2, &error_output) == 0 && (S_ISFIFO(error_output.st_mode) || S_ISCHR(error_output.st_mode)))
        log_descriptor = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
}

/* The kernel's log is on every console and keeps what was said before anybody could read it. */
void log_to_kernel(void)
{
    const int kernel = printer_open();
    if (kernel < 0) return;
    const int limit = open("/proc/sys/kernel/printk_devkmsg", O_WRONLY | O_CLOEXEC);
    if (limit >= 0 && write(limit, "on\n", 3) < 0) errno = 0; /* then the kernel drops what comes too quickly */
    if (limit >= 0) close(limit);
    log_descriptor = kernel;
    log_is_kernel = true;
}

void log_forget(void)
{
    log_descriptor = -1;
}

static void log_write(const char *text, size_t length)
{
    if (log_descriptor >= 0) {
        if (write(log_descriptor, text, length) < 0) return; /* nobody reads, or nobody is left */
    } else if (log_is_kernel) {
        if (write(2, text, length) < 0) return; /* a fork: the console, or the kernel's log; neither blocks */
    } else if (send(2, text, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == ENOTSOCK) {
        struct pollfd ready = {.fd = 2, .events = POLLOUT, .revents = 0};
        if (poll(&ready, 1, 0) == 1 && write(2, text, length) < 0) return;
    }
}

void say(const char *format, ...)
{
    static int64_t window_start;
    static uint32_t lines, dropped;
    const int64_t now = clock_ms();
    if (now - window_start > 10000) {
        window_start = now;
        lines = 0;
    }
    if (++lines > 40) {
        dropped++;
        return;
    }
    char line[1024];
    size_t length = 0;
    if (dropped > 0) {
        const int used = snprintf(line, sizeof line, "taproot: (%u lines left out)\n", dropped);
        length = used > 0 ? (size_t)used : 0;
        dropped = 0;
    }
    const char *head = log_is_kernel && log_descriptor >= 0 ? "<3>taproot: " : "taproot: "; /* shown even with `quiet` */
    memcpy(line + length, head, strlen(head));
    length += strlen(head);
    va_list values;
    va_start(values, format);
    const int wanted = vsnprintf(line + length, sizeof line - length - 1, format, values);
    va_end(values);
    if (wanted < 0) return;
    const size_t room = sizeof line - length - 2;
    length += (size_t)wanted < room ? (size_t)wanted : room;
    line[length++] = '\n';
    log_write(line, length);
}

/* ---- the loop ---- */

static int loop = -1;

int loop_open(void)
{
    if (loop < 0) loop = epoll_create1(EPOLL_CLOEXEC);
    return loop;
}

bool loop_add(int descriptor, uint64_t token, uint32_t events)
{
    struct epoll_event event = {.events = events, .data = {.u64 = token}};
    return epoll_ctl(loop, EPOLL_CTL_ADD, descriptor, &event) == 0;
}

void loop_change(int descriptor, uint64_t token, uint32_t events)
{
    struct epoll_event event = {.events = events, .data = {.u64 = token}};
    if (epoll_ctl(loop, EPOLL_CTL_MOD, descriptor, &event) != 0)
        say("cannot watch descriptor %d: %s", descriptor, strerror(errno));
}

void loop_remove(int descriptor)
{
    epoll_ctl(loop, EPOLL_CTL_DEL, descriptor, NULL);
}

void loop_close(int *descriptor)
{
    if (*descriptor < 0) return;
    loop_remove(*descriptor);
    close(*descriptor);
    *descriptor = -1;
}

/* ---- spare descriptors ---- */

enum { SPARES = 6 };
static int spares[SPARES]; /* 0: not held; 0 itself is never one, as descriptors 0 to 2 are always taken */

void spares_release(void)
{
    for (size_t i = 0; i < SPARES; i++) {
        if (spares[i] > 0) close(spares[i]);
        spares[i] = 0;
    }
}

bool spares_keep(void)
{
    for (size_t i = 0; i < SPARES; i++) {
        if (spares[i] > 0) continue;
        const int spare = fcntl(loop, F_DUPFD_CLOEXEC, 3);
        if (spare < 0) return false;
        spares[i] = spare;
    }
    return true;
}

int open_surely(const char *path, int flags)
{
    int descriptor = open(path, flags | O_CLOEXEC);
    if (descriptor < 0 && (errno == EMFILE || errno == ENFILE)) {
        spares_release();
        descriptor = open(path, flags | O_CLOEXEC);
    }
    return descriptor;
}
