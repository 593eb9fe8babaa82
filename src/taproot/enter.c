/*
 * enter PID PORT [check]: a connection to a TCP port of loopback as the process PID sees it, at standard input and output. The
 * brain probes containers so: most have no network but their own loopback.
 *
 * It enters the network namespace, becomes nobody, and only then connects: to 127.0.0.1, or to ::1 when nobody listens there. With
 * `check` it ends once it is connected. It has no deadline of its own: who is tired of waiting kills it.
 *
 * Exit codes: 0 connected (and all has been carried), 1 nobody listens, 2 anything else; standard error says why.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { NOBODY = 65534, BUFFER = 16384 };

static _Noreturn void fail(int code, const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(code);
}

static void enter(const char *pid)
{
    char path[64];
    const int length = snprintf(path, sizeof path, "/proc/%s/ns/net", pid);
    const int space = length > 0 && (size_t)length < sizeof path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (space < 0) fail(2, "the container's network");
    if (setns(space, CLONE_NEWNET) != 0) fail(2, "entering the container's network");
    close(space);
    if (setgroups(0, NULL) != 0 || setresgid(NOBODY, NOBODY, NOBODY) != 0 || setresuid(NOBODY, NOBODY, NOBODY) != 0)
        fail(2, "becoming nobody");
}

static int connect_to(uint16_t port)
{
    const struct sockaddr_in four = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    const struct sockaddr_in6 six = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int file = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (file >= 0 && connect(file, (const struct sockaddr *)&four, sizeof four) == 0) return file;
    const int error = errno;
    if (file >= 0) close(file);
    file = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (file >= 0 && connect(file, (const struct sockaddr *)&six, sizeof six) == 0) return file;
    errno = error;
    fail(errno == ECONNREFUSED ? 1 : 2, "connecting");
}

/* Blocking: this side of each pair has just been said to be ready, and a peer that takes nothing is killed with us. */
static bool carry(int from, int to)
{
    static char bytes[BUFFER];
    const ssize_t got = read(from, bytes, sizeof bytes);
    if (got < 0) return errno == EINTR || errno == EAGAIN;
    for (ssize_t put = 0, piece; put < got; put += piece)
        if ((piece = write(to, bytes + put, (size_t)(got - put))) < 0) return false;
    return got > 0;
}

int main(int count, char **words)
{
    const long port = count >= 3 ? strtol(words[2], NULL, 10) : 0;
    if (port < 1 || port > 65535) {
        fprintf(stderr, "usage: enter PID PORT [check]\n");
        return 64;
    }
    signal(SIGPIPE, SIG_IGN);
    enter(words[1]);
    const int connection = connect_to((uint16_t)port);
    if (count > 3) return 0;
    struct pollfd files[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = connection, .events = POLLIN}};
    for (;;) {
        if (poll(files, 2, -1) < 0 && errno != EINTR) fail(2, "waiting");
        if (files[1].revents && !carry(connection, STDOUT_FILENO)) return 0;
        if (files[0].revents && !carry(STDIN_FILENO, connection)) {
            shutdown(connection, SHUT_WR);
            files[0].fd = -1;
        }
    }
}
