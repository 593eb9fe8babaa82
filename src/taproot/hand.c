/*
 * hand SOCKET KIND:PATH NAME: a file for a QEMU that runs and may not open any itself. It is opened as whoever calls this, as launch
 * does it (opened.h), and given to the monitor (QMP) that listens at SOCKET. KIND is one of
 *   ro, rw   a disk: becomes a descriptor in a set of its own (/dev/fdset/N) that is called NAME there
 *   new      a file that is made, for its owner alone, and must not have been there: becomes the descriptor NAME (fd:NAME)
 *   in       a file that is read: becomes the descriptor NAME
 *   peer     another monitor's socket: one end of a connection becomes the descriptor NAME here, the other end there
 *
 * Prints the monitor's answer, one line of JSON (peer: the other's before it): {"return": …} or {"error": …}. Who reads it must take
 * it for a stranger's: a guest may have taken its QEMU over. It may keep us DEADLINE seconds and say MOST bytes a line.
 *
 * Trap: a monitor serves one client at a time. SOCKET is one that nobody else uses while this runs, and callers take turns.
 *
 * Exit codes: 66 the file cannot be opened, 71 anything else; standard error says why.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "opened.h"

enum { DEADLINE = 10, MOST = 65536, MOST_LINES = 256 };
enum { NO_INPUT = 66, OS_ERROR = 71, USAGE = 64 };

static char line[MOST];
static size_t held;

static _Noreturn void fail(int code, const char *what)
{
    fprintf(stderr, "hand: %s: %s\n", what, strerror(errno));
    exit(code);
}

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: hand SOCKET ro|rw|new|in|peer:PATH NAME\n");
    exit(USAGE);
}

static int connected(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        fail(OS_ERROR, path);
    }
    strcpy(address.sun_path, path);
    const int monitor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (monitor < 0 || connect(monitor, (const struct sockaddr *)&address, sizeof address) != 0) fail(OS_ERROR, path);
    return monitor;
}

/* Sends a command, with a descriptor unless it is -1. */
static void say(int monitor, char *command, int file)
{
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec text = {.iov_base = command, .iov_len = strlen(command)};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1};
    if (file >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof file);
        memcpy(CMSG_DATA(rights), &file, sizeof file);
    }
    /* a few dozen bytes: they go as one */
    if (sendmsg(monitor, &message, MSG_NOSIGNAL) != (ssize_t)text.iov_len) fail(OS_ERROR, "the monitor");
}

/* The next line into `line`, without its end. */
static void hear(int monitor)
{
    for (;;) {
        char byte;
        const ssize_t count = read(monitor, &byte, 1);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) {
            if (count == 0) errno = EPIPE;
            fail(OS_ERROR, "the monitor");
        }
        if (byte == '\n') break;
        if (held == sizeof line - 1) {
            errno = EMSGSIZE;
            fail(OS_ERROR, "the monitor");
        }
        line[held++] = byte;
    }
    line[held] = '\0';
    held = 0;
}

/* What it answers to a command: events are passed over. */
static void answer(int monitor)
{
    for (int lines = 0; lines < MOST_LINES; lines++) {
        hear(monitor);
        if (strstr(line, "\"event\"") == NULL) return;
    }
    errno = EPROTO;
    fail(OS_ERROR, "the monitor");
}

static bool is_plain(const char *name)
{
    return *name != '\0' && strlen(name) <= 64 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(name);
}

/* Gives a monitor a descriptor by that command; false: it said no. Prints what it said. */
static bool give(const char *socket_path, const char *command, const char *argument, const char *name, int file)
{
    const int monitor = connected(socket_path);
    hear(monitor); /* its greeting */
    char text[160] = "{\"execute\": \"qmp_capabilities\"}\n";
    say(monitor, text, -1);
    answer(monitor);
    snprintf(text, sizeof text, "{\"execute\": \"%s\", \"arguments\": {\"%s\": \"%s\"}}\n", command, argument, name);
    say(monitor, text, file);
    answer(monitor);
    close(monitor);
    if (puts(line) < 0 || fflush(stdout) != 0) fail(OS_ERROR, "standard output");
    return strncmp(line, "{\"error\"", 8) != 0;
}

/* The part of a word behind its prefix, or nothing. */
static const char *behind(const char *word, const char *prefix)
{
    const size_t length = strlen(prefix);
    return strncmp(word, prefix, length) == 0 ? word + length : NULL;
}

int main(int count, char **words)
{
    if (count != 4 || !is_plain(words[3])) usage();
    const char *socket_path = words[1], *what = words[2], *name = words[3], *path;
    alarm(DEADLINE);
    if ((path = behind(what, "ro:")) != NULL || (path = behind(what, "rw:")) != NULL) {
        const int file = opened(path, what[1] == 'w', false);
        if (file < 0) fail(NO_INPUT, path);
        give(socket_path, "add-fd", "opaque", name, file);
        return 0;
    }
    int ends[2] = {-1, -1};
    if ((path = behind(what, "new:")) != NULL) {
        ends[0] = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (ends[0] < 0) fail(NO_INPUT, path);
    } else if ((path = behind(what, "in:")) != NULL) {
        ends[0] = opened(path, false, false);
        if (ends[0] < 0) fail(NO_INPUT, path);
    } else if ((path = behind(what, "peer:")) != NULL) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) fail(OS_ERROR, "a connection");
        if (!give(path, "getfd", "fdname", name, ends[1])) return 0;
        close(ends[1]);
    } else usage();
    give(socket_path, "getfd", "fdname", name, ends[0]);
    return 0;
}
