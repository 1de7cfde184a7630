/* bucket.h: a token bucket with lazy refill that keeps the fraction, and a burst that comes once
 * (as Firecracker's). */
#pragma once

#include "wire/sandbox.h"

enum { BUCKET_WAIT_MAX_US = 1000 * 1000 * 1000 };

struct bucket { /* serialisable but for last_us, which load sets anew */
    struct sandbox_rate rate;
    uint64_t tokens, burst;
    uint64_t debt;     /* taken beyond what was there; paid before anything else */
    uint64_t fraction; /* of a token, in units of 1 / refill period in us */
    int64_t last_us;   /* monotonic */
};

struct bucket bucket_of(const struct sandbox_rate *rate, int64_t now_us);
/* Takes count tokens, or none. One that asks for more than the bucket can ever hold gets them when
 * it is full, and owes the rest. */
bool bucket_take(struct bucket *bucket, uint64_t count, int64_t now_us);
/* What bucket_take gave and nobody used. */
void bucket_give_back(struct bucket *bucket, uint64_t count);
/* Microseconds until count tokens could be there; 0: now. Never more than BUCKET_WAIT_MAX_US, so
 * that it can be added to a time; who waited so long asks again. */
int64_t bucket_wait_us(const struct bucket *bucket, uint64_t count, int64_t now_us);

void bucket_save(const struct bucket *bucket, struct buffer *out);
/* What is there, into a bucket of its rate: a snapshot may be resumed under another limit. */
MUST_CHECK status bucket_load(struct bucket *bucket, struct cursor *from, int64_t now_us,
                              struct fault *fault);
