#include "authz/clearance.h"

static const char *const names[CLEARANCE_COUNT] = {
    [CLEARANCE_PUBLIC] = "public",
    [CLEARANCE_INTERNAL] = "internal",
    [CLEARANCE_CONFIDENTIAL] = "confidential",
    [CLEARANCE_RESTRICTED] = "restricted",
};

const char *clearance_name(enum clearance clearance)
{
    return (unsigned)clearance < CLEARANCE_COUNT ? names[clearance] : "unknown";
}

bool clearance_covers(enum clearance clearance, enum clearance classification)
{
    return (unsigned)clearance < CLEARANCE_COUNT && (unsigned)classification <= (unsigned)clearance;
}

status clearance_read(enum clearance *ret, struct span text, const char *name, struct fault *fault)
{
    for (unsigned i = 0; i < CLEARANCE_COUNT; i++) {
        if (span_is(text, names[i])) {
            *ret = (enum clearance)i;
            return OK;
        }
    }
    return FAIL(BAD_FIELD, fault, "%s: one of public, internal, confidential, restricted", name);
}
