/* See answers.h. From the top: the buffer, the frames. */
#define _GNU_SOURCE
#include "answers.h"
#include "brain.h"
#include "channel.h"
#include "stream.h"
#include "successor.h"
#include "system.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { OUT_SIZE = 262144 };

/* What has come to the protocol without a new version, a bit each. */
enum feature { FEATURE_MODULE = 1, FEATURE_WATCHDOG = 2, FEATURE_SUCCESSOR = 4, FEATURE_STOP = 8 };
enum answer {
    WELCOME = 0x81, PROCESS, SPAWNED, DONE, REFUSED, EXITED, OUTPUT, INPUT_TAKEN, STOPPING, STATUS, FAULT,
};

static uint8_t out_bytes[OUT_SIZE];
static size_t out_start; /* sent already */
static struct writer out = {.bytes = out_bytes, .size = OUT_SIZE, .length = 0, .overflow = false};
static uint32_t refused;

/* ---- the buffer ---- */

bool answers_have_room(size_t length)
{
    if (out.size - out.length >= length) return true;
    if (out.size - (out.length - out_start) < length) return false;
    memmove(out.bytes, out.bytes + out_start, out.length - out_start);
    out.length -= out_start;
    out_start = 0;
    return true;
}

/* Writes what the brain takes; true when that emptied the buffer, so that there is room for what is still owed. */
bool answers_flush(void)
{
    if (out_start == out.length) return false;
    while (conversation.descriptor >= 0 && out_start < out.length) {
        if (conversation.hung_up) {
            out_start = out.length;
            break;
        }
        const ssize_t sent = write(conversation.descriptor, out.bytes + out_start, out.length - out_start);
        if (sent > 0) out_start += (size_t)sent;
        else if (sent < 0 && errno == EINTR) continue;
        else if (sent < 0 && errno == EAGAIN) return false;
        else conversation.hung_up = true;
    }
    out_start = out.length = 0;
    return true;
}

bool answers_left(void)
{
    return out_start < out.length;
}

void answers_restart(const uint8_t *bytes, size_t length)
{
    if (length > 0) memcpy(out.bytes, bytes, length);
    out_start = 0;
    out.length = length;
}

/* ---- the frames ---- */

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

void answer_fault(const char *text)
{
    say("the brain broke the protocol: %s", text);
    const size_t frame = frame_begin(FAULT);
    put_string(&out, text);
    frame_end(frame);
    answers_flush();
    conversation.deaf = true;
    brain_condemn(BRAIN_FAULTY, 1000);
}

void answer_done(uint32_t request)
{
    const size_t frame = frame_begin(DONE);
    put_u32(&out, request);
    frame_end(frame);
}

void answer_refused(uint32_t request, enum refusal reason, int error, const char *text)
{
    const size_t frame = frame_begin(REFUSED);
    put_u32(&out, request);
    put_u8(&out, (uint8_t)reason);
    put_u32(&out, (uint32_t)error);
    put_string(&out, text);
    frame_end(frame);
    refused++;
}

void answer_spawned(uint32_t request, const struct process *process)
{
    const size_t frame = frame_begin(SPAWNED);
    put_u32(&out, request);
    put_u64(&out, process->id);
    put_u32(&out, (uint32_t)process->pid);
    put_u64(&out, process->start_time);
    frame_end(frame);
}

void answer_exited(const struct process *process)
{
    const size_t frame = frame_begin(EXITED);
    put_u64(&out, process->id);
    put_exit(&process->exit);
    frame_end(frame);
}

void answer_input_taken(uint64_t id, uint32_t bytes, bool shut)
{
    const size_t frame = frame_begin(INPUT_TAKEN);
    put_u64(&out, id);
    put_u32(&out, bytes);
    put_u8(&out, shut);
    frame_end(frame);
}

void answer_process(struct process *process)
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

void answer_welcome(void)
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
    conversation.greeting_next = process_oldest() ? process_oldest()->id : 0;
}

bool answer_output(struct process *process, uint8_t stream)
{
    const size_t frame = frame_begin(OUTPUT);
    const bool served = output_serve(process, stream, &out);
    if (served) frame_end(frame);
    else out.length = frame;
    return served;
}

void answer_output_end(uint64_t id, uint8_t stream, uint64_t consumed)
{
    const size_t frame = frame_begin(OUTPUT);
    put_u64(&out, id);
    put_u8(&out, stream);
    put_u64(&out, consumed);
    put_u64(&out, clock_epoch_ns());
    put_u8(&out, 1);
    put_blob(&out, "", 0);
    frame_end(frame);
}

void answer_stopping(uint8_t why, uint8_t action, uint32_t deadline_ms)
{
    const size_t frame = frame_begin(STOPPING);
    put_u8(&out, why);
    put_u8(&out, action);
    put_u32(&out, deadline_ms);
    frame_end(frame);
}

void answer_status(uint32_t request)
{
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
