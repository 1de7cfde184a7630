#define _GNU_SOURCE
#include "disk_faults.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int __real_openat64(int directory, const char *name, int flags, ...);
ssize_t __real_pread64(int fd, void *bytes, size_t length, off_t at);
ssize_t __real_pwrite64(int fd, const void *bytes, size_t length, off_t at);
int __real_fsync(int fd);
int __real_fdatasync(int fd);
int __real_renameat(int from, const char *name, int to, const char *new_name);
int __real_unlinkat(int directory, const char *name, int flags);

int __wrap_openat64(int directory, const char *name, int flags, ...);
ssize_t __wrap_pread64(int fd, void *bytes, size_t length, off_t at);
ssize_t __wrap_pwrite64(int fd, const void *bytes, size_t length, off_t at);
int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_renameat(int from, const char *name, int to, const char *new_name);
int __wrap_unlinkat(int directory, const char *name, int flags);

void (*disk_faults_on_fdatasync)(void);

static enum disk_faults_mode mode;
static unsigned calls, failing, fdatasyncs;
static char trace[8192];

void disk_faults_arm(enum disk_faults_mode new_mode, unsigned nth)
{
    mode = new_mode;
    failing = nth;
    calls = fdatasyncs = 0;
    trace[0] = '\0';
}

bool disk_faults_disarm(void)
{
    bool reached = mode != DISK_SOUND && calls >= failing;
    mode = DISK_SOUND;
    return reached;
}

unsigned disk_faults_fdatasyncs(void)
{
    return fdatasyncs;
}

const char *disk_faults_trace(void)
{
    return trace;
}

static bool fails(const char *call, const char *name)
{
    size_t used = strlen(trace);
    snprintf(trace + used, sizeof trace - used, "%s %s\n", call, name);
    calls++;
    bool failed = (mode == DISK_FAILS_ONCE && calls == failing)
               || (mode == DISK_DIES && calls >= failing);
    if (failed)
        errno = EIO;
    return failed;
}

int __wrap_openat64(int directory, const char *name, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t permissions = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return fails("openat", name) ? -1 : __real_openat64(directory, name, flags, permissions);
}

ssize_t __wrap_pread64(int fd, void *bytes, size_t length, off_t at)
{
    return fails("pread", "") ? -1 : __real_pread64(fd, bytes, length, at);
}

ssize_t __wrap_pwrite64(int fd, const void *bytes, size_t length, off_t at)
{
    bool died_before = mode == DISK_DIES && calls >= failing;
    if (!fails("pwrite", ""))
        return __real_pwrite64(fd, bytes, length, at);
    if (mode == DISK_DIES && !died_before)
        (void)!__real_pwrite64(fd, bytes, length / 2, at);
    errno = EIO;
    return -1;
}

int __wrap_fsync(int fd)
{
    return fails("fsync", "") ? -1 : __real_fsync(fd);
}

int __wrap_fdatasync(int fd)
{
    fdatasyncs++;
    if (fails("fdatasync", ""))
        return -1;
    if (disk_faults_on_fdatasync)
        disk_faults_on_fdatasync();
    return __real_fdatasync(fd);
}

int __wrap_renameat(int from, const char *name, int to, const char *new_name)
{
    return fails("rename to", new_name) ? -1 : __real_renameat(from, name, to, new_name);
}

int __wrap_unlinkat(int directory, const char *name, int flags)
{
    return fails("unlink", name) ? -1 : __real_unlinkat(directory, name, flags);
}
