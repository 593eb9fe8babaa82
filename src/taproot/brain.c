/* See brain.h. */
#define _GNU_SOURCE
#include "brain.h"
#include "channel.h"
#include "guest.h"
#include "printer.h"
#include "spawn.h"
#include "successor.h"
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

extern char **environ;

enum {
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MOST_MS = 30000,
    /* Short: pauses are for a brain that cannot live, not for one that is killed now and then. */
    BACKOFF_RESET_MS = 5000,
    BRIEF_MS = 60000, /* a life shorter than this counts towards rescue */
    TERM_GRACE_MS = 2000,
    ABANDONED_GRACE_MS = 10000, /* of workloads that no brain is left to stop: what a container has unless told otherwise */
    REPLACED_GRACE_MS = 5000, /* of a brain that makes room for its successor */
    STOP_FAILURES = 3, /* brains in a row without HELLO, after which a stop goes on without one */
    KILL_AGAIN_MS = 50,
    KILL_GIVE_UP_MS = 10000, /* what SIGKILL has not ended by then hangs in the kernel */
    SETTLE_MS = 15000,
};

struct brain_end brain_last_end;
uint32_t brain_starts;

static struct {
    pid_t pid; /* 0: waiting for start_at */
    bool greeted;
    enum brain_ending condemned; /* why it is to be killed, or BRAIN_NONE */
    int64_t start_at;            /* when the next is due */
    int64_t started_at, heard_at;
    int64_t kill_at; /* when it is condemned */
    bool killed;     /* taproot did kill it: else its end was its own, or a stranger's */
    uint64_t memory_kills; /* of anybody, by the kernel, when it was started */
    int64_t backoff_ms;
    uint32_t failures; /* brains without HELLO, in a row */
    uint32_t brief;    /* brains that ended soon after their start, in a row */
    bool rescue;       /* the next, or the one that runs, is the rescue brain */
    bool replaced;     /* the one that runs makes room for its successor */
} brain;

static int64_t last_word_at = -1; /* of any brain; -1: of none yet, counted from the first question */

static enum { RUNNING, ASKED, ENDING_BRAIN, ENDING_REST, KILLING_REST, SETTLING } phase;
static int64_t phase_until;
static int64_t kill_again_at;
static uint8_t stop_why, stop_action;
static int exit_code;

/* ---- the brain ---- */

static _Noreturn void become_brain(int channel)
{
    const int log = options.brain_log ? -1 : printer_copy(); /* never 3, which the printer has taken itself */
    if (dup3(channel, 3, 0) < 0 && channel != 3) _exit(126);
    if (channel == 3) fcntl(3, F_SETFD, 0);
    if (log >= 0) {
        dup2(log, 1);
        dup2(log, 2);
    }
    syscall(SYS_close_range, 4, ~0u, 0);
    setsid();
    spawn_restore_defaults();
    int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (file >= 0) {
        if (write(file, "-900", 4) < 0) errno = 0; /* needs CAP_SYS_RESOURCE; goes without */
        close(file);
    }
    file = open("/dev/null", O_RDONLY | O_CLOEXEC); /* not taproot's stdin, which may be the lifeline */
    if (file >= 0) dup2(file, 0);
    file = options.brain_log ? open(options.brain_log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600) : -1;
    if (file >= 0) {
        dup2(file, 1);
        dup2(file, 2);
    }
    char **arguments = brain.rescue ? options.rescue : successor_is_brain() ? successor_arguments() : options.brain;
    spawn_execute(arguments, environ);
    say("cannot run the brain, %s: %s", arguments[0], strerror(errno));
    _exit(127);
}

static void start_later(void)
{
    brain.start_at = clock_ms() + brain.backoff_ms;
    if (brain.backoff_ms == 0) brain.backoff_ms = BACKOFF_FIRST_MS;
    else if (brain.backoff_ms < BACKOFF_MOST_MS / 2) brain.backoff_ms *= 2;
    else brain.backoff_ms = BACKOFF_MOST_MS;
}

static void start(void)
{
    int pair[2];
    spares_release();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        say("no channel for a brain: %s; trying again", strerror(errno));
        start_later();
        spares_keep();
        return;
    }
    const int cgroup = options.brain_cgroup ? open(options.brain_cgroup, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    pid_t pid = spawn_fork(cgroup);
    if (pid < 0 && cgroup >= 0) pid = spawn_fork(-1); /* better a brain without its limit than none */
    if (pid == 0) become_brain(pair[1]);
    const int error = pid < 0 ? errno : 0;
    if (cgroup >= 0) close(cgroup);
    close(pair[1]);
    if (error != 0 || !channel_open(pair[0])) {
        say("no brain could be started: %s; trying again", strerror(error ? error : errno));
        close(pair[0]);
        if (pid > 0) kill(pid, SIGKILL);
        start_later();
    } else {
        brain_starts++;
        brain.pid = pid;
        brain.greeted = false;
        brain.killed = false;
        brain.condemned = BRAIN_NONE;
        brain.memory_kills = system_memory_kills();
        brain.started_at = brain.heard_at = clock_ms();
        successor_started();
    }
    spares_keep();
}

void brain_heard(void)
{
    brain.heard_at = last_word_at = clock_ms();
}

void brain_greeted(void)
{
    brain.greeted = true;
    brain.failures = 0;
}

static void rest_begin(int64_t grace_ms);

void brain_condemn(enum brain_ending why, int64_t grace_ms)
{
    if (options.guest) return; /* it is not ours to end: it may call again */
    if (options.channel >= 0) {
        if (why == BRAIN_FAULTY) exit_code = EX_PROTOCOL;
        rest_begin(TERM_GRACE_MS);
        return;
    }
    if (brain.pid == 0 || brain.condemned != BRAIN_NONE) return;
    brain.condemned = why;
    brain.kill_at = clock_ms() + grace_ms;
}

/* A brain that ends closes its channel just before it can be reaped: a second shows which of the two it is. */
void brain_channel_ended(void)
{
    if (options.channel >= 0) rest_begin(TERM_GRACE_MS);
    else if (!options.guest && !stop_is_ending()) brain_condemn(BRAIN_FAULTY, 1000);
}

void brain_replace(void)
{
    brain.replaced = true;
    brain_condemn(BRAIN_SIGNALED, REPLACED_GRACE_MS);
}

bool brain_is(pid_t pid)
{
    return pid == brain.pid && pid != 0;
}

/*
 * The ordinary brain, as long as it lives, or its successor; after several that did not, the rescue brain; after that one,
 * which ends when it is time, the ordinary one again.
 */
static void choose_next(void)
{
    const bool brief = clock_ms() - brain.started_at < BRIEF_MS;
    brain.brief = brief && !brain.rescue && !brain.replaced ? brain.brief + 1 : 0;
    if (brain.replaced) say("the brain has made room for %s", successor_is_brain() ? "another one" : "that of the command line");
    if (brain.replaced || successor_ended(brain.brief, &brain_last_end)) {
        brain.replaced = brain.rescue = false;
        brain.brief = brain.failures = 0;
        brain.backoff_ms = 0;
        return;
    }
    brain.rescue = options.rescue && brain.brief >= options.rescue_after && !successor_is_brain();
    if (!brain.rescue) return;
    brain.backoff_ms = 0;
    say("%u brains in a row ended soon after their start; starting the rescue brain", brain.brief);
}

/* Whether a stop goes on without a brain: there is nothing that one would have to stop, or none lives to do it. */
static bool nobody_can_stop_it(void)
{
    if (!system_has_children()) {
        rest_begin(TERM_GRACE_MS);
        return true;
    }
    if (brain.failures < STOP_FAILURES) return false;
    say("no brain lives to stop what is left; ending it");
    rest_begin(ABANDONED_GRACE_MS);
    return true;
}

bool brain_reaped(pid_t pid, int wait_status)
{
    if (!brain_is(pid)) return false;
    const bool killed = brain.killed && WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL;
    brain.pid = 0;
    channel_drain();
    brain_last_end = (struct brain_end){
        .how = (uint8_t)(killed ? brain.condemned : WIFEXITED(wait_status) ? BRAIN_EXITED : BRAIN_SIGNALED),
        .value = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : WTERMSIG(wait_status),
        .time = clock_epoch_ns(),
    };
    if (phase > ASKED) {
        rest_begin(brain.rescue ? ABANDONED_GRACE_MS : TERM_GRACE_MS);
        return true;
    }
    if (phase == ASKED && nobody_can_stop_it()) return true;
    static const char *const reasons[] = {
        "ended", "exited with", "was killed by signal", "missed its heartbeat and was killed by signal",
        "broke the channel and was killed by signal", "never said hello and was killed by signal",
        "did not say in time that it works and was killed by signal",
    };
    if (clock_ms() - brain.started_at >= BACKOFF_RESET_MS) brain.backoff_ms = 0;
    if (!brain.greeted) brain.failures++;
    /* Only of the first brain: later there may be processes, and they are worth more than a quick answer. */
    if (options.brain_failures > 0 && brain_starts == 1 && !brain.greeted && brain_last_end.how == BRAIN_EXITED &&
        brain_last_end.value == EX_CONFIG) {
        say("the brain exited with %d: it cannot work with what it was given, and no other could", EX_CONFIG);
        exit_code = EX_CONFIG;
        rest_begin(TERM_GRACE_MS);
        return true;
    }
    if (options.brain_failures > 0 && brain.failures >= options.brain_failures) {
        say("the brain %s %d; %u brains in a row never said hello, giving up: run `%s` by hand to see why",
            reasons[brain_last_end.how], (int)brain_last_end.value, brain.failures, options.brain[0]);
        exit_code = EX_SOFTWARE;
        rest_begin(ABANDONED_GRACE_MS);
        return true;
    }
    const bool replaced = brain.replaced;
    choose_next();
    const int64_t wait = brain.backoff_ms;
    start_later();
    if (replaced) return true;
    say("the brain (pid %d) %s %d; starting it again in %d ms", (int)pid, reasons[brain_last_end.how],
        (int)brain_last_end.value, (int)wait);
    if (!killed && brain_last_end.how == BRAIN_SIGNALED && system_memory_kills() > brain.memory_kills)
        say("memory was out: this machine has %d MiB, and the brain may have %d of them%s", (int)system_memory(),
            (int)(options.brain_memory > 0 ? options.brain_memory >> 20 : system_memory()),
            brain.greeted ? "" : "; it has not even come up, so give the machine more");
    return true;
}

/* ---- stopping ---- */

void stop_ask(enum stop_why why, enum stop_action action)
{
    static const char *const reasons[] = {"a signal", "the end of the lifeline", "the power button", "a request"};
    if (phase != RUNNING) return;
    say("stopping: %s", reasons[why]);
    phase = ASKED;
    stop_why = (uint8_t)why;
    stop_action = (uint8_t)action;
    phase_until = clock_ms() + options.stop_ms;
    if (options.guest && !guest_is_connected()) rest_begin(ABANDONED_GRACE_MS);
    else if (options.guest || options.channel >= 0 || brain.pid != 0) stop_tell();
    else if (!nobody_can_stop_it()) brain.start_at = clock_ms(); /* it is told as it says hello */
}

void stop_tell(void)
{
    if (phase != ASKED) return;
    const int64_t left = phase_until - clock_ms();
    channel_announce_stop(stop_why, stop_action, (uint32_t)(left > 0 ? left : 0));
}

static void end_brain(void)
{
    if (brain.pid == 0) {
        rest_begin(TERM_GRACE_MS);
        return;
    }
    phase = ENDING_BRAIN;
    phase_until = clock_ms() + TERM_GRACE_MS;
    kill(brain.pid, SIGTERM);
}

void stop_now(enum stop_action action)
{
    if (phase > ASKED) return;
    stop_action = (uint8_t)action;
    end_brain();
}

bool stop_is_ending(void)
{
    return phase > ASKED;
}

static void rest_begin(int64_t grace_ms)
{
    if (phase >= ENDING_REST) return;
    phase = ENDING_REST;
    phase_until = clock_ms() + grace_ms;
    if (!system_has_children()) return;
    system_signal_children(SIGTERM);
    system_signal_children(SIGCONT);
}

static _Noreturn void finish(void)
{
    if (getpid() == 1) {
        printer_drain();
        system_power(stop_action);
        /* Refused: a container without the right. Ending is right there, and only there. */
        while (system_is_machine()) pause();
    }
    exit(exit_code);
}

static void settle(void)
{
    const struct helper_work work = {.kind = HELPER_SETTLE, .machine = system_is_machine()};
    if (getpid() != 1 || helper_start(&work, 0) != 0) finish();
    phase = SETTLING;
    phase_until = clock_ms() + SETTLE_MS;
}

/* Ends one way: each case falls to the next phase when its time is over or its work done. */
static int64_t stop_tick(int64_t now)
{
    switch (phase) {
    case RUNNING: return -1;
    case ASKED:
        if (now < phase_until) return phase_until;
        say("the brain has not stopped everything in %d ms; ending what is left", (int)options.stop_ms);
        end_brain();
        return now;
    case ENDING_BRAIN:
        if (now < phase_until) return phase_until;
        brain_condemn(BRAIN_SIGNALED, 0);
        return -1;
    case ENDING_REST:
        if (!system_has_children()) {
            settle();
        } else if (now >= phase_until) {
            phase = KILLING_REST;
            phase_until = now + KILL_GIVE_UP_MS;
            kill_again_at = now;
        } else {
            return phase_until;
        }
        return now;
    case KILLING_REST:
        if (!system_has_children() || now >= phase_until) {
            if (now >= phase_until) say("some processes do not die of SIGKILL; going on without them");
            settle();
            return now;
        }
        if (now >= kill_again_at) { /* again, for those that were re-parented when their parents died */
            system_signal_children(SIGKILL);
            kill_again_at = now + KILL_AGAIN_MS;
        }
        return kill_again_at;
    case SETTLING:
        if (!helper_settled() && now < phase_until) return phase_until;
        finish();
    }
    return -1;
}

/* ---- time ---- */

bool brain_is_alive(void)
{
    const int64_t now = clock_ms();
    if (last_word_at < 0) last_word_at = now;
    return phase != RUNNING || now - last_word_at < options.watchdog_patience_ms;
}

int64_t brain_tick(void)
{
    const int64_t now = clock_ms();
    int64_t next = stop_tick(now);
    if (options.channel >= 0) return next;
    if (options.guest) return earlier(next, guest_tick(now));
    if (brain.pid == 0) {
        if (phase > ASKED) return next;
        if (now >= brain.start_at) start();
        return brain.pid == 0 ? earlier(next, brain.start_at) : now;
    }
    const int64_t trial = phase == RUNNING ? successor_deadline() : -1;
    if (trial >= 0 && now >= trial) brain_condemn(BRAIN_LATE, 0);
    else next = earlier(next, trial);
    if (brain.condemned == BRAIN_NONE && phase <= ASKED) {
        const int64_t limit = brain.greeted ? brain.heard_at + options.heartbeat_ms : brain.started_at + options.hello_ms;
        if (now < limit) return earlier(next, limit);
        if (channel_receive()) return now; /* it was taproot that had no time to listen */
        brain_condemn(brain.greeted ? BRAIN_SILENT : BRAIN_NO_HELLO, 0);
    }
    if (brain.condemned == BRAIN_NONE) return next;
    if (now < brain.kill_at) return earlier(next, brain.kill_at);
    kill(brain.pid, SIGKILL); /* once more each second, should it be slow to go */
    brain.killed = true;
    brain.kill_at = now + 1000;
    return earlier(next, brain.kill_at);
}
