/*
 * taproot: PID 1, or a brain's parent and subreaper. The start, the reaping, and the loop that never ends.
 *
 * Read in this order: PROTOCOL.md, taproot.h, process.h, spawn.c (how a process is made), stream.h (its output),
 * requests.c (what the brain may ask), brain.h (the brain's life and the end), boot.h (what a machine's first process does before), and this.
 */
#define _GNU_SOURCE
#include "taproot.h"
#include "boot.h"
#include "brain.h"
#include "channel.h"
#include "guest.h"
#include "process.h"
#include "spawn.h"
#include "stream.h"
#include "system.h"
#include "watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

/* ---- the start: the only part that may fail ---- */

/* On a machine there is no giving up: an end of PID 1 is a kernel panic. */
static _Noreturn void give_up(int code)
{
    while (system_is_machine()) boot_again();
    exit(code);
}

static _Noreturn void cannot(int code, const char *what)
{
    say("%s: %s", what, strerror(errno));
    give_up(code);
}

/* The lock is the open file: it is held until taproot is gone, however that comes. The pid in it is for people. */
static void take_lock(const char *path)
{
    char text[16] = "";
    const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) {
        say("cannot open the lock file %s: %s", path, strerror(errno));
        give_up(EX_CANTCREAT);
    }
    if (flock(file, LOCK_EX | LOCK_NB) != 0) {
        const ssize_t length = read(file, text, sizeof text - 1);
        text[length > 0 ? length : 0] = '\0';
        text[strcspn(text, "\n")] = '\0';
        say("another one is running: pid %s holds %s; stop it first, or use another directory", text, path);
        give_up(EX_CANTCREAT);
    }
    const int length = snprintf(text, sizeof text, "%d\n", (int)getpid());
    if (ftruncate(file, 0) != 0 || write(file, text, (size_t)length) < 0) cannot(EX_CANTCREAT, "cannot write the lock file");
}

static void take_private_mounts(void)
{
    if (unshare(CLONE_NEWNS) != 0)
        cannot(EX_NOPERM, "no right to a mount namespace, which takes root and the capability SYS_ADMIN");
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) != 0) cannot(EX_OSERR, "cannot detach the mounts");
}

/* All signals that can be handled come through a descriptor; a crash stays a crash. */
static int open_signals(void)
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
    sigset_t all;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++) sigdelset(&all, crashes[i]);
    sigprocmask(SIG_SETMASK, &all, NULL);
    return signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int start(int count, char **arguments)
{
    const bool machine = boot_early(arguments);
    int null;
    do null = open("/dev/null", O_RDWR | O_CLOEXEC); /* 0 to 2 are never anything else's */
    while (null >= 0 && null < 3 && fcntl(null, F_SETFD, 0) == 0);
    if (null >= 0) close(null);
    if (machine) arguments = boot_arguments(&count);
    bool understood = options_read(count, arguments);
    if (!understood && machine) {
        arguments = boot_usual_arguments(&count);
        understood = options_read(count, arguments);
    }
    if (!understood) give_up(EX_USAGE);
    log_open();
    if (options.brain_cgroup) boot_brain_cgroup(options.brain_cgroup, options.brain_memory);
    if (options.brain_cgroup && options.brain_memory > 0) boot_brain_program(options.brain);
    if (options.lock) take_lock(options.lock);
    if (options.private_mounts) take_private_mounts();
    spawn_prepare();
    const int signals = open_signals();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (machine) reboot(RB_DISABLE_CAD);
    if (signals < 0 || loop_open() < 0 || !streams_open() || !spares_keep() || !loop_add(signals, TOKEN_SIGNAL, EPOLLIN))
        cannot(EX_OSERR, "cannot start");
    if (machine) boot_watch_buttons();
    if (machine && options.guest) boot_seal_root();
    watchdog_open();
    if (options.lifeline >= 0) {
        fcntl(options.lifeline, F_SETFD, FD_CLOEXEC);
        if (!loop_add(options.lifeline, TOKEN_LIFELINE, EPOLLIN))
            cannot(EX_USAGE, "--lifeline takes a pipe, a socket or a terminal");
    }
    if (options.channel >= 0) {
        fcntl(options.channel, F_SETFD, FD_CLOEXEC);
        if (!channel_open(options.channel)) cannot(EX_USAGE, "--channel takes a socket");
        brain_starts = 1;
    }
    return signals;
}

/* ---- reaping ---- */

static uint64_t microseconds(struct timeval time)
{
    return (uint64_t)time.tv_sec * 1000000u + (uint64_t)time.tv_usec;
}

/*
 * Thousands may end at once. Then all else has its turns in between: the brain, the watchdog. And the pauses are no loss, for
 * the kernel looks through all children until it meets one that has ended: among many of those it finds one at once.
 */
enum { REAP_TURN_MS = 20, REAP_PAUSE_MS = 5 };
static bool reap_due;
static int64_t reap_not_before;

/* Every child that has ended: the brain, a helper, a process of the table, or an orphan. */
static void reap(void)
{
    const int64_t began = clock_ms();
    for (;;) {
        siginfo_t info = {.si_pid = 0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) {
            reap_due = false;
            return;
        }
        const int64_t now = clock_ms();
        if (now - began >= REAP_TURN_MS) {
            reap_not_before = now + REAP_PAUSE_MS;
            return;
        }
        const pid_t pid = info.si_pid;
        struct process *process = process_by_pid(pid);
        pid_t parent = 0;
        uint64_t start_time = 0;
        if (!process) system_process(pid, &parent, &start_time); /* only a zombie still has it */
        int status = 0;
        struct rusage usage;
        memset(&usage, 0, sizeof usage);
        if (wait4(pid, &status, WNOHANG, &usage) != pid) return;
        if (!process && (brain_reaped(pid, status) || helper_reaped(pid, status))) continue;

        struct exit_record record = {
            .how = WIFEXITED(status) ? EXIT_CODE : WCOREDUMP(status) ? EXIT_CORE : EXIT_SIGNAL,
            .value = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status),
            .time = clock_epoch_ns(),
            .user_us = microseconds(usage.ru_utime),
            .system_us = microseconds(usage.ru_stime),
            .max_rss_kib = (uint64_t)usage.ru_maxrss,
        };
        if (!process) {
            orphan_remember(pid, start_time, &record);
            continue;
        }
        status_read(process);
        console_ended(process);
        if (process->exit.how == EXIT_NOT_EXECUTED) {
            record.how = EXIT_NOT_EXECUTED;
            record.stage = process->exit.stage;
            record.value = process->exit.value;
        }
        process->group_left = kill(-pid, 0) == 0;
        process_ended(process, &record);
    }
}

/* ---- the loop ---- */

static void on_signals(int signals)
{
    struct signalfd_siginfo pending[16];
    const bool first = getpid() == 1;
    ssize_t length;
    while ((length = read(signals, pending, sizeof pending)) > 0) {
        for (size_t i = 0; i < (size_t)length / sizeof *pending; i++) {
            const uint32_t number = pending[i].ssi_signo;
            if (number == SIGTERM) stop_ask(STOP_SIGNAL, first ? ACTION_POWER_OFF : ACTION_END);
            if (number == SIGINT) stop_ask(STOP_SIGNAL, first ? ACTION_RESTART : ACTION_END);
            if (number == SIGPWR && first) stop_ask(STOP_SIGNAL, ACTION_POWER_OFF);
            if ((number == SIGHUP || number == SIGQUIT) && !first) stop_ask(STOP_SIGNAL, ACTION_END);
        }
    }
    reap_due = true;
}

/* Only after epoll said so: the descriptor may be shared with a shell, so it stays blocking. */
static void on_lifeline(void)
{
    char bytes[512];
    const ssize_t length = read(options.lifeline, bytes, sizeof bytes);
    if (length > 0 || (length < 0 && (errno == EAGAIN || errno == EINTR))) return;
    loop_close(&options.lifeline);
    stop_ask(STOP_LIFELINE, getpid() == 1 ? ACTION_POWER_OFF : ACTION_END);
}

static void on_button(void)
{
    if (boot_button_pressed()) stop_ask(STOP_BUTTON, ACTION_POWER_OFF);
}

int main(int count, char **arguments)
{
    const int signals = start(count, arguments);
    const int loop = loop_open();
    for (;;) {
        struct epoll_event events[64];
        const int64_t next =
            earlier(earlier(brain_tick(), watchdog_tick(brain_is_alive())), reap_due ? reap_not_before : -1);
        const int64_t wait = next < 0 ? -1 : next - clock_ms();
        const int timeout = next < 0 ? -1 : wait < 0 ? 0 : wait > 60000 ? 60000 : (int)wait;
        const int ready = epoll_wait(loop, events, 64, timeout);
        for (int i = 0; i < ready; i++) {
            const uint64_t token = events[i].data.u64;
            if (token == TOKEN_SIGNAL) on_signals(signals);
            else if (token == TOKEN_CHANNEL) channel_receive();
            else if (token == TOKEN_LIFELINE) on_lifeline();
            else if (token == TOKEN_BUTTON) on_button();
            else if (token == TOKEN_PORT) guest_event();
            else {
                struct process *process = process_by_id(token / 8); /* NULL: acknowledged earlier in this turn */
                if (process) streams_event(process, (enum source)(token % 8));
            }
        }
        if (reap_due && clock_ms() >= reap_not_before) reap();
        channel_turn();
    }
}
