/* See stream.h. */
#define _GNU_SOURCE
#include "stream.h"
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

static uint8_t input_bytes[INPUT_CAPACITY][INPUT_LONGEST] __attribute__((aligned(4096)));
static bool input_used[INPUT_CAPACITY];
static uint8_t terminal_bytes[TERMINAL_CAPACITY][TERMINAL_BUFFER] __attribute__((aligned(4096)));
static bool terminal_used[TERMINAL_CAPACITY];

static int scratch[2] = {-1, -1}; /* tee(2) needs a pipe to copy into; empty between calls */

bool streams_open(void)
{
    return pipe2(scratch, O_CLOEXEC | O_NONBLOCK) == 0;
}

static uint16_t pool_take(bool *used, uint16_t capacity)
{
    for (uint16_t i = 0; i < capacity; i++) {
        if (used[i]) continue;
        used[i] = true;
        return (uint16_t)(i + 1);
    }
    return 0;
}

bool streams_reserve(bool input, bool terminal, uint16_t *input_buffer, uint16_t *terminal_buffer)
{
    *input_buffer = input ? pool_take(input_used, INPUT_CAPACITY) : 0;
    *terminal_buffer = terminal ? pool_take(terminal_used, TERMINAL_CAPACITY) : 0;
    if ((!input || *input_buffer) && (!terminal || *terminal_buffer)) return true;
    streams_unreserve(*input_buffer, *terminal_buffer);
    return false;
}

void streams_unreserve(uint16_t input_buffer, uint16_t terminal_buffer)
{
    if (input_buffer) {
        input_used[input_buffer - 1] = false;
        madvise(input_bytes[input_buffer - 1], INPUT_LONGEST, MADV_DONTNEED);
    }
    if (terminal_buffer) terminal_used[terminal_buffer - 1] = false;
}

static uint64_t token_of(const struct process *process, enum source source)
{
    return process->id * 8 + source;
}

static enum source source_of(const struct process *process, const struct output *output)
{
    return output == &process->output[0] ? SOURCE_STDOUT : SOURCE_STDERR;
}

bool streams_watch(struct process *process)
{
    for (int i = 0; i < 2; i++) {
        struct output *output = &process->output[i];
        if (output->descriptor < 0) continue;
        if (!loop_add(output->descriptor, token_of(process, source_of(process, output)), EPOLLONESHOT)) return false;
    }
    if (process->input.descriptor >= 0 &&
        !loop_add(process->input.descriptor, token_of(process, SOURCE_STDIN), EPOLLONESHOT))
        return false;
    if (process->console >= 0 && !loop_add(process->console, token_of(process, SOURCE_CONSOLE), EPOLLIN)) return false;
    return process->status < 0 || loop_add(process->status, token_of(process, SOURCE_STATUS), EPOLLIN);
}

void status_read(struct process *process)
{
    struct spawn_failure failure;
    if (process->status < 0) return;
    const ssize_t length = read(process->status, &failure, sizeof failure);
    if (length < 0 && errno == EAGAIN) return;
    loop_close(&process->status);
    if (length != (ssize_t)sizeof failure) return;
    process->exit.how = EXIT_NOT_EXECUTED;
    process->exit.stage = (uint8_t)failure.stage;
    process->exit.value = failure.error;
}

/* ---- a terminal that is handed over ---- */

int console_listen(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (*path != '/' || strlen(path) >= sizeof address.sun_path) {
        errno = *path != '/' ? EINVAL : ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0) return -1;
    if (bind(listener, (const struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 1) == 0)
        return listener;
    const int error = errno;
    close(listener);
    errno = error;
    return -1;
}

/* One message and the descriptor that comes with it (-1: none; any others are closed); as recvmsg(2). */
static ssize_t receive_descriptor(int connection, int *descriptor)
{
    enum { MOST = 4 };
    char name[512];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(MOST * sizeof(int))];
    } control;
    struct iovec data = {.iov_base = name, .iov_len = sizeof name};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    *descriptor = -1;
    const ssize_t length = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
    if (length < 0) return length;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message); /* descriptors all come in one */
    if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) return length;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
        int found;
        memcpy(&found, CMSG_DATA(header) + i * sizeof found, sizeof found);
        if (*descriptor < 0) *descriptor = found;
        else close(found);
    }
    return length;
}

/* Only our side of a pseudo-terminal is taken: anything else might block, or not end. */
static void take_terminal(struct process *process, int terminal)
{
    char name[64];
    const int flags = fcntl(terminal, F_GETFL);
    const int copy = fcntl(terminal, F_DUPFD_CLOEXEC, 3);
    if (copy < 0 || ptsname_r(terminal, name, sizeof name) != 0 || fcntl(terminal, F_SETFL, flags | O_NONBLOCK) != 0) {
        say("process %d handed over no terminal: %s", (int)process->pid, strerror(errno));
        close(terminal);
        if (copy >= 0) close(copy);
        return;
    }
    process->output[0].descriptor = terminal;
    process->input.descriptor = copy;
    if (loop_add(terminal, token_of(process, SOURCE_STDOUT), EPOLLONESHOT) &&
        loop_add(copy, token_of(process, SOURCE_STDIN), EPOLLONESHOT))
        return;
    say("the terminal of process %d cannot be watched: %s", (int)process->pid, strerror(errno));
    loop_close(&process->output[0].descriptor);
    loop_close(&process->input.descriptor);
}

/* What can be received without waiting. */
static void console_receive(struct process *process)
{
    int listening = 0, terminal = -1;
    socklen_t size = sizeof listening;
    if (process->console < 0) return;
    if (getsockopt(process->console, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening) {
        const int connection = accept4(process->console, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (connection < 0) return;
        loop_close(&process->console);
        process->console = connection;
        if (!loop_add(connection, token_of(process, SOURCE_CONSOLE), EPOLLIN))
            say("the console of process %d cannot be watched: %s", (int)process->pid, strerror(errno));
    }
    if (receive_descriptor(process->console, &terminal) < 0 && (errno == EAGAIN || errno == EINTR)) return;
    loop_close(&process->console);
    if (terminal >= 0) take_terminal(process, terminal);
    if (process->output[0].wanted) due_add(process, DUE_STDOUT);
    input_flush(process);
}

void console_ended(struct process *process)
{
    console_receive(process);
    if (process->console < 0) return;
    loop_close(&process->console);
    if (process->output[0].wanted) due_add(process, DUE_STDOUT);
}

void streams_event(struct process *process, enum source source)
{
    switch (source) {
    case SOURCE_STDOUT:
        if (process->output[0].wanted) due_add(process, DUE_STDOUT);
        break;
    case SOURCE_STDERR:
        if (process->output[1].wanted) due_add(process, DUE_STDERR);
        break;
    case SOURCE_STDIN: input_flush(process); break;
    case SOURCE_STATUS: status_read(process); break;
    case SOURCE_CONSOLE: console_receive(process); break;
    }
}

static void input_close(struct process *process)
{
    struct input *input = &process->input;
    loop_close(&input->descriptor);
    streams_unreserve(input->buffer, 0);
    input->buffer = 0;
    input->length = 0;
}

void streams_close(struct process *process)
{
    loop_close(&process->output[0].descriptor);
    loop_close(&process->output[1].descriptor);
    loop_close(&process->status);
    loop_close(&process->console);
    input_close(process);
    streams_unreserve(0, process->terminal);
    process->terminal = 0;
}

void streams_move(struct process *from, struct process *to)
{
    console_receive(from); /* it may be there: the runtime has ended */
    to->console = from->console;
    from->console = -1;
    if (to->console >= 0) loop_change(to->console, token_of(to, SOURCE_CONSOLE), EPOLLIN);
    for (uint8_t i = 0; i < 2; i++) {
        struct output *left = &from->output[i];
        to->output[i] = *left;
        to->output[i].wanted = false;
        if (left->descriptor >= 0) loop_change(left->descriptor, token_of(to, source_of(from, left)), EPOLLONESHOT);
        left->descriptor = -1;
        left->confirmed = left->sent;
        left->chunk = 0;
        if (left->wanted) due_add(from, i == 0 ? DUE_STDOUT : DUE_STDERR);
    }
    to->input = from->input;
    to->terminal = from->terminal;
    from->input = (struct input){.descriptor = -1};
    from->terminal = 0;
    if (to->input.descriptor >= 0)
        loop_change(to->input.descriptor, token_of(to, SOURCE_STDIN), EPOLLOUT | EPOLLONESHOT);
    if (to->input.taken || to->input.shut) due_add(to, DUE_INPUT);
}

void streams_forget_brain(struct process *process)
{
    struct input *input = &process->input;
    process->output[0].wanted = process->output[1].wanted = false;
    input->taken = 0;
    input->shut = false;
    if (!input->ending) input->start = input->length = 0;
}

uint8_t streams_that_are_open(const struct process *process)
{
    const bool coming = process->console >= 0;
    return (uint8_t)(((process->input.descriptor >= 0 || coming) && !process->input.ending ? 1 : 0) |
                     (process->output[0].descriptor >= 0 || coming ? 2 : 0) | (process->output[1].descriptor >= 0 ? 4 : 0) |
                     (process->terminal ? 8 : 0));
}

/* ---- output ---- */

/* Takes confirmed bytes off the pipe (or out of the terminal's buffer). They are there: they were seen before. */
static void release(const struct process *process, const struct output *output, uint64_t length)
{
    static uint8_t discarded[OUTPUT_LONGEST];
    if (output->descriptor < 0) return;
    if (process->terminal) {
        uint8_t *bytes = terminal_bytes[process->terminal - 1];
        memmove(bytes, bytes + length, (size_t)(output->sent - output->confirmed - length));
        return;
    }
    while (length > 0) {
        const ssize_t got = read(output->descriptor, discarded, length < OUTPUT_LONGEST ? length : OUTPUT_LONGEST);
        if (got <= 0) {
            say("output of process %d that was seen is gone: %s", (int)process->pid, got ? strerror(errno) : "end");
            return;
        }
        length -= (uint64_t)got;
    }
}

bool output_want(struct process *process, uint8_t stream, uint64_t consumed, uint32_t limit)
{
    struct output *output = &process->output[stream - 1];
    if (consumed == 0) consumed = output->confirmed;
    if (consumed < output->confirmed || consumed > output->sent) return false;
    if (consumed > output->confirmed) {
        release(process, output, consumed - output->confirmed);
        output->confirmed = consumed;
        output->chunk = 0;
    }
    output->wanted = true;
    output->limit = limit;
    due_add(process, stream == 1 ? DUE_STDOUT : DUE_STDERR);
    return true;
}

/* What is there, at most `limit` bytes, without taking it off: its length, 0 at the end, -1 with EAGAIN. */
static ssize_t look_into_pipe(const struct output *output, uint8_t *bytes, size_t limit)
{
    const ssize_t there = tee(output->descriptor, scratch[1], limit, SPLICE_F_NONBLOCK);
    for (ssize_t got = 0; got < there;) {
        const ssize_t piece = read(scratch[0], bytes + got, (size_t)(there - got));
        if (piece <= 0) return got; /* cannot be: all of it is in the scratch pipe */
        got += piece;
    }
    return there;
}

static ssize_t look_into_terminal(const struct process *process, const struct output *output, uint8_t *bytes,
                                  size_t limit)
{
    uint8_t *kept = terminal_bytes[process->terminal - 1];
    size_t length = (size_t)(output->sent - output->confirmed);
    if (length == 0) {
        const ssize_t got = read(output->descriptor, kept, limit < TERMINAL_BUFFER ? limit : TERMINAL_BUFFER);
        if (got < 0) return errno == EIO ? 0 : -1; /* EIO: no process has the terminal open any more */
        length = (size_t)got;
    }
    if (length > limit) length = limit;
    memcpy(bytes, kept, length);
    return (ssize_t)length;
}

enum { OUTPUT_FIELDS = 8 + 1 + 8 + 8 + 1 };

bool output_serve(struct process *process, uint8_t stream, struct writer *frame)
{
    struct output *output = &process->output[stream - 1];
    if (stream == 1 && process->console >= 0) return false; /* its terminal is still to come */
    uint8_t *bytes = place_of_blob(frame, OUTPUT_FIELDS);
    size_t limit = output->limit;
    ssize_t length = 0;
    /* A chunk that was served once is served again as it was, so that its time says which bytes it holds. */
    if (output->chunk > 0 && limit > output->chunk) limit = output->chunk;
    if (output->descriptor >= 0) {
        length = process->terminal ? look_into_terminal(process, output, bytes, limit)
                                   : look_into_pipe(output, bytes, limit);
        if (length < 0 && (errno == EAGAIN || errno == EINTR)) {
            loop_change(output->descriptor, token_of(process, source_of(process, output)), EPOLLIN | EPOLLONESHOT);
            return false;
        }
    }
    const bool end = length <= 0;
    if (end) {
        loop_close(&output->descriptor);
        length = 0;
    }
    if (output->chunk == 0 && !output->ended) {
        const uint64_t now = clock_epoch_ns();
        output->time = now > output->time ? now : output->time + 1;
    }
    output->ended = end;
    if ((uint32_t)length > output->chunk) output->chunk = (uint32_t)length;
    if (output->confirmed + (uint64_t)length > output->sent) output->sent = output->confirmed + (uint64_t)length;
    output->wanted = false;
    put_u64(frame, process->id);
    put_u8(frame, stream);
    put_u64(frame, output->confirmed);
    put_u64(frame, output->time);
    put_u8(frame, end);
    put_placed_blob(frame, (uint32_t)length);
    return true;
}

/* ---- input ---- */

bool input_add(struct process *process, const uint8_t *bytes, uint32_t length)
{
    struct input *input = &process->input;
    if (input->length + input->taken + length > INPUT_LONGEST) return false;
    if ((input->descriptor < 0 && process->console < 0) || input->ending) {
        input->taken += length;
        input->shut = true;
        due_add(process, DUE_INPUT);
        return true;
    }
    uint8_t *buffer = input_bytes[input->buffer - 1];
    if (input->start + input->length + length > INPUT_LONGEST) {
        memmove(buffer, buffer + input->start, input->length);
        input->start = 0;
    }
    memcpy(buffer + input->start + input->length, bytes, length);
    input->length += length;
    input_flush(process);
    return true;
}

/* A terminal has no half that could be closed: its reader sees the end when the end-of-file character is typed. */
static void type_end(const struct input *input)
{
    struct termios settings;
    if (tcgetattr(input->descriptor, &settings) != 0 || !(settings.c_lflag & ICANON)) return;
    if (write(input->descriptor, &settings.c_cc[VEOF], 1) < 0) say("no room to type the end: %s", strerror(errno));
}

void input_flush(struct process *process)
{
    struct input *input = &process->input;
    while (input->descriptor >= 0 && input->length > 0) {
        const uint8_t *waiting = input_bytes[input->buffer - 1] + input->start;
        const ssize_t took = write(input->descriptor, waiting, input->length);
        if (took > 0) {
            input->start += (uint32_t)took;
            input->length -= (uint32_t)took;
            input->taken += (uint32_t)took;
        } else if (took < 0 && (errno == EAGAIN || errno == EINTR)) {
            loop_change(input->descriptor, token_of(process, SOURCE_STDIN), EPOLLOUT | EPOLLONESHOT);
            break;
        } else {
            input->taken += input->length;
            input->shut = true;
            input_close(process);
        }
    }
    if (input->length == 0) input->start = 0;
    if (input->descriptor >= 0 && input->ending && input->length == 0) {
        if (process->terminal) type_end(input);
        input_close(process);
    }
    if (input->taken || input->shut) due_add(process, DUE_INPUT);
}

void input_end(struct process *process)
{
    process->input.ending = true;
    input_flush(process);
}

bool terminal_resize(struct process *process, uint16_t rows, uint16_t columns)
{
    const struct winsize size = {.ws_row = rows, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    if (!process->terminal || process->output[0].descriptor < 0) return false;
    return ioctl(process->output[0].descriptor, TIOCSWINSZ, &size) == 0;
}
