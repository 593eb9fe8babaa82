/* See channel.h. */
#define _GNU_SOURCE
#include "channel.h"
#include "answers.h"
#include "brain.h"
#include "guest.h"
#include "process.h"
#include "requests.h"
#include "stream.h"
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

struct conversation conversation = {.descriptor = -1};

static uint8_t in[FRAME_HEADER + FRAME_LONGEST];
static size_t in_start, in_end;
static struct {
    bool wanted;
    uint8_t why, action;
    uint32_t deadline_ms;
} stopping;

static void forget_brain(void)
{
    conversation.greeting_next = 0;
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
    if (!conversation.greeted) return true;
    conversation.greeted = false;
    forget_brain();
    answers_restart(answer, sizeof answer);
    return true;
}

/* The next frame, if it is all there and may be handled now. */
static bool dispatch(void)
{
    const size_t there = in_end - in_start;
    if (conversation.deaf || there < FRAME_HEADER) return false;
    if (options.guest && guest_is_call(in + in_start, there)) return dispatch_call();
    if (conversation.greeting_next || !answers_have_room(ROOM_FOR_ANSWER)) return false;
    struct reader header = reader_over(in + in_start, FRAME_HEADER);
    const uint32_t length = take_u32(&header);
    if (length < 1 || length > FRAME_LONGEST) {
        answer_fault("a frame has an impossible length");
        return false;
    }
    if (there - FRAME_HEADER < length) return false;
    uint8_t *frame = in + in_start + FRAME_HEADER;
    in_start += FRAME_HEADER + length;
    request_handle(frame[0], reader_over(frame + 1, length - 1));
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
        if (!answers_have_room(ROOM_FOR_OUTPUT)) { /* the other stream's OUTPUT took it */
            process->due |= bit;
            continue;
        }
        answer_output(process, stream);
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
    if (!conversation.greeted || conversation.deaf) return;
    while (conversation.greeting_next && answers_have_room(ROOM_FOR_ANSWER)) {
        struct process *process = process_by_id(conversation.greeting_next);
        const struct process *next = process_after(process);
        answer_process(process);
        conversation.greeting_next = next ? next->id : 0;
    }
    if (conversation.greeting_next || !answers_have_room(ROOM_FOR_ANSWER)) return;
    if (stopping.wanted) {
        answer_stopping(stopping.why, stopping.action, stopping.deadline_ms);
        stopping.wanted = false;
    }
    while (answers_have_room(ROOM_FOR_ANSWER) && helper_answer(&request, &error, &text)) {
        if (error == 0) answer_done(request);
        else answer_refused(request, SYSTEM_CALL, error, text);
    }
    for (struct process *process; answers_have_room(ROOM_FOR_OUTPUT) && (process = due_first());) serve(process);
}

void channel_turn(void)
{
    if (conversation.descriptor < 0) return;
    bool moved;
    do {
        moved = dispatch();
        settle();
        if (answers_flush()) moved = true; /* what found no room before finds it now, and nothing else would wake it */
    } while (moved);
    if (conversation.ended || conversation.deaf) {
        const bool fault = conversation.deaf;
        channel_close();
        if (!fault) brain_channel_ended();
        return;
    }
    const bool reads = answers_have_room(ROOM_FOR_ANSWER);
    const bool writes = answers_left();
    loop_change(conversation.descriptor, TOKEN_CHANNEL, (reads ? EPOLLIN : 0) | (writes ? EPOLLOUT : 0));
}

bool channel_receive(void)
{
    if (conversation.descriptor < 0 || conversation.ended) return false;
    if (in_start > 0) {
        memmove(in, in + in_start, in_end - in_start);
        in_end -= in_start;
        in_start = 0;
    }
    if (in_end == sizeof in) return false;
    const ssize_t got = read(conversation.descriptor, in + in_end, sizeof in - in_end);
    if (got > 0) in_end += (size_t)got;
    else if (got == 0 || (errno != EAGAIN && errno != EINTR)) conversation.ended = conversation.hung_up = true;
    return got > 0;
}

void channel_drain(void)
{
    conversation.hung_up = true;
    while (channel_receive()) channel_turn();
    channel_close();
}

bool channel_open(int descriptor)
{
    const int flags = fcntl(descriptor, F_GETFL);
    if (flags < 0 || fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) != 0) return false;
    if (!loop_add(descriptor, TOKEN_CHANNEL, EPOLLIN)) return false;
    conversation.descriptor = descriptor;
    in_start = in_end = 0;
    answers_restart(NULL, 0);
    conversation.greeted = conversation.deaf = conversation.hung_up = conversation.ended = false;
    conversation.greeting_next = 0;
    return true;
}

bool channel_is_open(void)
{
    return conversation.descriptor >= 0;
}

void channel_close(void)
{
    if (conversation.descriptor < 0) return;
    loop_close(&conversation.descriptor);
    forget_brain();
}

void channel_announce_stop(uint8_t why, uint8_t action, uint32_t deadline_ms)
{
    stopping.wanted = true;
    stopping.why = why;
    stopping.action = action;
    stopping.deadline_ms = deadline_ms;
}
