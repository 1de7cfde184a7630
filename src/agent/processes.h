/* processes.h: who descends from whom, by /proc. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

struct processes_left {
    int alive;   /* neither zombies nor dead */
    int running; /* of these: neither stopped nor unable to run before they are */
};

/* Sends number (0: nothing) to each living descendant of root, but not to except nor what
 * descends from them. False: /proc cannot be read. */
_Bool processes_signal(struct processes_left *ret, pid_t root, int number, const pid_t *except,
                       size_t except_count);
