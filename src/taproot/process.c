/* See process.h. Links are slot numbers plus one, so that .bss, all zero, is an empty table. */
#include "process.h"

#include <string.h>

_Static_assert(PROCESS_CAPACITY >= TOKENS_FIXED, "tokens of processes must not meet the fixed ones");

static struct process table[PROCESS_CAPACITY];
static uint32_t buckets[PROCESS_CAPACITY];
static uint32_t touched;   /* slots ever used: those beyond cost no memory */
static uint32_t free_list; /* through `older` */
static uint32_t oldest, newest;
static uint32_t due_head, due_tail;
static uint64_t serial;

struct process_counts process_counts;

static struct process *at(uint32_t link)
{
    return link ? &table[link - 1] : NULL;
}

static uint32_t link_of(const struct process *process)
{
    return (uint32_t)(process - table) + 1;
}

static uint32_t *bucket_of(pid_t pid)
{
    return &buckets[(uint32_t)pid % PROCESS_CAPACITY];
}

bool process_table_full(void)
{
    return process_counts.entries == PROCESS_CAPACITY;
}

struct process *process_new(pid_t pid, uint64_t start_time, const char *label)
{
    uint32_t link = free_list;
    if (link) {
        free_list = table[link - 1].older;
    } else {
        if (touched == PROCESS_CAPACITY) return NULL;
        link = ++touched;
    }
    struct process *process = &table[link - 1];
    memset(process, 0, sizeof *process);
    process->id = ++serial * PROCESS_CAPACITY + (link - 1);
    process->pid = pid;
    process->start_time = start_time;
    process->status = process->console = -1;
    process->output[0].descriptor = process->output[1].descriptor = process->input.descriptor = -1;
    strncpy(process->label, label, LABEL_LONGEST);

    uint32_t *bucket = bucket_of(pid);
    process->by_pid = *bucket;
    *bucket = link;

    process->older = newest;
    if (newest) table[newest - 1].newer = link;
    else oldest = link;
    newest = link;
    process_counts.entries++;
    return process;
}

static void forget_pid(const struct process *process)
{
    uint32_t *link = bucket_of(process->pid);
    while (*link && at(*link) != process) link = &at(*link)->by_pid;
    if (*link) *link = process->by_pid;
}

void process_free(struct process *process)
{
    const uint32_t link = link_of(process);
    if (process->exited) process_counts.exited--;
    else forget_pid(process);
    if (process->due & DUE_QUEUED) {
        uint32_t *place = &due_head;
        uint32_t before = 0;
        while (*place != link) {
            before = *place;
            place = &at(*place)->next_due;
        }
        *place = process->next_due;
        if (due_tail == link) due_tail = before;
    }
    if (process->older) table[process->older - 1].newer = process->newer;
    else oldest = process->newer;
    if (process->newer) table[process->newer - 1].older = process->older;
    else newest = process->older;
    process->id = 0;
    process->older = free_list;
    free_list = link;
    process_counts.entries--;
}

struct process *process_by_id(uint64_t id)
{
    struct process *process = &table[id % PROCESS_CAPACITY];
    return id != 0 && process->id == id ? process : NULL;
}

struct process *process_by_pid(pid_t pid)
{
    struct process *process = at(*bucket_of(pid));
    while (process && process->pid != pid) process = at(process->by_pid);
    return process;
}

struct process *process_oldest(void)
{
    return at(oldest);
}

struct process *process_after(const struct process *process)
{
    return at(process->newer);
}

void process_ended(struct process *process, const struct exit_record *record)
{
    forget_pid(process);
    process->exited = true;
    process->exit = *record;
    process_counts.exited++;
    due_add(process, DUE_EXIT);
}

void due_add(struct process *process, uint8_t what)
{
    process->due |= what;
    if (process->due & DUE_QUEUED) return;
    process->due |= DUE_QUEUED;
    process->next_due = 0;
    const uint32_t link = link_of(process);
    if (due_tail) table[due_tail - 1].next_due = link;
    else due_head = link;
    due_tail = link;
}

struct process *due_first(void)
{
    return at(due_head);
}

void due_remove_first(void)
{
    struct process *process = at(due_head);
    if (!process) return;
    due_head = process->next_due;
    if (!due_head) due_tail = 0;
    process->due &= (uint8_t)~DUE_QUEUED;
}

static struct orphan {
    pid_t pid; /* 0: free, or claimed */
    uint64_t start_time;
    struct exit_record exit;
} orphans[ORPHANS_REMEMBERED];
static uint32_t orphan_next;

void orphan_remember(pid_t pid, uint64_t start_time, const struct exit_record *record)
{
    orphans[orphan_next] = (struct orphan){.pid = pid, .start_time = start_time, .exit = *record};
    orphan_next = (orphan_next + 1) % ORPHANS_REMEMBERED;
    process_counts.orphans_reaped++;
}

bool orphan_recall(pid_t pid, uint64_t *start_time, struct exit_record *record)
{
    for (uint32_t i = 1; i <= ORPHANS_REMEMBERED; i++) {
        struct orphan *orphan = &orphans[(orphan_next + ORPHANS_REMEMBERED - i) % ORPHANS_REMEMBERED];
        if (orphan->pid != pid || (*start_time != 0 && orphan->start_time != *start_time)) continue;
        *start_time = orphan->start_time;
        *record = orphan->exit;
        orphan->pid = 0;
        return true;
    }
    return false;
}
