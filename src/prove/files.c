/* files.c: beyond the own silo by the calls that a cell may make. */
#define _GNU_SOURCE
#include "prove/hostile.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define IN_ROOT "the private root is an empty directory"
#define IN_MOUNT "the silo is a mount of its own: \"..\" ends at its root"

enum { PATH_ROOM = 2048 };

static struct got opened(int fd)
{
    if (fd < 0)
        return got_errno(errno);
    close(fd);
    return got_survived("it opened");
}

static struct got open_absolute(struct hostile *self, const struct attempt *attempt)
{
    (void)self;
    return opened(openat(AT_FDCWD, attempt->path, attempt->flags | O_CLOEXEC, 0600));
}

static struct got open_in_silo(struct hostile *self, const struct attempt *attempt)
{
    return opened(openat(self->silo, attempt->path, attempt->flags | O_CLOEXEC, 0600));
}

static struct got open_in_data(struct hostile *self, const struct attempt *attempt)
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s%s", self->target.data, attempt->path);
    return opened(openat(AT_FDCWD, path, attempt->flags | O_CLOEXEC));
}

static struct got open_keys(struct hostile *self, const struct attempt *attempt)
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s%s", self->target.keys, attempt->path);
    return opened(openat(AT_FDCWD, path, attempt->flags | O_CLOEXEC));
}

static struct got open_neighbours_silo(struct hostile *self, const struct attempt *attempt)
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/silos/%s%s", self->target.data, self->target.neighbour_text,
             attempt->path);
    return opened(openat(AT_FDCWD, path, attempt->flags | O_CLOEXEC));
}

static struct got climb_to_neighbour(struct hostile *self, const struct attempt *attempt)
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "../%s%s", self->target.neighbour_text, attempt->path);
    return opened(openat(self->silo, path, attempt->flags | O_CLOEXEC));
}

static struct got open_memory(int64_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%lld/mem", (long long)pid);
    return opened(openat(AT_FDCWD, path, O_RDWR | O_CLOEXEC));
}

static struct got open_neighbours_memory(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    return open_memory(self->target.neighbour_pid);
}

static struct got open_kms_memory(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    return open_memory(self->target.kms_pid);
}

static struct got open_in_channel(struct hostile *self, const struct attempt *attempt)
{
    (void)self;
    return opened(openat(3, attempt->path, O_RDONLY | O_CLOEXEC));
}

static struct got climb_stays(struct hostile *self, const struct attempt *attempt)
{
    struct stat silo, above;
    if (fstatat(self->silo, "", &silo, AT_EMPTY_PATH)
        || fstatat(self->silo, attempt->path, &above, 0))
        return got_errno(errno);
    if (silo.st_dev != above.st_dev || silo.st_ino != above.st_ino)
        return got_survived("another directory, inode %llu", (unsigned long long)above.st_ino);
    return got_bounded("it is the silo itself");
}

static struct got climb_from_root(struct hostile *self, const struct attempt *attempt)
{
    (void)self;
    _cleanup_close_ int root = openat(AT_FDCWD, "/", O_PATH | O_CLOEXEC);
    if (root < 0)
        return got_survived("\"/\" as O_PATH: %s", strerrorname_np(errno));
    return opened(openat(root, attempt->path, O_RDONLY | O_CLOEXEC));
}

static struct got look_at_data(struct hostile *self, const struct attempt *attempt)
{
    struct stat info;
    (void)attempt;
    if (fstatat(AT_FDCWD, self->target.data, &info, 0))
        return got_errno(errno);
    return got_survived("it can be seen");
}

static struct got make_directory(struct hostile *self, const struct attempt *attempt)
{
    (void)self;
    if (mkdirat(AT_FDCWD, attempt->path, 0700))
        return got_errno(errno);
    return got_survived("it was made");
}

static int own_file(const struct hostile *self)
{
    return openat(self->silo, "prove-file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

static struct got move_out(struct hostile *self, const struct attempt *attempt)
{
    _cleanup_close_ int file = own_file(self);
    if (file < 0)
        return got_survived("no file to move: %s", strerrorname_np(errno));
    int moved = renameat2(self->silo, "prove-file", AT_FDCWD, attempt->path, 0);
    int error = errno;
    unlinkat(self->silo, "prove-file", 0);
    return moved ? got_errno(error) : got_survived("it was moved");
}

static struct got move_to_neighbour(struct hostile *self, const struct attempt *attempt)
{
    char path[PATH_ROOM];
    _cleanup_close_ int file = own_file(self);
    if (file < 0)
        return got_survived("no file to move: %s", strerrorname_np(errno));
    snprintf(path, sizeof path, "../%s%s", self->target.neighbour_text, attempt->path);
    int moved = renameat2(self->silo, "prove-file", self->silo, path, 0);
    int error = errno;
    unlinkat(self->silo, "prove-file", 0);
    return moved ? got_errno(error) : got_survived("it was moved");
}

static struct got remove_neighbour(struct hostile *self, const struct attempt *attempt)
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "../%s%s", self->target.neighbour_text, attempt->path);
    if (unlinkat(self->silo, path, attempt->flags))
        return got_errno(errno);
    return got_survived("it was removed");
}

static struct got execute_own(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    int file = openat(self->silo, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0700);
    if (file < 0)
        file = own_file(self);
    unlinkat(self->silo, "prove-file", 0);
    static const char program[] = "#!/bin/sh\n";
    if (file < 0 || write(file, program, sizeof program - 1) < 0)
        return got_survived("no file to execute: %s", strerrorname_np(errno));
    execveat(file, "", (char *const[]){NULL}, (char *const[]){NULL}, AT_EMPTY_PATH);
    return got_survived("the call was made");
}

static struct got map_own(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    _cleanup_close_ int file = own_file(self);
    unlinkat(self->silo, "prove-file", 0);
    syscall(SYS_mmap, NULL, 4096, 5 /* read, execute */, 2 /* private */, file, 0);
    return got_survived("the call was made");
}

static struct got follow_symlink(struct hostile *self, const struct attempt *attempt)
{
    return self->target.symlink ? open_in_silo(self, attempt)
                                : got_skipped("the symbolic link could not be planted");
}

static struct got open_device(struct hostile *self, const struct attempt *attempt)
{
    return self->target.device ? open_in_silo(self, attempt)
                               : got_skipped("the device could not be planted");
}

static struct got open_hard_link(struct hostile *self, const struct attempt *attempt)
{
    if (!self->target.hard_link)
        return got_skipped("all jails share one uid, or it could not be planted");
    return open_in_silo(self, attempt);
}

#define REFUSED(title, why, number, function, file, ...) \
    {.name = title, .wall = why, .expect = EXPECT_ERRNO, .value = number, .run = function, \
     .path = file, __VA_ARGS__}

static const struct attempt attempts[] = {
    REFUSED("open \"/\"", "Landlock", EACCES, open_absolute, "/"),
    REFUSED("open /etc/passwd", IN_ROOT, ENOENT, open_absolute, "/etc/passwd"),
    REFUSED("open /proc/self/root", IN_ROOT, ENOENT, open_absolute, "/proc/self/root/etc"),
    REFUSED("open /proc/1/root", IN_ROOT, ENOENT, open_absolute, "/proc/1/root"),
    REFUSED("open /sys/fs/cgroup", IN_ROOT, ENOENT, open_absolute, "/sys/fs/cgroup"),
    REFUSED("open /dev/mem", IN_ROOT, ENOENT, open_absolute, "/dev/mem", .flags = O_RDWR),
    REFUSED("open /proc/PID/mem of the neighbour", IN_ROOT, ENOENT, open_neighbours_memory, ""),
    REFUSED("open /proc/PID/mem of the kms", IN_ROOT, ENOENT, open_kms_memory, ""),
    REFUSED("open the data directory", IN_ROOT, ENOENT, open_in_data, ""),
    REFUSED("look at the data directory", IN_ROOT, ENOENT, look_at_data, ""),
    REFUSED("open admin.sock", IN_ROOT, ENOENT, open_in_data, "/run/admin.sock", .flags = O_PATH),
    REFUSED("open the registry", IN_ROOT, ENOENT, open_in_data, "/control/registry.db"),
    REFUSED("open the key store", IN_ROOT, ENOENT, open_keys, ""),
    REFUSED("open a key", IN_ROOT, ENOENT, open_keys, "/root.key"),
    REFUSED("open the neighbour's silo", IN_ROOT, ENOENT, open_neighbours_silo, ""),
    REFUSED("open the neighbour's database", IN_ROOT, ENOENT, open_neighbours_silo, "/silo.db"),
    REFUSED("write the neighbour's database", IN_ROOT, ENOENT, open_neighbours_silo, "/silo.db",
            .flags = O_RDWR),
    REFUSED("climb to the neighbour's silo", IN_MOUNT, ENOENT, climb_to_neighbour, ""),
    REFUSED("climb to the neighbour's database", IN_MOUNT, ENOENT, climb_to_neighbour,
            "/silo.db"),
    REFUSED("climb sixteen times and open /etc/passwd", IN_MOUNT, ENOENT, open_in_silo,
            "../../../../../../../../../../../../../../../../etc/passwd"),
    {.name = "climb above the silo", .wall = IN_MOUNT, .expect = EXPECT_BOUNDED,
     .run = climb_stays, .path = ".."},
    {.name = "climb above the silo, often", .wall = IN_MOUNT, .expect = EXPECT_BOUNDED,
     .run = climb_stays, .path = "../../../../.."},
    REFUSED("climb from \"/\" held as O_PATH", IN_ROOT, ENOENT, climb_from_root,
            "../../../../etc/passwd"),
    REFUSED("open beneath the supervisor's channel", "it is no directory", ENOTDIR,
            open_in_channel, "x"),
    REFUSED("create a file in \"/\"", "the private root is read-only", EROFS, open_absolute,
            "/prove", .flags = O_CREAT | O_RDWR),
    REFUSED("make a directory in \"/\"", "the private root is read-only", EROFS, make_directory,
            "/prove"),
    REFUSED("move a file out of the silo", "the silo is a mount of its own", EXDEV, move_out,
            "/prove"),
    REFUSED("move a file to the neighbour", IN_MOUNT, ENOENT, move_to_neighbour, "/planted"),
    REFUSED("remove the neighbour's database", IN_MOUNT, ENOENT, remove_neighbour, "/silo.db"),
    REFUSED("remove the neighbour's silo", IN_MOUNT, ENOENT, remove_neighbour, "",
            .flags = AT_REMOVEDIR),
    REFUSED("follow a symbolic link planted in the silo", "the mount follows no links", ELOOP,
            follow_symlink, "prove-symlink/passwd"),
    REFUSED("open a device planted in the silo", "the mount has no devices", EACCES, open_device,
            "prove-device", .flags = O_RDWR),
    REFUSED("open the neighbour's key by a hard link planted in the silo",
            "one uid a tenant", EACCES, open_hard_link, "prove-hard-link"),
    {.name = "execute a file of the own silo", .wall = "the seccomp list of cells",
     .expect = EXPECT_SIGSYS, .run = execute_own},
    {.name = "map a file of the own silo for execution", .wall = "the seccomp list of cells",
     .expect = EXPECT_SIGSYS, .run = map_own},
};

const struct battery battery_files = BATTERY("files", IN_ROOT, attempts);
