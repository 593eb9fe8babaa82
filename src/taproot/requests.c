/* See requests.h. From the top: HELLO, processes, their streams, helpers, brains, the end. */
#define _GNU_SOURCE
#include "requests.h"
#include "answers.h"
#include "brain.h"
#include "channel.h"
#include "process.h"
#include "spawn.h"
#include "stream.h"
#include "successor.h"
#include "system.h"
#include "watchdog.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum request {
    HELLO = 0x01, HEARTBEAT, SPAWN, CLAIM, SIGNAL, INPUT, INPUT_END, READ, WINDOW_SIZE, ACKNOWLEDGE, MOUNT, UNMOUNT,
    SHUTDOWN, STATUS_REQUEST, MODULE, WATCHDOG, SUCCEED, CONFIRM, STOP,
};

static void on_hello(struct reader *reader)
{
    const uint16_t newest = take_u16(reader);
    const uint16_t oldest = reader->at == reader->end ? newest : take_u16(reader); /* version 1 had no second field */
    if (!reader_done(reader)) return;
    if (conversation.greeted) {
        answer_fault("HELLO comes once");
    } else if (newest < PROTOCOL_OLDEST || oldest > PROTOCOL_VERSION) {
        char text[96];
        snprintf(text, sizeof text, "taproot speaks version %d to %d of the protocol, the brain %u to %u", PROTOCOL_OLDEST,
                 PROTOCOL_VERSION, oldest, newest);
        successor_speaks_not();
        answer_fault(text);
    } else {
        conversation.greeted = true;
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
    if (error == ESRCH) answer_refused(request, NO_PROCESS, ESRCH, "it has conversation.ended");
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
    answer_output_end(id, stream, consumed);
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
    answer_status(request);
}

void request_handle(uint8_t type, struct reader reader)
{
    if (type != HELLO && !conversation.greeted) {
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
    if (!reader_done(&reader) && !conversation.deaf) {
        char text[64];
        snprintf(text, sizeof text, "a frame of type 0x%02x does not decode", type);
        answer_fault(text);
    }
}
