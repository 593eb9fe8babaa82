/*
 * relay DEVICE SOCKET: what comes in at a virtio-serial port goes to a unix socket, and back. It is how a hypervisor reaches the
 * API of a machine without any network; the brain starts it where there is such a port.
 *
 * One connection at a time: it begins as HTTP/2 does (RFC 9113, 3.4) and ends with either side, or where another begins: who comes in
 * the moment in which the one before leaves is not to be seen at the port in any other way. The port stays open, since what has
 * arrived is lost when it is closed. What does not belong to a connection is dropped.
 *
 * Trap: the port cannot tell the other side that the socket was closed. A client there hears nothing until it hangs up itself.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PAUSE_MS = 200, BUFFER = 16384 };

/* What was read from one side and not yet written to the other. */
struct pipe {
    int from, to;
    size_t start, end;
    char bytes[BUFFER];
};

static bool is_transient(void)
{
    return errno == EAGAIN || errno == EINTR;
}

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/*
 * Whether what was read, at least so much of it, is the beginning of a connection; a port gives what was written to it at a time,
 * never more.
 */
static bool begins(const struct pipe *pipe, size_t least)
{
    const size_t length = pipe->end < sizeof preface - 1 ? pipe->end : sizeof preface - 1;
    return pipe->start == 0 && length >= least && memcmp(pipe->bytes, preface, length) == 0;
}

/* Reads unless something is still to be written; false: this side is over. */
static bool fill(struct pipe *pipe)
{
    if (pipe->start < pipe->end) return true;
    const ssize_t got = read(pipe->from, pipe->bytes, sizeof pipe->bytes);
    if (got == 0 || (got < 0 && !is_transient())) return false;
    pipe->start = 0;
    pipe->end = got < 0 ? 0 : (size_t)got;
    return true;
}

/* Writes what can be written; false: this side is over. */
static bool drain(struct pipe *pipe)
{
    if (pipe->start == pipe->end) return true;
    const ssize_t put = write(pipe->to, pipe->bytes + pipe->start, pipe->end - pipe->start);
    if (put < 0) return is_transient();
    pipe->start += (size_t)put;
    return true;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) return -1;
    memcpy(address.sun_path, path, strlen(path) + 1);
    const int file = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (file < 0) return -1;
    if (connect(file, (const struct sockaddr *)&address, sizeof address) == 0 && fcntl(file, F_SETFL, O_NONBLOCK) == 0)
        return file;
    close(file);
    return -1;
}

/* Until either side is over. `in`: with what was read of the connection already. True: it has what the next one begins with. */
static bool relay(struct pipe *in, int api)
{
    static struct pipe out;
    const int port = in->from;
    in->to = api;
    out = (struct pipe){.from = api, .to = port};
    bool begun = false;
    for (;;) {
        const bool in_full = in->start < in->end, out_full = out.start < out.end;
        struct pollfd files[] = {
            {.fd = port, .events = (short)((in_full ? 0 : POLLIN) | (out_full ? POLLOUT : 0))},
            /* nothing is wanted of it while beyond reads nothing: that it has hung up would be told again and again */
            {.fd = out_full && !in_full ? -1 : api,
             .events = (short)((out_full ? 0 : POLLIN) | (in_full ? POLLOUT : 0))},
        };
        if (poll(files, 2, -1) < 0 && errno != EINTR) return false;
        if ((files[0].revents & POLLHUP) && !(files[0].revents & POLLIN)) return false;
        if ((files[0].revents & POLLIN) || (files[1].revents & POLLOUT)) {
            const bool is_new = in->start == in->end;
            if (!fill(in)) return false;
            if (is_new && begun && begins(in, sizeof preface - 1)) return true;
            begun = true;
            if (!drain(in)) return false;
        }
        if ((files[1].revents & (POLLIN | POLLHUP | POLLERR)) || (files[0].revents & POLLOUT))
            if (!fill(&out) || !drain(&out)) return false;
    }
}

int main(int count, char **words)
{
    if (count != 3) {
        fprintf(stderr, "usage: relay DEVICE SOCKET\n");
        return 64;
    }
    signal(SIGPIPE, SIG_IGN);
    const int port = open(words[1], O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (port < 0) {
        fprintf(stderr, "relay: %s: %s\n", words[1], strerror(errno));
        return 1;
    }
    static struct pipe in;
    in = (struct pipe){.from = port};
    for (;;) {
        struct pollfd waiting = {.fd = port, .events = POLLIN};
        /* without anybody beyond there is nothing to wait on but time */
        const bool is_called = poll(&waiting, 1, -1) > 0 && waiting.revents == POLLIN && fill(&in);
        if (!is_called || !begins(&in, 1)) {
            /* what is left of somebody who has gone */
            in.start = in.end;
            if (!is_called) poll(NULL, 0, PAUSE_MS);
            continue;
        }
        int api;
        bool another = true;
        while (another && (api = connect_to(words[2])) >= 0) {
            another = relay(&in, api);
            close(api);
        }
        in.start = in.end;
        if (another) poll(NULL, 0, PAUSE_MS);
    }
}
