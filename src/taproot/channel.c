/* See channel.h. From the top: buffers, answers, requests, the turn. */
#define _GNU_SOURCE
#include "channel.h"
#include "brain.h"
#include "guest.h"
#include "process.h"
#include "spawn.h"
#include "stream.h"
#include "successor.h"
#include "system.h"
#include "watchdog.h"
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    OUT_SIZE = 262144,
    ROOM_FOR_ANSWER = 1024,                 /* of one request; also any single small frame */
    ROOM_FOR_OUTPUT = OUTPUT_LONGEST + 256, /* and the EXITED and INPUT_TAKEN of the same entry */
};

enum request {
    HELLO = 0x01, HEARTBEAT, SPAWN, CLAIM, SIGNAL, INPUT, INPUT_END, READ, WINDOW_SIZE, ACKNOWLEDGE, MOUNT, UNMOUNT,
    SHUTDOWN, STATUS_REQUEST, MODULE, WATCHDOG, SUCCEED, CONFIRM, STOP,
};
/* What has come to the protocol without a new version, a bit each. */
enum feature { FEATURE_MODULE = 1, FEATURE_WATCHDOG = 2, FEATURE_SUCCESSOR = 4, FEATURE_STOP = 8 };
enum answer {
    WELCOME = 0x81, PROCESS, SPAWNED, DONE, REFUSED, EXITED, OUTPUT, INPUT_TAKEN, STOPPING, STATUS, FAULT,
};
enum refusal { TABLE_FULL = 1, NO_PROCESS = 2, NOT_A_CHILD = 3, SYSTEM_CALL = 4, INVALID = 5 };

static int channel = -1;
static bool greeted;   /* HELLO came */
static bool deaf;      /* FAULT was said: nothing more is handled */
static bool hung_up;   /* the other side reads no more: what is sent vanishes */
static bool ended;     /* the other side's end of file */
static uint8_t in[FRAME_HEADER + FRAME_LONGEST];
static size_t in_start, in_end;
static uint8_t out_bytes[OUT_SIZE];
static size_t out_start; /* sent already */
static struct writer out = {.bytes = out_bytes, .size = OUT_SIZE, .length = 0, .overflow = false};
static uint64_t greeting_next; /* id of the next PROCESS of the greeting, or 0: done */
static uint32_t refused;
static struct {
    bool wanted;
    uint8_t why, action;
    uint32_t deadline_ms;
} stopping;

/* ---- buffers ---- */

static bool has_room(size_t length)
{
    if (out.size - out.length >= length) return true;
    if (out.size - (out.length - out_start) < length) return false;
    memmove(out.bytes, out.bytes + out_start, out.length - out_start);
    out.length -= out_start;
    out_start = 0;
    return true;
}

static size_t frame_begin(enum answer type)
{
    const size_t frame = out.length;
    put_u32(&out, 0);
    put_u8(&out, (uint8_t)type);
    return frame;
}

static void frame_end(size_t frame)
{
    if (out.overflow) { /* cannot be: room was made sure of */
        say("a frame did not fit");
        out.overflow = false;
        out.length = frame;
        return;
    }
    struct writer length = {.bytes = out.bytes + frame, .size = FRAME_HEADER, .length = 0, .overflow = false};
    put_u32(&length, (uint32_t)(out.length - frame - FRAME_HEADER));
}

/* Writes what the brain takes; true when that emptied the buffer, so that there is room for what is still owed. */
static bool flush(void)
{
    if (out_start == out.length) return false;
    while (channel >= 0 && out_start < out.length) {
        if (hung_up) {
            out_start = out.length;
            break;
        }
        const ssize_t sent = write(channel, out.bytes + out_start, out.length - out_start);
        if (sent > 0) out_start += (size_t)sent;
        else if (sent < 0 && errno == EINTR) continue;
        else if (sent < 0 && errno == EAGAIN) return false;
        else hung_up = true;
    }
    out_start = out.length = 0;
    return true;
}

/* ---- answers ---- */

static void put_exit(const struct exit_record *record)
{
    put_u8(&out, record->how);
    put_u32(&out, (uint32_t)record->value);
    put_u8(&out, record->stage);
    put_u64(&out, record->time);
    put_u64(&out, record->user_us);
    put_u64(&out, record->system_us);
    put_u64(&out, record->max_rss_kib);
}

static void put_brain_end(const struct brain_end *end)
{
    put_u8(&out, end->how);
    put_u32(&out, (uint32_t)end->value);
    put_u64(&out, end->time);
}

static void answer_fault(const char *text)
{
    say("the brain broke the protocol: %s", text);
    const size_t frame = frame_begin(FAULT);
    put_string(&out, text);
    frame_end(frame);
    flush();
    deaf = true;
    brain_condemn(BRAIN_FAULTY, 1000);
}

static void answer_done(uint32_t request)
{
    const size_t frame = frame_begin(DONE);
    put_u32(&out, request);
    frame_end(frame);
}

static void answer_refused(uint32_t request, enum refusal reason, int error, const char *text)
{
    const size_t frame = frame_begin(REFUSED);
    put_u32(&out, request);
    put_u8(&out, (uint8_t)reason);
    put_u32(&out, (uint32_t)error);
    put_string(&out, text);
    frame_end(frame);
    refused++;
}

static void answer_spawned(uint32_t request, const struct process *process)
{
    const size_t frame = frame_begin(SPAWNED);
    put_u32(&out, request);
    put_u64(&out, process->id);
    put_u32(&out, (uint32_t)process->pid);
    put_u64(&out, process->start_time);
    frame_end(frame);
}

static void answer_exited(const struct process *process)
{
    const size_t frame = frame_begin(EXITED);
    put_u64(&out, process->id);
    put_exit(&process->exit);
    frame_end(frame);
}

static void answer_input_taken(uint64_t id, uint32_t bytes, bool shut)
{
    const size_t frame = frame_begin(INPUT_TAKEN);
    put_u64(&out, id);
    put_u32(&out, bytes);
    put_u8(&out, shut);
    frame_end(frame);
}

static void answer_process(struct process *process)
{
    const size_t frame = frame_begin(PROCESS);
    put_u64(&out, process->id);
    put_u32(&out, (uint32_t)process->pid);
    put_u64(&out, process->start_time);
    put_u8(&out, streams_that_are_open(process));
    put_string(&out, process->label);
    put_u8(&out, process->exited);
    if (process->exited) put_exit(&process->exit);
    frame_end(frame);
    process->due &= (uint8_t)~DUE_EXIT;
}

static void answer_welcome(void)
{
    static uint8_t instance[16];
    static bool named;
    if (!named) {
        const unsigned insecure = 4; /* GRND_INSECURE: never waits for entropy; it is a name, not a secret */
        if (getrandom(instance, sizeof instance, insecure) != (ssize_t)sizeof instance) {
            const uint64_t now = clock_epoch_ns();
            memcpy(instance, &now, sizeof now);
        }
        named = true;
    }
    const size_t frame = frame_begin(WELCOME);
    put_u16(&out, PROTOCOL_VERSION);
    put_u32(&out, FEATURE_MODULE | FEATURE_WATCHDOG | FEATURE_STOP | (options.brain ? FEATURE_SUCCESSOR : 0));
    put_blob(&out, instance, sizeof instance);
    put_u32(&out, (uint32_t)getpid());
    put_u8(&out, !options.brain && getpid() == 1 ? 2 : getpid() == 1 ? 1 : 0);
    put_u32(&out, brain_starts);
    put_brain_end(&brain_last_end);
    put_u8(&out, successor.state);
    put_u8(&out, successor.fault);
    put_brain_end(&successor.end);
    put_u32(&out, process_counts.entries);
    frame_end(frame);
    greeting_next = process_oldest() ? process_oldest()->id : 0;
}

/* ---- requests ---- */

static void on_hello(struct reader *reader)
{
    const uint16_t newest = take_u16(reader);
    const uint16_t oldest = reader->at == reader->end ? newest : take_u16(reader); /* version 1 had no second field */
    if (!reader_done(reader)) return;
    if (greeted) {
        answer_fault("HELLO comes once");
    } else if (newest < PROTOCOL_OLDEST || oldest > PROTOCOL_VERSION) {
        char text[96];
        snprintf(text, sizeof text, "taproot speaks version %d to %d of the protocol, the brain %u to %u", PROTOCOL_OLDEST,
                 PROTOCOL_VERSION, oldest, newest);
        successor_speaks_not();
        answer_fault(text);
    } else {
        greeted = true;
        brain_greeted();
        answer_welcome();
        stop_tell();
    }
}

static void take_stdio(struct reader *reader, struct spawn_request *request, int number)
{
    uint8_t kind = take_u8(reader);
    if (kind > STDIO_CONSOLE) reader_reject(reader);
    request->stdio[number].kind = kind;
    if (kind == STDIO_FILE) {
        request->stdio[number].flags = take_u32(reader);
        request->stdio[number].mode = take_u32(reader);
        request->stdio[number].path = take_string(reader, FRAME_LONGEST);
    }
    if (kind == STDIO_CONSOLE && number == 0) request->stdio[number].path = take_string(reader, FRAME_LONGEST);
    if (kind == STDIO_TERMINAL && number == 0) {
        request->rows = take_u16(reader);
        request->columns = take_u16(reader);
    }
}

static char **take_strings(struct reader *reader, char **strings, uint32_t *count)
{
    *count = take_count(reader, SPAWN_ARGUMENTS);
    for (uint32_t i = 0; i < *count; i++) strings[i] = take_string(reader, FRAME_LONGEST);
    strings[*count] = NULL;
    return strings;
}

/* The spawn block; false: it does not decode. Strings stay in the frame. */
static bool take_spawn(struct reader *reader, struct spawn_request *request)
{
    static char *arguments[SPAWN_ARGUMENTS + 1], *environment[SPAWN_ARGUMENTS + 1];
    uint32_t argument_count, environment_count;
    request->label = take_string(reader, LABEL_LONGEST);
    request->arguments = take_strings(reader, arguments, &argument_count);
    request->environment = take_strings(reader, environment, &environment_count);
    if (argument_count == 0) reader_reject(reader);
    request->directory = take_string(reader, FRAME_LONGEST);
    request->has_identity = take_flag(reader);
    if (request->has_identity) {
        request->uid = take_u32(reader);
        request->gid = take_u32(reader);
        request->group_count = take_count(reader, SPAWN_GROUPS);
        for (uint32_t i = 0; i < request->group_count; i++) request->groups[i] = take_u32(reader);
    }
    request->rlimit_count = take_count(reader, SPAWN_RLIMITS);
    for (uint32_t i = 0; i < request->rlimit_count; i++) {
        request->rlimit_resources[i] = take_u8(reader);
        request->rlimits[i].soft = take_u64(reader);
        request->rlimits[i].hard = take_u64(reader);
    }
    request->cgroup_count = take_count(reader, SPAWN_CGROUPS);
    for (uint32_t i = 0; i < request->cgroup_count; i++) request->cgroups[i] = take_string(reader, FRAME_LONGEST);
    request->session = take_flag(reader);
    for (int i = 0; i < 3; i++) take_stdio(reader, request, i);
    return reader_done(reader);
}

static const char *mistake_in(const struct spawn_request *request)
{
    const bool terminal = request->stdio[0].kind == STDIO_TERMINAL;
    const bool console = request->stdio[0].kind == STDIO_CONSOLE;
    const uint32_t unchanged = UINT32_MAX; /* to setresuid(2) it means "leave it": the process would stay root */
    if (request->has_identity && (request->uid == unchanged || request->gid == unchanged))
        return "4294967295 is no user or group";
    for (int i = 0; i < 3; i++) {
        if ((request->stdio[i].kind == STDIO_TERMINAL) != terminal) return "a terminal takes all three streams";
        if ((request->stdio[i].kind == STDIO_CONSOLE) != (console && i != 2)) return "a console takes stdin and stdout";
        if (request->stdio[i].kind == STDIO_STDOUT && i != 2) return "only stderr can go where stdout goes";
    }
    return NULL;
}

static void make_process(uint32_t request, const struct spawn_request *spawn)
{
    const bool console = spawn->stdio[0].kind == STDIO_CONSOLE;
    const bool terminal = console || spawn->stdio[0].kind == STDIO_TERMINAL;
    uint16_t input_buffer, terminal_buffer;
    if (!streams_reserve(terminal || spawn->stdio[0].kind == STDIO_STREAM, terminal, &input_buffer, &terminal_buffer)) {
        answer_refused(request, TABLE_FULL, 0, "too many processes with a stdin stream or terminal");
        return;
    }
    struct spawned made;
    int listener = console ? console_listen(spawn->stdio[0].path) : -1;
    int error = console && listener < 0 ? errno : spawn_child(spawn, &made);
    if (error != 0) {
        if (listener >= 0) close(listener);
        streams_unreserve(input_buffer, terminal_buffer);
        answer_refused(request, SYSTEM_CALL, error, "the process could not be made");
        return;
    }
    pid_t parent = 0;
    uint64_t start_time = 0;
    system_process(made.pid, &parent, &start_time);
    struct process *process = process_new(made.pid, start_time, spawn->label);
    process->status = made.status;
    process->console = listener;
    process->input.descriptor = made.input;
    process->input.buffer = input_buffer;
    process->terminal = terminal_buffer;
    for (int i = 0; i < 2; i++) process->output[i].descriptor = made.output[i];
    if (!streams_watch(process)) { /* no memory for epoll: the child goes, as an orphan that nobody will claim */
        error = errno;
        system_signal(process, SIGKILL, false);
        streams_close(process);
        process_free(process);
        answer_refused(request, SYSTEM_CALL, error, "the streams cannot be watched");
        return;
    }
    answer_spawned(request, process);
}

static void on_spawn(struct reader *reader)
{
    static struct spawn_request spawn;
    memset(&spawn, 0, sizeof spawn);
    const uint32_t request = take_u32(reader);
    if (!take_spawn(reader, &spawn)) return;
    const char *mistake = mistake_in(&spawn);
    if (mistake) answer_refused(request, INVALID, 0, mistake);
    else if (stop_is_ending()) answer_refused(request, INVALID, 0, "taproot is stopping");
    else if (process_table_full()) answer_refused(request, TABLE_FULL, 0, "the process table is full");
    else if (!spares_keep()) answer_refused(request, SYSTEM_CALL, errno, "no descriptors left");
    else make_process(request, &spawn);
}

static void on_claim(struct reader *reader)
{
    const uint32_t request = take_u32(reader);
    const pid_t pid = (pid_t)take_u32(reader);
    const uint64_t start_time = take_u64(reader);
    const char *label = take_string(reader, LABEL_LONGEST);
    const uint64_t from_id = take_u64(reader);
    if (!reader_done(reader)) return;

    pid_t parent = 0;
    uint64_t found = 0;
    struct exit_record record;
    struct process *from = process_by_id(from_id);
    const bool lives = system_process(pid, &parent, &found) && parent == getpid();
    if (!lives) found = start_time;
    if (from_id != 0 && !from) {
        answer_refused(request, NO_PROCESS, 0, "streams_from names no process");
    } else if (process_table_full()) {
        answer_refused(request, TABLE_FULL, 0, "the process table is full");
    } else if (process_by_pid(pid) || brain_is(pid)) {
        answer_refused(request, INVALID, 0, "it is no orphan");
    } else if (lives ? start_time != 0 && found != start_time : !orphan_recall(pid, &found, &record)) {
        answer_refused(request, NOT_A_CHILD, 0, "not a child of taproot");
    } else {
        struct process *process = process_new(pid, found, label);
        if (from) streams_move(from, process);
        answer_spawned(request, process);
        if (!lives) process_ended(process, &record);
    }
}

static void on_signal(struct reader *reader)
{
    const uint32_t request = take_u32(reader);
    const uint64_t id = take_u64(reader);
    const uint8_t number = take_u8(reader);
    const bool group = take_flag(reader);
    if (number < 1 || number > 64) reader_reject(reader);
    if (!reader_done(reader)) return;
    struct process *process = process_by_id(id);
    const int error = process ? system_signal(process, number, group) : ESRCH;
    if (error == ESRCH) answer_refused(request, NO_PROCESS, ESRCH, "it has ended");
    else if (error != 0) answer_refused(request, SYSTEM_CALL, error, "");
    else answer_done(request);
}

static void on_input(struct reader *reader)
{
    uint32_t length = 0;
    const uint64_t id = take_u64(reader);
    const uint8_t *bytes = take_blob(reader, INPUT_LONGEST, &length);
    if (!reader_done(reader)) return;
    struct process *process = process_by_id(id);
    if (!process) answer_input_taken(id, length, true);
    else if (!input_add(process, bytes, length)) answer_fault("more than 65536 bytes of input are on the way");
}

static void on_input_end(struct reader *reader)
{
    struct process *process = process_by_id(take_u64(reader));
    if (reader_done(reader) && process) input_end(process);
}

static void on_read(struct reader *reader)
{
    const uint64_t id = take_u64(reader);
    const uint8_t stream = take_u8(reader);
    const uint64_t consumed = take_u64(reader);
    const uint32_t limit = take_u32(reader);
    if (stream < 1 || stream > 2 || limit < 1 || limit > OUTPUT_LONGEST) reader_reject(reader);
    if (!reader_done(reader)) return;
    struct process *process = process_by_id(id);
    if (process) {
        if (!output_want(process, stream, consumed, limit)) answer_fault("READ confirms what was not sent");
        return;
    }
    const size_t frame = frame_begin(OUTPUT);
    put_u64(&out, id);
    put_u8(&out, stream);
    put_u64(&out, consumed);
    put_u64(&out, clock_epoch_ns());
    put_u8(&out, 1);
    put_blob(&out, "", 0);
    frame_end(frame);
}

static void on_window_size(struct reader *reader)
{
    struct process *process = process_by_id(take_u64(reader));
    const uint16_t rows = take_u16(reader);
    const uint16_t columns = take_u16(reader);
    if (reader_done(reader) && process) terminal_resize(process, rows, columns);
}

static void on_acknowledge(struct reader *reader)
{
    struct process *process = process_by_id(take_u64(reader));
    if (!reader_done(reader) || !process || !process->exited) return;
    streams_close(process);
    process_free(process);
}

static void start_helper(const struct helper_work *work, uint32_t request)
{
    const int error = helper_start(work, request);
    if (error == EBUSY) answer_refused(request, TABLE_FULL, 0, "too many mounts at work");
    else if (error != 0) answer_refused(request, SYSTEM_CALL, error, "no helper could be made");
}

static void on_mount(struct reader *reader, bool unmount)
{
    struct helper_work work = {.kind = unmount ? HELPER_UNMOUNT : HELPER_MOUNT};
    const uint32_t request = take_u32(reader);
    if (unmount) {
        work.target = take_string(reader, FRAME_LONGEST);
        work.flags = take_u32(reader);
    } else {
        work.source = take_string(reader, FRAME_LONGEST);
        work.target = take_string(reader, FRAME_LONGEST);
        work.type = take_string(reader, FRAME_LONGEST);
        work.flags = take_u64(reader);
        work.data = take_string(reader, FRAME_LONGEST);
        work.directory = take_string(reader, FRAME_LONGEST);
    }
    if (reader_done(reader)) start_helper(&work, request);
}

static void on_module(struct reader *reader)
{
    struct helper_work work = {.kind = HELPER_MODULE};
    const uint32_t request = take_u32(reader);
    work.source = take_string(reader, FRAME_LONGEST);
    work.data = take_string(reader, FRAME_LONGEST);
    if (reader_done(reader)) start_helper(&work, request);
}

static void on_watchdog(struct reader *reader)
{
    const uint32_t request = take_u32(reader);
    const uint32_t seconds = take_u32(reader);
    const uint32_t patience_ms = take_u32(reader);
    if (seconds < 10 || seconds > 3600 || patience_ms < 1000) reader_reject(reader);
    if (!reader_done(reader)) return;
    const int error = watchdog_set((int)seconds, patience_ms);
    if (error == 0) answer_done(request);
    else answer_refused(request, SYSTEM_CALL, error, "the watchdog");
}

static void on_succeed(struct reader *reader)
{
    char *arguments[SUCCESSOR_ARGUMENTS];
    const uint32_t request = take_u32(reader);
    const uint32_t patience_ms = take_u32(reader);
    const uint8_t tries = take_u8(reader);
    const uint32_t count = take_count(reader, SUCCESSOR_ARGUMENTS);
    for (uint32_t i = 0; i < count; i++) arguments[i] = take_string(reader, FRAME_LONGEST);
    if (patience_ms < 1000 || tries == 0) reader_reject(reader);
    if (!reader_done(reader)) return;
    if (!options.brain) {
        answer_refused(request, INVALID, 0, "this taproot starts no brains");
    } else if (stop_is_ending()) {
        answer_refused(request, INVALID, 0, "taproot is stopping");
    } else if (!successor_set(arguments, count, patience_ms, tries)) {
        answer_refused(request, INVALID, 0, "its arguments are too long");
    } else {
        answer_done(request);
        brain_replace();
    }
}

static void on_confirm(struct reader *reader)
{
    const uint32_t request = take_u32(reader);
    if (!reader_done(reader)) return;
    successor_confirm();
    answer_done(request);
}

static void on_shutdown(struct reader *reader)
{
    const uint8_t action = take_u8(reader);
    if (action > ACTION_KEXEC) reader_reject(reader);
    if (reader_done(reader)) stop_now(action);
}

static void on_stop(struct reader *reader)
{
    const uint8_t action = take_u8(reader);
    if (action > ACTION_KEXEC) reader_reject(reader);
    if (reader_done(reader)) stop_ask(STOP_REQUEST, action);
}

static void on_status(struct reader *reader)
{
    const uint32_t request = take_u32(reader);
    if (!reader_done(reader)) return;
    const size_t frame = frame_begin(STATUS);
    put_u32(&out, request);
    put_u32(&out, process_counts.entries);
    put_u32(&out, process_counts.exited);
    put_u32(&out, PROCESS_CAPACITY);
    put_u32(&out, system_descriptors());
    put_u32(&out, process_counts.orphans_reaped);
    put_u32(&out, refused);
    frame_end(frame);
}

static void handle(uint8_t type, struct reader reader)
{
    if (type != HELLO && !greeted) {
        answer_fault("HELLO comes first");
        return;
    }
    brain_heard();
    switch (type) {
    case HELLO: on_hello(&reader); break;
    case HEARTBEAT: take_u64(&reader); break;
    case SPAWN: on_spawn(&reader); break;
    case CLAIM: on_claim(&reader); break;
    case SIGNAL: on_signal(&reader); break;
    case INPUT: on_input(&reader); break;
    case INPUT_END: on_input_end(&reader); break;
    case READ: on_read(&reader); break;
    case WINDOW_SIZE: on_window_size(&reader); break;
    case ACKNOWLEDGE: on_acknowledge(&reader); break;
    case MOUNT: on_mount(&reader, false); break;
    case UNMOUNT: on_mount(&reader, true); break;
    case SHUTDOWN: on_shutdown(&reader); break;
    case STATUS_REQUEST: on_status(&reader); break;
    case MODULE: on_module(&reader); break;
    case WATCHDOG: on_watchdog(&reader); break;
    case SUCCEED: on_succeed(&reader); break;
    case CONFIRM: on_confirm(&reader); break;
    case STOP: on_stop(&reader); break;
    default: reader_reject(&reader);
    }
    if (!reader_done(&reader) && !deaf) {
        char text[64];
        snprintf(text, sizeof text, "a frame of type 0x%02x does not decode", type);
        answer_fault(text);
    }
}

/* ---- the turn ---- */

static void forget_brain(void)
{
    greeting_next = 0;
    helpers_forget_brain();
    for (struct process *process = process_oldest(); process; process = process_after(process))
        streams_forget_brain(process);
}

/* In a guest: the call of another brain, if it is all there. One that is repeated before HELLO has been answered. */
static bool dispatch_call(void)
{
    uint8_t answer[GUEST_CALL];
    if (in_end - in_start < GUEST_CALL) return false;
    guest_answer(in + in_start, answer);
    in_start += GUEST_CALL;
    if (!greeted) return true;
    greeted = false;
    forget_brain();
    memcpy(out.bytes, answer, sizeof answer);
    out_start = 0;
    out.length = sizeof answer;
    return true;
}

/* The next frame, if it is all there and may be handled now. */
static bool dispatch(void)
{
    if (options.guest && !deaf && in_end - in_start >= FRAME_HEADER && guest_is_call(in + in_start, in_end - in_start))
        return dispatch_call();
    if (deaf || greeting_next || in_end - in_start < FRAME_HEADER || !has_room(ROOM_FOR_ANSWER)) return false;
    struct reader header = reader_over(in + in_start, FRAME_HEADER);
    const uint32_t length = take_u32(&header);
    if (length < 1 || length > FRAME_LONGEST) {
        answer_fault("a frame has an impossible length");
        return false;
    }
    if (in_end - in_start - FRAME_HEADER < length) return false;
    uint8_t *frame = in + in_start + FRAME_HEADER;
    in_start += FRAME_HEADER + length;
    handle(frame[0], reader_over(frame + 1, length - 1));
    if (in_start == in_end) in_start = in_end = 0;
    return true;
}

static void serve(struct process *process)
{
    const uint8_t due = process->due;
    process->due &= (uint8_t)~(DUE_STDOUT | DUE_STDERR | DUE_INPUT | DUE_EXIT);
    for (uint8_t stream = 1; stream <= 2; stream++) {
        const uint8_t bit = stream == 1 ? DUE_STDOUT : DUE_STDERR;
        if (!(due & bit) || !process->output[stream - 1].wanted) continue;
        if (!has_room(ROOM_FOR_OUTPUT)) { /* the other stream's OUTPUT took it */
            process->due |= bit;
            continue;
        }
        const size_t frame = frame_begin(OUTPUT);
        if (output_serve(process, stream, &out)) frame_end(frame);
        else out.length = frame;
    }
    if ((due & DUE_INPUT) && (process->input.taken || process->input.shut)) {
        answer_input_taken(process->id, process->input.taken, process->input.shut);
        process->input.taken = 0;
        process->input.shut = false;
    }
    if (due & DUE_EXIT) answer_exited(process);
    const uint8_t left = process->due & (uint8_t)~DUE_QUEUED;
    due_remove_first();
    if (left) due_add(process, left);
}

/* What is owed to the brain, as far as there is room. */
static void settle(void)
{
    uint32_t request;
    int error;
    const char *text;
    if (!greeted || deaf) return;
    while (greeting_next && has_room(ROOM_FOR_ANSWER)) {
        struct process *process = process_by_id(greeting_next);
        const struct process *next = process_after(process);
        answer_process(process);
        greeting_next = next ? next->id : 0;
    }
    if (greeting_next || !has_room(ROOM_FOR_ANSWER)) return;
    if (stopping.wanted) {
        const size_t frame = frame_begin(STOPPING);
        put_u8(&out, stopping.why);
        put_u8(&out, stopping.action);
        put_u32(&out, stopping.deadline_ms);
        frame_end(frame);
        stopping.wanted = false;
    }
    while (has_room(ROOM_FOR_ANSWER) && helper_answer(&request, &error, &text)) {
        if (error == 0) answer_done(request);
        else answer_refused(request, SYSTEM_CALL, error, text);
    }
    for (struct process *process; has_room(ROOM_FOR_OUTPUT) && (process = due_first());) serve(process);
}

void channel_turn(void)
{
    if (channel < 0) return;
    bool moved;
    do {
        moved = dispatch();
        settle();
        if (flush()) moved = true; /* what found no room before finds it now, and nothing else would wake it */
    } while (moved);
    if (ended || deaf) {
        const bool fault = deaf;
        channel_close();
        if (!fault) brain_channel_ended();
        return;
    }
    const bool reads = has_room(ROOM_FOR_ANSWER);
    const bool writes = out_start < out.length;
    loop_change(channel, TOKEN_CHANNEL, (reads ? EPOLLIN : 0) | (writes ? EPOLLOUT : 0));
}

bool channel_receive(void)
{
    if (channel < 0 || ended) return false;
    if (in_start > 0) {
        memmove(in, in + in_start, in_end - in_start);
        in_end -= in_start;
        in_start = 0;
    }
    if (in_end == sizeof in) return false;
    const ssize_t got = read(channel, in + in_end, sizeof in - in_end);
    if (got > 0) in_end += (size_t)got;
    else if (got == 0 || (errno != EAGAIN && errno != EINTR)) ended = hung_up = true;
    return got > 0;
}

void channel_drain(void)
{
    hung_up = true;
    while (channel_receive()) channel_turn();
    channel_close();
}

bool channel_open(int descriptor)
{
    const int flags = fcntl(descriptor, F_GETFL);
    if (flags < 0 || fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) != 0) return false;
    if (!loop_add(descriptor, TOKEN_CHANNEL, EPOLLIN)) return false;
    channel = descriptor;
    in_start = in_end = out_start = out.length = 0;
    greeted = deaf = hung_up = ended = false;
    greeting_next = 0;
    return true;
}

bool channel_is_open(void)
{
    return channel >= 0;
}

void channel_close(void)
{
    if (channel < 0) return;
    loop_close(&channel);
    forget_brain();
}

void channel_announce_stop(uint8_t why, uint8_t action, uint32_t deadline_ms)
{
    stopping.wanted = true;
    stopping.why = why;
    stopping.action = action;
    stopping.deadline_ms = deadline_ms;
}
