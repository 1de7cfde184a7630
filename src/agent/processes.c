#define _GNU_SOURCE
#include "agent/processes.h"

#include "base/cleanup.h"
#include "base/span.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { PROCESSES_MAX = 1 << 22, STAT_BYTES = 512 };

struct process {
    pid_t pid, parent;
    char state;
    bool ours;
};

struct list {
    struct process *items;
    size_t count, capacity;
};

static bool read_number(pid_t *ret, struct span *text)
{
    long value = 0;
    size_t i = 0;
    for (; i < text->length && text->data[i] >= '0' && text->data[i] <= '9'; i++) {
        value = value * 10 + (text->data[i] - '0');
        if (value > INT32_MAX)
            return false;
    }
    *text = (struct span){text->data + i, text->length - i};
    *ret = (pid_t)value;
    return i > 0;
}

/* "PID (any bytes of its own choice) S PARENT ...": what counts stands after the last ')'. */
static bool read_stat(struct process *ret, int proc, const char *pid)
{
    char path[32];
    uint8_t bytes[STAT_BYTES];
    struct span name = span_of_text(pid);
    if (name.length > 10 || !read_number(&ret->pid, &name) || name.length > 0)
        return false;
    snprintf(path, sizeof path, "%.10s/stat", pid);
    _cleanup_close_ int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
    while (length > 0 && bytes[length - 1] != ')')
        length--;
    if (length <= 0 || length + 4 > (ssize_t)sizeof bytes)
        return false;
    ret->state = (char)bytes[length + 1];
    struct span parent = {bytes + length + 3, sizeof bytes - (size_t)length - 3};
    return read_number(&ret->parent, &parent);
}

static bool add(struct list *list, const struct process *process)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 256;
        struct process *items =
            capacity > PROCESSES_MAX ? NULL : reallocarray(list->items, capacity, sizeof *items);
        if (items == NULL)
            return false;
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = *process;
    return true;
}

static int by_pid(const void *left, const void *right)
{
    pid_t a = ((const struct process *)left)->pid, b = ((const struct process *)right)->pid;
    return (a > b) - (a < b);
}

static bool read_all(struct list *list)
{
    DIR *proc = opendir("/proc");
    bool whole = proc != NULL;
    for (struct dirent *entry; whole && (entry = readdir(proc)) != NULL;) {
        struct process process = {0};
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9'
            && read_stat(&process, dirfd(proc), entry->d_name))
            whole = add(list, &process);
    }
    if (proc)
        closedir(proc);
    if (whole && list->count)
        qsort(list->items, list->count, sizeof *list->items, by_pid);
    return whole;
}

static bool is_one_of(pid_t pid, const pid_t *pids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (pids[i] == pid)
            return true;
    return false;
}

/* Parents mostly have the lower number, so that few passes are needed. */
static void mark(struct list *list, pid_t root, const pid_t *except, size_t except_count)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = 0; i < list->count; i++) {
            struct process *process = &list->items[i];
            if (process->ours || is_one_of(process->pid, except, except_count))
                continue;
            struct process wanted = {.pid = process->parent};
            const struct process *parent =
                bsearch(&wanted, list->items, list->count, sizeof wanted, by_pid);
            process->ours = process->parent == root || (parent && parent->ours);
            changed = changed || process->ours;
        }
    }
}

bool processes_signal(struct processes_left *ret, pid_t root, int number, const pid_t *except,
                      size_t except_count)
{
    struct list list = {0};
    struct processes_left left = {0};
    bool whole = read_all(&list);
    if (whole)
        mark(&list, root, except, except_count);
    for (size_t i = 0; whole && i < list.count; i++) {
        const struct process *process = &list.items[i];
        if (!process->ours || process->state == 'Z' || process->state == 'X')
            continue;
        left.alive++;
        /* D: a parent waits for its vfork, which is stopped; with a stop pending it cannot go on */
        left.running += process->state != 'T' && process->state != 't' && process->state != 'D';
        if (number != 0)
            kill(process->pid, number);
    }
    free(list.items);
    if (whole)
        *ret = left;
    return whole;
}
