#define _GNU_SOURCE
#include "jail/cgroup.h"

#include "base/cleanup.h"
#include "base/span.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

static const char mount_point[] = "/sys/fs/cgroup";
static const char controllers[] = "+memory +cpu +pids";

static status write_file(int directory, const char *name, const char *content,
                         struct fault *fault)
{
    struct span bytes = span_of_text(content);
    _cleanup_close_ int file = openat(directory, name, O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, bytes.data, bytes.length) != (ssize_t)bytes.length)
        return FAIL(UNAVAILABLE, fault, "%s: %s", name, strerror(errno));
    return OK;
}

static status open_hierarchy(int *ret, struct fault *fault)
{
    struct statfs info;
    _cleanup_close_ int mount = open(mount_point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (mount < 0 || fstatfs(mount, &info))
        return FAIL(UNAVAILABLE, fault, "%s: %s", mount_point, strerror(errno));
    if (info.f_type != CGROUP2_SUPER_MAGIC)
        return FAIL(UNAVAILABLE, fault, "%s is not cgroup v2", mount_point);
    *ret = take_fd(&mount);
    return OK;
}

/* The kernel answers ENOENT to a controller that this hierarchy has not. */
static status make_parent(int *ret, int mount, const char *name, struct fault *fault)
{
    TRY(write_file(mount, "cgroup.subtree_control", controllers, fault));
    if (mkdirat(mount, name, 0755) && errno != EEXIST)
        return FAIL(UNAVAILABLE, fault, "mkdir: %s", strerror(errno));
    _cleanup_close_ int directory = openat(mount, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return FAIL(UNAVAILABLE, fault, "%s: %s", name, strerror(errno));
    TRY(write_file(directory, "cgroup.subtree_control", controllers, fault));
    *ret = take_fd(&directory);
    return OK;
}

void jail_cgroups_open(struct jail_cgroups *ret)
{
    struct fault fault;
    *ret = (struct jail_cgroups){.directory = -1, .mount = -1};
    snprintf(ret->path, sizeof ret->path, "/bulkhead-%d", (int)getpid());
    if (open_hierarchy(&ret->mount, &fault) == OK
        && make_parent(&ret->directory, ret->mount, ret->path + 1, &fault) == OK)
        return;
    snprintf(ret->reason, sizeof ret->reason, "none: %.100s", fault.detail);
    if (ret->mount >= 0)
        unlinkat(ret->mount, ret->path + 1, AT_REMOVEDIR);
    cleanup_close(&ret->mount);
}

void jail_cgroups_close(struct jail_cgroups *cgroups)
{
    cleanup_close(&cgroups->directory);
    if (cgroups->mount >= 0)
        unlinkat(cgroups->mount, cgroups->path + 1, AT_REMOVEDIR);
    cleanup_close(&cgroups->mount);
}

static status set_limits(int group, const struct jail_limits *limits, struct fault *fault)
{
    char line[48];
    if (limits->memory_max_bytes) {
        snprintf(line, sizeof line, "%" PRIu64, limits->memory_max_bytes);
        TRY(write_file(group, "memory.max", line, fault));
        if (faccessat(group, "memory.swap.max", W_OK, 0) == 0) /* kernels without swap have none */
            TRY(write_file(group, "memory.swap.max", "0", fault));
    }
    if (limits->cpu_percent) {
        snprintf(line, sizeof line, "%" PRIu64 " 100000", (uint64_t)limits->cpu_percent * 1000);
        TRY(write_file(group, "cpu.max", line, fault));
    }
    if (limits->cpu_weight) {
        snprintf(line, sizeof line, "%u", limits->cpu_weight);
        TRY(write_file(group, "cpu.weight", line, fault));
    }
    if (limits->pids_max) {
        snprintf(line, sizeof line, "%u", limits->pids_max);
        TRY(write_file(group, "pids.max", line, fault));
    }
    return OK;
}

static bool is_name(const char *name)
{
    struct span text = span_of_text(name);
    for (size_t i = 0; i < text.length; i++)
        if (!(name[i] >= 'a' && name[i] <= 'z') && !(name[i] >= '0' && name[i] <= '9')
            && name[i] != '-')
            return false;
    return text.length > 0 && text.length <= 48;
}

status jail_cgroup_make(int *ret, const struct jail_cgroups *cgroups, const char *name,
                        const struct jail_limits *limits, struct fault *fault)
{
    if (!is_name(name))
        return FAIL(BAD_FIELD, fault, "cgroup: a name is 1..48 of [a-z0-9-]");
    if (cgroups->directory < 0) {
        *ret = -1;
        return OK;
    }
    if (mkdirat(cgroups->directory, name, 0755) && errno != EEXIST)
        return FAIL(UNAVAILABLE, fault, "cgroup %s: %s", name, strerror(errno));
    _cleanup_close_ int group =
        openat(cgroups->directory, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (group < 0)
        return FAIL(UNAVAILABLE, fault, "cgroup %s: %s", name, strerror(errno));
    status code = set_limits(group, limits, fault);
    if (code != OK) {
        unlinkat(cgroups->directory, name, AT_REMOVEDIR);
        return code;
    }
    *ret = take_fd(&group);
    return OK;
}

static status open_group(int *ret, const struct jail_cgroups *cgroups, const char *name,
                         struct fault *fault)
{
    if (cgroups->directory < 0 || !is_name(name))
        return FAIL(UNAVAILABLE, fault, "cgroup %.48s: %.100s", name, cgroups->reason);
    *ret = openat(cgroups->directory, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*ret < 0)
        return FAIL(UNAVAILABLE, fault, "cgroup %s: %s", name, strerror(errno));
    return OK;
}

status jail_cgroup_limit(const struct jail_cgroups *cgroups, const char *name,
                         const struct jail_limits *limits, struct fault *fault)
{
    _cleanup_close_ int group = -1;
    if (cgroups->directory < 0)
        return OK;
    TRY(open_group(&group, cgroups, name, fault));
    return set_limits(group, limits, fault);
}

static bool number_at(uint64_t *ret, struct span text)
{
    uint64_t value = 0;
    size_t digits = 0;
    for (; digits < text.length && text.data[digits] >= '0' && text.data[digits] <= '9'; digits++)
        if (__builtin_mul_overflow(value, 10, &value)
            || __builtin_add_overflow(value, text.data[digits] - '0', &value))
            return false;
    *ret = value;
    return digits > 0;
}

static bool number_of(uint64_t *ret, struct span text, struct span key)
{
    while (text.length > 0) {
        size_t line = span_find(text, '\n');
        if (key.length == 0)
            return number_at(ret, text);
        if (line > key.length && span_starts_with(text, key) && text.data[key.length] == ' ')
            return number_at(ret, (struct span){text.data + key.length + 1, line - key.length - 1});
        size_t taken = line < text.length ? line + 1 : line;
        text = (struct span){text.data + taken, text.length - taken};
    }
    return false;
}

status jail_cgroup_number(uint64_t *ret, const struct jail_cgroups *cgroups, const char *name,
                          const char *file, const char *key, struct fault *fault)
{
    uint8_t content[1024];
    _cleanup_close_ int group = -1, open_file = -1;
    TRY(open_group(&group, cgroups, name, fault));
    open_file = openat(group, file, O_RDONLY | O_CLOEXEC);
    ssize_t got = open_file < 0 ? -1 : read(open_file, content, sizeof content);
    if (got < 0)
        return FAIL(UNAVAILABLE, fault, "cgroup %s: %s: %s", name, file, strerror(errno));
    if (!number_of(ret, (struct span){content, (size_t)got}, span_of_text(key)))
        return FAIL(UNAVAILABLE, fault, "cgroup %s: %s: no number", name, file);
    return OK;
}

void jail_cgroup_remove(const struct jail_cgroups *cgroups, const char *name)
{
    if (cgroups->directory >= 0 && is_name(name))
        unlinkat(cgroups->directory, name, AT_REMOVEDIR);
}

void jail_cgroup_text(char *text, size_t size, const struct jail_cgroups *cgroups,
                      const char *name)
{
    if (cgroups->directory < 0)
        snprintf(text, size, "%s", cgroups->reason);
    else
        snprintf(text, size, "%s/%s", cgroups->path, name);
}
