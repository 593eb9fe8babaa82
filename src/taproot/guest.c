/* See guest.h. */
#define _GNU_SOURCE
#include "guest.h"
#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { PRELUDE = 16, LOOK_AGAIN_MS = 20 };

/* As the length of a frame the first four bytes are impossible. */
static const uint8_t called[PRELUDE] = {0xff, 0xff, 0xff, 0xff, 'i', 'r', 'o', 'n', 'w', 'o', 'o', 'd', 'c', 'a', 'l', 'l'};
static const uint8_t answered[PRELUDE] = {0xff, 0xff, 0xff, 0xff, 'i', 'r', 'o', 'n', 'w', 'o', 'o', 'd', 'h', 'e', 'r', 'e'};

static int port = -1; /* while it waits for a call */
static uint8_t heard[GUEST_CALL];
static size_t heard_length;
static char device[32]; /* its path, once it has been found */

/* The device whose name the hypervisor says is ours; readdir(3) would allocate. */
static bool find_device(void)
{
    /* a device is counted among all of the hypervisor's, disks and cards included */
    enum { DEVICES = 64, PORTS = 4 };
    const size_t length = strlen(options.guest);
    for (unsigned number = 0; number < DEVICES * PORTS; number++) {
        char path[64], name[128];
        const unsigned of = number / PORTS, at = number % PORTS;
        snprintf(path, sizeof path, "/sys/class/virtio-ports/vport%up%u/name", of, at);
        const int file = open(path, O_RDONLY | O_CLOEXEC);
        const ssize_t got = file >= 0 ? read(file, name, sizeof name) : -1;
        if (file >= 0) close(file);
        if (got != (ssize_t)length + 1 || name[length] != '\n' || memcmp(name, options.guest, length) != 0) continue;
        snprintf(device, sizeof device, "/dev/vport%up%u", of, at);
        return true;
    }
    return false;
}

/* False: it is not there (yet), or its last owner has not let go of it. */
static bool open_port(void)
{
    if (device[0] == '\0' && !find_device()) return false;
    port = open(device, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    heard_length = 0;
    /* edges only: that nobody is connected would be told again and again */
    if (port >= 0 && loop_add(port, TOKEN_PORT, EPOLLIN | EPOLLET)) return true;
    if (port >= 0) close(port);
    port = -1;
    return false;
}

int64_t guest_tick(int64_t now)
{
    if (port >= 0 || channel_is_open() || open_port()) return -1;
    return now + LOOK_AGAIN_MS;
}

bool guest_is_connected(void)
{
    return channel_is_open();
}

bool guest_is_call(const uint8_t *bytes, size_t length)
{
    return memcmp(bytes, called, length < PRELUDE ? length : PRELUDE) == 0;
}

void guest_answer(const uint8_t *call, uint8_t *answer)
{
    memcpy(answer, answered, PRELUDE);
    memcpy(answer + PRELUDE, call + PRELUDE, GUEST_CALL - PRELUDE);
}

/* The session begins: the port is the channel's from here on. */
static void begin(void)
{
    uint8_t answer[GUEST_CALL];
    guest_answer(heard, answer);
    if (write(port, answer, sizeof answer) != (ssize_t)sizeof answer) {
        loop_close(&port);
        return;
    }
    const int connected = port;
    port = -1;
    loop_remove(connected);
    if (!channel_open(connected)) close(connected);
}

void guest_event(void)
{
    while (port >= 0) {
        const ssize_t got = read(port, heard + heard_length, sizeof heard - heard_length);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) { /* nobody is connected */
            if (got < 0 || heard_length > 0) loop_close(&port);
            return;
        }
        heard_length += (size_t)got;
        if (!guest_is_call(heard, heard_length)) loop_close(&port);
        else if (heard_length == sizeof heard) begin();
    }
}
