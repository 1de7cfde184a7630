/* options.h: what `bulkhead serve` was told: the command line, then the configuration file under
 * it. */
#pragma once

#include "base/limits.h"
#include "base/span.h"
#include "base/status.h"
#include "supervisor/network.h"

#include <limits.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

struct options_address {
    struct sockaddr_storage socket;
    socklen_t length;
    char text[64]; /* as given: "127.0.0.1:7117" */
};

struct options {
    char data[PATH_MAX], keys[PATH_MAX];
    struct options_address listen, ops;
    char tls_cert[PATH_MAX], tls_key[PATH_MAX]; /* both or neither */
    char prices[PATH_MAX]; /* "": no money is shown */
    char domain[HOST_NAME_TEXT]; /* "": no host under it names a tenant */
    char region[TENANT_NAME_MAX + 1]; /* of this node; "": any */
    bool behind_proxy, tenant_labels;
    struct network_range proxies[TRUSTED_PROXIES_MAX]; /* whose X-Forwarded-* is believed */
    uint32_t proxy_count;
    uint32_t connections_per_address; /* 0: no cap */
    uint32_t idle_seconds, blank_cells, gateways, uid_base, cell_memory_mib;
    uint32_t sandbox_boot_seconds; /* until a guest's agent dials; a probe has twice that */
};

bool options_speak_tls(const struct options *options);

/* BAD_FIELD naming the option or the member of the file, and what is allowed. */
MUST_CHECK status options_read(struct options *ret, int argc, char **argv, struct fault *fault);

/* One member of a configuration file's text over the defaults already in options; for tests and
 * fuzzing too. Unknown members are refused. */
MUST_CHECK status options_from_json(struct options *options, struct span text, struct fault *fault);

/* "ADDR:PORT" or "[V6]:PORT"; numeric only. */
MUST_CHECK status options_address(struct options_address *ret, const char *text, const char *name,
                                  struct fault *fault);
bool options_is_loopback(const struct options_address *address);
