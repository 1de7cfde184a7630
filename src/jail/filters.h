/* filters.h: the form of the sealed memfd that carries a role's compiled seccomp programs from
 * jail_filters to jail_blank: a head, then the instructions of each stage, one after the other. */
#pragma once

#include "jail/jail.h"

#include <linux/filter.h>

enum { FILTER_STAGES = 3, FILTER_INSTRUCTIONS_MAX = 1024 };

struct filters_head {
    uint32_t role;
    uint32_t instructions[FILTER_STAGES]; /* 1..FILTER_INSTRUCTIONS_MAX; 0: the role has none */
};
