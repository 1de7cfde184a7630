/* image.c: `bulkhead image`: what sandboxes boot. A recipe beside the executable makes the files in
 * a folder without a name that counts; only a whole image is ever renamed into place, so an
 * interrupted build leaves the old one, or none. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hex.h"
#include "base/limits.h"
#include "cli/cli.h"
#include "cli/image_kernel.h"
#include "crypt/crypt.h"
#include "wire/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINES_MAX = KIB(64), MANIFEST_MAX = KIB(64), KERNEL_MAX = MIB(512), PATH_ROOM = PATH_MAX };

static const char *const files[] = {"vmlinux", "initramfs", "root.erofs", "scratch.img"};
static const char building[] = ".build-";

struct image_build {
    char name[IMAGE_NAME_TEXT];
    char images[PATH_ROOM], packages[PATH_ROOM], recipe[PATH_ROOM], agent[PATH_ROOM];
    char staging[PATH_ROOM]; /* images/.build-XXXXXX, with work/ and out/ */
};

/* ---- paths ---- */

static status join(char path[PATH_ROOM], const char *folder, const char *name, struct fault *fault)
{
    int length = snprintf(path, PATH_ROOM, "%s/%s", folder, name);
    if (length < 0 || length >= PATH_ROOM)
        return FAIL(BAD_REQUEST, fault, "a path is too long");
    return OK;
}

static status make_folder(const char *path, mode_t mode, struct fault *fault)
{
    if (mkdir(path, mode) && errno != EEXIST)
        return FAIL(INTERNAL, fault, "%.100s: %s", path, strerror(errno));
    return OK;
}

static status own_folder(char path[PATH_ROOM], struct fault *fault)
{
    ssize_t length = readlink("/proc/self/exe", path, PATH_ROOM - 1);
    if (length <= 0)
        return FAIL(UNAVAILABLE, fault, "/proc is needed");
    path[length] = '\0';
    char *slash = strrchr(path, '/');
    *slash = '\0';
    return OK;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    return remove(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Nobody else builds here now, so what bears that name was left by a build that was cut short. */
static void remove_stale(const char *images)
{
    DIR *folder = opendir(images);
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));) {
        char path[PATH_ROOM];
        struct fault fault;
        if (span_starts_with(span_of_text(entry->d_name), SPAN(".build-"))
            && join(path, images, entry->d_name, &fault) == OK)
            remove_tree(path);
    }
    closedir(folder);
}

static status find_places(struct image_build *build, const struct cli *cli, const char *packages,
                          struct fault *fault)
{
    char own[PATH_ROOM], recipes[PATH_ROOM], script[PATH_ROOM];
    struct stat info;
    TRY(own_folder(own, fault));
    TRY(join(recipes, own, "images", fault));
    TRY(join(build->recipe, recipes, build->name, fault));
    TRY(join(script, build->recipe, "recipe.sh", fault));
    if (stat(script, &info))
        return FAIL(NOT_FOUND, fault, "image %s: there is no recipe for it", build->name);
    TRY(join(build->agent, own, "bulkhead-agent", fault));
    if (access(build->agent, X_OK))
        return FAIL(UNAVAILABLE, fault, "%.100s: %s", build->agent, strerror(errno));
    char data[PATH_ROOM];
    TRY(make_folder(cli->data, 0755, fault));
    if (!realpath(cli->data, data))
        return FAIL(INTERNAL, fault, "%.100s: %s", cli->data, strerror(errno));
    TRY(join(build->images, data, "images", fault));
    TRY(make_folder(build->images, 0755, fault));
    if (packages && !realpath(packages, build->packages))
        return FAIL(NOT_FOUND, fault, "%.100s: %s", packages, strerror(errno));
    if (packages)
        return OK;
    TRY(join(build->packages, build->images, ".packages", fault));
    return make_folder(build->packages, 0755, fault);
}

/* ---- the recipe ---- */

static void put_variable(char **environment, int *count, const char *name, const char *value)
{
    if (asprintf(&environment[*count], "%s=%s", name, value) < 0)
        abort();
    ++*count;
}

_Noreturn static void run_recipe(const struct image_build *build, int output)
{
    char *environment[8] = {0}, script[PATH_ROOM], work[PATH_ROOM], out[PATH_ROOM];
    int count = 0;
    struct fault fault;
    if (join(script, build->recipe, "recipe.sh", &fault) == OK
        && join(work, build->staging, "work", &fault) == OK
        && join(out, build->staging, "out", &fault) == OK && dup2(output, STDOUT_FILENO) >= 0) {
        put_variable(environment, &count, "HERE", build->recipe);
        put_variable(environment, &count, "PACKAGES", build->packages);
        put_variable(environment, &count, "AGENT", build->agent);
        put_variable(environment, &count, "WORK", work);
        put_variable(environment, &count, "OUT", out);
        execve("/bin/sh", (char *[]){(char *)(uintptr_t)"sh", script, NULL}, environment);
    }
    _exit(127);
}

static status call_recipe(struct buffer *lines, const struct image_build *build,
                          struct fault *fault)
{
    int ends[2], state;
    if (pipe2(ends, O_CLOEXEC))
        return FAIL(INTERNAL, fault, "pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child == 0)
        run_recipe(build, ends[1]);
    close(ends[1]);
    status got = INTERNAL;
    if (child < 0)
        got = FAIL(INTERNAL, fault, "fork: %s", strerror(errno));
    else
        got = file_read(lines, ends[0], "recipe", fault);
    close(ends[0]);
    while (child > 0 && waitpid(child, &state, 0) < 0)
        if (errno != EINTR)
            return FAIL(INTERNAL, fault, "recipe: %s", strerror(errno));
    TRY(got);
    if (!WIFEXITED(state) || WEXITSTATUS(state) != 0)
        return FAIL(UNAVAILABLE, fault, "image %s: its recipe failed", build->name);
    return OK;
}

/* ---- what it made ---- */

static status open_made(int *ret, const struct image_build *build, const char *name, int flags,
                        struct fault *fault)
{
    char out[PATH_ROOM], path[PATH_ROOM];
    TRY(join(out, build->staging, "out", fault));
    TRY(join(path, out, name, fault));
    *ret = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (*ret < 0)
        return FAIL(UNAVAILABLE, fault, "image %s: %s: %s", build->name, name, strerror(errno));
    return OK;
}

static status map_file(struct span *ret, int fd, const char *name, struct fault *fault)
{
    struct stat info;
    if (fstat(fd, &info) || !S_ISREG(info.st_mode) || info.st_size <= 0)
        return FAIL(UNAVAILABLE, fault, "%.100s: no file, or empty", name);
    void *at = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED)
        return FAIL(INTERNAL, fault, "%.100s: %s", name, strerror(errno));
    *ret = (struct span){at, (size_t)info.st_size};
    return OK;
}

static status cut_kernel(const struct image_build *build, struct fault *fault)
{
    _cleanup_close_ int fd = -1;
    _cleanup_buffer_ struct buffer cut = buffer_of(KERNEL_MAX);
    struct span whole;
    TRY(open_made(&fd, build, files[0], O_RDWR, fault));
    TRY(map_file(&whole, fd, files[0], fault));
    status done = kernel_cut(&cut, whole, fault);
    munmap((void *)(uintptr_t)whole.data, whole.length);
    TRY(done);
    if (lseek(fd, 0, SEEK_SET) || ftruncate(fd, 0))
        return FAIL(INTERNAL, fault, "vmlinux: %s", strerror(errno));
    return file_write(fd, buffer_span(&cut), "vmlinux", fault);
}

static status put_file(struct json_writer *writer, int fd, const char *name, struct fault *fault)
{
    uint8_t digest[HASH_BYTES];
    char text[2 * HASH_BYTES + 1];
    struct span bytes;
    TRY(map_file(&bytes, fd, name, fault));
    hash(digest, bytes);
    munmap((void *)(uintptr_t)bytes.data, bytes.length);
    hex_encode(text, SPAN_OF(digest));
    json_put_text(writer, "file", name);
    json_put_integer(writer, "bytes", (int64_t)bytes.length);
    json_put_text(writer, "sha256", text);
    return OK;
}

static struct span next_word(struct span *line)
{
    size_t end = span_find(*line, ' ');
    struct span word = {line->data, end};
    size_t skip = end < line->length ? end + 1 : end;
    *line = (struct span){line->data + skip, line->length - skip};
    return word;
}

/* A line of the recipe: "package NAME VERSION FILE". */
static status put_package(struct json_writer *writer, const struct image_build *build,
                          struct span line, struct fault *fault)
{
    char file[NAME_MAX + 1], path[PATH_ROOM];
    struct span name = next_word(&line), version = next_word(&line);
    if (!span_to_text(file, sizeof file, line) || !*file || strchr(file, '/'))
        return FAIL(INTERNAL, fault, "recipe: a package without a file");
    TRY(join(path, build->packages, file, fault));
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return FAIL(INTERNAL, fault, "%.100s: %s", path, strerror(errno));
    json_open_object(writer, NULL);
    json_put_string(writer, "package", name);
    json_put_string(writer, "version", version);
    TRY(put_file(writer, fd, file, fault));
    json_close_object(writer);
    return OK;
}

static status put_inputs(struct json_writer *writer, const struct image_build *build,
                         struct span lines, struct fault *fault)
{
    struct span kernel = {0};
    json_open_array(writer, "packages");
    while (lines.length) {
        size_t end = span_find(lines, '\n');
        struct span line = {lines.data, end}, kind = next_word(&line);
        if (span_is(kind, "package"))
            TRY(put_package(writer, build, line, fault));
        else if (span_is(kind, "kernel"))
            kernel = line;
        size_t skip = end < lines.length ? end + 1 : end;
        lines = (struct span){lines.data + skip, lines.length - skip};
    }
    json_close_array(writer);
    json_put_string(writer, "kernel", kernel);
    _cleanup_close_ int agent = open(build->agent, O_RDONLY | O_CLOEXEC);
    if (agent < 0)
        return FAIL(INTERNAL, fault, "%.100s: %s", build->agent, strerror(errno));
    json_open_object(writer, "agent");
    TRY(put_file(writer, agent, "bulkhead-agent", fault));
    json_close_object(writer);
    return OK;
}

static status write_manifest(const struct image_build *build, struct span lines,
                             struct fault *fault)
{
    _cleanup_buffer_ struct buffer text = buffer_of(MANIFEST_MAX);
    _cleanup_close_ int manifest = -1;
    struct json_writer writer = json_writer_on(&text);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "name", build->name);
    json_put_text(&writer, "bulkhead", BULKHEAD_VERSION);
    TRY(put_inputs(&writer, build, lines, fault));
    json_open_array(&writer, "files");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        _cleanup_close_ int fd = -1;
        TRY(open_made(&fd, build, files[i], O_RDONLY, fault));
        json_open_object(&writer, NULL);
        TRY(put_file(&writer, fd, files[i], fault));
        json_close_object(&writer);
        if (fsync(fd))
            return FAIL(INTERNAL, fault, "%s: %s", files[i], strerror(errno));
    }
    json_close_array(&writer);
    json_close_object(&writer);
    buffer_put_u8(&text, '\n');
    TRY(buffer_check(&text, "manifest", fault));
    TRY(open_made(&manifest, build, "manifest.json", O_WRONLY | O_CREAT | O_EXCL, fault));
    TRY(file_write(manifest, buffer_span(&text), "manifest", fault));
    if (fsync(manifest))
        return FAIL(INTERNAL, fault, "manifest: %s", strerror(errno));
    return OK;
}

/* The old image is at the staging place afterwards, or nothing. */
static status put_in_place(const struct image_build *build, int images, struct fault *fault)
{
    char out[PATH_ROOM];
    TRY(join(out, build->staging, "out", fault));
    if (renameat2(AT_FDCWD, out, images, build->name, RENAME_NOREPLACE)
        && (errno != EEXIST
            || renameat2(AT_FDCWD, out, images, build->name, RENAME_EXCHANGE)))
        return FAIL(INTERNAL, fault, "image %s: %s", build->name, strerror(errno));
    if (fsync(images))
        return FAIL(INTERNAL, fault, "images: %s", strerror(errno));
    return OK;
}

static status make_staging(struct image_build *build, struct fault *fault)
{
    char path[PATH_ROOM], name[32];
    snprintf(name, sizeof name, "%sXXXXXX", building);
    TRY(join(build->staging, build->images, name, fault));
    if (!mkdtemp(build->staging))
        return FAIL(INTERNAL, fault, "%.100s: %s", build->staging, strerror(errno));
    TRY(join(path, build->staging, "work", fault));
    TRY(make_folder(path, 0755, fault));
    TRY(join(path, build->staging, "out", fault));
    return make_folder(path, 0755, fault);
}

static status build_locked(struct image_build *build, int images, struct fault *fault)
{
    _cleanup_buffer_ struct buffer lines = buffer_of(LINES_MAX);
    remove_stale(build->images);
    TRY(make_staging(build, fault));
    status made = call_recipe(&lines, build, fault);
    if (made == OK)
        made = cut_kernel(build, fault);
    if (made == OK)
        made = write_manifest(build, buffer_span(&lines), fault);
    if (made == OK)
        made = put_in_place(build, images, fault);
    remove_tree(build->staging);
    return made;
}

static int build_image(struct cli *cli)
{
    struct image_build build = {0};
    struct fault fault;
    const char *packages = cli_option(cli, "--packages");
    const char *name = cli_word(cli);
    if (!name || cli_end(cli) != EXIT_DONE)
        return cli_usage("image build: NAME");
    if (!sandbox_is_image_name(span_of_text(name))
        || !span_to_text(build.name, sizeof build.name, span_of_text(name)))
        return cli_refused("image: a name is 1 to 32 of a-z, 0-9 and -");
    umask(022);
    if (find_places(&build, cli, packages, &fault) != OK)
        return cli_refused(fault.detail);
    _cleanup_close_ int images = open(build.images, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (images < 0 || flock(images, LOCK_EX | LOCK_NB))
        return cli_refused(errno == EWOULDBLOCK ? "another build is under way" : strerror(errno));
    if (build_locked(&build, images, &fault) != OK)
        return cli_refused(fault.detail);
    printf("%s/%s\n", build.images, build.name);
    return EXIT_DONE;
}

/* ---- list ---- */

static int by_name(const void *left, const void *right)
{
    return strcmp(left, right);
}

enum { IMAGES_MAX = 1024 };

static uint32_t image_names(char (*names)[IMAGE_NAME_TEXT], const char *images)
{
    uint32_t count = 0;
    DIR *folder = opendir(images);
    for (struct dirent *entry; folder && count < IMAGES_MAX && (entry = readdir(folder));)
        if (sandbox_is_image_name(span_of_text(entry->d_name))
            && span_to_text(names[count], IMAGE_NAME_TEXT, span_of_text(entry->d_name)))
            count++;
    if (folder)
        closedir(folder);
    qsort(names, count, IMAGE_NAME_TEXT, by_name);
    return count;
}

static status read_manifest(struct buffer *out, const char *images, const char *name,
                            struct fault *fault)
{
    char folder[PATH_ROOM], path[PATH_ROOM];
    TRY(join(folder, images, name, fault));
    TRY(join(path, folder, "manifest.json", fault));
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return FAIL(NOT_FOUND, fault, "%.100s: %s", path, strerror(errno));
    return file_read(out, fd, "manifest", fault);
}

static void print_image(const char *name, const struct json *manifest)
{
    int64_t bytes = 0;
    const struct json *made = json_member(manifest, "files");
    for (uint32_t i = 0; made && i < made->count; i++)
        bytes += cli_number(&made->items[i], "bytes");
    printf("%-32s %8lld KiB  ", name, (long long)bytes / 1024);
    cli_put_text(cli_member(manifest, "kernel"));
    putchar('\n');
}

static int list_images(struct cli *cli)
{
    static char names[IMAGES_MAX][IMAGE_NAME_TEXT];
    char images[PATH_ROOM];
    struct fault fault;
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    if (join(images, cli->data, "images", &fault) != OK)
        return cli_refused(fault.detail);
    uint32_t count = image_names(names, images);
    int code = EXIT_DONE, shown = 0;
    if (cli->json)
        printf("{\"data\":[");
    for (uint32_t i = 0; i < count; i++) {
        _cleanup_buffer_ struct buffer text = buffer_of(MANIFEST_MAX);
        struct arena arena = arena_of(MIB(1));
        struct json manifest;
        if (read_manifest(&text, images, names[i], &fault) != OK
            || json_parse(&manifest, &arena, buffer_span(&text), &fault) != OK)
            code = cli_refused(fault.detail);
        else if (cli->json)
            printf("%s%.*s", shown++ ? "," : "", SPAN_ARG(manifest.source));
        else
            print_image(names[i], &manifest);
        arena_free(&arena);
    }
    if (cli->json)
        printf("]}\n");
    return code;
}

int command_image(struct cli *cli)
{
    const char *verb = cli_word(cli);
    if (verb && strcmp(verb, "build") == 0)
        return build_image(cli);
    if (verb && strcmp(verb, "list") == 0)
        return list_images(cli);
    return cli_usage("image: build NAME or list");
}
