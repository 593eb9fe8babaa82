/* See successor.h. */
#include "successor.h"

#include <string.h>

struct successor successor;

static char text[4096]; /* the arguments, one behind the other */
static char *words[SUCCESSOR_ARGUMENTS + 1];
static int64_t patience, deadline;
static uint8_t tries_left;
static bool speaks_not;

bool successor_set(char **arguments, uint32_t count, uint32_t patience_ms, uint8_t tries)
{
    size_t length = 0;
    for (uint32_t i = 0; i < count; i++) length += strlen(arguments[i]) + 1;
    if (count > SUCCESSOR_ARGUMENTS || length > sizeof text) return false;
    length = 0;
    for (uint32_t i = 0; i < count; i++) {
        const size_t size = strlen(arguments[i]) + 1;
        words[i] = memcpy(text + length, arguments[i], size);
        length += size;
    }
    words[count] = NULL;
    patience = patience_ms;
    deadline = -1;
    tries_left = tries;
    speaks_not = false;
    successor = (struct successor){.state = count > 0 ? SUCCESSOR_TRIAL : SUCCESSOR_NONE, .fault = FAULT_NONE};
    return true;
}

bool successor_is_brain(void)
{
    return successor.state == SUCCESSOR_TRIAL || successor.state == SUCCESSOR_PROVEN;
}

char **successor_arguments(void)
{
    return words;
}

void successor_started(void)
{
    if (successor.state == SUCCESSOR_TRIAL && deadline < 0) deadline = clock_ms() + patience;
}

void successor_speaks_not(void)
{
    speaks_not = true;
}

void successor_confirm(void)
{
    if (successor.state == SUCCESSOR_TRIAL) successor.state = SUCCESSOR_PROVEN;
}

int64_t successor_deadline(void)
{
    return successor.state == SUCCESSOR_TRIAL ? deadline : -1;
}

static enum successor_fault fault_of(uint32_t brief, const struct brain_end *end)
{
    if (successor.state == SUCCESSOR_PROVEN) return brief >= options.rescue_after ? FAULT_UNSTABLE : FAULT_NONE;
    if (speaks_not) return FAULT_PROTOCOL;
    if (end->how == BRAIN_LATE) return FAULT_LATE;
    if (tries_left > 0) tries_left--;
    return tries_left == 0 ? FAULT_ENDED : FAULT_NONE;
}

bool successor_ended(uint32_t brief, const struct brain_end *end)
{
    static const char *const reasons[] = {
        "", "it ended too often", "it did not say in time that it works", "it speaks another version of the protocol",
        "several in a row ended soon after their start",
    };
    if (!successor_is_brain()) return false;
    const enum successor_fault fault = fault_of(brief, end);
    if (fault == FAULT_NONE) return false;
    say("the brain that took over is given up: %s; going back to that of the command line", reasons[fault]);
    successor = (struct successor){.state = SUCCESSOR_GIVEN_UP, .fault = (uint8_t)fault, .end = *end};
    return true;
}
