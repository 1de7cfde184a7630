#define _GNU_SOURCE
#include "runner/runner.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

enum {
    PROC_TEXT = 4096,
    SOCKETS_FREE = 128, SOCKET_KIB = 416, /* what one may hold that has asked for all there is */
    FILES_FREE = 256, FILE_KIB = 4,       /* of one process; most are the ends of pipes */
    FILE_BYTES = 1024,                    /* of the disk, without its bytes: inode and name */
};

struct sums {
    uint64_t kib, ticks, tasks;
};

static bool read_file(char text[PROC_TEXT], int proc, const char *pid, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "%s/%s", pid, name);
    _cleanup_close_ int file = openat(proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : read(file, text, PROC_TEXT - 1);
    if (got <= 0)
        return false;
    text[got] = '\0';
    return true;
}

/* The nth number of a line of numbers and words, from 0; 0 where there is none. */
static uint64_t nth_number(const char *text, unsigned n)
{
    for (; n > 0; n--) {
        while (*text && *text != ' ')
            text++;
        while (*text == ' ')
            text++;
    }
    uint64_t value = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (uint64_t)(*text - '0');
    return value;
}

/* Fields 14 to 17 of proc(5)'s stat, own and of reaped children; the name, the second field, may
 * have blanks and brackets in it: the last bracket ends it. */
static void add_ticks(struct sums *sums, const char *stat)
{
    const char *after = NULL;
    for (const char *at = stat; *at; at++)
        if (*at == ')')
            after = at;
    if (!after || after[1] != ' ')
        return;
    for (unsigned field = 11; field <= 14; field++)
        sums->ticks += nth_number(after + 2, field);
}

static uint64_t number_of(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    if (!at)
        return 0;
    for (at++; *at && (*at < '0' || *at > '9'); at++)
        continue;
    return nth_number(at, 0);
}

/* Is it the first process of a pid namespace below ours? "\nNSpid:\t3\t1\n" */
static bool is_init(const char *text)
{
    const char *at = strstr(text, "\nNSpid:");
    const char *end = at ? strchr(at + 1, '\n') : NULL;
    return end && end[-1] == '1' && end[-2] == '\t' && strncmp(at, "\nNSpid:\t1\n", 10) != 0;
}

static uint64_t beyond(uint64_t count, uint64_t free_ones, uint64_t each)
{
    return count > free_ones ? (count - free_ones) * each : 0;
}

/* What the kernel keeps for a process is no memory of its own: of that we see page tables, how many
 * files it has room for, and how many sockets there are in all; at the most that they can hold. */
static uint64_t kernel_kib(const char *about, int proc, const char *pid)
{
    char text[PROC_TEXT];
    uint64_t kib = number_of(about, "\nVmPTE:")
                 + beyond(number_of(about, "\nFDSize:"), FILES_FREE, FILE_KIB);
    if (is_init(about) && read_file(text, proc, pid, "net/sockstat"))
        kib += beyond(number_of(text, "sockets: used"), SOCKETS_FREE, SOCKET_KIB);
    return kib;
}

/* gVisor keeps its guest's memory in a file, of which no process need have much mapped. */
static int guest_memory = -1;

static void find_guest_memory(int proc, const char *pid)
{
    static const char name[] = "/memfd:runsc-memory";
    char target[sizeof name], path[64];
    snprintf(path, sizeof path, "%.16s/fd", pid);
    int folder = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = folder < 0 ? NULL : fdopendir(folder);
    if (!entries) {
        cleanup_close(&folder);
        return;
    }
    const struct dirent *entry;
    while (guest_memory < 0 && (entry = readdir(entries)))
        if (readlinkat(folder, entry->d_name, target, sizeof target) == (ssize_t)sizeof target
            && memcmp(target, name, sizeof name - 1) == 0)
            guest_memory = openat(folder, entry->d_name, O_PATH | O_CLOEXEC);
    closedir(entries);
}

static uint64_t guest_memory_kib(void)
{
    struct stat file;
    return guest_memory >= 0 && fstat(guest_memory, &file) == 0 ? (uint64_t)file.st_blocks / 2 : 0;
}

/* Pages that two processes have are counted twice: rather too much than too little. */
static void add_process(struct sums *sums, int proc, const char *pid)
{
    char text[PROC_TEXT];
    if (read_file(text, proc, pid, "stat"))
        add_ticks(sums, text);
    if (!read_file(text, proc, pid, "status"))
        return;
    sums->tasks += number_of(text, "\nThreads:");
    sums->kib += number_of(text, "\nRssAnon:") + number_of(text, "\nVmSwap:")
               + kernel_kib(text, proc, pid);
    if (guest_memory < 0) /* else it is counted whole */
        sums->kib += number_of(text, "\nRssShmem:");
}

void runner_look(struct runner_used *ret, enum sandbox_tier tier)
{
    struct sums sums = {0};
    struct statvfs tree;
    DIR *entries = opendir("/proc");
    if (!entries)
        return;
    const struct dirent *entry;
    while ((entry = readdir(entries)))
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9') {
            if (tier == SANDBOX_GVISOR && guest_memory < 0)
                find_guest_memory(dirfd(entries), entry->d_name);
            add_process(&sums, dirfd(entries), entry->d_name);
        }
    closedir(entries);
    sums.kib += guest_memory_kib();
    uint64_t disk = 0;
    if (statvfs(RUNNER_TREE, &tree) == 0)
        disk = (uint64_t)(tree.f_blocks - tree.f_bfree) * tree.f_frsize
             + (uint64_t)(tree.f_files - tree.f_ffree) * FILE_BYTES;
    *ret = (struct runner_used){
        .memory_bytes = sums.kib * 1024 + disk,
        .cpu_us = sums.ticks * (1000000 / (uint64_t)sysconf(_SC_CLK_TCK)),
        .tasks = sums.tasks};
}
