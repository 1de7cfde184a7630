#define _GNU_SOURCE
#include "agent/tree.h"

#include "agent/agent.h"
#include "agent/processes.h"
#include "agent/text.h"
#include "base/cleanup.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

static_assert((int)TREES_MAX == (int)AGENT_REQUESTS_MAX, "each request may be a tree");

enum {
    STOP_ROUNDS = 64,        /* of stopping a tree before it is killed: none can be born then */
    KILL_ALL_ROUNDS = 5000,  /* of a millisecond or two each */
    RESERVE_PART = 16,       /* of the guest's memory: for the kernel and the agent */
    RESERVE_KIB_MIN = 8 * 1024,
    RESERVE_KIB_MAX = 64 * 1024,
    RESERVE_PROCESSES = 64,
};

#define CGROUPS "/sys/fs/cgroup"

/* us of so many, in which every command that could run waited for memory. By then it gets no
 * better: pages of programs are taken and read again, over and over; to the kernel that is
 * progress, so it ends nobody. */
#define STARVING "full 5000000 10000000"

/* ---- cgroups ---- */

static status put_text(int directory, const char *name, const char *text, struct fault *fault)
{
    _cleanup_close_ int fd = openat(directory, name, O_WRONLY | O_CLOEXEC);
    ssize_t length = (ssize_t)strlen(text);
    if (fd < 0 || write(fd, text, (size_t)length) != length)
        return errno_status(errno, name, fault);
    return OK;
}

static status put_number(int directory, const char *name, uint64_t number, struct fault *fault)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    return put_text(directory, name, text, fault);
}

/* Of what is free before there is a command. Where more is promised, the kernel takes back pages of
 * programs that run, the agent's too, and reads them again, for minutes, before it ends anybody.
 * 0: not known. */
static uint64_t memory_for_all(void)
{
    uint64_t total_kib = 0, free_kib = 0;
    if (!text_file_number(&total_kib, AT_FDCWD, "/proc/meminfo", "MemTotal:")
        || !text_file_number(&free_kib, AT_FDCWD, "/proc/meminfo", "MemAvailable:"))
        return 0;
    uint64_t reserve_kib = total_kib / RESERVE_PART;
    if (reserve_kib < RESERVE_KIB_MIN)
        reserve_kib = RESERVE_KIB_MIN;
    if (reserve_kib > RESERVE_KIB_MAX)
        reserve_kib = RESERVE_KIB_MAX;
    return (free_kib > 2 * reserve_kib ? free_kib - reserve_kib : free_kib / 2) * 1024;
}

/* All commands together leave the kernel and the agent what they need. */
static status bound_all(int directory, struct fault *fault)
{
    uint64_t threads = 0, most = 0, memory = memory_for_all();
    TRY(put_text(directory, "cgroup.subtree_control", "+cpu +memory +pids", fault));
    if (memory > 0)
        TRY(put_number(directory, "memory.max", memory, fault));
    if (text_file_number(&threads, AT_FDCWD, "/proc/sys/kernel/threads-max", "")
        && text_file_number(&most, AT_FDCWD, "/proc/sys/kernel/pid_max", "")) {
        most = threads < most ? threads : most;
        if (most > 2 * RESERVE_PROCESSES)
            TRY(put_number(directory, "pids.max", most - RESERVE_PROCESSES, fault));
    }
    return OK;
}

static int watch_pressure(int directory)
{
    _cleanup_close_ int fd = openat(directory, "memory.pressure", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || write(fd, STARVING, sizeof STARVING) < 0)
        return -1; /* a kernel without it */
    return take_fd(&fd);
}

status trees_open(struct trees *ret, bool guest, struct fault *fault)
{
    *ret = (struct trees){.cgroup = -1, .pressure = -1};
    for (int i = 0; i < TREES_MAX; i++)
        ret->slots[i].cgroup = -1;
    if (!guest)
        return OK;
    _cleanup_close_ int top = open(CGROUPS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (top < 0)
        return errno_status(errno, "cgroups", fault);
    TRY(put_text(top, "cgroup.subtree_control", "+cpu +memory +pids", fault));
    if (mkdirat(top, "exec", 0755) && errno != EEXIST)
        return errno_status(errno, "cgroups", fault);
    _cleanup_close_ int directory = openat(top, "exec", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return errno_status(errno, "cgroups", fault);
    TRY(bound_all(directory, fault));
    ret->pressure = watch_pressure(directory);
    ret->cgroup = take_fd(&directory);
    return OK;
}

static status make_cgroup(struct tree *tree, const struct trees *trees, struct fault *fault)
{
    char name[16];
    snprintf(name, sizeof name, "%u", tree->number);
    if (mkdirat(trees->cgroup, name, 0755))
        return errno_status(errno, "cgroup", fault);
    tree->cgroup = openat(trees->cgroup, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (tree->cgroup < 0)
        return errno_status(errno, "cgroup", fault);
    TRY(put_number(tree->cgroup, "memory.oom.group", 1, fault));
    if (tree->processes)
        TRY(put_number(tree->cgroup, "pids.max", tree->processes, fault));
    if (tree->memory_bytes)
        TRY(put_number(tree->cgroup, "memory.max", tree->memory_bytes, fault));
    return OK;
}

/* A command that is root may have made groups below its own. */
static void remove_groups(int parent, const char *name, int depth)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *directory = depth < AGENT_DEPTH_MAX && fd >= 0 ? fdopendir(fd) : NULL;
    if (directory == NULL)
        cleanup_close(&fd);
    for (struct dirent *entry; directory && (entry = readdir(directory)) != NULL;)
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
            remove_groups(fd, entry->d_name, depth + 1);
    if (directory)
        closedir(directory);
    unlinkat(parent, name, AT_REMOVEDIR);
}

static void remove_cgroup(struct trees *trees, struct tree *tree)
{
    char name[16];
    snprintf(name, sizeof name, "%u", tree->number);
    if (trees->cgroup >= 0 && unlinkat(trees->cgroup, name, AT_REMOVEDIR) && errno != ENOENT)
        remove_groups(trees->cgroup, name, 0);
    cleanup_close(&tree->cgroup);
}

static bool is_populated(int cgroup)
{
    uint64_t populated = 0;
    return text_file_number(&populated, cgroup, "cgroup.events", "populated ") && populated;
}

static bool kill_cgroup(struct tree *tree)
{
    struct fault fault;
    if (!is_populated(tree->cgroup))
        return true;
    if (put_number(tree->cgroup, "cgroup.kill", 1, &fault) != OK)
        fprintf(stderr, "bulkhead-agent: %s\n", fault.detail);
    return !is_populated(tree->cgroup);
}

/* ---- shepherds ---- */

/* Stopped first, so that what forks without end comes to an end. */
static bool kill_below(pid_t shepherd, uint16_t *rounds, const pid_t *except, size_t count)
{
    struct processes_left left = {0};
    if (!processes_signal(&left, shepherd, *rounds < STOP_ROUNDS ? SIGSTOP : SIGKILL, except,
                          count))
        return false;
    if (left.alive == 0)
        return true;
    if (*rounds < STOP_ROUNDS && left.running == 0)
        *rounds = STOP_ROUNDS;
    else if (*rounds < STOP_ROUNDS)
        (*rounds)++;
    if (*rounds == STOP_ROUNDS)
        (void)processes_signal(&left, shepherd, SIGKILL, except, count);
    return false;
}

static size_t shepherds(pid_t ret[TREES_MAX], const struct trees *trees)
{
    size_t count = 0;
    for (int i = 0; i < TREES_MAX; i++)
        if (trees->slots[i].used && trees->slots[i].shepherd > 0)
            ret[count++] = trees->slots[i].shepherd;
    return count;
}

void trees_kill_strays(struct trees *trees)
{
    pid_t except[TREES_MAX];
    uint16_t rounds = 0;
    size_t count = shepherds(except, trees);
    if (trees->cgroup >= 0)
        return; /* there they are in their cgroup, whoever their parent is */
    for (int i = 0; i < 2 * STOP_ROUNDS && !kill_below(getpid(), &rounds, except, count); i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* ---- trees ---- */

status tree_make(struct tree **ret, struct trees *trees, uint32_t processes,
                 uint64_t memory_bytes, struct fault *fault)
{
    struct tree *tree = NULL;
    for (int i = 0; i < TREES_MAX && tree == NULL; i++)
        if (!trees->slots[i].used)
            tree = &trees->slots[i];
    if (tree == NULL)
        return FAIL(QUOTA_EXCEEDED, fault, "%d commands run", TREES_MAX);
    *tree = (struct tree){.cgroup = -1, .processes = processes, .memory_bytes = memory_bytes,
                          .number = trees->number++, .used = true};
    status done = trees->cgroup >= 0 ? make_cgroup(tree, trees, fault) : OK;
    if (done != OK) {
        tree_free(trees, tree);
        return done;
    }
    *ret = tree;
    return OK;
}

bool tree_kill(struct tree *tree)
{
    if (tree->cgroup >= 0)
        return kill_cgroup(tree);
    return tree->shepherd <= 0 || kill_below(tree->shepherd, &tree->rounds, NULL, 0);
}

void tree_usage(struct tree *tree, uint64_t *cpu_us, uint64_t *peak_kib)
{
    uint64_t number = 0;
    if (tree->cgroup < 0)
        return;
    if (text_file_number(&number, tree->cgroup, "cpu.stat", "usage_usec "))
        *cpu_us = number;
    if (text_file_number(&number, tree->cgroup, "memory.peak", ""))
        *peak_kib = number / 1024;
    bool killed = text_file_number(&number, tree->cgroup, "memory.events", "oom_kill ")
               && number > 0;
    tree->oom = killed || tree->starved;
}

/* What only its end gives back. */
static uint64_t held_by(const struct tree *tree)
{
    uint64_t anonymous = 0, shared = 0;
    (void)text_file_number(&anonymous, tree->cgroup, "memory.stat", "anon ");
    (void)text_file_number(&shared, tree->cgroup, "memory.stat", "shmem ");
    return anonymous + shared;
}

void trees_relieve(struct trees *trees)
{
    struct tree *largest = NULL;
    uint64_t most = 0;
    for (int i = 0; i < TREES_MAX; i++) {
        struct tree *tree = &trees->slots[i];
        uint64_t held = tree->used && tree->cgroup >= 0 ? held_by(tree) : 0;
        if (held <= most)
            continue;
        largest = tree;
        most = held;
    }
    if (!largest)
        return;
    largest->starved = true;
    (void)tree_kill(largest); /* its end is seen as any other is */
}

struct tree *tree_free(struct trees *trees, struct tree *tree)
{
    if (tree == NULL)
        return NULL;
    remove_cgroup(trees, tree);
    *tree = (struct tree){.cgroup = -1};
    return NULL;
}

static bool kill_each(struct trees *trees)
{
    bool dead = true;
    for (int i = 0; i < TREES_MAX; i++)
        if (trees->slots[i].used && !tree_kill(&trees->slots[i]))
            dead = false;
    return dead;
}

static void kill_shepherds(struct trees *trees)
{
    for (int i = 0; i < TREES_MAX; i++) {
        struct tree *tree = &trees->slots[i];
        if (!tree->used || tree->shepherd <= 0)
            continue;
        kill(tree->shepherd, SIGKILL);
        waitpid(tree->shepherd, NULL, 0);
        tree->shepherd = 0;
    }
}

void trees_kill_all(struct trees *trees)
{
    struct fault fault;
    trees_continue(trees);
    if (trees->cgroup >= 0 && put_number(trees->cgroup, "cgroup.kill", 1, &fault) != OK)
        fprintf(stderr, "bulkhead-agent: %s\n", fault.detail);
    for (int i = 0; i < KILL_ALL_ROUNDS && !kill_each(trees); i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    kill_shepherds(trees);
    trees_kill_strays(trees);
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ; /* what is left are zombies of these trees */
    for (int i = 0; i < TREES_MAX; i++)
        if (trees->slots[i].used)
            tree_free(trees, &trees->slots[i]);
}

int trees_stop(struct trees *trees)
{
    struct fault fault;
    uint64_t frozen = 0;
    struct processes_left left = {0};
    pid_t all[TREES_MAX];
    size_t count = shepherds(all, trees);
    int running = 0;
    if (trees->cgroup >= 0) {
        if (put_number(trees->cgroup, "cgroup.freeze", 1, &fault) != OK
            || !text_file_number(&frozen, trees->cgroup, "cgroup.events", "frozen "))
            return -1;
        return frozen ? 0 : 1;
    }
    for (size_t i = 0; i < count; i++) {
        if (!processes_signal(&left, all[i], SIGSTOP, NULL, 0))
            return -1;
        running += left.running;
    }
    return running;
}

void trees_continue(struct trees *trees)
{
    struct fault fault;
    struct processes_left left;
    pid_t all[TREES_MAX];
    size_t count = shepherds(all, trees);
    if (trees->cgroup >= 0 && put_number(trees->cgroup, "cgroup.freeze", 0, &fault) != OK)
        fprintf(stderr, "bulkhead-agent: %s\n", fault.detail);
    for (size_t i = 0; i < count; i++)
        (void)processes_signal(&left, all[i], SIGCONT, NULL, 0);
}
