/*
 * hand SOCKET ro|rw:PATH NAME: a file for a QEMU that runs and may not open any itself. It is opened as whoever calls this, as launch
 * does it (opened.h), and given to the monitor (QMP) that listens at SOCKET, as a descriptor in a set of its own
 * (/dev/fdset/N) that is called NAME there.
 *
 * Prints the monitor's answer, one line of JSON: {"return": {"fd": …, "fdset-id": …}} or {"error": …}. Who reads it must take it
 * for a stranger's: a guest may have taken its QEMU over. It may keep us DEADLINE seconds and say MOST bytes a line.
 *
 * Trap: a monitor serves one client at a time. SOCKET is one that nobody else uses, and callers take turns.
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
    fprintf(stderr, "usage: hand SOCKET ro|rw:PATH NAME\n");
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

int main(int count, char **words)
{
    if (count != 4 || (strncmp(words[2], "ro:", 3) != 0 && strncmp(words[2], "rw:", 3) != 0) || !is_plain(words[3])) usage();
    const char *path = words[2] + 3;
    const int file = opened(path, words[2][1] == 'w', false);
    if (file < 0) fail(NO_INPUT, path);
    alarm(DEADLINE);
    const int monitor = connected(words[1]);
    hear(monitor); /* its greeting */
    char command[160] = "{\"execute\": \"qmp_capabilities\"}\n";
    say(monitor, command, -1);
    answer(monitor);
    snprintf(command, sizeof command, "{\"execute\": \"add-fd\", \"arguments\": {\"opaque\": \"%s\"}}\n", words[3]);
    say(monitor, command, file);
    answer(monitor);
    return puts(line) < 0 || fflush(stdout) != 0 ? OS_ERROR : 0;
}
