#define _GNU_SOURCE
#include "agent/path.h"

#include <fcntl.h>

/* In a file of its own: where the fuzzer opens files only below a directory of its own. */
int path_openat(const char *path, int flags)
{
    return open(path, flags | O_CLOEXEC | O_NOCTTY);
}
