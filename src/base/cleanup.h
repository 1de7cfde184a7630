/* cleanup.h: ownership in the types. A variable marked _cleanup_close_ or _cleanup_free_ gives up
 * what it owns at the end of its scope unless it was taken first. */
#pragma once

#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static inline void cleanup_free(void *pointer)
{
    void **owner = pointer;
    free(*owner);
    *owner = NULL;
}

#define _cleanup_close_ __attribute__((cleanup(cleanup_close)))
#define _cleanup_free_ __attribute__((cleanup(cleanup_free)))

static inline int take_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

#define take_ptr(pointer)                      \
    (__extension__({                           \
        __typeof__(pointer) *take_at = &(pointer); \
        __typeof__(pointer) taken = *take_at;  \
        *take_at = NULL;                       \
        taken;                                 \
    }))
