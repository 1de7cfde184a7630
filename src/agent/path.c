#define _GNU_SOURCE
#include "agent/path.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

status path_get(char ret[AGENT_PATH_MAX], struct cursor *cursor, const char *what,
                struct fault *fault)
{
    TRY(cursor_text(ret, AGENT_PATH_MAX, cursor, what, fault));
    if (ret[0] != '/')
        return FAIL(BAD_FIELD, fault, "%s: an absolute path is wanted", what);
    return OK;
}

status path_get_recursive(char ret[AGENT_PATH_MAX], bool *ret_recursive, struct span payload,
                          struct fault *fault)
{
    uint8_t recursive;
    struct cursor cursor = cursor_over(payload);
    TRY(path_get(ret, &cursor, "path", fault));
    TRY(cursor_u8(&recursive, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (recursive > 1)
        return FAIL(BAD_FIELD, fault, "recursive: 0 or 1");
    *ret_recursive = recursive;
    return OK;
}

status path_parent(int *ret, char name[PATH_NAME_SIZE], const char *path, struct fault *fault)
{
    char directory[AGENT_PATH_MAX];
    struct span whole = span_of_text(path);
    while (whole.length > 1 && whole.data[whole.length - 1] == '/')
        whole.length--;
    size_t slash = whole.length;
    while (whole.data[slash - 1] != '/')
        slash--;
    struct span last = {whole.data + slash, whole.length - slash};
    if (last.length == 0 || span_is(last, ".") || span_is(last, "..")
        || !span_to_text(name, PATH_NAME_SIZE, last)
        || !span_to_text(directory, sizeof directory, (struct span){whole.data, slash}))
        return FAIL(BAD_FIELD, fault, "path: its last name is none that could be there");
    int fd = path_openat(directory, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return errno_status(errno, "directory", fault);
    *ret = fd;
    return OK;
}
