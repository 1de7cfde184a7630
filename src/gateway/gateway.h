/* gateway.h: the HTTP front of a node: strict requests in, decided on early, relayed to the one
 * cell that may see them. For main and for tests.
 *
 * It trusts control and the supervisor to be honest but not to be there; clients and cells not at
 * all. One thread. docs/protocols.md has the messages. */
#pragma once

#include "base/loop.h"
#include "base/stats.h"
#include "crypt/sign.h"
#include "crypt/tls.h"
#include "gateway/address.h"
#include "wire/ipc.h"

struct gateway;

struct gateway_start { /* the START of the supervisor; the descriptors are the holder's */
    uint32_t index, gateways;
    uint8_t platform_key[SIGN_PUBLIC_BYTES], issuer_key[SIGN_PUBLIC_BYTES];
    bool tls;
    char domain[HOST_NAME_TEXT]; /* NAME.domain is the tenant NAME; "": no host names one so */
    char region[TENANT_NAME_MAX + 1]; /* of this node; "": any */
    bool tenant_labels;          /* in /metrics */
    uint32_t connections_per_address; /* 0: no cap */
    struct address_range proxies[TRUSTED_PROXIES_MAX];
    uint32_t proxy_count;
    int listener, control, stats, ops; /* ops: -1 but for gateway 0 */
};

/* Takes the descriptors out of the message. BAD_REQUEST, TRUNCATED when it is no START. */
MUST_CHECK status gateway_start_get(struct gateway_start *ret, struct ipc_message *message,
                                    struct fault *fault);
void gateway_start_close(struct gateway_start *start); /* what was not taken */

/* GATEWAY_TLS: puts the new certificate and key, if there are any and they fit, in place of *server
 * (NULL at first; the caller's), and the ticket keys into it; answers the supervisor, which logs. A
 * pair that was refused is no failure: *server stays, NULL when it was. BAD_REQUEST, TRUNCATED when
 * the message is none, CLOSED without a supervisor. Wipes the message's body. tls_warm_up first. */
MUST_CHECK status gateway_tls_take(struct tls_server **server, int supervisor,
                                   struct ipc_message *message, struct fault *fault);

/* What must be loaded from files before the jail closes; what TLS needs, where start wants it.
 * After crypt_start. */
MUST_CHECK status gateway_warm_up(const struct gateway_start *start, struct fault *fault);

/* Takes start's listener, control and ops on success; stats and supervisor are borrowed and
 * outlive it. crypt_start first. The loop then serves; it is stopped when the gateway has ended. */
MUST_CHECK status gateway_create(struct gateway **ret, struct loop *loop, int supervisor,
                                 struct gateway_start *start, struct stats_page *stats,
                                 struct fault *fault);
struct gateway *gateway_free(struct gateway *gateway); /* NULL; takes NULL */

/* With TLS, before READY: what came straight after START. Until it holds a pair that fits, every
 * client is closed. */
MUST_CHECK status gateway_on_tls(struct gateway *gateway, struct ipc_message *message,
                                 struct fault *fault);

/* After the loop stopped: OK when STOP asked for it. AGAIN while it serves. */
MUST_CHECK status gateway_outcome(const struct gateway *gateway, struct fault *fault);
