/* denial.c: what was refused: counted for /metrics, and told to control for the platform's ledger,
 * one message a second at most, with a sample of who it was: a hash under a key of this process. */
#define _GNU_SOURCE
#include "gateway/state.h"
#include "wire/messages.h"

#include <netinet/in.h>
#include <sys/socket.h>

enum { TELL_EVERY_US = 1000 * 1000 };

static const char *const names[DENIAL_COUNT] = {
    [DENIAL_NO_TOKEN] = "no_token",
    [DENIAL_TENANT_UNKNOWN] = "tenant_unknown",
    [DENIAL_TENANT_OTHER] = "tenant_other",
    [DENIAL_PAUSED] = "tenant_paused",
    [DENIAL_SCOPE] = "scope",
    [DENIAL_POLICY] = "policy",
};

const char *denial_name(uint32_t denial)
{
    if (denial >= DENIAL_COUNT)
        return "unknown";
    return names[denial] ? names[denial] : token_reason_name((enum token_reason)denial);
}

static void take_sample(uint8_t ret[HASH_BYTES], const struct denials *denials, int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } address = {0};
    socklen_t length = sizeof address;
    struct span bytes = {0};
    if (getpeername(fd, &address.any, &length))
        address.any.sa_family = AF_UNSPEC;
    if (address.any.sa_family == AF_INET)
        bytes = (struct span){(const uint8_t *)&address.four.sin_addr,
                              sizeof address.four.sin_addr};
    else if (address.any.sa_family == AF_INET6)
        bytes = SPAN_OF(address.six.sin6_addr.s6_addr);
    hash_keyed(ret, SPAN_OF(denials->key), bytes);
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

void denial_count(struct connection *connection, uint32_t denial)
{
    struct gateway *gateway = connection->gateway;
    struct denials *denials = &gateway->denials;
    if (denial >= DENIAL_COUNT)
        denial = DENIAL_NO_TOKEN;
    stats_add(&gateway->stats->denied[denial], 1);
    if (denials->pending[denial] == 0)
        take_sample(denials->samples[denial], denials, connection->fd);
    if (denials->pending[denial] < UINT32_MAX)
        denials->pending[denial]++;
    if (denials->timer.due_us == 0)
        gateway_timer(gateway, &denials->timer, TELL_EVERY_US, on_time, gateway);
}

void denials_stop(struct gateway *gateway)
{
    loop_timer_stop(gateway->loop, &gateway->denials.timer);
}
