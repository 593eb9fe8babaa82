/* The command line. One pass, no abbreviations; a mistake is named before anything is done. */
#include "taproot.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options options = {
    .lock = NULL,
    .private_mounts = false,
    .lifeline = -1,
    .channel = -1,
    .guest = NULL,
    .heartbeat_ms = 2500,
    .hello_ms = 30000,
    .stop_ms = 60000,
    .brain_failures = 10,
    .brain_cgroup = NULL,
    .brain_memory = 0,
    .brain_log = NULL,
    .watchdog = NULL,
    .watchdog_patience_ms = 600000,
    .rescue_after = 5,
    .brain = NULL,
    .rescue = NULL,
};

static const char help[] =
    "usage: taproot [options] -- BRAIN [ARGUMENT...] [++ RESCUE [ARGUMENT...]]\n"
    "       taproot [options] --channel FD | --guest NAME\n"
    "\n"
    "Keeps processes for a brain: starts them, reaps them, holds their output and their exits until the brain has\n"
    "dealt with them, and starts the brain again when it dies or hangs. The two speak on the brain's descriptor 3.\n"
    "\n"
    "  --lock FILE         hold FILE locked; end with 73 when another taproot holds it\n"
    "  --private-mounts    use a mount namespace of its own: mounts vanish with the last process\n"
    "  --lifeline FD       stop in order when FD (a pipe, socket or terminal) ends\n"
    "  --channel FD        speak the protocol on FD instead of starting a brain; end in order when FD ends\n"
    "  --guest NAME        the brain is whoever is connected at the virtio-serial port of this name\n"
    "  --heartbeat MS      longest silence of a brain before it is killed and started again (2500)\n"
    "  --hello MS          time a new brain has to say hello (30000)\n"
    "  --stop-deadline MS  time a brain has to stop everything (60000)\n"
    "  --brain-cgroup DIR  start brains in this cgroup2 directory, which is made when it is not there\n"
    "  --brain-memory MIB  most memory of that cgroup; the kernel kills a brain that wants more\n"
    "  --brain-log FILE    where brains write what they have to say (taproot's own output)\n"
    "  --env NAME=VALUE    a variable more in the environment of brains; may be repeated\n"
    "  --watchdog DEVICE   feed this watchdog, which resets the machine when nobody does\n"
    "  --watchdog-patience MS\n"
    "                      longest time without a word of any brain before it is not fed any more (600000)\n"
    "  --rescue-after N    start the rescue brain after N brains in a row that ended within a minute (5)\n"
    "  --brain-failures N  give up, with 70, after N brains in a row that never said hello (10; as PID 1 0, never)\n"
    "  --version, --help\n"
    "\n"
    "As the first process of a machine it reads its command line from /etc/taproot, an argument per line, and never ends.\n"
    "Signals: TERM, INT, HUP and QUIT stop in order; as PID 1 TERM and PWR power off, INT restarts the machine.\n"
    "Ends with 0 after stopping in order, 64 usage, 70 gave up, 71 system, 73 locked, 76 protocol fault, 77 no right,\n"
    "78 when the first brain ended with 78 before its hello (unless as PID 1): what it was given can serve no brain.\n";

static bool wrong(const char *what, const char *value)
{
    fprintf(stderr, "taproot: %s%s%s; see taproot --help\n", what, *value ? ": " : "", value);
    return false;
}

static bool number(const char *name, const char *text, int64_t least, int64_t *into)
{
    char *end = NULL;
    errno = 0;
    const long value = text ? strtol(text, &end, 10) : 0;
    if (!text || end == text || *end != '\0' || errno != 0 || value < least || value > INT_MAX) {
        char what[96];
        snprintf(what, sizeof what, "%s takes a number from %d to %d", name, (int)least, INT_MAX);
        return wrong(what, text ? text : "");
    }
    *into = value;
    return true;
}

bool options_read(int count, char **arguments)
{
    if (getpid() == 1) options.brain_failures = 0;
    int i = 1;
    for (; i < count; i++) {
        const char *name = arguments[i];
        const char *value = arguments[i + 1]; /* NULL after the last */
        int64_t figure = 0;
        if (strcmp(name, "--") == 0) {
            i++;
            break;
        } else if (strcmp(name, "--help") == 0) {
            fputs(help, stdout);
            exit(0);
        } else if (strcmp(name, "--version") == 0) {
            printf("taproot %s (protocol %d)\n", TAPROOT_VERSION, PROTOCOL_VERSION);
            exit(0);
        } else if (strcmp(name, "--private-mounts") == 0) {
            options.private_mounts = true;
            continue;
        } else if (strcmp(name, "--lock") == 0) {
            if (!value || !*value) return wrong("--lock takes a file", "");
            options.lock = value;
        } else if (strcmp(name, "--lifeline") == 0) {
            if (!number(name, value, 0, &figure)) return false;
            options.lifeline = (int)figure;
        } else if (strcmp(name, "--channel") == 0) {
            if (!number(name, value, 0, &figure)) return false;
            options.channel = (int)figure;
        } else if (strcmp(name, "--guest") == 0) {
            if (!value || !*value || strlen(value) > 64) return wrong("--guest takes the name of a port", value ? value : "");
            options.guest = value;
        } else if (strcmp(name, "--heartbeat") == 0) {
            if (!number(name, value, 1, &options.heartbeat_ms)) return false;
        } else if (strcmp(name, "--hello") == 0) {
            if (!number(name, value, 1, &options.hello_ms)) return false;
        } else if (strcmp(name, "--stop-deadline") == 0) {
            if (!number(name, value, 0, &options.stop_ms)) return false;
        } else if (strcmp(name, "--brain-failures") == 0) {
            if (!number(name, value, 0, &figure)) return false;
            options.brain_failures = (uint32_t)figure;
        } else if (strcmp(name, "--watchdog") == 0) {
            if (!value || *value != '/') return wrong("--watchdog takes an absolute path", value ? value : "");
            options.watchdog = value;
        } else if (strcmp(name, "--watchdog-patience") == 0) {
            if (!number(name, value, 1, &options.watchdog_patience_ms)) return false;
        } else if (strcmp(name, "--rescue-after") == 0) {
            if (!number(name, value, 1, &figure)) return false;
            options.rescue_after = (uint32_t)figure;
        } else if (strcmp(name, "--brain-cgroup") == 0) {
            if (!value || *value != '/') return wrong("--brain-cgroup takes an absolute directory", value ? value : "");
            options.brain_cgroup = value;
        } else if (strcmp(name, "--brain-memory") == 0) {
            if (!number(name, value, 1, &figure)) return false;
            options.brain_memory = (uint64_t)figure << 20;
        } else if (strcmp(name, "--brain-log") == 0) {
            if (!value || *value != '/') return wrong("--brain-log takes an absolute path", value ? value : "");
            options.brain_log = value;
        } else if (strcmp(name, "--env") == 0) {
            if (!value || !strchr(value, '=') || putenv(arguments[i + 1]) != 0)
                return wrong("--env takes NAME=VALUE", value ? value : "");
        } else {
            return wrong("unknown option", name);
        }
        i++;
    }
    if (i < count) options.brain = arguments + i;
    for (; i < count; i++) {
        if (strcmp(arguments[i], "++") != 0) continue;
        arguments[i] = NULL;
        if (i + 1 < count) options.rescue = arguments + i + 1;
        break;
    }
    if (options.brain && !options.brain[0]) options.brain = NULL;
    const int ways = (options.brain ? 1 : 0) + (options.channel >= 0 ? 1 : 0) + (options.guest ? 1 : 0);
    if (ways > 1) return wrong("a brain, --channel and --guest exclude each other", "");
    if (ways == 0) return wrong("say which brain to start, after --, or --channel FD, or --guest NAME", "");
    return true;
}
