/* denial.c: what was refused: counted for /metrics, and told to control for the platform's ledger,
 * one message a second at most, with a sample of who it was: a hash under a key of this process. */
#include "gateway/state.h"
#include "wire/messages.h"

enum { TELL_EVERY_US = 1000 * 1000 };

static const char *const names[DENIAL_COUNT] = {
    [DENIAL_NO_TOKEN] = "no_token",
    [DENIAL_TENANT_UNKNOWN] = "tenant_unknown",
    [DENIAL_TENANT_OTHER] = "tenant_other",
    [DENIAL_PAUSED] = "tenant_paused",
    [DENIAL_SCOPE] = "scope",
    [DENIAL_POLICY] = "policy",
    [DENIAL_REVOKED] = "revoked",
    [DENIAL_BAD_CHARTER] = "bad_charter",
    [DENIAL_HOST] = "host",
    [DENIAL_REGION] = "region",
    [DENIAL_QUOTA] = "quota",
    [DENIAL_FLOOD] = "flood",
    [DENIAL_ADDRESS_CAP] = "address_cap",
};

const char *denial_name(uint32_t denial)
{
    if (denial >= DENIAL_COUNT)
        return "unknown";
    return names[denial] ? names[denial] : token_reason_name((enum token_reason)denial);
}

static void take_sample(uint8_t ret[HASH_BYTES], const struct denials *denials,
                        struct address address)
{
    hash_keyed(ret, SPAN_OF(denials->key),
               (struct span){address.bytes, address.family == 4 ? 4 : sizeof address.bytes});
}

static bool tell_one(struct gateway *gateway)
{
    struct denials *denials = &gateway->denials;
    for (uint32_t i = 0; i < DENIAL_COUNT; i++) {
        uint32_t denial = (denials->next + i) % DENIAL_COUNT;
        if (denials->pending[denial] == 0)
            continue;
        uint8_t storage[64];
        struct buffer body = buffer_over(storage, sizeof storage);
        buffer_put_u8(&body, (uint8_t)denial);
        buffer_put_u32(&body, denials->pending[denial]);
        buffer_put(&body, SPAN_OF(denials->samples[denial]));
        control_tell(gateway, MESSAGE_DENIED, buffer_span(&body));
        denials->pending[denial] = 0;
        denials->next = denial + 1;
        return true;
    }
    return false;
}

static void on_time(void *context)
{
    struct gateway *gateway = context;
    if (tell_one(gateway))
        gateway_timer(gateway, &gateway->denials.timer, TELL_EVERY_US, on_time, gateway);
}

void denial_count_peer(struct gateway *gateway, struct address address, uint32_t denial)
{
    struct denials *denials = &gateway->denials;
    if (denial >= DENIAL_COUNT)
        denial = DENIAL_NO_TOKEN;
    stats_add(&gateway->stats->denied[denial], 1);
    if (denials->pending[denial] == 0)
        take_sample(denials->samples[denial], denials, address);
    if (denials->pending[denial] < UINT32_MAX)
        denials->pending[denial]++;
    if (denials->timer.due_us == 0)
        gateway_timer(gateway, &denials->timer, TELL_EVERY_US, on_time, gateway);
}

void denial_count(struct exchange *exchange, uint32_t denial)
{
    denial_count_peer(exchange->connection->gateway, exchange->address, denial);
}

void denials_stop(struct gateway *gateway)
{
    loop_timer_stop(gateway->loop, &gateway->denials.timer);
}
