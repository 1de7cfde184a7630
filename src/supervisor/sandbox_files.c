/* sandbox_files.c: the files of an image, opened as strictly as code is that every guest runs, and
 * the file that takes what a guest writes. */
#define _GNU_SOURCE
#include "supervisor/sandboxes.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

enum { KERNEL_ROOM_MIB = 32 };
static const char kernel_name[] = "vmlinux", initramfs_name[] = "initramfs";

/* No link anywhere on the way, and nothing outside. */
static int open_beneath(int directory, const char *name, uint64_t flags)
{
    struct open_how how = {.flags = flags | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
                                    | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, directory, name, &how, sizeof how);
}

static bool is_safe(const struct stat *info, const struct supervisor *supervisor)
{
    bool ours = info->st_uid == 0 || info->st_uid == geteuid()
             || info->st_uid == supervisor->data_owner;
    return ours && !(info->st_mode & (S_IWGRP | S_IWOTH));
}

static status open_directory(int *ret, const struct supervisor *supervisor, int parent,
                             const char *name, struct fault *fault)
{
    struct stat info;
    _cleanup_close_ int fd = open_beneath(parent, name, O_RDONLY | O_DIRECTORY);
    if (fd < 0 && errno == ENOENT)
        return FAIL(NOT_FOUND, fault, "image %s: there is none; `bulkhead image build` makes it",
                    name);
    if (fd < 0 || fstat(fd, &info))
        return FAIL(FORBIDDEN_POLICY, fault, "image %s: %s", name, strerror(errno));
    if (!is_safe(&info, supervisor))
        return FAIL(FORBIDDEN_POLICY, fault, "image %s: others than its owner may change it", name);
    *ret = take_fd(&fd);
    return OK;
}

static status open_file(int *ret, const struct supervisor *supervisor, int image,
                        const char *name, struct fault *fault)
{
    struct stat info;
    _cleanup_close_ int fd = open_beneath(image, name, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &info))
        return FAIL(FORBIDDEN_POLICY, fault, "image: %s: %s", name, strerror(errno));
    if (!S_ISREG(info.st_mode) || info.st_size == 0)
        return FAIL(FORBIDDEN_POLICY, fault, "image: %s: not a file, or empty", name);
    if (!is_safe(&info, supervisor))
        return FAIL(FORBIDDEN_POLICY, fault, "image: %s: others than its owner may change it",
                    name);
    *ret = take_fd(&fd);
    return OK;
}

static status open_image(int *ret, const struct supervisor *supervisor, const char *name,
                         struct fault *fault)
{
    struct stat info;
    if (!sandbox_is_image_name(span_of_text(name)))
        return FAIL(BAD_FIELD, fault, "image: not a name of one");
    if (fstat(supervisor->sandboxes.images, &info) || !is_safe(&info, supervisor))
        return FAIL(FORBIDDEN_POLICY, fault, "images: others than their owner may change them");
    return open_directory(ret, supervisor, supervisor->sandboxes.images, name, fault);
}

void image_close(struct image_files *files)
{
    cleanup_close(&files->kernel);
    cleanup_close(&files->initramfs);
    cleanup_close(&files->root);
    cleanup_close(&files->scratch);
}

status image_open(struct image_files *ret, const struct supervisor *supervisor, const char *name,
                  struct fault *fault)
{
    struct image_files files = {-1, -1, -1, -1};
    _cleanup_close_ int image = -1;
    TRY(open_image(&image, supervisor, name, fault));
    const struct {
        const char *name;
        int *fd;
    } each[] = {{kernel_name, &files.kernel}, {initramfs_name, &files.initramfs},
                {"root.erofs", &files.root}, {"scratch.img", &files.scratch}};
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        status opened = open_file(each[i].fd, supervisor, image, each[i].name, fault);
        if (opened != OK) {
            image_close(&files);
            return opened;
        }
    }
    *ret = files;
    return OK;
}

/* A stock kernel keeps about its file's size again for what it needs at start, and dies of less
 * before it can say why. (Debian's, of 29 MiB: came up with 80 MiB, never with 64.) */
status image_fits(const struct image_files *files, uint32_t memory_mib, struct fault *fault)
{
    struct stat kernel;
    if (fstat(files->kernel, &kernel))
        return FAIL(INTERNAL, fault, "image: %s: %s", kernel_name, strerror(errno));
    uint64_t needed_mib = ((uint64_t)kernel.st_size >> 19) + KERNEL_ROOM_MIB;
    if (memory_mib < needed_mib)
        return FAIL(BAD_FIELD, fault, "memory: a microVM of this image needs %" PRIu64 " MiB at "
                    "least, not %u", needed_mib, memory_mib);
    return OK;
}

/* What boots or does not are these two. */
status image_identity(char text[IMAGE_IDENTITY_TEXT], const struct supervisor *supervisor,
                      const char *name, struct fault *fault)
{
    struct stat kernel, initramfs;
    struct image_files files;
    TRY(image_open(&files, supervisor, name, fault));
    bool known = fstat(files.kernel, &kernel) == 0 && fstat(files.initramfs, &initramfs) == 0;
    image_close(&files);
    if (!known)
        return FAIL(INTERNAL, fault, "image %s: %s", name, strerror(errno));
    snprintf(text, IMAGE_IDENTITY_TEXT, "%ju.%jd.%jd.%09ld %ju.%jd.%jd.%09ld",
             (uintmax_t)kernel.st_ino, (intmax_t)kernel.st_size, (intmax_t)kernel.st_mtim.tv_sec,
             kernel.st_mtim.tv_nsec, (uintmax_t)initramfs.st_ino, (intmax_t)initramfs.st_size,
             (intmax_t)initramfs.st_mtim.tv_sec, initramfs.st_mtim.tv_nsec);
    return OK;
}

status image_tree(int *ret, const struct supervisor *supervisor, const char *name,
                  struct fault *fault)
{
    _cleanup_close_ int image = -1, tree = -1;
    TRY(open_image(&image, supervisor, name, fault));
    TRY(open_directory(&tree, supervisor, image, "root", fault));
    return jail_detached(ret, tree, false, fault);
}

/* ---- the overlay ---- */

static const char overlay_name[] = "overlay"; /* for the instant in which it has one */

/* Where the file system knows no nameless files. */
static int make_and_unlink(int directory)
{
    int fd = openat(directory, overlay_name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                    0600);
    if (fd >= 0 && unlinkat(directory, overlay_name, 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* What it has of its disk is not free any more; the rest it may still take. */
static uint64_t may_take(const struct sandbox *sandbox)
{
    struct stat overlay;
    uint64_t all = (uint64_t)sandbox->spec.disk_mib << 20, used = 0;
    if (sandbox->overlay >= 0 && fstat(sandbox->overlay, &overlay) == 0)
        used = (uint64_t)overlay.st_blocks * 512;
    return all > used ? all - used : 0;
}

/* Overlays are sparse: what all of them may grow to must have a place now, or guests within their
 * limits could fill the silos' file system. A file system that names no size is not asked. */
static status check_room(const struct supervisor *supervisor, struct fault *fault)
{
    struct statvfs room;
    uint64_t promised = 0;
    for (const struct sandbox *at = supervisor->sandboxes.list; at; at = at->next)
        if (at->monitor && at->monitor->kind == CHILD_VMM)
            promised += may_take(at);
    if (fstatvfs(supervisor->sandboxes.directory, &room) || room.f_blocks == 0)
        return OK;
    uint64_t free_bytes = (uint64_t)room.f_bavail * room.f_frsize;
    if (promised > free_bytes)
        return FAIL(OUT_OF_SPACE, fault, "disk: %" PRIu64 " MiB would be promised to guests, "
                    "%" PRIu64 " MiB are free", promised >> 20, free_bytes >> 20);
    return OK;
}

status overlay_make(int *ret, const struct supervisor *supervisor, uid_t owner,
                    struct fault *fault)
{
    int directory = supervisor->sandboxes.directory;
    TRY(check_room(supervisor, fault));
    _cleanup_close_ int fd = openat(directory, ".", O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
        fd = make_and_unlink(directory);
    if (fd < 0 || (!supervisor->shared_id && fchown(fd, owner, owner)))
        return FAIL(errno == ENOSPC || errno == EDQUOT ? OUT_OF_SPACE : INTERNAL, fault,
                    "overlay: %s", strerror(errno));
    *ret = take_fd(&fd);
    return OK;
}

static status make_directory(int *ret, const struct supervisor *supervisor, const char *name,
                             mode_t mode, uid_t owner, struct fault *fault)
{
    int data = supervisor->silos.data;
    bool made = mkdirat(data, name, mode) == 0;
    if (!made && errno != EEXIST)
        return FAIL(INTERNAL, fault, "%s: mkdir: %s", name, strerror(errno));
    _cleanup_close_ int fd = open_beneath(data, name, O_RDONLY | O_DIRECTORY);
    if (fd < 0 || (made && !supervisor->shared_id && fchown(fd, owner, (gid_t)-1))
        || (made && fchmod(fd, mode)))
        return FAIL(INTERNAL, fault, "%s: %s", name, strerror(errno));
    *ret = take_fd(&fd);
    return OK;
}

status images_open(int *ret_images, int *ret_sandboxes, const struct supervisor *supervisor,
                   struct fault *fault)
{
    _cleanup_close_ int images = -1, sandboxes = -1;
    TRY(make_directory(&images, supervisor, "images", 0755, supervisor->data_owner, fault));
    TRY(make_directory(&sandboxes, supervisor, "sandboxes", 0700, geteuid(), fault));
    if (unlinkat(sandboxes, overlay_name, 0) && errno != ENOENT) /* killed in that instant */
        return FAIL(INTERNAL, fault, "sandboxes: %s", strerror(errno));
    *ret_images = take_fd(&images);
    *ret_sandboxes = take_fd(&sandboxes);
    return OK;
}
