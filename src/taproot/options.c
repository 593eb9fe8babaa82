/* The command line. One pass, no abbreviations; a mistake is named and ends taproot before it has done anything. */
#include "taproot.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

struct options options = {
    .lock = NULL,
    .private_mounts = false,
    .lifeline = -1,
    .channel = -1,
    .heartbeat_ms = 3000,
    .hello_ms = 30000,
    .stop_ms = 60000,
    .brain_failures = 10,
    .brain = NULL,
};

static const char help[] =
    "usage: taproot [options] -- BRAIN [ARGUMENT...]\n"
    "       taproot [options] --channel FD\n"
    "\n"
    "Keeps processes for a brain: starts them, reaps them, holds their output and their exits until the brain has\n"
    "dealt with them, and starts the brain again when it dies or hangs. The two speak on the brain's descriptor 3.\n"
    "\n"
    "  --lock FILE         hold FILE locked; end with 73 when another taproot holds it\n"
    "  --private-mounts    use a mount namespace of its own: mounts vanish with the last process\n"
    "  --lifeline FD       stop in order when FD (a pipe, socket or terminal) ends\n"
    "  --channel FD        speak the protocol on FD instead of starting a brain; end in order when FD ends\n"
    "  --heartbeat MS      longest silence of a brain before it is killed and started again (3000)\n"
    "  --hello MS          time a new brain has to say hello (30000)\n"
    "  --stop-deadline MS  time a brain has to stop everything (60000)\n"
    "  --brain-failures N  give up, with 70, after N brains in a row that never said hello (10; as PID 1 0, never)\n"
    "  --version, --help\n"
    "\n"
    "Signals: TERM, INT, HUP and QUIT stop in order; as PID 1 TERM and PWR power off, INT restarts the machine.\n"
    "Ends with 0 after stopping in order, 64 usage, 70 gave up, 71 system, 73 locked, 76 protocol fault, 77 no right,\n"
    "78 when the first brain ended with 78 before its hello (unless as PID 1): what it was given can serve no brain.\n";

static _Noreturn void wrong(const char *what, const char *value)
{
    fprintf(stderr, "taproot: %s%s%s; see taproot --help\n", what, *value ? ": " : "", value);
    exit(EX_USAGE);
}

static int64_t number(const char *name, const char *text, int64_t least)
{
    char *end = NULL;
    errno = 0;
    const long value = text ? strtol(text, &end, 10) : 0;
    if (!text || end == text || *end != '\0' || errno != 0 || value < least || value > INT_MAX) {
        char what[96];
        snprintf(what, sizeof what, "%s takes a number from %d to %d", name, (int)least, INT_MAX);
        wrong(what, text ? text : "");
    }
    return value;
}

void options_read(int count, char **arguments)
{
    if (getpid() == 1) options.brain_failures = 0;
    int i = 1;
    for (; i < count; i++) {
        const char *name = arguments[i];
        const char *value = arguments[i + 1]; /* NULL after the last */
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
            if (!value || !*value) wrong("--lock takes a file", "");
            options.lock = value;
        } else if (strcmp(name, "--lifeline") == 0) {
            options.lifeline = (int)number(name, value, 0);
        } else if (strcmp(name, "--channel") == 0) {
            options.channel = (int)number(name, value, 0);
        } else if (strcmp(name, "--heartbeat") == 0) {
            options.heartbeat_ms = number(name, value, 1);
        } else if (strcmp(name, "--hello") == 0) {
            options.hello_ms = number(name, value, 1);
        } else if (strcmp(name, "--stop-deadline") == 0) {
            options.stop_ms = number(name, value, 0);
        } else if (strcmp(name, "--brain-failures") == 0) {
            options.brain_failures = (uint32_t)number(name, value, 0);
        } else {
            wrong("unknown option", name);
        }
        i++;
    }
    if (i < count) options.brain = arguments + i;
    if (options.brain && options.channel >= 0) wrong("a brain and --channel exclude each other", "");
    if (!options.brain && options.channel < 0) wrong("say which brain to start, after --, or --channel FD", "");
}
