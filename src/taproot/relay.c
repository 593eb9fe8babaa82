/*
 * relay DEVICE SOCKET: what comes in at a virtio-serial port goes to a unix socket, and back. It is how a hypervisor reaches the
 * API of a machine without any network; the brain starts it where there is such a port.
 *
 * One connection at a time: it begins with the first byte from beyond and ends with either side. The port is opened anew for
 * each, so that nothing of one gets into the next.
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

/* Moves what can be moved; false: this side is over. */
static bool move(struct pipe *pipe)
{
    if (pipe->start == pipe->end) {
        const ssize_t got = read(pipe->from, pipe->bytes, sizeof pipe->bytes);
        if (got == 0 || (got < 0 && !is_transient())) return false;
        if (got < 0) return true;
        pipe->start = 0;
        pipe->end = (size_t)got;
    }
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

/* Until either side is over. */
static void relay(int port, int api)
{
    static struct pipe in, out;
    in = (struct pipe){.from = port, .to = api};
    out = (struct pipe){.from = api, .to = port};
    for (;;) {
        const bool in_full = in.start < in.end, out_full = out.start < out.end;
        struct pollfd files[] = {
            {.fd = port, .events = (short)((in_full ? 0 : POLLIN) | (out_full ? POLLOUT : 0))},
            /* nothing is wanted of it while beyond reads nothing: that it has hung up would be told again and again */
            {.fd = out_full && !in_full ? -1 : api,
             .events = (short)((out_full ? 0 : POLLIN) | (in_full ? POLLOUT : 0))},
        };
        if (poll(files, 2, -1) < 0 && errno != EINTR) return;
        if ((files[0].revents & POLLHUP) && !(files[0].revents & POLLIN)) return;
        if ((files[0].revents & POLLIN) || (files[1].revents & POLLOUT))
            if (!move(&in)) return;
        if ((files[1].revents & (POLLIN | POLLHUP | POLLERR)) || (files[0].revents & POLLOUT))
            if (!move(&out)) return;
    }
}

int main(int count, char **words)
{
    if (count != 3) {
        fprintf(stderr, "usage: relay DEVICE SOCKET\n");
        return 64;
    }
    signal(SIGPIPE, SIG_IGN);
    for (;;) {
        const int port = open(words[1], O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (port < 0) {
            fprintf(stderr, "relay: %s: %s\n", words[1], strerror(errno));
            return 1;
        }
        struct pollfd waiting = {.fd = port, .events = POLLIN};
        const bool is_called = poll(&waiting, 1, -1) > 0 && waiting.revents == POLLIN;
        if (!is_called) {
            /* without anybody beyond there is nothing to wait on but time */
            close(port);
            poll(NULL, 0, PAUSE_MS);
            continue;
        }
        const int api = connect_to(words[2]);
        if (api >= 0) {
            relay(port, api);
            close(api);
        }
        close(port);
        if (api < 0) poll(NULL, 0, PAUSE_MS);
    }
}
