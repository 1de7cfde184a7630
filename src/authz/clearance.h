/* clearance.h: the one order of confidentiality: a caller's clearance, an item's classification. */
#pragma once

#include "base/span.h"
#include "base/status.h"

enum clearance {
    CLEARANCE_PUBLIC,
    CLEARANCE_INTERNAL, /* the default on both sides */
    CLEARANCE_CONFIDENTIAL,
    CLEARANCE_RESTRICTED,
    CLEARANCE_COUNT
};

const char *clearance_name(enum clearance clearance); /* "public" */

/* May a caller of this clearance see an item of that classification? Values out of range: no. */
bool clearance_covers(enum clearance clearance, enum clearance classification);

/* Exactly one of the four names; BAD_FIELD otherwise. name is the field's. */
MUST_CHECK status clearance_read(enum clearance *ret, struct span text, const char *name,
                                 struct fault *fault);
