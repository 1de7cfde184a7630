/* quota.h: how often. The cell decides by these, the gateway sheds by them.
 *
 * A rate is a token bucket that holds one second's worth: in no stretch of time are more than
 * per_second x stretch + per_second requests granted. All in whole numbers, exact however many
 * calls share one turn. Times: monotonic microseconds, handed in. A time that lies a little back
 * (a caller's older reading) counts as the newest one seen; one that lies back more than a second
 * starts the count there without a gift. */
#pragma once

#include "authz/charter.h"

struct rate { /* zeroed: unlimited */
    uint64_t per_second; /* 0: unlimited */
    uint64_t credit;     /* millionths of a request */
    int64_t at_us;       /* up to when credit was given */
};

/* A new one is full; one that has another limit keeps what it has, within the new one. */
void rate_set(struct rate *rate, uint64_t per_second, int64_t now_us);

/* QUOTA_EXCEEDED names the quota ("requests_per_second"); only then retry_after is set: whole
 * seconds, at least 1. Nothing is taken then. */
MUST_CHECK status rate_take(struct rate *rate, int64_t now_us, const char *quota,
                            uint32_t *retry_after, struct fault *fault);

/* One rate a user, for a bounded number of users at once. A bucket is forgotten only when it is
 * full again, when to forget it gives nothing to anybody: so a flood of users buys no user a
 * second bucket. Where all of the table is in use, a user that is not in it is refused for the
 * second that it takes at most: those in it are not touched. Users are known by a keyed hash. */
struct user_rates;

enum { USER_RATES_MAX = 4096 };

/* Small: the table (some 200 KiB) is allocated at the first user that has a limit. */
MUST_CHECK status user_rates_create(struct user_rates **ret, struct fault *fault);
struct user_rates *user_rates_free(struct user_rates *rates); /* NULL; takes NULL */

/* per_second: the present limit of every user; 0: none. Ask it before the tenant's own rate, so
 * that a user beyond its limit uses up nothing of the others'. */
MUST_CHECK status user_rates_take(struct user_rates *rates, uint64_t per_second, struct span user,
                                  int64_t now_us, uint32_t *retry_after, struct fault *fault);
uint32_t user_rates_count(const struct user_rates *rates); /* users in the table */
