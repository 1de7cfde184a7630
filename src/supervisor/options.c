#define _GNU_SOURCE
#include "supervisor/options.h"

#include "base/cleanup.h"
#include "wire/json.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/stat.h>

enum {
    CONFIG_MAX = 64 * 1024,
    UID_BASE_DEFAULT = 700000000,
    CONNECTIONS_PER_ADDRESS_DEFAULT = 1024,
};

static const uint32_t UNSET = UINT32_MAX;

static const struct {
    const char *name;
    size_t offset;
    int64_t min, max;
} numbers[] = {
    {"idle_seconds", offsetof(struct options, idle_seconds), 1, 24 * 3600},
    {"blank_cells", offsetof(struct options, blank_cells), 1, 256},
    {"gateways", offsetof(struct options, gateways), 1, GATEWAYS_MAX},
    {"uid_base", offsetof(struct options, uid_base), 1000, 4000000000},
    {"cell_memory_mib", offsetof(struct options, cell_memory_mib), 16, 1024 * 1024},
    {"sandbox_boot_seconds", offsetof(struct options, sandbox_boot_seconds), 1, 600},
    {"connections_per_address", offsetof(struct options, connections_per_address), 0, 1000000},
};

/* By inet_pton: getaddrinfo would read "1.2.3" as an address too. */
static bool numeric_address(struct options_address *ret, const char *host, uint16_t port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
        memcpy(&ret->socket, &v4, sizeof v4);
        ret->length = sizeof v4;
    } else if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
        memcpy(&ret->socket, &v6, sizeof v6);
        ret->length = sizeof v6;
    }
    return ret->length > 0;
}

/* 0 when text is no port. */
static uint16_t port_of(const char *text)
{
    uint32_t port = 0;
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9' || port > 65535)
            return 0;
        port = 10 * port + (uint32_t)(text[i] - '0');
    }
    return port > 65535 ? 0 : (uint16_t)port;
}

status options_address(struct options_address *ret, const char *text, const char *name,
                       struct fault *fault)
{
    struct options_address address = {0};
    char host[64];
    const char *colon = strrchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : 0;
    bool bracketed = length > 2 && text[0] == '[' && text[length - 1] == ']';
    struct span inner = {(const uint8_t *)text + bracketed, length - 2 * (size_t)bracketed};
    uint16_t port = colon ? port_of(colon + 1) : 0;
    if (port == 0 || strlen(text) >= sizeof address.text || !span_to_text(host, sizeof host, inner)
        || !numeric_address(&address, host, port))
        return FAIL(BAD_FIELD, fault, "%s: \"%.80s\" is not ADDRESS:PORT in numbers, such as "
                    "127.0.0.1:7117 or [::1]:7117", name, text);
    span_to_text(address.text, sizeof address.text, span_of_text(text));
    *ret = address;
    return OK;
}

bool options_is_loopback(const struct options_address *address)
{
    if (address->socket.ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address->socket;
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    }
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address->socket;
    return address->socket.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static status text_member(char *ret, size_t size, const struct json *object, const char *name,
                          struct fault *fault)
{
    struct span text = {0};
    TRY(json_optional_text(&text, object, name, 1, size - 1, fault));
    if (text.data && !span_to_text(ret, size, text))
        return FAIL(BAD_FIELD, fault, "%s: holds a NUL byte", name);
    return OK;
}

static status address_member(struct options_address *ret, const struct json *object,
                             const char *name, struct fault *fault)
{
    char text[64] = "";
    TRY(text_member(text, sizeof text, object, name, fault));
    return text[0] ? options_address(ret, text, name, fault) : OK;
}

static status set_region(struct options *options, const char *text, const char *name,
                         struct fault *fault)
{
    if (!network_is_label(span_of_text(text)))
        return FAIL(BAD_FIELD, fault, "%s: \"%.80s\" is no label: at most %d of a-z, 0-9 and -",
                    name, text, TENANT_NAME_MAX);
    span_to_text(options->region, sizeof options->region, span_of_text(text));
    return OK;
}

static status set_domain(struct options *options, const char *text, const char *name,
                         struct fault *fault)
{
    const size_t tenant_and_dot = TENANT_NAME_MAX + 1;
    struct span domain = span_of_text(text);
    if (domain.length >= sizeof options->domain - tenant_and_dot || !network_is_domain(domain))
        return FAIL(BAD_FIELD, fault, "%s: \"%.80s\" is no domain in lower case such as "
                    "example.com", name, text);
    span_to_text(options->domain, sizeof options->domain, domain);
    return OK;
}

static status add_proxy(struct options *options, const char *text, const char *name,
                        struct fault *fault)
{
    if (options->proxy_count == TRUSTED_PROXIES_MAX)
        return FAIL(BAD_FIELD, fault, "%s: more than %d", name, (int)TRUSTED_PROXIES_MAX);
    TRY(network_range(&options->proxies[options->proxy_count], text, name, fault));
    options->proxy_count++;
    return OK;
}

static status network_members(struct options *options, const struct json *config,
                              struct fault *fault)
{
    char text[HOST_NAME_TEXT] = "";
    TRY(text_member(text, sizeof text, config, "domain", fault));
    if (text[0])
        TRY(set_domain(options, text, "domain", fault));
    text[0] = '\0';
    TRY(text_member(text, sizeof text, config, "region", fault));
    if (text[0])
        TRY(set_region(options, text, "region", fault));
    const struct json *proxies = json_member(config, "trusted_proxies");
    if (!proxies)
        return OK;
    if (proxies->kind != JSON_ARRAY)
        return FAIL(BAD_FIELD, fault, "trusted_proxies: must be an array of addresses and ranges");
    for (uint32_t i = 0; i < proxies->count; i++) {
        const struct json *item = &proxies->items[i];
        if (item->kind != JSON_STRING || !span_to_text(text, sizeof text, item->string))
            return FAIL(BAD_FIELD, fault, "trusted_proxies: must be an array of addresses and "
                        "ranges");
        TRY(add_proxy(options, text, "trusted_proxies", fault));
    }
    return OK;
}

static status apply(struct options *options, const struct json *config, struct fault *fault)
{
    static const char *const known[] = {"data", "keys", "listen", "ops", "behind_proxy",
        "idle_seconds", "blank_cells", "gateways", "uid_base", "cell_memory_mib", "tls_cert",
        "tls_key", "domain", "region", "trusted_proxies", "connections_per_address",
        "tenant_labels", "prices", "sandbox_boot_seconds", NULL};
    TRY(json_need_object(config, "configuration", fault));
    TRY(json_only(config, known, fault));
    TRY(text_member(options->data, sizeof options->data, config, "data", fault));
    TRY(text_member(options->keys, sizeof options->keys, config, "keys", fault));
    TRY(address_member(&options->listen, config, "listen", fault));
    TRY(address_member(&options->ops, config, "ops", fault));
    TRY(text_member(options->tls_cert, sizeof options->tls_cert, config, "tls_cert", fault));
    TRY(text_member(options->tls_key, sizeof options->tls_key, config, "tls_key", fault));
    TRY(text_member(options->prices, sizeof options->prices, config, "prices", fault));
    TRY(json_optional_bool(&options->behind_proxy, config, "behind_proxy", fault));
    TRY(json_optional_bool(&options->tenant_labels, config, "tenant_labels", fault));
    TRY(network_members(options, config, fault));
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        uint32_t *number = (uint32_t *)((char *)options + numbers[i].offset);
        int64_t value = *number;
        TRY(json_optional_integer(&value, config, numbers[i].name, numbers[i].min,
                                  numbers[i].max, fault));
        *number = (uint32_t)value;
    }
    return OK;
}

status options_from_json(struct options *options, struct span text, struct fault *fault)
{
    struct arena arena = arena_of(4 * CONFIG_MAX);
    struct options copy = *options;
    struct json config;
    status result = json_parse(&config, &arena, text, fault);
    if (result == OK)
        result = apply(&copy, &config, fault);
    if (result == OK)
        *options = copy;
    arena_free(&arena);
    return result;
}

static status read_config(struct options *options, const char *path, struct fault *fault)
{
    static uint8_t bytes[CONFIG_MAX + 1];
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return FAIL(BAD_FIELD, fault, "--config: %.100s: %s", path, strerror(errno));
    size_t length = 0;
    ssize_t count;
    while (length < sizeof bytes && (count = read(fd, bytes + length, sizeof bytes - length)) > 0)
        length += (size_t)count;
    if (length > CONFIG_MAX)
        return FAIL(BAD_FIELD, fault, "--config: longer than %d bytes", CONFIG_MAX);
    struct fault inner;
    status result = options_from_json(options, (struct span){bytes, length}, &inner);
    return result == OK ? OK : FAIL(result, fault, "--config: %.180s", inner.detail);
}

static status path_option(char ret[PATH_MAX], const char *name, const char *value,
                          struct fault *fault)
{
    if (value[0] == '\0' || !span_to_text(ret, PATH_MAX, span_of_text(value)))
        return FAIL(BAD_FIELD, fault, "%s: must be a path of 1 to %d bytes", name, PATH_MAX - 1);
    return OK;
}

static const struct option long_options[] = {
    {"data", required_argument, NULL, 'd'},        {"keys", required_argument, NULL, 'k'},
    {"listen", required_argument, NULL, 'l'},      {"ops", required_argument, NULL, 'o'},
    {"config", required_argument, NULL, 'c'},      {"behind-proxy", no_argument, NULL, 'p'},
    {"tls-cert", required_argument, NULL, 't'},    {"tls-key", required_argument, NULL, 'y'},
    {"domain", required_argument, NULL, 'm'},      {"region", required_argument, NULL, 'r'},
    {"trusted-proxy", required_argument, NULL, 'x'}, {"no-tenant-labels", no_argument, NULL, 'n'},
    {"prices", required_argument, NULL, 'e'},
    {"unsafe-no-jail", no_argument, NULL, 'u'},    {0}};

static status one_option(struct options *options, int option, const char *value,
                         struct fault *fault)
{
    switch (option) {
    case 'c': return OK; /* read before the others */
    case 'd': return path_option(options->data, "--data", value, fault);
    case 'k': return path_option(options->keys, "--keys", value, fault);
    case 'l': return options_address(&options->listen, value, "--listen", fault);
    case 'o': return options_address(&options->ops, value, "--ops", fault);
    case 'p': options->behind_proxy = true; return OK;
    case 't': return path_option(options->tls_cert, "--tls-cert", value, fault);
    case 'y': return path_option(options->tls_key, "--tls-key", value, fault);
    case 'e': return path_option(options->prices, "--prices", value, fault);
    case 'm': return set_domain(options, value, "--domain", fault);
    case 'r': return set_region(options, value, "--region", fault);
    case 'x': return add_proxy(options, value, "--trusted-proxy", fault);
    case 'n': options->tenant_labels = false; return OK;
    case 'u': return FAIL(NOT_IMPLEMENTED, fault, "--unsafe-no-jail: this version never runs "
                          "without the jail");
    default: return FAIL(BAD_FIELD, fault, "unknown option; see `bulkhead help serve`");
    }
}

static status defaults(struct options *ret, struct fault *fault)
{
    *ret = (struct options){.idle_seconds = IDLE_SECONDS_DEFAULT, .blank_cells = BLANK_CELLS,
                            .uid_base = UID_BASE_DEFAULT, .cell_memory_mib = 1024,
                            .sandbox_boot_seconds = SANDBOX_BOOT_SECONDS_DEFAULT,
                            .tenant_labels = true, .connections_per_address = UNSET};
    const char *data = getenv("BULKHEAD_DATA");
    TRY(path_option(ret->data, "BULKHEAD_DATA", data && *data ? data : "./bulkhead-data", fault));
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    ret->gateways = cores < 1 ? 1 : cores > GATEWAYS_MAX ? GATEWAYS_MAX : (uint32_t)cores;
    TRY(options_address(&ret->listen, "127.0.0.1:7117", "--listen", fault));
    return options_address(&ret->ops, "127.0.0.1:7118", "--ops", fault);
}

bool options_speak_tls(const struct options *options)
{
    return options->tls_cert[0] != '\0';
}

static status check_front(struct options *options, struct fault *fault)
{
    if (!options->tls_cert[0] != !options->tls_key[0])
        return FAIL(BAD_FIELD, fault, "--tls-cert and --tls-key: one without the other");
    if (options->proxy_count && !options->behind_proxy)
        return FAIL(BAD_FIELD, fault, "--trusted-proxy: only with --behind-proxy");
    if (options->connections_per_address == UNSET) /* all of a proxy's come from its address */
        options->connections_per_address =
            options->behind_proxy ? 0 : CONNECTIONS_PER_ADDRESS_DEFAULT;
    if (!options_is_loopback(&options->listen) && !options->behind_proxy
        && !options_speak_tls(options))
        return FAIL(BAD_FIELD, fault, "--listen %s: an address beyond this machine needs TLS "
                    "(--tls-cert, --tls-key) or, "
                    "where a proxy ends TLS, --behind-proxy", options->listen.text);
    return OK;
}

static status check(struct options *options, struct fault *fault)
{
    TRY(check_front(options, fault));
    if (!options_is_loopback(&options->ops))
        return FAIL(BAD_FIELD, fault, "--ops %s: must be a loopback address", options->ops.text);
    size_t length = strlen(options->data);
    while (length > 1 && options->data[length - 1] == '/')
        options->data[--length] = '\0';
    if (!options->keys[0]
        && snprintf(options->keys, sizeof options->keys, "%s.keys", options->data)
               >= (int)sizeof options->keys)
        return FAIL(BAD_FIELD, fault, "--data: the path is too long");
    struct span data = span_of_text(options->data), keys = span_of_text(options->keys);
    if (span_starts_with(keys, data)
        && (keys.length == data.length || keys.data[data.length] == '/'))
        return FAIL(BAD_FIELD, fault, "--keys: must not be inside --data: a copy of the data must "
                    "never hold its keys");
    return OK;
}

status options_read(struct options *ret, int argc, char **argv, struct fault *fault)
{
    struct options options;
    TRY(defaults(&options, fault));
    opterr = 0;
    for (int pass = 0; pass < 2; pass++) { /* the file first, the command line over it */
        int option;
        optind = 1;
        while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
            TRY(pass == 0 && option == 'c' ? read_config(&options, optarg, fault)
                : pass == 1 ? one_option(&options, option, optarg, fault) : OK);
    }
    if (optind < argc)
        return FAIL(BAD_FIELD, fault, "\"%.60s\": serve takes options only", argv[optind]);
    TRY(check(&options, fault));
    *ret = options;
    return OK;
}
