/* path.h: the files of the guest, by absolute paths that the host names. Links on the way are
 * followed, as the guest's root sees them; the last name only by read, append, list and watch. */
#pragma once

#include "agent/agent.h"

enum { PATH_NAME_SIZE = 256 };

/* Opens an absolute path as the guest has it; -1 and errno. The one way into the file system. */
int path_openat(const char *path, int flags);

/* A field of a payload as a path: absolute, without NUL, shorter than AGENT_PATH_MAX. */
MUST_CHECK status path_get(char ret[AGENT_PATH_MAX], struct cursor *cursor, const char *what,
                           struct fault *fault);
/* A whole payload: field path, u8 recursive. */
MUST_CHECK status path_get_recursive(char ret[AGENT_PATH_MAX], bool *ret_recursive,
                                     struct span payload, struct fault *fault);
/* The directory that holds it, and its name there: neither empty nor "." nor "..". */
MUST_CHECK status path_parent(int *ret, char name[PATH_NAME_SIZE], const char *path,
                              struct fault *fault);
