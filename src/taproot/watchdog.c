/* See watchdog.h. */
#define _GNU_SOURCE
#include "watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TIMEOUT_S = 30, FEED_MS = 5000 };

/* From the kernel's linux/watchdog.h, which musl does not bring along. */
#define WDIOC_KEEPALIVE 0x80045705ul
#define WDIOC_SETTIMEOUT 0xc0045706ul

static int device = -1;
static int64_t feed_at, feed_ms = FEED_MS;
static bool hungry;

void watchdog_open(void)
{
    int seconds = TIMEOUT_S;
    if (!options.watchdog) return;
    device = open(options.watchdog, O_WRONLY | O_CLOEXEC);
    if (device < 0) {
        if (errno != ENOENT) say("cannot open the watchdog %s: %s", options.watchdog, strerror(errno));
        return; /* most machines in the cloud have none */
    }
    if (syscall(SYS_ioctl, device, WDIOC_SETTIMEOUT, &seconds) != 0)
        say("the watchdog keeps its own time: %s", strerror(errno));
}

int watchdog_set(int seconds, int64_t patience_ms)
{
    if (device < 0) return ENODEV;
    if (syscall(SYS_ioctl, device, WDIOC_SETTIMEOUT, &seconds) != 0) return errno;
    feed_ms = seconds * 1000 / 3 < FEED_MS ? seconds * 1000 / 3 : FEED_MS;
    feed_at = 0;
    options.watchdog_patience_ms = patience_ms;
    return 0;
}

int64_t watchdog_tick(bool alive)
{
    if (device < 0) return -1;
    const int64_t now = clock_ms();
    if (now < feed_at) return feed_at;
    feed_at = now + feed_ms;
    if (alive) {
        int nothing = 0;
        if (syscall(SYS_ioctl, device, WDIOC_KEEPALIVE, &nothing) != 0 && write(device, "", 1) < 0 && !hungry)
            say("cannot feed the watchdog: %s", strerror(errno));
    } else if (!hungry) {
        say("no brain has been heard for %d s: the watchdog is not fed any more", (int)(options.watchdog_patience_ms / 1000));
    }
    hungry = !alive;
    return feed_at;
}
