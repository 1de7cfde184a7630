#include "vmm/virtio/bucket.h"

__extension__ typedef unsigned __int128 wide; /* tokens x us do not fit 64 bits */

static bool unlimited(const struct bucket *bucket)
{
    return bucket->rate.size == 0 || bucket->rate.refill_ms == 0;
}

static uint64_t period_us(const struct bucket *bucket)
{
    return (uint64_t)bucket->rate.refill_ms * 1000;
}

struct bucket bucket_of(const struct sandbox_rate *rate, int64_t now_us)
{
    return (struct bucket){
        .rate = *rate,
        .tokens = rate->size,
        .burst = rate->one_time_burst,
        .last_us = now_us,
    };
}

static uint64_t elapsed_us(const struct bucket *bucket, int64_t now_us)
{
    return now_us > bucket->last_us ? (uint64_t)now_us - (uint64_t)bucket->last_us : 0;
}

/* Puts tokens in, debts first; what does not fit runs over. */
static void fill(struct bucket *bucket, wide tokens)
{
    uint64_t paid = tokens < bucket->debt ? (uint64_t)tokens : bucket->debt;
    bucket->debt -= paid;
    tokens -= paid;
    uint64_t room = bucket->rate.size - bucket->tokens;
    bucket->tokens += tokens < room ? (uint64_t)tokens : room;
}

static void refill(struct bucket *bucket, int64_t now_us)
{
    wide parts = (wide)elapsed_us(bucket, now_us) * bucket->rate.size + bucket->fraction;
    if (now_us > bucket->last_us)
        bucket->last_us = now_us;
    fill(bucket, parts / period_us(bucket));
    bucket->fraction = bucket->tokens < bucket->rate.size
        ? (uint64_t)(parts % period_us(bucket)) : 0;
}

bool bucket_take(struct bucket *bucket, uint64_t count, int64_t now_us)
{
    if (unlimited(bucket))
        return true;
    refill(bucket, now_us);
    if (bucket->debt)
        return false;
    uint64_t of_burst = count < bucket->burst ? count : bucket->burst;
    uint64_t rest = count - of_burst;
    bool full = bucket->tokens == bucket->rate.size;
    if (rest > bucket->tokens && !full)
        return false;
    bucket->burst -= of_burst;
    bucket->debt = rest > bucket->tokens ? rest - bucket->tokens : 0;
    bucket->tokens -= rest - bucket->debt;
    return true;
}

void bucket_give_back(struct bucket *bucket, uint64_t count)
{
    if (!unlimited(bucket))
        fill(bucket, count);
}

int64_t bucket_wait_us(const struct bucket *bucket, uint64_t count, int64_t now_us)
{
    if (unlimited(bucket))
        return 0;
    uint64_t rest = count > bucket->burst ? count - bucket->burst : 0;
    uint64_t wanted = rest < bucket->rate.size ? rest : bucket->rate.size;
    if (bucket->debt == 0 && wanted <= bucket->tokens)
        return 0;
    wide missing = (wide)bucket->debt + wanted - bucket->tokens;
    wide parts = missing * period_us(bucket) - bucket->fraction;
    wide us = (parts + bucket->rate.size - 1) / bucket->rate.size;
    uint64_t passed = elapsed_us(bucket, now_us);
    if (us <= passed)
        return 0;
    return us - passed < BUCKET_WAIT_MAX_US ? (int64_t)(us - passed) : BUCKET_WAIT_MAX_US;
}

void bucket_save(const struct bucket *bucket, struct buffer *out)
{
    buffer_put_u64(out, bucket->tokens);
    buffer_put_u64(out, bucket->burst);
    buffer_put_u64(out, bucket->debt);
}

status bucket_load(struct bucket *bucket, struct cursor *from, int64_t now_us, struct fault *fault)
{
    uint64_t tokens, burst, debt;
    TRY(cursor_u64(&tokens, from, fault));
    TRY(cursor_u64(&burst, from, fault));
    TRY(cursor_u64(&debt, from, fault));
    const struct sandbox_rate *rate = &bucket->rate;
    bucket->tokens = tokens < rate->size ? tokens : rate->size;
    bucket->burst = burst < rate->one_time_burst ? burst : rate->one_time_burst;
    bucket->debt = debt;
    bucket->fraction = 0;
    bucket->last_us = now_us;
    return OK;
}
