#define _GNU_SOURCE
#include "jail/verify.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <time.h>

enum { PROC_FILE_MAX = 8192 };

static const char *const capability_fields[JAIL_CAP_SETS] = {"CapInh", "CapPrm", "CapEff",
                                                             "CapBnd", "CapAmb"};

/* One file of the child's /proc, whole; TOO_LARGE rather than a part of it. */
static status read_proc(struct span *ret, uint8_t storage[PROC_FILE_MAX], int proc,
                        const char *name, struct fault *fault)
{
    _cleanup_close_ int file = openat(proc, name, O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    ssize_t got = file < 0 ? -1 : 1;
    while (got > 0 && length < PROC_FILE_MAX) {
        got = read(file, storage + length, PROC_FILE_MAX - length);
        length += got > 0 ? (size_t)got : 0;
    }
    if (got < 0)
        return FAIL(errno == ESRCH || errno == ENOENT ? CLOSED : INTERNAL, fault,
                    "jail: /proc/PID/%s: %s", name, strerror(errno));
    if (got > 0)
        return FAIL(TOO_LARGE, fault, "jail: /proc/PID/%s: more than %d bytes", name,
                    PROC_FILE_MAX);
    *ret = (struct span){storage, length};
    return OK;
}

/* Cuts the next line off the front, without its newline; false at the end. */
static bool next_line(struct span *ret, struct span *text)
{
    if (text->length == 0)
        return false;
    size_t length = 0;
    while (length < text->length && text->data[length] != '\n')
        length++;
    size_t taken = length < text->length ? length + 1 : length;
    *ret = (struct span){text->data, length};
    *text = (struct span){text->data + taken, text->length - taken};
    return true;
}

static void skip_blanks(struct span *text)
{
    while (text->length && (*text->data == ' ' || *text->data == '\t')) {
        text->data++;
        text->length--;
    }
}

/* The next number of the line, in base 10 or 16; false where there is none. */
static bool next_number(uint64_t *ret, struct span *line, unsigned base)
{
    static const char digits[] = "0123456789abcdef";
    skip_blanks(line);
    uint64_t value = 0;
    size_t used = 0;
    for (; used < line->length && used < 20; used++) {
        unsigned digit = 0;
        while (digit < base && digits[digit] != (char)line->data[used])
            digit++;
        if (digit == base)
            break;
        value = value * base + digit;
    }
    *line = (struct span){line->data + used, line->length - used};
    *ret = value;
    return used > 0;
}

/* The rest of the line "name:" of a status file. */
static status find_field(struct span *ret, struct span text, const char *name, struct fault *fault)
{
    struct span line, wanted = span_of_text(name);
    while (next_line(&line, &text))
        if (span_starts_with(line, wanted) && line.length > wanted.length
            && line.data[wanted.length] == ':') {
            *ret = (struct span){line.data + wanted.length + 1, line.length - wanted.length - 1};
            return OK;
        }
    return FAIL(INTERNAL, fault, "jail: /proc/PID/status has no %s", name);
}

static status read_number(uint64_t *ret, struct span text, const char *name, unsigned base,
                          struct fault *fault)
{
    struct span line;
    TRY(find_field(&line, text, name, fault));
    if (!next_number(ret, &line, base))
        return FAIL(INTERNAL, fault, "jail: /proc/PID/status: %s is no number", name);
    return OK;
}

static status read_small(uint32_t *ret, struct span text, const char *name, struct fault *fault)
{
    uint64_t value;
    TRY(read_number(&value, text, name, 10, fault));
    *ret = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
    return OK;
}

static status read_ids(uint32_t ret[4], struct span text, const char *name, struct fault *fault)
{
    struct span line;
    TRY(find_field(&line, text, name, fault));
    for (int i = 0; i < 4; i++) {
        uint64_t id;
        if (!next_number(&id, &line, 10) || id > UINT32_MAX)
            return FAIL(INTERNAL, fault, "jail: /proc/PID/status: %s is not four ids", name);
        ret[i] = (uint32_t)id;
    }
    return OK;
}

static status read_status(struct jail_report *report, int proc, struct fault *fault)
{
    uint8_t storage[PROC_FILE_MAX];
    struct span text, groups;
    uint64_t ignored;
    TRY(read_proc(&text, storage, proc, "status", fault));
    TRY(read_ids(report->uids, text, "Uid", fault));
    TRY(read_ids(report->gids, text, "Gid", fault));
    TRY(find_field(&groups, text, "Groups", fault));
    while (next_number(&ignored, &groups, 10))
        report->groups++;
    TRY(read_small(&report->threads, text, "Threads", fault));
    TRY(read_small(&report->no_new_privs, text, "NoNewPrivs", fault));
    TRY(read_small(&report->seccomp_mode, text, "Seccomp", fault));
    TRY(read_small(&report->seccomp_filters, text, "Seccomp_filters", fault));
    for (int i = 0; i < JAIL_CAP_SETS; i++)
        TRY(read_number(&report->capabilities[i], text, capability_fields[i], 16, fault));
    return OK;
}

static status read_mounts(struct jail_report *report, int proc, struct fault *fault)
{
    uint8_t storage[PROC_FILE_MAX];
    struct span text, line;
    TRY(read_proc(&text, storage, proc, "mountinfo", fault));
    while (next_line(&line, &text))
        report->mounts++;
    return OK;
}

/* The v2 line of /proc/PID/cgroup: "0::/path". */
static status read_cgroup(struct jail_report *report, int proc, struct fault *fault)
{
    uint8_t storage[PROC_FILE_MAX];
    struct span text, line;
    TRY(read_proc(&text, storage, proc, "cgroup", fault));
    while (next_line(&line, &text))
        if (span_starts_with(line, SPAN("0::"))
            && span_to_text(report->cgroup, sizeof report->cgroup,
                            (struct span){line.data + 3, line.length - 3}))
            return OK;
    return FAIL(INTERNAL, fault, "jail: /proc/PID/cgroup has no v2 line of at most %zu bytes",
                sizeof report->cgroup);
}

static status read_namespaces(struct jail_report *report, int proc, struct fault *fault)
{
    for (int i = 0; i < JAIL_NAMESPACES; i++) {
        char path[32];
        struct stat info;
        snprintf(path, sizeof path, "ns/%s", jail_namespace_names[i]);
        if (fstatat(proc, path, &info, 0))
            return FAIL(errno == ESRCH || errno == ENOENT ? CLOSED : INTERNAL, fault,
                        "jail: /proc/PID/%s: %s", path, strerror(errno));
        report->namespaces[i] = info.st_ino;
    }
    return OK;
}

/* The files in /proc of an undumpable process belong to root, of the host or of its namespace. */
static status read_dumpable(struct jail_report *report, int proc, struct fault *fault)
{
    struct stat file;
    if (fstatat(proc, "status", &file, 0))
        return FAIL(CLOSED, fault, "jail: /proc/PID/status: %s", strerror(errno));
    report->dumpable = file.st_uid == report->uids[1];
    return OK;
}

#define REFUSE(fault, ...) FAIL(FORBIDDEN_POLICY, fault, "jail: " __VA_ARGS__)

static status check_ids(const struct jail_report *report, const struct jail_expectation *expected,
                        struct fault *fault)
{
    for (int i = 0; i < 4; i++) {
        if (report->uids[i] != expected->uid)
            return REFUSE(fault, "uid %u, expected %u", report->uids[i], expected->uid);
        if (report->gids[i] != expected->gid)
            return REFUSE(fault, "gid %u, expected %u", report->gids[i], expected->gid);
    }
    if (report->groups && !expected->groups_kept)
        return REFUSE(fault, "%u supplementary groups, expected none", report->groups);
    return OK;
}

static status check_thread(const struct jail_report *report, struct fault *fault)
{
    for (int i = 0; i < JAIL_CAP_SETS; i++)
        if (report->capabilities[i])
            return REFUSE(fault, "%s is %016" PRIx64 ", expected 0", capability_fields[i],
                          report->capabilities[i]);
    if (report->no_new_privs != 1)
        return REFUSE(fault, "no_new_privs is %u, expected 1", report->no_new_privs);
    if (report->seccomp_mode != 2)
        return REFUSE(fault, "seccomp mode is %u, expected 2 (filter)", report->seccomp_mode);
    if (report->seccomp_filters < 2)
        return REFUSE(fault, "%u seccomp filters, expected both stages", report->seccomp_filters);
    return OK;
}

static status check_task(const struct jail_expectation *expected, int tasks, const char *name,
                         struct fault *fault)
{
    struct jail_report thread = {0};
    _cleanup_close_ int task = openat(tasks, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
    TRY(read_status(&thread, task, fault));
    TRY(check_ids(&thread, expected, fault));
    return check_thread(&thread, fault);
}

/* Each is as bound as the first: ids, capabilities, filters. */
static status check_threads(const struct jail_report *report, const struct jail_child *child,
                            const struct jail_expectation *expected, struct fault *fault)
{
    uint32_t wanted = expected->threads ? expected->threads : 1, seen = 0;
    uint32_t most = wanted + expected->spare_threads;
    if (report->threads < wanted || report->threads > most)
        return REFUSE(fault, "%u threads, expected %u", report->threads, wanted);
    if (most == 1)
        return OK;
    int tasks = openat(child->proc, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = tasks < 0 ? NULL : fdopendir(tasks);
    if (!entries) {
        cleanup_close(&tasks);
        return FAIL(CLOSED, fault, "jail: /proc/PID/task: %s", strerror(errno));
    }
    status code = OK;
    const struct dirent *entry;
    while (code == OK && (entry = readdir(entries)))
        if (entry->d_name[0] != '.') {
            code = check_task(expected, tasks, entry->d_name, fault);
            seen++;
        }
    closedir(entries);
    if (code == OK && (seen < wanted || seen > most))
        return REFUSE(fault, "%u threads, expected %u", seen, wanted);
    return code;
}

static status check_runner(const struct jail_report *report, struct fault *fault)
{
    if (report->no_new_privs != 1)
        return REFUSE(fault, "no_new_privs is %u, expected 1", report->no_new_privs);
    if (report->threads != 1)
        return REFUSE(fault, "%u threads, expected 1", report->threads);
    return OK;
}

static status check_powers(const struct jail_report *report, struct fault *fault)
{
    TRY(check_thread(report, fault));
    if (report->dumpable)
        return REFUSE(fault, "the process is dumpable");
    if (report->landlock_abi < 1)
        return REFUSE(fault, "Landlock is not in force");
    return OK;
}

static status check_namespaces(const struct jail_report *report, const struct jail_child *child,
                               struct fault *fault)
{
    for (int i = 0; i < JAIL_NAMESPACES; i++) {
        char path[32];
        struct stat own;
        snprintf(path, sizeof path, "/proc/self/ns/%s", jail_namespace_names[i]);
        if (stat(path, &own))
            return FAIL(INTERNAL, fault, "jail: %s: %s", path, strerror(errno));
        if (report->namespaces[i] == own.st_ino)
            return REFUSE(fault, "the %s namespace is the supervisor's", jail_namespace_names[i]);
        if (report->namespaces[i] != child->namespaces[i])
            return REFUSE(fault, "the %s namespace is not the one made for it",
                          jail_namespace_names[i]);
    }
    return OK;
}

static status check_root(const struct jail_report *report, const struct jail_child *child,
                         struct fault *fault)
{
    static const char *const links[] = {"root", "cwd"};
    for (int i = 0; i < 2; i++) {
        struct stat info;
        if (fstatat(child->proc, links[i], &info, 0))
            return FAIL(errno == ESRCH || errno == ENOENT ? CLOSED : INTERNAL, fault,
                        "jail: /proc/PID/%s: %s", links[i], strerror(errno));
        if (info.st_dev != child->root_device || info.st_ino != child->root_inode)
            return REFUSE(fault, "%s is not the empty root", links[i]);
    }
    if (report->mounts != 1)
        return REFUSE(fault, "%u mounts in sight, expected its root only", report->mounts);
    return OK;
}

/* "inside outside 1", the outside as seen from our own namespace. */
static status check_map(const struct jail_child *child, const char *name, uint32_t id,
                        struct fault *fault)
{
    uint8_t storage[PROC_FILE_MAX];
    struct span text, line, rest;
    uint64_t inside, outside, count;
    TRY(read_proc(&text, storage, child->proc, name, fault));
    if (!next_line(&line, &text) || !next_number(&inside, &line, 10)
        || !next_number(&outside, &line, 10) || !next_number(&count, &line, 10)
        || next_line(&rest, &text))
        return REFUSE(fault, "%s is not one line of three numbers", name);
    if (inside != JAIL_ID || outside != id || count != 1)
        return REFUSE(fault, "%s is %" PRIu64 " %" PRIu64 " %" PRIu64 ", expected %u %u 1", name,
                      inside, outside, count, JAIL_ID, id);
    return OK;
}

static status check_setgroups(const struct jail_child *child, struct fault *fault)
{
    uint8_t storage[PROC_FILE_MAX];
    struct span text;
    TRY(read_proc(&text, storage, child->proc, "setgroups", fault));
    if (!span_is(text, "deny\n"))
        return REFUSE(fault, "setgroups is not denied");
    return OK;
}

/* Soft and hard, in "Max core file size        0                    0   bytes": no core is as small
 * as a byte, and a limit of 1 keeps the host's handler away as well (src/runner/profile.c). */
static status check_core(const struct jail_child *child, struct fault *fault)
{
    uint8_t storage[PROC_FILE_MAX];
    struct span text, line, name = SPAN("Max core file size");
    TRY(read_proc(&text, storage, child->proc, "limits", fault));
    while (next_line(&line, &text)) {
        uint64_t soft = 2, hard = 2;
        if (!span_starts_with(line, name))
            continue;
        struct span rest = {line.data + name.length, line.length - name.length};
        if (next_number(&soft, &rest, 10) && next_number(&hard, &rest, 10) && soft <= 1
            && hard <= 1)
            return OK;
    }
    return REFUSE(fault, "core dumps are not limited to nothing");
}

static status check_cgroup(const struct jail_report *report,
                           const struct jail_expectation *expected, struct fault *fault)
{
    if (expected->cgroup && expected->cgroup[0] == '/'
        && !span_is(span_of_text(report->cgroup), expected->cgroup))
        return REFUSE(fault, "cgroup is %s, expected %s", report->cgroup, expected->cgroup);
    return OK;
}

static status gather(struct jail_report *report, const struct jail_child *child,
                     struct fault *fault)
{
    TRY(read_status(report, child->proc, fault));
    TRY(read_namespaces(report, child->proc, fault));
    TRY(read_mounts(report, child->proc, fault));
    TRY(read_cgroup(report, child->proc, fault));
    return read_dumpable(report, child->proc, fault);
}

static status check_all(struct jail_report *report, const struct jail_child *child,
                        const struct jail_expectation *expected, struct fault *fault)
{
    TRY(check_ids(report, expected, fault));
    TRY(check_map(child, "uid_map", expected->uid, fault));
    TRY(check_map(child, "gid_map", expected->gid, fault));
    TRY(check_setgroups(child, fault));
    TRY(check_namespaces(report, child, fault));
    if (report->role == JAIL_RUNNER) {
        TRY(check_runner(report, fault));
    } else {
        TRY(check_powers(report, fault));
        TRY(check_threads(report, child, expected, fault));
        TRY(check_root(report, child, fault));
    }
    TRY(check_core(child, fault));
    return check_cgroup(report, expected, fault);
}

static status check_alive(const struct jail_child *child, struct fault *fault)
{
    struct pollfd process = {.fd = child->pidfd, .events = POLLIN};
    if (poll(&process, 1, 0) != 0)
        return FAIL(CLOSED, fault, "jail: pid %d has ended", (int)child->pid);
    return OK;
}

status jail_verify(struct jail_report *ret, const struct jail_child *child,
                   const struct jail_expectation *expected, struct fault *fault)
{
    struct jail_report report = {.role = child->role, .pid = child->pid, .private_kib = -1,
                                 .landlock_abi = expected->landlock_abi};
    status code = gather(&report, child, fault);
    if (code == OK)
        code = check_all(&report, child, expected, fault);
    if (code == OK)
        code = check_alive(child, fault);
    if (expected->cgroup && expected->cgroup[0] != '/')
        snprintf(report.cgroup, sizeof report.cgroup, "%s", expected->cgroup);
    *ret = report;
    return code;
}

/* A walk over every page takes some 50 ms a GiB: not over those that a guest chose to touch. */
static status count_pages(struct jail_report *report, const struct jail_child *child,
                          struct fault *fault)
{
    uint8_t storage[PROC_FILE_MAX];
    struct span text;
    uint64_t anonymous;
    TRY(read_proc(&text, storage, child->proc, "status", fault));
    TRY(read_number(&anonymous, text, "RssAnon", 10, fault));
    report->private_kib = (int64_t)anonymous;
    return OK;
}

static status walk_pages(struct jail_report *report, const struct jail_child *child,
                         struct fault *fault)
{
    uint8_t storage[PROC_FILE_MAX];
    struct span text;
    uint64_t clean, dirty;
    TRY(read_proc(&text, storage, child->proc, "smaps_rollup", fault));
    TRY(read_number(&clean, text, "Private_Clean", 10, fault));
    TRY(read_number(&dirty, text, "Private_Dirty", 10, fault));
    report->private_kib = (int64_t)(clean + dirty);
    return OK;
}

status jail_measure(struct jail_report *report, const struct jail_child *child,
                    struct fault *fault)
{
    struct jail_report measured = *report;
    TRY(child->role == JAIL_VMM ? count_pages(&measured, child, fault)
                                : walk_pages(&measured, child, fault));
    TRY(check_alive(child, fault));
    report->private_kib = measured.private_kib;
    return OK;
}

void jail_read_cpu(struct jail_used *used, const struct jail_child *child)
{
    struct timespec cpu;
    clockid_t clock;
    if (clock_getcpuclockid(child->pid, &clock) == 0 && clock_gettime(clock, &cpu) == 0)
        used->cpu_us = (uint64_t)cpu.tv_sec * 1000000 + (uint64_t)cpu.tv_nsec / 1000;
}

void jail_read_used(struct jail_used *used, const struct jail_child *child)
{
    uint8_t storage[PROC_FILE_MAX];
    struct fault ignored;
    struct span text;
    uint64_t peak;
    jail_read_cpu(used, child);
    if (read_proc(&text, storage, child->proc, "status", &ignored) == OK
        && read_number(&peak, text, "VmHWM", 10, &ignored) == OK) /* gone once it has ended */
        used->peak_kib = peak;
}

static void put_capabilities(struct json_writer *writer, const struct jail_report *report)
{
    static const char *const names[JAIL_CAP_SETS] = {"inheritable", "permitted", "effective",
                                                     "bounding", "ambient"};
    json_open_object(writer, "capabilities");
    for (int i = 0; i < JAIL_CAP_SETS; i++) {
        char text[20];
        snprintf(text, sizeof text, "%016" PRIx64, report->capabilities[i]);
        json_put_text(writer, names[i], text);
    }
    json_close_object(writer);
}

void jail_report_json(struct json_writer *writer, const char *name,
                      const struct jail_report *report)
{
    char landlock[32];
    snprintf(landlock, sizeof landlock, "ABI %u (probed)", report->landlock_abi);
    json_open_object(writer, name);
    json_put_text(writer, "role", jail_role_name(report->role));
    json_put_integer(writer, "pid", report->pid);
    json_put_integer(writer, "uid", report->uids[1]);
    json_put_integer(writer, "gid", report->gids[1]);
    json_put_integer(writer, "groups", report->groups);
    json_open_object(writer, "namespaces");
    for (int i = 0; i < JAIL_NAMESPACES; i++)
        json_put_integer(writer, jail_namespace_names[i], (int64_t)report->namespaces[i]);
    json_close_object(writer);
    put_capabilities(writer, report);
    json_put_bool(writer, "no_new_privs", report->no_new_privs == 1);
    json_put_text(writer, "seccomp", report->seccomp_mode == 2 ? "filter" : "none");
    json_put_integer(writer, "seccomp_filters", report->seccomp_filters);
    json_put_text(writer, "landlock", report->landlock_abi ? landlock : "none");
    json_put_integer(writer, "landlock_abi", report->landlock_abi);
    json_put_integer(writer, "mounts", report->mounts);
    json_put_bool(writer, "dumpable", report->dumpable);
    json_put_text(writer, "cgroup", report->cgroup);
    if (report->private_kib >= 0)
        json_put_integer(writer, "private_kib", report->private_kib);
    json_close_object(writer);
}
