#define _GNU_SOURCE
#include "agent/agent.h"
#include "agent/text.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

/* "cpu  user nice system idle iowait irq softirq steal ...", in ticks: all but idle and iowait */
static uint64_t cpu_of_all(void)
{
    uint8_t storage[4096];
    struct fault fault;
    struct span line, word;
    struct buffer text = buffer_over(storage, sizeof storage);
    if (text_file_read(&text, AT_FDCWD, "/proc/stat", &fault) != OK && text.length == 0)
        return 0;
    struct span rest = buffer_span(&text);
    if (!text_next(&line, &rest, '\n'))
        return 0;
    uint64_t ticks = 0, number;
    for (int field = 0; text_next(&word, &line, ' ');) {
        if (!text_number(&number, word))
            continue; /* the name, and the second blank behind it */
        if (field < 8 && field != 3 && field != 4)
            ticks += number;
        field++;
    }
    long rate = sysconf(_SC_CLK_TCK);
    return rate > 0 ? ticks * 1000000 / (uint64_t)rate : 0;
}

/* In a container the machine's memory is not the sandbox's: its cgroup says what is. */
static void bound_by_cgroup(struct agent_metrics *metrics)
{
    uint64_t most, used;
    if (!text_file_number(&most, AT_FDCWD, "/sys/fs/cgroup/memory.max", "")
        || !text_file_number(&used, AT_FDCWD, "/sys/fs/cgroup/memory.current", "")
        || most / 1024 >= metrics->memory_kib)
        return;
    metrics->memory_kib = most / 1024;
    metrics->available_kib = used < most ? (most - used) / 1024 : 0;
}

status metrics_tell(struct agent *agent, uint32_t id, struct span payload, struct fault *fault)
{
    struct agent_metrics metrics = {0};
    struct timespec since;
    struct statvfs disk;
    struct sysinfo system;
    uint8_t storage[64];
    struct buffer result = buffer_over(storage, sizeof storage);
    if (payload.length)
        return FAIL(BAD_REQUEST, fault, "metrics: nothing is to be said");
    if (clock_gettime(CLOCK_BOOTTIME, &since) || statvfs("/", &disk) || sysinfo(&system))
        return errno_status(errno, "metrics", fault);
    metrics.uptime_us = (uint64_t)since.tv_sec * 1000000 + (uint64_t)since.tv_nsec / 1000;
    metrics.cpu_us = cpu_of_all();
    metrics.memory_kib = system.totalram / 1024 * system.mem_unit;
    metrics.available_kib = system.freeram / 1024 * system.mem_unit;
    (void)!text_file_number(&metrics.available_kib, AT_FDCWD, "/proc/meminfo", "MemAvailable:");
    bound_by_cgroup(&metrics);
    metrics.disk_kib = disk.f_blocks * disk.f_frsize / 1024;
    metrics.free_kib = disk.f_bavail * disk.f_frsize / 1024;
    metrics.processes = system.procs;
    agent_metrics_put(&result, &metrics);
    agent_answer(agent, id, OK, NULL, buffer_span(&result));
    return OK;
}

status clock_set(struct agent *agent, uint32_t id, struct span payload, struct fault *fault)
{
    struct cursor cursor = cursor_over(payload);
    uint64_t wall_us;
    TRY(cursor_u64(&wall_us, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (wall_us > INT64_MAX)
        return FAIL(BAD_FIELD, fault, "clock: since 1970");
    if (!agent->guest)
        return FAIL(FORBIDDEN_POLICY, fault, "clock: a container has the machine's");
    const struct timespec now = {.tv_sec = (time_t)(wall_us / 1000000),
                                 .tv_nsec = (long)(wall_us % 1000000) * 1000};
    if (clock_settime(CLOCK_REALTIME, &now))
        return errno_status(errno, "clock", fault);
    agent_answer(agent, id, OK, NULL, (struct span){0});
    return OK;
}
