/*
 * Fuzzes taproot's side of the protocol: frames that are valid, nearly valid and garbage, cut anywhere, against the
 * real reader, dispatcher, tables and streams, built with AddressSanitizer and UBSan. Only what would touch the machine
 * is replaced (processes, signals, mounts, the brain's life): the processes here are pipes whose other ends this
 * program holds, writes to, reads from and closes at random.
 *
 *   taproot-fuzz [SEED [SESSIONS]]     every run of a seed does the same
 *
 * Beyond what the sanitizers find it checks, turn by turn, that offsets and windows of every entry are possible and
 * that what taproot sends is made of whole frames of its own types about entries; and between sessions that nothing
 * owed to a good brain stays untold, and that acknowledging everything leaves no entry and no descriptor.
 */
#define _GNU_SOURCE
#include "brain.h"
#include "channel.h"
#include "process.h"
#include "spawn.h"
#include "stream.h"
#include "system.h"
#include "watchdog.h"
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static char brain_name[] = "brain", *brain[] = {brain_name, NULL};
struct options options = {.lifeline = -1, .channel = -1, .heartbeat_ms = 1000, .hello_ms = 1000, .brain = brain};
struct brain_end brain_last_end;
uint32_t brain_starts = 1;

static uint64_t state;
static unsigned long long session;

static uint32_t any(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 16) % below);
}

static _Noreturn void failed(const char *what)
{
    fprintf(stderr, "taproot-fuzz: session %llu: %s\n", session, what);
    abort();
}

/* ---- the replaced machine ---- */

enum { ENDS = 3 * PROCESS_CAPACITY };
static int ends[ENDS]; /* the far ends of processes' pipes; 0 is none */
static pid_t next_pid = 1000;
static bool faulted;

static bool keep_end(int descriptor)
{
    for (size_t i = 0; i < ENDS; i++) {
        if (ends[i] != 0) continue;
        ends[i] = descriptor;
        fcntl(descriptor, F_SETFL, O_NONBLOCK);
        return true;
    }
    return false;
}

int spawn_child(const struct spawn_request *request, struct spawned *made)
{
    /* Every string must be readable to its end. */
    size_t length = strlen(request->label) + strlen(request->directory);
    for (char **text = request->arguments; *text; text++) length += strlen(*text);
    for (char **text = request->environment; *text; text++) length += strlen(*text);
    for (uint32_t i = 0; i < request->cgroup_count; i++) length += strlen(request->cgroups[i]);
    if (length > FRAME_LONGEST) failed("strings longer than their frame");
    if (any(16) == 0) return ENOMEM;
    *made = (struct spawned){.pid = next_pid++, .status = -1, .input = -1, .output = {-1, -1}};
    for (int i = 0; i < 3; i++) {
        int pair[2];
        const uint8_t kind = request->stdio[i].kind;
        if (kind != STDIO_STREAM && kind != STDIO_TERMINAL) continue;
        if (pipe(pair) != 0) failed("no pipe");
        const int ours = i == 0 ? pair[1] : pair[0];
        const int theirs = i == 0 ? pair[0] : pair[1];
        fcntl(ours, F_SETFL, O_NONBLOCK);
        if (i == 0) made->input = ours;
        else if (kind == STDIO_TERMINAL && i == 2) close(ours);
        else made->output[i - 1] = ours;
        if (!keep_end(theirs)) close(theirs);
    }
    return 0;
}

bool system_process(pid_t pid, pid_t *parent, uint64_t *start_time)
{
    *parent = any(2) ? getpid() : 1;
    *start_time = (uint64_t)pid * 7;
    return any(4) != 0;
}

uint32_t system_descriptors(void)
{
    return 12;
}

int system_signal(struct process *process, int signal_number, bool group)
{
    if (signal_number < 1 || signal_number > 64) failed("a signal out of range");
    return process->exited ? ESRCH : group ? EPERM : 0;
}

int watchdog_set(int seconds, int64_t patience_ms)
{
    if (seconds < 10 || seconds > 3600 || patience_ms < 1000) failed("a watchdog out of range");
    return any(2) ? 0 : ENODEV;
}

static uint32_t helper_request;
static bool helper_ready;

int helper_start(const struct helper_work *work, uint32_t request)
{
    if (work->kind == HELPER_MOUNT && strlen(work->source) + strlen(work->type) + strlen(work->data) +
                                              strlen(work->target) + strlen(work->directory) > FRAME_LONGEST)
        failed("strings longer than their frame");
    if (helper_ready) return EBUSY;
    helper_request = request;
    helper_ready = true;
    return 0;
}

bool helper_answer(uint32_t *request, int *error, const char **text)
{
    if (!helper_ready || any(2) == 0) return false;
    *request = helper_request;
    *error = any(2) ? EINVAL : 0;
    *text = "";
    helper_ready = false;
    return true;
}

void helpers_forget_brain(void)
{
    helper_ready = false;
}

void brain_heard(void) {}
void brain_greeted(void) {}
void brain_channel_ended(void) {}
void brain_replace(void) {}
bool brain_is(pid_t pid)
{
    return pid == 999;
}
void brain_condemn(enum brain_ending why, int64_t grace_ms)
{
    (void)grace_ms;
    faulted = faulted || why == BRAIN_FAULTY;
}
void stop_now(enum stop_action action)
{
    if (action > ACTION_KEXEC) failed("an action out of range");
}
void stop_ask(enum stop_why why, enum stop_action action)
{
    (void)why;
    if (action > ACTION_KEXEC) failed("an action out of range");
}
void stop_tell(void) {}
bool stop_is_ending(void)
{
    return any(64) == 0;
}

/* ---- frames ---- */

static uint64_t favourite; /* what a session likes to talk about */

static uint64_t some_id(void)
{
    if (any(2) && process_by_id(favourite)) return favourite;
    if (any(8) == 0) return any(1000000);
    const struct process *process = process_oldest();
    for (uint32_t skip = any(8); process && skip > 0; skip--) process = process_after(process);
    return process ? process->id : 0;
}

static void put_text(struct writer *out, uint32_t longest)
{
    static const char letters[] = "/bin/true PATH=:%s\xff\xc3\x28";
    char text[200];
    const uint32_t length = any(longest < sizeof text ? longest + 1 : sizeof text);
    for (uint32_t i = 0; i < length; i++) text[i] = letters[any(sizeof letters - 1)];
    put_blob(out, text, length);
}

static void put_texts(struct writer *out, uint32_t least)
{
    const uint32_t count = least + any(4);
    put_u32(out, count);
    for (uint32_t i = 0; i < count; i++) put_text(out, 40);
}

static void put_spawn(struct writer *out)
{
    const uint32_t rlimits = any(3), groups = any(3);
    put_u32(out, any(1000));
    put_text(out, 128);
    put_texts(out, 1);
    put_texts(out, 0);
    put_text(out, 100);
    put_u8(out, any(2) ? 1 : 0);
    if (out->bytes[out->length - 1] == 1) {
        put_u32(out, any(1000));
        put_u32(out, any(1000));
        put_u32(out, groups);
        for (uint32_t i = 0; i < groups; i++) put_u32(out, any(1000));
    }
    put_u32(out, rlimits);
    for (uint32_t i = 0; i < rlimits; i++) {
        put_u8(out, (uint8_t)any(16));
        put_u64(out, any(1000));
        put_u64(out, any(1000));
    }
    put_texts(out, 0);
    put_u8(out, (uint8_t)any(2));
    const bool terminal = any(6) == 0;
    const bool console = any(8) == 0; /* its path is none: what follows it is for the integration tests */
    for (int i = 0; i < 3; i++) {
        uint8_t kind = (uint8_t)(terminal ? STDIO_TERMINAL : any(3) ? STDIO_STREAM : any(40) ? any(6) : 7);
        if (console && i < 2) kind = STDIO_CONSOLE;
        put_u8(out, kind);
        if (kind == STDIO_CONSOLE && i == 0) put_text(out, 100);
        if (kind == STDIO_FILE) {
            put_u32(out, any(4096));
            put_u32(out, 0600);
            put_text(out, 100);
        }
        if (kind == STDIO_TERMINAL && i == 0) {
            put_u16(out, (uint16_t)any(65536));
            put_u16(out, (uint16_t)any(65536));
        }
    }
}

/* One frame that decodes, of a random type, about what there is. */
static void put_frame(struct writer *out, uint8_t type)
{
    static uint8_t zeros[INPUT_LONGEST];
    static const uint32_t lengths[] = {0, 1, 4095, 4096, 40000, 65535, 65536};
    const size_t start = out->length;
    put_u32(out, 0);
    put_u8(out, type);
    switch (type) {
    case 0x01:
        put_u16(out, any(90) ? 2 : (uint16_t)any(5));
        if (any(90)) put_u16(out, any(90) ? 2 : (uint16_t)any(5));
        break;
    case 0x02: put_u64(out, any(1000)); break;
    case 0x03: put_spawn(out); break;
    case 0x04:
        put_u32(out, any(1000));
        put_u32(out, any(4) ? (uint32_t)next_pid + any(3) : 998 + any(4));
        put_u64(out, any(2) ? 0 : any(100000));
        put_text(out, 128);
        put_u64(out, any(2) ? 0 : some_id());
        break;
    case 0x05:
        put_u32(out, any(1000));
        put_u64(out, some_id());
        put_u8(out, (uint8_t)(any(60) ? 1 + any(64) : 0));
        put_u8(out, (uint8_t)any(2));
        break;
    case 0x06:
        put_u64(out, some_id());
        put_blob(out, zeros, lengths[any(3) ? any(3) : any(7)]);
        break;
    case 0x07: put_u64(out, some_id()); break;
    case 0x08: {
        const uint64_t id = some_id();
        const struct process *process = process_by_id(id);
        const uint8_t stream = (uint8_t)(1 + any(2));
        const struct output *output = process ? &process->output[stream - 1] : NULL;
        put_u64(out, id);
        put_u8(out, stream);
        put_u64(out, !output || any(2) ? 0 : any(200) == 0 ? output->sent + 1 : output->sent);
        put_u32(out, any(4) ? 65536 : any(65537));
        break;
    }
    case 0x09:
        put_u64(out, some_id());
        put_u16(out, 24);
        put_u16(out, 80);
        break;
    case 0x0a: put_u64(out, some_id()); break;
    case 0x0b:
        put_u32(out, any(1000));
        for (int i = 0; i < 3; i++) put_text(out, 60);
        put_u64(out, any(1000));
        put_text(out, 199);
        put_text(out, 60);
        break;
    case 0x0c:
        put_u32(out, any(1000));
        put_text(out, 60);
        put_u32(out, any(10));
        break;
    case 0x0d: put_u8(out, (uint8_t)(any(40) ? any(5) : 5)); break;
    case 0x0e: put_u32(out, any(1000)); break;
    case 0x0f:
        put_u32(out, any(1000));
        put_text(out, 60);
        put_text(out, 60);
        break;
    case 0x10:
        put_u32(out, any(1000));
        put_u32(out, any(40) ? 10 + any(3591) : any(10));
        put_u32(out, 1000 + any(600000));
        break;
    case 0x11:
        put_u32(out, any(1000));
        put_u32(out, any(40) ? 1000 + any(600000) : any(1000));
        put_u8(out, (uint8_t)(any(40) ? 1 + any(255) : 0));
        put_texts(out, 1);
        break;
    case 0x12: put_u32(out, any(1000)); break;
    default: put_text(out, 60);
    }
    struct writer length = {.bytes = out->bytes + start, .size = 4, .length = 0, .overflow = false};
    put_u32(&length, (uint32_t)(out->length - start - 4));
}

static void mutate(uint8_t *bytes, size_t *length)
{
    static const uint32_t numbers[] = {0, 1, 127, 129, 4097, 65537, 262144, 262145, 0x7fffffff, 0xffffffff};
    for (uint32_t times = 1 + any(3); times > 0 && *length > 0; times--) {
        const size_t at = any((uint32_t)*length);
        switch (any(5)) {
        case 0: bytes[at] ^= (uint8_t)(1u << any(8)); break;
        case 1: bytes[at] = (uint8_t)any(256); break;
        case 2:
            if (at + 4 <= *length) memcpy(bytes + at, &numbers[any(10)], 4);
            break;
        case 3: *length = at; break;
        default:
            memmove(bytes + at, bytes + at + 1, *length - at - 1);
            (*length)--;
        }
    }
}

/* The reader alone, over a buffer of exactly its size, where the sanitizer sees every byte too far. */
static void read_anything(void)
{
    const uint32_t size = 1 + any(300);
    uint8_t *bytes = malloc(size);
    if (!bytes) failed("no memory");
    for (uint32_t i = 0; i < size; i++) bytes[i] = (uint8_t)(any(3) ? any(4) : any(256));
    struct reader reader = reader_over(bytes, size);
    uint32_t length = 0;
    while (!reader.bad && reader.at < reader.end) {
        switch (any(6)) {
        case 0: take_u8(&reader); break;
        case 1: take_u16(&reader); break;
        case 2: take_u64(&reader); break;
        case 3:
            if (take_blob(&reader, any(100), &length) + length > bytes + size && length > 0) failed("a blob too far");
            break;
        case 4: take_count(&reader, any(100)); break;
        default:
            if (strlen(take_string(&reader, any(100))) > size) failed("a string too far");
        }
    }
    free(bytes);
}

/* ---- a session ---- */

static uint8_t answers[1 << 20];
static size_t answer_length;

static void check_answers(int peer)
{
    if (options.guest) { /* a call drops what was on its way: a frame may be cut */
        while (read(peer, answers, sizeof answers) > 0) continue;
        return;
    }
    for (ssize_t got; (got = read(peer, answers + answer_length, sizeof answers - answer_length)) > 0;) {
        answer_length += (size_t)got;
        size_t at = 0;
        while (answer_length - at >= 4) {
            uint32_t length;
            memcpy(&length, answers + at, 4);
            if (length < 1 || length > FRAME_LONGEST) failed("an answer with an impossible length");
            if (answer_length - at - 4 < length) break;
            const uint8_t type = answers[at + 4];
            static const uint8_t nobody[8];
            if (type < 0x81 || type > 0x8b) failed("an answer of an unknown type");
            if ((type == 0x82 || type == 0x86) && memcmp(answers + at + 5, nobody, 8) == 0) failed("news of nobody");
            at += 4 + length;
        }
        answer_length -= at;
        memmove(answers, answers + at, answer_length);
    }
}

/* What processes do: write, read, close their ends; and end. */
static void live(void)
{
    static uint8_t bytes[70000];
    const size_t i = any(ENDS);
    if (ends[i] != 0) {
        if (any(8) == 0) {
            close(ends[i]);
            ends[i] = 0;
        } else if (write(ends[i], bytes, any(sizeof bytes)) < 0 && read(ends[i], bytes, any(sizeof bytes)) < 0) {
            errno = 0;
        }
    }
    if (any(4) == 0) {
        const struct exit_record record = {.how = EXIT_CODE, .value = 3, .time = 5};
        struct process *process = process_by_id(some_id());
        if (process && !process->exited) process_ended(process, &record);
        else orphan_remember(next_pid + (pid_t)any(3), any(100000), &record);
    }
    if (any(40) == 0) channel_announce_stop(0, 0, 1000);
}

static void check_entries(void)
{
    for (const struct process *process = process_oldest(); process; process = process_after(process)) {
        const struct input *input = &process->input;
        if (input->start + input->length > INPUT_LONGEST) failed("input beyond its buffer");
        if (input->length + input->taken > INPUT_LONGEST) failed("input beyond its window");
        for (int i = 0; i < 2; i++) {
            const struct output *output = &process->output[i];
            if (output->confirmed > output->sent) failed("output confirmed that was not sent");
            if (output->chunk > output->sent - output->confirmed) failed("a chunk longer than what was sent");
            if (process->terminal && output->sent - output->confirmed > TERMINAL_BUFFER) failed("a terminal's buffer");
        }
    }
}

static void turn(void)
{
    struct epoll_event events[16];
    const int ready = epoll_wait(loop_open(), events, 16, 0);
    for (int i = 0; i < ready; i++) {
        const uint64_t token = events[i].data.u64;
        if (token == TOKEN_CHANNEL) channel_receive();
        if (token < TOKENS_FIXED) continue;
        struct process *process = process_by_id(token / 8);
        if (process) streams_event(process, (enum source)(token % 8));
    }
    channel_turn();
    check_entries();
}

/* What a brain of a guest begins with, and may repeat. */
static void put_call(struct writer *out)
{
    static const char call[16] = "\xff\xff\xff\xff" "ironwoodcall";
    for (size_t i = 0; i < sizeof call; i++) put_u8(out, (uint8_t)call[i]);
    for (size_t i = 0; i < 16; i++) put_u8(out, (uint8_t)any(256));
    if (any(4)) put_frame(out, 0x01);
}

static void run_session(void)
{
    options.guest = any(3) == 0 ? "port" : NULL;
    options.brain = options.guest ? NULL : brain;
    static uint8_t bytes[1 << 20];
    int pair[2];
    faulted = false;
    answer_length = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) != 0 || !channel_open(pair[0])) failed("no channel");
    struct writer out = {.bytes = bytes, .size = sizeof bytes, .length = 0, .overflow = false};
    if (any(50)) put_frame(&out, 0x01);
    favourite = 0;
    favourite = some_id();
    const uint8_t theme = (uint8_t)(any(2) ? 2 + any(17) : 0); /* and the frame it likes, if any */
    for (uint32_t frames = any(40); frames > 0; frames--) {
        const size_t start = out.length;
        if (options.guest && any(12) == 0) put_call(&out);
        else put_frame(&out, (uint8_t)(theme && any(2) ? theme : any(400) ? 2 + any(17) : any(256)));
        if (out.overflow) failed("the session does not fit");
        size_t length = out.length - start;
        if (any(120) == 0) mutate(bytes + start, &length);
        out.length = start + length;
        if (out.length > sizeof bytes / 2) break; /* the next one fits for sure */
    }
    const bool reads = any(4) != 0; /* some brains never read */
    size_t sent = 0;
    for (uint32_t idle = 0; idle < 8;) {
        const size_t chunk = out.length - sent > 1 && any(3) == 0 ? 1 + any(40) : out.length - sent;
        const ssize_t put = chunk > 0 ? send(pair[1], bytes + sent, chunk, MSG_NOSIGNAL) : 0;
        if (put > 0) sent += (size_t)put;
        else idle++;
        live();
        turn();
        if (reads) check_answers(pair[1]);
    }
    close(pair[1]);
    turn();
    if (any(2)) channel_drain();
    else channel_close();
    options.guest = NULL;
    options.brain = brain;
}

/* Everything ends and is acknowledged by a last, good brain; then nothing may be left. */
static void clean_up(void)
{
    static uint8_t bytes[64];
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) != 0 || !channel_open(pair[0])) failed("no channel");
    struct writer out = {.bytes = bytes, .size = sizeof bytes, .length = 0, .overflow = false};
    faulted = false;
    answer_length = 0;
    put_frame(&out, 0x02);
    bytes[4] = 0x01;
    out.length = 5;
    put_u16(&out, 2);
    put_u16(&out, 2);
    bytes[0] = 5;
    if (write(pair[1], bytes, out.length) != (ssize_t)out.length) failed("no room");
    for (int i = 0; i < 4; i++) {
        turn();
        check_answers(pair[1]);
    }
    for (const struct process *process = process_oldest(); process; process = process_after(process))
        if (process->due != 0) failed("something due is never told");
    while (process_oldest()) {
        struct process *process = process_oldest();
        const struct exit_record record = {.how = EXIT_CODE};
        if (!process->exited) process_ended(process, &record);
        out.length = 0;
        put_u32(&out, 9);
        put_u8(&out, 0x0a);
        put_u64(&out, process->id);
        if (write(pair[1], bytes, out.length) != (ssize_t)out.length) failed("no room");
        for (int i = 0; i < 4; i++) {
            turn();
            check_answers(pair[1]);
        }
        if (process_oldest() == process) failed("an acknowledged entry stays");
    }
    if (faulted) failed("a fault over good frames");
    close(pair[1]);
    channel_close();
    if (process_counts.entries != 0 || process_counts.exited != 0) failed("the counts are wrong");
}

static int descriptors(void)
{
    int open = 0;
    for (int i = 0; i < 1024; i++) open += fcntl(i, F_GETFD) >= 0;
    return open;
}

int main(int count, char **arguments)
{
    const uint64_t seed = count > 1 ? strtoull(arguments[1], NULL, 10) : 1;
    const unsigned long long sessions = count > 2 ? strtoull(arguments[2], NULL, 10) : 2000;
    unsigned long long faults = 0, spawned = 0;
    signal(SIGPIPE, SIG_IGN);
    if (loop_open() < 0 || !streams_open() || !spares_keep()) failed("cannot start");
    const int at_first = descriptors();
    for (session = 0; session < sessions; session++) {
        state = (seed + 1) * 0x9e3779b97f4a7c15u + session * 0xbf58476d1ce4e5b9u + 1;
        const pid_t before = next_pid;
        for (int i = 0; i < 10; i++) read_anything();
        run_session();
        faults += faulted;
        spawned += (unsigned long long)(next_pid - before);
        if (any(4) != 0) continue; /* most sessions meet what an earlier one left */
        clean_up();
        for (size_t i = 0; i < ENDS; i++) {
            if (ends[i] != 0) close(ends[i]);
            ends[i] = 0;
        }
        if (descriptors() != at_first) failed("a descriptor leaks");
    }
    printf("%llu sessions, %llu faults, %llu processes, no mistake\n", sessions, faults, spawned);
    return 0;
}
